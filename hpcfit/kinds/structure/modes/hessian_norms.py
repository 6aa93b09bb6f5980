"""The norms of the blocks of a Hessian, averaged over configurations: how strongly particles hold each other.

    F_ij = (1/K) Σ_s |H_ij(X_s)|  or  (1/K) Σ_s |H_ij(X_s)|²,    |.|: Frobenius norm of a block [d, d]

A block is signed until all terms of the energy of a sample are in it. It is made of products of the Hessian with unit
vectors, a slice of particles at a time, so that no [n d, n d] array is needed; (sample, slice) are the units of a
stage, which ranks share. Before they are added norms are divided by a power of two near the largest one, since cores
that overlap have norms of 10²⁰, beyond what reproducible sums can hold.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import coo_array, csr_array

from hpcfit.energies.normal_modes import columns
from hpcfit.errors import NumericalError
from hpcfit.fit.running_sum import BlockSums, Reductions
from hpcfit.fit.stages import SumsOfUnits
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.ranks import Ranks

SLICE = 16  # particles of a unit


def all_partners(n: int) -> np.ndarray:
    """Every particle as a partner of every one, [n, n]."""
    return np.tile(np.arange(n, dtype=np.int32), (n, 1))


def partners_in(pattern: csr_array) -> np.ndarray:
    """The partners of each particle in a symmetric pattern, [n, most], -1 where there are fewer."""
    pattern = csr_array(pattern)
    counts = np.diff(pattern.indptr)
    found = np.full((pattern.shape[0], max(counts.max(initial=0), 1)), -1, np.int32)
    slot = np.arange(pattern.nnz) - np.repeat(pattern.indptr[:-1], counts)
    found[np.repeat(np.arange(len(counts)), counts), slot] = pattern.indices
    return found


class BlockNorms(SumsOfUnits):
    """The average as the work of a stage (``fit.stages.Work``).

    samples: [K, n, d]. partners: [n, M], those of each particle that norms are kept of, -1 in empty slots
    (``all_partners`` for small systems). squared: squares of norms are averaged. cap: of pair potentials.
    """

    def __init__(
        self,
        landscape: Landscape,
        samples: np.ndarray,
        partners: np.ndarray,
        ranks: Ranks,
        *,
        squared: bool = False,
        cap: float = 0.0,
        reductions: Reductions = "reproducible",
    ):
        self.partners = np.asarray(partners)
        self._landscape, self._samples = landscape, np.asarray(samples, float)
        self._squared, self._cap = squared, cap
        self._slices = -(-landscape.n // SLICE)
        self._scale = self._largest()
        # Behind the norms of partners stands the sum of all others.
        super().__init__(BlockSums(self._slices, (SLICE, self.partners.shape[1] + 1), reductions), ranks)

    @property
    def n_units(self) -> int:
        """Samples times slices; those of a slice follow each other."""
        return len(self._samples) * self._slices

    def run(self, units: Sequence[int]) -> Generator[int | None]:
        """See ``fit.stages.Work``."""
        for unit in units:
            part, sample = divmod(unit, len(self._samples))
            own = part * SLICE + np.arange(SLICE)
            rows = np.where((own < self._landscape.n)[:, None], self.partners[own % self._landscape.n], -1)
            norms = np.asarray(
                partner_norms(self._landscape, self._samples[sample], self._cap, own, rows, squared=self._squared)
            )
            self._sums.add(part, norms / self._scale)
            yield unit

    def product(self) -> dict[str, np.ndarray]:
        """norms: [n, M], averages for the partners; others: [n], the sums of averages over all other particles."""
        total = self._sums.total(self.ranks).reshape(self._slices * SLICE, -1)[: self._landscape.n]
        average = total * (self._scale / len(self._samples))
        return {"norms": average[:, :-1], "others": average[:, -1]} if self.ranks.is_root else {}

    def _largest(self) -> float:
        """A power of two near the largest norm, as products with vectors of random signs show it."""
        n, d = self._landscape.n, self._landscape.d
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (n, d))
        found = [float(_largest_product(self._landscape, x, self._cap, signs)) for x in self._samples]
        bad = np.flatnonzero(~np.isfinite(found))
        if len(bad):
            raise NumericalError(
                f"the energy or the Hessian at sample {bad[0]} of {len(found)} is not finite",
                remedy="spread the samples further, or give a cap to pair potentials",
            )
        largest = 2.0 ** np.ceil(np.log2(max(*found, np.finfo(float).tiny)))
        return largest**2 if self._squared else largest


@partial(jax.jit, static_argnames="squared")
def partner_norms(
    landscape: Landscape, x: jax.Array, cap: Any, own: jax.Array, partners: jax.Array, *, squared: bool = False
) -> jax.Array:
    """The norms of the blocks of some particles [m] with their partners [m, M], and the sum of those with all other
    particles, [m, M + 1]; 0 of empty slots. A particle beyond the last is none."""
    n, d = landscape.n, landscape.d
    present = jnp.minimum(own, n - 1)
    numbers = (d * present[:, None] + jnp.arange(d)).ravel()
    found = columns(lambda x: landscape.energy(x, cap), x, numbers).reshape(len(own), d, n, d)
    norms = jnp.sum(found**2, axis=(1, 3)) * (own < n)[:, None]
    norms = norms if squared else jnp.sqrt(norms)
    kept = jnp.where(partners >= 0, jnp.take_along_axis(norms, jnp.maximum(partners, 0), axis=1), 0.0)
    off = norms.at[jnp.arange(len(own)), present].set(0.0)
    kept_off = jnp.where(partners == own[:, None], 0.0, kept)
    others = jnp.maximum(jnp.sum(off, axis=1) - jnp.sum(kept_off, axis=1), 0.0)
    return jnp.concatenate([kept, others[:, None]], axis=1)


@jax.jit
def _largest_product(landscape: Landscape, x: jax.Array, cap: Any, vector: jax.Array) -> jax.Array:
    """The largest element of the product of the Hessian with a vector; NaN where the energy is not finite."""
    (value, _), (_, product) = jax.jvp(jax.value_and_grad(lambda x: landscape.energy(x, cap)), (x,), (vector,))
    return jnp.where(jnp.isfinite(value), jnp.max(jnp.abs(product)), jnp.nan)


def weights_of(norms: np.ndarray, partners: np.ndarray) -> csr_array:
    """Norms [n, M] of partners as symmetric weights [n, n] without a diagonal, for ``graph.laplacian``."""
    first = np.broadcast_to(np.arange(len(partners))[:, None], partners.shape)
    there = (partners >= 0) & (partners != first)
    half = coo_array((0.5 * norms[there], (first[there], partners[there])), 2 * (len(partners),)).tocsr()
    return (half + half.T).tocsr()
