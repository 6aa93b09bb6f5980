"""The dynamics before the first window, as a stage: each window of each system comes to its own start."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError
from hpcfit.fit.stages import PART, ArraysOfUnits
from hpcfit.kinds.force_field.simulated.ensemble import FULL, SMALL, Ensemble
from hpcfit.ranks import Ranks
from hpcfit.simulation.barostat import REACH
from hpcfit.simulation.langevin import Bath, PhasePoint, noise_key, thermal

SEGMENT = 500  # steps between two places where it can be stopped, at most
DRAW = 0  # of the noise; rounds have 1, 2 ...
REMEDIES = {
    FULL: "start it from positions that are as dense as it becomes",
    SMALL: "simulate more molecules, take a shorter cut-off, or correct the pressure",
}


class Plan(NamedTuple):
    """A system before its windows. starts: [n, N, 3] nm; segments of ``steps`` steps each; bath: of velocities."""

    name: str
    ensemble: Ensemble
    starts: np.ndarray
    steps: int
    segments: int
    bath: Bath


def planned(name: str, ensemble: Ensemble, starts: np.ndarray, steps: int, bath: Bath) -> Plan:
    """So many steps, in segments of one length; at most one step a segment more."""
    segments = -(-steps // SEGMENT)
    return Plan(name, ensemble, starts, -(-steps // max(segments, 1)), segments, bath)


class Exploded(InputError):
    """A window that flew off before the first round."""


class Equilibration(ArraysOfUnits):
    """See ``fit.stages.Work``: a unit is a block of ``width`` windows of all systems.

    Its product are positions "x 0", [windows, N, 3] nm, and velocities "v 0", nm/ps, of the first system, and so on;
    and what else its points have: boxes "box 0", [windows, 3, 3] nm, and "reach 0", [windows]. Window t begins at start
    t modulo the number of starts, with velocities of its own.
    """

    def __init__(self, plans: Sequence[Plan], windows: int, width: int, seed: int, ranks: Ranks):
        super().__init__(ranks)
        self._plans, self._windows, self._width, self._seed = plans, windows, width, seed
        self.n_units = -(-windows // width)
        self._failed: dict[tuple[int, int], Exploded] = {}

    def run(self, units: Sequence[int]) -> Generator[int]:
        """See ``fit.stages.Work``. A unit in which a window explodes does not end."""
        for unit in units:
            try:
                for number in range(len(self._plans)):
                    yield from self._walk(unit, number)
            except Exploded as error:
                self._failed[unit, number] = error
            else:
                yield unit

    def _walk(self, unit: int, number: int) -> Generator[int]:
        plan, key = self._plans[number], f"{unit} {number}"
        ids = np.arange(unit * self._width, (unit + 1) * self._width)
        point, first = self._begun(plan, number, ids, key)
        for segment in range(first, plan.segments):
            end, *broke = _segment(plan.ensemble, self._seed, number, ids, point, segment * plan.steps, plan.steps)
            point = jax.tree.map(np.asarray, end)
            self._check(plan, ids, point, *map(np.asarray, broke))
            self._keep(key, point, segment + 1)
            yield PART
        self._keep(key, point, plan.segments)

    def _begun(self, plan: Plan, number: int, ids: np.ndarray, key: str) -> tuple[PhasePoint, int]:
        """The point where a block goes on, and the number of its next segment."""
        if f"{key} x" in self._before:
            kept = PhasePoint(*(self._before[f"{key} {what}"] for what in plan.ensemble.leaves))
            return kept, int(self._before[f"{key} segments"])
        x = plan.starts[ids % len(plan.starts)]
        box = np.broadcast_to(plan.ensemble.box, (len(ids), 3, 3)) if plan.ensemble.boxed else None
        reach = None if plan.ensemble.barostat is None else np.full(len(ids), REACH)
        masses = np.where(plan.ensemble.masses > 0, plan.ensemble.masses, np.inf)
        draw = lambda window, x: thermal(_key(self._seed, number, window, 1), plan.bath, masses, x)  # noqa: E731
        begun = _begun(plan.ensemble, PhasePoint(x, jax.vmap(draw)(ids, x), box, reach))
        return jax.tree.map(np.asarray, begun), 0

    def _keep(self, key: str, point: PhasePoint, segments: int) -> None:
        leaves = {what: leaf for what, leaf in point._asdict().items() if leaf is not None}
        leaves["segments"] = np.array(segments)
        self._done |= {f"{key} {what}": leaf for what, leaf in leaves.items()}

    def _check(self, plan: Plan, ids: np.ndarray, point: PhasePoint, broke: np.ndarray, crowded: np.ndarray) -> None:
        bad = np.flatnonzero((broke >= 0) & (ids < self._windows))
        if len(bad):
            row = bad[0]
            what, where = why_it_broke(plan.ensemble, ids[row], point, broke, crowded, row)
            raise Exploded(
                f"system '{plan.name}' {what} in its equilibration: {where}",
                remedy=REMEDIES.get(float(crowded[row]), "minimise it before, or shorten its step"),
            )

    def product(self) -> dict[str, np.ndarray]:
        """See the class. Raises Exploded, on all ranks, for the first window that has flown off."""
        failed, kept = self.ranks.gather(self._failed), self.kept()
        return self.ranks.on_all(lambda: self._checked(failed, kept) if self.ranks.is_root else {})

    def _checked(self, failed: Sequence[dict], kept: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        errors = {place: error for part in failed for place, error in part.items()}
        if errors:
            raise errors[min(errors)]
        whole = lambda number, what: np.concatenate(  # noqa: E731
            [kept[f"{unit} {number} {what}"] for unit in range(self.n_units)]
        )[: self._windows]
        plans = enumerate(self._plans)
        return {f"{what} {n}": whole(n, what) for n, plan in plans for what in plan.ensemble.leaves}


def _key(seed: Any, number: Any, window: Any, purpose: int) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(noise_key(seed, DRAW, window), number), purpose)


@jax.jit
def _begun(ensemble: Ensemble, points: PhasePoint) -> PhasePoint:
    """The starts of a block of windows, on their constraints."""
    return jax.vmap(partial(ensemble.begun, ensemble.parameters))(points)


@partial(jax.jit, static_argnames=("steps",))
def _segment(ensemble: Ensemble, seed: Any, number: Any, ids: Any, point: PhasePoint, first: Any, steps: int) -> tuple:
    """A segment of the walks of a block of windows: (end, broke, crowded)."""

    def walked(window: Any, start: PhasePoint) -> tuple:
        found = ensemble.moved(start, _key(seed, number, window, 0), steps, first)
        return found.end, found.broke, ensemble.crowded(found)

    return ensemble.each(walked, ids, point)


def why_it_broke(
    ensemble: Ensemble, window: int, points: PhasePoint, broke: Any, crowded: Any, row: int
) -> tuple[str, str]:
    """The fate of a window that broke, in words: the step, and the atom with the largest force."""
    where = f"window {window}, step {int(broke[row])}, where"
    if crowded[row] == SMALL:
        return "shrank below twice its cut-off", f"{where} its box had to be {ensemble.narrowest:.4g} nm wide"
    if crowded[row] == FULL:
        slots = max(listed.table.index.shape[1] for listed in ensemble.lists.values())
        return "ran out of slots for neighbours", f"{where} atoms have {slots} slots, made for its starts"
    point = jax.tree.map(lambda leaf: jnp.asarray(leaf[row]), points)
    forces = jax.grad(ensemble.potential)(point.x, ensemble.parameters, ensemble.box_of(point))
    size = np.asarray(jnp.sqrt(jnp.sum(forces**2, axis=-1)))
    atom = int(np.argmax(np.where(np.isfinite(size), size, np.inf)))
    return "exploded", f"{where} the force on atom {atom} is {size[atom]:.3g} kJ/mol/nm"
