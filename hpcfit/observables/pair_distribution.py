"""The radial distribution function, with bins whose borders are smeared so that it has a derivative."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError
from hpcfit.observables.geometry import AsAveraged
from hpcfit.observables.observable import fixed, observable
from hpcfit.physics import internal_coordinates

ROWS = 64  # atoms whose distances to all others are held at a time


@observable
class RadialDistribution(AsAveraged):
    """g(r) between two sets of atoms of a periodic frame, [B]: counts over those of an ideal gas of the same density.

    edges: [B + 1], ascending; width: the standard deviation of the Gaussian that smears each distance. Pairs of an atom
    with itself do not count. Averaged over frames of one volume it is the mean of g.
    """

    edges: Any
    width: float
    of: tuple[int, ...] = fixed()
    among: tuple[int, ...] = fixed()

    def __post_init__(self):
        if isinstance(self.edges, np.ndarray) and not np.all(np.diff(self.edges) > 0):
            raise InputError("edges of a radial distribution do not ascend", remedy="give them from the smallest on")

    @property
    def at(self) -> np.ndarray:
        """The centres of bins, [B]."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    def of_frame(self, x: Any, box: Any) -> Any:
        edges, of, among = jnp.asarray(self.edges), np.array(self.of), np.array(self.among)
        padded = np.concatenate([of, np.full(-len(of) % ROWS, -1)]).reshape(-1, ROWS)

        def of_rows(i: Any) -> Any:
            """The smeared number of pairs below each edge, [B + 1]."""
            u = internal_coordinates.separation(x[jnp.maximum(i, 0), None], x[among][None], box)
            pairs = (i[:, None] != among[None]) & (i[:, None] >= 0)
            r = jnp.where(pairs, internal_coordinates.length(u), 1e9 * edges[-1])
            below = lambda edge: jnp.sum(jax.scipy.special.ndtr((edge - r) / self.width))  # noqa: E731
            return jax.lax.map(below, edges)

        below = jnp.sum(jax.lax.map(jax.checkpoint(of_rows), jnp.asarray(padded)), axis=0)
        n_pairs = len(of) * len(among) - len(np.intersect1d(of, among))
        shells = 4 / 3 * jnp.pi * jnp.diff(edges**3)
        return jnp.diff(below) / (n_pairs * shells / jnp.abs(jnp.linalg.det(box)))
