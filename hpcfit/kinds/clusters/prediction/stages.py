"""The stages of a prediction: intervals of mean counts by resampled blocks of frames, and structures, one candidate
after another. Neither depends on who does a unit."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from hpcfit.fit.stages import ArraysOfUnits
from hpcfit.kinds.clusters.composition import Roles, Structure
from hpcfit.kinds.clusters.geometry import Geometry
from hpcfit.kinds.clusters.library import Library
from hpcfit.kinds.clusters.placement import Bridging, Placed, Terms, conformer, molecules_in, place
from hpcfit.kinds.clusters.prediction.populations import (
    Blocks,
    CountModel,
    Interval,
    ModelName,
    fit_counts,
    interval_of,
    resampled_counts,
)
from hpcfit.kinds.clusters.prediction.rows import Counts, Row, Weighting
from hpcfit.kinds.clusters.prediction.shares import Predicted
from hpcfit.kinds.clusters.relaxation import Relaxed, SimpleEnergy, molecule_of, relax
from hpcfit.ranks import Ranks

RESAMPLES = 5  # of a unit


class Fitted(NamedTuple):
    """A model of mean counts whose intervals are asked for, with the rows that it was fitted to and the compositions
    that it predicts."""

    model: ModelName
    weighting: Weighting
    rows: Sequence[Row]
    roles: Roles
    of: Sequence[Counts]


class Resampled(ArraysOfUnits):
    """Mean counts [R, m] that each of several models predicts from resampled blocks of frames, the same for all of
    them; see ``fit.stages.Work``."""

    def __init__(self, fitted: Sequence[Fitted], blocks: Blocks, resamples: int, ranks: Ranks):
        super().__init__(ranks)
        self.n_units = -(-resamples // RESAMPLES)
        self._fitted, self._blocks, self._resamples = fitted, blocks, resamples

    def run(self, units: Sequence[int]) -> Generator[int | None]:
        """See ``Work``."""
        for unit in units:
            for turn, one in enumerate(self._fitted):
                fit = partial(_fit, one)
                found = []
                for number in range(unit * RESAMPLES, min((unit + 1) * RESAMPLES, self._resamples)):
                    found.append(resampled_counts(fit, one.rows, self._blocks, one.of, number))
                    yield None
                self._done[f"{_counts_of(turn)}{unit:08d}"] = np.array(found)
            yield unit

    def product(self) -> dict[str, np.ndarray]:
        """See ``Work``."""
        return self.kept()


def intervals(arrays: Mapping[str, np.ndarray], turn: int, level: float) -> Interval:
    """The intervals of all resamples of a stage ``Resampled``, of the model that stands there in its list."""
    mine = sorted(name for name in arrays if name.startswith(_counts_of(turn)))
    return interval_of(np.concatenate([arrays[name] for name in mine]), level)


def _fit(one: Fitted, rows: Sequence[Row]) -> CountModel:
    return fit_counts(one.model, rows, one.roles, one.weighting)


def _counts_of(turn: int) -> str:
    return f"counts {turn} "


class Growing(NamedTuple):
    """The library and the options that structures are grown from. energy: in which they are relaxed."""

    library: Library
    geometry: Geometry
    terms: Terms
    bridging: Bridging
    conformers: int
    seed: int
    energy: SimpleEnergy | None


class Structures(ArraysOfUnits):
    """The structures of predicted clusters; a unit is a cluster. See ``fit.stages.Work``.

    Each leaves positions [1 + conformers, n, 3] A, those by medians first, species and elements [1 + conformers, n],
    the pairs of sites of the first that are crowded [c, 2], and what became of it where it was relaxed.
    """

    def __init__(self, growing: Growing, predicted: Sequence[Predicted], ranks: Ranks):
        super().__init__(ranks)
        self.n_units = len(predicted)
        self._growing, self._predicted = growing, predicted

    def run(self, units: Sequence[int]) -> Generator[int | None]:
        """See ``Work``."""
        growing = self._growing
        for unit in units:
            found, relaxed = [], []
            for number in range(1 + growing.conformers):
                found.append(self._placed(self._predicted[unit], number))
                yield None
                if growing.energy is not None:
                    relaxed.append(self._relaxed(found[-1].structure))
                    yield None
            structures = [one.structure for one in relaxed or found]
            if relaxed:
                self._done[f"relaxed {unit:08d}"] = np.array(relaxed[0][1:], float)
            self._done |= {
                f"positions {unit:08d}": np.stack([one.positions for one in structures]),
                f"species {unit:08d}": _bytes(one.species for one in structures),
                f"elements {unit:08d}": _bytes(one.elements for one in structures),
                f"crowded {unit:08d}": np.array(found[0].crowded, np.int64).reshape(-1, 2),
            }
            yield unit

    def _placed(self, one: Predicted, number: int) -> Placed:
        """The structure of medians (0), or a conformer."""
        growing, counts = self._growing, one.candidate.counts
        options = {"molecules": molecules_in(growing.library), "terms": growing.terms, "bridging": growing.bridging}
        ensemble = growing.library.ensembles[one.source]
        if number == 0:
            return place(counts, ensemble.structures[ensemble.representative], growing.geometry, **options)
        return conformer(counts, ensemble.structures, growing.geometry, number - 1, growing.seed, **options)

    def _relaxed(self, one: Structure) -> Relaxed:
        growing = self._growing
        sizes = {name: len(molecule.species) for name, molecule in molecules_in(growing.library).items()}
        return relax(one, molecule_of(one.species, sizes), growing.energy, growing.geometry.cutoffs)

    def product(self) -> dict[str, np.ndarray]:
        """See ``Work``."""
        return self.kept()


class Grown(NamedTuple):
    """The structures of a predicted cluster. first: by medians; others: conformers; crowded: pairs of its sites that
    are closer than they may be, as it was grown; relaxed: what became of the first where it was relaxed."""

    first: Structure
    others: tuple[Structure, ...]
    crowded: list[tuple[int, int]]
    relaxed: Relaxed | None = None


def grown(arrays: Mapping[str, np.ndarray], predicted: Sequence[Predicted]) -> list[Grown]:
    """The structures of a stage ``Structures``, one entry a cluster."""
    found = []
    for unit, one in enumerate(predicted):
        rows = zip(*(arrays[f"{what} {unit:08d}"] for what in ("species", "elements", "positions")))
        first, *others = (
            Structure(_text(species), _text(elements), x, f"grown from {one.source}") for species, elements, x in rows
        )
        crowded = [(int(i), int(j)) for i, j in arrays[f"crowded {unit:08d}"]]
        of_first = arrays.get(f"relaxed {unit:08d}")
        relaxed = None if of_first is None else Relaxed(first, *of_first[:3].tolist(), *map(bool, of_first[3:]))
        found.append(Grown(first, tuple(others), crowded, relaxed))
    return found


def _bytes(names: Iterable[Sequence[str]]) -> np.ndarray:
    return np.array([[name.encode() for name in row] for row in names])


def _text(names: np.ndarray) -> tuple[str, ...]:
    return tuple(name.decode() for name in names.tolist())
