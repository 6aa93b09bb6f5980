"""Nuclear magnetic resonance: nuclear Overhauser effects and scalar couplings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError
from hpcfit.observables.geometry import Indices
from hpcfit.observables.observable import fixed, observable
from hpcfit.physics import internal_coordinates

Groups = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]  # of each effect: equivalent protons on either side


@observable
class NoeDistances:
    """Effective distances (<sum over pairs of r^-p> / n)^(-1/p) of nuclear Overhauser effects, [M].

    Each is of all pairs of equivalent protons of two groups. p: 6 where the molecule tumbles slower than its distances
    change, 3 where it tumbles faster. n: the number of pairs if ``divided``, else 1, as intensities of methyl groups
    are reported.
    """

    groups: Groups = fixed()
    power: int = fixed()
    divided: bool = fixed()

    def __post_init__(self):
        if self.power not in (3, 6):
            raise InputError(f"power = {self.power} of an NOE", remedy="use 6 (slow tumbling) or 3 (fast tumbling)")

    def of_frame(self, x: Any, box: Any) -> Any:
        pairs, effect, share = self._pairs()
        r = internal_coordinates.distances(x, pairs, box)[0]
        return jnp.zeros(len(self.groups)).at[effect].add(share * r ** -float(self.power))

    def of_average(self, average: Any) -> Any:
        return average ** (-1.0 / self.power)

    def _pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All pairs [P, 2] of protons, the effect [P] each belongs to, and its share [P] in it."""
        rows = [(i, j, k) for k, (left, right) in enumerate(self.groups) for i in left for j in right]
        found = np.array(rows, int)
        count = np.bincount(found[:, 2])[found[:, 2]]
        return found[:, :2], found[:, 2], 1.0 / count if self.divided else np.ones(len(found))


@observable
class ScalarCouplings:
    """Couplings 3J = A cos^2(phi + offset) + B cos(phi + offset) + C, [M] Hz, of torsions of four atoms each.

    coefficients: [M, 3] Hz or [3] for all; they may be fitted, so that cos^2 and cos are averaged, [2, M]. offset: rad,
    [M] or one. curve: the name of the curve they are of, if any. Karplus 1963, 10.1021/ja00901a059.
    """

    coefficients: Any
    offset: Any
    quadruples: Indices = fixed()
    curve: str = fixed("")

    def of_frame(self, x: Any, box: Any) -> Any:
        phi = internal_coordinates.dihedrals(x, np.array(self.quadruples), box)[0]
        c = jnp.cos(phi + self.offset)
        return jnp.stack([c**2, c])

    def of_average(self, average: Any) -> Any:
        A, B, C = jnp.moveaxis(jnp.asarray(self.coefficients), -1, 0)
        return A * average[0] + B * average[1] + C

    def along(self, curves: Mapping[str, Any]) -> ScalarCouplings:
        """The couplings by the coefficients [3] of the curve of their name, if that is among these."""
        return replace(self, coefficients=curves[self.curve]) if self.curve in curves else self
