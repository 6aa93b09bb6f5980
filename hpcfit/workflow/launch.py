"""How hpcfit starts itself again: on some MPI ranks, as a child that must not take its parent's place in a job."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from hpcfit.errors import InputError

# What a launcher tells a task of its place; a child that inherits it believes to be that task.
PLACE = (
    "PMI", "OMPI_", "PALS_", "MPI_LOCAL", "HYDRA", "SLURM_STEP", "SLURM_CPU_BIND", "SLURM_PROCID",
    "SLURM_LOCALID", "SLURM_NODEID", "SLURM_GTIDS", "SLURM_TASK", "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_SRUN",
    "SLURM_LAUNCH", "SLURM_UMASK", "SLURM_DISTRIBUTION",
)  # fmt: skip


def child_environment() -> dict[str, str]:
    """This process's environment without what a launcher told it of its own place."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PLACE)}


def in_slurm() -> bool:
    """Whether this process belongs to a Slurm job."""
    return "SLURM_JOB_ID" in os.environ


def hpcfit_command(*arguments: str, ranks: int = 1) -> list[str]:
    """`hpcfit ARGUMENTS` of this environment on so many ranks; to be run in ``child_environment()``.

    Several ranks are started by `srun` inside a Slurm job (which takes SLURM_MPI_TYPE and SLURM_CPU_BIND from the
    environment), else by the `mpiexec` of this environment or of PATH. Raises InputError where there is none.
    """
    command = [sys.executable, "-m", "hpcfit", *arguments]
    if ranks == 1:
        return command
    if in_slurm():
        return ["srun", "--overlap", f"--ntasks={ranks}", "--kill-on-bad-exit=1", *command]
    beside = shutil.which("mpiexec", path=str(Path(sys.executable).parent))
    launcher = beside or shutil.which("mpiexec")
    if launcher is None:
        raise InputError(
            f"{ranks} ranks are to be started, but there is no mpiexec beside {sys.executable} or on PATH",
            remedy="install hpcfit[mpi], load the site's MPI module, or work inside a Slurm job",
        )
    return [launcher, "-n", str(ranks), *command]


def run_hpcfit(*arguments: str, ranks: int = 1) -> int:
    """Run it with this process's output; its exit code."""
    return subprocess.run(hpcfit_command(*arguments, ranks=ranks), env=child_environment(), check=False).returncode
