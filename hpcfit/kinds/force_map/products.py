"""Products of reduced forces, summed over the frames of a block: what the statistics of force maps are added from.

Products are float32 matrix products over the few components of a block; blocks are added in float64 (relative error
of the sums 8e-8, of a map's coefficients 4e-7).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

PANEL = 256  # rows of a dense Gram matrix that are one tile


@dataclass(frozen=True)
class DenseProducts:
    """All products G [q, q] of the q reduced forces, in panels of rows: of panel k the columns from its first row on.

    reduction: [q, n] float32, reduced forces from those of atoms.
    """

    reduction: scipy.sparse.csr_array

    @property
    def n_tiles(self) -> int:
        """Panels."""
        return -(-self.reduction.shape[0] // PANEL)

    def shape(self, tile: int) -> tuple[int, ...]:
        """The shape of one panel."""
        rest = self.reduction.shape[0] - tile * PANEL
        return min(PANEL, rest), rest

    def reduced(self, forces: np.ndarray) -> np.ndarray:
        """[q, 3 T] float32 of forces [T, n, 3]."""
        return self.reduction @ forces.transpose(1, 2, 0).reshape(forces.shape[1], -1)

    def tile(self, reduced: np.ndarray, tile: int) -> np.ndarray:
        """The products of one panel."""
        return _product(reduced[tile * PANEL : (tile + 1) * PANEL], reduced[tile * PANEL :])

    def assembled(self, tiles: list[np.ndarray]) -> np.ndarray:
        """[..., q, q] of the panels of all tiles, leaves [..., rows, columns]."""
        q = self.reduction.shape[0]
        whole = np.zeros((*tiles[0].shape[:-2], q, q))
        for number, panel in enumerate(tiles):
            first = number * PANEL
            whole[..., first : first + PANEL, first:] = panel
            whole[..., first:, first : first + PANEL] = np.swapaxes(panel, -1, -2)
            # A matrix product need not round an element and its mirror image alike: the upper one stands for both.
            upper = np.triu(panel[..., : panel.shape[-2]])
            rows = slice(first, first + panel.shape[-2])
            whole[..., rows, rows] = upper + np.swapaxes(np.triu(upper, 1), -1, -2)
        return whole


@dataclass(frozen=True)
class LocalProducts:
    """For each bead the products of the groups of its support and its own slice force, [N, k + 1, k + 1].

    reduction: as of ``DenseProducts``. support: [N, k], padded with -1 (``kinds.force_map.support``).
    """

    reduction: scipy.sparse.csr_array
    support: np.ndarray

    @property
    def n_tiles(self) -> int:
        """Groups of beads."""
        return -(-len(self.support) // PANEL)

    def shape(self, tile: int) -> tuple[int, ...]:
        """The shape of the products of one tile's beads."""
        beads, k = self.support[tile * PANEL : (tile + 1) * PANEL].shape
        return beads, k + 1, k + 1

    def reduced(self, forces: np.ndarray) -> np.ndarray:
        """[q + 1, 3 T] float32 of forces [T, n, 3]; the last row is zero, for padding."""
        found = self.reduction @ forces.transpose(1, 2, 0).reshape(forces.shape[1], -1)
        return np.concatenate([found, np.zeros((1, found.shape[1]), found.dtype)])

    def tile(self, reduced: np.ndarray, tile: int) -> np.ndarray:
        """The products of one tile's beads."""
        beads = np.arange(len(self.support))[tile * PANEL : (tile + 1) * PANEL]
        q, N = self.reduction.shape[0], len(self.support)
        rows = np.hstack([np.where(self.support[beads] < 0, q, self.support[beads]), (q - N + beads)[:, None]])
        chosen = reduced[rows]
        return _product(chosen, chosen)

    def assembled(self, tiles: list[np.ndarray]) -> np.ndarray:
        """[..., N, k + 1, k + 1] of all tiles."""
        return np.concatenate(tiles, axis=-3)


Products = DenseProducts | LocalProducts


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a b^T over the last axis, float32, on the default device."""
    if jax.default_backend() == "cpu":
        with np.errstate(over="ignore", invalid="ignore"):  # a sum that is not finite is an error of its own
            return np.matmul(a, np.swapaxes(b, -1, -2))
    return np.asarray(_product_on_device(a, b))


@partial(jax.jit)
def _product_on_device(a: jax.Array, b: jax.Array) -> jax.Array:
    # The default precision of a GPU would round the factors to 10 bits.
    return jnp.matmul(a, jnp.swapaxes(b, -1, -2), precision=jax.lax.Precision.HIGHEST)
