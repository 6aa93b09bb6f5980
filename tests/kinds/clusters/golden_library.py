"""The golden library of SAXSShell: its subsets, kinetics and tables."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from hpcfit.kinds.clusters.composition import Roles
from hpcfit.kinds.clusters.library import Library, read_library
from hpcfit.kinds.clusters.prediction.predict import Options, Prediction, predict
from hpcfit.kinds.clusters.prediction.rows import Observed, Row, training_rows

ROLES = Roles(("Pb",), ("I",))
CUTOFFS = {("Pb", "I"): 4.0}
VARIANTS = ("main", "subset5", "subset3", "subset2")
TIMESTEP = 1000.0
# Of predictions by ridges; subset3 and subset2 have features of rank 3 and 2.
RIDGE = {"main": 1e-9, "subset5": 1e-9, "subset3": 1e-6, "subset2": 1e-6}

COLUMNS = {  # of predicted quantities, `predicted_` before them in the tables of predictions
    "mean_count": "mean_count_per_frame",
    "occupancy": "occupancy_fraction",
    "mean_lifetime": "mean_lifetime_fs",
    "association_rate": "association_rate_per_ps",
    "dissociation_rate": "dissociation_rate_per_ps",
    "rg": "mean_radius_of_gyration",
    "rmax": "mean_max_radius",
    **{axis: f"mean_semiaxis_{axis}" for axis in "abc"},
}


def golden_folder(shared_data: Path) -> Path:
    """The folder of golden data, skipped where it is absent."""
    folder = shared_data / "clusters" / "pbi64_golden"
    if not folder.is_dir():
        pytest.skip(f"no golden data at {folder}")
    return folder


def table(folder: Path, variant: str, name: str) -> dict:
    return json.loads((folder / ("" if variant == "main" else variant) / f"{name}.json").read_text())


def library(folder: Path, variant: str, representative: str = "first") -> Library:
    labels = json.loads((folder / "settings.json").read_text())["variants"][variant]["library_labels"]
    whole = read_library(folder / "library", ROLES, representative)
    if labels == "all":
        return whole
    return whole._replace(ensembles={label: whole.ensembles[label] for label in sorted(labels)})


def observed(folder: Path) -> dict[str, Observed]:
    return {
        one["label"]: Observed(
            *(one["total_observations"], one["occupied_frames"]),
            *(one["mean_count_per_frame"], one["occupancy_fraction"]),
            *(one["association_events"], one["dissociation_events"]),
            *(one["association_rate_per_ps"], one["dissociation_rate_per_ps"]),
            *(one["completed_lifetime_count"], one["window_truncated_lifetime_count"]),
            *(one["mean_lifetime_fs"], one["std_lifetime_fs"]),
        )
        for one in json.loads((folder / "kinetics.json").read_text())["by_label"]
    }


def rows_of(folder: Path, variant: str) -> list[Row]:
    return training_rows(library(folder, variant), observed(folder))


def counts_of_frames(folder: Path) -> dict[str, list[int]]:
    """The counts of each label in each frame."""
    with (folder / "label_frame_counts.csv").open() as file:
        return {line[0]: [int(value) for value in line[1:]] for line in list(csv.reader(file))[1:]}


def compatible(folder: Path, variant: str, **options) -> Prediction:
    """The prediction with the choices of SAXSShell, for the sizes of the variant."""
    sizes = tuple(map(int, table(folder, variant, "training")["raw_candidates"]))
    return predict(rows_of(folder, variant), ROLES, Options(TIMESTEP, sizes, **options).compatible())


def disturbed(one: Library, seed: int, size: float = 1e-8) -> Library:
    """A library whose coordinates have uniform noise."""
    random = np.random.default_rng(seed)
    ensembles = {
        label: ensemble._replace(
            structures=tuple(
                s._replace(positions=s.positions + random.uniform(-size, size, s.positions.shape))
                for s in ensemble.structures
            )
        )
        for label, ensemble in one.ensembles.items()
    }
    return one._replace(ensembles=ensembles)
