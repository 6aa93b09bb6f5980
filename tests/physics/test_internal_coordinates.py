"""Internal coordinates against NumPy's own geometry, derivatives by central differences, and brute-force images."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.physics import internal_coordinates as ic
from hpcfit.physics import periodic

STEP = 1e-5  # of central differences: error ~ STEP^2 f''' + 1e-16 / STEP, both about 1e-10 here
TRICLINIC = np.array([[9.0, 0, 0], [3.1, 8.0, 0], [-2.2, 2.9, 10.0]])
BEADS = {"pairs": [[0, 1], [2, 5], [4, 1]], "angles": [[0, 1, 2], [3, 5, 4]], "dihedrals": [[0, 1, 2, 3], [5, 3, 1, 4]]}


def random_beads(n=6, seed=0):
    return np.random.default_rng(seed).normal(scale=2.0, size=(n, 3))


@pytest.mark.parametrize("kind", list(BEADS))
@pytest.mark.parametrize("box", [None, TRICLINIC], ids=["free", "triclinic"])
def test_gradients_are_central_differences(kind, box):
    R, beads = random_beads() * (2.0 if box is not None else 1.0), np.array(BEADS[kind])
    _, gradient = ic.COORDINATES[kind](jnp.asarray(R), beads, box)
    for term, places in enumerate(beads):
        for place, bead in enumerate(places):
            for axis in range(3):
                up, down = R.copy(), R.copy()
                up[bead, axis] += STEP
                down[bead, axis] -= STEP
                q = [np.asarray(ic.COORDINATES[kind](jnp.asarray(r), beads, box)[0])[term] for r in (up, down)]
                change = (q[0] - q[1] + np.pi) % (2 * np.pi) - np.pi if kind == "dihedrals" else q[0] - q[1]
                assert gradient[term, place, axis] == pytest.approx(change / (2 * STEP), abs=1e-8)


def test_known_geometries():
    square = jnp.array([[1.0, 0, 0], [0, 0, 0], [0, 1.0, 0], [0, 1.0, 1.0], [1.0, 1.0, 0]])
    assert ic.angles(square, np.array([[0, 1, 2]]), None)[0][0] == pytest.approx(np.pi / 2)
    assert ic.dihedrals(square, np.array([[0, 1, 2, 4]]), None)[0][0] == pytest.approx(0)  # cis
    # IUPAC: looking from the second to the third bead (along +y, x to the left ...), +z comes 90 degrees after +x
    # counter-clockwise, that is minus 90 degrees.
    assert ic.dihedrals(square, np.array([[0, 1, 2, 3]]), None)[0][0] == pytest.approx(-np.pi / 2)


def test_the_sign_of_a_dihedral_is_that_of_mdanalysis():
    from MDAnalysis.lib.distances import calc_dihedrals

    R = random_beads(40, seed=3).astype(np.float32)
    beads = np.arange(40).reshape(10, 4)
    expected = calc_dihedrals(*(R[beads[:, place]] for place in range(4)))
    # float32 coordinates of a few A: 1e-6 relative, divided by the sine of flat angles
    np.testing.assert_allclose(ic.dihedrals(jnp.asarray(R, float), beads, None)[0], expected, atol=1e-5)


def test_nearest_images_are_those_of_a_search_below_half_the_width():
    rng = np.random.default_rng(1)
    half = periodic.smallest_width(TRICLINIC) / 2
    a, b = rng.uniform(-20, 20, (2, 4000, 3))
    shifts = np.array(list(itertools.product(range(-6, 7), repeat=3))) @ TRICLINIC
    nearest = np.min([np.linalg.norm(a - b + s, axis=1) for s in shifts], axis=0)
    found = np.linalg.norm(ic.separation(a, b, TRICLINIC), axis=1)
    within = nearest < half
    assert within.sum() > 400
    np.testing.assert_allclose(found[within], nearest[within], rtol=1e-12)
    assert np.all(found[~within] >= half)


def test_a_cutoff_beyond_half_the_width_is_refused():
    periodic.check_cutoff(2.99, np.diag([6.0, 9.0, 9.0]))
    with pytest.raises(InputError, match=r"3\.1 A.*6\.000 A"):
        periodic.check_cutoff(3.1, np.array([np.diag([9.0, 9.0, 9.0]), np.diag([6.0, 9.0, 9.0])]))


def test_the_width_of_a_cell_is_its_volume_over_a_face():
    a, b, c = TRICLINIC
    volume = abs(np.linalg.det(TRICLINIC))
    widths = [volume / np.linalg.norm(np.cross(*faces)) for faces in ((a, b), (b, c), (c, a))]
    assert periodic.smallest_width(TRICLINIC) == pytest.approx(min(widths))


def test_terms_and_exclusions_of_a_branched_ring():
    bonds = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 1), (4, 5), (7, 6)]
    joined = {*bonds, *(bond[::-1] for bond in bonds)}
    chains = lambda length: {  # noqa: E731
        min(beads, beads[::-1])
        for beads in itertools.permutations(range(8), length)
        if all(pair in joined for pair in itertools.pairwise(beads))
    }
    terms = ic.bonded_terms(8, np.array(bonds))
    for found, length in zip(terms, (2, 3, 4)):
        assert len(found) == len(chains(length))
        assert {min(t, t[::-1]) for t in map(tuple, found.tolist())} == chains(length)
    for exclude in range(4):
        near = {ends for length in range(2, exclude + 2) for c in chains(length) for ends in [(c[0], c[-1])]}
        expected = [(i, j) for i, j in itertools.combinations(range(8), 2) if not {(i, j), (j, i)} & near]
        assert list(map(tuple, ic.pairs_beyond(8, np.array(bonds), exclude).tolist())) == expected


@pytest.mark.parametrize("bond", [(0, 3), (1, 1), (-1, 0)])
def test_a_bond_that_cannot_be_is_refused(bond):
    with pytest.raises(InputError, match="among 3 beads"):
        ic.bonded_terms(3, np.array([bond]))


def test_degenerate_geometries_give_no_nan():
    R = jnp.array([[0.0, 0, 0], [1.0, 0, 0], [2.0, 0, 0], [3.0, 0, 0], [3.0, 0, 0]], jnp.float32)
    for kind, beads in {"pairs": [[3, 4]], "angles": [[0, 1, 2], [2, 3, 4]], "dihedrals": [[0, 1, 2, 3]]}.items():
        q, gradient = ic.COORDINATES[kind](R, np.array(beads), None)
        assert np.isfinite(q).all()
        assert np.isfinite(gradient).all()
    assert np.isfinite(jax.grad(lambda u: ic.length(u))(jnp.zeros(3))).all()
