"""An OpenMM System as a landscape: all terms of its force field, generalised Born models included (``energies``).

Coordinates are positions in nm, energies kJ/mol. A System with constraints has no energy along what they hold, and is
refused.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import csr_array

from hpcfit.energies.energy import Energy
from hpcfit.energies.systems import from_system
from hpcfit.errors import InputError, check_is_file
from hpcfit.kinds.structure.landscapes import contact_graph
from hpcfit.kinds.structure.landscapes.landscape import OVERLAP, Landscape, Stiff, Stiffnesses
from hpcfit.kinds.structure.landscapes.soft_terms import CAP, soft
from hpcfit.physics.openmm_library import import_openmm
from hpcfit.pytrees import pytree
from hpcfit.readers.boundary import reading
from hpcfit.readers.topology import particles_of_residues
from hpcfit.simulation.model import deserialized
from hpcfit.store.particles import Particles

# Atoms are moved by so much, each its own way, where there is a cap: those on each other then have a direction.
APART = 1e-7  # nm
BACKGROUND = 3000.0  # kJ/mol/nm², about the stiffness of an atom in forces of atoms that are not bonded
AMBER = ("amber14-all.xml", "implicit/gbn2.xml")  # amber14 with GBn2 (10.1021/acs.jctc.5b00255, 10.1021/ct3010485)


class Facts(NamedTuple):
    """Words of a System. xml: all of it, serialized. names: of the atoms, CHAIN:RESIDUE NUMBER.ATOM, or none;
    particles: the atoms with their residues, where they are known."""

    xml: str
    names: tuple[str, ...]
    particles: Particles | None = None


@pytree
@dataclass(frozen=True)
class SystemLandscape(Landscape):
    """N atoms of a System. Made by ``of``, ``of_xml`` or ``of_structure``.

    potential: with a cap among its parameters. box: [3, 3] nm, or None. bonds: [b, 2] with lengths [b] nm; sigma: [N]
    nm, 0 of atoms without a core; excluded: [x, 2], pairs without one. native: [N, 3] nm, where it was given.
    """

    at_once: ClassVar = 50

    potential: Energy
    parameters: dict[str, np.ndarray]
    box: np.ndarray | None
    bonds: np.ndarray
    lengths: np.ndarray
    sigma: np.ndarray
    excluded: np.ndarray
    masses: np.ndarray
    native: np.ndarray
    n: int = field(metadata={"static": True})
    facts: Facts = field(metadata={"static": True})
    d: int = field(default=3, metadata={"static": True})
    unit: str = field(default="kJ/mol", metadata={"static": True})
    length: str = field(default="nm", metadata={"static": True})

    @classmethod
    def of(
        cls, system: Any, positions: np.ndarray, *, names: Sequence[str] = (), source: str = "the System",
        particles: Particles | None = None,
    ) -> SystemLandscape:  # fmt: skip
        """The landscape of an openmm.System at positions [N, 3] nm, for which lists of neighbours get room."""
        loaded = from_system(system, names=names or None, source=source)
        loaded.require_positions(positions, source=f"the positions of {source}")
        count = system.getNumConstraints()
        if count:
            raise InputError(
                f"{source} has {count} constraints, along which it has no energy",
                remedy="make it with constraints=None and rigidWater=False",
            )
        loaded.energy.require_box(loaded.box, source=source)
        sigma, excluded = _cores(system)
        bonds, lengths = _bonds(system)
        potential = soft(loaded.energy, sigma).with_room(np.asarray(positions)[None], loaded.box, source=source)
        facts = Facts(loaded.xml, tuple(names), particles)
        return cls(
            potential, loaded.parameters, loaded.box, bonds, lengths, sigma, excluded, loaded.masses,
            np.asarray(positions, float), len(loaded.masses), facts,
        )  # fmt: skip

    @classmethod
    def of_xml(
        cls, path: Path, positions: np.ndarray, *, names: Sequence[str] = (), particles: Particles | None = None
    ) -> SystemLandscape:
        """The landscape of a System that OpenMM serialized to a file."""
        check_is_file(path, "system")
        system = deserialized(path, import_openmm().System)
        return cls.of(system, positions, names=names, source=f"the System in {path}", particles=particles)

    @classmethod
    def of_structure(cls, path: Path, force_field: Sequence[str] = AMBER) -> SystemLandscape:
        """The landscape of the first model of a PDB or mmCIF file; see ``of_topology``."""
        check_is_file(path, "structure")
        app = import_openmm().app
        reader = app.PDBxFile if path.suffix.lower() in (".cif", ".mmcif") else app.PDBFile
        with reading(f"structure {path} cannot be read by OpenMM", "give a PDB or mmCIF file"):
            given = reader(str(path))
        return cls.of_topology(given, force_field, str(path))

    @classmethod
    def of_sequence(cls, sequence: str, force_field: Sequence[str] = AMBER) -> SystemLandscape:
        """The landscape of a chain of residues in one-letter code, embedded in space by RDKit (Riniker and Landrum
        2015, 10.1021/acs.jcim.5b00654), one coil for one sequence; see ``of_topology``."""
        app, chem = import_openmm().app, _rdkit()
        molecule = chem.MolFromSequence(sequence)
        if molecule is None or not molecule.GetNumAtoms():
            raise InputError(
                f"the sequence {sequence!r} is none of the 20 residues in one-letter code", remedy="correct it"
            )
        molecule = chem.AddHs(molecule)
        if chem.rdDistGeom.EmbedMolecule(molecule, randomSeed=1):
            raise InputError(f"RDKit cannot embed the sequence {sequence!r}", remedy="give a file with coordinates")
        text = chem.MolToPDBBlock(chem.RemoveHs(molecule))
        return cls.of_topology(app.PDBFile(io.StringIO(text)), force_field, f"the sequence {sequence}")

    @classmethod
    def of_topology(cls, given: Any, force_field: Sequence[str], source: str) -> SystemLandscape:
        """The landscape of a structure that OpenMM has read, without its water, with hydrogens where it lacks them, by
        a force field of OpenMM without cut-off.

        Raises InputError, with OpenMM's words, for a residue that the force field has no template of.
        """
        app = import_openmm().app
        named = f"{source} with {', '.join(force_field)}"
        with reading(f"no System can be made of {named}", "complete the residue, or add a force field that has it"):
            forces = app.ForceField(*force_field)
            modeller = app.Modeller(given.topology, given.positions)
            modeller.deleteWater()
            modeller.addHydrogens(forces)
            system = forces.createSystem(modeller.topology, nonbondedMethod=app.NoCutoff)
        names = [
            f"{atom.residue.chain.id}:{atom.residue.name} {atom.residue.id}.{atom.name}"
            for atom in modeller.topology.atoms()
        ]
        positions = np.asarray(modeller.positions.value_in_unit_system(import_openmm().unit.md_unit_system), float)
        particles = _particles(modeller.topology)
        return cls.of(system, positions, names=names, source=named, particles=particles)

    def energy(self, x: jax.Array, cap: Any = 0.0) -> jax.Array:
        """See ``Landscape``. Under a cap atoms are moved by up to APART; Ewald sums and custom pair forces have no
        cap."""
        cap = jnp.asarray(cap, float)
        moved = jnp.asarray(x) + jnp.where(cap > 0, APART, 0.0) * self._directions
        return self.potential(moved, self.parameters | {CAP: cap[None]}, self.box)

    @property
    def _directions(self) -> np.ndarray:
        """A fixed vector for each atom, [N, 3], within a unit cube."""
        return np.random.default_rng(0).uniform(-0.5, 0.5, (self.n, 3))

    def independent(self, x: np.ndarray) -> float:
        """The energy by OpenMM's Reference platform, in double precision."""
        openmm = import_openmm()
        system = openmm.XmlSerializer.deserialize(self.facts.xml)
        integrator = openmm.VerletIntegrator(0.001)
        context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
        context.setPositions(np.asarray(x, np.float64))
        return context.getState(getEnergy=True).getPotentialEnergy()._value

    def couplings(self) -> csr_array:
        """See ``Landscape``: 1 of each bond."""
        return contact_graph.joined(self.n, self.bonds)

    def stiffnesses(self) -> Stiffnesses | None:
        """See ``Landscape``: of harmonic bonds and angles, and of periodic torsions, k n² each."""
        kinds = _stiff_terms(import_openmm().XmlSerializer.deserialize(self.facts.xml))
        return Stiffnesses(kinds, BACKGROUND) if kinds else None

    def contacts(self, x: np.ndarray) -> tuple[int, int]:
        """The bonds whose lengths are within the limits of a contact, in units of their lengths at rest; all bonds."""
        return int(self._intact(x).sum()), len(self.bonds)

    def pieces(self, x: np.ndarray) -> int:
        """The parts that such bonds hold together."""
        return contact_graph.pieces(self.n, self.bonds[self._intact(x)])

    def _intact(self, x: np.ndarray) -> np.ndarray:
        return contact_graph.in_contact(contact_graph.distances(x, self.bonds), self.lengths)

    def overlaps(self, x: np.ndarray) -> int:
        """See ``Landscape``; bonded pairs and the images of a periodic box are not counted."""
        near = contact_graph.pairs_within(x, OVERLAP * float(self.sigma.max(initial=0.0)))
        close = contact_graph.distances(x, near) < OVERLAP * self.sigma[near].mean(axis=1)
        both = self.sigma[near].min(axis=1, initial=np.inf) > 0
        return sum(tuple(pair) not in self._without_core for pair in near[close & both].tolist())

    @cached_property
    def _without_core(self) -> set[tuple[int, int]]:
        return set(map(tuple, np.sort(self.excluded, axis=1).tolist()))

    def particles(self) -> Particles | None:
        """See ``Landscape``."""
        return self.facts.particles

    def elements(self) -> Sequence[str]:
        """See ``Landscape``."""
        return super().elements() if self.facts.particles is None else self.facts.particles.elements

    def distinguishable(self) -> bool:
        """See ``Landscape``: true of one molecule."""
        return contact_graph.pieces(self.n, self.bonds) == 1

    def label(self, particle: int) -> str:
        """See ``Landscape``."""
        return self.facts.names[particle] if self.facts.names else f"atom {particle}"


def _rdkit() -> Any:
    try:
        from rdkit import Chem
        from rdkit.Chem import rdDistGeom  # noqa: F401  # an attribute of Chem from now on
    except ImportError as error:
        raise InputError(
            f"a sequence needs RDKit, which cannot be imported: {error}", remedy="pip install 'hpcfit[simulate]'"
        ) from None
    return Chem


def _particles(topology: Any) -> Particles:
    """The atoms of a topology of OpenMM."""
    atoms, residues = list(topology.atoms()), list(topology.residues())
    elements = tuple("" if atom.element is None else atom.element.symbol for atom in atoms)
    residue = np.array([atom.residue.index for atom in atoms])
    return particles_of_residues(
        tuple(atom.name for atom in atoms), elements, residue, tuple(one.name for one in residues),
        numbers=tuple(int(one.id) if one.id.lstrip("-").isdigit() else one.index + 1 for one in residues),
        chains=tuple(one.chain.id.strip() for one in residues),
        bonds=np.array([(a.index, b.index) for a, b in topology.bonds()], int).reshape(-1, 2),
    )  # fmt: skip


def _cores(system: Any) -> tuple[np.ndarray, np.ndarray]:
    """σ [N] nm of the atoms that have a core, 0 of others, and the pairs that are left out or scaled, [x, 2]."""
    sigma, excluded = np.zeros(system.getNumParticles()), []
    for force in system.getForces():
        if type(force).__name__ == "NonbondedForce":
            rows = [force.getParticleParameters(atom) for atom in range(force.getNumParticles())]
            sigma = np.array([size._value if depth._value else 0.0 for _, size, depth in rows])
            excluded = [force.getExceptionParameters(number)[:2] for number in range(force.getNumExceptions())]
    return sigma, np.array(excluded, int).reshape(-1, 2)


def _bonds(system: Any) -> tuple[np.ndarray, np.ndarray]:
    """The harmonic bonds, [b, 2], and their lengths at rest, [b] nm; those without a force are none."""
    rows = [
        force.getBondParameters(number)
        for force in system.getForces() if type(force).__name__ == "HarmonicBondForce"
        for number in range(force.getNumBonds())
    ]  # fmt: skip
    held = [(row[0], row[1], row[2]._value) for row in rows if row[3]._value > 0]
    pairs = np.array([row[:2] for row in held], int).reshape(-1, 2)
    return pairs, np.array([row[2] for row in held], float)


def _stiff_terms(system: Any) -> tuple[Stiff, ...]:
    """The harmonic bonds and angles and the periodic torsions of a System, those that it has."""
    found: dict[int, list[tuple[tuple[int, ...], float]]] = {2: [], 3: [], 4: []}
    for force in system.getForces():
        name = type(force).__name__
        if name == "HarmonicBondForce":
            rows = [force.getBondParameters(number) for number in range(force.getNumBonds())]
            found[2] += [((i, j), k._value) for i, j, _, k in rows]
        elif name == "HarmonicAngleForce":
            rows = [force.getAngleParameters(number) for number in range(force.getNumAngles())]
            found[3] += [((i, j, k), stiffness._value) for i, j, k, _, stiffness in rows]
        elif name == "PeriodicTorsionForce":
            rows = [force.getTorsionParameters(number) for number in range(force.getNumTorsions())]
            found[4] += [((i, j, k, l), abs(depth._value) * n**2) for i, j, k, l, n, _, depth in rows]
    return tuple(
        Stiff(np.array([atoms for atoms, _ in rows], int), np.array([stiffness for _, stiffness in rows], float))
        for rows in found.values() if rows
    )  # fmt: skip
