"""The cost model: its closed forms, what it is fitted to, and that its counts are those of the engine."""

import math
from dataclasses import replace

import numpy as np
import pytest

from hpcfit.cases.kinds import open_case
from hpcfit.config import load_config
from hpcfit.fit.cost import (
    ASSUMED,
    COLLECTIVES,
    Accelerator,
    Cost,
    Load,
    Machine,
    Message,
    Part,
    fit_network,
    fit_rank,
    sharing_memory,
    step_cost,
)
from hpcfit.fit.gradient import Reverse
from hpcfit.fit.grid import Grid, Shape, choose_shape, fitting_shapes
from hpcfit.fit.reduction import ReproducibleSum
from hpcfit.ranks import Ranks

LOAD = Load(n_blocks=32, n_tiles=16, cell_bytes=1000, tile_sums=50)
MACHINE = Machine(bandwidth=8e9, sums_bandwidth=1e9, overhead=1e-3, latency=2e-6, network=4e9)
LARGE = Load(n_blocks=79, n_tiles=489, cell_bytes=1 << 20, tile_sums=3 * 2048)


def test_one_rank_reads_everything_twice_and_sends_nothing():
    cost = step_cost((1, 1), LOAD, MACHINE)
    assert cost == Cost(2 * 32 * 16 * 1000 / 8e9, 8 * 50 * 16 / 1e9, 0.0, 1e-3)
    assert cost.seconds == sum(cost)


def test_messages_of_a_grid_by_hand():
    cost = step_cost((4, 2), LOAD, MACHINE)
    # 8 tiles of 50 sums travel 2 * 3/4 times over 4 ranks, 8 blocks of 64 rows once over 2; then the small messages.
    volume = 1.5 * 8 * 50 * 8 + 1.0 * 8 * 64 * 8
    stages = COLLECTIVES["world"] * 3 + COLLECTIVES["frames"] * 2 + COLLECTIVES["slices"] * 1
    assert cost.messages == pytest.approx(volume / 4e9 + stages * 2e-6)
    assert cost.passes == pytest.approx(step_cost((1, 1), LOAD, MACHINE).passes / 8)


def test_the_largest_share_counts():
    assert LOAD.largest_share((5, 3)) == Load(7, 6, 1000, 50)
    assert step_cost((64, 1), LOAD, MACHINE).passes == step_cost((32, 1), LOAD, MACHINE).passes


def test_fit_recovers_the_rates_of_a_rank():
    shares = [(32, 16), (8, 16), (32, 4), (1, 16), (1, 1)]
    parts = [Part(b, t, step_cost((1, 1), replace(LOAD, n_blocks=b, n_tiles=t), MACHINE).seconds) for b, t in shares]
    fitted = fit_rank(parts, LOAD, ASSUMED)
    for name in ("bandwidth", "sums_bandwidth", "overhead"):
        assert getattr(fitted, name) == pytest.approx(getattr(MACHINE, name), rel=1e-9)
    assert (fitted.latency, fitted.network) == (ASSUMED.latency, ASSUMED.network)


def test_one_tile_keeps_the_ratio_of_the_rates():
    truth = replace(MACHINE, sums_bandwidth=MACHINE.bandwidth / 5)
    one_tile = replace(LOAD, n_tiles=1)
    parts = [Part(b, 1, step_cost((1, 1), replace(one_tile, n_blocks=b), truth).seconds) for b in (32, 8, 1)]
    fitted = fit_rank(parts, one_tile, replace(ASSUMED, bandwidth=5e9, sums_bandwidth=1e9))
    assert fitted.bandwidth == pytest.approx(truth.bandwidth, rel=1e-9)
    assert fitted.sums_bandwidth == pytest.approx(truth.sums_bandwidth, rel=1e-9)


def test_rates_stay_positive_where_times_contradict_the_model():
    # More work in less time: nothing but overhead fits.
    fitted = fit_rank([Part(32, 16, 1e-3), Part(1, 1, 2e-3)], LOAD, ASSUMED)
    assert fitted.bandwidth == pytest.approx(1e15)  # as good as free
    assert 1e-3 <= fitted.overhead <= 2e-3


def test_fit_recovers_the_network():
    messages = [
        Message(p, n, 2e-6 * math.log2(p) + 2 * (p - 1) / p * n / 4e9)
        for p in (2, 4, 16)
        for n in (8, 8 << 10, 8 << 20)
    ]
    fitted = fit_network(messages, ASSUMED)
    assert fitted.latency == pytest.approx(2e-6, rel=1e-9)
    assert fitted.network == pytest.approx(4e9, rel=1e-9)
    assert fitted.bandwidth == ASSUMED.bandwidth


def test_an_accelerator_keeps_the_work_of_the_host():
    gpu = Accelerator(memory=3e12, share=0.5, network=25e9, latency=5e-6).machine(MACHINE)
    assert gpu == Machine(1.5e12, MACHINE.sums_bandwidth, MACHINE.overhead, 5e-6, 25e9)


def test_sharing_a_memory_never_speeds_up():
    assert sharing_memory(MACHINE, alone=30e9, shared=30e9) == MACHINE
    assert sharing_memory(MACHINE, alone=30e9, shared=60e9) == MACHINE
    slow = sharing_memory(MACHINE, alone=30e9, shared=3e9).bandwidth
    assert 1 / slow == pytest.approx(1 / 8e9 + 1 / 3e9 - 1 / 30e9)


def test_many_reflections_on_many_ranks_are_cut_into_slices():
    assert choose_shape(256, "auto", "auto", LARGE).slices >= 16
    assert step_cost((256, 1), LARGE).seconds > 3 * step_cost((1, 256), LARGE).seconds
    gpu = Accelerator(memory=3e12, share=0.5, network=25e9, latency=5e-6).machine(ASSUMED)
    assert choose_shape(256, "auto", "auto", LARGE, gpu).slices >= 128


def test_few_tiles_and_many_frames_are_cut_into_frames():
    shape = choose_shape(16, "auto", "auto", Load(n_blocks=1600, n_tiles=2, cell_bytes=1 << 20, tile_sums=6144))
    assert (shape.frames, shape.slices) == (16, 1)


def test_a_grid_depends_on_the_machine():
    load = Load(n_blocks=8, n_tiles=16, cell_bytes=1 << 18, tile_sums=6144)
    # Both grids cost the same to a tenth, and then frames are cut; sums of tiles are the longer messages.
    assert choose_shape(2, "auto", "auto", load, ASSUMED).slices == 1
    assert choose_shape(2, "auto", "auto", load, replace(ASSUMED, network=1e8)).slices == 2


def test_fitting_shapes_have_a_tile_in_each_slice():
    assert fitting_shapes(12, 4) == [(3, 4), (4, 3), (6, 2), (12, 1)]


class CountedRanks(Ranks):
    """One rank that counts its collectives."""

    def __init__(self, name: str, counts: dict[str, int]):
        super().__init__()
        self._name, self._counts = name, counts

    def _count(self, value):
        self._counts[self._name] += 1
        return value

    sum = max = bcast = _count


def test_the_collectives_of_a_step_are_counted_right(two_sources):
    case = open_case(load_config(two_sources), Ranks())
    load, counts = case.load(), dict.fromkeys(COLLECTIVES, 0)
    groups = [CountedRanks(name, counts) for name in ("world", "frames", "slices")]
    grid = Grid(*groups, Shape(1, 1, "counted"), load.n_blocks, load.n_tiles)
    problem, frames = case.problem(grid), case.frames(grid, 1 << 30)
    evaluate = Reverse(problem, frames, grid, ReproducibleSum(grid))
    assert np.isfinite(evaluate(problem.init(0, frames.rows)).loss)
    assert counts == COLLECTIVES
