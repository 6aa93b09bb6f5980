"""The [problem] table of kind "force-field" with estimator = "tabulated"."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from hpcfit.config.observables.averages import AveragedConfig
from hpcfit.config.observables.experiments import CurveConfig
from hpcfit.config.table import (
    MOST,
    FilePath,
    Folds,
    Positive,
    ProblemTable,
    Real,
    Repeats,
    Space,
    Table,
    Whole,
    check_are_unique,
    relative_to_config,
)
from hpcfit.errors import nearest
from hpcfit.kinds.force_field.config import check_is_asked

AUTO_FOLDS = 5
Finite = Real
Strength = Positive
Strengths = Strength | Annotated[list[Strength], Field(min_length=1)]
Name = Annotated[str, Field(min_length=1)]
Column = Whole
Columns = Annotated[list[Column], Field(min_length=1)]


class Prices(NamedTuple):
    """The strengths of the three terms that hold a fit to what was known before; 1 where the fit has no such term.

    alpha: of KL(P || P_ff), beta: of KL(P_ff || P_0), gamma: of the change of the curves.
    """

    alpha: float
    beta: float
    gamma: float


class EnsembleConfig(Table):
    """The frames of one simulation, and what was measured of the molecule in it."""

    name: Name
    weights: FilePath | None = None
    terms: FilePath | None = None
    data: Annotated[list[AveragedConfig], Field(min_length=1)]

    _paths = field_validator("weights", "terms")(
        lambda path, info: None if path is None else relative_to_config(path, info)
    )

    @property
    def files(self) -> dict[str, Path]:
        """The input files, by key."""
        found = {"weights": self.weights, "terms": self.terms}
        of_data = {f"{one.name} {key}": path for one in self.data for key, path in one.files.items()}
        return {key: path for key, path in found.items() if path is not None} | of_data

    @model_validator(mode="after")
    def _names(self) -> EnsembleConfig:
        check_are_unique(f"data of ensemble '{self.name}'", (one.name for one in self.data))
        return self


class CorrectionConfig(Table):
    """A correction phi, in kT: the energy gets phi times the sum of some columns of the terms of each ensemble.

    columns: the same of each ensemble that has terms, or by the name of the ensemble. value: of one that is not fitted.
    prior: of one that is, the standard deviation of a Gaussian around 0, kT, beside its price beta.
    """

    name: Name
    columns: Columns | dict[str, Columns]
    value: Finite = 0.0
    fitted: bool = True
    prior: Strength | None = None

    @model_validator(mode="after")
    def _values_have_effect(self) -> CorrectionConfig:
        if self.prior is not None and not self.fitted:
            raise ValueError(f"correction '{self.name}': prior = {self.prior:g} has no effect where it is not fitted")
        if self.fitted == (self.value != 0):
            raise ValueError(
                f"correction '{self.name}': value = {self.value:g}, fitted = {str(self.fitted).lower()}: one that is"
                " not fitted has a value, and one that is begins at 0"
            )
        return self

    def columns_of(self, ensemble: EnsembleConfig) -> list[int]:
        """The columns that are summed in an ensemble, none where it has no such term."""
        if ensemble.terms is None:
            return []
        return self.columns.get(ensemble.name, []) if isinstance(self.columns, dict) else self.columns


class TabulatedConfig(ProblemTable):
    """The table [problem]; lists of alpha, beta and gamma are chosen from by cross-validation."""

    without_effect: ClassVar = ("frames", "simulate", "run.precision", "run.gradient")

    kind: Literal["force-field"]
    estimator: Literal["tabulated"]
    alpha: Strengths
    beta: Strengths | None = None
    gamma: Strengths | None = None
    solver: Literal["newton", "optimizer"] = "newton"
    folds: Folds | None = None
    fold_seed: Whole = 0
    resamples: Repeats = 10
    resample_blocks: Annotated[int, Field(ge=2, le=MOST)] = 10
    ensemble: Annotated[list[EnsembleConfig], Field(min_length=1)]
    curve: list[CurveConfig] = []
    correction: list[CorrectionConfig] = []

    def check_optimizer(self, name: str, space: Space) -> None:
        """Raise InputError for an optimizer that cannot search this problem, or is not asked."""
        super().check_optimizer(name, space)
        check_is_asked(name, self.solver)

    @property
    def files(self) -> dict[str, Path]:
        """The input files, by ensemble and key."""
        return {f"{one.name} {key}": path for one in self.ensemble for key, path in one.files.items()}

    @property
    def prices(self) -> list[Prices]:
        """All combinations of the strengths given."""
        return [Prices(*one) for one in product(*(_listed(value) for value in (self.alpha, self.beta, self.gamma)))]

    @property
    def n_folds(self) -> int:
        """The number of folds of the cross-validation; 0 for none."""
        return self.folds or (AUTO_FOLDS if len(self.prices) > 1 else 0)

    @model_validator(mode="after")
    def _names(self) -> TabulatedConfig:
        for what, tables in {"ensemble": self.ensemble, "curve": self.curve, "correction": self.correction}.items():
            check_are_unique(what, (one.name for one in tables))
        return self

    @model_validator(mode="after")
    def _curves_are_used(self) -> TabulatedConfig:
        known = [one.name for one in self.curve]
        for data in self._data():
            if data.curve is not None and data.curve not in known:
                raise ValueError(f"data '{data.name}': there is no curve '{data.curve}'; {_nearest(data.curve, known)}")
        for curve in self.curve:
            users = [data for data in self._data() if data.curve == curve.name]
            if not users:
                raise ValueError(f"curve '{curve.name}' is used by no data: leave it out")
            if curve.fitted and all(data.held_out for data in users):
                raise ValueError(f"curve '{curve.name}' is to be fitted, and all its data are held out")
        return self

    @model_validator(mode="after")
    def _corrections_are_used(self) -> TabulatedConfig:
        names = [one.name for one in self.ensemble]
        for one in self.correction:
            for name in one.columns if isinstance(one.columns, dict) else ():
                if name not in names:
                    raise ValueError(
                        f"correction '{one.name}' has columns of ensemble '{name}', which there is not;"
                        f" {_nearest(name, names)}"
                    )
            if not any(one.columns_of(ensemble) for ensemble in self.ensemble):
                raise ValueError(f"correction '{one.name}' is used by no ensemble: none of its ensembles has terms")
        for ensemble in self.ensemble:
            if ensemble.terms is not None and not any(one.columns_of(ensemble) for one in self.correction):
                raise ValueError(f"terms of ensemble '{ensemble.name}' are used by no correction: leave them out")
        return self

    @model_validator(mode="after")
    def _strengths_have_effect(self) -> TabulatedConfig:
        fitted = {"beta": ("correction", self.correction), "gamma": ("curve", self.curve)}
        for key, (what, tables) in fitted.items():
            value, needed = getattr(self, key), any(one.fitted for one in tables)
            if needed and value is None:
                raise ValueError(f"{key} is missing: it is the price of changing what [[problem.{what}]] fits")
            if value is not None and not needed:
                raise ValueError(f"{key} = {value} has no effect without a [[problem.{what}]] that is fitted")
        return self

    @model_validator(mode="after")
    def _something_is_fitted(self) -> TabulatedConfig:
        if all(data.held_out for data in self._data()):
            raise ValueError("all data are held out: there is nothing to fit")
        return self

    def _data(self) -> Iterator[AveragedConfig]:
        return (data for ensemble in self.ensemble for data in ensemble.data)


def _listed(value: float | list[float] | None) -> list[float]:
    """The distinct values, largest first."""
    if value is None:
        return [1.0]
    return sorted(set(value), reverse=True) if isinstance(value, list) else [value]


def _nearest(name: str, known: list[str]) -> str:
    return nearest(name, known) if known else "there is none at all"
