"""The fit of parameters to averages over simulated windows.

equilibration   each window of each system comes to its own start: a stage
tangents        draws at the parameters given: how long tangents should be carried, where that is asked for: a stage
before          no fit: the averages at the parameters given
rounds          so many steps of the parameters, each from averages over windows of a new draw
errors          a last draw at the parameters found: errors of averages over windows, and of parameters from these
derivatives     further draws: the derivatives by all estimators, and what the windows are too short for: a stage
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
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
from hpcfit.fit.state import gather_rows, to_arrays
from hpcfit.fit.stopwatch import Stopwatch
from hpcfit.kinds.force_field.parameters import little_known
from hpcfit.kinds.force_field.simulated import stored
from hpcfit.kinds.force_field.simulated.along_rounds import AlongRounds, of_windows, without
from hpcfit.kinds.force_field.simulated.averages import Ensemble, Windows
from hpcfit.kinds.force_field.simulated.case import SimulatedCase
from hpcfit.kinds.force_field.simulated.derivatives import (
    DRAW,
    Derivatives,
    Estimates,
    estimates,
    growth,
    of_frames,
    seen_systems,
)
from hpcfit.kinds.force_field.simulated.equilibration import why_it_broke
from hpcfit.kinds.force_field.simulated.weighed import fluctuation, window_slopes
from hpcfit.kinds.force_field.simulated.window import PILOT, pilot, windows_compared
from hpcfit.simulation.langevin import PhasePoint
from hpcfit.statistics.blocks import jackknife_error

EQUILIBRATION, FINAL, DERIVATIVES = "equilibration", "rounds", "derivatives"
SETTLED = 5.0  # times the noise of a step, beyond which it is no noise
NEAR = 1.2  # times the share of frames that must carry averages: steps have probably been turned back


class AtEnd(NamedTuple):
    """The results of a draw at the parameters found.

    averages, errors: all data, calculated, and the errors of the means over windows. values, of_data, of_windows: the
    parameters and their two errors, None where nothing determines some of them; correlations: [P, P], of both together;
    undetermined: combinations in words; moving: parameters that the last draw would still move, in words. noise: what
    the noise of the windows adds to chi2 of the fitted data.
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


def study(case: SimulatedCase, fits: Fits) -> dict[str, Any]:
    """All of the case; what was found beside the result itself, which ``fits.final`` is told. Collective."""
    piloted, clock = case.config.problem.tangents == "auto", Stopwatch()
    draws = case.config.problem.derivative_draws if seen_systems(case.problem) and not case.given else 0
    first = [stored.FIRST] if case.config.problem.geometries_in == "start" else []
    stages = [EQUILIBRATION, *([PILOT] if piloted else []), *first, FINAL, *([DERIVATIVES] if draws else [])]
    fits.announce([*first, FINAL] if case.given else stages)
    begun = {}
    if not case.given:
        with clock("equilibration"):
            begun = fits.grid.world.bcast(fits.stage(EQUILIBRATION, case.equilibration(fits.grid.world), {}))
    case = pilot(case, fits, begun) if piloted else case
    evaluate = stored.joined(case, case.evaluate(fits.grid))
    with clock("rounds"):
        given = Params(case.begin, ()) if case.given else case.start(begun, fits.grid)
        start = evaluate.problem.begun(given)
        before, moved = evaluate.value(start), stored.begun(case, fits, given)
        start = start if moved is given else evaluate.problem.begun(moved)
        along = AlongRounds(case, evaluate)
        fitted = fits.fit(FINAL, start, evaluate=evaluate, optimizer=_optimizer(case, evaluate.problem), also=along)
    fits.final(fitted, evaluate=evaluate)
    fits.warn(few(case, fitted) if case.given else exploded(case, fitted, evaluate))
    problem = replace(evaluate.problem, pulled_back=False)
    carried = Forward(problem, evaluate.frames, evaluate.grid, evaluate.add)
    u, local = fitted.params
    with clock("last draw, errors"):
        at = carried(Params(u, evaluate.problem.redrawn(local, fitted.rows.local, u)))
        found = at_end(case, carried, at, () if case.given else local["seen"], stored.more(evaluate))
    fits.warn([f"the data do not determine {one}" for one in found.undetermined])
    fits.warn([f"rounds have not settled: {one}; raise rounds, and settled" for one in found.moving])
    with clock("derivatives compared"):
        compared = compare(case, fits, carried, at) if draws else of_given(case, carried, at) if case.given else {}
    return compared | stored.facts(case, fits.grid, given.shared, u) | {
        "parameters": {
            "names": list(case.moving.labels),
            "start": case.moving.values(case.begin).tolist(),
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


def few(case: SimulatedCase, fitted: Fitted) -> list[str]:
    """A warning where few of the frames that were given carry the averages in the end."""
    share, floor = fitted.metrics["share_of_frames"], case.config.problem.least_share
    if share > NEAR * floor:
        return []
    return [
        f"{100 * share:.0f} % of the frames carry the averages at the parameters found (least_share is {100 * floor:g}"
        " %): sample frames at these parameters, and start from them"
    ]


def _listed(found: np.ndarray | None) -> list | None:
    return None if found is None else found.tolist()


def _optimizer(case: SimulatedCase, problem: Windows) -> MakeOptimizer:
    """Makes the optimizer of the rounds."""
    choice, chosen = case.config.problem, case.config.optimizer

    def make(inner: Any, gradient: Gradient) -> Optimizer:
        if choice.solver == "gauss-newton":
            compared = choice.steps_of_a_draw > 1
            one = GaussNewton(gradient, choice.full_steps, choice.largest_step, compared, stored.more(gradient))
        else:
            one = choose_optimizer(chosen.name, chosen.options, chosen.clip_norm, inner, gradient)
        return Rounds(problem, one, choice.steps, 0 if case.given else choice.steps_of_a_draw)

    return make


# ---- derivatives -----------------------------------------------------------------------------------------------------


def compare(case: SimulatedCase, fits: Fits, evaluate: Forward, at: Evaluation) -> dict[str, Any]:
    """The derivatives of all averages by every estimator, how long they remember, and how fast tangents grow."""
    world, problem, u = evaluate.grid.world, evaluate.problem, at.params.shared
    ends = gather_rows(to_arrays([at.rows]).local, evaluate.grid)
    starts = world.on_root(lambda: [_ends(case, ends, number) for number in range(len(problem.ensembles))])
    of_energies = {name: u[name] for name in problem.moving.of_energies.classes}
    work = Derivatives(problem, of_energies, starts, range(DRAW, DRAW + case.config.problem.derivative_draws), world)
    found = fits.stage(DERIVATIVES, work, {"parameters": _digest(u)})
    rows = world.on_root(lambda: list(_compared(case, problem, u, found)))
    fits.warn(too_short([row for of_system in rows for row in of_system["rows"]]))
    return {"derivatives": rows}


def _ends(case: SimulatedCase, rows: dict[str, np.ndarray], number: int) -> PhasePoint:
    leaves = case.ensembles[number].leaves
    return PhasePoint(*(of_windows(case, rows, number, f"ends'].{what}") for what in leaves))


def _digest(u: Any) -> str:
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(u))).hexdigest()[:16]


def _compared(case: SimulatedCase, problem: Windows, u: Any, found: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """Of each system its rows, what it remembers, and the growth of tangents."""
    moving, names = case.moving.of_energies, case.data_names()
    slopes, labels = moving.own_slopes(u), moving.free
    for number in seen_systems(problem):
        one, ensemble = case.opened[number], problem.along(u)[number]
        value, error = at = estimates(ensemble, slopes, found, number)
        errors, best = windows_compared(case, problem, number, u, found, at)
        window = np.where(np.isnan(value.pathwise), np.nan, float(ensemble.interval) * errors.careful().best)
        mine = [name for name in names if name.system == one.name and name.observable in _of_frames(one, ensemble)]
        short, (missing, of_missing) = value.too_short(error), value.missing(error)
        rows = [
            {
                "system": one.name, "observable": name.observable, "item": name.item, "parameter": labels[p],
                "pathwise": value.pathwise[m, p], "pathwise_error": error.pathwise[m, p],
                "fluctuation": value.fluctuation[m, p], "fluctuation_error": error.fluctuation[m, p],
                "malliavin": value.malliavin[m, p], "malliavin_error": error.malliavin[m, p],
                "combined": value.combined[m, p], "combined_error": error.combined[m, p],
                "left": value.left[m, p], "left_error": error.left[m, p], "too_short": bool(short[m, p]),
                "best_window": window[m, p], "missing": missing[m, p], "missing_error": of_missing[m, p],
            }
            for m, name in enumerate(mine) for p in range(len(labels))
        ]  # fmt: skip
        rate, of_rate = growth(ensemble, found, number)
        yield {
            "system": one.name,
            "growth": rate,
            "growth_error": of_rate,
            "rows": rows,
            "memory": [] if ensemble.barostat else _memory(case, problem, number, mine, value, error),
            "skipped": ensemble.skipped,
            "windows": None if best is None else best.facts(ensemble, labels),
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
    worst = max(short, key=lambda row: abs(row["missing"]) / row["missing_error"])
    return [
        f"windows are too short for {len(short)} of {len(rows)} pathwise derivatives: that of {worst['observable']}"
        f" {worst['item']} ({worst['system']}) by {worst['parameter']} is {worst['fluctuation']:.3g} +-"
        f" {worst['fluctuation_error']:.2g} by fluctuations, and {worst['missing']:.2g} +- {worst['missing_error']:.1g}"
        " of it are missing; lengthen [problem] window, or use estimator = 'fluctuation'"
    ]


def of_given(case: SimulatedCase, evaluate: Forward, at: Evaluation) -> dict[str, Any]:
    """The derivatives of all averages of frames that are given, by the fluctuation formula; collective."""
    u = at.params.shared
    of_energies = {name: u[name] for name in evaluate.problem.moving.of_energies.classes}
    found = window_slopes(evaluate.problem, of_energies, evaluate.frames.rows)
    kept = gather_rows(to_arrays([Params((), found)]).local, evaluate.grid)
    return evaluate.grid.world.on_root(lambda: {"derivatives": list(_of_given(case, evaluate.problem, u, kept))})


def _of_given(case: SimulatedCase, problem: Windows, u: Any, kept: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    moving, names = case.moving.of_energies, case.data_names()
    slopes, labels = moving.own_slopes(u), moving.free
    for number, one in enumerate(case.opened):
        sums, tangents = (of_windows(case, kept, number, what) for what in ("sums", "slopes"))
        value, error = fluctuation(problem, number, u, slopes, sums, tangents)
        mine = [name for name in names if name.system == one.name]
        rows = [
            {
                "system": one.name, "observable": name.observable, "item": name.item, "parameter": labels[p],
                "fluctuation": value[m, p], "fluctuation_error": error[m, p],
            }
            for m, name in enumerate(mine) for p in range(len(labels))
        ]  # fmt: skip
        yield {"system": one.name, "rows": rows}


# ---- errors ----------------------------------------------------------------------------------------------------------


def averages_of(at: Evaluation) -> np.ndarray:
    """The calculated values of all data, system after system, and differences behind them."""
    return np.asarray(at.sums["data"])


def at_end(case: SimulatedCase, evaluate: Forward, at: Evaluation, seen: Any, more: More | None) -> AtEnd:
    """Errors of the averages of a draw, from the spread of its windows, and of the parameters, from that of the means
    of each window over the rounds that they are the mean of: a window goes on where it ended, and may remember. more:
    gives the curvature [P, P] of what the loss has beside averages. Collective."""
    rows = gather_rows(to_arrays([at.rows]).local, evaluate.grid)
    of_rounds = gather_rows(to_arrays([Params((), seen)]).local, evaluate.grid)
    linear = jacobian(evaluate, at)
    beside = 0.0 if more is None else more(at)
    errors = partial(_errors, case, evaluate.problem, at, rows, of_rounds, linear, beside)
    return evaluate.grid.world.on_root(errors)


def _errors(
    case: SimulatedCase, problem: Windows, at: Evaluation, rows: dict[str, np.ndarray],
    of_rounds: dict[str, np.ndarray], linear: tuple[np.ndarray, np.ndarray], beside: Any,
) -> AtEnd:  # fmt: skip
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
    of_draw, of_windows = (_scatter(_of_data(problem, one) @ J[:n] @ covariance) for one in (left_out, of_mean))
    of_values = [slopes @ part @ slopes.T for part in (covariance, of_windows, covariance + of_windows)]
    of_data, of_frames, errors = (np.sqrt(np.diag(part)) for part in of_values)
    correlations = of_values[-1] / np.outer(errors, errors)
    step, scatter = -slopes @ covariance @ J.T @ residuals, slopes @ (of_draw + of_windows) @ slopes.T
    still = _still_moving(case, step, np.sqrt(np.diag(scatter)), errors) if np.ndim(beside) == 0 else []
    return AtEnd(averages, jackknife_error(left_out), values, of_data, of_frames, correlations, [], still, noise)


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
