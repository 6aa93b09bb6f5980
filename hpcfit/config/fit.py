"""The tables of a fit: [run], [optimizer], [grid], [checkpoint]."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from hpcfit.config.table import Count, FilePath, NonNegative, Positive, Table, Whole, relative_to_config


class RunConfig(Table):
    directory: FilePath = Path("run")
    seed: Whole = 0
    precision: Literal["float32", "float64"] = "float32"
    reductions: Literal["reproducible", "fast"] = "reproducible"
    gradient: Literal["auto", "reverse"] = "auto"
    device: Literal["auto", "cpu", "gpu"] = "auto"
    threads: Count = 1
    report: bool = True

    _path = field_validator("directory")(relative_to_config)


class OptimizerConfig(Table):
    name: str = "lbfgs"
    options: dict[str, Any] = {}
    clip_norm: Positive | None = None
    max_steps: Count = 500
    gradient_tolerance: NonNegative = 1e-9
    relative_tolerance: NonNegative = 1e-8
    patience: Annotated[int, Field(ge=1, le=99)] = 10
    wall_clock_minutes: Positive | None = None


class GridConfig(Table):
    frames: Count | Literal["auto"] = "auto"
    slices: Count | Literal["auto"] = "auto"


class CheckpointConfig(Table):
    every_steps: Whole = 20
    every_minutes: Positive | None = None
    keep: Count = 3
