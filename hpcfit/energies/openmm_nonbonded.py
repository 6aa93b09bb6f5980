"""OpenMM's NonbondedForce and GBSAOBCForce, in and out.

Exceptions that are what their atoms' parameters give, times a scale a class of pairs (1-4), stay so: a fitted charge
changes them too. Others have parameters of their own. Exceptions without charge and ε are exclusions and have none.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hpcfit.energies.born import BornSolvation
from hpcfit.energies.columns import Column, Types, part
from hpcfit.energies.coulomb import Coulomb, EwaldCoulomb, OwnPairs, ScaledPairs
from hpcfit.energies.openmm_reading import Box, Read, numbers, pairs_of, plain, table, values
from hpcfit.energies.pair_potentials import PairPotential, kind_pairs
from hpcfit.energies.reciprocal import mesh, waves
from hpcfit.errors import InputError

MOST_SCALES = 4  # different ratios of exceptions to what their atoms give, up to which these are scales
SAME_RATIO = 1e-9
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
    pairs = _Exceptions(force, types, charges, lj["sigma"], lj["epsilon"], (charge, sigma, epsilon))
    source = pairs_of(force, atoms, pairs.atoms, box)
    terms = [*_lennard_jones(force, pairs.atoms, lj, box), _coulomb(force, source, charges, pairs, box), *pairs.terms]

    def write(force, parameters):
        for atom, row in enumerate(values(parameters, charges, lj["sigma"], lj["epsilon"])):
            force.setParticleParameters(atom, *row)
        pairs.write(force, parameters)

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


def _coulomb(force, source, charges: Column, pairs, box: Box):
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
        excluded=pairs.atoms,
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


class _Exceptions:
    """The exceptions of a NonbondedForce. atoms: [X, 2], all of them. terms: those that are no mere exclusions."""

    def __init__(self, force, types: Types, charges: Column, sigma: Column, epsilon: Column, own):
        count = force.getNumExceptions()
        self.atoms, self.terms = np.zeros((0, 2), dtype=np.int32), []
        if not count:
            return
        self.atoms, (product, sigmas, epsilons) = table(count, force.getExceptionParameters, 2)
        self._rows = np.flatnonzero((product != 0) | (epsilons != 0))
        if not len(self._rows):
            return
        rows, pairs = self._rows, self.atoms[self._rows]
        given = product[rows], sigmas[rows], epsilons[rows]
        periodic = force.getExceptionsUsePeriodicBoundaryConditions()
        scales = _scales(pairs, given, own)
        if scales is None:
            self._term = OwnPairs(atoms=pairs, periodic=periodic, **_own_columns(types, pairs, given))
        else:
            scale = types.prefix("scale14")
            columns = [
                types.columns(scale, {name: column}, pairs, constant={name: column == 0})[name]
                for name, column in zip(("charge", "epsilon"), scales)
            ]
            self._term = ScaledPairs(
                atoms=pairs,
                periodic=periodic,
                charge=charges,
                sigma=sigma,
                epsilon=epsilon,
                charge_scale=columns[0],
                epsilon_scale=columns[1],
            )
        self.terms = [self._term]

    def write(self, force, parameters) -> None:
        """Puts the parameters of the exceptions into a force."""
        if not self.terms:
            return
        for row, *found in zip(self._rows, *self._term.pair_values(parameters)):
            force.setExceptionParameters(int(row), *numbers(self.atoms[row]), *map(float, found))


def _own_columns(types: Types, pairs, given) -> dict[str, Column]:
    product, sigma, epsilon = given
    named = {"charge_product": product, "sigma": sigma, "epsilon": epsilon}
    none = {"charge_product": product == 0, "sigma": epsilon == 0, "epsilon": epsilon == 0}
    return types.columns(types.prefix("pair"), named, pairs, constant=none)


def _scales(pairs, given, own) -> tuple[np.ndarray, np.ndarray] | None:
    """The scales [T] of charge and ε of exceptions that follow from their atoms' parameters; None if they do not."""
    (product, sigma, epsilon), (charge, sigmas, epsilons) = given, own
    i, j = pairs.T
    by_charge = _ratios(product, charge[i] * charge[j])
    by_epsilon = _ratios(epsilon, np.sqrt(epsilons[i] * epsilons[j]))
    mean = np.where(epsilon == 0, sigma, 0.5 * (sigmas[i] + sigmas[j]))
    if by_charge is None or by_epsilon is None or not np.allclose(sigma, mean, rtol=SAME_RATIO, atol=0):
        return None
    return by_charge, by_epsilon


def _ratios(found, expected) -> np.ndarray | None:
    """found/expected, near values made equal, 0 where both are 0; None for many values, or none at all."""
    if np.any((expected == 0) & (found != 0)):
        return None
    ratio = np.divide(found, expected, out=np.zeros_like(found), where=expected != 0)
    distinct = np.sort(ratio[expected != 0])
    distinct = distinct[np.diff(distinct, prepend=-np.inf) > SAME_RATIO]
    if len(distinct) > MOST_SCALES:
        return None
    return distinct[np.argmin(np.abs(ratio[:, None] - distinct), axis=1)] if len(distinct) else ratio


def born(force: Any, types: Types, box: Box) -> Read:
    """GBSAOBCForce, whose charges are those of the NonbondedForce where all are equal."""
    atoms = force.getNumParticles()
    _, (charge, radius, scale) = table(atoms, force.getParticleParameters, 0)
    number = np.arange(atoms)
    prefix = types.prefix("gb")
    charges = types.shared("charge", charge)
    if charges is None:
        charges = types.columns(prefix, {"charge": charge}, number)["charge"]
    columns = types.columns(prefix, {"radius": radius, "scale": scale}, number)
    term = BornSolvation(
        pairs=pairs_of(force, atoms, (), box),
        charge=charges,
        **columns,
        solute=force.getSoluteDielectric(),
        solvent=force.getSolventDielectric(),
        surface=plain(force.getSurfaceAreaEnergy()),
    )

    def write(force, parameters):
        for atom, row in enumerate(values(parameters, charges, term.radius, term.scale)):
            force.setParticleParameters(atom, *row)

    return Read((term,), write)
