"""Conclusions from the fits of a study: the theta to take, and warnings for the reader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hpcfit.statistics.blocks import inefficiencies, mean_with_error
from hpcfit.statistics.resampling import SPAN

FEW_ORBITS = 100  # whose CC has a standard deviation of a tenth
NOTHING_TO_DRAW = [
    "no errors by resampling frames: every source has a label of its own and less than 4 frames",
]


def judged(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics kept for each fold."""
    kept = ("misfit", "misfit_free", "cc_free", "cc_free_anisotropic", "ess")
    of_data = (name for name in metrics if name.startswith("chi2"))
    return {name: metrics[name] for name in (*kept, *of_data)}


def theta_row(theta: float | None, folds: list[dict[str, float]]) -> dict[str, Any]:
    """Means and standard errors over the folds (``judged``), and some of their values one by one. theta: None for the
    prior weights."""
    columns = {name: [fold[name] for fold in folds] for name in folds[0]}
    means = {name: mean_with_error(values) for name, values in columns.items()}
    return (
        {"theta": theta, "folds": columns["misfit_free"]}
        | {f"{name}_folds": columns[name] for name in ("cc_free", "cc_free_anisotropic") if name in columns}
        | {name: mean.value for name, mean in means.items()}
        | {f"{name}_error": mean.error for name, mean in means.items()}
    )


def choose_theta(rows: list[dict[str, Any]]) -> int:
    """The row of the theta to take: the largest whose held-out misfit is the best one, to one standard error.

    rows: largest theta first. The error is that of the paired differences over the folds, since all thetas were judged
    by the same orbits (the one-standard-error rule, Breiman, Friedman, Olshen & Stone 1984).
    """
    means = [row["misfit_free"] for row in rows]
    best = int(np.argmin(means))
    for number, row in enumerate(rows):
        difference = mean_with_error(np.subtract(row["folds"], rows[best]["folds"]))
        if difference.value <= difference.error:
            return number
    return best


def lost_anisotropy(rows: list[dict[str, Any]], theta: float | None) -> list[str]:
    """A warning where, at the theta taken, what is left of rings agrees worse in held-out orbits than at the prior
    weights, by more than two standard errors of the differences within folds. rows: of the cross-validation."""
    prior, taken = (next(row for row in rows if row["theta"] == value) for value in (None, theta))
    mean, error = mean_with_error(np.subtract(prior["cc_free_anisotropic_folds"], taken["cc_free_anisotropic_folds"]))
    if not mean > 2 * error:
        return []
    return [
        f"these weights make the anisotropic CC of held-out orbits worse: {taken['cc_free_anisotropic']:.3f}, at the"
        f" prior weights {prior['cc_free_anisotropic']:.3f}, a loss of {mean:.3f} +- {error:.3f}. What they gain is in"
        " the rings, which say little of structure: compare [problem] anisotropic = true"
    ]


def few_orbits(n_orbits: int, n_folds: int) -> list[str]:
    """A warning where a fold is so small that its CC is known to no better than a tenth."""
    each = n_orbits // n_folds
    if each >= FEW_ORBITS:
        return []
    return [
        f"each of the {n_folds} folds holds out {each} of {n_orbits} orbits: a CC of so few is uncertain by about"
        f" {each**-0.5:.2f}, and what they choose is chance. Use fewer [problem] folds, more orbits, or one theta"
    ]


def collapsed(ess: float, n_frames: int) -> list[str]:
    """A warning where the weights are all but on one or two of many frames: ESS below 3, below 2 of fewer than 20."""
    if ess >= max(2, min(3, n_frames / 10)) or n_frames <= 2:
        return []
    return [
        f"nearly all weight is on {'one' if ess < 1.5 else 'two'} of {n_frames} frames (ESS {ess:.2f}): this is no"
        " ensemble, and no weights of these frames suit the map. Check that they contain the solvent and have the"
        " indices of the map ([experiment] reindex), or compare [problem] anisotropic = true"
    ]


def no_agreement(metrics: dict[str, float]) -> list[str]:
    """A warning where the result does not correlate with the map, in all or in what rings leave."""
    names = {"cc": "the CC", "cc_anisotropic": "the anisotropic CC, without rings,"}
    said = [f"{words} is {metrics[name]:.3f}" for name, words in names.items() if metrics.get(name, 1.0) <= 0]
    if not said:
        return []
    return [
        f"{' and '.join(said)}: these frames say nothing of the map at any weights that were found. Check that the map"
        " is diffuse scattering of this crystal, and its indices and cell (`hpcfit check` tries other indexings)"
    ]


def memory(w: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Number of successive frames of each source that are worth an independent one, [sources], by its weights w [T]; 1
    where these do not change. source: [T] the number of each frame's source, the frames of one in the order of time."""
    return np.nan_to_num(inefficiencies(w, source), nan=1.0)


def few_independent(w: np.ndarray, source: np.ndarray, names: Sequence[str]) -> list[str]:
    """A warning where a source is worth so few independent frames that two blocks of it are no longer than SPAN of
    these: their spread says too little, and errors by frames are too small. As ``memory``; names: of the sources."""
    frames = np.bincount(source, minlength=len(names))
    independent = frames / memory(w, source)
    few = np.flatnonzero((independent < 2 * SPAN) & (frames >= 2 * SPAN))
    if not len(few):
        return []
    worst = few[np.argmin(independent[few])]
    return [
        f"{len(few)} of {len(names)} sources are worth less than {2 * SPAN:g} independent frames, as '{names[worst]}',"
        f" whose {frames[worst]} are worth {independent[worst]:.1f} by their weights: errors by frames draw two blocks"
        " of such a source, which remember each other, and are too small. Give longer trajectories, or more of each"
        " label, which are drawn whole"
    ]


def undecided(starts: list[dict[str, Any]]) -> list[str]:
    """A sentence for each start that reaches the best misfit, to a thousandth of it, with other weights."""
    best = starts[0]
    same = [row for row in starts[1:] if row["misfit"] - best["misfit"] <= 1e-3 * abs(best["misfit"])]
    return [
        f"the starts '{best['start']}' and '{row['start']}' reach the same misfit ({best['misfit']:.5g} and"
        f" {row['misfit']:.5g}) with weights of which {100 * row['distance']:.0f} % lie on other frames: the map does"
        " not decide between them"
        for row in same
        if row["distance"] > 0.1
    ]
