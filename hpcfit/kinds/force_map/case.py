"""`force-map` and its files: a store of positions and forces in; force maps, mapped frames and a force field out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from hpcfit.config import BLOCK_FRAMES, Config, GridConfig
from hpcfit.errors import InputError, nearest
from hpcfit.fit.grid import Grid, Shape, fitting_shapes
from hpcfit.kinds.force_map.beads import open_beads, read_matrix
from hpcfit.kinds.force_map.coarse_particles import bead_types, coarse_particles
from hpcfit.kinds.force_map.config import ForceMatchingConfig
from hpcfit.kinds.force_map.constraints import HeldDistances, check_by_frames, open_constraints, rigid_groups
from hpcfit.kinds.force_map.features import Features, features_of
from hpcfit.kinds.force_map.mapped_frames import MeanForce, check_folder
from hpcfit.kinds.force_map.maps import Reduced, basic_map, reduced
from hpcfit.kinds.force_map.passes import AtomisticFrames, StatisticalBlocks
from hpcfit.kinds.force_map.products import DenseProducts, LocalProducts, Products
from hpcfit.kinds.force_map.support import support_in_residue, support_within, tied_classes
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.physics.periodic import check_cutoff
from hpcfit.store.files import sha256_of_file
from hpcfit.store.forces import ForceStore, open_force_store
from hpcfit.store.particles import Particles
from hpcfit.store.positions import read_block

MOST_BEADS = 600  # of which all pairs are a basis
LARGEST_DENSE = 4000  # reduced forces: their products take 8 q^2 bytes a statistical block


@dataclass(frozen=True)
class ForceMapCase:
    """See ``kinds.base.Case``."""

    block_frames = BLOCK_FRAMES

    config: Config
    store: ForceStore
    held: HeldDistances
    reduced: Reduced
    parts: StatisticalBlocks

    @classmethod
    def open(cls, config: Config) -> ForceMapCase:
        """Read the catalog, and make beads and rigid groups of its particles."""
        choice, store = config.problem, open_force_store(config.frames.store)
        blocks = store.blocks(config.frames.include, config.frames.exclude)
        held = open_constraints(choice.constraints, store.particles)
        if choice.constraints.check:
            check_by_frames(held, store, blocks)
        group = rigid_groups(len(store.particles), held.pairs, held.virtual)
        case = cls(config, store, held, reduced(open_beads(choice.beads, store.particles), group),
                   StatisticalBlocks(choice.blocks, blocks))  # fmt: skip
        case._check()
        return case

    def _check(self) -> None:
        """What can be known to be wrong before a frame is read."""
        check_folder(self.mapped_folder, self.store.folder)
        _ = self.products
        if self.config.problem.map.file is not None:
            _ = self.of_file
        if "features" in self.config.problem.map.methods:
            _ = self.features
        if self.config.problem.reference is not None and self.reduced.n_beads != 2:
            raise InputError(
                f"[problem] reference is a mean force between two beads; there are {self.reduced.n_beads}",
                remedy="leave reference out",
            )
        _ = self.mean_force
        if self.config.problem.force_matching is not None:
            self._check_matching(self.config.problem.force_matching)
        if self.store.periodic:
            self._check_cutoffs()

    def _check_cutoffs(self) -> None:
        """Raise InputError for a cut-off beyond half the box of the first frames; that of the others is compared where
        they are read."""
        choice, cutoffs = self.config.problem, {}
        if "features" in choice.map.methods and any(len(one.centres) for one in self.features):
            cutoffs["map.features] cutoff"] = choice.map.features.cutoff
        if choice.force_matching is not None and choice.force_matching.pair_range != "auto":
            cutoffs["force_matching] pair_range"] = choice.force_matching.pair_range[1]
        if choice.force_matching is not None and choice.force_matching.neural is not None:
            cutoffs["force_matching.neural] cutoff"] = choice.force_matching.neural.cutoff
        if not cutoffs:
            return
        box = read_block(self.store, self.parts.blocks[0]).box
        for key, cutoff in cutoffs.items():
            try:
                check_cutoff(cutoff, box)
            except InputError as error:
                raise InputError(f"[problem.{key} = {cutoff:g}: {error.what}", remedy=error.remedy) from None

    def _check_matching(self, choice: ForceMatchingConfig) -> None:
        n, names = self.reduced.n_beads, self.config.problem.map.methods
        if not 2 <= n <= MOST_BEADS:
            raise InputError(
                f"[problem.force_matching] {n} beads: its functions are of all pairs, of 2 to {MOST_BEADS} beads",
                remedy="leave force_matching out; mapped frames can be used by other programs",
            )
        if self.store.periodic and choice.pair_range == "auto":
            raise InputError(
                f"[problem.force_matching] pair_range = 'auto': the frames of {self.store.folder} are periodic, where"
                " forces between pairs must end within half the box",
                remedy="set pair_range = [0.0, the distance (A) where they end]",
            )
        for name in choice.neural.compare if choice.neural is not None else ():
            if name not in names:
                raise InputError(
                    f"[problem.force_matching.neural] compare names '{name}', which is not among the maps"
                    f" {', '.join(names)}",
                    remedy=nearest(name, names),
                )
        _ = self.coarse

    # ---- what follows from the config ------------------------------------------------------------------------------

    @property
    def kT(self) -> float:
        """kJ/mol."""
        return GAS_CONSTANT * self.config.problem.temperature

    @property
    def particles(self) -> Particles:
        """The particles of the atomistic frames."""
        return self.store.particles

    @cached_property
    def local(self) -> np.ndarray:
        """Support of local maps, [N, k]."""
        return support_within(self.particles.bonds, self.reduced, self.config.problem.map.support)

    @cached_property
    def tied(self) -> tuple[np.ndarray, np.ndarray]:
        """Support and classes of tied maps, both [N, k]."""
        atoms = self.particles
        molecules = self.config.problem.map.tie == "molecules"
        support = support_in_residue(atoms.residue, self.reduced) if molecules else self.local
        return support, tied_classes(
            support, self.reduced, atoms.elements, atoms.names, atoms.residue, atoms.residue_names, atoms.bonds
        )

    @cached_property
    def of_file(self) -> np.ndarray:
        """C [N, q] of the map in [problem.map] file. Raises InputError if it is none of these beads and groups."""
        path, reduced = self.config.problem.map.file, self.reduced
        W = read_matrix(path, "[problem.map] file")
        if W.shape != (reduced.n_beads, len(self.particles)):
            raise InputError(
                f"{path} has {W.shape[0]} x {W.shape[1]} coefficients; there are {reduced.n_beads} beads and"
                f" {len(self.particles)} atoms",
                remedy="give the force map of these beads",
            )
        real = reduced.group >= 0
        C = np.zeros((reduced.n_beads, reduced.n_groups))
        C[:, reduced.group[real]] = W[:, real]
        apart = np.abs(W[:, real] - C[:, reduced.group[real]])
        if apart.max() > 1e-5:  # of a text file with six digits
            bead, atom = np.unravel_index(apart.argmax(), apart.shape)
            raise InputError(
                f"{path}: bead '{reduced.beads.names[bead]}' has coefficients that differ by {apart[bead, atom]:.3g}"
                f" within the rigid group of {self.particles.label(int(np.flatnonzero(real)[atom]))}",
                remedy="give a map made for these constraints",
            )
        return np.hstack([C, np.zeros((reduced.n_beads, reduced.n_beads))])

    @cached_property
    def mean_force(self) -> MeanForce | None:
        """[problem] reference."""
        path = self.config.problem.reference
        if path is None:
            return None
        table = read_matrix(path, "[problem] reference")
        if min(table.shape) < 2 or np.any(np.diff(table[:, 0]) <= 0):
            raise InputError(
                f"[problem] reference {path} has shape {list(table.shape)}, or distances that do not rise",
                remedy="give two columns, r (A) ascending and the mean force (kJ/mol/A)",
            )
        return MeanForce(table[:, 0], table[:, 1])

    @cached_property
    def features(self) -> list[Features]:
        """The functions of each bead's method features, which are added to its basic map."""
        choice, basic = self.config.problem.map, basic_map(self.reduced)
        return [
            features_of(bead, self.reduced, basic, self.local[bead], choice.features.functions, choice.features.cutoff)
            for bead in range(self.reduced.n_beads)
        ]

    @cached_property
    def products(self) -> Products:
        """The products of reduced forces that the first pass sums: dense, or local to each bead.

        Raises InputError where local ones would be taken, but do not suit the methods.
        """
        choice, R = self.config.problem.map, self.reduced
        reduction = scipy.sparse.csr_array(R.reduction(), dtype=np.float32)
        local = bool({"local", "tied"} & set(choice.methods)) and "optimal" not in choice.methods
        if choice.gram == "dense" or (choice.gram == "auto" and reduction.shape[0] <= LARGEST_DENSE):
            return DenseProducts(reduction)
        if not local:
            raise InputError(
                f"{R.n_groups} rigid groups and {R.n_beads} beads have {reduction.shape[0]}^2 products of forces",
                remedy="set [problem.map] methods = ['basic', 'local'] (or 'tied'), which need those near each bead"
                " only, or gram = 'dense' if the memory is there",
            )
        return LocalProducts(reduction, self._local_support)

    @property
    def _local_support(self) -> np.ndarray:
        methods, ties = self.config.problem.map.methods, self.config.problem.map.tie
        if "tied" not in methods or ties == "residues":
            return self.local
        if "local" in methods and not np.array_equal(self.local, self.tied[0]):
            raise InputError(
                "local products hold one support: that of method local differs from the molecules of method tied",
                remedy="use one of the two methods, or tie = 'residues'",
            )
        return self.tied[0]

    @cached_property
    def coarse(self) -> Particles:
        """The beads as particles."""
        matching = self.config.problem.force_matching
        return coarse_particles(self.reduced.beads, self.particles, "auto" if matching is None else matching.bonds)

    @property
    def types(self) -> list[str]:
        """The type of each bead, for a force field."""
        matching = self.config.problem.force_matching
        return bead_types(self.coarse, "one" if matching is None else matching.types)

    @property
    def mapped_folder(self) -> Path:
        """The folder of the mapped frames."""
        return self.config.problem.mapped or self.config.run.directory / "mapped"

    @property
    def frames(self) -> AtomisticFrames:
        """The atomistic frames that the passes read."""
        return AtomisticFrames(self.store, self.parts, self.held)

    # ---- see kinds.base.Case ---------------------------------------------------------------------------------------

    @property
    def n_frames(self) -> int:
        """Frames that take part."""
        return self.parts.n_frames

    @property
    def n_blocks(self) -> int:
        """Blocks of frames."""
        return len(self.parts.blocks)

    @property
    def n_tiles(self) -> int:
        """Panels of the products of reduced forces."""
        return self.products.n_tiles

    def shape(self, size: int, grid: GridConfig) -> Shape:
        """All ranks along the frames, as long as there are blocks for them: slices share products, not reading."""
        fitting = fitting_shapes(size, self.n_tiles)
        chosen = [(f, s) for f, s in fitting if grid.frames in ("auto", f) and grid.slices in ("auto", s)]
        if not chosen:
            raise InputError(
                f"[grid] frames = {grid.frames}, slices = {grid.slices} does not fit {size} ranks and {self.n_tiles}"
                " panels of products: frames x slices must be the number of ranks, and a slice has at least one panel",
                remedy=f"use one of {', '.join(f'{f} x {s}' for f, s in fitting)}, or 'auto'",
            )
        best = max(chosen, key=lambda shape: (min(shape[0], self.n_blocks), -shape[1]))
        return Shape(*best, "each frame is read once" if best[1] == 1 else "more ranks than blocks of frames, or set")

    def identity(self) -> dict[str, str]:
        """Store, frames, beads, constraints and the options of the problem."""
        run, choice = self.config.run, self.config.problem
        chosen = hashlib.sha256(str([tuple(block) for block in self.parts.blocks]).encode()).hexdigest()[:16]
        files = {f"problem.{key}": sha256_of_file(path)[:16] for key, path in choice.files.items()}
        return {
            "frames.store": self.store.digest(),
            "frames chosen": chosen,
            **files,
            "problem": choice.model_dump_json(exclude={"mapped"}),
            "run": f"seed {run.seed}, {run.precision}, {run.reductions}",
        }

    def summary(self) -> dict[str, Any]:
        """Sizes by name."""
        R, kind = self.reduced, type(self.products).__name__.removesuffix("Products").lower()
        return {
            "frames": f"{self.n_frames} of {self.store.n_frames} in {len(self.store.shards)} shards,"
            f" {self.parts.n} statistical blocks",
            "atoms": f"{len(self.particles)} in {R.n_groups} rigid groups; constraints: {self.held.said}",
            "beads": f"{R.n_beads}: {', '.join(R.beads.names[:4])}{' ...' if R.n_beads > 4 else ''}",
            "maps": ", ".join(self.config.problem.map.methods),
            "products": f"{kind}, {self.bytes_of_products / 1e6:.3g} MB a rank",
            "mapped": str(self.mapped_folder),
        }

    @property
    def bytes_of_products(self) -> int:
        """Bytes of the sums of the first pass; each number is kept as two integers."""
        return 16 * self.parts.n * sum(int(np.prod(self.products.shape(k))) for k in range(self.n_tiles))

    def bytes_held(self, grid: Grid) -> int:
        """Frames are streamed: two blocks at a time."""
        return 2 * max(block.frames for block in self.parts.blocks) * len(self.particles) * 24

    def bytes_summed(self, grid: Grid) -> int:
        """Bytes of the sums of this rank's tiles."""
        return 16 * self.parts.n * sum(int(np.prod(self.products.shape(k))) for k in grid.tiles)

    def undefined_loss(self) -> InputError:
        """The potential gives forces that are not finite at the start."""
        return InputError(
            f"the neural potential's forces on the frames of {self.mapped_folder} are not finite at its start",
            remedy="look for beads on top of each other: `hpcfit store verify` checks the frames",
        )

    def made_from(self, name: str, W: scipy.sparse.csr_array) -> dict[str, str]:
        """The origin that a coarse-grained store records: the atomistic store, the map and the noise."""
        digest = hashlib.sha256(json.dumps([W.indptr.tolist(), W.indices.tolist()]).encode())
        digest.update(np.ascontiguousarray(W.data, "<f8").tobytes())
        noise = self.config.problem.map.noise
        return {
            "store": str(self.store.folder), "store digest": self.store.digest(), "map": name,
            "map digest": digest.hexdigest()[:16], "noise": "" if noise is None else f"{noise} A",
        }  # fmt: skip
