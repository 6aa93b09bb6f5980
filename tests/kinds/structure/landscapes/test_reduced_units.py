"""Loops, clusters and charges on a sphere: known energies, independent sums, symmetries, derivatives and caps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from hpcfit.errors import InputError
from hpcfit.kinds.structure.landscapes import all_pairs
from hpcfit.kinds.structure.landscapes.clusters import Cluster
from hpcfit.kinds.structure.landscapes.landscape import capped
from hpcfit.kinds.structure.landscapes.loops import Loops
from hpcfit.kinds.structure.landscapes.thomson import Thomson

LANDSCAPES = {
    "loops": Loops.of(24),
    "bonded loops": Loops.of(24, bonded=True),
    "cluster": Cluster.of(13),
    "thomson": Thomson.of(12),
}
GOLDEN = (1 + 5**0.5) / 2


@pytest.fixture(params=LANDSCAPES)
def landscape(request):
    return LANDSCAPES[request.param]


def spread(landscape, seed=0):
    """Coordinates with no two particles near each other."""
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), axis=-1).reshape(-1, 3)[: landscape.n] - 1.4
    return 1.1 * grid + np.random.default_rng(seed).normal(0, 0.05, (landscape.n, 3))


def icosahedron():
    """Its 12 corners."""
    corners = [(0, a, b * GOLDEN) for a in (-1, 1) for b in (-1, 1)]
    return np.array([np.roll(corner, k) for corner in corners for k in range(3)])


@jax.jit
def compiled(landscape, x, cap):
    return jax.value_and_grad(landscape.energy)(x, cap)


def value_and_slope(landscape, x, cap=0.0):
    return compiled(landscape, x, cap)


@jax.jit
def products(landscape, x, along):
    """Products of the Hessian with a direction, forward and backward."""
    gradient = jax.grad(landscape.energy)
    forward = jax.jvp(gradient, (x,), (along,))[1]
    return forward, jax.grad(lambda x: jnp.vdot(gradient(x), along))(x)


def energy(landscape, x, cap=0.0):
    return float(value_and_slope(landscape, x, cap)[0])


def test_energies_are_those_of_independent_sums(landscape):
    for seed in range(3):
        x = spread(landscape, seed)
        assert energy(landscape, x) == pytest.approx(landscape.independent(x), rel=1e-12)


def test_gradients_and_their_products_are_those_of_differences(landscape):
    x, along, h = spread(landscape), np.random.default_rng(1).normal(size=(landscape.n, 3)), 1e-5
    (up, slope_up), (down, slope_down) = (value_and_slope(landscape, x + side * h * along) for side in (1, -1))
    slope, (forward, backward) = value_and_slope(landscape, x)[1], products(landscape, x, along)
    assert np.vdot(slope, along) == pytest.approx(float(up - down) / (2 * h), rel=1e-7, abs=1e-8)
    curved = np.asarray(slope_up - slope_down) / (2 * h)
    np.testing.assert_allclose(forward, curved, rtol=1e-6, atol=1e-6 * np.abs(curved).max())
    np.testing.assert_allclose(backward, forward, rtol=1e-9, atol=1e-11 * np.abs(curved).max())


def test_a_rotation_and_a_shift_change_nothing(landscape):
    x = spread(landscape)
    shift = 0.0 if isinstance(landscape, Thomson) else np.array([3.0, -1.0, 2.0])
    turned = x @ Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix() + shift
    assert energy(landscape, turned) == pytest.approx(energy(landscape, x), rel=1e-11)


def test_coincident_particles_have_finite_energies_and_gradients_under_a_cap(landscape):
    x = np.zeros((landscape.n, 3))
    x[1:4] = [1.0, 0.2, 0.3]
    assert all(np.all(np.isfinite(part)) for part in value_and_slope(landscape, x, 0.9))


def test_a_cap_changes_nothing_outside_of_it(landscape):
    x = spread(landscape)
    assert energy(landscape, x, 0.3) == pytest.approx(energy(landscape, x), rel=1e-14)


def test_a_capped_potential_is_continuous_with_its_slope():
    inside, slope = jax.jit(jax.vmap(jax.value_and_grad(lambda r: capped(lambda r: 1 / r**2, r, 0.5))))(
        np.array([0.0, 0.2, 0.5, 0.6])
    )
    np.testing.assert_allclose(inside, [12, 8.8, 4, 1 / 0.36], rtol=1e-14)
    np.testing.assert_allclose(slope, [-16, -16, -16, -2 / 0.6**3], rtol=1e-14)


def test_many_rows_add_to_what_all_pairs_at_once_do(monkeypatch):
    cluster = Cluster.of(14)
    x = spread(cluster)
    monkeypatch.setattr(all_pairs, "AT_ONCE", 5 * 14)
    value, slope = jax.jit(lambda x: jax.value_and_grad(cluster.energy)(x))(x)
    apart = x[:, None] - x
    r2 = np.sum(apart**2, axis=-1) + np.eye(14)
    expected = np.sum((24 * (r2**-4 - 2 * r2**-7) * (1 - np.eye(14)))[..., None] * apart, axis=1)
    assert float(value) == pytest.approx(cluster.independent(x), rel=1e-13)
    np.testing.assert_allclose(slope, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("bonded", [False, True])
def test_near_pairs_alone_are_all_pairs_less_a_line_that_ends_at_the_cutoff(bonded):
    x = np.stack([2 * spread(LANDSCAPES["loops"], seed) for seed in range(2)])
    near, every = Loops.of(24, bonded=bonded, cutoff=3.0), Loops.of(24, bonded=bonded)
    joined = every.couplings().toarray() > 0

    def missing(x):
        """What lies beyond the cut-off, and the line within, by a sum over pairs."""
        r = np.linalg.norm(x[:, None] - x[None], axis=-1)[~joined & np.triu(np.ones((24, 24), bool), 1)]
        line = 1 / 3.01 - (r - 3) / 3.01**2
        return 0.0025 * np.sum(np.where(r < 3, line, 1 / (r + 0.01))) / (24 * 23 / 2 - 37)

    energy, slope = near.evaluated(x, 0.9)
    np.testing.assert_allclose(every.evaluated(x, 0.9)[0] - energy, [missing(one) for one in x], rtol=1e-9)
    step, along = 1e-6, np.random.default_rng(2).normal(size=x.shape)
    change = (near.evaluated(x + step * along, 0.9)[0] - near.evaluated(x - step * along, 0.9)[0]) / (2 * step)
    np.testing.assert_allclose(np.sum(slope * along, axis=(1, 2)), change, rtol=1e-6)


def test_replicas_side_by_side_have_their_own_energies():
    loops = LANDSCAPES["loops"]
    several = np.stack([spread(loops, seed) for seed in range(3)])
    caps = np.array([0.0, 0.5, 0.9])
    found = jax.jit(jax.vmap(loops.energy))(several, caps)
    np.testing.assert_allclose(found, [energy(loops, x, cap) for x, cap in zip(several, caps)], rtol=1e-13)


def test_the_icosahedral_cluster_of_13_is_its_ground_state():
    cluster = LANDSCAPES["cluster"]
    x = np.concatenate([np.zeros((1, 3)), 1.1 / np.sqrt(1 + GOLDEN**2) * icosahedron()])

    def of_flat(flat):
        value, slope = value_and_slope(cluster, flat.reshape(13, 3))
        return float(value), np.asarray(slope).ravel()

    found = minimize(of_flat, x.ravel(), jac=True, method="L-BFGS-B")
    assert found.fun == pytest.approx(-44.326801, abs=1e-6)
    assert cluster.contacts(found.x.reshape(13, 3))[0] == 12 + 30
    assert cluster.pieces(found.x.reshape(13, 3)) == 1


def test_twelve_charges_are_at_rest_on_an_icosahedron():
    thomson, x = LANDSCAPES["thomson"], icosahedron()
    value, slope = value_and_slope(thomson, x)
    assert float(value) == pytest.approx(49.165253058, abs=1e-9)
    assert np.abs(slope).max() < 1e-12
    assert energy(thomson, x * np.linspace(0.5, 2, 12)[:, None]) == pytest.approx(49.165253058, abs=1e-9)
    assert thomson.overlaps(x) == 0


@pytest.mark.parametrize(
    ("n", "bonded", "best"),
    [(400, False, -0.13141), (1000, False, -0.13068), (4000, False, -0.13032), (400, True, -0.02367)],
)
def test_a_loop_knows_what_it_cannot_be_below(n, bonded, best):
    assert Loops.of(n, bonded=bonded).reference() == pytest.approx(best, abs=5e-6)


def test_labels_are_permuted_by_the_seed_and_the_energy_with_them():
    ordered, mixed = Loops.of(24, seed=None), Loops.of(24, seed=4)
    chain = np.stack([np.arange(24.0), np.zeros(24), np.zeros(24)], axis=1)
    place = mixed.order
    x = np.empty_like(chain)
    x[place] = chain
    assert not np.array_equal(place, np.arange(24))
    assert energy(mixed, x) == pytest.approx(energy(ordered, chain), rel=1e-13)
    assert not np.array_equal(Loops.of(24, seed=5).steps, mixed.steps)


def test_couplings_join_neighbours_and_those_ten_steps_apart():
    loops = Loops.of(15, seed=None)
    weights = loops.couplings().toarray()
    expected = np.diag(np.ones(14), 1) + np.diag(0.1 * np.ones(5), 10)
    np.testing.assert_array_equal(weights, expected + expected.T)


def test_contacts_overlaps_and_pieces_of_a_broken_chain():
    loops = Loops.of(20, seed=None)
    x = np.stack([np.arange(20.0), np.zeros(20), np.zeros(20)], axis=1)
    x[12:] += 5.0
    x[1] = x[0]
    assert loops.contacts(x) == (16, 29)  # 0-1 on each other, 1-2 two apart, 11-12 broken; nothing is ten apart
    assert loops.loop_contacts(x) == (0, 10)
    assert loops.overlaps(x) == 1
    assert loops.pieces(x) == 4


@pytest.mark.parametrize("make", [lambda: Loops.of(10), lambda: Cluster.of(1), lambda: Thomson.of(1)])
def test_too_few_particles_are_an_input_error(make):
    with pytest.raises(InputError, match="no pair"):
        make()
