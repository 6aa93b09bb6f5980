"""The errors of a fit's results, from a last draw at the parameters found and the rounds before it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from hpcfit.fit.by_blocks import Forward
from hpcfit.fit.gradient import Evaluation
from hpcfit.fit.problem import Params
from hpcfit.fit.rounds import More, jacobian
from hpcfit.kinds.force_field.parameters import little_known
from hpcfit.kinds.force_field.simulated.along_rounds import Rows, both, summed_rows, without
from hpcfit.kinds.force_field.simulated.averages import Windows
from hpcfit.kinds.force_field.simulated.case import SimulatedCase
from hpcfit.kinds.force_field.simulated.memory import TOLD, Course, certain, correlations_of
from hpcfit.statistics.blocks import jackknife_error

SETTLED = 5.0  # times the noise of a step, beyond which it is no noise


class AtEnd(NamedTuple):
    """The results of a draw at the parameters found.

    averages, errors: all data, calculated, and the errors of the means over windows. values, of_data, of_windows: the
    parameters and their two errors, None where nothing determines some of them; correlations: [P, P], of both together;
    undetermined: combinations in words; moving: parameters that the last draw would still move, in words. lengthened:
    the factors, by parameter that moves freely, by which errors of windows are larger for what windows remember of
    earlier rounds; remembering: those that matter, in words.
    """

    averages: np.ndarray
    errors: np.ndarray
    values: np.ndarray
    of_data: np.ndarray | None
    of_windows: np.ndarray | None
    correlations: np.ndarray | None
    undetermined: list[str]
    moving: list[str]
    lengthened: np.ndarray | None = None
    remembering: Sequence[str] = ()


def averages_of(at: Evaluation) -> np.ndarray:
    """The calculated values of all data, system after system, and differences behind them."""
    return np.asarray(at.sums["data"])


def at_end(case: SimulatedCase, evaluate: Forward, at: Evaluation, seen: Any, before: Any, more: More | None) -> AtEnd:
    """Errors of the averages of a draw, from the spread of its windows, and of the parameters, from that of the means
    of each window over the rounds that they are the mean of: a window goes on where it ended, and may remember. before:
    rows of the draw before this one, at the same parameters. more: gives the curvature [P, P] of what the loss has
    beside averages. Collective."""
    drawn = tuple(summed_rows(part, evaluate.grid) for part in (at.rows, Params((), seen), Params((), before)))
    linear = jacobian(evaluate, at)
    beside = 0.0 if more is None else more(at)
    errors = partial(_errors, case, evaluate.problem, at, drawn, linear, beside)
    return evaluate.grid.world.on_root(errors)


def _errors(
    case: SimulatedCase, problem: Windows, at: Evaluation, drawn: tuple[Rows, Rows, Rows],
    linear: tuple[np.ndarray, np.ndarray], beside: Any,
) -> AtEnd:  # fmt: skip
    rows, of_rounds, before = drawn
    averages, left_out, (residuals, J) = averages_of(at), without(case, problem, at.params.shared, rows), linear
    slopes, values = case.moving.slopes(at.params.shared), case.moving.values(at.params.shared)
    n = len(averages)  # residuals begin with those of data; deviations from priors have no noise
    of_data, of_priors = (part.T @ part for part in (J[:n], J[n:]))
    unknown, _ = little_known(of_data + beside, of_priors, case.moving.free)
    if unknown:
        return AtEnd(averages, jackknife_error(left_out), values, None, None, None, unknown, [])
    covariance = np.linalg.inv(of_data + beside + of_priors)
    of_mean = without(case, problem, at.params.shared, of_rounds) if of_rounds else ()
    of_mean = of_mean if len(of_mean) else left_out
    moved = lambda left_out: _of_data(problem, left_out) @ J[:n] @ covariance  # noqa: E731
    of_draw, of_windows = (_scatter(moved(one)) for one in (left_out, of_mean))
    pair = both(case, problem, at.params.shared, before, rows) if case.rounds_of_the_mean > 1 else ()
    lengthened, remembering = _lengthened(case, [moved(one) for one in pair], np.diag(covariance @ of_data))
    of_windows = of_windows * np.outer(lengthened, lengthened)
    of_values = [slopes @ part @ slopes.T for part in (covariance, of_windows, covariance + of_windows)]
    of_data, of_frames, errors = (np.sqrt(np.diag(part)) for part in of_values)
    correlations = of_values[-1] / np.outer(errors, errors)
    step, scatter = -slopes @ covariance @ J.T @ residuals, slopes @ (of_draw + of_windows) @ slopes.T
    still = _still_moving(case, step, np.sqrt(np.diag(scatter)), errors) if np.ndim(beside) == 0 else []
    return AtEnd(
        averages, jackknife_error(left_out), values, of_data, of_frames, correlations, [], still, lengthened,
        remembering,
    )  # fmt: skip


def _lengthened(case: SimulatedCase, pair: list[np.ndarray], shares: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The factors [P] by which errors are larger because windows remember earlier rounds (see ``memory``), and warnings
    where these are large beyond chance.

    pair: what parts of the windows change in the parameters, [B, P], in two successive draws, if rounds are averaged.
    shares: [P], how far a step follows the averages. Pathwise derivatives lack what windows remember: errors by them
    are too large, and remain as they are.
    """
    choice = case.config.problem
    if not pair or choice.estimator == "pathwise":
        return np.ones(len(shares)), []
    found = correlations_of(*pair)
    course = Course(choice.rounds, choice.full_steps, choice.frames, choice.skipped_frames)
    factors = np.array([course.lengthened(*one) for one in zip(found, shares)])
    return factors, [
        f"windows remember earlier rounds: what successive ones tell of {name} is correlated by {of:.2f}, and its error"
        f" of frames is {by:.2g} times what the spread of windows says; lengthen [problem] window, or raise rounds"
        for name, of, by in zip(case.moving.free, found, factors)
        if by > TOLD and certain(of, len(pair[0]))
    ]


def _scatter(left_out: np.ndarray) -> np.ndarray:
    """The covariance of an estimate, [P, P], from those without each block, [B, P]."""
    off = left_out - left_out.mean(axis=0)
    return (len(off) - 1) / len(off) * off.T @ off


def _still_moving(case: SimulatedCase, step: np.ndarray, noise: np.ndarray, errors: np.ndarray) -> list[str]:
    """The parameters that a step from the last draw would move by more than their errors, and than its noise allows."""
    if not case.config.problem.rounds:
        return []
    far = (np.abs(step) > errors) & (np.abs(step) > SETTLED * noise)
    return [
        f"the last draw would move {name} by {by:.2g}, {abs(by) / of:.0f} times the noise of that"
        for name, by, of, moves in zip(case.moving.labels, step, noise, far)
        if moves
    ]


def _of_data(problem: Windows, left_out: np.ndarray) -> np.ndarray:
    """The deviations of the averages without each window from their mean, in sigma and as they count, [W, data]."""
    sigma = np.concatenate([np.ravel(m.sigma) for tile in problem.tiles for m in tile])
    count = np.concatenate([np.ravel(m.count) for tile in problem.tiles for m in tile])
    return np.sqrt(count) * (left_out - left_out.mean(axis=0)) / sigma
