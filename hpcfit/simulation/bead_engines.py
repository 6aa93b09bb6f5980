"""Two engines of ``simulation.beads``: OpenMM for a System, JAX for any forces."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.physics.openmm_library import import_openmm
from hpcfit.simulation.beads import Langevin, Motion, State, exploded
from hpcfit.simulation.platforms import choose_platform

PER_KJ = 100.0  # amu A^2/ps^2 in a kJ/mol


# ---- OpenMM --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpenMMSystem:
    """Moves the particles of an OpenMM System (``Engine``)."""

    system: Any
    plan: Langevin
    platform: str = "auto"
    threads: int = 1

    def start(self, walker: int, R: np.ndarray) -> State:
        """See ``Engine``."""
        context = self._context(walker, 0, np.asarray(R, float) / 10)
        context.setVelocitiesToTemperature(self.plan.temperature, _seed(self.plan, walker, 0) + 1)
        return _InOpenMM(context, self.plan).state()

    def moving(self, walker: int, steps: int, state: State) -> Motion:
        """See ``Engine``."""
        context = self._context(walker, steps, state["R"])
        context.setVelocities(state["v"])
        return _InOpenMM(context, self.plan)

    def _context(self, walker: int, steps: int, R: np.ndarray) -> Any:
        plan, openmm, chosen = self.plan, import_openmm(), choose_platform(self.platform, self.threads)
        integrator = openmm.LangevinMiddleIntegrator(plan.temperature, plan.friction, plan.step)
        integrator.setRandomNumberSeed(_seed(plan, walker, steps))
        context = chosen.context(self.system, integrator)
        context.setPositions(R)
        return context


def _seed(plan: Langevin, walker: int, steps: int) -> int:
    """1 to 2^31 - 2: OpenMM takes 0 for a seed of its own choice."""
    return int(np.random.SeedSequence([plan.seed, walker, steps]).generate_state(1)[0] % (2**31 - 3)) + 1


class _InOpenMM:
    """``Motion``, in a Context of its own. state: R, nm; v, nm/ps."""

    def __init__(self, context: Any, plan: Langevin):
        self._openmm, self._context, self._plan = import_openmm(), context, plan

    def step(self, n: int) -> None:
        try:
            self._context.getIntegrator().step(n)
        except self._openmm.OpenMMException as error:
            raise exploded(self._plan, str(error)) from None

    def positions(self) -> np.ndarray:
        found = self._context.getState(positions=True).getPositions(asNumpy=True)
        return np.asarray(found.value_in_unit(self._openmm.unit.angstrom), np.float32)

    def state(self) -> State:
        unit, state = self._openmm.unit, self._context.getState(positions=True, velocities=True)
        R = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        v = state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond)
        return {"R": np.array(R), "v": np.array(v)}


# ---- JAX -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JaxForces:
    """Moves beads under ``forces(R [N, 3], box) -> [N, 3]`` (kJ/mol/A), a JAX function (``Engine``).

    masses: [N], amu. The splitting BAOAB (Leimkuhler and Matthews 2013, 10.1093/amrx/abs010).
    """

    forces: Callable
    masses: np.ndarray
    plan: Langevin
    box: np.ndarray | None = None

    def start(self, walker: int, R: np.ndarray) -> State:
        """See ``Engine``."""
        return _arrays(_start(self.forces, self.plan, *self._constants, jnp.asarray(R, jnp.float32), walker))

    def moving(self, walker: int, steps: int, state: State) -> Motion:
        """See ``Engine``."""
        return _InJax(partial(_moved, self.forces, self.plan, *self._constants, walker), steps, state)

    @property
    def _constants(self) -> tuple[jax.Array, jax.Array | None]:
        """Masses and box."""
        return jnp.asarray(self.masses, jnp.float32), None if self.box is None else jnp.asarray(self.box, jnp.float32)


class _InJax:
    """``Motion``. state: positions R, A; velocities v, A/ps; forces F, kJ/mol/A."""

    def __init__(self, moved: Callable, steps: int, state: State):
        self._moved, self._steps, self._state = moved, steps, tuple(state[name] for name in "RvF")

    def step(self, n: int) -> None:
        self._state = self._moved(self._steps, n, self._state)
        self._steps += n

    def positions(self) -> np.ndarray:
        return np.asarray(self._state[0])

    def state(self) -> State:
        return _arrays(self._state)


def _arrays(state: tuple) -> State:
    return dict(zip("RvF", map(np.asarray, state), strict=True))


def _width(plan: Langevin, masses: jax.Array) -> jax.Array:
    """The standard deviation of velocities, [N, 1], A/ps."""
    return jnp.sqrt(GAS_CONSTANT * plan.temperature * PER_KJ / masses[:, None])


def _key(plan: Langevin, walker: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(plan.seed), walker)


@partial(jax.jit, static_argnums=(0, 1))
def _start(forces: Callable, plan: Langevin, masses, box, R, walker) -> tuple:
    random = jax.random.normal(jax.random.fold_in(_key(plan, walker), 2**31 - 1), R.shape, R.dtype)
    return R, _width(plan, masses) * random, forces(R, box)


@partial(jax.jit, static_argnums=(0, 1))
def _moved(forces: Callable, plan: Langevin, masses, box, walker, first, n, state) -> tuple:
    """One walker, n steps on. However many they are it is one program, and so are the bits of each step; several
    walkers side by side would be another."""
    m, kept = masses[:, None], math.exp(-plan.friction * plan.step)
    width, key = _width(plan, masses), _key(plan, walker)

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

    return jax.lax.fori_loop(first, first + n, step, tuple(state))
