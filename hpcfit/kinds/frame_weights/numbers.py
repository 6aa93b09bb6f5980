"""Numbers of a fit of frame weights that several sections of its report show: the measure minimised, and the errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from hpcfit.report.page import correlation, number, significant

KINDS_OF_ERRORS = ("frames", "orbits", "data")  # "data" of a run without a map


class Measure(NamedTuple):
    """A measure of agreement: its name in the metrics, the name for held-out orbits, and its title."""

    name: str
    free: str
    title: str

    @property
    def is_correlation(self) -> bool:
        return self.name != "misfit"

    def shown(self, value: float | None) -> Markup:
        """One value, to the digits that tell two fits apart."""
        return correlation(value) if self.is_correlation else number(value, "" if value is None else f"{value:.6g}")


TOTAL = Measure("cc", "cc_free", "CC")
ANISOTROPIC = Measure("cc_anisotropic", "cc_free_anisotropic", "CC, anisotropic")
MISFIT = Measure("misfit", "misfit_free", "misfit")


def minimised(metrics: Mapping[str, Any]) -> Measure:
    """The correlation that the misfit is the negative of, or the misfit itself."""
    objective, _, part = metrics["objective"].partition(", ")
    if objective != "pearson":
        return MISFIT
    return ANISOTROPIC if part == "anisotropic" else TOTAL


def measures(metrics: Mapping[str, Any]) -> list[Measure]:
    """The measures that fits are compared by: both correlations, after the misfit where it is neither."""
    measure = minimised(metrics)
    return [TOTAL, ANISOTROPIC] if measure.is_correlation else [measure, TOTAL, ANISOTROPIC]


def error_by(metrics: Mapping[str, Any], kind: str, quantity: str, name: str) -> float | None:
    """A standard deviation over resamples of one of the kinds: of a sum of weights or a metric; None if unknown."""
    return metrics.get("errors", {}).get(kind, {}).get(quantity, {}).get(name)


def kinds_of_errors(metrics: Mapping[str, Any]) -> list[str]:
    """Kinds of errors that were resampled, of KINDS_OF_ERRORS."""
    return [kind for kind in KINDS_OF_ERRORS if kind in metrics.get("errors", {})]


def error_of(metrics: Mapping[str, Any], quantity: str, name: str) -> float | None:
    """The standard deviation over all kinds of resamples, added in quadrature; None if none is known."""
    found = [error_by(metrics, kind, quantity, name) for kind in KINDS_OF_ERRORS]
    known = [error for error in found if error is not None]
    return float(np.sqrt(np.sum(np.square(known)))) if known else None


def resamples(metrics: Mapping[str, Any]) -> str:
    """8 resamples of frames and 8 resamples of orbits; nothing where there are none."""
    counts = {kind: metrics["errors"][kind]["resamples"] for kind in kinds_of_errors(metrics)}
    return " and ".join(f"{n} resamples of {kind}" for kind, n in counts.items())


def share(weight: float) -> Markup:
    """A sum of weights: four decimals, and powers of ten where those would read 0."""
    return number(weight, f"{weight:.4f}") if weight == 0 or abs(weight) >= 1e-3 else significant(weight)
