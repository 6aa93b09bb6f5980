"""Mixtures of structures with known shares, from MTZ files through both commands: what the fit must find, and what it
cannot know.

A structure is an ensemble: 32 atoms in a 10 A cell with displacements of 0.3 A. This does not prove that random
starts suffice where each population has its own basin, as in the argyrodites.
"""

import csv
import json

import numpy as np
import pytest

from hpcfit.commands.optimize import run_optimize
from hpcfit.kinds.table import load_config
from hpcfit.prepare.command import run_prepare
from hpcfit.ranks import Ranks
from hpcfit.testsystems.two_structures import CASES, FRAMES, NAMES, PUBLISHED, Case, ensemble, write_case

SIMPLEX = 'theta = 0.0\nstarts = ["random"]\nresamples = 0\n'
SIGMOID = 'weights = "sigmoid"\n' + SIMPLEX
# Below the default tolerance: the last 1e-5 of CC are a long flat valley.
TIGHT = ["optimizer.max_steps=3000", "optimizer.relative_tolerance=3e-9"]


@pytest.fixture(scope="module")
def structures():
    """F_th [12, H] of structure A and of B, C and D, in which six atoms have moved by 0.6 A."""
    return {name: ensemble(name) for name in NAMES}


def fits(folder, structures, case, n_frames=FRAMES, options=SIMPLEX, limits=TIGHT, seeds=(1, 2, 3)):
    """For each random start: (summed weight of each candidate, metrics)."""
    config = write_case(folder, case, {name: F_th[:n_frames] for name, F_th in structures.items()}, options)
    run_prepare(load_config(config), Ranks())
    results = []
    for seed in seeds:
        changes = [f"run.seed={seed}", f"run.directory=run{seed}", "run.report=false"]
        assert run_optimize(load_config(config, [*changes, *limits]), Ranks()) == 0
        rows = csv.DictReader((folder / f"run{seed}/sources.csv").read_text().splitlines())
        metrics = json.loads((folder / f"run{seed}/metrics.json").read_text())
        results.append(([float(row["weight"]) for row in rows], metrics))
    return results


class TestMixtures:
    def test_fifty_fifty_from_every_random_start(self, tmp_path, structures):
        for shares, metrics in fits(tmp_path, structures, CASES["both right"]):
            assert shares == pytest.approx([0.5, 0.5], abs=0.002)
            assert metrics["fitted"]["cc"] >= 0.99999

    @pytest.mark.parametrize("name", [pytest.param("one wrong", marks=pytest.mark.nightly), "both wrong"])
    def test_with_wrong_structures_all_starts_end_at_one_optimum(self, tmp_path, structures, name):
        results = fits(tmp_path, structures, CASES[name])
        shares, ccs = (np.array(values) for values in zip(*((s, m["fitted"]["cc"]) for s, m in results)))
        assert np.ptp(ccs) < 1e-6
        assert ccs[0] < 0.99
        # The map has the variance of a mixture: neither structure is left out. dCC = 1e-6 moves the shares by
        # some sqrt(1e-6), for their curvature is of order 1.
        assert np.all((shares > 0.01) & (shares < 0.99))
        assert np.ptp(shares[:, 0]) < 0.005
        if name == "one wrong":  # the structure that is in the target gets more than the one that is not
            assert np.all(shares[:, 0] > 0.5)

    def test_two_single_frames_cannot_be_weighed_and_the_output_says_so(self, tmp_path, structures):
        """x = w (1 - w) |F_1 - F_2|^2, so that CC = 1 at any weight: a closed form."""
        results = fits(tmp_path, structures, CASES["both right"], n_frames=1)
        for _, metrics in results:
            assert metrics["fitted"]["cc"] == pytest.approx(1, abs=1e-6)
            assert "these weights say nothing" in metrics["warnings"][0]
        assert np.ptp([shares[0] for shares, _ in results]) > 0.1


class TestSigmoidWeights:
    """Of two single frames x = a (1 - a) |F_1|^2 + b (1 - b) |F_2|^2 - 2 a b Re F_1 F_2*, which is proportional to
    |F_1 - F_2|^2 just where a + b = 1: elsewhere there is Bragg intensity in it."""

    def test_two_single_frames_find_their_sum_but_not_their_shares(self, tmp_path, structures):
        results = fits(tmp_path, structures, CASES["both right"], n_frames=1, options=SIGMOID)
        for _, metrics in results:
            # 1 - CC ~ (1 - W)^2 times the square of Bragg over diffuse intensity, of order 10: CC within 1e-7 is W
            # within 1e-4, and the fits stop where CC changes by 3e-9.
            assert metrics["fitted"]["cc"] > 1 - 1e-6
            assert metrics["fitted"]["sum_w"] == pytest.approx(1, abs=1e-3)
            assert metrics["fitted"]["bragg_leakage"] < 0.01
        assert np.ptp([w[0] for w, _ in results]) > 0.1

    def test_as_published_they_stop_near_that_line(self, tmp_path, structures):
        """100 steps of Adam from U(-5, 5), which move a parameter by 5 at most."""
        results = fits(tmp_path, structures, CASES["both right"], n_frames=1, options=PUBLISHED, limits=())
        assert all(metrics["steps"] == 100 for _, metrics in results)
        assert all(abs(metrics["fitted"]["sum_w"] - 1) < 0.1 for _, metrics in results)
        assert np.ptp([w[0] / sum(w) for w, _ in results]) > 0.05

    def test_bragg_intensity_weighs_what_diffuse_intensity_cannot(self, tmp_path, structures):
        """With a wrong structure the simplex has one CC at any weights; leaking Bragg intensity betters it."""
        case = Case("AC")
        ((_, simplex),) = fits(tmp_path / "simplex", structures, case, n_frames=1, seeds=(1,))
        ((_, sigmoid),) = fits(tmp_path / "sigmoid", structures, case, n_frames=1, options=SIGMOID, seeds=(1,))
        # Each x is within 1e-5 of itself wherever the fit may go, and no CC changes by more than twice that.
        assert simplex["fitted"]["cc"] == pytest.approx(simplex["uniform"]["cc"], abs=2e-5)
        assert sigmoid["fitted"]["cc"] > simplex["fitted"]["cc"] + 1e-3
