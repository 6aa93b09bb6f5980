"""`hpcfit modes`: slow modes alone, whatever methods a config has, with files to look at them."""

import gemmi
import h5py
import numpy as np
import pytest

from hpcfit.kinds.structure.landscapes.peptide import Peptide
from tests.command import ROOT, here, sets
from tests.conftest import assert_one_clear_error
from tests.kinds.structure.test_structure_run import CONFIG, HESSIAN


@pytest.fixture
def config(tmp_path):
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path / "config.toml"


def modes(folder):
    with h5py.File(folder / "run/modes.h5") as file:
        return file["values"][:], file["vectors"][:]


def test_methods_of_a_config_are_left_out(config, tmp_path):
    done = here("modes", config, *sets("problem.modes={number=7, trajectories=2, amplitude=0.2}", "run.report=true"))
    assert done.returncode == 0, done.stderr
    assert "7 slow modes" in done.stderr
    assert "precond" not in done.stderr
    values, _ = modes(tmp_path)
    assert len(values) == 7
    assert sorted(path.name for path in (tmp_path / "run").glob("mode_*")) == ["mode_1.xyz", "mode_2.xyz"]
    assert "Slow modes" in (tmp_path / "run/report.html").read_text()
    again = here("modes", config)
    assert again.returncode == 2
    assert "already holds a run" in again.stderr


def test_a_trajectory_swings_along_its_mode(config, tmp_path):
    peptide = Peptide.of_sequence("GAG")
    keys = ("energy={form='peptide', sequence='GAG'}", "start={kind='native'}", "modes={amplitude=0.5, number=3}")
    done = here("modes", config, *sets(*(f"problem.{key}" for key in keys)))
    assert done.returncode == 0, done.stderr
    _, vectors = modes(tmp_path)
    for number in range(3):
        models = gemmi.read_structure(str(tmp_path / f"run/mode_{number + 1}.pdb"))
        frames = np.array([[cra.atom.pos.tolist() for cra in model.all()] for model in models])
        moved = frames - peptide.native
        own = np.outer(vectors[:, number], vectors[:, number])
        np.testing.assert_allclose(own @ moved, moved, atol=1e-3)
        assert np.sqrt(np.mean(np.sum(moved[len(frames) // 4] ** 2, axis=1))) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.mpi
def test_ranks_find_the_same_modes(config, tmp_path, hpcfit):
    config.write_text(CONFIG + HESSIAN)
    alone = here("modes", config)
    assert alone.returncode == 0, alone.stderr
    values, vectors = modes(tmp_path)
    done = hpcfit("modes", config, "--overwrite", ranks=2)
    assert done.returncode == 0, done.stderr
    for one, other in zip(modes(tmp_path), (values, vectors)):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["problem.energy={form='lennard-jones', n=7}", "problem.start={kind='random'}"], ["alike", "hessian"]),
        (["problem.modes={trajectories=0, amplitude=2.0}"], ["amplitude", "no effect"]),
        (["problem.modes={solver='arnoldi'}"], ["solver", "'lobpcg'"]),
        (["problem.modes={trajectories=9, number=5}"], ["trajectories = 9", "number = 5"]),
    ],
)
def test_one_clear_error(config, changes, words):
    assert_one_clear_error(here("modes", config, *sets(*changes)), words)


def test_a_kind_without_slow_modes_is_an_error():
    done = here("modes", ROOT / "config/frame_weights.toml")
    assert_one_clear_error(done, ["slow modes", "'structure'"])
