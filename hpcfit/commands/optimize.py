"""`hpcfit optimize`: config -> session (device, case, grid) -> run (frames, gradient) -> loop -> results -> report."""

from __future__ import annotations

from typing import Any

from hpcfit.commands.run import Run
from hpcfit.commands.session import log_session, open_session
from hpcfit.config import Config, RunConfig
from hpcfit.errors import EXIT_REQUEUE
from hpcfit.fit import hooks
from hpcfit.fit.gradient import Stopwatch
from hpcfit.log import logger
from hpcfit.machine import memory_bandwidth
from hpcfit.ranks import Ranks
from hpcfit.results.run_directory import RunDirectory, check_is_writable


def run_optimize(config: Config, world: Ranks, *, resume: bool = False, overwrite: bool = False) -> int:
    """Fit the problem of a config on all ranks; collective.

    Returns the exit code: 0, or 75 if it is to be continued.
    """
    phases, signals = Stopwatch(), hooks.Signals(world)
    with phases("open and check inputs"):
        directory = RunDirectory(config.run.directory)
        world.on_root(lambda: check_is_writable(directory.path))
        if not (resume or overwrite):
            world.on_root(directory.check_is_free)
        session = open_session(config, world, "optimize")
        log_session(session)
    with phases("measure bandwidth"):
        bandwidth = memory_bandwidth()
    with phases("read frames"):
        run = Run.open(session)
    with phases("start"):
        restart = run.checkpoints.restart(run.template()) if resume else None
        run.recorder.begin(directory, restart.evaluations if restart else 0)
        if overwrite and not resume:
            world.on_root(directory.clear)  # only now: what could be wrong with the new run has been found
        world.on_root(lambda: directory.open(config, run.recorder.count))
        last = restart.last if restart else run.first_step()
    with phases("fit"):
        outcome = run.loop(last, signals)
    with phases("write checkpoint"):
        run.checkpoints.save(outcome.last)
    logger.info("stopped after step %d: %s", outcome.last.number, outcome.stop.reason)
    if outcome.stop.interrupted:
        world.on_root(directory.close)
        return EXIT_REQUEUE
    with phases("results"):
        world.on_root(directory.close)
        facts = run.facts(outcome, bandwidth)
        facts["phases"] = [{"name": name, "seconds": seconds} for name, seconds in phases.seconds.items()]
        metrics = session.case.write_results(directory, run.evaluate, outcome.last.state.params, facts)
    world.on_root(lambda: _finish(directory, metrics, config.run))
    return 0


def _finish(directory: RunDirectory, metrics: dict[str, Any], run: RunConfig) -> None:
    if run.report:
        from hpcfit.results.report import write_report

        write_report(directory.path)
    fitted, uniform = metrics["fitted"], metrics["uniform"]
    for name in fitted:
        logger.info("%-16s %.6f  (uniform weights: %.6f)", name, fitted[name], uniform[name])
    for warning in metrics["warnings"]:
        logger.warning("%s", warning)
