"""The fit of parameters to energies and forces of stored geometries.

before   no fit: deviations at the parameters given
fit      damped least squares, or the optimizer of the config
errors   of the parameters, by the scatter of the residuals over geometries; of the deviations of each set, by bootstrap
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from hpcfit.fit.cells import over_cells
from hpcfit.fit.gradient import Evaluation, Gradient
from hpcfit.fit.inner import InnerProduct
from hpcfit.fit.marquardt import Marquardt
from hpcfit.fit.problem import Cell, Params
from hpcfit.fit.rounds import flat
from hpcfit.fit.stages import Fits
from hpcfit.fit.state import gather_rows, to_arrays
from hpcfit.kinds.force_field.geometries.case import GeometriesCase
from hpcfit.kinds.force_field.geometries.problem import Curvature, StoredGeometries
from hpcfit.kinds.force_field.geometries.sets import Set, Stored
from hpcfit.kinds.force_field.outputs import parameter_table
from hpcfit.kinds.force_field.parameters import little_known
from hpcfit.statistics.blocks import bootstrap_error

FINAL = "geometries"


def study(case: GeometriesCase, fits: Fits) -> dict[str, Any]:
    """The fit of the case; what was found beside the result itself, which ``fits.final`` is told. Collective."""
    fits.announce([FINAL])
    evaluate = case.evaluate(fits.grid)
    start = evaluate.problem.init(case.config.run.seed, evaluate.frames.rows)
    before = evaluate.value(start)
    fitted = fits.fit(
        FINAL, start, evaluate=evaluate, optimizer=damped if case.config.problem.solver == "marquardt" else None
    )
    fits.final(fitted, evaluate=evaluate)
    after = evaluate.value(fitted.params)
    found = errors(evaluate, after, case.stored)
    fits.warn([f"the geometries do not determine {one}" for one in found["undetermined"]])
    fits.warn([f"priors say more than the geometries of {one}" for one in found["held_by_priors"]])
    sets = compared(evaluate, [before, after], case.stored)
    fits.warn(against_forces(sets))
    values = (case.moving.values(at.shared) for at in (start, fitted.params))
    return {
        "undetermined": found["undetermined"],
        "held_by_priors": found["held_by_priors"],
        "parameters": parameter_table(case.moving.labels, *values, **found["parameters"]),
        "before": evaluate.metrics(before),
        "sets": [] if sets is None else halves(sets, case.config.problem.resamples),
        "compared": sets,
    }


def damped(inner: InnerProduct, gradient: Gradient) -> Marquardt:
    """The optimizer of stored geometries, by the curvature that is summed over them."""
    return Marquardt(partial(normal, gradient))


# ---- curvature -------------------------------------------------------------------------------------------------------


@jax.jit
def _curvatures(problem: StoredGeometries, params: Params, cells: Cell, offsets: Any, means: Any) -> Curvature:
    return over_cells(lambda p, cell, _: problem.curvature(p, cell, offsets, means), params, cells, None)


def curvature(evaluate: Gradient, here: Evaluation, means: np.ndarray | None = None) -> Curvature:
    """The sums over all geometries that the curvature of the residuals is made of; collective. means: those about which
    the scatter is taken, 0 where they are not known yet."""
    problem, rows, parts = evaluate.problem, evaluate.frames.rows, []
    offsets = np.asarray(problem.offsets(here.sums))
    means = np.zeros((len(offsets), len(flat(here.params)))) if means is None else means
    for chunk in evaluate.frames.chunks():
        cells = Cell(chunk.data, rows.ids[chunk.rows], rows.more[chunk.rows])
        parts.append(_curvatures(problem, here.params, cells, offsets, means))
    return evaluate.add(parts, axis=(0, 1), over="world")


def normal(evaluate: Gradient, here: Evaluation) -> np.ndarray:
    """The curvature of the loss by Gauss and Newton, [P, P], the same on every rank; collective."""
    problem = evaluate.problem
    found = problem.normal(curvature(evaluate, here), here.sums) + problem.of_priors
    return evaluate.grid.world.bcast(found)


# ---- errors ----------------------------------------------------------------------------------------------------------


def errors(evaluate: Gradient, here: Evaluation, stored: Stored) -> dict[str, Any]:
    """Errors of the parameters with their correlations, and what the geometries do not determine; collective."""
    means = evaluate.problem.means(curvature(evaluate, here), here.sums)
    found = curvature(evaluate, here, means)
    return evaluate.grid.world.on_root(partial(_errors, evaluate.problem, here, found, stored))


def _errors(problem: StoredGeometries, here: Evaluation, found: Curvature, stored: Stored) -> dict[str, Any]:
    moving, of_data = problem.moving, problem.normal(found, here.sums)
    unknown, held = little_known(of_data, problem.of_priors, moving.free)
    said = {"undetermined": unknown, "held_by_priors": held}
    if unknown:
        return said | {"parameters": {}}
    inverse, slopes = np.linalg.inv(of_data + problem.of_priors), moving.slopes(here.params.shared)
    covariance = slopes @ inverse @ np.asarray(found.scatter) @ inverse @ slopes.T * _correction(stored, len(inverse))
    deviations = np.sqrt(np.diag(covariance))
    norm = np.where(deviations > 0, deviations, 1.0)
    correlations = np.where(np.eye(len(norm)) > 0, 1.0, covariance / np.outer(norm, norm))
    return said | {"parameters": {"of_data": deviations, "correlations": correlations}}


def _correction(stored: Stored, P: int) -> float:
    """The factor of the scatter for few geometries: residuals of fitted ones are smaller than those of others."""
    fitted = [(one, int(np.sum(~one.held_out & (one.weight > 0)))) for one in stored.sets]
    G = sum(count for _, count in fitted)
    n = sum(count * _targets(one) for one, count in fitted)
    taken = P + len(stored.molecules)
    return G / max(G - 1, 1) * (n - 1) / max(n - taken, 1)


def _targets(one: Set) -> int:
    """The number of targets that a geometry has."""
    return (one.config.energy_sigma is not None) + (0 if one.forces is None else one.forces[0].size)


# ---- deviations ------------------------------------------------------------------------------------------------------


class Compared(NamedTuple):
    """A set before and after the fit. energies: [2, T] kJ/mol, deviations without the offset; forces: [2, T]
    kJ/mol/nm, root mean squares of the deviations of each geometry. None where they are no targets."""

    of: Set
    energies: np.ndarray | None
    forces: np.ndarray | None


def compared(evaluate: Gradient, at: list[Evaluation], stored: Stored) -> list[Compared] | None:
    """All sets on root, None elsewhere; collective."""
    rows = [gather_rows(to_arrays([one.rows]).local, evaluate.grid) for one in at]
    offsets = np.stack([np.asarray(evaluate.problem.offsets(one.sums)) for one in at])
    return list(_compared(rows, offsets, stored)) if evaluate.grid.world.is_root else None


def _compared(rows: list[dict[str, np.ndarray]], offsets: np.ndarray, stored: Stored) -> Iterator[Compared]:
    d, squares = (np.stack([_row(one, name) for one in rows]) for name in ("deviation", "squares"))
    there = stored.ids(d.shape[2]).ravel() >= 0
    d, squares = (values.reshape(2, -1)[:, there] for values in (d, squares))
    first = 0
    for one in stored.sets:
        mine = slice(first, first + len(one.number))
        first = mine.stop
        energies = None if one.config.energy_sigma is None else d[:, mine] - offsets[:, one.molecule, None]
        forces = None if one.forces is None else np.sqrt(squares[:, mine] / one.forces[0].size)
        yield Compared(one, energies, forces)


def against_forces(sets: Sequence[Compared] | None) -> list[str]:
    """A warning for each set whose forces are further from those of the parameters given than from none; on root."""
    warnings = []
    for one in sets or ():
        if one.forces is not None:
            off, size = np.sqrt(np.mean(one.forces[0] ** 2)), np.sqrt(np.mean(one.of.forces**2))
            if off > size:
                warnings.append(
                    f"forces of geometries '{one.of.config.name}' are off by {off:.3g} kJ/mol/nm before the fit, more"
                    f" than their size, {size:.3g}: are they gradients, or in another unit than force_unit?"
                )
    return warnings


def _row(rows: dict[str, np.ndarray], what: str) -> np.ndarray:
    [found] = [leaf for name, leaf in rows.items() if what in name]
    return found


def halves(sets: Sequence[Compared], resamples: int) -> list[dict[str, Any]]:
    """Root mean squares of the deviations of each set, fitted and held out, before and after the fit, with errors by
    bootstrap over geometries, which count as the fit weighs them."""
    found = []
    for one in sets:
        for held_out in sorted(set(one.of.held_out.tolist())):
            half = one.of.held_out == held_out
            parts = {"energy": one.energies, "force": one.forces}
            found.append(
                {"set": one.of.config.name, "held_out": held_out, "geometries": int(half.sum())}
                | {
                    name: _spread(values[:, half], one.of.weight[half], resamples)
                    for name, values in parts.items()
                    if values is not None
                }
            )
    return found


def _spread(values: np.ndarray, weight: np.ndarray, resamples: int) -> dict[str, float]:
    """Root mean squares of deviations [2, T] before and after, and their errors."""

    def rmse(counts: np.ndarray) -> np.ndarray:
        w = counts * weight
        return np.sqrt(values**2 @ w / max(w.sum(), np.finfo(float).tiny))

    T = len(weight)
    error = bootstrap_error(rmse, T, resamples, 0) if T > 1 else np.full(2, np.nan)
    return dict(zip(("before", "after", "before_error", "after_error"), [*rmse(np.ones(T)).tolist(), *error.tolist()]))
