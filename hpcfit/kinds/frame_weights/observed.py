"""The observed side of an objective: intensities in its units, their variances and weights, and a background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.frame_weights.likelihoods import Likelihood, StudentT, gaussian, poisson
from hpcfit.kinds.frame_weights.objectives import AnisotropicPearson, CrossEntropy, Objective, Pearson, ProfiledGaussian
from hpcfit.kinds.frame_weights.orbits import OrbitMap
from hpcfit.log import inputs

if TYPE_CHECKING:
    from hpcfit.kinds.frame_weights.config import FrameWeightsConfig


@dataclass(frozen=True)
class Observed:
    """The observed side of each orbit, [n]: y, variance, weight as in ``kinds.frame_weights.objectives.OrbitTerms``.

    background, radial: splines in 1/d, [J, n].
    """

    y: np.ndarray
    variance: np.ndarray
    weight: np.ndarray
    background: np.ndarray
    radial: np.ndarray
    objective: Objective


def observe(orbits: OrbitMap, spread: np.ndarray, choice: FrameWeightsConfig, source: Any) -> Observed:
    """The observed side of the objective that the config names.

    spread: [n], about what x is, from the sample of frames that the store keeps: where scale and background start.
    source: the map's file, for errors. Raises InputError where the map does not suit the objective.
    """
    unit, offset = _unit(orbits, choice.objective)
    y, variance = (orbits.observed - offset) / unit, np.ones(len(orbits.observed))
    sigmas = _uses_sigmas(orbits, choice, source)
    if sigmas:
        variance = (orbits.sigma / unit) ** 2
    resolution = (orbits.inverse_d / orbits.inverse_d.max()) ** choice.resolution_power
    divided = sigmas and not _is_likelihood(choice)
    weight = orbits.multiplicity * resolution / (variance if divided else 1.0)
    weight = weight / weight.mean()
    if choice.objective in ("poisson", "cross-entropy"):
        y = _not_negative(y, choice.objective, source)
    background = splines(orbits.inverse_d, choice.background, even_in=1)
    radial = splines(orbits.inverse_d, choice.shells + 3, even_in=3)
    objective = _objective(choice, len(radial), (y, weight, background, spread, sigmas))
    return Observed(y, variance, weight, background, radial, objective)


def splines(inverse_d: np.ndarray, n: int, *, even_in: int) -> np.ndarray:
    """n B-splines in 1/d over its range, [n, orbits]: cubic, of lower degree below 4; their sum is 1 everywhere.

    even_in: the power of 1/d that knots are evenly spaced in. With 3, and n - 3 intervals, they are the edges of as
    many resolution shells of equal volume, so that each interval has orbits to be known by.
    """
    degree = min(3, n - 1)
    low, high = inverse_d.min(), inverse_d.max()
    inner = np.linspace(low**even_in, high**even_in, n - degree + 1) ** (1 / even_in)
    low, high = inner[0], inner[-1]
    knots = np.concatenate([[low] * degree, inner, [high] * degree])
    inside = np.clip(inverse_d, low, high - 1e-9 * (high - low))
    return _b_splines(inside, knots, degree)


def _b_splines(x: np.ndarray, knots: np.ndarray, degree: int) -> np.ndarray:
    """All B-splines of some knots at x, [n, len(x)], by the recurrence of Cox and de Boor.

    The bits are those of SciPy's ``BSpline.design_matrix``. Its import, with that of optimizers and special functions,
    took longer than all else that a fit does before it reads frames.
    """
    n = len(knots) - degree - 1
    interval = np.clip(np.searchsorted(knots, x, side="right") - 1, degree, n - 1)
    values = np.ones((1, len(x)))
    for order in range(1, degree + 1):
        right = knots[interval + np.arange(1, order + 1)[:, None]]
        left = knots[interval + np.arange(1 - order, 1)[:, None]]
        share = values / (right - left)
        values = np.zeros((order + 1, len(x)))
        values[:-1] += share * (right - x)
        values[1:] += share * (x - left)
    found = np.zeros((n, len(x)))
    found[interval + np.arange(-degree, 1)[:, None], np.arange(len(x))] = values
    return found


def _is_likelihood(choice: FrameWeightsConfig) -> bool:
    """Whether variances belong into the density and not into the weights."""
    return choice.objective in ("student-t", "poisson") or choice.model_error


def _uses_sigmas(orbits: OrbitMap, choice: FrameWeightsConfig, source: Any) -> bool:
    by_default = choice.objective in ("gaussian", "student-t") and orbits.sigma is not None
    wanted = by_default if choice.sigmas is None else choice.sigmas
    if wanted and orbits.sigma is None:
        raise InputError(
            f"[problem] sigmas = true, but the map {source} has none",
            remedy="name the column in [experiment] sigma, or leave sigmas out",
        )
    return wanted


def _unit(orbits: OrbitMap, objective: str) -> tuple[float, float]:
    """What y is divided by, and what is taken off before, so that sums keep their digits."""
    mean = np.average(orbits.observed, weights=orbits.multiplicity)
    if objective == "poisson":
        return 1.0, 0.0
    if objective == "cross-entropy":
        return abs(mean), 0.0
    return np.sqrt(np.average((orbits.observed - mean) ** 2, weights=orbits.multiplicity)), mean


def _not_negative(y: np.ndarray, objective: str, source: Any) -> np.ndarray:
    negative = int(np.sum(y < 0))
    if objective == "poisson" and negative:
        raise InputError(
            f"objective = 'poisson', but {negative} of {len(y)} orbits of {source} are negative, down to {y.min():g}:"
            " counts are not",
            remedy="use 'gaussian' or 'student-t' for a map whose background was subtracted",
        )
    if negative:
        inputs.warning("objective 'cross-entropy': %d of %d negative intensities count as 0", negative, len(y))
    return np.maximum(y, 0.0)


def _objective(choice: FrameWeightsConfig, n_radial: int, data: tuple) -> Objective:
    y, weight, background, spread, sigmas = data
    if choice.objective == "pearson":
        return AnisotropicPearson(n_radial) if choice.anisotropic else Pearson()
    if choice.objective == "cross-entropy":
        return CrossEntropy()
    if choice.objective == "gaussian" and not choice.model_error:
        return ProfiledGaussian(len(background))
    positive = choice.objective == "poisson"
    k0, c0 = _regression(y, weight, background, spread, positive)
    density = {"gaussian": gaussian, "student-t": StudentT(choice.student_nu), "poisson": poisson}[choice.objective]
    return Likelihood(k0, c0, density, choice.model_error, positive, free_sigma=not (sigmas or positive))


def _regression(y, weight, background, spread, positive: bool) -> tuple[float, np.ndarray]:
    """(k, c) of the best k spread + sum_j c_j B_j, k > 0; all positive where a Poisson law needs it."""
    from scipy.optimize import lsq_linear

    unit = spread.mean()
    matrix = np.sqrt(weight)[:, None] * np.column_stack([spread / unit, *background])
    smallest = 1e-3 * np.abs(y).mean()
    low = [smallest, *[smallest if positive else -np.inf] * len(background)]
    found = lsq_linear(matrix, np.sqrt(weight) * y, bounds=(low, np.inf)).x
    return found[0] / unit, found[1:]
