"""`hpcfit explain`: what is known of a kind of problem, and the list of the kinds."""

from __future__ import annotations

import sys
from pathlib import Path

import hpcfit
from hpcfit.errors import InputError, nearest


def run_explain(kind: str | None) -> None:
    """Print the README of a kind, or without one a line about each kind."""
    if kind is None:
        sys.stdout.write(kinds_in_lines())
        return
    _show(readme_of(kind).read_text(encoding="utf-8"))


def readmes() -> dict[str, Path]:
    """The README of each kind by the name of the kind."""
    folder = Path(hpcfit.__file__).parent / "kinds"
    return {path.parent.name.replace("_", "-"): path for path in sorted(folder.glob("*/README.md"))}


def readme_of(kind: str) -> Path:
    """The README of a kind. Raises InputError that names the nearest kind where there is none of this name."""
    found = readmes()
    if kind not in found:
        raise InputError(
            f"there is no kind of problem '{kind}': {nearest(kind, found)}",
            remedy="`hpcfit explain` lists the kinds with a line about each",
        )
    return found[kind]


def kinds_in_lines() -> str:
    """A line a kind: its name and the title of its README, which is "# NAME: title"."""
    titles = {kind: path.read_text(encoding="utf-8").partition("\n")[0] for kind, path in readmes().items()}
    width = max(map(len, titles))
    return "".join(f"{kind:{width}}  {title.partition(': ')[2]}\n" for kind, title in titles.items())


def _show(text: str) -> None:
    """Print markdown: set by rich on a terminal, as it is in a pipe."""
    if not sys.stdout.isatty():
        sys.stdout.write(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))
