"""The second pass: what is written and what is added up, where forces, noise and correlation are known exactly."""

import json
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse

from hpcfit.bead_models.basis import validity_basis
from hpcfit.bead_models.linear import basis_forces
from hpcfit.errors import InputError
from hpcfit.kinds.force_map.constraints import HeldDistances
from hpcfit.kinds.force_map.map_statistics import noise_map
from hpcfit.kinds.force_map.mapped_frames import (
    SPANS,
    MappedFrames,
    MappingPass,
    MeanForce,
    NamedMap,
    check_folder,
    mapped_sums,
)
from hpcfit.kinds.force_map.mapped_positions import Mapping
from hpcfit.kinds.force_map.outputs import _decomposition, _inefficiency
from hpcfit.kinds.force_map.passes import AtomisticFrames, StatisticalBlocks
from hpcfit.store.forces import ForceContent, ForceShard, open_force_store
from hpcfit.store.particles import Particles
from hpcfit.store.positions import read_block
from hpcfit.store.shard import open_shard
from hpcfit.store.writer import ShardWriter
from hpcfit.testsystems import synthetic
from hpcfit.testsystems.harmonic_beads import HarmonicBeads, write_force_store
from tests.fit.stage_runs import stage_done
from tests.fit.thread_ranks import on_ranks

NOTHING_HELD = HeldDistances(np.empty((0, 2), int), np.empty(0, int), (), "none")
SYSTEM = HarmonicBeads(5)
M = np.eye(5)[[0, 3]]
kT = SYSTEM.kT
MADE_FROM = {"map": "test"}


def particles_of(n: int) -> Particles:
    return HarmonicBeads(n).particles


def stored(folder, r, f, cuts=(), box=None):
    """Sources "s0", "s1", ... of the frames between the cuts."""
    ends = [0, *cuts, len(r)]
    sources = {f"s{k}": (r[a:b], f[a:b], None if box is None else box[a:b]) for k, (a, b) in enumerate(pairwise(ends))}
    return write_force_store(folder, particles_of(r.shape[1]), sources)


def work_of(store, matrix, maps, parts=5, write=0, basis=None, mean_force=None, noise_sd=0.0, seed=0, blocks=None):
    """MappedFrames of beads ``matrix`` and maps by name: W, or (W, NoiseMap)."""
    named = [
        NamedMap(name, scipy.sparse.csr_array(of[0]), of[1]) if isinstance(of, tuple)
        else NamedMap(name, scipy.sparse.csr_array(of), None)
        for name, of in maps.items()
    ]  # fmt: skip
    blocks = store.blocks() if blocks is None else blocks
    frames = AtomisticFrames(store, StatisticalBlocks(parts, blocks), NOTHING_HELD)
    mapping = Mapping.of(scipy.sparse.csr_array(matrix))
    return MappedFrames(frames, mapping, named, write, basis, mean_force, noise_sd, kT, seed, "reproducible")


def ran(work, folder, ranks=1):
    """The sums of a run on so many ranks."""
    beads = particles_of(len(work.mapping.anchor))

    def on_rank(world):
        with TemporaryDirectory() as records:
            return stage_done(MappingPass(work, folder, beads, MADE_FROM, world), world, Path(world.bcast(records)))

    return mapped_sums(on_ranks(ranks, on_rank)[0])


def written(folder) -> tuple[np.ndarray, np.ndarray]:
    """Positions and forces of all frames of a store."""
    store = open_force_store(folder)
    blocks = [read_block(store, block) for block in store.blocks()]
    return np.concatenate([one.positions for one in blocks]), np.concatenate([one.forces for one in blocks])


# ---- what is written -------------------------------------------------------------------------------------------------


def test_frames_keep_file_index_and_time_and_are_counted_anew(tmp_path):
    """Of three sources the middle one is left out."""
    r, f = SYSTEM.frames(230, 0)
    store = stored(tmp_path / "store", r, f, (70, 90))
    blocks = store.blocks(exclude=["s1"])
    ran(work_of(store, M, {"basic": M}, blocks=blocks), tmp_path / "mapped")
    mapped = open_force_store(tmp_path / "mapped")
    assert [(shard.source, shard.first_id, shard.frames) for shard in mapped.shards] == [("s0", 0, 70), ("s2", 70, 140)]
    assert mapped.made_from == MADE_FROM
    R, F = written(tmp_path / "mapped")
    kept = np.r_[:70, 90:230]
    np.testing.assert_array_equal(R, r[kept][:, [0, 3]].astype(np.float32))
    np.testing.assert_array_equal(F, f[kept][:, [0, 3]].astype(np.float32))
    with open_shard(mapped.path(1), ForceShard) as beads, open_shard(store.path(2), ForceShard) as atoms:
        for block in range(3):
            new, old = beads.origin(block), atoms.origin(block)
            np.testing.assert_array_equal(new.index, old.index)
            np.testing.assert_array_equal(new.time, old.time)
            assert new.file == old.file
            np.testing.assert_array_equal(new.frame_id, old.frame_id - 20)


def test_boxes_are_kept(tmp_path):
    r, f = SYSTEM.frames(80, 0)
    box = (20 + np.arange(80))[:, None, None] * np.eye(3)
    store = stored(tmp_path / "store", r % np.diagonal(box, axis1=1, axis2=2)[:, None], f, (), box)
    half = np.zeros((1, 5))
    half[0, :2] = 0.5
    ran(work_of(store, half, {"basic": np.ones((1, 5))}), tmp_path / "mapped")
    mapped = open_force_store(tmp_path / "mapped")
    assert mapped.periodic
    for block, original in zip(mapped.blocks(), store.blocks(), strict=True):
        np.testing.assert_array_equal(read_block(mapped, block).box, read_block(store, original).box)
    R, F = written(tmp_path / "mapped")
    away = (R[:, 0] - r[:, :2].mean(axis=1)) / np.diagonal(box, axis1=1, axis2=2)
    np.testing.assert_allclose(away, np.rint(away), atol=1e-6)  # of float32, in boxes
    np.testing.assert_allclose(F[:, 0], f.astype(np.float32).sum(axis=1), atol=1e-4)


def test_ranks_write_and_add_the_bits_of_one(tmp_path):
    """More ranks than shards among them; numbers of frames that no block divides."""
    r, f = SYSTEM.frames(230, 1)
    store = stored(tmp_path / "store", r, f, (70, 133))
    basis = validity_basis(2, (0.1, 8.0), 5)
    maps = {"basic": M, "optimal": SYSTEM.optimal(M)}
    found = {}
    for ranks in (1, 2, 5):
        work = work_of(store, M, maps, parts=7, write=1, basis=basis)
        sums = ran(work, tmp_path / f"{ranks}", ranks)
        found[ranks] = [*sums.normal, sums.products, sums.spans, sums.spanned, *written(tmp_path / f"{ranks}")]
    for ranks in (2, 5):
        for one, other in zip(found[1], found[ranks], strict=True):
            np.testing.assert_array_equal(one, other)


# ---- sums ------------------------------------------------------------------------------------------------------------


def test_normal_equations_and_products_are_those_of_the_frames_of_each_part(tmp_path):
    """Fields and products are float32, added over at most 64 frames of 6 components at once: 400 roundings."""
    r, f = SYSTEM.frames(230, 2)
    store = stored(tmp_path / "store", r, f, (70, 133))
    basis = validity_basis(2, (0.1, 8.0), 5)
    maps = {"basic": M, "optimal": SYSTEM.optimal(M)}
    work = work_of(store, M, maps, parts=7, basis=basis)
    sums = ran(work, tmp_path / "mapped")
    r, f = r.astype(np.float32).astype(float), f.astype(np.float32).astype(float)
    part = np.repeat(np.arange(7), work.frames.parts.frames)
    Phi = np.asarray(basis_forces(basis, r[:, [0, 3]])).reshape(230, 6, -1)
    F = np.stack([np.einsum("Ii,tix->tIx", W, f).reshape(230, 6) for W in maps.values()], axis=-1)
    for name, expected in {
        "gram": [Phi[part == k].reshape(-1, 5).T @ Phi[part == k].reshape(-1, 5) for k in range(7)],
        "rhs": [Phi[part == k].reshape(-1, 5).T @ F[part == k].reshape(-1, 2) for k in range(7)],
        "square": [np.sum(F[part == k] ** 2, axis=(0, 1)) for k in range(7)],
        "rows": [6 * np.sum(part == k) for k in range(7)],
    }.items():
        found = getattr(sums.normal, name)
        largest = np.sqrt(np.mean(Phi**2)) * np.sqrt(np.mean(F**2)) * 6 * 33 if name == "rhs" else np.max(expected)
        np.testing.assert_allclose(found, expected, rtol=0, atol=400 * np.finfo(np.float32).eps * largest, err_msg=name)
    products = [F[part == k].reshape(-1, 2).T @ F[part == k].reshape(-1, 2) for k in range(7)]
    np.testing.assert_allclose(sums.products, products, rtol=1e-12)


def test_the_inefficiency_of_forces_that_remember_is_that_of_the_process(tmp_path):
    """x_t = phi x_t-1 + noise has g(s) = 1 + 2 sum_k (1 - k/s) phi^k. 3 x 40 series in 20 whole blocks: 2400 squares
    at least, of relative error sqrt(2 / 2400) each way (the means and what they are divided by): 4 of these."""
    rng, phi, n, T = np.random.default_rng(3), 0.8, 40, 64 * 20 + 30
    f = np.empty((T, n, 3))
    f[0] = rng.normal(size=(n, 3))
    for t in range(1, T):
        f[t] = phi * f[t - 1] + np.sqrt(1 - phi**2) * rng.normal(size=(n, 3))
    store = stored(tmp_path / "store", rng.normal(size=(T, n, 3)), f)
    work = work_of(store, np.eye(n), {"basic": np.eye(n), "twice": 2 * np.eye(n)})
    sums = ran(work, tmp_path / "mapped")
    assert sums.spanned == 64 * 20
    found = _inefficiency(SimpleNamespace(sums=sums, named=work.maps))
    assert found["spans"] == list(SPANS)
    k = np.arange(64)
    exact = [1 + 2 * np.sum((1 - k[1:s] / s) * phi ** k[1:s]) for s in SPANS]
    np.testing.assert_allclose(found["of"]["basic"], exact, rtol=4 * np.sqrt(2 / 2400))
    np.testing.assert_allclose(found["of"]["twice"], found["of"]["basic"], rtol=1e-12)
    assert found["of"]["basic"][0] == 1


def test_without_a_whole_block_nothing_is_said_of_correlation(tmp_path):
    r, f = SYSTEM.frames(60, 0)
    work = work_of(stored(tmp_path / "store", r, f), M, {"basic": M})
    sums = ran(work, tmp_path / "mapped")
    assert _inefficiency(SimpleNamespace(sums=sums, named=work.maps)) == {}


# ---- a pair whose mean force is known --------------------------------------------------------------------------------


def pair_frames(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All atoms at rest at the origin, so that everything is isotropic: r^2 of the pair is chi^2."""
    r, f = SYSTEM.frames(count, seed)
    return r - SYSTEM.places, f


VARIANCE = kT * np.array([1, -1]) @ np.linalg.inv(SYSTEM.bead_stiffness(M)) @ np.array([1, -1])
T_PAIR = 4000


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The pass over frames of a pair with three maps, of which the last is none; its basis, frames and results.

    With R = X +- d / 2, d has the variance ``VARIANCE`` a component, so the mean of (F_1 - F_2) . u / 2 is -kT r /
    VARIANCE.
    """
    folder = tmp_path_factory.mktemp("pair")
    r, f = pair_frames(T_PAIR, 4)
    store = stored(folder / "store", r, f, (1000, 2500))
    grid = np.linspace(0.0, 40.0, 50)
    exact = MeanForce(grid, -kT / VARIANCE * grid)
    maps = {"basic": M, "optimal": SYSTEM.optimal(M), "wrong": 1.3 * M}
    basis = validity_basis(2, (0.0, 8.0), 6)
    work = work_of(store, M, maps, parts=20, basis=basis, mean_force=exact)
    sums = ran(work, folder / "mapped", 2)
    theta = np.tile(np.random.default_rng(0).normal(size=6), (3, 1))
    matching = SimpleNamespace(theta=theta)
    findings = SimpleNamespace(mean_force=exact, named=work.maps, sums=sums, matching=matching)
    rows = {(row["potential"], row["map"]): row for row in _decomposition(findings)}
    return SimpleNamespace(rows=rows, r=r, f=f, maps=maps, basis=basis, theta=theta[0])


def radial(W: np.ndarray, r: np.ndarray, f: np.ndarray) -> np.ndarray:
    d = r[:, 0] - r[:, 3]
    u = d / np.linalg.norm(d, axis=1)[:, None]
    F = np.einsum("Ii,tix->tIx", W, f)
    return np.sum((F[:, 0] - F[:, 1]) * u, axis=1) / 2


@pytest.mark.parametrize("potential", ["none", "fitted"])
@pytest.mark.parametrize("name", ["basic", "optimal", "wrong"])
def test_the_decomposition_is_that_of_the_frames(pair, potential, name):
    """The sums' products are float32: 1e-5 of the largest term, which is chi2 or the PMF's part."""
    found, r, f = pair.rows[potential, name], pair.r, pair.f
    exact, U = -kT / VARIANCE * np.linalg.norm(r[:, 0] - r[:, 3], axis=1), np.zeros(len(r))
    if potential == "fitted":
        forces = np.zeros(r.shape)
        forces[:, [0, 3]] = np.asarray(basis_forces(pair.basis, r[:, [0, 3]])) @ pair.theta
        U = radial(M, r, forces)
    F = radial(pair.maps[name], r, f)
    values = {
        "chi2": (F - U) ** 2, "pmf_error": (exact - U) ** 2, "noise": (F - exact) ** 2,
        "cross": 2 * (F - exact) * (exact - U), "bias": F - exact,
    }  # fmt: skip
    scale = np.mean(values["chi2"]) + np.mean(values["pmf_error"])
    for part, value in values.items():
        means = value.reshape(20, -1).mean(axis=1)  # of 20 equal blocks
        expected = means.mean(), means.std(ddof=1) / np.sqrt(20)
        np.testing.assert_allclose(found[part], expected, rtol=0, atol=1e-5 * scale, err_msg=part)
    total = found["pmf_error"][0] + found["noise"][0] + found["cross"][0]
    assert total == pytest.approx(found["chi2"][0], abs=1e-12 * scale)


@pytest.mark.parametrize("name", ["basic", "optimal"])
def test_pmf_error_and_noise_are_the_exact_ones_and_the_cross_term_vanishes(pair, name):
    """<f*^2> = 3 kT^2 / VARIANCE, by 3 T squares; the noise is what is left of kT w K w, w = (W_1 - W_2) / 2, by T.
    Four standard errors: of Gaussian squares, and of blocks for the cross term."""
    w = (pair.maps[name][0] - pair.maps[name][1]) / 2
    noise = kT * w @ SYSTEM.K @ w - kT**2 / VARIANCE
    for potential in ("none", "fitted"):
        found = pair.rows[potential, name]
        assert found["noise"][0] == pytest.approx(noise, rel=4 * np.sqrt(2 / T_PAIR), abs=1e-5 * found["chi2"][0])
        assert abs(found["cross_in_errors"]) < 4
        assert abs(found["bias"][0]) < 4 * found["bias"][1] + 1e-6 * np.sqrt(found["chi2"][0])
    of_none = pair.rows["none", name]["pmf_error"][0]
    assert of_none == pytest.approx(3 * kT**2 / VARIANCE, rel=4 * np.sqrt(2 / (3 * T_PAIR)))


def test_the_cross_term_of_a_map_that_is_none_does_not_vanish(pair):
    """Forces 1.3 times as large: 2 <0.3 f* . f*>."""
    found = pair.rows["none", "wrong"]
    assert found["cross"][0] == pytest.approx(0.6 * 3 * kT**2 / VARIANCE, abs=4 * found["cross"][1])
    assert found["cross_in_errors"] > 20


def test_the_mean_force_ends_at_the_ends_of_its_table():
    force = MeanForce(np.array([2.0, 3.0, 4.0]), np.array([5.0, 1.0, -2.0]))
    np.testing.assert_allclose(force(np.array([0.0, 2.0, 3.0, 9.0])), [5, 5, 1, -2], atol=1e-12)


# ---- noise on the beads ----------------------------------------------------------------------------------------------

SD = 0.4


def noised(folder, r, f, cuts=(), seed=0, ranks=1):
    """Frames written with noise, and the sums."""
    V1 = kT * SYSTEM.bead_stiffness(M)
    store = stored(folder / "store", r, f, cuts)
    maps = {"optimal": (SYSTEM.optimal(M), noise_map(V1, SD**2, kT))}
    sums = ran(work_of(store, M, maps, noise_sd=SD, seed=seed), folder / "mapped", ranks)
    return *written(folder / "mapped"), sums


def test_noised_beads_have_the_mean_force_of_their_own_ensemble(tmp_path):
    """Noised beads are Gaussian with the variance kT K_b^-1 + sd^2. The least noise of their forces is (V1^-1 +
    V2^-1)^-1, which here is all of the mean force: each frame has it, to float32."""
    r, f = SYSTEM.frames(200, 5)
    R, F, sums = noised(tmp_path, r, f)
    stiffness = np.linalg.inv(np.linalg.inv(SYSTEM.bead_stiffness(M)) + SD**2 / kT * np.eye(2))
    exact = -np.einsum("IJ,tJx->tIx", stiffness, R.astype(float) - SYSTEM.places[[0, 3]])
    np.testing.assert_allclose(F, exact, atol=2e-5 * np.abs(exact).max())
    # the mean square over T frames of 3 components and 2 beads, of which the relative error is sqrt(2 / 3T) at most
    V1, V2 = kT * SYSTEM.bead_stiffness(M), kT**2 / SD**2 * np.eye(2)
    least = np.trace(np.linalg.inv(np.linalg.inv(V1) + np.linalg.inv(V2))) / 2
    assert sums.normal.square.sum() / sums.normal.rows.sum() == pytest.approx(least, rel=4 * np.sqrt(2 / 600))
    eps = R - r[:, [0, 3]]
    assert np.std(eps) == pytest.approx(SD, rel=4 / np.sqrt(2 * eps.size))
    assert abs(np.mean(eps)) < 4 * SD / np.sqrt(eps.size)


def test_noise_is_a_function_of_seed_and_frame_alone(tmp_path):
    r, f = SYSTEM.frames(200, 6)
    one, _, _ = noised(tmp_path / "a", r, f)
    cut, _, _ = noised(tmp_path / "b", r, f, (50, 131), ranks=3)
    other, _, _ = noised(tmp_path / "c", r, f, seed=1)
    np.testing.assert_array_equal(one, cut)
    eps = one - r[:, [0, 3]]
    assert np.abs(np.corrcoef(eps.ravel(), (other - r[:, [0, 3]]).ravel())[0, 1]) < 4 / np.sqrt(eps.size)
    assert np.abs(np.corrcoef(eps[1:].ravel(), eps[:-1].ravel())[0, 1]) < 4 / np.sqrt(eps.size)


# ---- folders ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    r, f = SYSTEM.frames(140, 0)
    return stored(tmp_path / "store", r, f, (70,))


def half_prepared(folder):
    """Particles of an atomistic store whose shards are being made."""
    folder.mkdir()
    ForceContent.of(SYSTEM.particles, periodic=False).begin(folder, {"topology": "some"})


def of_structure_factors(folder):
    reflections = synthetic.cubic_reflections()
    F_h = synthetic.gaussian_frames(3, len(reflections), seed=0)
    synthetic.write_store(folder, reflections, [synthetic.Source("a", F_h)])


@pytest.mark.parametrize(
    "fill", [half_prepared, of_structure_factors, lambda folder: stored(folder, *SYSTEM.frames(5, 0))]
)
def test_a_folder_with_another_store_is_refused_and_left_as_it_is(tmp_path, source, fill):
    fill(tmp_path / "other")
    before = {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()}
    with pytest.raises(InputError, match="other holds a store that was not made by mapping"):
        ran(work_of(source, M, {"basic": M}), tmp_path / "other")
    assert {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()} == before


def test_a_store_is_not_mapped_onto_itself(tmp_path, source):
    """Not even one that was mapped, by another name."""
    ran(work_of(source, M, {"basic": M}), tmp_path / "mapped")
    (tmp_path / "link").symlink_to(tmp_path / "mapped")
    check_folder(tmp_path / "mapped", source.folder)
    with pytest.raises(InputError, match="link is the store whose frames are to be mapped"):
        check_folder(tmp_path / "link", tmp_path / "mapped")


def test_an_interruption_leaves_no_store_that_is_half_new(tmp_path, source, monkeypatch):
    folder = tmp_path / "mapped"
    ran(work_of(source, M, {"basic": M}), folder)
    extend = ShardWriter.extend

    def interrupted(self, frames):
        if self.plan.source == "s1":
            raise KeyboardInterrupt
        extend(self, frames)

    again = work_of(source, M, {"twice": 2 * M})
    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "extend", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ran(again, folder)
    with pytest.raises(InputError, match="not a complete store"):
        open_force_store(folder)
    ran(again, folder)
    np.testing.assert_array_equal(written(folder)[1], 2 * SYSTEM.frames(140, 0)[1][:, [0, 3]].astype(np.float32))
    assert json.loads((folder / "catalog.json").read_text())["made_from"] == MADE_FROM
