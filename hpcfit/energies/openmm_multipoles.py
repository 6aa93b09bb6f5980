"""OpenMM's AmoebaMultipoleForce, in and out: mutual polarization without cut-off."""

from __future__ import annotations

from typing import Any

import numpy as np

from hpcfit.energies.columns import Types
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
    thole, damping, polarizability = rows[17:]
    _require(frame, damping, polarizability)
    axes = np.where(axes < 0, np.arange(atoms)[:, None], axes)
    prefix, number = types.prefix("multipole"), np.arange(atoms)
    named = {"charge": rows[0], "polarizability": polarizability, "thole": thole}
    none = {"polarizability": polarizability == 0, "thole": polarizability == 0}
    columns = types.columns(prefix, named, number, constant=none)
    moments = {
        name: types.columns(prefix, {name: np.ravel(parts)}, np.repeat(number, parts.shape[1]),
                            constant={name: np.ravel(parts) == 0})[name]
        for name, parts in {"dipole": np.stack(rows[1:4], 1), "quadrupole": np.stack(rows[4:13], 1)}.items()
    }  # fmt: skip
    permanent, direct, induced = _scales(force, atoms)
    term = PolarizableMultipoles(
        **columns, **moments, frame=frame, axes=axes, permanent=permanent, direct=direct, induced=induced
    )

    def write(force, parameters):
        dipoles, quadrupoles = (np.reshape(moments[name].values(parameters), (atoms, -1)) for name in moments)
        for atom, (charge, α, a) in enumerate(values(parameters, term.charge, term.polarizability, term.thole)):
            kind, *around = numbers([rows[13][atom], *(row[atom] for row in rows[14:17])])
            moment = [dipoles[atom].tolist(), quadrupoles[atom].tolist()]
            force.setMultipoleParameters(atom, charge, *moment, kind, *around, a, α ** (1 / 6), α)

    return Read((term,), write)


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


def _scales(force, atoms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    return permanent, direct, induced
