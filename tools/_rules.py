"""The rules of hpcfit's layout. Each gives its violations as (path, line, reason); a reason names no line."""

import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from _cycles import cycles
from _sizes import SMALL, small_with_one_importer
from _source import TABLE, Import, Module, Source

# Rooms, top to bottom; imports go down. Those in one row may import each other, one kind no other one.
ROWS = (
    ("__main__",),
    ("cli",),
    ("commands",),
    ("sweep", "scaling"),
    ("kinds/table",),
    ("kinds/*",),
    ("kinds/base", "kinds"),  # "kinds" is kinds/__init__.py itself
    ("prepare",),
    ("simulation",),
    ("workflow",),
    ("report",),
    ("runs",),
    ("bead_models", "energies", "observables"),
    ("fit",),
    ("statistics",),
    ("readers",),
    ("store",),
    ("physics",),
    # "": hpcfit/__init__.py
    ("config", "ranks", "machine", "progress", "pytrees", "launcher", "log", "errors", "characters", ""),
)
HEIGHT = {room: len(ROWS) - row for row, rooms in enumerate(ROWS) for room in rooms}
# Beside the rows. It knows what is below the kinds; of hpcfit only one file knows it.
BESIDE, KNOWS_BESIDE = "testsystems", "hpcfit/commands/init.py"
# Library: the files that may import it.
HOMES = {
    "mpi4py": ("hpcfit/ranks.py",),
    **dict.fromkeys(("dask", "distributed", "dask_jobqueue", "bokeh"), ("hpcfit/workflow/*",)),
    "openmm": (
        *("hpcfit/physics/openmm_library.py", "hpcfit/testsystems/*"),
        *("hpcfit/readers/topology.py", "hpcfit/kinds/force_map/constraints.py"),
        "hpcfit/kinds/force_map/virtual_sites.py",
    ),
    "h5py": (
        *("hpcfit/store/*", "hpcfit/readers/*", "hpcfit/runs/*"),
        *("hpcfit/fit/checkpoint.py", "hpcfit/fit/checkpoint/*", "hpcfit/kinds/*/outputs.py"),
    ),
}
# Files that are imported before it is known what a command needs: what they may import beside the standard library.
LIGHT = {
    **dict.fromkeys(
        ("hpcfit/kinds/*config.py", "hpcfit/config/observables/*"), ("hpcfit.config", "hpcfit.errors", "pydantic")
    ),
    **dict.fromkeys(
        (
            f"hpcfit/{room}/{name}"
            for room in ("commands", "sweep", "scaling", "workflow/jobs")
            for name in ("options.py", "*_options.py")
        ),
        ("cyclopts", "hpcfit.characters", "hpcfit.errors"),
    ),
}
KIND_NAMES = {"frame-weights", "force-map", "force-field", "frame_weights", "force_map", "force_field"}
PLAIN_KINDS = {"structure", "clusters"}  # also words for other things: kinds only where a `.kind` is compared
# Files that the layout asks for by name, however small they are.
ASKED_FOR = re.compile(
    r"hpcfit\.(\w+|kinds\.(base|table)|kinds\.\w+(\.\w+)?\.(config|case|problem|study|outputs|report|figures))"
)


class Violation(NamedTuple):
    path: str
    line: int
    reason: str


def violations(source: Source, small_allowed: set[str], words_allowed: set[tuple[str, str]]) -> list[Violation]:
    """Everything that is wrong, sorted. small_allowed: paths of small files with one importer that have a reason;
    words_allowed: (path, word) of words that name a kind or a metric elsewhere, and something else there."""
    found = {Violation(path, line, f"does not parse: {message}") for path, line, message in source.broken}
    for module in source.modules.values():
        if room_of(module.name) not in HEIGHT.keys() | {BESIDE}:
            found.add(Violation(module.path, 1, f"{module.name} is in no room: enter it in tools/_rules.py"))
            continue
        for one in source.imports(module):
            reason = objection(module, one, source)
            if reason:
                found.add(Violation(module.path, one.line, f"imports {one.module}: {reason}"))
    found.update(
        Violation(path, line, reason)
        for path, line, word, reason in names_of_kinds(source)
        if (path, word) not in words_allowed
    )
    found.update(violated_cycles(source))
    found.update(unexplained_small(source, small_allowed))
    return sorted(found)


def room_of(name: str) -> str:
    """`hpcfit.fit.loop` -> `fit`; a kind's own modules are in `kinds/*`, `hpcfit` in the empty name."""
    room, *below = [*name.split(".")[1:], ""][:2]
    if room == "kinds" and below[0]:
        return f"kinds/{below[0]}" if below[0] in ("table", "base") else "kinds/*"
    return room


def kind_of(name: str) -> str | None:
    """`hpcfit.kinds.force_map.case` -> `force_map`; None outside of a kind's folder."""
    return name.split(".")[2] if room_of(name) == "kinds/*" else None


def in_kinds(name: str) -> bool:
    return name.split(".")[1:2] == ["kinds"]


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def objection(module: Module, one: Import, source: Source) -> str | None:
    """Why this import is wrong; None if it is not."""
    ours = one.module.partition(".")[0] == "hpcfit"
    return _too_heavy(module, one) or (_wrong_room(module, one.module, source) if ours else _not_at_home(module, one))


def _not_at_home(module: Module, one: Import) -> str | None:
    library = one.module.partition(".")[0]
    homes = HOMES.get(library)
    if homes is None or matches(module.path, homes):
        return None
    return f"{library} belongs to {', '.join(home.removeprefix('hpcfit/') for home in homes)} alone"


def _too_heavy(module: Module, one: Import) -> str | None:
    """What a module of options or of a kind's config imports for types only costs nothing; another such module is held
    to the same."""
    for pattern, allowed in LIGHT.items():
        if not matches(module.path, (pattern,)) or one.typing:
            continue
        if matches(f"{one.module.replace('.', '/')}.py", (pattern,)):
            continue
        standard = one.module.partition(".")[0] in sys.stdlib_module_names
        if not standard and not any(f"{one.module}.".startswith(f"{name}.") for name in allowed):
            return f"it may import {', '.join(allowed)} and the standard library only"
    return None


def _wrong_room(module: Module, target: str, source: Source) -> str | None:
    room, other = room_of(module.name), room_of(target)
    if other not in HEIGHT.keys() | {BESIDE}:
        return f"{target} is in no room: enter it in tools/_rules.py"
    if module.name == TABLE and not source.holds(target):
        return "there is no such module"
    if room == other:
        return None if kind_of(module.name) == kind_of(target) else "one kind does not know another"
    if other == BESIDE:
        return None if module.path == KNOWS_BESIDE else f"only {KNOWS_BESIDE}, tests and tools know {BESIDE}"
    if room == BESIDE:
        return None if HEIGHT[other] < HEIGHT["kinds/base"] else f"{BESIDE} knows only what is below the kinds"
    if other == "kinds/*" and room != "kinds/table":
        return "only kinds/table and the kind itself know a kind's folder"
    if HEIGHT[other] > HEIGHT[room]:
        return f"imports go down only, and {other} is above {room or 'hpcfit itself'}"
    return None


def table_metrics(source: Source) -> set[str]:
    """The metrics that the entries of the table of kinds name in `metrics`; all kinds share `loss`."""
    if TABLE not in source.modules:
        return set()
    values = []
    for node in ast.walk(source.modules[TABLE].tree):
        if isinstance(node, ast.keyword) and node.arg == "metrics":
            values.append(node.value)
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values)
            values += [value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "metrics"]
    return {name for value in values for name in _names_in(value)} - {"loss"}


def _names_in(value: ast.expr) -> Iterator[str]:
    """Texts of a tuple, list or set, keys of a dict, and the first argument of calls: Metric("cc", ...)."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
        return
    items = value.args[:1] if isinstance(value, ast.Call) else getattr(value, "keys", getattr(value, "elts", ()))
    for item in filter(None, items):
        yield from _names_in(item)


def names_of_kinds(source: Source) -> Iterator[tuple[str, int, str, str]]:
    """(path, line, word, reason) of texts and identifiers that are the name of a kind, or of a metric of one, in files
    where no kind should be known."""
    metrics = table_metrics(source)
    for module in source.modules.values():
        if not in_kinds(module.name) and room_of(module.name) != BESIDE:
            for node in ast.walk(module.tree):
                for word, reason in _kinds_named_by(node, metrics):
                    yield module.path, getattr(node, "lineno", 1), word, reason


def _kinds_named_by(node: ast.AST, metrics: set[str]) -> Iterator[tuple[str, str]]:
    """Words of a node, each with what is wrong with it."""
    for what, name in _texts_and_identifiers(node):
        if name in KIND_NAMES:
            yield name, f"{what} {name} is the name of a kind: what differs between kinds stands in kinds/"
        elif name in metrics:
            yield name, f"{what} {name} is a metric of one kind: metrics come from the entries of kinds/table"
    for text in _compared_with_kind(node) & PLAIN_KINDS:
        yield text, f"text {text} is compared with a kind: what differs between kinds stands in kinds/"


def _texts_and_identifiers(node: ast.AST) -> Iterator[tuple[str, str]]:
    match node:
        case ast.Constant(value=str() as name):
            yield "text", name
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str() as name):
            yield "identifier", name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield "identifier", name
        case ast.alias(asname=str() as name) | ast.MatchAs(name=str() as name):
            yield "identifier", name


def _compared_with_kind(node: ast.AST) -> set[str]:
    """The texts in a comparison, or in the patterns of a match, of something's `.kind`."""
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        inner = sides if any(isinstance(side, ast.Attribute) and side.attr == "kind" for side in sides) else []
    elif isinstance(node, ast.Match) and isinstance(node.subject, ast.Attribute) and node.subject.attr == "kind":
        inner = [case.pattern for case in node.cases]
    else:
        inner = []
    constants = (one for part in inner for one in ast.walk(part) if isinstance(one, ast.Constant))
    return {one.value for one in constants if isinstance(one.value, str)}


def violated_cycles(source: Source) -> Iterator[Violation]:
    """One violation for each group of files that import each other in circles, at its first file."""
    for cycle in cycles(source.graph()):
        first = source.modules[cycle[0]]
        line = min(one.line for one in source.imports(first) if one.module == cycle[1])
        yield Violation(first.path, line, f"a cycle of files: {' -> '.join(cycle)}")


def unexplained_small(source: Source, allowed: set[str]) -> Iterator[Violation]:
    for name, importer in small_files(source).items():
        path = source.modules[name].path
        if path not in allowed:
            reason = f"has under {SMALL} lines and only {importer} imports it: join them, or list it with its reason"
            yield Violation(path, 1, reason)


def small_files(source: Source) -> dict[str, str]:
    """Small module -> its only importer. Left out are the commands and what the layout asks for by name."""
    found = small_with_one_importer(source, source.graph())
    return {name: one for name, one in found.items() if one != "hpcfit.cli" and not ASKED_FOR.fullmatch(name)}
