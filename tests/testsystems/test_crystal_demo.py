"""The demo's files: config and simulation agree, the map is what hpcfit reads, and the comparison adds up shares."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.table import load_config
from hpcfit.testsystems import crystal_demo as demo
from hpcfit.testsystems.dipeptide_crystal import Crystal
from hpcfit.testsystems.mixture_map import Detector
from tests.simulation.simulations import replicas

CONFIG = Path(__file__).resolve().parents[2] / "config" / "frame_weights.toml"
TINY = demo.Demo(Crystal(supercell=(2, 2, 3), cutoff=7.0), Detector(d_min=3.0))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The demo's folder with a small crystal and trajectories of three frames, simulated by its own config."""
    pytest.importorskip("openmm")
    from hpcfit.simulation.replica_run import simulate_replica

    folder = tmp_path_factory.mktemp("demo") / "simulation"
    demo.write_systems(folder, TINY)
    config = shutil.copy(CONFIG, folder.parent)
    brief = [
        f"simulate.{key}" for key in ("frames=3", "piece=2", "interval=0.02", "equilibration=0.02", "platform=CPU")
    ]
    for purpose in ([], ["simulate.directory=simulation/truth", "simulate.seed=1"]):
        for replica in replicas(config, *brief, *purpose):
            simulate_replica(replica)
    demo.observe(folder, TINY)
    return folder


def test_config_describes_what_is_simulated():
    config, whole = load_config(CONFIG), demo.Demo()
    assert config.prepare.cell == (*whole.crystal.cell, 90, 90, 90)
    assert config.prepare.supercell == whole.crystal.supercell
    assert config.prepare.d_min == config.problem.d_min == whole.detector.d_min
    assert config.simulate.temperatures == [config.problem.temperature]
    assert config.prepare.shard_frames == config.simulate.frames
    assert [source.label for source in config.prepare.source] == list(whole.shares)
    assert [system.name for system in config.simulate.system] == list(whole.shares)
    assert sum(whole.shares.values()) == pytest.approx(1)
    assert config.experiment.file == CONFIG.parent / "simulation" / "observed.npz"


def test_truth_and_candidates_are_other_trajectories_of_the_same_systems(made):
    _, candidate = demo._fractional_frames(TINY, made / "candidates" / "C7eq_300K_r00")
    elements, truth = demo._fractional_frames(TINY, made / "truth" / "C7eq_300K_r00")
    assert candidate.shape == truth.shape == (3, 12 * 22, 3)
    assert "".join(elements[:22]) == "CCOHHHNCHCCHOHHHNCHHHH"
    assert not np.isclose(candidate, truth, rtol=0, atol=1e-5).all()


def test_the_map_is_read_by_hpcfit_with_its_mask(made):
    from hpcfit.config import ExperimentConfig
    from hpcfit.readers.maps import read_map

    observed = read_map(ExperimentConfig(file=made / "observed.npz"))
    truth = json.loads((made / "truth.json").read_text())
    assert (len(observed), observed.masked) == (truth["voxels"], truth["masked"])
    assert observed.ndiv == TINY.crystal.supercell
    assert not np.all(observed.hkl % observed.ndiv == 0, axis=1).any()  # no Bragg peak
    assert truth["cc"]["noise-free truth"] > truth["cc"]["candidates, equal shares"]


def test_a_map_that_is_there_is_kept_until_its_trajectories_change(made):
    stamp = (made / "observed.npz").stat().st_mtime_ns
    demo.observe(made, TINY)
    assert (made / "observed.npz").stat().st_mtime_ns == stamp
    other = demo.Demo(TINY.crystal, Detector(d_min=3.0, counts=100.0))
    assert demo._made_of(made, other) != demo._made_of(made, TINY)


def test_what_was_not_simulated_is_said(tmp_path):
    with pytest.raises(InputError, match="candidates has no trajectory of C7eq or alphaR"):
        demo.observe(tmp_path, TINY)


def test_fft_and_direct_summation_agree(made):
    path = made / "candidates" / "alphaR_300K_r00"
    direct, fft = demo._direct(TINY, path), demo._fft(TINY, path)
    # The FFT's stated error is some 1e-4 of the rms F for a box of this size.
    assert np.abs(fft - direct).max() < 1e-3 * np.sqrt(np.mean(np.abs(direct) ** 2))


def test_comparison_adds_up_the_weights_of_a_label(made, tmp_path):
    (tmp_path / "sources.csv").write_text(
        "source,label,frames,uniform_weight,weight\na,C7eq,3,0.25,0.5\nb,C7eq,3,0.25,0.125\nc,alphaR,6,0.5,0.375\n"
    )
    numbers = {"cc": 0.5, "ess": 7.0}
    (tmp_path / "metrics.json").write_text(json.dumps({"frames": 12, "fitted": numbers, "uniform": numbers}))
    text = demo.comparison(made, tmp_path)
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()}
    assert rows["C7eq"] == ["0.625", "0.700"]
    assert rows["alphaR"] == ["0.375", "0.300"]
    assert str(tmp_path / "report.html") in text
