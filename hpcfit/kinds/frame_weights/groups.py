"""Groups of frames that the fit is started from and its weights are summed over: labels of the store, or clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpcfit.config import BLOCK_FRAMES
from hpcfit.kinds.frame_weights.coordinates import read_coordinates
from hpcfit.kinds.frame_weights.frame_clusters import k_means
from hpcfit.store.catalog import Block
from hpcfit.store.stream import StructureFactors
from hpcfit.store.structure_factors import FactorStore

if TYPE_CHECKING:
    from hpcfit.config import FrameWeightsConfig

COMPONENTS = 4  # principal components of the structure factors that frames are clustered by
STRONGEST = 256  # reflections they are computed from: those that vary most
MOST_LABELS = 8  # more are no structural states, but trajectories: each would start a fit of its own


@dataclass(frozen=True)
class FrameGroups:
    """names: of the groups. number: [blocks, 64], the group of each frame, -1 where there is no frame."""

    names: Sequence[str]
    number: np.ndarray

    @property
    def frames(self) -> np.ndarray:
        """How many frames each group has."""
        return np.bincount(self.number[self.number >= 0], minlength=len(self.names))


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
