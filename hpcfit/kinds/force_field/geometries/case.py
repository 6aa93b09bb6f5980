"""`force-field` with stored geometries: molecules, parameters and geometries in, the problem on a rank's share out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpcfit.config import Config, GridConfig
from hpcfit.errors import InputError
from hpcfit.fit.by_blocks import Reverse
from hpcfit.fit.grid import Grid, Load, Shape, choose_shape
from hpcfit.fit.reduction import choose_sum
from hpcfit.kinds.force_field.geometries.sets import Stored, open_sets
from hpcfit.kinds.force_field.geometries.shared import Shared
from hpcfit.kinds.force_field.parameters import Moving, moving
from hpcfit.kinds.force_field.simulated.opened import Opened, open_energy
from hpcfit.store.files import sha256_of_file


@dataclass(frozen=True)
class GeometriesCase:
    """See ``hpcfit.kinds.base.Case``. A frame is a geometry."""

    n_tiles = 1

    config: Config
    opened: Sequence[Opened]
    stored: Stored

    @classmethod
    def open(cls, config: Config) -> GeometriesCase:
        """Read and check all inputs."""
        choice = config.problem
        opened = [open_energy(one) for one in choice.molecule]
        shared = Shared.of(opened)
        moves = moving(choice.parameter, [shared])
        return cls(config, opened, open_sets(choice.geometries, opened, shared, moves, config.run.seed))

    @property
    def moving(self) -> Moving:
        """The parameters that may move."""
        return self.stored.moving

    @property
    def n_frames(self) -> int:
        """Geometries that take part."""
        return self.stored.n_geometries

    @property
    def block_frames(self) -> int:
        """Geometries that are computed side by side."""
        return self.config.problem.block

    @property
    def n_blocks(self) -> int:
        """Blocks of geometries, the last of each molecule padded."""
        return len(self.stored.ids(self.block_frames))

    def shape(self, size: int, grid: GridConfig) -> Shape:
        """All ranks along the geometries."""
        return choose_shape(size, grid.frames, grid.slices, Load(self.n_blocks, 1, 1, 1))

    def identity(self) -> dict[str, str]:
        """The options of the problem, and what its files hold."""
        choice = self.config.problem
        files = {f"file {key}": sha256_of_file(path)[:16] for key, path in choice.files.items()}
        return {"problem": choice.model_dump_json(), **files, "run": f"seed {self.config.run.seed}"}

    def summary(self) -> dict[str, Any]:
        """Sizes by name."""
        P, held_out = len(self.moving.labels), sum(int(one.held_out.sum()) for one in self.stored.sets)
        return {
            "molecules": ", ".join(f"{one.name} ({len(one.masses)} particles)" for one in self.opened),
            "geometries": f"{self.n_frames - held_out} fitted, {held_out} held out",
            "targets": ", ".join(filter(None, [self._targets("energy"), self._targets("force")])),
            "parameters": ", ".join(self.moving.labels[:8]) + (f" ... ({P})" if P > 8 else ""),
            "solver": self.config.problem.solver,
        }

    def _targets(self, what: str) -> str:
        n = sum(len(one.number) for one in self.stored.sets if getattr(one.config, f"{what}_sigma") is not None)
        return f"{what} of {n}" if n else ""

    def bytes_held(self, grid: Grid) -> int:
        """Bytes of this rank's positions and forces."""
        return 48 * max(len(one.masses) for one in self.opened) * self.block_frames * len(grid.blocks)

    def bytes_summed(self, grid: Grid) -> int:
        """Bytes of the sums of this rank's blocks."""
        return 8 * (12 * len(self.opened) + 4) * len(grid.blocks)

    def undefined_loss(self) -> InputError:
        """The loss at the start is not a number: a force is none."""
        return InputError(
            "the force field gives no finite forces of some geometry at the parameters given",
            remedy="leave geometries out in which atoms lie on each other",
        )

    def evaluate(self, grid: Grid) -> Reverse:
        """Value and gradient on this rank's geometries."""
        return self.stored.evaluate(self.block_frames, grid, choose_sum(self.config.run.reductions, grid))
