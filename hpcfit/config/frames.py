"""The tables of the input: [frames], [prepare] with its [[prepare.source]], [experiment]."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from hpcfit.config.table import (
    BLOCK_FRAMES,
    Cell,
    Count,
    Divisions,
    FilePath,
    Loose,
    Positive,
    Table,
    relative_to_config,
)


class FramesConfig(Table):
    store: FilePath
    include: list[str] = ["*"]
    exclude: list[str] = []
    residence: Literal["auto", "memory", "disk"] = "auto"

    _path = field_validator("store")(relative_to_config)


class SourceConfig(Table):
    label: str = ""
    store: FilePath | None = None
    mtz: str | None = None
    lunus: str | None = None
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

    @field_validator("topology", "store")
    @classmethod
    def _path(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return None if value is None else relative_to_config(value, info)

    @field_validator("mtz", "lunus")
    @classmethod
    def _pattern(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else str(relative_to_config(Path(value), info))

    @field_validator("trajectory")
    @classmethod
    def _trajectory_paths(cls, value: list[str], info: ValidationInfo) -> list[str]:
        return [str(relative_to_config(Path(item), info)) for item in value]

    @model_validator(mode="after")
    def _one_kind(self) -> SourceConfig:
        given = [name for name in ("trajectory", "mtz", "lunus", "store") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"a source has one of `trajectory`, `mtz`, `lunus` and `store`; this one has {given or 'none'}"
            )
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
    halves: Annotated[tuple[str, str], Loose] | None = None
    ndiv: Divisions | None = None
    cell: Cell | None = None
    space_group: str | None = None
    reindex: str | None = None

    _path = field_validator("file")(relative_to_config)

    @field_validator("halves")
    @classmethod
    def _two_columns(cls, value: tuple[str, str] | None) -> tuple[str, str] | None:
        if value is not None and value[0] == value[1]:
            raise ValueError(f"both halves are '{value[0]}': give two independent merges")
        return value
