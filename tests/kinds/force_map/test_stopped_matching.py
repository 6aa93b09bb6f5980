"""What follows the passes over the frames, stopped by a signal or the clock: maps, force fields, rows for the neural
potential, and the simulation. Exit code 75 on the spot, and `--resume auto` ends with the same bits.

What sends a signal is the work itself, so that it comes at the same place on any machine.
"""

import os
import signal

import pytest

from hpcfit.kinds.force_map import map_fits, matching, neural_frames, simulation
from hpcfit.simulation.beads import Walkers
from hpcfit.testsystems.harmonic_beads import HarmonicBeads, write_force_store
from tests.command import here
from tests.kinds.force_map.force_map_runs import force_map_config
from tests.kinds.force_map.test_stopped_stages import arrays_of, states, stopped_by, words
from tests.kinds.force_map.test_stopped_stages import result as result_of_maps

CONFIG = force_map_config("""
blocks = 5
bootstrap = 2
[problem.beads]
each = "index 1 8"
[problem.map]
methods = ["basic", "optimal"]
use = "optimal"
ridge = 0.01
[problem.force_matching]
types = "one"
bonds = "none"
pair_functions = 5
[problem.force_matching.neural]
width = 4
depth = 1
functions = 3
[problem.force_matching.simulation]
model = "neural"
frames = 80
interval = 0.1
[optimizer]
max_steps = 2
""")  # 500 steps of equilibration and 200 for 20 frames: a walker has two segments
SEGMENTS = [(walker, steps) for walker in range(simulation.WALKERS) for steps in (0, 500)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, system = tmp_path_factory.mktemp("matching"), HarmonicBeads(10)
    r, f = system.frames(300, 1)
    write_force_store(folder / "store", system.particles, {"a": (r, f, None)})
    (folder / "config.toml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def whole(folder):
    """What a run in one go leaves."""
    here(*words(folder, folder / "whole")).check_returncode()
    return result(folder / "whole")


def result(directory) -> dict:
    return result_of_maps(directory) | {"simulation": arrays_of(directory / "simulation.h5")}


@pytest.mark.parametrize(
    ("module", "name", "at", "number"),
    [
        (map_fits, "optimal_map", 3, signal.SIGTERM),
        (matching, "fit_forces", 2, signal.SIGUSR1),
        (neural_frames, "bead_frames", 3, signal.SIGTERM),  # in the second of five blocks
        (simulation, "_profile", 1, signal.SIGUSR1),
        pytest.param(map_fits, "optimal_map", 3, signal.SIGUSR1, marks=pytest.mark.nightly),
        pytest.param(matching, "fit_forces", 2, signal.SIGTERM, marks=pytest.mark.nightly),
        pytest.param(neural_frames, "bead_frames", 3, signal.SIGUSR1, marks=pytest.mark.nightly),
        pytest.param(simulation, "_profile", 1, signal.SIGTERM, marks=pytest.mark.nightly),
    ],
)
def test_a_signal_ends_what_is_not_kept_and_it_is_done_again(
    hpcfit, folder, whole, tmp_path, monkeypatch, module, name, at, number
):
    with monkeypatch.context() as patch:
        stopped_by(number, at, patch, module, name)
        begun, called = [], getattr(module, name)
        patch.setattr(module, name, lambda *given: (begun.append(name), called(*given))[1])
        done = hpcfit(*words(folder, tmp_path / "run"))
    assert done.returncode == 75, done.stderr
    assert signal.Signals(number).name in done.stderr
    assert len(begun) in (at, at + 1)  # each block is mapped by two maps
    assert not (tmp_path / "run/metrics.json").exists()
    done = hpcfit(*words(folder, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert result(tmp_path / "run") == whole


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.mpi)])
def test_a_signal_in_the_simulation_stops_it_and_it_goes_on_from_there(
    hpcfit, folder, whole, tmp_path, monkeypatch, ranks
):
    segment, done = Walkers._segment, []

    def signalling(self, walker, trail):
        done.append((walker, trail.steps))
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return segment(self, walker, trail)

    monkeypatch.setattr(Walkers, "_segment", signalling)
    first = hpcfit(*words(folder, tmp_path / "run"))
    assert first.returncode == 75, first.stderr
    assert done == SEGMENTS[:3]
    assert states(tmp_path / "run")["simulation"] == "running"
    second = hpcfit(*words(folder, tmp_path / "run"), ranks=ranks)
    assert second.returncode == 0, second.stderr
    assert "'simulation' goes on: 1 of 4 units are done" in second.stderr
    assert ranks > 1 or done == SEGMENTS  # none is done twice
    assert result(tmp_path / "run") == whole
    assert states(tmp_path / "run")["simulation"] == "ended"
