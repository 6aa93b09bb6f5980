"""The documented regression: one weighted ridge for each quantity, with clamps as in SAXSShell; and a standardised one.

β = (XᵀWX + λI)⁻¹ XᵀWy with λ = 1e-6, the constant penalised like the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from hpcfit.kinds.clusters.prediction.rows import Row

LAMBDA = 1e-6
Scaling = Literal["documented", "standardised"]
ALPHAS = tuple(10.0**power for power in range(-4, 4))  # of the standardised ridge, chosen by leave-one-out


class Target(NamedTuple):
    """A quantity to predict. log: fitted as ln(1 + y); low, high: clamps of a prediction."""

    name: str
    log: bool = False
    low: float = 0.0
    high: float = np.inf


class Regression(NamedTuple):
    """A fitted quantity. coefficients: [k] of the columns of the features; penalty: the λ that was taken."""

    target: Target
    coefficients: np.ndarray
    penalty: float

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Predictions [m] for features [m, k], clamped."""
        fitted = x @ self.coefficients
        return np.clip(np.expm1(fitted) if self.target.log else fitted, self.target.low, self.target.high)


def fit_ridge(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, target: Target, scaling: Scaling = "documented"
) -> Regression:
    """The weighted ridge of y [m] on features x [m, k], whose first column is 1. A single row gives a constant.

    "standardised": columns of mean 0 and deviation 1, the constant free, λ by leave-one-out.
    """
    from sklearn.linear_model import Ridge, RidgeCV

    y = np.log1p(np.maximum(y, 0)) if target.log else np.asarray(y, float)
    weights = np.maximum(weights, 1e-9)
    if len(y) == 1:
        return Regression(target, np.eye(1, x.shape[1])[0] * y[0], 0.0)
    if scaling == "documented":
        model: Any = Ridge(alpha=LAMBDA, fit_intercept=False, solver="cholesky").fit(x, y, sample_weight=weights)
        return Regression(target, np.asarray(model.coef_), LAMBDA)
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    deviation[deviation < 1e-12] = np.inf  # a column that does not change has no coefficient
    model = RidgeCV(ALPHAS).fit((x - mean) / deviation, y, sample_weight=weights / weights.mean())
    coefficients = model.coef_ / deviation
    coefficients[0] = model.intercept_ - mean @ coefficients
    return Regression(target, coefficients, float(model.alpha_))


def targets_of(timestep: float) -> dict[Target, Callable[[Row], float | None]]:
    """The quantities of a row and how each is read; timestep: the interval between frames, fs."""
    return {
        Target("mean_count", log=True): lambda row: row.observed.mean_count,
        Target("occupancy", high=1.0): lambda row: row.observed.occupancy,
        Target("mean_lifetime", log=True, low=timestep): lambda row: row.observed.mean_lifetime,
        Target("association_rate", log=True): lambda row: row.observed.association_rate,
        Target("dissociation_rate", log=True): lambda row: row.observed.dissociation_rate,
        Target("rg", log=True, low=0.1): lambda row: row.shape.rg,
        Target("rmax", log=True, low=0.1): lambda row: row.shape.rmax,
        Target("a", log=True, low=0.05): lambda row: row.shape.a,
        Target("b", log=True, low=0.05): lambda row: row.shape.b,
        Target("c", log=True, low=0.05): lambda row: row.shape.c,
    }


def fit_targets(
    rows: Sequence[Row], x: np.ndarray, weights: np.ndarray, timestep: float, scaling: Scaling = "documented"
) -> dict[str, Regression]:
    """The regressions of all quantities by name. A missing lifetime counts as the mean of the others, or as the
    interval between frames where there is none."""
    found = {}
    for target, read in targets_of(timestep).items():
        values = [read(row) for row in rows]
        known = [value for value in values if value is not None]
        missing = float(np.mean(known)) if known else timestep
        y = np.array([missing if value is None else value for value in values])
        found[target.name] = fit_ridge(x, y, weights, target, scaling)
    return found
