"""RMSDs from a reference structure, and minima counted by energy and structure."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hpcfit.errors import InputError
from hpcfit.kinds.structure.deviations import SAME_STRUCTURE, distinct, open_reference
from hpcfit.kinds.structure.landscapes.clusters import Cluster
from hpcfit.kinds.structure.landscapes.loops import Loops
from hpcfit.kinds.structure.landscapes.peptide import Peptide
from hpcfit.kinds.structure.structure_text import structure_text

PEPTIDE = Peptide.of_sequence("GAWKG")


def moved(x, seed):
    turned = x @ Rotation.random(random_state=seed).as_matrix().T
    return turned + np.random.default_rng(seed).normal(size=3)


@pytest.fixture
def native(tmp_path):
    _, text = structure_text(PEPTIDE, PEPTIDE.native[None], "native")
    (tmp_path / "native.pdb").write_text(text)
    return tmp_path / "native.pdb"


def test_the_deviation_is_that_of_what_is_superposed(native):
    alphas = np.array([n for n, name in enumerate(PEPTIDE.particles().names) if name == "CA"])
    reference = open_reference(native, None, PEPTIDE)
    np.testing.assert_array_equal(reference.chosen, alphas)
    bent = PEPTIDE.native.copy()
    bent[np.setdiff1d(np.arange(PEPTIDE.n), alphas)] += 1.0  # others do not count
    found = reference.rmsd(np.stack([moved(PEPTIDE.native, 0), moved(bent, 1)]))
    np.testing.assert_allclose(found, 0, atol=2e-3)  # a PDB has three digits
    whole = open_reference(native, "all", PEPTIDE).rmsd(np.stack([moved(PEPTIDE.native, 0), moved(bent, 1)]))
    assert whole[0] < 2e-3
    assert whole[1] > 0.1


def test_a_reference_of_another_molecule_is_one_error_with_both_counts(native):
    other = Peptide.of_sequence("GA")
    with pytest.raises(InputError, match="has 5 atoms of Cα, the energy has 2"):
        open_reference(native, None, other)
    with pytest.raises(InputError, match="reference_atoms"):
        open_reference(native, "resid 2", Peptide.of_sequence("GW"))
    with pytest.raises(InputError, match="can be exchanged"):
        open_reference(native, None, Cluster.of(5))
    with pytest.raises(InputError, match="have no names"):
        open_reference(native, "name CA", Loops.of(12))


def test_minima_of_one_energy_are_told_apart_by_their_structures():
    first = PEPTIDE.native
    second = first + np.random.default_rng(0).normal(scale=1.0, size=first.shape)
    near = first + np.random.default_rng(1).normal(scale=0.2 * SAME_STRUCTURE, size=first.shape)
    x = np.stack([first, moved(second, 1), moved(near, 2), moved(first, 3), second])
    assert distinct(PEPTIDE, np.full(5, -3.0), x) == 2
    assert distinct(PEPTIDE, np.array([-3.0, -3.0, -3.0, -2.0, -2.0]), x) == 4


def test_mirror_images_of_particles_without_names_are_one_minimum():
    x = np.random.default_rng(0).normal(size=(12, 3))
    both = np.stack([x, -x])
    assert distinct(Loops.of(12), np.ones(2), both) == 1
    shape = PEPTIDE.native.shape
    handed = np.random.default_rng(1).normal(scale=3.0, size=shape)
    assert distinct(PEPTIDE, np.ones(2), np.stack([handed, -handed])) == 2


def test_particles_that_can_be_exchanged_are_compared_by_energy_alone():
    x = np.random.default_rng(0).normal(size=(3, 5, 3))
    assert distinct(Cluster.of(5), np.array([-9.1, -9.1, -8.0]), x) == 2
