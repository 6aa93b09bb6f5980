"""`structure`: an energy and starts in, replicas by rank out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcfit.config import Config, GridConfig
from hpcfit.errors import InputError
from hpcfit.fit.grid import Grid, Load, Shape, choose_shape
from hpcfit.kinds.structure.deviations import Reference, open_reference
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.kinds.structure.methods import check_method
from hpcfit.kinds.structure.modes.eigensolvers import require_solver
from hpcfit.kinds.structure.modes.hessian_norms import SLICE
from hpcfit.kinds.structure.modes.samples import StoredSamples
from hpcfit.kinds.structure.opening import Starts, open_landscape
from hpcfit.store.files import sha256_of_file

PARTICLES = 4000  # of a block: fewer, and the overhead of a step is felt; more fill no core better
LARGEST = 64  # replicas of a block


@dataclass(frozen=True)
class StructureCase:
    """See ``hpcfit.kinds.base.Case``. A frame is a replica."""

    n_tiles = 1

    config: Config
    landscape: Landscape
    starts: Starts
    reference: Reference | None = None
    frames: StoredSamples | None = None

    @classmethod
    def open(cls, config: Config) -> StructureCase:
        """Read and check all inputs."""
        choice = config.problem
        landscape = open_landscape(choice.energy)
        starts = Starts.of(choice.start, landscape, config.run.seed)
        has_graph = choice.modes.source == "hessian" or landscape.couplings() is not None
        if not (choice.method or has_graph):
            raise InputError(
                "there is no method, and no graph to find slow modes of: all particles of this energy are alike",
                remedy="set [problem.modes] source = 'hessian', or give a [[problem.method]]",
            )
        for method in choice.method:
            check_method(method, landscape, has_graph)
        compared = None
        if choice.reference is not None:
            compared = open_reference(choice.reference, choice.reference_atoms, landscape)
        require_solver(choice.modes.solver)
        frames, folder = None, choice.modes.samples_from
        if folder is not None:
            frames = StoredSamples.read(folder, choice.modes.samples, landscape)
        return cls(config, landscape, starts, compared, frames)

    @property
    def n_frames(self) -> int:
        """Replicas."""
        return self.config.problem.replicas

    @property
    def block_frames(self) -> int:
        """Replicas that advance together: a number of the problem, not of the machine."""
        choice = self.config.problem
        return choice.block or min(max(PARTICLES // self.landscape.n, 1), LARGEST, choice.replicas)

    @property
    def n_blocks(self) -> int:
        """Blocks of replicas; without methods the slices of Hessians."""
        of_replicas = -(-self.n_frames // self.block_frames)
        modes_alone = self.config.problem.modes.source == "hessian" and not self.config.problem.method
        return -(-self.landscape.n // SLICE) if modes_alone else of_replicas

    def shape(self, size: int, grid: GridConfig) -> Shape:
        """All ranks along the replicas."""
        return choose_shape(size, grid.frames, grid.slices, Load(self.n_blocks, 1, 1, 1))

    def identity(self) -> dict[str, str]:
        """The options of the problem, and what its files hold."""
        choice = self.config.problem
        files = {f"file {key}": sha256_of_file(Path(path))[:16] for key, path in choice.files.items()}
        if self.frames is not None:
            files["frames"] = self.frames.digest
        return {"problem": choice.model_dump_json(), **files, "run": f"seed {self.config.run.seed}"}

    def summary(self) -> dict[str, Any]:
        """Sizes by name."""
        choice, one = self.config.problem, self.landscape
        return {
            "energy": f"{choice.energy.form}, {one.n} particles with {one.d} coordinates",
        } | self._summary_of_methods()

    def _summary_of_methods(self) -> dict[str, str]:
        choice = self.config.problem
        if not choice.method:
            return {"methods": f"none: {choice.modes.number} slow modes alone, of {choice.modes.source}"}
        return {
            "replicas": f"{choice.replicas} in {self.n_blocks} blocks of {self.block_frames}, from {choice.start.kind}",
            "methods": ", ".join(method.name for method in choice.method),
            "budget": f"{choice.budget} gradients of each replica by each method",
        }

    def bytes_held(self, grid: Grid) -> int:
        """Bytes of this rank's replicas, with the memory of their optimizer."""
        return 8 * 40 * self.landscape.n * self.landscape.d * self.block_frames

    def bytes_summed(self, grid: Grid) -> int:
        """Nothing is summed."""
        return 0

    def undefined_loss(self) -> InputError:
        """The energy at the start is not a number."""
        return InputError("the energy of a start is not finite", remedy="give other starts, or methods with a cap")
