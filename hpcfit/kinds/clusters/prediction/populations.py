"""Models of the mean count of a label per frame, judged by how well they foretell the largest size that was observed.

ridge: the documented one on ln(1 + c), which is linear where counts are small and so cannot decay. The others fit ln c
of labels that were seen, with weights of Poisson counts. mass_action: ln c = a + b n + Σ c_X X, the law of independent
additions at equilibrium; elastic_net: the same on all features, shrunk; gaussian_process: mass action and a smooth
rest.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.composition import Roles
from hpcfit.kinds.clusters.prediction.ridge import Target, fit_ridge
from hpcfit.kinds.clusters.prediction.rows import Counts, Row, Weighting, feature_names, features, others_in

ModelName = Literal["ridge", "elastic_net", "mass_action", "gaussian_process"]
MODELS: tuple[ModelName, ...] = ("ridge", "elastic_net", "mass_action", "gaussian_process")
ENOUGH = 10  # instances of a size, to judge models by it
WITHOUT_CHECK: ModelName = "mass_action"  # where two sizes leave nothing to foretell


class CountModel(NamedTuple):
    """A fitted model of mean counts. predict: compositions -> mean counts [m]; terms: its coefficients by name."""

    name: ModelName
    predict: Callable[[Sequence[Counts]], np.ndarray]
    terms: dict[str, float]


class Foretold(NamedTuple):
    """A label of the largest size, by a model that did not see that size. factor: how many times off, infinite where 0
    was predicted of a label that occurs. interval: of the prediction, by resampled blocks of frames."""

    model: ModelName
    label: str
    observed: float
    predicted: float
    interval: tuple[float, float] | None = None

    @property
    def factor(self) -> float:
        """The larger of predicted/observed and observed/predicted."""
        if min(self.predicted, self.observed) <= 0:
            return np.inf
        return max(self.predicted / self.observed, self.observed / self.predicted)


class Interval(NamedTuple):
    """Bootstrap quantiles of mean counts, low [m] and high [m]."""

    low: np.ndarray
    high: np.ndarray


class Blocks(NamedTuple):
    """Instances of each label in statistical blocks of frames, [B] each, and the frames of each block [B]. level: of
    intervals."""

    counts: dict[str, np.ndarray]
    frames: np.ndarray
    seed: int = 0
    level: float = 0.9


def fit_counts(name: ModelName, rows: Sequence[Row], roles: Roles, weighting: Weighting = "saxshell") -> CountModel:
    """The model of this name. weighting: of the ridge alone; the others weigh by how often a label was seen.

    Raises InputError where a logarithmic model has fewer than two sizes that were seen.
    """
    others = others_in(rows, roles)
    if name == "ridge":
        x = features([row.counts for row in rows], roles, others)
        y = np.array([row.observed.mean_count for row in rows])
        weights = np.array([row.weight(weighting) for row in rows])
        found = fit_ridge(x, y, weights, Target("mean_count", log=True))
        terms = dict(zip(feature_names(others), map(float, found.coefficients)))
        return CountModel(name, lambda counts: found.predict(features(counts, roles, others)), terms)
    seen = [row for row in rows if row.observed.mean_count > 0]
    if len({row.n_node for row in seen}) < 2:
        raise InputError(
            f"{len(seen)} of {len(rows)} labels of the library occur in the frames, of fewer than two sizes: {name}"
            " cannot extrapolate",
            remedy="give longer trajectories, or prediction.model = 'ridge'",
        )
    y = np.log([row.observed.mean_count for row in seen])
    weights = np.array([max(row.observed.total, 1) for row in seen], float)
    return _LOGARITHMIC[name]([row.counts for row in seen], y, weights, roles, others)


def without_largest_size(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows of all sizes below the largest one with at least ten instances, and those of that size. Both are empty
    where fewer than three sizes were seen, as a single size cannot train."""
    seen = [row for row in rows if row.observed.mean_count > 0]
    instances = Counter[int]()
    for row in seen:
        instances[row.n_node] += row.observed.total
    largest = max((n for n, total in instances.items() if total >= ENOUGH), default=0)
    smaller = [row for row in rows if row.n_node < largest]
    held_out = [row for row in seen if row.n_node == largest]
    trains = len({row.n_node for row in smaller if row.observed.mean_count > 0}) > 1
    return (smaller, held_out) if trains else ([], [])


def leave_largest_size_out(
    rows: Sequence[Row], roles: Roles, models: Sequence[ModelName] = MODELS, weighting: Weighting = "saxshell"
) -> list[Foretold]:
    """The labels of the largest size, predicted by models of all smaller sizes, model by model; see
    ``without_largest_size``."""
    smaller, held_out = without_largest_size(rows)
    found = []
    for name in models if held_out else ():
        predicted = fit_counts(name, smaller, roles, weighting).predict([row.counts for row in held_out])
        found += [Foretold(name, row.label, row.observed.mean_count, float(p)) for row, p in zip(held_out, predicted)]
    return found


def best_model(foretold: Sequence[Foretold]) -> tuple[ModelName, str]:
    """The model with the smallest geometric mean of factors, the first of equals, and a sentence that says so."""
    if not foretold:
        return WITHOUT_CHECK, f"{WITHOUT_CHECK}: fewer than three sizes were seen, so that nothing could be left out"
    names = list(dict.fromkeys(one.model for one in foretold))
    errors = [float(np.mean([np.log(one.factor) for one in foretold if one.model == name])) for name in names]
    best = names[int(np.argmin(errors))]
    if not np.isfinite(min(errors)):
        return WITHOUT_CHECK, f"{WITHOUT_CHECK}: every model predicts 0 for a label of the largest size that occurs"
    off = f"off by a factor {np.exp(min(errors)):.2g} (geometric mean)"
    return best, f"{best}: {off} where the largest size is left out"


def with_errors_of_the_model(count: float, interval: Interval, factors: Sequence[float], level: float) -> Interval:
    """An interval that also has how far the model was off where its answer was known.

    interval: of one count, by resamples. factors: of the labels of the size that was left out. Their logarithms are
    taken as normal with mean 0, so that the spread of k of them gives bounds by Student's t with k degrees of freedom;
    both parts add in squares. It holds as far as the next sizes are as hard to foretell as the one left out. NaN
    without any label, or where a factor is infinite.
    """
    from scipy.stats import t

    logs = np.log(factors)
    if not len(logs) or not np.all(np.isfinite(logs)) or count <= 0:
        return Interval(np.array(np.nan), np.array(np.nan))
    off = t.ppf((1 + level) / 2, len(logs)) * np.sqrt(np.mean(logs**2))
    low, high = (np.log(np.maximum(bound, np.finfo(float).tiny) / count) for bound in interval)
    return Interval(count * np.exp(-np.hypot(off, low)), count * np.exp(np.hypot(off, high)))


def resampled_counts(
    fit: Callable[[Sequence[Row]], CountModel], rows: Sequence[Row], blocks: Blocks, of: Sequence[Counts], number: int
) -> np.ndarray:
    """The mean counts [m] of compositions that a model predicts from blocks drawn with replacement; NaN where it cannot
    be fitted. Efron 1979, 10.1214/aos/1176344552. number: of the resample, which alone decides the draw."""
    B = len(blocks.frames)
    drawn = np.random.default_rng([blocks.seed, 2, number]).multinomial(B, np.full(B, 1 / B))
    frames = float(drawn @ blocks.frames)
    resampled = []
    for row in rows:
        total = int(drawn @ blocks.counts.get(row.label, np.zeros(B)))
        resampled.append(row._replace(observed=row.observed._replace(total=total, mean_count=total / frames)))
    try:
        return fit(resampled).predict(of)
    except InputError:
        return np.full(len(of), np.nan)


def interval_of(resampled: np.ndarray, level: float) -> Interval:
    """Quantiles of resampled mean counts [R, m]; resamples without a model are left out, NaN where none is left."""
    found = resampled[np.all(np.isfinite(resampled), axis=1)]
    if not len(found):
        return Interval(*np.full((2, resampled.shape[1]), np.nan))
    return Interval(*np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0))


# ---- models of ln c ------------------------------------------------------------------------------------------------


def _amounts(counts: Sequence[Counts], roles: Roles, others: Sequence[str]) -> np.ndarray:
    """[m, 1 + others]: nodes and the count of each other species."""
    return np.array([[roles.nodes_in(one), *(one.get(species, 0) for species in others)] for one in counts], float)


def _mass_action(
    counts: Sequence[Counts], y: np.ndarray, weights: np.ndarray, roles: Roles, others: Sequence[str]
) -> CountModel:
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(_amounts(counts, roles, others), y, sample_weight=weights)
    terms = {"1": float(model.intercept_), "n_node": float(model.coef_[0])}
    terms |= {f"n_{species}": float(value) for species, value in zip(others, model.coef_[1:])}
    return CountModel("mass_action", lambda of: np.exp(model.predict(_amounts(of, roles, others))), terms)


def _elastic_net(
    counts: Sequence[Counts], y: np.ndarray, weights: np.ndarray, roles: Roles, others: Sequence[str]
) -> CountModel:
    from sklearn.linear_model import ElasticNetCV
    from sklearn.model_selection import LeaveOneOut

    x = features(counts, roles, others)[:, 1:]
    mean, deviation = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
    z, share = (x - mean) / deviation, weights / weights.mean()
    model = ElasticNetCV(alphas=[1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3], cv=LeaveOneOut(), max_iter=100_000)
    model.fit(z, y, sample_weight=share)
    slopes = model.coef_ / deviation
    terms = dict(zip(feature_names(others), map(float, [model.intercept_ - mean @ slopes, *slopes])))
    terms["alpha"] = float(model.alpha_)

    def predict(of: Sequence[Counts]) -> np.ndarray:
        return np.exp(model.predict((features(of, roles, others)[:, 1:] - mean) / deviation))

    return CountModel("elastic_net", predict, terms)


def _gaussian_process(
    counts: Sequence[Counts], y: np.ndarray, weights: np.ndarray, roles: Roles, others: Sequence[str]
) -> CountModel:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel

    trend = _mass_action(counts, y, weights, roles, others)
    # bounds: a rest of at most a factor e, which fades within a few additions and so leaves mass action beyond
    kernel = ConstantKernel(0.3, (1e-3, 1.0)) * RBF(1.5, (0.7, 3.0))
    rest = y - np.log(trend.predict(counts))
    model = GaussianProcessRegressor(kernel, alpha=1 / weights)  # the variance of ln c of a Poisson count
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a parameter at its bound, which is a fit as good as any
        model.fit(_amounts(counts, roles, others), rest)
    variance, length = np.exp(model.kernel_.theta)
    terms = trend.terms | {"variance of the rest": float(variance), "its length": float(length)}

    def predict(of: Sequence[Counts]) -> np.ndarray:
        return trend.predict(of) * np.exp(model.predict(_amounts(of, roles, others)))

    return CountModel("gaussian_process", predict, terms)


_LOGARITHMIC = {"mass_action": _mass_action, "elastic_net": _elastic_net, "gaussian_process": _gaussian_process}
