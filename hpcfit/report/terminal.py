"""The tables of a page on the terminal."""

from __future__ import annotations

from markupsafe import Markup

from hpcfit.characters import in_one_line
from hpcfit.report.page import Table

WIDTH = 128  # columns that the widest table needs


def print_table(title: str, table: Table) -> None:
    """Print a table of a page with a title of its own in place of the caption; bars are left out."""
    from rich.console import Console
    from rich.table import Table as Lines

    console = Console()
    how = {"title_justify": "left", "title_style": "bold", "box": None, "padding": (0, 1), "pad_edge": False}
    lines = Lines(title=f"\n{title}", **how)
    for number, head in enumerate(table.head):
        lines.add_column(_plain(head), justify="left" if number < table.text_columns else "right", no_wrap=True)
    for row in table.rows:
        lines.add_row(*map(_plain, row))
    Console(width=max(console.width, WIDTH)).print(lines, markup=False)


def _plain(cell: str) -> str:
    return in_one_line(cell.striptags() if isinstance(cell, Markup) else cell)
