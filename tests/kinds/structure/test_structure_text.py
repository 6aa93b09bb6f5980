"""Files of structures for other programs, read back by libraries that have not written them."""

import gemmi
import numpy as np
import pytest
from openmm import app

from hpcfit.kinds.structure import structure_text
from hpcfit.kinds.structure.landscapes.clusters import Cluster
from hpcfit.kinds.structure.landscapes.network import Network
from hpcfit.kinds.structure.landscapes.peptide import Peptide
from hpcfit.kinds.structure.landscapes.silicon import Silicon
from hpcfit.readers.topology import read_structure

PEPTIDE = Peptide.of_sequence("GAWK")
FRAMES = PEPTIDE.native + np.random.default_rng(0).normal(scale=0.1, size=(3, PEPTIDE.n, 3))


def written(folder, landscape, frames):
    suffix, text = structure_text.structure_text(landscape, frames, "three frames")
    path = folder / f"file{suffix}"
    path.write_text(text)
    return path


@pytest.mark.parametrize("suffix", [".pdb", ".cif"])
def test_atoms_keep_names_order_and_places(tmp_path, monkeypatch, suffix):
    if suffix == ".cif":
        monkeypatch.setattr(structure_text, "MOST_ATOMS", 20)
    path_of_one = written(tmp_path, PEPTIDE, FRAMES[:1]).rename(tmp_path / f"one{suffix}")
    path = written(tmp_path, PEPTIDE, FRAMES)
    assert path.suffix == suffix
    models, particles = gemmi.read_structure(str(path)), PEPTIDE.particles()
    assert len(models) == 3
    for model, x in zip(models, FRAMES):
        atoms = [cra.atom for cra in model.all()]
        np.testing.assert_allclose([atom.pos.tolist() for atom in atoms], x, atol=0.00051)
        assert [atom.name for atom in atoms] == list(particles.names)
    topology = (app.PDBFile if suffix == ".pdb" else app.PDBxFile)(str(path_of_one)).topology
    assert [residue.name for residue in topology.residues()] == ["GLY", "ALA", "TRP", "LYS"]
    assert read_structure(path).particles.elements == particles.elements
    assert read_structure(path).box is None
    assert "three frames" in path.read_text().lower()


def test_a_network_of_a_file_has_the_atoms_that_were_chosen(tmp_path):
    path = written(tmp_path, PEPTIDE, FRAMES[:1])
    network = Network.of_file(path, 15.0)
    again = read_structure(written(tmp_path, network, network.native[None]))
    assert again.particles.names == ("CA",) * 4
    assert again.particles.residue_names == ("GLY", "ALA", "TRP", "LYS")
    np.testing.assert_allclose(again.positions, network.native, atol=0.00051)
    assert "CA of TRP 3" in network.label(2)


def test_particles_without_residues_are_xyz_with_their_elements(tmp_path):
    silicon = Silicon.of(2)
    path = written(tmp_path, silicon, silicon.native[None])
    rows = path.read_text().splitlines()[2:]
    assert path.suffix == ".xyz"
    assert {row.split()[0] for row in rows} == {"Si"}
    network = Network.of_file(path, 4.0)
    assert list(network.elements()) == ["Si"] * silicon.n
    bare = written(tmp_path, Cluster.of(3), np.ones((2, 3, 3)))
    assert bare.read_text().count("X 1.000000000") == 6


def test_what_pdb_has_no_room_for_is_mmcif():
    particles, x = PEPTIDE.particles(), FRAMES
    assert structure_text.fits_pdb(particles, x)
    assert not structure_text.fits_pdb(particles, x + 1e4)
    assert not structure_text.fits_pdb(particles.changed(chains=("AB",) * 4), x)
    assert not structure_text.fits_pdb(particles.changed(residue_numbers=(1, 2, 3, 10000)), x)
