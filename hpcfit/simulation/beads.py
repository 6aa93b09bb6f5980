"""Short Langevin simulations of a coarse-grained model by the ranks of a fit, as a stage.

A walker is a function of the seed and its number alone, so that its frames are the same on whatever rank walks it. It
goes in segments of `SEGMENT` steps. Each begins with what the one before has left (`Trail`) and, in OpenMM, with random
numbers of its own: so a walker that was interrupted between two segments goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from hpcfit.errors import InputError
from hpcfit.fit.stages import PART
from hpcfit.ranks import Ranks
from hpcfit.simulation.dynamics import FURTHEST, Exploded

SEGMENT = 500  # steps
State = dict[str, np.ndarray]


@dataclass(frozen=True)
class Langevin:
    """temperature: K; friction: 1/ps; step, interval (between frames), equilibration (before the first): ps."""

    temperature: float
    frames: int
    interval: float = 0.2
    step: float = 0.01
    friction: float = 1.0
    equilibration: float = 0.0
    seed: int = 0

    def __post_init__(self):
        if not (self.temperature > 0 and self.friction > 0 and 0 < self.step <= self.interval and self.frames >= 1):
            raise InputError(
                f"temperature = {self.temperature}, friction = {self.friction}, step = {self.step},"
                f" interval = {self.interval}, frames = {self.frames} are no simulation",
                remedy="all must be positive, and step no longer than interval",
            )

    @property
    def stride(self) -> int:
        """Steps from frame to frame."""
        return round(self.interval / self.step)

    @property
    def steps_before(self) -> int:
        """Steps of the equilibration."""
        return round(self.equilibration / self.step)

    @property
    def steps(self) -> int:
        """All steps of a walker."""
        return self.steps_before + self.frames * self.stride

    def next_frame(self, steps: int) -> int:
        """Steps until the first frame that comes after so many."""
        return self.steps_before + (max(steps - self.steps_before, 0) // self.stride + 1) * self.stride

    def is_frame(self, steps: int) -> bool:
        """True where a frame comes after so many steps."""
        return steps > self.steps_before and (steps - self.steps_before) % self.stride == 0


class Trail(NamedTuple):
    """A walker so far: its steps, the positions of its frames, each [N, 3] float32, A, and what it goes on from."""

    steps: int
    frames: tuple[np.ndarray, ...]
    state: State


class Motion(Protocol):
    """A walker in motion during a segment."""

    def step(self, n: int) -> None:
        """Move on by so many steps. Raises Exploded."""

    def positions(self) -> np.ndarray:
        """[N, 3] float32, A."""

    def state(self) -> State:
        """The arrays that the next segment begins with."""


class Engine(Protocol):
    """Moves walkers as planned."""

    plan: Langevin

    def start(self, walker: int, R: np.ndarray) -> State:
        """A walker at positions R [N, 3], A, with velocities that are drawn for it."""

    def moving(self, walker: int, steps: int, state: State) -> Motion:
        """A walker that has done so many steps."""


class Walkers:
    """A simulation as a stage (``fit.stages.Work``) whose product is "frames", [W, T, N, 3] float32, A: a unit is a
    walker, and its segments are kept.

    start: [W, N, 3], A. A walker that flies off leaves the others walking: so it is the same one that is told on any
    number of ranks.
    """

    def __init__(self, engine: Engine, start: np.ndarray, ranks: Ranks):
        self.ranks, self._engine, self._start, self._plan = ranks, engine, start, engine.plan
        self._trails: dict[int, Trail] = {}
        self._before: dict[int, Trail] = {}  # those that were taken up
        self._exploded: dict[int, Exploded] = {}

    @property
    def n_units(self) -> int:
        """Walkers."""
        return len(self._start)

    def run(self, units: Sequence[int]) -> Generator[int]:
        """See ``fit.stages.Work``. A walker that flies off does not end."""
        for walker in units:
            try:
                yield from self._walk(walker)
            except Exploded as error:
                self._exploded[walker] = error
            else:
                yield walker

    def _walk(self, walker: int) -> Generator[int]:
        trail = self._before.get(walker) or Trail(0, (), self._engine.start(walker, self._start[walker]))
        while trail.steps < self._plan.steps:
            trail = self._trails[walker] = self._segment(walker, trail)
            yield PART

    def _segment(self, walker: int, trail: Trail) -> Trail:
        plan, steps, frames = self._plan, trail.steps, list(trail.frames)
        motion = self._engine.moving(walker, steps, trail.state)
        end = min(steps + SEGMENT, plan.steps)
        while steps < end:
            to = min(plan.next_frame(steps), end)
            motion.step(to - steps)
            steps = to
            if plan.is_frame(steps):
                frames.append(motion.positions())
        return Trail(steps, tuple(frames), motion.state())

    def kept(self) -> dict[str, np.ndarray]:
        """See ``fit.stages.Work``."""
        kept: dict[str, np.ndarray] = {}
        for walker, trail in self._all().items():
            kept |= {f"{walker}/steps": np.array(trail.steps), f"{walker}/frames": self._frames(trail)}
            kept |= {f"{walker}/state {name}": values for name, values in trail.state.items()}
        return kept

    def take_up(self, kept: Mapping[str, np.ndarray]) -> None:
        """See ``fit.stages.Work``."""
        of_walker: dict[int, dict[str, np.ndarray]] = {}
        for name, values in kept.items():
            walker, _, what = name.partition("/")
            of_walker.setdefault(int(walker), {})[what] = values
        for walker, found in of_walker.items():
            steps, frames = int(found.pop("steps")), tuple(found.pop("frames"))
            self._before[walker] = Trail(steps, frames, {name[len("state ") :]: found[name] for name in found})

    def product(self) -> dict[str, np.ndarray]:
        """The frames of all walkers. Raises Exploded, on all ranks, for the first walker that has flown off."""
        flown, trails = self.ranks.gather(self._exploded), self._all()
        return self.ranks.on_all(lambda: self._checked(flown, trails) if self.ranks.is_root else {})

    def files(self) -> Sequence[Path]:
        """See ``fit.stages.Work``."""
        return ()

    def _all(self) -> dict[int, Trail]:
        """The walkers of all ranks by number, on root; collective."""
        parts = self.ranks.gather(self._trails)
        if parts is None:
            return {}
        found = self._before | {walker: trail for part in parts for walker, trail in part.items()}
        return dict(sorted(found.items()))

    def _frames(self, trail: Trail) -> np.ndarray:
        return np.array(trail.frames, np.float32).reshape(-1, *self._start.shape[1:])

    def _checked(self, flown: Sequence[dict[int, Exploded]], trails: dict[int, Trail]) -> dict[str, np.ndarray]:
        failed = {walker: error for part in flown for walker, error in part.items()}
        if failed:
            raise failed[min(failed)]
        frames = np.array([self._frames(trail) for trail in trails.values()])
        good = (np.abs(frames) < FURTHEST).all(axis=(2, 3))
        if not good.all():
            walker, frame = np.argwhere(~good)[0]
            raise exploded(self._plan, f"frame {frame} of walker {walker}")
        return {"frames": frames}


def exploded(plan: Langevin, what: str) -> Exploded:
    """The error of a walker that has flown off. what: where, in words."""
    return Exploded(
        f"the coarse-grained simulation flew off: {what}; its step is {plan.step:g} ps",
        remedy="shorten the step, or fit more frames: the model may be steep or bottomless where there were none",
    )
