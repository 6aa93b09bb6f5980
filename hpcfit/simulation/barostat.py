"""Trial moves of the volume, after which a walk has constant pressure.

Centres of molecules are scaled with the box and molecules are not, as in OpenMM's ``MonteCarloBarostat``, so that
constraints stay fulfilled. With n molecules, configurations and volumes then have the weight

    V^n exp(-(U + p V) / kT)

which depends on parameters of U alone as that of constant volume does. The step is one in ln V, which is symmetric for
the weight V^(n+1); OpenMM's is in V. Chow and Ferguson 1995, 10.1016/0010-4655(95)00059-O.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from hpcfit.energies.geometry import volume
from hpcfit.observables.geometry import Indices
from hpcfit.observables.thermodynamics import arms_of_molecules
from hpcfit.pytrees import pytree
from hpcfit.simulation.langevin import PhasePoint

REACH = 0.02  # of the first trial move, in ln V: that of a few hundred molecules of a liquid
GAIN = 0.3  # of ln reach, a trial move, while it is adapted to an acceptance of one half
Tree = Any


@pytree
@dataclass(frozen=True)
class Barostat:
    """A trial move before each ``every``-th step. pressure: kJ/mol/nm^3; kT: kJ/mol; molecules: the atoms of each, an
    atom in none being one of its own."""

    pressure: Any
    kT: Any
    masses: Any
    molecules: Indices = field(metadata={"static": True})
    every: int = field(metadata={"static": True})

    def scaled(self, point: PhasePoint, change: Any) -> tuple[PhasePoint, Any]:
        """The point with its volume times exp(change), and the number of molecules that moved."""
        arms, n = arms_of_molecules(self.molecules, self.masses, point.x, point.box)
        length = jnp.exp(change / 3)
        return point._replace(x=point.x + (length - 1) * (point.x - arms), box=length * point.box), n

    def tried(
        self,
        energy: Callable[[PhasePoint, Tree], Any],
        remembered: Callable[[Tree, Any, Any], Tree],
        gain: float,
        point: PhasePoint,
        memory: Tree,
        key: jax.Array,
    ) -> tuple[PhasePoint, Tree]:
        """The point and the memory after a trial move. energy: (point, memory) -> kJ/mol; remembered: see ``Motion``;
        gain: of its adaptation, 0 for a walk that samples.

        Lists of neighbours hold for the trial box too as long as their skin has room for what it shrinks by
        (``NeighbourList.holds``); where it has none, they are made anew for the trial, and kept if it is accepted.

        An energy that is not a number, of a box too small for a cut-off or of a full list, counts as accepted: the
        walk breaks in the step that follows.
        """
        place, chance = jax.random.uniform(key, (2,), jnp.float64)
        change = point.reach * (2 * place - 1)
        trial, n = self.scaled(point, change)
        renewed = remembered(memory, trial.x, trial.box)
        work = self.pressure * volume(point.box) * jnp.expm1(change)
        cost = (energy(trial, renewed) - energy(point, memory) + work) / self.kT - (n + 1) * change
        accepted = ~(jnp.log(chance) > -cost)
        point, memory = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), (trial, renewed), (point, memory))
        likely = jnp.minimum(1.0, jnp.exp(-jnp.nan_to_num(cost)))
        return point._replace(reach=point.reach * jnp.exp(gain * (likely - 0.5))), memory
