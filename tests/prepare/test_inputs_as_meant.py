"""`hpcfit prepare` takes inputs as they are meant: elements, virtual sites, boxes, walls, values of no atom."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from hpcfit.physics import reciprocal
from hpcfit.physics.scattering import structure_factors_direct
from hpcfit.store.forces import open_force_store
from hpcfit.store.positions import read_block
from hpcfit.store.reference import restored
from hpcfit.store.structure_factors import open_store
from tests.command import here, sets
from tests.conftest import assert_one_clear_error

N = 7
EV = 96.4853321233  # kJ/mol


def atom_line(number, name, element, x, residue="SOL", alternate=" "):
    place = "".join(f"{value:8.3f}" for value in x)
    head = f"HETATM{number:5d} {name:<4}{alternate}{residue:<3} A{1:4d}    "
    return f"{head}{place}  1.00  0.00          {element:>2}"


def write_pdb(path, rows, cell=(10.0, 10.0, 10.0), group="P 1"):
    """rows: name, element, position."""
    lengths = "".join(f"{one:9.3f}" for one in cell)
    lines = [f"CRYST1{lengths}{90:7.2f}{90:7.2f}{90:7.2f} {group:<11}"]
    lines += [atom_line(number, *row) for number, row in enumerate(rows, start=1)]
    path.write_text("\n".join([*lines, "END", ""]))


def write_config(folder, source, content="structure-factors", more="d_min = 2.0"):
    more = more if content == "structure-factors" else ""
    text = f'[frames]\nstore = "store"\n[prepare]\ncontent = "{content}"\n{more}\n[[prepare.source]]\n{source}\n'
    (folder / "config.toml").write_text(text)
    return folder / "config.toml"


def write_dcd(path, positions, cell):
    from MDAnalysis.lib.formats.libdcd import DCDFile

    with DCDFile(str(path), "w") as file:
        file.write_header("", positions.shape[1], 0, 1, 0.02, 1)
        for number, x in enumerate(positions):
            a, b, c = cell[number] if np.ndim(cell) == 2 else cell
            file.write(np.float32(x), np.array([a, 90.0, b, 90.0, 90.0, c]))


# ---- elements --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("marks", [("O", "H", "H", "X"), ("O", "D", "D", "EP")], ids=["X", "deuterium and EP"])
def test_a_virtual_site_has_no_electrons_and_deuterium_those_of_hydrogen(tmp_path, marks):
    x = np.random.default_rng(3).uniform(0, 10, (3, 4, 3))
    write_pdb(tmp_path / "top.pdb", [(f"A{n}", mark, x[0, n]) for n, mark in enumerate(marks)])
    write_dcd(tmp_path / "run.dcd", x, (10.0, 10.0, 10.0))
    done = here("prepare", write_config(tmp_path, 'trajectory = "run.dcd"\ntopology = "top.pdb"'))
    assert done.returncode == 0, done.stderr
    store = open_store(tmp_path / "store")
    hkl = store.reference.reflections.hkl
    inv_d2 = reciprocal.inverse_d2(hkl, (1, 1, 1), (10, 10, 10, 90, 90, 90))
    with store.shard(0) as shard:
        found = restored(shard.read(0, slice(0, len(hkl))), store.reference)
    expected = structure_factors_direct(["O", "H", "H"], np.float32(x[0, :3]) / 10, hkl, inv_d2)
    rounding = 2e-3 * store.reference.scale + 3e-4 * np.abs(expected).max()  # float16 of the spread, and the FFT
    assert np.all(np.abs(found[0] - expected) < rounding)


def test_an_atom_without_an_element_is_named_and_no_tool_is_that_guesses(tmp_path):
    write_pdb(tmp_path / "top.pdb", [("POT", "", (1, 2, 3)), ("CL", "CL", (4, 4, 4))])
    write_dcd(tmp_path / "run.dcd", np.ones((2, 2, 3)), (10.0, 10.0, 10.0))
    done = here("prepare", write_config(tmp_path, 'trajectory = "run.dcd"\ntopology = "top.pdb"'))
    assert_one_clear_error(done, ["top.pdb has no element for atom 0 (POT", "columns 77-78"])
    assert "gemmi convert" not in done.stderr


@pytest.mark.parametrize("content", ["structure-factors", "positions"])
def test_a_symbol_that_is_no_element_is_none(tmp_path, content):
    write_pdb(tmp_path / "top.pdb", [("CL", "CL", (1, 2, 3)), ("C1", "QQ", (4, 4, 4))])
    write_dcd(tmp_path / "run.dcd", np.ones((2, 2, 3)), (10.0, 10.0, 10.0))
    done = here("prepare", write_config(tmp_path, 'trajectory = "run.dcd"\ntopology = "top.pdb"', content))
    assert_one_clear_error(done, ["top.pdb has no element for atom 1 (C1", "columns 77-78"])


def test_alternate_locations_are_said(tmp_path):
    write_pdb(tmp_path / "top.pdb", [("CA", "C", (1, 2, 3)), ("CB", "C", (4, 4, 4), "ALA", "A"),
                                     ("CB", "C", (4, 4, 5), "ALA", "B")])  # fmt: skip
    write_dcd(tmp_path / "run.dcd", np.random.default_rng(1).uniform(0, 10, (2, 3, 3)), (10.0, 10.0, 10.0))
    done = here("prepare", write_config(tmp_path, 'trajectory = "run.dcd"\ntopology = "top.pdb"'))
    assert done.returncode == 0, done.stderr
    assert "1 atoms are at an alternate location" in done.stderr


# ---- boxes -----------------------------------------------------------------------------------------------------------


def argon(folder, scales, group="P 1", cell=(10.0, 11.0, 12.0)):
    """A trajectory whose box and atoms have these scales, a frame each."""
    fractions = np.random.default_rng(2).random((len(scales), 5, 3))
    cells = np.array(cell) * np.asarray(scales)[:, None]
    write_pdb(folder / "top.pdb", [(f"A{n}", "AR", (n, n, n)) for n in range(5)], cell, group)
    write_dcd(folder / "run.dcd", fractions * cells[:, None], cells)
    return write_config(folder, 'trajectory = "run.dcd"\ntopology = "top.pdb"')


def test_a_box_that_varies_gives_the_mean_cell_and_a_warning(tmp_path):
    done = here("prepare", argon(tmp_path, [1.0, 1.01, 1.02]))
    assert done.returncode == 0, done.stderr
    assert "WARNING" in done.stderr
    assert "the box varies, its lengths by +-0.99, 0.99, 0.99 % of 10.100, 11.110, 12.120 A" in done.stderr
    found = open_store(tmp_path / "store").reference.reflections.cell
    np.testing.assert_allclose(found, [10.1, 11.11, 12.12, 90, 90, 90], rtol=1e-6)


def test_a_box_that_varies_too_much_names_both_frames_and_the_limit(tmp_path):
    done = here("prepare", argon(tmp_path, [1.0, 1.01, 1.07]))
    assert_one_clear_error(
        done, ["run.dcd: the box is [10.0, 11.0, 12.0] A in frame 0", "in frame 2", "by 5 %", "stop"]
    )


def test_angles_of_the_cell_are_compared(tmp_path):
    config = argon(tmp_path, [1.0, 1.0])
    done = here("prepare", config, *sets("prepare.cell=[10.0, 11.0, 12.0, 90.0, 97.0, 90.0]"))
    assert_one_clear_error(done, ["run.dcd, frame 0: the box has angles [90.0, 90.0, 90.0]", "97.0", "3 degrees"])


@pytest.mark.parametrize("supercell", [1, 2])
def test_the_space_group_is_what_the_topology_says_of_one_cell(tmp_path, supercell):
    config = argon(tmp_path, [1.0, 1.0], "P 21 21 21")
    done = here("prepare", config, *sets(f"prepare.supercell=[{supercell}, 1, 1]"))
    assert done.returncode == 0, done.stderr
    found = open_store(tmp_path / "store").reference.reflections.space_group
    assert found == ("P 21 21 21" if supercell == 1 else "P 1")


# ---- walls -----------------------------------------------------------------------------------------------------------


def chain(folder, pbc, frames=70, spoil=None):
    """Seven carbon atoms 1.5 A apart along x, whose ends are 1.5 A from each other through the wall of a box of
    10.5 A."""
    random, images = np.random.default_rng(8), []
    for number in range(frames):
        x = np.arange(N)[:, None] * np.array([1.5, 0, 0]) + [0.1, 5, 5] + 0.02 * random.normal(size=(N, 3))
        forces = random.normal(size=(N, 3))
        if spoil is not None and number == 66:
            x, forces = spoil(x, forces)
        atoms = Atoms("C" * N, x, cell=[10.5, 10.0, 10.0], pbc=pbc)
        atoms.calc = SinglePointCalculator(atoms, forces=forces)
        images.append(atoms)
    ase.io.write(folder / "run.extxyz", images)
    return write_config(folder, 'trajectory = "run.extxyz"', "forces")


@pytest.mark.parametrize(
    ("pbc", "bonds", "width"),
    [
        ((False, False, False), 6, None),
        ((True, True, False), 7, (10.5, 10, 1e4)),
        ((False, True, True), 6, (1e4, 10, 10)),
    ],
    ids=["none", "slab", "across"],
)
def test_there_is_no_way_through_a_wall_that_does_not_repeat(tmp_path, pbc, bonds, width):
    done = here("prepare", chain(tmp_path, pbc))
    assert done.returncode == 0, done.stderr
    store = open_force_store(tmp_path / "store")
    assert len(store.particles.bonds) == bonds
    box = read_block(store, store.blocks()[0]).box
    assert (box is None) == (width is None)
    if width is not None:
        np.testing.assert_allclose(np.linalg.norm(box[0], axis=1), width, rtol=1e-6)
        assert store.content.pbc == pbc
    assert here("store", "verify", tmp_path / "store").returncode == 0


SPOILED = {
    "zero": (lambda x, f: (x, 0 * f), "all forces are zero"),
    "huge": (lambda x, f: (x, f * 1e6), "the force on atom"),
    "far": (lambda x, f: (x + [[1e30, 0, 0]] + 0 * x, f), "beyond 1e+06 A"),
}


@pytest.mark.parametrize("how", SPOILED)
def test_values_of_no_atom_name_their_frame(tmp_path, how):
    spoil, words = SPOILED[how]
    done = here("prepare", chain(tmp_path, True, spoil=spoil))
    assert_one_clear_error(done, ["run.extxyz, frame 66: ", words])
