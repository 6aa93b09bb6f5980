"""A system in a state: how its windows are walked, and the averages over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.constraints import Constraints
from hpcfit.energies.energy import Energy
from hpcfit.energies.lists import Lists
from hpcfit.observables.nmr import ScalarCouplings
from hpcfit.observables.observable import OfWalks, State, numbers
from hpcfit.pytrees import pytree
from hpcfit.simulation.barostat import GAIN, Barostat
from hpcfit.simulation.langevin import Constrained, Course, Motion, PhasePoint, Scheme, Walk, calm, unchanged, walk
from hpcfit.simulation.malliavin import Weighed, Weighing
from hpcfit.simulation.tangents import by_matrix

Tree = Any
FULL, SMALL = 1.0, 2.0  # see ``Ensemble.crowded``


@pytree
@dataclass(frozen=True)
class Ensemble:
    """A system in a state, and how a window of it is walked: so many ``frames``, a frame each ``stride`` steps, the
    first of them ``skipped`` in averages. interval: ps between frames. anew: tangents begin anew at 0 after so many
    frames, of which then each time the first are skipped; 0: with the window.

    parameters: all classes of the energy. limits: of a step, (kinetic energy of a particle, its way). constraints: of
    distances, or None. lists: of neighbours, with as many slots as there are to be, or None where forces run over all
    pairs; a walk renews them wherever they do not hold. barostat: at constant pressure. boxed: its points have a box
    each, in place of ``box``, which is that of the start. matrix: tangents are multiplied with the Hessian as a matrix
    (``simulation.tangents.by_matrix``), not one by one.
    """

    potential: Energy
    parameters: Tree
    box: Any
    masses: Any
    kT: Any
    scheme: Scheme
    limits: tuple[Any, Any]
    observables: tuple
    interval: Any
    stride: int = field(metadata={"static": True})
    frames: int = field(metadata={"static": True})
    skipped: int = field(metadata={"static": True})
    constraints: Constraints | None = None
    lists: Lists | None = None
    barostat: Barostat | None = None
    boxed: bool = field(default=False, metadata={"static": True})
    anew: int = field(default=0, metadata={"static": True})
    matrix: bool = field(default=False, metadata={"static": True})

    @property
    def leaves(self) -> tuple[str, ...]:
        """The leaves of its points."""
        return tuple(name for name, leaf in self.blank._asdict().items() if leaf is not None)

    @property
    def blank(self) -> PhasePoint:
        """A point of zeros."""
        zeros = jnp.zeros((len(self.masses), 3))
        box, reach = self.boxed or None, None if self.barostat is None else jnp.zeros(())
        return PhasePoint(zeros, zeros, box and jnp.zeros((3, 3)), reach)

    def box_of(self, point: PhasePoint) -> Any:
        """The box of a point, [3, 3] nm or None."""
        return self.box if point.box is None else point.box

    def energy(self, theta: Tree, point: PhasePoint) -> Any:
        """The potential energy of a point, kJ/mol."""
        return self.potential(point.x, theta, self.box_of(point))

    @property
    def stretch(self) -> int:
        """Frames along which tangents are carried."""
        return self.anew or self.frames

    @property
    def counted(self) -> slice | np.ndarray:
        """The frames that averages count."""
        if not self.anew:
            return slice(self.skipped, None)
        return np.flatnonzero(np.arange(self.frames) % self.anew >= self.skipped)

    @property
    def ages(self) -> np.ndarray:
        """The frames since tangents began at 0, of each frame that averages count; 1 for the first frame."""
        return np.arange(self.frames)[self.counted] % self.stretch + 1

    def walked(self, theta: Tree, start: PhasePoint, key: Any, observe: Any, pulled_back: bool = False) -> Walk:
        """The walk of one window from a start, with what is observed of its frames. pulled_back: its derivatives will
        be pulled back and never carried along; only the points of frames are kept for that."""
        motion, checkpoint = self._motion(theta, pulled_back=pulled_back), pulled_back and self.stride > 1
        return walk(motion, self.begun(theta, start), key, self._course, observe, checkpoint)

    def weighed(self, theta: Tree, start: PhasePoint, key: Any, observe: Any) -> Walk:
        """A walk as ``walked``, with what is observed of its ``Weighed`` points; not where there are constraints."""
        motion = self._motion(theta)._replace(scheme=Weighing(self.scheme))
        return walk(motion, Weighed(start.x, start.v, jnp.zeros(())), key, self._course, observe)

    @property
    def _course(self) -> Course:
        return Course(self.stride * self.frames, self.stride, anew=self.anew)

    def moved(self, start: PhasePoint, key: Any, steps: int, first: Any) -> Walk:
        """So many steps from a start at the parameters given, of which nothing is observed, while the barostat adapts
        its moves; first: the number of the first one."""
        return walk(self._motion(self.parameters, GAIN), start, key, Course(steps, steps, first), lambda point: ())

    def begun(self, theta: Tree, point: PhasePoint) -> PhasePoint:
        """The point with positions and velocities that fulfil the constraints at these parameters."""
        return point if self.constraints is None else self._constrained(theta).begun(point)

    def each(self, function: Callable, *rows: Any) -> Any:
        """The function of each of some rows: side by side, or one after another where there are lists, which otherwise
        would all be renewed in every step in which one of them might have to be."""
        if self.lists is None:
            return jax.vmap(function)(*rows)
        return jax.lax.map(lambda row: function(*row), rows)

    def crowded(self, found: Walk) -> Any:
        """``FULL`` of a walk that broke because a list of neighbours had no slot left, ``SMALL`` where its box had
        become too small for a cut-off, else 0."""
        full = jnp.any(jnp.array([listed.full for listed in (found.memory or {}).values()], bool))
        small = False if self.barostat is None else jnp.min(jnp.diagonal(found.end.box)) < self.narrowest
        return jnp.where(found.broke >= 0, jnp.where(small, SMALL, jnp.where(full, FULL, 0.0)), 0.0)

    @property
    def narrowest(self) -> float:
        """Twice the largest cut-off, nm: its box must be as wide."""
        sources = self.potential.pair_sources.values()
        return 2 * max((source.cutoff for source in sources if source.periodic), default=0.0)

    def _motion(self, theta: Tree, gain: float = 0.0, pulled_back: bool = False) -> Motion:
        def forces(x: Any, lists: Any, box: Any = self.box) -> Any:
            if self.matrix and not pulled_back:
                return by_matrix(_forces)(x, theta, self.potential, box, lists)
            return self.potential.forces(x, theta, box, lists, pulled_back=pulled_back)

        scheme = self.scheme if self.constraints is None else self._constrained(theta)
        renewed = unchanged if self.lists is None else self._renewed
        motion = Motion(forces, scheme, self._calm, self.lists, renewed, partial(self.begun, theta))
        if self.barostat is None:
            return motion
        energy = lambda point, lists: self.potential(point.x, theta, point.box, lists)  # noqa: E731
        return motion._replace(jump=partial(self.barostat.tried, energy, renewed, gain), every=self.barostat.every)

    def _renewed(self, lists: Lists, x: Any, *box: Any) -> Lists:
        return self.potential.current(lists, x, *(box or (self.box,)))

    def _constrained(self, theta: Tree) -> Constrained:
        positions = lambda moved, before: self.constraints.positions(moved, before, theta)  # noqa: E731
        return Constrained(self.scheme, self.interval / self.stride, positions, self.constraints.velocities)

    def _calm(self, new: PhasePoint, old: PhasePoint) -> Any:
        return calm(new, old, self.masses, *self.limits)

    def state(self, theta: Tree, point: PhasePoint) -> State:
        """A frame as observables see it; sites without mass stand where they belong."""
        x = self.potential.sites.place(jnp.asarray(point.x))
        potential = lambda x, box: self.potential(x, theta, box)  # noqa: E731
        return State(x, point.v, self.box_of(point), potential, theta, self.kT, self.masses)

    def observed(self, theta: Tree, point: PhasePoint) -> tuple:
        """The numbers of a frame that each observable averages, or keeps of the walk."""
        state = self.state(theta, point)
        return tuple(numbers(one, state) for one in self.observables)

    def of_window(self, kept: Sequence[Any], weight: Any) -> tuple[tuple, Any]:
        """The share of one window in the averages, and its weight, from the numbers of its frames, [frames, ...], and
        weights of the frames, [frames]."""
        mean = jnp.mean(weight[self.counted])
        return tuple(self._of_window(one, leaf, weight) for one, leaf in zip(self.observables, kept)), mean

    def _of_window(self, one: Any, kept: Any, weight: Any) -> Any:
        if isinstance(one, OfWalks):
            return one.of_walk(kept[self.skipped :], self.interval)
        return jnp.tensordot(weight[self.counted], kept[self.counted], 1) / len(self.ages)

    @property
    def shapes(self) -> tuple:
        """The shapes of what each observable adds to its average in a window."""
        seen = jax.eval_shape(partial(self.observed, self.parameters), self.blank)
        of_frames = lambda leaf: jax.ShapeDtypeStruct((self.frames, *leaf.shape), leaf.dtype)  # noqa: E731
        weight = jax.ShapeDtypeStruct((self.frames,), float)
        return jax.eval_shape(self.of_window, jax.tree.map(of_frames, seen), weight)[0]

    def averages(self, sums: Sequence[Any], weight: Any) -> tuple:
        """The numbers that measurements are compared with, from sums over windows."""
        return tuple(one.of_average(total / weight) for one, total in zip(self.observables, sums))

    def along(self, curves: Mapping[str, Any]) -> Ensemble:
        """The ensemble with couplings by curves of these coefficients."""
        moved = [one.along(curves) if isinstance(one, ScalarCouplings) else one for one in self.observables]
        return replace(self, observables=tuple(moved))

    def of_point(self, theta: Tree, point: PhasePoint) -> tuple:
        """The averages of a window that stands still."""
        still = lambda leaf: jnp.broadcast_to(leaf, (self.frames, *jnp.shape(leaf)))  # noqa: E731
        sums, weight = self.of_window(jax.tree.map(still, self.observed(theta, point)), jnp.ones(self.frames))
        return self.averages(sums, weight)


def _forces(x: Any, theta: Tree, potential: Energy, box: Any, lists: Lists | None) -> Any:
    return potential.forces(x, theta, box, lists)
