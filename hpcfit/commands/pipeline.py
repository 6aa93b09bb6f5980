"""`hpcfit pipeline`: simulate and prepare as tasks of a cluster, then the fit on MPI ranks of a child process.

With --rounds a simulation and a fit a round, each of which continues the last.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hpcfit.commands.simulate import run_simulate, simulate_all
from hpcfit.config import ClusterConfig, Config
from hpcfit.errors import InputError
from hpcfit.kinds.base import Rounds
from hpcfit.kinds.table import kind_of, load_config
from hpcfit.log import logger
from hpcfit.prepare.command import run_prepare_on_cluster
from hpcfit.ranks import Ranks, check_one_process
from hpcfit.store.files import write_csv, write_text
from hpcfit.store.locks import locked
from hpcfit.workflow.launch import in_slurm, run_hpcfit
from hpcfit.workflow.stopping import stopped_by_signals

TABLE = "rounds.csv"


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
            return _run_rounds(config, rounds, ranks)
        if config.simulate is not None:
            run_simulate(config)
        if config.frames is not None:  # not every kind of problem reads a store
            run_prepare_on_cluster(config)
        logger.info("optimize on %d ranks", ranks)
        sets = [word for text in overrides for word in ("--set", text)]
        return run_hpcfit("optimize", str(path), "--resume", "auto", *sets, ranks=ranks)


def _run_rounds(config: Config, rounds: int, ranks: int) -> int:
    """Make so many rounds, or what is missing of them; the exit code of the first fit that does not end, else 0.

    Raises InputError, and Stopped at a signal; during a fit signals are passed on to it.
    """
    if rounds < 1:
        raise InputError(f"--rounds {rounds}: there is nothing to do", remedy="give a number from 1 on")
    kind = kind_of(config)
    if not kind.rounds:
        raise InputError(
            f"[problem] kind = '{config.problem.kind}' has no rounds", remedy="call `hpcfit pipeline` without --rounds"
        )
    plan: Rounds = kind.part("rounds")(config)
    plan.check()
    with locked(config.run.directory, Ranks()):
        return _rounds(config, plan, rounds, ranks)


def _rounds(config: Config, plan: Rounds, rounds: int, ranks: int) -> int:
    rows = []
    for number in range(1, rounds + 1):
        if code := _made(plan, number, ranks):
            return code
        rows.append(plan.row(number))
        write_csv(config.run.directory / TABLE, list(rows[-1]), [row.values() for row in rows])
        logger.info("round %d of %d: %s", number, rounds, _in_words(rows[-1]))
    return 0


def _made(plan: Rounds, number: int, ranks: int) -> int:
    """Simulate and fit, or what is missing of it; the exit code of the fit."""
    folder = plan.folder(number)
    path: Path = folder.with_suffix(".toml")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, plan.fit(number).to_toml())
    settings = load_config(path)  # what is wrong is said before the simulation
    simulate_all(plan.simulations(number), settings.cluster)
    logger.info("optimize round %d on %d ranks", number, ranks)
    return run_hpcfit("optimize", str(path), "--resume", "auto", ranks=ranks)


def _in_words(row: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in row.items() if name != "round")


def _cluster_here() -> ClusterConfig:
    """Without a [cluster] table: the tasks of this Slurm job, or the cores of this machine."""
    return ClusterConfig(kind="allocation" if in_slurm() else "local")
