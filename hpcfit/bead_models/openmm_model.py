"""A fitted linear model as an OpenMM System: tabulated terms, which OpenMM's own tools can simulate.

There is one force a kind of term, for all of its classes: each force costs time at every step, and a protein has
hundreds of classes. Its table has a row a class, with the energies in its fitted range at equal steps, between which
OpenMM puts cubic splines (Continuous2DFunction; a row's number is a whole one, where rows do not mix). Outside of its
range a class goes on as ``tables`` says. OpenMM's units: nm, kJ/mol, ps, amu.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hpcfit.bead_models.tables import Term
from hpcfit.errors import InputError
from hpcfit.physics.openmm_library import import_openmm
from hpcfit.physics.periodic import smallest_width

POINTS = 500  # of the table of a class
MARGIN = 10  # points beyond each end, where OpenMM's spline has no curvature
PER_NM = 10.0  # A
# The coordinate of a term in OpenMM's language, and hpcfit's units in one of OpenMM's.
COORDINATES = {
    "pairs": ("r", PER_NM),
    "bonds": ("distance(p1,p2)", PER_NM),
    "angles": ("angle(p1,p2,p3)", 1.0),
    "dihedrals": ("dihedral(p1,p2,p3,p4)", 1.0),
}
ON_A_CIRCLE = f"U({MARGIN} + {POINTS - 1}*(0.5 + q/{2 * np.pi!r}), number)"
CONTINUED = (
    f"U({MARGIN} + {POINTS - 1}*(inside - low(number))/(high(number) - low(number)), number)"
    " + below(number)*under + above(number)*over + 0.5*floor(number)*under^2 + 0.5*ceiling(number)*over^2;"
    " inside = min(max(q, low(number)), high(number));"
    " under = min(q - low(number), 0); over = max(q - high(number), 0)"
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
    for kind in COORDINATES:
        alike = [term for term in terms if term.kind == kind]
        if not alike:
            continue
        force = _pair_force(openmm, alike, types) if kind == "pairs" else _bonded_force(openmm, alike)
        _make_periodic(force, alike, box is not None)
        force.setName(kind)
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


def _pair_force(openmm: Any, terms: Sequence[Term], types: Sequence[str]) -> Any:
    force = openmm.CustomNonbondedForce(_expression(terms, "number = class(type1, type2)"))
    force.addPerParticleParameter("type")
    _add_tables(openmm, force, terms)
    names = sorted(set(types))
    class_of = np.zeros((len(names), len(names)))
    for number, term in enumerate(terms):
        i, j = (names.index(types[bead]) for bead in term.beads[0])
        class_of[i, j] = class_of[j, i] = number
    force.addTabulatedFunction("class", openmm.Discrete2DFunction(*class_of.shape, class_of.ravel().tolist()))
    for name in types:
        force.addParticle([names.index(name)])
    for pair in _excluded(terms, len(types)).tolist():
        force.addExclusion(*pair)
    return force


def _excluded(terms: Sequence[Term], n_beads: int) -> np.ndarray:
    """The pairs that are in no class."""
    there = np.zeros((n_beads, n_beads), bool)
    for term in terms:
        there[tuple(term.beads.T)] = True
    i, j = np.triu_indices(n_beads, 1)
    return np.stack([i, j], axis=1)[~(there | there.T)[i, j]]


def _bonded_force(openmm: Any, terms: Sequence[Term]) -> Any:
    """The only force of OpenMM with bonds, angles and dihedrals from tables."""
    force = openmm.CustomCompoundBondForce(terms[0].beads.shape[1], _expression(terms))
    force.addPerBondParameter("number")
    _add_tables(openmm, force, terms)
    for number, term in enumerate(terms):
        for beads in term.beads.tolist():
            force.addBond(beads, [number])
    return force


def _make_periodic(force: Any, terms: Sequence[Term], periodic: bool) -> None:
    if terms[0].kind != "pairs":
        force.setUsesPeriodicBoundaryConditions(periodic)
    elif periodic:
        force.setNonbondedMethod(force.CutoffPeriodic)
        force.setCutoffDistance(max(term.high for term in terms) / PER_NM)


def _expression(terms: Sequence[Term], *definitions: str) -> str:
    coordinate, _ = COORDINATES[terms[0].kind]
    energy = ON_A_CIRCLE if terms[0].family.periodic else CONTINUED
    return "; ".join([energy, f"q = {coordinate}", *definitions])


def _add_tables(openmm: Any, force: Any, terms: Sequence[Term]) -> None:
    """U of all classes at equal steps, and what each is continued by."""
    rows = [_table(term) for term in terms]
    rows = rows if len(rows) > 1 else 2 * rows  # OpenMM wants two at least
    points = len(rows[0])
    table = openmm.Continuous2DFunction(points, len(rows), np.ravel(rows).tolist(), 0, points - 1, 0, len(rows) - 1)
    force.addTabulatedFunction("U", table)
    if terms[0].family.periodic:
        return
    found = [_continuation(term) for term in terms]
    for name in found[0]:
        force.addTabulatedFunction(name, openmm.Discrete1DFunction([one[name] for one in found]))


def _table(term: Term) -> np.ndarray:
    """U of the range, or of the circle, and of the margin on both sides."""
    low, high = (-np.pi, np.pi) if term.family.periodic else (term.low, term.high)
    return term(low + (high - low) * np.arange(-MARGIN, POINTS + MARGIN) / (POINTS - 1))[0]


def _continuation(term: Term) -> dict[str, float]:
    _, per_unit = COORDINATES[term.kind]
    slopes = term(np.array([term.low, term.high]))[1] * per_unit
    floor, ceiling = (wall * per_unit**2 for wall in term.walls)
    return {
        "low": term.low / per_unit, "high": term.high / per_unit, "below": slopes[0], "above": slopes[1],
        "floor": floor, "ceiling": ceiling,
    }  # fmt: skip
