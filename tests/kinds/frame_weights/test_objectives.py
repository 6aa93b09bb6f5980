"""Every objective against NumPy: loss, gradient by weights and by nuisances, held-out orbits, and in one pass.

What is compared with does not share code with the problem, but for the starting values of scale and background.
"""

from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.kinds.frame_weights.objectives import OrbitTerms, ProfiledGaussian, Splines, part_of
from tests.kinds.frame_weights.systems import (
    IN_ONE_PASS,
    OBJECTIVES,
    T,
    all_orbits,
    amplitudes,
    difference,
    params_of,
    pearson,
    system,
)  # fmt: skip

FRAMES = (0, 17, 39, 40, 63, 64, T - 1)  # the borders of blocks and trajectories among them


LEVEL_T = 0.7 * np.random.default_rng(7).standard_normal(T)


@pytest.fixture
def u_t():
    return amplitudes(LEVEL_T)


@lru_cache
def in_two_passes(name):
    """A system with an objective, its nuisances, their gradient and what it finds at ``u_t``: compiled once for all."""
    made = system(**OBJECTIVES[name])
    shared, evaluate = made.start(), made.reverse()
    return made, shared, evaluate, evaluate(params_of(amplitudes(LEVEL_T), shared))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_gradient_are_those_of_the_definition(u_t, name):
    made, shared, _, found = in_two_passes(name)
    # |<F>|^2 is 1e3 times the diffuse part: the definition itself keeps 1e-13, relative to the terms of the sums.
    # Splines that few orbits tell apart are held by a ridge of 1e-12, which their normal equations magnify.
    splines = 1e-8 if "anisotropic" in name else 0.0
    assert found.loss == pytest.approx(made.loss(u_t, shared), rel=1e-10, abs=max(1e-11, splines))
    # Rounding of the loss (1e-13 of its terms) over 2 h, and h^2 / 6 of a third derivative of order 1.
    close = {"rel": 1e-6, "abs": 3e-8}
    gradient = found.gradient.local["u"].ravel()
    for t in FRAMES:
        expected = difference(lambda u, t=t: made.loss(np.where(np.arange(T) == t, u, u_t), shared), u_t[t], 1e-5)
        assert gradient[t] == pytest.approx(expected, **close)
    assert np.all(gradient[T:] == 0)
    assert np.abs(gradient).max() > 1e-4
    for key, value in shared.items():
        for j in np.ndindex(np.shape(value)):

            def along(c, key=key, value=value, j=j):
                moved = np.array(value)
                moved[j] = c
                return made.loss(u_t, shared | {key: moved})

            expected = difference(along, value[j], 1e-5)
            assert abs(expected) > 1e-6
            assert found.gradient.shared[key][j] == pytest.approx(expected, **close)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_held_out_orbits_are_judged_with_the_nuisances_of_the_fitted_ones(u_t, name):
    made, shared, evaluate, found = in_two_passes(name)
    metrics = evaluate.metrics(found)
    w_t = made.weights(u_t)
    close = {"rel": 1e-10, "abs": 1e-8 if "anisotropic" in name else 1e-11}  # see above
    assert metrics["misfit"] == pytest.approx(made.misfit(w_t, shared), **close)
    assert metrics["misfit_free"] == pytest.approx(made.misfit(w_t, shared, part=1), **close)
    assert abs(metrics["misfit_free"] - metrics["misfit"]) > 1e-4
    # CC is reported for every objective, by the multiplicities alone.
    held, m = made.chosen.part == 1, made.orbits.multiplicity
    x, free, fitted = made.x(w_t), np.where(held, m, 0.0), np.where(held, 0.0, m * made.chosen.drawn)
    assert metrics["cc"] == pytest.approx(pearson(fitted, x, made.orbits.observed), abs=1e-10)
    assert metrics["cc_free"] == pytest.approx(pearson(free, x, made.orbits.observed), abs=1e-10)
    assert metrics["cc_anisotropic"] == pytest.approx(made.anisotropic(x, fitted, fitted), abs=1e-8)
    assert metrics["cc_free_anisotropic"] == pytest.approx(made.anisotropic(x, fitted, free), abs=1e-8)


@pytest.mark.parametrize(
    ("name", "weights"),
    [*((name, "simplex") for name in IN_ONE_PASS), ("pearson, anisotropic", "sigmoid"), ("gaussian", "free")],
)
def test_one_pass_gives_what_two_give(u_t, name, weights):
    # Where weights need not sum to 1 they begin near it: the cross-entropy wants x > 0.
    u_t = {"simplex": u_t, "sigmoid": LEVEL_T / 5 - np.log(T - 1), "free": 1 + LEVEL_T / 5}[weights]
    if weights == "simplex":
        made, _, _, two = in_two_passes(name)
    else:
        made = system(weights=weights, **OBJECTIVES[name])
        two = made.reverse()(params_of(u_t))
    one = made.adjoint()(params_of(u_t))
    assert np.isfinite(two.loss)
    # Sums of 128 frames and 64 reflections in another order: 100 units of 1e-16; the misfit divides small numbers.
    assert one.loss == pytest.approx(two.loss, rel=1e-12)
    scale = np.abs(two.gradient.local["u"]).max()
    np.testing.assert_allclose(one.gradient.local["u"], two.gradient.local["u"], rtol=0, atol=3e-12 * scale)
    assert scale > 1e-4
    assert made.case.tiling.width > made.case.tiling.strip


@pytest.mark.parametrize(("encoding", "tolerance"), [("complex64", 1e-7), ("float16", 1e-6)])
def test_one_pass_in_single_precision(u_t, encoding, tolerance):
    """Of the same stored numbers, sums in float32 are wrong by 6e-8 of each term, which add up at random; the gradient
    is a difference of terms ten times its size."""
    exact, two = (system(precision, encoding).reverse()(params_of(u_t)) for precision in ("float64", "float32"))
    one = system("float32", encoding).adjoint()(params_of(u_t))
    scale = np.abs(exact.gradient.local["u"]).max()
    for single in (one, two):
        assert single.loss == pytest.approx(exact.loss, abs=1e-7)
        np.testing.assert_allclose(single.gradient.local["u"], exact.gradient.local["u"], rtol=0, atol=1e-5 * scale)
    # What storing costs, beside the structure factors themselves (``store.reference.Reference``).
    assert one.loss == pytest.approx(system().adjoint()(params_of(u_t)).loss, abs=tolerance)
    assert one.loss != exact.loss


def test_threads_change_no_bit(u_t):
    made = system()
    one, two = (made.adjoint(threads=threads)(params_of(u_t)) for threads in (1, 2))
    assert one.loss == two.loss
    assert np.array_equal(one.gradient.local["u"], two.gradient.local["u"])


@pytest.mark.parametrize("name", IN_ONE_PASS)
def test_directions_and_coefficients_are_the_derivative_of_the_sums(name):
    """sum_k beta_k c_k(h) = d misfit / dx(h), on a tile with two splines, held-out orbits and padding."""
    made = system(**OBJECTIVES[name])
    objective, rng, width = made.case.observed.objective, np.random.default_rng(0), 48
    held = np.arange(width) < 40
    few = Splines(rng.uniform(0, 1, (2, width)), np.int32(0 if name.startswith("gaussian") else 3))
    terms = OrbitTerms(
        x=np.where(held, rng.uniform(1, 5, width), 0.0), y=np.where(held, rng.uniform(0.1, 2, width), 0.0),
        weight=np.where(held, rng.uniform(0, 2, width), 0.0), variance=rng.uniform(0.5, 2, width),
        part=(rng.random(width) < 0.2).astype(np.int32), background=few, radial=few, ess=1.0,
    )  # fmt: skip
    terms = jax.tree.map(jnp.asarray, terms)

    @jax.jit
    def both(terms):
        def misfit(sums):
            return objective.misfit(part_of(sums, 0), part_of(sums, 0), {})

        def sums(x):
            return objective.sums(terms._replace(x=x), {}, 2)

        expected = jax.grad(lambda x: misfit(sums(x)))(terms.x)
        basis, powered, power = objective.directions(terms._replace(x=jnp.full(width, jnp.nan)))
        return expected, basis, powered, power, objective.coefficients(jax.grad(misfit)(sums(terms.x)), terms)

    expected, basis, powered, power, beta = map(np.asarray, both(terms))
    assert len(beta) == len(basis) + 1
    found = beta[:-1] @ basis + beta[-1] * np.where(powered > 0, powered * np.where(held, terms.x, 1.0) ** power, 0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12 * np.abs(expected).max())
    assert np.all(found[40:] == 0)
    assert np.all(found[terms.part == 1] == 0)


def test_a_profiled_constant_background_is_a_correlation(u_t):
    """min over k and c of (1/2) <(k x + c - y)^2> = (1 - CC^2) / 2 var(y), and var(y) = 1 in the objective's units."""
    made = all_orbits(system(objective="gaussian", sigmas=False))
    evaluate = made.reverse()
    metrics = evaluate.metrics(evaluate.value(params_of(u_t)))
    assert metrics["misfit"] == pytest.approx((1 - metrics["cc"] ** 2) / 2, rel=1e-11)


def test_a_negative_scale_is_no_agreement():
    """y = -x fits with k = -1 and no residual; its misfit is (1 + 1) / 2 var(y), the largest there is."""
    x = jnp.asarray(np.random.default_rng(0).random(50))
    ones = jnp.ones(50)
    constant = Splines(ones[None], jnp.asarray(0))
    terms = OrbitTerms(x, -x, ones, ones, jnp.zeros(50, int), constant, constant, ones[0])
    gaussian = ProfiledGaussian(1)
    sums = part_of(gaussian.sums(terms, {}, 1), 0)
    assert gaussian.misfit(sums, sums, {}) == pytest.approx(np.var(np.asarray(x)), rel=1e-10)
    sums = part_of(gaussian.sums(terms._replace(y=x), {}, 1), 0)
    assert gaussian.misfit(sums, sums, {}) == pytest.approx(0, abs=1e-12)


def test_a_smooth_function_of_resolution_is_no_anisotropy(u_t):
    """Cubic splines hold any cubic: added to y of every orbit it changes the correlation of the whole, not this one."""
    made = system(anisotropic=True)
    s = made.orbits.inverse_d
    solvent = replace(made.orbits, observed=made.orbits.observed + 40 * s - 300 * s**3)
    there = system(anisotropic=True, orbits=solvent)
    plain, added = (evaluate.metrics(evaluate.value(params_of(u_t))) for evaluate in (made.reverse(), there.reverse()))
    for name in ("misfit", "misfit_free", "cc_anisotropic", "cc_free_anisotropic"):
        assert added[name] == pytest.approx(plain[name], abs=1e-8)
    assert abs(added["cc"] - plain["cc"]) > 0.01
