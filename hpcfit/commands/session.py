"""A session, which `check`, `optimize` and `step` begin with: ranks, device, case and grid."""

from __future__ import annotations

from dataclasses import dataclass

from hpcfit.config import Config
from hpcfit.fit.grid import Grid, make_grid
from hpcfit.fit.optimizers import check_options
from hpcfit.kinds.base import Case
from hpcfit.kinds.table import Kind, check_config, kind_of, open_case
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

    @property
    def kind(self) -> Kind:
        """The entry of the table of kinds, or the variant of it, that has the parts."""
        return kind_of(self.config)

    def identity(self) -> dict[str, str]:
        """The facts, by name, that a run and its continuation share: data, problem, blocks and optimizer."""
        chosen = self.config.optimizer
        return self.case.identity() | {
            "blocks": f"{self.case.block_frames} frames",
            "optimizer": f"{chosen.name} {chosen.options} {chosen.clip_norm}",
        }


def open_session(config: Config, world: Ranks, command: str) -> Session:
    """Choose the device, open and check the inputs, and lay out the grid; collective."""
    world.on_root(lambda: check_config(config, command))
    chosen = config.optimizer
    world.on_root(lambda: check_options(chosen.name, chosen.options, chosen.clip_norm))
    device = choose_device(config.run, world)
    case = open_case(config, world)
    shape = world.on_root(lambda: case.shape(world.size, config.grid))
    if shape.frames > case.n_blocks and world.is_root:
        logger.warning(
            "%d ranks along frames for %d blocks of %d frames: %d ranks have nothing to do",
            shape.frames,
            case.n_blocks,
            case.block_frames,
            shape.frames - case.n_blocks,
        )
    return Session(config, world, device, case, make_grid(world, shape, case.n_blocks, case.n_tiles))


def log_session(session: Session) -> None:
    """Log, on root, the sizes of the problem, the grid and the device."""
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
