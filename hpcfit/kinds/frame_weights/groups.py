"""Groups of frames that the fit is started from and its weights are summed over: labels of the store, or clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcfit.config import BLOCK_FRAMES
from hpcfit.errors import InputError
from hpcfit.kinds.frame_weights.coordinates import read_coordinates
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.statistics.blocks import effective_frames
from hpcfit.store.catalog import Block
from hpcfit.store.stream import StructureFactors
from hpcfit.store.structure_factors import FactorStore

if TYPE_CHECKING:
    from hpcfit.kinds.frame_weights.config import FrameWeightsConfig

COMPONENTS = 4  # principal components of the structure factors that frames are clustered by
STRONGEST = 256  # reflections they are computed from: those that vary most
RESTARTS, ITERATIONS = 20, 50  # of k-means
MOST_LABELS = 8  # more are no structural states, but trajectories: each would start a fit of its own


@dataclass(frozen=True)
class FrameGroups:
    """names: of the groups. number: [blocks, 64], the group of each frame, -1 where there is no frame."""

    names: Sequence[str]
    number: np.ndarray

    @property
    def frames(self) -> np.ndarray:
        """The number of frames in each group."""
        return np.bincount(self.number[self.number >= 0], minlength=len(self.names))

    @property
    def free(self) -> np.ndarray:
        """The group of each frame among those whose sum of weights can be free, [blocks, 64]; -1 where there is none.

        Those are the groups of two frames or more, where there are several groups: within a group of one frame there is
        nothing that a divergence could price.
        """
        several = np.flatnonzero(self.frames >= 2) if len(self.names) > 1 else np.empty(0, int)
        place = np.full(len(self.names) + 1, -1)  # the last is of rows without a frame
        place[several] = np.arange(len(several))
        return place[self.number]


def group_rows(
    names: Sequence[str], number: np.ndarray, before: np.ndarray, after: np.ndarray, temperature: float
) -> list[dict[str, Any]]:
    """Each group of frames: its frames, summed prior and fitted weight, and the free energy between the two, kJ/mol.

    number: of each frame's group, -1 where there is no frame. before, after: weights; all of one shape.
    """
    kT, rows = GAS_CONSTANT * temperature, []
    for group, name in enumerate(names):
        inside = number == group
        prior, weight = float(before[inside].sum()), float(after[inside].sum())
        # delta G = -kT ln(w / w0): what the experiment adds to the free energy of the group in the simulation.
        delta_G = float(-kT * np.log(weight / prior)) if weight > 0 else None
        frames = int(inside.sum())
        rows.append({"group": name, "frames": frames, "prior": prior, "weight": weight, "delta_G": delta_G})
    return rows


def independent_frames(names: Sequence[str], source: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """The number of independent frames that the weights of each source are worth, by its name; without sources whose
    weights do not change along them, which tell nothing. source, weight: [T], the number of a source and w."""
    worth = zip(names, effective_frames(weight, source), strict=True)
    return {str(name): float(n) for name, n in worth if np.isfinite(n)}


def group_frames(choice: FrameWeightsConfig, store: FactorStore, blocks: Sequence[Block], seed: int) -> FrameGroups:
    """The groups that the config names; one group of all frames where there are too many labels, or only one."""
    held = np.stack([block.ids() for block in blocks]) >= 0
    number = np.full(held.shape, -1)
    if choice.clusters == "labels":
        labels = [store.shards[block.shard].label for block in blocks]
        names = sorted(set(labels), key=labels.index)
        if len(names) > MOST_LABELS:
            names, labels = ["all frames"], ["all frames"] * len(labels)
        number[:] = np.where(held, np.array([names.index(label) for label in labels])[:, None], -1)
        return FrameGroups([name or "(no label)" for name in names], number)
    number[held] = k_means(_coordinates(choice, store, blocks), choice.n_clusters, seed)
    return FrameGroups([f"cluster {k + 1}" for k in range(choice.n_clusters)], number)


def _coordinates(choice: FrameWeightsConfig, store: FactorStore, blocks: Sequence[Block]) -> np.ndarray:
    """[T, d], in the order of the blocks."""
    if isinstance(choice.clusters, Path):
        ids = np.concatenate([block.ids()[: block.frames] for block in blocks])
        return read_coordinates(choice.clusters, ids)[1]
    return _principal_components(store, blocks)


def _principal_components(store: FactorStore, blocks: Sequence[Block]) -> np.ndarray:
    """The leading principal components of the frames' strongest varying structure factors, [T, components]."""
    strongest = np.sort(np.argsort(-store.reference.scale, kind="stable")[:STRONGEST])
    columns = np.full((1, -(-len(strongest) // 64) * 64), -1)
    columns[0, : len(strongest)] = strongest
    F_th = StructureFactors(store, blocks, columns).read_all()[0].astype(float)
    F_th = F_th.reshape(len(blocks) * BLOCK_FRAMES, -1)[np.concatenate([block.ids() for block in blocks]) >= 0]
    centred = F_th - F_th.mean(axis=0)
    # From the Gram matrix of the reflections, whose number does not grow with that of the frames.
    variance, directions = np.linalg.eigh(centred.T @ centred)
    return centred @ directions[:, np.argsort(-variance)[: min(COMPONENTS, len(centred) - 1)]]


# ---- clusters ------------------------------------------------------------------------------------------------------


def k_means(coordinates: np.ndarray, k: int, seed: int) -> np.ndarray:
    """The cluster of each frame, [T] in 0 ... k - 1, numbered by first appearance; each has a frame.

    coordinates: [T, d], any units: every column is brought to mean 0 and variance 1 (a constant one says nothing). Of
    several starts by k-means++ (Arthur & Vassilvitskii, SODA 2007, 1027) the one with the smallest sum of squares is
    kept. The rows are clustered in sorted order, so that the order of the frames decides the numbers only. Raises
    InputError where a coordinate is not finite, or there are fewer distinct rows than clusters.
    """
    _check(coordinates, k)
    order = np.lexsort(coordinates.T)
    label = np.empty(len(coordinates), int)
    label[order] = _best_of_starts(_standardised(coordinates[order]), k, np.random.default_rng(seed))
    return _numbered_by_appearance(label)


def _check(coordinates: np.ndarray, k: int) -> None:
    if not np.all(np.isfinite(coordinates)):
        row, column = np.argwhere(~np.isfinite(coordinates))[0]
        raise InputError(
            f"coordinate {column} of frame {row} (counted from 0) is {coordinates[row, column]}:"
            f" {len(coordinates)} frames cannot be clustered",
            remedy="give finite coordinates for every frame",
        )
    distinct = len(np.unique(coordinates, axis=0))
    if k > distinct:
        raise InputError(
            f"{k} clusters of {len(coordinates)} frames that have {distinct} distinct rows of coordinates",
            remedy=f"ask for at most {distinct} clusters, or give coordinates that tell the frames apart",
        )


def _standardised(coordinates: np.ndarray) -> np.ndarray:
    centred = coordinates - coordinates.mean(axis=0)
    deviation = centred.std(axis=0)
    # What rounding leaves of a constant column must not become its variance.
    constant = deviation <= 1e-12 * np.abs(coordinates).max(axis=0)
    return np.where(constant, 0, centred / np.where(constant, 1, deviation))


def _best_of_starts(standardised: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    from scipy.cluster.vq import ClusterError, kmeans2

    best, least = None, np.inf
    for generator in rng.spawn(RESTARTS):
        try:
            centre, label = kmeans2(standardised, k, ITERATIONS, minit="++", missing="raise", seed=generator)
        except ClusterError:  # a cluster lost its last frame on the way
            continue
        sum_of_squares = np.sum((standardised - centre[label]) ** 2)
        if sum_of_squares < least:
            best, least = label, sum_of_squares
    if best is None:
        raise InputError(
            f"{k} clusters of {len(standardised)} frames: one of them was left empty in each of {RESTARTS} starts",
            remedy="ask for fewer clusters",
        )
    return best


def _numbered_by_appearance(label: np.ndarray) -> np.ndarray:
    first, inverse = np.unique(label, return_index=True, return_inverse=True)[1:]
    number = np.empty(len(first), int)
    number[np.argsort(first)] = np.arange(len(first))
    return number[inverse]
