"""The fits that weights of frames take from averages alone. The loss has one minimum, unless sets are adjusted.

theta        each one judged by data that were left out of its fits, where there are several or folds are asked for
final        all data but those of validation sets, at that theta
resamples    of trajectories and blocks of their frames, and of data: how far the result depends on them
theta / 100  how far theta pulls shares of states to the prior
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from hpcfit.fit.gradient import Gradient
from hpcfit.fit.problem import FrameRows, Params
from hpcfit.fit.stages import Fits, Fitted
from hpcfit.fit.state import gather_rows
from hpcfit.kinds.frame_weights.averages.case import AveragesCase
from hpcfit.kinds.frame_weights.averages.problem import AveragesFit
from hpcfit.kinds.frame_weights.conclusions import NOTHING_TO_DRAW, choose_theta, theta_row
from hpcfit.kinds.frame_weights.experiments import calculated, data_folds
from hpcfit.kinds.frame_weights.explained import remarks
from hpcfit.observables.frame_tables import groups_of

FINAL = "final"
ENOUGH = 1e-6  # relative tolerance of fits that are only compared: far below the errors they are compared by
ALMOST_NO_THETA = 0.01  # of theta: without any, weights that agree alike with data would be anything
LITTLE_THETA = "theta / 100"
FEW = 0.1  # share of the frames that carry a result which is to be trusted


class Resampled(NamedTuple):
    """A fit, what is calculated of each datum, and the shares of states."""

    fitted: Fitted
    calculated: np.ndarray
    shares: np.ndarray


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
        return [*folds, FINAL, *resamples, *([LITTLE_THETA] if choice.resamples > 1 and self._has_states else [])]

    @property
    def _has_states(self) -> bool:
        """Whether there are several states whose shares are looked for."""
        return len(self.case.trajectories.groups) > 1

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

    def resample(self, final: Fitted, theta: float) -> dict[str, list[Resampled]]:
        """Each resample of frames (trajectories within their labels, then blocks within trajectories), and of groups of
        data."""
        choice, of, found = self.case.config.problem, self.case.trajectories, {"frames": [], "data": []}
        drawn = of.resampled(self.weights(final, self._rows), choice.resamples, choice.resample_blocks)
        for seed, counts in enumerate(drawn, 1):
            found["frames"].append(self._refitted(f"frames {seed}", final, self.at(theta, rows=self._drawn(counts))))
        if not found["frames"]:
            self.fits.warn(NOTHING_TO_DRAW)
        groups = groups_of(self.case.tables)
        for seed in range(1, choice.resamples + 1):
            drawn = replace(self._problem, experiments=self._problem.experiments.drawn(groups, seed))
            found["data"].append(self._refitted(f"data {seed}", final, self.at(theta, drawn)))
        return found

    def _refitted(self, name: str, final: Fitted, evaluate: Gradient) -> Resampled:
        fitted = self.fits.fit(name, final.params, evaluate, tolerance=ENOUGH)
        common = evaluate.value(fitted.params).statistics.common
        averages = np.asarray(evaluate.problem.averages(common))
        of_data = calculated(evaluate.problem.experiments, averages, fitted.params.shared)[0]
        return Resampled(fitted, of_data, self.case.trajectories.of_groups(self.weights(fitted, evaluate.frames.rows)))

    def _drawn(self, counts: np.ndarray) -> FrameRows:
        """Rows in which each frame counts as often as ``counts`` [T]; one that was not drawn takes no part."""
        rows = self._rows
        mine = np.where(rows.ids >= 0, counts[np.maximum(rows.ids, 0)], 0.0)
        total = float(np.sum(self.case.w0 * counts))
        log_prior = np.where(mine > 0, rows.more.log_prior + np.log(np.where(mine > 0, mine, 1.0) / total), 0.0)
        return FrameRows(np.where(mine > 0, rows.ids, -1), rows.total, rows.more._replace(log_prior=log_prior))

    def weights(self, fitted: Fitted, rows: FrameRows) -> np.ndarray:
        """w of every frame, [T], on every rank."""
        w, grid = self._problem.weights_of(fitted.params, rows), self.fits.evaluate.grid
        whole = gather_rows({"w": np.where(rows.ids >= 0, w, 0.0)}, grid)
        return grid.world.bcast(whole["w"] if grid.world.is_root else None).ravel()[: self.case.n_frames]

    def populations(self, final: Fitted, theta: float) -> list[dict[str, Any]]:
        """The share of each state in the fit and where theta hardly counts; none where there is one state."""
        states, rows = self.case.trajectories, self._rows
        if not self._has_states:
            return []
        free = self.fits.fit(LITTLE_THETA, final.params, self.at(ALMOST_NO_THETA * theta), tolerance=ENOUGH)
        shares = (states.of_groups(self.weights(one, rows)).tolist() for one in (final, free))
        return [
            {"group": name, "fitted": fitted, "without_theta": freely, "groups_alone": None, "corrected": None}
            for name, fitted, freely in zip(states.groups, *shares)
        ]


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
    of, w = case.trajectories, work.weights(final, work.fits.evaluate.frames.rows)
    if choice.resamples > 1 and theta is not None:
        found["errors"] = errors(work, final, theta)
        fits.warn(of.warnings(w) if "frames" in found["errors"] else [])
        found["populations"] = work.populations(final, theta)
    if case.numbers is not None:
        world = fits.grid.world
        found["explained"] = world.bcast(of.explained(w, case.w0, case) if world.is_root else None)
        fits.warn(remarks(found["explained"]))
    return found


def errors(work: Study, final: Fitted, theta: float) -> dict[str, Any]:
    """Standard deviations over resamples of frames and of data, of metrics, of what is calculated of each datum, and of
    shares of states; and ``bias``: by how much these are larger on average than in the fit."""
    states, found = work.case.trajectories, {}
    fitted = states.of_groups(work.weights(final, work.fits.evaluate.frames.rows))
    for name, fits in work.resample(final, theta).items():
        if not fits:
            continue
        metrics = {key: [one.fitted.metrics[key] for one in fits] for key in ("chi2", "ess", "kl")}
        shares = np.array([one.shares for one in fits])
        found[name] = {
            "resamples": len(fits),
            "calculated": np.std([one.calculated for one in fits], axis=0, ddof=1).tolist(),
            "metrics": {key: float(np.std(values, ddof=1)) for key, values in metrics.items()},
            "groups": dict(zip(states.groups, shares.std(axis=0, ddof=1).tolist())),
            "bias": dict(zip(states.groups, (shares.mean(axis=0) - fitted).tolist())),
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
