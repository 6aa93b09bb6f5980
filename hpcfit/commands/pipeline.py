"""`hpcfit pipeline`: simulate and prepare as tasks of a cluster, then the fit on MPI ranks of a child process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hpcfit.config import ClusterConfig, Config
from hpcfit.log import logger
from hpcfit.prepare.command import run_prepare_on_cluster
from hpcfit.ranks import check_one_process
from hpcfit.workflow.launch import in_slurm, run_hpcfit
from hpcfit.workflow.stopping import stopped_by_signals


def run_pipeline(
    path: Path, config: Config, overrides: Sequence[str] = (), ranks: int | None = None, rounds: int | None = None
) -> int:
    """Make what is missing of trajectories and store, and begin, continue or leave the fit; the exit code of the fit.

    path, overrides: where `config` came from, for the ranks. rounds: of a simulation and a fit each, where there are to
    be several. The cluster is closed before ranks start: cores and memory are theirs. Raises InputError, and Stopped at
    a signal; during the fit signals are passed on to it.
    """
    check_one_process(
        "while `hpcfit pipeline` is one process that starts workers and ranks itself",
        "call it in the batch script without srun or mpiexec",
    )
    config.require_fit(command="pipeline")
    config = config.model_copy(update={"cluster": config.cluster or _cluster_here()})
    ranks = ranks or int(os.environ.get("SLURM_NTASKS", 1))
    with stopped_by_signals():
        if rounds is not None:
            from hpcfit.commands.rounds import run_rounds

            return run_rounds(config, rounds, ranks)
        if config.simulate is not None:
            from hpcfit.commands.simulate import run_simulate

            run_simulate(config)
        if config.frames is not None:  # not every kind of problem reads a store
            run_prepare_on_cluster(config)
        logger.info("optimize on %d ranks", ranks)
        sets = [word for text in overrides for word in ("--set", text)]
        return run_hpcfit("optimize", str(path), "--resume", "auto", *sets, ranks=ranks)


def _cluster_here() -> ClusterConfig:
    """Without a [cluster] table: the tasks of this Slurm job, or the cores of this machine."""
    return ClusterConfig(kind="allocation" if in_slurm() else "local")
