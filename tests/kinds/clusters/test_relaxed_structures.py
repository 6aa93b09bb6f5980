"""Structures relaxed in Lennard-Jones and charges: closed forms, molecules keep their shape, clusters come apart.

Not proved: that such minima are those of the simulation's energy.
"""

import numpy as np
import pytest

from hpcfit.energies.constants import COULOMB
from hpcfit.kinds.clusters.composition import Structure
from hpcfit.kinds.clusters.relaxation import SimpleEnergy, molecule_of, relax

REACH = {("Pb", "I"): 4.0, ("Pb", "Pb"): 6.0, ("I", "I"): 6.0}
PLAIN = SimpleEnergy({"Pb": 3.0, "I": 4.0}, {"Pb": 1.0, "I": 4.0}, {})


def cluster(elements, positions):
    return Structure(tuple(elements), tuple(elements), np.array(positions, float))


def test_a_pair_ends_at_the_minimum_of_its_potential():
    found = relax(cluster(["Pb", "I"], [[0, 0, 0], [3.5, 0.3, 0]]), np.arange(2), PLAIN, REACH)
    r = np.linalg.norm(found.structure.positions[0] - found.structure.positions[1])
    # E is flat there: 36 (4^(1/3)) eps/sigma^2 = 9.3 kJ/mol/A^2, so a gradient of 1e-3 is 1.1e-4 A
    assert r == pytest.approx(2 ** (1 / 6) * 3.5, abs=2e-4)
    assert found.after == pytest.approx(-2.0, abs=1e-6)  # sqrt(1 x 4)
    assert found.converged
    assert found.whole
    assert found.moved > 0


def test_charges_shorten_a_pair_as_much_as_their_force_says():
    energy = PLAIN._replace(charges={"Pb": 2.0, "I": -1.0}, permittivity=40.0)
    found = relax(cluster(["Pb", "I"], [[0, 0, 0], [3.5, 0, 0]]), np.arange(2), energy, REACH)
    r = np.linalg.norm(found.structure.positions[0] - found.structure.positions[1])
    sixth = (3.5 / r) ** 6
    force = 24 * 2.0 * (2 * sixth**2 - sixth) / r - 2 * 10 * COULOMB / 40.0 / r**2
    assert force == pytest.approx(0.0, abs=1e-3)
    assert r < 2 ** (1 / 6) * 3.5


def test_molecules_keep_their_shape_and_positions_their_centre():
    x = [[0, 0, 0], [3.2, 0, 0], [4.4, 0, 0], [3.2, 1.2, 0]]
    start = Structure(("Pb", "X", "X", "X"), ("Pb", "I", "I", "I"), np.array(x, float))
    molecule = molecule_of(start.species, {"X": 3})
    np.testing.assert_array_equal(molecule, [0, 1, 1, 1])
    reach = {("Pb", "X"): 4.0, ("X", "X"): 2.0}
    found = relax(start, molecule, PLAIN, reach).structure.positions
    within = np.linalg.norm(found[[1, 1, 2]] - found[[2, 3, 3]], axis=1)
    rest = np.linalg.norm(start.positions[[1, 1, 2]] - start.positions[[2, 3, 3]], axis=1)
    # forces of some eps/sigma against springs of 2000 kJ/mol/A^2
    np.testing.assert_allclose(within, rest, atol=0.01)
    np.testing.assert_allclose(found.mean(axis=0), start.positions.mean(axis=0), atol=1e-9)


def test_what_comes_apart_stays_as_it_was_grown():
    energy = PLAIN._replace(charges={"Pb": 2.0, "I": 1.0})
    start = cluster(["Pb", "I"], [[0, 0, 0], [3.5, 0, 0]])
    found = relax(start, np.arange(2), energy, REACH)
    assert not found.whole
    np.testing.assert_array_equal(found.structure.positions, start.positions)
    assert found.after < found.before


@pytest.mark.parametrize("noise", [1e-8, -1e-8], ids=["more", "less"])
def test_a_change_of_the_start_by_1e_8_moves_the_end_by_no_more_than_its_convergence(noise):
    start = np.array([[0, 0, 0], [3.6, 0.2, 0], [1.5, 3.3, 0.4]])

    def distances(shift):
        moved = start + np.outer([0, shift, -shift], [1, 1, 1])
        x = relax(cluster(["Pb", "I", "I"], moved), np.arange(3), PLAIN, REACH).structure.positions
        return np.linalg.norm(x[[0, 0, 1]] - x[[1, 2, 2]], axis=1)

    np.testing.assert_allclose(distances(noise), distances(0.0), atol=1e-3)
