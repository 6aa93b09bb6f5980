"""`hpcfit optimize` for a force map: products of forces, maps, mapped frames, and a force field on them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from hpcfit.bead_models.basis import Basis, BasisOptions, make_basis, validity_basis
from hpcfit.bead_models.force_matching import MapComparison, compare_maps
from hpcfit.bead_models.ranges import ObservedRanges
from hpcfit.errors import InputError
from hpcfit.fit.stages import Fits
from hpcfit.kinds.force_map.case import MOST_BEADS, ForceMapCase
from hpcfit.kinds.force_map.map_fits import (
    Evidence,
    FeatureEvidence,
    FoundMap,
    Learning,
    choose_map,
    covariance,
    find_map,
    learning_curve,
    methods,
    warnings_of,
)
from hpcfit.kinds.force_map.map_statistics import noise_map
from hpcfit.kinds.force_map.mapped_frames import (
    MappedFrames,
    MappedSums,
    MappingPass,
    MeanForce,
    NamedMap,
    mapped_sums,
)
from hpcfit.kinds.force_map.mapped_positions import Mapping
from hpcfit.kinds.force_map.passes import ProductsPass, ranges_in
from hpcfit.kinds.force_map.products import DenseProducts
from hpcfit.log import logger
from hpcfit.ranks import Ranks
from hpcfit.store.forces import ForceFrames

TEST_FIELDS = 12
PRODUCTS, MAPPED = "products of forces", "mapped frames"  # the two passes over the frames


class Found(NamedTuple):
    """The maps. learning: curves by the name of the map."""

    maps: tuple[FoundMap, ...]
    chosen: FoundMap
    learning: dict[str, list[Learning]]


class Compared(NamedTuple):
    """The mean force of each map against that of the map ``reference``, which is valid by its coefficients."""

    reference: str
    maps: tuple[MapComparison, ...]


class Findings(NamedTuple):
    """The results of a study that are written, on all ranks of ``world``. compared: None where no map can be."""

    world: Ranks
    found: Found
    named: list[NamedMap]
    sums: MappedSums
    basis: Basis | None
    mean_force: MeanForce | None
    compared: Compared | None
    matching: Any
    passes: list[dict[str, Any]]


@dataclass
class ForceMapStudy:
    """One study; every method is collective. evidence: on root, once the frames have been read."""

    case: ForceMapCase
    fits: Fits
    evidence: Evidence | None = None
    passes: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> Findings:
        """All of it."""
        case, world = self.case, self.fits.grid.world
        self.fits.announce(self._planned())
        mapping = Mapping.of(case.reduced.beads.M, case.particles.bonds)
        sums = self._first_pass(mapping)
        ranges = world.bcast(ranges_in(sums) if world.is_root else None)
        found = self.fits.on_root(lambda: self._maps(sums["total"], sums.get("features")))
        self.fits.warn(warnings_of(found.maps, case.n_frames))
        basis, named = self._basis(ranges), self._named(found)
        mean_force = case.mean_force
        work = self._mapped_frames(mapping, named, found, basis, mean_force)
        mapped = self._second_pass(work, self._origin(found, named))
        compared = self.fits.on_root(lambda: _compared(found, mapped, basis))
        matching = None
        if case.config.problem.force_matching is not None:
            from hpcfit.kinds.force_map.matching import match_forces

            with self._timed("force matching"):
                matching = match_forces(case, self.fits, work, mapped, found.maps, found.chosen)
        return Findings(world, found, named, mapped, basis, mean_force, compared, matching, self.passes)

    def _planned(self) -> list[str]:
        """The stages and fits to come; which map is trained first is known when they are found."""
        matching = self.case.config.problem.force_matching
        if matching is None:
            return [PRODUCTS, MAPPED]
        neural = () if matching.neural is None else matching.neural.compare
        planned = [PRODUCTS, MAPPED, *(f"neural {name}" for name in neural)]
        if matching.simulation is None:
            return planned
        from hpcfit.kinds.force_map.simulation import SIMULATION

        return [*planned, SIMULATION]

    # ---- passes ----------------------------------------------------------------------------------------------------

    def _first_pass(self, mapping: Mapping) -> dict[str, np.ndarray]:
        """Products of reduced forces, and of features, and the ranges of the beads' coordinates, on root."""
        case, choice = self.case, self.case.config
        observe = ObservedRanges(*self._observed()) if self._has_basis else None

        def ranges_of(frames: ForceFrames) -> dict[str, tuple[float, float]]:
            return observe(mapping(frames.positions, frames.box).astype(np.float32), frames.box)

        features = case.features if "features" in choice.problem.map.methods else []
        work = ProductsPass(
            case.frames, case.products, features, ranges_of if observe else None, self.fits.grid, case.kT,
            choice.run.reductions,
        )  # fmt: skip
        with self._timed(PRODUCTS):
            return self.fits.stage(PRODUCTS, work, {})

    def _second_pass(self, work: MappedFrames, made_from: dict[str, Any]) -> MappedSums:
        case, world = self.case, self.fits.grid.world
        with self._timed(MAPPED):
            mapping = MappingPass(work, case.mapped_folder, case.coarse, made_from, world)
            sums = self.fits.stage(MAPPED, mapping, {"maps": work.digest()})
            return mapped_sums(world.bcast(sums))

    def _observed(self) -> tuple[list[str], np.ndarray, BasisOptions]:
        options, types, bonds = self._options()
        return types, bonds, options

    @property
    def _has_basis(self) -> bool:
        return 2 <= self.case.reduced.n_beads <= MOST_BEADS

    def _options(self) -> tuple[BasisOptions, list[str], np.ndarray]:
        """Of the basis: options, types of the beads, and bonds."""
        case, choice = self.case, self.case.config.problem.force_matching
        if choice is None:
            options = BasisOptions("gaussian", pair_functions=TEST_FIELDS, exclusions=0)
            return options, ["bead"] * case.reduced.n_beads, np.empty((0, 2), int)
        ends = None if choice.pair_range == "auto" else choice.pair_range[1]
        options = BasisOptions(
            choice.pairs, choice.pair_functions, choice.bonded_functions, choice.exclusions,
            dihedrals=choice.dihedrals, cutoff=ends if case.store.periodic else None,
        )  # fmt: skip
        return options, case.types, np.asarray(case.coarse.bonds)

    def _basis(self, ranges: dict[str, tuple[float, float]]) -> Basis | None:
        if not self._has_basis:
            return None
        choice = self.case.config.problem.force_matching
        if choice is None:
            low, high = next(iter(ranges.values()))
            return validity_basis(self.case.reduced.n_beads, (low, high), TEST_FIELDS)
        options, types, bonds = self._options()
        if choice.pair_range != "auto":
            pairs = {label for label in ranges if label.startswith("pairs ")}
            ranges = ranges | dict.fromkeys(pairs, tuple(choice.pair_range))
        return make_basis(types, bonds, options, ranges)

    # ---- maps ------------------------------------------------------------------------------------------------------

    def _maps(self, total: np.ndarray, of_features: np.ndarray | None) -> Found:
        """On root."""
        case, choice = self.case, self.case.config.problem
        dense = isinstance(case.products, DenseProducts)
        if not np.any(total):
            raise InputError(
                f"all forces of {case.store.folder} are 0", remedy="prepare the store from frames with forces"
            )
        evidence = self.evidence = Evidence(total, case.parts.frames, None if dense else case.products.support)
        wanted = choice.map.methods
        tied = case.tied if "tied" in wanted or choice.map.ridge_towards == "tied" else None
        featured = None
        if of_features is not None:
            featured = (case.features, FeatureEvidence(of_features, case.parts.frames))
        asked = methods(
            choice.map, case.reduced, evidence, case.local if "local" in wanted else None, tied,
            case.of_file if "file" in wanted else None, featured,
        )  # fmt: skip
        with self._timed("maps"):
            found = tuple(find_map(method, case.reduced, choice.bootstrap, case.config.run.seed) for method in asked)
            learning = {
                one.name: learning_curve(method, one.ridge or 0.0)
                for method, one in zip(asked, found)
                if case.parts.n >= 3
            }
        return Found(found, choose_map(choice.map, found), learning)

    def _named(self, found: Found) -> list[NamedMap]:
        """The maps in terms of atoms, with the noise that the config adds to the beads."""
        noise, kT = self.case.config.problem.map.noise, self.case.kT

        def named() -> list[NamedMap]:
            return [
                NamedMap(one.name, self.case.reduced.spread(one.C),
                         noise_map(covariance(one, self.evidence), noise**2, kT) if noise else None,
                         () if one.theta is None else tuple(zip(self.case.features, one.theta)), kT)
                for one in found.maps
            ]  # fmt: skip

        return self.fits.on_root(named)

    # ---- second pass -----------------------------------------------------------------------------------------------

    def _mapped_frames(
        self, mapping: Mapping, named: list[NamedMap], found: Found, basis: Basis | None, mean_force: MeanForce | None
    ) -> MappedFrames:
        case, run = self.case, self.case.config.run
        number = [one.name for one in named].index(found.chosen.name)
        return MappedFrames(
            case.frames, mapping, named, number, basis, mean_force, case.config.problem.map.noise or 0.0, case.kT,
            run.seed, run.reductions,
        )  # fmt: skip

    def _origin(self, found: Found, named: list[NamedMap]) -> dict[str, str]:
        """What the coarse-grained store says of how it was made."""
        return next(self.case.made_from(one.name, one.W) for one in named if one.name == found.chosen.name)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        seconds = time.perf_counter() - begun
        self.passes.append({"name": name, "seconds": seconds})
        if self.fits.grid.world.is_root:
            logger.info("%s: %d frames, %.3g s", name, self.case.n_frames, seconds)


def _compared(found: Found, sums: MappedSums, basis: Basis | None) -> Compared | None:
    """Against the basic map, or else the first that is valid."""
    valid = [one.name for one in found.maps if one.valid]
    if basis is None or not valid:
        return None
    reference = "basic" if "basic" in valid else valid[0]
    names = [one.name for one in found.maps]
    normal = sums.normal._replace(rhs=sums.normal.rhs[..., : len(names)], square=sums.normal.square[..., : len(names)])
    return Compared(reference, compare_maps(normal, names.index(reference), basis.constants()))


def study(case: ForceMapCase, fits: Fits) -> dict[str, Any]:
    """All that is found, for ``kinds.force_map.outputs``; collective."""
    return {"findings": ForceMapStudy(case, fits).run()}
