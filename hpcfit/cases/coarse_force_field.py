"""[problem.force_matching]: force fields of the beads, fitted to the forces of each map."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hpcfit.cases.fits import Fits
from hpcfit.cases.force_map import ForceMapCase
from hpcfit.cases.mapped_frames import MappedSums
from hpcfit.config import ridges
from hpcfit.log import logger
from hpcfit.physics.cg_basis import Basis
from hpcfit.problems.force_matching import LinearFit, fit_forces


class Matched(NamedTuple):
    """Force fields. linear: of each map; theta: their coefficients, [maps, K]; metrics: what is reported."""

    linear: list[LinearFit]
    theta: np.ndarray
    metrics: dict[str, Any]


def match_forces(case: ForceMapCase, fits: Fits, sums: MappedSums, basis: Basis, found: Any) -> Matched:
    """Fit the linear model to each map's forces, and what else the config asks for; collective."""
    choice, names = case.config.problem.force_matching, [one.name for one in found.maps]
    world = fits.grid.world

    def linear() -> list[LinearFit]:
        return [
            fit_forces(sums.normal, number, ridges(choice.ridge), basis.constants()) for number in range(len(names))
        ]

    fitted = world.on_root(linear)
    if world.is_root:
        for name, one in zip(names, fitted):
            logger.info("linear model of map %s: %d functions, residual %.6g +- %.2g (kJ/mol/A)^2 held out",
                        name, basis.size, one.test.value, one.test.error)  # fmt: skip
    metrics = {
        "functions": basis.size,
        "linear": [
            {"map": name, "ridge": one.ridge, "train": one.train, "held_out": list(one.test),
             "empty": int(one.empty.sum()), "curve": list(zip(one.ridges, one.held_out))}
            for name, one in zip(names, fitted)
        ],
    }  # fmt: skip
    return Matched(fitted, np.array([one.coefficients for one in fitted]), metrics)
