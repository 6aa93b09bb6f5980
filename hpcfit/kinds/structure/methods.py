"""The methods of a config as phases: coordinates and optimizers, one after another, from the same starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import scipy.sparse

from hpcfit.errors import InputError
from hpcfit.fit.downhill import Adam, Descent, Fire
from hpcfit.fit.inner import OfRows
from hpcfit.fit.lbfgs import Ends, Lbfgs
from hpcfit.kinds.structure.config import MethodConfig
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.kinds.structure.minimisations import Phase
from hpcfit.kinds.structure.opening import unit_of
from hpcfit.kinds.structure.parametrisations import (
    Direct,
    Graph,
    Linear,
    Network,
    Parametrisation,
    Preconditioned,
)

FIRST = 0.1  # of the first step, root mean square over particles, in units of length


def phases(method: MethodConfig, landscape: Landscape, budget: int) -> Sequence[Phase]:
    """The phases of a method: its coordinates, then all positions, then without a cap of the cores."""
    reach = unit_of(landscape) * np.sqrt(landscape.n)
    make, direct = partial(_optimizer, method, reach), Direct((landscape.n, landscape.d))
    rate = unit_of(landscape) * method.rate
    if method.parametrisation == "direct":
        found = [Phase(direct, make(budget, rate), method.cap)]
    elif method.parametrisation == "precond":
        found = [Phase(Preconditioned.of(graph(landscape, method)), make(budget, rate), method.cap)]
    else:
        coarse = coordinates(method, landscape)
        of_coarse = method.network_rate if method.parametrisation == "gnn" else rate
        steps = max(int(method.share * budget), 1)
        found = [
            Phase(coarse, make(steps, of_coarse), method.cap),
            Phase(direct, make(budget, rate), method.cap),
        ]
    return found if method.cap == 0 else [*found, found[-1]._replace(cap=0.0)]


def coordinates(method: MethodConfig, landscape: Landscape) -> Parametrisation:
    """The slow coordinates of a method, by the modes of the couplings' graph."""
    weights = graph(landscape, method)
    number = method.modes or max(landscape.n // 3, 1)
    if number > landscape.n:
        raise InputError(
            f"method '{method.name}': modes = {number}, and the graph of {landscape.n} particles has {landscape.n}",
            remedy=f"set modes to at most {landscape.n}",
        )
    if method.parametrisation == "linear":
        return Linear(slowest(weights, number)[1])
    operator = Graph()
    if method.network == "gcn":
        values, vectors = slowest(weights, number)
        operator = Graph(modes=vectors, strength=values)
    elif method.network == "attention":
        edges = scipy.sparse.coo_array(weights)
        operator = Graph(from_=edges.row, to=edges.col, weight=edges.data)
    return Network(operator, (landscape.n, landscape.d), tuple(method.widths), method.network)


def graph(landscape: Landscape, method: MethodConfig) -> scipy.sparse.csr_array:
    """The couplings. Raises InputError where the energy has none."""
    found = landscape.couplings()
    if found is None:
        raise InputError(
            f"method '{method.name}': parametrisation = '{method.parametrisation}' needs a graph of couplings, and all"
            " particles of this energy are alike",
            remedy="use parametrisation = 'direct'",
        )
    return scipy.sparse.csr_array(found)


def slowest(weights: scipy.sparse.csr_array, number: int) -> tuple[np.ndarray, np.ndarray]:
    """(strengths v^T F v [m], modes [n, m]) of the lowest modes of the graph's Laplacian; F: the couplings."""
    degree = np.asarray(weights.sum(axis=1)).ravel()
    laplacian = np.diag(degree) - weights.toarray()
    _, vectors = scipy.linalg.eigh(laplacian, subset_by_index=(0, number - 1))
    return np.einsum("nm,nm->m", vectors, weights @ vectors), vectors


def _optimizer(method: MethodConfig, reach: float, steps: int, rate: float) -> Callable[[OfRows], Descent]:
    """A maker of the method's optimizer. reach: the norm of a step in which every particle moves by a unit of length.

    Adam's rate is in units of length too.
    """
    ends = Ends(steps, relative=method.tolerance, patience=method.patience)
    longest = method.longest * reach
    if method.optimizer == "adam":
        return lambda inner: Adam(inner, ends, rate=rate, clip=method.clip)
    if method.optimizer == "fire":
        return lambda inner: Fire(inner, ends, longest=longest)
    return lambda inner: Lbfgs(inner, longest=longest, ends=ends, first_step=FIRST * reach)
