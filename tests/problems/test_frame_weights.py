"""The problem against independent float64 formulas: intensity, CC, KL, gradient, gauge."""

import jax
import numpy as np
import pytest

from hpcfit.data.reference import Encoding, Reference, centred_pairs
from hpcfit.fit.gradient import Frames, Reverse
from hpcfit.fit.grid import Shape, make_grid
from hpcfit.fit.reduction import FastSum, ReproducibleSum
from hpcfit.physics.scattering import diffuse_intensity
from hpcfit.problems.base import FrameRows, Params
from hpcfit.problems.frame_weights import FrameWeights, orbit_intensity, part, shell_correlations, uniform
from hpcfit.problems.orbits import OrbitMap, drawn_orbits, held_out_orbits, make_tiling
from hpcfit.ranks import Ranks
from hpcfit.testsystems.synthetic import cubic_reflections, gaussian_frames

T, SHELLS = 90, 6


class Chunk:
    """All frames in one chunk."""

    def __init__(self, data):
        self.rows, self.data = slice(None), data


def system(
    precision="float64",
    encoding="complex128",
    sum_kind=ReproducibleSum,
    log_prior=None,
    folds=None,
    bootstrap=0,
    **options,
):
    """A gradient over 90 frames in two blocks, and the F_th, orbit map and reference behind it."""
    reflections = cubic_reflections(2.0)
    H, rng = len(reflections), np.random.default_rng(1)
    F_th = gaussian_frames(T, H, seed=3)
    orbit = np.sort(rng.integers(0, H // 3, H))
    orbit = np.unique(orbit, return_inverse=True)[1]
    n = orbit.max() + 1
    orbit_map = OrbitMap(
        np.arange(H), orbit, rng.random(n) * 50, None, rng.integers(1, 9, n), np.sort(rng.integers(0, SHELLS, n)),
        held_out_orbits(n, folds, 0), drawn_orbits(held_out_orbits(n, folds, 0), bootstrap),
        np.zeros((n, 3), int), np.linspace(0.1, 0.5, n), {},
    )  # fmt: skip
    reference = Reference.of_sample(reflections, F_th)
    tiling = make_tiling(orbit_map, reference.scale)
    delta = (F_th - reference.mean) / reference.scale
    pairs = (
        delta.view(float).reshape(T, H, 2)
        if encoding == "complex128"
        else centred_pairs(F_th, reference, Encoding(encoding))
    )
    tiles, width = tiling.columns.shape
    data = np.zeros((tiles, 128, width, 2), pairs.dtype)
    for tile, columns in enumerate(tiling.columns):
        data[tile, :T, columns >= 0] = np.moveaxis(pairs[:, columns[columns >= 0]], 0, 1)
    data = data.reshape(tiles, 2, 64, 2 * width)
    ids = np.where(np.arange(128) < T, np.arange(128), -1).reshape(2, 64)
    grid = make_grid(Ranks(), Shape(1, 1, ""), 2, tiles)
    problem = FrameWeights(tiling.tiles, SHELLS, precision=precision, parts=2 if folds else 1, **options)
    log_prior = np.where(ids >= 0, -np.log(T), 0.0) if log_prior is None else log_prior
    frames = Frames(FrameRows(ids, log_prior, T), lambda: iter([Chunk(data)]))
    return Reverse(problem, frames, grid, sum_kind(grid)), F_th, orbit_map, tiling


def params_of(u_t):
    return Params({}, {"u": np.pad(u_t, (0, 128 - T)).reshape(2, 64)})


def orbit_means(orbit_map, x_h):
    return np.bincount(orbit_map.orbit, x_h) / np.bincount(orbit_map.orbit)


def direct_loss(u_t, F_th, orbit_map, *, anisotropic=False, theta=0.0):
    """The loss from its definition: normalised weights, uncentred structure factors, weighted Pearson."""
    w_t = np.exp(u_t - u_t.max())
    w_t /= w_t.sum()
    x, y = orbit_means(orbit_map, diffuse_intensity(F_th, w_t)), orbit_map.observed.copy()
    m = orbit_map.multiplicity * orbit_map.drawn * ~orbit_map.held_out
    groups = orbit_map.shell if anisotropic else np.zeros(len(x), int)
    for group in np.unique(groups):
        inside = groups == group
        x[inside] -= np.average(x[inside], weights=m[inside])
        y[inside] -= np.average(y[inside], weights=m[inside])
    cc = np.sum(m * x * y) / np.sqrt(np.sum(m * x * x) * np.sum(m * y * y))
    return theta * np.sum(w_t * np.log(T * w_t)) - cc


@pytest.fixture
def u_t():
    return np.random.default_rng(7).standard_normal(T)


@pytest.mark.parametrize("options", [{}, {"anisotropic": True}, {"theta": 0.3}, {"anisotropic": True, "theta": 0.02}])
@pytest.mark.parametrize("resampling", [{}, {"folds": 3}, {"bootstrap": 2}, {"folds": 4, "bootstrap": 1}])
def test_loss_equals_its_definition(u_t, options, resampling):
    evaluate, F_th, orbit_map, _ = system(**options, **resampling)
    # |<F>|^2 is 1e3 times the diffuse part: the definition itself keeps 1e-13, the sums some more.
    assert evaluate(params_of(u_t)).loss == pytest.approx(direct_loss(u_t, F_th, orbit_map, **options), abs=1e-11)


def test_intensity_equals_guinier_to_1e_10(u_t):
    evaluate, F_th, orbit_map, tiling = system()
    result = evaluate.value(params_of(u_t))
    w_t = np.exp(u_t) / np.exp(u_t).sum()
    expected = orbit_means(orbit_map, diffuse_intensity(F_th, w_t))
    for number, places in enumerate(tiling.orbits):

        def pick(tree, n=number):
            return type(tree)(*(leaf[n] for leaf in tree))

        x = orbit_intensity(
            result.statistics._replace(sliced=pick(result.statistics.sliced)), pick(evaluate.problem.tiles)
        )
        np.testing.assert_allclose(np.asarray(x)[places >= 0], expected[places[places >= 0]], rtol=1e-10)


@pytest.mark.parametrize("options", [{}, {"anisotropic": True, "theta": 0.1}])
def test_gradient_equals_central_differences(u_t, options):
    evaluate, F_th, orbit_map, _ = system(**options)
    gradient = evaluate(params_of(u_t)).gradient.local["u"].ravel()
    step = 1e-5
    for t in (0, 17, 63, 64, T - 1):
        shift = step * np.eye(T)[t]
        difference = direct_loss(u_t + shift, F_th, orbit_map, **options) - direct_loss(
            u_t - shift, F_th, orbit_map, **options
        )
        # Rounding of the loss (1e-13) over 2e-5, and the third derivative's h^2 / 6 (below 1e-10 here).
        assert gradient[t] == pytest.approx(difference / (2 * step), abs=2e-8)
    assert np.all(gradient[T:] == 0)
    assert np.abs(gradient).max() > 1e-3


def test_gradient_does_not_see_the_gauge(u_t):
    evaluate, *_ = system(theta=0.1)
    here, shifted = evaluate(params_of(u_t)), evaluate(params_of(u_t + 5))
    assert shifted.loss == pytest.approx(here.loss, abs=1e-13)
    np.testing.assert_allclose(shifted.gradient.local["u"], here.gradient.local["u"], atol=1e-13)
    # sum_t dL/du_t = 0 because a common shift changes nothing
    assert abs(here.gradient.local["u"].sum()) < 1e-13


def test_weights_far_apart_do_not_overflow():
    evaluate, *_ = system()
    u_t = np.linspace(-900, 900, T)
    result = evaluate(params_of(u_t))
    assert float(result.statistics.common.w) == pytest.approx(1.0, abs=1e-12)


def test_padding_and_absent_frames_carry_no_weight(u_t):
    evaluate, *_ = system()
    params = params_of(u_t)
    noisy = Params({}, {"u": params.local["u"] + np.where(evaluate.frames.rows.ids < 0, 50.0, 0.0)})
    assert evaluate(noisy).loss == evaluate(params).loss


@pytest.mark.parametrize(
    ("precision", "encoding", "tolerance"), [("float32", "complex64", 1e-7), ("float32", "float16", 1e-6)]
)
def test_cc_in_single_precision_and_from_float16(u_t, precision, encoding, tolerance):
    exact, single = system()[0](params_of(u_t)), system(precision, encoding)[0](params_of(u_t))
    assert single.loss == pytest.approx(exact.loss, abs=tolerance)
    assert single.loss != exact.loss


def test_fast_sums_agree_to_1e_10(u_t):
    exact, fast = (system(sum_kind=kind)[0](params_of(u_t)) for kind in (ReproducibleSum, FastSum))
    assert fast.loss == pytest.approx(exact.loss, abs=1e-10)
    np.testing.assert_allclose(fast.gradient.local["u"], exact.gradient.local["u"], atol=1e-10)


def test_metrics_of_uniform_weights():
    evaluate, *_ = system()
    result = evaluate(uniform(evaluate.frames.rows))
    metrics = evaluate.metrics(result)
    assert metrics["ess"] == pytest.approx(T, rel=1e-12)
    assert metrics["kl"] == pytest.approx(0, abs=1e-12)


def test_ess_and_divergence_of_two_levels():
    # a frames of weight p/a each and T - a of (1 - p)/(T - a): closed forms of both
    evaluate, *_ = system()
    a, p = 30, 0.7
    w_t = np.r_[np.full(a, p / a), np.full(T - a, (1 - p) / (T - a))]
    result = evaluate(params_of(np.log(w_t)))
    metrics = evaluate.metrics(result)
    assert metrics["ess"] == pytest.approx(1 / (p**2 / a + (1 - p) ** 2 / (T - a)), rel=1e-12)
    assert metrics["kl"] == pytest.approx(p * np.log(p * T / a) + (1 - p) * np.log((1 - p) * T / (T - a)), rel=1e-12)


def test_shell_correlations_equal_numpy(u_t):
    evaluate, F_th, orbit_map, _ = system()
    found = shell_correlations(part(evaluate.value(params_of(u_t)).sums, 0))
    w_t = np.exp(u_t) / np.exp(u_t).sum()
    x = orbit_means(orbit_map, diffuse_intensity(F_th, w_t))
    for shell in range(SHELLS):
        inside = orbit_map.shell == shell
        covariance = np.cov(x[inside], orbit_map.observed[inside], aweights=orbit_map.multiplicity[inside])
        assert found[shell] == pytest.approx(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]), abs=1e-10)


def test_random_start_is_a_function_of_seed_and_frame_id():
    problem = system(random_start=True)[0].problem
    ids = np.arange(128).reshape(2, 64)
    whole = problem.init(3, FrameRows(ids, ids * 0.0, 128)).local["u"]
    assert np.array_equal(whole[1:], problem.init(3, FrameRows(ids[1:], ids[1:] * 0.0, 128)).local["u"])
    assert not np.array_equal(whole, problem.init(4, FrameRows(ids, ids * 0.0, 128)).local["u"])
    assert abs(whole.mean()) < 4 / np.sqrt(128)
    assert abs(whole.std() - 1) < 4 / np.sqrt(2 * 128)


def test_partial_is_additive(u_t):
    """partial(a ++ b) == partial(a) + partial(b): splitting a block by padding changes nothing but rounding."""
    from hpcfit.problems.base import Cell

    evaluate, *_ = system()
    chunk = next(evaluate.frames.chunks())
    data, ids = chunk.data[0, 0], evaluate.frames.rows.ids[0]
    params = Params({}, {"u": u_t[:64]})
    halves = [np.where(np.arange(64) < 20, ids, -1), np.where(np.arange(64) >= 20, ids, -1)]
    whole, *parts = (
        evaluate.problem.partial(params, Cell(data, rows, np.full(64, -np.log(T)))) for rows in (ids, *halves)
    )
    added = jax.tree.map(lambda a, b: a + b, *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), whole, added)


def test_a_prior_shifts_weights_and_divergence(u_t):
    """Weights w0 exp(u) / Z; KL is to w0; u = -ln(T w0) are uniform weights again."""
    w0_t = np.random.default_rng(9).random(T) + 0.1
    w0_t /= w0_t.sum()
    log_prior = np.pad(np.log(w0_t), (0, 128 - T)).reshape(2, 64)
    evaluate, F_th, orbit_map, _ = system(log_prior=log_prior, theta=0.2)
    w_t = w0_t * np.exp(u_t)
    w_t /= w_t.sum()
    expected = direct_loss(np.log(w_t), F_th, orbit_map) + 0.2 * np.sum(w_t * np.log(w_t / w0_t))
    result = evaluate(params_of(u_t))
    assert result.loss == pytest.approx(expected, abs=1e-11)
    assert evaluate.metrics(evaluate.value(uniform(evaluate.frames.rows)))["ess"] == pytest.approx(T, rel=1e-12)
    metric = evaluate.problem.metric(result.params, evaluate.frames.rows).local["u"].ravel()
    np.testing.assert_allclose(metric[:T], w_t, rtol=1e-12)
    assert np.all(metric[T:] == 0)


def test_cc_free_is_the_correlation_of_the_held_out_orbits_alone(u_t):
    evaluate, F_th, orbit_map, _ = system(folds=4, bootstrap=3)
    metrics = evaluate.metrics(evaluate.value(params_of(u_t)))
    w_t = np.exp(u_t) / np.exp(u_t).sum()
    x, free = orbit_means(orbit_map, diffuse_intensity(F_th, w_t)), orbit_map.held_out
    covariance = np.cov(x[free], orbit_map.observed[free], aweights=orbit_map.multiplicity[free])
    assert metrics["cc_free"] == pytest.approx(covariance[0, 1] / np.sqrt(np.prod(np.diag(covariance))), abs=1e-11)
    assert "cc_free" not in system()[0].metrics(system()[0].value(params_of(u_t)))
