"""Hessians averaged over frames of a store, and the number of samples that averages need."""

import h5py
import jax
import numpy as np
import pytest

from hpcfit.kinds.structure.landscapes.loops import Loops
from hpcfit.kinds.structure.landscapes.network import Network
from hpcfit.kinds.structure.modes import samples
from hpcfit.kinds.table import load_config
from hpcfit.prepare.command import run_prepare
from hpcfit.ranks import Ranks
from tests.command import here, sets
from tests.conftest import assert_one_clear_error

N, T = 8, 70  # more than a block of frames
SITES = 2.0 * np.random.default_rng(3).normal(size=(N, 3))
FRAMES = (SITES + 0.4 * np.random.default_rng(4).normal(size=(T, N, 3))).astype("f4")
CONFIG = """
[frames]
store = "store"
[prepare]
content = "positions"
[[prepare.source]]
trajectory = "run.xyz"
"""
MODES = """
[run]
directory = "run"
report = true
[problem]
kind = "structure"
energy = {form = "elastic-network", file = "sites.xyz", cutoff = 12.0}
start = {kind = "native"}
modes = {source = "hessian", samples_from = "store", samples = 5, number = 4}
"""


def xyz(frames):
    return "".join(
        f"{N}\n\n" + "".join(f"C {x[0]:.6f} {x[1]:.6f} {x[2]:.6f}\n" for x in frame) for frame in np.atleast_3d(frames)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with sites, a store of frames, and a config."""
    found = tmp_path_factory.mktemp("stored")
    (found / "sites.xyz").write_text(xyz(SITES[None]))
    (found / "run.xyz").write_text(xyz(FRAMES))
    (found / "prepare.toml").write_text(CONFIG)
    run_prepare(load_config(found / "prepare.toml"), Ranks())
    (found / "config.toml").write_text(MODES)
    return found


def test_modes_are_those_of_hessians_at_frames_evenly_spaced(folder):
    done = here("modes", folder / "config.toml")
    assert done.returncode == 0, done.stderr
    network = Network.of_file(folder / "sites.xyz", 12.0)
    chosen = FRAMES[[0, 17, 34, 52, 69]].round(6)
    hessian = jax.jit(jax.hessian(network.energy))
    norms = np.mean([np.linalg.norm(np.asarray(hessian(x.astype(float))), axis=(1, 3)) for x in chosen], axis=0)
    np.fill_diagonal(norms, 0)
    values = np.linalg.eigvalsh(np.diag(norms.sum(axis=1)) - norms)
    with h5py.File(folder / "run/modes.h5") as file:
        np.testing.assert_allclose(file["values"][:], values[1:5], rtol=1e-5)  # frames are float32
    assert "averaged over 5 frames of a store" in (folder / "run/report.html").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("problem.modes.samples=71", ["samples = 71", "70 frames"]),
        ("problem.modes.spread=0.1", ["spread", "no effect"]),
        ("problem.modes.samples_from='nowhere'", ["nowhere"]),
        ("problem.energy={form='loops', n=12}", ["8 particles", "12"]),
    ],
)
def test_one_clear_error(folder, change, words):
    words_of = sets(change, "run.directory=other", *["problem.start={kind='random'}"] * ("loops" in change))
    assert_one_clear_error(here("modes", folder / "config.toml", *words_of), words)


def test_samples_are_enough_when_their_average_is_known_to_a_tenth():
    loop = Loops.of(40, seed=0)
    count = samples.enough(loop, samples.configurations(loop, 0.25, 16, 0), seed=0)
    assert 16 < count < samples.MOST
    chosen = np.arange(40)
    rows = samples._rows(loop, samples.configurations(loop, 0.25, 4 * count, 1), chosen, 0.0)
    means = rows.reshape(4, count, 40, 40).mean(axis=1)
    error = np.sqrt(np.sum(np.var(means, axis=0, ddof=1)) / np.sum(means.mean(axis=0) ** 2))
    assert error == pytest.approx(samples.ERROR, rel=0.5)


def test_norms_that_never_vary_need_no_more_samples():
    network = Network.of(SITES, 12.0)
    still = np.stack([SITES] * 3)
    assert samples.enough(network, still, seed=0) == 3
