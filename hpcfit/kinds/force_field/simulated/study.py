"""The fit of parameters to averages over simulated windows.

equilibration   each window of each system comes to its own start: a stage
tangents        draws at the parameters given: how long tangents should be carried, where that is asked for: a stage
before          no fit: the averages at the parameters given
rounds          so many steps of the parameters, each from averages over windows of a new draw
errors          a last draw at the parameters found: errors of averages over windows, and of parameters from these
derivatives     further draws: the derivatives by all estimators, and what the windows are too short for: a stage

Frames that are given are the same in all rounds and at the end; their derivatives are those of the fluctuation formula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from hpcfit.fit.by_blocks import Forward
from hpcfit.fit.gradient import Evaluation, Gradient
from hpcfit.fit.optimizers import MakeOptimizer, Optimizer, choose_optimizer
from hpcfit.fit.problem import Params
from hpcfit.fit.rounds import GaussNewton, More, Rounds, jacobian
from hpcfit.fit.stages import Fits, Fitted
from hpcfit.fit.stopwatch import Stopwatch
from hpcfit.kinds.force_field.outputs import parameter_table
from hpcfit.kinds.force_field.parameters import little_known
from hpcfit.kinds.force_field.simulated import stored
from hpcfit.kinds.force_field.simulated.along_rounds import AlongRounds, Rows, both, summed_rows, without
from hpcfit.kinds.force_field.simulated.averages import Windows
from hpcfit.kinds.force_field.simulated.case import SimulatedCase
from hpcfit.kinds.force_field.simulated.compared import DERIVATIVES, compare, of_given
from hpcfit.kinds.force_field.simulated.derivatives import seen_systems
from hpcfit.kinds.force_field.simulated.equilibration import why_it_broke
from hpcfit.kinds.force_field.simulated.given_case import GivenCase
from hpcfit.kinds.force_field.simulated.memory import TOLD, Course, certain, correlations_of
from hpcfit.kinds.force_field.simulated.window import PILOT, pilot
from hpcfit.statistics.blocks import jackknife_error

EQUILIBRATION, FINAL = "equilibration", "rounds"
SETTLED = 5.0  # times the noise of a step, beyond which it is no noise
NEAR = 1.2  # times the share of frames that must carry averages: steps have probably been turned back


class AtEnd(NamedTuple):
    """The results of a draw at the parameters found.

    averages, errors: all data, calculated, and the errors of the means over windows. values, of_data, of_windows: the
    parameters and their two errors, None where nothing determines some of them; correlations: [P, P], of both together;
    undetermined: combinations in words; moving: parameters that the last draw would still move, in words. noise: what
    the noise of the windows adds to chi2 of the fitted data. lengthened: the factors, by parameter that moves freely,
    by which errors of windows are larger for what windows remember of earlier rounds; remembering: those that matter,
    in words.
    """

    averages: np.ndarray
    errors: np.ndarray
    values: np.ndarray
    of_data: np.ndarray | None
    of_windows: np.ndarray | None
    correlations: np.ndarray | None
    undetermined: list[str]
    moving: list[str]
    noise: float
    lengthened: np.ndarray | None = None
    remembering: Sequence[str] = ()


class Begun(NamedTuple):
    """The case, and where its rounds begin. warned: gives warnings of the last round, from its case, fit and gradient;
    compared: the derivatives of all averages, from case, fits, gradient and the evaluation at the parameters found."""

    case: SimulatedCase
    params: Params
    warned: Callable[[SimulatedCase, Fitted, Gradient], list[str]]
    compared: Callable[[SimulatedCase, Fits, Forward, Evaluation], dict[str, Any]]


def study(case: SimulatedCase, fits: Fits) -> dict[str, Any]:
    """All of the case; what was found beside the result itself, which ``fits.final`` is told. Collective."""
    begin, clock = _begin_given if isinstance(case, GivenCase) else _begin_simulated, Stopwatch()
    case, given, warned, compared = begin(case, fits, clock)
    evaluate = stored.joined(case, case.evaluate(fits.grid))
    with clock("rounds"):
        start = evaluate.problem.begun(given)
        before, moved = evaluate.value(start), stored.begun(case, fits, given)
        start = start if moved is given else evaluate.problem.begun(moved)
        along = AlongRounds(case, evaluate)
        fitted = fits.fit(FINAL, start, evaluate=evaluate, optimizer=_optimizer(case, evaluate.problem), also=along)
    fits.final(fitted, evaluate=evaluate)
    fits.warn(warned(case, fitted, evaluate))
    carried = Forward(evaluate.problem, evaluate.frames, evaluate.grid, evaluate.add, case.direction.pulled)
    u, local = fitted.params
    with clock("last draw, errors"):
        at = carried(Params(u, evaluate.problem.redrawn(local, fitted.rows.local, u)))
        found = at_end(case, carried, at, local["seen"], fitted.rows.local, stored.more(evaluate))
    fits.warn([f"the data do not determine {one}" for one in found.undetermined])
    fits.warn([f"rounds have not settled: {one}; raise rounds, and settled" for one in found.moving])
    fits.warn(list(found.remembering))
    with clock("derivatives compared"):
        derivatives = compared(case, fits, carried, at)
    return derivatives | stored.facts(case, fits.grid, given.shared, u) | {
        "parameters": parameter_table(
            case.moving.labels, case.moving.values(case.begin), found.values, found.of_data, found.of_windows,
            found.correlations,
        ),
        "errors_lengthened": None if found.lengthened is None else found.lengthened.tolist(),
        "undetermined": found.undetermined,
        "rounds_of_the_mean": case.rounds_of_the_mean,
        "noise_of_chi2": found.noise,
        "averages": found.averages.tolist(),
        "errors_of_averages": found.errors.tolist(),
        "averages_before": averages_of(before).tolist(),
        "before": evaluate.metrics(before),
        "seconds": clock.seconds,
    }


def _begin_simulated(case: SimulatedCase, fits: Fits, clock: Stopwatch) -> Begun:
    """Each window comes to its own start; collective."""
    piloted = case.config.problem.tangents == "auto"
    behind = [DERIVATIVES] if case.config.problem.derivative_draws and seen_systems(case.problem) else []
    fits.announce([EQUILIBRATION, *([PILOT] if piloted else []), *stored.first(case), FINAL, *behind])
    with clock("equilibration"):
        begun = fits.grid.world.bcast(fits.stage(EQUILIBRATION, case.equilibration(fits.grid.world), {}))
    case = pilot(case, fits, begun) if piloted else case
    return Begun(case, case.start(begun, fits.grid), exploded, compare if behind else lambda *_: {})


def _begin_given(case: GivenCase, fits: Fits, clock: Stopwatch) -> Begun:
    """The parameters are those that the frames were drawn at; collective."""
    fits.announce([*stored.first(case), FINAL])
    return Begun(case, case.first, few, of_given)


def few(case: SimulatedCase, fitted: Fitted, evaluate: Gradient) -> list[str]:
    """A warning where few of the frames that were given carry the averages in the end."""
    share, floor = fitted.metrics["share_of_frames"], case.config.problem.least_share
    if share > NEAR * floor:
        return []
    return [
        f"{100 * share:.0f} % of the frames carry the averages at the parameters found (least_share is {100 * floor:g}"
        " %): sample frames at these parameters, and start from them"
    ]


def _optimizer(case: SimulatedCase, problem: Windows) -> MakeOptimizer:
    """Makes the optimizer of the rounds."""
    choice, chosen = case.config.problem, case.config.optimizer

    def make(inner: Any, gradient: Gradient) -> Optimizer:
        if choice.solver == "gauss-newton":
            compared = choice.steps_of_a_draw > 1
            one = GaussNewton(gradient, choice.full_steps, choice.largest_step, compared, stored.more(gradient))
        else:
            one = choose_optimizer(chosen.name, chosen.options, chosen.clip_norm, inner, gradient)
        return Rounds(problem, one, choice.steps, case.steps_of_a_draw)

    return make


# ---- errors ----------------------------------------------------------------------------------------------------------


def averages_of(at: Evaluation) -> np.ndarray:
    """The calculated values of all data, system after system, and differences behind them."""
    return np.asarray(at.sums["data"])


def at_end(
    case: SimulatedCase, evaluate: Forward, at: Evaluation, seen: Any, before: Any, more: More | None
) -> AtEnd:  # fmt: skip
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
    noise = float(np.sum(jackknife_error(_of_data(problem, left_out)) ** 2))
    slopes, values = case.moving.slopes(at.params.shared), case.moving.values(at.params.shared)
    n = len(averages)  # residuals begin with those of data; deviations from priors have no noise
    of_data, of_priors = (part.T @ part for part in (J[:n], J[n:]))
    unknown, _ = little_known(of_data + beside, of_priors, case.moving.free)
    if unknown:
        return AtEnd(averages, jackknife_error(left_out), values, None, None, None, unknown, [], noise)
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
        averages, jackknife_error(left_out), values, of_data, of_frames, correlations, [], still, noise,
        lengthened, remembering,
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


def exploded(case: SimulatedCase, fitted: Fitted, evaluate: Gradient) -> list[str]:
    """A warning for each window of the last round that exploded; collective."""
    found, ids = [], np.asarray(evaluate.frames.rows.ids)
    for number, (one, rows) in enumerate(zip(case.opened, fitted.rows.local)):
        broke, crowded = np.asarray(rows["broke"]), np.asarray(rows["crowded"])
        for block, row in np.argwhere((broke >= 0) & (ids >= 0)).tolist():
            ends = jax.tree.map(lambda leaf, block=block: leaf[block], rows["ends"])
            ensemble, window = evaluate.problem.ensembles[number], ids[block][row]
            what, where = why_it_broke(ensemble, window, ends, broke[block], crowded[block], row)
            found.append(f"system '{one.name}' {what} in {where}: this window was left out of the last round")
    parts = evaluate.grid.frames.gather(found)
    return evaluate.grid.world.bcast(None if parts is None else [line for part in parts for line in part])
