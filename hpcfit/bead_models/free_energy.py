"""Free energies of the reference and of a coarse-grained simulation, along one coordinate or in two slow ones.

    F(q) = -kT ln p(q)        JS(p, q) = KL(p || m)/2 + KL(q || m)/2,  m = (p + q)/2,  in nats; at most ln 2

Errors are those of a jackknife over blocks of frames, contiguous parts or walkers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.physics.periodic import nearest_image
from hpcfit.statistics.blocks import jackknife_error


class Profile(NamedTuple):
    """centres: [Q]; F: [Q], kJ/mol, 0 at its least, infinite where no frame is; error: [Q], NaN there, and where only
    one block has frames. p: [Q], the probability of each bin."""

    centres: np.ndarray
    F: np.ndarray
    error: np.ndarray
    p: np.ndarray


class Comparison(NamedTuple):
    """js, kl: of the model's distribution from the reference's, nats. rms: of the difference of the free energies with
    weights of the reference where both have frames, kJ/mol. error: of js, by the jackknife over the model's blocks."""

    js: float
    kl: float
    rms: float
    error: float


# ---- coordinates ---------------------------------------------------------------------------------------------------


def pair_distance(R: np.ndarray, i: int, j: int, box: np.ndarray | None = None) -> np.ndarray:
    """[T], A, of frames [T, N, 3], boxes [T, 3, 3] or none; the nearest image."""
    u = np.asarray(R[:, i] - R[:, j], float)
    return np.linalg.norm(u if box is None else nearest_image(u, box), axis=1)


def end_to_end(R: np.ndarray) -> np.ndarray:
    """The distance of the first bead from the last, [T], A."""
    return pair_distance(R, 0, R.shape[1] - 1)


def pair_distances(R: np.ndarray) -> np.ndarray:
    """All distances between beads, [T, N (N - 1) / 2], A."""
    i, j = np.triu_indices(R.shape[1], 1)
    return np.linalg.norm(np.asarray(R[:, i] - R[:, j], float), axis=-1)


# ---- profiles ------------------------------------------------------------------------------------------------------


def common_edges(values: Sequence[np.ndarray], bins: int = 50) -> np.ndarray:
    """Edges [bins + 1] that hold all values."""
    low, high = min(np.min(v) for v in values), max(np.max(v) for v in values)
    return np.linspace(low, high + 1e-9 * (high - low), bins + 1)


def blocks_of(n_frames: int, blocks: int = 10) -> np.ndarray:
    """[T], contiguous parts of one trajectory."""
    return np.arange(n_frames) * blocks // n_frames


def profile(q: np.ndarray, block: np.ndarray, edges: np.ndarray, temperature: float) -> Profile:
    """The free energy along q [T] whose frames belong to blocks [T]. Raises InputError where no frame is inside."""
    counts = _counts(block, lambda which: np.histogram(q[which], edges)[0])
    F, error, p = _free_energy(counts, np.diff(edges), temperature)
    return Profile((edges[1:] + edges[:-1]) / 2, F, error, p)


def _counts(block: np.ndarray, histogram: Any) -> np.ndarray:
    """[B, ...]."""
    return np.array([histogram(block == b) for b in np.unique(block)], float)


def _free_energy(counts: np.ndarray, size: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    total = counts.sum(axis=0)
    if not total.sum() > 0:
        raise InputError("no frame lies between the edges of the histogram", remedy="widen its range")
    kT = GAS_CONSTANT * temperature
    with np.errstate(divide="ignore", invalid="ignore"):
        F = -kT * np.log(total / total.sum() / size)
        rest = total - counts
        left_out = -kT * np.log(rest / rest.sum(axis=tuple(range(1, rest.ndim)), keepdims=True) / size)
        error = jackknife_error(left_out)
    error = np.where(np.isfinite(error), error, np.nan)
    return F - F.min(), error, total / total.sum()


def compare(reference: np.ndarray, model: np.ndarray, model_blocks: np.ndarray, edges: Any, temperature: float):
    """The distance of the model's distribution from the reference's: coordinates [T] or [T, 2], and edges of each."""
    edges = [edges] if np.ndim(edges[0]) == 0 else edges
    rows = lambda q: np.asarray(q, float).reshape(len(q), -1)  # noqa: E731
    p = np.histogramdd(rows(reference), edges)[0]
    counts = _counts(model_blocks, lambda which: np.histogramdd(rows(model)[which], edges)[0])
    q = counts.sum(axis=0)
    left_out = np.array([jensen_shannon(p, q - one) for one in counts])
    error = float(jackknife_error(left_out))
    return Comparison(jensen_shannon(p, q), kullback_leibler(p, q), _rms(p, q, temperature), error)


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """The Jensen-Shannon divergence of two histograms, nats; ln 2 where they have no bin in common."""
    p, q = p / p.sum(), q / q.sum()
    m = (p + q) / 2
    return 0.5 * _relative(p, m) + 0.5 * _relative(q, m)


def kullback_leibler(p: np.ndarray, q: np.ndarray, pseudo: float = 0.5) -> float:
    """KL(p || q) of two histograms of counts, nats; ``pseudo`` counts in every bin keep it finite."""
    p, q = p + pseudo, q + pseudo
    return _relative(p / p.sum(), q / q.sum())


def _relative(p: np.ndarray, q: np.ndarray) -> float:
    there = p > 0
    return float(np.sum(p[there] * np.log(p[there] / q[there])))


def _rms(p: np.ndarray, q: np.ndarray, temperature: float) -> float:
    both = (p > 0) & (q > 0)
    if not both.any():
        return float("nan")
    difference = -GAS_CONSTANT * temperature * np.log((p / p.sum())[both] / (q / q.sum())[both])
    weight = p[both] / p[both].sum()
    return float(np.sqrt(weight @ (difference - weight @ difference) ** 2))


# ---- slow coordinates ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Landscape:
    """Two slow coordinates of the reference, and both simulations in them.

    model: of deeptime, on pair distances. timescales: [2], in frames of the reference. edges: of the two coordinates.
    reference, coarse: free energies [Q, Q], kJ/mol, infinite where no frame is. comparison: of the distributions.
    """

    model: Any
    timescales: np.ndarray
    edges: tuple[np.ndarray, np.ndarray]
    reference: np.ndarray
    coarse: np.ndarray
    comparison: Comparison


def landscape(
    reference: Sequence[np.ndarray],
    coarse: Sequence[np.ndarray],
    lag: int,
    temperature: float,
    bins: int = 40,
) -> Landscape:
    """Time-lagged independent components (Perez-Hernandez and others 2013, 10.1063/1.4811489) of the reference.

    reference, coarse: trajectories [T, N, 3], A; lag: frames of the reference. The blocks of the coarse-grained
    simulation are its trajectories, or tenths of a single one. Raises InputError without deeptime, for less than three
    beads, and for trajectories that are not longer than the lag.
    """
    model = _slow_coordinates(reference, lag)
    slow = [model.transform(pair_distances(R))[:, :2] for R in reference]
    fast = [model.transform(pair_distances(R))[:, :2] for R in coarse]
    a, b = np.concatenate(slow), np.concatenate(fast)
    edges = tuple(common_edges([a[:, k], b[:, k]], bins) for k in range(2))
    block = np.repeat(np.arange(len(fast)), [len(q) for q in fast]) if len(fast) > 1 else blocks_of(len(b))
    area = np.multiply.outer(*(np.diff(edge) for edge in edges))
    F_a, F_b = (_free_energy(np.histogramdd(q, edges)[0][None], area, temperature)[0] for q in (a, b))
    return Landscape(
        model, np.asarray(model.timescales(lagtime=lag))[:2], edges, F_a, F_b,
        compare(a, b, block, edges, temperature),
    )  # fmt: skip


def _slow_coordinates(reference: Sequence[np.ndarray], lag: int) -> Any:
    try:
        from deeptime.decomposition import TICA
        from deeptime.util.data import TrajectoriesDataset, TrajectoryDataset
    except ImportError as error:
        raise InputError(
            f"slow coordinates need deeptime, which cannot be imported: {error}",
            remedy="pip install 'hpcfit[simulate]'",
        ) from None
    shortest = min(len(R) for R in reference)
    if reference[0].shape[1] < 3 or shortest <= lag:
        raise InputError(
            f"{reference[0].shape[1]} beads and a trajectory of {shortest} frames at a lag of {lag}"
            " have no two slow coordinates",
            remedy="use three beads or more, and a lag shorter than each trajectory",
        )
    pairs = TrajectoriesDataset([TrajectoryDataset(lag, pair_distances(R)) for R in reference])
    return TICA(lagtime=lag, dim=2).fit(pairs).fetch_model()
