"""The [problem] table of kind "frame-weights"."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from hpcfit.config import ExperimentConfig
from hpcfit.config.table import (
    MOVES,
    Count,
    FilePath,
    Folds,
    Kelvin,
    NonNegative,
    Positive,
    Repeats,
    Resolution,
    Space,
    Whole,
    changed,
    relative_to_config,
)
from hpcfit.errors import InputError
from hpcfit.kinds.frame_weights.experiments_config import AUTO_THETA as AUTO_THETA_OF_DATA
from hpcfit.kinds.frame_weights.experiments_config import WithExperiments

AUTO_THETA = (0.0, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
AUTO_FOLDS = 5
LIKELIHOODS = ("gaussian", "student-t", "poisson")
# Keys that only some objectives look at: they would have no effect on the others.
ONLY_OF = {
    "anisotropic": ("pearson",),
    "background": LIKELIHOODS,
    "student_nu": ("student-t",),
    "model_error": ("gaussian", "student-t"),
}


class FrameWeightsConfig(WithExperiments):
    """The table [problem] of a fit to a map. map_weight: of its misfit beside chi2 / 2 of experiments."""

    needs: ClassVar = ("frames", "experiment")
    owns: ClassVar = {"experiment": ExperimentConfig}

    kind: Literal["frame-weights"]
    data: Literal["map"] = "map"
    map_weight: Positive | None = None
    objective: Literal["pearson", "gaussian", "student-t", "poisson", "cross-entropy"] = "pearson"
    anisotropic: bool = False
    background: Annotated[int, Field(ge=1, le=30)] = 1
    student_nu: Positive = 4.0
    model_error: bool = False
    sigmas: bool | None = None
    resolution_power: Annotated[float, Field(ge=-20, le=20)] = 0.0
    laue: str = "P1"
    d_min: Resolution | None = None
    d_max: Resolution | None = None
    exclude_bragg: bool = False
    shells: Annotated[int, Field(ge=1, le=1000)] = 20
    weights: Literal["simplex", "sigmoid", "free", "binary"] = "simplex"
    theta: Literal["auto"] | NonNegative | Annotated[list[NonNegative], Field(min_length=1)] = "auto"
    divergence: Literal["within-groups", "total"] = "within-groups"
    l1: NonNegative = 0.0
    l2: NonNegative = 0.0
    smoothness: NonNegative = 0.0
    prior: Literal["uniform", "equal-sources", "equal-labels"] | FilePath = "uniform"
    temperature: Kelvin = 300.0
    starts: Annotated[list[Literal["prior", "uniform", "clusters", "random"]], Field(min_length=1)] = [
        "prior",
        "clusters",
    ]
    random_starts: Annotated[int, Field(ge=1, le=10_000)] = 1
    clusters: Literal["labels", "structure-factors"] | FilePath = "labels"
    explain: FilePath | None = None
    n_clusters: Annotated[int, Field(ge=2, le=10_000)] = 3
    hold_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    hold_out_by: Literal["orbits", "blocks"] = "orbits"
    hold_out_block: Count = 4
    hold_out_seed: Whole = 0
    folds: Folds | None = None
    fold: Whole | None = None
    resamples: Repeats = 8
    bootstrap: Repeats = 0
    dropping_rounds: Repeats = 0
    dropping_percentile: Annotated[float, Field(gt=0, lt=100)] = 10.0

    def check_optimizer(self, name: str, space: Space) -> None:
        """Raise InputError where weights of this sort are not searched so."""
        if (space == "selections") != (self.weights == "binary"):
            raise InputError(
                f"[problem] weights = '{self.weights}' with [optimizer] name = '{name}': selecting frames and weighing"
                " them are different searches",
                remedy="use weights = 'binary' with name = 'greedy' or 'genetic', or neither",
            )
        if space == "simplex" and self.weights != "simplex":
            raise InputError(
                f"[optimizer] name = '{name}' {MOVES[space]}, [problem] weights = '{self.weights}'",
                remedy="use weights = 'simplex', or name = 'lbfgs'",
            )

    @property
    def thetas(self) -> tuple[float, ...]:
        """The strengths of the Kullback-Leibler divergence that are tried, ascending."""
        if self.weights != "simplex":
            return (0.0,)
        if self.theta == "auto":
            return AUTO_THETA_OF_DATA if self.experiment else AUTO_THETA
        return tuple(sorted(set(self.theta))) if isinstance(self.theta, list) else (self.theta,)

    @property
    def files(self) -> dict[str, Path]:
        """The input files that it names, by key."""
        own = {key: value for key in ("prior", "clusters", "explain") if isinstance(value := getattr(self, key), Path)}
        return own | super().files

    @property
    def n_folds(self) -> int:
        """The number of folds of the cross-validation within this run; 0 for none."""
        if self.fold is not None:
            return 0
        return self.folds or (AUTO_FOLDS if len(self.thetas) > 1 else 0)

    @field_validator("prior", "clusters", "explain")
    @classmethod
    def _paths(cls, value: str | Path | None, info: ValidationInfo) -> str | Path | None:
        return relative_to_config(value, info) if isinstance(value, Path) else value

    @model_validator(mode="after")
    def _fold_of_folds(self) -> FrameWeightsConfig:
        if self.fold is not None and self.fold >= (self.folds or 0):
            raise ValueError(f"fold = {self.fold}, folds = {self.folds or 'not set'}: fold counts from 0 to folds - 1")
        if self.fold is not None and len(self.thetas) > 1:
            raise ValueError(
                f"fold = {self.fold} holds out one part for one theta; theta = {self.theta!r} are several, which a run"
                " chooses from by all folds: give one theta, or leave fold out"
            )
        return self

    @model_validator(mode="after")
    def _resolution(self) -> FrameWeightsConfig:
        if self.d_min and self.d_max and self.d_min >= self.d_max:
            raise ValueError(f"d_min = {self.d_min} A must be smaller than d_max = {self.d_max} A")
        return self

    @model_validator(mode="after")
    def _no_option_without_effect(self) -> FrameWeightsConfig:
        for key in changed(self) & ONLY_OF.keys():
            if self.objective not in ONLY_OF[key]:
                raise ValueError(
                    f"{key} = {getattr(self, key)} has no effect on objective = '{self.objective}', only on"
                    f" {' and '.join(ONLY_OF[key])}"
                )
        if self.sigmas is not None and self.objective == "poisson":
            raise ValueError("sigmas has no effect on objective = 'poisson': counts know their variance")
        return self

    @model_validator(mode="after")
    def _no_detail_without_its_subject(self) -> FrameWeightsConfig:
        held_out = self.hold_out > 0 or self.fold is not None or self.n_folds > 0
        needs = {
            "random_starts": ("random" in self.starts, '"random" among starts'),
            "n_clusters": (self.clusters != "labels", "clusters other than labels"),
            "dropping_percentile": (self.dropping_rounds > 0, "dropping_rounds"),
            "hold_out_block": (held_out and self.hold_out_by == "blocks", 'hold_out_by = "blocks"'),
            "hold_out_by": (held_out, "hold_out or folds"),
            "hold_out_seed": (held_out, "hold_out or folds"),
        }
        for key in changed(self) & needs.keys():
            there, words = needs[key]
            if not there:
                raise ValueError(f"{key} = {getattr(self, key)} has no effect without {words}")
        return self

    @model_validator(mode="after")
    def _experiments_beside_the_map(self) -> FrameWeightsConfig:
        if (self.map_weight is None) == bool(self.experiment):
            wrong = "has no effect without" if self.map_weight else "is missing beside"
            raise ValueError(
                f"map_weight {wrong} [[problem.experiment]]: it is the number that the misfit to the map counts beside"
                " chi2 / 2 of their data"
            )
        if self.experiment and self.weights != "simplex":
            raise ValueError(
                f"weights = '{self.weights}' with [[problem.experiment]]: averages need weights = 'simplex'"
            )
        return self

    @model_validator(mode="after")
    def _regularisers_suit_the_weights(self) -> FrameWeightsConfig:
        if self.weights in ("sigmoid", "free") and self.theta not in ("auto", 0.0):
            raise ValueError(
                f"theta = {self.theta} prices a divergence from the prior, which weights = '{self.weights}' do not"
                " have: use l2, or weights = 'simplex'"
            )
        if self.weights != "simplex" and "divergence" in changed(self):
            raise ValueError(f"divergence has no effect on weights = '{self.weights}', which have no theta")
        if self.weights != "simplex" and self.explain is not None:
            raise ValueError(
                f"explain = {str(self.explain)!r} has no effect on weights = '{self.weights}': only those of 'simplex'"
                " have a logarithm that can be explained"
            )
        if self.weights in ("simplex", "binary") and self.l1:
            raise ValueError(f"l1 = {self.l1} has no effect on weights = '{self.weights}', whose sum is 1")
        if self.weights == "binary":
            unused = changed(self) & {"starts", "random_starts", "resamples", "theta", "l2", "smoothness", "prior"}
            if unused - ({"resamples"} if not self.resamples else set()):
                raise ValueError(f"{', '.join(sorted(unused))} has no effect on weights = 'binary'")
        if self.weights != "simplex" and self.dropping_rounds:
            raise ValueError("dropping_rounds needs weights = 'simplex'")
        return self
