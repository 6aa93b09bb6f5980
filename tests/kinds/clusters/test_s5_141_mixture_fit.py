"""The mixture fit: the reference's least squares, gradients, known mixtures recovered, the same bits on two ranks.

S5-106 B refined, S5-107 populations of sum 1, S5-117 curves of a fit, S5-141 B, weights, scale and offset refined.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.fit.problem import Params
from hpcfit.kinds.clusters.mixture.components import mean_of, reference_fit
from hpcfit.kinds.clusters.mixture.fits import Mixture, MixtureOptions, Unrecorded, bootstrap, fit_mixture, leave_out
from hpcfit.kinds.clusters.mixture.posterior import sample
from hpcfit.ranks import Ranks
from tests.fit.thread_ranks import Meeting, ThreadRanks
from tests.kinds.clusters.mixtures import SOLVENT, SPECIES, TRUE, Q, averaged_components, components, measured

HARD = (5.0, 0.15)
ALL = MixtureOptions(spheres="hard", pairs=(("Pb", "I"),), alpha=3.0)


def even(of):
    """The components at equal populations, from which a fit begins."""
    return [one._replace(weight=1.0) for one in of]


@pytest.fixture(scope="module")
def small():
    """A mixture whose only free parameters are populations, scale and offset, with its fit."""
    mixture = Mixture.of(even(components()), SPECIES, measured(components()))
    return mixture, fit_mixture(mixture, Unrecorded())


@pytest.mark.parametrize("variant", ["", "subset5", "subset3", "subset2"])
def test_s5_117_least_squares_of_the_reference(shared_data, variant):
    folder = shared_data / "clusters"
    saxs = json.loads((folder / "pbi64_golden" / variant / "saxs.json").read_text())
    fitted = saxs["experimental_fit"]
    measured_curve = np.loadtxt(folder / fitted["data"])[:, 1]
    for which in ("combined", "observed"):
        found = reference_fit(np.array(fitted[f"{which}_raw_model"]), measured_curve)
        named = fitted["rmse" if which == "combined" else "observed_only_rmse"]
        assert found.rmse == pytest.approx(named, rel=1e-10)
    found = reference_fit(np.array(fitted["combined_raw_model"]), measured_curve)
    assert found.scale == pytest.approx(fitted["scale_factor"], rel=1e-9)
    assert found.offset == pytest.approx(fitted["offset"], rel=1e-10)


def test_s5_107_mean_of_components_is_by_population():
    of = components()
    expected = sum(w * one.intensity(Q) for w, one in zip(TRUE.values(), of))
    np.testing.assert_allclose(mean_of([*of, of[0]._replace(weight=0.0)], Q), expected, rtol=1e-12)
    with pytest.raises(InputError, match="no component of Pb has a population above 0"):
        mean_of([of[0]._replace(weight=0.0)], Q)


def by_numpy(mixture, params):
    """The loss as its formula says, from the components, with the linear terms that are best for it."""
    from scipy.optimize import lsq_linear

    from hpcfit.observables.interparticle import hard_spheres

    C, o = len(mixture.components), mixture.options
    w0 = np.full(C, 1 / C)
    w = w0 * np.exp(params.local.ravel()[:C])
    w /= w.sum()
    factor = np.ones(3)
    factor[1] = np.exp(params.shared["log_b"][0])
    radius, fraction = np.array([3, 0]) + np.array([17, 0.5]) / (1 + np.exp(-params.shared["spheres"]))
    S = np.asarray(hard_spheres(Q, radius, fraction))
    mean = w @ np.stack([one._replace(sigma=one.sigma * np.sqrt(factor)).intensity(Q) for one in mixture.components])
    A = np.stack([S * mean, mixture.solvent, np.ones_like(Q)], axis=1) / mixture.curve.sigma[:, None]
    size = np.linalg.norm(A, axis=0)
    b = mixture.curve.intensity / mixture.curve.sigma
    found = lsq_linear(A / size, b, ([0, 0, -np.inf], np.inf), method="bvls", tol=1e-14)
    kl = np.sum(w * np.log(w / w0))
    return found.cost + o.alpha * kl + params.shared["log_b"][0] ** 2 / o.b_width**2 / 2


@pytest.mark.parametrize("profiled", [True, False])
def test_s5_141_loss_and_gradient(profiled):
    """The loss against NumPy, the gradient by every parameter against central differences in float64."""
    curve = measured(components(), spheres=HARD, solvent=0.3)
    options = MixtureOptions(spheres="hard", pairs=(("Pb", "I"),), alpha=3.0, profiled=profiled)
    mixture = Mixture.of(even(components()), SPECIES, curve, options, SOLVENT)
    evaluate = mixture.gradient(mixture.grid(Ranks()))
    random = np.random.default_rng(5)
    start = evaluate.problem.init(0, evaluate.frames.rows)
    shared = {key: value + 0.1 * random.standard_normal(value.shape) for key, value in start.shared.items()}
    at = Params(shared, np.where(evaluate.frames.rows.ids >= 0, 0.3 * random.standard_normal(start.local.shape), 0.0))
    here = evaluate(at)
    if profiled:
        assert here.loss == pytest.approx(by_numpy(mixture, at), rel=1e-9)
    step = 1e-5
    for key, value in shared.items():
        for k in range(value.size):
            losses = []
            for sign in (1, -1):
                moved = {name: one.copy() for name, one in shared.items()}
                moved[key].ravel()[k] += sign * step
                losses.append(evaluate.value(Params(moved, at.local)).loss)
            slope = (losses[0] - losses[1]) / (2 * step)
            assert here.gradient.shared[key].ravel()[k] == pytest.approx(slope, rel=1e-5, abs=1e-4), (key, k)
    for c in range(4):
        moved = [at.local.copy() for _ in range(2)]
        moved[0][0, c] += step
        moved[1][0, c] -= step
        slope = np.subtract(*[evaluate.value(Params(shared, one)).loss for one in moved]) / (2 * step)
        assert here.gradient.local[0, c] == pytest.approx(slope, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("size", [2, 4])
def test_s5_141_the_same_bits_on_several_ranks(size):
    """There are 3 tiles: with 4 ranks one has none."""
    curve = measured(components(), spheres=HARD)
    mixture = Mixture.of(even(components()), SPECIES, curve, ALL)

    def at(world):
        evaluate = mixture.gradient(mixture.grid(world))
        start = evaluate.problem.init(0, evaluate.frames.rows)
        local = np.where(evaluate.frames.rows.ids >= 0, np.linspace(-1, 1, start.local.size).reshape(1, -1), 0.0)
        found = evaluate(Params(start.shared, local))
        return float(found.loss), found.gradient

    alone, gradient = at(Ranks())
    meeting = Meeting(size)
    with ThreadPoolExecutor(size) as pool:
        every = list(pool.map(lambda rank: at(ThreadRanks(meeting, rank, size)), range(size)))
    for loss, other in every:
        assert loss == alone
        assert np.array_equal(other.local, gradient.local)
        assert all(np.array_equal(other.shared[key], gradient.shared[key]) for key in gradient.shared)


def test_s5_141_a_known_mixture_is_recovered(small):
    mixture, found = small
    assert found.weights.sum() == pytest.approx(1)
    assert (found.points, found.free) == (150, 5)
    # chi2 of 145 degrees of freedom: 5 of its standard deviations.
    assert abs(found.chi2 - 145) < 5 * (2 * 145) ** 0.5
    np.testing.assert_allclose(found.weights, list(TRUE.values()), atol=0.06)
    np.testing.assert_allclose(found.model, mixture.curve.intensity, rtol=0.02)
    np.testing.assert_allclose(found.contributions.sum(axis=0) + found.parameters["offset"], found.model, rtol=1e-12)
    residual = (found.model - mixture.curve.intensity) / mixture.curve.sigma
    assert np.sum(residual**2) == pytest.approx(found.chi2, rel=1e-6)


def test_s5_141_errors_cover_the_truth(small):
    """Bootstrap and posterior agree on the size of the errors, and the truth lies within 5 of them."""
    pytest.importorskip("bumps")
    mixture, found = small
    resampled = bootstrap(mixture, Unrecorded(), 12, start=found.params)
    posterior = sample(mixture, found, Ranks(), draws=4000, burn=200)
    assert np.all(posterior.r < 1.3)
    spread, truth = posterior.weights.std(axis=0), np.array(list(TRUE.values()))
    for errors, mean in ((resampled.weight_errors, found.weights), (spread, posterior.weights.mean(axis=0))):
        assert np.all(np.abs(mean - truth) < 5 * errors)
    # The standard deviation of 12 draws is known to a fifth; 3 of these, on either side.
    assert np.all((resampled.weight_errors / spread > 0.4) & (resampled.weight_errors / spread < 2.0))
    scale = posterior.parameters["scale"]
    assert abs(scale.mean() - 1e-3) < 5 * scale.std()


def test_s5_141_draws_of_the_posterior_are_a_function_of_the_seed(small):
    """Although bumps proposes them in code that numba compiles, which has random numbers of its own."""
    pytest.importorskip("bumps")
    mixture, found = small
    one, same, other = (sample(mixture, found, Ranks(), draws=100, burn=2, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.weights, same.weights)
    assert not np.array_equal(one.weights, other.weights)


def test_components_by_block_are_drawn(small):
    mixture, found = small
    means = [averaged_components(n=4, start=4 * block) for block in range(3)]
    by_block = {one.label: [blocks[k] for blocks in means] for k, one in enumerate(mixture.components)}
    resampled = bootstrap(mixture, Unrecorded(steps=3), 2, by_block, block=5, start=found.params)
    assert resampled.weights.shape == (2, 4)
    assert not np.allclose(resampled.weights[0], resampled.weights[1])


def test_points_that_are_left_out_are_predicted(small):
    mixture, found = small
    left = leave_out(mixture, Unrecorded(), 3, found.params)
    assert np.all(np.diff(left.q_min) > 0)
    assert np.all(left.fitted < 1.5)
    assert left.chi2[0] < 5  # within the range of the others; the ends may be anything


def test_a_prior_holds_populations_to_the_predicted_ones():
    of = components()
    mixture = Mixture.of(of, SPECIES, measured(of), MixtureOptions(alpha=1e7))
    found = fit_mixture(mixture, Unrecorded(steps=20))
    np.testing.assert_allclose(found.weights, list(TRUE.values()), atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"of": []}, "no component has a population above 0"),
        ({"options": MixtureOptions(spheres="charged")}, "has no screening length"),
        ({"options": MixtureOptions(pairs=(("Pb", "O"),))}, "B of the pair Pb-O is to be fitted"),
        ({"options": MixtureOptions(spheres="hard", starts={"radius": 30.0})}, r"S\(q\) starts at radius = 30"),
        ({"curve": measured(components()).between(0.5, 0.55)}, r"is not on the .* points"),
    ],
)
def test_mixtures_that_cannot_be_fitted_are_errors(change, message):
    given = {"of": components(), "curve": measured(components()), "options": MixtureOptions()} | change
    with pytest.raises(InputError, match=message):
        Mixture.of(given["of"], SPECIES, given["curve"], given["options"]).problem()
