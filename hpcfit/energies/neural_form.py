"""A small neural potential of atoms, as an example of a form with many parameters.

    U = Σ_i MLP(e_i, h_i),   h_ik = Σ_j f_c(r_ij) exp(−(r_ij − μ_k)²/(2 w²)) e_j,   f_c = ½ (1 + cos(π r/r_c))

after Behler and Parrinello 2007 (10.1103/PhysRevLett.98.146401), with a learned vector e for each element. U does not
change when the system is moved or turned, or like atoms are exchanged. It is 0 without neighbours, up to a constant
an element.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.lists import PairSource
from hpcfit.pytrees import pytree

PREFIX = "neural"


@dataclass(frozen=True)
class Architecture:
    """functions: Gaussians of distances. embedding: numbers that stand for an element. width, depth: of hidden
    layers."""

    functions: int = 8
    embedding: int = 2
    width: int = 16
    depth: int = 2


@pytree
@dataclass(frozen=True, kw_only=True)
class NeuralPotential:
    """pairs: with a cut-off. element: [N], numbers from 0. architecture: what `initial_parameters` was given."""

    pairs: PairSource
    element: np.ndarray
    architecture: Architecture = field(default=Architecture(), metadata={"static": True})

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all atoms, kJ/mol."""
        pairs, shape = self.pairs.pairs(frame), self.architecture
        embedded = parameters[f"{PREFIX}.elements"][self.element]  # [N, embedding]
        centres = jnp.linspace(0.0, self.pairs.cutoff, shape.functions)
        width = self.pairs.cutoff / shape.functions
        fade = 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(pairs.r / self.pairs.cutoff, 1.0)))

        def around(centre, values):
            near = fade * jnp.exp(-0.5 * ((pairs.r - centre) / width) ** 2)
            return pairs.by_atom(near * pairs.second(values), near * pairs.first(values))

        over_values = jax.vmap(around, (None, 1), 1)
        neighbours = jax.vmap(over_values, (0, None), 1)(centres, embedded)  # [N, functions, embedding]
        features = jnp.concatenate([embedded, neighbours.reshape(len(embedded), -1)], axis=1)
        return jnp.sum(jax.vmap(_network(shape, parameters))(features))


def initial_parameters(elements: int, architecture: Architecture, seed: int) -> dict[str, jax.Array]:
    """Random parameters for so many elements: `neural.elements` and the arrays of the network, `neural.0` and so on."""
    key, own = jax.random.split(jax.random.key(seed))
    arrays = jax.tree.leaves(eqx.filter(_mlp(architecture, key), eqx.is_array))
    embedded = jax.random.normal(own, (elements, architecture.embedding), dtype=float)
    return {f"{PREFIX}.elements": embedded} | {f"{PREFIX}.{number}": array for number, array in enumerate(arrays)}


def _mlp(shape: Architecture, key) -> eqx.nn.MLP:
    inputs = shape.embedding * (1 + shape.functions)
    return eqx.nn.MLP(inputs, "scalar", shape.width, shape.depth, activation=jax.nn.silu, dtype=float, key=key)


def _network(shape: Architecture, parameters: Mapping[str, jax.Array]) -> eqx.nn.MLP:
    """The network with arrays from the parameters in place of its own."""
    empty = eqx.filter_eval_shape(_mlp, shape, jax.random.key(0))
    arrays, rest = eqx.partition(empty, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    tree = jax.tree.structure(arrays)
    given = [parameters[f"{PREFIX}.{number}"] for number in range(tree.num_leaves)]
    return eqx.combine(jax.tree.unflatten(tree, given), rest)
