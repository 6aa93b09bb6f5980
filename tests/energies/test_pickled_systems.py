"""Systems that root reads and hands to other ranks: pickled, they are the same energies and write the same Systems."""

import pickle

import jax
import numpy as np
import pytest

from hpcfit.energies.systems import from_system
from tests.energies.openmm_cases import CASES

pytest.importorskip("openmm")


@pytest.mark.parametrize("name", ["TIP4P-Ew, PME", "amber19 with CMAP", "GBn2", "Lennard-Jones, reaction field"])
def test_a_pickled_system_is_the_same(name):
    case = CASES[name](None)
    found = from_system(case.system, case.topology)
    again = pickle.loads(pickle.dumps(found))
    assert again.labels == found.labels
    energy = pickle.loads(pickle.dumps(found.energy))
    for other in (again.energy, energy):
        leaves, structure = jax.tree.flatten(found.energy)
        of_other, other_structure = jax.tree.flatten(other)
        assert other_structure == structure
        for one, two in zip(leaves, of_other):
            np.testing.assert_array_equal(one, two)
    moved = {leaf: 1.1 * values for leaf, values in found.parameters.items()}
    assert again.to_xml(moved) == found.to_xml(moved)
