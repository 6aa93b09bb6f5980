"""The report on clusters: outcome, labels in time, lifetimes, sizes, speciation, cut-offs, limitations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from hpcfit.kinds.clusters.files import (
    COLORMAP,
    COUNTS,
    ENERGIES,
    KINETICS,
    LIFETIMES,
    RDF,
    SERIES,
    SIZES,
    SPECIATION,
    TRACKED,
    ClustersRun,
)
from hpcfit.kinds.clusters.mixture.report import mixture, scattering
from hpcfit.kinds.clusters.prediction import report as prediction
from hpcfit.report.page import Card, Cards, Figure, Section, Table, Text, number, percent, plus_minus, significant
from hpcfit.report.report import Contents
from hpcfit.report.sections import phases, settings, study

STATES = ("isolated", "paired", "networked")
MOST_LABELS = 40  # of tables and figures: those that are seen most often
MAP = (
    "Labels in bins of time. Colours span the 2nd to the 98th percentile of the values, as their power 0.35, so that"
    " rare labels are seen; the numbers of every bin are in colormap.csv."
)
LIFETIME = (
    "Clusters of a label are not told apart: the oldest one dies first. Completed: born and dead within the window;"
    " mean and standard deviation are over these. Truncated: there in the first frame, or at the end. Rates: rises and"
    " falls of the count a ps. Errors: by bootstrap of blocks of successive frames. Weight: mean count x max(occupancy,"
    " 0.05), of labels with nodes; with a prediction by its rule, of the labels of its library; of all: with what is"
    " predicted. All labels are in lifetimes.csv and kinetics.csv."
)
TRACK = (
    "Lifetimes of clusters of the same nodes and linkers (by their first label), and of bonds between the same units."
)
SHARES = "Shares of ions, not of clusters. Isolated: alone; paired: in a cluster of two ions; networked: of more."
MINIMA = "Radial distributions over atoms of different units; the cut-off is the first minimum of the smoothed curve."
LIMITATIONS = (
    "Few labels or few sizes are little data: trends over sizes then rest on some counts (a warning says so).",
    "Trends over compositions are extrapolated, nothing more: no latent representation of structures is learned.",
    "Geometry is summarised by medians, not by distributions.",
    "A structure of a label is one representative (the medoid of a sample), not an ensemble.",
    "Structures are those of the frames: none is relaxed.",
    "Kinetics are from changes of counts: clusters are not followed by their atoms, unless identity = true, and a birth"
    " and a death between two frames are not seen.",
    "This is no graph neural network, nor any other learned potential.",
    "Related methods: ridge, lasso and elastic-net regression, Gaussian processes, message-passing networks.",
    "Every number comes from counts that can be looked up: counts.csv has each label in each frame, clusters.h5 each"
    " lifetime.",
)


def outcome(run: ClustersRun) -> Section:
    """The headline numbers."""
    m = run.metrics
    units = ", ".join(f"{n} {name}" for name, n in m["units"].items())
    cards = [
        Card("clusters a frame", f"{m['fitted']['clusters_a_frame']:.4g}", units, "those with at least one node"),
        Card("nodes of a node's cluster", f"{m['fitted']['aggregation']:.4g}", "1: all alone", "weighted by nodes"),
        Card("largest", str(m["largest_nodes"]), f"of {m['frames']} frames", "nodes of one cluster"),
        Card("labels", str(m["labels_with_nodes"]), f"{m['duration_ps']:g} ps", "different compositions with nodes"),
    ]
    trajectories = f"{m['trajectories']} trajectories" if m["trajectories"] > 1 else "one trajectory"
    said = (
        f"{m['frames']} frames of {trajectories}, {m['time_step_fs']:g} fs apart ({m['times']});"
        f" cut-offs {_cutoffs(m['cutoffs'])}."
    )
    return Section("Outcome", [Cards(cards), Text(said)])


def _cutoffs(by_pair: Mapping[str, Mapping[str, float]]) -> str:
    one = (f"{pair} {r:.4g} Å" + (f" (level {level})" if level != "0" else "") for pair, levels in by_pair.items()
           for level, r in levels.items())  # fmt: skip
    return ", ".join(one) or "by default"


def labels_in_time(run: ClustersRun) -> Section:
    """The colormap in its three modes, with energies where there are any."""
    from hpcfit.kinds.clusters import figures

    rows = run.colormap
    chosen = _most_seen(run)
    by_mode: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["label"] in chosen:
            by_mode.setdefault(row["mode"], {}).setdefault(row["label"], []).append(float(row["value"]))
    one = [row for row in rows if row["label"] == rows[0]["label"] and row["mode"] == rows[0]["mode"]]
    edges = np.array([float(row["bin_start"]) for row in one] + [float(one[-1]["bin_stop"])])
    scale = (edges[-1] - edges[0]) / (float(one[-1]["bin_stop_fs"]) - float(one[0]["bin_start_fs"]))
    energies = run.columns(ENERGIES)
    below = {"time": energies["time_fs"] * scale, "potential": energies["potential_hartree"],
             "temperature": energies["temperature_K"]} if energies else None  # fmt: skip
    values = {mode: np.array([found[label] for label in chosen]) for mode, found in by_mode.items()}
    drawn = figures.colormap(edges, values, chosen, below, rows[0]["unit"])
    return Section("Labels in time", [Figure(drawn, "counts of labels in bins of time", MAP)])


def _most_seen(run: ClustersRun) -> list[str]:
    """The labels that are seen most often, in the order of the file."""
    rows = [row for row in run.rows(KINETICS) if row["by"] == "label"]
    kept = sorted(rows, key=lambda row: -int(row["observations"]))[:MOST_LABELS]
    return [row["of"] for row in rows if row in kept]


def lifetimes(run: ClustersRun) -> Section:
    """The table of lifetimes, their figure, and what was followed by its atoms."""
    from hpcfit.kinds.clusters import figures

    kinetics = {row["of"]: row for row in run.rows(KINETICS) if row["by"] == "label"}
    chosen = set(_most_seen(run))
    rows = [_lifetime_row(row, kinetics.get(row["Label"])) for row in run.rows(LIFETIMES)
            if row["Label"] in chosen or row["Type"] != "Observed"]  # fmt: skip
    head = ("label", "type", "nodes", "weight, of all, %", "mean lifetime, fs", "completed, truncated", "assoc., 1/ps",
            "dissoc., 1/ps", "occupancy", "mean count")  # fmt: skip
    blocks: list[Any] = [Table(head, rows, LIFETIME, text_columns=2)]
    ended = [row for row in kinetics.values() if row["mean_lifetime_fs"] and row["of"] in chosen]
    if ended:
        mean, error = (np.array([float(row[name] or "nan") for row in ended]) for name in
                       ("mean_lifetime_fs", "mean_lifetime_error"))  # fmt: skip
        drawn = figures.lifetimes([row["of"] for row in ended], mean, error, run.metrics["time_step_fs"])
        blocks.insert(
            0, Figure(drawn, "mean lifetimes of labels", "Mean lifetimes of completed clusters, with errors.")
        )
    if tracked := run.rows(TRACKED):
        told = [[row["of"], row["what"], row["completed"], row["truncated"], _shown(row["mean_lifetime_fs"]),
                 _shown(row["median_lifetime_fs"])] for row in tracked]  # fmt: skip
        names = ("of", "what", "completed", "truncated", "mean, fs", "median, fs")
        blocks.append(Table(names, told, TRACK, text_columns=2))
    return Section("Lifetimes", blocks)


def _lifetime_row(row: Mapping[str, str], errors: Mapping[str, str] | None) -> list[Any]:
    error = (lambda name: float(errors[name] or "nan")) if errors else lambda name: None
    weights = (row["Observed-only Weight %"], row["Combined Weight %"])
    ended = f"{row['Completed']}, {row['Window-truncated']}" if row["Completed"] else "–"
    return [
        row["Label"], row["Type"].lower(), row["Nodes"],
        Markup(", ").join(_weight(weight) for weight in weights),
        plus_minus(_shown(row["Mean Lifetime (fs)"]), error("mean_lifetime_error")),
        ended,
        plus_minus(_shown(row["Assoc. (1/ps)"]), error("association_error")),
        plus_minus(_shown(row["Dissoc. (1/ps)"]), error("dissociation_error")),
        percent(float(row["Occupancy %"]) / 100),
        plus_minus(_shown(row["Mean Count"]), error("mean_count_error")),
    ]  # fmt: skip


def _weight(text: str) -> Any:
    """Per cent to one decimal, small ones to two digits."""
    value = float(text or "nan")
    return number(value, f"{value:.1f}") if not 0 < value < 0.05 else significant(value, 2)


def _shown(text: str) -> Any:
    return significant(float(text), 4) if text else number(None, "")


def sizes(run: ClustersRun) -> Section:
    """The distribution over sizes, and aggregation in time."""
    from hpcfit.kinds.clusters import figures

    found, series = run.columns(SIZES), run.columns(SERIES)
    drawn = figures.sizes(*(found[name] for name in
                            ("nodes", "clusters_a_frame", "error", "share_of_nodes", "share_error")))  # fmt: skip
    curves = {"mean": series["mean_nodes"], "weighted by nodes": series["weighted_nodes"],
              "largest": series["largest_nodes"]}  # fmt: skip
    in_time = figures.in_time(series["time_fs"] / 1000, curves, series["radius_A"])
    rows = [[number(k, f"{k:.0f}"), plus_minus(significant(mean, 4), error), plus_minus(percent(share), 100 * of_share)]
            for k, mean, error, share, of_share in zip(*found.values())]  # fmt: skip
    head = ("nodes", "clusters a frame", "share of nodes")
    return Section("Sizes", [
        Figure(drawn, "distribution of clusters over sizes", "Clusters by their nodes, errors by block bootstrap."),
        Figure(in_time, "aggregation numbers and radii in time", "Radius: root mean square over clusters of two units"
               " or more."),
        Table(head, rows, "The same numbers."),
    ])  # fmt: skip


def speciation(run: ClustersRun) -> Section:
    """The shares of ions, and coordination numbers."""
    from hpcfit.kinds.clusters import figures

    rows = run.rows(SPECIATION)
    states = [row for row in rows if row["quantity"] == "state"]
    species = list(dict.fromkeys(row["species"] for row in states))
    values = np.array([[float(row["value"]) for row in states if row["species"] == one] for one in species])
    blocks: list[Any] = [Figure(figures.shares(species, STATES, values), "shares of ions by state", SHARES)]
    table = [[one, *(_share(row) for row in states if row["species"] == one)] for one in species]
    blocks.append(Table(("species", *STATES), table, "Shares of ions, with errors by block bootstrap."))
    near = [row for row in rows if row["quantity"] == "coordination"]
    if near:
        told = [
            [row["species"], row["of"], plus_minus(_shown(row["value"]), float(row["error"] or "nan"))] for row in near
        ]
        blocks.append(Table(("node", "neighbour", "coordination number"), told, "Neighbours within cut-offs.", 2))
    return Section("Speciation", blocks)


def _share(row: Mapping[str, str]) -> Any:
    return plus_minus(percent(float(row["value"])), 100 * float(row["error"] or "nan"))


def cutoffs(run: ClustersRun) -> Section | None:
    """The radial distributions that cut-offs were read from; None where there are none."""
    from hpcfit.kinds.clusters import figures

    found = run.columns(RDF)
    if not found:
        return None
    r = found.pop("r_A")
    return Section("Cut-offs", [
        Figure(figures.radial(r, found, run.metrics["minima"]), "radial distributions", MINIMA)
    ])  # fmt: skip


def limitations(run: ClustersRun) -> Section:
    """The limits of these numbers."""
    texts = [Text(text) for text in LIMITATIONS]
    return Section("Limitations", texts if run.prediction is None else list(prediction.limitations(run)))


def time(run: ClustersRun) -> Section:
    """The time of the parts of the run."""
    return Section("Time", [phases(run)])


def so_far(run: ClustersRun) -> Section:
    """The stages that have ended."""
    return Section("So far", [Text("The run has not ended."), *study(run)])


CONTENTS = Contents(
    finished=(
        *(outcome, labels_in_time, lifetimes, sizes, speciation, cutoffs, *prediction.SECTIONS),
        *(scattering, mixture, limitations, time),
        settings,
    ),
    unfinished=(so_far, settings),
    files=("config.toml", "environment.json", COUNTS, COLORMAP, LIFETIMES, KINETICS, SPECIATION, SERIES, SIZES),
    run=ClustersRun,
)
