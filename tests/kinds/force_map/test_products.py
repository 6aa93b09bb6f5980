"""Products of reduced forces: panels and local ones against the plain product in double precision."""

import numpy as np
import pytest
import scipy.sparse

from hpcfit.kinds.force_map import products as force_products
from hpcfit.kinds.force_map.maps import sub_grams
from hpcfit.kinds.force_map.products import DenseProducts, LocalProducts

N, M_GROUPS, ATOMS = 3, 9, 20


def reduction() -> scipy.sparse.csr_array:
    random = np.random.default_rng(1)
    place = (random.integers(0, M_GROUPS, ATOMS), np.arange(ATOMS))
    S = scipy.sparse.csr_array((np.ones(ATOMS), place), (M_GROUPS, ATOMS))
    beads = scipy.sparse.csr_array(np.eye(N, ATOMS, 4))
    return scipy.sparse.csr_array(scipy.sparse.vstack([S, beads]), dtype=np.float32)


def forces(frames: int = 64) -> np.ndarray:
    return np.random.default_rng(2).normal(0, 30, (frames, ATOMS, 3)).astype(np.float32)


def exact(f: np.ndarray) -> np.ndarray:
    g = np.einsum("qi,tix->qtx", reduction().toarray().astype(float), f.astype(float))
    return np.einsum("qtx,ptx->qp", g, g)


def bound(f: np.ndarray) -> float:
    """Of the rounding of float32 dot products of 3 T terms: sqrt(3 T) units of the largest."""
    return np.sqrt(3 * len(f)) * np.finfo(np.float32).eps * np.abs(exact(f)).max()


@pytest.mark.parametrize("panel", [256, 5, 1])
def test_panels_make_the_whole_matrix(panel, monkeypatch):
    monkeypatch.setattr(force_products, "PANEL", panel)
    products, f = DenseProducts(reduction()), forces()
    reduced = products.reduced(f)
    tiles = [products.tile(reduced, tile) for tile in range(products.n_tiles)]
    assert [tile.shape for tile in tiles] == [products.shape(tile) for tile in range(products.n_tiles)]
    whole = products.assembled([np.asarray(tile, float) for tile in tiles])
    np.testing.assert_allclose(whole, exact(f), rtol=0, atol=bound(f))
    assert np.array_equal(whole, whole.T)


@pytest.mark.parametrize("panel", [256, 2])
def test_local_products_are_parts_of_the_whole_matrix(panel, monkeypatch):
    monkeypatch.setattr(force_products, "PANEL", panel)
    support = np.array([[0, 2, 5, -1], [1, 3, -1, -1], [4, 6, 7, 8]])
    products, f = LocalProducts(reduction(), support), forces()
    reduced = products.reduced(f)
    tiles = [products.tile(reduced, tile) for tile in range(products.n_tiles)]
    assert [tile.shape for tile in tiles] == [products.shape(tile) for tile in range(products.n_tiles)]
    whole = products.assembled([np.asarray(tile, float) for tile in tiles])
    np.testing.assert_allclose(whole, sub_grams(exact(f), support), rtol=0, atol=bound(f))


def test_products_of_parts_add_up():
    products, f = DenseProducts(reduction()), forces()
    of = lambda part: products.tile(products.reduced(part), 0).astype(float)  # noqa: E731
    np.testing.assert_allclose(of(f[:30]) + of(f[30:]), of(f), rtol=0, atol=bound(f))
