"""`hpcfit explain`: what is known of a kind of problem, and the list of the kinds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from hpcfit.errors import InputError, nearest
from hpcfit.kinds.table import kind_named, names
from hpcfit.log import in_columns


def run_explain(kind: str | None) -> None:
    """Print the README of a kind, or without one a line about each kind."""
    if kind is None:
        sys.stdout.write(kinds_in_lines())
        return
    _show(readme_of(kind).read_text(encoding="utf-8"))


def readme_of(kind: str) -> Path:
    """The README of a kind, which lies beside its config module. Raises InputError that names the nearest kind where
    there is none of this name, and where a package brings a kind without a README."""
    known = names()
    if kind not in known:
        raise InputError(
            f"there is no kind of problem '{kind}': {nearest(kind, known)}",
            remedy="`hpcfit explain` lists the kinds with a line about each",
        )
    package = kind_named(kind).package
    readme = Path(importlib.util.find_spec(package).origin).parent / "README.md"
    if not readme.is_file():
        raise InputError(f"the package of kind '{kind}' has no {readme}", remedy="ask who made the package")
    return readme


def kinds_in_lines() -> str:
    """A line a kind: its name, and what the table of kinds says of it."""
    return "".join(f"{line}\n" for line in in_columns([[name, kind_named(name).about] for name in names()]))


def _show(text: str) -> None:
    """Print markdown: set by rich on a terminal, as it is in a pipe."""
    if not sys.stdout.isatty():
        sys.stdout.write(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))
