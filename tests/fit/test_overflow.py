"""Sums that overflow: a line search turns back, what cannot turn back is one error that names block and frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hpcfit.errors import NumericalError
from hpcfit.fit import hooks
from hpcfit.fit.by_blocks import Reverse
from hpcfit.fit.gradient import Frames
from hpcfit.fit.grid import Shape, make_grid
from hpcfit.fit.inner import InnerProduct
from hpcfit.fit.loop import Step, fit
from hpcfit.fit.optimizers import Lbfgs, Optax
from hpcfit.fit.problem import FrameRows, Params
from hpcfit.fit.reduction import FastSum, ReproducibleSum
from hpcfit.pytrees import pytree
from hpcfit.ranks import Ranks
from hpcfit.store.stream import Chunk
from tests.fit.thread_ranks import on_ranks

BLOCKS, WIDTH, TARGET = 3, 64, 7.0


@pytree
@dataclass(frozen=True)
class LogOfASum:
    """Weights w = exp(u), whose sum is to be exp(TARGET). The loss sees their sum only; their squares are reported."""

    tiles: Any

    def gauge(self, params, frames, reduce):
        return params

    def of_frames(self, params, block):
        w = jnp.where(block.ids >= 0, jnp.exp(params.local["u"]), 0.0)
        return {"w": jnp.sum(w), "ww": jnp.sum(w * w)}

    def partial(self, params, cell):
        return jnp.sum(jnp.where(cell.ids >= 0, cell.data["x"][:, 0] * cell.data["sign"], 0.0))

    def summary(self, statistics, shared, tile):
        return statistics.sliced

    def loss(self, sums, common, shared):
        return (jnp.log(common["w"]) - TARGET) ** 2 + 0 * sums

    def metrics(self, sums, common, shared):
        return {"ess": common["w"] ** 2 / common["ww"]}


def gradient(ranks: Ranks, kind=ReproducibleSum, x: np.ndarray | None = None) -> Reverse:
    """Of 150 frames in three blocks, dealt out over ranks. The data of a cell are a tree."""
    grid = make_grid(ranks, Shape(ranks.size, 1, ""), BLOCKS, 1)
    rows = slice(grid.blocks.start, grid.blocks.stop)
    ids = np.where(np.arange(BLOCKS * WIDTH) < 150, np.arange(BLOCKS * WIDTH), -1).reshape(BLOCKS, WIDTH)
    x = np.ones((1, BLOCKS, WIDTH, 2)) if x is None else x
    data = {"x": x[:, rows], "sign": np.ones((1, BLOCKS, WIDTH))[:, rows]}
    chunk = Chunk(slice(0, len(grid.blocks)), slice(0, 1), data)
    about = FrameRows(ids[rows], 150)
    return Reverse(LogOfASum(np.zeros(1)), Frames(about, lambda: iter([chunk])), grid, kind(grid))


def zeros(evaluate: Reverse) -> Params:
    return Params({}, {"u": np.zeros(evaluate.frames.rows.ids.shape)})


def fitted(evaluate: Reverse, optimizer: Any, steps: int = 30):
    tried = []

    def recorded(params):
        found = evaluate(params)
        tried.append(found.loss)
        return found

    start = optimizer.start(zeros(evaluate), recorded)
    first = Step(0, start, 1.0, (start.loss,))
    every = [hooks.MaxSteps(steps), lambda step: hooks.SmallGradient(1e-9)(step)]
    outcome = fit(optimizer, recorded, InnerProduct(evaluate.add).norm, every, first, evaluate.not_finite_at)
    return outcome.last.state, tried


@pytest.mark.parametrize("kind", [ReproducibleSum, FastSum])
def test_a_line_search_turns_back_where_only_a_reported_sum_overflows(kind):
    """At the first trial u is 4900 / sqrt(150) = 400: the sum of w is 1e176, that of w^2 is more than any number."""
    evaluate = gradient(Ranks(), kind)
    state, tried = fitted(evaluate, Lbfgs(InnerProduct(evaluate.add), first_step=4900.0))
    assert np.isnan(tried[1])
    assert np.isfinite(tried[-1])
    w = np.exp(state.params.local["u"].ravel()[:150])
    assert np.log(w.sum()) == pytest.approx(TARGET, abs=1e-6)


def test_the_same_on_two_and_three_ranks():
    def losses(ranks):
        evaluate = gradient(ranks)
        return fitted(evaluate, Lbfgs(InnerProduct(evaluate.add), first_step=4900.0))[1]

    [alone] = on_ranks(1, losses)
    for size in (2, 3):
        for found in on_ranks(size, losses):
            np.testing.assert_array_equal(found, alone)


def test_an_optimizer_that_cannot_turn_back_ends_with_one_error_that_names_the_block():
    evaluate = gradient(Ranks())
    steep = Optax(optax.sgd(learning_rate=1e9), InnerProduct(evaluate.add))
    with pytest.raises(NumericalError, match=r"nan after step 1: .* block 0 of 3, frames 0 to 63"):
        fitted(evaluate, steep)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_damaged_frame_is_named_on_every_rank(size, bad):
    x = np.ones((1, BLOCKS, WIDTH, 2))
    x[0, 1, 6, 0] = bad

    def named(ranks):
        evaluate = gradient(ranks, x=x)
        found = evaluate(zeros(evaluate))
        assert np.isnan(found.loss)
        assert not np.any(found.gradient.local["u"])
        with pytest.raises(NumericalError, match="block 1 of 3, frame 70"):
            evaluate.value(zeros(evaluate))
        return evaluate.not_finite_at(zeros(evaluate))

    assert on_ranks(size, named) == ["block 1 of 3, frame 70"] * size


def test_sound_frames_have_no_place_to_name():
    evaluate = gradient(Ranks())
    assert evaluate.not_finite_at(zeros(evaluate)) == ""
