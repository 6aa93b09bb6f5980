"""Residues of peptides found in the graph of bonds, and what OpenMM is given to run.

Not proved: that a peptide with crossed chains or broken bonds is taken apart rightly.
"""

import numpy as np
import pytest

from hpcfit.bead_models.basis import validity_basis
from hpcfit.bead_models.linear import basis_energies
from hpcfit.errors import InputError
from hpcfit.readers.topology import read_particles
from hpcfit.store.catalog import write_catalog
from hpcfit.store.forces import ForceContent, ForceFrames
from hpcfit.store.particles import Particles
from hpcfit.store.positions import write_frames
from hpcfit.store.shard import Origin, ShardPlan
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


# ---- what the noise of forces costs force matching -----------------------------------------------------------------


def write_beads(folder, positions, forces):
    """A coarse-grained store of a chain of beads; positions and forces [T, n, 3]."""
    T, n = positions.shape[:2]
    bonds = np.column_stack([np.arange(n - 1), np.arange(1, n)])
    beads = Particles(
        tuple(f"B{bead}" for bead in range(n)), ("",) * n, np.arange(n), ("BED",) * n, tuple(range(1, n + 1)),
        ("A",) * n, np.ones(n), bonds,
    )  # fmt: skip
    folder.mkdir()
    content = ForceContent.of(beads, periodic=False)
    plan = ShardPlan("x.h5", "x", "", "x", 0, 0, T, "", store=content.begin(folder, {}))
    frames = ForceFrames(positions.astype(np.float32), forces.astype(np.float32), None)
    origin = Origin(np.arange(T), ["x"] * T, np.arange(T), np.arange(T, dtype=float))
    write_frames(folder, plan, content, frames, origin)
    write_catalog(folder, [plan], content)


@pytest.fixture
def chain():
    """Positions and forces of 100 frames of 5 beads."""
    random = np.random.default_rng(0)
    straight = np.column_stack([3.8 * np.arange(5), 2.0 * (np.arange(5) % 2), np.arange(5) % 3])
    return straight + random.normal(0, 0.3, (100, 5, 3)), random.normal(0, 10, (100, 5, 3))


def test_right_sides_are_minus_the_work_of_the_forces_against_each_function(tmp_path, chain):
    """phi_k . F = -F . grad u_k: the energy u_k after a small step along F, by a difference."""
    # As the store has them, float32: a function of a narrow range would see what is rounded off.
    positions, forces = (values.astype(np.float32).astype(float) for values in chain)
    write_beads(tmp_path / "a", positions, forces)
    basis = validity_basis(5, (2.0, 18.0))
    found = peptide.right_sides(tmp_path / "a", basis)
    step = 1e-6
    along = [np.asarray(basis_energies(basis, positions + sign * step * forces)) for sign in (1, -1)]
    expected = -(along[0] - along[1]) / (2 * step)
    # Distances in float32 are known to 1e-6 A, and functions are 1.5 A wide: 1e-6 of the forces, and as many terms.
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_twice_the_force_has_four_times_the_variance(tmp_path, chain):
    positions, forces = chain
    write_beads(tmp_path / "a", positions, 2 * forces)
    write_beads(tmp_path / "b", positions, forces)
    ratios = peptide.variance_ratios(tmp_path / "a", tmp_path / "b")
    assert set(ratios) == {"pairs", "bonds", "angles", "dihedrals"}
    for found in ratios.values():
        np.testing.assert_allclose(found, 4.0, rtol=1e-5)
