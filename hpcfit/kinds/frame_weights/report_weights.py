"""The weights in a report on kind "frame-weights": along sources, summed over groups and sources, with their errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from hpcfit.kinds.frame_weights.files import FrameWeightsRun, SourceWeights
from hpcfit.kinds.frame_weights.numbers import KINDS_OF_ERRORS, error_by, error_of, resamples, share
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.report.page import (
    Figure,
    Section,
    Table,
    bar,
    change,
    correlation,
    grouped,
    near_zero,
    plus_minus,
    significant,
)
from hpcfit.statistics.resampling import BLOCKS

HEAVIEST = 10
MOST_SUMS = 40  # rows of a figure of sums; more are in the table alone
WEIGHT_COLUMNS = ("frames", "uniform weight", "fitted weight", "fitted / uniform", "fitted (tick: uniform)")
GROUP_COLUMNS = ("group", "frames", "prior", "weight", "weight / prior")
HEAVIEST_FRAMES = "The {n} heaviest frames. ΔG = −kT ln(T w) at {temperature:g} K; a uniform weight has ΔG = 0."
SEPARABILITY = (
    "Can the map tell the labels apart? Uniform weights on the frames of one label alone, on its halves, and on parts "
    "of {n} successive frames. Summed weights are populations only where two labels differ by more than halves of one "
    "do, and their parts do not overlap."
)
SUMS = (
    "Summed weight of each of the {what}. Circles: fitted; bars: standard deviation over {resamples}; grey strokes: "
    "before the fit, the baseline. A population has moved where its stroke lies outside both bars. The error by frames "
    "says how well the simulation sampled, that by orbits how far the noise of the map reaches."
)
MARKS = " Diamonds: without the bias of finite sampling; crosses: at theta = 0, where nothing pulls to the prior."
GROUPS = (
    "Groups of frames. ΔG = −kT ln(weight / prior) at {temperature:g} K is what the map adds to the free energy of the "
    "group in the simulation; 0 is the baseline.{errors}"
)
GROUP_ERRORS = (
    " ± frames and ± orbits: standard deviations over {resamples}; of ΔG both together, as kT times the relative error "
    "of the weight."
)
POPULATIONS = (
    "Populations and what biases them. Total: the fitted share less the bias of finite sampling, ± both errors. "
    "Sampling: means over few frames differ from each other by chance, which reads as diffuse intensity between "
    "groups; it is the difference of the shares that suit the map best with and without the variance of the means, by "
    "successive parts of each group. Theta: the fitted share less that of theta = 0. Resamples: their mean less the "
    "fit. Groups alone: the shares where nothing moves within groups, the limit of large theta.{undetermined}"
)
BESIDE_EXPERIMENTS = (
    " Other experiments were fitted beside the map: averages are not biased by the variance of means as intensities "
    "are, so that the bias of sampling of all data together is not known, and the total is the fitted share."
)
UNDETERMINED = " Not determined: alone {names} agree with the map no better than chance; no errors are given."
INDEPENDENT = (
    " Independent: the number of frames n over the statistical inefficiency g = 1 + 2 Σ (1 − t/n) C(t) of the fitted "
    f"weights along the source. Errors by frames draw {BLOCKS} blocks of a source as if these were independent: they "
    "are too small for a source that is worth fewer frames than that."
)


def weights(run: FrameWeightsRun) -> Section:
    """Weights along each source, sums by group, label and source, heaviest frames."""
    from hpcfit.kinds.frame_weights import figures_weights

    n_frames = run.metrics["frames"]
    caption = _weights_caption(grouped(n_frames), figures_weights.weights_drawn(run.weights, n_frames))
    svg = figures_weights.weights(run.weights, n_frames)
    picture = Figure(svg, "Fitted weight of each frame along its source", caption)
    of_groups = [*_group_table(run), *_population_table(run), *_label_table(run), *_separability(run)]
    tables = [*of_groups, _source_table(run), _heaviest(run)]
    return Section("Weights", [picture, *_sums_figures(run), *tables])


def _weights_caption(n_frames: str, drawn: Sequence[str]) -> str:
    """Under the weights along each source; `drawn` says how they are drawn: shape, colour of the baseline, notes."""
    shape, baseline, *notes = drawn
    notes = " ".join(notes)
    return (
        f"Fitted weight times T = {n_frames}, {shape}. The baseline is 1 ({baseline}): what every frame has under "
        "uniform weights. Stretches well above 1 are what the experiment asks for; single spikes in a smooth "
        f"trajectory point to over-fitting. Σw: share of the source in the fit; ESS: its effective frames. {notes}"
    )


def _sums_figures(run: FrameWeightsRun) -> list[Figure]:
    """The sums over groups, and over sources where those are others, with their errors where they are known."""
    if "errors" not in run.metrics:
        return []
    groups = [(row["group"], row["prior"], row["weight"]) for row in run.metrics.get("groups", [])]
    sources = [(row["source"], row["uniform_weight"], row["weight"]) for row in run.sources]
    # Groups of one source each need no second figure; their sums are those of the sources but for rounding.
    same = len(groups) == len(sources) and np.allclose(*(sorted(row[1:] for row in rows) for rows in (groups, sources)))
    kinds = {"groups": groups} if same else {"groups": groups, "sources": sources}
    return [_sums_figure(run, what, rows) for what, rows in kinds.items() if 1 < len(rows) <= MOST_SUMS]


def _sums_figure(run: FrameWeightsRun, what: str, rows: Sequence[tuple[str, float, float]]) -> Figure:
    from hpcfit.report.figures import Value, values_with_errors

    errors = [tuple(error_by(run.metrics, kind, what, name) for kind in KINDS_OF_ERRORS) for name, _, _ in rows]
    populations = [row for row in run.metrics.get("populations", []) if row["corrected"] is not None]
    marks = {row["group"]: (row["corrected"], row["without_theta"]) for row in populations}
    marked = bool(marks) and all(name in marks for name, _, _ in rows)
    drawn = [Value(*row, error, marks.get(row[0], ())) for row, error in zip(rows, errors, strict=True)]
    caption = SUMS.format(what=what, resamples=resamples(run.metrics)) + (MARKS if marked else "")
    kinds = tuple(f"resampling {kind}" for kind in KINDS_OF_ERRORS)
    svg = values_with_errors(drawn, kinds, "summed weight", ("without sampling bias", "theta = 0") if marked else ())
    return Figure(svg, f"Summed weight of each of the {what} with its errors", caption)


def _group_table(run: FrameWeightsRun) -> list[Table]:
    """Sums per group beside those of the prior, with free energies, where there are several groups."""
    rows = run.metrics.get("groups", [])
    if len(rows) < 2:
        return []
    kinds = [kind for kind in KINDS_OF_ERRORS if kind in run.metrics.get("errors", {})]
    head = (*GROUP_COLUMNS, *(f"± {kind}" for kind in kinds), "ΔG, kJ/mol", "weight (tick: prior)")
    largest = max(max(row["weight"], row["prior"]) for row in rows)
    errors = GROUP_ERRORS.format(resamples=resamples(run.metrics)) if kinds else ""
    caption = GROUPS.format(temperature=run.metrics["temperature"], errors=errors)
    return [Table(head, [_group_cells(run.metrics, row, kinds, largest) for row in rows], caption)]


def _population_table(run: FrameWeightsRun) -> list[Table]:
    """The shares of groups with their biases, where there are several groups and errors were asked for."""
    rows = run.metrics.get("populations", [])
    if not rows:
        return []
    kinds = [kind for kind in KINDS_OF_ERRORS if "bias" in run.metrics["errors"].get(kind, {})]
    resampled = (f"resamples of {kind}" for kind in kinds)
    head = ("group", "total", "fitted", "sampling", "theta", *resampled, "groups alone")
    table = [_population_cells(run.metrics, row, kinds) for row in rows]
    names = " and ".join(f"'{row['group']}'" for row in rows if not row.get("determined", True))
    said = UNDETERMINED.format(names=names) if names else ""
    said += BESIDE_EXPERIMENTS if any(row["corrected"] is None for row in rows) else ""
    return [Table(head, table, POPULATIONS.format(undetermined=said))]


def _population_cells(m: dict[str, Any], row: dict[str, Any], kinds: Sequence[str]) -> list[str]:
    """The total is without the bias of sampling where that is known."""
    name, fitted, corrected = row["group"], row["fitted"], row["corrected"]
    total = plus_minus(share(fitted if corrected is None else corrected), error_of(m, "groups", name))
    return [
        name, total if row.get("determined", True) else "not determined", share(fitted),
        "–" if corrected is None else change(fitted - corrected), change(fitted - row["without_theta"]),
        *(change(error_by(m, kind, "bias", name)) for kind in kinds),
        "–" if row["groups_alone"] is None else share(row["groups_alone"]),
    ]  # fmt: skip


def _group_cells(m: dict[str, Any], row: dict[str, Any], kinds: Sequence[str], largest: float) -> list[str]:
    name, prior, weight = row["group"], row["prior"], row["weight"]
    return [
        name, grouped(row["frames"]), share(prior), share(weight), significant(weight / prior if prior > 0 else None),
        *(significant(error_by(m, kind, "groups", name), 2) for kind in kinds),
        _delta_G(m, row), bar(weight, largest, mark=prior),
    ]  # fmt: skip


def _delta_G(m: dict[str, Any], row: dict[str, Any]) -> Markup | str:
    """With its error by propagation, kT sd(weight) / weight."""
    if row["delta_G"] is None:
        return "∞" if row["weight"] == 0 else "–"
    error, kT = error_of(m, "groups", row["group"]), GAS_CONSTANT * m["temperature"]
    return plus_minus(near_zero(row["delta_G"]), None if error is None else kT * error / row["weight"])


def _label_table(run: FrameWeightsRun) -> list[Table]:
    """Sums per label, when labels join sources and are not the groups."""
    labels = {row["label"] or "(no label)" for row in run.sources}
    groups = {row["group"] for row in run.metrics.get("groups", [])}
    if not any(row["label"] for row in run.sources) or labels == groups:
        return []
    sums = defaultdict(lambda: np.zeros(4))
    for row in run.sources:
        sums[row["label"] or "(no label)"] += (1, row["frames"], row["uniform_weight"], row["weight"])
    largest = max(max(total[2:]) for total in sums.values())
    rows = [[label, grouped(int(n)), *_weight_cells(total, largest)] for label, (n, *total) in sums.items()]
    caption = "Sums per label. Baseline: the share of the label in the frames."
    return [Table(("label", "sources", *WEIGHT_COLUMNS), rows, caption)]


def _separability(run: FrameWeightsRun) -> list[Table]:
    """CC of each label alone, where there are several labels."""
    fits = run.metrics.get("labels", [])
    if not fits:
        return []
    rows = []
    for fit in fits:
        ccs = (fit["cc"], *fit["cc_halves"], min(fit["cc_parts"]), max(fit["cc_parts"]))
        rows.append([fit["label"], grouped(fit["frames"]), *map(correlation, ccs)])
    header = ("label", "frames", "CC of the label alone", "first half", "second half", "parts: lowest", "highest")
    return [Table(header, rows, SEPARABILITY.format(n=grouped(fits[0]["part_frames"])))]


def _source_table(run: FrameWeightsRun) -> Table:
    names, independent = ("frames", "uniform_weight", "weight"), run.metrics.get("independent_frames")
    largest = max(max(row["uniform_weight"], row["weight"]) for row in run.sources)
    rows = []
    for row in run.sources:
        error = error_of(run.metrics, "sources", row["source"])
        frames, *cells = _weight_cells([row[n] for n in names], largest, error)
        worth = [] if independent is None else [significant(independent.get(row["source"]))]
        rows.append([row["source"], row["label"], frames, *worth, *cells])
    errors = " ± is the error by frames and orbits together." if "errors" in run.metrics else ""
    memory = "" if independent is None else INDEPENDENT
    caption = f"The sources.{errors}{memory} Every frame is in weights.csv, with its ΔG = −kT ln(T w)."
    head = (WEIGHT_COLUMNS[0], *(["independent"] if memory else []), *WEIGHT_COLUMNS[1:])
    return Table(("source", "label", *head), rows, caption, text_columns=2)


def _weight_cells(row: Sequence[float], largest: float, error: float | None = None) -> list[str]:
    frames, uniform, fitted = row
    ratio = fitted / uniform if uniform > 0 else None
    return [
        grouped(int(frames)), share(uniform), plus_minus(share(fitted), error), significant(ratio),
        bar(fitted, largest, mark=uniform),
    ]  # fmt: skip


def _heaviest(run: FrameWeightsRun) -> Table:
    n_frames, temperature = run.metrics["frames"], run.metrics["temperature"]
    frames = [(float(w), source.name, int(i)) for source in run.weights for i, w in _top(source)]
    frames = sorted(frames, key=lambda frame: (-frame[0], *frame[1:]))[:HEAVIEST]
    rows = [
        [name, grouped(i), significant(w), significant(w * n_frames), _free_energy(w * n_frames, temperature)]
        for w, name, i in frames
    ]
    caption = HEAVIEST_FRAMES.format(n=len(rows), temperature=temperature)
    return Table(("source", "index", "weight", "weight × T", "ΔG, kJ/mol"), rows, caption)


def _top(source: SourceWeights) -> list[tuple[int, float]]:
    order = np.argsort(-source.weight, kind="stable")[:HEAVIEST]
    return list(zip(source.index[order], source.weight[order], strict=True))


def _free_energy(relative: float, temperature: float) -> str:
    return near_zero(-GAS_CONSTANT * temperature * np.log(relative)) if relative > 0 else "∞"
