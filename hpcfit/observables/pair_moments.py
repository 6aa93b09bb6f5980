"""Debye sums of many structures from moments of their pair distances.

The distances of pairs of species a, b are sorted into bins of a width D that is a power of two. With r = (k + s) D, a
bin k has the moments (sum 1, sum s, sum s^2, sum s^3). They are additive over pairs, structures, frames and ranks, and
know no q. Cubic interpolation between nodes r_m = m D then gives

    S_ab(q) = sum over pairs of sin(q r) / (q r) = sum over m of weight_m sin(q r_m) / (q r_m)

with an error of (q D)^4 / 24 times what does not cancel. Form factors, displacements and weights come after the sum:

    I(q) = sum over a of n_a f_a^2 + 2 sum over a <= b of f_a f_b exp(-q^2 sigma_ab^2 / 2) S_ab(q)

The moment grid is that of DebyeCalculator 1.1 (Johansen et al. 2024, 10.21105/joss.06024); the Debye sum is that of
Debye 1915, 10.1002/andp.19153510606. ``exact_pair_sums`` is the same sum without bins, for checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
from numba import njit

from hpcfit.errors import InputError
from hpcfit.fit.running_sum import Reductions, RunningSum, running_sum
from hpcfit.ranks import Ranks

FINENESS = 0.03  # the largest q times the width of a bin: errors of some 1e-8 of I(q) in disordered structures
PAIRS_TOGETHER = 1 << 22  # of a large structure, about as many pairs are one part of its sum
MOMENTS = 4  # of a bin: sums of 1, s, s^2, s^3
# Weights of the nodes k - 1 ... k + 2 (rows) by the moments of bin k (columns): cubic Lagrange interpolation.
CUBIC = np.array([[0, -1 / 3, 1 / 2, -1 / 6], [1, -1 / 2, -1, 1 / 2], [0, 1, 1 / 2, -1 / 2], [0, -1 / 6, 0, 1 / 6]])

_compiled = njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})
# Sums over q may be reordered, or they could not be formed in vectors.
_reordered = njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"})


@dataclass(frozen=True)
class PairMoments:
    """The moments of pair distances of one structure, or of many.

    species: [S]; width: of a bin, A; atoms: [S] uint64; count: [P, bins] uint64 pairs, each counted once; moments:
    [P, bins, 3] float64, the sums of s, s^2, s^3; structures: how many were added. P = S (S + 1) / 2, in the order of
    ``pairs_of``.
    """

    species: tuple[str, ...]
    width: float
    atoms: np.ndarray
    count: np.ndarray
    moments: np.ndarray
    structures: int = 1

    @property
    def bins(self) -> int:
        """The number of bins."""
        return self.count.shape[1]

    def __add__(self, other: PairMoments) -> PairMoments:
        """The moments of both, by plain additions; ``MomentSum`` is for sums that have the same bits in any order."""
        _check_alike(self, other)
        bins = max(self.bins, other.bins)
        count = _widened(self.count, bins) + _widened(other.count, bins)
        moments = _widened(self.moments, bins) + _widened(other.moments, bins)
        atoms, structures = self.atoms + other.atoms, self.structures + other.structures
        return PairMoments(self.species, self.width, atoms, count, moments, structures)

    def __sub__(self, part: PairMoments) -> PairMoments:
        """The pairs that are not among those of ``part``, such as all but the first shell; the atoms stay."""
        _check_alike(self, part)
        bins = max(self.bins, part.bins)
        count = _widened(self.count, bins) - _widened(part.count, bins)
        moments = np.where(count[..., None] > 0, _widened(self.moments, bins) - _widened(part.moments, bins), 0.0)
        return PairMoments(self.species, self.width, self.atoms, count, moments, self.structures)

    def pair_sums(self, q: np.ndarray) -> np.ndarray:
        """S_ab(q), [P, Q], float64, of q [Q] in 1/A."""
        q, bins = np.asarray(q, float), self.bins
        sums = np.concatenate([self.count[..., None].astype(float), self.moments], axis=-1)
        nodes = np.zeros((len(self.count), bins + 3))
        for place, row in enumerate(CUBIC):
            nodes[:, place : place + bins] += sums @ row
        nodes[:, 2] += nodes[:, 0]  # sin(q r) / (q r) is even: the node at -D is the one at D
        used = np.flatnonzero(np.any(nodes[:, 1:] != 0, axis=0))
        found = np.zeros((len(nodes), len(q)))
        for some in np.array_split(used, len(used) // 4096 + 1):
            found += nodes[:, some + 1] @ np.sinc(np.multiply.outer(some * self.width, q / np.pi))
        return found


def pairs_of(species: Sequence[str]) -> list[tuple[str, str]]:
    """The P pairs of species, (a, a), (a, b) ... (b, b) ..., in the order of all arrays here."""
    return list(combinations_with_replacement(species, 2))


def bin_width(q_max: float, fineness: float = FINENESS) -> float:
    """The largest power of two, A, that is not above ``fineness`` / q_max (1/A). A power of two loses no bit of s."""
    if not q_max > 0:
        raise InputError(f"the largest q is {q_max}", remedy="give q in 1/A, above 0")
    return 2.0 ** np.floor(np.log2(fineness / q_max))


# ---- one structure -------------------------------------------------------------------------------------------------


def pair_moments(
    positions: np.ndarray, kinds: Sequence[str], species: Sequence[str], width: float, among: np.ndarray | None = None
) -> PairMoments:
    """The moments of a structure. positions: [n, 3] A, unwrapped; kinds: [n], each one of ``species``; among: [n, n] of
    bool, the pairs that count, all where it is None."""
    x, kind, order = _sorted(positions, kinds, species)
    if among is not None:
        among = np.ascontiguousarray(np.asarray(among, bool)[np.ix_(order, order)])
    return _of_rows(x, kind, tuple(species), width, slice(0, len(x)), among)


def moments_of_many(
    positions: np.ndarray, kinds: Sequence[str], starts: Sequence[int], species: Sequence[str], width: float
) -> PairMoments:
    """The summed moments of many structures, each by itself, such as all instances of a label in a block of frames.

    positions: [n, 3] A, one structure after another; kinds: [n]; starts: [m + 1], where each begins, and n.
    """
    starts = np.asarray(starts, np.int64)
    x, kind, order = _sorted(positions, kinds, species)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    # Within each structure again by species, as `_add_moments` needs it.
    where = np.lexsort((kind[back], np.repeat(np.arange(len(starts) - 1), np.diff(starts))))
    x, kind, S = np.ascontiguousarray(x[back][where]), kind[back][where], len(species)
    longest = 0.0
    if len(x):
        held = starts[:-1][np.diff(starts) > 0]
        spans = np.maximum.reduceat(x, held, axis=0) - np.minimum.reduceat(x, held, axis=0)
        longest = np.max(np.linalg.norm(spans, axis=1))
    sums = np.zeros((S * (S + 1) // 2, int(longest / width) + 2, MOMENTS))
    _add_many(x, kind, S, starts, 1 / width, sums)
    atoms, count = np.bincount(kind, minlength=S).astype(np.uint64), sums[..., 0].astype(np.uint64)
    return PairMoments(tuple(species), width, atoms, count, sums[..., 1:].copy(), len(starts) - 1)


def moments_by_parts(
    positions: np.ndarray, kinds: Sequence[str], species: Sequence[str], width: float
) -> Iterator[PairMoments]:
    """The moments of a large structure in parts of about ``PAIRS_TOGETHER`` pairs, which ranks can deal out. The parts
    belong to the structure: their sum by a ``MomentSum`` has the same bits however they are dealt."""
    x, kind, _ = _sorted(positions, kinds, species)
    for rows in row_parts(len(x)):
        yield _of_rows(x, kind, tuple(species), width, rows, None)


def row_parts(n: int) -> list[slice]:
    """Rows i of the pairs i < j of n atoms, in parts of about ``PAIRS_TOGETHER`` pairs."""
    pairs_before = np.concatenate([[0], np.cumsum(n - 1 - np.arange(max(n, 1)))])
    parts = max(1, round(pairs_before[-1] / PAIRS_TOGETHER))
    ends = np.searchsorted(pairs_before, np.linspace(0, pairs_before[-1], parts + 1))
    ends[-1] = n
    return [slice(int(a), int(b)) for a, b in pairwise(ends)]


def _sorted(
    positions: np.ndarray, kinds: Sequence[str], species: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions and numbers of species sorted by species, and the order that they had."""
    x, number = np.asarray(positions, float), {name: k for k, name in enumerate(species)}
    if unknown := [kind for kind in dict.fromkeys(kinds) if kind not in number]:
        raise InputError(
            f"a structure has '{unknown[0]}', which is not among the species {', '.join(species)}",
            remedy="name all species that scatter",
        )
    if x.shape != (len(kinds), 3) or not np.all(np.isfinite(x)):
        raise InputError(
            f"positions of shape {x.shape}, or not finite, for {len(kinds)} atoms", remedy="give [n, 3] numbers in A"
        )
    kind = np.array([number[one] for one in kinds], np.int64)
    order = np.argsort(kind, kind="stable")
    return np.ascontiguousarray(x[order]), kind[order], order


def _of_rows(
    x: np.ndarray, kind: np.ndarray, species: tuple[str, ...], width: float, rows: slice, among: np.ndarray | None
) -> PairMoments:
    S = len(species)
    # No distance is longer than the diagonal of what holds all atoms.
    longest = np.linalg.norm(x.max(axis=0) - x.min(axis=0)) if len(x) else 0.0
    sums = np.zeros((S * (S + 1) // 2, int(longest / width) + 2, MOMENTS))
    _add_moments(x, kind, S, rows.start, rows.stop, 1 / width, among, sums)
    count = sums[..., 0].astype(np.uint64)  # exact: a bin of one structure has fewer than 2^53 pairs
    first = rows.start == 0
    atoms = np.bincount(kind, minlength=S).astype(np.uint64) * np.uint64(first)
    return PairMoments(species, width, atoms, count, sums[..., 1:].copy(), int(first))


@_compiled
def _add_moments(x, kind, S, start, stop, per_width, among, sums):
    """Add the pairs i < j of rows i to sums [P, bins, 4]."""
    n = len(x)
    place = np.empty(n)
    for i in range(start, stop):
        for j in range(i + 1, n):
            dx, dy, dz = x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2]
            place[j] = np.sqrt(dx * dx + dy * dy + dz * dz) * per_width
        a = kind[i]
        first = a * S - a * (a - 1) // 2 - a
        for j in range(i + 1, n):
            if among is not None and not among[i, j]:
                continue
            u = place[j]
            k = int(u)
            s = u - k
            p = first + kind[j]
            sums[p, k, 0] += 1.0
            sums[p, k, 1] += s
            sums[p, k, 2] += s * s
            sums[p, k, 3] += s * s * s


@_compiled
def _add_many(x, kind, S, starts, per_width, sums):
    """Add the pairs within each structure to sums [P, bins, 4]."""
    for m in range(len(starts) - 1):
        own = slice(starts[m], starts[m + 1])
        _add_moments(x[own], kind[own], S, 0, starts[m + 1] - starts[m], per_width, None, sums)


# ---- sums ----------------------------------------------------------------------------------------------------------


class MomentSum:
    """A sum of moments with the same bits for any number of ranks and any order of the parts.

    Counts are integers. Moments are added as 64-bit integers (``fit.running_sum``), part by part: what is one part,
    such as all structures of a block of frames, must be decided by the data and not by the ranks.
    """

    def __init__(self, species: Sequence[str], width: float, reductions: Reductions = "reproducible"):
        self.species, self.width, self.reductions = tuple(species), width, reductions
        S = len(self.species)
        self._pairs = S * (S + 1) // 2
        self._atoms, self._count, self._structures = np.zeros(S, np.uint64), np.zeros((self._pairs, 1), np.uint64), 0
        self._moments = running_sum(reductions, (self._pairs, 1, 3))

    def add(self, part: PairMoments) -> None:
        """Add a part."""
        _check_alike(self, part)
        self._widen(part.bins)
        bins = self._count.shape[1]
        self._count += _widened(part.count, bins)
        self._atoms += part.atoms
        self._structures += part.structures
        self._moments.add(_widened(part.moments, bins))

    def total(self, ranks: Ranks) -> PairMoments:
        """The sum over all parts of all ranks; collective."""
        self._widen(int(ranks.max(np.array([self._count.shape[1]]))[0]))
        count, atoms = ranks.sum(self._count), ranks.sum(self._atoms)
        structures = int(ranks.sum(np.array([self._structures]))[0])
        return PairMoments(self.species, self.width, atoms, count, self._moments.total(ranks), structures)

    def kept(self) -> dict[str, np.ndarray]:
        """The state of this rank, which ``take_up`` goes on from."""
        own = {"count": self._count, "atoms": self._atoms, "structures": np.array([self._structures])}
        return own | {f"moments {name}": values for name, values in self._moments.kept().items()}

    def take_up(self, kept: Mapping[str, np.ndarray]) -> None:
        """Add what another sum has kept."""
        self._widen(kept["count"].shape[1])
        bins = self._count.shape[1]
        self._count += _widened(kept["count"], bins)
        self._atoms += kept["atoms"]
        self._structures += int(kept["structures"][0])
        own = {name.removeprefix("moments "): v for name, v in kept.items() if name.startswith("moments ")}
        self._moments.take_up({name: _widened(v, bins) if v.ndim == 3 else v for name, v in own.items()})

    def _widen(self, bins: int) -> None:
        if bins <= self._count.shape[1]:
            return
        wider: RunningSum = running_sum(self.reductions, (self._pairs, bins, 3))
        wider.take_up({name: _widened(v, bins) if v.ndim == 3 else v for name, v in self._moments.kept().items()})
        self._moments, self._count = wider, _widened(self._count, bins)


def _widened(values: np.ndarray, bins: int) -> np.ndarray:
    return np.pad(values, [(0, 0), (0, bins - values.shape[1])] + [(0, 0)] * (values.ndim - 2))


def _check_alike(one: Any, other: PairMoments) -> None:
    if (one.species, one.width) != (other.species, other.width):
        raise InputError(
            f"moments of {one.species} in bins of {one.width} A are added to some of {other.species} in bins of"
            f" {other.width} A",
            remedy="use one list of species and one width for all structures",
        )


# ---- intensities ---------------------------------------------------------------------------------------------------


def intensity(atoms: Any, pair_sums: Any, f: Any, q: Any, sigma: Any = None, undamped: Any = None) -> Any:
    """I(q) [Q], in the unit of f^2, differentiable in JAX by every argument.

    atoms: [S], numbers of atoms; pair_sums: [P, Q]; f: [S, Q]; q: [Q] 1/A; sigma: [P] A, the spread of each pair's
    separation along an axis (B = 8 pi^2 sigma^2), which damps pairs and never the terms i = j; undamped: [P, Q], the
    sums of pairs that it does not damp. For an isotropic Gaussian spread of separations the damping is exact.
    """
    a, b = pair_indices(f.shape[0])
    f, q = jnp.asarray(f), jnp.asarray(q)
    damped = jnp.asarray(pair_sums)
    if sigma is not None:
        damped = damped * jnp.exp(-(q**2) * jnp.asarray(sigma)[:, None] ** 2 / 2)
    if undamped is not None:
        damped = damped + undamped
    return jnp.asarray(atoms, float) @ f**2 + 2 * jnp.sum(f[a] * f[b] * damped, axis=0)


def mean_intensity(moments: PairMoments, f: np.ndarray, q: np.ndarray, sigma: Any = None) -> np.ndarray:
    """The mean I(q) [Q] of the structures that were added."""
    found = intensity(moments.atoms.astype(float), moments.pair_sums(q), f, q, sigma)
    return np.asarray(found) / max(moments.structures, 1)


def pair_indices(S: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of both species of each pair, [P] each."""
    return np.triu_indices(S)


def b_factor(sigma: Any) -> Any:
    """B = 8 pi^2 sigma^2, A^2; exp(-q^2 sigma^2 / 2) = exp(-B q^2 / (16 pi^2))."""
    return 8 * np.pi**2 * sigma**2


def sigma_of(b: Any) -> Any:
    """The spread sigma, A, of a B in A^2."""
    return np.sqrt(b / (8 * np.pi**2))


# ---- without bins --------------------------------------------------------------------------------------------------


def exact_pair_sums(
    positions: np.ndarray, kinds: Sequence[str], species: Sequence[str], q: np.ndarray, among: np.ndarray | None = None
) -> np.ndarray:
    """S_ab(q) [P, Q] pair by pair in float64; the cost is Q n^2 / 2 sines. Arguments as of ``pair_moments``."""
    x, kind, order = _sorted(positions, kinds, species)
    if among is not None:
        among = np.ascontiguousarray(np.asarray(among, bool)[np.ix_(order, order)])
    S = len(species)
    found = np.zeros((S * (S + 1) // 2, len(q)))
    _add_exact(x, np.searchsorted(kind, np.arange(S + 1)), np.maximum(np.asarray(q, float), 1e-30), among, found)
    return found


@_reordered
def _add_exact(x, starts, q, among, found):
    """Add sin(q r) / (q r) of the pairs i < j to found [P, Q]. starts: [S + 1], of each species."""
    S, n = len(starts) - 1, len(x)
    r, per_r = np.empty(n), np.empty(n)
    p = -1
    for a in range(S):
        for b in range(a, S):
            p += 1
            for i in range(starts[a], starts[a + 1]):
                m = 0
                for j in range(max(i + 1, starts[b]), starts[b + 1]):
                    if among is not None and not among[i, j]:
                        continue
                    dx, dy, dz = x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2]
                    r[m] = max(np.sqrt(dx * dx + dy * dy + dz * dz), 1e-30)
                    per_r[m] = 1.0 / r[m]
                    m += 1
                for k in range(len(q)):
                    total = 0.0
                    for j in range(m):
                        total += _sine(q[k] * r[j]) * per_r[j]
                    found[p, k] += total / q[k]


PI_HIGH, PI_MIDDLE, PI_LOW = 3.14159250259399414062, 1.50995788317231927e-07, 1.07806057163162379e-14  # sum: pi


@njit(nogil=True, error_model="numpy", fastmath={"contract"})  # reassociated, the parts of pi would become one
def _sine(x):
    """Give sin(x) to 2e-16 for x below 1e8, by a Taylor series about the nearest multiple of pi; it vectorises."""
    n = np.rint(x * 0.3183098861837907)
    y = ((x - n * PI_HIGH) - n * PI_MIDDLE) - n * PI_LOW
    sign = 1.0 - 4.0 * abs(0.5 * n - np.rint(0.5 * n))
    z = y * y
    t = 1.0 / 51090942171709440000.0
    t = t * z - 1.0 / 121645100408832000.0
    t = t * z + 1.0 / 355687428096000.0
    t = t * z - 1.0 / 1307674368000.0
    t = t * z + 1.0 / 6227020800.0
    t = t * z - 1.0 / 39916800.0
    t = t * z + 1.0 / 362880.0
    t = t * z - 1.0 / 5040.0
    t = t * z + 1.0 / 120.0
    t = t * z - 1.0 / 6.0
    return sign * (y + y * z * t)
