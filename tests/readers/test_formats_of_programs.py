"""Dumps of LAMMPS, files of CP2K and VASP, columns of extended XYZ, models of mmCIF, topologies of programs.

The files are written here, by the words of the manuals; `test_real_files.py` reads what programs wrote.
"""

import gzip

import ase.io
import numpy as np
import pytest
from ase import Atoms

from hpcfit.errors import InputError
from hpcfit.readers import lammps_dumps
from hpcfit.readers.ase_files import Given
from hpcfit.readers.cells import cell_of
from hpcfit.readers.elements import WATER, elements_of_atoms, named
from hpcfit.readers.positions import open_positions, read_topology
from hpcfit.readers.topology import read_atoms, read_particles
from hpcfit.readers.trajectory import open_trajectory
from hpcfit.store.frame import Topology

ELEMENTS = ("O", "H", "H", "Si", "Na")
N, T = len(ELEMENTS), 4
TILTED = np.array([[11.0, 0, 0], [-2.5, 9.0, 0], [1.5, -3.0, 13.0]])
ORIGIN = np.array([1.0, -2.0, 0.5])
EV, KCAL, HARTREE, BOHR = 96.4853321233, 4.184, 2625.49963948, 0.529177210544


@pytest.fixture(scope="module")
def truth():
    """Fractional coordinates that reach out of the box, and forces in kJ/mol/A."""
    random = np.random.default_rng(8)
    return random.uniform(-0.4, 1.4, (T, N, 3)), random.normal(size=(T, N, 3)) * 30


def frames_of(path, topology=None, **options):
    reader = open_positions(path, topology, **options)
    return list(reader.frames(range(reader.n_frames)))


# ---- LAMMPS ----------------------------------------------------------------------------------------------------------


def bounds(box, origin):
    """The lines of ITEM: BOX BOUNDS by the formulae of LAMMPS's manual, "Howto triclinic"."""
    xy, xz, yz = box[1, 0], box[2, 0], box[2, 1]
    high = origin + np.diag(box)
    low_x, high_x = origin[0] + min(0, xy, xz, xy + xz), high[0] + max(0, xy, xz, xy + xz)
    low_y, high_y = origin[1] + min(0, yz), high[1] + max(0, yz)
    if not np.any(box - np.diag(np.diag(box))):
        return "pp pp ff", [f"{a} {b}" for a, b in zip(origin, high)]
    rows = [f"{low_x} {high_x} {xy}", f"{low_y} {high_y} {xz}", f"{origin[2]} {high[2]} {yz}"]
    return "xy xz yz pp pp pp", rows


def write_dump(path, x, f, box=TILTED, *, columns="x", style="", elements=ELEMENTS, vectors=False):
    """x: fractional; f: kJ/mol/A; atoms in another order in each frame; forces in the unit of the style."""
    unit = {"real": KCAL, "metal": EV, "": EV}[style]
    lines, random = [], np.random.default_rng(2)
    for number in range(len(x)):
        lines += ["ITEM: UNITS", style] if style and not number else []
        lines += ["ITEM: TIME", f"{number * 0.5}"] if style else []
        flags, rows = bounds(box, ORIGIN)
        if vectors:
            flags, rows = "abc origin pp pp pp", [" ".join(map(str, [*row, o])) for row, o in zip(box, ORIGIN)]
        lines += [
            "ITEM: TIMESTEP",
            str(100 * number),
            "ITEM: NUMBER OF ATOMS",
            str(N),
            f"ITEM: BOX BOUNDS {flags}",
            *rows,
        ]
        wrapped = x[number] % 1 if columns in ("x", "xs") else x[number]
        places = wrapped if "s" in columns else ORIGIN + wrapped @ box
        names = " ".join(columns.replace("x", axis, 1) for axis in "xyz")
        lines.append(f"ITEM: ATOMS id{' element' if elements else ''} type fx fy fz {names}")
        for atom in random.permutation(N):
            what = [str(10 + atom), *([elements[atom]] if elements else []), "1"]
            lines.append(
                " ".join([*what, *map(repr, (f[number, atom] / unit).tolist()), *map(repr, places[atom].tolist())])
            )
    opens = gzip.open if path.suffix == ".gz" else open
    with opens(path, "wt") as file:
        file.write("\n".join([*lines, ""]))
    return path


@pytest.mark.parametrize("columns", ["x", "xu", "xs", "xsu"])
@pytest.mark.parametrize("box", [TILTED, np.diag([9.0, 10.0, 11.0])], ids=["tilted", "orthogonal"])
def test_a_dump_is_sorted_by_ids_in_the_box_of_its_bounds(tmp_path, truth, columns, box):
    x, f = truth
    found = frames_of(write_dump(tmp_path / "run.lammpstrj", x, f, box, columns=columns, style="metal"))
    assert len(found) == T
    for number, frame in enumerate(found):
        wrapped = x[number] % 1 if columns in ("x", "xs") else x[number]
        np.testing.assert_allclose(frame.box, box, atol=1e-12)
        np.testing.assert_allclose(frame.positions, ORIGIN + wrapped @ box, atol=1e-12)
        np.testing.assert_allclose(frame.forces, f[number], rtol=1e-12)
        assert (frame.step, frame.time) == (100 * number, number * 0.5)
        assert frame.pbc == ((True, True, True) if box is TILTED else (True, True, False))
    reader = open_positions(tmp_path / "run.lammpstrj", None)
    assert reader.elements == ELEMENTS
    np.testing.assert_allclose(reader.topology.cell, cell_of(box), rtol=1e-12)


def test_a_box_of_any_orientation_is_the_one_of_its_vectors(tmp_path, truth):
    turned = TILTED @ np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
    x, f = truth
    for frame, expected in zip(frames_of(write_dump(tmp_path / "dump.7", x, f, turned, vectors=True)), x, strict=True):
        np.testing.assert_allclose(frame.box, turned, atol=1e-12)
        np.testing.assert_allclose(frame.positions, ORIGIN + (expected % 1) @ turned, atol=1e-12)


def test_units_are_the_files_or_those_of_the_source(tmp_path, truth):
    x, f = truth
    real = write_dump(tmp_path / "real.dump", x, f, style="real")
    np.testing.assert_allclose(frames_of(real)[1].forces, f[1], rtol=1e-12)
    assert frames_of(real)[1].time == 0.5e-3
    unsaid = write_dump(tmp_path / "unsaid.dump.gz", x, f)
    assert frames_of(unsaid)[1].forces is None  # eV or kcal/mol: nobody says
    of_source = frames_of(unsaid, given=Given(length="nm", energy="eV"))[1]
    np.testing.assert_allclose(of_source.forces, f[1] / 10, rtol=1e-12)
    np.testing.assert_allclose(of_source.box, 10 * TILTED, rtol=1e-12)
    with pytest.raises(
        InputError, match=r"real.dump is in units real; energy_unit = 'eV' of its source is not 'kcal/mol'"
    ):
        frames_of(real, given=Given(energy="eV"))


def test_a_dump_without_elements_needs_a_topology(tmp_path, truth):
    x, f = truth
    path = write_dump(tmp_path / "run.dump", x, f, elements=None)
    with pytest.raises(InputError, match=r"run.dump holds no elements"):
        open_positions(path, None)
    reader = open_positions(path, Topology(ELEMENTS, None))
    np.testing.assert_allclose(next(reader.frames(range(2, 3))).positions, ORIGIN + (x[2] % 1) @ TILTED, atol=1e-12)


def test_what_a_dump_lacks_is_said(tmp_path, truth):
    x, f = truth
    path = write_dump(tmp_path / "run.dump", x, f)
    text = path.read_text()
    path.write_text(text[: text.rindex("\n", 0, -1) + 4])  # cut within the last row
    reader = open_positions(path, None)
    assert (reader.n_frames, reader.announced) == (T - 1, T)
    with pytest.raises(InputError, match=rf"announces {T} frames and holds {T - 1} whole ones"):
        open_trajectory(path, None, "", slice(None))
    for wrong, words in (
        (text.replace("ATOMS id", "ATOMS number"), "has no column id"),
        (text.replace(" x y z", " a b c"), "has no positions"),
        (text.replace("\n5\nITEM: BOX", "\n6\nITEM: BOX", 1), "frame 0 announces 6 atoms and has 5"),
        (text.replace("TIMESTEP", "STEP"), "does not begin with 'ITEM: TIMESTEP'"),
        (text.replace("14 Na", "19 Na").replace("19 Na", "14 Na", 1), "frame 1: there is an atom 19, in frame 0"),
        (text.replace("13 Si", "13 Al").replace("13 Al", "13 Si", 1), "frame 1: atom 13 is Al, in frame 0 Si"),
        (text.replace("13 Si", "13 Xx"), "the element of atom 13 is 'Xx'"),
        (text.replace(" -", " --", 5), "frame 0 cannot be read"),
    ):  # fmt: skip
        path.write_text(wrong)
        with pytest.raises(InputError, match=words):
            frames_of(path)


def test_a_data_file_of_lammps_names_atoms_by_their_masses(tmp_path):
    (tmp_path / "run.data").write_text(
        "LAMMPS data file\n\n3 atoms\n3 atom types\n1 bonds\n\n"
        "-1.0 9.0 xlo xhi\n0 8 ylo yhi\n0 7 zlo zhi\n2.0 0.0 1.0 xy xz yz\n\n"
        "Masses\n\n1 15.9994 # O\n2 1.008\n3 22.9898\n\nAtoms # full\n"
        "\n12 1 2 0.4 1.0 0 0 0 0 1\n11 1 1 -.8 0.1 0 0 0 0 0"
        "\n15 2 3 1.0 3.0 3 3 0 0 0\n\nBonds\n\n1 1 11 12\n"
    )
    found = read_particles(tmp_path / "run.data")
    assert (found.elements, found.residue.tolist(), found.bonds.tolist()) == (("O", "H", "Na"), [0, 0, 1], [[0, 1]])
    expected = cell_of(np.array([[10, 0, 0], [2, 8, 0], [0, 1, 7]]))
    np.testing.assert_allclose(read_topology(tmp_path / "run.data").cell, expected)


# ---- CP2K ------------------------------------------------------------------------------------------------------------


def write_cp2k(folder, x, f, box=TILTED, steps=range(0, 10 * T, 10)):
    """Positions at all of these steps, forces at every other one, in hartree/bohr, boxes at each step."""

    def xyz(name, values, chosen, style):
        text = ""
        for number in chosen:
            text += f"{N:8d}\n i = {steps[number]:8d}, time = {steps[number] * 0.5:12.3f}, E =  -17.1\n"
            text += "".join(
                f"{e:>3} {style % a} {style % b} {style % c}\n" for e, (a, b, c) in zip(ELEMENTS, values[number])
            )
        (folder / name).write_text(text)

    xyz("water-pos-1.xyz", x @ box, range(T), "%20.10f")
    if f is not None:
        xyz("water-frc-1.xyz", f * (BOHR / HARTREE), range(0, T, 2), "%20.12f")
    lines = ["#   Step   Time [fs]  Ax [Angstrom] ... Volume [Angstrom^3]"]
    lines += [" ".join(map(str, [step, 0.5 * step, *box.ravel(), 1287.0])) for step in range(0, 10 * T, 5)]
    if box is not None:
        (folder / "water-1.cell").write_text("\n".join([*lines, ""]))
    return folder / "water-pos-1.xyz"


def test_positions_forces_and_boxes_of_cp2k_are_paired_by_step(tmp_path, truth):
    x, f = truth
    path = write_cp2k(tmp_path, x, f)
    for number, frame in enumerate(frames_of(path)):
        np.testing.assert_allclose(frame.positions, x[number] @ TILTED, atol=1e-9)
        np.testing.assert_allclose(frame.box, TILTED, atol=1e-12)
        assert (frame.step, frame.time, frame.pbc) == (10 * number, number * 0.005, (True, True, True))
        assert (frame.forces is None) == bool(number % 2)
        if frame.forces is not None:
            np.testing.assert_allclose(frame.forces, f[number], atol=1e-8)
    inputs = open_trajectory(path, None, "", slice(None)).inputs
    assert sorted(one.rsplit("/")[-1] for one in inputs) == ["water-1.cell", "water-frc-1.xyz", "water-pos-1.xyz"]


def test_files_of_cp2k_that_do_not_belong_together_are_named(tmp_path, truth):
    x, f = truth
    path = write_cp2k(tmp_path, x, f)
    forces, cells = tmp_path / "water-frc-1.xyz", tmp_path / "water-1.cell"
    good = forces.read_text(), cells.read_text()
    forces.write_text(good[0].replace(" Na", " Mg"))
    with pytest.raises(InputError, match=r"water-frc-1.xyz has 5 atoms, or others"):
        frames_of(path)
    forces.write_text(good[0])
    cells.write_text(good[1].replace("\n30 ", "\n31 "))
    with pytest.raises(InputError, match=r"frame 3 \(step 30\): .*water-1.cell has no box of this step"):
        frames_of(path)
    cells.unlink()
    assert frames_of(path)[0].box is None
    path.write_text(path.read_text()[:-9])
    with pytest.raises(InputError, match=rf"announces {T} frames and holds {T - 1} whole ones"):
        open_trajectory(path, None, "", slice(None))


# ---- extended XYZ and VASP -------------------------------------------------------------------------------------------


def test_columns_of_extended_xyz_by_their_names(tmp_path, truth):
    x, f = truth
    images = [Atoms(ELEMENTS, one @ TILTED, cell=TILTED, pbc=True) for one in x]
    for image, forces in zip(images, f):
        image.arrays["REF_forces"], image.arrays["other"] = forces / EV, image.positions / BOHR
    ase.io.write(tmp_path / "run.extxyz", images, columns=["symbols", "positions", "REF_forces", "other"])
    assert frames_of(tmp_path / "run.extxyz")[0].forces is None
    named_ones = frames_of(tmp_path / "run.extxyz", given=Given(forces="REF_forces"))
    for frame, expected, forces in zip(named_ones, x, f, strict=True):
        np.testing.assert_allclose(frame.positions, expected @ TILTED, atol=1e-7)
        np.testing.assert_allclose(frame.forces, forces, atol=1e-6)
    in_bohr = frames_of(tmp_path / "run.extxyz", given=Given("other", "REF_forces", "bohr", "hartree"))[2]
    np.testing.assert_allclose(in_bohr.positions, x[2] @ TILTED, atol=1e-7)
    np.testing.assert_allclose(in_bohr.forces, f[2] / EV * HARTREE / BOHR, rtol=1e-5)
    with pytest.raises(InputError, match=r"frame 0 has no three columns F; it has REF_forces, other, positions"):
        frames_of(tmp_path / "run.extxyz", given=Given(forces="F"))


def test_positions_under_another_name_are_not_taken_as_zeros(tmp_path):
    rows = "\n".join(f"{element} {n} 1.5 2.5" for n, element in enumerate(ELEMENTS))
    (tmp_path / "run.xyz").write_text(
        f'{N}\nProperties=species:S:1:coordinates:R:3 Lattice="9 0 0 0 9 0 0 0 9"\n{rows}\n'
    )
    with pytest.raises(InputError, match="all atoms lie at 0; of three columns it has coordinates"):
        open_positions(tmp_path / "run.xyz", None)
    frame = frames_of(tmp_path / "run.xyz", given=Given(positions="coordinates"))[0]
    np.testing.assert_allclose(frame.positions[:, 0], range(N))


def vectors(name, rows):
    return (
        f'<varray name="{name}">' + "".join(f"<v>{' '.join(map(repr, row))}</v>" for row in rows.tolist()) + "</varray>"
    )


def structure(x, attributes=""):
    return f"<structure {attributes}><crystal>{vectors('basis', TILTED)}</crystal>{vectors('positions', x)}</structure>"


def write_vasprun(path, x, f):
    kinds = "".join(f"<rc><c>{element}</c><c>{n + 1}</c></rc>" for n, element in enumerate(ELEMENTS))
    energies = '<i name="e_fr_energy">-1.0</i><i name="e_wo_entrp">-1.0</i><i name="e_0_energy">-1.0</i>'
    steps = [
        f"<calculation>\n<scstep><energy>{energies}</energy></scstep>{structure(one)}{vectors('forces', forces / EV)}"
        f"<energy>{energies}</energy></calculation>\n"
        for one, forces in zip(x, f)
    ]
    path.write_text(
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling><kpoints></kpoints><parameters></parameters>'
        f'<atominfo><array name="atoms"><set>{kinds}</set></array></atominfo>'
        f"{structure(x[0], 'name=' + chr(34) + 'initialpos' + chr(34))}\n{''.join(steps)}</modeling>\n"
    )
    return path


def test_forces_of_vasprun_xml(tmp_path, truth):
    x, f = truth
    x = x % 1
    path = write_vasprun(tmp_path / "vasprun.xml", x, f)
    found = frames_of(path)
    assert open_positions(path, None).elements == ELEMENTS
    for frame, expected, forces in zip(found, x, f, strict=True):
        np.testing.assert_allclose(frame.box, TILTED, atol=1e-12)
        np.testing.assert_allclose(frame.positions, expected @ TILTED, atol=1e-9)
        np.testing.assert_allclose(frame.forces, forces, rtol=1e-9)
    text = path.read_text()
    path.write_text(text[: text.rindex("<varray")])  # a job that was killed
    with pytest.raises(InputError, match=rf"announces {T} frames and holds {T - 1} whole ones"):
        open_trajectory(path, None, "", slice(None))
    assert open_trajectory(path, None, "", slice(0, T - 1)).n_frames == T - 1


# ---- models and topologies -------------------------------------------------------------------------------------------


def write_models(path, x):
    import gemmi

    found = gemmi.Structure()
    found.cell, found.spacegroup_hm = gemmi.UnitCell(*cell_of(TILTED)), "P 1"
    for number, places in enumerate(x, 1):
        model, chain = gemmi.Model(number), gemmi.Chain("A")
        for n, (element, place) in enumerate(zip(ELEMENTS, places @ TILTED)):
            residue, atom = gemmi.Residue(), gemmi.Atom()
            residue.name, residue.seqid, residue.het_flag = "UNK", gemmi.SeqId(str(n + 1)), "H"
            atom.name, atom.element, atom.pos = element.upper(), gemmi.Element(element), gemmi.Position(*place)
            residue.add_atom(atom)
            chain.add_residue(residue)
        model.add_chain(chain)
        found.add_model(model)
    found.setup_entities()
    text = found.make_mmcif_document().as_string() if ".cif" in path.suffixes else found.make_pdb_string()
    opens = gzip.open if path.suffix == ".gz" else open
    with opens(path, "wt") as file:
        file.write(text)
    return path


@pytest.mark.parametrize("name", ["models.cif", "models.cif.gz", "models.pdb.gz", "models.ent"])
def test_models_are_frames_whatever_their_format(tmp_path, truth, name):
    path = write_models(tmp_path / name, truth[0])
    found = frames_of(path)
    assert open_positions(path, None).elements == ELEMENTS
    for frame, expected in zip(found, truth[0], strict=True):
        np.testing.assert_allclose(frame.positions, expected @ TILTED, atol=6e-4)  # three decimals
        np.testing.assert_allclose(cell_of(frame.box), cell_of(TILTED), atol=6e-3)
    assert read_topology(path).elements == ELEMENTS
    assert read_atoms(path).elements == ELEMENTS


@pytest.mark.parametrize("suffix", [".cif", ".cif.gz", ".pdb.gz", ".ent"])
def test_a_folder_of_models(tmp_path, truth, suffix):
    for number, one in enumerate(truth[0]):
        write_models(tmp_path / f"model{number}{suffix}", one[None])
    for frame, expected in zip(frames_of(tmp_path), truth[0], strict=True):
        np.testing.assert_allclose(frame.positions, expected @ TILTED, atol=6e-4)


def test_models_of_other_atoms_are_refused(tmp_path, truth):
    path = write_models(tmp_path / "models.cif", truth[0])
    lines = path.read_text().splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("HETATM") and " SI " in line)
    lines[last] = lines[last].replace(" SI ", " AL ")
    path.write_text("\n".join([*lines, ""]))
    with pytest.raises(InputError, match=r"models.cif: model 4 has .* as atom 3, model 1 has SI"):
        open_positions(path, None)


def test_elements_of_names_are_those_of_their_residue():
    for name, residue, alone, element in (
        ("CA", "ALA", False, "C"), ("CA", "CA", True, "Ca"), ("CA", "ALA", True, "C"), ("CAL", "CAL", True, "Ca"),
        ("POT", "POT", True, "K"), ("SOD", "SOD", True, "Na"), ("CLA", "CLA", True, "Cl"), ("NA", "NA", True, "Na"),
        ("NA", "HEM", False, "N"), ("FE", "HEM", False, "Fe"), ("HG1", "THR", False, "H"), ("1HB", "ALA", False, "H"),
        ("OW", "SOL", False, "O"), ("MW", "SOL", False, "X"), ("EPW", "WAT", False, "X"), ("CL1", "LIG", False, "Cl"),
        ("PB", "ATP", False, "P"), ("SE", "MSE", False, "Se"), ("NE2", "HIS", False, "N"), ("CD1", "LEU", False, "C"),
        ("PO4", "DPPC", True, ""), ("GL1", "DPPC", False, ""), ("TEST", "TEST", True, ""), ("OXT", "GLY", False, "O"),
    ):  # fmt: skip
        assert named(name, residue, alone, residue in WATER) == element, (name, residue, alone)


def test_a_water_is_known_by_its_atoms_whatever_its_name():
    names, residue = ["O", "H1", "H2", "MW", "C1", "H1", "MG"], np.array([0, 0, 0, 0, 1, 1, 2])
    assert elements_of_atoms(names, residue, ["HO4", "LIG", "MG"], None) == ("O", "H", "H", "X", "C", "H", "Mg")


def test_masses_that_are_none_in_amu_are_not_trusted(tmp_path, caplog):
    """A PSF that CHARMM-GUI wrote, whose masses MDAnalysis cuts to 1; and one whose masses are 1 indeed."""
    rows = [("N", "14.0070"), ("HT1", "1.00800"), ("CA", "12.0110"), ("O", "15.9994")]
    for number, values in enumerate((rows, [(name, "1.00000") for name, _ in rows])):
        lines = ["PSF EXT CMAP CHEQ", "", f"{1:10d} !NTITLE", " REMARKS", "", f"{4:10d} !NATOM"]
        for at, (name, mass) in enumerate(values, 1):
            lines.append(
                f"{at:10d} PROA     1        ALA      {name:<4}       72  -0.300000       {mass}           0   0.0"
            )
        (tmp_path / f"{number}.psf").write_text("\n".join([*lines, "", f"{0:10d} !NBOND: bonds", "", ""]))
        assert read_topology(tmp_path / f"{number}.psf").elements == ("N", "H", "C", "O")
        assert ("names no elements: by the names" in caplog.text) == bool(number)


def test_masses_say_more_than_names():
    masses = np.array([15.9994, 1.008, 2.014, 0.0, 39.0983, 22.98977, 12.011])
    names = ["OW", "HW1", "H2", "MW", "POT", "SOD", "CA"]
    residue, residue_names = np.array([0, 0, 0, 0, 1, 2, 3]), ["SOL", "POT", "SOD", "ALA"]
    assert elements_of_atoms(names, residue, residue_names, masses) == ("O", "H", "D", "X", "K", "Na", "C")


def test_atoms_that_gave_mass_to_their_hydrogens_keep_their_names():
    """In AMBER's HMassRepartition the oxygen of water has 11.968 and the nitrogen of the backbone 11.994, as carbon."""
    masses = np.array([11.968, 3.024, 3.024, 11.994, 3.024, 9.994, 3.024, 22.99])
    names, residue = ["O", "H1", "H2", "N", "H", "CA", "HA", "Na+"], np.array([0, 0, 0, 1, 1, 1, 1, 2])
    found = elements_of_atoms(names, residue, ["WAT", "ALA", "Na+"], masses)
    assert found == ("O", "H", "H", "N", "H", "C", "H", "Na")


def test_a_gro_file_gives_elements_box_and_residues(tmp_path):
    lines = ["waters and an ion", "5"]
    for number, (name, residue, x) in enumerate(
        [("OW", "SOL", 0.1), ("HW1", "SOL", 0.19), ("HW2", "SOL", 0.05), ("MW", "SOL", 0.11), ("NA", "NA", 1.0)], 1
    ):
        lines.append(f"{1 + (residue == 'NA'):5d}{residue:<5}{name:>5}{number:5d}{x:8.3f}{0.1:8.3f}{0.1:8.3f}")
    box = TILTED / 10
    lines.append(
        " ".join(
            f"{box[i, j]:.5f}" for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1))
        )
    )
    (tmp_path / "run.gro").write_text("\n".join([*lines, ""]))
    found = read_topology(tmp_path / "run.gro")
    assert found.elements == ("O", "H", "H", "X", "Na")
    np.testing.assert_allclose(found.cell, cell_of(TILTED), rtol=1e-4)
    particles = read_particles(tmp_path / "run.gro")
    assert (particles.residue_names, particles.elements[3], particles.masses[3]) == (("SOL", "NA"), "", 0)


def test_a_psf_gives_elements_by_masses_and_its_own_bonds(tmp_path):
    rows = [(1, "TIP3", "OH2", 15.9994), (1, "TIP3", "H1", 1.008), (1, "TIP3", "H2", 1.008), (2, "CLA", "CLA", 35.45)]
    lines = ["PSF", "", f"{1:8d} !NTITLE", " REMARKS", "", f"{len(rows):8d} !NATOM"]
    for number, (resid, residue, name, mass) in enumerate(rows, 1):
        lines.append(
            f"{number:8d} WAT  {resid:<4d} {residue:<4} {name:<4} {name:<4} {0.0:10.6f}  {mass:12.4f}           0"
        )
    lines += ["", f"{2:8d} !NBOND: bonds", f"{1:8d}{2:8d}{1:8d}{3:8d}", ""]
    (tmp_path / "run.psf").write_text("\n".join(lines))
    found = read_particles(tmp_path / "run.psf")
    assert (found.elements, found.bonds.tolist()) == (("O", "H", "H", "Cl"), [[0, 1], [0, 2]])
    assert (found.residue_names, found.residue_numbers) == (("TIP3", "CLA"), (1, 2))


def test_a_topology_that_cannot_be_read_says_what_converts_it(tmp_path):
    (tmp_path / "run.tpr").write_bytes(b"\x00\x01garbage")
    with pytest.raises(InputError, match=r"run.tpr cannot be read as TPR(.|\n)*gmx editconf"):
        read_topology(tmp_path / "run.tpr")
    (tmp_path / "run.tng").write_bytes(b"x")
    with pytest.raises(
        InputError, match=r"run.tng is not a trajectory format(.|\n)*gmx trjconv writes XTC or DCD of it"
    ):
        open_positions(tmp_path / "run.tng", None)


def test_an_index_of_a_dump_is_made_again_when_the_file_has_grown(tmp_path, truth):
    x, f = truth
    path = write_dump(tmp_path / "run.dump", x[:2], f)
    assert len(lammps_dumps.index_of(path).offsets) == 2
    write_dump(path, x, f)
    assert len(lammps_dumps.index_of(path).offsets) == T
