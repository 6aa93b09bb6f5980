"""Rigid bodies without forces or torn apart: degrees of freedom, and constraints that cannot be kept."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.energies.columns import entries
from hpcfit.energies.constraints import clusters
from hpcfit.simulation.langevin import SCHEMES, Bath, Course, Motion, PhasePoint, calm, noise_key, walk
from tests.simulation.rigid_systems import constrained


@pytest.mark.parametrize("name", ["middle", "stochastic"])
def test_rigid_waters_have_six_degrees_of_freedom(name):
    """400 of them without forces: K of one is kT/2 times chi^2 with 6 degrees, of which e^-4 is left from frame to
    frame: 25 frames count as independent ones."""
    n, bath, rng = 400, Bath(2.5, 100.0, 0.0005), np.random.default_rng(2)
    masses = np.tile([16.0, 1.0, 1.0], n)
    pairs = np.concatenate([np.array([(0, 1), (0, 2), (1, 2)]) + 3 * k for k in range(n)])
    constraints = clusters(pairs, entries("constraint.length", np.tile([0, 0, 1], n)), masses)
    x = np.tile([[0, 0, 0], [0.0957, 0, 0], [-0.024, 0.0927, 0]], (n, 1))
    parameters = {"constraint.length": np.array([0.09572, 0.15139])}

    @jax.jit
    def kinetic(constraints, x, v):
        scheme = constrained(constraints, masses, bath, parameters, SCHEMES[name])
        energy = lambda point: 0.5 * jnp.sum(masses[:, None] * point.v**2)  # noqa: E731
        begun = scheme.begun(PhasePoint(x, v))
        motion = Motion(lambda x, _: jnp.zeros_like(x), scheme)
        return walk(motion, begun, noise_key(0, 0, 0), Course(1000, 40), energy).seen

    v = rng.normal(size=x.shape) * np.sqrt(bath.kT / masses)[:, None]
    found = np.mean(kinetic(constraints, x, v)) / n
    assert found == pytest.approx(3 * bath.kT, abs=3 * np.sqrt(2 / 6 / (25 * n)) * 3 * bath.kT)


def test_a_walk_whose_constraints_fail_stands_still_and_its_derivative_is_a_number():
    """A molecule that is shot across its bond: no push along the old bond brings its atoms back."""
    masses = np.array([16.0, 1.0])
    constraints = clusters(np.array([(0, 1)]), entries("constraint.length", [0]), masses)
    x = jnp.array([[0.0, 0, 0], [0.1, 0, 0]])

    @jax.jit
    def ended(push):
        scheme = constrained(constraints, masses, Bath(0.0, 1.0, 0.01), {"constraint.length": jnp.array([0.1])})
        fine = partial(calm, masses=masses, hottest=1e6, furthest=10.0)
        forces = lambda x, _: push * jnp.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]) * (1 + 100 * x**2)  # noqa: E731
        return walk(Motion(forces, scheme, fine), PhasePoint(x, jnp.zeros_like(x)), noise_key(0, 0, 0), Course(40, 40))

    assert ended(1.0).broke == -1
    far = ended(1e3)
    assert 0 <= far.broke < 40
    assert np.all(np.isfinite(far.end.x))
    slope = jax.grad(lambda push: jnp.sum(ended(push).end.x[1] * jnp.array([1.0, 2.0, 3.0])))(1e3)
    assert np.isfinite(slope)
