"""Short Langevin simulations of a coarse-grained model, in this process: of an OpenMM System, or of any JAX forces.

Both take a plan and starting positions [W, N, 3] of W walkers, and give the positions of all frames [W, T, N, 3].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.physics.openmm_library import import_openmm
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
    system: Any, start: np.ndarray, plan: Langevin, platform: str = "auto", threads: int = 1
) -> np.ndarray:
    """Frames [W, T, N, 3] float32 (A) of an OpenMM System, one walker after the other.

    Raises Exploded where a bead flies off.
    """
    openmm = import_openmm()
    chosen, frames = choose_platform(platform, threads), []
    for walker, positions in enumerate(np.asarray(start, float)):
        integrator = openmm.LangevinMiddleIntegrator(plan.temperature, plan.friction, plan.step)
        integrator.setRandomNumberSeed(_seed(plan, walker))
        context = chosen.context(system, integrator)
        context.setPositions(positions / 10)
        context.setVelocitiesToTemperature(plan.temperature, _seed(plan, walker) + 1)
        frames.append(_walk(openmm, context, plan))
    return _whole(np.array(frames, np.float32), plan)


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
    forces: Callable, masses: np.ndarray, start: np.ndarray, plan: Langevin, box: np.ndarray | None = None
) -> np.ndarray:
    """Frames [W, T, N, 3] float32 (A) under ``forces(R [N, 3], box) -> [N, 3]`` (kJ/mol/A), a JAX function.

    masses: [N], amu. The splitting BAOAB (Leimkuhler and Matthews 2013, 10.1093/amrx/abs010). Raises Exploded.
    """
    walkers = jnp.arange(len(start))
    box = None if box is None else jnp.asarray(box, jnp.float32)
    made = _trajectories(forces, plan, jnp.asarray(masses, jnp.float32), jnp.asarray(start, jnp.float32), walkers, box)
    return _whole(np.asarray(made), plan)


@partial(jax.jit, static_argnums=(0, 1))
def _trajectories(forces: Callable, plan: Langevin, masses, start, walkers, box) -> jax.Array:
    kT, m = GAS_CONSTANT * plan.temperature * PER_KJ, masses[:, None]
    kept = math.exp(-plan.friction * plan.step)
    width = jnp.sqrt(kT / m)

    def push(R, v, F):
        return v + 0.5 * plan.step * PER_KJ * F / m

    def step(key, state, number):
        R, v, F = state
        v = push(R, v, F)
        R = R + 0.5 * plan.step * v
        random = jax.random.normal(jax.random.fold_in(key, number), R.shape, R.dtype)
        v = kept * v + math.sqrt(1 - kept**2) * width * random
        R = R + 0.5 * plan.step * v
        F = forces(R, box)
        return R, push(R, v, F), F

    def walk(R, walker):
        key = jax.random.fold_in(jax.random.key(plan.seed), walker)
        v = width * jax.random.normal(jax.random.fold_in(key, 2**31 - 1), R.shape, R.dtype)
        state = jax.lax.fori_loop(0, plan.steps_before, lambda n, s: step(key, s, n), (R, v, forces(R, box)))

        def frame(state, number):
            first = plan.steps_before + number * plan.stride
            state = jax.lax.fori_loop(0, plan.stride, lambda n, s: step(key, s, first + n), state)
            return state, state[0]

        return jax.lax.scan(frame, state, jnp.arange(plan.frames))[1]

    return jax.vmap(walk)(start, walkers)


def _whole(frames: np.ndarray, plan: Langevin) -> np.ndarray:
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
