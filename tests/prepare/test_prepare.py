"""From inputs to a store: what is in it, what is made again after a kill, and what is refused."""

import csv
import hashlib
import pickle
import subprocess
import sys

import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms

from hpcfit.errors import InputError
from hpcfit.kinds.table import load_config
from hpcfit.physics import reciprocal, scattering
from hpcfit.prepare import command as prepare
from hpcfit.prepare.sources import entries, file_name, open_sources, sharing_elements, with_unique_names
from hpcfit.ranks import Ranks
from hpcfit.readers import trajectory
from hpcfit.readers.positions import TrajectoryReader
from hpcfit.store.reference import restored
from hpcfit.store.shard import open_shard
from hpcfit.store.structure_factors import FactorShard, open_store, read_reference
from tests.store.test_shard import verified

CELL = (6.0, 7.0, 8.0, 90.0, 95.0, 90.0)
ELEMENTS = ["C", "O", "S", "Na"]
FRAMES = {"one": 70, "two": 130}
D_MIN = 2.0


def wandering(seed, frames):
    """Fractional coordinates [frames, 4, 3]."""
    rng = np.random.default_rng(seed)
    return rng.random((4, 3)) + 0.05 * rng.normal(size=(frames, 4, 3))


@pytest.fixture
def runs(tmp_path):
    """Two short trajectories of the same name in two folders, and their fractional coordinates."""
    cell, coordinates = scattering.orthogonalization(CELL).T, {}
    for seed, (name, frames) in enumerate(FRAMES.items()):
        coordinates[name] = wandering(seed, frames)
        (tmp_path / name).mkdir()
        images = [Atoms(ELEMENTS, scaled_positions=x, cell=cell, pbc=True) for x in coordinates[name]]
        ase.io.write(tmp_path / name / "run.extxyz", images)
    return coordinates


def structure_factors(x_tjk, hkl, s2):
    """Direct summation for many frames at once: [T, H]."""
    f_jh = np.array([scattering.form_factor(element, s2) for element in ELEMENTS])
    return np.einsum("jh,tjh->th", f_jh, np.exp(2j * np.pi * np.einsum("tjk,hk->tjh", x_tjk, hkl)))


def config(tmp_path, *overrides, store="store", sources=None):
    sources = sources or "".join(f'[[prepare.source]]\nlabel = "{n}"\ntrajectory = "{n}/run.extxyz"\n' for n in FRAMES)
    text = f'[frames]\nstore = "{store}"\n[prepare]\nd_min = {D_MIN}\nshard_frames = 64\nsample = 10\n{sources}'
    (tmp_path / "config.toml").write_text(text)
    return load_config(tmp_path / "config.toml", overrides)


def run(tmp_path, *overrides, **keys):
    return prepare.run_prepare(config(tmp_path, *overrides, **keys), Ranks())


def digests(folder):
    """SHA-256 of the structure factors and frame rows of each shard; the command line in a shard may differ."""
    found = {}
    for path in sorted(folder.glob("*.*.h5")):
        with h5py.File(path) as file:
            data = [
                file["hpcfit"][name][:].tobytes()
                for name in ("structure_factors", "frame_id", "source_index", "checksums", "F0")
            ]
            found[path.name] = hashlib.sha256(b"".join(data)).hexdigest()
    return found


def test_a_store_holds_the_structure_factors_of_every_frame(tmp_path, runs):
    done = run(tmp_path)
    assert (done.computed, done.kept) == (200, 0)
    assert done.fft_error.rms < 1e-4
    store = open_store(tmp_path / "store")
    assert [(s.source, s.label, s.frames, s.first_id) for s in store.shards] == [
        ("one/run.extxyz", "one", 64, 0), ("one/run.extxyz", "one", 6, 64),
        ("two/run.extxyz", "two", 64, 70), ("two/run.extxyz", "two", 64, 134), ("two/run.extxyz", "two", 2, 198),
    ]  # fmt: skip
    reflections = store.reference.reflections
    np.testing.assert_array_equal(reflections.hkl, reciprocal.sphere(CELL, (1, 1, 1), D_MIN))
    s2 = reciprocal.inverse_d2(reflections.hkl, (1, 1, 1), CELL)
    with open_shard(store.path(3), FactorShard) as shard:
        f_th = restored(shard.read(0, slice(0, len(reflections))), store.reference)
        ids, files, index = shard.frame_rows()
    for row in (0, 63):
        expected = scattering.structure_factors_direct(ELEMENTS, runs["two"][64 + row], reflections.hkl, s2)
        # float16 keeps 11 bits of (F - F0) / s, whose rms is 1; 2e-3 covers values up to 4.
        assert np.all(np.abs(f_th[row] - expected) < 2e-3 * store.reference.scale + 3e-4 * np.abs(expected).max())
    assert (ids[0], index[0], files[0]) == (134, 64, str(tmp_path / "two" / "run.extxyz"))
    assert verified(store) == []


def test_the_reference_is_mean_and_spread_of_the_sample(tmp_path, runs):
    run(tmp_path, "prepare.sample=200")
    reference = read_reference(tmp_path / "store")
    hkl = reference.reflections.hkl
    s2 = reciprocal.inverse_d2(hkl, (1, 1, 1), CELL)
    f_th = np.concatenate([structure_factors(x, hkl, s2) for x in runs.values()])
    tolerance = 3e-4 * np.abs(f_th).max()  # of the FFT
    np.testing.assert_allclose(reference.mean, f_th.mean(axis=0), atol=tolerance)
    np.testing.assert_allclose(reference.scale, np.sqrt(np.var(f_th, axis=0)), atol=tolerance)


def test_a_second_run_computes_nothing(tmp_path, runs, monkeypatch):
    run(tmp_path)
    monkeypatch.setattr(trajectory.TrajectorySource, "frames", None)
    done = run(tmp_path)
    assert (done.computed, done.kept) == (0, 200)


def half_written_by_a_killed_process(path):
    """What SIGKILL leaves behind in the folder of `path`."""
    program = (
        "import os, sys, pathlib; from hpcfit.store.files import written_whole\n"
        "with written_whole(pathlib.Path(sys.argv[1])) as file: file.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, path], check=False).returncode == -9
    assert list(path.parent.glob(f".{path.name}.*.tmp"))


class Killed(BaseException):
    """Stands for the end of the process in the middle of a frame."""


def test_a_killed_run_goes_on_with_the_missing_shards_and_gives_the_same_bytes(tmp_path, runs, monkeypatch):
    run(tmp_path, store="whole")
    count = []
    whole = trajectory.TrajectorySource._frame

    def dies(self, *arguments):
        count.append(1)
        if len(count) > 10 + 64 + 6 + 30:  # the sample, two shards, and part of the third
            raise Killed
        return whole(self, *arguments)

    monkeypatch.setattr(trajectory.TrajectorySource, "_frame", dies)
    with pytest.raises(Killed):
        run(tmp_path)
    assert len(digests(tmp_path / "store")) == 2
    half_written_by_a_killed_process(tmp_path / "store" / "two_run.extxyz.0000000-0000064.h5")
    with pytest.raises(InputError, match="not a complete store"):
        open_store(tmp_path / "store")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("one*.h5")}
    monkeypatch.setattr(trajectory.TrajectorySource, "_frame", whole)
    done = run(tmp_path)
    assert (done.computed, done.kept) == (130, 70)
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("one*.h5")}
    assert digests(tmp_path / "store") == digests(tmp_path / "whole")
    assert not list((tmp_path / "store").glob(".*.tmp"))


def test_a_damaged_or_missing_shard_is_made_again(tmp_path, runs, caplog):
    run(tmp_path)
    before = digests(tmp_path / "store")
    first, second, *_ = sorted((tmp_path / "store").glob("*.*.h5"))
    first.write_bytes(first.read_bytes()[:1000])
    second.unlink()
    done = run(tmp_path)
    assert done.computed == 70
    assert digests(tmp_path / "store") == before
    assert first.name in caplog.text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("prepare.d_min=2.2", r"prepared with d_min = 2\.0; the config has 2\.2"),
        ("prepare.dtype=complex64", 'dtype = "float16"; the config has "complex64"'),
        ("prepare.shard_frames=128", "shard_frames = 64; the config has 128"),
    ],
)
def test_a_store_of_other_settings_is_refused(tmp_path, runs, override, words):
    run(tmp_path)
    with pytest.raises(InputError, match=words):
        run(tmp_path, override)


def test_a_changed_input_is_refused(tmp_path, runs):
    run(tmp_path)
    images = ase.io.read(tmp_path / "one/run.extxyz", index=":")
    ase.io.write(tmp_path / "one/run.extxyz", images[:-1])
    with pytest.raises(
        InputError, match=r"source one/run.extxyz = label 'one', 70 frames.*the config has label 'one', 69 frames"
    ):
        run(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["prepare.source=[]"], r"no \[\[prepare.source\]\]"),
        (["prepare.forces=true", "prepare.positions=true"], "frame 0: no forces"),
        (["prepare.space_group=P 4x"], "'P 4x' is neither"),
        (["prepare.supercell=[2, 1, 1]", "prepare.cell=[6, 7, 8, 90, 95, 90]"], "correct .prepare. cell or supercell"),
    ],
)
def test_impossible_requests(tmp_path, runs, overrides, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path, *overrides)


def test_simulations_need_a_resolution_limit(tmp_path, runs):
    made = config(tmp_path)
    without = made.model_copy(update={"prepare": made.prepare.model_copy(update={"d_min": None})})
    with pytest.raises(InputError, match="d_min is not set"):
        prepare.run_prepare(without, Ranks())


def test_nan_in_a_frame_names_file_and_frame(tmp_path, runs):
    images = ase.io.read(tmp_path / "two/run.extxyz", index=":")
    images[100].positions[2] = np.nan
    ase.io.write(tmp_path / "two/run.extxyz", images)
    with pytest.raises(InputError, match=r"two/run.extxyz, frame 100: the position of atom 2"):
        run(tmp_path)
    assert len(digests(tmp_path / "store")) == 3  # what was complete stays


def test_positions_make_shards_that_mdanalysis_opens(tmp_path, runs):
    import MDAnalysis

    run(tmp_path, "prepare.positions=true")
    path = next((tmp_path / "store").glob("one*0000000*.h5"))
    universe = MDAnalysis.Universe.empty(4)
    universe.load_new(str(path), format="H5MD")
    assert len(universe.trajectory) == 64
    universe.trajectory[5]
    cell = scattering.orthogonalization(CELL).T
    np.testing.assert_allclose(universe.atoms.positions, runs["one"][5] @ cell, atol=1e-5)
    universe.trajectory.close()


def test_a_supercell_divides_the_box(tmp_path, runs):
    run(tmp_path, "prepare.supercell=[2, 1, 1]")
    reflections = read_reference(tmp_path / "store").reflections
    assert reflections.ndiv == (2, 1, 1)
    np.testing.assert_allclose(reflections.cell, (3.0, *CELL[1:]), rtol=1e-6)


def write_mtz(path, x, hkl):
    import gemmi

    f = scattering.structure_factors_direct(ELEMENTS, x, hkl, reciprocal.inverse_d2(hkl, (1, 1, 1), CELL))
    file = gemmi.Mtz(with_base=True)
    file.spacegroup = gemmi.find_spacegroup_by_name("P 1")
    file.set_cell_for_all(gemmi.UnitCell(*CELL))
    file.add_dataset("frame")
    file.add_column("FC", "F")
    file.add_column("PHIC", "P")
    file.set_data(np.column_stack([hkl, np.abs(f), np.degrees(np.angle(f))]).astype(np.float32))
    file.write_to_file(str(path))


@pytest.fixture
def folder(tmp_path):
    """Five MTZ files of which two lack reflections."""
    (tmp_path / "mtz").mkdir()
    hkl = reciprocal.sphere(CELL, (1, 1, 1), D_MIN)
    for number, x in enumerate(wandering(9, 5)):
        write_mtz(tmp_path / "mtz" / f"{number}.mtz", x, np.delete(hkl, {1: [3], 4: [3, 10]}.get(number, []), axis=0))
    return hkl


MTZ = '[[prepare.source]]\nlabel = "m"\nmtz = "mtz"\n'


def test_mtz_frames_and_what_they_lack(tmp_path, folder, caplog):
    done = run(tmp_path, sources=MTZ)
    assert (done.computed, done.width, done.fft_error) == (5, len(folder) - 2, None)
    with open(tmp_path / "store" / "missing.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["missing"]) for row in rows] == [0, 1, 0, 0, 2]
    assert [int(row["unused"]) for row in rows] == [2, 1, 2, 2, 0]
    assert "2 files lack reflections" in caplog.text
    store = open_store(tmp_path / "store")
    with open_shard(store.path(0), FactorShard) as shard:
        f_th = restored(shard.read(0, slice(0, done.width)), store.reference)
        _, files, index = shard.frame_rows()
    hkl = store.reference.reflections.hkl
    expected = scattering.structure_factors_direct(
        ELEMENTS, wandering(9, 5)[4], hkl, reciprocal.inverse_d2(hkl, (1, 1, 1), CELL)
    )
    # 11 bits of float16
    assert np.all(np.abs(f_th[4] - expected) < 2e-3 * store.reference.scale)
    assert (files[4], index[4]) == (str(tmp_path / "mtz" / "4.mtz"), 0)


def test_mtz_files_and_a_trajectory_share_a_store(tmp_path, folder, runs):
    both = MTZ + '[[prepare.source]]\ntrajectory = "one/run.extxyz"\n'
    done = run(tmp_path, sources=both)
    assert (done.computed, done.width) == (75, len(folder) - 2)
    assert done.fft_error.rms < 1e-4
    assert [s.source for s in open_store(tmp_path / "store").shards] == [
        "mtz",
        "run.extxyz",
        "run.extxyz",
    ]


def test_a_cell_that_differs_from_the_files_is_refused(tmp_path, folder):
    with pytest.raises(InputError, match=r"cell = \(6.1.*0.mtz has \(6.0"):
        run(tmp_path, "prepare.cell=[6.1, 7, 8, 90, 95, 90]", sources=MTZ)


def test_names_tell_sources_apart(tmp_path, runs):
    paths = [tmp_path / name for name in ("a/x/run.xyz", "a/y/run.xyz", "b/x/run.xyz", "other.xyz")]
    sources = [
        trajectory.TrajectorySource(path.name, "", TrajectoryReader(path, None, 1), range(1), {}) for path in paths
    ]
    names = [source.name for source in with_unique_names(sources)]
    assert names == ["a/x/run.xyz", "y/run.xyz", "b/x/run.xyz", "other.xyz"]
    assert len({file_name(name) for name in names}) == 4
    with pytest.raises(InputError, match="given twice"):
        with_unique_names(sources[:1] * 2)


def test_each_name_is_looked_at_a_few_times_only(tmp_path, monkeypatch):
    paths = [tmp_path / f"{number}" / "run.xyz" for number in range(300)]
    sources = [
        trajectory.TrajectorySource(path.name, "", TrajectoryReader(path, None, 1), range(1), {}) for path in paths
    ]
    asked = []
    monkeypatch.setattr("hpcfit.prepare.sources.file_name", lambda name: asked.append(name) or file_name(name))
    assert len({source.name for source in with_unique_names(sources)}) == 300
    assert len(asked) < 10 * 300  # and not 300^2


def test_a_store_that_this_node_does_not_see_is_an_error(tmp_path, runs, monkeypatch):
    """As if another node wrote to a disk of its own."""
    monkeypatch.setattr("hpcfit.prepare.shards.SEEN_SECONDS", 0.1)
    monkeypatch.setattr(prepare, "write_shard", lambda work, plan, advance: None)
    with pytest.raises(InputError, match=r"one_run.extxyz.0000000-0000064.h5 was written, but is not to be seen on"):
        run(tmp_path)


def test_many_sources_of_the_same_atoms_hold_their_elements_once(tmp_path, runs):
    settings = config(tmp_path).prepare
    opened = [
        pickle.loads(pickle.dumps(source)) for entry in entries(settings) for source in open_sources(settings, entry)
    ]
    assert len({id(source.topology.elements) for source in opened}) == 2
    assert len({id(source.topology.elements) for source in sharing_elements(opened)}) == 1


@pytest.mark.mpi
def test_two_ranks_write_the_bytes_of_one(tmp_path, runs, folder, hpcfit):
    sources = MTZ + "".join(f'[[prepare.source]]\ntrajectory = "{n}/run.extxyz"\n' for n in FRAMES)
    run(tmp_path, sources=sources, store="one_rank")
    config(tmp_path, sources=sources, store="two_ranks")
    finished = hpcfit("prepare", tmp_path / "config.toml", ranks=2)
    assert finished.returncode == 0, finished.stderr
    assert digests(tmp_path / "two_ranks") == digests(tmp_path / "one_rank")
    assert len(digests(tmp_path / "one_rank")) == 6
    assert "205 frames" in finished.stderr


@pytest.mark.mpi
def test_a_bad_frame_on_one_rank_ends_all_with_one_error(tmp_path, runs, hpcfit):
    images = ase.io.read(tmp_path / "two/run.extxyz", index=":")
    images[100].positions[2] = np.nan
    ase.io.write(tmp_path / "two/run.extxyz", images)
    config(tmp_path)
    finished = hpcfit("prepare", tmp_path / "config.toml", ranks=2)
    assert finished.returncode != 0
    assert finished.stderr.count("frame 100: the position of atom 2") == 1
