"""The main job on real ranks: the same bits on any grid, through kills, signals and restarts on other rank counts."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.command import HPCFIT, ROOT, here, sets
from tests.conftest import fingerprint, history, wait_for


def weights(directory):
    return np.genfromtxt(directory / "weights.csv", delimiter=",", names=True, usecols=(0, 4, 5))


def optimized(config, directory, *settings):
    """The directory of an uninterrupted fit on one rank."""
    done = here("optimize", config, *sets(f"run.directory={directory}", *SHORT, *settings))
    assert done.returncode == 0, done.stderr
    return directory


SHORT = ("optimizer.max_steps=12", "run.report=false")


@pytest.fixture(scope="module")
def reference(two_sources, tmp_path_factory):
    """In one pass over the frames a step, as where each rank has all frames of its tiles."""
    return optimized(two_sources, tmp_path_factory.mktemp("reference") / "run")


# Two passes, as where frames are dealt out over ranks too; and neighbours in time, which lie on different ranks there.
TWO_PASSES = ["run.gradient=reverse", "problem.smoothness=1e-3"]


@pytest.fixture(scope="module")
def by_two_passes(two_sources, tmp_path_factory):
    """The same fit in two passes, of weights that are smooth in time."""
    return optimized(two_sources, tmp_path_factory.mktemp("two_passes") / "run", *TWO_PASSES)


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("ranks", "frames", "slices", "residence"),
    [(1, 1, 1, "disk"), (4, 2, 2, "disk"),
     *(pytest.param(*more, marks=pytest.mark.nightly) for more in
       ((2, 1, 2, "memory"), (2, 2, 1, "memory"), (3, 3, 1, "disk"), (3, 1, 3, "disk"), (4, 2, 2, "memory")))],
)  # fmt: skip
def test_histories_are_bitwise_equal_on_any_grid(
    hpcfit, two_sources, request, tmp_path, ranks, frames, slices, residence
):
    settings = [*SHORT, f"grid.frames={frames}", f"grid.slices={slices}"]
    settings += [f"run.directory={tmp_path / 'run'}", f"frames.residence={residence}"]
    settings += TWO_PASSES if frames > 1 else []
    done = hpcfit("optimize", two_sources, *sets(*settings), ranks=ranks)
    assert done.returncode == 0, done.stderr
    reference = request.getfixturevalue("by_two_passes" if frames > 1 else "reference")
    assert len(fingerprint(reference)) > 12
    assert fingerprint(tmp_path / "run") == fingerprint(reference)
    assert np.array_equal(weights(tmp_path / "run"), weights(reference))
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["grid"] == [frames, slices]
    assert metrics["passes"] == (1 if frames == 1 else 2)


@pytest.mark.mpi
def test_fast_sums_agree_to_1e_10(hpcfit, two_sources, reference, tmp_path):
    settings = (f"run.directory={tmp_path / 'run'}", "run.reductions=fast", "optimizer.max_steps=2", "run.report=false")
    done = hpcfit("optimize", two_sources, *sets(*settings), ranks=2)
    assert done.returncode == 0, done.stderr
    assert len(history(tmp_path / "run")) >= 3
    for ours, theirs in zip(history(tmp_path / "run"), history(reference), strict=False):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-10)
        assert ours["passes"] == theirs["passes"] == ours["evaluation"]


@pytest.mark.mpi
def test_more_ranks_than_blocks_of_frames_works_with_a_warning(hpcfit, two_sources, tmp_path):
    """Two blocks for three ranks: the 110 frames of the second source."""
    settings = ["grid.slices=1", 'frames.include=["second"]', *TWO_PASSES]
    alone = optimized(two_sources, tmp_path / "alone", *settings)
    done = hpcfit("optimize", two_sources, *sets(f"run.directory={tmp_path / 'run'}", *SHORT, *settings), ranks=3)
    assert done.returncode == 0, done.stderr
    assert "have nothing to do" in done.stderr
    assert len(fingerprint(alone)) > 5
    assert fingerprint(tmp_path / "run") == fingerprint(alone)


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, pytest.param(3, marks=pytest.mark.nightly)])
def test_interrupted_and_resumed_on_other_ranks_ends_the_same(hpcfit, two_sources, reference, tmp_path, ranks):
    run = ["optimize", two_sources, *sets(f"run.directory={tmp_path / 'run'}", "run.report=false")]
    first = hpcfit(*run, *sets("optimizer.max_steps=5"), ranks=2)
    assert first.returncode == 0, first.stderr
    second = hpcfit(*run, "--resume", *sets("optimizer.max_steps=12"), ranks=ranks)
    assert second.returncode == 0, second.stderr
    assert fingerprint(tmp_path / "run") == fingerprint(reference)
    assert np.array_equal(weights(tmp_path / "run"), weights(reference))


# Nothing but the number of steps ends it, and checkpoints come one after the other.
UNENDING = ("checkpoint.every_steps=2", "optimizer.gradient_tolerance=0", "optimizer.relative_tolerance=0")


def started(mpiexec, config, directory, *options):
    """A job of two ranks in the background that has written its first three checkpoints."""
    words = ["optimize", str(config), *sets(f"run.directory={directory}", *UNENDING, *options)]
    job = subprocess.Popen(
        [mpiexec, "-n", "2", *HPCFIT, *words], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    written = directory / "checkpoints"
    wait_for(lambda: job.poll() is not None or len(list(written.glob("step_*.h5"))) >= 3)
    assert job.poll() is None, job.communicate()[1]
    return job


def ranks_of(job):
    """The process ids of the ranks below a launcher."""
    import psutil

    return [
        p.pid
        for p in psutil.Process(job.pid).children(recursive=True)
        if "hpcfit" in " ".join(p.cmdline()) and "python" in p.name()
    ]


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, pytest.param(3, marks=pytest.mark.nightly)])
def test_kill_of_one_rank_ends_the_job_and_a_resume_ends_as_the_uninterrupted_run(
    hpcfit, mpiexec, two_sources, tmp_path, ranks
):
    options = ["optimizer.name=adam", "optimizer.options.learning_rate=0.01", "run.report=false"]
    job = started(mpiexec, two_sources, tmp_path / "killed", *options, "optimizer.max_steps=1000000000")
    os.kill(ranks_of(job)[-1], signal.SIGKILL)
    job.communicate(timeout=300)  # in which a rank that waited for another would hang
    assert job.returncode != 0
    assert not (tmp_path / "killed/metrics.json").exists()

    newest = max((tmp_path / "killed/checkpoints").glob("step_*.h5"))
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    steps = int(newest.name.split(".")[0].removeprefix("step_")) + 10
    settings = [*options, *UNENDING, f"optimizer.max_steps={steps}", "checkpoint.every_steps=5"]
    command = ["optimize", two_sources, "--resume", *sets(f"run.directory={tmp_path / 'killed'}", *settings)]
    resumed = hpcfit(*command, ranks=ranks)
    assert resumed.returncode == 0, resumed.stderr
    assert "is damaged" in resumed.stderr
    whole = optimized(two_sources, tmp_path / "whole", *settings)
    assert len(fingerprint(whole)) == steps + 1
    assert fingerprint(tmp_path / "killed") == fingerprint(whole)


@pytest.mark.mpi
@pytest.mark.parametrize("number", [signal.SIGUSR1, pytest.param(signal.SIGTERM, marks=pytest.mark.nightly)])
def test_a_signal_to_one_rank_stops_all_after_a_checkpoint_with_code_75(mpiexec, two_sources, tmp_path, number):
    job = started(mpiexec, two_sources, tmp_path / "run", "optimizer.name=adam", "optimizer.max_steps=100000")
    os.kill(ranks_of(job)[-1], number)
    _, errors = job.communicate(timeout=300)
    assert job.returncode == 75, errors
    assert signal.Signals(number).name in errors
    last = max((tmp_path / "run/checkpoints").glob("step_*.h5"))
    assert len(history(tmp_path / "run")) == int(last.name.split(".")[0].removeprefix("step_")) + 1


@pytest.mark.mpi
def test_an_exception_on_one_rank_ends_the_job_with_its_traceback(mpiexec, two_sources, tmp_path):
    script = tmp_path / "failing.py"
    script.write_text(
        "from hpcfit import cli\nfrom hpcfit.fit.adjoint import Adjoint\nfrom hpcfit.ranks import world_ranks\n"
        "whole = Adjoint._pull_data\n"
        "def failing(self, *arguments):\n"
        "    if self.grid.world.rank == 1: raise ZeroDivisionError('injected')\n"
        "    return whole(self, *arguments)\n"
        "Adjoint._pull_data = failing\ncli.main()\n"
    )
    words = ["optimize", two_sources, *sets(f"run.directory={tmp_path / 'run'}")]
    done = subprocess.run(
        [mpiexec, "-n", "2", sys.executable, script, *words],
        capture_output=True, text=True, timeout=300, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode != 0
    assert "failed on rank 1 of 2" in done.stderr
    assert done.stderr.count("ZeroDivisionError: injected") == 1


def test_a_launcher_that_mpi_does_not_see_is_an_error(hpcfit, two_sources, monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    done = hpcfit("optimize", two_sources)
    assert done.returncode == 2
    assert "OMPI_COMM_WORLD_SIZE = 4" in done.stderr
    assert "MPI sees 1 rank" in done.stderr


def test_changed_config_is_not_resumed(hpcfit, two_sources, reference, tmp_path):
    shutil.copytree(reference, tmp_path / "run")
    settings = sets(f"run.directory={tmp_path / 'run'}", "problem.theta=0.5")
    done = hpcfit("optimize", two_sources, "--resume", *settings)
    assert done.returncode == 2
    assert '"theta":0.0' in done.stderr
    assert '"theta":0.5' in done.stderr


def test_an_occupied_run_directory_is_not_overwritten(hpcfit, two_sources, reference):
    before = (reference / "metrics.json").read_bytes()
    done = hpcfit("optimize", two_sources, *sets(f"run.directory={reference}"))
    assert done.returncode == 2
    assert "--resume" in done.stderr
    assert "--overwrite" in done.stderr
    assert (reference / "metrics.json").read_bytes() == before
