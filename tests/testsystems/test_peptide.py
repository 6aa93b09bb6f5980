"""Residues of peptides found in the graph of bonds, and what OpenMM is given to run.

Not proved: that a peptide with crossed chains or broken bonds is taken apart rightly.
"""

import numpy as np
import pytest

from hpcfit.data.topology import read_particles
from hpcfit.errors import InputError
from hpcfit.testsystems import dipeptide, peptide


def test_residues_and_backbone_of_a_dipeptide_are_those_it_was_built_with(tmp_path):
    positions, elements = dipeptide.coordinates(-80, 80), [atom.split(":")[1][0] for atom in dipeptide.ATOMS]
    peptide.write_topology(tmp_path / "a.pdb", elements, positions, ("ACE", "ALA", "NME"))
    found = read_particles(tmp_path / "a.pdb")
    residues = [atom.split(":")[0] for atom in dipeptide.ATOMS]
    assert [found.residue_names[number] for number in found.residue] == residues
    [alpha] = found.select("name CA")
    assert dipeptide.ATOMS[alpha] == "ALA:CA"
    assert {tuple(sorted(pair)) for pair in found.bonds.tolist()} == {
        tuple(sorted(map(dipeptide.ATOMS.index, pair))) for pair in dipeptide.BONDS
    }


def test_another_number_of_residues_is_an_error(tmp_path):
    positions, elements = dipeptide.coordinates(-80, 80), [atom.split(":")[1][0] for atom in dipeptide.ATOMS]
    with pytest.raises(InputError, match="3 residues, the sequence has 2"):
        peptide.write_topology(tmp_path / "a.pdb", elements, positions, ("ACE", "NME"))


def test_names_of_one_residue_are_unique():
    elements = [atom.split(":")[1][0] for atom in dipeptide.ATOMS]
    chain = peptide.find_chain(elements, dipeptide.coordinates(-80, 80))
    named = list(zip(chain.residue.tolist(), chain.names))
    assert len(set(named)) == len(named)


def test_a_system_for_openmm_has_constrained_bonds_of_heavy_hydrogen(tmp_path):
    openmm = pytest.importorskip("openmm")
    source = tmp_path / "source.pdb"
    atoms = {
        ("N", 1): (0, 0), ("CA", 1): (1.45, 0), ("C", 1): (2.0, 1.42), ("O", 1): (1.25, 2.39),
        ("N", 2): (3.33, 1.54), ("CA", 2): (3.97, 2.84), ("C", 2): (5.49, 2.72), ("O", 2): (6.05, 1.62),
        ("OXT", 2): (6.13, 3.8),
    }  # fmt: skip
    lines = [
        f"ATOM  {number:5d}  {name:<3} GLY A{residue:4d}    {x:8.3f}{y:8.3f}{0:8.3f}  1.00  0.00          {name[0]:>2}"
        for number, ((name, residue), (x, y)) in enumerate(atoms.items(), 1)
    ]
    source.write_text("\n".join([*lines, "END", ""]))
    topology, system = peptide.write_simulated(source, "gg", tmp_path)
    found = openmm.XmlSerializer.deserialize(system.read_text())
    particles = read_particles(topology)
    hydrogens = [atom for atom, element in enumerate(particles.elements) if element == "H"]
    masses = [found.getParticleMass(atom)._value for atom in range(found.getNumParticles())]
    assert np.allclose([masses[atom] for atom in hydrogens], peptide.HYDROGEN_MASS)
    assert found.getNumConstraints() == len(hydrogens) == 8  # NH3+, CH2, NH, CH2
