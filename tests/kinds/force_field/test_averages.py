"""Averages by windows and by reweighting: exact values of a harmonic well, finite differences, ranks, explosions."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.fit.by_blocks import Forward, Reverse
from hpcfit.fit.gradient import Frames
from hpcfit.fit.grid import Shape, make_grid
from hpcfit.fit.problem import FrameRows, Params
from hpcfit.fit.reduction import ReproducibleSum
from hpcfit.kinds.force_field.averages import Fitted, Measured, Reweighted, Windows
from hpcfit.observables.geometry import AsAveraged
from hpcfit.observables.observable import observable
from hpcfit.ranks import Ranks
from hpcfit.simulation.langevin import Bath, middle
from hpcfit.store.stream import Chunk
from tests.fit.thread_ranks import on_ranks

K, KT, WIDTH = 2.0, 1.0, 8
MASSES = np.array([1.0])
TILES = (Measured(np.array([[0.3]]), np.array([[0.1]])),)


@observable
class Square(AsAveraged):
    """x^2 of one particle in one dimension."""

    def of_frame(self, x: Any, box: Any) -> Any:
        return jnp.ravel(x**2)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Well:
    """k x^2 / 2 - steep x^4: a well with an edge."""

    steep: Any

    def __call__(self, x, theta, box):
        return jnp.sum(0.5 * theta["k"] * x**2 - self.steep * x**4)


FITTED = Fitted({"k": np.array(K)}, {"k": np.array(0.5)})
START = Params({"k": np.array(0.0)}, {})


def windows(steps=50, stride=5, draw=0, steep=0.0):
    bath = Bath(KT, 2.0, 0.05)
    return Windows(
        TILES, (Square(),), FITTED, Well(np.array(steep)), middle(bath, MASSES), MASSES, (200.0, 5.0), np.array(3),
        np.array(draw), steps, stride,
    )  # fmt: skip


def evaluator(kind, problem, x, v, ranks: Ranks):
    """Of frames x, v [n, 1, 1] dealt out over ranks."""
    n, blocks = len(x), -(-len(x) // WIDTH)
    grid = make_grid(ranks, Shape(ranks.size, 1, ""), blocks, 1)
    mine = slice(grid.blocks.start, grid.blocks.stop)
    padded = lambda a: np.concatenate([a, np.zeros((blocks * WIDTH - n, *a.shape[1:]))])  # noqa: E731
    in_blocks = lambda a: padded(a).reshape(1, blocks, WIDTH, *a.shape[1:])[:, mine]  # noqa: E731
    ids = np.where(np.arange(blocks * WIDTH) < n, np.arange(blocks * WIDTH), -1).reshape(blocks, WIDTH)[mine]
    data = {"x": in_blocks(x), "v": in_blocks(v), "box": ()}
    chunk = Chunk(slice(0, len(ids)), slice(0, 1), data)
    return kind(problem, Frames(FrameRows(ids, n), lambda: iter([chunk])), grid, ReproducibleSum(grid))


def boltzmann(n, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(scale=(KT / K) ** 0.5, size=(n, 1, 1)), rng.normal(scale=KT**0.5, size=(n, 1, 1))


def by_k(evaluation) -> float:
    """d <x^2> / dk from the gradient of chi2 / 2."""
    off = (float(evaluation.sums["observed"][0][0]) - 0.3) / 0.1**2
    return float(evaluation.gradient.shared["k"]) / 0.5 / off


def test_forward_reverse_and_finite_differences_agree():
    x, v = boltzmann(15, 0)
    forward, reverse = (evaluator(kind, windows(), x, v, Ranks()) for kind in (Forward, Reverse))
    found = [evaluate(START) for evaluate in (forward, reverse)]
    assert found[0].loss == found[1].loss
    slopes = [float(one.gradient.shared["k"]) for one in found]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-12)
    up, down = (forward.value(Params({"k": np.array(by)}, {})).loss for by in (1e-5, -1e-5))
    assert slopes[0] == pytest.approx((up - down) / 2e-5, rel=1e-7)


def test_windows_find_the_exact_derivative_of_a_harmonic_well():
    """d<x^2>/dk = -kT/k^2 = -1/4, from 24 draws of 64 windows of 20 ps, whose relaxation takes 1 ps. Windows begin in
    equilibrium: the share of the first relaxation, about 1 in 20, is the bias that a longer window would not have."""
    slopes = []
    for draw in range(24):
        evaluate = evaluator(Forward, windows(400, 10, draw), *boltzmann(64, draw), Ranks())
        slopes.append(by_k(evaluate(START)))
    error = np.std(slopes, ddof=1) / len(slopes) ** 0.5
    assert error < 0.02 * 0.25
    # Of C(t) = <x^2(t) x^2(0) / 2>: relative bias of the mean over a window W of C(t)/C(0) = exp(-2 t / tau) or faster.
    assert np.mean(slopes) == pytest.approx(-0.25, abs=3 * error + 0.25 * 0.06)


@pytest.mark.parametrize("kind", [Forward, Reverse])
def test_ranks_find_the_same_bits(kind):
    x, v = boltzmann(15, 0)
    [alone] = on_ranks(1, lambda ranks: evaluator(kind, windows(), x, v, ranks)(START))
    for size in (2, 3):
        found = on_ranks(size, lambda ranks: evaluator(kind, windows(), x, v, ranks)(START))
        for each in found:
            assert each.loss == alone.loss
            assert each.gradient.shared["k"] == alone.gradient.shared["k"]
        ends = np.concatenate([each.rows.local["x"] for each in found])
        np.testing.assert_array_equal(ends, alone.rows.local["x"])


def test_ends_are_the_starts_of_the_next_draw():
    """Two draws of 50 steps from a start are not one of 100: noise is that of a draw; but each is reproducible."""
    x, v = boltzmann(8, 1)
    first = evaluator(Forward, windows(), x, v, Ranks())(START).rows.local
    assert first["x"].shape == (1, WIDTH, 1, 1)
    again = evaluator(Forward, windows(), x, v, Ranks())(START).rows.local
    other = evaluator(Forward, windows(draw=1), x, v, Ranks())(START).rows.local
    np.testing.assert_array_equal(first["x"], again["x"])
    assert np.all(first["x"] != other["x"])


@pytest.mark.parametrize("kind", [Forward, Reverse])
def test_a_window_that_explodes_is_left_out_of_value_and_gradient(kind):
    """The edge of the well is at x = sqrt(k / (4 steep)) = 3.2: one window starts beyond it and falls."""
    x, v = boltzmann(16, 2)
    x, v = np.clip(x, -1.5, 1.5), np.clip(v, -1.5, 1.5)
    bad = x.copy()
    bad[5] = 6.0
    whole = evaluator(kind, windows(steep=0.05), bad, v, Ranks())(START)
    broke = whole.rows.local["broke"].ravel()
    assert broke[5] >= 0
    assert np.all(np.delete(broke, 5) == -1)
    assert whole.sums["weight"] == 15
    assert whole.rows.local["x"].ravel()[5] == 6.0
    # The same as of the others alone, which keep their numbers.
    others = evaluator(kind, windows(steep=0.05), x, v, Ranks())
    others.frames.rows.ids.ravel()[5] = -1
    expected = others(START)
    assert whole.loss == expected.loss
    assert whole.gradient.shared["k"] == expected.gradient.shared["k"]
    assert np.isfinite(whole.gradient.shared["k"])


def reweighted(x):
    problem = Reweighted(TILES, (Square(),), FITTED, Well(np.array(0.0)), np.array(KT))
    return evaluator(Reverse, problem, x, np.zeros_like(x), Ranks())


def test_at_its_own_parameters_reweighting_is_the_fluctuation_formula():
    x, _ = boltzmann(500, 4)
    found = reweighted(x)(START)
    O, dU = x.ravel() ** 2, 0.5 * x.ravel() ** 2
    assert found.sums["observed"][0][0] == pytest.approx(O.mean(), rel=1e-12)
    assert by_k(found) == pytest.approx(-(np.mean(O * dU) - O.mean() * dU.mean()) / KT, rel=1e-10)
    # Var of the estimate of Cov(x^2, x^2 / 2) of n normal numbers: (fourth cumulants) 14 / n of its square.
    assert by_k(found) == pytest.approx(-0.25, abs=3 * 0.25 * (14 / 500) ** 0.5)


def test_frames_are_weighed_by_the_change_of_their_energy():
    x, _ = boltzmann(300, 5)
    evaluate = reweighted(x)
    moved = Params({"k": np.array(0.4)}, {})  # k = 2.2
    w = np.exp(-0.1 * x.ravel() ** 2)
    found = evaluate.value(moved)
    assert found.sums["observed"][0][0] == pytest.approx(np.average(x.ravel() ** 2, weights=w), rel=1e-12)
    assert evaluate.metrics(found)["ess"] == pytest.approx(w.sum() ** 2 / np.sum(w**2), rel=1e-12)
    assert found.sums["observed"][0][0] == pytest.approx(KT / 2.2, abs=4 * KT / 2.2 * (2 / 300) ** 0.5)
