"""`hpcfit init`: a commented config of a kind of problem, or a folder with a small problem whose answer is known."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hpcfit.commands.explain import readme_of
from hpcfit.errors import InputError
from hpcfit.kinds.table import kind_named
from hpcfit.log import logger
from hpcfit.workflow.shipped import shipped

if TYPE_CHECKING:
    from hpcfit.testsystems.demos import Demo

CONFIG = "config.toml"
UNFINISHED = "config.toml.part"  # what the config is called until everything that it names is there


def run_init(kind: str, demo: Path | None) -> None:
    """Print the commented config of a kind, or make the folder ``demo``; `KIND/VARIANT` is that of a variant.

    Raises InputError for a kind that is none.
    """
    name, _, variant = kind.partition("/")
    folder = readme_of(name).parent.name
    base = shipped(f"config/{folder}.toml")
    configs = {key: base.with_name(f"{folder}_{key}.toml") for key in kind_named(name).variants}
    known = [key for key, path in configs.items() if path.is_file()]
    if variant and variant not in known:
        raise InputError(
            f"'{name}' has no config of its own for '{variant}'",
            remedy=f"use {', '.join([name, *(f'{name}/{key}' for key in known)])}",
        )
    if demo is not None:
        make_demo(kind, demo)
        return
    sys.stdout.write(configs.get(variant, base).read_text(encoding="utf-8"))


def make_demo(kind: str, folder: Path) -> None:
    """Make a folder in which `hpcfit optimize config.toml` runs: systems, trajectories, data, store, and the config.

    One process deals the work out to the cores of this machine. The config gets its name when everything is there: a
    call that was interrupted is made again and goes on. Raises InputError for a folder that holds anything else.
    """
    from hpcfit.commands.simulate import run_simulate
    from hpcfit.kinds.table import load_config
    from hpcfit.physics.openmm_library import import_openmm
    from hpcfit.prepare.command import run_prepare
    from hpcfit.ranks import Ranks, check_one_process
    from hpcfit.testsystems.demos import DEMOS

    if kind not in DEMOS:
        raise InputError(f"there is no demo of '{kind}'", remedy=f"there is one of {', '.join(DEMOS)}")
    check_one_process("and each would make the same folder", "start `hpcfit init` without mpiexec or srun")
    demo = DEMOS[kind]()
    if demo.simulations:
        import_openmm()
    config = _begun(demo, folder)
    demo.write_systems(folder)
    for sets in demo.simulations:
        run_simulate(load_config(config, sets))
    demo.observe(folder)
    if demo.simulations or demo.prepares:
        run_prepare(load_config(config), Ranks())
    os.replace(config, folder / CONFIG)
    logger.info("%s is complete: cd %s && hpcfit optimize %s", folder, folder, CONFIG)


def _begun(demo: Demo, folder: Path) -> Path:
    """The unfinished config in ``folder``, which is new, empty, or was begun by this demo."""
    text, config = demo.config.read_text(encoding="utf-8"), folder / UNFINISHED
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file", remedy="name a folder that does not exist, or is empty")
    if config.is_file() and config.read_text(encoding="utf-8") == text:
        return config
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            f"the folder {folder} is not empty: it holds {min(path.name for path in folder.iterdir())}",
            remedy="name a folder that does not exist, or is empty",
        )
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(text, encoding="utf-8")
    return config
