"""What the tests share: real data where it is, synthetic problems, and ranks started under the embedded MPI."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hpcfit.cli import collect_rarely
from hpcfit.testsystems import synthetic
from tests import command
from tests.command import ROOT


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--nightly``: what repeats, on more ranks or once more, what the default run has seen already."""
    parser.addoption("--nightly", action="store_true", help="run the tests marked nightly, and no others")


def pytest_configure() -> None:
    """Look for garbage as rarely as a command does, and where tests of one process run side by side (pytest-xdist),
    give each of their processes a core of its own."""
    collect_rarely()
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and "HPCFIT_TESTS_SHARE_CORES" not in os.environ:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what starts ranks or a Slurm, and leave out the nightly tests, or all others.

    Ranks wait for each other by asking again and again, and so want cores of their own, while a test that waits for
    Slurm leaves its core to others: `tools/test` runs the first alone, the second beside the tests of one process.
    """
    for item in items:
        if "installed" in item.fixturenames:
            item.add_marker("programs")
        elif item.get_closest_marker("mpi") or "mpiexec" in item.fixturenames:
            item.add_marker("processes")
    nightly = config.getoption("nightly")
    left_out = {item for item in items if bool(item.get_closest_marker("nightly")) != nightly}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="module", autouse=True)
def _room_for_what_is_compiled():
    """Forget compiled functions before the process has as many maps of memory as the system allows: each takes some six
    of them, and XLA ends with a segmentation fault when it gets no more, after 1,500 tests or so."""
    yield
    maps, limit = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
    if maps.exists() and len(maps.read_text().splitlines()) > int(limit.read_text()) / 3:
        import jax

        jax.clear_caches()


@pytest.fixture(scope="session", autouse=True)
def _double_precision():
    """What every command does first (``machine.choose_device``), without pinning the test process to one core."""
    import jax

    jax.config.update("jax_enable_x64", True)


@pytest.fixture(scope="session")
def _cores():
    """The cores that the test process begins with."""
    return os.sched_getaffinity(0)


@pytest.fixture(autouse=True)
def _whole_affinity(_cores):
    """Commands pin the process they run in to one core, also in fixtures of a module: give it its cores back."""
    os.sched_setaffinity(0, _cores)
    yield
    os.sched_setaffinity(0, _cores)


@pytest.fixture(autouse=True)
def _log_as_it_was():
    """No test reads the log of another: handlers, levels and propagation are given back, whoever set them."""
    loggers = [logging.getLogger(name) for name in (None, "hpcfit", "hpcfit.inputs")]
    before = [(one.handlers[:], one.level, one.propagate) for one in loggers]
    yield
    for one, (handlers, level, propagate) in zip(loggers, before, strict=True):
        one.handlers[:], one.propagate = handlers, propagate
        one.setLevel(level)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; skipped where it is absent (it is never part of the project)."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.exists():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(scope="session")
def mpiexec() -> str:
    """The launcher of the embedded MPI, or of the one that HPCFIT_MPIEXEC names."""
    found = (
        os.environ.get("HPCFIT_MPIEXEC")
        or shutil.which("mpiexec", path=str(Path(sys.executable).parent))
        or shutil.which("mpiexec")
    )
    if not found:
        pytest.skip("no mpiexec: install hpcfit[mpi]")
    return found


@pytest.fixture
def hpcfit(request):
    """``hpcfit(*arguments, ranks=1)``: run the command in this process, or on several ranks under mpiexec.

    Gives a finished process with its output. ``apart=True``: one rank has a process of its own too. That is for tests
    of what becomes of a process.
    """

    def run(*arguments, ranks: int = 1, apart: bool = False) -> subprocess.CompletedProcess:
        if ranks == 1:
            return (command.apart if apart else command.here)(*arguments)
        assert request.node.get_closest_marker("processes"), "a test on several ranks is to be marked mpi"
        return command.apart(*arguments, launcher=[request.getfixturevalue("mpiexec"), "-n", str(ranks)])

    return run


def also_on_ranks(faults: list, ranks: int, *, always: tuple) -> list:
    """Parameters (fault, ranks): each on one rank, and on several.

    Nightly on several, but for those of ``always``: of each way in which ranks come to raise one error, one.
    """
    nightly = [pytest.param(f, ranks, marks=[pytest.mark.mpi, pytest.mark.nightly]) for f in faults if f not in always]
    return [*((f, 1) for f in faults), *(pytest.param(f, ranks, marks=pytest.mark.mpi) for f in always), *nightly]


def name_of(value) -> str:
    """A function's name, for the id of a test."""
    return getattr(value, "__name__", str(value))


@pytest.fixture(scope="session")
def two_sources(tmp_path_factory) -> Path:
    """The config of a problem with 300 frames of two sources; treat as read-only, give each run its own directory."""
    folder = tmp_path_factory.mktemp("two_sources")
    H = len(synthetic.cubic_reflections())
    sources = [
        synthetic.Source("first", synthetic.gaussian_frames(190, H, seed=0), "A"),
        synthetic.Source("second", synthetic.gaussian_frames(110, H, seed=1), "B"),
    ]
    w_t = np.random.default_rng(2).random(300) ** 3
    return synthetic.write_problem(folder, sources, w_t / w_t.sum(), noise=0.05)


def wait_for(condition, seconds: float = 240):
    """What a condition gives as soon as it gives something true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{condition} stayed {found!r}"
        time.sleep(0.05)
    return found


def history(directory: Path) -> list[dict]:
    """The whole rows of a run's history, which may still grow."""
    lines = (directory / "history.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


# What must not depend on ranks, launcher or interruptions: everything in the history but times.
SAME = ("loss", "cc", "cc_anisotropic", "ess", "kl", "gradient_norm")


def fingerprint(directory: Path) -> list[tuple[float, ...]]:
    """The part of a run's history that is the same, bit for bit, however it was run."""
    return [tuple(row[name] for name in SAME) for row in history(directory)]


def assert_one_clear_error(done: subprocess.CompletedProcess, expected: list[str]) -> None:
    """Exit code 2 and one error with these words, whatever the number of ranks."""
    assert done.returncode == 2, done.stderr
    for words in expected:
        assert words in done.stderr
    assert done.stderr.count("hpcfit: error") == 1, done.stderr
    assert "remedy:" in done.stderr
    assert "Traceback" not in done.stderr
