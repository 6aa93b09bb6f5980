"""The tabulated loss: value, gradient, second derivative and minimum, against NumPy and closed forms."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.optimize

from hpcfit.errors import InputError
from hpcfit.fit.grid import Shape, make_grid
from hpcfit.fit.inner import InnerProduct
from hpcfit.fit.problem import Params
from hpcfit.fit.reduction import choose_sum
from hpcfit.kinds.force_field.tabulated.case import TabulatedCase
from hpcfit.kinds.force_field.tabulated.newton import Newton
from hpcfit.kinds.force_field.tabulated.study import Study
from hpcfit.kinds.force_field.tabulated.uncertainty import curvatures, moments, uncertainty, undetermined
from hpcfit.kinds.table import load_config
from hpcfit.ranks import Ranks
from tests.command import here, sets
from tests.kinds.force_field import tetramers
from tests.kinds.force_field.small import CONFIG, write_small

NAMES = ["shift", "tilt", "proton A", "proton B", "proton C"]


def opened(config):
    """A gradient of the whole problem on one rank."""
    case, world = TabulatedCase.open(config), Ranks()
    grid = make_grid(world, Shape(1, 1, ""), case.n_blocks, 1)
    return case.gradient(grid, 10**9, choose_sum("reproducible", grid))


@pytest.fixture
def small(tmp_path):
    write_small(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def gradient(small):
    return opened(load_config(small / "config.toml"))


def test_a_prior_adds_half_the_square_of_a_correction_and_a_wide_one_nothing(small, gradient):
    params = random_params(gradient)
    shift = float(gradient.problem.phi(params.shared)[0])
    held = CONFIG.replace('name = "shift"', 'name = "shift"\nprior = {}')
    losses = []
    for prior in (0.4, 1e15):
        (small / "config.toml").write_text(held.format(prior))
        losses.append(opened(load_config(small / "config.toml"))(params).loss)
    assert losses[0] - losses[1] == pytest.approx((shift / 0.4) ** 2 / 2, rel=1e-9)
    assert losses[1] == gradient(params).loss


def folds(folder, couplings=None, means=None):
    """The folds of the data of a config whose first ensemble has these groups of couplings and means."""
    first, second = CONFIG.split('name = "two"', 1)
    for name, groups in {"couplings": couplings, "means": means}.items():
        if groups is not None:
            first = first.replace(f'name = "{name}"', f'name = "{name}"\ngroups = {json.dumps(groups)}')
    (folder / "config.toml").write_text((first + 'name = "two"' + second).replace("alpha = 2.0", "alpha = [2.0, 5.0]"))
    config = load_config(folder / "config.toml")
    return Study(TabulatedCase.open(config), SimpleNamespace(evaluate=opened(config)))._folds()


def test_data_of_a_group_are_held_out_together(small):
    single = folds(small)
    np.testing.assert_array_equal(np.bincount(single, minlength=5), [3, 3, 3, 3, 2])
    np.testing.assert_array_equal(folds(small, [1, 2], ["a", "b", "c"]), single)  # groups of one each
    together = folds(small, ["psi", "phi"], ["phi", "psi", "psi"])  # of 2 couplings, 2 distances, 3 means
    assert together[0] == together[5] == together[6]
    assert together[1] == together[4]
    assert len({together[0], together[1], together[2], together[3]}) == 4


@pytest.mark.parametrize(
    ("groups", "message"),
    [(["a"], "data 'couplings': 1 groups are given, .* has 2 rows"), (["a", "a"], "folds = 14 of 13 data, or groups")],
)
def test_groups_that_cannot_be_dealt_out_are_errors(groups, message, small):
    text = CONFIG.replace("[problem]", "[problem]\nfolds = 14", 1)
    text = text.replace('name = "couplings"', f'name = "couplings"\ngroups = {json.dumps(groups)}', 1)
    (small / "config.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        TabulatedCase.open(load_config(small / "config.toml"))


def random_params(gradient, seed=3, size=0.3):
    random, start = np.random.default_rng(seed), gradient.problem.init(0, gradient.frames.rows)
    local = np.where(gradient.frames.rows.ids >= 0, size * random.standard_normal(start.local.shape), 0.0)
    return Params({key: random.standard_normal(value.shape) for key, value in start.shared.items()}, local)


def by_numpy(folder, gradient, params):
    """The loss as its formula says, from the files."""
    problem, rows = gradient.problem, gradient.frames.rows
    phi, curve = np.asarray(problem.phi(params.shared)), np.asarray(problem.curves(params.shared))[0]
    alpha, beta, gamma = 2.0, 0.5, 0.7
    held = rows.ids.ravel() >= 0
    moved = (params.local * rows.more.spread).ravel() / np.sqrt(alpha)
    loss, start = 0.0, 0
    for name in ("one", "two"):
        read = lambda what, name=name: np.load(folder / f"{name}_{what}.npy")  # noqa: E731
        terms = read("terms")
        T = len(terms)
        w0 = read("weights") if name == "two" else np.full(T, 1 / T)
        w0 = w0 / w0.sum()
        q = w0 * np.exp(-phi[0] * (terms[:, 0] + terms[:, 1]) - phi[1] * terms[:, 2])
        q /= q.sum()
        here, start = held[start : start + T], start + T
        p = np.where(here, q * np.exp(np.where(here, moved[start - T : start], 0)), 0)
        p /= p.sum()
        c = np.cos(read("torsions") + 0.3)
        measured = {key: read(f"measured_{key}").T for key in ("couplings", "distances", "means")}
        off = [
            (np.polyval(curve, c) * 1.0).T @ p - measured["couplings"][0],
            ((read("distances") ** -6).T @ p) ** (-1 / 6) - measured["distances"][0],
            np.maximum(read("means").T @ p - measured["means"][0], 0.0),
        ]
        chi2 = sum(np.sum((one / values[1]) ** 2) for one, values in zip(off, measured.values()))
        positive = w0 > 0
        kl = lambda a, b, positive=positive: np.sum(a[positive] * np.log(a[positive] / b[positive]))  # noqa: E731
        loss += chi2 / 2 + alpha * kl(p, q) + beta * kl(q, w0)
    dA, dB, dC = curve - np.array([9.0, -1.5, 0.5])
    return loss + gamma * (3 / 8 * dA**2 + dB**2 / 2 + dC**2 + dA * dC)


def test_the_loss_is_that_of_its_formula(small, gradient):
    params = random_params(gradient)
    assert gradient(params).loss == pytest.approx(by_numpy(small, gradient, params), rel=1e-12)


def test_the_gradient_is_that_of_finite_differences(gradient):
    params = random_params(gradient)
    here, step = gradient(params), 1e-5
    random = np.random.default_rng(1)
    for _ in range(4):
        way = Params(
            {key: random.standard_normal(value.shape) for key, value in params.shared.items()},
            np.where(gradient.frames.rows.ids >= 0, random.standard_normal(params.local.shape), 0.0),
        )
        at = [
            gradient.value(
                Params(
                    {key: params.shared[key] + sign * step * way.shared[key] for key in way.shared},
                    params.local + sign * step * way.local,
                )
            ).loss
            for sign in (1, -1)
        ]
        slope = np.sum(here.gradient.local * way.local)
        slope += sum(np.sum(here.gradient.shared[key] * way.shared[key]) for key in way.shared)
        # The error of the difference: step^2 times a third derivative, and rounding / step.
        assert (at[0] - at[1]) / (2 * step) == pytest.approx(float(slope), rel=1e-6)


def minimised(gradient, shared=None):
    """The minimum by SciPy, of the weights alone where shared parameters are given."""
    start = gradient.problem.init(0, gradient.frames.rows)
    held = gradient.frames.rows.ids >= 0
    shapes = {} if shared is not None else {key: value.shape for key, value in start.shared.items()}

    def unpacked(x):
        local, rest, found = np.zeros(held.shape), x[held.sum() :], {}
        local[held] = x[: held.sum()]
        for key, shape in shapes.items():
            size = int(np.prod(shape))
            found[key], rest = rest[:size].reshape(shape), rest[size:]
        return Params(shared if shared is not None else found, local)

    def value(x):
        at = gradient(unpacked(x))
        return at.loss, np.concatenate([at.gradient.local[held], *(at.gradient.shared[k].ravel() for k in shapes)])

    n = held.sum() + sum(int(np.prod(shape)) for shape in shapes.values())
    options = {"maxiter": 3000, "maxfun": 5000, "ftol": 0, "gtol": 1e-9, "maxcor": 60}
    found = scipy.optimize.minimize(value, np.zeros(n), jac=True, method="L-BFGS-B", options=options)
    return unpacked(found.x), found.fun


def test_newtons_steps_end_where_another_program_does(gradient):
    newton = Newton(InnerProduct(gradient.add), gradient)
    state = newton.start(gradient.problem.init(0, gradient.frames.rows), gradient)
    losses = [state.loss]
    while not state.stalled:
        state = newton.step(state, gradient)
        losses.append(state.loss)
    assert losses == sorted(losses, reverse=True)
    assert len(losses) < 20, "near the minimum each step doubles the digits"
    _, least = minimised(gradient)
    # The gradient is zero to the rounding of its sums; what SciPy leaves of the loss is its own.
    assert InnerProduct(gradient.add).norm(state.gradient) < 1e-6
    assert state.loss == pytest.approx(least, rel=1e-7)
    assert state.loss <= least * (1 + 1e-12)


def test_the_second_derivative_is_that_of_the_loss_with_weights_minimised_over(gradient):
    best, _ = minimised(gradient)
    at = gradient.value(best)
    found, _ = curvatures(gradient.problem, at, moments(gradient, at))
    scales, prices = gradient.problem.scales, gradient.problem.prices
    to_phi = np.sqrt(prices.beta) * np.linalg.inv(scales.corrections)
    to_curves = np.sqrt(prices.gamma) * np.linalg.inv(scales.curves)

    def loss(x):
        shared = {
            "corrections": best.shared["corrections"] + to_phi @ x[:2],
            "curves": best.shared["curves"] + x[None, 2:] @ to_curves.T,
        }
        return minimised(gradient, shared)[1]

    step = 2e-2
    for i, j in [(0, 0), (1, 1), (0, 1), (2, 2), (0, 3), (3, 4)]:
        a, b = step * np.eye(5)[i], step * np.eye(5)[j]
        by_differences = (loss(a + b) - loss(a - b) - loss(b - a) + loss(-a - b)) / (4 * step**2)
        scale = np.sqrt(found[i, i] * found[j, j])
        assert found[i, j] == pytest.approx(by_differences, abs=5e-3 * scale), (i, j)


@pytest.mark.parametrize("prior", [None, 0.7])
def test_one_datum_of_gaussian_frames_has_the_closed_form(prior, tmp_path):
    """x ~ N(0, 1) on a fine grid of frames with Gaussian weights; a correction phi x and weights tilt by e^(-lambda x).

    P = N(-l, 1), P_ff = N(-phi, 1): L = ((-l - m) / s)^2 / 2 + alpha (l - phi)^2 / 2 + b phi^2 / 2, b = beta + 1 /
    prior^2, of which the minimum is that of prices in series: L = m^2 / (2 (s^2 + 1 / alpha + 1 / b)).
    """
    x = np.linspace(-9, 9, 901)
    m, s, alpha, beta = 0.8, 0.3, 3.0, 1.5
    price = beta + (0.0 if prior is None else prior**-2)
    for name, values in {"x": x[:, None], "w": np.exp(-(x**2) / 2), "m": np.array([[m, s]])}.items():
        np.save(tmp_path / f"{name}.npy", values)
    (tmp_path / "config.toml").write_text(f"""
[run]
directory = "run"
report = false
[problem]
kind = "force-field"
estimator = "tabulated"
alpha = {alpha}
beta = {beta}
resamples = 0
[[problem.ensemble]]
name = "gauss"
weights = "w.npy"
terms = "x.npy"
[[problem.ensemble.data]]
name = "x"
calculated = "x.npy"
measured = "m.npy"
[[problem.correction]]
name = "field"
columns = [0]
{"" if prior is None else f"prior = {prior}"}
""")
    done = here("optimize", tmp_path / "config.toml")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run/metrics.json").read_text())
    total = s**2 + 1 / alpha + 1 / price
    assert found["loss"] == pytest.approx(m**2 / (2 * total), rel=1e-9)
    assert found["parameters"]["values"] == pytest.approx([-m / (price * total)], rel=1e-7)
    # Of phi alone: 1 / (s^2 + 1 / alpha) of the data, and what its price and its prior say.
    known = 1 / (s**2 + 1 / alpha) + price
    assert found["parameters"]["errors_of_data"] == pytest.approx([known**-0.5], rel=1e-7)
    assert found["combinations"][0]["determined"] == pytest.approx(1 - price / known, rel=1e-7)


def test_terms_that_go_together_are_named_as_not_determined(small):
    terms = np.load(small / "one_terms.npy")
    for name in ("one", "two"):
        terms = np.load(small / f"{name}_terms.npy")
        terms[:, 2] = 2 * (terms[:, 0] + terms[:, 1]) + 3
        np.save(small / f"{name}_terms.npy", terms)
    gradient = opened(load_config(small / "config.toml"))
    best, _ = minimised(gradient)
    found = uncertainty(gradient, gradient.value(best), NAMES)
    assert found.covariance is None
    weakest = found.combinations[0]
    assert weakest.determined == 0
    assert "'shift'" in weakest.words
    assert "'tilt'" in weakest.words
    assert weakest.words in undetermined(found)[0]


def test_parameters_at_other_prices_are_the_same_ensembles(gradient):
    params, other = (
        random_params(gradient),
        replace(gradient.problem, prices=gradient.problem.prices._replace(alpha=9.0)),
    )
    moved = replace(gradient, problem=other).value(other.at_prices_of(params, gradient.problem))
    before = gradient.value(params)
    for name in ("p", "q", "pp"):
        mine, its = (getattr(at.statistics.common, name) for at in (before, moved))
        assert mine == pytest.approx(its, rel=1e-12)


@pytest.mark.parametrize("solver", ["newton", "optimizer"])
def test_the_tetramers_of_mdrefine_reach_their_minimum(solver, shared_data, tmp_path):
    data = shared_data / "mdrefine_tetramers"
    if not data.exists():
        pytest.skip(f"no {data}")
    (tmp_path / "config.toml").write_text(tetramers.config(data, tmp_path / "run", solver))
    done = here("optimize", tmp_path / "config.toml", *sets("run.report=false"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run/metrics.json").read_text())
    assert found["loss"] == pytest.approx(tetramers.LOSS, abs=1e-8)
    assert found["fitted"]["curve_change"] == pytest.approx(tetramers.CHANGE, abs=1e-5)
    for one in found["ensembles"]:
        values = one["chi2"], one["kl_weights"], one["kl_force_field"]
        assert values == pytest.approx(tetramers.EXPECTED[one["name"]], abs=1e-5)
