"""Beads as particles: residues, masses, bonds and types, against what a hand would write down."""

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.force_map.beads import open_beads
from hpcfit.kinds.force_map.coarse_particles import bead_types, coarse_particles
from hpcfit.kinds.force_map.config import BeadsConfig
from hpcfit.store.particles import Particles

# Chain A: ALA-GLY-ALA, joined by C-N; chain B: one ALA, not joined to it. Backbone N CA C, and CB of alanines.
NAMES = ("N", "CA", "C", "CB", "N", "CA", "C", "N", "CA", "C", "CB", "N", "CA", "C", "CB")
RESIDUE = np.repeat([0, 1, 2, 3], [4, 3, 4, 4])
BONDS = [(0, 1), (1, 2), (1, 3), (2, 4), (4, 5), (5, 6), (6, 7), (7, 8), (8, 9), (8, 10), (11, 12), (12, 13), (12, 14)]


def atoms() -> Particles:
    return Particles(
        names=NAMES,
        elements=tuple(name[0] for name in NAMES),
        residue=RESIDUE,
        residue_names=("ALA", "GLY", "ALA", "ALA"),
        residue_numbers=(5, 6, 7, 1),
        chains=("A", "A", "A", "B"),
        masses=[14.0 if name == "N" else 12.0 for name in NAMES],
        bonds=np.array(BONDS),
    )


def coarse(bonds="auto", **beads) -> Particles:
    return coarse_particles(open_beads(BeadsConfig(**beads), atoms()), atoms(), bonds)


def test_one_bead_a_residue_is_a_chain_where_residues_are_bonded():
    found = coarse(residue="CA")
    assert found.names == ("CA",) * 4
    assert found.elements == ("",) * 4
    assert found.residue_names == ("ALA", "GLY", "ALA", "ALA")
    assert found.residue_numbers == (5, 6, 7, 1)
    assert found.chains == ("A", "A", "A", "B")
    np.testing.assert_array_equal(found.residue, [0, 1, 2, 3])
    np.testing.assert_array_equal(found.bonds, [[0, 1], [1, 2]])
    np.testing.assert_array_equal(found.masses, [50, 38, 50, 50])  # all atoms of the residue
    assert found.constraints.shape == (0, 2)
    assert bead_types(found, "residue") == ["ALA", "GLY", "ALA", "ALA"]
    assert bead_types(found, "one") == ["bead"] * 4
    assert bead_types(found, "each") == ["0", "1", "2", "3"]


def test_several_beads_a_residue_share_its_mass_and_join_end_to_end():
    """N and C of each residue: N-C within, C-N between."""
    found = coarse(each="name N C")
    np.testing.assert_array_equal(found.bonds, [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [6, 7]])
    np.testing.assert_array_equal(found.masses, [25, 25, 19, 19, 25, 25, 25, 25])
    assert bead_types(found, "residue") == ["ALA.0", "ALA.1", "GLY.0", "GLY.1", "ALA.0", "ALA.1", "ALA.0", "ALA.1"]


def test_residues_without_a_bead_are_left_out_and_end_the_chain():
    found = coarse(each="name CB")
    assert found.residue_numbers == (5, 7, 1)
    np.testing.assert_array_equal(found.residue, [0, 1, 2])
    assert not len(found.bonds)
    np.testing.assert_array_equal(found.masses, [50, 50, 50])


def test_beads_in_any_order_have_the_place_that_they_have_in_their_residue():
    found = coarse(atoms=[[9], [0], [7], [2]])  # C of residue 7, N of 5, N of 7, C of 5
    np.testing.assert_array_equal(found.residue, [1, 0, 1, 0])
    assert bead_types(found, "residue") == ["ALA.0", "ALA.0", "ALA.1", "ALA.1"]


def test_centres_keep_their_names():
    found = coarse(centers=["resid 5 6", "segid B and name CB"])
    assert found.names == ("resid 5 6", "CB")


def test_massless_beads_get_a_mass_that_can_be_simulated():
    light = atoms().changed(masses=np.where(RESIDUE == 1, 0.1, 12.0))
    found = coarse_particles(open_beads(BeadsConfig(residue="CA"), light), light, "auto")
    np.testing.assert_array_equal(found.masses, [48, 1, 48, 48])


def test_given_bonds():
    assert not len(coarse("none", residue="CA").bonds)
    np.testing.assert_array_equal(coarse([(3, 0), (1, 2)], residue="CA").bonds, [[0, 3], [1, 2]])
    with pytest.raises(InputError, match=r"bonds names beads \[2, 4\], there are 4"):
        coarse([(0, 1), (2, 4)], residue="CA")
