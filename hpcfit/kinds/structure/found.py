"""The replicas that a method has minimised, and the numbers that are told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcfit.fit.lbfgs import MAX_STEPS, PRECISION, SMALL_CHANGE, SMALL_GRADIENT
from hpcfit.kinds.structure.deviations import Reference, distinct
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.kinds.structure.minimisations import BUDGET

CONVERGED = (SMALL_CHANGE, SMALL_GRADIENT, PRECISION)
NEAR = 0.95  # of the known energy: a success
DISAGREES = 1e-8  # relative, of two sums of float64


@dataclass(frozen=True)
class Found:
    """The replicas of a method, [R]: positions [R, n, d], energies, evaluations, status (``minimisations.STOPPED``),
    trace [R, marks], seconds of CPU; contacts and possible ones, pieces and overlaps of each. minima: different ones
    (``deviations.distinct``). rmsd: from the reference structure, if there is one, in the landscape's unit."""

    name: str
    positions: np.ndarray
    energy: np.ndarray
    evaluations: np.ndarray
    status: np.ndarray
    trace: np.ndarray
    seconds: np.ndarray
    contacts: np.ndarray
    possible: np.ndarray
    pieces: np.ndarray
    overlaps: np.ndarray
    independent: float  # the energy of the best by a sum in NumPy
    minima: int
    rmsd: np.ndarray | None = None
    quenches: np.ndarray | None = None  # of basin hopping

    @classmethod
    def of(
        cls, name: str, landscape: Landscape, arrays: Mapping[str, np.ndarray], reference: Reference | None = None
    ) -> Found:
        """From the product of a stage."""
        x, energy = arrays["positions"], arrays["energy"]
        made, possible = np.transpose([landscape.contacts(one) for one in x])
        pieces, overlaps = (np.array([count(one) for one in x]) for count in (landscape.pieces, landscape.overlaps))
        return cls(
            name, **arrays, contacts=made, possible=possible, pieces=pieces, overlaps=overlaps,
            independent=landscape.independent(x[np.nanargmin(energy)]), minima=distinct(landscape, energy, x),
            rmsd=None if reference is None else reference.rmsd(x),
        )  # fmt: skip

    @property
    def best(self) -> int:
        """The replica of least energy."""
        return int(np.nanargmin(self.energy))

    @property
    def converged(self) -> np.ndarray:
        """True for each that has come to a minimum, as far as its energy can tell, without overlaps; walks of basin
        hopping keep minima alone, so that one that has done all its quenches is at one."""
        at_minima = CONVERGED if self.quenches is None else (*CONVERGED, MAX_STEPS)
        return np.isin(self.status, at_minima) & (self.overlaps == 0)

    def told(self, reference: float | None) -> dict[str, Any]:
        """Numbers of the method: quartiles over replicas, what it cost, and the share of successes with the standard
        error of a share. reference: an energy that none is below."""
        R = len(self.energy)
        quartiles = np.quantile(self.energy, [0.25, 0.5, 0.75])
        numbers = {
            "best": float(self.energy[self.best]), "lower": quartiles[0], "median": quartiles[1], "upper": quartiles[2],
            "median_error": _error_of_median(self.energy), "replicas": R, "minima": self.minima,
            "converged": int(self.converged.sum()), "evaluations": float(np.median(self.evaluations)),
            "seconds": float(self.seconds.sum()), "pieces": float(np.median(self.pieces)),
            "overlapping": int(np.sum(self.overlaps > 0)),
            "contacts": float(np.median(self.contacts / np.maximum(self.possible, 1))) if self.possible.any() else None,
        }  # fmt: skip
        if reference is not None:
            share = float(np.mean(self.energy <= reference * (NEAR if reference < 0 else 2 - NEAR)))
            numbers |= {"successes": share, "successes_error": _error_of_share(share, R)}
        if self.rmsd is not None:
            numbers["rmsd"] = self._deviations()
        if self.quenches is not None:
            numbers["quenches"] = int(self.quenches.sum())
        return {"method": self.name, **{key: _plain(value) for key, value in numbers.items()}}

    def _deviations(self) -> dict[str, float]:
        """RMSDs: of the replica of least energy, the least one, and quartiles."""
        quartiles = np.quantile(self.rmsd, [0.0, 0.25, 0.5, 0.75])
        return {
            "best": float(self.rmsd[self.best]),
            **dict(zip(("least", "lower", "median", "upper"), quartiles.tolist())),
        }


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _error_of_median(values: np.ndarray, resamples: int = 400) -> float:
    """The standard error of a median by bootstrap over replicas."""
    random = np.random.default_rng(0)
    drawn = random.integers(len(values), size=(resamples, len(values)))
    return float(np.std(np.median(values[drawn], axis=1), ddof=1)) if len(values) > 1 else float("nan")


def _error_of_share(share: float, R: int) -> float:
    """The standard error of a share of R, not 0 at 0 or 1 (Agresti and Coull 1998, 10.1080/00031305.1998.10480550)."""
    centre = (share * R + 2) / (R + 4)
    return float(np.sqrt(centre * (1 - centre) / (R + 4)))


def warnings(found: Sequence[Found], budget: int) -> list[str]:
    """Sentences that a reader must know: replicas that are at no minimum, overlaps, energies that disagree."""
    said = []
    for one in found:
        too_early = (BUDGET, MAX_STEPS) if one.quenches is None else (BUDGET,)
        spent, clash = int(np.sum(np.isin(one.status, too_early))), int(np.sum(one.overlaps > 0))
        R, energy = len(one.energy), one.energy[one.best]
        if spent:
            said.append(
                f"{one.name}: {spent} of {R} replicas were not at a minimum when their {budget} gradients ended"
            )
        if clash:
            said.append(f"{one.name}: {clash} of {R} replicas end with particles that lie on each other")
        if not abs(one.independent - energy) <= DISAGREES * max(abs(energy), 1.0):
            said.append(f"{one.name}: the best energy is {energy:.10g}, and {one.independent:.10g} by a sum in NumPy")
    return said
