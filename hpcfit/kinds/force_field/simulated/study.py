"""The fit of parameters to averages over simulated windows.

equilibration   each window of each system comes to its own start: a stage
before          no fit: the averages at the parameters given
rounds          so many steps of the parameters, each from averages over windows of a new draw
errors          a last draw at the parameters found: errors of averages over windows, and of parameters from these
"""

from __future__ import annotations

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
from hpcfit.kinds.force_field.simulated.averages import Ensemble, Windows
from hpcfit.kinds.force_field.simulated.case import SimulatedCase
from hpcfit.kinds.force_field.simulated.equilibration import where_it_broke
from hpcfit.statistics.blocks import jackknife_error

EQUILIBRATION, FINAL = "equilibration", "rounds"
UNDETERMINED = 1e-6  # of the largest curvature, or below: a combination that the data say nothing of


class AtEnd(NamedTuple):
    """What a draw at the parameters found says.

    averages, errors: all data, calculated, and the errors of the means over windows. values, of_data, of_windows: the
    parameters and their two errors, None where nothing determines some of them; correlations: [P, P], of both together;
    undetermined: combinations in words.
    """

    averages: np.ndarray
    errors: np.ndarray
    values: np.ndarray
    of_data: np.ndarray | None
    of_windows: np.ndarray | None
    correlations: np.ndarray | None
    undetermined: list[str]


def study(case: SimulatedCase, fits: Fits) -> dict[str, Any]:
    """All of the case; what was found beside the result itself, which ``fits.final`` is told. Collective."""
    fits.announce([EQUILIBRATION, FINAL])
    evaluate, world = case.evaluate(fits.grid), fits.grid.world
    work = case.equilibration(world)
    start = case.start(world.bcast(fits.stage(EQUILIBRATION, work, {})), fits.grid)
    before = evaluate.value(start)
    fitted = fits.fit(FINAL, start, evaluate=evaluate, optimizer=_optimizer(case, evaluate.problem))
    fits.final(fitted, evaluate=evaluate)
    fits.warn(exploded(case, fitted, evaluate))
    carried = Forward(evaluate.problem, evaluate.frames, evaluate.grid, evaluate.add)
    at = carried(Params(fitted.params.shared, evaluate.problem.redrawn(fitted.params.local, fitted.rows.local)))
    found = at_end(case, carried, at)
    fits.warn([f"the data do not determine {one}" for one in found.undetermined])
    return {
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
            return Rounds(problem, GaussNewton(gradient, choice.full_steps, choice.largest_step), choice.rounds)
        one = choose_optimizer(chosen.name, chosen.options, chosen.clip_norm, inner, gradient)
        return Rounds(problem, one, choice.rounds, choice.steps_a_draw)

    return make


# ---- errors ----------------------------------------------------------------------------------------------------------


def averages_of(at: Evaluation) -> np.ndarray:
    """The calculated values of all data, system after system."""
    return np.concatenate([np.ravel(value) for value in jax.tree.leaves(at.sums["averages"])])


def at_end(case: SimulatedCase, evaluate: Forward, at: Evaluation) -> AtEnd:
    """Errors of the averages of a draw, from the spread of its windows, and of the parameters; collective."""
    rows = gather_rows(to_arrays([at.rows]).local, evaluate.grid)
    _, J = jacobian(evaluate, at)
    return evaluate.grid.world.on_root(partial(_errors, case, evaluate.problem, at, rows, J))


def _errors(case: SimulatedCase, problem: Windows, at: Evaluation, rows: dict[str, np.ndarray], J: np.ndarray) -> AtEnd:
    averages, left_out = averages_of(at), _without_each(case, problem, rows)
    slopes, values = case.moving.slopes(at.params.shared), case.moving.values(at.params.shared)
    normal = J.T @ J
    undetermined = _undetermined(normal, case.moving.labels)
    if undetermined:
        return AtEnd(averages, jackknife_error(left_out), values, None, None, None, undetermined)
    covariance = np.linalg.inv(normal)
    n = len(averages)  # residuals begin with those of data; deviations from priors have no noise
    noise = (covariance @ J[:n].T @ _of_data(problem, left_out).T).T
    of_windows = (len(noise) - 1) / len(noise) * noise.T @ noise / case.rounds_of_the_mean
    both = slopes[:, None] * (covariance + of_windows) * slopes
    errors = np.sqrt(np.diag(both))
    return AtEnd(
        averages, jackknife_error(left_out), values, slopes * np.sqrt(np.diag(covariance)),
        slopes * np.sqrt(np.diag(of_windows)), both / np.outer(errors, errors), [],
    )  # fmt: skip


def _without_each(case: SimulatedCase, problem: Windows, rows: dict[str, np.ndarray]) -> np.ndarray:
    """The averages without each window that held in all systems, [W, data]."""
    found = []
    broke = np.stack([_windows(case, rows, number, "broke") for number in range(len(problem.ensembles))])
    held = np.flatnonzero(np.all(broke < 0, axis=0))
    for number, ensemble in enumerate(problem.ensembles):
        parts = [_windows(case, rows, number, f"observed'][{k}")[held] for k in range(len(ensemble.observables))]
        found.append(_jackknifed(ensemble, parts))
    return np.concatenate(found, axis=1)


def _jackknifed(ensemble: Ensemble, parts: list[np.ndarray]) -> np.ndarray:
    W = len(parts[0])
    rest = [part.sum(axis=0) - part for part in parts]
    of_one = lambda *sums: [np.ravel(value) for value in ensemble.averages(sums, W - 1.0)]  # noqa: E731
    return np.array([np.concatenate(of_one(*(part[w] for part in rest))) for w in range(W)])


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
    return [_in_words(vector, labels) for vector in found]


def _in_words(vector: np.ndarray, labels: tuple[str, ...]) -> str:
    order = np.argsort(-np.abs(vector))[:3]
    parts = [f"{vector[k]:+.2g} {labels[k]}" for k in order if abs(vector[k]) > 0.1]
    return " ".join(parts) + " (in units of their scales)"


def exploded(case: SimulatedCase, fitted: Fitted, evaluate: Gradient) -> list[str]:
    """A warning for each window of the last round that exploded; collective."""
    found, ids = [], np.asarray(evaluate.frames.rows.ids)
    for number, (one, rows) in enumerate(zip(case.opened, fitted.rows.local)):
        broke = np.asarray(rows["broke"])
        for block, row in np.argwhere((broke >= 0) & (ids >= 0)).tolist():
            ends = jax.tree.map(lambda leaf, block=block: leaf[block], rows["ends"])
            where = where_it_broke(evaluate.problem.ensembles[number], ids[block], ends, broke[block], row)
            found.append(f"system '{one.name}' exploded in {where}: this window was left out of the last round")
    parts = evaluate.grid.frames.gather(found)
    return evaluate.grid.world.bcast(None if parts is None else [line for part in parts for line in part])
