"""One fit, put together: gradient, optimizer, recorder, checkpoints and hooks for a session."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpcfit.commands.session import Session
from hpcfit.config import OptimizerConfig
from hpcfit.errors import together
from hpcfit.fit import hooks
from hpcfit.fit.cost import PASSES
from hpcfit.fit.gradient import Evaluation, Reverse
from hpcfit.fit.inner import InnerProduct, combine
from hpcfit.fit.loop import Hook, Outcome, Step, fit
from hpcfit.fit.optimizers import choose_optimizer
from hpcfit.fit.reduction import choose_sum
from hpcfit.problems.base import Params
from hpcfit.ranks import Ranks
from hpcfit.results.checkpoint import Checkpoints
from hpcfit.results.run_directory import RunDirectory


@dataclass
class Recorder:
    """``evaluate`` for optimizers: counts, and writes one row of history for each evaluation on root."""

    evaluate: Reverse
    inner: InnerProduct
    world: Ranks
    directory: RunDirectory | None = None
    count: int = 0
    step: int = 0  # that the next evaluation belongs to
    params: Params | None = None  # of the last evaluation, gauged
    timed: int = -1
    started: float = field(default_factory=time.perf_counter)
    beat: Callable[[], None] = lambda: None  # told of each evaluation
    last: dict[str, float] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)

    def begin(self, directory: RunDirectory, count: int) -> None:
        """Write to ``directory`` from evaluation ``count`` on."""
        self.directory, self.count, self.started = directory, count, time.perf_counter()

    def __call__(self, params: Params) -> Evaluation:
        """Evaluate and record; collective."""
        evaluation = self.evaluate(params)
        self.count += 1
        norm = self.inner.norm(evaluation.gradient)
        metrics = self.evaluate.metrics(evaluation)
        self.last = {"evaluation": self.count, "loss": evaluation.loss, **metrics, "gradient_norm": norm}
        self.params = evaluation.params
        self._add_times(evaluation.seconds)
        self.beat()
        if self.world.is_root:
            self.directory.add_evaluation(self._row(evaluation))
        return evaluation

    def after(self, step: Step) -> None:
        """As a hook: what is evaluated from now on belongs to the next step."""
        self.step = step.number + 1

    def _add_times(self, seconds: dict[str, float]) -> None:
        """From the second evaluation on: the first one compiles."""
        self.timed += 1
        if self.timed > 0:
            for name, value in seconds.items():
                self.spent[name] = self.spent.get(name, 0.0) + value

    def _row(self, evaluation: Evaluation) -> dict[str, float]:
        seconds = {f"{name}_seconds": value for name, value in evaluation.seconds.items()}
        return {"step": self.step, **self.last, "seconds": time.perf_counter() - self.started, **seconds}

    def describe(self) -> str:
        """The last evaluation in a line."""
        return "  ".join(
            f"{name} {value:.6g}" for name, value in self.last.items() if name not in ("loss", "gradient_norm")
        )


@dataclass(frozen=True)
class Run:
    """The parts of one fit, put together."""

    session: Session
    evaluate: Reverse
    recorder: Recorder
    optimizer: Any
    inner: InnerProduct
    checkpoints: Checkpoints

    @classmethod
    def open(cls, session: Session) -> Run:
        """Read this rank's frames and build gradient, optimizer and checkpoints."""
        config, grid, case = session.config, session.grid, session.case
        add = choose_sum(config.run.reductions, grid)
        inner = InnerProduct(add)
        problem, frames = case.problem(grid), case.frames(grid, session.device.memory)
        chosen = config.optimizer
        optimizer = choose_optimizer(
            chosen.name, chosen.options, chosen.clip_norm, inner, lambda p: problem.metric(p, frames.rows)
        )
        evaluate = Reverse(problem, frames, grid, add)
        recorder = Recorder(evaluate, inner, session.world)
        saves = config.checkpoint
        checkpoints = Checkpoints(
            config.run.directory / "checkpoints", grid, evaluate.frames.rows.ids, session.identity(),
            lambda: recorder.count, saves.keep, saves.every_steps, saves.every_minutes,
        )  # fmt: skip
        return cls(session, evaluate, recorder, optimizer, inner, checkpoints)

    def start(self) -> Params:
        """Where the fit starts."""
        return self.evaluate.problem.init(self.session.config.run.seed, self.evaluate.frames.rows)

    def template(self) -> Any:
        """A state of the right structure, for a checkpoint to fill."""
        params = self.start()
        return self.optimizer.start(params, lambda p: Evaluation(np.nan, combine([0.0], [p]), p, None, None, {}))

    def first_step(self) -> Step:
        """The state at the start, evaluated."""
        state = self.optimizer.start(self.start(), self.recorder)
        if not np.isfinite(state.loss):
            raise together(self.session.case.undefined_loss())
        return Step(0, state, self.inner.norm(state.gradient), (state.loss,))

    def loop(self, last: Step, *more: Hook) -> Outcome:
        """Iterate until a hook of the config, or one more, ends the run."""
        watchdog = hooks.Watchdog(self.session.world)
        self.recorder.beat = watchdog.beat
        try:
            return fit(
                self.optimizer,
                self.recorder,
                self.inner.norm,
                [self.recorder.after, *self._hooks(self.session.config.optimizer), *more],
                last,
            )
        finally:
            watchdog.stop()

    def _hooks(self, chosen: OptimizerConfig) -> list[Any]:
        world = self.session.world
        clock = [] if chosen.wall_clock_minutes is None else [hooks.WallClock(world, chosen.wall_clock_minutes)]
        progress = [hooks.Progress(self.recorder.describe)] if world.is_root else []
        return [
            hooks.SmallGradient(chosen.gradient_tolerance),
            hooks.SmallChange(chosen.relative_tolerance, chosen.patience),
            hooks.MaxSteps(chosen.max_steps),
            *clock, self.checkpoints, *progress,
        ]  # fmt: skip

    def facts(self, outcome: Outcome, bandwidth: float) -> dict[str, Any]:
        """About the run rather than the result: why it stopped, steps, rate; collective."""
        grid, spent = self.session.grid, self.recorder.spent
        passes = PASSES * self.session.case.bytes_held(grid) * max(self.recorder.timed, 0)
        rates = self.session.world.gather((passes / (spent["compute"] + spent["read"]) if spent else 0.0, bandwidth))
        if rates is None:
            return {}
        rate, reference = np.mean(rates, axis=0)
        return {
            "identity": self.session.identity(),
            "ranks": self.session.world.size,
            "grid": [grid.shape.frames, grid.shape.slices],
            "grid_reason": grid.shape.reason,
            "stopped": outcome.stop.reason,
            "steps": outcome.last.number,
            "loss": float(outcome.last.state.loss),
            "evaluations": self.recorder.count,
            "rate": {
                "gb_per_s_per_rank": rate / 1e9,
                "bandwidth_gb_per_s": reference / 1e9,
                "fraction": rate / reference,
            },
            "reduce_share": spent.get("reduce", 0.0) / max(sum(spent.values()), 1e-9),
        }
