"""What a file of a trajectory holds: boxes in their own orientation, steps of each quantity, every frame, no caches.

References are numbers written here; decoders of MDAnalysis are trusted for the compressed numbers of a frame.
"""

import h5py
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.readers import dcd_files, gromacs_files, h5md_files
from hpcfit.readers.cells import cell_of
from hpcfit.readers.positions import open_positions
from hpcfit.readers.trajectory import open_trajectory
from hpcfit.store.frame import Topology

N, T = 12, 5
STANDARD = np.array([[9.0, 0, 0], [2.0, 8.0, 0], [-1.0, 3.0, 10.0]])
TURN = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
TURNED = STANDARD @ TURN.T * np.sign(np.linalg.det(TURN))
ATOMS = Topology(("C",) * N, None)


@pytest.fixture(scope="module")
def fractions():
    return np.random.default_rng(6).random((T, N, 3))


def write_gromacs(path, x, box, forces=None, positions_every=1):
    from MDAnalysis.lib.formats import libmdaxdr

    box = np.broadcast_to(box, (len(x), 3, 3))
    with (libmdaxdr.XTCFile if path.suffix == ".xtc" else libmdaxdr.TRRFile)(str(path), "w") as file:
        for number, (one, cell) in enumerate(zip(x, box)):
            if path.suffix == ".xtc":
                file.write(one / 10, cell / 10, 20 * number, 2.0 * number, 1000)
                continue
            there = number % positions_every == 0
            f = None if forces is None else forces[number] * 10
            file.write(one / 10 if there else None, None, f, cell / 10, 20 * number, 2.0 * number, 0.0, len(one))
    return path


def write_h5md(path, x, box, forces=None, *, steps=None, force_steps=None, group="all", edges="series", unit="nm"):
    """edges: "series", "fixed" or "vector"; forces in kJ/mol/nm."""
    scale = {"nm": 0.1, "Angstrom": 1.0, "pm": 100.0}[unit]
    with h5py.File(path, "a") as file:
        file.require_group("h5md").attrs["version"] = (1, 1)
        particles = file.create_group(f"particles/{group}")
        element(particles, "position", x * scale, unit, np.arange(len(x)) * 10 if steps is None else steps)
        if forces is not None:
            element(particles, "force", forces * 10, "kJ mol-1 nm-1", force_steps)
        cell = particles.create_group("box")
        cell.attrs.update(dimension=3, boundary=[b"periodic"] * 3)
        if edges == "series":
            element(cell, "edges", np.broadcast_to(box, (len(x), 3, 3)) * scale, unit, particles["position/step"][:])
        else:
            cell["edges"] = (np.diag(box) if edges == "vector" else box) * scale
            cell["edges"].attrs["unit"] = unit
    return path


def element(group, name, values, unit, steps):
    made = group.create_group(name)
    made["value"] = values
    made["value"].attrs["unit"] = unit
    made["step"], made["time"] = steps, np.asarray(steps) * 0.5
    made["time"].attrs["unit"] = "fs"


def frames_of(path, **options):
    reader = open_positions(path, ATOMS, **options)
    return list(reader.frames(range(reader.n_frames)))


# ---- boxes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [STANDARD, TURNED, STANDARD[[2, 0, 1]]], ids=["standard", "turned", "permuted"])
@pytest.mark.parametrize(("suffix", "rounding"), [("trr", 2e-6), ("xtc", 0.0051), ("h5md", 1e-12)])
def test_a_box_keeps_its_orientation(tmp_path, fractions, suffix, rounding, box):
    path = tmp_path / f"run.{suffix}"
    write = write_h5md if suffix == "h5md" else write_gromacs
    found = frames_of(write(path, fractions @ box, box))
    for frame, expected in zip(found, fractions, strict=True):
        np.testing.assert_allclose(frame.box, box, atol=2e-6)  # float32 of nm
        np.testing.assert_allclose(frame.positions, expected @ box, atol=rounding + 1e-6)
    np.testing.assert_allclose(open_positions(path, ATOMS).topology.cell, cell_of(box), rtol=1e-5)


def test_a_symmetric_matrix_of_charmm_is_the_box_of_its_positions(tmp_path, fractions):
    from MDAnalysis.lib.formats.libdcd import DCDFile

    matrix = np.array([[30.0, 3.5, -2.25], [3.5, 28.0, 4.0], [-2.25, 4.0, 33.0]])
    with DCDFile(str(tmp_path / "run.dcd"), "w") as file:
        file.write_header(remarks="", natoms=N, istart=0, nsavc=10, delta=0.02, is_periodic=1)
        for one in fractions:
            file.write(np.float32(one @ matrix), matrix[[0, 0, 1, 0, 1, 2], [0, 1, 1, 2, 2, 2]])
    for frame, expected in zip(frames_of(tmp_path / "run.dcd"), fractions, strict=True):
        np.testing.assert_allclose(frame.box, matrix, atol=1e-12)
        np.testing.assert_allclose(frame.positions @ np.linalg.inv(frame.box), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("numbers", "cell"),
    [
        ([10, 90, 11, 90, 90, 12], (10, 11, 12, 90, 90, 90)),
        ([10, 70, 11, 80, 75, 12], (10, 11, 12, 75, 80, 70)),
        ([10, 0, 11, 0, 0, 12], (10, 11, 12, 90, 90, 90)),
        ([10, 0.5, 11, 0, 0, 12], (10, 11, 12, 90, 90, 60)),
        ([0, 0, 0, 0, 0, 0], None),
    ],
    ids=["right", "oblique", "cosines of right angles", "cosines", "none"],
)
def test_six_numbers_of_a_dcd_are_lengths_with_angles_or_cosines(numbers, cell):
    box = dcd_files.box_of(np.array(numbers, float))
    assert (box is None) == (cell is None)
    if cell is not None:
        np.testing.assert_allclose(cell_of(box), cell, rtol=1e-12)


# ---- H5MD ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", ["fixed", "vector"])
def test_a_box_that_is_fixed_in_time_is_that_of_every_frame(tmp_path, fractions, edges):
    box = np.diag([9.0, 10.0, 11.0])
    for frame in frames_of(write_h5md(tmp_path / "run.h5md", fractions @ box, box, edges=edges)):
        np.testing.assert_allclose(frame.box, box, rtol=1e-12)
        assert frame.pbc == (True, True, True)


def test_forces_are_those_of_their_step(tmp_path, fractions):
    x = fractions @ STANDARD
    path = write_h5md(tmp_path / "run.h5md", x, STANDARD, -x[::2], force_steps=np.arange(0, T, 2) * 10)
    found = frames_of(path)
    for row, frame in enumerate(found):
        assert frame.step == 10 * row
        assert frame.time == pytest.approx(5e-3 * row)
        if row % 2:
            assert frame.forces is None
        else:
            np.testing.assert_allclose(frame.forces, -x[row], rtol=1e-12)


def test_one_number_is_a_fixed_distance_of_steps(tmp_path, fractions):
    path = write_h5md(tmp_path / "run.h5md", fractions @ STANDARD, STANDARD)
    with h5py.File(path, "a") as file:
        for name in ("position", "box/edges"):
            node = file[f"particles/all/{name}"]
            del node["step"]
            node["step"] = 25
            node["step"].attrs["offset"] = 100
    assert [frame.step for frame in frames_of(path)] == [100, 125, 150, 175, 200]


def test_a_group_of_several_is_chosen_by_name(tmp_path, fractions):
    path = write_h5md(tmp_path / "run.h5md", fractions @ STANDARD, STANDARD, group="solute")
    write_h5md(path, fractions[:, :4] @ STANDARD + 100, STANDARD, group="average")
    with pytest.raises(InputError, match=r"2 groups of particles: average \(4 particles\), solute \(12 particles\)"):
        open_positions(path, ATOMS)
    found = frames_of(path, group="solute")
    np.testing.assert_allclose(found[0].positions, fractions[0] @ STANDARD, rtol=1e-12)
    with pytest.raises(InputError, match=r"no group of particles 'other' with positions, but average"):
        open_positions(path, ATOMS, group="other")


def test_the_chosen_group_is_part_of_what_a_source_is(tmp_path, fractions):
    path = write_h5md(tmp_path / "run.h5md", fractions @ STANDARD, STANDARD, group="solute")
    write_h5md(path, fractions @ STANDARD + 1, STANDARD, group="average")
    rows = "".join(
        f"HETATM{n:5d}  C   UNK A   1    {0:8.3f}{0:8.3f}{n:8.3f}  1.00  0.00           C\n" for n in range(N)
    )
    (tmp_path / "top.pdb").write_text(rows + "END\n")
    one, other = (
        open_trajectory(path, tmp_path / "top.pdb", "", slice(None), group) for group in ("solute", "average")
    )
    assert one.inputs == other.inputs
    assert one.digest != other.digest


def test_a_group_of_what_is_no_h5md_has_no_effect_and_is_refused(tmp_path, fractions):
    path = write_gromacs(tmp_path / "run.xtc", fractions @ STANDARD, STANDARD)
    with pytest.raises(InputError, match=r"run\.xtc is no H5MD: group = 'solute' would have no effect"):
        open_positions(path, ATOMS, group="solute")


@pytest.mark.parametrize("unit", ["nm", "Angstrom", "pm"])
def test_units_are_those_that_the_file_says(tmp_path, fractions, unit):
    x = fractions @ STANDARD
    found = frames_of(write_h5md(tmp_path / "run.h5md", x, STANDARD, unit=unit))
    np.testing.assert_allclose(found[0].positions, x[0], rtol=1e-12)


@pytest.mark.parametrize("unit", ["kJ mol-1 nm-1", "kJ/mol/nm", "kJ/(mol*nm)", "kJ mol^-1 nm^-1"])
def test_units_of_forces_are_read_as_programs_write_them(tmp_path, fractions, unit):
    x = fractions @ STANDARD
    path = write_h5md(tmp_path / "run.h5md", x, STANDARD, -x, force_steps=np.arange(T) * 10)
    with h5py.File(path, "a") as file:
        file["particles/all/force/value"].attrs["unit"] = unit
    np.testing.assert_allclose(frames_of(path)[1].forces, -x[1], rtol=1e-12)


def spoiled(path, how):
    with h5py.File(path, "a") as file:
        particles = file["particles/all"]
        if how == "boundary":
            particles["box"].attrs["boundary"] = [b"none"] * 3
        elif how == "unit":
            del particles["position/value"].attrs["unit"]
        elif how == "strange unit":
            particles["position/value"].attrs["unit"] = "furlong"
        elif how == "steps":
            particles["position/step"][2] = 5
        elif how == "few steps":
            del particles["position/step"]
            particles["position/step"] = np.arange(3)
        elif how == "flat":
            del particles["position/value"]
            particles["position/value"] = np.zeros((T, N, 2))
        elif how == "other box steps":
            del particles["box/edges/step"]
            particles["box/edges/step"] = np.arange(T) * 7
    return path


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("unit", "position/value has no unit"),
        ("strange unit", "'furlong', of which 'furlong' is unknown"),
        ("steps", "has step 5 after step 10"),
        ("few steps", "has 5 values and 3 of step"),
        ("flat", r"shape \[5, 12, 2\]; three coordinates"),
        ("other box steps", r"frame 1 \(step 10\): its box has steps 0, 7, 14, ..., 28"),
    ],
    ids=lambda one: one if len(one) < 16 else None,
)
def test_what_does_not_go_together_in_h5md_is_said(tmp_path, fractions, how, words):
    path = spoiled(write_h5md(tmp_path / "run.h5md", fractions @ STANDARD, STANDARD), how)
    with pytest.raises(InputError, match=words):
        frames_of(path)


def test_a_box_without_periodic_boundary_is_none(tmp_path, fractions):
    path = spoiled(write_h5md(tmp_path / "run.h5md", fractions @ STANDARD, STANDARD), "boundary")
    found = frames_of(path)
    assert found[0].box is None
    assert found[0].pbc == (False, False, False)


# ---- XTC and TRR -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["xtc", "trr"])
def test_nothing_is_left_beside_the_file_and_a_broken_cache_does_not_matter(tmp_path, fractions, suffix):
    path = write_gromacs(tmp_path / f"run.{suffix}", fractions @ STANDARD, STANDARD)
    cache = tmp_path / f".run.{suffix}_offsets.npz"
    cache.write_bytes(b"PK nonsense")
    assert len(frames_of(path)) == T
    assert sorted(tmp_path.iterdir()) == sorted([path, cache])
    assert cache.read_bytes() == b"PK nonsense"


@pytest.mark.parametrize("suffix", ["xtc", "trr"])
@pytest.mark.parametrize("atoms", [N, 4], ids=["many", "few"])
def test_a_file_that_is_cut_anywhere_keeps_its_whole_frames_and_says_that_another_begins(
    tmp_path, fractions, suffix, atoms
):
    path = write_gromacs(tmp_path / f"run.{suffix}", (fractions @ STANDARD)[:, :atoms], STANDARD)
    whole = path.read_bytes()
    index = gromacs_files.index_of(path)
    assert (len(index.offsets), index.n_atoms, index.begun) == (T, atoms, T)
    last = int(index.offsets[-1])
    for end in range(last, len(whole)):
        path.write_bytes(whole[:end])
        found = gromacs_files.index_of(path)
        assert len(found.offsets) == T - 1
        assert found.begun == T - (end == last)


@pytest.mark.parametrize("suffix", ["xtc", "trr"])
def test_rubbish_between_frames_names_its_frame(tmp_path, fractions, suffix):
    path = write_gromacs(tmp_path / f"run.{suffix}", fractions @ STANDARD, STANDARD)
    place = int(gromacs_files.index_of(path).offsets[2])
    content = bytearray(path.read_bytes())
    content[place : place + 4] = b"\x00\x00\x00\x07"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"cannot be opened: frame 2, at byte {place}: .*, this one with 7"):
        open_positions(path, ATOMS)


def test_frames_without_positions_are_named(tmp_path, fractions):
    x = fractions @ STANDARD
    path = write_gromacs(tmp_path / "run.trr", x, STANDARD, forces=-x, positions_every=2)
    reader = open_positions(path, ATOMS)
    found = list(reader.frames(range(0, T, 2)))
    np.testing.assert_allclose(found[1].forces, -x[2], rtol=1e-5)
    with pytest.raises(InputError, match=r"run.trr, frame 1 \(step 20\) has no positions"):
        next(reader.frames(range(1, 2)))


def test_frames_of_other_numbers_of_atoms_are_named(tmp_path, fractions):
    one = write_gromacs(tmp_path / "one.xtc", fractions @ STANDARD, STANDARD).read_bytes()
    other = write_gromacs(tmp_path / "other.xtc", (fractions @ STANDARD)[:, :11], STANDARD).read_bytes()
    (tmp_path / "run.xtc").write_bytes(one + other)
    with pytest.raises(InputError, match="frame 5 has 11 atoms, frame 0 has 12"):
        open_positions(tmp_path / "run.xtc", ATOMS)


def test_fixed_layouts_are_found_again_when_a_file_changes(tmp_path, fractions):
    path = write_h5md(tmp_path / "run.h5md", fractions @ STANDARD, STANDARD)
    assert h5md_files.layout_of(path, None).n_frames == T
    path.unlink()
    write_h5md(path, fractions[:2] @ STANDARD, STANDARD)
    assert h5md_files.layout_of(path, None).n_frames == 2
