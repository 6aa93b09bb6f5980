"""Public docstrings are sentences that stand alone: none begins as the end of another sentence would.

Seen is how a docstring begins, not whether it says what is true.
"""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.command import ROOT

PACKAGE = ROOT / "hpcfit"
FRAGMENT = re.compile(r"(Of|What|Where|Whether|The same|Which|How|When|Who)\b")
NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(node: ast.AST, name: str) -> Iterator[tuple[int, str, str]]:
    """(line, name, docstring) of a module, its public classes, functions and methods; not of functions in functions."""
    text = ast.get_docstring(node, clean=True)
    if text:
        yield node.body[0].lineno, name, text
    if isinstance(node, (ast.Module, ast.ClassDef)):
        for inner in node.body:
            if isinstance(inner, NAMED) and not inner.name.startswith("_"):
                yield from docstrings(inner, f"{name}.{inner.name}")


def fragments() -> Iterator[str]:
    """Give "path:line name: first line" of each docstring that does not stand alone."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, name, text in docstrings(ast.parse(path.read_text(encoding="utf-8")), path.stem):
            if FRAGMENT.match(text):
                first = text.partition("\n")[0]
                yield f"{path.relative_to(ROOT)}:{line} {name}: {first}"


def test_public_docstrings_stand_alone():
    found = list(fragments())
    assert not found, "\n".join(found)


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
