"""The demo's files: config and simulation agree, an interrupted `make` goes on, and the comparison adds up shares."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hpcfit.config import load_config
from hpcfit.errors import InputError
from hpcfit.testsystems import demo
from hpcfit.testsystems.dipeptide_crystal import Crystal
from hpcfit.testsystems.mixture_map import Detector

CONFIG = Path(__file__).resolve().parents[2] / "config" / "frame_weights.toml"
TINY = demo.Demo(
    Crystal(supercell=(2, 2, 3), cutoff=7.0, frames=3, equilibration=0.02, interval=0.02), Detector(d_min=3.0)
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    pytest.importorskip("openmm")
    folder = tmp_path_factory.mktemp("demo") / "simulation"
    demo.make(folder, TINY)
    return folder


def test_config_describes_what_is_simulated():
    config, whole = load_config(CONFIG), demo.Demo()
    assert config.prepare.cell == (*whole.crystal.cell, 90, 90, 90)
    assert config.prepare.supercell == whole.crystal.supercell
    assert config.prepare.d_min == config.problem.d_min == whole.detector.d_min
    assert config.problem.temperature == whole.crystal.temperature
    assert config.prepare.shard_frames == whole.crystal.frames
    assert [source.label for source in config.prepare.source] == list(whole.shares)
    assert sum(whole.shares.values()) == pytest.approx(1)
    assert config.experiment.file == CONFIG.parent / "simulation" / "observed.npz"


def test_truth_and_candidates_share_no_trajectory():
    assert not set(demo.SEEDS["truth"]) & set(demo.SEEDS["candidates"])


def test_the_map_is_read_by_hpcfit_with_its_mask(made):
    from hpcfit.config import ExperimentConfig
    from hpcfit.data.experiment import read_map

    observed = read_map(ExperimentConfig(file=made / "observed.npz"))
    truth = json.loads((made / "truth.json").read_text())
    assert (len(observed), observed.masked) == (truth["voxels"], truth["masked"])
    assert observed.ndiv == TINY.crystal.supercell
    assert not np.all(observed.hkl % observed.ndiv == 0, axis=1).any()  # no Bragg peak
    assert truth["cc"]["noise-free truth"] > truth["cc"]["candidates, equal shares"]


def test_an_interrupted_make_keeps_what_is_complete(made, tmp_path):
    folder = tmp_path / "simulation"
    shutil.copytree(made, folder)
    [kept, lost] = demo.trajectories(folder, "candidates", "C7eq")
    lost.unlink()
    (folder / "truth.json").unlink()
    stamp = kept.stat().st_mtime_ns
    demo.make(folder, TINY)
    assert kept.stat().st_mtime_ns == stamp
    assert lost.exists()
    with np.load(folder / "observed.npz") as again, np.load(made / "observed.npz") as first:
        assert all(np.array_equal(again[name], first[name]) for name in first.files)


def test_other_settings_in_the_same_folder_are_an_error(made):
    with pytest.raises(InputError, match=r"settings\.json"):
        demo.make(made, demo.Demo())


def test_fft_and_direct_summation_agree(made):
    [path, _] = demo.trajectories(made, "candidates", "alphaR")
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
