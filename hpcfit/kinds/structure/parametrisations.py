"""The coordinates that structures are minimised in: positions as functions of them, of many replicas at once.

    direct     the positions themselves
    linear     X = V Z: combinations of modes V [n, m], as of the slow ones of a graph
    low pass   X = P Z: P a polynomial of the graph's Laplacian, about the projector on its slow modes
    precond    X = C^-T Y, C C^T = L + mu: all positions, in which the graph's slow and fast modes are equally stiff
    (gauss_newton: all positions in the metric of each replica's own bonds, angles and dihedrals)
    network    X = X0 + f(Z) - f(Z0): a graph network of latent coordinates Z and of weights, both of each replica

What is linear is a sum and a product of NumPy and SciPy; the energy is differentiated by the positions alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from hpcfit.errors import InputError
from hpcfit.kinds.structure.banded_cholesky import BandedCholesky, order_of
from hpcfit.kinds.structure.modes.graph import filter_modes, laplacian, step_series, top_of

Array = np.ndarray
STIFFENED = 1e-3  # mu of ``Preconditioned``


class Chart(Protocol):
    """Positions [replicas, n, d] as a function of vectors z [replicas, size]."""

    def positions(self, z: Array) -> Array:
        """The positions."""

    def pulled_back(self, z: Array, slope: Array) -> Array:
        """The derivatives of a function of the positions by z, from those by the positions."""


class Parametrisation(Protocol):
    """A way to charts, of replicas that begin somewhere."""

    def begun(self, x: Array, seeds: Array) -> tuple[Array, Chart]:
        """z at positions x, or as near to them as there is, and the chart that it is a point of. seeds: one a replica,
        for what is drawn."""


@dataclass(frozen=True)
class Direct:
    """The positions themselves; shape: (n, d)."""

    shape: tuple[int, int]

    def begun(self, x: Array, seeds: Array) -> tuple[Array, Chart]:
        """See ``Parametrisation``."""
        return x.reshape(len(x), -1), self

    def positions(self, z: Array) -> Array:
        """See ``Chart``."""
        return z.reshape(len(z), *self.shape)

    def pulled_back(self, z: Array, slope: Array) -> Array:
        """See ``Chart``."""
        return slope.reshape(len(z), -1)


def _width(x: Array) -> Array:
    """The root mean square of coordinates [replicas, n, d] from their means over particles, [replicas, 1, 1]."""
    return np.sqrt(np.mean((x - x.mean(axis=1, keepdims=True)) ** 2, axis=(1, 2), keepdims=True))


@dataclass(frozen=True)
class Linear:
    """Combinations of modes, the columns of ``modes`` [n, m], which are orthonormal.

    A start is the projection of the positions, made as wide as they are (as Dehmamy and others 2024 do): noise has
    little in slow modes, and would begin as a point.
    """

    modes: Array

    def begun(self, x: Array, seeds: Array) -> tuple[Array, Chart]:
        """See ``Parametrisation``."""
        z = np.einsum("nm,rnd->rmd", self.modes, x)
        found = np.einsum("nm,rmd->rnd", self.modes, z)
        return (z * (_width(x) / np.maximum(_width(found), 1e-300))).reshape(len(x), -1), self

    def positions(self, z: Array) -> Array:
        """See ``Chart``."""
        return np.einsum("nm,rmd->rnd", self.modes, z.reshape(len(z), self.modes.shape[1], -1))

    def pulled_back(self, z: Array, slope: Array) -> Array:
        """See ``Chart``."""
        return np.einsum("nm,rnd->rmd", self.modes, slope).reshape(len(z), -1)


@dataclass(frozen=True)
class LowPass:
    """X = P Z with Z of all particles, and P the low-pass of ``modes.graph.filter_modes``: where fast modes of Z are,
    positions and gradients do not feel them. A start is made as wide as the positions, as that of ``Linear``."""

    laplacian: scipy.sparse.csr_array
    edge: float
    degree: int

    def begun(self, x: Array, seeds: Array) -> tuple[Array, Chart]:
        """See ``Parametrisation``."""
        return (x * (_width(x) / np.maximum(_width(self._passed(x)), 1e-300))).reshape(len(x), -1), self

    def positions(self, z: Array) -> Array:
        """See ``Chart``."""
        return self._passed(z.reshape(len(z), self.laplacian.shape[0], -1))

    def pulled_back(self, z: Array, slope: Array) -> Array:
        """See ``Chart``; P is symmetric."""
        return self._passed(slope).reshape(len(z), -1)

    def _passed(self, x: Array) -> Array:
        replicas, n, d = x.shape
        columns = x.transpose(1, 0, 2).reshape(n, replicas * d)
        found = filter_modes(self.laplacian, columns, self.edge, self.degree)
        return found.reshape(n, replicas, d).transpose(1, 0, 2)


@dataclass(frozen=True)
class Preconditioned:
    """All positions, in the metric of a graph: with the Laplacian L of its couplings, Y = C^T X with C C^T = L + mu.

    order: nodes such that neighbours are near each other; factor: C in their order.
    """

    order: Array
    factor: BandedCholesky

    @classmethod
    def of(cls, couplings: scipy.sparse.sparray, mu: float = STIFFENED) -> Preconditioned:
        """From symmetric couplings [n, n], none negative; mu: in units of their mean sum at a node."""
        weights = scipy.sparse.csr_array(couplings)
        degree = np.asarray(weights.sum(axis=1)).ravel()
        if not np.any(degree > 0):
            raise InputError(
                "the graph of couplings has no edges, so that there is nothing to precondition by",
                remedy="use parametrisation = 'direct'",
            )
        laplacian = scipy.sparse.diags_array(degree) - weights
        shifted = scipy.sparse.csr_array(laplacian / degree.mean() + mu * scipy.sparse.eye_array(len(degree)))
        order = order_of(weights)
        ordered = scipy.sparse.coo_array(shifted[order][:, order])
        below = ordered.row >= ordered.col
        row, column, value = ordered.row[below], ordered.col[below], ordered.data[below]
        matrix = np.zeros((int(np.max(row - column)) + 1, len(degree)))
        np.add.at(matrix, (row - column, column), value)
        return cls(order, BandedCholesky.of(matrix))

    def begun(self, x: Array, seeds: Array) -> tuple[Array, Chart]:
        """See ``Parametrisation``: y = C^T x."""
        return self._of_columns(x[:, self.order], self.factor.transposed_times).reshape(len(x), -1), self

    def positions(self, z: Array) -> Array:
        """See ``Chart``: x = C^-T y."""
        found = self._of_columns(z.reshape(len(z), len(self.order), -1), lambda y: self.factor.solved(y, "T"))
        back = np.empty_like(found)
        back[:, self.order] = found
        return back

    def pulled_back(self, z: Array, slope: Array) -> Array:
        """See ``Chart``: C^-1 dE/dx."""
        return self._of_columns(slope[:, self.order], lambda g: self.factor.solved(g, "N")).reshape(len(z), -1)

    @staticmethod
    def _of_columns(of_node: Array, function: Callable[[Array], Array]) -> Array:
        """A function of columns [n, k], of all replicas and dimensions at once, for vectors [replicas, n, d]."""
        replicas, n, d = of_node.shape
        return function(of_node.transpose(1, 0, 2).reshape(n, replicas * d)).reshape(n, replicas, d).transpose(1, 0, 2)


# ---- networks --------------------------------------------------------------------------------------------------------


class Layer(NamedTuple):
    """The weights of a layer: of what neighbours say, of what a node itself says, and the bias."""

    of_neighbours: Any
    of_node: Any
    bias: Any


class Weights(NamedTuple):
    """The numbers of a network of one replica. latent: Z [n, width]; last: [all widths, d], from the outputs of all
    layers to positions."""

    latent: Any
    layers: tuple[Layer, ...]
    last: Any


class Graph(NamedTuple):
    """The operator A of a network, of which a product with it is needed alone: A = V diag(strength) V^T, the weights W
    of the edges of a graph, or P W with a low-pass P. from_, to: [edges], with weight [edges]. series: [degree + 1],
    Chebyshev coefficients of P in (2/top) L - 1.
    """

    modes: Any = None
    strength: Any = None
    from_: Any = None
    to: Any = None
    weight: Any = None
    series: Any = None
    top: Any = None

    @classmethod
    def filtered(cls, weights: scipy.sparse.sparray, edge: float, degree: int) -> Graph:
        """The couplings [n, n], and then the low-pass of ``modes.graph.filter_modes``."""
        edges, matrix = scipy.sparse.coo_array(weights), laplacian(weights)
        off = edges.row != edges.col
        top = top_of(matrix)
        series = step_series(2 * edge / top - 1, degree)
        return cls(from_=edges.row[off], to=edges.col[off], weight=edges.data[off], series=series, top=top)


@dataclass(frozen=True)
class Network:
    """A graph network (Dehmamy and others 2024): h <- tanh(A h W + h S + b), and positions as a linear function of all
    its layers.

    A: of slow modes, or of the graph. kind: "gcn"; "attention", which weighs neighbours by what they say; or "mlp",
    without neighbours. widths: of the layers, the latent coordinates first.

    What the network gives with the weights that it is drawn with is taken from it and the start is added: so it begins
    where every other method does.
    """

    graph: Graph
    shape: tuple[int, int]
    widths: tuple[int, ...]
    kind: str = "gcn"

    def begun(self, x: Array, seeds: Array) -> tuple[Array, Chart]:
        """See ``Parametrisation``."""
        z = self.drawn(seeds)
        return z, self.chart(z, x)

    def drawn(self, seeds: Array) -> Array:
        """The numbers of networks, [replicas, size], latent coordinates first: weights as Glorot and Bengio draw them,
        for neighbours, and normal ones for the node itself."""
        drawn = [_drawn(np.random.default_rng(int(seed)), self.sizes) for seed in seeds]
        return np.stack([np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(one)]) for one in drawn])

    def chart(self, z: Array, x: Array) -> OfNetwork:
        """The chart in which networks with numbers z are at positions x."""
        given, over = np.asarray(self.outputs(z)), {"axis": (1, 2), "keepdims": True}
        spread = np.std(x, **over) / np.maximum(np.std(given, **over), 1e-300)
        return OfNetwork(self, spread, x - spread * given)

    @property
    def sizes(self) -> tuple[int, ...]:
        """n, d and the widths."""
        return (*self.shape, *self.widths)

    def outputs(self, z: Array) -> Any:
        """The positions before they are made as wide as the start, [replicas, n, d]."""
        return _outputs(self.kind, self.sizes, self.graph, z)


@dataclass(frozen=True)
class OfNetwork:
    """The positions rest + spread f(z) of replicas."""

    network: Network
    spread: Array
    rest: Array

    def positions(self, z: Array) -> Array:
        """See ``Chart``."""
        return self.rest + self.spread * np.asarray(self.network.outputs(z))

    def pulled_back(self, z: Array, slope: Array) -> Array:
        """See ``Chart``."""
        network = self.network
        return np.asarray(_pulled(network.kind, network.sizes, network.graph, z, self.spread * slope))


@dataclass(frozen=True)
class SharedWeights:
    """Networks of the replicas of a block that have one set of weights, and latent coordinates of their own.

    Every replica carries the weights among its numbers. Their derivative is that of the mean energy of the block, the
    same for all, so that an optimizer that takes each number for itself, as Adam does, keeps them alike. What a replica
    does depends then on those beside it. One that has ended keeps the weights that it ended with, and its derivative at
    them goes on to count.
    """

    network: Network

    def begun(self, x: Array, seeds: Array) -> tuple[Array, Chart]:
        """See ``Parametrisation``: the weights are those that the first replica draws."""
        sizes = self.network.sizes
        z = self.network.drawn(seeds)
        z[:, sizes[0] * sizes[2] :] = z[0, sizes[0] * sizes[2] :]
        _, first = np.unique(seeds, return_index=True)  # a block that is not full is filled up by its first replica
        return z, OfSharedWeights(self.network.chart(z, x), np.isin(np.arange(len(x)), first))


@dataclass(frozen=True)
class OfSharedWeights:
    """The positions of replicas by shared weights. counted: [replicas], true once for each of them."""

    chart: OfNetwork
    counted: Array

    def positions(self, z: Array) -> Array:
        """See ``Chart``."""
        return self.chart.positions(z)

    def pulled_back(self, z: Array, slope: Array) -> Array:
        """See ``Chart``; of weights the mean over replicas."""
        found, sizes = self.chart.pulled_back(z, slope), self.chart.network.sizes
        latent = sizes[0] * sizes[2]
        mean = np.mean(found[self.counted, latent:], axis=0)
        return np.concatenate([found[:, :latent], np.broadcast_to(mean, (len(z), len(mean)))], axis=1)


def _drawn(random: np.random.Generator, sizes: tuple[int, ...]) -> Weights:
    n, d, *widths = sizes
    latent = random.normal(size=(n, widths[0])) / np.sqrt(widths[0])
    layers = []
    for width, wider in pairwise(widths):
        glorot = np.sqrt(2 / (width + wider))
        layers.append(
            Layer(glorot * random.normal(size=(width, wider)), random.normal(size=(width, wider)), np.zeros(wider))
        )
    whole = sum(widths)
    return Weights(latent, tuple(layers), random.normal(size=(whole, d)) / np.sqrt(whole))


def _unflat(flat: Any, sizes: tuple[int, ...]) -> Weights:
    template = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, _drawn(np.random.default_rng(0), sizes)))
    leaves, structure = jax.tree.flatten(template)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    return structure.unflatten([part.reshape(leaf.shape) for part, leaf in zip(jnp.split(flat, ends), leaves)])


def _applied(kind: str, sizes: tuple[int, ...], graph: Graph, flat: Any) -> Any:
    weights = _unflat(flat, sizes)
    h, every = weights.latent, [weights.latent]
    for layer in weights.layers:
        h = jnp.tanh(_NEIGHBOURS[kind](graph, h) @ layer.of_neighbours + h @ layer.of_node + layer.bias)
        every.append(h)
    return jnp.concatenate(every, axis=1) @ weights.last


@partial(jax.jit, static_argnums=(0, 1))
def _outputs(kind, sizes, graph, z):
    return jax.vmap(partial(_applied, kind, sizes, graph))(z)


@partial(jax.jit, static_argnums=(0, 1))
def _pulled(kind, sizes, graph, z, slope):
    return jax.vjp(jax.vmap(partial(_applied, kind, sizes, graph)), z)[1](slope)[0]


def _convolved(graph: Graph, h: Any) -> Any:
    if graph.modes is not None:
        return graph.modes @ (graph.strength[:, None] * (graph.modes.T @ h))
    coupled = jnp.zeros_like(h).at[graph.to].add(graph.weight[:, None] * h[graph.from_])
    return coupled if graph.series is None else _low_passed(graph, coupled)


def _low_passed(graph: Graph, h: Any) -> Any:
    """P h, by the recurrence of Chebyshev polynomials: T_k+1 = 2 x T_k - T_k-1."""
    degree = jnp.zeros(len(h)).at[graph.to].add(graph.weight)[:, None]

    def scaled(y):
        coupled = jnp.zeros_like(y).at[graph.to].add(graph.weight[:, None] * y[graph.from_])
        return (2 / graph.top) * (degree * y - coupled) - y

    def further(terms, factor):
        before, present, found = terms
        following = 2 * scaled(present) - before
        return (present, following, found + factor * following), None

    first = scaled(h)
    begun = (h, first, graph.series[0] * h + graph.series[1] * first)
    return jax.lax.scan(further, begun, graph.series[2:])[0][2]


def _attended(graph: Graph, h: Any) -> Any:
    """Neighbours weighed by a softmax of the products of what they and the node say (Vaswani and others 2017)."""
    score = jnp.sum(h[graph.from_] * h[graph.to], axis=1) / np.sqrt(h.shape[1])
    largest = jnp.full(len(h), -jnp.inf).at[graph.to].max(score)
    share = graph.weight * jnp.exp(score - largest[graph.to])
    total = jnp.zeros(len(h)).at[graph.to].add(share)
    return jnp.zeros_like(h).at[graph.to].add((share / total[graph.to])[:, None] * h[graph.from_])


_NEIGHBOURS: dict[str, Callable] = {
    "gcn": _convolved,
    "attention": _attended,
    "mlp": lambda graph, h: jnp.zeros_like(h),
}
