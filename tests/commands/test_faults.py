"""Bad input, injected on purpose: one clear error that names the file and the remedy, and exit code 2.

On one rank, and on three where ranks come to it in another way.
"""

import contextlib
import os
import shutil
import subprocess

import numpy as np
import pytest

from hpcfit.testsystems import synthetic
from tests.command import sets
from tests.conftest import also_on_ranks, assert_one_clear_error, name_of
from tests.store.changed import changed_shard, resealed
from tests.store.test_shard import flip_byte

RANKS = [1, pytest.param(3, marks=[pytest.mark.mpi, pytest.mark.nightly])]


@pytest.fixture
def problem(two_sources, tmp_path):
    """A copy of a small problem that a test may damage; its folder."""
    shutil.copytree(two_sources.parent, tmp_path / "problem")
    return tmp_path / "problem"


def unknown_key(folder):
    (folder / "config.toml").write_text((folder / "config.toml").read_text() + "tetha = 0.1\n")
    return ["unknown key 'problem.tetha' = 0.1", "did you mean 'theta'"]


def missing_column(folder):
    import gemmi

    mtz = gemmi.Mtz(with_base=True)
    mtz.spacegroup, mtz.cell = gemmi.SpaceGroup("P 1"), gemmi.UnitCell(*synthetic.CELL)
    mtz.add_dataset("d")
    mtz.add_column("FOBS", "F")
    mtz.set_data(np.array([[1, 2, 3, 4.0]]))
    mtz.write_to_file(str(folder / "map.mtz"))
    (folder / "config.toml").write_text((folder / "config.toml").read_text().replace("map.npz", "map.mtz"))
    return ["map.mtz", "intensity column", "FOBS", "[experiment] intensity"]


def no_common_reflections(folder):
    np.savez(
        folder / "map.npz",
        hkl=[[40, 0, 0], [41, 0, 0]],
        intensity=[1.0, 2.0],
        ndiv=(1, 1, 1),
        cell=synthetic.CELL,
        space_group="P 1",
    )
    return ["no reflection in common", "h 40..41", "h -6..6", "map.npz"]


def different_cell(folder):
    with np.load(folder / "map.npz") as archive:
        arrays = dict(archive)
    np.savez(folder / "map.npz", **arrays | {"cell": (12.0, 10, 10, 90, 90, 90)})
    return ["unit cells differ by 20.0 %", "(10.0, 10.0", "(12.0, 10.0", "map.npz"]


def nan_in_a_frame(folder):
    """NaN that is not damage: the checksums agree with it."""
    import zlib

    def change(file):
        data = file["hpcfit/structure_factors"]
        data[3, 5, 0] = np.nan
        file["hpcfit/checksums"][0, 0] = zlib.crc32(data[:64].tobytes())

    changed_shard(folder / "frames.store/first.000000.h5", change)
    return ["first.000000.h5", "frame 3", "not a finite number"]


def flipped_byte(folder):
    flip_byte(folder / "frames.store/second.000000.h5")
    return ["second.000000.h5", "chunk (0, 0), frames 190 to 253", "checksum", "hpcfit prepare"]


def truncated_shard(folder):
    path = folder / "frames.store/first.000128.h5"
    size = path.stat().st_size
    os.truncate(path, size - 1000)
    return ["first.000128.h5", f"{size - 1000} bytes", f"says {size}"]


def newer_schema(folder):
    resealed(folder / "frames.store/first.000000.h5", schema=3)
    return ["first.000000.h5", "schema 3", "reads schema 2", "update hpcfit"]


def zero_variance_of_the_map(folder):
    reflections = synthetic.cubic_reflections()
    synthetic.write_map(folder / "map.npz", reflections, np.full(len(reflections), 7.0))
    return ["map.npz", "zero variance", "intensity 7"]


def frames_all_alike(folder):
    reflections = synthetic.cubic_reflections()
    F_h = synthetic.gaussian_frames(1, len(reflections), seed=0)
    shutil.rmtree(folder / "frames.store")
    synthetic.write_store(folder / "frames.store", reflections, [synthetic.Source("same", np.repeat(F_h, 130, axis=0))])
    return ["frames.store", "zero variance", "all frames are the same"]


def missing_store(folder):
    shutil.rmtree(folder / "frames.store")
    return ["frames.store", "catalog.json does not exist", "hpcfit prepare"]


def damaged_map(folder):
    (folder / "map.npz").write_bytes(b"PK not an archive")
    return ["map.npz", "not a NumPy archive"]


def unknown_optimizer(folder):
    (folder / "config.toml").write_text((folder / "config.toml").read_text() + "[optimizer]\nname = 'lbgfs'\n")
    return ["name = 'lbgfs' is unknown", "did you mean 'lbfgs'"]


def impossible_grid(folder):
    (folder / "config.toml").write_text((folder / "config.toml").read_text() + "[grid]\nframes = 7\n")
    return ["frames = 7", "does not fit", "use one of"]


def prior_without_a_frame(folder):
    (folder / "prior.csv").write_text("frame,weight\n0,0.5\n1,0.5\n")
    (folder / "config.toml").write_text((folder / "config.toml").read_text() + "prior = 'prior.csv'\n")
    return ["prior.csv has weights of 2 frames, but not of frame 2", "298 of 300"]


FAULTS = [
    unknown_key, unknown_optimizer, impossible_grid, prior_without_a_frame, missing_column, no_common_reflections,
    different_cell, nan_in_a_frame, flipped_byte, truncated_shard, newer_schema, zero_variance_of_the_map,
    frames_all_alike, missing_store, damaged_map,
]  # fmt: skip


# What root alone reads, what one rank of three finds in its frames, and what all find in what they have reduced.
ON_RANKS = (unknown_key, flipped_byte, frames_all_alike)


@pytest.mark.parametrize(("fault", "ranks"), also_on_ranks(FAULTS, 3, always=ON_RANKS), ids=name_of)
def test_one_clear_error(hpcfit, problem, fault, ranks):
    expected = fault(problem)
    assert_one_clear_error(hpcfit("optimize", problem / "config.toml", ranks=ranks), expected)
    assert not (problem / "run/metrics.json").exists()


@contextlib.contextmanager
def mounted(folder, options):
    """A tmpfs at ``folder``; skips where the user may not mount."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no right to mount a tmpfs: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1.5 MB."""
    with mounted(tmp_path / "disk", "size=1500k") as folder:
        yield folder


@pytest.fixture
def read_only(tmp_path):
    """A read-only file system, which stops root too."""
    with mounted(tmp_path / "read_only", "ro,size=100k") as folder:
        yield folder


@pytest.mark.parametrize("ranks", RANKS)
def test_a_full_disk_keeps_what_was_complete(hpcfit, problem, small_disk, ranks):
    """The disk fills up during the run: the error names the file, and the checkpoints written before are whole."""
    (small_disk / "ballast").write_bytes(bytes(1_380_000))
    options = [f"run.directory={small_disk / 'run'}", "checkpoint.every_steps=1", "optimizer.relative_tolerance=0"]
    run = ["optimize", problem / "config.toml", *sets(*options)]
    # HDF5 keeps a file open that it could not write: only in a process that ends is that no harm.
    done = hpcfit(*run, *sets("optimizer.max_steps=12", "checkpoint.keep=50"), ranks=ranks, apart=True)
    assert done.returncode == 2, done.stderr
    assert "No space left on device" in done.stderr or "write" in done.stderr
    assert "cannot write" in done.stderr
    assert "MB free" in done.stderr
    assert done.stderr.count("hpcfit: error") == 1, done.stderr
    assert list((small_disk / "run/checkpoints").glob("step_*.h5"))
    (small_disk / "ballast").unlink()
    fewer = sets("optimizer.max_steps=13", "checkpoint.keep=3", "run.report=false")
    again = hpcfit(*run, "--resume", *fewer, ranks=ranks)
    assert again.returncode == 0, again.stderr
    assert "resuming from" in again.stderr


@pytest.mark.parametrize("ranks", RANKS)
def test_a_run_directory_that_cannot_be_written(hpcfit, problem, ranks):
    """A path below a file cannot be made by anyone, root included."""
    (problem / "occupied").write_text("a file")
    done = hpcfit(
        "optimize", problem / "config.toml", "--set", f"run.directory={problem / 'occupied/run'}", ranks=ranks
    )
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr
    assert str(problem / "occupied/run") in done.stderr
    assert done.stderr.count("hpcfit: error") == 1


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("command", ["check", "optimize"])
def test_a_read_only_run_directory_is_found_before_anything_is_read(hpcfit, problem, read_only, command, ranks):
    done = hpcfit(command, problem / "config.toml", "--set", f"run.directory={read_only / 'run'}", ranks=ranks)
    assert done.returncode == 2, done.stderr
    assert "Read-only file system" in done.stderr
    assert str(read_only) in done.stderr
    assert done.stderr.count("hpcfit: error") == 1


def test_overwrite_keeps_the_old_run_until_the_new_one_is_sound(hpcfit, problem):
    run = ["optimize", problem / "config.toml", *sets("optimizer.max_steps=2", "run.report=false")]
    assert hpcfit(*run).returncode == 0
    before = {path: path.read_bytes() for path in sorted((problem / "run").rglob("*.*"))}
    flip_byte(problem / "frames.store/second.000000.h5")
    assert hpcfit(*run, "--overwrite").returncode == 2
    assert {path: path.read_bytes() for path in sorted((problem / "run").rglob("*.*"))} == before


def test_resume_of_a_run_that_had_ended_ends_where_it_was(hpcfit, problem):
    run = ["optimize", problem / "config.toml", *sets("optimizer.max_steps=2", "run.report=false")]
    assert hpcfit(*run).returncode == 0
    weights = (problem / "run/weights.csv").read_bytes()
    again = hpcfit(*run, "--resume")
    assert again.returncode == 0, again.stderr
    assert (problem / "run/weights.csv").read_bytes() == weights
    assert "has ended before" in again.stderr


def test_a_flipped_byte_anywhere_in_a_checkpoint_is_noticed(hpcfit, problem):
    run = ["optimize", problem / "config.toml", *sets("run.report=false", "checkpoint.every_steps=1")]
    assert hpcfit(*run, "--set", "optimizer.max_steps=3").returncode == 0
    newest = max((problem / "run/checkpoints").glob("step_*.h5"))
    content = bytearray(newest.read_bytes())
    content[1448] ^= 1  # in a header, where HDF5 itself would hang
    newest.write_bytes(content)
    again = hpcfit(*run, "--resume", "--set", "optimizer.max_steps=4")
    assert again.returncode == 0, again.stderr
    assert f"{newest.name} is damaged" in again.stderr
    assert "step_00000002" in again.stderr
