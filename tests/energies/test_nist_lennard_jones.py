"""NIST's Lennard-Jones sample configuration 4: energies to 1e-9, with derivatives that were computed twice."""

import jax
import numpy as np
import pytest

from hpcfit.energies.columns import entries
from hpcfit.energies.energy import Energy
from hpcfit.energies.lists import pair_source
from hpcfit.energies.pair_potentials import PairPotential, double_exponential, kind_pairs, lennard_jones

# cut-off: U, dU/dlnσ, tail, d tail/dlnσ; force_field.md §7
EXPECTED = {
    3.0: (-16.790321304625856, -46.249197, -0.545166001, -3.269499670),
    4.0: (-17.060453220, -47.868828, -0.230078393, -1.380358005),
}
PARAMETERS = {"sigma": np.array([1.0]), "epsilon": np.array([1.0])}


def lennard_jones_fluid(atoms: int, cutoff: float, tail: bool) -> Energy:
    columns = {name: entries(name, np.zeros(atoms)) for name in ("sigma", "epsilon")}
    pairs = pair_source(atoms, cutoff=cutoff, periodic=True, orthorhombic=True)
    kinds = kind_pairs(tuple(columns.values()), atoms) if tail else None
    return Energy((PairPotential(pairs=pairs, **columns, tail=kinds),))


@pytest.fixture(scope="module")
def configuration(shared_data):
    path = shared_data / "lj" / "nist_lj_sample_config_periodic4.xyz"
    return np.loadtxt(path, skiprows=2, usecols=(1, 2, 3))


@pytest.mark.parametrize("cutoff", EXPECTED)
def test_energies_and_derivatives(configuration, cutoff):
    u, by_sigma, tail, tail_by_sigma = EXPECTED[cutoff]
    box = 8.0 * np.eye(3)
    energies = [lennard_jones_fluid(30, cutoff, with_tail) for with_tail in (False, True)]
    (value, slope), (whole, whole_slope) = (
        jax.jit(jax.value_and_grad(lambda p, e, x: e(x, p, box)))(PARAMETERS, energy, configuration)
        for energy in energies
    )
    printed = 1e-9 if cutoff == 3.0 else 5e-10  # U at 4 and all derivatives are given to so many digits
    assert float(value) == pytest.approx(u, abs=printed)
    assert float(whole - value) == pytest.approx(tail, abs=1e-9)
    assert float(slope["sigma"][0]) == pytest.approx(by_sigma, abs=5e-7)
    assert float(whole_slope["sigma"][0] - slope["sigma"][0]) == pytest.approx(tail_by_sigma, abs=1e-9)
    assert float(slope["epsilon"][0]) == pytest.approx(float(value), rel=1e-12)  # U is linear in ε


def test_the_double_exponential_has_its_minimum_where_lennard_jones_has():
    r = 2 ** (1 / 6) * 0.3
    for potential in (lennard_jones, lambda *x: double_exponential(*x, 16.766, 4.427)):
        assert float(potential(r, 0.3, 0.7)) == pytest.approx(-0.7, rel=1e-12)
        assert float(jax.grad(potential)(r, 0.3, 0.7)) == pytest.approx(0.0, abs=1e-10)
    # 16.766 and 4.427 give the curvature and the tail of Lennard-Jones: 72 ε/r_m² within 4 %.
    curvature = jax.grad(jax.grad(lambda r: double_exponential(r, 0.3, 0.7, 16.766, 4.427)))(r)
    assert float(curvature) == pytest.approx(16.766 * 4.427 * 0.7 / r**2, rel=1e-12)
