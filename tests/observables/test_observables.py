"""Observables of frames against sums written apart and gemmi; their derivatives against finite differences."""

from itertools import product

import gemmi
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.observables.geometry import Angles, Coordination, Distances, RadiusOfGyration, TorsionShares
from hpcfit.observables.nmr import NoeDistances, ScalarCouplings
from hpcfit.observables.observable import averaged
from hpcfit.observables.pair_distribution import RadialDistribution
from hpcfit.observables.scattering import (
    DebyeIntensity,
    ElectronDensity,
    StructureFactors,
    density_gaussians,
    form_factors,
)

N, ELEMENTS = 9, ["C", "H", "N", "O", "S", "C", "H", "H", "Fe"]
RNG = np.random.default_rng(0)
X = RNG.uniform(0, 8, (N, 3))
BOX = np.array([[10.0, 0, 0], [2.0, 9.0, 0], [-1.0, 1.5, 8.0]])
Q = np.array([1e-9, 0.1, 0.7, 2.3])
EVERY = tuple(range(N))
QUADRUPLES = ((0, 1, 2, 3), (3, 4, 5, 8))

OBSERVABLES = {
    "radius of gyration": RadiusOfGyration(RNG.uniform(1, 16, N), EVERY),
    "distances": Distances(((0, 1), (2, 8))),
    "angles": Angles(((0, 1, 2), (3, 5, 8))),
    "shares of torsions": TorsionShares(0.2, QUADRUPLES, 5),
    "coordination": Coordination(3.0, 0.03, (0, 1, 2), EVERY),
    "NOE": NoeDistances((((0,), (1, 2)), ((3,), (4,))), 6, True),
    "scalar couplings": ScalarCouplings(np.array([9.5, -1.4, 0.3]), 0.5, QUADRUPLES),
    "Debye": DebyeIntensity(Q, form_factors(ELEMENTS, Q)),
    "structure factors": StructureFactors(RNG.uniform(1, 8, (3, N)), ((1, 0, 0), (2, -1, 3), (0, 0, 0))),
    "electron density": ElectronDensity(RNG.random((4, 3)), *density_gaussians(ELEMENTS, 30.0, "A")),
    "radial distribution": RadialDistribution(np.array([1.0, 2.0, 3.5, 4.0]), 0.2, (0, 1, 2), EVERY),
}


def nearest(u):
    """The shortest of the 27 nearest images; enough in this box for distances below half its width."""
    images = np.array(list(product((-1, 0, 1), repeat=3))) @ BOX
    candidates = u[..., None, :] + images
    return np.take_along_axis(candidates, np.sum(candidates**2, -1).argmin(-1)[..., None, None], -2)[..., 0, :]


@jax.jit
def of_frame(one, x, box=None):
    return one.of_frame(x, box)


def of_every(x):
    """The numbers of all observables: one function, which is compiled once."""
    return [jnp.ravel(one.of_average(one.of_frame(x, jnp.asarray(BOX)))) for one in OBSERVABLES.values()]


@pytest.fixture(scope="module")
def differentiated():
    """Name -> derivatives along a direction, by differentiation and by central differences."""
    x, along = jnp.asarray(X), jnp.asarray(np.random.default_rng(1).normal(size=(N, 3)))
    pushed = jax.jit(lambda x: jax.jvp(of_every, (x,), (along,)))
    _, found = pushed(x)
    (above, _), (below, _) = pushed(x + 1e-5 * along), pushed(x - 1e-5 * along)
    differences = [(up - down) / 2e-5 for up, down in zip(above, below)]
    return dict(zip(OBSERVABLES, zip(found, differences)))


@pytest.mark.parametrize("name", OBSERVABLES)
def test_derivatives_by_positions_are_those_of_central_differences(name, differentiated):
    found, expected = differentiated[name]
    # A third derivative of order 1 to 1e3 and rounding: both below 1e-6 of the largest at a step of 1e-5.
    scale = max(np.max(np.abs(expected)), 1e-3)
    np.testing.assert_allclose(found, expected, atol=1e-6 * scale)
    assert np.max(np.abs(found)) > 1e-3


def test_derivatives_pulled_back_are_finite_and_those_pushed_forward(differentiated):
    along = jnp.asarray(np.random.default_rng(1).normal(size=(N, 3)))
    pulled = jax.jit(jax.grad(lambda x: sum(jnp.sum(jnp.sin(i + 1.0) * one) for i, one in enumerate(of_every(x)))))
    forward = sum(np.sum(np.sin(i + 1.0) * found) for i, (found, _) in enumerate(differentiated.values()))
    assert float(jnp.sum(pulled(jnp.asarray(X)) * along)) == pytest.approx(float(forward), rel=1e-10)


def test_a_radius_of_gyration_is_that_of_its_definition():
    one = OBSERVABLES["radius of gyration"]
    centre = np.average(X, axis=0, weights=one.masses)
    expected = np.sqrt(np.average(np.sum((X - centre) ** 2, axis=1), weights=one.masses))
    assert of_frame(one, X)[0] == pytest.approx(expected, rel=1e-13)
    still = RadiusOfGyration(np.ones(2), (0, 1))
    gradient = jax.grad(lambda x: still.of_frame(x, None)[0])(jnp.zeros((2, 3)))
    assert np.all(gradient == 0)  # of atoms on one place there is no direction, and no NaN


def test_shares_of_torsions_sum_to_one_and_sharpen_to_a_histogram():
    for width in (0.3, 1e-4):
        shares = of_frame(TorsionShares(width, QUADRUPLES, 5), X)
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-12)
    reference = [gemmi.calculate_dihedral(*(gemmi.Position(*X[i]) for i in four)) for four in QUADRUPLES]
    part = np.floor((np.array(reference) + np.pi) / (2 * np.pi / 5)).astype(int)
    np.testing.assert_allclose(shares, np.eye(5)[part], atol=1e-9)


def test_coordination_is_the_smeared_count():
    one = OBSERVABLES["coordination"]
    r = np.linalg.norm(nearest(X[:3, None] - X[None]), axis=-1)
    counted = 1 / (1 + np.exp((r - 3.0) / 0.03))
    counted[np.arange(3), np.arange(3)] = 0
    assert counted.sum() > 0.5
    assert of_frame(one, X, BOX)[0] == pytest.approx(counted.sum() / 3, rel=1e-10)


@pytest.mark.parametrize("radiation", ["xray", "neutron", "electron"])
def test_virtual_sites_scatter_nothing(radiation):
    assert not form_factors(["", "O"], Q, radiation)[:, 0].any()
    assert not density_gaussians(["", "O"], 20.0)[0][0].any()


@pytest.mark.parametrize(("power", "divided"), [(6, True), (6, False), (3, True)])
def test_noe_distances_are_averages_of_powers(power, divided):
    """Over two frames, whose mean of r^-p is what counts."""
    one = NoeDistances((((0, 1), (2, 3, 4)), ((5,), (6,))), power, divided)
    frames = np.stack([X, X * 1.2])
    r = np.linalg.norm(frames[:, [0, 1], None] - frames[:, None, [2, 3, 4]], axis=-1).reshape(2, -1)
    mean = (r**-power).sum(axis=1).mean() / (6 if divided else 1)
    found = averaged(one, jnp.asarray(frames))
    assert found[0] == pytest.approx(mean ** (-1 / power), rel=1e-12)
    assert found[1] == pytest.approx(np.mean(np.linalg.norm(frames[:, 5] - frames[:, 6], axis=-1) ** -power)
                                     ** (-1 / power), rel=1e-12)  # fmt: skip


def test_weights_decide_an_average():
    frames = jnp.asarray(np.stack([X, 2 * X]))
    found = averaged(Distances(((0, 1),)), frames, weights=jnp.array([0.25, 0.75]))
    assert found[0] == pytest.approx(1.75 * np.linalg.norm(X[0] - X[1]), rel=1e-12)


def test_couplings_follow_karplus_and_so_do_their_coefficients():
    one, x = OBSERVABLES["scalar couplings"], jnp.asarray(X)
    phi = np.array([gemmi.calculate_dihedral(*(gemmi.Position(*X[i]) for i in four)) for four in QUADRUPLES]) + 0.5
    coupling = lambda fitted: fitted.of_average(fitted.of_frame(x, None))  # noqa: E731
    np.testing.assert_allclose(coupling(one), 9.5 * np.cos(phi) ** 2 - 1.4 * np.cos(phi) + 0.3, rtol=1e-12)
    by_coefficients = jax.jit(jax.jacobian(coupling))(one).coefficients
    np.testing.assert_allclose(by_coefficients, np.stack([np.cos(phi) ** 2, np.cos(phi), np.ones(2)], 1), rtol=1e-12)


def test_the_debye_sum_is_the_double_sum():
    one = OBSERVABLES["Debye"]
    r = np.linalg.norm(X[:, None] - X[None], axis=-1)
    expected = [f @ np.sinc(q * r / np.pi) @ f for q, f in zip(Q, one.f)]
    found = of_frame(one, X)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[0] == pytest.approx(one.f[0].sum() ** 2, rel=1e-9)  # forward


def test_the_debye_sum_of_many_atoms_is_the_average_over_directions():
    """70 atoms, more than are held at a time; the average of |F(q)|^2 over 2000 directions of a Fibonacci sphere, which
    integrates spherical harmonics up to order 60 to 1e-3: q r is at most 10 here."""
    x = np.random.default_rng(3).normal(size=(70, 3))
    t = np.arange(2000) + 0.5
    polar, azimuth = np.arccos(1 - t / 1000), np.pi * (1 + 5**0.5) * t
    u = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1)
    q = np.array([0.5, 1.5])
    F = [np.exp(1j * value * u @ x.T).sum(axis=1) for value in q]
    found = of_frame(DebyeIntensity(q, np.ones((2, 70))), x)
    np.testing.assert_allclose(found, [np.mean(np.abs(one) ** 2) for one in F], rtol=1e-3)


@pytest.mark.parametrize("radiation", ["xray", "neutron", "electron"])
def test_structure_factors_are_gemmis(radiation):
    """Of an artificial crystal in P1, without displacements."""
    cell = gemmi.UnitCell(*BOX_CELL)
    structure = gemmi.SmallStructure()
    structure.cell, structure.spacegroup_hm = cell, "P 1"
    orthogonal = np.array(cell.orth.mat.tolist())
    fractional = np.random.default_rng(2).random((N, 3))
    for k, (element, place) in enumerate(zip(ELEMENTS, fractional)):
        site = gemmi.SmallStructure.Site()
        site.label, site.type_symbol, site.element = f"{element}{k}", element, gemmi.Element(element)
        site.fract, site.occ = gemmi.Fractional(*place), 1.0
        structure.add_site(site)
    maker = getattr(gemmi, f"StructureFactorCalculator{radiation[0].upper()}")(cell)
    hkl = ((1, 0, 0), (2, -1, 3), (0, 4, 1))
    expected = np.array([maker.calculate_sf_from_small_structure(structure, h) for h in hkl])
    q = 2 * np.pi * np.array([(1 / cell.calculate_d(h)) for h in hkl])
    one = StructureFactors(form_factors(ELEMENTS, q, radiation), hkl)
    found = of_frame(one, fractional @ orthogonal.T, orthogonal.T)
    np.testing.assert_allclose(found[:, 0] + 1j * found[:, 1], expected, rtol=1e-9)


BOX_CELL = (10.0, 9.2, 8.4, 95.0, 80.0, 101.0)


def test_an_electron_density_has_the_structure_factors_of_its_atoms():
    """The Fourier sum of the density on a grid is F(h) exp(-B s^2 / 4), in electrons and per nm^3 here. The grid folds
    F(28 - h) onto F(h): 40 exp(-30 / 4 (25 / 19)^2) = 1e-4 of it; a Gaussian ends at half the box, 1e-12."""
    elements, box, blur = ["C", "O", "Fe"], np.array([[1.8, 0, 0], [0.3, 1.7, 0], [-0.2, 0.1, 1.9]]), 30.0
    x = np.random.default_rng(4).uniform(0, 1.7, (3, 3))
    grid = np.stack(np.meshgrid(*[np.arange(28) / 28] * 3, indexing="ij"), -1).reshape(-1, 3)
    one = ElectronDensity(grid, *density_gaussians(elements, blur))
    density = np.asarray(of_frame(one, x, box)).reshape(28, 28, 28)
    found = np.fft.ifftn(density) * np.linalg.det(box)
    hkl = np.array([(0, 0, 0), (1, 0, 0), (2, -1, 3), (0, 4, 1)])
    s2 = np.sum((np.linalg.inv(box) @ hkl.T / 10) ** 2, axis=0)
    f = form_factors(elements, 2 * np.pi * np.sqrt(s2)) * np.exp(-blur * s2 / 4)[:, None]
    expected = of_frame(StructureFactors(f, tuple(map(tuple, hkl))), x, box)
    for h, value in zip(hkl, np.asarray(expected)):
        assert found[tuple(h)] == pytest.approx(value[0] + 1j * value[1], abs=1e-4)
    assert found[0, 0, 0].real == pytest.approx(6 + 8 + 26, rel=3e-3)  # IT92's f(0)


def test_neutron_lengths_are_those_of_the_tables():
    found = form_factors(["H", "D", "C"], np.array([0.0, 3.0]), "neutron")
    np.testing.assert_allclose(found, [[-3.739, 6.671, 6.646]] * 2, atol=0.002)  # fm, Sears 1992
    with pytest.raises(InputError, match="'Xx' has no form factor for neutron"):
        form_factors(["Xx"], Q, "neutron")
    with pytest.raises(InputError, match="radiation = 'muon'"):
        form_factors(["C"], Q, "muon")


def test_a_radial_distribution_counts_pairs():
    one = OBSERVABLES["radial distribution"]
    r = np.linalg.norm(nearest(X[:3, None] - X[None]), axis=-1)[~np.eye(3, N, dtype=bool)]
    sharp = of_frame(RadialDistribution(one.edges, 1e-9, one.of, one.among), X, BOX)
    volume, shells = np.linalg.det(BOX), 4 / 3 * np.pi * np.diff(one.edges**3)
    expected = np.histogram(r, one.edges)[0] / (24 * shells / volume)
    np.testing.assert_allclose(sharp, expected, rtol=1e-12)
    assert expected.sum() > 0


def test_an_ideal_gas_has_no_structure():
    """200 places at random, all pairs: the standard error of a bin of n pairs is sqrt(n) / n."""
    x, box = np.random.default_rng(5).uniform(0, 10, (200, 3)), 10 * np.eye(3)
    edges = np.array([1.0, 2.0, 3.0, 4.5])
    every = tuple(range(200))
    found = of_frame(RadialDistribution(edges, 0.1, every, every), x, box)
    pairs = 200 * 199 / 2 * 4 / 3 * np.pi * np.diff(edges**3) / 1000
    assert np.all(np.abs(found - 1) < 4 / np.sqrt(pairs))
    with pytest.raises(InputError, match="do not ascend"):
        RadialDistribution(np.array([1.0, 1.0]), 0.1, (0,), (1,))
