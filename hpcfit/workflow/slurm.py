"""Slurm's commands: submitting scripts and asking for the state of jobs; its own messages in every error."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from hpcfit.errors import InputError
from hpcfit.workflow.stopping import heed

ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT",
    "GONE",
}  # fmt: skip
# What tells Slurm's commands and MPI of the job that calls them, or changes their options and output. KEPT: which
# cluster it is, and who asks.
OF_THE_CALLER = (
    "SLURM", "SBATCH_", "SALLOC_", "SQUEUE_", "SCANCEL_", "SCONTROL_", "SACCT_", "PMI", "OMPI_", "PRTE_", "PALS_",
    "MPI_LOCAL", "HYDRA",
)  # fmt: skip
KEPT = ("SLURM_CONF", "SLURM_JWT")
SECONDS = 120  # for an answer of Slurm
FORGOTTEN = "Invalid job id specified"  # in Slurm's words


def environment() -> dict[str, str]:
    """This process's environment for Slurm's commands: without what the job that calls them, if any, was told.

    A job takes the environment of its sbatch along, and SBATCH_ variables win over the lines of its script. What a job
    is to ask for stands in its script: account, partition and the like are options of hpcfit and keys of its tables.
    """
    return {name: value for name, value in os.environ.items() if name in KEPT or not name.startswith(OF_THE_CALLER)}


def submit(script: Path, *options: str) -> str:
    """Submit a script; the job's id. Raises InputError with Slurm's message."""
    return _slurm("sbatch", "--parsable", *options, str(script)).split(";")[0].strip()


def states(jobs: Sequence[str]) -> dict[str, str]:
    """The state of each job by id (PENDING, RUNNING, COMPLETED, ...); GONE for one that Slurm has forgotten."""
    return {job: _state(job) for job in jobs}


def wait(jobs: Sequence[str], *, pause: float = 2.0, patience: float = 600.0) -> dict[str, str]:
    """Wait until all jobs have ended; their last states. Raises InputError if Slurm is silent for so many seconds."""
    answered = time.monotonic()
    while True:
        try:
            found, answered = states(jobs), time.monotonic()
        except InputError:
            if time.monotonic() - answered > patience:
                raise
            found = {}
        if found and all(state in ENDED for state in found.values()):
            return found
        heed()
        time.sleep(pause)


def all_ended(jobs: Sequence[str]) -> bool:
    """True where none of the jobs waits or runs any more."""
    return all(state in ENDED for state in states(jobs).values())


def alive(name: str) -> set[str]:
    """The ids of all jobs of this name that wait or run, in one question to Slurm."""
    return set(_slurm("squeue", "--noheader", f"--name={name}", "--format=%i").split())


def described(jobs: Sequence[str]) -> str:
    """A line for each job: its state, and why it is in it (Slurm's reason)."""
    return "\n".join(f"job {job}: {_state(job)}, reason {(_field(job, 'Reason') or ['unknown'])[0]}" for job in jobs)


def end_of_job(job: str) -> float | None:
    """The time at which a job reaches its limit, seconds since 1970; None where Slurm knows none, or is not there."""
    try:
        return datetime.fromisoformat(_field(job, "EndTime")[0]).timestamp()
    except (IndexError, ValueError, InputError):
        return None


def _state(job: str) -> str:
    # An array shows a line for each of its tasks: it is as far as the least of them.
    found = _field(job, "JobState")
    return next((state for state in found if state not in ENDED), found[0] if found else "GONE")


def _field(job: str, name: str) -> list[str]:
    """A field of `scontrol show job` in each of its lines; nothing for a job that Slurm has forgotten."""
    try:
        shown = _slurm("scontrol", "--oneliner", "show", "job", job)
    except InputError as error:
        if FORGOTTEN in str(error):
            return []
        raise
    return [word.partition("=")[2] for word in shown.split() if word.startswith(f"{name}=")]


def _slurm(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS, env=environment())
    except FileNotFoundError:
        raise InputError(
            f"`{command[0]}` is not on PATH: there is no Slurm here",
            remedy="work on a login node of the cluster, or try `tools/local-slurm up`",
        ) from None
    except subprocess.TimeoutExpired:
        raise InputError(f"`{' '.join(command)}` has no answer after {SECONDS} s", remedy="try again later") from None
    if done.returncode:
        raise InputError(
            f"`{' '.join(command)}` failed: {done.stderr.strip()}", remedy="correct what Slurm names above"
        )
    return done.stdout
