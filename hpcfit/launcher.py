"""The variables of a launcher (srun, mpiexec): how many tasks it started, and which of them this process is.

Apart from ``ranks``, so that a command of one process can ask without loading numerics.
"""

from __future__ import annotations

import os

# The variables by which launchers tell a process how many tasks they started.
LAUNCHER_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "MPI_LOCALNRANKS")
# By which they tell it its number among all tasks, and on its node. Slurm's come last: an mpiexec inside a Slurm job
# starts one task a node, and that task the ranks.
TASK_NUMBERS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PALS_RANKID", "SLURM_PROCID")
LOCAL_RANKS = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PALS_LOCAL_RANKID", "SLURM_LOCALID")


def launched_tasks() -> tuple[str, int]:
    """The variable by which a launcher says how many tasks it started, and that number; ("", 1) without one."""
    # SLURM_NTASKS is also set in a batch script, and in the shell of `salloc`, which is a step of one task.
    for name in ("SLURM_STEP_NUM_TASKS", *LAUNCHER_SIZES):
        if os.environ.get(name, "").isdigit() and int(os.environ[name]) > 1:
            return name, int(os.environ[name])
    return "", 1


def local_rank() -> int | None:
    """This rank's number on its node as the launcher says; None without one."""
    return _number_in(LOCAL_RANKS)


def is_later_task() -> bool:
    """True where the launcher gave this process a number above 0."""
    return bool(_number_in(TASK_NUMBERS))


def _number_in(names: tuple[str, ...]) -> int | None:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), None)
