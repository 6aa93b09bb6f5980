"""What a study warns of beside its result."""

import numpy as np
import pytest

from hpcfit.kinds.frame_weights.conclusions import (
    collapsed,
    few_independent,
    few_orbits,
    lost_anisotropy,
    memory,
    no_agreement,
)
from hpcfit.statistics.blocks import effective_frames

PRIOR = [0.1, 0.4, 0.2, 0.3]  # of the folds, which differ by more than any fit changes them


def row(theta, folds):
    return {"theta": theta, "cc_free_anisotropic_folds": folds, "cc_free_anisotropic": float(np.mean(folds))}


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ([-0.03, -0.02, -0.03, -0.02], True),  # 0.025 +- 0.003
        ([-0.10, 0.08, -0.06, 0.07], False),  # within its error
        ([0.03, 0.02, 0.03, 0.02], False),
        ([np.nan] * 4, False),  # too few orbits for the rings to be known
    ],
)
def test_a_loss_of_held_out_anisotropy_is_named_where_it_is_larger_than_its_error(changes, warned):
    rows = [row(None, PRIOR), row(0.1, PRIOR), row(0.0, np.add(PRIOR, changes).tolist())]
    found = lost_anisotropy(rows, 0.0)
    assert len(found) == warned
    assert all("0.225" in text and "0.250" in text and "0.025 +- 0.003" in text for text in found)
    assert lost_anisotropy(rows, None) == []  # the prior weights were taken
    assert lost_anisotropy(rows, 0.1) == []


@pytest.mark.parametrize(("ess", "n_frames", "warned"), [(1.0, 256, True), (2.1, 256, True), (40.0, 256, False),
                                                      (1.5, 2, False), (2.1, 5, False), (2.1, 19, False)])  # fmt: skip
def test_weights_on_a_single_frame_are_no_ensemble(ess, n_frames, warned):
    assert len(collapsed(ess, n_frames)) == warned


def test_folds_of_few_orbits_are_named_with_the_error_of_their_cc():
    assert few_orbits(500, 5) == []
    (said,) = few_orbits(120, 5)
    assert "24 of 120 orbits" in said
    assert "0.20" in said


def test_a_result_that_does_not_correlate_is_named():
    assert no_agreement({"cc": 0.9, "cc_anisotropic": 0.1}) == []
    assert no_agreement({"cc": 0.9, "cc_anisotropic": float("nan")}) == []  # few orbits
    (said,) = no_agreement({"cc": -0.27, "cc_anisotropic": 0.1})
    assert said.startswith("the CC is -0.270: these frames say nothing")
    assert "without rings, is -0.010" in no_agreement({"cc": 0.9, "cc_anisotropic": -0.01})[0]


def remembering(n: int, memory: float, seed: int) -> np.ndarray:
    """Weights over prior weights [n] whose autocorrelation is memory^t: x(t + 1) = memory x(t) + noise, about 1."""
    rng, x = np.random.default_rng(seed), np.zeros(n)
    for t, noise in enumerate(0.1 * np.sqrt(1 - memory**2) * rng.normal(size=n - 1), 1):
        x[t] = memory * x[t - 1] + noise
    return 1 + x


def test_sources_of_few_independent_frames_are_said():
    long, short, names = 200_000, 60, ["slow", "few", "flat"]
    x = np.concatenate([remembering(long, 0.9, 1), np.linspace(0.9, 1.1, short), np.ones(8)])
    source = np.repeat([0, 1, 2], [long, short, 8])
    (said,) = few_independent(x, source, names)
    worth = effective_frames(x[long : long + short], np.zeros(short))[0]
    assert said.startswith("1 of 3 sources are worth less than 4 independent frames, as 'few', whose 60 are worth")
    assert f"worth {worth:.1f} by" in said
    assert few_independent(x[:long], source[:long], names[:1]) == []
    assert few_independent(x[-8:], np.zeros(8, int), names[2:]) == []  # weights that do not change tell nothing
    assert memory(x, source)[2] == 1
