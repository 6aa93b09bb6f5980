"""The derivatives of all averages at the end of a fit, as rows: by every estimator, or of frames that are given."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from hpcfit.fit.by_blocks import Forward
from hpcfit.fit.gradient import Evaluation
from hpcfit.fit.problem import Params
from hpcfit.fit.stages import Fits
from hpcfit.fit.state import gather_rows, to_arrays
from hpcfit.kinds.force_field.simulated import gradient
from hpcfit.kinds.force_field.simulated.along_rounds import of_windows
from hpcfit.kinds.force_field.simulated.averages import Windows
from hpcfit.kinds.force_field.simulated.case import SimulatedCase
from hpcfit.kinds.force_field.simulated.derivatives import (
    DRAW,
    Derivatives,
    Estimates,
    by_parts,
    growth,
    of_frames,
    seen_systems,
)
from hpcfit.kinds.force_field.simulated.ensemble import Ensemble
from hpcfit.kinds.force_field.simulated.weighed import window_slopes
from hpcfit.kinds.force_field.simulated.window import windows_compared
from hpcfit.simulation.langevin import PhasePoint
from hpcfit.statistics.blocks import jackknife_error

DERIVATIVES = "derivatives"  # a stage


def compare(case: SimulatedCase, fits: Fits, evaluate: Forward, at: Evaluation, beside: Any) -> dict[str, Any]:
    """The derivatives of all averages and the gradient by every estimator, how long derivatives remember, and how fast
    tangents grow. beside: the gradient of what the loss has beside averages, by u."""
    world, problem, u = evaluate.grid.world, evaluate.problem, at.params.shared
    ends = gather_rows(to_arrays([at.rows]).local, evaluate.grid)
    starts = world.on_root(lambda: [_ends(case, ends, number) for number in range(len(problem.ensembles))])
    work = Derivatives(problem, u, starts, range(DRAW, DRAW + case.config.problem.derivative_draws), world)
    found = fits.stage(DERIVATIVES, work, {"parameters": _digest(u)})

    def on_root() -> dict[str, Any]:
        ensembles, slopes = problem.along(u), case.moving.of_energies.own_slopes(u)
        estimated = {number: by_parts(ensembles[number], slopes, found, number) for number in seen_systems(problem)}
        known = gradient.of_draws(problem, u, found, estimated)
        return {
            "derivatives": list(_compared(case, problem, u, found, estimated)),
            "gradient": list(gradient.rows(problem, u, known, beside)),
        }

    rows = world.on_root(on_root)
    fits.warn(too_short([row for of_system in rows["derivatives"] for row in of_system["rows"]]))
    return rows


def _ends(case: SimulatedCase, rows: dict[str, np.ndarray], number: int) -> PhasePoint:
    leaves = case.ensembles[number].leaves
    return PhasePoint(*(of_windows(case, rows, number, f"ends'].{what}") for what in leaves))


def _digest(u: Any) -> str:
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(u))).hexdigest()[:16]


def _compared(
    case: SimulatedCase, problem: Windows, u: Any, found: dict[str, np.ndarray],
    estimated: Mapping[int, tuple[Estimates, ...]],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Of each system its rows, what it remembers, and the growth of tangents. estimated: see ``by_parts``, by number
    of the system."""
    labels, names = case.moving.of_energies.free, case.data_names()
    for number, (value, error, _) in estimated.items():
        one, ensemble, at = case.opened[number], problem.along(u)[number], (value, error)
        errors, best = windows_compared(case, problem, number, u, found, at)
        window = np.where(np.isnan(value.pathwise), np.nan, float(ensemble.interval) * errors.careful().best)
        mine = [name for name in names if name.system == one.name and name.observable in _of_frames(one, ensemble)]
        short, (missing, of_missing) = value.too_short(error), value.missing(error)
        rows = [
            {
                "system": one.name, "observable": name.observable, "item": name.item, "parameter": labels[p],
                "pathwise": value.pathwise[m, p], "pathwise_error": error.pathwise[m, p],
                "fluctuation": value.fluctuation[m, p], "fluctuation_error": error.fluctuation[m, p],
                "malliavin": value.malliavin[m, p], "malliavin_error": error.malliavin[m, p],
                "combined": value.combined[m, p], "combined_error": error.combined[m, p],
                "left": value.left[m, p], "left_error": error.left[m, p], "too_short": bool(short[m, p]),
                "best_window": window[m, p], "missing": missing[m, p], "missing_error": of_missing[m, p],
            }
            for m, name in enumerate(mine) for p in range(len(labels))
        ]  # fmt: skip
        rate, of_rate = growth(ensemble, found, number)
        yield {
            "system": one.name,
            "growth": rate,
            "growth_error": of_rate,
            "rows": rows,
            "memory": [] if ensemble.barostat else _memory(case, problem, number, mine, value, error),
            "skipped": ensemble.skipped,
            "windows": None if best is None else best.facts(ensemble, labels),
        }


def _of_frames(one: Any, ensemble: Ensemble) -> set[str]:
    return {config.name for config, found in zip(one.config.observable, ensemble.observables) if of_frames(found)}


def _memory(case: SimulatedCase, problem: Windows, number: int, mine: list, value: Estimates, error: Estimates) -> list:
    """C(t) / C(0) of the datum that says most of each parameter."""
    ensemble, found = problem.ensembles[number], []
    pairs = zip(problem.tiles[number], ensemble.observables)
    sigma = np.concatenate([m.sigma[0] for m, one in pairs if of_frames(one)])
    for p, label in enumerate(case.moving.of_energies.free):
        m = int(np.argmax(np.abs(value.fluctuation[:, p]) / sigma))
        found.append(
            {
                "parameter": label, "observable": mine[m].observable, "item": mine[m].item,
                "time": (float(ensemble.interval) * np.arange(len(value.memory))).tolist(),
                "left": value.memory[:, m, p].tolist(), "error": error.memory[:, m, p].tolist(),
            }
        )  # fmt: skip
    return found


def too_short(rows: list[dict[str, Any]]) -> list[str]:
    """A warning where the pathwise estimate has not decayed, with the worst of all derivatives."""
    short = [row for row in rows if row["too_short"]]
    if not short:
        return []
    worst = max(short, key=lambda row: abs(row["missing"]) / row["missing_error"])
    return [
        f"windows are too short for {len(short)} of {len(rows)} pathwise derivatives: that of {worst['observable']}"
        f" {worst['item']} ({worst['system']}) by {worst['parameter']} is {worst['fluctuation']:.3g} +-"
        f" {worst['fluctuation_error']:.2g} by fluctuations, and {worst['missing']:.2g} +- {worst['missing_error']:.1g}"
        " of it are missing; lengthen [problem] window, or use estimator = 'fluctuation'"
    ]


def of_given(case: SimulatedCase, fits: Fits, evaluate: Forward, at: Evaluation, beside: Any) -> dict[str, Any]:
    """The derivatives of all averages of frames that are given, and the gradient, by the fluctuation formula;
    collective. beside: see ``compare``."""
    u = at.params.shared
    of_energies = {name: u[name] for name in evaluate.problem.moving.of_energies.classes}
    found = window_slopes(evaluate.problem, of_energies, evaluate.frames.rows)
    kept = gather_rows(to_arrays([Params((), found)]).local, evaluate.grid)
    numbers = range(len(case.opened))

    def on_root() -> dict[str, Any]:
        sums, tangents = ([of_windows(case, kept, number, what) for number in numbers] for what in ("sums", "slopes"))
        known = gradient.of_given(evaluate.problem, u, sums, tangents)
        rows = list(gradient.rows(evaluate.problem, u, known, beside))
        return {"derivatives": list(_of_given(case, known)), "gradient": rows}

    return evaluate.grid.world.on_root(on_root)


def _of_given(case: SimulatedCase, known: Sequence[gradient.Known]) -> Iterator[dict[str, Any]]:
    labels, names = case.moving.of_energies.free, case.data_names()
    for one, of_system in zip(case.opened, known):
        value, *left_out = of_system.slopes["fluctuation"]
        error = jackknife_error(np.reshape(left_out, (-1, *value.shape)))
        mine = [name for name in names if name.system == one.name]
        rows = [
            {
                "system": one.name, "observable": name.observable, "item": name.item, "parameter": labels[p],
                "fluctuation": value[m, p], "fluctuation_error": error[m, p],
            }
            for m, name in enumerate(mine) for p in range(len(labels))
        ]  # fmt: skip
        yield {"system": one.name, "rows": rows}
