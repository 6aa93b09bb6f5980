"""Stages: stopped between units and gone on with on other ranks, they end with the bits of one that was not stopped."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfit.errors import InputError, NumericalError
from hpcfit.fit.checkpoint import Stages
from hpcfit.fit.loop import Stop
from hpcfit.fit.running_sum import ReproducibleRunningSum
from hpcfit.fit.stages import Interrupted, StageRunner, heeded
from tests.fit.stage_runs import stage_done
from tests.fit.thread_ranks import on_ranks

UNITS = 7


def part(unit: int) -> np.ndarray:
    """Numbers whose sum in floating point depends on the order."""
    return np.random.default_rng(unit).standard_normal(5) * 10.0 ** np.random.default_rng(unit).integers(-6, 6, 5)


class Adding:
    """Adds a part a unit, and writes a file a unit. done: by whom, for the test to see."""

    n_units = UNITS

    def __init__(self, ranks, folder, done=None, fails=None):
        self.ranks, self.folder, self.fails = ranks, folder, fails
        self.done = [] if done is None else done
        self.sum = ReproducibleRunningSum((5,))

    def run(self, units):
        for unit in units:
            yield None
            if unit == self.fails:
                raise NumericalError(f"unit {unit} is no number", remedy="another one")
            self.sum.add(part(unit))
            self.done.append(unit)
            (self.folder / f"{unit}.txt").write_text(str(unit))
            yield unit

    def kept(self):
        return {name: self.ranks.sum(values) for name, values in self.sum.kept().items()}

    def take_up(self, kept):
        if self.ranks.is_root:
            self.sum.take_up(kept)

    def product(self):
        return {"total": self.sum.total(self.ranks)}

    def files(self):
        return sorted(self.folder.glob("*.txt"))


def made(ranks, folder, stops_after=None, done=None, **more):
    """What a stage gives on root of so many ranks; None where it was interrupted."""

    def on_rank(world):
        try:
            return stage_done(Adding(world, folder, done, **more), world, folder / "fits", stops_after=stops_after)
        except Interrupted:
            return None

    return on_ranks(ranks, on_rank)[0]


@pytest.fixture
def whole(tmp_path):
    (folder := tmp_path / "whole").mkdir()
    return made(1, folder)["total"]


@pytest.fixture
def folder(tmp_path):
    (folder := tmp_path / "stage").mkdir()
    return folder


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_ranks_share_the_units_and_give_the_same_bits(whole, folder, ranks):
    done = []
    np.testing.assert_array_equal(made(ranks, folder, done=done)["total"], whole)
    assert sorted(done) == list(range(UNITS))


@pytest.mark.parametrize(("first", "then"), [(1, 1), (1, 3), (3, 1), (2, 3)])
@pytest.mark.parametrize("stops_after", [0, 1, 2, 3])
def test_a_stage_goes_on_from_what_was_kept_on_other_ranks(whole, folder, first, then, stops_after):
    """A turn is half a unit here: what was begun and not finished is done again."""
    before, after = [], []
    assert made(first, folder, stops_after=stops_after, done=before) is None
    np.testing.assert_array_equal(made(then, folder, done=after)["total"], whole)
    assert sorted(before + after) == list(range(UNITS))
    assert len(before) == first * ((stops_after + 1) // 2)


def test_a_stage_that_is_longer_than_every_job_ends(whole, folder):
    jobs = 0
    while (found := made(2, folder, stops_after=1)) is None:
        jobs += 1
        assert jobs <= UNITS
    assert jobs >= 3
    np.testing.assert_array_equal(found["total"], whole)


def test_a_stage_that_has_ended_is_not_done_again(whole, folder):
    made(1, folder)
    done = []
    np.testing.assert_array_equal(made(3, folder, done=done)["total"], whole)
    assert done == []


@pytest.mark.parametrize("change", ["a file", "a file is gone", "the record", "inputs"])
def test_a_stage_begins_again_where_what_it_left_or_stands_on_is_another(whole, folder, change):
    made(1, folder)
    done, [record] = [], list((folder / "fits").iterdir())
    if change == "a file":
        (folder / "3.txt").write_text("4")
    elif change == "a file is gone":
        (folder / "3.txt").unlink()
    elif change == "the record":
        content = bytearray(record.read_bytes())
        content[len(content) // 2] ^= 4
        record.write_bytes(content)
    [found] = on_ranks(1, lambda world: stage_done(
        Adding(world, folder, done), world, folder / "fits", {"from": "elsewhere"} if change == "inputs" else {}
    ))  # fmt: skip
    np.testing.assert_array_equal(found["total"], whole)
    assert done == list(range(UNITS))


def test_a_stage_of_another_run_is_an_error(folder):
    made(1, folder)

    def other(world):
        stages = Stages(folder / "fits", world, {"run": "that"})
        return StageRunner(stages, lambda progressed: None).run("a stage", Adding(world, folder), {})

    with pytest.raises(InputError, match="run was this, is now that"):
        on_ranks(1, other)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_an_error_of_one_rank_is_raised_on_all(folder, ranks):
    def on_rank(world):
        with pytest.raises(NumericalError, match="unit 5 is no number") as found:
            stage_done(Adding(world, folder, fails=5), world, folder / "fits")
        return str(found.value)

    assert len(set(on_ranks(ranks, on_rank))) == 1


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_items_that_are_not_kept_are_those_of_each_rank(ranks):
    """Ranks may have any number of them, and none."""
    found = on_ranks(ranks, lambda world: heeded(world, iter(range(2 * world.rank)), lambda: None))
    assert found == [list(range(2 * rank)) for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_between_items_all_ranks_are_stopped_together(ranks):
    def on_rank(world):
        done, asked = [], []

        def stop():
            asked.append(True)
            return Stop("told to", interrupted=True) if len(asked) == 2 else None

        with pytest.raises(Interrupted, match="told to"):
            heeded(world, (done.append(item) for item in range(5)), stop)
        return done

    assert on_ranks(ranks, on_rank) == [[0, 1]] * ranks


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_an_error_in_an_item_of_one_rank_is_raised_on_all(ranks):
    def items(world):
        yield 0
        if world.rank == ranks - 1:
            raise NumericalError("item 1 is no number", remedy="another one")
        yield 1

    def on_rank(world):
        with pytest.raises(NumericalError, match="item 1 is no number"):
            heeded(world, items(world), lambda: None)

    on_ranks(ranks, on_rank)
