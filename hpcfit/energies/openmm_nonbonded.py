"""OpenMM's NonbondedForce and GBSAOBCForce, in and out.

α, the mesh and the number of waves are chosen by OpenMM's rules where the force does not give them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hpcfit.energies.born import BornSolvation
from hpcfit.energies.columns import Column, Types, part
from hpcfit.energies.coulomb import Coulomb, EwaldCoulomb
from hpcfit.energies.openmm_exceptions import read_exceptions
from hpcfit.energies.openmm_reading import Box, Read, pairs_of, plain, table, values
from hpcfit.energies.pair_potentials import PairPotential, kind_pairs
from hpcfit.energies.reciprocal import mesh, waves
from hpcfit.errors import InputError

FEWER = 0.7  # of the atoms, below which a list of their own pays


def nonbonded(force: Any, types: Types, box: Box) -> Read:
    """NonbondedForce."""
    if force.getNumParticleParameterOffsets() or force.getNumExceptionParameterOffsets():
        raise InputError("NonbondedForce has parameter offsets, which hpcfit does not read", remedy="remove them")
    atoms = force.getNumParticles()
    _, (charge, sigma, epsilon) = table(atoms, force.getParticleParameters, 0)
    number = np.arange(atoms)
    charges = types.share("charge", types.columns("", {"charge": charge}, number)["charge"])
    none = {"sigma": epsilon == 0, "epsilon": epsilon == 0}
    lj = types.columns(types.prefix("lj"), {"sigma": sigma, "epsilon": epsilon}, number, constant=none)
    excluded, exceptions = read_exceptions(force, types, {"charge": charges, **lj}, (charge, sigma, epsilon))
    coulomb = _coulomb(force, pairs_of(force, atoms, excluded, box), charges, excluded, box)
    terms = [*_lennard_jones(force, excluded, lj, box), coulomb, *exceptions.terms]

    def write(force, parameters):
        for atom, row in enumerate(values(parameters, charges, lj["sigma"], lj["epsilon"])):
            force.setParticleParameters(atom, *row)
        exceptions.write(force, parameters)

    return Read(tuple(terms), write)


def _lennard_jones(force, excluded, lj, box: Box) -> list[PairPotential]:
    """The term, over atoms with ε ≠ 0 alone where these are a good deal fewer; none where there are none."""
    atoms = force.getNumParticles()
    members = np.flatnonzero((lj["epsilon"].index >= 0) | (lj["epsilon"].constant != 0))
    if not len(members):
        return []
    few = len(members) < FEWER * atoms
    source = pairs_of(force, atoms, excluded, box, members if few else None)
    columns = {name: part(column, members) if few else column for name, column in lj.items()}
    switched = source.cutoff is not None and force.getUseSwitchingFunction()
    start = plain(force.getSwitchingDistance()) if switched else None
    corrected = source.periodic and force.getUseDispersionCorrection()
    tail = kind_pairs(tuple(columns.values()), atoms) if corrected else None
    return [PairPotential(pairs=source, **columns, switch_from=start, tail=tail)]


def _coulomb(force, source, charges: Column, excluded, box: Box):
    method = force.getNonbondedMethod()
    if method == force.NoCutoff:
        return Coulomb(pairs=source, charge=charges)
    if method in (force.CutoffNonPeriodic, force.CutoffPeriodic):
        return Coulomb(pairs=source, charge=charges, dielectric=force.getReactionFieldDielectric())
    if method == force.LJPME:
        raise InputError(
            "NonbondedForce uses LJPME, which hpcfit does not compute", remedy="use PME with the dispersion correction"
        )
    alpha, reciprocal = (_ewald if method == force.Ewald else _pme)(force, source.cutoff, box)
    return EwaldCoulomb(
        pairs=source,
        charge=charges,
        excluded=excluded,
        reciprocal=reciprocal,
        alpha=alpha,
        excluded_periodic=force.getExceptionsUsePeriodicBoundaryConditions(),
    )


def _pme(force, cutoff: float, box: Box):
    """OpenMM's rule for α and the mesh, where the force does not give them: from the tolerance δ of the error.

    α = √(−ln 2δ)/r_c,   K = ⌈2 α L/(3 δ^(1/5))⌉, at least 6
    """
    alpha, *size = map(plain, force.getPMEParameters())
    if alpha == 0:
        tolerance = force.getEwaldErrorTolerance()
        alpha = math.sqrt(-math.log(2 * tolerance)) / cutoff
        size = [max(6, math.ceil(2 * alpha * width / (3 * tolerance**0.2))) for width in box.widths]
    return alpha, mesh(tuple(size))


def _ewald(force, cutoff: float, box: Box):
    """OpenMM's rule: as many waves as bring 0.05 √(L α) k exp(−(π k/(L α))²) below the tolerance, and an odd number."""
    tolerance = force.getEwaldErrorTolerance()
    alpha = math.sqrt(-math.log(2 * tolerance)) / cutoff

    def most(width: float) -> int:
        def error(k: int) -> float:
            return 0.05 * math.sqrt(width * alpha) * k * math.exp(-((k * math.pi / (width * alpha)) ** 2))

        k = 10
        if error(k) < tolerance:
            while k > 0 and error(k) < tolerance:
                k -= 1
            k += 1
        while error(k) > tolerance:
            k += 1
        return k + 1 - k % 2 - 1

    return alpha, waves(tuple(most(width) for width in box.widths))


def born(force: Any, types: Types, box: Box) -> Read:
    """GBSAOBCForce, whose charges are those of the NonbondedForce where all are equal."""
    atoms = force.getNumParticles()
    _, (charge, radius, scale) = table(atoms, force.getParticleParameters, 0)
    number, prefix = np.arange(atoms), types.prefix("gb")
    charges = types.shared("charge", charge) or types.columns(prefix, {"charge": charge}, number)["charge"]
    term = BornSolvation(
        pairs=pairs_of(force, atoms, (), box),
        charge=charges,
        **types.columns(prefix, {"radius": radius, "scale": scale}, number),
        solute=force.getSoluteDielectric(),
        solvent=force.getSolventDielectric(),
        surface=plain(force.getSurfaceAreaEnergy()),
    )

    def write(force, parameters):
        for atom, row in enumerate(values(parameters, charges, term.radius, term.scale)):
            force.setParticleParameters(atom, *row)

    return Read((term,), write)
