"""Supports against distances of an independent shortest-path search; classes of molecules whose symmetry is known."""

import itertools

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.csgraph import shortest_path

from hpcfit.kinds.force_map import maps as fm
from hpcfit.kinds.force_map.constraints import rigid_groups
from hpcfit.kinds.force_map.support import support_in_residue, support_within, tied_classes


def system(n_atoms, beads, constraints=(), left_out=()):
    """beads: atoms of each, of equal weights."""
    M = np.zeros((len(beads), n_atoms))
    for bead, atoms in enumerate(beads):
        M[bead, atoms] = 1 / len(atoms)
    group = rigid_groups(n_atoms, np.array(constraints).reshape(-1, 2), left_out)
    return fm.reduced(fm.Beads(tuple(f"B{i}" for i in range(len(beads))), scipy.sparse.csr_array(M)), group)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("distance", [0, 1, 3, None])
def test_support_is_what_a_shortest_path_search_finds(seed, distance):
    rng, n = np.random.default_rng(seed), 60
    bonds = np.array([[i, rng.integers(max(0, i - 4), i)] for i in range(1, n) if i % 20])  # trees of 20 atoms
    constraints = bonds[rng.random(len(bonds)) < 0.3]
    found = system(n, [[0, 1], [17], [25, 30, 39], [59]], constraints)
    weight = np.ones((n, n)) * np.inf
    weight[tuple(bonds.T)] = 1
    weight[tuple(constraints.T)] = 1e-3  # a rigid group is one node
    paths = shortest_path(np.where(np.isinf(weight), 0, weight), directed=False)
    supports = support_within(bonds, found, distance)
    for bead, groups in enumerate(supports):
        away = paths[found.beads.atoms(bead)].min(axis=0)
        near = np.unique(found.group[away < (1e9 if distance is None else distance + 0.5)])
        np.testing.assert_array_equal(groups[groups >= 0], near)
        assert np.all(groups[len(near) :] == -1)


def test_virtual_sites_are_in_no_support():
    found = system(5, [[0], [4]], [[1, 2]], left_out=[3])
    bonds = [[0, 1], [2, 3], [0, 3], [3, 4]]
    np.testing.assert_array_equal(support_within(bonds, found, None), [[0, 1], [2, -1]])
    np.testing.assert_array_equal(support_in_residue(np.array([0, 0, 1, 1, 1]), found), [[0, 1], [1, 2]])


# ---- classes ---------------------------------------------------------------------------------------------------------


def classes_of(found, elements, residue, residue_names, bonds, distance=None, names=None):
    """[bead][group] -> class, a dictionary for each bead."""
    support = support_within(bonds, found, distance)
    classes = tied_classes(support, found, elements, names or elements, np.array(residue), residue_names, bonds)
    assert np.array_equal(classes >= 0, support >= 0)
    return [dict(zip(groups.tolist(), kinds.tolist())) for groups, kinds in zip(support, classes)]


def test_water_has_two_classes_in_any_order_of_its_atoms():
    found = system(6, [[0], [4]])
    of = classes_of(found, "OHHHOH", [0, 0, 0, 1, 1, 1], ["HOH"] * 2, [[0, 1], [0, 2], [4, 3], [5, 4]])
    assert of[0] == {0: 0, 1: 1, 2: 1}
    assert of[1] == {3: 1, 4: 0, 5: 1}
    # rigid water is one group; a bead on one hydrogen makes the other a different atom
    assert classes_of(system(3, [[0]], [[0, 1], [0, 2]]), "OHH", [0] * 3, ["HOH"], [[0, 1], [0, 2]]) == [{0: 0}]
    assert len(set(classes_of(system(3, [[1]]), "OHH", [0] * 3, ["HOH"], [[0, 1], [0, 2]])[0].values())) == 3
    # a mean of all atoms has the same weight in all
    assert classes_of(system(3, [[0, 1, 2]]), "OHH", [0] * 3, ["HOH"], [[0, 1], [0, 2]])[0] == {0: 0, 1: 1, 2: 1}


def test_different_molecules_share_nothing():
    bonds = [[0, 1], [0, 2], [3, 4], [3, 5]]
    of = classes_of(system(6, [[0], [3]]), "OHHOHH", [0, 0, 0, 1, 1, 1], ["HOH", "TIP"], bonds)
    assert not set(of[0].values()) & set(of[1].values())
    of = classes_of(system(6, [[0], [3]]), "OHHOHD", [0, 0, 0, 1, 1, 1], ["HOH", "HOH"], bonds)
    assert not set(of[0].values()) & set(of[1].values())


def test_beads_at_both_ends_of_a_molecule_see_it_from_their_end():
    bonds = [[i, i + 1] for i in range(5)]
    of = classes_of(system(6, [[0], [5]]), "CCCCCC", [0] * 6, ["HEX"], bonds)
    assert len(set(of[0].values())) == 6
    assert of[0] == {atom: of[1][5 - atom] for atom in range(6)}
    # one bead of the middle makes its two sides equal
    (middle,) = classes_of(system(5, [[2]]), "CCCCC", [0] * 5, ["PEN"], bonds[:4])
    assert middle[0] == middle[4]
    assert middle[1] == middle[3]
    assert len(set(middle.values())) == 3


def test_rings_and_branches():
    """Toluene without hydrogens: a methyl (0), ipso (1), ortho (2, 6), meta (3, 5), para (4)."""
    ring = [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 6], [6, 1]]
    (of,) = classes_of(system(7, [[0]]), "CCCCCCC", [0] * 7, ["TOL"], ring)
    assert of[2] == of[6]
    assert of[3] == of[5]
    assert len(set(of.values())) == 5


def polymer(n_units, rng=None):
    """A chain of units C(0)-C(1), each with a hydrogen; a bead on the first C of each. Atoms shuffled within units."""
    order = np.arange(4 * n_units).reshape(n_units, 4)
    if rng is not None:
        order = rng.permuted(order, axis=1)
    bonds = [[u[0], u[1]] for u in order] + [[u[0], u[2]] for u in order] + [[u[1], u[3]] for u in order]
    bonds += [[a[1], b[0]] for a, b in itertools.pairwise(order)]
    elements = np.empty(4 * n_units, dtype="<U1")
    elements[order] = list("CCHH")
    found = system(4 * n_units, [[u[0]] for u in order])
    return order, classes_of(found, list(elements), np.arange(4 * n_units) // 4, ["PE"] * n_units, np.array(bonds), 3)


def test_units_of_a_polymer_have_one_class_for_each_offset_and_atom():
    order, of = polymer(9)
    seen = [
        {(other - unit, atom): of[unit].get(int(order[other, atom])) for other in range(9) for atom in range(4)}
        for unit in range(9)
    ]
    inner = [{key: kind for key, kind in seen[unit].items() if kind is not None} for unit in (3, 4, 5)]
    assert inner[0] == inner[1] == inner[2]
    assert len(set(inner[0].values())) == len(inner[0])
    # the ends of the chain are bonded otherwise
    assert not set(of[0].values()) & set(of[4].values())


def test_classes_do_not_depend_on_the_order_of_atoms():
    order, of = polymer(6)
    shuffled, other = polymer(6, np.random.default_rng(0))
    pairs = {
        (of[unit][int(order[at])], other[unit][int(shuffled[at])])
        for unit in range(6)
        for at in np.ndindex(6, 4)
        if int(order[at]) in of[unit]
    }
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_a_residue_without_bonds_is_told_apart_by_names():
    residue, names = [0, 0, 0, 1, 1, 1], ["O", "H1", "H2", "H2", "O", "H1"]
    found, none = system(6, [[0], [4]]), np.zeros((0, 2), int)
    support = support_in_residue(np.array(residue), found)
    classes = tied_classes(support, found, "OHHHOH", names, np.array(residue), ["HOH"] * 2, none)
    np.testing.assert_array_equal(classes, [[0, 1, 2], [2, 0, 1]])


def test_classes_make_a_tied_map_of_any_number_of_molecules():
    """Forces that are one law for all molecules: the tied coefficient is found in every molecule, at any place."""
    n = 8
    rng = np.random.default_rng(0)
    order = rng.permuted(np.arange(3 * n).reshape(n, 3), axis=1)
    f = rng.standard_normal((400, 3 * n, 3))
    f[:, order[:, 0]] = -0.9 * (f[:, order[:, 1]] + f[:, order[:, 2]])
    elements = np.empty(3 * n, dtype="<U1")
    elements[order] = list("OHH")
    bonds = np.concatenate([order[:, [0, 1]], order[:, [0, 2]]])
    found = system(3 * n, [[o] for o in order[:, 0]])
    support = support_within(bonds, found, None)
    classes = tied_classes(support, found, elements, elements, np.arange(3 * n) // 3, ["HOH"] * n, bonds)
    y = np.einsum("qi,tix->tqx", found.reduction().toarray(), f)
    C = fm.tied_map(np.einsum("tqx,tpx->qp", y, y) / 1200, found, support, classes)
    for bead, atoms in enumerate(order):
        np.testing.assert_allclose(C[bead, atoms], [1, 0.9, 0.9], atol=1e-10)  # no noise is left: exact
