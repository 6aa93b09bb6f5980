"""[problem.force_matching]: force fields of the beads, fitted to the forces of each map."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hpcfit.bead_models.force_matching import LinearFit, fit_forces
from hpcfit.bead_models.neural import Architecture, BeadSample, neural_force_matching
from hpcfit.bead_models.tables import Term, make_terms
from hpcfit.fit.stages import Fits, Until
from hpcfit.kinds.force_map.case import ForceMapCase
from hpcfit.kinds.force_map.config import ridges
from hpcfit.kinds.force_map.map_fits import FoundMap
from hpcfit.kinds.force_map.mapped_frames import MappedFrames, MappedSums
from hpcfit.kinds.force_map.neural_frames import (
    TrainedPotential,
    frames_grid,
    held_out_parts,
    neural_gradient,
    neural_rows,
    sample_of,
    stacked_rows,
    training_order,
)
from hpcfit.kinds.force_map.simulation import Simulated, simulate
from hpcfit.log import logger


class Matched(NamedTuple):
    """Force fields. linear, terms: of each map; theta: coefficients of the linear ones, [maps, K]."""

    linear: list[LinearFit]
    terms: list[list[Term]]
    theta: np.ndarray
    neural: list[TrainedPotential]
    simulated: Simulated | None
    metrics: dict[str, Any]


def match_forces(
    case: ForceMapCase, fits: Fits, work: MappedFrames, sums: MappedSums, found: tuple[FoundMap, ...], chosen: FoundMap
) -> Matched:
    """Fit the linear model to each map's forces, and what else the config asks for; collective."""
    choice, names = case.config.problem.force_matching, [one.name for one in found]
    basis = work.basis
    linear = fits.on_root(
        lambda: [
            fit_forces(sums.normal, number, ridges(choice.ridge), basis.constants()) for number in range(len(names))
        ]
    )
    coverage = sums.normal.coverage.sum(axis=0)
    terms = fits.on_root(
        lambda: [
            make_terms(basis, one.coefficients, coverage, case.config.problem.temperature, case.store.periodic)
            for one in linear
        ]
    )
    if fits.grid.world.is_root:
        for name, one in zip(names, linear):
            logger.info("linear model of map %s: %d functions, residual %.6g +- %.2g (kJ/mol/A)^2 held out",
                        name, basis.size, one.test.value, one.test.error)  # fmt: skip
    neural = [] if choice.neural is None else _train(case, fits, work, sums, found, chosen)
    simulated = None
    if choice.simulation is not None:
        simulated = simulate(case, fits, terms[names.index(chosen.name)], neural[:1])
    metrics = {
        "functions": basis.size,
        "linear": [_of_linear(name, one) for name, one in zip(names, linear)],
        "neural": [_of_neural(one) for one in neural],
        "simulation": None if simulated is None else simulated.metrics,
    }
    return Matched(linear, terms, np.array([one.coefficients for one in linear]), neural, simulated, metrics)


def _of_linear(name: str, one: LinearFit) -> dict[str, Any]:
    return {
        "map": name, "ridge": one.ridge, "train": one.fitted, "held_out": list(one.test),
        "empty": int(one.empty.sum()), "curve": [list(pair) for pair in zip(one.ridges, one.scores)],
    }  # fmt: skip


def _of_neural(one: TrainedPotential) -> dict[str, Any]:
    metrics = one.fitted.metrics
    return {
        "map": one.map, "residual": metrics["residual"], "residual_free": metrics["residual_free"],
        "noise_floor": one.noise_floor, "steps": one.fitted.steps, "evaluations": one.fitted.evaluations,
        "stopped": one.fitted.stopped,
    }  # fmt: skip


def _train(
    case: ForceMapCase, fits: Fits, work: MappedFrames, sums: MappedSums, found: tuple[FoundMap, ...], chosen: FoundMap
) -> list[TrainedPotential]:
    """A neural potential for the chosen map, and for those to compare it with; collective."""
    choice, run = case.config.problem.force_matching, case.config.run
    names = [one.name for one in found]
    grid = frames_grid(fits.grid.world, case.n_blocks)
    part = held_out_parts(case.parts.n, choice.neural.hold_out)
    rows = stacked_rows(work, fits.heeded(neural_rows(work, grid, part)))
    sample = BeadSample(case.types, np.asarray(case.coarse.bonds), *sample_of(rows[0], work, grid))
    mean_square = sums.normal.square.sum(axis=0) / sums.normal.rows.sum()
    # The mean force is common to valid maps, so noises differ as mean squares do: what is above the least is noise.
    least = min(float(mean_square[k]) for k, one in enumerate(found) if one.valid or len(found) == 1)
    neural, trained = choice.neural, []
    architecture = Architecture(neural.width, neural.depth, neural.functions, neural.cutoff)
    for number in training_order(names, chosen.name, neural.compare):
        problem = neural_force_matching(
            sample, float(mean_square[number]), case.config.problem.temperature, architecture, neural.weight_decay,
            run.precision,
        )  # fmt: skip
        gradient = neural_gradient(problem, rows[number], work, grid)
        floor = max(float(mean_square[number]) - least, 0.0)
        fitted = fits.fit(
            f"neural {names[number]}", problem.init(run.seed), evaluate=gradient, until=Until("residual_free", floor)
        )
        trained.append(TrainedPotential(names[number], problem, fitted, floor))
    return trained
