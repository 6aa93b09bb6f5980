"""The fits of one run, put together: gradient, optimizer, recorder, checkpoints and hooks for a session."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from hpcfit.commands.many_fits import ManyFits
from hpcfit.commands.recorder import Recorder
from hpcfit.commands.session import Session
from hpcfit.config import OptimizerConfig
from hpcfit.errors import together
from hpcfit.fit import hooks
from hpcfit.fit.checkpoint import Checkpoints, Record, Records, Stages
from hpcfit.fit.gradient import NO_ROWS, Evaluation, Gradient, no_rows_of
from hpcfit.fit.grid import Grid
from hpcfit.fit.inner import combine
from hpcfit.fit.loop import Hook, Outcome, Step, Stop, fit
from hpcfit.fit.many import batches, share_frames
from hpcfit.fit.not_finite import not_a_number
from hpcfit.fit.optimizers import MakeOptimizer, Optimizer, choose_optimizer
from hpcfit.fit.problem import Params
from hpcfit.fit.reduction import choose_sum
from hpcfit.fit.stages import Fitted, Interrupted, Result, StageRunner, Until, Work, heeded
from hpcfit.kinds.base import SteppedCase
from hpcfit.log import Warned, logger
from hpcfit.runs.study import StudyFile

T = TypeVar("T")


@dataclass
class Run:
    """The parts of one run. It is what a case's study is given (``fit.stages.Fits``)."""

    session: Session
    evaluate: Gradient | None
    recorder: Recorder
    records: Records
    stages: Stages
    study: StudyFile
    warned: Warned
    signals: hooks.Signals
    clock: Sequence[Hook] = ()  # and when it has made some progress
    more: Sequence[Hook] = ()  # further hooks of every fit
    warnings: list[str] = field(default_factory=list)
    result: Result | None = None
    counted: int = 0  # evaluations of the fits that have ended
    names: list[str] = field(default_factory=list)
    progressed: bool = False  # whether this job has done something that is kept

    @classmethod
    def open(cls, session: Session, warned: Warned, signals: hooks.Signals) -> Run:
        """Read this rank's frames, where the case knows already what to fit, and build gradient and recorder; both are
        None where a signal came. warned: of what was read on this rank."""
        config, grid = session.config, session.grid
        add = choose_sum(config.run.reductions, grid)
        # Ranks that share frames find the same damaged shard: one error is enough.
        evaluate = None
        if isinstance(session.case, SteppedCase):
            read = partial(session.case.gradient, grid, session.device.memory, add)
            evaluate = session.world.on_all(lambda: signals.unless_received(read))
        recorder = Recorder(evaluate, session.world)
        limits = config.optimizer.model_dump_json(exclude={"wall_clock_minutes"})
        folder, identity = config.run.directory / "fits", session.identity()
        records = Records(folder, grid, identity, limits)
        stages = Stages(folder, session.world, identity)
        return cls(session, evaluate, recorder, records, stages, StudyFile(config.run.directory), warned, signals)

    @property
    def grid(self) -> Grid:
        """See ``fit.stages.Fits``."""
        return self.session.grid

    def evaluations_kept(self) -> int | None:
        """Evaluations until the newest checkpoint or record of a fit, from which a continued run goes on; 0 where there
        are only stages, None where there is nothing. Raises InputError for what is of another run. Collective."""
        no_rows = np.empty((0, self.session.case.block_frames), np.int64)
        checkpoint = self._checkpoints("", self.session.grid, no_rows).newest_evaluations()
        recorded, staged = self.session.world.on_root(lambda: (self.records.evaluations(), self.stages.any()))
        return max(checkpoint or 0, recorded) if checkpoint is not None or recorded or staged else None

    def _checkpoints(self, name: str, grid: Grid, ids: np.ndarray) -> Checkpoints:
        saves = self.session.config.checkpoint
        return Checkpoints(
            self.session.config.run.directory / "checkpoints", grid, ids, self.session.identity(),
            lambda: self.recorder.count, name, saves.keep, saves.every_steps, saves.every_minutes,
        )  # fmt: skip

    # ---- what a study asks for -------------------------------------------------------------------------------------

    def announce(self, names: Sequence[str]) -> None:
        """See ``fit.stages.Fits``."""
        self.session.world.on_root(lambda: self.study.announce(names))

    def warn(self, sentences: Sequence[str]) -> None:
        """See ``fit.stages.Fits``."""
        self.warnings.extend(sentences)

    def heeded(self, items: Iterator[T]) -> list[T]:
        """See ``fit.stages.Fits``."""
        return heeded(self.session.world, items, lambda: self._stop(progressed=False))

    def on_root(self, function: Callable[[], T]) -> T:
        """See ``fit.stages.Fits``."""
        found = self.session.world.on_root(lambda: self.signals.unless_received(function))
        if (stop := self._stop(progressed=False)) is not None:
            raise Interrupted(stop)
        return found

    def _stop(self, progressed: bool) -> Stop | None:
        """What ends the run now; collective. progressed: whether something was done that is kept; a job remembers."""
        self.progressed = self.progressed or progressed
        if progressed:
            self._forget_earlier()
        every = [self.signals, *(self.clock if self.progressed else ())]
        return next((stop for stop in [hook(None) for hook in every] if stop), None)

    def _step_taken(self, step: Step) -> None:
        """As a hook: from the first step on this run replaces the one that was there."""
        if step.number > 0:
            self._forget_earlier()

    def _forget_earlier(self) -> None:
        if self.session.world.is_root and self.recorder.directory is not None:
            self.recorder.directory.forget_earlier()

    def _begin(self, name: str) -> None:
        self.names.append(name)
        self.session.world.on_root(lambda: self.study.begin(name))

    # ---- stages ----------------------------------------------------------------------------------------------------

    def stage(self, name: str, work: Work, inputs: Mapping[str, str]) -> dict[str, np.ndarray]:
        """See ``fit.stages.Fits``."""
        self.session.world.on_root(lambda: self.study.begin(name))
        product = StageRunner(self.stages, self._stop).run(name, work, inputs)
        self.study.end(name)
        return product

    # ---- fits ------------------------------------------------------------------------------------------------------

    def fit(
        self, name: str, start: Params, evaluate: Gradient | None = None, *, optimizer: MakeOptimizer | None = None,
        until: Until | None = None, tolerance: float = 0.0, also: Hook | None = None,
    ) -> Fitted:  # fmt: skip
        """See ``fit.stages.Fits``. Raises Interrupted."""
        evaluate = evaluate or self.evaluate
        self._begin(name)
        self.recorder.next_fit(evaluate)
        record = self._records_of(evaluate).load(name, start, no_rows_of(evaluate))
        if record is not None:
            self.recorder.fit_ended(record.facts["steps"])
            return self._remembered(name, record)
        one = OneFit.of(self, name, evaluate, optimizer or self._optimizer, until, tolerance)
        also = [] if also is None else [also]
        if not tolerance:
            logger.info("fit '%s'", name)
        outcome = one.loop(one.restart(start) or one.first_step(start), [self._step_taken, *also])
        self.progressed = True
        if outcome.stop.interrupted:
            one.checkpoints.save(outcome.last)
            raise Interrupted(outcome.stop)
        if not tolerance:
            logger.info("stopped after step %d: %s", outcome.last.number, outcome.stop.reason)
        fitted = self._ended(name, evaluate, outcome)
        self.recorder.fit_ended(fitted.steps)
        self.study.end(name)
        self._keep(fitted, evaluate)
        one.checkpoints.save(outcome.last)
        return fitted

    def fit_many(
        self, names: Sequence[str], starts: Sequence[Params], gradients: Sequence[Gradient], *, tolerance: float
    ) -> list[Fitted]:
        """See ``fit.stages.Fits``. Raises Interrupted."""
        if not (self.session.config.optimizer.name == "lbfgs" and share_frames(gradients)):
            return [
                self.fit(name, start, evaluate, tolerance=tolerance)
                for name, start, evaluate in zip(names, starts, gradients)
            ]
        for name in names:
            self._begin(name)
        numbers = self.recorder.next_fits(len(names))
        records = self._records_of(gradients[0])
        found = {name: records.load(name, start, NO_ROWS) for name, start in zip(names, starts)}
        fits = {name: self._remembered(name, record) for name, record in found.items() if record is not None}
        left = [n for n, name in enumerate(names) if name not in fits]
        for part in batches(len(left)):
            chosen = lambda of_all, part=part: [of_all[n] for n in left[part]]  # noqa: E731
            for fitted in self._many(chosen(names), chosen(starts), chosen(gradients), chosen(numbers), tolerance):
                fits[fitted.name] = fitted
        self.recorder.fit_ended(max(fitted.steps for fitted in fits.values()))
        return [fits[name] for name in names]

    def _many(
        self, names: Sequence[str], starts: Sequence[Params], gradients: Sequence[Gradient], numbers: Sequence[int],
        tolerance: float,
    ) -> list[Fitted]:  # fmt: skip
        """The fits that have not ended before. They are kept when all have ended; until then a checkpoint has them."""
        checkpoints = self._checkpoints("; ".join(names), self.grid, self.evaluate.frames.rows.ids)
        heed = [self._step_taken, self.signals, *self.clock, *self.more]
        together = ManyFits.of(self.session, self.recorder, checkpoints, heed, names, gradients, numbers, tolerance)
        ended, stop = together.run(starts)
        self.progressed = True
        if stop is not None:
            raise Interrupted(stop)
        self.counted = self.recorder.count
        for fitted in ended:
            self.study.end(fitted.name)
            self._keep(fitted, gradients[0])
        return ended

    @property
    def _optimizer(self) -> MakeOptimizer:
        """The optimizer of the config."""
        chosen = self.session.config.optimizer
        return partial(choose_optimizer, chosen.name, chosen.options, chosen.clip_norm)

    def _ended(self, name: str, evaluate: Gradient, outcome: Outcome) -> Fitted:
        # Since the fit before ended: some may be those of a run that was interrupted.
        evaluations, self.counted = self.recorder.count - self.counted, self.recorder.count
        state = outcome.last.state
        at = self.recorder.at(state.params)
        metrics = {"loss": float(state.loss), **evaluate.metrics(at)}
        words = "  ".join(f"{key} {value:.5g}" for key, value in metrics.items())
        logger.info("%d evaluations of '%s': %s", evaluations, name, words)
        return Fitted(name, at.params, metrics, outcome.last.number, evaluations, outcome.stop.reason, at.rows)

    def _records_of(self, evaluate: Gradient) -> Records:
        """The records of fits by this gradient, whose grid, which may be another than the run's, says who holds which
        rows."""
        return replace(self.records, grid=evaluate.grid)

    def _keep(self, fitted: Fitted, evaluate: Gradient) -> None:
        facts = {key: value for key, value in fitted._asdict().items() if key not in ("params", "rows", "name")}
        self._records_of(evaluate).save(fitted.name, Record(fitted.params, fitted.rows, facts, self.recorder.count))

    def _remembered(self, name: str, record: Record) -> Fitted:
        self.counted = record.evaluations
        self.study.end(name)
        return Fitted(name, record.params, **record.facts, rows=record.rows)

    def final(self, fitted: Fitted, evaluate: Gradient | None = None) -> None:
        """See ``fit.stages.Fits``."""
        self.result = Result(fitted, evaluate or self.evaluate)

    @property
    def stopped(self) -> str:
        """Why the run has ended."""
        return "all is done" if self.result is None else self.result.fitted.stopped

    # ---- what the results say of the run ---------------------------------------------------------------------------

    def facts(self, bandwidth: float | None) -> dict[str, Any]:
        """About the run rather than the result, and of its final fit, if there is one; collective.

        bandwidth: of this rank's memory, bytes per second; None where no rank has measured it.
        """
        grid = self.session.grid
        facts = {
            "identity": self.session.identity(),
            "ranks": self.session.world.size,
            "grid": [grid.shape.frames, grid.shape.slices],
            "grid_reason": grid.shape.reason,
            "fits": self.names,
            "warnings": self._all_warnings(),
            "evaluations_of_all_fits": self.recorder.count,
        }
        return facts if self.result is None else facts | self._facts_of_fit(bandwidth)

    def _all_warnings(self) -> list[str]:
        """The warnings of what was read, on any rank, and those of the study, each once; collective."""
        logged = self.session.world.gather(self.warned.sentences) or []
        return list(dict.fromkeys([*(sentence for rank in logged for sentence in rank), *self.warnings]))

    def _facts_of_fit(self, bandwidth: float | None) -> dict[str, Any]:
        """Why the final fit stopped, steps, rate; collective."""
        spent, fitted = self.recorder.spent, self.result.fitted
        passes = self.result.evaluate.passes
        rate = self.recorder.rate(self.session.case.bytes_held(self.session.grid))
        rates = self.session.world.gather((rate, bandwidth))
        if rates is None:
            return {}
        return {
            "passes": passes,
            "stopped": fitted.stopped,
            "steps": fitted.steps,
            "loss": fitted.metrics["loss"],
            "evaluations": fitted.evaluations,
            "final_fit": self.names.index(fitted.name) if fitted.name in self.names else None,
            "rate": _mean_rate(rates),
            "reduce_share": spent.get("reduce", 0.0) / max(sum(spent.values()), 1e-9),
        }


def _mean_rate(rates: list[tuple[float, float | None]]) -> dict[str, float]:
    """The mean rate of all ranks, and the bandwidth of their memory beside it where it was measured."""
    reached = np.mean([rate for rate, _ in rates])
    found = {"gb_per_s_per_rank": reached / 1e9}
    if any(bandwidth is None for _, bandwidth in rates):
        return found
    reference = np.mean([bandwidth for _, bandwidth in rates])
    return found | {"bandwidth_gb_per_s": reference / 1e9, "fraction": reached / reference}


@dataclass(frozen=True)
class OneFit:
    """One fit of a run, from its start or its checkpoint to its end."""

    run: Run
    until: Until | None
    tolerance: float
    optimizer: Optimizer
    checkpoints: Checkpoints

    @classmethod
    def of(
        cls, run: Run, name: str, evaluate: Gradient, make: MakeOptimizer, until: Until | None, tolerance: float
    ) -> OneFit:
        """With an optimizer for a gradient of its own."""
        checkpoints = run._checkpoints(name, evaluate.grid, evaluate.frames.rows.ids)
        return cls(run, until, tolerance, make(run.recorder.inner, evaluate), checkpoints)

    def restart(self, start: Params) -> Step | None:
        """The step at which the newest checkpoint of this fit left it, or None; collective."""
        rows = no_rows_of(self.run.recorder.evaluate)
        nothing = lambda p: Evaluation(np.nan, combine([0.0], [p]), p, None, None, {}, rows)  # noqa: E731
        template = self.optimizer.start(start, nothing)
        found = self.checkpoints.restart(template)
        return None if found is None else found.last

    def first_step(self, start: Params) -> Step:
        """The state at the start, evaluated."""
        state = self.optimizer.start(start, self.run.recorder)
        if not np.isfinite(state.loss):
            where = self.run.recorder.evaluate.not_finite_at(state.params)
            raise together(not_a_number(where) if where else self.run.session.case.undefined_loss())
        return Step(0, state, self.run.recorder.inner.norm(state.gradient), (state.loss,))

    def loop(self, last: Step, also: Sequence[Hook]) -> Outcome:
        """Iterate until a hook ends the fit. also: further hooks of this fit."""
        recorder = self.run.recorder
        watchdog = hooks.Watchdog(self.run.session.world)
        recorder.beat = watchdog.beat
        try:
            of_fit = self._hooks(self.run.session.config.optimizer)
            every = [recorder.after, *also, *of_fit, self.run.signals, *self.run.clock, *self.run.more]
            return fit(self.optimizer, recorder, recorder.inner.norm, every, last, recorder.evaluate.not_finite_at)
        finally:
            watchdog.stop()

    def _hooks(self, chosen: OptimizerConfig) -> list[Any]:
        compared = self.tolerance > 0
        lines = 0 if compared else math.inf  # of many short fits that are only compared, one line each is enough
        patience = min(chosen.patience, hooks.PATIENCE_OF_COMPARED) if compared else chosen.patience
        describe = self.run.recorder.describe
        progress = [hooks.Progress(describe, lines)] if self.run.session.world.is_root else []
        signs = {
            "small gradient": hooks.SmallGradient(chosen.gradient_tolerance),
            "small change": hooks.SmallChange(max(chosen.relative_tolerance, self.tolerance), patience),
        }
        converged: list[Any] = [signs[sign] for sign in self.optimizer.stops_on]
        if self.until is not None:
            values = partial(self.run.recorder.of_this_fit, self.until.metric)
            converged.append(hooks.HeldOut(self.run.session.world, values, self.until.floor, chosen.patience))
        return [*converged, hooks.MaxSteps(chosen.max_steps), self.checkpoints, *progress]
