"""The config: TOML to frozen, typed tables. Every mistake is an error that names the key, the value and the remedy."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from hpcfit.errors import InputError, nearest

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Loose = Field(strict=False)  # TOML has no paths and no tuples
FilePath = Annotated[Path, Loose]
Cell = Annotated[tuple[Positive, Positive, Positive, Positive, Positive, Positive], Loose]
Divisions = Annotated[tuple[Count, Count, Count], Loose]

BLOCK_FRAMES = 64  # frames of one HDF5 chunk, and of one block of the reproducible sums


def _relative_to_config(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder", Path())
    return Path(path) if Path(path).is_absolute() else folder / path


class Table(BaseModel):
    """A table of the config: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, strict=True)


class RunConfig(Table):
    directory: FilePath = Path("run")
    seed: int = 0
    precision: Literal["float32", "float64"] = "float32"
    reductions: Literal["reproducible", "fast"] = "reproducible"
    device: Literal["auto", "cpu", "gpu"] = "auto"
    threads: Count = 1
    report: bool = True

    _path = field_validator("directory")(_relative_to_config)


class FramesConfig(Table):
    store: FilePath
    include: list[str] = ["*"]
    exclude: list[str] = []
    residence: Literal["auto", "memory", "disk"] = "auto"

    _path = field_validator("store")(_relative_to_config)


class SourceConfig(Table):
    label: str = ""
    mtz: str | None = None
    columns: Annotated[tuple[str, str], Loose] | None = None
    topology: FilePath | None = None
    trajectory: list[str] = []
    start: Annotated[int, Field(ge=0)] = 0
    stop: Count | None = None
    stride: Count = 1

    @field_validator("trajectory", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("topology")
    @classmethod
    def _topology_path(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return None if value is None else _relative_to_config(value, info)

    @field_validator("mtz")
    @classmethod
    def _mtz_path(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else str(_relative_to_config(Path(value), info))

    @field_validator("trajectory")
    @classmethod
    def _trajectory_paths(cls, value: list[str], info: ValidationInfo) -> list[str]:
        return [str(_relative_to_config(Path(item), info)) for item in value]

    @model_validator(mode="after")
    def _one_kind(self) -> SourceConfig:
        if (self.mtz is None) == (not self.trajectory):
            raise ValueError("a source has either `mtz` or `trajectory`, and not both")
        if self.columns is not None and self.mtz is None:
            raise ValueError("`columns` names the columns of MTZ files; this source has none")
        if self.topology is not None and not self.trajectory:
            raise ValueError("`topology` belongs to a trajectory; this source has none")
        return self


class PrepareConfig(Table):
    source: list[SourceConfig] = []
    d_min: Positive | None = None
    cell: Cell | None = None
    space_group: str | None = None
    supercell: Divisions = (1, 1, 1)
    dtype: Literal["float16", "complex64"] = "float16"
    mantissa_bits: Annotated[int, Field(ge=4, le=23)] | None = None
    compression: Literal["none", "bitshuffle-lz4"] = "none"
    positions: bool = False
    forces: bool = False
    shard_frames: Annotated[int, Field(ge=BLOCK_FRAMES, multiple_of=BLOCK_FRAMES)] = 512
    sample: Annotated[int, Field(ge=2)] = 64
    oversampling: Annotated[float, Field(ge=1.25, le=4)] = 1.5

    @model_validator(mode="after")
    def _mantissa_of_float32(self) -> PrepareConfig:
        if self.forces and not self.positions:
            raise ValueError("`forces` are kept beside positions: set positions = true as well")
        if self.mantissa_bits is not None and self.dtype == "float16":
            raise ValueError(
                "`mantissa_bits` rounds complex64; float16 keeps 10 bits as it is: set dtype = 'complex64'"
            )
        return self


class ExperimentConfig(Table):
    file: FilePath
    intensity: str | None = None
    sigma: str | None = None
    ndiv: Divisions | None = None
    cell: Cell | None = None
    space_group: str | None = None

    _path = field_validator("file")(_relative_to_config)


class FrameWeightsConfig(Table):
    kind: Literal["frame-weights"]
    objective: Literal["pearson"] = "pearson"
    anisotropic: bool = False
    laue: str = "P1"
    d_min: Positive | None = None
    d_max: Positive | None = None
    exclude_bragg: bool = False
    shells: Annotated[int, Field(ge=1, le=1000)] = 20
    theta: NonNegative = 0.0
    prior: Literal["uniform", "equal-sources", "equal-labels"] | FilePath = "uniform"
    temperature: Positive = 300.0
    start: Literal["prior", "random"] = "prior"

    @field_validator("prior")
    @classmethod
    def _prior_path(cls, value: str | Path, info: ValidationInfo) -> str | Path:
        return _relative_to_config(value, info) if isinstance(value, Path) else value

    @model_validator(mode="after")
    def _resolution(self) -> FrameWeightsConfig:
        if self.d_min and self.d_max and self.d_min >= self.d_max:
            raise ValueError(f"d_min = {self.d_min} A must be smaller than d_max = {self.d_max} A")
        return self


class OptimizerConfig(Table):
    name: str = "lbfgs"
    options: dict[str, Any] = {}
    clip_norm: Positive | None = None
    max_steps: Count = 500
    gradient_tolerance: NonNegative = 1e-9
    relative_tolerance: NonNegative = 1e-9
    patience: Annotated[int, Field(ge=1, le=99)] = 10
    wall_clock_minutes: Positive | None = None


class GridConfig(Table):
    frames: Count | Literal["auto"] = "auto"
    slices: Count | Literal["auto"] = "auto"


class CheckpointConfig(Table):
    every_steps: Annotated[int, Field(ge=0)] = 20
    every_minutes: Positive | None = None
    keep: Count = 3


class Config(Table):
    """One run of hpcfit.

    ``prepare`` needs ``frames`` and ``prepare``; ``optimize`` needs ``experiment`` and ``problem``.
    """

    run: RunConfig
    frames: FramesConfig
    prepare: PrepareConfig = Field(default_factory=PrepareConfig)
    experiment: ExperimentConfig | None = None
    problem: FrameWeightsConfig | None = None
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    grid: GridConfig = Field(default_factory=GridConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)

    def require(self, *tables: str, command: str) -> None:
        """Raise unless each of these optional tables is there."""
        for name in tables:
            if getattr(self, name) is None:
                raise InputError(
                    f"the config has no [{name}] table, which `hpcfit {command}` needs", remedy=f"add [{name}]"
                )

    def to_toml(self) -> str:
        """The resolved config, with every default, as TOML text that ``load_config`` reads back."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read and validate a config file; ``overrides`` are ``section.key=value`` with a TOML value (or a bare string).

    Paths in it are relative to the file. Raises InputError that lists every mistake, with file, key and value.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"config file {path} does not exist", remedy="give the path of a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise InputError(f"config file {path} is not TOML: {error}", remedy="see config/*.toml for examples") from None
    for text in overrides:
        _override(tables, text)
    tables.setdefault("run", {})
    try:
        return Config.model_validate(tables, context={"folder": path.resolve().parent})
    except ValidationError as error:
        lines = [_sentence(item) for item in error.errors()]
        raise InputError(
            f"config file {path}:\n  " + "\n  ".join(lines), remedy="correct the keys named above"
        ) from None


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


def _sentence(item: dict) -> str:
    """One pydantic error in words: key, value, what is wrong, nearest valid name."""
    # pydantic adds the names of a union's members, which are no keys
    location = [str(part) for part in item["loc"] if str(part).isdigit() or str(part).isidentifier()]
    key = ".".join(location)
    if item["type"] == "extra_forbidden":
        return f"unknown key '{key}' = {item['input']!r}: {nearest(location[-1], _fields(location[:-1]))}"
    if item["type"] == "missing":
        return f"missing key '{key}'"
    if item["type"] == "literal_error":
        valid = item["ctx"]["expected"]
        names = valid.replace("'", "").replace(" or ", ", ").split(", ")
        return f"'{key}' = {item['input']!r}: must be {valid}; {nearest(str(item['input']), names)}"
    message = item["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(item["input"], dict) else f" = {item['input']!r}"
    return f"'{key}'{shown}: {message[0].lower()}{message[1:]}"


def _fields(location: Sequence[str]) -> list[str]:
    """The valid keys of the table at ``location`` (``prepare.source.0`` included)."""
    tables: dict[tuple[str, ...], type[Table]] = {
        (): Config, ("run",): RunConfig, ("frames",): FramesConfig, ("prepare",): PrepareConfig,
        ("prepare", "source"): SourceConfig, ("experiment",): ExperimentConfig, ("problem",): FrameWeightsConfig,
        ("optimizer",): OptimizerConfig, ("grid",): GridConfig, ("checkpoint",): CheckpointConfig,
    }  # fmt: skip
    return list(tables[tuple(part for part in location if not part.isdigit())].model_fields)
