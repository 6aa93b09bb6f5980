"""`clusters`: a store of positions in; counts, lifetimes and structures of clusters out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from hpcfit.config import BLOCK_FRAMES, Config, GridConfig
from hpcfit.errors import InputError
from hpcfit.fit.grid import Grid, Load, Shape, choose_shape
from hpcfit.kinds.clusters.axis import Asked, Axis, Origins, axis_of
from hpcfit.kinds.clusters.composition import Roles
from hpcfit.kinds.clusters.config import MINIMUM, ClustersConfig
from hpcfit.kinds.clusters.energies import read_energies
from hpcfit.kinds.clusters.extraction.box_sums import Scatterers, Shells, scatterers
from hpcfit.kinds.clusters.extraction.cutoffs import Cutoffs, cutoff_matrices
from hpcfit.kinds.clusters.extraction.frame import Finder
from hpcfit.kinds.clusters.extraction.pair_sums import elements_of
from hpcfit.kinds.clusters.extraction.participants import Participants, participants_of
from hpcfit.kinds.clusters.extraction.stages import Frames, Guard, Wanted
from hpcfit.kinds.clusters.library import check_folder, digest_of_folder
from hpcfit.kinds.clusters.mixture.curves import Measured, form_factors, form_factors_of_box, measured_of, said_of
from hpcfit.physics.scattering import orthogonalization
from hpcfit.store.catalog import Block
from hpcfit.store.files import sha256_of_file
from hpcfit.store.positions import ParticleStore, open_position_store

FLAT = 1e-6  # squared volume of a box of edges of length 1, below which it has none
LARGEST, LARGEST_SHARE = 256, 0.1  # units of a cluster: beyond both it is taken for a percolating one


@dataclass(frozen=True)
class ClustersCase:
    """See ``kinds.base.Case``."""

    n_tiles = 1
    block_frames = BLOCK_FRAMES

    config: Config
    store: ParticleStore
    blocks: tuple[Block, ...]
    of: Participants
    axis: Axis

    @classmethod
    def open(cls, config: Config) -> ClustersCase:
        """Read the catalog, the times of frames, and who takes part."""
        choice, store = config.problem, open_position_store(config.frames.store)
        blocks = store.blocks(config.frames.include, config.frames.exclude)
        roles = Roles(tuple(choice.node), tuple(choice.linker), tuple(choice.shell), choice.label_style)
        axis = axis_of(
            _origins(store, blocks), Asked(choice.timestep_fs, choice.first_time_fs, choice.start_fs, choice.stop_fs)
        )
        case = cls(config, store, tuple(blocks), participants_of(roles, store.particles), axis)
        _check_box(choice, store)
        case.cutoffs({pair: {level: 1.0 if r == MINIMUM else r for level, r in of_levels.items()}
                      for pair, of_levels in choice.by_level.items()})  # fmt: skip
        if choice.energy_file is not None:
            read_energies(choice.energy_file)
        if choice.library.folder is not None:
            check_folder(choice.library.folder)
        if choice.scatters:
            case.form_factors  # noqa: B018 (reads the curve, and raises what is wrong with it)
        if choice.of_scattering.box:
            case.check_scattering_of_box()
        return case

    # ---- what follows from the config ------------------------------------------------------------------------------

    @property
    def choice(self) -> ClustersConfig:
        """The table [problem]."""
        return self.config.problem

    @property
    def roles(self) -> Roles:
        """The species of each role."""
        return self.of.roles

    @cached_property
    def frames(self) -> Frames:
        """The frames, with the box that they are periodic in."""
        choice = self.choice
        box = None if choice.box is None else orthogonalization((*choice.box, 90.0, 90.0, 90.0)[:6]).T
        periodic = choice.periodic if choice.periodic is not None else box is not None or self.store.periodic
        return Frames(self.store, self.blocks, box, periodic)

    @property
    def guard(self) -> Guard:
        """The guard against percolating clusters."""
        largest = self.choice.largest or max(LARGEST, int(LARGEST_SHARE * self.of.core))
        return Guard(largest, self.choice.percolation == "error")

    @property
    def wanted(self) -> Wanted:
        """The arrays that blocks keep beside counts."""
        return Wanted(self.choice.structures, self.choice.identity, self.choice.residence)

    @cached_property
    def measured(self) -> Measured:
        """The measured curve, or the q that intensities are asked for at."""
        return measured_of(self.choice)

    @property
    def elements(self) -> tuple[str, ...]:
        """The elements that scatter."""
        return elements_of(self.of.elements)

    @cached_property
    def form_factors(self) -> np.ndarray:
        """f(q) of these, [S, Q]."""
        chosen, elements = self.choice.of_scattering, self.elements
        return form_factors(chosen, elements, self.measured.q, self.box_scatterers.species if chosen.box else ())

    @cached_property
    def box_scatterers(self) -> Scatterers:
        """The atoms of the box, which all scatter."""
        return scatterers(self.store.particles.elements, partial(form_factors_of_box, self.choice.of_scattering))

    @property
    def box_shells(self) -> Shells:
        """The shells of |q| of the box's scattering."""
        chosen = self.choice.of_scattering
        return Shells(chosen.box_q_max or float(self.measured.q[-1]), chosen.box_width, chosen.box_vectors)

    def check_scattering_of_box(self) -> None:
        """Raise InputError where the frames have no box, or atoms that do not scatter."""
        if not self.frames.periodic:
            raise InputError(
                "[problem.scattering] box = true asks for the scattering of a periodic box, and there is none",
                remedy="give periodic = true with a box, or leave it out",
            )
        self.box_scatterers.form_factors(np.array([0.0, self.box_shells.q_max]))

    def cutoffs(self, by_level: Mapping[str, Mapping[int, float]]) -> Cutoffs:
        """The matrices of cut-offs, by pair and level."""
        return cutoff_matrices(self.roles, by_level, self.choice.default_cutoff, self.choice.shells.levels)

    def finder(self, cutoffs: Cutoffs) -> Finder:
        """The finder of the clusters of a frame."""
        return Finder(self.of, cutoffs, self.choice.shells.shared, self.choice.shells.in_labels)

    # ---- see kinds.base.Case ---------------------------------------------------------------------------------------

    @property
    def n_frames(self) -> int:
        """Frames that take part."""
        return sum(block.frames for block in self.blocks)

    @property
    def n_blocks(self) -> int:
        """Blocks of frames."""
        return len(self.blocks)

    def shape(self, size: int, grid: GridConfig) -> Shape:
        """All ranks along the frames."""
        return choose_shape(size, grid.frames, grid.slices, Load(self.n_blocks, 1, 1, 1))

    def identity(self) -> dict[str, str]:
        """Store, frames, options and files of the problem."""
        chosen = hashlib.sha256(str([tuple(block) for block in self.blocks]).encode()).hexdigest()[:16]
        files = {f"file {key}": sha256_of_file(path)[:16] for key, path in self.choice.files.items()}
        if (folder := self.choice.library.folder) is not None:
            files["library"] = digest_of_folder(folder)
        return {
            "frames.store": self.store.digest(), "frames chosen": chosen, **files,
            "problem": self.choice.model_dump_json(), "run": f"seed {self.config.run.seed}",
        }  # fmt: skip

    def summary(self) -> dict[str, Any]:
        """Sizes by name."""
        of, axis = self.of, self.axis
        count = dict(zip(of.species, np.bincount(of.kind, minlength=len(of.species)).tolist()))
        said = {role: ", ".join(f"{count[one]} {one}" for one in getattr(of.roles, role)) for role in Roles._fields[:3]}
        return {
            "frames": f"{self.n_frames} of {self.store.n_frames} in {self.n_blocks} blocks",
            **{f"{role}s": text for role, text in said.items() if text},
            "time": f"{len(axis.rows)} frames, {axis.step:g} fs apart, in {len(axis.segments)} trajectories:"
            f" {axis.said}",
            "box": "periodic" if self.frames.periodic else "not periodic",
            **({"scattering": said_of(self.measured)} if self.choice.scatters else {}),
        }

    def bytes_held(self, grid: Grid) -> int:
        """Bytes of a block of frames, which are read one after another."""
        return 2 * BLOCK_FRAMES * len(self.store.particles) * 12

    def bytes_summed(self, grid: Grid) -> int:
        """Bytes of the counts of this rank's frames, of some ten labels."""
        return 400 * BLOCK_FRAMES * len(grid.blocks)

    def undefined_loss(self) -> InputError:
        """The positions are not numbers."""
        return InputError("a sum over clusters is not finite", remedy="check the store with `hpcfit store verify`")


def _origins(store: ParticleStore, blocks: list[Block]) -> list[Origins]:
    """The frames of each source, in the order of blocks: shards of a source follow each other."""
    found: dict[str, list] = {}
    for number in dict.fromkeys(block.shard for block in blocks):
        with store.shard(number) as shard:
            found.setdefault(store.shards[number].source, []).append(shard.origin())
    return [
        Origins(name, [file for one in parts for file in one.file], np.concatenate([one.index for one in parts]),
                np.concatenate([one.time for one in parts]))
        for name, parts in found.items()
    ]  # fmt: skip


def _check_box(choice: ClustersConfig, store: ParticleStore) -> None:
    """Raise InputError where a box is missing, is said twice, or repeats along some of its vectors only."""
    content = store.content
    if choice.box is not None and len(choice.box) == 6:
        _check_angles(choice.box)
    if choice.box is not None and content.has_box:
        raise InputError(
            f"[problem] box = {choice.box}, and the frames of {store.folder} have boxes of their own",
            remedy="leave box out",
        )
    if choice.periodic and choice.box is None and not content.has_box:
        raise InputError(
            f"[problem] periodic = true, and the frames of {store.folder} have no box",
            remedy="give box = [a, b, c] (A), or six numbers with angles",
        )
    if choice.periodic is None and choice.box is None and any(content.pbc) and not all(content.pbc):
        raise InputError(
            f"the frames of {store.folder} repeat along {sum(content.pbc)} of the 3 vectors of their box",
            remedy="set periodic = true to take all three, or false for none",
        )


def _check_angles(box: Sequence[float]) -> None:
    """Raise InputError where three vectors cannot be at these angles, each to the other two, degrees."""
    a, b, c = np.cos(np.radians(box[3:]))
    if not (max(box[3:]) < 180 and 1 - a**2 - b**2 - c**2 + 2 * a * b * c > FLAT):
        raise InputError(
            f"[problem] box = {list(box)}: no box has the angles {', '.join(f'{angle:g}' for angle in box[3:])}",
            remedy="give the angles between b and c, a and c, a and b, each below the sum of the others, all below 360",
        )
