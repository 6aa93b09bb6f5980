"""The weights in a report on kind "frame-weights": along sources, summed over groups and sources, with their errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from hpcfit.kinds.frame_weights.files import FrameWeightsRun, SourceWeights
from hpcfit.kinds.frame_weights.numbers import error_of, share
from hpcfit.kinds.frame_weights.report_groups import MOST_SUMS, group_table, population_table, sums_figure
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.report.page import (
    Figure,
    Section,
    Table,
    bar,
    correlation,
    grouped,
    near_zero,
    plus_minus,
    significant,
)
from hpcfit.statistics.resampling import BLOCKS, SPAN

HEAVIEST = 10
WEIGHT_COLUMNS = ("frames", "uniform weight", "fitted weight", "fitted / uniform", "fitted (tick: uniform)")
HEAVIEST_FRAMES = "The {n} heaviest frames. ΔG = −kT ln(T w) at {temperature:g} K; a uniform weight has ΔG = 0."
SEPARABILITY = (
    "Can the map tell the labels apart? Uniform weights on the frames of one label alone, on its halves, and on parts "
    "of {n} successive frames. Summed weights are populations only where two labels differ by more than halves of one "
    "do, and their parts do not overlap."
)
INDEPENDENT = (
    " Independent: the number of frames n over the statistical inefficiency g = 1 + 2 Σ (1 − t/n) C(t) of the fitted "
    f"weights along the source. Errors by frames draw blocks of at least {SPAN:g} g successive frames, {BLOCKS} of a "
    f"source at most and 2 at least: they are too small for a source that is worth less than {2 * SPAN:g}."
)


def weights(run: FrameWeightsRun) -> Section:
    """Weights along each source, sums by group, label and source, heaviest frames."""
    from hpcfit.kinds.frame_weights import figures_weights

    m, n_frames = run.metrics, run.metrics["frames"]
    caption = _weights_caption(grouped(n_frames), figures_weights.weights_drawn(run.weights, n_frames))
    svg = figures_weights.weights(run.weights, n_frames)
    picture = Figure(svg, "Fitted weight of each frame along its source", caption)
    of_groups = [*group_table(m), *population_table(m), *_label_table(run), *_separability(run)]
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
    return [sums_figure(run.metrics, what, rows) for what, rows in kinds.items() if 1 < len(rows) <= MOST_SUMS]


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
