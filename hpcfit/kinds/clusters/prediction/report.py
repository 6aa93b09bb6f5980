"""The sections of a report on predicted clusters; each is None where nothing was predicted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from hpcfit.kinds.clusters.composition import Roles
from hpcfit.kinds.clusters.files import CANDIDATES, CHECKS, COMBINED, DEBYE_WALLER, OBSERVED_ONLY, ClustersRun
from hpcfit.kinds.clusters.library import read_structure
from hpcfit.kinds.clusters.prediction.predict import IN_SIMPLE_ENERGY, LIMITATIONS
from hpcfit.report.page import Figure, Section, Table, Text, number, percent, plus_minus, significant

PREDICTED = (
    "Mean count with its 90 % interval by resampled blocks of frames, which tells how sure the fitted model is of its"
    " numbers, not whether it is right; and the interval that also has how far this model was off where the largest"
    " size was left out, as if the next sizes were as hard to foretell. Share: of all predicted clusters. Observed: in"
    " the frames, of a label that trained nothing. Radii and lifetimes are regressions. Source: the label whose"
    " structure it grows from. Rates, weights and all digits are in predictions.csv and candidates.csv."
)
COUNTS = (
    "Mean counts of observed labels, with standard errors, and of predicted ones, with 90 % intervals: with the errors"
    " of the model where a size could be left out."
)
VIEWS = (
    "Structures by medians of bonds, angles and contacts; lines: pairs within 1.15 cut-offs. A label with fewer linkers"
    " than it takes to join all nodes is in pieces."
)
RELAXED = (
    "Structures relaxed in a simple energy (Lennard-Jones, charges; kJ/mol), which is not that of the simulation. What"
    " is in pieces at its minimum stays as it was grown."
)
LEFT_OUT = (
    "The largest size that was seen at least ten times, predicted by models of all smaller sizes: mean counts, and how"
    " many times they are off. Errors of observed counts are standard errors, intervals 90 % by resampled blocks of"
    " frames. The last row is the geometric mean."
)
JUDGED = (
    "The largest size by models of all smaller sizes, with 90 % intervals by resampled blocks of frames; a model that"
    " predicts 0 stands at the lower edge."
)
ROWS = "Labels that train the models. Weight: of a label in regressions; population: its weight in mixtures."
TERMS = "Coefficients of the regressions. Those of quantities marked ln are of ln(1 + value)."
ALL = "Every composition that was proposed, in its order, and what became of it."
WIDTHS = (
    "Widths of pair distances by pair of elements; B = 8π²σ². Ensemble: from structures of the label; ridge: from a"
    " regression over labels. Support: structures, or labels of the regression."
)
CHECK = (
    "Error of I(q) of the representative against the mean of its ensemble, relative root mean square over q from 0.5 to"
    " 4.5 1/Å, without and with its widths. The same structures give widths and mean. Where damped is the larger"
    " number, one structure with widths is worse than one without."
)
WEIGHTS = "Weights of labels in a mixture, in shares of 1; predicted ones in orange. Both are CSV files of the run."


def predicted(run: ClustersRun) -> Section | None:
    """The predicted clusters, their counts and structures."""
    from hpcfit.kinds.clusters.prediction import figures

    if (found := run.prediction) is None:
        return None
    m = run.metrics["prediction"]
    said = (
        f"Mean counts by {m['why']}. Weights sum to {m['mass']:.3g}, those of observed clusters to"
        f" {m['observed_mass']:.4g}."
    )
    blocks: list[Any] = [Text(said)]
    if m["crowded"]:
        blocks.append(Text(f"No room for all atoms: {', '.join(m['crowded'])} have pairs that are too close.", True))
    if not found["predicted"]:
        return Section("Predicted clusters", [*blocks, Text("No candidate is left.", warning=True)])
    head = ("label", "nodes, rank", "share", "mean count (90 % interval)",
            "with the model's errors", "observed", "lifetime, fs", "Rg, Rmax, Å",
            "source")  # fmt: skip
    blocks.append(Table(head, [_predicted_row(one) for one in found["predicted"]], PREDICTED))
    drawn = figures.counts(_observed_counts(run), _predicted_counts(found))
    blocks.append(Figure(drawn, "mean counts by size", COUNTS))
    blocks.append(_views(run, found))
    if any(one["relaxed"] for one in found["predicted"]):
        blocks.append(Table(("label", "before", "after", "moved, Å", ""), [*_relaxed_rows(found)], RELAXED))
    return Section("Predicted clusters", blocks)


def _predicted_row(one: Mapping[str, Any]) -> list[Any]:
    values, outer = one["values"], _bounds(one["outer"])
    return [
        one["candidate"]["label"], f"{one['candidate']['n_node']}, {one['rank']}", percent(one["share"]),
        _with_bounds(values["mean_count"], one["interval"]), outer or number(None, ""),
        significant(one["observed_mean_count"]),
        significant(values["mean_lifetime"]),
        Markup("{}, {}").format(significant(values["rg"]), significant(values["rmax"])), one["source"],
    ]  # fmt: skip


def _bounds(interval: Sequence[float | None] | None) -> Markup | None:
    """An interval in words, None where there is none."""
    if interval is None or None in interval:
        return None
    return Markup("{} – {}").format(*map(significant, interval))


def _with_bounds(value: float, interval: Sequence[float | None] | None) -> Markup:
    bounds = _bounds(interval)
    return significant(value) if bounds is None else Markup("{} ({})").format(significant(value), bounds)


def _count_errors(run: ClustersRun) -> dict[str, float]:
    """The standard errors of mean counts by label."""
    rows = (row for row in run.rows("kinetics.csv") if row["by"] == "label")
    return {row["of"]: float(row["mean_count_error"] or "nan") for row in rows}


def _observed_counts(run: ClustersRun):
    from hpcfit.kinds.clusters.prediction.figures import Counts

    errors = _count_errors(run)
    rows = run.prediction["training"]
    mean = np.array([row["observed"]["mean_count"] for row in rows])
    error = np.array([errors.get(row["label"], np.nan) for row in rows])
    nodes = np.array([row["n_node"] for row in rows])
    return Counts([row["label"] for row in rows], nodes, mean, np.maximum(mean - error, 0), mean + error)


def _predicted_counts(found: Mapping[str, Any]):
    from hpcfit.kinds.clusters.prediction.figures import Counts

    rows = found["predicted"]
    bounds = np.array([_outer(row) or row["interval"] or (None, None) for row in rows], float)
    nodes = np.array([row["candidate"]["n_node"] for row in rows])
    mean = np.array([row["values"]["mean_count"] for row in rows])
    return Counts([row["candidate"]["label"] for row in rows], nodes, mean, bounds[:, 0], bounds[:, 1])


def _relaxed_rows(found: Mapping[str, Any]) -> Iterator[list[Any]]:
    for one in found["predicted"]:
        of = one["relaxed"]
        said = "in pieces" if not of["whole"] else "" if of["converged"] else "not at a minimum"
        energies = (significant(of[key], 4) for key in ("before", "after"))
        moved = significant(of["moved"]) if of["whole"] else number(None, "")
        yield [one["candidate"]["label"], *energies, moved, said]


def _outer(row: Mapping[str, Any]) -> Sequence[float] | None:
    return None if row["outer"] is None or None in row["outer"] else row["outer"]


def _views(run: ClustersRun, found: Mapping[str, Any]) -> Figure:
    from hpcfit.report.figures import Body, two_sides

    bodies, roles = [], Roles(())
    for one in found["predicted"]:
        structure = read_structure(run.path(f"predicted/{one['file']}"), roles)
        edges = np.array(one["bonds"], int).reshape(-1, 2)
        bodies.append(Body(one["candidate"]["label"], structure.positions, edges, structure.elements))
    return Figure(two_sides(bodies, "Å"), "predicted structures from two sides", VIEWS)


def models(run: ClustersRun) -> Section | None:
    """The models of mean counts, judged by the largest size, and what they were trained on."""
    from hpcfit.kinds.clusters.prediction import figures

    if (found := run.prediction) is None:
        return None
    blocks: list[Any] = [Text(f"Mean counts by {found['model']['why']}.")]
    left_out = found["largest_size_left_out"]
    if left_out:
        labels = list(dict.fromkeys(one["label"] for one in left_out))
        names = list(dict.fromkeys(one["model"] for one in left_out))
        of = {(one["model"], one["label"]): one for one in left_out}
        seen = np.array([of[names[0], label]["observed"] for label in labels])
        values = {name: [of[name, label] for label in labels] for name in names}
        errors = _count_errors(run)
        drawn = figures.foretold(labels, seen, np.array([errors[label] for label in labels]), values)
        blocks.append(Figure(drawn, "the largest size by models that did not see it", JUDGED))
        rows = [
            [label, plus_minus(significant(one), errors[label]), *(_off(of[name, label]) for name in names)]
            for label, one in zip(labels, seen)
        ]
        factors = run.metrics["prediction"]["factors"]
        rows.append(["all", "", *(_times(factors[name]) for name in names)])
        blocks.append(Table(("label", "observed", *(name.replace("_", " ") for name in names)), rows, LEFT_OUT))
    else:
        blocks.append(Text("Fewer than three sizes were seen: no model could be judged by the largest.", warning=True))
    terms = [[name, significant(value, 4)] for name, value in found["model"]["terms"].items()]
    blocks.append(Table(("term", "coefficient"), terms, f"The fitted model: {found['model']['name']}."))
    head = ("label", "nodes", "structures", "mean count", "occupancy", "lifetime, fs", "Rg, Å", "Rmax, Å", "weight",
            "population")  # fmt: skip
    blocks.append(Table(head, [_training_row(row) for row in found["training"]], ROWS))
    names = found["feature_names"]
    fitted = [
        [f"{name}{' (ln)' if one['log'] else ''}", *(significant(one["coefficients"][key]) for key in names),
         significant(one["penalty"])]
        for name, one in found["regressions"].items()
    ]  # fmt: skip
    blocks.append(Table(("quantity", *names, "penalty"), fitted, TERMS))
    return Section("Models of counts", blocks)


def _off(one: Mapping[str, Any]) -> Markup:
    return Markup("{}, {}").format(_with_bounds(one["predicted"], one["interval"]), _times(one["factor"]))


def _times(factor: float | None) -> Markup:
    return Markup("× {}").format(significant(factor) if factor is not None else "∞")


def _training_row(row: Mapping[str, Any]) -> list[Any]:
    seen, shape = row["observed"], row["shape"]
    return [
        row["label"], str(row["n_node"]), str(row["n_structures"]), significant(seen["mean_count"], 4),
        significant(seen["occupancy"]), significant(seen["mean_lifetime"], 4), significant(shape["rg"]),
        significant(shape["rmax"]), significant(row["weight"], 4), significant(row["population_weight"], 4),
    ]  # fmt: skip


def candidates(run: ClustersRun) -> Section | None:
    """All candidates with the reason why each is in or out."""
    if run.prediction is None:
        return None
    rows = [
        [row["label"], row["route"], row["fate"], row["nodes"], _shown(row["mean_count"]), _shown(row["score"])]
        for row in run.rows(CANDIDATES)
    ]
    out = sum(not row[2].startswith("predicted") for row in rows)
    head = ("label", "route", "what became of it", "nodes", "mean count", "score")
    said = f"{len(rows)} compositions were proposed; {out} of them are out."
    return Section("Candidates", [Text(said), Table(head, rows, ALL, text_columns=3)])


def widths(run: ClustersRun) -> Section | None:
    """The table of Debye-Waller widths, and the self-check."""
    if run.prediction is None:
        return None
    rows = [
        [row["Label"], row["Pair"], row["Type"].lower(), row["Method"].lower(), row["Nodes"],
         _shown(row["Sigma (Å)"]), _shown(row["B (Å²)"]), row["Support"]]
        for row in run.rows(DEBYE_WALLER)
    ]  # fmt: skip
    head = ("label", "pair", "type", "method", "nodes", "σ, Å", "B, Å²", "support")
    blocks: list[Any] = [Table(head, rows, WIDTHS, text_columns=4)]
    checked = [
        [row["label"], row["structures"], percent(float(row["undamped"])), percent(float(row["damped"]))]
        for row in run.rows(CHECKS)
    ]
    if checked:
        blocks.append(Table(("label", "structures", "undamped", "damped"), checked, CHECK))
    return Section("Debye-Waller widths", blocks)


def histograms(run: ClustersRun) -> Section | None:
    """The weights of labels, without and with what was predicted."""
    from hpcfit.kinds.clusters.prediction import figures

    if run.prediction is None:
        return None
    every = run.rows(COMBINED)
    alone, combined = (
        {row["label"]: float(row["normalized_weight"]) for row in rows} for rows in (run.rows(OBSERVED_ONLY), every)
    )
    ordered = sorted(every, key=lambda row: (int(row["node_count"]), -float(row["normalized_weight"]), row["label"]))
    new = [row["label"] for row in every if row["source"] == "predicted"]
    drawn = figures.histograms([row["label"] for row in ordered], alone, combined, new)
    return Section("Weights of labels", [Figure(drawn, "weights of labels", WEIGHTS)])


def limitations(run: ClustersRun) -> Iterator[Text]:
    """The limits of a prediction, one sentence each."""
    relaxed = any(one["relaxed"] for one in run.prediction["predicted"])
    of = LIMITATIONS | ({"S5-129": IN_SIMPLE_ENERGY} if relaxed else {})
    yield from (Text(text) for text in of.values())


def _shown(text: str) -> Markup:
    return significant(float(text)) if text else number(None, "")


SECTIONS: Sequence = (predicted, models, candidates, histograms, widths)
