"""Elastic networks, silicon with a vacancy and Stokes flow, each against another way to its energy or its minimum."""

import jax
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from hpcfit.errors import InputError
from hpcfit.kinds.structure.landscapes.network import Network
from hpcfit.kinds.structure.landscapes.silicon import EPSILON, LATTICE, Silicon
from hpcfit.kinds.structure.landscapes.stokes import Stokes
from hpcfit.physics import network_model


@jax.jit
def value_and_slope(landscape, x):
    return jax.value_and_grad(landscape.energy)(x)


def assert_gradient(landscape, x, h=1e-5):
    along = np.random.default_rng(1).normal(size=x.shape)
    up, down = (float(value_and_slope(landscape, x + side * h * along)[0]) for side in (1, -1))
    assert np.vdot(value_and_slope(landscape, x)[1], along) == pytest.approx((up - down) / (2 * h), rel=1e-6)


SITES = np.random.default_rng(0).uniform(0, 12, (40, 3))


def test_a_network_is_at_rest_in_its_structure_and_curved_as_the_network_model():
    network = Network.of(SITES, 6.0, stiffness=1.0)
    value, slope = value_and_slope(network, SITES)
    assert float(value) == pytest.approx(network.reference(), abs=1e-25)
    assert np.abs(slope).max() < 1e-14
    direction = np.random.default_rng(1).normal(size=SITES.shape)
    product = jax.jit(lambda x, v: jax.jvp(jax.grad(network.energy), (x,), (v,))[1])(SITES, direction)
    expected = network_model.hessian(SITES, 6.0) @ direction.ravel()
    np.testing.assert_allclose(np.asarray(product).ravel(), expected, rtol=1e-9, atol=1e-10)


def test_a_network_has_the_energy_of_its_springs_wherever_it_is():
    network = Network.of(SITES, 6.0, stiffness=2.5)
    x = SITES + np.random.default_rng(2).normal(0, 0.5, SITES.shape)
    assert float(value_and_slope(network, x)[0]) == pytest.approx(network.independent(x), rel=1e-12)
    assert_gradient(network, x)
    turned = -x @ Rotation.from_rotvec([1.0, 0.2, -0.4]).as_matrix() + 3.0  # a mirror image too
    assert float(value_and_slope(network, turned)[0]) == pytest.approx(network.independent(x), rel=1e-11)
    assert network.contacts(SITES) == (len(network.pairs), len(network.pairs))
    assert network.pieces(SITES) == 1
    assert network.couplings().sum() == 2 * len(network.pairs)


def test_a_network_of_a_file_has_its_sites(tmp_path):
    path = tmp_path / "sites.xyz"
    path.write_text("40\n\n" + "".join(f"C {a:.10f} {b:.10f} {c:.10f}\n" for a, b, c in SITES))
    np.testing.assert_allclose(Network.of_file(path, 6.0).rest, Network.of(SITES, 6.0).rest, rtol=1e-8)


def test_sites_that_no_spring_holds_are_an_input_error():
    with pytest.raises(InputError, match="1 of 41 sites, the first number 40"):
        Network.of(np.concatenate([SITES, [[90.0, 0, 0]]]), 6.0)
    with pytest.raises(InputError, match="2 pieces"):
        Network.of(np.concatenate([SITES, SITES + 90]), 6.0)


def test_a_crystal_of_silicon_has_its_cohesive_energy_and_lattice():
    energies = [
        float(value_and_slope(one, one.native)[0]) / one.n
        for one in (Silicon.of(3, vacancies=0, lattice=LATTICE + change) for change in (-0.02, 0.0, 0.02))
    ]
    assert energies[1] == pytest.approx(-4.3363, abs=2e-5)
    below, at, above = energies
    best = LATTICE + 0.01 * (below - above) / (below + above - 2 * at)  # the vertex of a parabola
    assert best == pytest.approx(5.431, abs=1e-3)


def test_silicon_has_the_energy_of_a_sum_over_triplets():
    vacancy = Silicon.of(3)
    x = vacancy.native + np.random.default_rng(0).normal(0, 0.1, vacancy.native.shape)
    assert float(value_and_slope(vacancy, x)[0]) == pytest.approx(vacancy.independent(x), rel=1e-12)
    assert_gradient(vacancy, x)
    shifted = x + np.array([0.3, -7.0, 2.0])
    assert float(value_and_slope(vacancy, shifted)[0]) == pytest.approx(vacancy.independent(x), rel=1e-11)
    assert vacancy.contacts(x) == (4 * 216 // 2 - 4, 4 * 216 // 2 - 4)
    assert vacancy.pieces(x) == 1


def test_a_vacancy_costs_two_bonds_and_less_when_its_neighbours_come_near():
    """The lattice with a hole is a minimum too: the deeper one is behind a barrier."""
    vacancy = Silicon.of(3)
    start = float(value_and_slope(vacancy, vacancy.native)[0]) + 2 * EPSILON * vacancy.n
    assert start == pytest.approx(2 * EPSILON, abs=1e-4)

    def of_flat(flat):
        value, slope = value_and_slope(vacancy, flat.reshape(-1, 3))
        return float(value), np.asarray(slope).ravel()

    hole = np.zeros(3)
    apart = vacancy.native - hole
    apart -= vacancy.box * np.round(apart / vacancy.box)
    r = np.linalg.norm(apart, axis=1, keepdims=True)
    x = vacancy.native - np.where(r < 0.5 * LATTICE, 0.5 * apart / r, 0.0)
    found = minimize(of_flat, x.ravel(), jac=True, method="L-BFGS-B", options={"ftol": 1e-12})
    relaxed = found.fun + 2 * EPSILON * vacancy.n
    assert relaxed == pytest.approx(2.8, abs=0.2)  # 2.82 eV, Balamane and others 1992, 10.1103/PhysRevB.46.2250
    assert found.fun == pytest.approx(vacancy.independent(found.x.reshape(-1, 3)), rel=1e-12)


def test_atoms_out_of_reach_of_their_list_have_no_energy():
    vacancy = Silicon.of(3)
    x = vacancy.native.copy()
    x[5] += 1.0
    assert np.isnan(value_and_slope(vacancy, x)[0])
    with pytest.raises(InputError, match="narrower than twice"):
        Silicon.of(1)


def test_creeping_flow_is_the_minimum_that_a_sparse_solution_gives():
    flow = Stokes.of(31)
    psi = flow.direct()
    value, slope = value_and_slope(flow, psi)
    assert float(value) == pytest.approx(flow.reference(), rel=1e-12)
    assert np.abs(slope).max() < 1e-9
    other = psi + np.random.default_rng(0).normal(0, 0.01, psi.shape)
    assert float(value_and_slope(flow, other)[0]) == pytest.approx(flow.independent(other), rel=1e-11)
    assert flow.independent(other) > flow.reference()
    assert_gradient(flow, other)
    # The centre of the vortex of creeping flow: ψ = −0.100076 at (0.5, 0.765).
    row, column = divmod(int(psi.argmin()), 31)
    assert psi.min() == pytest.approx(-0.100076, abs=1e-3)
    assert ((column + 1) / 32, (row + 1) / 32) == pytest.approx((0.5, 0.765), abs=1 / 32)


def test_the_flow_is_mirrored_with_its_cavity_and_its_grid_is_named():
    flow = Stokes.of(8)
    psi = flow.direct().reshape(8, 8)
    np.testing.assert_allclose(psi, psi[:, ::-1], atol=1e-12)
    assert flow.label(9) == "grid point (2, 2)"
    assert flow.couplings().sum() == 4 * 8 * 7
    with pytest.raises(InputError, match="2 inner points"):
        Stokes.of(2)
