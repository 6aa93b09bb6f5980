"""The fit of parameters to averages over simulated windows.

equilibration   each window of each system comes to its own start: a stage
before          no fit: the averages at the parameters given
rounds          so many steps of the parameters, each from averages over windows of a new draw
errors          a last draw at the parameters found: errors of averages over windows, and of parameters from these
derivatives     further draws: the derivatives by both estimators, and what the windows are too short for: a stage
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from hpcfit.fit.by_blocks import Forward
from hpcfit.fit.gradient import Evaluation, Gradient
from hpcfit.fit.optimizers import MakeOptimizer, Optimizer, choose_optimizer
from hpcfit.fit.problem import Params
from hpcfit.fit.rounds import GaussNewton, Rounds, jacobian
from hpcfit.fit.stages import Fits, Fitted
from hpcfit.fit.state import gather_rows, to_arrays
from hpcfit.fit.stopwatch import Stopwatch
from hpcfit.kinds.force_field.simulated.along_rounds import AlongRounds, of_windows, without
from hpcfit.kinds.force_field.simulated.averages import Ensemble, Windows
from hpcfit.kinds.force_field.simulated.case import SimulatedCase
from hpcfit.kinds.force_field.simulated.derivatives import Derivatives, Estimates, estimates, growth, of_frames
from hpcfit.kinds.force_field.simulated.equilibration import why_it_broke
from hpcfit.simulation.langevin import PhasePoint
from hpcfit.statistics.blocks import jackknife_error

EQUILIBRATION, FINAL, DERIVATIVES = "equilibration", "rounds", "derivatives"
HELD = 0.5  # of a curvature: from there on it is that of priors
UNDETERMINED = 1e-6  # of the largest curvature, or below: a combination that the data say nothing of


class AtEnd(NamedTuple):
    """The results of a draw at the parameters found.

    averages, errors: all data, calculated, and the errors of the means over windows. values, of_data, of_windows: the
    parameters and their two errors, None where nothing determines some of them; correlations: [P, P], of both together;
    undetermined: combinations in words. noise: what the noise of the windows adds to chi2 of the fitted data.
    """

    averages: np.ndarray
    errors: np.ndarray
    values: np.ndarray
    of_data: np.ndarray | None
    of_windows: np.ndarray | None
    correlations: np.ndarray | None
    undetermined: list[str]
    noise: float


def study(case: SimulatedCase, fits: Fits) -> dict[str, Any]:
    """All of the case; what was found beside the result itself, which ``fits.final`` is told. Collective."""
    draws = case.config.problem.derivative_draws
    fits.announce([EQUILIBRATION, FINAL, *([DERIVATIVES] if draws else [])])
    evaluate, world = case.evaluate(fits.grid), fits.grid.world
    clock, work = Stopwatch(), case.equilibration(world)
    with clock("equilibration"):
        start = evaluate.problem.begun(case.start(world.bcast(fits.stage(EQUILIBRATION, work, {})), fits.grid))
    with clock("rounds"):
        before, along = evaluate.value(start), AlongRounds(case, evaluate)
        fitted = fits.fit(FINAL, start, evaluate=evaluate, optimizer=_optimizer(case, evaluate.problem), also=along)
    fits.final(fitted, evaluate=evaluate)
    fits.warn(exploded(case, fitted, evaluate))
    carried = Forward(evaluate.problem, evaluate.frames, evaluate.grid, evaluate.add)
    u, local = fitted.params
    with clock("last draw, errors"):
        at = carried(Params(u, evaluate.problem.redrawn(local, fitted.rows.local, u)))
        found = at_end(case, carried, at)
    fits.warn([f"the data do not determine {one}" for one in found.undetermined])
    with clock("derivatives compared"):
        compared = compare(case, fits, carried, at) if draws else {}
    return compared | {
        "parameters": {
            "names": list(case.moving.labels),
            "start": case.moving.values(case.moving.init()).tolist(),
            "values": found.values.tolist(),
            "errors_of_data": _listed(found.of_data),
            "errors_of_frames": _listed(found.of_windows),
            "correlations": _listed(found.correlations),
        },
        "undetermined": found.undetermined,
        "rounds_of_the_mean": case.rounds_of_the_mean,
        "noise_of_chi2": found.noise,
        "averages": found.averages.tolist(),
        "errors_of_averages": found.errors.tolist(),
        "averages_before": averages_of(before).tolist(),
        "before": evaluate.metrics(before),
        "seconds": clock.seconds,
    }


def _listed(found: np.ndarray | None) -> list | None:
    return None if found is None else found.tolist()


def _optimizer(case: SimulatedCase, problem: Windows) -> MakeOptimizer:
    """Makes the optimizer of the rounds."""
    choice, chosen = case.config.problem, case.config.optimizer

    def make(inner: Any, gradient: Gradient) -> Optimizer:
        if choice.solver == "gauss-newton":
            compared = choice.steps_of_a_draw > 1
            one = GaussNewton(gradient, choice.full_steps, choice.largest_step, compared)
            return Rounds(problem, one, choice.rounds, choice.steps_of_a_draw)
        one = choose_optimizer(chosen.name, chosen.options, chosen.clip_norm, inner, gradient)
        return Rounds(problem, one, choice.rounds, choice.steps_of_a_draw)

    return make


# ---- derivatives -----------------------------------------------------------------------------------------------------


def compare(case: SimulatedCase, fits: Fits, evaluate: Forward, at: Evaluation) -> dict[str, Any]:
    """The derivatives of all averages by both estimators, how long they remember, and how fast tangents grow."""
    world, problem, u = evaluate.grid.world, evaluate.problem, at.params.shared
    ends = gather_rows(to_arrays([at.rows]).local, evaluate.grid)
    starts = world.on_root(lambda: [_ends(case, ends, number) for number in range(len(problem.ensembles))])
    of_energies = {name: u[name] for name in problem.moving.of_energies.classes}
    work = Derivatives(problem, of_energies, starts, case.config.problem.derivative_draws, world)
    found = fits.stage(DERIVATIVES, work, {"parameters": _digest(u)})
    rows = world.on_root(lambda: list(_compared(case, problem, u, found)))
    fits.warn(too_short([row for of_system in rows for row in of_system["rows"]]))
    return {"derivatives": rows}


def _ends(case: SimulatedCase, rows: dict[str, np.ndarray], number: int) -> PhasePoint:
    return PhasePoint(*(of_windows(case, rows, number, f"ends'].{what}") for what in ("x", "v")))


def _digest(u: Any) -> str:
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(u))).hexdigest()[:16]


def _compared(case: SimulatedCase, problem: Windows, u: Any, found: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """Of each system its rows, what it remembers, and the growth of tangents."""
    moving, names = case.moving.of_energies, case.data_names()
    slopes, labels = moving.own_slopes(u), moving.free
    for number, (one, ensemble) in enumerate(zip(case.opened, problem.along(u))):
        value, error = estimates(ensemble, slopes, found, number)
        both, of_both = value.combined(error)
        mine = [name for name in names if name.system == one.name and name.observable in _of_frames(one, ensemble)]
        short = value.too_short(error)
        rows = [
            {
                "system": one.name, "observable": name.observable, "item": name.item, "parameter": labels[p],
                "pathwise": value.pathwise[m, p], "pathwise_error": error.pathwise[m, p],
                "fluctuation": value.fluctuation[m, p], "fluctuation_error": error.fluctuation[m, p],
                "combined": both[m, p], "combined_error": of_both[m, p],
                "left": value.left[m, p], "left_error": error.left[m, p], "too_short": bool(short[m, p]),
            }
            for m, name in enumerate(mine) for p in range(len(labels))
        ]  # fmt: skip
        rate, of_rate = growth(ensemble, found, number)
        yield {
            "system": one.name,
            "growth": rate,
            "growth_error": of_rate,
            "rows": rows,
            "memory": _memory(case, problem, number, mine, value, error),
        }


def _of_frames(one: Any, ensemble: Ensemble) -> set[str]:
    return {config.name for config, found in zip(one.config.observable, ensemble.observables) if of_frames(found)}


def _memory(case: SimulatedCase, problem: Windows, number: int, mine: list, value: Estimates, error: Estimates) -> list:
    """C(t) / C(0) of the datum that says most of each parameter."""
    ensemble, found = problem.ensembles[number], []
    pairs = zip(problem.tiles[number], ensemble.observables)
    sigma = np.concatenate([m.sigma[0] for m, one in pairs if of_frames(one)])
    for p, label in enumerate(case.moving.of_energies.free):
        m = int(np.argmax(np.abs(value.fluctuation[:, p]) / sigma))
        found.append(
            {
                "parameter": label, "observable": mine[m].observable, "item": mine[m].item,
                "time": (float(ensemble.interval) * np.arange(len(value.memory))).tolist(),
                "left": value.memory[:, m, p].tolist(), "error": error.memory[:, m, p].tolist(),
            }
        )  # fmt: skip
    return found


def too_short(rows: list[dict[str, Any]]) -> list[str]:
    """A warning where the pathwise estimate has not decayed, with the worst of all derivatives."""
    short = [row for row in rows if row["too_short"]]
    if not short:
        return []
    worst = max(short, key=lambda row: abs(row["left"]))
    return [
        f"windows are too short for {len(short)} of {len(rows)} pathwise derivatives: {100 * worst['left']:.0f} +-"
        f" {100 * worst['left_error']:.0f} % of that of {worst['observable']} {worst['item']} ({worst['system']}) by"
        f" {worst['parameter']} are missing; lengthen [problem] window, or use estimator = 'fluctuation'"
    ]


# ---- errors ----------------------------------------------------------------------------------------------------------


def averages_of(at: Evaluation) -> np.ndarray:
    """The calculated values of all data, system after system, and differences behind them."""
    return np.asarray(at.sums["data"])


def at_end(case: SimulatedCase, evaluate: Forward, at: Evaluation) -> AtEnd:
    """Errors of the averages of a draw, from the spread of its windows, and of the parameters; collective."""
    rows = gather_rows(to_arrays([at.rows]).local, evaluate.grid)
    _, J = jacobian(evaluate, at)
    return evaluate.grid.world.on_root(partial(_errors, case, evaluate.problem, at, rows, J))


def _errors(case: SimulatedCase, problem: Windows, at: Evaluation, rows: dict[str, np.ndarray], J: np.ndarray) -> AtEnd:
    averages, left_out = averages_of(at), without(case, problem, at.params.shared, rows)
    noise = float(np.sum(jackknife_error(_of_data(problem, left_out)) ** 2))
    slopes, values = case.moving.slopes(at.params.shared), case.moving.values(at.params.shared)
    n = len(averages)  # residuals begin with those of data; deviations from priors have no noise
    undetermined = _undetermined(J, n, case.moving.free)
    if undetermined:
        return AtEnd(averages, jackknife_error(left_out), values, None, None, None, undetermined, noise)
    covariance = np.linalg.inv(J.T @ J)
    moved = _of_data(problem, left_out) @ J[:n] @ covariance
    of_windows = (len(moved) - 1) / len(moved) * moved.T @ moved / case.rounds_of_the_mean
    of_values = [slopes @ part @ slopes.T for part in (covariance, of_windows, covariance + of_windows)]
    of_data, of_frames, errors = (np.sqrt(np.diag(part)) for part in of_values)
    correlations = of_values[-1] / np.outer(errors, errors)
    return AtEnd(averages, jackknife_error(left_out), values, of_data, of_frames, correlations, [], noise)


def _of_data(problem: Windows, left_out: np.ndarray) -> np.ndarray:
    """The deviations of the averages without each window from their mean, in sigma and as they count, [W, data]."""
    sigma = np.concatenate([np.ravel(m.sigma) for tile in problem.tiles for m in tile])
    count = np.concatenate([np.ravel(m.count) for tile in problem.tiles for m in tile])
    return np.sqrt(count) * (left_out - left_out.mean(axis=0)) / sigma


def _undetermined(J: np.ndarray, n: int, labels: tuple[str, ...]) -> list[str]:
    """The combinations of parameters that hardly change any of n data, and that no prior holds, in units of their
    scales."""
    values, vectors = np.linalg.eigh(J.T @ J)
    held = np.sum((J[n:] @ vectors) ** 2, axis=0) > HELD * values
    found = vectors[:, (values <= UNDETERMINED * values[-1]) & ~held].T
    return [_in_words(vector, labels) for vector in found]


def _in_words(vector: np.ndarray, labels: tuple[str, ...]) -> str:
    order = np.argsort(-np.abs(vector))[:3]
    parts = [f"{vector[k]:+.2g} {labels[k]}" for k in order if abs(vector[k]) > 0.1]
    return " ".join(parts) + " (in units of their scales)"


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
