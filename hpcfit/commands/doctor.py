"""`hpcfit doctor`: what this installation and this job stand on, printed once, and a line for each rank."""

from __future__ import annotations

import os
import socket
import sys
from importlib import metadata

from hpcfit.commands.rank_map import rank_map
from hpcfit.config import RunConfig
from hpcfit.errors import EXIT_INPUT, InputError
from hpcfit.launcher import is_later_task, launched_tasks
from hpcfit.machine import choose_device, memory_bandwidth
from hpcfit.ranks import Ranks, mpi_library, world_ranks
from hpcfit.runs.directory import LIBRARIES, environment


def run_doctor() -> int:
    """Print versions, MPI, launcher, ranks and HDF5; returns 0, or 2 if launcher and MPI disagree.

    Then the first of the tasks, which do not know each other, speaks for all.
    """
    problem = ""
    try:
        world = world_ranks()
    except InputError as error:
        world, problem = Ranks(), str(error)
    report = _versions() + _mpi(world) + _hdf5() if world.is_root else []
    device = choose_device(RunConfig(), world)
    ranks = rank_map(world, device, {"memory": f"{memory_bandwidth() / 1e9:.1f} GB/s"})
    if world.is_root and not (problem and is_later_task()):
        sys.stdout.write("\n".join([*report, "", *ranks, *([f"\nproblem: {problem}"] if problem else [])]) + "\n")
    return EXIT_INPUT if problem else 0


def _versions() -> list[str]:
    found = environment()
    missing = [
        name for name in (*LIBRARIES, "MDAnalysis", "ase") if name not in found["libraries"] and not _version(name)
    ]
    return [
        f"hpcfit {found['hpcfit']}, Python {found['python']} ({sys.executable})",
        f"{found['processor']}, {os.cpu_count()} cores, {socket.gethostname()}",
        "  ".join(f"{name} {version}" for name, version in found["libraries"].items()),
        f"missing: {', '.join(missing) or 'none'}",
    ]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _mpi(world: Ranks) -> list[str]:
    library = mpi_library()
    variable, tasks = launched_tasks()
    launcher = f"launcher: {variable} = {tasks}" if variable else "launcher: none (one process)"
    if library is None:
        return ["", "MPI: none; one rank", launcher]
    return [
        "", f"MPI: {library.library}", f"  {library.path}", f"  mpi4py {library.mpi4py}, threads: {library.threads}",
        f"{launcher}; MPI sees {world.size} rank{'s' * (world.size > 1)}",
    ]  # fmt: skip


def _hdf5() -> list[str]:
    from hpcfit.store.files import hdf5_facts

    return [
        "",
        hdf5_facts(),
        f"HDF5_USE_FILE_LOCKING = {os.environ.get('HDF5_USE_FILE_LOCKING', 'not set')};"
        " shards are opened without locking",
    ]
