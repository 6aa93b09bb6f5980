"""Fits of one run that advance together, an evaluation of all of them a step, from their starts or a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from hpcfit.commands.recorder import Recorder
from hpcfit.commands.session import Session
from hpcfit.errors import HpcfitError, together
from hpcfit.fit import hooks
from hpcfit.fit.checkpoint import Checkpoints
from hpcfit.fit.gradient import Evaluation, Gradient
from hpcfit.fit.inner import OfMany
from hpcfit.fit.lbfgs import NOT_FINITE, REASONS, Ends, Lbfgs, LbfgsState
from hpcfit.fit.loop import Hook, Step, diverged
from hpcfit.fit.many import Many, one_of, side_by_side
from hpcfit.fit.not_finite import not_a_number
from hpcfit.fit.optimizers import choose_optimizer
from hpcfit.fit.problem import Params
from hpcfit.fit.stages import Fitted
from hpcfit.fit.stop import Stop
from hpcfit.log import logger


class ManyState(NamedTuple):
    """The state that a checkpoint holds. evaluations: of each fit so far."""

    fits: LbfgsState
    evaluations: np.ndarray

    @property
    def params(self) -> Params:
        """The accepted points of all fits, side by side."""
        return self.fits.params


@dataclass
class ManyFits:
    """Fits by L-BFGS that share their passes over the frames. numbers: of each in the history. heed: called after each
    step; they may end the run."""

    session: Session
    recorder: Recorder
    optimizer: Lbfgs
    evaluate: Many
    checkpoints: Checkpoints
    heed: Sequence[Hook]
    names: Sequence[str]
    numbers: Sequence[int]

    def __post_init__(self):
        self._metrics: list[dict[str, float] | None] = [None] * len(self.names)  # where each fit is, if they are known

    @classmethod
    def of(
        cls, session: Session, recorder: Recorder, checkpoints: Checkpoints, heed: Sequence[Hook], names: Sequence[str],
        gradients: Sequence[Gradient], numbers: Sequence[int], tolerance: float,
    ) -> ManyFits:  # fmt: skip
        """With the optimizer of the config. tolerance: a relative one that is enough."""
        chosen, evaluate = session.config.optimizer, Many(gradients)
        inner = OfMany(gradients[0].add, len(names))
        patience = min(chosen.patience, hooks.PATIENCE_OF_COMPARED)
        relative = max(chosen.relative_tolerance, tolerance)
        ends = Ends(chosen.max_steps, chosen.gradient_tolerance, relative, patience)
        optimizer = replace(choose_optimizer(chosen.name, chosen.options, chosen.clip_norm, inner), ends=ends)
        progress = [hooks.Progress(recorder.describe, 0)] if session.world.is_root else []
        heed = [checkpoints, *heed, *progress]
        return cls(session, recorder, optimizer, evaluate, checkpoints, heed, names, numbers)

    def run(self, starts: Sequence[Params]) -> tuple[list[Fitted], Stop | None]:
        """Their ends, or what has ended the run before; collective. Either way a checkpoint has what they have come
        to."""
        watchdog = hooks.Watchdog(self.session.world)
        self.recorder.beat = watchdog.beat
        try:
            state = side_by_side(starts)
            last, stop = self._loop(self._restart(state) or self._first(state))
        finally:
            watchdog.stop()
        self.checkpoints.save(last)
        return ([], stop) if stop is not None else (self._ended(last.state), None)

    def _restart(self, params: Params) -> Step | None:
        nothing = Evaluation(np.full(len(self.names), np.nan), params, params, None, None, {})
        template = ManyState(self.optimizer.begun(params, nothing), np.zeros(len(self.names), int))
        found = self.checkpoints.restart(template)
        return None if found is None else found.last

    def _first(self, params: Params) -> Step:
        every = np.ones(len(self.names), bool)
        here = self.evaluate(params, every)
        norm = self._record(here, every, every, np.zeros(len(self.names), int))
        fits = self.optimizer.begun(params, here)
        for n in np.flatnonzero(fits.status == NOT_FINITE):
            raise together(self._undefined(params, n))
        return Step(0, ManyState(fits, every.astype(int)), norm, ())

    def _undefined(self, params: Params, n: int) -> HpcfitError:
        where = self._not_finite_at(params, n)
        return not_a_number(where) if where else self.session.case.undefined_loss()

    def _not_finite_at(self, params: Params, n: int) -> str:
        return self.evaluate.gradients[n].not_finite_at(one_of(params, n))

    def _loop(self, last: Step) -> tuple[Step, Stop | None]:
        """Step on until all fits have ended, or one of ``heed`` ends the run."""
        while True:
            stops = [stop for stop in [hook(last) for hook in self.heed] if stop]
            if stops or not np.any(last.state.fits.going):
                return last, next((stop for stop in stops if stop.interrupted), None)
            last = self._stepped(last.state, last.number + 1)

    def _stepped(self, state: ManyState, number: int) -> Step:
        before, which = state.fits, state.fits.going
        trial = self.optimizer.trial(before)
        here = self.evaluate(trial, which)
        fits = self.optimizer.told(before, here)
        moved = fits.steps > before.steps
        # After the last trial of a search the best of all may be taken.
        at_trial = moved & (before.search.trials + 1 < self.optimizer.max_trials)
        for n in np.flatnonzero(moved & ~at_trial):
            self._metrics[n] = None
        norm = self._record(here, which, at_trial, before.steps + 1)
        for n in np.flatnonzero(fits.status == NOT_FINITE):
            raise together(diverged(float(here.loss[n]), number, self._not_finite_at(trial, n)))
        return Step(number, ManyState(fits, state.evaluations + which), norm, ())

    def _record(self, here: Evaluation, which: np.ndarray, reported: np.ndarray, steps: np.ndarray) -> float:
        """Into the history; collective. reported: of these fits the metrics as well. Gives the largest norm of a
        gradient."""
        found = self.evaluate.metrics(here, reported)
        for n, metrics in found.items():
            self._metrics[n] = metrics
        norms = self.optimizer.inner.norm(here.gradient)
        numbers = {int(n): self.numbers[n] for n in np.flatnonzero(which)}
        self.recorder.of_many(here, numbers, steps, norms, found)
        return float(np.max(norms))

    def _ended(self, state: ManyState) -> list[Fitted]:
        """The fits at their ends; collective."""
        fits = state.fits
        unknown = np.array([metrics is None for metrics in self._metrics])
        if np.any(unknown):
            found = self.evaluate.metrics(self.evaluate(fits.params, unknown), unknown)
            self._metrics = [found.get(n, metrics) for n, metrics in enumerate(self._metrics)]
        return [self._fitted(state, n) for n in range(len(self.names))]

    def _fitted(self, state: ManyState, n: int) -> Fitted:
        fits, metrics = state.fits, {"loss": float(state.fits.loss[n]), **self._metrics[n]}
        words = "  ".join(f"{key} {value:.5g}" for key, value in metrics.items())
        logger.info("%d evaluations of '%s': %s", state.evaluations[n], self.names[n], words)
        at = self.evaluate.gauged(fits.params, n)
        steps, evaluations = int(fits.steps[n]), int(state.evaluations[n])
        return Fitted(self.names[n], at, metrics, steps, evaluations, REASONS[int(fits.status[n])])
