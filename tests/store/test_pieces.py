"""Trajectories in pieces: what is written is read, as one trajectory; gaps, doubles, damage and mixtures are found."""

import shutil

import h5py
import numpy as np
import pytest

from hpcfit.errors import DamagedFile, InputError
from hpcfit.readers import trajectory
from hpcfit.readers.positions import open_positions
from hpcfit.store.h5md import Rows
from hpcfit.store.piece import START, Piece, piece_file, read_header, read_piece, write_piece
from hpcfit.store.pieces import Settings, read_chain, read_settings, write_settings

SETTINGS = Settings({"seed": 0, "temperature": 300.0}, 7)
BOX = np.diag([13.0, 14.0, 15.0])


def make_piece(number, first, frames, *, follows="", seed=0, settings=SETTINGS.digest):
    """A piece of four atoms that could be anything; its values are a function of seed and frame."""
    rng = np.random.default_rng([seed, first])
    values = {
        "positions": rng.random((frames, 4, 3), np.float32) * 13,
        "forces": rng.random((frames, 4, 3), np.float32),
        "box": np.broadcast_to(BOX, (frames, 3, 3)).astype("<f4"),
        "potential_energy": rng.random(frames),
    }
    step = 50 * (first + 1 + np.arange(frames))
    species = np.array([6, 8, 11, 17], "<i4")
    return Piece(number, first, species, Rows(step, 0.002 * step, values), f"<State {first + frames}/>", settings,
                 follows, {"platform": "CPU"})  # fmt: skip


def write_trajectory(folder, lengths=(3, 3, 1), seed=0):
    """A folder of so many frames in each piece; the pieces."""
    write_settings(folder, SETTINGS)
    made, first, follows = [], 0, ""
    for number, frames in enumerate(lengths):
        made.append(make_piece(number, first, frames, follows=follows, seed=seed))
        write_piece(folder, made[-1])
        first, follows = first + frames, made[-1].header.checksum
    return made


def opened(folder, frames=slice(None)):
    return trajectory.open_trajectory(folder, None, "label", frames)


@pytest.fixture
def folder(tmp_path):
    write_trajectory(tmp_path / "a_300K_r00")
    return tmp_path / "a_300K_r00"


def same(first, second):
    arrays = zip(*(([p.species, *p.rows[:2], *p.rows.values.values()]) for p in (first, second)))
    return first.header == second.header and all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in arrays)


@pytest.mark.parametrize(("number", "frames"), [(3, 2), (START, 0)])
def test_a_piece_is_read_as_it_was_written(tmp_path, number, frames):
    piece = make_piece(number, 0, frames, follows="abc")
    if not frames:
        piece.rows.values.clear()
    write_piece(tmp_path, piece)
    found = read_piece(tmp_path / piece_file(number))
    assert same(found, piece)
    assert (found.state, found.made_by) == (piece.state, piece.made_by)
    assert read_header(tmp_path / piece_file(number)) == piece.header


def test_the_same_piece_is_the_same_file_to_the_byte(tmp_path):
    for name in ("first", "second"):
        write_piece(tmp_path / name, make_piece(0, 0, 3))
    first, second = ((tmp_path / name / piece_file(0)).read_bytes() for name in ("first", "second"))
    assert first == second


def test_the_checksum_covers_everything_that_matters():
    piece = make_piece(1, 3, 2, follows="abc")
    changed = [
        make_piece(1, 3, 2, follows="abd"),
        make_piece(1, 3, 2, follows="abc", settings="other"),
        make_piece(2, 3, 2, follows="abc"),
        make_piece(1, 3, 2, follows="abc", seed=1),
        Piece(**{**vars_of(piece), "state": "<State/>"}),
        Piece(**{**vars_of(piece), "species": piece.species[::-1]}),
    ]
    for name in piece.rows.values:
        values = {key: value + (key == name) for key, value in piece.rows.values.items()}
        changed.append(Piece(**{**vars_of(piece), "rows": piece.rows._replace(values=values)}))
    checksums = {p.header.checksum for p in [piece, *changed]}
    assert len(checksums) == 1 + len(changed)


def vars_of(piece):
    return {name: getattr(piece, name) for name in Piece.__dataclass_fields__}


def test_pieces_are_h5md_for_mdanalysis(folder):
    import MDAnalysis

    rows = read_piece(folder / piece_file(1)).rows
    universe = MDAnalysis.Universe.empty(4, trajectory=True)
    universe.load_new(str(folder / piece_file(1)), format="H5MD")
    assert len(universe.trajectory) == 3
    for row, step in enumerate(universe.trajectory):
        assert np.array_equal(step.positions, rows.values["positions"][row])
        assert np.array_equal(step.forces, rows.values["forces"][row])
        np.testing.assert_allclose(step.dimensions, [13, 14, 15, 90, 90, 90])
        assert step.time == pytest.approx(0.1 * (4 + row))
    with h5py.File(folder / piece_file(1)) as file:
        element = file["observables/potential_energy"]
        assert element["value"].attrs["unit"] == "kJ mol-1"
        assert np.array_equal(element["step"], [200, 250, 300])
        assert np.array_equal(file["particles/trajectory/species"], [6, 8, 11, 17])


def test_a_folder_of_pieces_is_one_trajectory(folder):
    reader = open_positions(folder, None)
    topology, n_frames = reader.topology, reader.n_frames
    assert topology.elements == ("C", "O", "Na", "Cl")
    np.testing.assert_allclose(topology.cell, (13, 14, 15, 90, 90, 90))
    assert n_frames == 7
    expected = np.concatenate([read_piece(folder / piece_file(n)).rows.values["positions"] for n in range(3)])
    for rows in (range(7), range(1, 7, 2), range(3, 6), range(6, 7)):
        found = list(reader.frames(rows))
        assert np.array_equal([frame.positions for frame in found], expected[rows.start : rows.stop : rows.step])
        assert [frame.time for frame in found] == pytest.approx([0.1 * (row + 1) for row in rows])
        assert all(np.array_equal(frame.box, BOX) for frame in found)


def test_prepare_takes_it_like_any_other_trajectory(folder, hpcfit):
    import ase
    import ase.io

    reader = open_positions(folder, None)
    frames = reader.frames(range(7))
    images = [ase.Atoms(reader.elements, frame.positions, cell=frame.box, pbc=True) for frame in frames]
    ase.io.write(folder.parent / "same.extxyz", images)
    stores = []
    for name in ("a_300K_r00", "same.extxyz"):
        config = folder.parent / f"{name}.toml"
        config.write_text(
            f'[frames]\nstore = "{name}.store"\n[prepare]\nd_min = 2\ndtype = "complex64"\n'
            f'[[prepare.source]]\ntrajectory = "{name}"\n'
        )
        done = hpcfit("prepare", config)
        assert done.returncode == 0, done.stderr
        with h5py.File(folder.parent / f"{name}.store" / "store.h5") as file:
            stores.append(file["structure_factors"][:])
    # Values of order one; extxyz rounds positions of up to 15 A to 8 decimals, float32 the values to 6e-8.
    np.testing.assert_allclose(*stores, atol=1e-5)


def test_its_digest_stands_for_the_frames_that_are_used(folder, tmp_path):
    (whole,) = opened(folder).inputs.values()
    (some,) = opened(folder, slice(0, 5)).inputs.values()
    assert some == read_header(folder / piece_file(1)).checksum
    write_trajectory(tmp_path / "other", lengths=(3, 3))
    (shorter,) = opened(tmp_path / "other", slice(0, 5)).inputs.values()
    assert shorter == some != whole


def gap(folder):
    (folder / piece_file(1)).unlink()
    return 3, "piece_00001.h5 does not exist"


def unfinished(folder):
    (folder / piece_file(2)).unlink()
    return 6, "piece_00002.h5 does not exist"


def doubled(folder):
    write_piece(folder, make_piece(2, 5, 2, follows=read_header(folder / piece_file(1)).checksum))
    return 6, "piece_00002.h5 begins with frame 5, and not with 6"


def remade(folder):
    write_piece(folder, make_piece(1, 3, 3, follows=read_header(folder / piece_file(0)).checksum, seed=1))
    return 6, "piece_00002.h5 does not continue piece_00001.h5"


def truncated(folder):
    path = folder / piece_file(2)
    path.write_bytes(path.read_bytes()[:-2000])
    return 6, "piece_00002.h5 is damaged"


@pytest.mark.parametrize("fault", [gap, unfinished, doubled, remade, truncated], ids=lambda fault: fault.__name__)
def test_what_is_missing_is_named_and_stop_takes_what_is_there(folder, fault):
    there, words = fault(folder)
    with pytest.raises(InputError, match=rf"is to have 7 frames and holds {there} that follow each other: .*{words}"):
        opened(folder)
    assert opened(folder, slice(0, there)).n_frames == there
    with pytest.raises(InputError, match=f"stop = {there}"):
        opened(folder, slice(0, there + 1))


def test_a_damaged_value_is_found_when_it_is_read(folder):
    with h5py.File(folder / piece_file(1), "a") as file:
        file["particles/trajectory/position/value"][1, 2, 0] += 1
    source = opened(folder)
    frames = source.reader.frames(range(7))
    assert [next(frames).time for _ in range(3)] == pytest.approx([0.1, 0.2, 0.3])
    with pytest.raises(DamagedFile, match=r"piece_00001\.h5 is damaged: its checksum is"):
        next(frames)


def test_pieces_of_other_settings_are_not_mixed_in(folder):
    follows = read_header(folder / piece_file(1)).checksum
    write_piece(folder, make_piece(2, 6, 1, follows=follows, settings="other"))
    with pytest.raises(InputError, match=r"piece_00002\.h5 was made with other settings than settings\.json"):
        opened(folder)


def test_other_settings_in_the_same_folder_name_key_and_both_values(folder):
    write_settings(folder, SETTINGS._replace(frames=100))
    assert read_settings(folder).frames == 100
    with pytest.raises(InputError, match=r"a_300K_r00 was simulated with temperature = 300\.0; the config has 310\.0"):
        write_settings(folder, Settings({"seed": 0, "temperature": 310.0}, 100))
    with pytest.raises(InputError, match='with friction = "nothing"; the config has 1'):
        write_settings(folder, Settings({**SETTINGS.decided_by, "friction": 1}, 100))


def test_folders_and_files_that_are_no_pieces(folder, tmp_path):
    with pytest.raises(InputError, match=r"has no frames: .*`hpcfit simulate`, which has settings\.json"):
        opened(tmp_path)
    for name in ("catalog.h5", "piece_00002.h5"):
        with h5py.File(folder / name, "w") as file:
            file.attrs["format"] = "hpcfit shard"
    with pytest.raises(InputError, match=r"piece_00002\.h5 is not a piece"):
        opened(folder)
    shutil.rmtree(folder)
    write_settings(folder, SETTINGS)
    with pytest.raises(InputError, match="has no frames"):
        opened(folder)


def test_a_chain_goes_no_further_than_it_holds(folder):
    chain = read_chain(folder, SETTINGS.digest)
    assert [(piece.first, piece.frames) for piece in chain.pieces] == [(0, 3), (3, 3), (6, 1)]
    assert (chain.frames, chain.end) == (7, "piece_00003.h5 does not exist")
