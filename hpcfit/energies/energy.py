"""The energy of a system: a sum of terms, each a function of positions, parameters and box.

    U(x; θ, box) = Σ_terms u(x; θ, box)        kJ/mol, x in nm

θ is a dict with one array a class of parameters (`bond.k`, `lj.sigma`): an entry is a type, shared by all that it
applies to. A term knows which entries are its own (`Column`). Topology and settings are leaves of the terms, so that
an `Energy` is an argument of a compiled function and never a constant inside it, which XLA would fold at great
length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.columns import Column
from hpcfit.energies.geometry import require_box
from hpcfit.energies.lists import ALL_PAIRS, Frame, Lists, PairSource, current, neighbour_lists, renewed
from hpcfit.energies.sites import Sites
from hpcfit.errors import InputError, nearest
from hpcfit.pytrees import pytree, with_tangents

Parameters: TypeAlias = Mapping[str, jax.Array]  # class of parameters -> its values, one an entry


class Term(Protocol):
    """One functional form with its topology; a pytree."""

    def energy(self, frame: Frame, parameters: Parameters) -> jax.Array:
        """The energy of the term, a scalar in kJ/mol."""
        ...


@pytree
@dataclass(frozen=True)
class Energy:
    """A sum of terms. sites: the rules that place particles without mass; forces on them act on their parents."""

    terms: tuple[Term, ...]
    sites: Sites = field(default_factory=Sites)

    def __call__(
        self,
        positions: jax.Array,
        parameters: Parameters,
        box: jax.Array | None = None,
        lists: Lists | None = None,
    ) -> jax.Array:
        """The energy of positions [N, 3] nm, kJ/mol; NaN where a list of neighbours does not hold for the positions.

        Tangents are products with the gradient, which is computed once however many there are.
        """
        return _total(self, positions, parameters, box, lists)

    def forces(
        self,
        positions: jax.Array,
        parameters: Parameters,
        box: jax.Array | None = None,
        lists: Lists | None = None,
        *,
        pulled_back: bool = False,
    ) -> jax.Array:
        """The forces on the particles, [N, 3] kJ/mol/nm.

        pulled_back: their derivatives will be pulled back, never carried along, which is then cheaper.
        """
        return (_pulled_forces if pulled_back else _forces)(self, positions, parameters, box, lists)

    def by_term(self, positions, parameters, box=None, lists=None) -> list[jax.Array]:
        """The energies of the terms, in their order, kJ/mol."""
        frame = Frame(self.sites.place(jnp.asarray(positions)), box, lists)
        return [term.energy(frame, parameters) for term in self.terms]

    def lists(self, positions: jax.Array, box: jax.Array | None = None, *, skin: float = 0.1) -> Lists:
        """Lists of neighbours at positions [N, 3] nm, for all pairs with a cut-off, with room for denser places.

        positions [n, N, 3]: those of the first, with room for all of them. skin: nm.
        """
        several = jnp.asarray(positions).reshape(-1, *jnp.shape(positions)[-2:])
        placed = jnp.stack([self.sites.place(x) for x in several])
        return neighbour_lists(self.pair_sources, placed, box, skin=skin)

    def with_room(self, positions: jax.Array, box: jax.Array | None = None, *, source: str = "the system") -> Energy:
        """The energy with room for lists that are made for each frame, as it needs where it is called without lists and
        has more atoms than are tabulated in pairs. positions: [n, N, 3] nm, that are as dense as frames will be.

        Raises InputError where these cannot be: for pairs at any distance.
        """
        for pairs in self.pair_sources.values():
            if pairs.table is None and pairs.cutoff is None:
                raise InputError(
                    f"{source} has {pairs.atoms} particles that meet in pairs at any distance, more than {ALL_PAIRS}",
                    remedy="take a smaller system, or a cut-off",
                )
        placed = jnp.stack([self.sites.place(x) for x in jnp.asarray(positions)])
        roomy = {key: source.with_room(placed, box) for key, source in self.pair_sources.items()}
        of_source = lambda node: roomy[node.key] if isinstance(node, PairSource) else node  # noqa: E731
        terms = jax.tree.map(of_source, self.terms, is_leaf=lambda node: isinstance(node, PairSource))
        return replace(self, terms=terms)

    def renewed(self, lists: Lists, positions: jax.Array, box: jax.Array | None = None) -> Lists:
        """The lists at other positions, with the slots that they have; can be compiled."""
        return renewed(self.pair_sources, lists, self.sites.place(jnp.asarray(positions)), box)

    def current(self, lists: Lists, positions: jax.Array, box: jax.Array | None = None) -> Lists:
        """The lists, renewed where they do not hold for the positions; can be compiled."""
        return current(self.pair_sources, lists, self.sites.place(jnp.asarray(positions)), box)

    @property
    def pair_sources(self) -> dict[str, PairSource]:
        """The sets of pairs that the terms run over, each once."""
        return {found.key: found for found in _inside(self.terms, PairSource)}

    def require_box(self, box: np.ndarray | None, *, source: str = "the system") -> None:
        """Raises InputError for a box that is missing, not reduced, or too small for the cut-off of any term."""
        cutoffs = [pairs.cutoff for pairs in self.pair_sources.values() if pairs.periodic]
        if cutoffs:
            require_box(box, max(cutoffs), source=source)

    def used(self) -> dict[str, np.ndarray]:
        """The entries of each class of parameters that some term takes, sorted."""
        found: dict[str, list[np.ndarray]] = {}
        for column in _inside((self.terms, self.sites), Column):
            found.setdefault(column.leaf, []).append(np.asarray(column.index).ravel())
        used = {leaf: np.unique(np.concatenate(parts)) for leaf, parts in found.items() if leaf}
        return {leaf: entries[entries >= 0] for leaf, entries in used.items()}


def _sum(energy: Energy, positions, parameters, box, lists) -> jax.Array:
    return sum(energy.by_term(positions, parameters, box, lists), start=jnp.zeros(()))


_total = jax.custom_jvp(_sum)


@partial(_total.defjvp, symbolic_zeros=True)
def _(arguments, tangents) -> tuple[jax.Array, jax.Array]:
    """dU = Σ ∂U/∂a da over all numbers a that have a tangent."""
    made, numbers, along = with_tangents(arguments, tangents)
    value, slopes = jax.value_and_grad(lambda moved: _sum(*made(moved)))(numbers)
    return value, sum(jnp.sum(slopes[n] * tangent) for n, tangent in along.items())


def _forces(energy: Energy, positions, parameters, box, lists) -> jax.Array:
    return -jax.grad(energy)(positions, parameters, box, lists)


_pulled_forces = jax.custom_vjp(_forces)


def _forces_and_place(*arguments) -> tuple[jax.Array, tuple]:
    return _forces(*arguments), arguments


def _pulled(arguments: tuple, bar: jax.Array) -> tuple:
    """The change of the gradient by all arguments along the cotangent of the forces: derivatives of U can be taken in
    either order, so that one product with its Hessian pulls back, and nothing but the positions is kept for it."""
    energy, positions, parameters, box, lists = arguments
    numbers = (positions, parameters) if box is None else (positions, parameters, box)

    def slopes(x: jax.Array) -> tuple:
        u = lambda x, parameters, box=None: energy(x, parameters, box, lists)  # noqa: E731
        return jax.grad(u, tuple(range(len(numbers))))(x, *numbers[1:])

    of_numbers = jax.jvp(slopes, (positions,), (-bar,))[1]
    return None, *of_numbers, *[None] * (4 - len(numbers))


_pulled_forces.defvjp(_forces_and_place, _pulled)


def _inside(tree: Any, kind: type) -> list:
    leaves = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]


def require_used(energy: Energy, parameters: Parameters, *, source: str = "the energy") -> None:
    """Raises InputError for a class of parameters, or an entry of one, that no term takes."""
    used = energy.used()
    for leaf, values in parameters.items():
        if leaf not in used:
            raise InputError(f"no term of {source} takes the parameter {leaf}", remedy=nearest(leaf, used))
        idle = np.setdiff1d(np.arange(np.size(values)), used[leaf])
        if len(idle):
            raise InputError(
                f"{leaf} has {np.size(values)} entries, but no term of {source} takes entry {idle[0]}",
                remedy="leave it out: nothing depends on it, so that nothing can determine it",
            )
