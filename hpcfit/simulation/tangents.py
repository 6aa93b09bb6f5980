"""Derivatives of a Langevin trajectory by parameters of its forces, carried along with it.

With X = dx/dtheta, V = dv/dtheta and f = d force(x, theta)/dtheta = dF/dx X + dF/dtheta, noise and masses being
constants, differentiating a step of a scheme (``simulation.langevin``) gives

    X <- X + xv V + xf f        V <- vv V + vf f                                     (``Recurrence``)

which is exact for one realisation of the noise and needs no memory of the past. Unrolled, with a = vv,

    X_t = sum over s < t of (xf + xv vf S_{t-1-s}) f_s,    S_n = 1 + a + ... + a^(n-1)

which two sums carry (``ClosedForm``), and which may be cut where a^k is nothing (``Window``): S_n is S_k for n > k.
That is equation (9) of timemachine's preprint (2018, github.com/proteneer/timemachine), whose index is one too high:
S_n has n terms. The three agree to rounding; the first is the one to use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from hpcfit.errors import InputError
from hpcfit.pytrees import with_tangents
from hpcfit.simulation.langevin import PhasePoint, Scheme, noise

Tree = Any
Forces = Callable[[Any, Tree], Any]  # (positions [N, d], parameters) -> forces [N, d]
NOTHING = 1e-6  # a window that forgets more than this share of a velocity is an unstable integrator of its tangents


def by_matrix(forces: Callable[..., Any]) -> Callable[..., Any]:
    """Forces, (positions [N, d], parameters, ...) -> [N, d], whose tangents by positions are products with the Hessian
    as a matrix, [N, d, N, d].

    It is made once for all tangents that are carried along side by side, which pays where they are many beside the
    coordinates; without it each product is a derivative of the forces along a tangent. Arguments behind the parameters,
    such as lists of neighbours and a box, are constants. A traced array must be an argument, not closed over.
    """
    found = jax.custom_jvp(forces)

    def tangent(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
        (x, parameters, *held), (X, directions, *_) = primals, tangents
        made, numbers, changes = with_tangents(parameters, directions)
        value, along = jax.jvp(lambda moved: forces(x, made(moved), *held), (numbers,), (changes,))
        if not isinstance(X, SymbolicZero):
            along = along + jnp.tensordot(jax.jacfwd(forces)(x, parameters, *held), X, jnp.ndim(x))
        return value, along

    found.defjvp(tangent, symbolic_zeros=True)
    return found


class Carrier(Protocol):
    """A memory of the past changes f of the force, from which the tangents follow."""

    def start(self, scheme: Scheme, tangents: PhasePoint) -> Any:
        """The memory where a trajectory begins with these tangents, leaves [P, N, d]."""

    def next(self, scheme: Scheme, kept: Any, f: Any) -> Any:
        """The memory one step later."""

    def tangents(self, scheme: Scheme, kept: Any) -> PhasePoint:
        """X and V, [P, N, d]."""


@dataclass(frozen=True)
class Recurrence:
    """The tangents themselves: the memory of two motions a parameter, whatever the number of steps."""

    def start(self, scheme: Scheme, tangents: PhasePoint) -> PhasePoint:
        return tangents

    def next(self, scheme: Scheme, kept: PhasePoint, f: Any) -> PhasePoint:
        return scheme.moved(kept, f)

    def tangents(self, scheme: Scheme, kept: PhasePoint) -> PhasePoint:
        return kept


class Sums(NamedTuple):
    """The past of a trajectory. plain: sum of f; fading: sum of a^(t-1-s) f_s, both [P, N, d]. began: with these
    tangents; terms: S_t, by which the first V has moved X."""

    plain: Any
    fading: Any
    began: PhasePoint
    terms: Any


@dataclass(frozen=True)
class ClosedForm:
    """Two sums over the past: the recurrence in another basis, which there is not without friction (a = 1)."""

    def start(self, scheme: Scheme, tangents: PhasePoint) -> Sums:
        if scheme.vv == 1:
            raise InputError("without friction tangents have no closed form", remedy="use the recurrence")
        nothing = jnp.zeros_like(tangents.x)
        return Sums(nothing, nothing, tangents, jnp.zeros(()))

    def next(self, scheme: Scheme, kept: Sums, f: Any) -> Sums:
        return Sums(kept.plain + f, scheme.vv * kept.fading + f, kept.began, 1 + scheme.vv * kept.terms)

    def tangents(self, scheme: Scheme, kept: Sums) -> PhasePoint:
        a, (X, V, *_) = scheme.vv, kept.began
        slow = (kept.plain - kept.fading) / (1 - a)
        X = X + scheme.xv * kept.terms * V + scheme.xf * kept.plain + scheme.xv * scheme.vf * slow
        return PhasePoint(X, (1 - (1 - a) * kept.terms) * V + scheme.vf * kept.fading)


class Past(NamedTuple):
    """The last k changes of the force, the newest first, [k, P, N, d], and the sum of all before; the rest as in
    ``Sums``."""

    recent: Any
    older: Any
    began: PhasePoint
    terms: Any


@dataclass(frozen=True)
class Window:
    """The window of the preprint: the last k changes of the force one by one, those before with the weight of the last.

    It takes k times the memory of the recurrence and gives what that gives but for a share of a^k. Where a^k is not
    nothing the truncated feedback makes the tangents explode: that is an InputError.
    """

    k: int

    def start(self, scheme: Scheme, tangents: PhasePoint) -> Past:
        if scheme.vv**self.k > NOTHING:
            raise InputError(
                f"a window of {self.k} steps keeps a^k = {scheme.vv**self.k:.1e} of a velocity, more than {NOTHING:g}",
                remedy="use the recurrence, which has no window, or a longer one",
            )
        nothing = jnp.zeros_like(tangents.x)
        return Past(jnp.zeros((self.k, *nothing.shape)), nothing, tangents, jnp.zeros(()))

    def next(self, scheme: Scheme, kept: Past, f: Any) -> Past:
        recent = jnp.concatenate([f[None], kept.recent[:-1]])
        return Past(recent, kept.older + kept.recent[-1], kept.began, 1 + scheme.vv * kept.terms)

    def tangents(self, scheme: Scheme, kept: Past) -> PhasePoint:
        a, (X, V, *_) = scheme.vv, kept.began
        fading = a ** jnp.arange(self.k)
        terms = jnp.cumsum(fading) - fading  # S of each age
        slow = jnp.tensordot(terms, kept.recent, 1) + terms[-1] * kept.older
        X = X + scheme.xv * kept.terms * V
        X = X + scheme.xf * (jnp.sum(kept.recent, axis=0) + kept.older) + scheme.xv * scheme.vf * slow
        return PhasePoint(X, (1 - (1 - a) * kept.terms) * V + scheme.vf * jnp.tensordot(fading, kept.recent, 1))


def at_rest(directions: Tree, x: Any) -> PhasePoint:
    """The tangents of a start that depends on no parameter, [P, N, d] each."""
    nothing = jnp.zeros((len(jax.tree.leaves(directions)[0]), *jnp.shape(x)))
    return PhasePoint(nothing, nothing)


class Carried(NamedTuple):
    """A motion along which tangents are carried. forces: of positions and parameters; directions: as the parameters,
    with a leading axis P; scheme: a step; carrier: how, see the module."""

    forces: Forces
    parameters: Tree
    directions: Tree
    scheme: Scheme
    carrier: Carrier = Recurrence()


def walk_with_tangents(
    motion: Carried, start: PhasePoint, tangents: PhasePoint, key: jax.Array, steps: int, first: int = 0
) -> tuple[PhasePoint, PhasePoint]:
    """(point, its tangents along each of the directions) after so many steps with the noise of ``langevin.walk``.

    tangents: of the start. They are multiplied with the Hessian one by one, or with the whole matrix where the forces
    are ``by_matrix``. To go on with a trajectory, give the point and the tangents where it was left and the number of
    its next step.
    """
    forces, parameters, directions, scheme, carrier = motion

    def step(state: tuple[PhasePoint, Any], number: Any) -> tuple[tuple[PhasePoint, Any], None]:
        point, kept = state
        X = carrier.tangents(scheme, kept).x
        force, along = jax.linearize(forces, point.x, parameters)
        f = jax.vmap(along)(X, directions)
        moved = scheme.kicked(point, force, noise(key, number, point.x))
        return (moved, carrier.next(scheme, kept, f)), None

    begun = (start, carrier.start(scheme, tangents))
    (point, kept), _ = jax.lax.scan(step, begun, first + jnp.arange(steps))
    return point, carrier.tangents(scheme, kept)
