"""The methods of a config as phases: coordinates and optimizers, one after another, from the same starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from scipy.sparse import coo_array, csr_array

from hpcfit.errors import InputError
from hpcfit.fit.downhill import Adam, Descent, Fire
from hpcfit.fit.inner import OfRows
from hpcfit.fit.lbfgs import Ends, Lbfgs
from hpcfit.kinds.structure.config import MethodConfig
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.kinds.structure.minimisations import Phase
from hpcfit.kinds.structure.modes.graph import edge_of_share, laplacian, lowest_modes
from hpcfit.kinds.structure.opening import unit_of
from hpcfit.kinds.structure.parametrisations import (
    Direct,
    Graph,
    Linear,
    LowPass,
    Network,
    Parametrisation,
    Preconditioned,
)

FIRST = 0.1  # of the first step, root mean square over particles, in units of length


def phases(
    method: MethodConfig, landscape: Landscape, weights: csr_array | None, budget: int, solver: str = "auto"
) -> Sequence[Phase]:
    """The phases of a method: its coordinates, then all positions, then without a cap of the cores.

    weights: of the graph, [n, n]; None where there is none. solver: of its modes.
    """
    unit = unit_of(landscape)
    make, direct = partial(_optimizer, method, unit * np.sqrt(landscape.n)), Direct((landscape.n, landscape.d))
    rate = unit * method.rate
    if method.parametrisation == "direct":
        found = [Phase(direct, make(budget, rate), method.cap)]
    elif method.parametrisation == "precond":
        found = [Phase(Preconditioned.of(weights), make(budget, rate), method.cap)]
    else:
        of_coarse = method.network_rate if method.parametrisation == "gnn" else rate
        steps = max(int(method.share * budget), 1)
        found = [
            Phase(coordinates(method, landscape, weights, solver), make(steps, of_coarse), method.cap),
            Phase(direct, make(budget, rate), method.cap),
        ]
    return found if method.cap == 0 else [*found, found[-1]._replace(cap=0.0)]


def check_graph(method: MethodConfig, landscape: Landscape, has_graph: bool) -> None:
    """Raise InputError for a method that needs a graph where there is none, or more modes than it has."""
    if method.parametrisation != "direct" and not has_graph:
        raise InputError(
            f"method '{method.name}': parametrisation = '{method.parametrisation}' needs a graph of couplings, and all"
            " particles of this energy are alike",
            remedy="use parametrisation = 'direct', or [problem.modes] source = 'hessian'",
        )
    if number_of_modes(method, landscape) > landscape.n:
        raise InputError(
            f"method '{method.name}': modes = {method.modes}, and the graph of {landscape.n} particles has"
            f" {landscape.n}",
            remedy=f"set modes to at most {landscape.n}",
        )


def number_of_modes(method: MethodConfig, landscape: Landscape) -> int:
    """The modes of a method, those of whole pieces of the graph included."""
    if method.modes == "filter":
        return max(int(method.passed * landscape.n), 1)
    return method.modes or max(landscape.n // 3, 1)


def coordinates(
    method: MethodConfig, landscape: Landscape, weights: csr_array, solver: str = "auto"
) -> Parametrisation:
    """The slow coordinates of a method, by the modes of the graph."""
    if method.modes == "filter":
        edge = edge_of_share(laplacian(weights), method.passed, method.degree)
        if method.parametrisation == "linear":
            return LowPass(laplacian(weights), edge, method.degree)
        operator = Graph.filtered(weights, edge, method.degree)
        return Network(operator, (landscape.n, landscape.d), tuple(method.widths), method.network)
    if method.parametrisation == "linear":
        return Linear(slowest(weights, number_of_modes(method, landscape), solver))
    operator = Graph()
    if method.network == "gcn":
        modes = slowest(weights, number_of_modes(method, landscape), solver)
        operator = Graph(modes=modes, strength=np.einsum("nm,nm->m", modes, weights @ modes))
    elif method.network == "attention":
        edges = coo_array(weights)
        operator = Graph(from_=edges.row, to=edges.col, weight=edges.data)
    return Network(operator, (landscape.n, landscape.d), tuple(method.widths), method.network)


def slowest(weights: csr_array, number: int, solver: str = "auto") -> np.ndarray:
    """The slowest modes of a graph, [n, number], orthonormal: those of whole pieces, which move as one, come first."""
    matrix = laplacian(weights)
    own = lowest_modes(matrix, 1)
    pieces = own.null.toarray()[:, :number]
    more = number - pieces.shape[1]
    return pieces if more == 0 else np.concatenate([pieces, lowest_modes(matrix, more, solver).vectors], axis=1)


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
