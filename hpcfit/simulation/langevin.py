"""Langevin dynamics in JAX, which can be differentiated by whatever its forces depend on.

A step of each integrator here is an affine map of position, velocity, force and noise (``Scheme``), so that the
derivative of a trajectory by a parameter obeys the same map without the noise (``simulation.tangents``). Where
distances are constrained, the map is followed by projections (``Constrained``). Units are those in which an energy is a
mass times a squared velocity: nm, ps, amu and kJ/mol, or reduced ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError

Tree = Any


class PhasePoint(NamedTuple):
    """Positions and velocities, [..., N, d]; box: [..., 3, 3], of points that have a box each, else None."""

    x: Any
    v: Any
    box: Any = None


class Scheme(NamedTuple):
    """One step of an integrator with the force F at the old positions and n, [N, d] standard normal numbers:

        x <- x + xv v + xf F + xn n          v <- vv v + vf F + vn n

    The coefficients are numbers, or [N, 1] where they depend on the mass.
    """

    xv: Any
    xf: Any
    xn: Any
    vv: Any
    vf: Any
    vn: Any

    def moved(self, point: PhasePoint, force: Any) -> PhasePoint:
        """The point one step later, without noise: of a tangent, whose ``force`` is the change of the force."""
        x = point.x + self.xv * point.v + self.xf * force
        return point._replace(x=x, v=self.vv * point.v + self.vf * force)

    def kicked(self, point: PhasePoint, force: Any, noise: Any) -> PhasePoint:
        """The point one step later."""
        moved = self.moved(point, force)
        return moved._replace(x=moved.x + self.xn * noise, v=moved.v + self.vn * noise)


@dataclass(frozen=True)
class Bath:
    """A heat bath. kT: energy (kJ/mol); friction: 1/time (1/ps); step: time (ps). A friction of 0 is no bath at all:
    the energy is conserved."""

    kT: float
    friction: float
    step: float

    def __post_init__(self):
        if not (self.kT >= 0 and self.friction >= 0 and self.step > 0):
            raise InputError(
                f"kT = {self.kT}, friction = {self.friction} and step = {self.step} are no Langevin dynamics",
                remedy="neither temperature nor friction can be negative, and the step must be positive",
            )

    @property
    def kept(self) -> float:
        """The share of a velocity that a step of the bath leaves, exp(-friction step)."""
        return float(np.exp(-self.friction * self.step))


def middle(bath: Bath, masses: Any) -> Scheme:
    """The leapfrog with the bath in the middle of the drift, OpenMM's ``LangevinMiddleIntegrator``: velocities are
    those of half a step before. Configurations in a harmonic well are those of Boltzmann at any stable step.

    masses: [N]. Zhang et al. 2019, 10.1021/acs.jpca.9b02771.
    """
    m, a, dt = jnp.asarray(masses)[:, None], bath.kept, bath.step
    push, shake = dt / m, jnp.sqrt(bath.kT * (1 - a * a) / m)
    half = 0.5 * dt
    return Scheme(half * (1 + a), half * (1 + a) * push, half * shake, a, a * push, shake)


def stochastic(bath: Bath, masses: Any) -> Scheme:
    """The first-order scheme v <- a v + b F + c n, x <- x + dt v with a = exp(-friction dt) and b = (1 - a) / (friction
    m): equations (4) and (5) of timemachine's preprint (2018, github.com/proteneer/timemachine), and OpenMM's
    ``LangevinIntegrator`` up to 8.1.

    masses: [N].
    """
    m, a, dt = jnp.asarray(masses)[:, None], bath.kept, bath.step
    push = (-np.expm1(-bath.friction * dt) / bath.friction if bath.friction else dt) / m
    shake = jnp.sqrt(bath.kT * (1 - a * a) / m)
    return Scheme(dt * a, dt * push, dt * shake, a, push, shake)


def overdamped(bath: Bath, masses: Any) -> Scheme:
    """Brownian dynamics by the Euler-Maruyama scheme; the diffusion constant is kT / (friction m), velocities are 0.

    masses: [N].
    """
    if not bath.friction:
        raise InputError("Brownian dynamics with friction = 0 has no bound", remedy="give a positive friction")
    mobility = bath.step / (bath.friction * jnp.asarray(masses)[:, None])
    return Scheme(0.0, mobility, jnp.sqrt(2 * bath.kT * mobility), 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Constrained:
    """A scheme whose steps keep constraints.

    positions: (moved, before) -> the positions that fulfil them, displaced along their directions before; velocities:
    (v, x) -> the velocities without their parts along the constraints at x; step: time. With P for such a projection of
    velocities, and a, b, c of the middle scheme, a step from x is

        w <- P(v + b F)     x_u <- x + dt/2 w     v <- a w + c n     x_u <- x_u + dt/2 v
        x' <- constrained(x_u; x)                 v <- P'(v + (x' - x_u) / dt)

    which is that of OpenMM's ``LangevinMiddleIntegrator`` (ReferenceLangevinMiddleDynamics.cpp, ``update``) but for P',
    the projection at x'. OpenMM leaves it to the beginning of its next step; positions are the same.
    """

    scheme: Scheme
    step: Any
    positions: Callable[[Any, Any], Any]
    velocities: Callable[[Any, Any], Any]

    def kicked(self, point: PhasePoint, force: Any, noise: Any) -> PhasePoint:
        """The point one step later."""
        pushes = jnp.stack(self.scheme.moved(PhasePoint(jnp.zeros_like(point.x), point.v), force)[:2])
        way, v = jax.vmap(self.velocities, (0, None))(pushes, point.x)  # P is linear: w on its way, and w that is left
        free, v = point.x + way + self.scheme.xn * noise, v + self.scheme.vn * noise
        x = self.positions(free, point.x)
        at = jnp.where(jnp.isfinite(x), x, point.x)  # not taken where it differs; 0 times NaN is no derivative
        return point._replace(x=x, v=self.velocities(v + (at - free) / self.step, at))

    def begun(self, point: PhasePoint) -> PhasePoint:
        """The point with positions and velocities that fulfil the constraints."""
        x = self.positions(point.x, point.x)
        return point._replace(x=x, v=self.velocities(point.v, x))


SCHEMES = {"middle": middle, "stochastic": stochastic, "overdamped": overdamped}


def thermal(key: jax.Array, bath: Bath, masses: Any, like: Any) -> jax.Array:
    """Velocities of the Maxwell distribution, shaped as positions [N, d]."""
    return jnp.sqrt(bath.kT / jnp.asarray(masses)[:, None]) * jax.random.normal(key, jnp.shape(like), jnp.float64)


def noise_key(seed: int, draw: int, window: Any) -> jax.Array:
    """The key of the noise of one window of a draw: the same on whatever rank it is simulated."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), draw), window)


def noise(key: jax.Array, number: Any, like: Any) -> jax.Array:
    """The normal numbers of one step, by its number: a trajectory that goes on from a step has them alike."""
    return jax.random.normal(jax.random.fold_in(key, number), jnp.shape(like), jnp.float64)


def always(new: PhasePoint, old: PhasePoint) -> Any:
    """A judge of steps that takes any for fine."""
    return True


def calm(new: PhasePoint, old: PhasePoint, masses: Any, hottest: Any, furthest: Any) -> Any:
    """True for a step after which no particle has a kinetic energy above ``hottest``, or moved further than
    ``furthest``; numbers that are not finite are neither. masses: [N]."""
    kinetic = 0.5 * jnp.asarray(masses) * jnp.sum(new.v**2, axis=-1)
    moved = jnp.sum((new.x - old.x) ** 2, axis=-1)
    return jnp.all((kinetic <= hottest) & (moved <= furthest**2))


def unchanged(memory: Tree, *place: Any) -> Tree:
    """The memory of forces, where that is the same all along."""
    return memory


class Motion(NamedTuple):
    """The motion of a point. forces: (positions [N, d], memory) -> energy / length; scheme: a step of it. Where points
    have a box each, it is a further argument of ``forces`` and ``remembered``.

    fine: a judge of each step (new, old point): one that is not fine is not taken, nor any after it, so that no
    derivative runs through what exploded. memory: what the forces remember where a walk begins, such as lists of
    neighbours; remembered: (memory, positions) -> what they remember there.
    """

    forces: Callable[..., Any]
    scheme: Scheme | Constrained
    fine: Callable[[PhasePoint, PhasePoint], Any] = always
    memory: Tree = None
    remembered: Callable[..., Tree] = unchanged


class Course(NamedTuple):
    """So many steps, with an observation behind each ``stride`` of them. first: the number of the first step, which
    decides its noise: where a trajectory is cut makes no difference to its bits, if its forces remember nothing."""

    steps: int
    stride: int = 1
    first: Any = 0


class Walk(NamedTuple):
    """A walk. end: its last point; seen: what was observed, leaves [observations, ...]; broke: the number of the step
    that was not fine and was not taken, after which the walk stood still; -1 where all were; memory: what the forces
    remember at the end."""

    end: PhasePoint
    seen: Tree
    broke: Any
    memory: Tree


def walk(
    motion: Motion,
    start: PhasePoint,
    key: jax.Array,
    course: Course,
    observe: Callable[[PhasePoint], Tree] = lambda point: point,
    checkpoint: bool = False,
) -> Walk:
    """The steps of a course from a start, with the noise of a key.

    checkpoint: recompute the steps between two observations when cotangents are pulled back, instead of keeping them:
    memory of steps / stride + stride points instead of steps.
    """
    steps, stride, first = course
    if steps % stride:
        raise InputError(f"{steps} steps are no multiple of {stride}, the steps from frame to frame")

    def step(state: tuple[PhasePoint, Any, Tree], number: Any) -> tuple[tuple[PhasePoint, Any, Tree], None]:
        point, broke, memory = state
        box = () if point.box is None else (point.box,)
        memory = motion.remembered(memory, point.x, *box)
        new = motion.scheme.kicked(point, motion.forces(point.x, memory, *box), noise(key, number, point.x))
        taken = (broke < 0) & motion.fine(new, point)
        broke = jnp.where((broke < 0) & ~taken, number, broke)
        return (jax.tree.map(lambda one, other: jnp.where(taken, one, other), new, point), broke, memory), None

    def frame(state: tuple[PhasePoint, Any, Tree], number: Any) -> tuple[tuple[PhasePoint, Any, Tree], Tree]:
        state, _ = jax.lax.scan(step, state, first + number * stride + jnp.arange(stride))
        return state, observe(state[0])

    begun = jax.tree.map(jnp.asarray, (start, -1, motion.memory))
    frames = jnp.arange(steps // stride)
    (end, broke, memory), seen = jax.lax.scan(jax.checkpoint(frame) if checkpoint else frame, begun, frames)
    return Walk(end, seen, broke, memory)
