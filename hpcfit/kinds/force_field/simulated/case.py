"""`force-field` where frames are simulated: systems, parameters and measurements in, the problem of windows out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from hpcfit.config import Config, GridConfig
from hpcfit.errors import InputError
from hpcfit.fit.by_blocks import Forward, Reverse
from hpcfit.fit.gradient import Frames
from hpcfit.fit.grid import Grid, Load, Shape, choose_shape
from hpcfit.fit.problem import FrameRows, Params
from hpcfit.fit.reduction import choose_sum
from hpcfit.kinds.force_field.geometries.sets import Stored
from hpcfit.kinds.force_field.parameters import Moving, moving, values_of_run
from hpcfit.kinds.force_field.simulated.assembly import (
    check_estimator,
    check_lengths,
    differences_of,
    ensemble_of,
    measurements,
)
from hpcfit.kinds.force_field.simulated.averages import Windows
from hpcfit.kinds.force_field.simulated.config import SimulatedConfig
from hpcfit.kinds.force_field.simulated.direction import Direction, Size, direction, of_tangents, seconds_a_step
from hpcfit.kinds.force_field.simulated.ensemble import Ensemble
from hpcfit.kinds.force_field.simulated.equilibration import DRAW, Equilibration, planned
from hpcfit.kinds.force_field.simulated.measured import Differences, Measured
from hpcfit.kinds.force_field.simulated.opened import Opened, open_energy, open_system
from hpcfit.kinds.force_field.simulated.reweighting import Reweighted
from hpcfit.kinds.force_field.simulated.stored import open_stored
from hpcfit.kinds.force_field.simulated.systems_config import DIFFERENCE
from hpcfit.kinds.force_field.simulated.weighed import Drawn
from hpcfit.ranks import Ranks
from hpcfit.simulation.langevin import Bath, PhasePoint
from hpcfit.store.files import sha256_of_file


class Datum(NamedTuple):
    """The names of a datum. measured: False for an average that is compared with nothing."""

    system: str
    observable: str
    item: int
    held_out: bool
    measured: bool


@dataclass(frozen=True)
class SimulatedCase:
    """See ``hpcfit.kinds.base.Case``. A frame is a window: of it a trajectory of each system. begin: the numbers u that
    the fit begins with, at which frames were drawn that are given."""

    n_tiles = 1

    config: Config
    opened: Sequence[Opened]
    ensembles: tuple[Ensemble, ...]
    moving: Moving
    tiles: tuple[tuple[Measured, ...], ...]
    differences: Differences
    begin: dict[str, np.ndarray]
    molecules: Sequence[Opened] = ()
    stored: Stored | None = None

    @classmethod
    def open(cls, config: Config) -> SimulatedCase:
        """Read and check all inputs."""
        opened = [open_system(one) for one in config.problem.system]
        moves = moving(config.problem.parameter, opened, config.problem.curve)
        ensembles = tuple(ensemble_of(one, config.problem) for one in opened)
        tiles = tuple(measurements(one, ensemble) for one, ensemble in zip(opened, ensembles))
        check_estimator(config.problem, opened, ensembles)
        check_lengths(config.problem, opened, moves)
        differences, of_differences = differences_of(config.problem, tiles)
        begin = _begin(config.problem, moves)
        molecules = [open_energy(one) for one in config.problem.molecule]
        stored = open_stored(config.problem, [*opened, *molecules], moves, config.run.seed)
        return cls(config, opened, ensembles, moves, (*tiles, of_differences), differences, begin, molecules, stored)

    @property
    def n_frames(self) -> int:
        """Windows."""
        return self.config.problem.windows

    @property
    def block_frames(self) -> int:
        """Windows that are computed side by side."""
        return self.config.problem.block

    @property
    def n_blocks(self) -> int:
        """Blocks of windows, the last of them padded."""
        return -(-self.n_frames // self.block_frames)

    @cached_property
    def direction(self) -> Direction:
        """The way derivatives are taken."""
        sizes = [
            Size(
                3 * len(one.masses), one.stride * one.frames, one.stride,
                tuple(int(np.prod(shape.shape)) for shape in one.shapes),
            )
            for one in self.ensembles
        ]  # fmt: skip
        return direction(self.config.problem, len(self.moving.free), sizes)

    @property
    def rounds_of_the_mean(self) -> int:
        """The number of rounds that the parameters found are the mean of."""
        choice = self.config.problem
        return max(choice.rounds - choice.full_steps + 1, 1) if self._settles else 1

    @property
    def _settles(self) -> bool:
        """True where rounds are averaged in the end."""
        choice = self.config.problem
        return choice.solver == "gauss-newton" and choice.steps_of_a_draw == 1

    @property
    def steps_of_a_draw(self) -> int:
        """Steps after which windows are drawn anew; 0 for never."""
        return self.config.problem.steps_of_a_draw

    def data_names(self) -> list[Datum]:
        """The names of all data, system after system, and differences behind them."""
        choice = self.config.problem
        groups = [*((one.name, one.config.observable) for one in self.opened), (DIFFERENCE, choice.difference)]
        return [
            Datum(group, one.name, item, one.held_out, one.is_measured)
            for (group, tables), tile in zip(groups, self.tiles)
            for one, m in zip(tables, tile)
            for item in range(m.value.shape[1])
        ]

    # ---- what commands ask (see ``kinds.base``) ---------------------------------------------------------------------

    def shape(self, size: int, grid: GridConfig) -> Shape:
        """All ranks along the windows."""
        return choose_shape(size, grid.frames, grid.slices, Load(self.n_blocks, 1, 1, 1))

    def identity(self) -> dict[str, str]:
        """The options of the problem, and what its files hold."""
        choice = self.config.problem
        files = {f"file {key}": sha256_of_file(path)[:16] for key, path in choice.files.items()}
        files |= {f"frames {one.name}": one.given.digest() for one in self.opened if one.given is not None}
        return {"problem": choice.model_dump_json(), **files, "run": f"seed {self.config.run.seed}"}

    def summary(self) -> dict[str, Any]:
        """Sizes by name."""
        choice, names = self.config.problem, [one for one in self.data_names() if one.measured]
        held_out = sum(one.held_out for one in names)
        P = len(self.moving.free)
        systems = ", ".join(
            f"{one.name} ({len(one.masses)} particles, kT {one.kT:.4g} kJ/mol{one.pressed})" for one in self.opened
        )
        settled = f", the mean of those from {choice.full_steps} on" if self._settles else ""
        return {
            "systems": systems,
            "forces": ", ".join(f"{one.name} over {one.pairs}" for one in self.opened),
            "windows": f"{choice.windows} of {self._length}, {self.block_frames} side by side",
            "data": f"{len(names) - held_out} fitted, {held_out} held out",
            "parameters": ", ".join(self.moving.free[:8]) + (" ..." if P > 8 else "") + self._followers,
            **({} if self.stored is None else {"geometries": f"{self.stored.n_geometries}, {choice.geometries_in}"}),
            "derivatives": f"{choice.estimator}: {self.direction.reason}",
            "rounds": f"{choice.steps}{settled}",
        }

    @property
    def _followers(self) -> str:
        names = [one for one in self.moving.labels if one not in self.moving.free]
        return f"; so that net charges stay, they move {', '.join(names)}" if names else ""

    @property
    def _length(self) -> str:
        """The length of a window in words."""
        return f"{self.config.problem.window:g} ps"

    def bytes_held(self, grid: Grid) -> int:
        """Bytes of where this rank's windows begin."""
        return 48 * sum(len(one.masses) for one in self.ensembles) * self.block_frames * len(grid.blocks)

    def bytes_summed(self, grid: Grid) -> int:
        """Bytes of the sums of this rank's blocks."""
        return 8 * len(self.data_names()) * (1 + len(self.moving.free)) * len(grid.blocks)

    def predicted(self, grid: Grid) -> dict[str, str]:
        """See ``hpcfit.kinds.base.PricedCase``: plain steps are timed by root."""
        choice, rows = self.config.problem, -(-self.n_blocks // grid.world.size) * self.block_frames
        seconds = grid.world.on_root(
            lambda: [
                seconds_a_step(ensemble, one.positions[0], self.block_frames)
                for ensemble, one in zip(self.ensembles, self.opened)
            ]
        )
        steps = [e.stride * e.frames for e in self.ensembles]
        before = [one.config.equilibration / one.config.step for one in self.opened]
        P, ways = len(self.moving.of_energies.free), zip(self.ensembles, self.direction.matrix)
        with_tangents = [2 * of_tangents(P, 3 * len(one.masses), matrix) for one, matrix in ways]
        rested, a_round, a_draw = (
            rows * float(np.dot(seconds, counts))
            for counts in (before, np.multiply(steps, self.direction.costs), np.multiply(steps, with_tangents))
        )
        at_end = choice.derivative_draws * a_draw
        whole = rested + (choice.rounds + 2) * a_round + at_end
        return {
            "plain steps": ", ".join(f"{one.name} {1e6 * s:.3g} us" for one, s in zip(self.opened, seconds)),
            "predicted": f"{a_round:.3g} s a round of {rows} windows a rank; {rested:.3g} s of equilibration,"
            f" {at_end:.3g} s of derivatives at the end; {whole:.3g} s in all, and compilation",
        }  # fmt: skip

    def undefined_loss(self) -> InputError:
        """The loss at the start is not a number: too many windows exploded."""
        return InputError(
            "the average of an observable in the first round is no finite number, or more than half of a system's"
            " windows exploded",
            remedy="shorten the steps of the systems, or give them a longer equilibration",
        )

    def with_tangents(self, lengths: Sequence[int]) -> SimulatedCase:
        """The case with tangents that begin anew after so many frames, by system."""
        L = self.config.problem.frames
        ensembles = [replace(one, anew=k % L, skipped=one.skipped * k // L) for one, k in zip(self.ensembles, lengths)]
        return replace(self, ensembles=tuple(ensembles))

    # ---- the problem ------------------------------------------------------------------------------------------------

    @cached_property
    def problem(self) -> Windows:
        """The problem of all ensembles."""
        choice = self.config.problem
        if choice.estimator == "reweighting":
            return Reweighted(*self._parts, np.array(choice.least_share))
        return Windows(*self._parts)

    @property
    def _parts(self) -> tuple:
        """The leaves of ``Windows``."""
        choice, run = self.config.problem, self.config.run
        way = self.direction
        ensembles = tuple(replace(one, matrix=matrix) for one, matrix in zip(self.ensembles, way.matrix))
        settled = float(choice.full_steps) if self._settles else np.inf
        return (
            self.tiles, ensembles, self.moving, np.array(run.seed), choice.estimator, way.pulled or not way.forward,
            self.differences, np.array(settled),
        )  # fmt: skip

    def evaluate(self, grid: Grid) -> Forward | Reverse:
        """Value and gradient on this rank's windows."""
        size = len(grid.blocks) * self.block_frames
        first = grid.blocks.start * self.block_frames
        ids = np.arange(first, first + size)
        ids = np.where(ids < self.n_frames, ids, -1).reshape(-1, self.block_frames)
        more = grid.world.on_all(lambda: self._drawn(ids))
        frames = Frames.in_memory(FrameRows(ids, self.n_frames, more), np.zeros((1, *ids.shape)))
        given = self.problem, frames, grid, choose_sum(self.config.run.reductions, grid)
        return Forward(*given, self.direction.pulled) if self.direction.forward else Reverse(*given)

    def _drawn(self, ids: np.ndarray) -> tuple[Drawn, ...]:
        """The frames that some windows [...] come with: none where they are simulated."""
        return ()

    def equilibration(self, ranks: Ranks) -> Equilibration:
        """The work before the first window."""
        plans = [
            planned(
                one.name, ensemble, one.positions, round(one.config.equilibration / one.config.step),
                Bath(one.kT, one.config.friction, one.config.step),
            )
            for one, ensemble in zip(self.opened, self.ensembles)
        ]  # fmt: skip
        return Equilibration(plans, self.n_frames, self.block_frames, self.config.run.seed, ranks)

    def start(self, found: dict[str, np.ndarray], grid: Grid) -> Params:
        """The parameters as they were given, and where this rank's windows begin, of the product of the
        equilibration."""
        starts = tuple(
            PhasePoint(*(self._rows(found[f"{what} {number}"], grid) for what in ensemble.leaves))
            for number, ensemble in enumerate(self.ensembles)
        )
        draw = np.full((len(grid.blocks), self.block_frames), DRAW + 1.0)
        window = np.arange(grid.blocks.start * self.block_frames, grid.blocks.stop * self.block_frames, dtype=float)
        seen = self.problem.unseen(FrameRows(draw, self.n_frames))
        local = {"starts": starts, "draw": draw, "window": window.reshape(draw.shape), "seen": seen}
        return Params(self.begin, local)

    def _rows(self, of_windows: np.ndarray, grid: Grid) -> np.ndarray:
        """The rows of this rank's blocks, padded with those of the first window."""
        places = np.arange(grid.blocks.start * self.block_frames, grid.blocks.stop * self.block_frames)
        rows = of_windows[np.where(places < self.n_frames, places, 0)]
        return rows.reshape(len(grid.blocks), self.block_frames, *of_windows.shape[1:])


def _begin(choice: SimulatedConfig, moves: Moving) -> dict[str, np.ndarray]:
    """The numbers u of the parameters that the fit begins with."""
    return moves.init() if choice.start is None else moves.numbers(values_of_run(choice.start, moves.labels))
