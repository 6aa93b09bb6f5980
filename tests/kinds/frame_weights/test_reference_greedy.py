"""The reference search by removal against searching by hand, so that what is compared with it means something."""

import itertools

import numpy as np
import pytest

from hpcfit.physics.scattering import diffuse_intensity
from tests.kinds.frame_weights.reference_greedy import greedy_removal


def complex_normal(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def cc(F_th, y_h):
    return np.corrcoef(diffuse_intensity(F_th, np.full(len(F_th), 1 / len(F_th))), y_h)[0, 1]


@pytest.mark.parametrize("seed", range(4))
def test_each_step_is_the_best_of_all_and_the_last_one_cannot_be_improved(seed):
    rng = np.random.default_rng(seed)
    F_th = complex_normal(rng, 12, 40) + 5 * complex_normal(rng, 40)
    y_h = diffuse_intensity(F_th[:7], np.full(7, 1 / 7)) + 0.1 * rng.random(40)
    found = greedy_removal(F_th, y_h)
    kept = list(range(12))
    for frame, reached in itertools.zip_longest(found.removed, found.correlation[1:]):
        without = {t: cc(F_th[[k for k in kept if k != t]], y_h) for t in kept}
        assert frame == max(without, key=without.get)
        assert reached == pytest.approx(without[frame], abs=1e-12)
        kept.remove(frame)
    assert 2 < len(kept) < 12  # it has begun, and stopped by itself
    assert found.correlation[0] == pytest.approx(cc(F_th, y_h), abs=1e-12)
    np.testing.assert_array_equal(found.kept, kept)
    assert max(cc(F_th[[k for k in kept if k != t]], y_h) for t in kept) <= found.correlation[-1]
