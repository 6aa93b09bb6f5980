"""OpenMM's bonded forces, in and out: HarmonicBond, HarmonicAngle, PeriodicTorsion, RBTorsion, CMAPTorsion.

A reader takes a force and the types of the system and gives a term, and a writer that puts parameters into the same
force of another copy of the System.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hpcfit.energies.bonded import HarmonicAngles, HarmonicBonds, PeriodicTorsions, RyckaertBellemansTorsions
from hpcfit.energies.cmap import cmap_torsions
from hpcfit.energies.columns import Types
from hpcfit.energies.openmm_reading import Read, numbers, plain, table, values


def bonds(force: Any, types: Types) -> Read:
    """HarmonicBondForce."""
    atoms, (length, k) = table(force.getNumBonds(), force.getBondParameters, 2)
    columns = types.columns(types.prefix("bond"), {"length": length, "k": k}, atoms)
    term = HarmonicBonds(atoms=atoms, periodic=force.usesPeriodicBoundaryConditions(), **columns)

    def write(force, parameters):
        for item, row in enumerate(values(parameters, term.length, term.k)):
            force.setBondParameters(item, *numbers(atoms[item]), *row)

    return Read((term,), write)


def angles(force: Any, types: Types) -> Read:
    """HarmonicAngleForce."""
    atoms, (angle, k) = table(force.getNumAngles(), force.getAngleParameters, 3)
    columns = types.columns(types.prefix("angle"), {"angle": angle, "k": k}, atoms)
    term = HarmonicAngles(atoms=atoms, periodic=force.usesPeriodicBoundaryConditions(), **columns)

    def write(force, parameters):
        for item, row in enumerate(values(parameters, term.angle, term.k)):
            force.setAngleParameters(item, *numbers(atoms[item]), *row)

    return Read((term,), write)


def torsions(force: Any, types: Types) -> Read:
    """PeriodicTorsionForce."""
    atoms, (periodicity, phase, k) = table(force.getNumTorsions(), force.getTorsionParameters, 4)
    prefix = types.prefix("torsion")
    columns = types.columns(prefix, {"phase": phase, "k": k}, atoms, beside=[periodicity])
    periodic = force.usesPeriodicBoundaryConditions()
    term = PeriodicTorsions(atoms=atoms, periodic=periodic, periodicity=periodicity, **columns)

    def write(force, parameters):
        for item, row in enumerate(values(parameters, term.phase, term.k)):
            force.setTorsionParameters(item, *numbers(atoms[item]), int(periodicity[item]), *row)

    return Read((term,), write)


def rb_torsions(force: Any, types: Types) -> Read:
    """RBTorsionForce."""
    atoms, c = table(force.getNumTorsions(), force.getTorsionParameters, 4)
    named = {f"c{power}": column for power, column in enumerate(c)}
    columns = tuple(types.columns(types.prefix("rb"), named, atoms).values())
    term = RyckaertBellemansTorsions(atoms=atoms, periodic=force.usesPeriodicBoundaryConditions(), c=columns)

    def write(force, parameters):
        for item, row in enumerate(values(parameters, *columns)):
            force.setTorsionParameters(item, *numbers(atoms[item]), *row)

    return Read((term,), write)


def cmaps(force: Any, types: Types) -> Read:
    """CMAPTorsionForce; maps of one size make a term, and those that no torsion takes are left alone."""
    maps = [force.getMapParameters(number) for number in range(force.getNumMaps())]
    items, _ = table(force.getNumTorsions(), force.getTorsionParameters, 9)
    terms, writers = [], []
    taken = np.unique(items[:, 0])
    for size in sorted({int(maps[number][0]) for number in taken}):
        chosen = {int(number): maps[number][1] for number in taken if maps[number][0] == size}
        term, writer = _maps_of_size(items[np.isin(items[:, 0], list(chosen))], chosen, size, types, force)
        terms.append(term)
        writers.append(writer)

    def write(force, parameters):
        for writer in writers:
            writer(force, parameters)

    return Read(tuple(terms), write)


def _maps_of_size(rows, maps, size: int, types: Types, force):
    # OpenMM holds a map with its first dihedral fast.
    tables = [np.reshape(plain(energies), (size, size)).T for energies in maps.values()]
    column = types.whole(types.prefix("cmap") + ".map", np.array(tables))
    number = np.searchsorted(list(maps), rows[:, 0])
    periodic = force.usesPeriodicBoundaryConditions()
    term = cmap_torsions(rows[:, 1:], number, column, (len(maps), size), periodic=periodic)

    def write(force, parameters):
        energies = np.asarray(column.values(parameters)).reshape(len(maps), size, size)
        for number, energy in zip(maps, energies):
            force.setMapParameters(number, size, energy.T.ravel().tolist())

    return term, write
