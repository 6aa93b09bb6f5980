"""The sections of a report on kind "frame-weights": what was fitted, and how far it differs from uniform weights."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from scipy.constants import gas_constant

from hpcfit.results import frame_weights_captions as captions
from hpcfit.results.page import (
    Card,
    Cards,
    Figure,
    Fold,
    Section,
    Table,
    Text,
    bar,
    change,
    correlation,
    duration,
    grouped,
    number,
    percent,
    significant,
)
from hpcfit.results.planes import choose_levels, plane, plane_axes, plane_name, scaled_to
from hpcfit.results.run_files import RunFiles, SourceWeights

HEAVIEST = 10
WEIGHT_COLUMNS = ("frames", "uniform weight", "fitted weight", "fitted / uniform", "fitted (tick: uniform)")
MEANING = {
    "cc": ("CC, total", "Pearson correlation with the observed map"),
    "cc_anisotropic": ("CC, anisotropic", "the same after the mean of each resolution shell is removed from both"),
    "cc_free": ("CC free", "the same over the orbits that were held out of the fit"),
    "ess": ("ESS, frames", "Kish effective sample size 1/Σw²: about how many frames carry the fit"),
    "kl": ("KL from prior", "Σw ln(w/w⁰), nats: how far the weights moved"),
}


def outcome(run: RunFiles) -> Section:
    """What was fitted, the headline numbers beside the baseline, why it stopped, and warnings."""
    m = run.metrics
    warnings = [Text(text, warning=True) for text in m.get("warnings", [])]
    cards = Cards(_cards(m["fitted"], m["uniform"]))
    judged = captions.HOLD_OUT if "cc_free" in m["fitted"] else captions.NO_HOLD_OUT
    return Section("Outcome", [Text(_what(run)), cards, *warnings, Text(_ending(m)), Text(judged)])


def _cards(fitted: dict[str, float], uniform: dict[str, float]) -> list[Card]:
    """One card per headline number; the baseline is left out where `uniform` has none."""
    cards = []
    known = {name: words for name, words in MEANING.items() if name in fitted}
    for name, (title, meaning) in known.items():
        shown = {"ess": significant, "kl": _nats}.get(name, correlation)
        baseline = Markup("uniform weights: {}").format(shown(uniform[name])) if uniform else ""
        cards.append(Card(title, shown(fitted[name]), baseline, meaning))
    return cards


def _nats(value: float) -> str:
    """A divergence; what rounding leaves of 0 reads 0."""
    return number(value, "0") if abs(value) < 1e-12 else significant(value)


def _what(run: RunFiles) -> str:
    m = run.metrics
    labels = {row["label"] for row in run.sources if row["label"]}
    labelled = f" ({_plural(len(labels), 'label')})" if labels else ""
    return (
        f"Weights of {_plural(m['frames'], 'frame')} from {_plural(len(run.sources), 'source')}{labelled} were fitted "
        f"to {_plural(m['reflections'], 'reflection')} of a diffuse map, {_plural(m['orbits'], 'orbit')} of Laue class "
        f"{m['laue']}; objective: {m['objective']}.{_left_out(m.get('left_out', {}))}"
    )


def _left_out(counts: dict[str, int]) -> str:
    """What was not fitted, and why."""
    reasons = [f"{grouped(count)} {reason}" for reason, count in counts.items() if count]
    return f" Left out: {', '.join(reasons)}." if reasons else ""


def _ending(m: dict[str, Any]) -> str:
    grid = " × ".join(str(n) for n in m["grid"])
    return (
        f"The fit stopped after {_plural(m['steps'], 'step')} and {_plural(m['evaluations'], 'evaluation')}: "
        f"{m['stopped']}. It ran on {_plural(m['ranks'], 'rank')}, grid {grid} (frames × slices)."
    )


def _plural(n: int, noun: str) -> str:
    return f"{grouped(n)} {noun}" if n == 1 else f"{grouped(n)} {noun}s"


def so_far(run: RunFiles) -> Section:
    """The head of a run that has no results yet."""
    last = {name: float(run.history[name][-1]) for name in MEANING if name in run.history.columns}
    text = captions.UNFINISHED.format(directory=run.directory)
    done = f"After {_plural(int(run.history['evaluation'][-1]), 'evaluation')}:"
    return Section("Outcome", [Text(text, warning=True), Text(done), Cards(_cards(last, {}))])


def convergence(run: RunFiles) -> Section:
    """CC, loss, gradient norm and ESS against evaluations."""
    from hpcfit.results import figures

    uniform = run.metrics["uniform"] if run.finished else {}
    svg = figures.convergence(run.history, uniform)
    caption = captions.convergence(bool(uniform), run.history.note)
    return Section("Convergence", [Figure(svg, "CC, loss, gradient norm and ESS against evaluations", caption)])


def weights(run: RunFiles) -> Section:
    """Weights along each source, sums by source and by label, heaviest frames."""
    from hpcfit.results import figures

    n_frames = run.metrics["frames"]
    caption = captions.weights(grouped(n_frames), figures.weights_drawn(run.weights, n_frames))
    picture = Figure(figures.weights(run.weights, n_frames), "Fitted weight of each frame along its source", caption)
    return Section("Weights", [picture, *_label_table(run), *_separability(run), _source_table(run), _heaviest(run)])


def _label_table(run: RunFiles) -> list[Table]:
    """Sums per label, when labels join sources."""
    if not any(row["label"] for row in run.sources):
        return []
    sums = defaultdict(lambda: np.zeros(4))
    for row in run.sources:
        sums[row["label"] or "(no label)"] += (1, row["frames"], row["uniform_weight"], row["weight"])
    largest = max(max(total[2:]) for total in sums.values())
    rows = [[label, grouped(int(n)), *_weight_cells(total, largest)] for label, (n, *total) in sums.items()]
    caption = "Sums per label. Baseline: the share of the label in the frames."
    return [Table(("label", "sources", *WEIGHT_COLUMNS), rows, caption)]


def _separability(run: RunFiles) -> list[Table]:
    """CC of each label alone, where there are several labels."""
    fits = run.metrics.get("labels", [])
    if not fits:
        return []
    rows = []
    for fit in fits:
        ccs = (fit["cc"], *fit["cc_halves"], min(fit["cc_parts"]), max(fit["cc_parts"]))
        rows.append([fit["label"], grouped(fit["frames"]), *map(correlation, ccs)])
    header = ("label", "frames", "CC of the label alone", "first half", "second half", "parts: lowest", "highest")
    return [Table(header, rows, captions.SEPARABILITY.format(n=grouped(fits[0]["part_frames"])))]


def _source_table(run: RunFiles) -> Table:
    names = ("frames", "uniform_weight", "weight")
    largest = max(max(row["uniform_weight"], row["weight"]) for row in run.sources)
    rows = [[row["source"], row["label"], *_weight_cells([row[n] for n in names], largest)] for row in run.sources]
    caption = "The sources. Every frame is in weights.csv, with its ΔG = −kT ln(T w)."
    return Table(("source", "label", *WEIGHT_COLUMNS), rows, caption, text_columns=2)


def _weight_cells(row: Sequence[float], largest: float) -> list[str]:
    frames, uniform, fitted = row
    ratio = fitted / uniform if uniform > 0 else None
    return [
        grouped(int(frames)),
        _share(uniform),
        _share(fitted),
        significant(ratio),
        bar(fitted, largest, mark=uniform),
    ]


def _share(weight: float) -> str:
    """A sum of weights: four decimals, and powers of ten where those would read 0."""
    return number(weight, f"{weight:.4f}") if weight == 0 or weight >= 1e-3 else significant(weight)


def _heaviest(run: RunFiles) -> Table:
    n_frames, temperature = run.metrics["frames"], run.metrics["temperature"]
    frames = [(float(w), source.name, int(i)) for source in run.weights for i, w in _top(source)]
    frames = sorted(frames, key=lambda frame: (-frame[0], *frame[1:]))[:HEAVIEST]
    rows = [
        [name, grouped(i), significant(w), significant(w * n_frames), _free_energy(w * n_frames, temperature)]
        for w, name, i in frames
    ]
    caption = captions.HEAVIEST.format(n=len(rows), temperature=temperature)
    return Table(("source", "index", "weight", "weight × T", "ΔG, kJ/mol"), rows, caption)


def _top(source: SourceWeights) -> list[tuple[int, float]]:
    order = np.argsort(-source.weight, kind="stable")[:HEAVIEST]
    return list(zip(source.index[order], source.weight[order], strict=True))


def _free_energy(relative: float, temperature: float) -> str:
    return significant(-gas_constant / 1000 * temperature * np.log(relative)) if relative > 0 else "∞"


def shells(run: RunFiles) -> Section:
    """CC per resolution shell."""
    from hpcfit.results import figures

    rows = run.metrics["shells"]
    head = ("d_max, Å", "d_min, Å", "orbits", "CC fitted", "CC uniform", "gain")
    table = Table(head, [_shell_cells(row) for row in rows], "CC per resolution shell.", text_columns=0)
    picture = Figure(figures.shells(rows), "CC per resolution shell, fitted and uniform weights", captions.SHELLS)
    return Section("Resolution shells", [picture, table])


def _shell_cells(row: dict[str, Any]) -> list[str]:
    cc, uniform = row["cc"], row["cc_uniform"]
    gain = None if cc is None or uniform is None else cc - uniform
    limits = [number(row[name], f"{row[name]:.2f}") if row[name] else "∞" for name in ("d_max", "d_min")]
    return [*limits, grouped(row["orbits"]), correlation(cc), correlation(uniform), change(gain)]


def sections(run: RunFiles) -> Section:
    """hk0, hk1, ... of the observed, calculated and difference maps."""
    from hpcfit.physics.reciprocal import laue_operations
    from hpcfit.results import map_figures

    orbits, operations, axes_ab = run.orbits, laue_operations(run.orbits.laue), plane_axes(run.orbits.cell)
    levels = choose_levels(orbits.hkl, operations, orbits.ndiv)
    planes = [plane(orbits.hkl, operations, orbits.ndiv, level) for level in levels]
    calculated = scaled_to(orbits.observed, orbits.calculated, orbits.multiplicity)
    maps = {"observed": orbits.observed, "calculated": calculated, "difference": orbits.observed - calculated}
    names = ", ".join(plane_name(p.level) for p in planes)
    caption = captions.sections(names, orbits.laue, orbits.ndiv, map_figures.oblique(axes_ab))
    alt = f"Sections {names} of the observed, calculated and difference maps"
    return Section("Sections of the maps", [Figure(map_figures.sections(planes, maps, axes_ab), alt, caption)])


def agreement(run: RunFiles) -> Section:
    """Observed against calculated, beside the baseline."""
    from hpcfit.results import map_figures

    o = run.orbits
    both = {"uniform weights (baseline)": o.uniform, "fitted weights": o.calculated}
    models = {name: scaled_to(o.observed, values, o.multiplicity) for name, values in both.items()}
    outside = _plural(map_figures.outside(o.observed, models), "point")
    picture = Figure(
        map_figures.agreement(o.observed, models),
        "Observed against calculated intensities",
        captions.agreement(outside),
    )
    return Section("Observed against calculated", [picture])


def time(run: RunFiles) -> Section:
    """Phases, and the rate against the measured bandwidth."""
    times = {phase["name"]: phase["seconds"] for phase in run.metrics["phases"]}
    total, longest = sum(times.values()), max(times.values(), default=0.0)
    rows = [
        [name, duration(seconds), percent(seconds / total if total else None), bar(seconds, longest)]
        for name, seconds in times.items()
    ]
    rows.append(["total", duration(total), "", ""])
    return Section("Time", [Table(("phase", "time", "share", ""), rows, "How long each phase took."), _rate(run)])


def _rate(run: RunFiles) -> Table:
    """The rate of the fit, and where the time of its evaluations went."""
    rate, history = run.metrics.get("rate") or {}, run.history
    rows = [
        ["structure factors read by each rank", _with_unit(rate.get("gb_per_s_per_rank"), "GB/s")],
        ["measured memory bandwidth per rank", _with_unit(rate.get("bandwidth_gb_per_s"), "GB/s")],
        ["rate / bandwidth", percent(rate.get("fraction"))],
        ["median evaluation: computing", duration(_median(history["compute_seconds"]))],
        ["median evaluation: reducing over ranks", duration(_median(history["reduce_seconds"]))],
    ]
    return Table(("rate", ""), rows, captions.RATE)


def _with_unit(value: float | None, unit: str) -> str:
    return significant(value) if value is None else significant(value) + f" {unit}"


def _median(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def settings(run: RunFiles) -> Section:
    """Config and environment, folded."""
    environment = json.dumps(run.environment, indent=2, ensure_ascii=False)
    folds = [Fold("config.toml, with every default", run.config_text), Fold("environment.json", environment)]
    return Section("Settings", folds)
