"""Starting hpcfit again: on some MPI ranks, as a child that must not take its parent's place in a job."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from hpcfit.errors import EXIT_INPUT, EXIT_REQUEUE, InputError
from hpcfit.workflow.stopping import handled_by

# What a launcher tells a task of its place; a child that inherits it believes to be that task.
PLACE = (
    "PMI", "OMPI_", "PALS_", "MPI_LOCAL", "HYDRA", "SLURM_STEP", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID",
    "SLURM_GTIDS", "SLURM_TASK", "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_SRUN", "SLURM_LAUNCH", "SLURM_UMASK",
    "SLURM_DISTRIBUTION",
)  # fmt: skip
# How a task of a step was bound. In a batch script, which is no step, they are what the user tells srun.
BINDING = ("SLURM_CPU_BIND", "SLURM_GPU_BIND")


def child_environment() -> dict[str, str]:
    """This process's environment without what a launcher told it of its own place."""
    left_out = (*PLACE, *BINDING) if "SLURM_STEP_ID" in os.environ else PLACE
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)}


def in_slurm() -> bool:
    """True where this process belongs to a Slurm job."""
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
        return ["srun", "--overlap", f"--ntasks={ranks}", *_packed(ranks), "--kill-on-bad-exit=1", *command]
    beside = shutil.which("mpiexec", path=str(Path(sys.executable).parent))
    launcher = beside or shutil.which("mpiexec")
    if launcher is None:
        raise InputError(
            f"{ranks} ranks are to be started, but there is no mpiexec beside {sys.executable} or on PATH",
            remedy="install hpcfit[mpi], load the site's MPI module, or work inside a Slurm job",
        )
    return [launcher, "-n", str(ranks), *command]


def _packed(ranks: int) -> list[str]:
    """As few nodes as the job's tasks a node allow; srun alone would spread a few ranks over all nodes of the job."""
    on_a_node = os.environ.get("SLURM_NTASKS_PER_NODE", "")
    if not on_a_node.isdigit() or ranks % int(on_a_node) not in (0, ranks):
        return []
    return [f"--nodes={-(-ranks // int(on_a_node))}", f"--ntasks-per-node={min(ranks, int(on_a_node))}"]


def run_hpcfit(*arguments: str, ranks: int = 1) -> int:
    """Run it with this process's output; its exit code.

    SIGTERM and SIGUSR1 are passed on: hpcfit writes a checkpoint and ends with 75, which is also returned if it ended
    before it could.
    """
    command, received, children = hpcfit_command(*arguments, ranks=ranks), [], []

    def pass_on(number: int, _frame) -> None:
        received.append(number)
        for child in children:
            child.send_signal(signal.SIGUSR1)  # also for SIGTERM, at which srun kills its tasks

    with handled_by(pass_on), subprocess.Popen(command, env=child_environment()) as child:
        children.append(child)
        if received:
            child.send_signal(signal.SIGUSR1)
        code = child.wait()
    return EXIT_REQUEUE if received and code not in (0, EXIT_INPUT) else code
