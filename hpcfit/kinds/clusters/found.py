"""Everything that was found of clusters, on root: the arrays of all blocks under one list of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hpcfit.kinds.clusters.axis import Axis
from hpcfit.kinds.clusters.composition import Roles, Structure
from hpcfit.kinds.clusters.extraction.participants import Participants
from hpcfit.kinds.clusters.extraction.stages import blocks_of
from hpcfit.kinds.clusters.kinetics import blocks, resampled

STATES = ("isolated", "paired", "networked")  # ions in clusters of 1, 2 and more nodes and linkers


class Counted(NamedTuple):
    """L labels by size, then by name, in T frames of the store.

    compositions: [L, S] units of species; nodes, sizes: [L], nodes and all units; counts: [T, L]; radii: [T, L] sums of
    squared radii of gyration, A^2; contacts: [T, S, S] (``extraction.stages.contacts``); percolating: [T] clusters.
    structures: of each label with a sample of clusters, by ascending hash.
    """

    roles: Roles
    species: tuple[str, ...]
    labels: tuple[str, ...]
    compositions: np.ndarray
    counts: np.ndarray
    radii: np.ndarray
    contacts: np.ndarray
    percolating: np.ndarray
    structures: Mapping[str, Sequence[Structure]]

    @property
    def nodes(self) -> np.ndarray:
        """Nodes of each label, [L]."""
        return self.compositions[:, : len(self.roles.node)].sum(axis=1)

    @property
    def core(self) -> np.ndarray:
        """Nodes and linkers of each label, [L]."""
        return self.compositions[:, : len(self.roles.node) + len(self.roles.linker)].sum(axis=1)

    @property
    def sizes(self) -> np.ndarray:
        """Units of each label, [L]: atoms, or molecules."""
        return self.compositions.sum(axis=1)


def counted(arrays: Mapping[str, np.ndarray], of: Participants, structures: int) -> Counted:
    """The arrays of a stage ``Extraction`` under one list of labels, the same however the blocks were dealt out."""
    compositions = blocks_of(arrays, "compositions")
    united = np.unique(np.concatenate(compositions), axis=0)
    names = [of.roles.label(dict(zip(of.species, row))) for row in united.tolist()]
    order = sorted(range(len(names)), key=lambda n: (int(united[n].sum()), names[n]))
    united, labels = united[order], tuple(names[n] for n in order)
    place = {tuple(row): n for n, row in enumerate(united.tolist())}
    columns = [np.array([place[tuple(row)] for row in part.tolist()]) for part in compositions]
    counts, radii = (_spread(blocks_of(arrays, name), columns, len(labels)) for name in ("counts", "radii"))
    return Counted(
        of.roles, of.species, labels, united, counts, radii, np.concatenate(blocks_of(arrays, "contacts")),
        np.concatenate(blocks_of(arrays, "percolating")), _structures(arrays, of, labels, columns, structures),
    )  # fmt: skip


def _spread(parts: Sequence[np.ndarray], columns: Sequence[np.ndarray], labels: int) -> np.ndarray:
    """The columns [F, l] of blocks at those of all labels, [T, L]."""
    whole = np.zeros((sum(map(len, parts)), labels), parts[0].dtype)
    start = 0
    for part, column in zip(parts, columns):
        whole[start : start + len(part), column] = part
        start += len(part)
    return whole


def _structures(
    arrays: Mapping[str, np.ndarray], of: Participants, labels: Sequence[str], columns: Sequence[np.ndarray], most: int
) -> dict[str, list[Structure]]:
    """The structures of the least hashes of each label."""
    label = np.concatenate([column[part] for column, part in zip(columns, blocks_of(arrays, "label"))])
    hashes, frame, atoms, atom, place = (
        np.concatenate(blocks_of(arrays, name)) for name in ("hash", "frame", "atoms", "atom", "place")
    )
    ends = np.cumsum(atoms)
    found: dict[str, list[Structure]] = {name: [] for name in labels}
    for row in np.lexsort((hashes, label)).tolist():
        of_label = found[labels[label[row]]]
        if len(of_label) == most:
            continue
        mine = slice(ends[row] - atoms[row], ends[row])
        species = tuple(of.species[of.kind[of.unit[one]]] for one in atom[mine])
        source = f"frame {frame[row]}, atom {of.particle[atom[mine]].min()}"
        of_label.append(Structure(species, tuple(of.elements[one] for one in atom[mine]), place[mine], source))
    return found


# ---- of all frames of a window -------------------------------------------------------------------------------------


class Series(NamedTuple):
    """Clusters with nodes in each frame of the window, [T]. clusters: how many; mean, weighted: nodes of a cluster, and
    of the cluster that a node is in; largest: nodes; radius: A, root mean square radius of gyration of clusters of at
    least two units, NaN without any."""

    clusters: np.ndarray
    mean: np.ndarray
    weighted: np.ndarray
    largest: np.ndarray
    radius: np.ndarray


def series(found: Counted, axis: Axis) -> Series:
    """Aggregation numbers and radii in time."""
    n, nodes = found.counts[axis.rows].astype(float), found.nodes
    with_nodes, several = nodes > 0, found.sizes > 1
    clusters = n[:, with_nodes].sum(axis=1)
    first, second = n @ nodes, n @ nodes**2
    here = n[:, several].sum(axis=1)
    squares = found.radii[axis.rows][:, several].sum(axis=1)
    radius = np.sqrt(np.where(here > 0, squares / np.maximum(here, 1), np.nan))
    largest = np.max((n > 0) * nodes, axis=1)
    return Series(clusters, first / np.maximum(clusters, 1), second / np.maximum(first, 1), largest, radius)


class Share(NamedTuple):
    """The share of the ions of a species, over all frames, that are in clusters of a label or in a state, with the
    standard error by block bootstrap."""

    species: str
    where: str
    share: float
    error: float


def speciation(found: Counted, axis: Axis, resamples: int, seed: int) -> list[Share]:
    """Shares of ions of each node and linker, not of clusters: by label, and by state (``STATES``)."""
    core = len(found.roles.node) + len(found.roles.linker)
    state = np.minimum(found.core, 3) - 1
    ions = np.stack([block_sums(found.counts[axis.rows] * found.compositions[:, s], axis) for s in range(core)])
    rows = []
    for s in range(core):
        by_state = np.stack([ions[s][:, state == number].sum(axis=1) for number in range(3)], axis=1)
        for names, sums in ((STATES, by_state), (found.labels, ions[s])):
            shares = sums.sum(axis=0) / sums.sum()
            errors = resampled(sums, lambda total: total / total.sum(), resamples, seed)
            known = zip(names, shares.tolist(), errors.tolist(), (sums.sum(axis=0) > 0) | (names is STATES))
            rows += [Share(found.species[s], name, share, error) for name, share, error, there in known if there]
    return rows


def coordination(found: Counted, axis: Axis, of: Participants, resamples: int, seed: int) -> list[Share]:
    """The mean number of neighbours of each species (`where`) of a node, with its error: 0 where they are not bound."""
    count = np.bincount(of.kind, minlength=len(of.species))
    rows = []
    for s, name in enumerate(found.roles.node):
        sums = block_sums(found.contacts[axis.rows, s].astype(float), axis)
        frames = block_sums(np.ones((len(axis.rows), 1)), axis)
        whole = np.concatenate([sums, frames], axis=1)
        ratio = lambda total, n=count[s]: total[:-1] / total[-1] / n  # noqa: E731
        values, errors = ratio(whole.sum(axis=0)), resampled(whole, ratio, resamples, seed)
        rows += [Share(name, other, float(value), float(error)) for other, value, error in
                 zip(found.species, values, errors) if value > 0]  # fmt: skip
    return rows


class Sizes(NamedTuple):
    """Clusters by how many nodes they have: nodes [k]; mean: clusters a frame [k]; share: of all nodes [k]; errors of
    both by block bootstrap."""

    nodes: np.ndarray
    mean: np.ndarray
    mean_error: np.ndarray
    share: np.ndarray
    share_error: np.ndarray


def size_distribution(found: Counted, axis: Axis, resamples: int, seed: int) -> Sizes:
    """The distribution of clusters with nodes over sizes."""
    sizes = np.unique(found.nodes[found.nodes > 0])
    n = np.stack([found.counts[axis.rows][:, found.nodes == size].sum(axis=1) for size in sizes], axis=1)
    sums = np.concatenate([block_sums(n, axis), block_sums(np.ones((len(n), 1)), axis)], axis=1)

    def both(total: np.ndarray) -> np.ndarray:
        nodes = total[:-1] * sizes
        return np.stack([total[:-1] / total[-1], nodes / max(nodes.sum(), 1)])

    values, errors = both(sums.sum(axis=0)), resampled(sums, both, resamples, seed)
    return Sizes(sizes, values[0], errors[0], values[1], errors[1])


def block_sums(values: np.ndarray, axis: Axis) -> np.ndarray:
    """The sums of values [T, k] over the statistical blocks of all segments, [B, k]."""
    starts, parts = 0, []
    for segment, edges in zip(axis.segments, blocks(axis)):
        parts.append(np.add.reduceat(values[starts : starts + len(segment.rows)], edges[:-1], axis=0))
        starts += len(segment.rows)
    return np.concatenate(parts)
