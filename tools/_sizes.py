"""How large hpcfit is: lines of each sort by room, lengths of files and functions, small files, cycles."""

import ast
import math
import statistics
from collections import Counter
from collections.abc import Iterator

from _cycles import cycles
from _source import Module, Source, docstring, importers

SORTS = ("code", "blank", "docstrings", "comments", "imports")
SMALL = 80  # lines; a file below that has to have more than one importer, or a reason


def room_of(path: str) -> str:
    """`hpcfit/store/shard.py` -> `data`; of kinds the folder below it; a file at the top is in `(top)`."""
    folders = path.split("/")[1:-1]
    return "/".join(folders[: 2 if folders[0] in ("kinds", "cases") else 1]) if folders else "(top)"


def sorts(module: Module) -> Counter[str]:
    """How many lines are of each sort. A line is of one sort: docstrings and imports with all their lines."""
    found = dict.fromkeys(range(1, len(module.text.splitlines()) + 1), "code")
    texts = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant | ast.JoinedStr):
            texts.update(range(node.lineno, node.end_lineno + 1))
    for number, line in enumerate(module.text.splitlines(), start=1):
        if number not in texts and not line.strip():
            found[number] = "blank"
        elif number not in texts and line.lstrip().startswith("#"):
            found[number] = "comments"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.update(dict.fromkeys(_lines(node), "imports"))
        if text := docstring(node):
            found.update(dict.fromkeys(_lines(text), "docstrings"))
    return Counter(found.values())


def _lines(node: ast.stmt) -> range:
    return range(node.lineno, node.end_lineno + 1)


def function_lengths(module: Module) -> Iterator[int]:
    """Lines of each function, from its def to its end, without its docstring."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            text = docstring(node)
            yield len(_lines(node)) - (len(_lines(text)) if text else 0)


def small_with_one_importer(source: Source, graph: dict[str, set[str]]) -> dict[str, str]:
    """Module -> its only importer, of those that are small; a folder's __init__.py and __main__.py are not counted."""
    return {
        name: others[0]
        for name, others in importers(graph).items()
        if len(others) == 1
        and len(source.modules[name].text.splitlines()) < SMALL
        and not source.modules[name].path.endswith(("/__init__.py", "/__main__.py"))
    }


def spread(lengths: list[int]) -> str:
    """Median and ninth decile; a decile is the smallest length that so many do not exceed."""
    if not lengths:
        return "none"
    ordered = sorted(lengths)
    q90 = ordered[math.ceil(0.9 * len(ordered)) - 1]
    return f"median {statistics.median(ordered):g}, q90 {q90}, longest {ordered[-1]}"


def table(source: Source) -> Iterator[str]:
    """A line a room and one of all, widths aligned."""
    rooms: dict[str, Counter[str]] = {}
    for module in source.modules.values():
        counts = sorts(module)
        for room in (room_of(module.path), "all"):
            rooms.setdefault(room, Counter()).update(counts | Counter(modules=1, lines=counts.total()))
    yield f"{'room':24s}" + "".join(f"{name:>11s}" for name in ("modules", "lines", *SORTS))
    for room in sorted(rooms, key=lambda name: (name == "all", name)):
        yield f"{room:24s}" + "".join(f"{rooms[room][name]:11d}" for name in ("modules", "lines", *SORTS))


def sizes(source: Source) -> Iterator[str]:
    """The whole page, line by line. Lengths of files are of those that are not a folder's __init__.py."""
    modules, graph = source.modules.values(), source.graph()
    yield from table(source)
    files = [len(m.text.splitlines()) for m in modules if not m.path.endswith("/__init__.py")]
    functions = [length for module in modules for length in function_lengths(module)]
    small = small_with_one_importer(source, graph)
    found = cycles(graph)
    yield ""
    yield f"lines of {len(files)} files: {spread(files)}"
    yield f"lines of {len(functions)} functions without docstring: {spread(functions)}"
    yield f"modules under {SMALL} lines with one importer: {len(small)}"
    yield f"cycles of files: {len(found)}"
    yield from (f"  {' -> '.join(cycle)}" for cycle in found)
