"""The [problem] table of kind "frame-weights" with data = "averages"."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from hpcfit.config.observables.averages import AveragedConfig
from hpcfit.config.table import FilePath, Folds, Kelvin, Positive, Repeats, Whole, relative_to_config
from hpcfit.kinds.frame_weights.experiments_config import AUTO_FOLDS, AUTO_THETA, WithExperiments


class AveragesConfig(WithExperiments):
    """prior: [T] weights before any data, equal ones without. trajectories: the source, label and state of each frame;
    explain: numbers of each frame. theta: one, or several that left-out data choose from."""

    without_effect: ClassVar = ("frames", "simulate", "run.precision", "run.gradient")

    kind: Literal["frame-weights"]
    data: Literal["averages"]
    experiment: Annotated[list[AveragedConfig], Field(min_length=1)]
    prior: FilePath | None = None
    trajectories: FilePath | None = None
    explain: FilePath | None = None
    theta: Literal["auto"] | Positive | Annotated[list[Positive], Field(min_length=1)] = "auto"
    folds: Folds | None = None
    fold_seed: Whole = 0
    resamples: Repeats = 8
    resample_blocks: Folds = 10
    temperature: Kelvin = 300.0

    _path = field_validator("prior", "trajectories", "explain")(
        lambda path, info: None if path is None else relative_to_config(path, info)
    )

    @property
    def thetas(self) -> tuple[float, ...]:
        """The strengths of the Kullback-Leibler divergence that are tried, ascending."""
        if self.theta == "auto":
            return AUTO_THETA
        return tuple(sorted(set(self.theta))) if isinstance(self.theta, list) else (self.theta,)

    @property
    def n_folds(self) -> int:
        """The number of folds of the cross-validation; 0 for none."""
        return self.folds or (AUTO_FOLDS if len(self.thetas) > 1 else 0)

    @property
    def files(self) -> dict[str, Path]:
        """The input files that it names, by key."""
        own = {"prior": self.prior, "trajectories": self.trajectories, "explain": self.explain}
        return super().files | {key: path for key, path in own.items() if path is not None}

    @model_validator(mode="after")
    def _seed_has_effect(self) -> AveragesConfig:
        if self.fold_seed and not self.n_folds:
            raise ValueError(f"fold_seed = {self.fold_seed} has no effect without folds")
        return self

    @model_validator(mode="after")
    def _something_is_fitted(self) -> AveragesConfig:
        if all(one.held_out for one in self.experiment):
            raise ValueError("all experiments are held out: there is nothing to fit")
        return self
