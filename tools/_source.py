"""The modules of hpcfit as syntax trees, and which of them import which."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TABLE = "hpcfit.kinds.table"  # names modules as text: "hpcfit.kinds.force_map.case:open"
MODULE_TEXT = re.compile(r"hpcfit(\.\w+)+(:[\w.]+)?")


class Import(NamedTuple):
    """One module that an import statement names, or a text of the table of kinds."""

    line: int
    module: str  # dotted; the deepest part that is a module, where it is one of hpcfit's
    typing: bool  # below `if TYPE_CHECKING:`, so that it costs nothing at run time


class Module(NamedTuple):
    """A file of hpcfit."""

    name: str  # dotted; of a folder's __init__.py the folder
    path: str  # relative to the checkout, with /
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        """What `from . import` means."""
        return self.name if self.path.endswith("/__init__.py") else self.name.rpartition(".")[0]


class Source(NamedTuple):
    """All modules by their names; and the files that do not parse, as (path, line, message)."""

    modules: dict[str, Module]
    broken: list[tuple[str, int, str]]

    def imports(self, module: Module) -> Iterator[Import]:
        """Every import of a module, also those inside functions, and modules that the table of kinds names as text."""
        for_typing = {
            id(inner)
            for node in ast.walk(module.tree)
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
            for statement in node.body
            for inner in ast.walk(statement)
        }
        for node in ast.walk(module.tree):
            for name in self._named(node, module.package):
                yield Import(node.lineno, name, id(node) in for_typing)
            if module.name == TABLE and isinstance(node, ast.Constant) and MODULE_TEXT.fullmatch(str(node.value)):
                yield Import(node.lineno, node.value.partition(":")[0], False)

    def _named(self, node: ast.AST, package: str) -> list[str]:
        """The modules of one statement; `from x import y` names x.y where that is a module or a folder of them."""
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if not isinstance(node, ast.ImportFrom):
            return []
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *filter(None, [base])])
        deeper = (f"{base}.{alias.name}" for alias in node.names)
        return sorted({name if self.holds(name) else base for name in deeper})

    def holds(self, name: str) -> bool:
        """Whether this is a module of hpcfit, or a folder of them."""
        return name in self.modules or any(other.startswith(f"{name}.") for other in self.modules)

    def graph(self) -> dict[str, set[str]]:
        """Module -> the modules of hpcfit that it imports."""
        return {
            name: {found.module for found in self.imports(module)} & self.modules.keys() - {name}
            for name, module in self.modules.items()
        }


def read_source(root: Path) -> Source:
    """The modules below root/hpcfit."""
    modules, broken = {}, []
    for file in sorted((root / "hpcfit").rglob("*.py")):
        relative = file.relative_to(root)
        text = file.read_text(encoding="utf-8")
        try:
            tree = ast.parse(text, filename=str(file))
        except SyntaxError as error:
            broken.append((relative.as_posix(), error.lineno or 1, error.msg))
            continue
        name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        modules[name] = Module(name, relative.as_posix(), text, tree)
    return Source(modules, broken)


def importers(graph: dict[str, set[str]]) -> dict[str, list[str]]:
    """Module -> the modules that import it."""
    found: dict[str, list[str]] = {name: [] for name in graph}
    for name in sorted(graph):
        for target in graph[name]:
            found[target].append(name)
    return found


def docstring(node: ast.AST) -> ast.Expr | None:
    """The statement that is the docstring of a module, class or function."""
    body = getattr(node, "body", None)
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not body:
        return None
    first = body[0]
    value = first.value if isinstance(first, ast.Expr) else None
    return first if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
