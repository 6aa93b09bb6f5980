"""`hpcfit optimize`: config -> session (device, case, grid) -> run (frames, gradient) -> fits -> results -> report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

from hpcfit.commands.monitoring import monitored
from hpcfit.commands.run import Run
from hpcfit.commands.session import Session, log_session, open_session
from hpcfit.config import Config, RunConfig
from hpcfit.errors import EXIT_REQUEUE, InputError, together
from hpcfit.fit import hooks
from hpcfit.fit.stages import Interrupted
from hpcfit.fit.stop import Stop
from hpcfit.fit.stopwatch import Stopwatch
from hpcfit.kinds.base import SteppedCase
from hpcfit.kinds.table import Kind, files_left, kind_of
from hpcfit.log import RunLog, Warned, logger
from hpcfit.machine import memory_bandwidth
from hpcfit.ranks import Ranks, keep_exit_code
from hpcfit.runs.directory import RunDirectory, check_is_writable
from hpcfit.runs.files import LOG
from hpcfit.store.locks import locked


def run_optimize(
    config: Config, world: Ranks, *, resume: Literal["newest", "auto"] | None = None, overwrite: bool = False
) -> int:
    """Fit the problem of a config on all ranks; collective.

    resume: continue from the newest checkpoint; "auto": or begin where there is none, or do nothing where this run has
    ended.
    Returns the exit code: 0, or 75 if it is to be continued.
    """
    world.on_root(lambda: check_is_writable(config.run.directory))
    with Warned() as warned, RunLog() as lines, locked(config.run.directory, world):
        return _optimize(config, world, resume, overwrite, warned, lines)


def _optimize(
    config: Config,
    world: Ranks,
    resume: Literal["newest", "auto"] | None,
    overwrite: bool,
    warned: Warned,
    lines: RunLog,
) -> int:
    phases, signals = Stopwatch(), hooks.Signals(world)
    with phases("open and check inputs"):
        directory = RunDirectory(config.run.directory)
        world.on_root(lambda: directory.recover(files_left(kind_of(config))))
        if not (resume or overwrite):
            world.on_root(directory.check_is_free)
        session = open_session(config, world, "optimize")
        if resume == "auto" and world.on_root(lambda: directory.finished_with(config, session.identity())):
            logger.info("%s holds the result of this config already: nothing to do", directory.path)
            return 0
        log_session(session)
    bandwidth = None
    if config.run.report and isinstance(session.case, SteppedCase):
        with phases("measure bandwidth"):  # which the report compares the rate of steps with
            bandwidth = memory_bandwidth()
    with phases("read frames"):
        run = Run.open(session, warned, signals)
    if (stop := signals(None)) is not None:
        return _interrupted(stop)  # nothing has been changed
    with phases("start"):
        kept = _evaluations_kept(run, directory, resume) if resume else None
        run.recorder.begin(directory, kept or 0)
        if kept is None:
            world.on_root(lambda: directory.set_aside(files_left(session.kind)))
    with _taken_back(directory, session):
        world.on_root(lambda: directory.open(config, run.recorder.count))
        world.on_root(lambda: lines.begin(directory.path / LOG))
        with monitored(run) as monitor, phases("fit"):
            run.clock, run.more = _wall_clock(config, world), monitor
            try:
                found = session.kind.part("study")(session.case, run)
            except Interrupted as interruption:
                world.on_root(partial(directory.close, interruption.stop))
                return _interrupted(interruption.stop)
    world.on_root(directory.forget_earlier)
    world.on_root(run.study.close)
    world.on_root(lambda: directory.close(Stop(run.stopped)))
    with phases("results"):
        facts = {**found, **run.facts(bandwidth)}
        facts["phases"] = [{"name": name, "seconds": seconds} for name, seconds in phases.seconds.items()]
        metrics = session.kind.part("write_results")(directory, session.case, run.result, facts)
    world.on_root(lambda: _finish(directory, session.kind, metrics, config.run, warned))
    return 0


@contextlib.contextmanager
def _taken_back(directory: RunDirectory, session: Session) -> Iterator[None]:
    """Where an error ends a run before its first step, what was there before is put back."""
    try:
        yield
    except Exception as error:
        take_back = partial(directory.take_back, files_left(session.kind))
        if getattr(error, "on_all_ranks", False):
            session.world.on_root(take_back)
        elif session.world.size == 1:  # of several, one rank alone ends the job: the next one finds what was there
            take_back()
        raise


def _wall_clock(config: Config, world: Ranks) -> list[hooks.WallClock]:
    minutes = config.optimizer.wall_clock_minutes
    return [] if minutes is None else [hooks.WallClock(world, minutes)]


def _evaluations_kept(run: Run, directory: RunDirectory, resume: Literal["newest", "auto"]) -> int | None:
    """Evaluations that the run goes on from; None to begin it, which only "auto" allows and only where no result would
    be lost."""
    kept = run.evaluations_kept()
    if kept is not None:
        logger.info("resuming after %d evaluations", kept)
        return kept
    if resume != "auto" or directory.finished():
        raise together(
            InputError(
                f"no whole checkpoint in {directory.path}",
                remedy="start anew with --overwrite, or choose another [run] directory",
            )
        )
    if directory.occupied():
        logger.info("%s holds no whole checkpoint of the run that was started there: it begins again", directory.path)
    return None


def _interrupted(stop: Stop) -> int:
    logger.info("stopped: %s", stop.reason)
    keep_exit_code()
    return EXIT_REQUEUE


def _finish(directory: RunDirectory, kind: Kind, metrics: dict[str, Any], run: RunConfig, warned: Warned) -> None:
    if run.report:
        from hpcfit.report.report import write_report

        write_report(directory.path, kind.part("report"))
    for line in kind.part("headline")(metrics):
        logger.info("%s", line)
    for warning in metrics["warnings"]:
        if warning not in warned.sentences:
            logger.warning("%s", warning)
