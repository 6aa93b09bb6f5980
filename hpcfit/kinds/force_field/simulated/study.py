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

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from hpcfit.fit.by_blocks import Forward
from hpcfit.fit.gradient import Evaluation, Gradient
from hpcfit.fit.optimizers import MakeOptimizer, Optimizer, choose_optimizer
from hpcfit.fit.problem import Params
from hpcfit.fit.rounds import GaussNewton, Rounds
from hpcfit.fit.stages import Fits, Fitted
from hpcfit.fit.stopwatch import Stopwatch
from hpcfit.kinds.force_field.outputs import parameter_table
from hpcfit.kinds.force_field.simulated import stored
from hpcfit.kinds.force_field.simulated.along_rounds import AlongRounds, noise_of_chi2, summed_rows
from hpcfit.kinds.force_field.simulated.at_end import at_end, averages_of
from hpcfit.kinds.force_field.simulated.averages import Windows
from hpcfit.kinds.force_field.simulated.case import SimulatedCase
from hpcfit.kinds.force_field.simulated.compared import DERIVATIVES, compare, of_given
from hpcfit.kinds.force_field.simulated.equilibration import why_it_broke
from hpcfit.kinds.force_field.simulated.given_case import GivenCase
from hpcfit.kinds.force_field.simulated.window import PILOT, pilot

EQUILIBRATION, FINAL = "equilibration", "rounds"
NEAR = 1.2  # times the share of frames that must carry averages: steps have probably been turned back


class Begun(NamedTuple):
    """The case, and where its rounds begin. warned: gives warnings of the last round, from its case, fit and gradient;
    compared: the derivatives of all averages, from case, fits, gradient, the evaluation at the parameters found, and
    the gradient of what the loss has beside averages."""

    case: SimulatedCase
    params: Params
    warned: Callable[[SimulatedCase, Fitted, Gradient], list[str]]
    compared: Callable[[SimulatedCase, Fits, Forward, Evaluation, Any], dict[str, Any]]


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
    rows = summed_rows(fitted.rows, fits.grid)
    of_chi2 = fits.grid.world.on_root(lambda: noise_of_chi2(case, evaluate.problem, fitted.params.shared, rows))
    pulled = case.direction.pulled
    problem = replace(evaluate.problem, pulled_back=pulled)
    carried = Forward(problem, evaluate.frames, evaluate.grid, evaluate.add, pulled)
    u, local = fitted.params
    with clock("last draw, errors"):
        at = carried(Params(u, evaluate.problem.redrawn(local, fitted.rows.local, u)))
        found = at_end(case, carried, at, local["seen"], fitted.rows.local, stored.more(evaluate))
    fits.warn([f"the data do not determine {one}" for one in found.undetermined])
    fits.warn([f"rounds have not settled: {one}; raise rounds, and settled" for one in found.moving])
    fits.warn(list(found.remembering))
    with clock("derivatives compared"):
        derivatives = compared(case, fits, carried, at, stored.gradient(evaluate, u))
    return (
        derivatives
        | stored.facts(case, fits.grid, given.shared, u)
        | {
            "parameters": parameter_table(
                case.moving.labels,
                case.moving.values(case.begin),
                found.values,
                found.of_data,
                found.of_windows,
                found.correlations,
            ),
            "errors_lengthened": None if found.lengthened is None else found.lengthened.tolist(),
            "undetermined": found.undetermined,
            "rounds_of_the_mean": case.rounds_of_the_mean,
            **of_chi2,
            "averages": found.averages.tolist(),
            "errors_of_averages": found.errors.tolist(),
            "averages_before": averages_of(before).tolist(),
            "before": evaluate.metrics(before),
            "seconds": clock.seconds,
        }
    )


def _begin_simulated(case: SimulatedCase, fits: Fits, clock: Stopwatch) -> Begun:
    """Each window comes to its own start; collective."""
    piloted = case.config.problem.tangents == "auto"
    behind = [DERIVATIVES] if case.config.problem.derivative_draws else []
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
