"""The fits beside the final one in a report on kind "frame-weights": starts, choice of theta, rounds of dropping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from hpcfit.kinds.frame_weights.numbers import Measure, error_by, measures, minimised, share
from hpcfit.report.page import (
    Figure,
    Section,
    Table,
    Text,
    change,
    correlation,
    grouped,
    number,
    percent,
    plus_minus,
    significant,
)
from hpcfit.runs.files import RunFiles
from hpcfit.statistics.blocks import Estimate, mean_with_error

# Misfits are the same within their error by orbits, and at least within this much,
SAME_CORRELATION = 1e-3  # of a correlation,
SAME_GAIN = 0.01  # of what the best fit gained over uniform weights, where the misfit has a scale of its own.
SAME_SUMS = 0.05  # of a group's weight
BEFORE = "before any fit"
STARTS = (
    "Summed weight of each group of frames where a fit ended, a bar for each start, the best misfit on top. The fits "
    "share one theta, in the middle of those tried, and differ in nothing but where they began: bars that look the "
    "same say that the end does not depend on it. Lowest bar: the weights before any fit, the baseline."
)
STARTS_TABLE = (
    "The fits from several starts, best misfit first. A start is the prior weights, uniform weights, nearly all weight "
    "on one group of frames (named), or random weights; the sums are of the weights at the end. Last row: before any "
    "fit, the baseline."
)
UNDECIDED = (
    "The map does not decide between these weights: {starts} reach the same misfit (to {tolerance}) with sums that "
    "differ by up to {apart:.2f}, most in '{group}'. Read no populations from the result alone."
)
DECIDED = "The starts {starts} reach the same misfit (to {tolerance}) with sums that agree to {apart:.2f}."
ALONE = "Start {start} alone reaches the best misfit (to {tolerance}); the result begins there."
OTHER_FRAMES = " Frame by frame up to {share} of the weight lies elsewhere: single frames are not determined."
DISTANCE = " On other frames: the weight that would have to be moved to get the weights of the best start."
WORSE = " Worse by more: {starts}; the fit has several minima, or these were not yet at their end."
L_CURVE = (
    "{title} of the fitted orbits against how far the weights moved from the prior, a point for each theta. Where the "
    "curve turns flat, further movement buys hardly any agreement. The prior weights, the baseline, are at KL = 0 on "
    "the left; points without a number lie beside one that has it. A ring marks the theta that cross-validation chose, "
    "if it chose one."
)
THETA_SCAN = (
    "What each theta gives for the orbits that were fitted (blue, all of them) and for held-out ones (green: mean and "
    "standard error over {folds} folds). Dashed: the prior weights over the same folds, the baseline, with its error "
    "as a band. The folds differ more among themselves than the thetas do within a fold: compare thetas by the gain "
    "over the prior in the table. Where green turns back towards the dashes while blue goes on, the weights follow "
    "noise."
)
THETA_TABLE = (
    "Each theta judged by orbits that its fits did not see, largest first. The gain is over the prior weights, fold by "
    "fold, with its standard error over {folds} folds. Fitted: CC, KL and ESS of a fit to all orbits."
)
PRIOR_CHOSEN = (
    "No strength theta made held-out orbits agree better than the prior weights do: the result is the prior weights "
    "themselves, and its numbers are those of no fit."
)
THETA_RULE = (
    "Chosen is the largest theta whose held-out misfit is the best one, to one standard error of their differences "
    "over the folds: among strengths that the data cannot tell apart, the one that stays nearest to the prior."
)
DROPPING = (
    "Rounds without the frames of least weight in the round before, each fitted anew from uniform weights. The first "
    "row is the result with all its frames, the baseline: a CC that stays while frames go says that they were not "
    "needed; one that rises, while CC free does not, is noise."
)


def starts(run: RunFiles) -> Section | None:
    """The section on where fits from several starts ended, and whether the map decides between them; None for one."""
    from hpcfit.kinds.frame_weights import figures_study

    rows = run.metrics.get("starts", [])
    if len(rows) < 2:
        return None
    prior = {row["group"]: row["prior"] for row in run.metrics.get("groups", [])}
    drawn = [*rows, {"start": BEFORE, "groups": prior}] if prior else rows
    blocks: list[Any] = [verdict(run.metrics)]
    if len(rows[0]["groups"]) > 1:
        svg = figures_study.starts(drawn)
        blocks.append(Figure(svg, "Summed weights of the groups where the fit from each start ended", STARTS))
    return Section("Agreement between starts", [*blocks, _starts_table(run.metrics, prior)])


class Compared(NamedTuple):
    """The starts that share the best misfit, the group whose sum differs most among them, and how much of the weight
    lies on other frames than at the best one, at most."""

    same: Sequence[str]
    worse: Sequence[str]
    tolerance: float
    group: str
    apart: float
    distance: float


def compare(metrics: dict[str, Any]) -> Compared:
    """By misfit first, then by the sums of those whose misfit is the same."""
    rows, tolerance = metrics["starts"], same_misfit(metrics)
    same = [row for row in rows if row["misfit"] - rows[0]["misfit"] <= tolerance]
    spread = {name: float(np.ptp([row["groups"][name] for row in same])) for name in rows[0]["groups"]}
    group = max(spread, key=spread.get)
    names = [row["start"] for row in rows]
    return Compared(names[: len(same)], names[len(same) :], tolerance, group, spread[group],
                    max(row.get("distance", 0.0) for row in same))  # fmt: skip


def same_misfit(metrics: dict[str, Any]) -> float:
    """Misfits that differ by no more are the same."""
    measure = minimised(metrics)
    gain = metrics["uniform"]["misfit"] - metrics["starts"][0]["misfit"] if not measure.is_correlation else 0.0
    least = SAME_CORRELATION if measure.is_correlation else SAME_GAIN * max(gain, 0.0)
    return max(least, error_by(metrics, "orbits", "metrics", measure.name) or 0.0)


def verdict(metrics: dict[str, Any]) -> Text:
    """A warning where starts of one misfit end at different weights."""
    found = compare(metrics)
    undecided = found.apart > SAME_SUMS
    words = UNDECIDED if undecided else DECIDED if len(found.same) > 1 else ALONE
    text = words.format(
        starts=_listed(found.same), start=_listed(found.same), tolerance=f"{found.tolerance:.2g}",
        apart=max(found.apart, 0.01), group=found.group,
    )  # fmt: skip
    moved = OTHER_FRAMES.format(share=f"{100 * found.distance:.0f} %") if found.distance > SAME_SUMS else ""
    worse = WORSE.format(starts=_listed(found.worse)) if found.worse else ""
    return Text(text + moved + worse, warning=undecided)


def _listed(names: Sequence[str]) -> str:
    """'a', 'b' and 'c'."""
    quoted = [f"'{name}'" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def _starts_table(m: dict[str, Any], prior: dict[str, float]) -> Table:
    compared, groups = measures(m), list(m["starts"][0]["groups"])
    known = "distance" in m["starts"][0]
    moved = ("on other frames",) if known else ()
    head = ("start", *(measure.title for measure in compared), *groups, *moved, "ESS, frames", "stopped")
    rows = [
        [row["start"], *_values(compared, row), *(share(row["groups"][name]) for name in groups),
         *((percent(row["distance"]),) if known else ()), significant(row["ess"]), row["stopped"]]
        for row in m["starts"]
    ]  # fmt: skip
    if prior:
        blank = [""] * (len(moved) + 2)
        rows.append([BEFORE, *[""] * len(compared), *(share(prior[name]) for name in groups), *blank])
    return Table(head, rows, STARTS_TABLE + (DISTANCE if known else ""))


def _values(compared: Sequence[Measure], row: dict[str, Any]) -> list[Markup]:
    return [measure.shown(row.get(measure.name)) for measure in compared]


def theta(run: RunFiles) -> Section | None:
    """Held-out agreement and distance from the prior at each theta, and which one was taken."""
    m = run.metrics
    rows = m.get("cross_validation")
    if not rows:
        return None
    if "theta" not in m:  # weights that have no prior to leave
        return Section("Held-out orbits", [_theta_table(m, rows, None)])
    chosen = m["theta"]
    said = Text(PRIOR_CHOSEN, warning=True) if chosen is None else Text(THETA_RULE)
    pictures = _theta_figures(m, rows, chosen) if len(rows) > 2 else []
    known = [said] if len(rows) > 2 or chosen is None else []
    return Section("How the strength theta was chosen", [*known, *pictures, _theta_table(m, rows, chosen)])


def _theta_figures(m: dict[str, Any], rows: Sequence[dict[str, Any]], chosen: float | None) -> list[Figure]:
    from hpcfit.kinds.frame_weights import figures_study

    curve, measure = m.get("l_curve", []), minimised(m)
    caption = THETA_SCAN.format(folds=len(rows[0]["folds"]))
    svg = figures_study.theta_scan(rows, curve, chosen, measures(m))
    figures = [Figure(svg, "Agreement of fitted and held-out orbits against theta", caption)]
    if curve:
        svg = figures_study.l_curve(curve, chosen, measure)
        caption = L_CURVE.format(title=measure.title[:1].upper() + measure.title[1:])
        figures.append(Figure(svg, f"{measure.title} against the divergence from the prior for each theta", caption))
    return figures


def _theta_table(m: dict[str, Any], rows: Sequence[dict[str, Any]], chosen: float | None) -> Table:
    compared, fitted = measures(m), {row["theta"]: row for row in m.get("l_curve", [])}
    held_out = [f"{measure.title}, held out" for measure in compared]
    of_all = [*(f"{measure.title}, fitted" for measure in compared), "KL", "ESS, frames"] if fitted else []
    gain = f"gain in {minimised(m).title} over the prior" if minimised(m).is_correlation else "misfit below the prior's"
    head = ("theta", "", *held_out, gain, *of_all)
    table = [_held_out_cells(compared, row, rows[0]) for row in rows]
    if fitted:
        table = [[*cells, *_fitted_cells(compared, fitted.get(row["theta"]))] for cells, row in zip(table, rows)]
    marked = [[_name(row), "chosen" if row["theta"] == chosen else "", *cells] for row, cells in zip(rows, table)]
    return Table(head, marked, THETA_TABLE.format(folds=len(rows[0]["folds"])), text_columns=2)


def _name(row: dict[str, Any]) -> str:
    return "prior weights" if row["theta"] is None else f"{row['theta']:g}"


def _held_out_cells(compared: Sequence[Measure], row: dict[str, Any], prior: dict[str, Any]) -> list[Markup | str]:
    held_out = [plus_minus(measure.shown(row[measure.free]), row[f"{measure.free}_error"]) for measure in compared]
    gain, error = gain_over(prior, row)
    return [*held_out, "" if row is prior else plus_minus(change(gain), error)]


def _fitted_cells(compared: Sequence[Measure], fit: dict[str, Any] | None) -> list[Markup | str]:
    if fit is None:  # the prior weights
        return [""] * (len(compared) + 2)
    return [*_values(compared, fit), significant(fit["kl"]), significant(fit["ess"])]


def gain_over(prior: dict[str, Any], row: dict[str, Any]) -> Estimate:
    """The mean over folds of the decrease of the held-out misfit from that of the prior, and its standard error."""
    return mean_with_error(np.subtract(prior["folds"], row["folds"]))


def dropping(run: RunFiles) -> Section | None:
    """Rounds that leave out the frames of least weight."""
    rounds = run.metrics.get("dropping")
    if not rounds:
        return None
    m, compared = run.metrics, measures(run.metrics)
    rows = [{"frames": m["frames"], **m["fitted"]}, *rounds]
    free = "cc_free" in rows[0]
    head = ("round", "frames", *(measure.title for measure in compared), *(("CC free",) if free else ()), "ESS, frames")
    cells = [
        [number(n, str(n)) if n else "result", grouped(row["frames"]), *_values(compared, row),
         *((correlation(row.get("cc_free")),) if free else ()), significant(row["ess"])]
        for n, row in enumerate(rows)
    ]  # fmt: skip
    return Section("Rounds of dropping frames", [Table(head, cells, DROPPING)])
