"""The ports that each command opens: none, or those of Dask on loopback; a list of them is printed (pytest -s).

Each Python process writes down what it listens at, those that others start too. What an MPI library opens for itself is
not seen; on the ports themselves see test_strangers.py.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.command import HPCFIT, ROOT, WIDE, sets
from tests.commands.test_pipeline import tables, write_map
from tests.prepare.test_prepare_faults import CELL, write_trajectory
from tests.simulation.simulations import EDGE, write_springs

pytestmark = [pytest.mark.programs, pytest.mark.slow]

RECORDER = """
import os, socket
listen = socket.socket.listen
def recorded(self, *words):
    listen(self, *words)
    if self.family in (socket.AF_INET, socket.AF_INET6):
        with open(os.environ["LISTENED"], "a") as file:
            file.write("%s %d\\n" % self.getsockname()[:2])
socket.socket.listen = recorded
"""
CLUSTER = '[cluster]\nworkers = 1\ndashboard = "127.0.0.1:0"\n'
SILENT = [
    ("check", "fit.toml"), ("optimize", "fit.toml"), ("report", "run"), ("runs", "."), ("watch", "run", "--once"),
    ("store", "info", "store"), ("store", "verify", "store"), ("job", "fit.toml"), ("job", "--sites"), ("doctor",),
    ("explain", "frame-weights"), ("init", "frame-weights"), ("step", "fit.toml", "--steps", "1"),
]  # fmt: skip
OF_DASK = [  # with the least number of ports: of a scheduler, a nanny, a worker, and the pages of two of them
    (("prepare", "prepare.toml"), 5),
    (("optimize", "fit.toml", "--monitor", *sets("run.directory=watched", "monitor.dashboard=127.0.0.1:0")), 4),
    (("sweep", "prepare.toml", "--grid", "problem.theta=0.1", "--directory", "sweep"), 5),
    (("store", "verify", "store", "--cluster", "prepare.toml"), 5),
]
OF_SIMULATIONS = [
    (("simulate", "simulated/config.toml"), 5),
    (("pipeline", "simulated/config.toml", "--ranks", "1"), 5),
    (("scaling", "fit.toml", "--ranks", "1", "--directory", "series", "--repeats", "1", "--steps", "1"), 0),
]


@pytest.fixture(scope="module")
def listened(tmp_path_factory):
    """Runs a command in a folder with a config; the addresses at which its processes have listened."""
    pytest.importorskip("openmm")
    folder = tmp_path_factory.mktemp("ports")
    write_trajectory(folder / "a.xyz", n_frames=70)
    write_map(folder / "map.npz", CELL)
    (folder / "fit.toml").write_text(tables('trajectory = "a.xyz"'))
    (folder / "prepare.toml").write_text(tables('trajectory = "a.xyz"') + CLUSTER)
    (folder / "simulated").mkdir()
    keys = {"atoms": 20, "frames": 6, "piece": 3, "replicas": 1, "interval": 0.02, "equilibration": 0.02}
    simulated = write_springs(folder / "simulated", **keys)
    write_map(folder / "simulated/map.npz", (EDGE / 2,) * 3 + (90.0,) * 3)
    fit = tables('trajectory = "trajectories/springs*"', supercell=2)
    simulated.write_text(simulated.read_text() + fit + CLUSTER)
    (folder / "recorder").mkdir()
    (folder / "recorder/sitecustomize.py").write_text(RECORDER)
    before = {"PYTHONPATH": f"{folder / 'recorder'}:{ROOT}", "LISTENED": str(folder / "listened")}

    def run(*words: str) -> list[tuple[str, int]]:
        Path(before["LISTENED"]).write_text("")
        done = subprocess.run(
            [*HPCFIT, *words], cwd=folder, env=os.environ | WIDE | before, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        lines = map(str.split, Path(before["LISTENED"]).read_text().splitlines())
        found = [(host, int(port)) for host, port in lines]
        print(f"{' '.join(words):<60} {', '.join(f'{host}:{port}' for host, port in found) or 'none'}")
        return found

    return run


def test_each_command_listens_nowhere_or_on_loopback(listened):
    (prepare, least), *others = OF_DASK
    assert len(found := listened(*prepare)) >= least
    assert all(host == "127.0.0.1" for host, _ in found)
    for words in SILENT:
        assert listened(*words) == [], words
    for words, least in others:
        on_loopback(listened, words, least)


@pytest.mark.nightly
def test_simulations_and_series_listen_on_loopback_or_nowhere(listened):
    for words, least in OF_SIMULATIONS:
        on_loopback(listened, words, least)


def on_loopback(listened, words: tuple[str, ...], least: int) -> None:
    """A command opens so many ports or more, all of them on 127.*."""
    assert len(found := listened(*words)) >= least, words
    assert all(host.startswith("127.") for host, _ in found), (words, found)
