"""What `check` and `optimize` begin with: ranks, device, case and grid."""

from __future__ import annotations

from dataclasses import dataclass

from hpcfit.config import Config, OptimizerConfig
from hpcfit.errors import InputError, together
from hpcfit.fit.grid import Grid, make_grid
from hpcfit.fit.optimizers import SELECTING, choose_optimizer
from hpcfit.kinds.base import Case, SteppedCase
from hpcfit.kinds.table import open_case
from hpcfit.log import logger
from hpcfit.machine import Device, choose_device
from hpcfit.ranks import Ranks


@dataclass(frozen=True)
class Session:
    """A config opened on some ranks; nothing large has been read."""

    config: Config
    world: Ranks
    device: Device
    case: Case
    grid: Grid

    def identity(self) -> dict[str, str]:
        """What a run and its continuation have in common, by name: data, problem and optimizer."""
        chosen = self.config.optimizer
        return self.case.identity() | {"optimizer": f"{chosen.name} {chosen.options} {chosen.clip_norm}"}


def open_session(config: Config, world: Ranks, command: str) -> Session:
    """Choose the device, open and check the inputs, and lay out the grid; collective."""
    world.on_root(lambda: check_config(config, command))
    device = choose_device(config.run, world)
    case = open_case(config, world)
    shape = world.on_root(lambda: case.shape(world.size, config.grid))
    if shape.frames > case.n_blocks and world.is_root:
        logger.warning(
            "%d ranks along frames for %d blocks of 64 frames: %d ranks have nothing to do",
            shape.frames,
            case.n_blocks,
            shape.frames - case.n_blocks,
        )
    return Session(config, world, device, case, make_grid(world, shape, case.n_blocks, case.n_tiles))


def check_config(config: Config, command: str) -> None:
    """Raise InputError for what the tables alone cannot know: missing tables, an optimizer's name and options."""
    config.require_fit(command=command)
    chosen = config.optimizer
    choose_optimizer(chosen.name, chosen.options, chosen.clip_norm, inner=None)
    if config.problem.kind == "frame-weights":
        _check_search(chosen, config.problem.weights)
        return
    if config.frames.residence != "auto" or config.experiment is not None:
        what = "[experiment]" if config.experiment is not None else f"[frames] residence = '{config.frames.residence}'"
        raise InputError(
            f"{what} has no effect on [problem] kind = '{config.problem.kind}', whose frames are streamed and compared"
            " with no map",
            remedy="leave it out",
        )
    if chosen.name in SELECTING:
        raise InputError(
            f"[optimizer] name = '{chosen.name}' selects frames, [problem] kind = '{config.problem.kind}' selects none",
            remedy="use name = 'lbfgs', or an elementwise one such as 'adam'",
        )


def stepped(case: Case, config: Config, command: str) -> SteppedCase:
    """The case, whose steps are to be timed. Raises InputError, on all ranks, for a kind that has no such step."""
    if not isinstance(case, SteppedCase):
        raise together(
            InputError(
                f"`hpcfit {command}` times the steps of a fit, and [problem] kind = '{config.problem.kind}' is solved"
                " in closed form from one pass over the frames",
                remedy="`hpcfit optimize` says what its passes took; tools/bench_force_map.py times them",
            )
        )
    return case


def _check_search(chosen: OptimizerConfig, weights: str) -> None:
    if (chosen.name in SELECTING) != (weights == "binary"):
        raise InputError(
            f"[problem] weights = '{weights}' with [optimizer] name = '{chosen.name}': selecting frames and weighing"
            " them are different searches",
            remedy=f"use weights = 'binary' with one of {', '.join(SELECTING)}, or neither",
        )
    if chosen.name == "exponentiated-gradient" and weights != "simplex":
        raise InputError(
            f"[optimizer] name = '{chosen.name}' moves on the simplex, [problem] weights = '{weights}'",
            remedy="use weights = 'simplex', or name = 'lbfgs'",
        )


def log_session(session: Session) -> None:
    """What will be fitted, on what; root's log."""
    for name, value in session.case.summary().items():
        logger.info("%-12s %s", name, value)
    shape = session.grid.shape
    logger.info("%-12s %d x %d (frames x slices): %s", "grid", shape.frames, shape.slices, shape.reason)
    logger.info(
        "%-12s %s on %s",
        "device",
        session.device.name,
        "core" + "s" * (len(session.device.cores) > 1) + " " + str(session.device.cores),
    )
