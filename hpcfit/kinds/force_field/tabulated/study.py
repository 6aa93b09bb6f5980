"""The fits of one loss over weights, corrections and curves.

before       no fit: how the simulated ensembles agree with the data
folds        each choice of prices judged by data that were not fitted, where there are several or folds are asked for
final        all data but those of the validation set, at the prices chosen
errors       the second derivative of the loss there, and resamples of blocks of frames
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from hpcfit.fit.gradient import Evaluation
from hpcfit.fit.problem import FrameRows, Params
from hpcfit.fit.stages import Fits, Fitted
from hpcfit.kinds.force_field.outputs import parameter_table
from hpcfit.kinds.force_field.tabulated.case import TabulatedCase
from hpcfit.kinds.force_field.tabulated.config import Prices
from hpcfit.kinds.force_field.tabulated.newton import Newton
from hpcfit.kinds.force_field.tabulated.problem import JointFit
from hpcfit.kinds.force_field.tabulated.uncertainty import Uncertainty, fitted_rows, uncertainty, undetermined
from hpcfit.observables.frame_tables import dealt_folds
from hpcfit.statistics.blocks import mean_with_error
from hpcfit.statistics.resampling import resampled_blocks

FINAL = "final"
ENOUGH = 1e-5  # relative tolerance of fits that are only compared: far below the errors they are compared by
FEW = 0.1  # share of an ensemble's frames that carry a result which is to be trusted


class Scanned(NamedTuple):
    """One choice of prices, or None for the simulated ensembles: chi2 a datum of held-out and of fitted data, means
    over the folds with the errors of these means."""

    prices: Prices | None
    held_out: float
    held_out_error: float
    fitted: float
    by_fold: tuple[float, ...]


@dataclass(frozen=True)
class Study:
    """The fits of one case."""

    case: TabulatedCase
    fits: Fits

    @property
    def _problem(self) -> JointFit:
        return self.fits.evaluate.problem

    def at(self, prices: Prices, problem: JointFit | None = None) -> JointFit:
        """The problem at some prices."""
        return replace(problem or self._problem, prices=prices)

    def evaluation(self, problem: JointFit, params: Any) -> Evaluation:
        """The sums of a problem at some parameters."""
        return self.fits.evaluate.of(problem).value(params)

    def fit(self, name: str, start: Params, problem: JointFit, rows: FrameRows | None = None, **how: float) -> Fitted:
        """A fit by Newton's steps, or by the optimizer of the config."""
        optimizer = Newton if self.case.config.problem.solver == "newton" else None
        return self.fits.fit(name, start, self.fits.evaluate.of(problem, rows), optimizer=optimizer, **how)

    def planned(self) -> list[str]:
        """The names of all fits, in their order."""
        choice = self.case.config.problem
        folds = [_fold_name(fold, prices) for fold in range(choice.n_folds) for prices in choice.prices]
        return [*folds, FINAL, *(f"frames {seed}" for seed in range(1, choice.resamples + 1))]

    # ---- prices ----------------------------------------------------------------------------------------------------

    def cross_validate(self) -> list[Scanned]:
        """The simulated ensembles, then each choice of prices, judged by the folds that it was not fitted to."""
        choice, folds = self.case.config.problem, self._folds()
        found = [list(self._of_fold(fold, folds == fold)) for fold in range(choice.n_folds)]
        return [_scanned(prices, scores) for prices, scores in zip((None, *choice.prices), zip(*found))]

    def _folds(self) -> np.ndarray:
        """The fold of each datum, -1 for those of the validation set: the groups of each ensemble are dealt out."""
        choice = self.case.config.problem
        return np.concatenate(dealt_folds([one.data for one in self.case.ensembles], choice.n_folds, choice.fold_seed))

    def _of_fold(self, fold: int, left_out: np.ndarray) -> Iterator[tuple[float, float]]:
        """chi2 a datum of the fold and of what was fitted, of the simulated ensembles and at each choice of prices."""
        data = self._problem.data
        count = np.where(left_out, 0.0, data.count)
        problem = replace(self._problem, data=data._replace(count=count, of_held_out=left_out.astype(float)))
        sizes = left_out.sum(), count.sum()
        start = problem.init(0, self.fits.evaluate.frames.rows)
        yield self._scores(problem, start, sizes)
        for prices in self.case.config.problem.prices:
            problem, before = self.at(prices, problem), problem
            start = problem.at_prices_of(start, before)
            start = self.fit(_fold_name(fold, prices), start, problem, tolerance=ENOUGH).params
            yield self._scores(problem, start, sizes)

    def _scores(self, problem: JointFit, params: Any, sizes: tuple[float, float]) -> tuple[float, float]:
        metrics = self.fits.evaluate.of(problem).metrics(self.evaluation(problem, params))
        return metrics["chi2_held_out"] / sizes[0], metrics["chi2"] / sizes[1]

    # ---- errors ----------------------------------------------------------------------------------------------------

    def resample_frames(self, final: Fitted, prices: Prices) -> np.ndarray:
        """Fitted parameters [resamples, n] of resampled blocks of each ensemble's frames."""
        choice, problem, found = self.case.config.problem, self.at(prices), []
        for seed in range(1, choice.resamples + 1):
            counts = resampled_blocks(self.case.members, choice.resample_blocks, seed)
            rows = self._drawn(counts)
            fitted = self.fit(f"frames {seed}", final.params, problem, rows, tolerance=ENOUGH)
            found.append(parameters(problem, fitted.params.shared))
        return np.array(found)

    def _drawn(self, counts: np.ndarray) -> FrameRows:
        """Rows in which each frame counts as often as ``counts`` [T]; one that was not drawn takes no part."""
        rows, members = self.fits.evaluate.frames.rows, self.case.members
        w0 = np.concatenate([one.w0 for one in self.case.ensembles]) * counts
        w0 /= np.bincount(members, w0)[members]
        mine = w0[np.maximum(rows.ids, 0)]
        taking_part = (rows.ids >= 0) & (mine > 0)
        log_w0 = np.log(np.where(taking_part, mine, 1.0))
        return FrameRows(np.where(taking_part, rows.ids, -1), rows.total, rows.more._replace(log_w0=log_w0))


def study(case: TabulatedCase, fits: Fits) -> dict[str, Any]:
    """All fits of the case; what they found beside the result itself, which ``fits.final`` is told. Collective."""
    work, choice = Study(case, fits), case.config.problem
    fits.announce(work.planned())
    found: dict[str, Any] = {}
    prices = choice.prices[0]
    start = work.at(prices).init(case.config.run.seed, fits.evaluate.frames.rows)
    if choice.n_folds:
        scan = work.cross_validate()
        prices = best(scan[1:]).prices
        fits.warn(doubtful(scan))
        found["cross_validation"] = [_scan_row(one) for one in scan]
    found["prices"] = shown_prices(prices, case)
    final = work.fit(FINAL, start, work.at(prices))
    fits.final(final, fits.evaluate.of(work.at(prices)))
    found["parameters"], found["combinations"] = errors(work, final, prices)
    return found


def errors(work: Study, final: Fitted, prices: Prices) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The fitted parameters with their errors of two kinds and their correlations; combinations of them."""
    problem, names = work.at(prices), parameter_names(work.case)
    evaluate = work.fits.evaluate.of(problem)
    at = evaluate.value(final.params)
    known = uncertainty(evaluate, at, names)
    work.fits.warn([*undetermined(known), *_no_minimum(known), *carried_by_few(work.case, problem, at)])
    resampled = work.resample_frames(final, prices)
    spread = resampled.std(axis=0, ddof=1) if len(resampled) > 1 else None
    start = problem.init(0, evaluate.frames.rows)
    values = (parameters(problem, at.shared) for at in (start, final.params))
    table = parameter_table(names, *values, known.errors, spread, known.correlations)
    return table, [one._asdict() for one in known.combinations]


def parameter_names(case: TabulatedCase) -> list[str]:
    """Names of the fitted corrections, then of A, B, C of the fitted curves."""
    choice = case.config.problem
    corrections = [one.name for one in choice.correction if one.fitted]
    return corrections + [f"{one.name} {letter}" for one in choice.curve if one.fitted for letter in "ABC"]


def parameters(problem: JointFit, shared: dict) -> np.ndarray:
    """The fitted corrections, kT, then A, B, C of the fitted curves, Hz."""
    phi, curves = np.asarray(problem.phi(shared)), np.asarray(problem.curves(shared))
    return np.concatenate([phi[fitted_rows(problem.scales)], (problem.scales.placed.T @ curves).ravel()])


def shown_prices(prices: Prices, case: TabulatedCase) -> dict[str, float]:
    """The prices that have an effect, by name."""
    choice = case.config.problem
    return {name: value for name, value in prices._asdict().items() if getattr(choice, name) is not None}


def best(scan: list[Scanned]) -> Scanned:
    """The choice of the least chi2 of held-out data."""
    return min(scan, key=lambda one: one.held_out)


def doubtful(scan: list[Scanned]) -> list[str]:
    """A warning where held-out data agree no better after the fit than before, by the folds' paired differences."""
    gain = mean_with_error(np.array(scan[0].by_fold) - np.array(best(scan[1:]).by_fold))
    if gain.value > gain.error:
        return []
    return [
        "no choice of alpha, beta and gamma made held-out data agree better than the simulated ensembles do: chi2 a"
        f" datum {best(scan[1:]).held_out:.3g} after, {scan[0].held_out:.3g} before (difference {gain.value:.2g} +-"
        f" {gain.error:.2g}); what was fitted may be noise"
    ]


def carried_by_few(case: TabulatedCase, problem: JointFit, at: Evaluation) -> list[str]:
    """A warning for each ensemble whose result few of its frames carry."""
    sums = at.statistics.common
    return [
        f"ensemble '{one.config.name}': {ess:.3g} of {one.n_frames} frames carry the result (Kish's effective number);"
        " simulate longer, or raise alpha and beta"
        for one, ess in zip(case.ensembles, np.asarray(sums.p**2 / sums.pp))
        if ess < FEW * one.n_frames
    ]


def _no_minimum(known: Uncertainty) -> list[str]:
    if known.covariance is not None:
        return []
    return [
        "no errors from the second derivative of the loss: it is flat along a combination of the fitted parameters,"
        " such as of two corrections whose terms go together"
    ]


def _fold_name(fold: int, prices: Prices) -> str:
    return f"fold {fold} alpha {prices.alpha:g} beta {prices.beta:g} gamma {prices.gamma:g}"


def _scanned(prices: Prices | None, scores: tuple[tuple[float, float], ...]) -> Scanned:
    held_out, fitted = np.array(scores).T
    mean = mean_with_error(held_out)
    return Scanned(prices, mean.value, mean.error, float(np.mean(fitted)), tuple(held_out.tolist()))


def _scan_row(one: Scanned) -> dict[str, Any]:
    prices = {"alpha": None, "beta": None, "gamma": None} if one.prices is None else one.prices._asdict()
    return prices | {key: value for key, value in one._asdict().items() if key != "prices"}
