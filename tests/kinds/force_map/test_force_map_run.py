"""Kind "force-map" from a store to results, on atoms on springs whose maps and mean forces are known exactly."""

from dataclasses import replace

import numpy as np
import pytest

from hpcfit.store.forces import open_force_store
from hpcfit.store.positions import read_block
from hpcfit.testsystems.harmonic_beads import HarmonicBeads, write_force_store
from tests.kinds.force_map.force_map_runs import force_map_config, optimized

SYSTEM = HarmonicBeads(12)
FRAMES = 1500
CONFIG = force_map_config("""
[problem.beads]
residue = "CA"
[problem.map]
methods = ["slice", "basic", "optimal", "local"]
use = "optimal"
support = 4
ridge = 0.0
""")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of two trajectories, of which one ends within a block of 64."""
    path = tmp_path_factory.mktemp("harmonic")
    r, f = SYSTEM.frames(FRAMES, 1)
    write_force_store(path / "store", SYSTEM.particles, {"a": (r[:700], f[:700], None), "b": (r[700:], f[700:], None)})
    return path


def bead_matrix() -> np.ndarray:
    return np.eye(SYSTEM.n)[::3]


def of_maps(metrics: dict) -> dict:
    return {one["name"]: one for one in metrics["maps"]}


@pytest.fixture(scope="module")
def metrics(folder):
    return optimized(folder, CONFIG)


def exact_mean_square(W: np.ndarray) -> float:
    """<F^2> per component and bead of a map: kT W K W^T."""
    return float(np.mean(np.diag(SYSTEM.kT * W @ SYSTEM.K @ W.T)))


def test_mean_squares_are_those_of_the_exact_ensemble(metrics):
    """A mean of 3 T N squares of Gaussians has the relative error sqrt(2 / 3 T N), N of them at most correlated: 5 of
    these with N = 1."""
    found, M = of_maps(metrics), bead_matrix()
    error = 5 * np.sqrt(2 / (3 * FRAMES))
    assert found["basic"]["held_out"] == pytest.approx(exact_mean_square(M), rel=error)
    assert found["optimal"]["held_out"] == pytest.approx(exact_mean_square(SYSTEM.optimal(M)), rel=error)
    assert found["slice"]["held_out"] == pytest.approx(found["basic"]["held_out"], rel=1e-12)  # without constraints
    assert all(one["valid"] for one in found.values())
    assert metrics["chosen"] == "optimal"


def test_the_optimal_map_has_the_noise_of_its_own_fit_alone(folder, metrics):
    """The best map has none; p coefficients fitted to T frames add p / 3T of the mean square (law of optimism). Over 4
    beads of p = 8 that is chi^2 of 32 degrees, whose relative deviation is sqrt(2 / 32) = 0.25: three of these."""
    W, (r, f) = np.load(folder / "run/force_map.npy"), SYSTEM.frames(2000, 2)
    F = np.einsum("Ii,tix->tIx", W, f)
    exact = -np.einsum("IJ,tJx->tIx", SYSTEM.bead_stiffness(bead_matrix()), (r - SYSTEM.places)[:, ::3])
    per_bead = np.mean((F - exact) ** 2, axis=(0, 2)) / np.mean(exact**2, axis=(0, 2))
    assert of_maps(metrics)["optimal"]["free"] == 8
    assert per_bead.mean() == pytest.approx(8 / (3 * FRAMES), rel=0.75)


def test_frames_are_mapped_one_by_one_with_their_origin(folder, metrics):
    store, mapped = open_force_store(folder / "store"), open_force_store(folder / "run/mapped")
    W = np.load(folder / "run/force_map.npy")
    assert mapped.n_frames == FRAMES
    assert mapped.made_from["map"] == "optimal"
    assert mapped.made_from["store digest"] == store.digest()
    assert mapped.particles.residue_names == ("ALA",) * 4
    for block, original in zip(mapped.blocks(), store.blocks(), strict=True):
        beads, atoms = read_block(mapped, block), read_block(store, original)
        np.testing.assert_array_equal(beads.positions, atoms.positions[:, ::3])
        expected = np.einsum("Ii,tix->tIx", W, atoms.forces.astype(float))
        np.testing.assert_allclose(beads.forces, expected, rtol=1e-6, atol=1e-5)  # of float32


def test_mapped_frames_are_frames_for_another_run(folder, metrics):
    again = optimized(
        folder, CONFIG, "frames.store='run/mapped'", "run.directory='again'", "problem.beads={particles=true}",
        "problem.map={methods=['basic']}",
    )  # fmt: skip
    chosen = of_maps(metrics)["optimal"]
    # of float32: forces are rounded to 6e-8 of themselves
    assert of_maps(again)["basic"]["held_out"] == pytest.approx(chosen["fitted"], rel=1e-6)


def test_a_map_without_constraints_that_are_there_is_invalid_and_is_said_to_be(tmp_path):
    """Atoms 0 and 1 as one rigid group: slice takes the force of one of them."""
    r, f = SYSTEM.frames(256, 3)
    particles = replace(SYSTEM.particles, constraints=np.array([[0, 1]]))
    write_force_store(tmp_path / "store", particles, {"a": (r, f, None)})
    found = optimized(tmp_path, CONFIG, "problem.constraints.check=false", "problem.map={methods=['slice','basic']}")
    assert [one["valid"] for one in found["maps"]] == [False, True]
    assert found["chosen"] == "basic"
    assert "map 'slice' is invalid" in found["warnings"][0]
