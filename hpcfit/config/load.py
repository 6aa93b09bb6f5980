"""One run's config: TOML to frozen, typed tables. Every mistake is an error that names key, value and remedy."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar, get_args

from pydantic import Field, ValidationError

from hpcfit.config.fit import CheckpointConfig, GridConfig, OptimizerConfig, RunConfig
from hpcfit.config.frames import ExperimentConfig, FramesConfig, PrepareConfig
from hpcfit.config.table import Table
from hpcfit.config.workflow import ClusterConfig, MonitorConfig, SimulateConfig
from hpcfit.errors import InputError, nearest
from hpcfit.kinds.force_map.config import ForceMapConfig
from hpcfit.kinds.frame_weights.config import FrameWeightsConfig

AnyTable = TypeVar("AnyTable", bound=Table)


class Config(Table):
    """One run of hpcfit, from simulation to fit; each command says which tables it needs (``require``)."""

    run: RunConfig
    simulate: SimulateConfig | None = None
    frames: FramesConfig | None = None
    prepare: PrepareConfig = Field(default_factory=PrepareConfig)
    experiment: ExperimentConfig | None = None
    problem: Annotated[FrameWeightsConfig | ForceMapConfig, Field(discriminator="kind")] | None = None
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    grid: GridConfig = Field(default_factory=GridConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    cluster: ClusterConfig | None = None
    monitor: MonitorConfig = Field(default_factory=MonitorConfig)

    def require(self, *tables: str, command: str) -> None:
        """Raise unless each of these optional tables is there."""
        for name in tables:
            if getattr(self, name) is None:
                raise InputError(
                    f"the config has no [{name}] table, which `hpcfit {command}` needs", remedy=f"add [{name}]"
                )

    def require_fit(self, *, command: str) -> None:
        """Raise unless the tables are there that its kind of problem is fitted with."""
        self.require("frames", "problem", command=command)
        if self.problem.kind == "frame-weights":
            self.require("experiment", command=command)

    def to_toml(self) -> str:
        """The resolved config, with every default, as TOML text that ``load_config`` reads back."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read and validate a config file; ``overrides`` are ``section.key=value`` with a TOML value (or a bare string).

    Paths in it are relative to the file. Raises InputError that lists every mistake, with file, key and value.
    """
    path = Path(path)
    tables = read_toml(path, "config file", examples="config/*.toml")
    for text in overrides:
        _override(tables, text)
    tables.setdefault("run", {})
    return validated(Config, tables, path, "config file")


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
    try:
        return kind.model_validate(values, context={"folder": path.resolve().parent})
    except ValidationError as error:
        lines = [_sentence(item, kind) for item in error.errors()]
        raise InputError(f"{what} {path}:\n  " + "\n  ".join(lines), remedy="correct the keys named above") from None


def _override(tables: dict, text: str) -> None:
    key, equals, value = text.partition("=")
    *sections, name = key.strip().split(".")
    if not equals or not sections:
        raise InputError(f"--set {text}: expected section.key=value", remedy="for example --set problem.theta=0.01")
    for section in sections:
        tables = tables.setdefault(section, {})
        if not isinstance(tables, dict):
            raise InputError(f"--set {text}: '{section}' is not a table", remedy="name a key inside a table")
    try:
        tables[name] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        tables[name] = value.strip()


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
    if item["type"] == "union_tag_not_found":
        return f"missing key '{key}.kind'"
    if item["type"] == "union_tag_invalid":
        found, valid = item["ctx"]["tag"], item["ctx"]["expected_tags"]
        return f"'{key}.kind' = '{found}': must be {valid}; {nearest(found, _names(valid))}"
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
        elif len(inside) > 1:  # which of several kinds of tables it is
            inside = [one for one in inside if part in get_args(one.model_fields["kind"].annotation)] or inside
    return list(inside[0].model_fields)


def _tables_in(annotation: object) -> list[type[Table]]:
    """The table classes inside ``X``, ``X | Y | None`` or ``list[X]``."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return [annotation]
    return [found for part in get_args(annotation) for found in _tables_in(part)]
