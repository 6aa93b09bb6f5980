"""The neural potential: gradients against central differences, its symmetries, additions, and a known potential."""

from functools import partial

import jax
import numpy as np
import optax
import pytest

from hpcfit.bead_models.neural import (
    Architecture,
    BeadFrames,
    BeadSample,
    NeuralForceMatching,
    bead_frames,
    neural_force_matching,
)  # fmt: skip
from hpcfit.errors import InputError
from hpcfit.fit import derivatives
from hpcfit.fit.by_blocks import Reverse
from hpcfit.fit.gradient import Frames
from hpcfit.fit.grid import Shape, make_grid
from hpcfit.fit.inner import InnerProduct
from hpcfit.fit.optimizers import Lbfgs, Optax
from hpcfit.fit.problem import Cell, FrameRows, Params
from hpcfit.fit.reduction import ReproducibleSum
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.ranks import Ranks
from hpcfit.store.stream import Chunk

N, KT = 5, GAS_CONSTANT * 300
TYPES, BONDS = ["A", "B", "A", "B", "A"], np.array([(i, i + 1) for i in range(N - 1)])
SMALL = Architecture(width=8, depth=1, functions=6, cutoff=10.0, embedding=2)
BOX = np.array([[30.0, 0, 0], [4.0, 29.0, 0], [-3.0, 2.0, 31.0]])
STIFFNESS, LENGTH, EPSILON, SIGMA = 30.0, 3.8, 2.0, 4.5  # kJ/mol/A^2, A, kJ/mol, A: harmonic bonds, Lennard-Jones
ENERGY, FORCES = jax.jit(NeuralForceMatching.energy), jax.jit(NeuralForceMatching.forces)  # compiled once for all tests


def chains(n, seed=0, spread=0.25):
    """Chains with bonds near 3.8 A and angles away from 0 and pi."""
    i = np.arange(N)
    zigzag = np.stack([3.2 * i, 2.0 * (i % 2), 0.8 * (i % 3)], axis=1)
    return zigzag + np.random.default_rng(seed).normal(scale=spread, size=(n, N, 3))


def known_forces(R):
    """Of the known potential, written out; pairs more than two bonds apart attract and repel."""
    u = R[:, :, None] - R[:, None]
    r = np.linalg.norm(u, axis=-1) + np.eye(N)
    apart = np.abs(np.subtract.outer(np.arange(N), np.arange(N)))
    slope = np.where(apart == 1, STIFFNESS * (r - LENGTH), 0)
    slope += np.where(apart > 2, 4 * EPSILON * (-12 * SIGMA**12 / r**13 + 6 * SIGMA**6 / r**7), 0)
    return -np.sum((slope / r)[..., None] * u, axis=2)


def problem_of(R, F, precision="float64", architecture=SMALL, box=None, **options):
    square = float(np.mean(F**2))
    return neural_force_matching(
        BeadSample(TYPES, BONDS, R, box), square, 300.0, architecture, precision=precision, **options
    )


def gradient_of(problem, rows):
    """Of all rows in one tile; the end of the last block is padding that holds what no frame could."""
    n, blocks = len(rows.part), -(-len(rows.part) // 64)
    data = jax.tree.map(lambda leaf: padded(leaf, 64 * blocks).reshape(1, blocks, 64, *leaf.shape[1:]), rows)
    ids = np.where(np.arange(blocks * 64) < n, np.arange(blocks * 64), -1).reshape(blocks, 64)
    frames = FrameRows(ids, n)
    chunk = Chunk(slice(0, blocks), slice(0, 1), data)
    grid = make_grid(Ranks(), Shape(1, 1, ""), blocks, 1)
    return Reverse(problem, Frames(frames, lambda: iter([chunk])), grid, ReproducibleSum(grid))


def padded(leaf, n):
    """n rows, NaN where there are no frames."""
    return np.concatenate([leaf, np.full((n - len(leaf), *leaf.shape[1:]), np.nan, leaf.dtype)])


@pytest.fixture(scope="module")
def small():
    """A problem in float64 of 80 frames, of which every fifth is held out, and its gradient."""
    R = chains(80)
    F = known_forces(R)
    problem = problem_of(R, F, weight_decay=1e-3)
    return problem, gradient_of(problem, rows64(R, F, np.arange(80) % 5 == 0))


def rows64(R, F, part):
    return BeadFrames(R, F, np.asarray(part, float))


def test_the_gradient_is_that_of_central_differences(small):
    problem, gradient = small
    params = problem.init(3)
    here, rng = gradient(params), np.random.default_rng(0)
    for _ in range(6):
        way = jax.tree.map(lambda leaf: rng.normal(size=np.shape(leaf)), params)
        moved = [jax.tree.map(lambda p, w, s=s: p + s * w, params, way) for s in (1e-4, -1e-4)]
        slope = sum(np.sum(g * w) for g, w in zip(jax.tree.leaves(here.gradient), jax.tree.leaves(way)))
        # the sum over frames is one of integers with 1e-16 of its size; step^2 f''' is below 1e-6 of the slope
        found = (gradient.value(moved[0]).loss - gradient.value(moved[1]).loss) / 2e-4
        assert found == pytest.approx(slope, rel=1e-5, abs=1e-6 * here.loss)


def test_every_parameter_matters_and_held_out_frames_do_not(small):
    problem, gradient = small
    params = problem.init(1)
    here = gradient(params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(here.gradient))
    # the last bias shifts the energy, and no force knows it; weight decay leaves it alone
    assert [bool(np.any(leaf)) for leaf in jax.tree.leaves(here.gradient)].count(False) == 1
    R = chains(80)
    F = known_forces(R)
    spoilt = np.where((np.arange(80) % 5 == 0)[:, None, None], F + 100, F)
    other = gradient_of(problem, rows64(R, spoilt, np.arange(80) % 5 == 0))
    there = other(params)
    assert there.loss == here.loss
    assert gradient.metrics(here)["residual"] == other.metrics(there)["residual"]
    assert other.metrics(there)["residual_free"] > gradient.metrics(here)["residual_free"] + 1000


def test_metrics_are_residuals_written_out(small):
    problem, gradient = small
    params = problem.init(2)
    R = chains(80)
    held_out = np.arange(80) % 5 == 0
    F = np.array([FORCES(problem, params.shared, r) for r in R])
    square = np.mean((F - known_forces(R)) ** 2, axis=(1, 2))
    found = gradient.metrics(gradient(params))
    assert found["residual"] == pytest.approx(square[~held_out].mean(), rel=1e-10)
    assert found["residual_free"] == pytest.approx(square[held_out].mean(), rel=1e-10)


def test_the_starting_forces_are_differences_of_the_energy(small):
    problem, _ = small
    shared, R = problem.init(0).shared, chains(1)[0]
    forces, energy, step = FORCES(problem, shared, R), partial(ENERGY, problem), 1e-5
    for i, x in [(0, 0), (2, 1), (4, 2), (3, 0)]:
        d = np.zeros_like(R)
        d[i, x] = step
        found = -(energy(shared, R + d) - energy(shared, R - d)) / (2 * step)
        assert forces[i, x] == pytest.approx(float(found), abs=1e-6)


def test_partial_is_additive_and_does_not_look_at_padding(small):
    problem, _ = small
    params = problem.init(0)
    R = chains(64)
    rows = rows64(R, known_forces(R), np.arange(64) % 2)
    partial_sums = jax.jit(problem.partial)
    sums = lambda held: partial_sums(params, Cell(rows, np.where(held, 0, -1)))  # noqa: E731
    first = np.arange(64) < 20
    for a, b, whole in zip(sums(first), sums(~first), sums(np.ones(64, bool))):
        np.testing.assert_allclose(a + b, whole, rtol=1e-12)
        assert whole.dtype == np.float64
    spoilt = jax.tree.map(lambda leaf: padded(leaf[:20], 64), rows)
    again = partial_sums(params, Cell(spoilt, np.where(first, 0, -1)))
    np.testing.assert_allclose(again.square, sums(first).square, rtol=1e-12)


@pytest.mark.parametrize("box", [None, BOX], ids=["free", "triclinic"])
def test_the_energy_knows_no_place_direction_or_name(box):
    """Rotation, shift, images, the exchange of like beads that leaves the bonds as they are."""
    R = chains(30, seed=1)
    problem = problem_of(R, known_forces(R), box=None if box is None else np.broadcast_to(box, (30, 3, 3)))
    shared, r = problem.init(0).shared, R[0]
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    energy, forces = partial(ENERGY, problem), partial(FORCES, problem)
    U, F = energy(shared, r, box), forces(shared, r, box)
    turned = None if box is None else box @ turn
    assert energy(shared, r @ turn + 2.5, turned) == pytest.approx(float(U), rel=1e-10)
    np.testing.assert_allclose(forces(shared, r @ turn + 2.5, turned), F @ turn, atol=1e-9)
    # read backwards the chain A-B-A-B-A is the same molecule
    assert energy(shared, r[::-1], box) == pytest.approx(float(U), rel=1e-10)
    np.testing.assert_allclose(forces(shared, r[::-1], box), F[::-1], atol=1e-9)
    if box is not None:
        images = r + np.random.default_rng(3).integers(-2, 3, (N, 3)) @ box
        assert energy(shared, images, box) == pytest.approx(float(U), rel=1e-10)
    # ... and a bead of the other type is another: types matter
    assert abs(energy(shared, r[[1, 0, 2, 3, 4]], box) - U) > 1e-3


def test_beads_of_a_fluid_may_change_places():
    rng = np.random.default_rng(0)
    R = np.array([[4.0 * x, 4.0 * y, 0] for x in range(3) for y in range(2)]) + rng.normal(scale=0.4, size=(20, 6, 3))
    types = ["A", "A", "B", "A", "B", "A"]
    options = {"architecture": SMALL, "precision": "float64"}
    problem = neural_force_matching(BeadSample(types, np.zeros((0, 2), int), R), 1.0, 300.0, **options)
    shared, swap = problem.init(0).shared, [3, 0, 4, 1, 2, 5]
    energy = jax.jit(problem.energy)
    assert energy(shared, R[0][swap]) == pytest.approx(float(energy(shared, R[0])), rel=1e-12)
    assert abs(energy(shared, R[0][[2, 1, 0, 3, 4, 5]]) - energy(shared, R[0])) > 1e-6


def test_mirror_images_differ():
    R = chains(10, spread=0.6)
    problem = problem_of(R, known_forces(R))
    shared, energy = problem.init(0).shared, partial(ENERGY, problem)
    assert abs(energy(shared, R[0]) - energy(shared, R[0] * [1, 1, -1])) > 1e-4


def test_rows_hold_boxes_and_parts():
    R, box = chains(4), np.broadcast_to(BOX, (4, 3, 3))
    F = known_forces(R)
    assert bead_frames(R, F, np.zeros(4)).box is None
    rows = bead_frames(R, F, [0, 1, 0, 1], box)
    assert [leaf.shape for leaf in rows] == [(4, N, 3), (4, N, 3), (4,), (4, 3, 3)]
    assert {leaf.dtype for leaf in rows} == {np.dtype(np.float32)}
    problem = problem_of(R, F, box=box)
    params = problem.init(0)
    data = jax.tree.map(lambda leaf: padded(leaf, 64), rows)
    count = jax.jit(lambda cell: problem.partial(params, cell).count)
    np.testing.assert_array_equal(count(Cell(data, np.where(np.arange(64) < 4, 0, -1))), [2 * 3 * N, 2 * 3 * N])


def test_the_seed_decides_the_start():
    R = chains(10)
    problem = problem_of(R, known_forces(R))
    one, same, other = (jax.tree.leaves(problem.init(seed)) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(one, same))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other))


def test_the_prior_is_made_of_means_and_variances():
    """Alike bonds share a spring of kT / variance; the repulsion begins where the closest pair of two types was."""
    rng = np.random.default_rng(0)
    R = np.zeros((4000, N, 3))
    R[:, 1:, 0] = rng.normal(LENGTH, np.sqrt(KT / STIFFNESS), (4000, 4)).cumsum(axis=1)
    R[:, ::2, 1] = 2.0
    prior = problem_of(R, np.ones_like(R)).prior
    bond = np.linalg.norm(R[:, 1:] - R[:, :-1], axis=-1)
    np.testing.assert_allclose(prior.bond, bond.mean(), rtol=1e-6)
    np.testing.assert_allclose(prior.bond_stiffness, KT / bond.var(), rtol=1e-6)
    r = np.linalg.norm(R[:, 0] - R[:, 3], axis=-1).min(), np.linalg.norm(R[:, 1] - R[:, 4], axis=-1).min()
    assert prior.sigma[0, 3] == prior.sigma[4, 1] == pytest.approx(min(r))
    assert prior.sigma[0, 1] == prior.sigma[0, 2] == 0


def test_no_forces_or_frames_are_refused():
    R = chains(4)
    with pytest.raises(InputError, match="mean squared force"):
        problem_of(R, 0 * R)
    with pytest.raises(InputError, match="1 frames"):
        problem_of(R[:1], R[:1])


def test_a_known_potential_is_learned_to_the_noise():
    """The held-out residual approaches the noise, sigma^2 = 4; the force without noise is found far below it."""
    R = chains(640, spread=0.3)
    exact, noise = known_forces(R), 2.0
    F = exact + np.random.default_rng(9).normal(scale=noise, size=exact.shape)
    held_out = np.arange(640) % 4 == 0
    problem = problem_of(R, F, "float32", Architecture(width=12, depth=1, functions=8, cutoff=12.0, embedding=2))
    gradient = gradient_of(problem, bead_frames(R, F, held_out))
    inner = InnerProduct(gradient.add)
    adam = Optax(optax.adam(0.01), inner)
    state = adam.start(problem.init(0), gradient)
    before = gradient.metrics(gradient(state.params))
    for _ in range(40):
        state = adam.step(state, gradient)
    lbfgs = Lbfgs(inner, first_step=0.01)
    state = lbfgs.start(state.params, gradient)
    for _ in range(50):
        state = lbfgs.step(state, gradient)
    last = Params(state.params.shared, ())
    found, without_noise = gradient.metrics(gradient(last)), gradient_of(problem, bead_frames(R, exact, held_out))
    error = without_noise.metrics(without_noise(last))["residual_free"]
    assert before["residual_free"] > 10 * noise**2
    # of 2400 held-out components: s.d. of the noise's mean square 4 sqrt(2 / 2400) = 0.115, of the cross term
    # 2 sqrt(4 error / 2400). The network has 341 numbers and 7200 components to learn them from: 4 x 341 / 7200 = 0.19
    assert found["residual_free"] == pytest.approx(noise**2 + error, abs=3 * (0.115 + 2 * np.sqrt(4 * error / 2400)))
    assert error < 2 * 0.19


def test_a_cell_has_the_same_bits_alone_and_among_others():
    """A loop of one turn is no other program than a longer one: ranks may hold any number of blocks."""
    R = chains(170, seed=1)
    F = known_forces(R) + np.random.default_rng(0).normal(scale=5, size=R.shape)
    architecture = Architecture(width=4, depth=1, functions=3, cutoff=30.0)
    evaluate = gradient_of(problem_of(R, F, "float32", architecture), bead_frames(R, F, np.arange(170) % 2, None))
    params, [chunk] = evaluate.problem.init(0, evaluate.frames.rows), evaluate.frames.chunks()

    def on(blocks):
        rows = jax.tree.map(lambda leaf: leaf[blocks], (evaluate.frames.rows.ids, evaluate.frames.rows.more))
        cells = Cell(jax.tree.map(lambda leaf: leaf[:, blocks], chunk.data), *rows)
        sums, _ = derivatives.sums_and_rows(evaluate.problem, params, cells)
        ones = jax.tree.map(lambda leaf: np.ones((1, *leaf.shape[2:])), sums)
        return sums, derivatives.pulled_back(evaluate.problem, params, cells, ones).shared

    whole = on(slice(0, 3))
    for blocks in (slice(0, 1), slice(1, 2), slice(2, 3)):
        expected = jax.tree.map(lambda leaf, b=blocks: leaf[:, b], whole)
        jax.tree.map(np.testing.assert_array_equal, on(blocks), expected)
