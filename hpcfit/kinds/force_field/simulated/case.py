"""`force-field` where frames are simulated: systems, parameters and measurements in, the problem of windows out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
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
from hpcfit.kinds.force_field.simulated.averages import Differences, Ensemble, Measured, Windows
from hpcfit.kinds.force_field.simulated.config import DIFFERENCE, SimulatedConfig
from hpcfit.kinds.force_field.simulated.direction import Direction, direction, of_tangents, seconds_a_step
from hpcfit.kinds.force_field.simulated.ensembles import Opened, open_energy, open_system
from hpcfit.kinds.force_field.simulated.equilibration import DRAW, Equilibration, planned
from hpcfit.kinds.force_field.simulated.given import drawn_windows
from hpcfit.kinds.force_field.simulated.reweighting import Reweighted
from hpcfit.kinds.force_field.simulated.stored import open_stored
from hpcfit.kinds.force_field.simulated.weighed import Drawn, Given
from hpcfit.ranks import Ranks
from hpcfit.simulation.langevin import Bath, PhasePoint
from hpcfit.store.files import sha256_of_file
from hpcfit.store.stream import Chunk


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
        _check_frames(config)
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

    @property
    def direction(self) -> Direction:
        """The way derivatives are taken."""
        n_data = sum(one.measured and not one.held_out for one in self.data_names())
        return direction(self.config.problem, len(self.moving.free), n_data, self.ensembles[0].stride)

    @property
    def given(self) -> bool:
        """True where frames are given, and none is simulated."""
        return self.config.problem.given

    @property
    def rounds_of_the_mean(self) -> int:
        """The number of rounds that the parameters found are the mean of."""
        choice = self.config.problem
        return max(choice.rounds - choice.full_steps + 1, 1) if self._settles else 1

    @property
    def _settles(self) -> bool:
        """True where rounds are averaged in the end."""
        choice = self.config.problem
        return choice.solver == "gauss-newton" and choice.steps_of_a_draw == 1 and not self.given

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
        if not self.given:
            return f"{self.config.problem.window:g} ps"
        pairs = zip(self.opened, self.ensembles)
        return ", ".join(
            f"{ensemble.frames} of the {one.given.n_frames} frames of {one.name}" for one, ensemble in pairs
        )

    def bytes_held(self, grid: Grid) -> int:
        """Bytes of where this rank's windows begin, or of their frames, where they are given."""
        numbers = sum((3 * one.frames if self.given else 6) * len(one.masses) for one in self.ensembles)
        return 8 * numbers * self.block_frames * len(grid.blocks)

    def bytes_summed(self, grid: Grid) -> int:
        """Bytes of the sums of this rank's blocks."""
        return 8 * len(self.data_names()) * (1 + len(self.moving.free)) * len(grid.blocks)

    def predicted(self, grid: Grid) -> dict[str, str]:
        """See ``hpcfit.kinds.base.PricedCase``: plain steps are timed by root."""
        if self.given:
            return {}
        choice, rows = self.config.problem, -(-self.n_blocks // grid.world.size) * self.block_frames
        seconds = grid.world.on_root(
            lambda: [
                seconds_a_step(ensemble, one.positions[0], self.block_frames)
                for ensemble, one in zip(self.ensembles, self.opened)
            ]
        )
        steps = [e.stride * e.frames for e in self.ensembles]
        before = [one.config.equilibration / one.config.step for one in self.opened]
        plain, rested = (rows * float(np.dot(seconds, counts)) for counts in (steps, before))
        a_round = plain * self.direction.cost
        at_end = choice.derivative_draws * plain * 2 * of_tangents(len(self.moving.of_energies.free))
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
        choice, run = self.config.problem, self.config.run
        settled = float(choice.full_steps) if self._settles else np.inf
        parts = (
            self.tiles, self.ensembles, self.moving, np.array(run.seed), choice.estimator, not self.direction.forward,
            self.differences, np.array(settled),
        )  # fmt: skip
        if self.given:
            return Given(*parts, np.array(choice.least_share if choice.estimator == "reweighting" else 0.0))
        if choice.estimator == "reweighting":
            return Reweighted(*parts, np.array(choice.least_share))
        return Windows(*parts)

    def evaluate(self, grid: Grid) -> Forward | Reverse:
        """Value and gradient on this rank's windows."""
        size = len(grid.blocks) * self.block_frames
        first = grid.blocks.start * self.block_frames
        ids = np.arange(first, first + size)
        ids = np.where(ids < self.n_frames, ids, -1).reshape(-1, self.block_frames)
        chunk = Chunk(slice(0, len(ids)), slice(0, 1), np.zeros((1, *ids.shape)))
        more = grid.world.on_all(lambda: self._drawn(ids)) if self.given else ()
        frames = Frames(FrameRows(ids, self.n_frames, more), partial(_one_chunk, chunk))
        way = Forward if self.direction.forward else Reverse
        return way(self.problem, frames, grid, choose_sum(self.config.run.reductions, grid))

    def _drawn(self, ids: np.ndarray) -> tuple[Drawn, ...]:
        """The frames of some windows [...] of all systems that are given."""
        places = np.where(ids >= 0, ids, 0)
        return tuple(
            drawn_windows(one.given, ensemble, self.moving.at(self.begin, one.parameters), places, self.n_frames)
            for one, ensemble in zip(self.opened, self.ensembles)
        )

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


def _one_chunk(chunk: Chunk) -> Iterator[Chunk]:
    return iter([chunk])


def _check_frames(config: Config) -> None:
    """Raise InputError where neither frames are given nor can be simulated."""
    if config.simulate is not None:
        raise InputError(
            "[simulate] is for rounds, in which OpenMM samples the systems of [problem]",
            remedy="call `hpcfit pipeline --rounds`, or leave it out",
        )
    if not config.problem.given and config.problem.window is None:
        raise InputError("missing key 'problem.window'", remedy="give it, ps, or `frames` of each system")


def _begin(choice: SimulatedConfig, moves: Moving) -> dict[str, np.ndarray]:
    """The numbers u of the parameters that the fit begins with."""
    return moves.init() if choice.start is None else moves.numbers(values_of_run(choice.start, moves.labels))
