"""Rigid groups against a flood fill, and what is refused."""

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.force_map.constraints import rigid_groups


def flood(n_atoms, pairs):
    """Sets of atoms that constraints join, by merging until nothing changes."""
    sets = [{i} for i in range(n_atoms)]
    for i, j in pairs:
        joined = [s for s in sets if i in s or j in s]
        sets = [s for s in sets if s not in joined] + [set().union(*joined)]
    return sorted(sets, key=min)


def test_waters_and_lone_atoms():
    np.testing.assert_array_equal(rigid_groups(7, [[0, 1], [0, 2], [1, 2], [6, 5]]), [0, 0, 0, 1, 2, 3, 3])
    np.testing.assert_array_equal(rigid_groups(3, np.zeros((0, 2))), [0, 1, 2])


@pytest.mark.parametrize("seed", range(5))
def test_chains_in_any_order(seed):
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, 60, (35, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    group = rigid_groups(60, pairs)
    for number, atoms in enumerate(flood(60, pairs)):
        assert set(np.flatnonzero(group == number)) == atoms
    np.testing.assert_array_equal(group, rigid_groups(60, rng.permutation(pairs[:, ::-1])))


def test_virtual_sites_belong_to_no_group():
    group = rigid_groups(8, [[0, 1], [0, 2], [4, 5], [4, 6]], left_out=[3, 7])
    np.testing.assert_array_equal(group, [0, 0, 0, -1, 1, 1, 1, -1])
    np.testing.assert_array_equal(rigid_groups(3, [[1, 2]], left_out=[0]), [-1, 0, 0])


@pytest.mark.parametrize(
    ("pairs", "words"), [([[0, 9]], "atoms 0 and 9, but there are 4"), ([[0, 3]], "atoms 0 and 3, one of which is")]
)
def test_a_wrong_constraint_is_one_error(pairs, words):
    with pytest.raises(InputError, match=words):
        rigid_groups(4, pairs, left_out=[3])
