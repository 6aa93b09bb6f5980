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
from hpcfit.fit.rounds import GaussNewton, More, Rounds, jacobian
from hpcfit.fit.stages import Fits, Fitted
from hpcfit.fit.state import gather_rows, to_arrays
from hpcfit.kinds.force_field.simulated import stored
from hpcfit.kinds.force_field.simulated.averages import Ensemble, Windows
from hpcfit.kinds.force_field.simulated.case import SimulatedCase
from hpcfit.kinds.force_field.simulated.derivatives import Derivatives, Estimates, estimates, growth, of_frames
from hpcfit.kinds.force_field.simulated.equilibration import why_it_broke
from hpcfit.kinds.force_field.simulated.parameters import UNDETERMINED, in_words
from hpcfit.simulation.langevin import PhasePoint
from hpcfit.statistics.blocks import jackknife_error, parts_of

EQUILIBRATION, FINAL, DERIVATIVES = "equilibration", "rounds", "derivatives"


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
    first = [stored.FIRST] if case.config.problem.geometries_in == "start" else []
    fits.announce([EQUILIBRATION, *first, FINAL, *([DERIVATIVES] if draws else [])])
    evaluate, world = stored.joined(case, case.evaluate(fits.grid)), fits.grid.world
    work = case.equilibration(world)
    given = case.start(world.bcast(fits.stage(EQUILIBRATION, work, {})), fits.grid)
    before = evaluate.value(evaluate.problem.begun(given))
    start = evaluate.problem.begun(stored.begun(case, fits, given))
    fitted = fits.fit(FINAL, start, evaluate=evaluate, optimizer=_optimizer(case, evaluate.problem))
    fits.final(fitted, evaluate=evaluate)
    fits.warn(exploded(case, fitted, evaluate))
    carried = Forward(evaluate.problem, evaluate.frames, evaluate.grid, evaluate.add)
    u, local = fitted.params
    at = carried(Params(u, evaluate.problem.redrawn(local, fitted.rows.local, u)))
    found = at_end(case, carried, at, stored.more(evaluate))
    fits.warn([f"the data do not determine {one}" for one in found.undetermined])
    compared = compare(case, fits, carried, at) if draws else {}
    return compared | stored.facts(case, fits.grid, given.shared, u) | {
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
    }


def _listed(found: np.ndarray | None) -> list | None:
    return None if found is None else found.tolist()


def _optimizer(case: SimulatedCase, problem: Windows) -> MakeOptimizer:
    """Makes the optimizer of the rounds."""
    choice, chosen = case.config.problem, case.config.optimizer

    def make(inner: Any, gradient: Gradient) -> Optimizer:
        if choice.solver == "gauss-newton":
            compared = choice.steps_of_a_draw > 1
            one = GaussNewton(gradient, choice.full_steps, choice.largest_step, compared, stored.more(gradient))
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
    work = Derivatives(problem, u, starts, case.config.problem.derivative_draws, world)
    found = fits.stage(DERIVATIVES, work, {"parameters": _digest(u)})
    rows = world.on_root(lambda: list(_compared(case, problem, u, found)))
    fits.warn(too_short([row for of_system in rows for row in of_system["rows"]]))
    return {"derivatives": rows}


def _ends(case: SimulatedCase, rows: dict[str, np.ndarray], number: int) -> PhasePoint:
    return PhasePoint(*(_windows(case, rows, number, f"ends'].{what}") for what in ("x", "v")))


def _digest(u: Any) -> str:
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(u))).hexdigest()[:16]


def _compared(case: SimulatedCase, problem: Windows, u: Any, found: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """Of each system its rows, what it remembers, and the growth of tangents."""
    slopes, labels, names = case.moving.slopes(u), case.moving.labels, case.data_names()
    for number, (one, ensemble) in enumerate(zip(case.opened, problem.ensembles)):
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
    for p, label in enumerate(case.moving.labels):
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


def at_end(case: SimulatedCase, evaluate: Forward, at: Evaluation, more: More | None) -> AtEnd:
    """Errors of the averages of a draw, from the spread of its windows, and of the parameters; collective. more: gives
    the curvature [P, P] of what the loss has beside averages."""
    rows = gather_rows(to_arrays([at.rows]).local, evaluate.grid)
    _, J = jacobian(evaluate, at)
    if more is not None:
        values, vectors = np.linalg.eigh(more(at))  # as if it were that of further residuals
        J = np.concatenate([J, np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T])
    return evaluate.grid.world.on_root(partial(_errors, case, evaluate.problem, at, rows, J))


def _errors(case: SimulatedCase, problem: Windows, at: Evaluation, rows: dict[str, np.ndarray], J: np.ndarray) -> AtEnd:
    averages, left_out = averages_of(at), _without_each(case, problem, rows)
    noise = float(np.sum(jackknife_error(_of_data(problem, left_out)) ** 2))
    slopes, values = case.moving.slopes(at.params.shared), case.moving.values(at.params.shared)
    normal = J.T @ J
    undetermined = _undetermined(normal, case.moving.labels)
    if undetermined:
        return AtEnd(averages, jackknife_error(left_out), values, None, None, None, undetermined, noise)
    covariance = np.linalg.inv(normal)
    n = len(averages)  # residuals begin with those of data; deviations from priors have no noise
    moved = _of_data(problem, left_out) @ J[:n] @ covariance
    of_windows = (len(moved) - 1) / len(moved) * moved.T @ moved / case.rounds_of_the_mean
    both = slopes[:, None] * (covariance + of_windows) * slopes
    errors = np.sqrt(np.diag(both))
    return AtEnd(
        averages, jackknife_error(left_out), values, slopes * np.sqrt(np.diag(covariance)),
        slopes * np.sqrt(np.diag(of_windows)), both / np.outer(errors, errors), [], noise,
    )  # fmt: skip


def _without_each(case: SimulatedCase, problem: Windows, rows: dict[str, np.ndarray]) -> np.ndarray:
    """The averages without each window that held in all systems, [W, data]."""
    found = []
    broke = np.stack([_windows(case, rows, number, "broke") for number in range(len(problem.ensembles))])
    held = np.flatnonzero(np.all(broke < 0, axis=0))
    for number, ensemble in enumerate(problem.ensembles):
        parts = [_windows(case, rows, number, f"observed'][{k}")[held] for k in range(len(ensemble.observables))]
        found.append(_jackknifed(ensemble, parts))
    return np.asarray(problem.differences.behind(np.concatenate(found, axis=1)))


def _jackknifed(ensemble: Ensemble, parts: list[np.ndarray]) -> np.ndarray:
    """The averages without each window, or part of the windows where there are many, [B, data]; those of one alone are
    none."""
    W, found = len(parts[0]), []
    for left_out in parts_of(W):
        rest = [part.sum(axis=0) - part[left_out].sum(axis=0) for part in parts]
        averages = ensemble.averages(rest, max(float(W - len(left_out)), 1.0))
        found.append(np.concatenate([np.ravel(value) for value in averages]))
    return np.array(found)


def _windows(case: SimulatedCase, rows: dict[str, np.ndarray], number: int, what: str) -> np.ndarray:
    """A row of all windows of a system, [windows, ...], in their order."""
    [found] = [leaf for name, leaf in rows.items() if f"[{number}]['{what}" in name]
    return found.reshape(-1, *found.shape[2:])[: case.n_frames]


def _of_data(problem: Windows, left_out: np.ndarray) -> np.ndarray:
    """The deviations of the averages without each window from their mean, in sigma and as they count, [W, data]."""
    sigma = np.concatenate([np.ravel(m.sigma) for tile in problem.tiles for m in tile])
    count = np.concatenate([np.ravel(m.count) for tile in problem.tiles for m in tile])
    return np.sqrt(count) * (left_out - left_out.mean(axis=0)) / sigma


def _undetermined(normal: np.ndarray, labels: tuple[str, ...]) -> list[str]:
    """The combinations of parameters that hardly change any datum, in units of their scales."""
    values, vectors = np.linalg.eigh(normal)
    found = vectors[:, values <= UNDETERMINED * values[-1]].T
    return [in_words(vector, labels) for vector in found]


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
