"""Lists of neighbours: the same energies and derivatives as all pairs, and never silently wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.energies.columns import Column, entries, fixed, part
from hpcfit.energies.energy import Energy, require_used
from hpcfit.energies.lists import neighbour_lists, pair_source
from hpcfit.energies.pair_potentials import PairPotential
from hpcfit.errors import InputError

BOX = np.array([[2.0, 0.0, 0.0], [0.4, 2.1, 0.0], [-0.5, 0.6, 2.2]])
ATOMS = 61
EXCLUDED = [(0, 1), (1, 2), (60, 0), (7, 38)]
PARAMETERS = {"lj.sigma": np.array([0.3, 0.34]), "lj.epsilon": np.array([0.5, 0.9])}


@jax.jit
def value(energy, positions, box, lists=None):
    return energy(positions, PARAMETERS, box, lists)


@pytest.fixture(scope="module")
def positions():
    return np.random.default_rng(0).uniform(0, 1, (ATOMS, 3)) @ BOX


@pytest.fixture(scope="module")
def energy():
    kind = np.arange(ATOMS) % 2
    pairs = pair_source(ATOMS, cutoff=0.8, excluded=EXCLUDED, periodic=True)
    return Energy((PairPotential(pairs=pairs, sigma=entries("lj.sigma", kind), epsilon=entries("lj.epsilon", kind)),))


def by_hand(positions):
    """The energy by a sum over pairs, with the nearest of 27 images."""
    total, kind = 0.0, np.arange(ATOMS) % 2
    images = np.array(np.meshgrid(*[[-1, 0, 1]] * 3)).reshape(3, -1).T @ BOX
    excluded = {frozenset(pair) for pair in EXCLUDED}
    for i in range(ATOMS):
        for j in range(i):
            r = np.sqrt(np.min(np.sum((positions[i] - positions[j] + images) ** 2, axis=1)))
            if r < 0.8 and frozenset((i, j)) not in excluded:
                sigma = np.mean(PARAMETERS["lj.sigma"][kind[[i, j]]])
                epsilon = np.sqrt(np.prod(PARAMETERS["lj.epsilon"][kind[[i, j]]]))
                total += 4 * epsilon * ((sigma / r) ** 12 - (sigma / r) ** 6)
    return total


def test_all_pairs_and_lists_are_the_sum_by_hand(energy, positions):
    expected = by_hand(positions)
    assert float(value(energy, positions, BOX)) == pytest.approx(expected, rel=1e-12)
    lists = energy.lists(positions, BOX)
    assert float(value(energy, positions, BOX, lists)) == pytest.approx(expected, rel=1e-12)


def test_derivatives_with_lists_are_those_of_all_pairs(energy, positions):
    lists = energy.lists(positions, BOX)
    moved = positions + np.random.default_rng(1).uniform(-0.01, 0.01, positions.shape)

    @jax.jit
    def derivatives(energy, lists):
        def slope(x, p):
            return jax.grad(lambda x, p: energy(x, p, BOX, lists), (0, 1))(x, p)

        gradient, product = jax.jvp(lambda x: slope(x, PARAMETERS), (moved,), (jnp.cos(moved * 40),))
        box = jax.grad(lambda box: energy(moved, PARAMETERS, box))(BOX)
        return gradient, product, box

    for one, other in zip(jax.tree.leaves(derivatives(energy, lists)), jax.tree.leaves(derivatives(energy, None))):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 * np.abs(other).max())


def test_an_atom_that_moves_too_far_gives_nan_until_the_lists_are_renewed(energy, positions):
    lists = energy.lists(positions, BOX, skin=0.1)
    moved = positions.copy()
    moved[5, 1] += 0.049
    assert np.isfinite(value(energy, moved, BOX, lists))
    moved[5, 1] += 0.002
    assert np.isnan(value(energy, moved, BOX, lists))
    forces = jax.jit(jax.grad(lambda x, energy, lists: energy(x, PARAMETERS, BOX, lists)))
    assert np.all(np.isnan(forces(moved, energy, lists)))  # never 0
    again = jax.jit(lambda energy, lists, x: energy.renewed(lists, x, BOX))(energy, lists, moved)
    assert float(value(energy, moved, BOX, again)) == pytest.approx(float(value(energy, moved, BOX)), rel=1e-12)
    [listed], sheared = again.values(), BOX + 0.001 * np.eye(3)[[1, 0, 2]].T * [1, 0, 0]
    assert not bool(listed.holds(moved, sheared))


def test_lists_are_kept_while_they_hold_and_renewed_where_they_do_not(energy, positions):
    lists = energy.lists(positions, BOX, skin=0.1)
    current = jax.jit(lambda energy, lists, x: energy.current(lists, x, BOX))
    for way, renewed in ((0.04, False), (0.06, True)):
        moved = positions.copy()
        moved[5, 1] += way
        [found], [before] = current(energy, lists, moved).values(), lists.values()
        assert bool(found.holds(moved, BOX))
        np.testing.assert_array_equal(found.positions, moved if renewed else before.positions)


def test_lists_have_room_for_the_densest_of_several_starts(energy, positions):
    dense = 0.7 * positions
    lists = energy.lists(np.stack([positions, dense]), BOX)
    [alone], [both] = energy.lists(positions, BOX).values(), lists.values()
    assert both.table.index.shape[1] > alone.table.index.shape[1]
    np.testing.assert_array_equal(both.positions, positions)
    [renewed] = energy.renewed(lists, dense, BOX).values()
    assert not bool(renewed.full)


def test_lists_without_slots_enough_say_so(energy, positions):
    lists = energy.lists(positions, BOX)
    dense = 0.3 * positions  # far more neighbours
    full = energy.renewed(lists, dense, BOX)
    assert all(bool(listed.full) for listed in full.values())
    assert np.isnan(value(energy, dense, BOX, full))


def test_a_box_that_is_too_small_is_one_error_and_nan_where_it_has_shrunk(energy, positions):
    energy.require_box(BOX)
    with pytest.raises(InputError, match=r"the box of run.pdb is 1.4 nm wide, less than twice the cut-off of 0.8 nm"):
        energy.require_box(BOX * (1.4 / 2.0), source="run.pdb")
    with pytest.raises(InputError, match="no box is given"):
        energy.require_box(None)
    assert np.isnan(value(energy, positions, 0.79 * BOX))


def test_each_window_of_a_batch_has_lists_of_its_own(energy, positions):
    rng = np.random.default_rng(9)
    windows = jnp.array([positions, rng.permutation(positions), rng.uniform(0, 1, (ATOMS, 3)) @ BOX])
    lists = energy.lists(positions, BOX, skin=0.2)
    renewed = jax.vmap(lambda x: energy.renewed(lists, x, BOX))(windows)

    @jax.jit
    def both(energy, windows, lists):
        def slopes(lists):
            return jax.grad(lambda x: jnp.sum(jax.vmap(lambda x, lists: energy(x, PARAMETERS, BOX, lists))(x, lists)))

        return slopes(lists)(windows), jax.vmap(jax.grad(lambda x: energy(x, PARAMETERS, BOX)))(windows)

    found, expected = both(energy, windows, renewed)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_pairs_of_some_atoms_alone(positions):
    members = np.array([1, 4, 5, 11, 30, 59, 60])
    columns = {name: np.where(np.isin(np.arange(ATOMS), members), 0, -1) for name in ("lj.sigma", "lj.epsilon")}
    everywhere = {name: Column(index, np.zeros(ATOMS), name, True) for name, index in columns.items()}
    excluded = [(1, 4), (4, 7), (60, 5)]
    options = {"cutoff": 0.9, "periodic": True, "excluded": excluded}
    whole = PairPotential(
        pairs=pair_source(ATOMS, **options), sigma=everywhere["lj.sigma"], epsilon=everywhere["lj.epsilon"]
    )
    some = PairPotential(
        pairs=pair_source(ATOMS, members=members, **options),
        sigma=part(whole.sigma, members),
        epsilon=part(whole.epsilon, members),
    )
    expected = float(value(Energy((whole,)), positions, BOX))
    assert expected != 0
    assert float(value(Energy((some,)), positions, BOX)) == pytest.approx(expected, rel=1e-12)
    lists = Energy((some,)).lists(positions, BOX)
    assert float(value(Energy((some,)), positions, BOX, lists)) == pytest.approx(expected, rel=1e-12)
    assert Energy((some,)).used()["lj.sigma"].tolist() == [0]


def test_too_many_atoms_for_all_pairs_is_one_error():
    source = pair_source(3000, cutoff=0.5)
    energy = Energy((PairPotential(pairs=source, sigma=fixed(np.ones(3000)), epsilon=fixed(np.ones(3000))),))
    with pytest.raises(InputError, match="too many for all pairs"):
        energy(np.zeros((3000, 3)), {})


def test_pairs_without_cut_off_have_no_list(positions):
    source = pair_source(ATOMS)
    assert neighbour_lists({"all": source}, positions) == {}


@pytest.mark.parametrize("atoms", [1, 2, 3, 8, 9])
def test_all_pairs_stand_once(atoms):
    table = pair_source(atoms, excluded=[(0, 1)] if atoms > 2 else ()).table
    rows, slots = np.nonzero(table.inside)
    pairs = {frozenset((int(i), int(table.index[i, k]))) for i, k in zip(rows, slots)}
    assert len(pairs) == len(rows) == atoms * (atoms - 1) // 2 - (atoms > 2)


def test_a_parameter_that_no_term_takes_is_one_error(energy):
    require_used(energy, PARAMETERS)
    with pytest.raises(InputError, match=r"no term of the energy takes the parameter lj.sigm\b"):
        require_used(energy, PARAMETERS | {"lj.sigm": np.ones(2)})
    with pytest.raises(InputError, match=r"lj.sigma has 3 entries, but no term of the energy takes entry 2"):
        require_used(energy, PARAMETERS | {"lj.sigma": np.ones(3)})
