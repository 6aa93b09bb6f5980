"""Folders with a file for each frame: what the files say comes back; what is wrong with one is one error."""

import json
import logging

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.readers.frame_folders import is_frame_folder, read_frame
from hpcfit.readers.positions import open_positions

ELEMENTS = ("Pb", "I", "O")
PDB = "{:<6}{:>5} {:<4} {:<3} A{:>4}    {:8.3f}{:8.3f}{:8.3f}  1.00  0.00          {:>2}\n"


def places(frames=12):
    return np.random.default_rng(0).uniform(-5, 20, (frames, 3, 3)).round(3)


def write_xyz(path, x, elements=ELEMENTS, comment=""):
    rows = "".join(f"{name} {a!r} {b!r} {c!r}\n" for name, (a, b, c) in zip(elements, x.tolist()))
    path.write_text(f"{len(elements)}\n{comment}\n{rows}")


def write_pdb(path, x, cell=True):
    rows = "".join(PDB.format("HETATM", n + 1, name.upper(), "MOL", n + 1, *one, name)
                   for n, (name, one) in enumerate(zip(ELEMENTS, x)))  # fmt: skip
    path.write_text("CRYST1   20.000   21.000   22.000  90.00  80.00  90.00 P 1           1\n" * cell + rows + "END\n")


@pytest.fixture
def folder(tmp_path):
    """A folder of 12 frames in XYZ, numbered without zeros in front."""
    for k, x in enumerate(places()):
        write_xyz(tmp_path / f"frame_{k}.xyz", x)
    return tmp_path


def test_s5_001_frames_come_in_the_order_of_their_numbers(folder):
    reader = open_positions(folder, None)
    assert (reader.n_frames, reader.elements) == (12, ELEMENTS)
    found = list(reader.frames(range(1, 12, 5)))
    np.testing.assert_array_equal([one.positions for one in found], places()[[1, 6, 11]])
    assert [one.file for one in found] == [str(folder / f"frame_{k}.xyz") for k in (1, 6, 11)]
    assert all(one.box is one.time is None for one in found)


def test_s5_001_pdb_frames_with_their_cells(tmp_path):
    for k, x in enumerate(places(3)):
        write_pdb(tmp_path / f"frame_{k}.pdb", x)
    found = list(open_positions(tmp_path, None).frames(range(3)))
    np.testing.assert_array_equal([one.positions for one in found], places(3))
    lengths = np.linalg.norm(found[0].box, axis=1)
    np.testing.assert_allclose(lengths, [20, 21, 22])
    assert found[0].box[0] @ found[0].box[2] == pytest.approx(20 * 22 * np.cos(np.radians(80)))
    assert found[0].pbc == (True, True, True)


def test_s5_012_the_box_of_extended_xyz_is_each_frame_s_own(tmp_path):
    for k, x in enumerate(places(2)):
        write_xyz(
            tmp_path / f"a{k}.xyz", x, comment=f'Lattice="{10 + k} 0 0 0 11 0 1 0 12" Properties=species:S:1:pos:R:3'
        )
    one, other = open_positions(tmp_path, None).frames(range(2))
    assert (one.box[0, 0], other.box[0, 0], one.box[2, 0]) == (10, 11, 1)


def test_s5_002_times_of_the_export_where_it_covers_every_frame(folder, caplog):
    written = [{"filename": f"frame_{k}.xyz", "time_fs": 100 + 2 * k, "frame_index": k} for k in range(12)]
    (folder / "mdtrajectory_export.json").write_text(json.dumps({"written_frames": written}))
    times = [one.time for one in open_positions(folder, None).frames(range(12))]
    np.testing.assert_allclose(times, (100 + 2 * np.arange(12)) / 1000)
    (folder / "mdtrajectory_export.json").write_text(json.dumps({"written_frames": written[:-1]}))
    logging.getLogger("hpcfit").propagate = True
    assert next(open_positions(folder, None).frames(range(1))).time is None
    assert "has no time of 1 of 12 frames, frame_11.xyz among them" in caplog.text
    (folder / "mdtrajectory_export.json").write_text("{}")
    with pytest.raises(InputError, match=r"export\.json cannot be read"):
        next(open_positions(folder, None).frames(range(1)))


def test_s5_001_mixed_formats_are_an_error(folder):
    write_pdb(folder / "frame_12.pdb", places()[0])
    with pytest.raises(InputError, match=r"frames of two formats: frame_0.xyz and frame_12.pdb"):
        open_positions(folder, None)


def test_frames_of_other_atoms_are_named(folder):
    write_xyz(folder / "frame_3.xyz", places()[3], ("Pb", "Cl", "O"))
    with pytest.raises(InputError, match=r"frame_3.xyz has Cl as atom 1, frame_0.xyz has I"):
        list(open_positions(folder, None).frames(range(12)))
    write_xyz(folder / "frame_3.xyz", places()[3][:2], ("Pb", "I"))
    with pytest.raises(InputError, match=r"frame_3.xyz has 2 atoms, frame_0.xyz has 3"):
        list(open_positions(folder, None).frames(range(12)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3\n\nPb 1 2 3\nI 1 2\nO 1 2 3\n", "line 4: 'I 1 2' has not 3 finite numbers"),
        ("3\n\nPb 1 2 3\nI 1 x 2\nO 1 2 3\n", "line 4: 'I 1 x 2' has not 3 finite numbers"),
        ("3\n\nPb 1 2 3\nI 1 nan 2\nO 1 2 3\n", "line 4: 'I 1 nan 2' has not 3 finite numbers"),
        ("3\n\nPb 1 2 3\n\nO 1 2 3\n", "line 4"),
        ("3\n\n7 1 2 3\nI 1 2 3\nO 1 2 3\n", "line 3: '7 1 2 3' names no element"),
        ("3\n\nPb 1 2 3\nI 1 2 3\n", "line 1 announces 3 atoms, the file has 2 lines of atoms"),
        ("2\n\nPb 1 2 3\nI 1 2 3\nO 1 2 3\n", "line 1 announces 2 atoms, the file has 3 lines of atoms"),
        ("Pb\n\n", "line 1: 'Pb' is no number of atoms"),
        ("", "line 1: '' is no number of atoms"),
        ('1\nLattice="1 0 0"\nPb 1 2 3\n', "line 2: 'Lattice=\"1 0 0\"' has not 9 finite numbers"),
    ],
)
def test_an_unreadable_line_is_named(tmp_path, text, words):
    (tmp_path / "frame_0.xyz").write_text(text)
    with pytest.raises(InputError) as caught:
        read_frame(tmp_path / "frame_0.xyz")
    assert f"{tmp_path / 'frame_0.xyz'}, {words}" in str(caught.value)


def test_other_folders_are_no_frames(tmp_path):
    assert not is_frame_folder(tmp_path)
    (tmp_path / "settings.json").write_text("{}")
    write_xyz(tmp_path / "a.xyz", places()[0])
    assert not is_frame_folder(tmp_path)
    assert not is_frame_folder(tmp_path / "a.xyz")
