"""A disk that fills up at any time of a command: one error, nothing half-written, and later the same result."""

import shutil

import pytest

from hpcfit.simulation.replica_run import simulate_replica
from tests.command import here, sets
from tests.commands.test_faults import mounted
from tests.conftest import assert_one_clear_error
from tests.simulation import simulations
from tests.simulation.test_simulate import same_files

# Bytes left on a disk of 1.5 MB.
ROOM = [pytest.param(size, marks=[pytest.mark.nightly] * (size != 40_000)) for size in
        (0, 5_000, 12_000, 20_000, 40_000, 60_000, 90_000, 130_000, 180_000, 240_000)]  # fmt: skip


@pytest.fixture
def disk(tmp_path):
    with mounted(tmp_path / "disk", "size=1500k") as folder:
        yield folder


@pytest.fixture
def large_disk(tmp_path):
    with mounted(tmp_path / "disk", "size=15000k") as folder:
        yield folder


def filled(disk, room, size=1_536_000):
    """Leave so much room, in whole pages."""
    (disk / "ballast").write_bytes(bytes((size - room) // 4096 * 4096))


def assert_whole_files(folder):
    """No file is there that is half a file, and no lock."""
    assert not [path for path in folder.rglob("*") if path.name.endswith((".tmp", ".lock"))]


@pytest.fixture(scope="module")
def fitted(two_sources, tmp_path_factory):
    """A run that has ended."""
    run = tmp_path_factory.mktemp("fitted") / "run"
    here("optimize", two_sources, *sets(f"run.directory={run}", "optimizer.max_steps=4")).check_returncode()
    return run


@pytest.mark.parametrize("room", ROOM)
def test_a_fit_on_a_disk_that_fills_up(hpcfit, two_sources, fitted, disk, room):
    filled(disk, room)
    words = ["optimize", two_sources, "--resume", "auto"]
    words += sets(f"run.directory={disk / 'run'}", "optimizer.max_steps=4", "checkpoint.every_steps=1")
    done = hpcfit(*words, apart=True)
    if done.returncode:
        assert_one_clear_error(done, ["cannot write", "No space left on device"])
    assert "ignored" not in done.stderr
    assert_whole_files(disk)
    (disk / "ballast").unlink()
    again = hpcfit(*words)
    assert again.returncode == 0, again.stderr
    assert (disk / "run/weights.csv").read_bytes() == (fitted / "weights.csv").read_bytes()


@pytest.mark.parametrize("room", ROOM)
def test_a_report_on_a_disk_that_fills_up_leaves_the_one_that_was_there(hpcfit, fitted, disk, room):
    shutil.copytree(fitted, disk / "run")
    page = (disk / "run/report.html").read_bytes()
    used = sum(-(-path.stat().st_size // 4096) * 4096 for path in disk.rglob("*") if path.is_file())
    (disk / "ballast").write_bytes(bytes((1_536_000 - used - room) // 4096 * 4096))
    done = hpcfit("report", disk / "run", apart=True)
    if done.returncode:
        assert_one_clear_error(done, ["cannot write", "report.html", "No space left on device"])
        assert (disk / "run/report.html").read_bytes() == page
    assert_whole_files(disk)


@pytest.mark.parametrize("room", ROOM)
@pytest.mark.parametrize("name", ["map.mtz", "map.nxs", "map.lat"])
def test_a_map_that_is_exported_to_a_disk_that_fills_up(hpcfit, fitted, disk, room, name):
    filled(disk, room)
    done = hpcfit("export", fitted, disk / name, apart=True)
    if done.returncode:
        assert_one_clear_error(done, ["cannot write", name, "No space left on device"])
        assert not (disk / name).exists()
    assert_whole_files(disk)
    (disk / "ballast").unlink()
    if done.returncode:
        assert hpcfit("export", fitted, disk / name).returncode == 0


@pytest.mark.slow
@pytest.mark.programs
@pytest.mark.nightly
@pytest.mark.parametrize("room", [one.values[0] for one in ROOM])
@pytest.mark.parametrize("words", [["sweep", "--grid", "problem.theta=0.1,0.2"], ["scaling", "--ranks", "1"]],
                         ids=lambda words: words[0])  # fmt: skip
def test_many_runs_on_a_disk_that_fills_up(hpcfit, two_sources, large_disk, room, words):
    disk = large_disk
    filled(disk, 5 * room, 15_360_000)
    command, *options = words
    short = ["--steps", "1", "--repeats", "1"] if command == "scaling" else sets("optimizer.max_steps=2")
    words = [command, two_sources, *options, "--directory", disk / "runs", *short]
    done = hpcfit(*words, apart=True)
    if done.returncode:
        assert done.returncode in (1, 2), done.stderr
        assert "Traceback" not in done.stderr
        assert "No space left on device" in done.stderr
    assert not list(disk.rglob("*.tmp"))  # a worker that was ended leaves its lock, which the next call takes over
    (disk / "ballast").unlink()
    again = hpcfit(*words, apart=True)
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
@pytest.mark.programs
@pytest.mark.parametrize("room", ROOM)
def test_a_simulation_on_a_disk_that_fills_up(hpcfit, tmp_path, disk, room):
    filled(disk, room)
    config = simulations.write_dipeptide(tmp_path, replicas=2, frames=12, piece=3, directory=str(disk / "trajectories"))
    done = hpcfit("simulate", config, apart=True)
    if done.returncode:
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("hpcfit: error") == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert "No space left on device" in done.stderr
    assert_whole_files(disk)
    (disk / "ballast").unlink()
    done = hpcfit("simulate", config, apart=True)
    assert done.returncode == 0, done.stderr
    expected = simulations.replicas(config, f"simulate.directory='{tmp_path / 'undisturbed'}'")
    for replica in expected:
        simulate_replica(replica)
    assert all(map(same_files, simulations.replicas(config), expected))
