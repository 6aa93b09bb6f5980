"""S(q) of hard and of charged spheres: limits in closed form, numerical transforms, derivatives.

That Percus-Yevick and the random-phase approximation are good descriptions is not tested here.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from hpcfit.observables.interparticle import BJERRUM, charged_spheres, debye_length, hard_spheres

Q = np.linspace(0.0, 3.0, 301)


@pytest.mark.parametrize("eta", [0.01, 0.2, 0.45])
def test_hard_spheres_have_the_compressibility_and_the_transform_of_percus_and_yevick(eta):
    S = np.asarray(hard_spheres(Q, 4.0, eta))
    assert S[0] == pytest.approx((1 - eta) ** 4 / (1 + 2 * eta) ** 2, rel=1e-12)
    alpha = (1 + 2 * eta) ** 2 / (1 - eta) ** 4
    beta = -6 * eta * (1 + eta / 2) ** 2 / (1 - eta) ** 4
    for n in (3, 12, 13, 60, 300):  # on both sides of where one form takes over from the other
        x = 8 * Q[n]
        c = lambda s, x=x: (alpha + beta * s + eta * alpha / 2 * s**3) * s**2 * np.sinc(x * s / np.pi)  # noqa: E731
        assert S[n] == pytest.approx(1 / (1 + 24 * eta * quad(c, 0, 1, epsabs=1e-13)[0]), rel=1e-9)
    assert S[np.argmax(S)] > 1
    assert abs(S[-1] - 1) < 0.1


def test_charged_spheres_repel_by_the_transform_of_their_potential():
    R, eta, z, length, bjerrum = 5.0, 0.05, 2.0, 8.0, BJERRUM["water"]
    density = eta / (4 / 3 * np.pi * R**3)
    S, hard = (np.asarray(one) for one in (charged_spheres(Q, R, eta, z, length, bjerrum), hard_spheres(Q, R, eta)))
    for n in (1, 10, 40):
        u = lambda r: z**2 * bjerrum / (1 + R / length) ** 2 * np.exp(-(r - 2 * R) / length) / r  # noqa: E731
        inside = lambda r, q=Q[n], u=u: 4 * np.pi * r**2 * u(r) * np.sinc(q * r / np.pi)  # noqa: E731
        transform = quad(inside, 2 * R, 60 * length, epsrel=1e-11, limit=400)[0]
        assert 1 / S[n] - 1 / hard[n] == pytest.approx(density * transform, rel=1e-6)
    np.testing.assert_allclose(charged_spheres(Q, R, eta, 0.0, length, bjerrum), hard, rtol=1e-14)
    assert S[0] < hard[0]


def test_s5_141_derivatives_by_all_parameters_are_finite_differences():
    at = jnp.array([4.0, 0.2, 1.5, 8.0])
    for value in (
        lambda p: jnp.sum(jnp.log(hard_spheres(Q, p[0], p[1])) * Q),
        lambda p: jnp.sum(jnp.log(charged_spheres(Q, p[0], p[1], p[2], p[3], 15.0)) * Q),
    ):
        gradient = jax.grad(value)(at)
        for k in range(4):
            step = jnp.zeros(4).at[k].set(1e-5)
            assert float(gradient[k]) == pytest.approx(
                float(value(at + step) - value(at - step)) / 2e-5, rel=1e-6, abs=1e-8
            )


def test_screening_by_salt_in_water():
    assert debye_length(0.1, BJERRUM["water"]) == pytest.approx(9.6, abs=0.1)  # the textbook's 3.04 / sqrt(I) A
    assert debye_length(0.0, BJERRUM["water"], 0.2) == debye_length(0.1, BJERRUM["water"])
