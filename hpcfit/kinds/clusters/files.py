"""The files of a run of kind "clusters": their columns, and how they are read."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.composition import Structure
from hpcfit.runs.files import RunFiles
from hpcfit.store.files import read_csv, write_text

COUNTS, COLORMAP, LIFETIMES, KINETICS = "counts.csv", "colormap.csv", "lifetimes.csv", "kinetics.csv"
SPECIATION, SERIES, SIZES, TRACKED, RDF = "speciation.csv", "series.csv", "sizes.csv", "tracked.csv", "rdf.csv"
ARRAYS, DATASET, STRUCTURES, ENERGIES = "clusters.h5", "dataset.json", "structures/*.xyz", "energies.csv"
PREDICTIONS, CANDIDATES = "predictions.csv", "candidates.csv"
DEBYE_WALLER, CHECKS = "debye_waller.csv", "self_check.csv"
OBSERVED_ONLY, COMBINED = "histogram_observed.csv", "histogram_combined.csv"
PREDICTED, CONFORMERS = "predicted/*.xyz", "conformers/*.xyz"
TRACES, PROFILES, MIXTURE = "saxs_traces.csv", "saxs_components.csv", "mixture.csv"
SCATTERING_ARRAYS, BOX = "scattering.h5", "box_scattering.csv"
VERSION = 1  # of DATASET

COLORMAP_COLUMNS = (
    *("label", "cluster_size", "bin_index", "bin_start_fs", "bin_stop_fs", "bin_center_fs", "bin_start", "bin_stop"),
    *("bin_center", "unit", "mode", "value", "raw_count", "fraction", "mean_count_per_frame", "frames_in_bin"),
    "total_clusters_in_bin",
)
LIFETIME_COLUMNS = (
    *("Type", "Nodes", "Size Rank", "Candidate Rank", "Label", "Observed-only Weight %", "Combined Weight %"),
    *("Share %", "Mean Lifetime (fs)", "Std Lifetime (fs)", "Completed", "Window-truncated", "Assoc. (1/ps)"),
    *("Dissoc. (1/ps)", "Occupancy %", "Mean Count", "Reference", "Notes"),
)
KINETICS_COLUMNS = (
    *("by", "of", "size", "observations", "occupied_frames", "mean_count", "mean_count_error", "occupancy"),
    *("occupancy_error", "births", "deaths", "association_per_ps", "association_error", "dissociation_per_ps"),
    *("dissociation_error", "completed", "truncated", "mean_lifetime_fs", "mean_lifetime_error", "std_lifetime_fs"),
)
SHARE_COLUMNS = ("quantity", "species", "of", "value", "error")
SERIES_COLUMNS = ("frame", "time_fs", "clusters", "mean_nodes", "weighted_nodes", "largest_nodes", "radius_A")
SIZE_COLUMNS = ("nodes", "clusters_a_frame", "error", "share_of_nodes", "share_error")
PREDICTION_COLUMNS = (
    *("target_node_count", "rank", "label", "predicted_population_share", "predicted_mean_count_per_frame"),
    *("predicted_occupancy_fraction", "predicted_mean_lifetime_fs", "predicted_association_rate_per_ps"),
    *("predicted_dissociation_rate_per_ps", "predicted_mean_radius_of_gyration", "predicted_mean_max_radius"),
    *("predicted_stability_score", "source_label", "notes"),
)
CANDIDATE_COLUMNS = (
    *("nodes", "label", "route", "source_label", "fate", "rank", "score", "share", "mean_count", "mean_count_low"),
    *("mean_count_high", "mean_count_outer_low", "mean_count_outer_high", "weight", "observed_mean_count"),
)
DEBYE_WALLER_COLUMNS = (
    *("Type", "Method", "Nodes", "Candidate Rank", "Label", "Pair", "Sigma (Å)", "Sigma² (Å²)", "B (Å²)", "Support"),
    *("Aligned pairs", "Source Label"),
)
HISTOGRAM_COLUMNS = (
    *("label", "source", "node_count", "mean_lifetime_fs", "mean_count_per_frame", "mean_max_radius", "raw_weight"),
    "normalized_weight",
)
CHECK_COLUMNS = ("label", "structures", "undamped", "damped")
TRACKED_COLUMNS = ("what", "of", "completed", "truncated", "mean_lifetime_fs", "median_lifetime_fs", "std_lifetime_fs")

TRACE_COLUMNS = (
    *("trace", "q", "raw", "fitted", "experimental", "sigma", "residual", "residual_in_sigma", "least_squares"),
    "structure_factor",
)
BOX_COLUMNS = ("of", "q", "vectors", "S", "error")
PROFILE_COLUMNS = ("label", "source", "nodes", "population", "q", "intensity", "contribution")
MIXTURE_COLUMNS = (
    *("kind", "name", "start", "value", "bootstrap_error", "posterior_mean", "posterior_error", "posterior_5"),
    "posterior_95",
)


class ClustersRun(RunFiles):
    """The files of a run, and those that only this kind writes."""

    @functools.cached_property
    def prediction(self) -> dict[str, Any] | None:
        """The prediction as the data set has it, None where nothing was predicted."""
        return read_dataset(self.path(DATASET)).get("prediction")

    @functools.cached_property
    def colormap(self) -> list[dict[str, str]]:
        """The rows of the colormap."""
        return self.rows(COLORMAP)

    def rows(self, name: str) -> list[dict[str, str]]:
        """The rows of a CSV file, by column; none where there is no such file."""
        return read_csv(self.path(name)) if self.has(name) else []

    def columns(self, name: str) -> dict[str, np.ndarray]:
        """The columns of a CSV file of numbers; empty ones are NaN."""
        rows = self.rows(name)
        return {key: np.array([float(row[key] or "nan") for row in rows]) for key in rows[0]} if rows else {}


def write_dataset(path: Path, content: Mapping[str, Any]) -> None:
    """Write what was found as JSON, with the version of its form."""
    write_text(path, json.dumps({"version": VERSION, **content}, indent=1))


def read_dataset(path: Path) -> dict[str, Any]:
    """Read what ``write_dataset`` wrote. Raises InputError for a file that is none, or of a newer version."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        version = found.pop("version")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path} is no data set of clusters: {error!r}", remedy=f"give the {DATASET} of a run"
        ) from None
    if version != VERSION:
        raise InputError(
            f"{path} has version {version}, this hpcfit reads {VERSION}", remedy="use the hpcfit that wrote it"
        )
    return found


def xyz(structures: Sequence[Structure], comment: str) -> str:
    """The text of an XYZ file of structures, one after another; the comment of each names where it is from."""
    lines = []
    for one in structures:
        lines += [str(len(one.elements)), f"{comment} source={json.dumps(one.source)}"]
        lines += [f"{name} {x:.8f} {y:.8f} {z:.8f}" for name, (x, y, z) in zip(one.elements, one.positions.tolist())]
    return "\n".join([*lines, ""])
