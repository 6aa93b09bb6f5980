"""Sizes, distances and angles of a frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.observables.observable import fixed, observable
from hpcfit.physics import internal_coordinates

Indices = tuple[tuple[int, ...], ...]


class AsAveraged:
    """An observable whose average is compared as it is."""

    def of_average(self, average: Any) -> Any:
        return average


@observable
class RadiusOfGyration(AsAveraged):
    """sqrt(sum m |x - centre|^2 / sum m) of atoms that are whole (not broken by a box). masses: [n], of ``atoms``."""

    masses: Any
    atoms: tuple[int, ...] = fixed()

    def of_frame(self, x: Any, box: Any) -> Any:
        m = jnp.asarray(self.masses)[:, None] / jnp.sum(jnp.asarray(self.masses))
        x = x[np.array(self.atoms)]
        return internal_coordinates.length(jnp.ravel(jnp.sqrt(m) * (x - jnp.sum(m * x, axis=0))))[None]


@observable
class Distances(AsAveraged):
    """Distances of the nearest images of pairs of atoms, [M]."""

    pairs: Indices = fixed()

    def of_frame(self, x: Any, box: Any) -> Any:
        return internal_coordinates.distances(x, np.array(self.pairs), box)[0]


@observable
class Angles(AsAveraged):
    """Angles of triples of atoms, the middle one second, [M] rad."""

    triples: Indices = fixed()

    def of_frame(self, x: Any, box: Any) -> Any:
        return internal_coordinates.angles(x, np.array(self.triples), box)[0]


@observable
class Torsions(AsAveraged):
    """Torsions of quadruples of atoms, [M] rad, -pi to pi; an average is that of the numbers, not of the angles."""

    quadruples: Indices = fixed()

    def of_frame(self, x: Any, box: Any) -> Any:
        return internal_coordinates.dihedrals(x, np.array(self.quadruples), box)[0]


@observable
class Powers(AsAveraged):
    """Powers of one coordinate of an atom, [M]: the moments of a test system."""

    atom: int = fixed()
    axis: int = fixed()
    powers: tuple[int, ...] = fixed()

    def of_frame(self, x: Any, box: Any) -> Any:
        return x[self.atom, self.axis] ** jnp.array(self.powers, float)


@observable
class Own(AsAveraged):
    """Numbers of a frame by a function of one's own of (positions, box), [M]."""

    function: Callable = fixed()

    def of_frame(self, x: Any, box: Any) -> Any:
        return jnp.atleast_1d(self.function(x, box)).ravel()


@observable
class TorsionShares:
    """The shares of frames whose torsion lies in each of n equal parts of the circle, beginning at -pi, [M n].

    width: rad, by which the borders of parts are smeared (a logistic function), so that a share has a derivative; the
    shares of a torsion still sum to 1.
    """

    width: float
    quadruples: Indices = fixed()
    parts: int = fixed()

    def of_frame(self, x: Any, box: Any) -> Any:
        phi = internal_coordinates.dihedrals(x, np.array(self.quadruples), box)[0][:, None, None]
        borders = -jnp.pi + 2 * jnp.pi / self.parts * jnp.arange(self.parts)[:, None]
        turns = 2 * jnp.pi * jnp.arange(-1, 2)  # the borders of the turns before and after
        above = jnp.sum(jax.nn.sigmoid((phi - borders - turns) / self.width), axis=-1)
        # Between two borders: what is above the first and not above the next; the last ends where a turn is complete.
        return above - jnp.concatenate([above[:, 1:], above[:, :1] - 1], axis=1)

    def of_average(self, average: Any) -> Any:
        return average.ravel()


@observable
class Coordination(AsAveraged):
    """The mean number of neighbours of the atoms ``of`` among the atoms ``among``, [1].

    A pair counts as 1 / (1 + exp((r - r0) / width)): 1/2 at r0, and it has a derivative. In a box r0 and some widths
    must be below half its smallest width, beyond which the nearest image is not always found.
    """

    r0: float
    width: float
    of: tuple[int, ...] = fixed()
    among: tuple[int, ...] = fixed()

    def of_frame(self, x: Any, box: Any) -> Any:
        i, j = np.meshgrid(self.of, self.among, indexing="ij")
        u = internal_coordinates.separation(x[i], x[j], box)
        near = jax.nn.sigmoid((self.r0 - internal_coordinates.length(u)) / self.width)
        return jnp.sum(jnp.where(i == j, 0.0, near))[None] / len(self.of)
