"""Correlations along walks against double loops; of the Langevin oscillator and of a free particle in closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.observables.motion import (
    Diffusion,
    DiffusionOfVelocities,
    MeanSquareDisplacement,
    PositionAutocorrelation,
    VelocityAutocorrelation,
)
from hpcfit.observables.observable import State, numbers
from hpcfit.simulation.langevin import Bath, Course, Motion, PhasePoint, middle, noise_key, walk

RNG = np.random.default_rng(0)
FRAMES, ATOMS, LAGS, BURN_IN = RNG.normal(size=(12, 5, 3)), (0, 2, 3), (0, 1, 4), 3
MOTIONS = {
    "velocities": VelocityAutocorrelation(ATOMS, LAGS, BURN_IN),
    "positions": PositionAutocorrelation(RNG.normal(size=(3, 3)), ATOMS, LAGS, BURN_IN),
    "displacements": MeanSquareDisplacement(ATOMS, LAGS, BURN_IN),
    "diffusion": Diffusion(ATOMS, LAGS, BURN_IN),
    "diffusion of velocities": DiffusionOfVelocities(ATOMS, 5, BURN_IN),
}


def over_pairs(frames, lag, of_two):
    """The mean over origins and atoms, one after another."""
    found = [of_two(frames[t, i], frames[t + lag, i]) for t in range(BURN_IN, 12 - lag) for i in ATOMS]
    return np.mean(found)


def displaced(one, other):
    return np.sum((one - other) ** 2)


def brute_force(name, one):
    if name == "velocities":
        return [over_pairs(FRAMES, lag, np.dot) for lag in LAGS]
    if name == "positions":
        about = FRAMES.copy()
        about[:, ATOMS] -= one.centre
        return [over_pairs(about, lag, np.dot) for lag in LAGS]
    if name == "displacements":
        return [over_pairs(FRAMES, lag, displaced) for lag in LAGS]
    if name == "diffusion":
        return [np.polyfit(0.2 * np.array(LAGS), [over_pairs(FRAMES, lag, displaced) for lag in LAGS], 1)[0] / 6]
    found = [over_pairs(FRAMES, lag, np.dot) for lag in range(6)]
    return [0.2 * np.trapezoid(found) / 3]


@pytest.mark.parametrize("name", MOTIONS)
def test_correlations_are_those_of_a_double_loop_and_their_derivatives_of_differences(name):
    one = MOTIONS[name]

    def of_frames(frames):
        states = [State(frame, frame, None, None, {}, 1.0, np.ones(5)) for frame in frames]
        return one.of_average(one.of_walk(jnp.stack([numbers(one, state) for state in states]), 0.2))

    along = RNG.normal(size=FRAMES.shape)
    pushed = jax.jit(lambda frames: jax.jvp(of_frames, (frames,), (along,)))
    value, found = pushed(FRAMES)
    np.testing.assert_allclose(value, brute_force(name, one), rtol=1e-12)
    # Quadratic in the frames: central differences are exact but for rounding.
    expected = (pushed(FRAMES + 1e-3 * along)[0] - pushed(FRAMES - 1e-3 * along)[0]) / 2e-3
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


def test_lags_must_fit_into_a_walk():
    with pytest.raises(InputError, match="a walk of 6 frames has no two frames 4 apart behind a burn-in of 3"):
        MOTIONS["velocities"].of_walk(jnp.asarray(FRAMES[:6, :3]), 1.0)
    with pytest.raises(InputError, match="give at least 1 of them"):
        VelocityAutocorrelation(ATOMS, (), 0)
    with pytest.raises(InputError, match="all lags of a diffusion are 2"):
        Diffusion(ATOMS, (2, 2), 0)
    with pytest.raises(InputError, match="give at least 1 of them, none below 0"):
        DiffusionOfVelocities(ATOMS, 0, 0)
    with pytest.raises(InputError, match="these frames have no velocities"):
        numbers(MOTIONS["velocities"], State(FRAMES[0], None, None, None, {}, 1.0, np.ones(5)))


# ---- the Langevin oscillator ---------------------------------------------------------------------------------------

K, M, WALKS, N, STRIDE = 1000.0, 12.0, 32, 64, 5
BATH = Bath(kT=2.5, friction=5.0, step=0.01)
SCHEME = middle(BATH, np.full(N, M))
OF_WALKS = (
    VelocityAutocorrelation(tuple(range(N)), (0, 1, 2, 4, 8), 60),
    PositionAutocorrelation(np.zeros((N, 3)), tuple(range(N)), (0, 1, 2, 4, 8), 60),
    Diffusion(tuple(range(N)), (40, 60), 0),
    DiffusionOfVelocities(tuple(range(N)), 40, 0),
)


def moments(k):
    """The map of a step of (x, v) in the well, [2, 2], and the covariance in which the scheme is at rest."""
    xv, xf, xn, vv, vf, vn = (jnp.ravel(jnp.asarray(c))[0] for c in SCHEME)
    step = jnp.stack([jnp.stack([1 - xf * k, xv]), jnp.stack([-vf * k, vv])])
    shake = jnp.stack([xn, vn])
    held = jnp.linalg.solve(jnp.eye(4) - jnp.kron(step, step), jnp.outer(shake, shake).ravel())
    return step, held.reshape(2, 2)


@jax.jit
def closed_form(k):
    """<v v> and <x x> at the lags, [10], of three components: of the scheme itself, without an error of its step."""
    step, held = moments(k)
    found = [jnp.linalg.matrix_power(step, STRIDE * lag) @ held for lag in OF_WALKS[0].lags]
    return 3 * jnp.stack([c[1, 1] for c in found] + [c[0, 0] for c in found])


@partial(jax.jit, static_argnames="steps")
def seen(k, starts, draw, steps=800):
    """The numbers of walks [WALKS, 12] and their derivatives by k, along the walks."""

    def of_walk(k, start, number):
        motion = Motion(lambda x, _: -k * x, SCHEME)
        found = walk(motion, start, noise_key(7, draw, number), Course(steps, STRIDE))
        kept = [found.seen.x if hasattr(one, "of_frame") else found.seen.v for one in OF_WALKS]
        return jnp.concatenate([one.of_walk(leaf, STRIDE * BATH.step) for one, leaf in zip(OF_WALKS, kept)])

    one_walk = lambda start, number: jax.jvp(lambda k: of_walk(k, start, number), (k,), (1.0,))  # noqa: E731
    return jax.vmap(one_walk)(starts, jnp.arange(WALKS))


def starts(seed, k=K):
    """Starts in the distribution in which the scheme is at rest; with no spring at the origin."""
    held = np.asarray(moments(k)[1]) if k else np.diag([0.0, BATH.kT / M])
    root = np.linalg.cholesky(held) if k else np.sqrt(held)
    drawn = np.random.default_rng(seed).normal(size=(WALKS, N, 3, 2)) @ root.T
    return PhasePoint(drawn[..., 0], drawn[..., 1])


def mean_and_error(values):
    return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))


def test_the_closed_form_becomes_that_of_continuous_time():
    """Its error is of second order in the step: at omega dt = 0.09 below 1 % of the value at lag 0."""
    omega, g = np.sqrt(K / M), BATH.friction / 2
    W, t = np.sqrt(omega**2 - g**2), STRIDE * BATH.step * np.array(OF_WALKS[0].lags)
    velocities = BATH.kT / M * np.exp(-g * t) * (np.cos(W * t) - g / W * np.sin(W * t))
    positions = BATH.kT / K * np.exp(-g * t) * (np.cos(W * t) + g / W * np.sin(W * t))
    found = np.asarray(closed_form(K)).reshape(2, 5)
    for one, expected in zip(found, (3 * velocities, 3 * positions)):
        np.testing.assert_allclose(one, expected, atol=(omega * BATH.step) ** 2 * expected[0])


def test_correlations_of_the_langevin_oscillator_and_their_derivatives():
    """Five lags each of velocities and positions, with derivatives by k along the walks, behind 3 ps in which tangents
    forget (exp(-7.5)) that the starts did not depend on k: within 3 standard errors, which are small."""
    expected = closed_form(K), jax.jacfwd(closed_form)(K)
    for values, exact in zip(seen(K, starts(1), 0), expected):
        mean, error = mean_and_error(np.asarray(values)[:, :10])
        assert np.all(np.abs(mean - exact) < 3 * error)
        assert np.all(error.reshape(2, 5) < 0.02 * np.abs(np.asarray(exact)).reshape(2, 5).max(axis=1, keepdims=True))


def test_a_spring_is_fitted_from_correlations():
    """From 20 % off, by Newton steps within one draw of the noise, to the closed form: within 3 standard errors of the
    last step, by walks."""
    target, k, begun = np.asarray(closed_form(K)), 0.8 * K, starts(2)
    for _ in range(4):
        values, slopes = (np.asarray(of_walks)[:, :10] for of_walks in seen(k, begun, 1))
        _, error = mean_and_error(values)
        slope = slopes.mean(axis=0) / error**2
        steps = (target - values) @ slope / (slope @ slopes.mean(axis=0))
        step, off = mean_and_error(steps)
        k += step
    assert abs(step) < 1e-3 * K
    assert abs(k - K) < 3 * off
    assert off < 0.02 * K


def test_a_free_particle_diffuses_as_einstein_says():
    """kT / (m friction), by displacements at lags beyond ten times of relaxation, and by velocities, whose sum of
    trapezia is known: both within 3 standard errors."""
    values = np.asarray(seen(0.0, starts(3, 0.0), 2)[0])[:, 10:]
    mean, error = mean_and_error(values)
    a = BATH.kept**STRIDE
    trapezia = STRIDE * BATH.step * BATH.kT / M * (1 + a) / (2 * (1 - a)) * (1 - a**40)
    # The scheme diffuses as if a step were a trapezium: 1 + (friction dt)^2 / 12.
    einstein = BATH.step * BATH.kT / M * (1 + BATH.kept) / (2 * (1 - BATH.kept))
    assert np.all(np.abs(mean - [einstein, trapezia]) < 3 * error)
    assert error[0] < 0.05 * einstein
    assert error[1] < 0.02 * einstein
    assert einstein == pytest.approx(BATH.kT / (M * BATH.friction), rel=1e-3)
