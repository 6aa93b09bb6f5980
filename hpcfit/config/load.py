"""One run's config: TOML to frozen, typed tables. Every mistake is an error that names key, value and remedy."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ConfigDict, Field, SerializeAsAny, ValidationError, create_model

from hpcfit.characters import control_in
from hpcfit.config.fit import CheckpointConfig, GridConfig, OptimizerConfig, RunConfig
from hpcfit.config.frames import FramesConfig, PrepareConfig
from hpcfit.config.table import ProblemTable, Table
from hpcfit.config.workflow import ClusterConfig, MonitorConfig, SimulateConfig
from hpcfit.errors import InputError, nearest

AnyTable = TypeVar("AnyTable", bound=Table)
# The tables of the kind that a [problem] names, itself among them, by name; of None the further tables of all kinds.
TablesOfKind = Callable[[Mapping[str, Any] | None], Mapping[str, Any]]


class CommonTables(Table):
    """The tables that mean the same for every kind of problem."""

    run: RunConfig
    simulate: SimulateConfig | None = None
    frames: FramesConfig | None = None
    prepare: PrepareConfig = Field(default_factory=PrepareConfig)
    problem: SerializeAsAny[ProblemTable] | None = None
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    grid: GridConfig = Field(default_factory=GridConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    cluster: ClusterConfig | None = None
    monitor: MonitorConfig = Field(default_factory=MonitorConfig)


class Config(CommonTables):
    """One run of hpcfit, from simulation to fit; each command says which tables it needs (``require``).

    The tables that the kind of problem owns are attributes as well (``ProblemTable.owns``), None where there is none.
    """

    model_config = ConfigDict(extra="allow")

    def require(self, *tables: str, command: str) -> None:
        """Raise unless each of these optional tables is there."""
        for name in tables:
            if getattr(self, name, None) is None:
                raise InputError(
                    f"the config has no [{name}] table, which `hpcfit {command}` needs", remedy=f"add [{name}]"
                )

    def require_fit(self, *, command: str) -> None:
        """Raise unless the tables are there that its kind of problem is fitted with."""
        self.require("problem", command=command)
        self.require(*self.problem.needs, command=command)

    def of_kind(self) -> Iterator[tuple[tuple[str | int, ...], Table]]:
        """[problem] and the tables that its kind owns, each with its place: ("experiment",), or ("series", 0)."""
        for name in ("problem", *self.problem.owns) if self.problem is not None else ():
            found = getattr(self, name)
            if isinstance(found, list):
                yield from (((name, number), table) for number, table in enumerate(found))
            elif found is not None:
                yield (name,), found

    def to_toml(self) -> str:
        """The resolved config, with every default, as TOML text that ``read_config`` reads back."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def read_config(path: Path, overrides: Sequence[str], tables_of: TablesOfKind) -> Config:
    """Read and validate a config file; ``overrides`` are ``section.key=value`` with a TOML value (or a bare string);
    of lists of tables one is named by its number, as ``problem.method.0.rate``.

    Paths in it are relative to the file. tables_of: gives the tables of the kind that [problem] names, and raises
    InputError for a kind that there is not. Raises InputError that lists every mistake, with file, key and value.
    """
    path = Path(path)
    tables = read_toml(path, "config file", examples="config/*.toml")
    for text in overrides:
        _override(tables, text)
    tables.setdefault("run", {})
    try:
        model = _model(tables, tables_of)
    except InputError as error:
        raise InputError(f"config file {path}: {error}") from None
    found = validated(model, tables, path, "config file")
    return Config.model_construct(**{name: getattr(found, name) for name in model.model_fields})


def _model(tables: dict, tables_of: TablesOfKind) -> type[CommonTables]:
    """The tables that this config may have: those of all kinds, and those of the kind that it names."""
    problem = tables.get("problem")
    kind = problem.get("kind") if isinstance(problem, dict) else None
    if isinstance(problem, dict) and kind is None:
        raise InputError("missing key 'problem.kind'", remedy="add kind = '...' to [problem]")
    own = tables_of(problem if isinstance(problem, dict) else None)
    unknown = tables.keys() - CommonTables.model_fields.keys() - own.keys()
    idle = sorted(unknown & tables_of(None).keys()) if unknown else []
    if idle:
        raise InputError(
            f"[{'], ['.join(idle)}] has no effect on [problem] kind = '{kind}': it belongs to another kind",
            remedy="leave it out",
        )
    return create_model("Config", __base__=CommonTables, **{name: (table | None, None) for name, table in own.items()})


def read_toml(path: Path, what: str, *, examples: str) -> dict:
    """The tables of a TOML file. Raises InputError that calls it ``what`` and points to examples."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{what} {path} does not exist", remedy="give the path of a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise InputError(f"{what} {path} is not TOML: {error}", remedy=f"see {examples} for examples") from None


def validated(kind: type[AnyTable], values: dict, path: Path, what: str) -> AnyTable:
    """The table that a file's values make. Raises InputError that lists every mistake, with file, key and value."""
    _check_characters(values, path, what)
    try:
        return kind.model_validate(values, context={"folder": path.resolve().parent})
    except ValidationError as error:
        lines = [_sentence(item, kind) for item in error.errors()]
        raise InputError(f"{what} {path}:\n  " + "\n  ".join(lines), remedy="correct the keys named above") from None


def _check_characters(values: dict, path: Path, what: str) -> None:
    """Raise InputError for text with a control character: its values are labels, names, paths and lines of scripts."""
    for key, text in _texts(values):
        if found := control_in(text):
            raise InputError(
                f"{what} {path}: '{key}' = {text!r} holds the control character {found}",
                remedy="leave it out: what ends a line or steers a terminal has no place in names, paths and lines",
            )


def _texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every text in tables and lists, keys too, with its place: prepare.source.0.label."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            at = f"{place}.{key}" if place else str(key)
            yield at, str(key)
            yield from _texts(item, at)


def _override(tables: dict, text: str) -> None:
    key, equals, value = text.partition("=")
    *sections, name = key.strip().split(".")
    if not equals or not sections:
        raise InputError(f"--set {text}: expected section.key=value", remedy="for example --set problem.theta=0.01")
    for place, section in enumerate(sections):
        if isinstance(tables, list):
            tables = _of_list(tables, section, ".".join(sections[:place]), text)
        else:
            tables = tables.setdefault(section, {})
        if not isinstance(tables, dict | list):
            raise InputError(f"--set {text}: '{section}' is not a table", remedy="name a key inside a table")
    if isinstance(tables, list):
        raise InputError(
            f"--set {text}: '{sections[-1]}' is a list of tables", remedy=f"name one: {'.'.join(sections)}.0.{name}"
        )
    try:
        tables[name] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        tables[name] = value.strip()


def _of_list(tables: list, number: str, where: str, text: str) -> object:
    """The table with a number, from 0, of a list of tables [[where]]."""
    if not number.isdigit() or int(number) >= len(tables):
        raise InputError(
            f"--set {text}: [[{where}]] has {len(tables)} tables, and '{number}' is the number of none",
            remedy=f"count from 0: {where}.0",
        )
    return tables[int(number)]


def _sentence(item: dict, kind: type[Table]) -> str:
    """One pydantic error in words: key, value, what is wrong, nearest valid name."""
    # pydantic adds the names of a union's members, which are no keys
    location = [str(part) for part in item["loc"] if str(part).isdigit() or str(part).isidentifier()]
    key = ".".join(location)
    if item["type"] == "extra_forbidden":
        return f"unknown key '{key}' = {item['input']!r}: {nearest(location[-1], _fields(item['loc'][:-1], kind))}"
    if item["type"] == "missing":
        return f"missing key '{key}'"
    if item["type"] == "literal_error":
        return f"'{key}' = {item['input']!r}: must be {item['ctx']['expected']}; {_nearest(item, 'expected')}"
    message = item["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(item["input"], dict) else f" = {item['input']!r}"
    return f"'{key}'{shown}: {message[0].lower()}{message[1:]}"


def _nearest(item: dict, among: str) -> str:
    return nearest(str(item["input"]), _names(item["ctx"][among]))


def _names(words: str) -> list[str]:
    """The names in pydantic's "'a', 'b' or 'c'"."""
    return words.replace("'", "").replace(" or ", ", ").split(", ")


def _fields(location: Sequence[str | int], table: type[Table]) -> list[str]:
    """The valid keys of the table at ``location`` below ``table`` (``prepare.source.0`` included)."""
    inside: list[type[Table]] = [table]
    for part in map(str, location):
        if part in inside[0].model_fields:
            inside = _tables_in(inside[0].model_fields[part].annotation)
    return list(inside[0].model_fields)


def _tables_in(annotation: object) -> list[type[Table]]:
    """The table classes inside ``X``, ``X | Y | None`` or ``list[X]``."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return [annotation]
    return [found for part in get_args(annotation) for found in _tables_in(part)]
