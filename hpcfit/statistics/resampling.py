"""Bootstrap resamples: how often each frame, or each orbit, is drawn.

Frames of a trajectory are not independent, so that single ones must not be drawn: blocks of successive frames are
(Künsch, 10.1214/aos/1176347265), here disjoint ones, as long as two independent frames where there are so many. Of n
blocks n - 1 are drawn, each of which counts n / (n - 1) times, so that the variance of few blocks is not too small (Rao
& Wu, 10.1080/01621459.1988.10478591). Trajectories of one state differ by more than blocks of one do where something is
frozen in each of them: whole ones are drawn first (Davison & Hinkley 1997, section 3.8). Orbits are drawn one by one
(Efron, 10.1214/aos/1176344552).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hpcfit.errors import InputError

BLOCKS = 10  # a source's variance from 10 blocks is known to sqrt(2 / 9), half of it; sources add up
SPAN = 2.0  # of a block, in frames that are worth an independent one: shorter ones tell too little, longer ones are few


def blocks_per_source(source: np.ndarray, memory: np.ndarray | None = None, most: int = BLOCKS) -> np.ndarray:
    """Into how many blocks to cut the frames of each source, [sources] by ascending number of the source.

    So many at most, of at least two frames and twice the ``memory`` [sources], the number of successive frames that are
    worth an independent one; but two of a source of four frames or more. A source of one to three frames is one block,
    which every resample holds once.
    """
    frames = np.unique(source, return_counts=True)[1]
    shortest = np.maximum(np.ceil(SPAN * np.asarray(1.0 if memory is None else memory)), 2)
    return np.where(frames < 4, 1, np.clip((frames // shortest).astype(int), 2, most))


def resampled_frames(
    source: np.ndarray, label: np.ndarray, n_blocks: np.ndarray, resamples: int
) -> Iterator[np.ndarray]:
    """Count of each frame, [T], in each of so many resamples: of sources within their labels, and of blocks of frames
    within sources. None where nothing can be drawn in another way: each source has a label of its own and is one block.

    source: [T] number of each frame's source, in the order of time. label: [sources]; n_blocks: [sources].
    """
    if n_blocks.max(initial=0) < 2 and len(set(label)) == len(label):
        return
    for seed in range(1, resamples + 1):
        yield resampled_blocks(source, n_blocks, seed, resampled_sources(label, seed))


def resampled_sources(label: np.ndarray, seed: int) -> np.ndarray:
    """Count of each source in resample ``seed``, [sources] int: each label has as many draws as sources.

    label: [sources], anything that can be compared. A source with a label of its own is held once.
    """
    counts, rng = np.empty(len(label), int), np.random.default_rng((seed, 1))
    for name in np.unique(label):
        rows = np.flatnonzero(label == name)
        counts[rows] = np.bincount(rng.integers(len(rows), size=len(rows)), minlength=len(rows))
    return counts


def resampled_blocks(
    source: np.ndarray, n_blocks_per_source: np.ndarray | int, seed: int, times: np.ndarray | None = None
) -> np.ndarray:
    """Count of each frame in resample ``seed``, [T]; no whole numbers (see the module).

    source: [T] number of each frame's source, the frames of one source in the order of time. The frames of a source
    are cut into its number of blocks (at most its frames), whose lengths differ by one at most, and one block less is
    drawn with replacement: the counts of a source sum to its frames, but for such differences. times: how often each
    source was drawn itself, by ascending number; as many times the blocks are drawn; default once. Raises InputError
    where every source is one block and sources are not drawn, so that nothing can be drawn in another way.
    """
    names, of_frame, frames = np.unique(source, return_inverse=True, return_counts=True)
    n_blocks = np.minimum(np.broadcast_to(n_blocks_per_source, names.shape), frames)
    if n_blocks.max(initial=0) < 2 and times is None:
        raise InputError(
            f"{len(of_frame)} frames of {len(names)} sources make {n_blocks.sum()} blocks, one a source:"
            " every resample would be the same",
            remedy="give longer trajectories (at least 4 frames a source), or resample the orbits instead",
        )
    counts, rng = np.empty(len(of_frame)), np.random.default_rng(seed)
    for number, n in enumerate(n_blocks):
        again = 1 if times is None else times[number]
        drawn = np.full(n, float(again))
        if n > 1:
            drawn = np.bincount(rng.integers(n, size=(n - 1) * again), minlength=n) * n / (n - 1)
        rows = np.flatnonzero(of_frame == number)
        counts[rows] = drawn[_block_in_source(len(rows), n)]
    return counts


def blocks_of_frames(source: np.ndarray, n_blocks_per_source: np.ndarray) -> np.ndarray:
    """The block of each frame, [T] int, numbered through all sources: the blocks that ``resampled_blocks`` draws.

    source: [T] number of each frame's source. n_blocks_per_source: [sources] by ascending number of the source.
    """
    names, of_frame = np.unique(source, return_inverse=True)
    first = np.concatenate([[0], np.cumsum(n_blocks_per_source)])
    block = np.empty(len(of_frame), int)
    for number in range(len(names)):
        rows = np.flatnonzero(of_frame == number)
        block[rows] = first[number] + _block_in_source(len(rows), n_blocks_per_source[number])
    return block


def _block_in_source(frames: int, n_blocks: int) -> np.ndarray:
    """The block of each of a source's frames, [frames] in 0 ... n_blocks - 1."""
    return np.arange(frames) * n_blocks // frames


def resampled_orbits(fitted: np.ndarray, seed: int) -> np.ndarray:
    """Count of each orbit in resample ``seed``, [n] int: as many draws as orbits are ``fitted`` [n] bool.

    Orbits that are not fitted count once.
    """
    counts, rows = np.ones(len(fitted), int), np.flatnonzero(fitted)
    counts[rows] = np.bincount(np.random.default_rng(seed).integers(len(rows), size=len(rows)), minlength=len(rows))
    return counts
