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

SINGLE, PAIRS, ALL_PAIRS = "single", "pairs", "all pairs"  # the last: those that are excluded too


class Step(NamedTuple):
    """One expression. name: of the value that it computes, empty for an energy. over: what it is summed over."""

    name: str
    over: str
    expression: Expression


@jax.tree_util.register_dataclass
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
        known = {name: column.values(parameters) for name, column in self.own.items()}
        common = {name: column.values(parameters)[0] for name, column in self.common.items()}
        tables = functions(self.tables, parameters)
        places = dict(zip("xyz", frame.positions.T))
        over = self._pairs(frame)
        for step in self.values:
            if step.over == SINGLE:
                value = step.expression(known | common | places, tables)
            else:
                value = _pair_value(step, over[step.over], known, common, tables)
            known[step.name] = jnp.broadcast_to(value, len(frame.positions))
        total = 0.0
        for step in self.energies:
            if step.over == SINGLE:
                value = step.expression(known | common | places, tables)
                total = total + jnp.sum(jnp.broadcast_to(value, len(frame.positions)))
            else:
                pairs = over[step.over]
                value = step.expression(both_atoms(pairs, known) | common | {"r": pairs.r}, tables)
                total = total + pairs.total(jnp.broadcast_to(value, pairs.r.shape))
        return total

    def _pairs(self, frame) -> dict[str, Pairs]:
        steps = {step.over for step in (*self.values, *self.energies)}
        sources = {PAIRS: self.pairs, ALL_PAIRS: self.all_pairs}
        return {over: source.pairs(frame) for over, source in sources.items() if over in steps}


def _pair_value(step: Step, pairs: Pairs, known, common, tables) -> jax.Array:
    both = both_atoms(pairs, known)
    names = known.keys()
    turned = {f"{name}1": both[f"{name}2"] for name in names} | {f"{name}2": both[f"{name}1"] for name in names}
    of_first, of_second = (
        jnp.broadcast_to(step.expression(values | common | {"r": pairs.r}, tables), pairs.r.shape)
        for values in (both, turned)
    )
    return pairs.by_atom(of_first, of_second)
