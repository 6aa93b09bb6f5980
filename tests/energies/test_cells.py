"""Lists made by cells: the pairs of all pairs, each once, in memory linear in the atoms; cells that are full say so."""

import dataclasses
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from scipy.spatial import cKDTree

from hpcfit.energies.cells import cells_for
from hpcfit.energies.columns import fixed
from hpcfit.energies.energy import Energy
from hpcfit.energies.lists import neighbour_lists, pair_source, renewed
from hpcfit.energies.neighbours import Room
from hpcfit.energies.pair_potentials import PairPotential

N = 800
RIGHT = np.diag([2.4, 2.6, 2.9])
SKEWED = np.array([[2.6, 0.0, 0.0], [1.3, 2.7, 0.0], [-1.3, 1.35, 2.9]])  # as far as reduced boxes are
EXCLUDED = np.random.default_rng(5).integers(0, N, (900, 2))
EXCLUDED = EXCLUDED[EXCLUDED[:, 0] != EXCLUDED[:, 1]]


def places(box, seed=0, atoms=N):
    """Atoms at random in a box, some of them in other images of it."""
    rng = np.random.default_rng(seed)
    return (rng.uniform(0, 1, (atoms, 3)) + rng.integers(-2, 3, (atoms, 3))) @ box


def pairs_by_hand(x, box, reach):
    """The pairs nearer than reach, of all images around a box."""
    shifts = np.zeros((1, 3)) if box is None else np.array(list(product((-1, 0, 1), repeat=3))) @ box
    if box is not None:
        turns = x @ np.linalg.inv(box)
        x = (turns - np.floor(turns)) @ box
    images = cKDTree((x + shifts[:, None]).reshape(-1, 3))
    near = images.query_ball_point(x, reach)
    return {(i, j % len(x)) for i, found in enumerate(near) for j in found if i < j % len(x)}


def pairs_of(listed, members=None):
    """The pairs of a list, of which none stands twice."""
    assert not bool(listed.full)
    rows, slots = np.nonzero(np.asarray(listed.table.inside))
    pairs = np.sort(np.column_stack([rows, np.asarray(listed.table.index)[rows, slots]]), axis=1)
    pairs = pairs if members is None else np.sort(members[pairs], axis=1)
    found = set(map(tuple, pairs.tolist()))
    assert len(found) == len(pairs)
    return found


def unordered(pairs):
    return {tuple(sorted(pair)) for pair in np.asarray(pairs).tolist()}


@pytest.mark.parametrize(
    ("box", "scale", "atoms"),
    [(RIGHT, 1, N), (SKEWED, 1, 500), (None, 1, N), (RIGHT, 3, N), (SKEWED, 3, N), (None, 3, 500)],
    ids=["right", "skewed", "open", "right, dilute", "skewed, dilute", "open, dilute"],
)
def test_lists_by_cells_have_the_pairs_within_their_reach(box, scale, atoms):
    """With pairs left out, and of all atoms or some; made at first and again at other positions."""
    x = places(scale * box) if box is not None else np.random.default_rng(1).uniform(0, scale * 2.6, (N, 3))
    box = None if box is None else scale * box
    members = None if atoms == N else np.sort(np.random.default_rng(3).permutation(N)[:atoms])
    options = {"periodic": box is not None, "orthorhombic": box is not None and not np.any(np.tril(box, -1))}
    source = pair_source(N, cutoff=0.3, excluded=EXCLUDED, members=members, **options)

    def expected(x):
        some = set(range(N) if members is None else members.tolist())
        found = {pair for pair in pairs_by_hand(x, box, 0.35) - unordered(EXCLUDED) if set(pair) <= some}
        assert len(found) > 20
        return found

    [listed] = neighbour_lists({"all": source}, x, box, skin=0.05).values()
    assert max(listed.cells.counts) > 3
    assert pairs_of(listed, members) == expected(x)
    moved = np.random.default_rng(2).permutation(x)
    [again] = renewed({"all": source}, {"all": listed}, moved, box).values()
    assert pairs_of(again, members) == expected(moved)


def test_an_axis_too_short_for_three_cells_is_not_divided():
    box = np.array([[0.9, 0.0, 0.0], [0.4, 5.0, 0.0], [-0.3, 2.0, 5.0]])
    x, source = places(box), pair_source(N, cutoff=0.35, periodic=True)
    [listed] = neighbour_lists({"all": source}, x, box, skin=0.05).values()
    assert listed.cells.counts[0] == 1
    assert min(listed.cells.counts[1:]) > 3
    assert pairs_of(listed) == pairs_by_hand(x, box, 0.4)


def test_cells_are_not_taken_where_all_atoms_are_fewer_than_those_around():
    assert cells_for(places(RIGHT)[None], RIGHT, 1.0) is None  # 2 cells along each axis
    assert cells_for(places(RIGHT, atoms=60)[None], RIGHT, 0.35) is None
    assert cells_for(places(RIGHT)[None], RIGHT, 0.35).candidates < N


# ---- never silently wrong --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed():
    """(source, its list, positions of which 60 atoms have come into one cell)"""
    source, x = pair_source(N, cutoff=0.3, periodic=True, orthorhombic=True), places(RIGHT)
    [listed] = neighbour_lists({"all": source}, x, RIGHT, skin=0.05).values()
    x[:60] = np.random.default_rng(1).uniform(0.01, 0.3, (60, 3))
    return source, listed, x


def test_a_cell_without_room_for_its_atoms_says_so(packed):
    source, listed, x = packed
    around, cells = source.surroundings(x, RIGHT, 0.05), listed.cells
    assert bool(around.listed(Room(N, cells)).full)  # slots suffice
    roomy = around.listed(Room(N, dataclasses.replace(cells, slots=90)))
    assert pairs_of(roomy) == pairs_by_hand(x, RIGHT, 0.35)


def test_the_energy_of_a_frame_whose_cells_are_full_is_nan(packed):
    source, listed, x = packed
    energy = lambda room: Energy((PairPotential(  # noqa: E731
        pairs=dataclasses.replace(source, table=None, room=room), sigma=fixed(np.full(N, 0.03)),
        epsilon=fixed(np.ones(N)),
    ),))  # fmt: skip
    value = jax.jit(lambda energy, x: jax.value_and_grad(energy)(x, {}, RIGHT))
    found, force = value(energy(Room(N, listed.cells)), x)
    assert np.isnan(found)
    assert np.any(np.isnan(force))
    found, force = value(energy(Room(N, None)), x)
    assert np.all(np.isfinite([found, *force.ravel()]))


def test_cells_that_have_become_narrower_than_the_reach_say_so():
    source = pair_source(N, cutoff=0.3, periodic=True)
    cells = cells_for(places(SKEWED)[None], SKEWED, 0.35)
    full = lambda s: source.surroundings(s * places(SKEWED), s * SKEWED, 0.05).listed(Room(N, cells)).full  # noqa: E731
    least = 0.35 / min(1 / np.linalg.norm(np.linalg.inv(SKEWED), axis=0) / np.array(cells.counts))
    assert [bool(full(s)) for s in (1.3, 1.0, 1.001 * least, 0.999 * least)] == [False, False, False, True]


def test_a_list_holds_in_a_stretched_box_as_far_as_its_skin_has_room():
    """Atoms move by up to the way that is left in units of the box of the list; by more, it does not hold."""
    source, x = pair_source(N, cutoff=0.3, periodic=True), places(SKEWED)
    [listed] = neighbour_lists({"all": source}, x, SKEWED, skin=0.05).values()
    assert not bool(listed.holds(x * 0.999 * 0.3 / 0.35, SKEWED * 0.999 * 0.3 / 0.35))
    for s in (0.9, 0.97, 1.0, 1.02):
        way = 0.5 * (0.35 - 0.3 / s)
        step = np.random.default_rng(7).normal(size=(N, 3))
        step *= 0.999 * way / np.linalg.norm(step, axis=1, keepdims=True)
        assert bool(listed.holds(s * (x + step), s * SKEWED))
        assert pairs_by_hand(s * (x + step), s * SKEWED, 0.3) <= pairs_of(listed)
        assert not bool(listed.holds(s * (x + 1.002 * step), s * SKEWED))
    assert not bool(listed.holds(x, SKEWED * np.array([1.0, 1.0, 1.0001])))


def test_a_skin_beyond_half_a_skewed_box_is_not_counted_on():
    """Images are the shortest only up to half the box: a pair at 0.55 nm is taken for one at 0.67 nm."""
    box = np.array([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]])
    x, source = np.array([[0.0, 0.0, 0.0], [0.5, 0.45, 0.0]]), pair_source(2, cutoff=0.5, periodic=True)
    [listed] = neighbour_lists({"all": source}, x, box, skin=0.12).values()
    assert bool(listed.holds(x, box))
    moved = x + np.array([[0.0, 0.0, 0.0], [0.0, 0.055, 0.0]])  # 0.495 nm, by less than half the skin
    assert (len(pairs_by_hand(moved, box, 0.5)), len(pairs_of(listed))) == (1, 0)
    assert not bool(listed.holds(moved, box))


# ---- twenty thousand atoms -------------------------------------------------------------------------------------------

MANY = 20_000
EDGE = (MANY / 21.0) ** (1 / 3)  # of liquid argon, nm


def largest(jaxpr):
    """The elements of the largest array that a program makes, in its loops too."""
    sizes = [np.prod(v.aval.shape, dtype=float) for eqn in jaxpr.eqns for v in eqn.outvars]
    inner = [sub for eqn in jaxpr.eqns for sub in jaxprs_in_params(eqn.params)]
    return max([*sizes, *map(largest, inner)], default=0.0)


def test_twenty_thousand_atoms_have_the_pairs_of_a_tree_in_memory_linear_in_them():
    side = 28
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)[:MANY]
    x = (grid + 0.5 + np.random.default_rng(0).uniform(-0.3, 0.3, (MANY, 3))) * EDGE / side % EDGE
    source = pair_source(MANY, cutoff=0.5, periodic=True, orthorhombic=True)
    lists = neighbour_lists({"all": source}, x, EDGE * np.eye(3), skin=0.05)
    tree = cKDTree(x, boxsize=EDGE).query_pairs(0.55, output_type="ndarray")
    [listed] = lists.values()
    rows, slots = np.nonzero(np.asarray(listed.table.inside))
    found = np.sort(np.column_stack([rows, np.asarray(listed.table.index)[rows, slots]]), axis=1)
    assert not bool(listed.full)
    assert np.array_equal(found[np.lexsort(found.T)], tree[np.lexsort(tree.T)])
    again = jax.make_jaxpr(lambda lists, x: renewed({"all": source}, lists, x, EDGE * jnp.eye(3)))(lists, x)
    assert largest(again.jaxpr) <= MANY * max(listed.room.slots, 32)
