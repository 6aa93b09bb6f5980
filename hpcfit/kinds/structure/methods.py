"""The methods of a config as phases: coordinates and optimizers, one after another, from the same starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from scipy.sparse import coo_array, csr_array

from hpcfit.errors import InputError
from hpcfit.fit.downhill import Adam, Descent, Fire
from hpcfit.fit.inner import OfRows
from hpcfit.fit.lbfgs import Ends, Lbfgs
from hpcfit.kinds.structure.annealing import HOT, STEP, Annealing, Cooling
from hpcfit.kinds.structure.config import MethodConfig
from hpcfit.kinds.structure.gauss_newton import RENEWED, GaussNewton
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.kinds.structure.landscapes.loops import Loops
from hpcfit.kinds.structure.landscapes.system import SystemLandscape
from hpcfit.kinds.structure.minimisations import Phase
from hpcfit.kinds.structure.minimisers import check_minimiser
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
    SharedWeights,
)
from hpcfit.physics.constants import GAS_CONSTANT

KJ_MOL = "kJ/mol"  # the unit of energies whose temperatures are in K
NEED_GRAPH = ("linear", "precond", "gnn")
CAP = 0.9  # of sigma
FIRST = 0.1  # of the first step, root mean square over particles, in units of length


def phases(
    method: MethodConfig, landscape: Landscape, weights: csr_array | None, budget: int, solver: str = "auto"
) -> Sequence[Phase]:
    """The phases of a method: what comes before all positions, all positions, then without a cap of the cores.

    weights: of the graph, [n, n]; None where there is none. solver: of its modes.
    """
    unit, part, cap = unit_of(landscape), max(int(method.share * budget), 1), cap_of(method, landscape)
    make, rate = partial(_optimizer, method, unit * np.sqrt(landscape.n)), unit * method.rate
    direct, renewed = Direct((landscape.n, landscape.d)), 0
    all_positions: Parametrisation = direct
    if method.parametrisation == "precond":
        all_positions = Preconditioned.of(weights)
    elif method.parametrisation == "gauss-newton":
        all_positions, renewed = GaussNewton.of(landscape.stiffnesses(), landscape.n), RENEWED
    whole, before = Phase(all_positions, make(budget, rate), cap, renewed=renewed), []
    if method.parametrisation in ("linear", "gnn"):
        of_coarse = method.network_rate if method.parametrisation == "gnn" else rate
        before = [Phase(coordinates(method, landscape, weights, solver), make(part, of_coarse), cap)]
    elif method.optimizer == "annealing":
        before = [Phase(direct, _annealing(method, landscape, part), cap)]
    elif method.homotopy:
        before = [whole._replace(make=make(part, rate), landscape=replace(landscape, bonded=True))]
    after = [] if cap == 0 else [whole._replace(cap=0.0)]
    return [*before, whole, *after]


def cap_of(method: MethodConfig, landscape: Landscape) -> float:
    """The cap of cores of a method. Atoms of a System have none by default: hydrogens without a core of their own fall
    onto oxygens where a cap takes away that of the oxygen."""
    if method.cap is not None:
        return method.cap
    return 0.0 if isinstance(landscape, SystemLandscape) else CAP


def check_method(method: MethodConfig, landscape: Landscape, has_graph: bool) -> None:
    """Raise InputError for a method that this energy does not have."""
    if method.parametrisation in NEED_GRAPH and not has_graph:
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
    if method.homotopy and not (isinstance(landscape, Loops) and not landscape.bonded):
        raise InputError(
            f"method '{method.name}': homotopy = true is a way from springs to attraction, of pure loops alone",
            remedy="use it with form = 'loops', bonded = false",
        )
    if method.parametrisation == "gauss-newton" and landscape.stiffnesses() is None:
        raise InputError(
            f"method '{method.name}': parametrisation = 'gauss-newton' needs bonds, angles or dihedrals",
            remedy="use it with a protein, a system or a peptide; parametrisation = 'precond' needs a graph alone",
        )
    if method.optimizer == "annealing" and method.temperature is None and landscape.unit != KJ_MOL:
        raise InputError(
            f"method '{method.name}': annealing needs a temperature, in units of this energy",
            remedy="set temperature to about the energy of a pair",
        )
    check_minimiser(method, landscape)


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
    elif method.parametrisation == "linear":
        return Linear(slowest(weights, number_of_modes(method, landscape), solver))
    operator = Graph()
    if method.modes == "filter":
        operator = Graph.filtered(weights, edge, method.degree)
    elif method.network == "gcn":
        modes = slowest(weights, number_of_modes(method, landscape), solver)
        operator = Graph(modes=modes, strength=np.einsum("nm,nm->m", modes, weights @ modes))
    elif method.network == "attention":
        edges = coo_array(weights)
        operator = Graph(from_=edges.row, to=edges.col, weight=edges.data)
    of_replica = Network(operator, (landscape.n, landscape.d), tuple(method.widths), method.network)
    return SharedWeights(of_replica) if method.shared else of_replica


def slowest(weights: csr_array, number: int, solver: str = "auto") -> np.ndarray:
    """The slowest modes of a graph, [n, number], orthonormal: those of whole pieces, which move as one, come first."""
    matrix = laplacian(weights)
    own = lowest_modes(matrix, 1)
    pieces = own.null.toarray()[:, :number]
    more = number - pieces.shape[1]
    return pieces if more == 0 else np.concatenate([pieces, lowest_modes(matrix, more, solver).vectors], axis=1)


def _optimizer(method: MethodConfig, reach: float, steps: int, rate: float) -> Callable[[OfRows, np.ndarray], Descent]:
    """A maker of the method's optimizer. reach: the norm of a step in which every particle moves by a unit of length.

    Adam's rate is in units of length too.
    """
    ends = Ends(steps, relative=method.tolerance, patience=method.patience)
    longest = method.longest * reach
    if method.optimizer == "adam":
        return lambda inner, seeds: Adam(inner, ends, rate=rate, clip=method.clip)
    if method.optimizer == "fire":
        return lambda inner, seeds: Fire(inner, ends, longest=longest)
    return lambda inner, seeds: Lbfgs(inner, longest=longest, ends=ends, first_step=FIRST * reach)


def _annealing(method: MethodConfig, landscape: Landscape, steps: int) -> Callable[[OfRows, np.ndarray], Descent]:
    """A maker of the annealing before the minimisation, of so many evaluations, the one at the start included."""
    kT = GAS_CONSTANT * (method.temperature or HOT) if landscape.unit == KJ_MOL else method.temperature
    cooling = Cooling(kT, unit_of(landscape) * (method.step or STEP), max(steps - 1, 1))
    return lambda inner, seeds: Annealing(inner, seeds, cooling)
