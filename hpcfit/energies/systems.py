"""OpenMM Systems in and out: every force becomes terms, and parameters go back into a copy of the System."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcfit.energies import openmm_bonded, openmm_custom, openmm_multipoles, openmm_nonbonded
from hpcfit.energies.columns import Types, fixed
from hpcfit.energies.constraints import Constraints, clusters
from hpcfit.energies.energy import Energy
from hpcfit.energies.openmm_reading import Box, plain, table
from hpcfit.energies.openmm_sites import read_sites
from hpcfit.errors import InputError, nearest
from hpcfit.log import logger
from hpcfit.physics.openmm_library import import_openmm

# Class of a force -> the method that counts its items, and its reader: of (force, types) or of (force, types, box).
BONDED = {
    "HarmonicBondForce": ("getNumBonds", openmm_bonded.bonds),
    "HarmonicAngleForce": ("getNumAngles", openmm_bonded.angles),
    "PeriodicTorsionForce": ("getNumTorsions", openmm_bonded.torsions),
    "RBTorsionForce": ("getNumTorsions", openmm_bonded.rb_torsions),
    "CMAPTorsionForce": ("getNumTorsions", openmm_bonded.cmaps),
    "CustomBondForce": ("getNumBonds", openmm_custom.bonded),
    "CustomAngleForce": ("getNumAngles", openmm_custom.bonded),
    "CustomTorsionForce": ("getNumTorsions", openmm_custom.bonded),
    "CustomCompoundBondForce": ("getNumBonds", openmm_custom.bonded),
    "CustomExternalForce": ("getNumParticles", openmm_custom.external),
}
NONBONDED = {
    "NonbondedForce": ("getNumParticles", openmm_nonbonded.nonbonded),
    "GBSAOBCForce": ("getNumParticles", openmm_nonbonded.born),
    "CustomNonbondedForce": ("getNumParticles", openmm_custom.pairs),
    "CustomGBForce": ("getNumParticles", openmm_custom.gb),
    "AmoebaMultipoleForce": ("getNumMultipoles", openmm_multipoles.multipoles),
}
WITHOUT_ENERGY = (
    *("CMMotionRemover", "AndersenThermostat", "MonteCarloBarostat", "MonteCarloAnisotropicBarostat"),
    *("MonteCarloMembraneBarostat", "MonteCarloFlexibleBarostat"),
)


@dataclass(frozen=True)
class LoadedSystem:
    """A System as an energy.

    parameters, labels: class -> its values, and a name for each. masses: [N] amu. box: [3, 3] nm, or None. names: of
    the atoms, if they are known. Pickled it is its XML, which is read again.
    """

    energy: Energy
    parameters: dict[str, np.ndarray]
    labels: dict[str, list[str]]
    constraints: Constraints
    masses: np.ndarray
    box: np.ndarray | None
    xml: str
    writers: dict[int, Callable]
    names: tuple[str, ...] | None = None

    def __reduce__(self) -> tuple:
        return _read_again, (self.xml, self.names)

    def to_system(self, parameters: Mapping[str, Any]) -> Any:
        """A copy of the System with these parameters; classes that are not given keep their values."""
        whole = self.parameters | {leaf: self._like(leaf, values) for leaf, values in parameters.items()}
        system = import_openmm().XmlSerializer.deserialize(self.xml)
        for number, write in self.writers.items():
            write(system.getForce(number), whole)
        lengths = np.asarray(self.constraints.lengths.values(whole))
        for number, length in enumerate(lengths):
            first, second, _ = system.getConstraintParameters(number)
            system.setConstraintParameters(number, first, second, float(length))
        return system

    def entries(self, name: str) -> tuple[str, list[int]]:
        """The class and the entries of a name: `lj.epsilon` for all of a class, `lj.epsilon:HOH.O` for one of them."""
        leaf, colon, label = name.partition(":")
        self._require(leaf)
        if colon and label not in self.labels[leaf]:
            raise InputError(f"{leaf} has no entry {label}", remedy=nearest(label, self.labels[leaf]))
        return leaf, [self.labels[leaf].index(label)] if colon else list(range(len(self.labels[leaf])))

    def _require(self, leaf: str) -> None:
        if leaf not in self.parameters:
            raise InputError(f"the System has no parameters {leaf}", remedy=nearest(leaf, self.parameters))

    def _like(self, leaf: str, values) -> np.ndarray:
        """Values for a class of parameters; raises InputError where there is no such class, or not as many values."""
        self._require(leaf)
        if np.shape(values) != self.parameters[leaf].shape:
            known = len(self.parameters[leaf])
            remedy = f"give one for each of {', '.join(self.labels[leaf][:10])}"
            raise InputError(f"{leaf} has {known} entries in the System, not {np.size(values)}", remedy=remedy)
        return np.asarray(values)

    def require_positions(self, positions, *, source: str = "the positions") -> None:
        """Raises InputError for positions that are not [N, 3] for the particles of the System."""
        shape, particles = np.shape(positions), len(self.masses)
        if len(shape) != 2 or shape[1] != 3:
            raise InputError(f"{source} have the shape {shape}, not [N, 3]", remedy="give x, y and z of each particle")
        if shape[0] != particles:
            raise InputError(
                f"the System has {particles} particles, but {source} are those of {shape[0]}",
                remedy="give both for the same particles, virtual sites included",
            )

    def to_xml(self, parameters: Mapping[str, Any]) -> str:
        """The System with these parameters, as OpenMM's XML."""
        return import_openmm().XmlSerializer.serialize(self.to_system(parameters))


def from_system(
    system: Any, topology: Any = None, *, names: Sequence[str] | None = None, source: str = "the System"
) -> LoadedSystem:
    """The energy of an OpenMM System; names of its atoms, or a topology (openmm.app), are for labels of parameters."""
    openmm = import_openmm()
    names = names if topology is None else _names(topology)
    types = Types(names)
    box = Box(np.array([plain(vector) for vector in system.getDefaultPeriodicBoxVectors()], dtype=float))
    reads = {number: _read(system.getForce(number), types, box, source) for number in _order(system)}
    reads = {number: read for number, read in sorted(reads.items()) if read is not None}
    masses = np.array([plain(system.getParticleMass(atom)) for atom in range(system.getNumParticles())])
    constraints = _constraints(system, types, masses)
    return LoadedSystem(
        Energy(tuple(term for read in reads.values() for term in read.terms), read_sites(system)),
        dict(types.values),
        dict(types.labels),
        constraints,
        masses,
        box.vectors if system.usesPeriodicBoundaryConditions() else None,
        openmm.XmlSerializer.serialize(system),
        {number: read.write for number, read in reads.items()},
        None if names is None else tuple(names),
    )


def _read_again(xml: str, names: Sequence[str] | None) -> LoadedSystem:
    return from_system(import_openmm().XmlSerializer.deserialize(xml), names=names)


def _order(system) -> list[int]:
    """The forces, a NonbondedForce before those that share its charges."""
    forces = range(system.getNumForces())
    return sorted(forces, key=lambda number: system.getForce(number).__class__.__name__ != "NonbondedForce")


def _read(force, types: Types, box: Box, source: str):
    kind = force.__class__.__name__
    if kind in WITHOUT_ENERGY:
        logger.info("%s of %s has no energy and is passed over", kind, source)
        return None
    if kind not in BONDED | NONBONDED:
        raise InputError(
            f"{source} has a {kind}, which hpcfit does not compute",
            remedy=f"remove it, or write its energy as your own function; known: {', '.join(BONDED | NONBONDED)}",
        )
    count, reader = (BONDED | NONBONDED)[kind]
    if getattr(force, count)() == 0:
        return None
    return reader(force, types) if kind in BONDED else reader(force, types, box)


def _constraints(system, types: Types, masses) -> Constraints:
    count = system.getNumConstraints()
    if not count:
        return clusters(np.zeros((0, 2)), fixed([]), masses)
    pairs, (lengths,) = table(count, system.getConstraintParameters, 2)
    column = types.columns(types.prefix("constraint"), {"length": lengths}, pairs)["length"]
    return clusters(pairs, column, masses)


def _names(topology) -> list[str]:
    """RESIDUE.ATOM of every atom."""
    return [f"{atom.residue.name}.{atom.name}" for atom in topology.atoms()]
