"""Energies by expressions of values that are themselves computed from all pairs (OpenMM's CustomGBForce).

Values are computed in order. A value of a single particle is an expression of its parameters, its earlier values and
its place; a value of pairs is Σ_j f(r, …1 of i, …2 of j). Energy terms are sums over particles or over pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hpcfit.energies.columns import Column
from hpcfit.energies.custom import both_atoms
from hpcfit.energies.expressions import Expression
from hpcfit.energies.lists import Pairs, PairSource
from hpcfit.energies.tabulated import Tabulated, functions
from hpcfit.pytrees import pytree

SINGLE, PAIRS, ALL_PAIRS = "single", "pairs", "all pairs"  # the last: those that are excluded too


class Step(NamedTuple):
    """One expression. name: of the value that it computes, empty for an energy. over: what it is summed over."""

    name: str
    over: str
    expression: Expression


@pytree
@dataclass(frozen=True, kw_only=True)
class CustomGB:
    """values, energies: expressions in their order. own: [N] each. pairs: without excluded ones; all_pairs: with
    them."""

    values: tuple[Step, ...] = field(metadata={"static": True})
    energies: tuple[Step, ...] = field(metadata={"static": True})
    own: dict[str, Column]
    common: dict[str, Column]
    tables: dict[str, Tabulated]
    pairs: PairSource
    all_pairs: PairSource

    def energy(self, frame, parameters) -> jax.Array:
        """The energy, kJ/mol."""
        common = {name: column.values(parameters)[0] for name, column in self.common.items()}
        known = {name: column.values(parameters) for name, column in self.own.items()}
        state = _State(common, known, dict(zip("xyz", frame.positions.T)), functions(self.tables, parameters))
        over = self._pairs(frame)
        for step in self.values:
            known[step.name] = state.by_atom(step, over.get(step.over))
        return sum((state.total(step, over.get(step.over)) for step in self.energies), start=jnp.zeros(()))

    def _pairs(self, frame) -> dict[str, Pairs]:
        steps = {step.over for step in (*self.values, *self.energies)}
        sources = {PAIRS: self.pairs, ALL_PAIRS: self.all_pairs}
        return {over: source.pairs(frame) for over, source in sources.items() if over in steps}


class _State(NamedTuple):
    """Numbers that expressions take. common: of the system; known: of the atoms, to which computed values are added."""

    common: dict[str, jax.Array]
    known: dict[str, jax.Array]
    places: dict[str, jax.Array]
    tables: dict

    def by_atom(self, step: Step, pairs: Pairs | None) -> jax.Array:
        """The value of a step for each atom, [N]."""
        if pairs is None:
            return self._of_atoms(step)
        both = both_atoms(pairs, self.known)
        turned = {f"{name}{end}": both[f"{name}{other}"] for name in self.known for end, other in ("12", "21")}
        return pairs.by_atom(self._of_pairs(step, pairs, both), self._of_pairs(step, pairs, turned))

    def total(self, step: Step, pairs: Pairs | None) -> jax.Array:
        """The sum of a step over atoms or pairs."""
        if pairs is None:
            return jnp.sum(self._of_atoms(step))
        return pairs.total(self._of_pairs(step, pairs, both_atoms(pairs, self.known)))

    def _of_atoms(self, step: Step) -> jax.Array:
        value = step.expression(self.known | self.common | self.places, self.tables)
        return jnp.broadcast_to(value, self.places["x"].shape)

    def _of_pairs(self, step: Step, pairs: Pairs, both) -> jax.Array:
        return jnp.broadcast_to(step.expression(both | self.common | {"r": pairs.r}, self.tables), pairs.r.shape)
