"""Positions of beads: M r, whole across the faces of the box, and an error where their image is not defined."""

import numpy as np
import pytest
import scipy.sparse

from hpcfit.errors import InputError
from hpcfit.kinds.force_map.mapped_positions import Mapping
from hpcfit.physics.periodic import nearest_image

M = scipy.sparse.csr_array(np.array([[0.5, 0.25, 0.25, 0, 0], [0, 0, 0, 0, 1.0], [0, 0.1, 0, 0.9, 0]]))
BOX = np.array([[9.0, 0, 0], [2.0, 8.0, 0], [-1.0, 3.0, 10.0]])  # triclinic


def molecule(frames: int = 5) -> np.ndarray:
    return np.random.default_rng(3).uniform(0, 2.0, (frames, 5, 3))


def test_without_a_box_it_is_the_product():
    r = molecule()
    np.testing.assert_allclose(Mapping.of(M)(r, None), np.einsum("Ii,tix->tIx", M.toarray(), r), rtol=0, atol=1e-15)


def test_atoms_wrapped_into_the_box_give_the_same_bead_up_to_a_vector_of_the_cell():
    r = molecule()
    random = np.random.default_rng(4).integers(-2, 3, (5, 5, 3))
    wrapped = r + random @ BOX
    box = np.broadcast_to(BOX, (5, 3, 3))
    apart = Mapping.of(M)(wrapped, box) - Mapping.of(M)(r, None)
    whole = np.einsum("tIx,xy->tIy", apart, np.linalg.inv(BOX))
    np.testing.assert_allclose(whole, np.rint(whole), atol=1e-12)  # rounding of numbers of 30 A in double precision


def test_each_frame_has_its_own_box():
    r = molecule(2)
    boxes = np.stack([BOX, 1.2 * BOX])
    shift = np.array([[1, 0, 0]])
    wrapped = r.copy()
    wrapped[:, 2:3] += np.einsum("ax,txy->tay", shift, boxes)
    np.testing.assert_allclose(Mapping.of(M)(wrapped, boxes), Mapping.of(M)(r, None), atol=1e-12)


def test_a_bead_as_large_as_half_the_box_is_an_error_that_names_its_atoms():
    r = molecule(1)
    r[0, 1] = r[0, 0] + [4, 3, 0]  # within half of each edge, but not of the box
    with pytest.raises(InputError, match=r"bead 0: its atoms 0 and 1 are 5\.00 A apart, half the width .* 4\.35 A"):
        Mapping.of(M)(r, np.broadcast_to(np.diag([8.7, 8.7, 20]), (1, 3, 3)))


CHAIN = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 6]])


@pytest.mark.parametrize("order", [range(7), (3, 0, 6, 1, 5, 2, 4)], ids=["in order", "mixed"])
def test_a_bead_longer_than_half_the_box_is_whole_along_its_bonds(order):
    place = np.array(order)  # of each site of the chain in the list of atoms
    chain = np.zeros((2, 7, 3))
    chain[:, place] = np.arange(7)[:, None] * np.array([2.0, 0.3, -0.2])
    boxes = np.stack([np.diag([12.0, 9.0, 9.0]), np.diag([11.0, 9.0, 9.0])])
    wrapped = chain + np.einsum("tai,tij->taj", np.random.default_rng(6).integers(-2, 3, (2, 7, 3)), boxes)
    whole = scipy.sparse.csr_array(np.full((1, 7), 1 / 7))
    found = Mapping.of(whole, place[CHAIN])(wrapped, boxes)
    turns = np.einsum("tIx,txy->tIy", found - chain.mean(axis=1, keepdims=True), np.linalg.inv(boxes))
    np.testing.assert_allclose(turns, np.rint(turns), atol=1e-12)
    np.testing.assert_allclose(
        Mapping.of(whole, place[CHAIN])(chain, None), chain.mean(axis=1, keepdims=True), atol=1e-12
    )


def test_bonds_that_leave_a_bead_are_not_followed():
    pair = scipy.sparse.csr_array(np.array([[0.5, 0, 0.5]]))
    r = np.array([[[0.0, 0, 0], [4.0, 0, 0], [8.0, 0, 0]]])
    box = np.diag([10.0, 10.0, 10.0])[None]
    found = Mapping.of(pair, np.array([[0, 1], [1, 2]]))(r, box)
    np.testing.assert_allclose(found, [[[-1.0, 0, 0]]], atol=1e-12)  # the nearest image of atom 2 is at -2


def test_the_nearest_image_is_the_nearest_of_all():
    random = np.random.default_rng(5)
    half = 0.5 / np.linalg.norm(np.linalg.inv(BOX), axis=0).max()
    step = random.normal(size=(200, 1, 3))
    step *= half * random.uniform(0, 0.99, (200, 1, 1)) / np.linalg.norm(step, axis=2, keepdims=True)
    shifted = step + random.integers(-3, 4, (200, 1, 3)) @ BOX
    np.testing.assert_allclose(nearest_image(shifted, np.broadcast_to(BOX, (200, 3, 3))), step, atol=1e-12)
