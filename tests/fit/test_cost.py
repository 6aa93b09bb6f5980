"""The cost model: its closed forms, what it is fitted to, and that its counts are those of the engine."""

import math
from dataclasses import replace

import numpy as np
import pytest

from hpcfit.fit.adjoint import Adjoint
from hpcfit.fit.by_blocks import Reverse
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
from hpcfit.fit.grid import Grid, Shape, choose_shape, fitting_shapes
from hpcfit.fit.reduction import ReproducibleSum
from hpcfit.kinds.table import load_config, open_case
from hpcfit.ranks import Ranks

LOAD = Load(n_blocks=32, n_tiles=16, cell_bytes=1000, tile_sums=50)
ONCE = replace(LOAD, one_pass=True)
MACHINE = Machine(
    bandwidth=8e9, one_pass_bandwidth=12e9, sums_bandwidth=1e9, overhead=1e-3, latency=2e-6, network=4e9
)  # fmt: skip
LARGE = Load(n_blocks=79, n_tiles=489, cell_bytes=1 << 20, tile_sums=3 * 2048)


def test_one_rank_reads_everything_twice_and_sends_nothing():
    cost = step_cost((1, 1), LOAD, MACHINE)
    assert cost == Cost(2 * 32 * 16 * 1000 / 8e9, 8 * 50 * 16 / 1e9, 0.0, 1e-3)
    assert cost.seconds == sum(cost)


def test_a_rank_with_all_frames_reads_once_where_the_problem_allows_it():
    assert step_cost((1, 1), ONCE, MACHINE).passes == 32 * 16 * 1000 / 12e9
    assert step_cost((1, 4), ONCE, MACHINE).passes == 32 * 4 * 1000 / 12e9
    assert step_cost((4, 1), ONCE, MACHINE).passes == 2 * 8 * 16 * 1000 / 8e9
    passes = [load.passes(shape) for load in (LOAD, ONCE) for shape in ((1, 1), (1, 4), (2, 2))]
    assert passes == [2, 2, 2, 1, 1, 2]
    assert ONCE.bytes_passed((1, 4)) == ONCE.bytes == 32 * 16 * 1000
    assert ONCE.bytes_passed((2, 2)) == LOAD.bytes_passed((1, 4)) == 2 * LOAD.bytes


@pytest.mark.parametrize(("shape", "load"), [((4, 2), LOAD), ((4, 2), ONCE), ((1, 8), ONCE)])
def test_messages_of_a_grid_by_hand(shape, load):
    cost, (f, s) = step_cost(shape, load, MACHINE), shape
    # Of 4 x 2: 8 tiles of 50 sums travel 2 * 3/4 times over 4 ranks, 8 blocks of 64 rows once over 2. Of 1 x 8: 32
    # blocks of 64 rows 2 * 7/8 times. Then the small messages.
    volume = {4: 1.5 * 8 * 50 * 8 + 1.0 * 8 * 64 * 8, 1: 1.75 * 8 * 64 * 32}[f]
    counts = COLLECTIVES[{4: 2, 1: 1}[f]]
    stages = counts["world"] * 3 + counts["frames"] * math.log2(f) + counts["slices"] * math.log2(s)
    assert cost.messages == pytest.approx(volume / 4e9 + stages * 2e-6)
    assert cost.tiles == step_cost((1, 1), load, MACHINE).tiles / s


def test_the_largest_share_counts():
    assert LOAD.largest_share((5, 3)) == Load(7, 6, 1000, 50)
    assert step_cost((64, 1), LOAD, MACHINE).passes == step_cost((32, 1), LOAD, MACHINE).passes


def parts_of(load, shares, machine=MACHINE):
    """Steps of a rank of a machine that obeys the model; each share with its passes."""
    loads = [(replace(load, n_blocks=b, n_tiles=t, one_pass=passes == 1), passes) for b, t, passes in shares]
    return [
        Part(each.n_blocks, each.n_tiles, step_cost((1, 1), each, machine).seconds, passes) for each, passes in loads
    ]


RATES = ("bandwidth", "one_pass_bandwidth", "sums_bandwidth", "overhead")
SHARES = [(32, 16), (8, 16), (32, 4), (1, 16), (1, 1)]


@pytest.mark.parametrize("ways", [(1,), (2,), (1, 2)])
def test_fit_recovers_the_rates_of_a_rank(ways):
    parts = parts_of(LOAD, [(*share, passes) for share in SHARES for passes in ways])
    fitted = fit_rank(parts, LOAD, ASSUMED)
    unknown = {(1,): "bandwidth", (2,): "one_pass_bandwidth"}.get(ways)
    for name in RATES:
        expected = ASSUMED if name == unknown else MACHINE
        assert getattr(fitted, name) == pytest.approx(getattr(expected, name), rel=1e-9), name
    assert (fitted.latency, fitted.network) == (ASSUMED.latency, ASSUMED.network)


@pytest.mark.parametrize("ways", [(1,), (2,), (1, 2)])
def test_one_tile_keeps_the_ratio_of_the_rates(ways):
    """Of each pass to the sums, as they were assumed."""
    truth = replace(MACHINE, sums_bandwidth=2e9, bandwidth=10e9, one_pass_bandwidth=20e9)
    assumed = replace(ASSUMED, bandwidth=5e9, one_pass_bandwidth=10e9, sums_bandwidth=1e9)
    one_tile = replace(LOAD, n_tiles=1)
    fitted = fit_rank(parts_of(one_tile, [(b, 1, w) for b in (32, 8, 1) for w in ways], truth), one_tile, assumed)
    assert fitted.sums_bandwidth == pytest.approx(2e9, rel=1e-9)
    for way in ways:
        assert fitted.rate(way) == pytest.approx(truth.rate(way), rel=1e-9)


def test_rates_stay_positive_where_times_contradict_the_model():
    # More work in less time: nothing but overhead fits.
    fitted = fit_rank([Part(32, 16, 1e-3, 2), Part(1, 1, 2e-3, 2)], LOAD, ASSUMED)
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
    assert gpu == Machine(1.5e12, 1.5e12, MACHINE.sums_bandwidth, MACHINE.overhead, 5e-6, 25e9)


def test_sharing_a_memory_never_speeds_up():
    assert sharing_memory(MACHINE, alone=30e9, shared=30e9) == MACHINE
    assert sharing_memory(MACHINE, alone=30e9, shared=60e9) == MACHINE
    slow = sharing_memory(MACHINE, alone=30e9, shared=3e9)
    assert 1 / slow.bandwidth == pytest.approx(1 / 8e9 + 1 / 3e9 - 1 / 30e9)
    assert 1 / slow.one_pass_bandwidth == pytest.approx(1 / 12e9 + 1 / 3e9 - 1 / 30e9)


def test_many_reflections_on_many_ranks_are_cut_into_slices():
    assert choose_shape(256, "auto", "auto", LARGE).slices >= 16
    assert step_cost((256, 1), LARGE).seconds > 3 * step_cost((1, 256), LARGE).seconds
    gpu = Accelerator(memory=3e12, share=0.5, network=25e9, latency=5e-6).machine(ASSUMED)
    assert choose_shape(256, "auto", "auto", LARGE, gpu).slices >= 128


def test_few_tiles_and_many_frames_are_cut_into_frames():
    shape = choose_shape(16, "auto", "auto", Load(n_blocks=1600, n_tiles=2, cell_bytes=1 << 20, tile_sums=6144))
    assert (shape.frames, shape.slices) == (16, 1)


def test_of_grids_that_cost_the_same_one_with_one_pass_is_chosen():
    """Its numbers are those of one rank, bit for bit."""
    small = Load(n_blocks=5, n_tiles=16, cell_bytes=1 << 14, tile_sums=192)
    assert choose_shape(2, "auto", "auto", small).frames == 2
    assert choose_shape(2, "auto", "auto", replace(small, one_pass=True)).slices == 2


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


@pytest.mark.parametrize(("gradient", "kind"), [("auto", Adjoint), ("reverse", Reverse)])
def test_the_collectives_of_a_step_are_counted_right(two_sources, gradient, kind):
    case = open_case(load_config(two_sources, [f"run.gradient={gradient}"]), Ranks())
    load, counts = case.load(), dict.fromkeys(COLLECTIVES[1], 0)
    groups = [CountedRanks(name, counts) for name in ("world", "frames", "slices")]
    grid = Grid(*groups, Shape(1, 1, "counted"), load.n_blocks, load.n_tiles)
    evaluate = case.gradient(grid, 1 << 30, ReproducibleSum(grid))
    assert isinstance(evaluate, kind)
    assert evaluate.passes == load.passes((1, 1))
    assert np.isfinite(evaluate(evaluate.problem.init(0, evaluate.frames.rows)).loss)
    assert counts == COLLECTIVES[evaluate.passes]


def test_a_share_passed_over_once_has_all_frames(two_sources):
    """On a grid with rows of frames the same problem needs two passes, and the load says so."""
    case = open_case(load_config(two_sources), Ranks())
    one, two = (Grid(*[Ranks()] * 3, Shape(f, 1, ""), case.load().n_blocks, case.load().n_tiles) for f in (1, 2))
    assert [case.load().passes((grid.shape.frames, 1)) for grid in (one, two)] == [1, 2]
    assert case.bytes_held(one) == case.load().bytes
    assert isinstance(case.gradient(two, 1 << 30, ReproducibleSum(two)), Reverse)
