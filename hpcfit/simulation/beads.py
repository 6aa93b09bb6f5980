"""Short Langevin simulations of a coarse-grained model by the ranks of a fit: an OpenMM System, or any JAX forces.

Both take a plan and starting positions [W, N, 3] (A) of W walkers, which are dealt over ranks. Root gets the positions
of all frames [W, T, N, 3] float32 (A), the others None. A walker is a function of the seed and its number alone, so
that the frames are the same on any number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.physics.openmm_library import import_openmm
from hpcfit.ranks import Ranks
from hpcfit.simulation.dynamics import FURTHEST, Exploded
from hpcfit.simulation.platforms import choose_platform

PER_KJ = 100.0  # amu A^2/ps^2 in a kJ/mol


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


def simulate_system(
    system: Any, start: np.ndarray, plan: Langevin, ranks: Ranks, platform: str = "auto", threads: int = 1
) -> np.ndarray | None:
    """Frames of an OpenMM System; see the module. Raises Exploded where a bead flies off; collective."""

    def walk(walker: int) -> np.ndarray:
        openmm, chosen = import_openmm(), choose_platform(platform, threads)
        integrator = openmm.LangevinMiddleIntegrator(plan.temperature, plan.friction, plan.step)
        integrator.setRandomNumberSeed(_seed(plan, walker))
        context = chosen.context(system, integrator)
        context.setPositions(np.asarray(start[walker], float) / 10)
        context.setVelocitiesToTemperature(plan.temperature, _seed(plan, walker) + 1)
        return np.array(_walk(openmm, context, plan), np.float32)

    return _dealt(walk, len(start), plan, ranks)


def _walk(openmm: Any, context: Any, plan: Langevin) -> list[np.ndarray]:
    integrator, frames = context.getIntegrator(), []
    try:
        integrator.step(plan.steps_before)
        for _ in range(plan.frames):
            integrator.step(plan.stride)
            state = context.getState(positions=True)
            frames.append(state.getPositions(asNumpy=True).value_in_unit(openmm.unit.angstrom))
    except openmm.OpenMMException as error:
        raise _exploded(plan, str(error)) from None
    return frames


def _seed(plan: Langevin, walker: int) -> int:
    """1 to 2^31 - 2: OpenMM takes 0 for a seed of its own choice."""
    return int(np.random.SeedSequence([plan.seed, walker]).generate_state(1)[0] % (2**31 - 3)) + 1


def simulate_forces(
    forces: Callable, masses: np.ndarray, start: np.ndarray, plan: Langevin, ranks: Ranks,
    box: np.ndarray | None = None,
) -> np.ndarray | None:  # fmt: skip
    """Frames under ``forces(R [N, 3], box) -> [N, 3]`` (kJ/mol/A), a JAX function; see the module. Collective.

    masses: [N], amu. The splitting BAOAB (Leimkuhler and Matthews 2013, 10.1093/amrx/abs010). Raises Exploded.
    """
    masses, box = jnp.asarray(masses, jnp.float32), None if box is None else jnp.asarray(box, jnp.float32)

    def walk(walker: int) -> np.ndarray:
        return np.asarray(_trajectory(forces, plan, masses, jnp.asarray(start[walker], jnp.float32), walker, box))

    return _dealt(walk, len(start), plan, ranks)


@partial(jax.jit, static_argnums=(0, 1))
def _trajectory(forces: Callable, plan: Langevin, masses, R, walker, box) -> jax.Array:
    """One walker, [T, N, 3]: several side by side would be another program, with other bits."""
    kT, m = GAS_CONSTANT * plan.temperature * PER_KJ, masses[:, None]
    kept = math.exp(-plan.friction * plan.step)
    width = jnp.sqrt(kT / m)
    key = jax.random.fold_in(jax.random.key(plan.seed), walker)

    def push(R, v, F):
        return v + 0.5 * plan.step * PER_KJ * F / m

    def step(number, state):
        R, v, F = state
        v = push(R, v, F)
        R = R + 0.5 * plan.step * v
        random = jax.random.normal(jax.random.fold_in(key, number), R.shape, R.dtype)
        v = kept * v + math.sqrt(1 - kept**2) * width * random
        R = R + 0.5 * plan.step * v
        F = forces(R, box)
        return R, push(R, v, F), F

    def frame(state, number):
        first = plan.steps_before + number * plan.stride
        state = jax.lax.fori_loop(0, plan.stride, lambda n, s: step(first + n, s), state)
        return state, state[0]

    v = width * jax.random.normal(jax.random.fold_in(key, 2**31 - 1), R.shape, R.dtype)
    state = jax.lax.fori_loop(0, plan.steps_before, step, (R, v, forces(R, box)))
    return jax.lax.scan(frame, state, jnp.arange(plan.frames))[1]


def _dealt(walk: Callable[[int], np.ndarray], walkers: int, plan: Langevin, ranks: Ranks) -> np.ndarray | None:
    """Each rank takes walkers in turn; the error of the first walker that has one is raised on all ranks."""

    def own() -> dict[int, np.ndarray | Exploded]:
        try:
            return {walker: _tried(walk, walker) for walker in range(ranks.rank, walkers, ranks.size)}
        finally:
            ranks.wait()

    parts = ranks.gather(ranks.on_all(own))
    return ranks.on_all(lambda: _joined(parts, plan) if ranks.is_root else None)


def _tried(walk: Callable[[int], np.ndarray], walker: int) -> np.ndarray | Exploded:
    """A walker that flies off leaves the others walking: so it is the same one that is told on any number of ranks."""
    try:
        return walk(walker)
    except Exploded as error:
        return error


def _joined(parts: Sequence[dict[int, np.ndarray | Exploded]], plan: Langevin) -> np.ndarray:
    """The frames of all walkers, [W, T, N, 3], in the order of their numbers."""
    made = [made for _, made in sorted((item for part in parts for item in part.items()), key=lambda item: item[0])]
    for one in made:
        if isinstance(one, Exploded):
            raise one
    frames = np.array(made)
    good = (np.abs(frames) < FURTHEST).all(axis=(2, 3))
    if not good.all():
        walker, frame = np.argwhere(~good)[0]
        raise _exploded(plan, f"frame {frame} of walker {walker}")
    return frames


def _exploded(plan: Langevin, what: str) -> Exploded:
    return Exploded(
        f"the coarse-grained simulation flew off: {what}; its step is {plan.step:g} ps",
        remedy="shorten the step, or fit more frames: the model may be steep or bottomless where there were none",
    )
