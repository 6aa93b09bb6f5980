"""HeldOut ends a fit where held-out frames gain no more above what noise leaves, on all ranks, and after a restart."""

import numpy as np
import pytest

from hpcfit.fit.hooks import HeldOut, MaxSteps
from hpcfit.fit.loop import Step, fit
from hpcfit.ranks import Ranks
from tests.fit.test_loop import Halving, State
from tests.fit.thread_ranks import on_ranks

STEP = Step(3, State(1.0), 1.0, (1.0,))


def judged(values, floor=0.0, patience=3, progress=1e-3):
    return HeldOut(Ranks(), lambda: list(values), floor, patience, progress)(STEP)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_it_waits_for_more_values_than_its_patience(n):
    assert judged(np.ones(n)) is None
    assert judged(np.ones(4)) is not None


@pytest.mark.parametrize(
    ("since", "floor", "stops"),
    [
        ([100.0, 100.0, 100.0], 0.0, True),
        ([100.0, 99.0, 100.0], 0.0, False),  # 1 % less in between
        ([100.0, 99.95, 100.0], 0.0, True),  # 0.05 %
        ([100.0, 99.95, 100.0], 90.0, False),  # of what is above the floor: 0.5 %
        ([100.0, 99.95, 100.0], 99.0, False),
        ([120.0, 110.0, 105.0], 0.0, True),  # it falls, but is above where it was
        ([99.89, 99.89, 99.89], 0.0, False),
        ([99.91, 99.91, 99.91], 0.0, True),
    ],
)
def test_it_stops_when_what_is_above_the_floor_does_not_shrink(since, floor, stops):
    stop = judged([300.0, 100.0, *since], floor)
    assert (stop is not None) == stops
    if stops:
        assert not stop.interrupted
        assert f"{100 - floor:.5g} above the floor, not 0.1 % less in 3 steps" in stop.reason


@pytest.mark.parametrize("seed", range(5))
def test_it_ends_noise_around_a_plateau_soon_and_a_steady_fall_never(seed):
    """The least of n noises falls ever more slowly: it stops within some patiences. 1 - 1.1e-3 a step is progress."""
    rng, patience = np.random.default_rng(seed), 5
    values = 10 * 0.7 ** np.arange(400) + 50 + 0.01 * rng.random(400)
    stops = next(n for n in range(1, 400) if judged(values[:n], 0.0, patience))
    plateau = int(np.argmax(10 * 0.7 ** np.arange(400) < 0.05))
    assert plateau - patience <= stops <= plateau + 3 * patience
    falling = 40 * (1 - 1.1e-3) ** np.arange(300) + 10
    assert not any(judged(falling[:n], 10.0, 1) for n in range(300))
    assert judged(falling[:3], 0.0, 1) is not None  # of all of it, a share of 0.88e-3


def test_only_root_reads_and_all_ranks_hear_the_same():
    read = []

    def of_rank(ranks):
        def values():
            read.append(ranks.rank)
            return [1.0] * 10

        return HeldOut(ranks, values, 0.0, 3)(STEP)

    found = on_ranks(3, of_rank)
    assert read == [0]
    assert len(set(found)) == 1
    assert found[0].reason.startswith("held-out frames")


def test_a_continuation_stops_at_the_step_where_the_whole_run_stops():
    """The values before an interruption are there again, so that patience is not counted anew."""

    def held_out(number: int) -> float:
        return 1 + 10 * 0.5**number

    def run(steps: int, start: Step, values: list[float]):
        """At most so many steps; the values grow by one each step, as the history of a run does."""
        seen = lambda step: values.append(held_out(step.number)) if step.number >= len(values) else None  # noqa: E731
        hook = HeldOut(Ranks(), lambda: values, 1.0, 4, 0.95)
        return fit(Halving(), None, lambda gradient: 1.0, [seen, hook, MaxSteps(steps)], start)

    first = Step(0, State(1.0), 1.0, (1.0,))
    whole = run(100, first, [])
    assert "held-out" in whole.stop.reason
    for cut in (2, whole.last.number - 1):
        values: list[float] = []
        interrupted = run(cut, first, values)
        again = run(100, interrupted.last, values)
        assert again.last.number == whole.last.number
        assert again.stop.reason == whole.stop.reason
