"""Grids: every cell on exactly one rank, and impossible shapes refused with the possible ones."""

import pytest

from hpcfit.errors import InputError
from hpcfit.fit.cost import Load, step_cost
from hpcfit.fit.grid import choose_shape, share


@pytest.mark.parametrize(("count", "parts"), [(10, 3), (2, 5), (0, 2), (64, 64), (7, 1)])
def test_shares_partition_the_whole(count, parts):
    shares = [share(count, part, parts) for part in range(parts)]
    assert [item for piece in shares for item in piece] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_auto_minimises_the_predicted_step():
    load = Load(n_blocks=100, n_tiles=500, cell_bytes=1 << 20, tile_sums=3 * 2048)
    shape = choose_shape(64, "auto", "auto", load)
    times = {(f, 64 // f): step_cost((f, 64 // f), load).seconds for f in (1, 2, 4, 8, 16, 32, 64)}
    assert times[shape.frames, shape.slices] <= 1.1 * min(times.values())
    assert times[64, 1] > times[shape.frames, shape.slices]


def test_more_ranks_than_blocks_is_a_shape():
    assert choose_shape(7, "auto", "auto", Load(2, 3, 1, 1)).frames == 7


@pytest.mark.parametrize(("frames", "slices"), [(2, 2), ("auto", 5), (4, 1)])
def test_shapes_that_do_not_fit_name_those_that_do(frames, slices):
    with pytest.raises(InputError, match="3 x 1"):
        choose_shape(3, frames, slices, Load(10, 2, 1, 1))


def test_more_slices_than_tiles_is_refused():
    with pytest.raises(InputError, match="2 tiles"):
        choose_shape(4, 1, 4, Load(10, 2, 1, 1))
