"""The fits of the nuclease crystal to its measured map that are compared, their configs, and the rows of the table.

Every ensemble is fitted with the indices of its coordinates, averaged over the Laue class. The simulation of 163 frames
is also fitted as LUNUS did it: with the indices of the file, each reflection by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcfit.testsystems.snase import AS_COORDINATES, AS_IN_FILE, CELL, D_MIN, LAUE, MAP, SPACE_GROUP

FOLDS = 5
SERIES = (4.0, 5.0, 6.0)  # A, beside D_MIN
BINARY = 'weights = "binary"\nresamples = 0\n'
METHODS = {
    "greedy": f'{BINARY}folds = {FOLDS}\n[optimizer]\nname = "greedy"\n',
    "genetic": f'{BINARY}[optimizer]\nname = "genetic"\n',  # once: a search takes some 200 generations of 64
    "default": f"folds = {FOLDS}\n",
}
THETAS = (0.0, 0.1)  # whose rows are shown beside that of the chosen one
AGREEMENT = ("cc", "cc_anisotropic")
FREE = {"cc": "cc_free", "cc_anisotropic": "cc_free_anisotropic"}
COLUMNS = (
    "ensemble", "frames", "map", "d_min", "orbits", "maximised", "weights", "theta", "ess",
    "evaluations", "evaluations_of_all_fits",
    *(f"{cc}{suffix}" for cc in AGREEMENT for suffix in ("", "_error_frames", "_error_orbits")),
    *(f"{free}{suffix}" for free in FREE.values() for suffix in ("", "_error", "_gain", "_gain_error")),
)  # fmt: skip

Row = dict[str, Any]


class Setting(NamedTuple):
    """An ensemble, by the name of its store, and how the map is read beside it."""

    ensemble: str
    reindex: str = AS_COORDINATES
    laue: str = LAUE
    d_min: float = D_MIN


class Fit(NamedTuple):
    """method: a key of METHODS. maximised: "total" or "anisotropic" correlation."""

    setting: Setting
    method: str
    maximised: str

    @property
    def name(self) -> str:
        """The name of the fit's config and of its run directory."""
        ensemble, _, laue, d_min = self.setting
        parts = (ensemble, laue.replace("/", ""), f"{d_min:g}A", self.maximised, self.method)
        return "_".join(parts)


def planned(short: str, others: Sequence[str], series: Sequence[str]) -> Iterator[Fit]:
    """All fits in the order of the table. short: the ensemble that LUNUS was given; series: those compared at several
    resolutions."""
    for setting in (Setting(short, AS_IN_FILE, "P1"), *map(Setting, (short, *others))):
        yield from (Fit(setting, method, "total") for method in METHODS)
        yield Fit(setting, "default", "anisotropic")
    for ensemble, d_min, maximised in itertools.product(series, SERIES, ("total", "anisotropic")):
        yield Fit(Setting(ensemble, d_min=d_min), "default", maximised)


def fit_config(fit: Fit, data: Path, store: Path) -> str:
    """The text of a config for `hpcfit optimize`, whose run directory is beside it."""
    setting = fit.setting
    crystal = f'cell = {list(CELL)}\nspace_group = "{SPACE_GROUP}"\nreindex = "{setting.reindex}"\n'
    return (
        f'[run]\ndirectory = "{fit.name}"\nreport = false\n'
        f'[frames]\nstore = "{store}"\n'
        f'[experiment]\nfile = "{data / MAP}"\n{crystal}'
        f'[problem]\nkind = "frame-weights"\nlaue = "{setting.laue}"\nd_min = {setting.d_min}\n'
        f"anisotropic = {str(fit.maximised == 'anisotropic').lower()}\n" + METHODS[fit.method]
    )


def uniform_row(fit: Fit, metrics: dict[str, Any]) -> Row:
    """The row of uniform weights, from the metrics of a fit of the setting."""
    columns = _setting_columns(fit, metrics) | {"weights": "uniform"} | _fit_columns(metrics["uniform"])
    return columns | _free(_judged(metrics, None))


def rows(fit: Fit, metrics: dict[str, Any]) -> Iterator[Row]:
    """The rows of a fit; where it chose theta, the fits at THETAS come before that at the chosen one."""
    setting = _setting_columns(fit, metrics) | {"maximised": fit.maximised}
    for point in metrics.get("l_curve", []):
        if point["theta"] in THETAS:
            weights = {"weights": f"theta {point['theta']:g}", "theta": point["theta"]}
            yield setting | weights | _fit_columns(point) | _held_out(metrics, point["theta"])
    row = setting | {"weights": fit.method}
    row |= {name: metrics[name] for name in ("evaluations", "evaluations_of_all_fits")}
    row |= _fit_columns(metrics["fitted"]) | _errors(metrics)
    if "l_curve" in metrics:
        row["theta"] = "uniform" if metrics["theta"] is None else metrics["theta"]
    yield row | (_held_out(metrics, metrics.get("theta", 0.0)) if "cross_validation" in metrics else {})


def _setting_columns(fit: Fit, metrics: dict[str, Any]) -> Row:
    setting = fit.setting
    return {
        "ensemble": setting.ensemble, "frames": metrics["frames"], "map": f"{setting.reindex} {setting.laue}",
        "d_min": setting.d_min, "orbits": metrics["orbits"],
    }  # fmt: skip


def _fit_columns(fitted: dict[str, float]) -> Row:
    return {name: fitted[name] for name in (*AGREEMENT, "ess")}


def _judged(metrics: dict[str, Any], theta: float | None) -> dict[str, Any]:
    """The row of the cross-validation of a theta; None: of the prior weights."""
    [row] = (row for row in metrics["cross_validation"] if row["theta"] == theta)
    return row


def _free(judged: dict[str, Any]) -> Row:
    return {key: judged[key] for free in FREE.values() for key in (free, f"{free}_error")}


def _held_out(metrics: dict[str, Any], theta: float | None) -> Row:
    """Means over the folds, and of the differences to uniform weights within each fold, with standard errors."""
    judged, prior = _judged(metrics, theta), _judged(metrics, None)
    found = _free(judged)
    for free in FREE.values():
        gain = np.subtract(judged[f"{free}_folds"], prior[f"{free}_folds"])
        found |= {f"{free}_gain": gain.mean(), f"{free}_gain_error": gain.std(ddof=1) / np.sqrt(len(gain))}
    return found


def _errors(metrics: dict[str, Any]) -> Row:
    """Of both correlations, from resamples of frames and of orbits."""
    return {
        f"{cc}_error_{kind}": found["metrics"][cc]
        for kind, found in metrics.get("errors", {}).items()
        for cc in AGREEMENT
    }
