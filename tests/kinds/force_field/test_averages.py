"""Averages over windows: exact values of a harmonic well, finite differences, ranks, explosions."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.energies.energy import Energy
from hpcfit.fit.by_blocks import Forward, Reverse
from hpcfit.fit.gradient import Frames
from hpcfit.fit.grid import Shape, make_grid
from hpcfit.fit.problem import FrameRows, Params
from hpcfit.fit.reduction import ReproducibleSum
from hpcfit.fit.rounds import jacobian
from hpcfit.kinds.force_field.parameters import Class, Moving
from hpcfit.kinds.force_field.simulated.averages import Windows
from hpcfit.kinds.force_field.simulated.ensemble import Ensemble
from hpcfit.kinds.force_field.simulated.measured import Differences, Measured
from hpcfit.kinds.force_field.simulated.reweighting import Reweighted
from hpcfit.observables.geometry import Powers
from hpcfit.pytrees import pytree
from hpcfit.ranks import Ranks
from hpcfit.simulation.langevin import Bath, PhasePoint, middle
from hpcfit.store.stream import Chunk
from tests.fit.thread_ranks import on_ranks

K, KT, WIDTH = 2.0, 1.0, 8
MASSES = np.array([1.0])
MEASURED, SIGMA = 0.3, 0.1
PULLED = partial(Forward, pulled=True)


@pytree
@dataclass(frozen=True)
class Well:
    """k x^2 / 2 - steep x^4 along x alone: a well with an edge."""

    steep: Any

    def energy(self, frame, theta):
        x = frame.positions[:, 0]
        return jnp.sum(0.5 * theta["k"][0] * x**2 - self.steep * x**4)


def linear(scale: float) -> Moving:
    one = Class(np.array([0]), np.array([K]), np.array([scale]), np.array([False]), np.zeros(1))
    return Moving({"k": one}, ("k",))


def windows(steps=50, stride=5, steep=0.0, estimator="pathwise", skipped=0, floor=0.0):
    bath = Bath(KT, 2.0, 0.05)
    tile = Measured(*(np.array([[value]]) for value in (MEASURED, SIGMA, 0.0, 1.0)))
    ensemble = Ensemble(
        Energy((Well(np.array(steep)),)), {"k": np.array([K])}, None, MASSES, np.array(KT), middle(bath, MASSES),
        (np.array(200.0), np.array(5.0)), (Powers(0, 0, (2,)),), np.array(0.05 * stride), stride, steps // stride,
        skipped,
    )  # fmt: skip
    parts = ((tile,),), (ensemble,), linear(0.5), np.array(3), estimator
    return Reweighted(*parts, floor=np.array(floor)) if estimator == "reweighting" else Windows(*parts)


def evaluator(kind, problem, n, ranks: Ranks):
    """Of n windows dealt out over ranks."""
    blocks = -(-n // WIDTH)
    grid = make_grid(ranks, Shape(ranks.size, 1, ""), blocks, 1)
    ids = np.where(np.arange(blocks * WIDTH) < n, np.arange(blocks * WIDTH), -1).reshape(blocks, WIDTH)
    ids = ids[grid.blocks.start : grid.blocks.stop]
    chunk = Chunk(slice(0, len(ids)), slice(0, 1), np.zeros((1, *ids.shape)))
    return kind(problem, Frames(FrameRows(ids, n), lambda: iter([chunk])), grid, ReproducibleSum(grid))


def start(evaluate, x, v, u=0.0, draw=1.0) -> Params:
    """The parameters of windows that begin at x, v [n, 1, 3]."""
    grid = evaluate.grid
    rows = slice(grid.blocks.start * WIDTH, grid.blocks.stop * WIDTH)
    padded = lambda a: np.concatenate([a, np.zeros((grid.n_blocks * WIDTH - len(a), 1, 3))])  # noqa: E731
    mine = lambda a: padded(a)[rows].reshape(len(grid.blocks), WIDTH, 1, 3)  # noqa: E731
    local = {"starts": (PhasePoint(mine(x), mine(v)),), "draw": np.full((len(grid.blocks), WIDTH), draw)}
    local["window"] = np.arange(rows.start, rows.stop, dtype=float).reshape(local["draw"].shape)
    local["seen"] = evaluate.problem.unseen(FrameRows(local["draw"], len(x)))
    return Params({"k": np.array([u])}, local)


def evaluated(kind, problem, x, v, ranks=None, **more):
    evaluate = evaluator(kind, problem, len(x), ranks or Ranks())
    return evaluate(start(evaluate, x, v, **more))


def boltzmann(n, seed):
    rng = np.random.default_rng(seed)
    x = np.zeros((n, 1, 3))
    x[:, 0, 0] = rng.normal(scale=(KT / K) ** 0.5, size=n)
    return x, rng.normal(scale=KT**0.5, size=(n, 1, 3))


def average(evaluation) -> float:
    return float(evaluation.sums["data"][0])


def by_k(evaluation) -> float:
    """d <x^2> / dk from the gradient of chi2 / 2."""
    off = (average(evaluation) - MEASURED) / SIGMA**2
    return float(evaluation.gradient.shared["k"][0]) / 0.5 / off


@pytest.mark.parametrize("estimator", ["pathwise", "fluctuation"])
def test_forward_reverse_and_their_jacobian_agree(estimator):
    x, v = boltzmann(15, 0)
    problem = windows(estimator=estimator)
    found = [evaluated(kind, problem, x, v) for kind in (Forward, Reverse, PULLED)]
    assert found[0].loss == found[1].loss == found[2].loss
    slopes = [float(one.gradient.shared["k"][0]) for one in found]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-11)
    for one, other in zip(found[2].tangents, found[0].tangents):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    r, J = jacobian(evaluator(Forward, problem, 15, Ranks()), found[0])
    assert r[0] == pytest.approx((average(found[0]) - MEASURED) / SIGMA, rel=1e-12)
    assert (r @ J)[0] == pytest.approx(slopes[0], rel=1e-11)


def test_the_pathwise_derivative_is_that_of_finite_differences():
    x, v = boltzmann(15, 0)
    slope = float(evaluated(Forward, windows(), x, v).gradient.shared["k"][0])
    up, down = (evaluated(Forward, windows(), x, v, u=by).loss for by in (1e-5, -1e-5))
    assert slope == pytest.approx((up - down) / 2e-5, rel=1e-7)


def test_windows_find_the_exact_derivative_of_a_harmonic_well():
    """d<x^2>/dk = -kT/k^2 = -1/4, from 24 draws of 64 windows of 20 ps, whose relaxation takes 1 ps. Windows begin in
    equilibrium: the share of the first relaxation, about 1 in 20, is the bias that a longer window would not have."""
    draws = [evaluated(Forward, windows(400, 10), *boltzmann(64, draw), draw=1.0 + draw) for draw in range(24)]
    slopes = [by_k(one) for one in draws]
    error = np.std(slopes, ddof=1) / len(slopes) ** 0.5
    assert error < 0.02 * 0.25
    # Of C(t) = <x^2(t) x^2(0) / 2>: relative bias of the mean over a window W of C(t)/C(0) = exp(-2 t / tau) or faster.
    assert np.mean(slopes) == pytest.approx(-0.25, abs=3 * error + 0.25 * 0.06)


def test_the_fluctuation_formula_is_that_of_the_frames_of_the_windows():
    """Computed again from what each window observed: x^2 is both the observable and, halved, dU/dk."""
    x, v = boltzmann(500, 4)
    problem = windows(10, 10, estimator="fluctuation")  # a frame a window
    found = evaluated(Reverse, problem, x, v)
    O = np.concatenate([leaf.ravel() for leaf in found.rows.local[0]["observed"]])[:500]
    assert average(found) == pytest.approx(O.mean(), rel=1e-12)
    assert by_k(found) == pytest.approx(-0.5 * np.var(O) / KT, rel=1e-9)
    # Var of the estimate of Cov(x^2, x^2 / 2) of n normal numbers: (fourth cumulants) 14 / n of its square.
    assert by_k(found) == pytest.approx(-0.25, abs=3 * 0.25 * (14 / 500) ** 0.5)


@pytest.mark.parametrize("kind", [Forward, Reverse])
def test_a_difference_of_two_ensembles_has_the_derivatives_of_both(kind):
    """Half of <x^2>_1 - <x^2>_2 + 0.1, measured alone: the two averages are compared with nothing."""
    one = windows(10, 10, estimator="fluctuation")
    none, [[tile]] = Measured(*np.array([[[0.0]], [[np.inf]], [[0.0]], [[0.0]]])), one.tiles
    half = Differences(np.array([0]), np.array([1]), np.array([0.5]), np.array([0.1]))
    two = replace(one, tiles=((none,), (none,), (tile,)), ensembles=one.ensembles * 2, differences=half)
    evaluate = evaluator(kind, two, 24, Ranks())
    begun = [start(evaluate, *boltzmann(24, seed)).local for seed in (0, 1)]
    starts = tuple(local["starts"][0] for local in begun)
    found = evaluate(Params({"k": np.array([0.0])}, begun[0] | {"starts": starts}))
    O = [np.ravel(rows["observed"][0]) for rows in found.rows.local]
    expected = 0.5 * (O[0].mean() - O[1].mean()) + 0.1
    np.testing.assert_allclose(found.sums["data"], [O[0].mean(), O[1].mean(), expected], rtol=1e-12)
    assert found.loss == pytest.approx(0.5 * ((expected - MEASURED) / SIGMA) ** 2, rel=1e-12)
    # d<x^2>/dk = -cov(x^2, x^2 / 2) / kT, and u counts in units of 0.5.
    by_u = 0.5 * 0.5 * (np.var(O[1]) - np.var(O[0])) / 2 / KT
    slope = float(found.gradient.shared["k"][0])
    assert slope == pytest.approx((expected - MEASURED) / SIGMA**2 * by_u, rel=1e-9)


def test_frames_of_a_draw_are_weighed_by_the_change_of_their_energy():
    """Computed again from the frames: <x^2> at k = 2.2 from those drawn at 2, and how many of them carry it."""
    evaluate = evaluator(Forward, windows(estimator="reweighting", skipped=2), 15, Ranks())
    drawn = evaluate.problem.begun(start(evaluate, *boltzmann(15, 5)))
    x = drawn.local["frames"][0].x.reshape(-1, 10, 3)[:15, 2:, 0]
    at_start, moved = evaluate(drawn), evaluate(drawn._replace(shared={"k": np.array([0.4])}))
    assert average(at_start) == pytest.approx(np.mean(x**2), rel=1e-12)
    assert by_k(at_start) == pytest.approx(-0.5 * np.var(x**2) / KT, rel=1e-9)
    w = np.exp(-0.1 * x**2)
    assert average(moved) == pytest.approx(np.sum(w * x**2) / w.sum(), rel=1e-12)
    share = w.sum() ** 2 / np.sum(w**2) / w.size
    assert evaluate.metrics(moved)["share_of_frames"] == pytest.approx(share, rel=1e-12)
    for floor, finite in ((share - 1e-6, True), (share + 1e-6, False)):
        judged = evaluator(Forward, windows(estimator="reweighting", skipped=2, floor=floor), 15, Ranks())
        assert np.isfinite(judged(moved.params).loss) == finite


@pytest.mark.parametrize("kind", [Forward, PULLED, Reverse])
def test_ranks_find_the_same_bits(kind):
    x, v = boltzmann(15, 0)
    [alone] = on_ranks(1, partial(evaluated, kind, windows(), x, v))
    for size in (2, 3):
        found = on_ranks(size, partial(evaluated, kind, windows(), x, v))
        for each in found:
            assert each.loss == alone.loss
            assert each.gradient.shared["k"] == alone.gradient.shared["k"]
        ends = np.concatenate([each.rows.local[0]["ends"].x for each in found])
        np.testing.assert_array_equal(ends, alone.rows.local[0]["ends"].x)


def test_ends_are_the_starts_of_the_next_draw():
    """Two draws from a start differ, and each is reproducible; the next one begins where the windows ended."""
    x, v = boltzmann(8, 1)
    first, again, other = (evaluated(Forward, windows(), x, v, draw=draw) for draw in (1.0, 1.0, 2.0))
    ends = [one.rows.local[0]["ends"] for one in (first, again, other)]
    np.testing.assert_array_equal(ends[0].x, ends[1].x)
    assert np.all(ends[0].x[..., 0] != ends[2].x[..., 0])
    following = windows().redrawn(first.params.local, first.rows.local, first.params.shared)
    np.testing.assert_array_equal(following["starts"][0].x, ends[0].x)
    assert np.all(following["draw"] == 2)


def test_windows_add_up_what_they_saw_in_the_rounds_that_count_and_held():
    problem = replace(windows(), settled=2.0)
    evaluate = evaluator(Forward, problem, 8, Ranks())
    params, of_draws = start(evaluate, *boltzmann(8, 1)), []
    for _ in range(3):
        here = evaluate(params)
        of_draws.append(np.array(here.rows.local[0]["observed"][0]))
        if len(of_draws) == 3:
            here.rows.local[0]["weight"][0, 1] = 0.0
        params = params._replace(local=problem.redrawn(params.local, here.rows.local, params.shared))
    [seen] = params.local["seen"]
    counted = np.ones(of_draws[2].shape[:2])
    counted[0, 1] = 0.0
    np.testing.assert_array_equal(seen["weight"], 1.0 + counted)
    np.testing.assert_array_equal(seen["observed"][0], of_draws[1] + counted[..., None] * of_draws[2])


def test_frames_that_are_skipped_count_in_no_average():
    x, v = boltzmann(8, 1)
    whole, behind = (evaluated(Forward, windows(50, 5, skipped=skipped), x, v) for skipped in (0, 9))
    last = behind.rows.local[0]["ends"].x[..., 0] ** 2
    assert average(behind) == pytest.approx(last.mean(), rel=1e-12)
    assert average(whole) != pytest.approx(average(behind), rel=1e-3)


@pytest.mark.parametrize("kind", [Forward, PULLED, Reverse])
def test_a_window_that_explodes_is_left_out_of_value_and_gradient(kind):
    """The edge of the well is at x = sqrt(k / (4 steep)) = 3.2: one window starts beyond it and falls."""
    x, v = boltzmann(24, 2)
    x, v = np.clip(x, -1.5, 1.5), np.clip(v, -1.5, 1.5)
    bad = x.copy()
    bad[5, 0, 0] = 6.0
    whole = evaluated(kind, windows(steep=0.05), bad, v)
    broke = whole.rows.local[0]["broke"].ravel()
    assert broke[5] >= 0
    assert np.all(np.delete(broke, 5) == -1)
    assert whole.sums["windows"] == [23]
    assert whole.rows.local[0]["ends"].x.reshape(-1, 3)[5, 0] == 6.0
    # The same as of the others alone, which keep their numbers.
    others = evaluator(kind, windows(steep=0.05), 24, Ranks())
    others.frames.rows.ids.ravel()[5] = -1
    expected = others(start(others, x, v))
    assert whole.loss == expected.loss
    assert whole.gradient.shared["k"] == expected.gradient.shared["k"]
    assert np.isfinite(whole.gradient.shared["k"])
