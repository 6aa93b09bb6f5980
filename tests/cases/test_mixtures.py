"""Mixtures of structures with known shares, through the whole command: what the fit must find, and what it cannot know.

A structure is an ensemble: 32 atoms in a 10 A cell with displacements of 0.3 A. This does not prove that random
starts suffice where each population has its own basin, as in the argyrodites.
"""

import csv
import json

import numpy as np
import pytest

from hpcfit.commands.optimize import run_optimize
from hpcfit.config import load_config
from hpcfit.physics.reciprocal import inverse_d2
from hpcfit.physics.scattering import diffuse_intensity, structure_factors_direct
from hpcfit.ranks import Ranks
from hpcfit.testsystems.synthetic import CELL, Source, cubic_reflections, write_map, write_problem

FRAMES = 12
# Below the default tolerance: the last 1e-5 of CC are a long flat valley.
TIGHT = ["optimizer.max_steps=3000", "optimizer.relative_tolerance=3e-9"]
ELEMENTS = ["C", "N", "O", "S"] * 8


@pytest.fixture(scope="module")
def structures():
    """F_th [12, H] of structure A and of B and C, in which six atoms have moved by 0.6 A."""
    reflections = cubic_reflections()
    inv_d2 = inverse_d2(reflections.hkl, (1, 1, 1), CELL)
    positions = np.random.default_rng(0).random((len(ELEMENTS), 3))

    def ensemble(seed, moved):
        rng = np.random.default_rng(seed)
        mean = positions.copy()
        mean[:6] += moved / 10 * rng.standard_normal((6, 3))
        frames = (mean + 0.03 * rng.standard_normal(mean.shape) for _ in range(FRAMES))
        return np.array([structure_factors_direct(ELEMENTS, x, reflections.hkl, inv_d2) for x in frames])

    return {"A": ensemble(1, 0.0), "B": ensemble(2, 0.6), "C": ensemble(3, 0.6)}


def fits(folder, structures, candidates, target, n_frames=FRAMES):
    """For five random starts: (summed weight of each candidate, metrics)."""
    sources = [Source(name, structures[name][:n_frames], name) for name in candidates]
    T = len(candidates) * n_frames
    config = write_problem(folder, sources, np.full(T, 1 / T))
    truth = np.concatenate([structures[name][:n_frames] for name in target])
    write_map(folder / "map.npz", cubic_reflections(), diffuse_intensity(truth, np.full(T, 1 / T)))
    results = []
    for seed in range(1, 6):
        options = ['problem.starts=["random"]', f"run.seed={seed}", f"run.directory=run{seed}", "run.report=false"]
        assert run_optimize(load_config(config, [*options, *TIGHT]), Ranks()) == 0
        rows = csv.DictReader((folder / f"run{seed}/sources.csv").read_text().splitlines())
        metrics = json.loads((folder / f"run{seed}/metrics.json").read_text())
        results.append(([float(row["weight"]) for row in rows], metrics))
    return results


@pytest.mark.usefixtures("_whole_affinity")
class TestMixtures:
    def test_fifty_fifty_from_five_random_starts(self, tmp_path, structures):
        for shares, metrics in fits(tmp_path, structures, "AB", "AB"):
            assert shares == pytest.approx([0.5, 0.5], abs=0.002)
            assert metrics["fitted"]["cc"] >= 0.99999

    def test_with_a_wrong_structure_all_starts_end_at_one_optimum(self, tmp_path, structures):
        results = fits(tmp_path, structures, "AC", "AB")
        ccs = [metrics["fitted"]["cc"] for _, metrics in results]
        assert np.ptp(ccs) < 1e-6
        assert ccs[0] < 0.99
        # the structure that is in the target gets more than the one that is not
        assert all(shares[0] > 0.5 > shares[1] for shares, _ in results)

    def test_two_single_frames_cannot_be_weighed_and_the_output_says_so(self, tmp_path, structures):
        """x = w (1 - w) |F_1 - F_2|^2, so that CC = 1 at any weight: a closed form."""
        results = fits(tmp_path, structures, "AB", "AB", n_frames=1)
        for _, metrics in results:
            assert metrics["fitted"]["cc"] == pytest.approx(1, abs=1e-6)
            assert "these weights say nothing" in metrics["warnings"][0]
        assert np.ptp([shares[0] for shares, _ in results]) > 0.1
