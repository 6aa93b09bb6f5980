"""The fits that weights of frames take from averages alone. The loss has one minimum, unless sets are adjusted.

theta        each one judged by data that were left out of its fits, where there are several or folds are asked for
final        all data but those of validation sets, at that theta
resamples    of blocks of frames, and of data: how far the result depends on them
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hpcfit.fit.gradient import Gradient
from hpcfit.fit.problem import FrameRows, Params
from hpcfit.fit.stages import Fits, Fitted
from hpcfit.kinds.frame_weights.averages.case import AveragesCase
from hpcfit.kinds.frame_weights.averages.problem import AveragesFit
from hpcfit.kinds.frame_weights.conclusions import choose_theta, theta_row
from hpcfit.kinds.frame_weights.experiments import calculated, data_folds
from hpcfit.observables.frame_tables import groups_of
from hpcfit.statistics.resampling import resampled_blocks

FINAL = "final"
ENOUGH = 1e-6  # relative tolerance of fits that are only compared: far below the errors they are compared by
FEW = 0.1  # share of the frames that carry a result which is to be trusted


@dataclass(frozen=True)
class Study:
    """The fits of one case."""

    case: AveragesCase
    fits: Fits

    @property
    def _problem(self) -> AveragesFit:
        return self.fits.evaluate.problem

    @property
    def _rows(self) -> FrameRows:
        return self.fits.evaluate.frames.rows

    def at(self, theta: float, problem: AveragesFit | None = None, rows: FrameRows | None = None) -> Gradient:
        """Value and gradient at a theta, of a problem and of rows that may be others than those of the run."""
        return self.fits.evaluate.of(replace(problem or self._problem, theta=theta), rows)

    def prior(self) -> Params:
        """The prior weights."""
        return self._problem.init(0, self._rows)

    def planned(self) -> list[str]:
        """The names of all fits, in their order."""
        choice = self.case.config.problem
        folds = [f"theta {theta:g} fold {fold}" for fold in range(choice.n_folds) for theta in reversed(choice.thetas)]
        resamples = [f"{what} {n}" for what in ("frames", "data") for n in range(1, choice.resamples + 1)]
        return [*folds, FINAL, *resamples]

    def over_thetas(self) -> list[dict[str, Any]]:
        """The prior weights and each theta, largest first, judged by the folds that were not fitted."""
        choice = self.case.config.problem
        of_data = data_folds(self.case.tables, choice.n_folds, choice.fold_seed)
        found = [self._of_fold(fold, of_data == fold) for fold in range(choice.n_folds)]
        names = (None, *reversed(choice.thetas))
        return [theta_row(name, list(folds)) for name, folds in zip(names, zip(*found))]

    def _of_fold(self, fold: int, left_out: np.ndarray) -> list[dict[str, float]]:
        problem = replace(self._problem, experiments=self._problem.experiments.without(left_out))
        evaluate, start = self.fits.evaluate.of(problem), self.prior()
        found = [evaluate.metrics(evaluate.value(start))]
        for theta in reversed(self.case.config.problem.thetas):
            fitted = self.fits.fit(f"theta {theta:g} fold {fold}", start, self.at(theta, problem), tolerance=ENOUGH)
            start = fitted.params
            found.append(fitted.metrics)
        return found

    def final(self, theta: float | None) -> Fitted:
        """The fit at the chosen theta; None stands for the prior weights themselves."""
        if theta is not None:
            return self.fits.fit(FINAL, self.prior(), self.at(theta))
        at = self.fits.evaluate.value(self.prior())
        metrics = {"loss": at.loss, **self.fits.evaluate.metrics(at)}
        return Fitted("prior weights", at.params, metrics, 0, 0, "no theta made left-out data agree better")

    def resample(self, final: Fitted, theta: float) -> dict[str, list[tuple[AveragesFit, Fitted, Any]]]:
        """The fits of each resample with its problem and its averages: of blocks of frames, and of groups of data."""
        choice, found = self.case.config.problem, {"frames": [], "data": []}
        for seed in range(1, choice.resamples + 1):
            counts = resampled_blocks(np.zeros(self.case.n_frames, int), choice.resample_blocks, seed)
            found["frames"].append(self._refitted(f"frames {seed}", final, self.at(theta, rows=self._drawn(counts))))
        groups = groups_of(self.case.tables)
        for seed in range(1, choice.resamples + 1):
            drawn = replace(self._problem, experiments=self._problem.experiments.drawn(groups, seed))
            found["data"].append(self._refitted(f"data {seed}", final, self.at(theta, drawn)))
        return found

    def _refitted(self, name: str, final: Fitted, evaluate: Gradient) -> tuple[AveragesFit, Fitted, Any]:
        fitted = self.fits.fit(name, final.params, evaluate, tolerance=ENOUGH)
        common = evaluate.value(fitted.params).statistics.common
        return evaluate.problem, fitted, np.asarray(evaluate.problem.averages(common))

    def _drawn(self, counts: np.ndarray) -> FrameRows:
        """Rows in which each frame counts as often as ``counts`` [T]; one that was not drawn takes no part."""
        rows = self._rows
        mine = np.where(rows.ids >= 0, counts[np.maximum(rows.ids, 0)], 0)
        total = float(np.sum(self.case.w0 * counts))
        log_prior = np.where(mine > 0, rows.more.log_prior + np.log(np.maximum(mine, 1) / total), 0.0)
        return FrameRows(np.where(mine > 0, rows.ids, -1), rows.total, rows.more._replace(log_prior=log_prior))


def study(case: AveragesCase, fits: Fits) -> dict[str, Any]:
    """All fits of the case; what they found beside the result itself, which ``fits.final`` is told. Collective."""
    work, choice = Study(case, fits), case.config.problem
    fits.announce(work.planned())
    found: dict[str, Any] = {}
    theta: float | None = choice.thetas[0]
    if choice.n_folds:
        rows = work.over_thetas()
        found["cross_validation"] = rows
        theta = rows[choose_theta(rows)]["theta"]
    final = work.final(theta)
    fits.warn(carried_by_few(final.metrics["ess"], case.n_frames))
    fits.final(final, work.at(theta or choice.thetas[0]))
    found["theta"] = theta
    if choice.resamples > 1 and theta is not None:
        found["errors"] = errors(work, final, theta)
    return found


def errors(work: Study, final: Fitted, theta: float) -> dict[str, Any]:
    """Standard deviations over resamples of frames and of data: of metrics, and of what is calculated of each datum."""
    found = {}
    for name, fits in work.resample(final, theta).items():
        data = [calculated(problem.experiments, averages, fit.params.shared)[0] for problem, fit, averages in fits]
        metrics = {key: [fit.metrics[key] for _, fit, _ in fits] for key in ("chi2", "ess", "kl")}
        found[name] = {
            "resamples": len(fits),
            "calculated": np.std(data, axis=0, ddof=1).tolist(),
            "metrics": {key: float(np.std(values, ddof=1)) for key, values in metrics.items()},
        }
    return found


def carried_by_few(ess: float, n_frames: int) -> list[str]:
    """A warning where few frames carry the result."""
    if ess >= FEW * n_frames:
        return []
    return [
        f"{ess:.3g} of {n_frames} frames carry the result (Kish's effective number): sample more, or raise theta; the"
        " averages of so few frames are uncertain beyond the errors shown"
    ]
