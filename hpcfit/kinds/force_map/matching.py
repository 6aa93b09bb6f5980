"""[problem.force_matching]: force fields of the beads, fitted to the forces of each map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hpcfit.bead_models.force_matching import LinearFit, fit_forces
from hpcfit.bead_models.tables import Term, make_terms
from hpcfit.fit.stages import Fits
from hpcfit.kinds.force_map.case import ForceMapCase
from hpcfit.kinds.force_map.config import ridges
from hpcfit.kinds.force_map.map_fits import FoundMap
from hpcfit.kinds.force_map.mapped_frames import MappedFrames, MappedSums
from hpcfit.log import logger

if TYPE_CHECKING:
    from hpcfit.kinds.force_map.neural_frames import TrainedPotential
    from hpcfit.kinds.force_map.simulation import Simulated


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
    neural, simulated = [], None
    # What these two import is imported where they are asked for.
    if choice.neural is not None:
        from hpcfit.kinds.force_map.neural_frames import train

        neural = train(case, fits, work, sums, found, chosen)
    if choice.simulation is not None:
        from hpcfit.kinds.force_map.simulation import simulate

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
