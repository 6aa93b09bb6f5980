"""Input that is wrong: frames, boxes, times, options, curves, libraries. Each ends in one error that names the file,
what disagrees, and the remedy.

Not proved: that there is no other way to be wrong.
"""

import json

import h5py
import numpy as np
import pytest

from tests.command import here, sets
from tests.conftest import also_on_ranks, assert_one_clear_error
from tests.kinds.clusters.test_clusters_run import ARRAYS, CONFIG
from tests.readers.test_frame_folders import write_xyz

ELEMENTS = ["Pb", "I", "I", "Pb", "I", "Pb"]
POSITIONS = np.random.default_rng(0).uniform(0, 18, (6, 6, 3))
FOLDER = 'trajectory = "frames"\n'
NPZ, HDF5 = ARRAYS.format(file="t.npz"), ARRAYS.format(file="t.h5")
Q = np.linspace(0.02, 1.0, 60)
CURVE = np.stack([Q, 1 + np.exp(-9 * Q**2), 0.01 + 0.01 * np.exp(-9 * Q**2)], axis=1)
PAIR = "2\n\nPb 0 0 0\nI 3 0 0\n"


def run(folder, source, *settings, command=None):
    """The first command of `prepare` and `optimize` that fails."""
    (folder / "config.toml").write_text(CONFIG.format(source=source))
    for command in ("prepare", "optimize"):
        done = here(command, folder / "config.toml", *sets("problem.timestep_fs=10.0", *settings))
        if done.returncode:
            break
    return done


def changed(values, place, value):
    """A copy with another value at one place."""
    found = np.array(values)
    found[place] = value
    return found


# ---- frames ----------------------------------------------------------------------------------------------------------


def frames(folder, files=(), positions=POSITIONS):
    """A folder of frames, with these files (name, text or bytes) written over it."""
    (folder / "frames").mkdir()
    for k, x in enumerate(positions):
        write_xyz(folder / f"frames/frame_{k:04d}.xyz", x, ELEMENTS)
    for name, content in files:
        (folder / "frames" / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def export(*times):
    """mdtrajectory_export.json with these times by number of frame."""
    written = [{"filename": f"frame_{k:04d}.xyz", "time_fs": time, "frame_index": k} for k, time in times]
    return "mdtrajectory_export.json", json.dumps({"written_frames": written})


LINE, ROWS = "Pb 1 2 3\n", [f"{name} {k} 0 0\n" for k, name in enumerate(ELEMENTS)]
BAD_FRAMES = {
    "empty file": ([("frame_0002.xyz", "")], ["frame_0002.xyz, line 1"]),
    "short file": ([("frame_0002.xyz", "6\n\n" + LINE)], ["frame_0002.xyz", "announces 6 atoms", "1 lines"]),
    "long file": ([("frame_0002.xyz", "1\n\n" + 2 * LINE)], ["frame_0002.xyz", "announces 1 atoms", "2 lines"]),
    "no text": ([("frame_0002.xyz", b"\xff\xfe\x00")], ["frame_0002.xyz cannot be read"]),
    "no number": ([("frame_0002.xyz", "6\n\n" + 5 * LINE + "I 1 x 0\n")], ["frame_0002.xyz, line 8: 'I 1 x 0'"]),
    "NaN": ([("frame_0002.xyz", "6\n\nI 0 nan 0\n" + 5 * LINE)], ["frame_0002.xyz, line 3"]),
    "fewer atoms": ([("frame_0002.xyz", "5\n\n" + "".join(ROWS[:5]))], ["frame_0002.xyz has 5 atoms", "has 6"]),
    "other atoms": ([("frame_0002.xyz", "6\n\n" + 6 * LINE)], ["frame_0002.xyz has Pb as atom 1", "has I"]),
    "two formats": ([("frame_0006.pdb", "END\n")], ["two formats", "frame_0000.xyz and frame_0006.pdb"]),
    "a number twice": ([("frame_2.xyz", "6\n\n" + "".join(ROWS))],
                       ["at 20 fs", "frame_2.xyz", "frame_0002.xyz"]),
    "broken times": ([("mdtrajectory_export.json", "{")], ["mdtrajectory_export.json cannot be read"]),
    "times of nothing": ([("mdtrajectory_export.json", '{"written_frames": ["a"]}')], ["json cannot be read"]),
    "time NaN": ([export(*enumerate([0.0, 10.0, np.nan]))], ["time_fs of frame_0002.xyz is nan"]),
    "two times": ([export((0, 0.0), (0, 50.0))], ["time_fs of frame_0000.xyz is 50, before that 0"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_FRAMES)
def test_s5_001_002_034_frames_in_files(tmp_path, fault):
    files, words = BAD_FRAMES[fault]
    frames(tmp_path, files)
    assert_one_clear_error(run(tmp_path, FOLDER), words)


def test_s5_001_a_folder_without_frames_and_one_with_a_single_one(tmp_path):
    (tmp_path / "frames").mkdir()
    assert_one_clear_error(run(tmp_path, FOLDER), ["frames has no frames: no file *.xyz, *.pdb or *.cif"])
    (tmp_path / "frames").rmdir()
    assert_one_clear_error(run(tmp_path, FOLDER), ["no trajectory at"])
    frames(tmp_path, positions=POSITIONS[:1])
    assert_one_clear_error(run(tmp_path, FOLDER), ["frames has one frame, at 0 fs"])


def test_s5_034_times_that_fall_are_an_error_without_a_time_step(tmp_path):
    frames(tmp_path, [export(*enumerate([0.0, 20.0, 10.0, 30.0, 40.0, 50.0]))])
    done = run(tmp_path, FOLDER, "problem.timestep_fs=10.0")
    assert done.returncode == 0, done.stderr
    assert "frame 1 is at 10 fs by timestep_fs, its file says 20 fs" in done.stderr
    (tmp_path / "config.toml").write_text(CONFIG.format(source=FOLDER))
    done = here("optimize", tmp_path / "config.toml", "--overwrite")
    assert_one_clear_error(done, ["frame 1 is at 20 fs, frame 2 at 10 fs", "frame_0001.xyz, frame_0002.xyz"])


TURNED = np.array([[9.0, 0, 0], [0, 9.0, 0], [9.0, 9.0, 0]])
BAD_ARRAYS = {
    "no elements": ({"elements": None}, ["t.npz has no array elements"]),
    "no times": ({"time_fs": None}, ["t.npz has no array time_fs", "it has box, coordinates, elements"]),
    "NaN": ({"coordinates": changed(POSITIONS, (2, 1), np.nan)}, ["t.npz, frame 2", "atom 1", "nan"]),
    "one frame's shape": ({"coordinates": POSITIONS[0]}, ["coordinates has shape [6, 3]"]),
    "fewer elements": ({"elements": ELEMENTS[:5]}, ["6 atoms, its elements have 5"]),
    "fewer times": ({"time_fs": np.arange(5.0)}, ["time_fs has shape [5]", "6 frames"]),
    "box of zeros": ({"box": np.zeros(3)}, ["t.npz: box has a box of lengths [0.0, 0.0, 0.0]"]),
    "negative box": ({"box": np.array([18.0, -18.0, 18.0])}, ["lengths [18.0, -18.0, 18.0]"]),
    "box of zeros later": ({"box": changed(np.full((6, 3), 18.0), (4, 2), 0)}, ["lengths [18.0, 18.0, 0.0]"]),
    "flat box": ({"box": TURNED}, ["t.npz, frame 0: the box has no volume", "[9.0, 9.0, 0.0]"]),
    "NaN box": ({"box": np.array([18.0, np.nan, 18.0])}, ["frame 0: the box has no volume", "nan"]),
    "small box": ({"box": np.full(3, 5.0)}, ["largest cut-off is 4 A", "5 A apart"]),
    "two lengths": ({"box": np.full(2, 18.0)}, ["box has shape [2]"]),
    "atomic numbers": ({"elements": [82, 53, 53, 82, 53, 82]}, ["node = 'Pb' is no element", "53, 82"]),
    "no frames": ({"coordinates": POSITIONS[:0], "time_fs": np.zeros(0)}, ["t.npz has 0 frames"]),
    "far away": ({"coordinates": POSITIONS + 1e12}, ["t.npz, frame 0", "beyond 1e+06 A", "length_unit"]),
    "a frame of zeros": ({"coordinates": changed(POSITIONS, 3, 0.0)}, ["frame 3 of", "atoms 0 and 1 are at one place"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_ARRAYS)
def test_s5_001_012_arrays(tmp_path, fault):
    changes, words = BAD_ARRAYS[fault]
    arrays(tmp_path, **changes)
    assert_one_clear_error(run(tmp_path, NPZ), words)


def arrays(folder, **changes):
    """A file of arrays, with some of them changed, or left out."""
    given = {"box": np.full(3, 18.0), "coordinates": POSITIONS, "elements": ELEMENTS, "time_fs": 10.0 * np.arange(6)}
    np.savez(folder / "t.npz", **{name: np.array(one) for name, one in (given | changes).items() if one is not None})


@pytest.mark.parametrize("fault", ["truncated", "empty", "text"])
def test_s5_001_damaged_files_of_arrays(tmp_path, fault):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["coordinates"], file["time_fs"] = POSITIONS, 10.0 * np.arange(6)
        file["elements"] = [one.encode() for one in ELEMENTS]
    arrays(tmp_path)
    for name, source in (("t.h5", HDF5), ("t.npz", NPZ)):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}[fault])
        assert_one_clear_error(run(tmp_path, source), [f"{name} cannot be read"])


# ---- options ---------------------------------------------------------------------------------------------------------

BOX = "problem.box="
BAD_OPTIONS = {
    "negative cut-off": ("problem.cutoffs={Pb-I=-4.0}", ["problem.cutoffs", "-4.0", "must be at least 1e-15"]),
    "infinite cut-off": ("problem.cutoffs={Pb-I=inf}", ["problem.cutoffs", "must be at least"]),
    "both orders": ("problem.cutoffs={Pb-I=3.0,I-Pb=4.0}", ["has I-Pb twice"]),
    "no such species": ("problem.cutoffs={Pb-O=3.0}", ["'Pb-O' is no pair of Pb, I"]),
    "no node": ("problem.node=[]", ["problem.node", "at least 1"]),
    "node twice": ("problem.node=['Pb','Pb']", ["Pb has two roles, or is named twice"]),
    "no such node": ("problem.node=['Cs']", ["node = 'Cs' is no element", "I, Pb"]),
    "no such linker": ("problem.linker=['Br']", ["linker = 'Br' is no element"]),
    "NaN window": ("problem.start_fs=nan", ["problem.start_fs", "must be at least"]),
    "window of one": ("problem.stop_fs=5.0", ["1 of its frames lie between 0 and 5 fs", "0 to 50 fs"]),
    "no box": ("problem.periodic=true", ["periodic = true", "have no box"]),
    "box of zeros": (f"{BOX}[0.0,18.0,18.0]", ["problem.box.0", "must be at least"]),
    "infinite box": (f"{BOX}[18.0,18.0,inf]", ["problem.box.2", "must be at least"]),
    "no such angles": (f"{BOX}[18.0,18.0,18.0,170.0,170.0,170.0]", ["no box has the angles 170, 170, 170"]),
    "angle of 180": (f"{BOX}[18.0,18.0,18.0,90.0,180.0,90.0]", ["no box has the angles 90, 180, 90"]),
    "four lengths": (f"{BOX}[18.0,18.0,18.0,90.0]", ["3 lengths (A), or 3 lengths and 3 angles"]),
    "columns twice": ("problem.curve={file='c.dat',columns=[0,1,1]}", ["columns = [0, 1, 1] names a column twice"]),
    "a folder as curve": ("problem.curve={file='.'}", ["is a folder"]),
    "energies of no number": ("problem.energy_file='nan.ener'", ["nan.ener, line 1", "five finite numbers"]),
    "energies back in time": ("problem.energy_file='back.ener'", ["back.ener, line 2: its time is 4 fs", "5 fs"]),
    "no energies": ("problem.energy_file='empty.ener'", ["empty.ener has no rows"]),
}


@pytest.fixture(scope="module")
def boxless(tmp_path_factory):
    """A folder with the store of frames without a box, and files that options name."""
    folder = tmp_path_factory.mktemp("boxless")
    arrays(folder, box=None)
    done = run(folder, NPZ)
    assert done.returncode == 0, done.stderr
    for name, text in (("nan", "1 0.5 0.1 300 nan\n"), ("back", "1 5 0.1 300 1\n2 4 0.1 300 1\n"), ("empty", "")):
        (folder / f"{name}.ener").write_text(text)
    np.savetxt(folder / "c.dat", CURVE)
    return folder


@pytest.mark.parametrize("fault", BAD_OPTIONS)
def test_s5_003_006_012_options(boxless, fault):
    """`check` finds them before any frame is read."""
    setting, words = BAD_OPTIONS[fault]
    done = here("check", boxless / "config.toml", *sets("problem.timestep_fs=10.0", setting))
    assert_one_clear_error(done, words)


def test_s5_124_runs_are_compared(boxless, tmp_path):
    """The result of each, the one setting that differs, and a run that has not ended."""
    for name, cutoff in (("near", 3.0), ("far", 6.0)):
        change = (f"run.directory='{tmp_path}/{name}'", f"problem.cutoffs={{Pb-I={cutoff}}}")
        done = here("optimize", boxless / "config.toml", *sets("problem.timestep_fs=10.0", *change))
        assert done.returncode == 0, done.stderr
    done = here("runs", tmp_path)
    assert done.returncode == 0, done.stderr
    results, _, settings = done.stdout.partition("\n\n")
    assert [line.partition(": ")[0] for line in results.splitlines()] == ["far", "near"]
    assert all("clusters a frame" in line for line in results.splitlines())
    assert settings.splitlines() == ["problem.cutoffs.Pb-I", "  far: 6.0", "  near: 3.0"]
    (tmp_path / "near/metrics.json").unlink()
    assert "near: clusters: has not ended" in here("runs", tmp_path).stdout
    (tmp_path / "none").mkdir()
    assert_one_clear_error(here("runs", tmp_path / "none"), ["none has no run directory", "config.toml"])
    assert_one_clear_error(here("runs", tmp_path / "nowhere"), ["nowhere is no folder"])


# ---- curves ----------------------------------------------------------------------------------------------------------


def written(row, text):
    """The curve as text, with one row replaced."""
    rows = [" ".join(f"{value:.6g}" for value in values) for values in CURVE]
    return "\n".join([*rows[:row], text, *rows[row + 1 :]])


COMMAS = "\n".join(" ".join(f"{value:.6f}".replace(".", ",") for value in row) for row in CURVE)
BAD_CURVES = {
    "negative sigma": (changed(CURVE, (3, 2), -1), ["line 4: sigma is -1"]),
    "sigma 0": (changed(CURVE, (3, 2), 0), ["line 4: sigma is 0"]),
    "infinite sigma": (changed(CURVE, (3, 2), np.inf), ["line 4: sigma is inf"]),
    "no sigma": (CURVE[:, :2], ["line 1 has 2 fields, and sigma is asked for in field 3"]),
    "a sigma missing": (written(30, "0.5183 1.09"), ["line 31: sigma is missing"]),
    "a sigma of text": (written(30, "0.5183 1.09 bad"), ["line 31: sigma is missing"]),
    "I is NaN": (changed(CURVE, (3, 1), np.nan), ["line 4: intensity is no finite number"]),
    "q falls": (CURVE[::-1], ["line 2 is at q = 0.98339, but line 1 at 1"]),
    "q twice": (changed(CURVE, (3, 0), Q[2]), ["line 4 is at q", "line 3"]),
    "negative q": (changed(CURVE, (0, 0), -0.01), ["q from -0.01 to 1"]),
    "q of other units": (CURVE * [100, 1, 1], ["q from 2 to 100 1/A cannot be", "unit = '1/A'"]),
    "one point": (CURVE[:1], ["has 1 points for 2 free parameters"]),
    "empty": ("", ["no rows of numbers"]),
    "text": ("hello\nworld\n", ["no rows of numbers"]),
    "an unreadable row": (written(30, "detector broke"), ["line 31: 'detector broke' cannot", "line 1 and line 32"]),
    "an unreadable I": (written(30, "0.5183 bad 0.01"), ["line 31: '0.5183 bad 0.01' cannot be read"]),
    "an unreadable second row": (written(1, "x"), ["line 2: 'x' cannot be read, between line 1 and line 60"]),
    "an unreadable last row but one": (written(58, "x"), ["line 59: 'x' cannot be read, between line 1 and line 60"]),
    "decimal commas": (COMMAS, ["decimal commas: '0,020000 1,996406"]),
    "nothing above 0": (CURVE * [1, -1, 1], ["no intensity is above 0"]),
    "squares that overflow": (CURVE * [1, 1e200, 1e200], ["line 1: I = 1.99641e+200", "cannot be measured"]),
    "squares that vanish": (CURVE * [1, 1, 1e-300], ["line 1", "cannot be measured"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_CURVES)
def test_s5_009_curves(boxless, fault, tmp_path):
    content, words = BAD_CURVES[fault]
    if isinstance(content, str):
        (tmp_path / "bad.dat").write_text(content)
    else:
        np.savetxt(tmp_path / "bad.dat", content, fmt="%.6g")
    settings = (f"problem.curve={{file='{tmp_path}/bad.dat'}}", f"run.directory='{tmp_path}/run'")
    command = "optimize" if fault == "one point" else "check"
    done = here(command, boxless / "config.toml", *sets("problem.timestep_fs=10.0", *settings))
    assert_one_clear_error(done, ["bad.dat", *words])


def test_s5_009_numbers_above_and_below_a_table_are_passed_over(boxless, tmp_path):
    (tmp_path / "good.dat").write_text("sample 12\n3 1 2 4\nq I s\n" + written(0, "0.02 2 0.02") + "\nend\n1 2\n")
    curve = f"problem.curve={{file='{tmp_path}/good.dat'}}"
    done = here("check", boxless / "config.toml", *sets("problem.timestep_fs=10.0", curve))
    assert done.returncode == 0, done.stderr
    assert "60 points" in done.stderr + done.stdout


SEGMENTS = {
    "disagree": (CURVE[20:] * [1, 2, 1], ["c.dat", "other.dat", "disagree where they overlap", "tolerance"]),
    "apart": (CURVE[55:], ["c.dat ends at q = 0.584746", "other.dat begins at 0.93", "0 points overlap"]),
    "of opposite sign": (CURVE[20:] * [1, -1, 1] + [0, 1e-9, 0], ["no intensity is above 0"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", SEGMENTS)
def test_s5_009_segments_of_detectors(boxless, fault, tmp_path):
    rows, words = SEGMENTS[fault]
    np.savetxt(tmp_path / "other.dat", rows)
    curves = f"problem.curve=[{{file='c.dat',q_max=0.6}},{{file='{tmp_path}/other.dat'}}]"
    settings = sets("problem.timestep_fs=10.0", curves, "problem.scattering={stitch_scaled=false}")
    assert_one_clear_error(here("check", boxless / "config.toml", *settings), words)


def test_a_solvent_above_the_curve_is_an_error(boxless, tmp_path):
    np.savetxt(tmp_path / "solvent.dat", CURVE * [1, 3, 1])
    settings = ("problem.curve={file='c.dat'}", f"problem.background={{file='{tmp_path}/solvent.dat',use='subtract'}}")
    done = here("check", boxless / "config.toml", *sets("problem.timestep_fs=10.0", *settings))
    assert_one_clear_error(done, ["solvent.dat: no intensity is above 0", "factor"])


# ---- libraries -------------------------------------------------------------------------------------------------------

ATOM = "HETATM    1 PB   UNK A   1    {:>8}   0.000   0.000  1.00  0.00          PB\n"
BAD_LIBRARIES = {
    "empty": ({}, ["lib holds 0 structures in 0 folders"]),
    "files alone": ({"a.xyz": PAIR}, ["lib holds 0 structures in 0 folders"]),
    "no nodes": ({"I/a.xyz": "1\n\nI 0 0 0\n"}, ["none with a node (Pb)"]),
    "no overlap": ({"X/a.xyz": PAIR}, ["no label of the library (X)", "(I, Pb"]),
    "one size": ({"Pb/a.xyz": "1\n\nPb 0 0 0\n", "PbI/a.xyz": PAIR}, ["all 2 labels of the library have 1 node"]),
    "empty file": ({"PbI/a.xyz": PAIR, "Pb/a.xyz": ""}, ["Pb/a.xyz, line 1"]),
    "no text": ({"PbI/a.xyz": b"\xff\xfe\x00"}, ["PbI/a.xyz is not text"]),
    "no element": ({"PbI/a.xyz": "1\n\nQq 0 0 0\n"}, ["PbI/a.xyz, line 3: 'Qq' is no element"]),
    "NaN": ({"PbI/a.xyz": "1\n\nPb 0 nan 0\n"}, ["PbI/a.xyz, line 3"]),
    "far away": ({"PbI/a.xyz": "1\n\nPb 0 1e300 0\n"}, ["PbI/a.xyz, line 3"]),
    "more atoms than announced": ({"PbI/a.xyz": "1\n\nPb 0 0 0\nI 3 0 0\n"}, ["1 atoms, and line 4 is 'I 3 0 0'"]),
    "fewer atoms than announced": ({"PbI/a.xyz": "3\n\nPb 0 0 0\n"}, ["3 lines for 3 atoms"]),
    "no atoms": ({"PbI/a.xyz": "0\n\n"}, ["PbI/a.xyz holds no atoms"]),
    "broken PDB": ({"PbI/a.pdb": ATOM.format("x.000")}, ["PbI/a.pdb, line 1"]),
    "empty PDB": ({"PbI/a.pdb": "END\n"}, ["PbI/a.pdb holds no atoms"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_LIBRARIES)
def test_s5_008_043_libraries(boxless, fault, tmp_path):
    files, words = BAD_LIBRARIES[fault]
    (tmp_path / "lib").mkdir()
    for name, content in files.items():
        (tmp_path / "lib" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "lib" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    settings = (
        "problem.prediction={}",
        f"problem.library={{folder='{tmp_path}/lib'}}",
        f"run.directory='{tmp_path}/run'",
    )
    assert_one_clear_error(
        here("optimize", boxless / "config.toml", *sets("problem.timestep_fs=10.0", *settings)), words
    )


def test_s5_008_a_library_that_is_a_file(boxless):
    settings = ("problem.prediction={}", "problem.library={folder='c.dat'}")
    done = here("check", boxless / "config.toml", *sets("problem.timestep_fs=10.0", *settings))
    assert_one_clear_error(done, ["the folder of structures", "c.dat is a file"])


# ---- on ranks --------------------------------------------------------------------------------------------------------

# One of each way in which ranks meet an error: in the config, in what all read, in one rank's frames, on root alone.
ON_RANKS = {
    "option": (["problem.node=['Cs']"], ["node = 'Cs' is no element"]),
    "curve": (["problem.curve={file='bad.dat'}"], ["bad.dat: line 4: sigma is -1"]),
    "frame": (["problem.largest=1"], ["has more than 1"]),
    "library": (["problem.prediction={}", "problem.library={folder='lib'}"], ["PbI/a.xyz, line 3: 'Qq'"]),
}


@pytest.mark.parametrize(("fault", "ranks"), also_on_ranks([*ON_RANKS], 2, always=("library",)))
def test_errors_are_the_same_on_ranks(tmp_path, fault, ranks, hpcfit):
    x = changed(POSITIONS, (4, 1), POSITIONS[4, 0] + [3.0, 0, 0])  # a pair in one frame
    arrays(tmp_path, box=None, coordinates=np.concatenate([POSITIONS] * 11 + [x]), time_fs=10.0 * np.arange(72))
    (tmp_path / "lib/PbI").mkdir(parents=True)
    (tmp_path / "lib/PbI/a.xyz").write_text("1\n\nQq 0 0 0\n")
    np.savetxt(tmp_path / "bad.dat", changed(CURVE, (3, 2), -1))
    text = CONFIG.format(source=NPZ).replace("frames_per_bin", "timestep_fs = 10.0\nframes_per_bin")
    (tmp_path / "config.toml").write_text(text)
    assert here("prepare", tmp_path / "config.toml").returncode == 0
    settings, words = ON_RANKS[fault]
    assert_one_clear_error(hpcfit("optimize", tmp_path / "config.toml", *sets(*settings), ranks=ranks), words)
