"""Statistical blocks, their sums, and products put together from any grid, against sums over raw frames."""

import numpy as np
import pytest
import scipy.sparse

from hpcfit.errors import InputError
from hpcfit.fit.grid import Shape, make_grid
from hpcfit.kinds.force_map import products as force_products
from hpcfit.kinds.force_map.bead_choice import Beads, reduced
from hpcfit.kinds.force_map.constraints import HeldDistances
from hpcfit.kinds.force_map.features import feature_forces, features_of
from hpcfit.kinds.force_map.maps import basic_map
from hpcfit.kinds.force_map.passes import (
    AtomisticFrames,
    BlockSums,
    ProductsPass,
    StatisticalBlocks,
    add_feature_products,
    padded,
)
from hpcfit.kinds.force_map.products import DenseProducts, LocalProducts
from hpcfit.kinds.force_map.virtual_sites import Average
from hpcfit.ranks import Ranks
from hpcfit.store.catalog import Block
from hpcfit.testsystems.harmonic_beads import HarmonicBeads, write_force_store
from tests.fit.thread_ranks import on_ranks

NOTHING_HELD = HeldDistances(np.empty((0, 2), int), np.empty(0, int), (), "none")
EPSILON = np.finfo(np.float32).eps

# ---- statistical blocks ----------------------------------------------------------------------------------------------


def blocks_of(sizes) -> list[Block]:
    return [Block(0, number, 0, int(size)) for number, size in enumerate(sizes)]


@pytest.mark.parametrize("seed", range(40))
def test_every_frame_is_in_exactly_one_part_and_parts_are_equal_and_in_order(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 65, rng.integers(1, 30))
    total = int(sizes.sum())
    n = int(rng.integers(1, min(total, 300) + 1))
    parts = StatisticalBlocks(n, blocks_of(sizes))
    found = []
    for number, size in enumerate(sizes):
        of_frame = np.full(size, -1)
        for piece in parts.pieces(number):
            assert 0 <= piece.rows.start < piece.rows.stop <= size
            assert np.all(of_frame[piece.rows] == -1)
            of_frame[piece.rows] = piece.part
        found.append(of_frame)
    found = np.concatenate(found)
    assert found.min() == 0
    assert np.all(np.diff(found) >= 0)
    counts = np.bincount(found, minlength=n)
    assert len(counts) == n
    assert counts.min() >= total // n
    assert counts.max() <= -(-total // n)
    np.testing.assert_array_equal(parts.frames, counts)
    assert parts.n_frames == total


def test_more_parts_than_frames():
    assert StatisticalBlocks(7, blocks_of([3, 4])).frames.tolist() == [1] * 7
    with pytest.raises(InputError, match="blocks = 8 statistical blocks, but there are 7 frames"):
        StatisticalBlocks(8, blocks_of([3, 4]))


# ---- sums ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reductions", ["reproducible", "fast"])
@pytest.mark.parametrize("size", [1, 3])
def test_block_sums_are_those_of_all_ranks(reductions, size):
    """Of 40 numbers up to 10: rounded to 3e-14 each by the reproducible sum, to 40 x 10 x 1e-16 by the other."""
    rng = np.random.default_rng(0)
    part, values = rng.integers(0, 4, 40), 10 * rng.normal(size=(40, 2, 3))  # parts 4 and 5 have no frames

    def work(ranks: Ranks) -> np.ndarray:
        sums = BlockSums(6, (2, 3), reductions)
        for row in range(ranks.rank, 40, size):
            sums.add(part[row], values[row])
        return sums.total(ranks)

    expected = np.stack([values[part == k].sum(axis=0) for k in range(6)])
    for found in on_ranks(size, work):
        np.testing.assert_allclose(found, expected, rtol=0, atol=40 * 3e-14)


def test_padding_of_products_is_zero():
    found = padded([np.ones((2, 3, 3)), np.full((2, 1, 1), 5.0)])
    assert found.shape == (2, 2, 3, 3)
    np.testing.assert_array_equal(found[:, 0], 1)
    assert found[:, 1].sum() == 2 * 5
    np.testing.assert_array_equal(found[:, 1, 0, 0], 5)


# ---- passes ----------------------------------------------------------------------------------------------------------

SYSTEM = HarmonicBeads(10)
CUTS = {"a": 100, "b": 37, "c": 130}  # whole blocks, short ones, and parts that end within blocks


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    r, f = SYSTEM.frames(sum(CUTS.values()), 1)
    ends = np.cumsum([0, *CUTS.values()])
    sources = {name: (r[a:b], f[a:b], None) for name, a, b in zip(CUTS, ends, ends[1:])}
    return write_force_store(tmp_path_factory.mktemp("passes") / "store", SYSTEM.particles, sources)


@pytest.fixture(scope="module")
def frames(store):
    return AtomisticFrames(store, StatisticalBlocks(7, store.blocks()), NOTHING_HELD)


def raw(parts: StatisticalBlocks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions and forces as stored, and the statistical block of each frame."""
    r, f = SYSTEM.frames(sum(CUTS.values()), 1)
    return r.astype(np.float32), f.astype(np.float32), np.repeat(np.arange(parts.n), parts.frames)


def system_of_beads():
    M = np.zeros((3, 10))
    M[0, 0], M[1, [3, 4]], M[2, 9] = 1, 0.5, 1
    return reduced(Beads(("A", "B", "C"), scipy.sparse.csr_array(M)), np.array([0, 1, 1, 2, 3, 4, 5, 6, 7, 8]))


SUPPORT = np.array([[0, 1, 2], [2, 3, -1], [6, 7, 8]])


@pytest.mark.parametrize("kind", ["dense", "local"])
@pytest.mark.parametrize(("size", "slices"), [(1, 1), (3, 1), (3, 3), (4, 2)])
def test_products_are_the_sums_over_raw_frames_on_any_grid(frames, monkeypatch, kind, size, slices):
    """In panels of 4 rows. Products of float32 are added over up to 64 frames in float32: 200 roundings at most."""
    monkeypatch.setattr(force_products, "PANEL", 4 if kind == "dense" else 1)
    of = system_of_beads()
    reduction = scipy.sparse.csr_array(of.reduction(), dtype=np.float32)
    products = DenseProducts(reduction) if kind == "dense" else LocalProducts(reduction, SUPPORT)
    assert products.n_tiles == 3

    def work(world: Ranks):
        grid = make_grid(world, Shape(size // slices, slices, ""), len(frames.parts.blocks), products.n_tiles)
        return products_of(frames, products, grid)

    found, *others = on_ranks(size, work)
    assert all(other is None for other in others)
    _, f, part = raw(frames.parts)
    g = np.einsum("qi,tix->tqx", of.reduction().toarray(), f.astype(float))
    dense = np.stack([np.einsum("tqx,tpx->qp", g[part == k], g[part == k]) for k in range(frames.parts.n)])
    if kind == "local":
        rows = np.hstack([SUPPORT, 9 + np.arange(3)[:, None]])
        dense = np.stack([dense[:, row][:, :, row] * np.outer(row >= 0, row >= 0) for row in rows], axis=1)
    scale = np.abs(dense).max()
    np.testing.assert_allclose(found, dense, rtol=0, atol=200 * EPSILON * scale)
    alone = on_ranks(1, lambda world: work_alone(products, frames))[0]
    np.testing.assert_array_equal(found, alone)


def work_alone(products, frames):
    grid = make_grid(Ranks(), Shape(1, 1, ""), len(frames.parts.blocks), products.n_tiles)
    return products_of(frames, products, grid)


def products_of(frames, products, grid) -> np.ndarray | None:
    """The sums of all tiles on root, each rank having done its blocks."""
    work = ProductsPass(frames, products, [], None, grid, SYSTEM.kT, "reproducible")
    assert list(work.run(grid.blocks)) == list(grid.blocks)
    return work.product().get("total")


def test_feature_products_are_those_of_the_frames_of_each_part(frames):
    """Of float32 features, whose products are added over up to 64 frames: 200 roundings at most."""
    of, kT = system_of_beads(), SYSTEM.kT
    features = [features_of(bead, of, basic_map(of), SUPPORT[bead], 2, 6.0) for bead in (1,)]
    sums = [BlockSums(frames.parts.n, 2 * (one.n_features + 1,), "reproducible") for one in features]
    for visit in frames.visits(range(len(frames.parts.blocks))):
        add_feature_products(features, visit, kT, sums)
    r, f, part = raw(frames.parts)
    for one, total in zip(features, sums):
        h = np.asarray(feature_forces(one, r.astype(float), f.astype(float), None, kT))
        found = total.total(Ranks())
        for k in range(frames.parts.n):
            expected = np.einsum("txa,txb->ab", h[part == k], h[part == k])
            np.testing.assert_allclose(found[k], expected, rtol=0, atol=200 * EPSILON * np.abs(expected).max())


def test_visits_give_the_forces_of_virtual_sites_to_their_parents(store):
    """Atom 9 as a site between 7 and 8, linear in them: its force is shared as its place is."""
    held = NOTHING_HELD.__class__(NOTHING_HELD.pairs, np.array([9]), (Average(9, (7, 8), (0.25, 0.75)),), "")
    parts = StatisticalBlocks(2, store.blocks())
    _, f, _ = raw(parts)
    visits = AtomisticFrames(store, parts, held).visits(range(len(parts.blocks)))
    seen = np.concatenate([visit.frames.forces for visit in visits])
    np.testing.assert_array_equal(seen[:, :7], f[:, :7])
    scale = np.abs(f).max()
    np.testing.assert_allclose(seen[:, 7], f[:, 7] + 0.25 * f[:, 9], atol=2 * EPSILON * scale)
    np.testing.assert_allclose(seen[:, 8], f[:, 8] + 0.75 * f[:, 9], atol=2 * EPSILON * scale)
    np.testing.assert_array_equal(seen[:, 9], 0)


def test_visits_are_the_blocks_asked_for_with_their_pieces_and_origins(frames):
    numbers = [4, 1]
    for number, visit in zip(numbers, frames.visits(numbers), strict=True):
        assert visit.number == number
        assert visit.block == frames.parts.blocks[number]
        assert visit.pieces == frames.parts.pieces(number)
        assert len(visit.frames.forces) == visit.block.frames == len(visit.origin.index)
        np.testing.assert_array_equal(visit.origin.frame_id, visit.block.ids()[: visit.block.frames])
