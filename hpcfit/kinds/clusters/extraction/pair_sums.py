"""The stage of averaged components: sums over the pairs of all clusters of each label, in all frames of the window.

Clusters of a label in a block of frames are one part: their moments of pair distances are summed, and give the sums
S_ab(q) of that part on the q that is asked for. Parts are added as integers (``fit.running_sum``), for each statistical
block of frames by itself, so that the bits depend on no order, no rank and no interruption.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hpcfit.fit.running_sum import BlockSums, Reductions
from hpcfit.kinds.clusters.extraction.frame import Finder, FrameClusters
from hpcfit.kinds.clusters.extraction.stages import Frames
from hpcfit.observables.pair_moments import bin_width, moments_of_many
from hpcfit.ranks import Ranks

Composition = tuple[int, ...]


class PairSums:
    """The sums of all labels; see ``fit.stages.Work``. Its product has, for each composition "2,3" (units of species):

    `sums 2,3` [G, P, Q]: S_ab(q) of pairs of elements, summed over the clusters of each of G groups of frames; `count
    2,3` [G] clusters, `atoms 2,3` [G, S] atoms of each element. group: [T], of each frame, -1 for those left out; q:
    [Q] 1/A; linkers: clusters without nodes count too.
    """

    def __init__(
        self, frames: Frames, finder: Finder, group: np.ndarray, q: np.ndarray, linkers: bool, ranks: Ranks,
        reductions: Reductions,
    ):  # fmt: skip
        self.n_units, self.ranks = len(frames.blocks), ranks
        self._frames, self._finder, self._group, self._q = frames, finder, group, q
        self._nodes = 0 if linkers else len(finder.of.roles.node)
        self._first = np.concatenate([[0], np.cumsum([block.frames for block in frames.blocks])])
        self._reductions, self._groups = reductions, int(group.max()) + 1
        self.species = elements_of(finder.of.elements)
        self._sums: dict[Composition, BlockSums] = {}
        self._numbers: dict[Composition, np.ndarray] = {}  # [G, 1 + S]: clusters and atoms

    def run(self, units: Sequence[int]) -> Generator[int | None]:
        """See ``Work``."""
        for unit in units:
            found, groups = [], []
            for row, (_, x, box, where) in enumerate(self._frames.of_block(unit), self._first[unit]):
                if self._group[row] < 0:
                    continue
                found.append(self._finder.clusters(x, box, where))
                groups.append(int(self._group[row]))
                if len(found) % 16 == 0:
                    yield None
            if found:
                self._add(found, groups)
            yield unit

    def _add(self, found: Sequence[FrameClusters], groups: Sequence[int]) -> None:
        """Add the clusters of a block of frames, those of a label and a group as one part."""
        of, width = self._finder.of, bin_width(self._q[-1])
        counts = np.concatenate([one.counts for one in found])
        group = np.repeat(groups, [len(one) for one in found])
        compositions, label = np.unique(counts, axis=0, return_inverse=True)
        label, first = label.ravel(), np.cumsum([0, *(len(one) for one in found)])
        cluster, atom, x = (np.concatenate(parts) for parts in zip(*(_atoms(*one) for one in zip(found, first))))
        elements = np.array(of.elements)[atom]
        for number, composition in enumerate(map(tuple, compositions.tolist())):
            if self._nodes and not sum(composition[: self._nodes]):
                continue
            for one in np.unique(group[label == number]):
                chosen = (label == number) & (group == one)
                mine = chosen[cluster]
                starts = np.concatenate([[0], np.cumsum(np.bincount(cluster[mine], minlength=len(chosen))[chosen])])
                moments = moments_of_many(x[mine], elements[mine].tolist(), starts, self.species, width)
                self._of(composition).add(int(one), moments.pair_sums(self._q))
                self._numbers[composition][one] += [len(starts) - 1, *moments.atoms.astype(np.int64)]

    def _of(self, composition: Composition) -> BlockSums:
        if composition not in self._sums:
            S = len(self.species)
            shape = (S * (S + 1) // 2, len(self._q))
            self._sums[composition] = BlockSums(self._groups, shape, self._reductions)
            self._numbers[composition] = np.zeros((self._groups, 1 + S), np.int64)
        return self._sums[composition]

    def _all(self) -> list[Composition]:
        """The compositions that any rank has seen, in order; collective."""
        parts = self.ranks.gather(list(self._sums))
        return self.ranks.bcast(None if parts is None else sorted({one for part in parts for one in part}))

    def kept(self) -> dict[str, np.ndarray]:
        """See ``Work``."""
        found = {}
        for composition in self._all():
            sums, name = self._of(composition), _name(composition)
            found |= {f"{what} {name}": values for what, values in sums.kept(self.ranks).items()}
            found[f"numbers {name}"] = self.ranks.sum(self._numbers[composition])
        return found

    def take_up(self, kept: Mapping[str, np.ndarray]) -> None:
        """See ``Work``."""
        if not self.ranks.is_root:
            return
        for name, of_name in _by_name(kept).items():
            composition = tuple(map(int, name.split(",")))
            sums, numbers = self._of(composition), of_name.pop("numbers")
            self._numbers[composition] += numbers
            sums.take_up(of_name)

    def product(self) -> dict[str, np.ndarray]:
        """See ``Work``."""
        found = {}
        for composition in self._all():
            sums, name = self._of(composition), _name(composition)
            found[f"sums {name}"] = sums.total(self.ranks)
            numbers = self.ranks.sum(self._numbers[composition])
            found[f"count {name}"], found[f"atoms {name}"] = numbers[:, 0], numbers[:, 1:]
        return found if self.ranks.is_root else {}

    def files(self) -> Sequence[Path]:
        """See ``Work``; there are none."""
        return ()


def elements_of(names: Sequence[str]) -> tuple[str, ...]:
    """The different elements in the order of pair sums."""
    return tuple(sorted(set(names)))


def sums_by_composition(product: Mapping[str, np.ndarray]) -> dict[Composition, dict[str, np.ndarray]]:
    """The product of ``PairSums`` as sums, count and atoms of each composition."""
    return {tuple(map(int, name.split(","))): arrays for name, arrays in _by_name(product).items()}


def _by_name(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, values in arrays.items():
        what, _, name = key.rpartition(" ")
        found.setdefault(name, {})[what] = values
    return found


def _name(composition: Composition) -> str:
    return ",".join(map(str, composition))


def _atoms(found: FrameClusters, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cluster (numbered from `first`), number and place [n, 3] A of the atoms of all clusters, by cluster."""
    atom, row = found.of.atoms_of(found.unit)
    order = np.lexsort((found.of.particle[atom], found.cluster[row]))
    x = found.anchor[row] + found.within[atom]
    return found.cluster[row][order] + first, atom[order], x[order]
