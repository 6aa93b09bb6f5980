"""OpenMM's AmoebaMultipoleForce, in and out: mutual polarization without cut-off."""

from __future__ import annotations

from typing import Any

import numpy as np

from hpcfit.energies.columns import Column, Types
from hpcfit.energies.multipoles import BISECTOR, NO_AXES, Z_THEN_X, PolarizableMultipoles
from hpcfit.energies.openmm_reading import Box, Read, numbers, table, values
from hpcfit.errors import InputError

# Factors of pairs one to four bonds apart, as AMOEBA has them.
PERMANENT, INDUCED = (0.0, 0.0, 0.4, 0.8), (0.0, 0.0, 1.0, 1.0)
WITHIN_GROUP = 0.5  # further factor of INDUCED three bonds apart in one polarization group
SAME = 1e-6


def multipoles(force: Any, types: Types, box: Box) -> Read:
    """AmoebaMultipoleForce."""
    if force.getNonbondedMethod() != force.NoCutoff or force.getPolarizationType() != force.Mutual:
        remedy = "use NoCutoff and Mutual; other forms can be functions of your own"
        raise InputError(
            "AmoebaMultipoleForce has a mesh, or no mutual polarization; hpcfit computes neither", remedy=remedy
        )
    atoms = force.getNumMultipoles()
    _, rows = table(atoms, force.getMultipoleParameters, 0)
    frame, axes = rows[13].astype(int), np.stack(rows[14:17], axis=1).astype(int)
    _require(frame, damping=rows[18], polarizability=rows[19])
    around = np.where(axes < 0, np.arange(atoms)[:, None], axes)
    columns, factors = _columns(types, rows), _factors(force, atoms)
    term = PolarizableMultipoles(**columns, **factors, frame=frame, axes=around)

    def write(force, parameters):
        moments = [
            np.reshape(column.values(parameters), (atoms, -1)).tolist() for column in (term.dipole, term.quadrupole)
        ]
        others = values(parameters, term.charge, term.polarizability, term.thole)
        for atom, (dipole, quadrupole, (charge, α, thole)) in enumerate(zip(*moments, others)):
            where = int(frame[atom]), *numbers(axes[atom])
            force.setMultipoleParameters(atom, charge, dipole, quadrupole, *where, thole, α ** (1 / 6), α)

    return Read((term,), write)


def _columns(types: Types, rows) -> dict[str, Column]:
    """Parameters of the atoms, and moments, of which equal values are one parameter."""
    prefix, number, polarizability = types.prefix("multipole"), np.arange(len(rows[0])), rows[19]
    named = {"charge": rows[0], "polarizability": polarizability, "thole": rows[17]}
    none = {"polarizability": polarizability == 0, "thole": polarizability == 0}
    found = types.columns(prefix, named, number, constant=none)
    for name, parts in {"dipole": rows[1:4], "quadrupole": rows[4:13]}.items():
        moment, atoms = np.stack(parts, axis=1).ravel(), np.repeat(number, len(parts))
        found |= types.columns(prefix, {name: moment}, atoms, constant={name: moment == 0})
    return found


def _require(frame, damping, polarizability) -> None:
    other = np.flatnonzero(~np.isin(frame, (Z_THEN_X, BISECTOR, NO_AXES)))
    if len(other):
        what = f"the multipole of atom {other[0]} has axes of sort {frame[other[0]]}"
        raise InputError(f"{what}, which hpcfit does not compute", remedy="use ZThenX, Bisector or NoAxisType")
    off = np.flatnonzero(np.abs(damping - polarizability ** (1 / 6)) > SAME)
    if len(off):
        what = f"the damping of atom {off[0]} is {damping[off[0]]:g}, but polarizability^(1/6) is"
        raise InputError(
            f"{what} {polarizability[off[0]] ** (1 / 6):g}", remedy="hpcfit takes the latter: make them equal"
        )


def _factors(force, atoms: int) -> dict[str, np.ndarray]:
    """Factors of the permanent energy, of the field that polarizes, and of that in the energy, [N, N] each."""
    permanent, direct, induced = (1 - np.eye(atoms) for _ in range(3))
    for atom in range(atoms):
        group = [other for other in force.getCovalentMap(atom, force.PolarizationCovalent11) if other != atom]
        direct[atom, group] = 0
        for bonds, kind in enumerate((force.Covalent12, force.Covalent13, force.Covalent14, force.Covalent15)):
            apart = list(force.getCovalentMap(atom, kind))
            permanent[atom, apart], induced[atom, apart] = PERMANENT[bonds], INDUCED[bonds]
            if bonds == 2:
                induced[atom, [other for other in apart if other in group]] *= WITHIN_GROUP
    return {"permanent": permanent, "direct": direct, "induced": induced}
