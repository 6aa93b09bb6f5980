"""A fitted linear model as an OpenMM System: tabulated terms, which OpenMM's own tools can simulate.

Each class is one force with a cubic spline through its energies in the fitted range (Continuous1DFunction) and the
continuation of ``tables`` outside. OpenMM's units: nm, kJ/mol, ps, amu.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hpcfit.errors import InputError
from hpcfit.physics.internal_coordinates import smallest_width
from hpcfit.workflow.coarse_grained.tables import Term
from hpcfit.workflow.simulation.platforms import import_openmm

POINTS = 2000  # of a table
MARGIN = 10  # points beyond each end, where OpenMM's spline has no curvature
PER_NM = 10.0  # A
# The coordinate of a bonded term in OpenMM's language, and hpcfit's units in one of OpenMM's.
BONDED = {
    "bonds": ("distance(p1,p2)", PER_NM),
    "angles": ("angle(p1,p2,p3)", 1.0),
    "dihedrals": ("dihedral(p1,p2,p3,p4)", 1.0),
}
CONTINUED = (
    "U(min(max({q}, {low}), {high})) + {below}*min({q}-{low}, 0) + {above}*max({q}-{high}, 0)"
    " + 0.5*{floor}*min({q}-{low}, 0)^2 + 0.5*{ceiling}*max({q}-{high}, 0)^2"
)


def build_system(
    terms: Sequence[Term], masses: Sequence[float], types: Sequence[str], box: np.ndarray | None = None
) -> Any:
    """The System of N beads with masses (amu) and types, in a box [3, 3] (A) or none.

    Raises InputError for a box narrower than twice the longest pair distance that has a force.
    """
    openmm = import_openmm()
    system = openmm.System()
    for mass in masses:
        system.addParticle(float(mass))
    if box is not None:
        _check_box(terms, box)
        system.setDefaultPeriodicBoxVectors(*(openmm.Vec3(*vector) for vector in np.asarray(box, float) / PER_NM))
    excluded = _excluded(terms, len(types))
    for term in terms:
        maker = _pair_force if term.kind == "pairs" else _bonded_force
        force = maker(openmm, term, box is not None)
        if term.kind == "pairs":
            _choose_pairs(force, term, types, excluded)
        force.setName(f"{term.kind} {term.label}")
        system.addForce(force)
    return system


def system_xml(system: Any) -> str:
    """The System as OpenMM's XML."""
    return import_openmm().XmlSerializer.serialize(system)


def _check_box(terms: Sequence[Term], box: np.ndarray) -> None:
    longest = max((term.high for term in terms if term.kind == "pairs"), default=0.0)
    width = smallest_width(box)
    if longest > width / 2:
        raise InputError(
            f"pairs have forces up to {longest:g} A, and half the smallest width of the box is {width / 2:g} A",
            remedy="fit with a shorter cut-off (pair_range)",
        )


def _pair_force(openmm: Any, term: Term, periodic: bool) -> Any:
    force = openmm.CustomNonbondedForce(_expression(term, "r"))
    _add_table(openmm, force, term, PER_NM)
    if periodic:
        force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
        force.setCutoffDistance(term.high / PER_NM)
    return force


def _choose_pairs(force: Any, term: Term, types: Sequence[str], excluded: np.ndarray) -> None:
    """The pairs of a class: all of its two types, but for those that no class has."""
    for _ in types:
        force.addParticle([])
    force.addInteractionGroup(*(np.flatnonzero(np.asarray(types) == types[bead]).tolist() for bead in term.beads[0]))
    for pair in excluded.tolist():
        force.addExclusion(*pair)


def _excluded(terms: Sequence[Term], n_beads: int) -> np.ndarray:
    """The pairs that are in no class."""
    there = np.zeros((n_beads, n_beads), bool)
    for term in terms:
        if term.kind == "pairs":
            there[tuple(term.beads.T)] = True
    i, j = np.triu_indices(n_beads, 1)
    return np.stack([i, j], axis=1)[~(there | there.T)[i, j]]


def _bonded_force(openmm: Any, term: Term, periodic: bool) -> Any:
    """Of all terms of a class: the only force of OpenMM with bonds, angles and dihedrals from tables."""
    coordinate, per_unit = BONDED[term.kind]
    size = term.beads.shape[1]
    force = openmm.CustomCompoundBondForce(size, _expression(term, coordinate))
    _add_table(openmm, force, term, per_unit)
    force.setUsesPeriodicBoundaryConditions(periodic)
    for beads in term.beads.tolist():
        force.addBond(beads, [])
    return force


def _add_table(openmm: Any, force: Any, term: Term, per_unit: float) -> None:
    force.addTabulatedFunction("U", _table(openmm, term, per_unit))
    if term.family.periodic:
        return
    for name, value in _continuation(term, per_unit).items():
        force.addGlobalParameter(f"{name}_{_tag(term)}", value)


def _table(openmm: Any, term: Term, per_unit: float) -> Any:
    """U at equal steps: of the range and a margin, or of the circle."""
    if term.family.periodic:
        values = term(np.linspace(-np.pi, np.pi, POINTS))[0]
        values[-1] = values[0]
        return openmm.Continuous1DFunction(values.tolist(), -np.pi, np.pi, True)
    step = (term.high - term.low) / (POINTS - 1)
    ends = term.low - MARGIN * step, term.high + MARGIN * step
    values = term(np.linspace(*ends, POINTS + 2 * MARGIN))[0]
    return openmm.Continuous1DFunction(values.tolist(), ends[0] / per_unit, ends[1] / per_unit)


def _continuation(term: Term, per_unit: float) -> dict[str, float]:
    slopes = term(np.array([term.low, term.high]))[1] * per_unit
    floor, ceiling = (wall * per_unit**2 for wall in term.walls)
    return {
        "low": term.low / per_unit, "high": term.high / per_unit, "below": slopes[0], "above": slopes[1],
        "floor": floor, "ceiling": ceiling,
    }  # fmt: skip


def _expression(term: Term, coordinate: str) -> str:
    if term.family.periodic:
        return f"U({coordinate})"
    names = {name: f"{name}_{_tag(term)}" for name in ("low", "high", "below", "above", "floor", "ceiling")}
    return CONTINUED.format(q=coordinate, **names)


def _tag(term: Term) -> str:
    """What tells the parameters of one class from those of others: OpenMM shares them by name."""
    return f"{term.kind}{term.number}"
