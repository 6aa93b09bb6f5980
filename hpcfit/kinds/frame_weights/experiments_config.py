"""The keys of [problem] for experiments whose data are averages over the frames."""

from __future__ import annotations

from pathlib import Path

from pydantic import model_validator

from hpcfit.config.observables.averages import AveragedConfig
from hpcfit.config.observables.experiments import CurveConfig
from hpcfit.config.table import Positive, ProblemTable, check_are_unique
from hpcfit.errors import nearest

AUTO_THETA = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # of chi2 / 2, which each datum adds about 1/2 to
AUTO_FOLDS = 5


class WithExperiments(ProblemTable):
    """experiment: sets of data; curve: of their couplings; gamma: 1/Hz^2, the price of changing fitted ones."""

    experiment: list[AveragedConfig] = []
    curve: list[CurveConfig] = []
    gamma: Positive | None = None

    @property
    def files(self) -> dict[str, Path]:
        """The input files that it names, by key."""
        return {f"{one.name} {key}": path for one in self.experiment for key, path in one.files.items()}

    @model_validator(mode="after")
    def _names_of_experiments(self) -> WithExperiments:
        check_are_unique("experiments", (one.name for one in self.experiment))
        check_are_unique("curves", (one.name for one in self.curve))
        return self

    @model_validator(mode="after")
    def _curves_have_data(self) -> WithExperiments:
        known = [one.name for one in self.curve]
        for data in self.experiment:
            if data.curve is not None and data.curve not in known:
                words = nearest(data.curve, known) if known else "there is none at all"
                raise ValueError(f"data '{data.name}': there is no curve '{data.curve}'; {words}")
        for curve in self.curve:
            users = [data for data in self.experiment if data.curve == curve.name]
            if not users:
                raise ValueError(f"curve '{curve.name}' is used by no experiment: leave it out")
            if curve.fitted and all(data.held_out for data in users):
                raise ValueError(f"curve '{curve.name}' is to be fitted, and all its data are held out")
        fitted = any(one.fitted for one in self.curve)
        if fitted and self.gamma is None:
            raise ValueError("gamma is missing: it is the price of changing the curves that are fitted")
        if self.gamma is not None and not fitted:
            raise ValueError(f"gamma = {self.gamma:g} has no effect without a [[problem.curve]] that is fitted")
        return self
