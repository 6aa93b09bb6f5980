"""Public docstrings are sentences that stand alone: none begins as the end of another sentence would.

Seen is how a docstring begins, not whether it says what is true.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import ROOT

PACKAGE = ROOT / "hpcfit"
FRAGMENT = re.compile(r"(Of|What|Where|Whether|The same|Which|How|When|Who)\b")
NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Rooms (folders of hpcfit, and folders of kinds) and files whose docstrings are yet to be rewritten. This list may only
# shrink: what has lost its last such docstring must leave it, and nothing may be added.
NOT_YET = {
    "commands/run.py",
    "commands/session.py",
    "config",
    "fit",
    "kinds",
    "report",
    "runs",
}


def places(path: Path) -> set[str]:
    """`fit` and `fit/loop.py` for hpcfit/fit/loop.py; `kinds/force_map` is the room of all that lies below it."""
    inside = path.relative_to(PACKAGE)
    folders = inside.parts[:-1]
    return {str(inside), "/".join(folders[:2] if folders[:1] == ("kinds",) else folders[:1])}


def docstrings(node: ast.AST, name: str) -> Iterator[tuple[int, str, str]]:
    """(line, name, docstring) of a module, its public classes, functions and methods; not of functions in functions."""
    text = ast.get_docstring(node, clean=True)
    if text:
        yield node.body[0].lineno, name, text
    if isinstance(node, (ast.Module, ast.ClassDef)):
        for inner in node.body:
            if isinstance(inner, NAMED) and not inner.name.startswith("_"):
                yield from docstrings(inner, f"{name}.{inner.name}")


def fragments() -> Iterator[tuple[set[str], str]]:
    """(places, "path:line name: first line") of each docstring that does not stand alone."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, name, text in docstrings(ast.parse(path.read_text(encoding="utf-8")), path.stem):
            if FRAGMENT.match(text):
                first = text.partition("\n")[0]
                yield places(path), f"{path.relative_to(ROOT)}:{line} {name}: {first}"


def test_public_docstrings_stand_alone():
    found = [words for where, words in fragments() if not where & NOT_YET]
    assert not found, "\n".join(found)


def test_the_list_of_rooms_only_shrinks():
    done = NOT_YET.difference(*(where for where, _ in fragments()))
    assert not done, f"remove from NOT_YET: {sorted(done)}"


@pytest.mark.parametrize(
    ("text", "stands"),
    [
        ("Of a block of frames, by its number.", False),
        ("The same of each block.", False),
        ("What came of it.", False),
        ("Offset of a curve, A.", True),
        ("Whenever a step ends, save.", True),
        ("The mean square force of each bead on each block, [B, N].", True),
    ],
)
def test_fragments_are_told_by_their_first_words(text, stands):
    module = ast.parse(f'def f():\n    """{text}"""\ndef _g():\n    """Of no concern."""')
    assert [bool(FRAGMENT.match(found)) for _, _, found in docstrings(module, "m")] == [not stands]
