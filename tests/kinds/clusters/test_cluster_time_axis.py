"""The time axis: from the store, from names, from folders; the window; and what is warned of."""

import logging

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.axis import Asked, Origins, axis_of, folder_time

NOTHING = Asked(None, None, None, None)


def origins(n=5, time=None, folder="frames", name="frame_{:04d}.xyz", first=0):
    files = [f"/data/{folder}/{name.format(first + k)}" for k in range(n)]
    return Origins("run", files, np.arange(n), np.arange(n, dtype=float) if time is None else np.array(time))


@pytest.fixture
def warned(caplog):
    """The warnings of inputs so far."""
    caplog.set_level(logging.WARNING, "hpcfit.inputs")
    logging.getLogger("hpcfit").propagate = True
    return lambda: [record.getMessage() for record in caplog.records]


def test_times_of_the_store_are_taken_without_a_step(warned):
    axis = axis_of([origins(time=[0.5, 1.0, 1.5, 2.0, 2.5])], NOTHING)
    assert axis.time.tolist() == [500, 1000, 1500, 2000, 2500]
    assert (axis.step, axis.segments[0].start, axis.segments[0].stop) == (500, 500, 3000)
    assert axis.duration == 2.5
    assert not warned()


def test_s5_002_order_of_the_time_axis_by_names_then_by_order():
    axis = axis_of([origins(first=3)], Asked(2.0, None, None, None))
    assert axis.time.tolist() == [6, 8, 10, 12, 14]
    assert "file names" in axis.said
    axis = axis_of([origins(name="snap{}.xyz", folder="run_t497p5fs")], Asked(0.5, None, None, None))
    assert axis.time.tolist() == [497.5, 498, 498.5, 499, 499.5]
    axis = axis_of([origins(name="snap{}.xyz")], Asked(0.5, 10.0, None, None))
    assert axis.time[0] == 10.0
    one_file = origins()._replace(file=["/data/run.extxyz"] * 5)
    assert axis_of([one_file], Asked(0.5, None, None, None)).time.tolist() == [0, 0.5, 1, 1.5, 2]


@pytest.mark.parametrize(
    ("folder", "time"), [("split_t497p5fs", 497.5), ("f847fs", 847.0), ("frames", None), ("t12fs_b", 12.0)]
)
def test_times_in_the_names_of_folders(folder, time):
    assert folder_time(f"/data/{folder}/frame_0000.xyz") == time


def test_s5_034_conflicts_of_times_are_warned_of(warned):
    axis_of([origins(folder="f847fs")], Asked(2.0, None, None, None))
    assert "named by 847 fs, the first frame is at 0 fs" in warned()[-1]
    axis_of([origins(time=[0, 3, 6, 9, 12.0])], Asked(2.0, None, None, None))
    assert "frame 1 is at 2 fs by timestep_fs, its file says 3000 fs" in warned()[-1]
    axis_of([origins()], NOTHING)
    assert "are the numbers of its frames" in warned()[-1]
    axis_of([origins(time=[0, 1, 2, 3.5, 5])], NOTHING)
    assert "1000 to 1500 fs apart" in warned()[-1]


def test_s5_015_the_window_includes_its_stop_only_where_it_is_given():
    time = np.arange(6) / 1000
    inside = axis_of([origins(6, time)], Asked(None, None, 1.0, 3.0))
    assert inside.time.tolist() == [1, 2, 3]
    assert (inside.segments[0].start, inside.segments[0].stop, inside.duration) == (1, 3, 0.002)
    assert axis_of([origins(6, time)], NOTHING).time.tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(InputError, match=r"0 of its frames lie between 10 and 20 fs; they are at 0 to 5 fs"):
        axis_of([origins(6, time)], Asked(None, None, 10.0, 20.0))


def test_times_must_increase():
    with pytest.raises(InputError, match=r"frame 1 is at 2000 fs, frame 2 at 1000 fs"):
        axis_of([origins(3, [0, 2, 1])], NOTHING)


def test_each_source_is_a_trajectory():
    axis = axis_of([origins(3, [1.0, 2, 3]), origins(4, [1.0, 2, 3, 4])], NOTHING)
    assert [one.rows.tolist() for one in axis.segments] == [[0, 1, 2], [3, 4, 5, 6]]
    assert axis.source.tolist() == [0] * 3 + [1] * 4
