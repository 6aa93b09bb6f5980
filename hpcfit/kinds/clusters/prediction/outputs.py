"""The files of a prediction: predicted clusters, candidates, widths of pairs, histograms, structures, data set."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from hpcfit.kinds.clusters.composition import Structure
from hpcfit.kinds.clusters.files import (
    CANDIDATE_COLUMNS,
    CANDIDATES,
    CHECK_COLUMNS,
    CHECKS,
    COMBINED,
    CONFORMERS,
    DEBYE_WALLER,
    DEBYE_WALLER_COLUMNS,
    HISTOGRAM_COLUMNS,
    OBSERVED_ONLY,
    PREDICTED,
    PREDICTION_COLUMNS,
    PREDICTIONS,
    xyz,
)
from hpcfit.kinds.clusters.geometry import BOND_REACH, cutoffs_between
from hpcfit.kinds.clusters.prediction.ridge import Regression
from hpcfit.kinds.clusters.prediction.rows import feature_names, features, others_in
from hpcfit.kinds.clusters.prediction.shares import Predicted
from hpcfit.kinds.clusters.prediction.stages import Grown
from hpcfit.kinds.clusters.prediction.study import Foreseen
from hpcfit.kinds.clusters.relaxation import Relaxed
from hpcfit.runs.directory import RunDirectory
from hpcfit.store.files import write_text

OF_REFERENCE = {  # columns of predictions.csv, as the reference program calls them, by quantity
    "predicted_mean_count_per_frame": "mean_count", "predicted_occupancy_fraction": "occupancy",
    "predicted_mean_lifetime_fs": "mean_lifetime", "predicted_association_rate_per_ps": "association_rate",
    "predicted_dissociation_rate_per_ps": "dissociation_rate", "predicted_mean_radius_of_gyration": "rg",
    "predicted_mean_max_radius": "rmax",
}  # fmt: skip


def write_prediction(directory: RunDirectory, foreseen: Foreseen) -> None:
    """Write all files of a prediction but its part of the data set."""
    directory.write_csv(PREDICTIONS, PREDICTION_COLUMNS, prediction_rows(foreseen))
    directory.write_csv(CANDIDATES, CANDIDATE_COLUMNS, candidate_rows(foreseen))
    directory.write_csv(DEBYE_WALLER, DEBYE_WALLER_COLUMNS, debye_waller_rows(foreseen))
    directory.write_csv(CHECKS, CHECK_COLUMNS, foreseen.checks)
    directory.write_csv(OBSERVED_ONLY, HISTOGRAM_COLUMNS, histogram_rows(foreseen, with_predicted=False))
    directory.write_csv(COMBINED, HISTOGRAM_COLUMNS, histogram_rows(foreseen, with_predicted=True))
    for one, structures in zip(foreseen.prediction.predicted, foreseen.grown):
        name = file_name(one.n_node, one.rank, one.label)
        text = xyz_text(structures.first, one.label, one.n_node, one.rank, one.source, structures.relaxed)
        write_text(_folder(directory, PREDICTED) / name, text)
        if structures.others:
            text = xyz(structures.others, f"label={one.label} rank={one.rank}")
            write_text(_folder(directory, CONFORMERS) / name, text)


def file_name(n_node: int, rank: int, label: str) -> str:
    """The name of the file of a predicted structure."""
    return f"{n_node:02d}_rank{rank:02d}_{re.sub('[^A-Za-z0-9._-]+', '_', label).strip('._')}.xyz"


def xyz_text(
    structure: Structure, label: str, n_node: int, rank: int, source_label: str, relaxed: Relaxed | None = None
) -> str:
    """A structure as an XYZ file with what it is in its comment; positions in A to 1e-8."""
    comment = f"label={label} target_node_count={n_node} rank={rank} source_label={source_label}"
    if relaxed is not None:
        comment += f" relaxed={'yes' if relaxed.whole else 'no,in_pieces'}"
    rows = zip(structure.elements, np.round(structure.positions, 8) + 0.0)
    return (
        "\n".join([str(len(structure.elements)), comment, *(f"{e} {x:.8f} {y:.8f} {z:.8f}" for e, (x, y, z) in rows)])
        + "\n"
    )


def _folder(directory: RunDirectory, pattern: str):
    folder = directory.path / pattern.partition("/")[0]
    folder.mkdir(exist_ok=True)
    return folder


def prediction_rows(foreseen: Foreseen) -> Iterator[tuple[Any, ...]]:
    """The predicted clusters, larger sizes first."""
    for one in foreseen.prediction.predicted:
        values = (one.values[name] for name in OF_REFERENCE.values())
        yield (one.n_node, one.rank, one.label, one.share, *values, one.score, one.source, one.candidate.route)


def candidate_rows(foreseen: Foreseen) -> Iterator[tuple[Any, ...]]:
    """All compositions that were proposed, each with what became of it."""
    found = foreseen.prediction
    scored = {(one.n_node, one.label): one for one in (*found.predicted, *found.out)}
    for raw in found.candidates:
        start, seen = (raw.n_node, raw.label, raw.route, raw.source), foreseen.mean_counts.get(raw.label)
        if raw.rejected:
            yield (*start, f"rejected: {raw.rejected}", *(None,) * 9, seen)
            continue
        one = scored[raw.n_node, raw.label]
        bounds = (*(one.interval or (None, None)), *(one.outer or (None, None)))
        rank, share, weight = (one.rank, one.share, one.weight) if one.fate == "predicted" else (None,) * 3
        counts = (one.values["mean_count"], *map(_finite, bounds))
        yield (*start, one.fate, rank, one.score, share, *counts, weight, seen)


def debye_waller_rows(foreseen: Foreseen) -> Iterator[tuple[Any, ...]]:
    """The widths of all pairs of elements of observed and predicted labels."""
    for row in foreseen.widths:
        where = (row.kind.capitalize(), row.method.capitalize(), row.n_node, row.rank, row.label, "-".join(row.pair))
        yield (*where, row.sigma, row.sigma**2, row.b, row.support, row.aligned, row.source)


def histogram_rows(foreseen: Foreseen, *, with_predicted: bool) -> Iterator[tuple[Any, ...]]:
    """Weights of labels, those that were observed first; normalised over the rows of the table."""
    found = foreseen.prediction
    rows = [
        (row.label, "observed", row.n_node, row.observed.mean_lifetime, row.observed.mean_count, row.shape.rmax, weight)
        for row, weight in zip(found.rows, found.observed_weights.tolist())
    ]
    for one in found.predicted if with_predicted else ():
        values = (one.values[name] for name in ("mean_lifetime", "mean_count", "rmax"))
        rows.append((one.label, "predicted", one.n_node, *values, one.weight))
    total = sum(row[-1] for row in rows)
    for row in rows:
        yield (*row, row[-1] / total if total > 0 else 0.0)


def weights_of(foreseen: Foreseen) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Weights in shares of 1, by label: of observed clusters among themselves; of observed and of predicted clusters
    among all."""
    alone = {row[0]: row[-1] for row in histogram_rows(foreseen, with_predicted=False)}
    every = list(histogram_rows(foreseen, with_predicted=True))
    observed, predicted = ({row[0]: row[-1] for row in every if row[1] == of} for of in ("observed", "predicted"))
    return alone, observed, predicted


def lifetime_rows(foreseen: Foreseen, ranks: Mapping[int, int]) -> Iterator[tuple[Any, ...]]:
    """The rows of the table of lifetimes that the frames do not have: labels of the library that were never seen, and
    predicted clusters. ranks: labels of each number of nodes that the table has already."""
    alone, observed, predicted = weights_of(foreseen)
    rank = dict(ranks)
    for row in foreseen.prediction.rows:
        if not row.observed.total:
            rank[row.n_node] = rank.get(row.n_node, 0) + 1
            yield (
                "Observed", row.n_node, rank[row.n_node], None, row.label, 100 * alone[row.label],
                100 * observed[row.label], None, None, None, 0, 0, 0.0, 0.0, 0.0, 0.0, row.representative,
                "not seen in the frames",
            )  # fmt: skip
    for one in sorted(foreseen.prediction.predicted, key=lambda one: (one.n_node, one.rank)):
        values = one.values
        yield (
            "Predicted", one.n_node, None, one.rank, one.label, None, 100 * predicted[one.label], 100 * one.share,
            values["mean_lifetime"], None, None, None, values["association_rate"], values["dissociation_rate"],
            100 * values["occupancy"], values["mean_count"], one.source, one.candidate.route,
        )  # fmt: skip


# ---- the data set --------------------------------------------------------------------------------------------------


def dataset(foreseen: Foreseen) -> dict[str, Any]:
    """The prediction as plain values: rows, coefficients, candidates with reasons, and each step to what is left."""
    found, roles = foreseen.prediction, foreseen.library.roles
    others = others_in(found.rows, roles)
    x = features([row.counts for row in found.rows], roles, others).tolist()
    names = feature_names(others)
    training = [
        row._asdict() | {"features": of_row, "weight": row.weight(foreseen.options.weighting),
                         "stability": row.stability, "population_weight": float(weight)}
        for row, of_row, weight in zip(found.rows, x, found.observed_weights)
    ]  # fmt: skip
    return plain({
        "options": foreseen.options, "feature_names": names, "training": training,
        "without_nodes": foreseen.library.without_nodes,
        "regressions": {name: _regression(one, names) for name, one in found.regressions.items()},
        "model": {"name": found.model.name, "why": found.why, "terms": found.model.terms},
        "largest_size_left_out": [one._asdict() | {"factor": one.factor} for one in found.foretold],
        "candidates": found.candidates,
        "predicted": [
            _with_structure(one, grown, foreseen) for one, grown in zip(found.predicted, foreseen.grown)
        ],
        "out": found.out, "tail": found.tail, "largest": found.largest, "notes": found.notes,
        "geometry": foreseen.geometry._asdict() | {"roles": None},
        "debye_waller": [row._asdict() | {"b": row.b} for row in foreseen.widths],
        "pair_models": {pair: _regression(one, names) | {"labels": n}
                        for pair, (one, n) in foreseen.sigma_models.items()},
        "self_check": foreseen.checks,
        "populations": [{"label": one.label, "source": one.source, "nodes": one.n_node, "weight": one.weight}
                        for one in foreseen.populations],
    })  # fmt: skip


def _regression(one: Regression, names: list[str]) -> dict[str, Any]:
    coefficients = dict(zip(names, one.coefficients.tolist()))
    return {"coefficients": coefficients, "penalty": one.penalty, **one.target._asdict()}


def _with_structure(one: Predicted, grown: Grown, foreseen: Foreseen) -> dict[str, Any]:
    """A predicted cluster with the name of its file, pairs of its sites that are crowded, and pairs that are bound."""
    x, cutoffs = grown.first.positions, cutoffs_between(grown.first.species, foreseen.geometry.cutoffs)
    bonds = np.argwhere(np.triu(cdist(x, x) <= BOND_REACH * cutoffs, 1))
    name = file_name(one.n_node, one.rank, one.label)
    seen = foreseen.mean_counts.get(one.label)
    crowded = [[*pair] for pair in grown.crowded]
    relaxed = None if grown.relaxed is None else grown.relaxed._asdict() | {"structure": name}
    found = {"file": name, "crowded": crowded, "bonds": bonds, "observed_mean_count": seen, "relaxed": relaxed}
    return one._asdict() | found


def plain(value: Any) -> Any:
    """Values that JSON has: tuples with names as tables, pairs as `a-b`, None for what is no number."""
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {"-".join(key) if isinstance(key, tuple) else str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    return _finite(value)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def facts(foreseen: Foreseen) -> dict[str, Any]:
    """The prediction in a few values, for metrics and report."""
    found = foreseen.prediction
    factors = {}
    for one in found.foretold:
        factors.setdefault(one.model, []).append(one.factor)
    return plain({
        "model": found.model.name, "why": found.why, "clusters": len(found.predicted),
        "sizes": sorted({one.n_node for one in found.candidates}), "largest": found.largest,
        "mass": sum(one.weight for one in found.predicted), "observed_mass": float(np.sum(found.observed_weights)),
        "factors": {name: float(np.exp(np.mean(np.log(some)))) for name, some in factors.items()},
        "crowded": [one.label for one, grown in zip(found.predicted, foreseen.grown) if grown.crowded],
    })  # fmt: skip
