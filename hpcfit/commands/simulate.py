"""`hpcfit simulate`: replicas of molecular dynamics as tasks of a Dask cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hpcfit.config import ClusterConfig, Config, SimulateConfig
from hpcfit.errors import HpcfitError, InputError, together
from hpcfit.log import logger
from hpcfit.physics.openmm_library import import_openmm
from hpcfit.ranks import Ranks
from hpcfit.simulation.dynamics import CALMER
from hpcfit.simulation.replica_run import Failed, Simulated, attempt_replica, is_finished
from hpcfit.simulation.replicas import Replica, all_replicas
from hpcfit.simulation.solution import write_solutions
from hpcfit.store.locks import check_free, locked
from hpcfit.store.pieces import check_finished, write_settings
from hpcfit.workflow.cluster.crew import Crew
from hpcfit.workflow.cluster.opening import open_cluster


def run_simulate(config: Config) -> list[Simulated]:
    """Make every replica of `config`, or what is missing of them; what was made now.

    Raises InputError for a folder that was begun with other settings, before anything is started, and at the end for
    replicas whose atoms flew off.
    """
    config.require("simulate", command="simulate")
    if config.simulate.directory is None or not config.simulate.system:
        raise together(
            InputError(
                "[simulate] has no `directory`, or no [[simulate.system]]",
                remedy="add them; without them it is for rounds, `hpcfit pipeline --rounds`",
            )
        )
    return simulate_all([config.simulate], config.cluster or ClusterConfig())


def simulate_all(simulations: Sequence[SimulateConfig], cluster: ClusterConfig) -> list[Simulated]:
    """Make the replicas of simulations in one folder and as long as each other; see ``run_simulate``."""
    try:
        replicas, missing = _replicas(simulations)
    except HpcfitError as error:
        raise together(error) from None  # under srun with [cluster] kind = "allocation" all tasks come here
    first, complete = simulations[0], len(replicas) - len(missing)
    said = f"{len(replicas)} replicas of {first.frames} frames each, {complete} complete"
    if not missing:
        logger.info("simulate %s: %s", first.directory, said)
        return []
    with open_cluster(cluster, "simulate") as crew, locked(first.directory, Ranks()):
        logger.info("simulate %s: %s", first.directory, said)
        return _simulated(crew, missing)


def _replicas(simulations: Sequence[SimulateConfig]) -> tuple[list[Replica], list[Replica]]:
    """All replicas, each with its folder begun, and those that lack frames."""
    import_openmm()
    check_free(simulations[0].directory)
    for one in simulations:
        write_solutions(one)
    replicas = [replica for one in simulations for replica in all_replicas(one)]
    for replica in replicas:
        write_settings(replica.folder, replica.settings)
    return replicas, [replica for replica in replicas if not is_finished(replica)]


def _simulated(crew: Crew, missing: list[Replica]) -> list[Simulated]:
    begun = time.monotonic()
    # A replica may lose its worker to each time limit or preemption, as long as every time brings it a piece further.
    retries = 3 + max(-(-replica.simulate.frames // replica.simulate.piece) for replica in missing)
    names = [replica.name for replica in missing]
    done, failed = [], []
    for _, result in crew.completed(attempt_replica, missing, names=names, title="replicas", retries=retries):
        (failed if isinstance(result, Failed) else done).append(result)
        logger.info("%s (%d of %d)", _sentence(result), len(done) + len(failed), len(missing))
    _check_chains(missing, done)
    if done:
        _log_table(sorted(done), time.monotonic() - begun)
    if failed:
        lines = "\n  ".join(replica.why for replica in sorted(failed)[:10])
        raise InputError(f"{len(failed)} of {len(missing)} replicas were stopped:\n  {lines}", remedy=CALMER)
    return done


def _check_chains(replicas: list[Replica], done: list[Simulated]) -> None:
    """Raise InputError unless those done have all frames still: an attempt given up for lost may have written since."""
    names = {simulated.name for simulated in done}
    for replica in replicas:
        if replica.name in names:
            check_finished(replica.folder, None)


def _sentence(result: Simulated | Failed) -> str:
    if isinstance(result, Failed):
        return f"stopped: {result.why}"
    return f"{result.name}: {result.frames} frames, {result.rate:.3g} ns/day"


def _log_table(done: list[Simulated], seconds: float) -> None:
    width = max(len(simulated.name) for simulated in done)
    logger.info(f"{'replica':{width}}  frames    made   ns made    ns/day  platform   worker")
    for s in done:
        numbers = f"{s.frames:6d}  {s.made:6d}  {s.nanoseconds:8.4g}  {s.rate:8.3g}"
        logger.info(f"{s.name:{width}}  {numbers}  {s.platform:9}  {s.worker}")
    made = sum(simulated.nanoseconds for simulated in done)
    logger.info("%.3g ns in %.1f s, %.3g ns/day of all workers", made, seconds, made / seconds * 86400)
