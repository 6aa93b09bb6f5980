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
from hpcfit.errors import InputError, check_is_file, nearest

OUT_OF_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number")
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
SHOWN = 100  # characters of a value in an error
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
    check_is_file(path, what, "give the path of a TOML file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror}", remedy="give another file") from None
    except RecursionError:
        raise InputError(f"{what} {path} is not TOML: too many brackets", remedy=f"see {examples}") from None
    except ValueError as error:  # not TOML, not UTF-8, or an integer of thousands of digits
        raise InputError(f"{what} {path} is not TOML: {error}", remedy=f"see {examples} for examples") from None


def validated(kind: type[AnyTable], values: dict, path: Path, what: str) -> AnyTable:
    """The table that a file's values make. Raises InputError that lists every mistake, with file, key and value."""
    _check_characters(values, path, what)
    try:
        return kind.model_validate(values, context={"folder": path.resolve().parent})
    except ValidationError as error:
        lines = [_sentence(item, kind) for item in _of_one_member(error.errors())]
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
    except (ValueError, RecursionError):
        tables[name] = value.strip()


def _of_list(tables: list, number: str, where: str, text: str) -> object:
    """The table with a number, from 0, of a list of tables [[where]]."""
    if not number.isdigit() or int(number) >= len(tables):
        raise InputError(
            f"--set {text}: [[{where}]] has {len(tables)} tables, and '{number}' is the number of none",
            remedy=f"count from 0: {where}.0",
        )
    return tables[int(number)]


def _of_one_member(errors: list[dict]) -> list[dict]:
    """The errors of pydantic. Of those that all members of a union raise about one key, or about a list and a number
    in it, those of the number's range."""
    out = [_key(item["loc"]) for item in errors if item["type"] in OUT_OF_RANGE]
    beside = lambda key: any(key == one[: len(key)] for one in out)  # noqa: E731
    return [item for item in errors if item["type"] in OUT_OF_RANGE or not beside(_key(item["loc"]))]


def _key(location: Sequence[str | int]) -> list[str]:
    """The keys of a place; pydantic adds the names of a union's members, which are no keys."""
    return [str(part) for part in location if str(part).isdigit() or str(part).isidentifier()]


def _shown(value: object) -> str:
    """A value of the config in an error, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _sentence(item: dict, kind: type[Table]) -> str:
    """One pydantic error in words: key, value, what is wrong, nearest valid name."""
    location = _key(item["loc"])
    key, value = ".".join(location), _shown(item["input"])
    if item["type"] == "extra_forbidden":
        key = ".".join([*_key(item["loc"][:-1]), str(item["loc"][-1])])
        return f"unknown key {_shown(key)} = {value}: {nearest(str(item['loc'][-1]), _fields(item['loc'][:-1], kind))}"
    if item["type"] == "missing":
        return f"missing key '{key}'"
    if item["type"] == "literal_error":
        return f"'{key}' = {value}: must be {item['ctx']['expected']}; {_nearest(item, 'expected')}"
    if item["type"] in OUT_OF_RANGE and (wanted := _range(item, kind)):
        return f"'{key}' = {value}: must be {wanted}"
    message = item["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(item["input"], dict) else f" = {value}"
    return f"'{key}'{shown}: {message[0].lower()}{message[1:]}"


def _range(item: dict, kind: type[Table]) -> str:
    """The range of the number that an error of pydantic is about, in words; of several kinds of numbers in one place
    that with the bound that was crossed."""
    inside, found = [kind], []
    for part in map(str, item["loc"]):
        field = next((table.model_fields[part] for table in inside if part in table.model_fields), None)
        if field is not None:
            found, inside = _ranges(field.annotation, field.metadata), _tables_in(field.annotation) or inside
    crossed = (item.get("ctx") or {}).items()
    fitting = [one for one in found if crossed <= one.items()]
    return _in_words(fitting[0]) if fitting else ""


def _ranges(annotation: object, metadata: Sequence[Any] = ()) -> list[dict[str, float]]:
    """The ranges (bounds by the names ge, gt, le, lt) of the numbers that a field may hold, alone or in a list."""
    own = [part for one in metadata for part in getattr(one, "metadata", [one])]
    range_ = {name: getattr(part, name) for part in own for name in BOUNDS if hasattr(part, name)}
    if annotation in (int, float):
        return [range_] if range_ else []
    if hasattr(annotation, "__metadata__"):
        return _ranges(annotation.__origin__, [*metadata, *annotation.__metadata__])
    return [one for part in get_args(annotation) for one in _ranges(part, metadata)]


def _in_words(bounds: Mapping[str, float]) -> str:
    return " and ".join(f"{words} {bounds[name]:.10g}" for name, words in BOUNDS.items() if name in bounds)


def _nearest(item: dict, among: str) -> str:
    return nearest(_shown(item["input"]).strip("'"), _names(item["ctx"][among]))


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
