"""Particles: selections, subsets and digests; bonds, masses and constraints from structures, Systems and distances.

OpenMM's bonds of standard residues are compared with those by distance, which know nothing of residues.
"""

import h5py
import numpy as np
import pytest

from hpcfit.errors import DamagedFile, InputError
from hpcfit.physics.scattering import orthogonalization
from hpcfit.readers.bonding import formula, guessed_bonds, molecules, nearest_distances
from hpcfit.readers.topology import guessed_particles, read_particles, read_system
from hpcfit.store.particles import Particles
from hpcfit.testsystems import dipeptide, water_dimer


def waters(**parts):
    given = {
        "names": ("O", "H1", "H2") * 2, "elements": ("O", "H", "H") * 2, "residue": [0, 0, 0, 1, 1, 1],
        "residue_names": ("HOH", "HOH"), "residue_numbers": (7, 9), "chains": ("A", "B"), "masses": [16.0, 1, 1] * 2,
        "bonds": [(1, 0), (0, 2), (3, 4), (5, 3), (0, 1)], "constraints": [(2, 1), (5, 4)],
    }  # fmt: skip
    return Particles(**(given | parts))


def test_pairs_are_sorted_and_there_once():
    assert waters().bonds.tolist() == [[0, 1], [0, 2], [3, 4], [3, 5]]
    assert waters().constraints.tolist() == [[1, 2], [4, 5]]
    assert waters(bonds=[]).bonds.shape == (0, 2)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("name O", [0, 3]), ("resid 9", [3, 4, 5]), ("chainid B and element H", [4, 5]), ("segid A", [0, 1, 2]),
        ("index 4", [4]), ("bonded name H1", [0, 3]), ("water", [0, 1, 2, 3, 4, 5]), ("prop mass > 2", [0, 3]),
    ],
)  # fmt: skip
def test_selections(selection, expected):
    assert waters().select(selection).tolist() == expected


@pytest.mark.parametrize(
    ("selection", "words"),
    [("nmae O", "is not understood"), ("name C", r"selects none of the 6 particles \(residues HOH; names O, H1, H2")],
)
def test_selections_that_are_wrong(selection, words):
    with pytest.raises(InputError, match=words):
        waters().select(selection)


def test_what_is_written_is_read(tmp_path):
    for number, particles in enumerate((waters(), waters(constraints=None), waters(elements=("",) * 6))):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w") as file:
            particles.write(file)
        with h5py.File(path, "r+") as file:
            found = Particles.read(file)
            assert found.difference(particles) == ""
            assert found.digest() == particles.digest()
            file["masses"][0] += 1
            with pytest.raises(DamagedFile, match="differ from their checksum"):
                Particles.read(file)


CHANGES = {
    "names": ("O", "H1", "H2", "OW", "H1", "H2"), "elements": ("O", "H", "H", "S", "H", "H"), "chains": ("A", "A"),
    "residue": [0, 0, 0, 0, 1, 1], "residue_names": ("HOH", "WAT"), "residue_numbers": (7, 8),
    "masses": [16.0, 1, 1, 16, 1, 2], "bonds": [(0, 1)], "constraints": None,
}  # fmt: skip


@pytest.mark.parametrize("part", list(CHANGES))
def test_every_part_counts(part):
    other = waters(**{part: CHANGES[part]})
    assert other.digest() != waters().digest()
    assert part.replace("_", " ") in waters().difference(other)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"masses": [1.0]}, "6 particles in 2 residues do not fit their masses"),
        ({"chains": ("A",)}, "chains"),
        ({"bonds": [(0, 6)]}, "bonds"),
        ({"constraints": [(-1, 2)]}, "constraints"),
        ({"residue": [0, 0, 0, 1, 1, 2]}, "residue"),
    ],
)
def test_parts_of_other_particles_are_refused(parts, words):
    with pytest.raises(InputError, match=words):
        waters(**parts)


def test_a_subset_keeps_what_is_among_its_particles():
    found = waters().subset(np.array([0, 4, 5]))
    assert (found.names, found.residue_numbers, found.chains) == (("O", "H1", "H2"), (7, 9), ("A", "B"))
    assert found.residue.tolist() == [0, 1, 1]
    assert (found.bonds.tolist(), found.constraints.tolist()) == ([], [[1, 2]])
    assert waters().subset(np.array([3, 5])).residue_names == ("HOH",)


def test_a_system_as_openmm_writes_it(tmp_path):
    openmm = pytest.importorskip("openmm")
    system = openmm.System()
    for mass in (16.0, 1.0, 1.0, 0.0, 40.0):
        system.addParticle(mass)
    system.setVirtualSite(3, openmm.ThreeParticleAverageSite(0, 1, 2, 0.8, 0.1, 0.1))
    for pair in ((0, 1), (0, 2), (1, 2)):
        system.addConstraint(*pair, 0.1)
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    facts = read_system(tmp_path / "system.xml")
    assert facts.masses.tolist() == [16, 1, 1, 0, 40]
    assert facts.constraints.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert facts.sites.tolist() == [3]


def test_the_system_of_the_test_dimer_is_one_of_openmm(tmp_path):
    openmm = pytest.importorskip("openmm")
    system = openmm.XmlSerializer.deserialize(water_dimer.write_system(tmp_path / "s.xml").read_text())
    assert system.getNumParticles() == system.getNumConstraints() == 6
    assert system.getConstraintParameters(5)[:2] == [4, 5]


@pytest.mark.parametrize("suffix", ["pdb", "cif"])
def test_structures_of_openmm_with_a_virtual_site(tmp_path, suffix):
    openmm = pytest.importorskip("openmm")
    from openmm import app, unit

    topology = app.Topology()
    residue = topology.addResidue("HOH", topology.addChain("W"), "12")
    for name, symbol in (("O", "O"), ("H1", "H"), ("H2", "H"), ("M", None)):
        topology.addAtom(name, symbol and app.Element.getBySymbol(symbol), residue)
    places = [openmm.Vec3(*x) for x in ([0, 0, 0], [0.096, 0, 0], [-0.024, 0.093, 0], [0.01, 0.01, 0])]
    system = openmm.System()
    for mass in (16.0, 1.0, 1.0, 0.0):
        system.addParticle(mass)
    system.setVirtualSite(3, openmm.ThreeParticleAverageSite(0, 1, 2, 0.8, 0.1, 0.1))
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    path = tmp_path / f"water.{suffix}"
    writer = app.PDBFile if suffix == "pdb" else app.PDBxFile
    with open(path, "w") as file:
        writer.writeFile(topology, places * unit.nanometer, file, keepIds=True)
    if suffix == "pdb":  # OpenMM writes EP there, which is said to be no element
        assert read_particles(path).elements == ("O", "H", "H", "")
    else:
        with pytest.raises(InputError, match=r"water.cif has no element for atom 3 \(M;"):
            read_particles(path)
    found = read_particles(path, read_system(tmp_path / "system.xml"))
    assert (found.names, found.elements) == (("O", "H1", "H2", "M"), ("O", "H", "H", ""))
    assert (found.residue_names, found.residue_numbers, found.chains) == (("HOH",), (12,), ("W",))
    assert found.virtual_sites.tolist() == [3]
    assert found.bonds.tolist() == [[0, 1], [0, 2]]


def test_bonds_of_a_peptide_are_those_of_its_residues(tmp_path):
    pytest.importorskip("openmm")
    from openmm import app, unit

    path, box = tmp_path / "dipeptide.pdb", (30.0, 30.0, 30.0)
    positions = np.concatenate([dipeptide.coordinates(-80, 80), 15 + dipeptide.coordinates(60, 60)])
    with open(path, "w") as file:
        app.PDBFile.writeFile(dipeptide.topology(2, box), positions * unit.angstrom, file)
    found = read_particles(path)
    numbers = {atom: number for number, atom in enumerate(dipeptide.ATOMS)}
    once = {tuple(sorted((numbers[a], numbers[b]))) for a, b in dipeptide.BONDS}
    expected = sorted(once | {(a + 22, b + 22) for a, b in once})
    assert found.bonds.tolist() == [list(pair) for pair in expected]
    assert found.residue_names == ("ACE", "ALA", "NME") * 2
    assert found.select("backbone and name CA").tolist() == [numbers["ALA:CA"], numbers["ALA:CA"] + 22]
    # By distance alone: the same.
    assert guessed_particles(found.elements, positions, np.diag(box)).bonds.tolist() == found.bonds.tolist()


def test_a_residue_that_openmm_does_not_know_is_bonded_by_distance(tmp_path):
    pytest.importorskip("openmm")
    path = water_dimer.write_topology(tmp_path / "water.pdb", 2, [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]] * 2)
    lines = path.read_text().splitlines()
    lines[3:6] = [line.replace("HOH", "XYZ")[:30] + "   9.000" + line[38:] for line in lines[3:6]]
    lines[4] = lines[4][:38] + "   0.960" + lines[4][46:]
    lines[5] = lines[5][:38] + "  -0.960" + lines[5][46:]
    path.write_text("\n".join(lines))
    assert read_particles(path).bonds.tolist() == [[0, 1], [0, 2], [3, 4], [3, 5]]


def test_a_protein_crystal_has_the_bonds_of_its_residues(shared_data):
    """11,596 atoms with OpenMM's bonds; distances, with images across the walls of a crystal, find the same 10,756."""
    from hpcfit.readers.topology import _read_atoms

    path = shared_data / "diffuse/snase/snase_crystal.pdb"
    found, atoms = read_particles(path), _read_atoms(path)
    by_distance = np.sort(guessed_bonds(atoms.elements, atoms.positions, atoms.box), axis=1)
    assert len(found.bonds) == 10756
    assert set(map(tuple, found.bonds.tolist())) == set(map(tuple, by_distance.tolist()))


def test_molecules_across_the_walls_of_a_skewed_box():
    box = orthogonalization((9.0, 9.0, 9.0, 60.0, 70.0, 80.0)).T
    water = np.array([[0.0, 0, 0], [0.9572, 0, 0], [-0.24, 0.9266, 0]])
    rng = np.random.default_rng(0)
    images = rng.integers(-2, 3, (9, 3)) @ box  # each atom in a cell of its own
    positions = np.concatenate([water + place for place in (np.zeros(3), [4.0, 3, 2], [1.0, 1, 5])]) + images
    order = [0, 3, 6, 1, 2, 4, 5, 7, 8]  # sorted by element, as ab-initio programs have them
    found = guessed_particles(["O"] * 3 + ["H"] * 6, positions[order], box)
    assert found.bonds.tolist() == [[0, 3], [0, 4], [1, 5], [1, 6], [2, 7], [2, 8]]
    assert found.residue.tolist() == [0, 1, 2, 0, 0, 1, 1, 2, 2]
    assert found.names == ("O1",) * 3 + ("H1", "H2") * 3
    assert found.residue_names == ("H2O",) * 3
    np.testing.assert_allclose(nearest_distances(positions, box), 0.9572, atol=2e-3)
    assert np.median(nearest_distances(positions, None)) > 2


def test_ions_are_bonded_to_nothing():
    positions = np.array([[0.0, 0, 0], [2.3, 0, 0], [2.6, 0.93, 0], [2.6, -0.93, 0]])
    assert guessed_bonds(["Na", "O", "H", "H"], positions, None).tolist() == [[1, 2], [1, 3]]


def test_molecules_are_counted_by_their_first_atoms():
    assert molecules(6, np.array([[1, 5], [0, 3]])).tolist() == [0, 1, 2, 0, 3, 1]
    assert molecules(3, np.empty((0, 2), int)).tolist() == [0, 1, 2]


def test_formulas_in_hills_order():
    assert formula(["O", "H", "C", "H", "H", "H"]) == "CH4O"
    assert formula(["O", "H", "H"]) == "H2O"
    assert formula(["S", "Na", "Na"]) == "Na2S"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.pdb", "END\n", "a.pdb"),
        ("a.cif", "nonsense", "a.cif cannot be read"),
        ("a.gro", "", r"a.gro cannot be read as GRO: ValueError: it is empty"),
        ("a.mol2", "", r"'\.mol2' is not read"),
        ("none.pdb", None, "none.pdb does not exist"),
    ],
)
def test_topologies_that_are_none(tmp_path, name, text, words):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        read_particles(tmp_path / name)


def conect(tmp_path, serials, records):
    lines = [
        f"HETATM{serial:>5}  {name:<3} BEN A   1    {x:8.3f}{0.0:8.3f}{0.0:8.3f}  1.00  0.00           C"
        for serial, name, x in zip(serials, ("C1", "C2", "C3", "C4"), (0.0, 1.4, 2.8, 4.2), strict=True)
    ]
    (tmp_path / "top.pdb").write_text("\n".join([*lines, *records, "END", ""]))
    return read_particles(tmp_path / "top.pdb").bonds.tolist()


def test_bonds_of_conect_records_are_used_where_openmm_reads_other_atoms(tmp_path, monkeypatch, caplog):
    """Not by distance, which would find C2-C3."""
    records = ["CONECT    1    2", "CONECT    2    1", "CONECT    3    4"]
    assert conect(tmp_path, (1, 2, 3, 4), records) == [[0, 1], [2, 3]]
    monkeypatch.setattr("hpcfit.readers.topology._openmm_bonds", lambda path, atoms: None)
    assert conect(tmp_path, (1, 2, 3, 4), records) == [[0, 1], [2, 3]]
    assert "CONECT" not in caplog.text


def test_conect_records_that_cannot_be_used_are_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("hpcfit.readers.topology._openmm_bonds", lambda path, atoms: None)
    assert conect(tmp_path, (1, 2, 3, 4), ["CONECT    1    2", "CONECT    3   99"]) == [[0, 1], [1, 2], [2, 3]]
    assert "top.pdb: 1 of 2 bonds of its CONECT records are not used" in caplog.text
    caplog.clear()
    conect(tmp_path, (1, 2, 2, 4), ["CONECT    1    2    4"])
    assert "top.pdb: 1 of 2 bonds of its CONECT records are not used" in caplog.text


@pytest.mark.parametrize(("shift", "warned"), [(0.0, True), (30.0, False)])
def test_atoms_with_more_bonds_than_they_can_have_are_named(tmp_path, caplog, shift, warned):
    """Two copies of a methane on each other, as of alternate locations, or far apart."""
    tetrahedron = np.array([[1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]]) * 0.63
    copies = [np.vstack([np.zeros(3), tetrahedron]), np.vstack([np.zeros(3), -tetrahedron]) + np.array([shift, 0.2, 0])]
    rows = [(("C", "H1", "H2", "H3", "H4")[n], x) for copy in copies for n, x in enumerate(copy)]
    lines = [
        f"HETATM{at:5d}  {name:<3} LIG A   1    {x[0]:8.3f}{x[1]:8.3f}{x[2]:8.3f}  1.00  0.00           {name[0]}"
        for at, (name, x) in enumerate(rows, 1)
    ]
    (tmp_path / "top.pdb").write_text("\n".join([*lines, "END", ""]))
    read_particles(tmp_path / "top.pdb")
    assert ("atoms have more bonds than their element can have, for instance atom 0 (C of LIG" in caplog.text) == warned
