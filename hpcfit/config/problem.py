"""The [problem] tables, one for each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from hpcfit.config.table import FilePath, NonNegative, Positive, Table, relative_to_config


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
    folds: Annotated[int, Field(ge=2)] | None = None
    fold: Annotated[int, Field(ge=0)] = 0
    bootstrap: Annotated[int, Field(ge=0)] = 0

    @field_validator("prior")
    @classmethod
    def _prior_path(cls, value: str | Path, info: ValidationInfo) -> str | Path:
        return relative_to_config(value, info) if isinstance(value, Path) else value

    @model_validator(mode="after")
    def _fold_of_folds(self) -> FrameWeightsConfig:
        if self.fold and self.fold >= (self.folds or 0):
            raise ValueError(f"fold = {self.fold}, folds = {self.folds or 'not set'}: fold counts from 0 to folds - 1")
        return self

    @model_validator(mode="after")
    def _resolution(self) -> FrameWeightsConfig:
        if self.d_min and self.d_max and self.d_min >= self.d_max:
            raise ValueError(f"d_min = {self.d_min} A must be smaller than d_max = {self.d_max} A")
        return self
