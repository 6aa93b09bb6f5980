"""Tangents carried forward and cotangents pulled back agree, with finite differences and on any number of ranks; rows.

The problem is that of a simulation: windows of a noisy relaxation, one from each frame, whose averages are fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.fit.by_blocks import Forward, Reverse
from hpcfit.fit.gradient import Frames
from hpcfit.fit.grid import Shape, make_grid
from hpcfit.fit.inner import InnerProduct
from hpcfit.fit.optimizers import Lbfgs, Optax
from hpcfit.fit.problem import FrameRows, Params
from hpcfit.fit.reduction import ReproducibleSum
from hpcfit.pytrees import pytree
from hpcfit.ranks import Ranks
from hpcfit.store.stream import Chunk
from tests.fit.thread_ranks import on_ranks

BLOCKS, WIDTH, WINDOWS, STEPS = 2, 6, 11, 40
TARGET = np.array([0.3, 0.5])


@pytree
@dataclass(frozen=True)
class Windows:
    """x <- x - dt k (x - c) + sqrt(dt) noise, two components a window; the averages of x and of x^2 are fitted."""

    tiles: Any

    def gauge(self, params, frames, reduce):
        return params

    def of_frames(self, params, block):
        return jnp.sum(jnp.where(block.ids >= 0, 1.0, 0.0))

    def partial(self, params, cell):
        return self.partial_and_rows(params, cell)[0]

    def partial_and_rows(self, params, cell):
        def window(number, start):
            noise = jax.random.normal(jax.random.fold_in(jax.random.key(7), number), (STEPS, 2))

            def step(x, eta):
                x = x - 0.05 * params.shared["k"] * (x - params.shared["c"]) + 0.05**0.5 * eta
                return x, (x, x * x)

            end, (x, xx) = jax.lax.scan(step, start, noise)
            return {"x": x.mean(axis=0), "xx": xx.mean(axis=0)}, end

        sums, ends = jax.vmap(window)(cell.ids, cell.data)
        held = (cell.ids >= 0)[:, None]
        return jax.tree.map(lambda leaf: jnp.sum(jnp.where(held, leaf, 0.0), axis=0), sums), {"end": ends}

    def no_rows(self, frames):
        return {"end": np.zeros((*frames.ids.shape, 2))}

    def summary(self, statistics, shared, tile):
        return jax.tree.map(lambda leaf: leaf / statistics.common, statistics.sliced)

    def loss(self, sums, common, shared):
        return jnp.sum((sums["x"] - TARGET) ** 2) + jnp.sum((sums["xx"] - 1.0) ** 2) + 1e-3 * jnp.sum(shared["k"] ** 2)

    def metrics(self, sums, common, shared):
        return {"mean": sums["x"][0]}


def starts() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((1, BLOCKS, WIDTH, 2))


def gradient(kind, ranks: Ranks):
    grid = make_grid(ranks, Shape(ranks.size, 1, ""), BLOCKS, 1)
    mine = slice(grid.blocks.start, grid.blocks.stop)
    ids = np.where(np.arange(BLOCKS * WIDTH) < WINDOWS, np.arange(BLOCKS * WIDTH), -1).reshape(BLOCKS, WIDTH)[mine]
    rows = FrameRows(ids, WINDOWS)
    chunk = Chunk(slice(0, len(ids)), slice(0, 1), starts()[:, mine])
    return kind(Windows(np.zeros(1)), Frames(rows, lambda: iter([chunk])), grid, ReproducibleSum(grid))


PULLED = partial(Forward, pulled=True)
PARAMS = Params({"k": np.array(1.3), "c": np.array([0.2, -0.1])}, {})


def moved(key: str, place: tuple, by: float) -> Params:
    value = np.array(PARAMS.shared[key])
    value[place] += by
    return Params(PARAMS.shared | {key: value}, {})


def test_forward_gives_what_reverse_gives_in_half_the_passes():
    forward, reverse = (gradient(kind, Ranks())(PARAMS) for kind in (Forward, Reverse))
    assert forward.loss == reverse.loss
    for key in ("k", "c"):
        # Sums of 11 windows x 40 steps in another order: 100 units of the last place.
        np.testing.assert_allclose(forward.gradient.shared[key], reverse.gradient.shared[key], rtol=2e-14)
    assert (Forward.passes, Reverse.passes) == (1, 2)


def test_sums_that_are_pulled_back_one_by_one_have_the_tangents_that_are_carried_along():
    """Four sums of each block by three parameters, in the same tree."""
    carried, pulled = (gradient(kind, Ranks())(PARAMS).tangents for kind in (Forward, PULLED))
    assert [leaf.shape for leaf in carried] == [leaf.shape for leaf in pulled]
    for one, other in zip(pulled, carried):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("kind", [Forward, Reverse])
def test_the_gradient_is_that_of_finite_differences(kind):
    evaluate = gradient(kind, Ranks())
    found, h = evaluate(PARAMS).gradient.shared, 1e-5
    for key, value in PARAMS.shared.items():
        for place in np.ndindex(value.shape):
            up, down = (evaluate.value(moved(key, place, by)).loss for by in (h, -h))
            # h^2 / 6 of a third derivative of order 1, and the rounding of the loss over 2 h.
            assert found[key][place] == pytest.approx((up - down) / (2 * h), rel=1e-8, abs=1e-9)
            assert abs(found[key][place]) > 1e-3


@pytest.mark.parametrize("kind", [Forward, PULLED, Reverse])
def test_ranks_find_the_same_bits_and_rows_stay_with_their_frames(kind):
    [alone] = on_ranks(1, lambda ranks: gradient(kind, ranks)(PARAMS))
    for size in (2, 3):  # of which the third has no block
        found = on_ranks(size, lambda ranks: gradient(kind, ranks)(PARAMS))
        for each in found:
            assert each.loss == alone.loss
            jax.tree.map(np.testing.assert_array_equal, each.gradient.shared, alone.gradient.shared)
        rows = np.concatenate([each.rows.local["end"] for each in found])
        np.testing.assert_array_equal(rows, alone.rows.local["end"])


def test_rows_are_those_of_the_definition():
    end = gradient(Reverse, Ranks())(PARAMS).rows.local["end"]
    number = 8
    x = starts()[0].reshape(-1, 2)[number]
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(7), number), (STEPS, 2))
    for eta in np.asarray(noise):
        x = x - 0.05 * 1.3 * (x - PARAMS.shared["c"]) + 0.05**0.5 * eta
    np.testing.assert_allclose(end.reshape(-1, 2)[number], x, rtol=1e-12)
    assert end.shape == gradient(Reverse, Ranks()).problem.no_rows(gradient(Reverse, Ranks()).frames.rows)["end"].shape


def test_optimizers_keep_the_rows_of_the_point_that_they_accepted():
    """Not those of the trial after it: L-BFGS tries several points a step."""
    import optax

    evaluate = gradient(Forward, Ranks())
    inner = InnerProduct(evaluate.add)
    for optimizer in (Lbfgs(inner, first_step=5.0), Optax(optax.adam(0.1), inner)):
        state = optimizer.start(PARAMS, evaluate)
        for _ in range(3):
            state = optimizer.step(state, evaluate)
            at = evaluate.value(state.params)
            np.testing.assert_array_equal(state.rows.local["end"], at.rows.local["end"])
    assert not np.array_equal(state.rows.local["end"], evaluate.value(PARAMS).rows.local["end"])
