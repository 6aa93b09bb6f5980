"""The files of a run of kind "frame-weights": what is in them, read and checked."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from hpcfit.characters import in_one_line
from hpcfit.errors import InputError
from hpcfit.runs.files import RunFiles
from hpcfit.runs.hdf5 import opened, text, texts
from hpcfit.runs.history import AGAIN
from hpcfit.store.files import read_csv

WEIGHT_COLUMNS = ("frame", "source", "index", "label", "weight", "log_weight", "delta_G_kJ_mol", "file")
SOURCE_COLUMNS = ("source", "label", "frames", "uniform_weight", "weight")
MAP_ATTRIBUTES = ("ndiv", "cell", "laue")
AVERAGES_WEIGHT_COLUMNS = ("frame", "prior", "weight", "log_weight", "delta_G_kJ_mol")  # of a run without a map
EXPERIMENTS = "experiments.csv"
EXPERIMENT_COLUMNS = (
    *("experiment", "datum", "bound", "measured", "sigma", "before", "after"),
    *("deviation_before", "deviation", "error", "held_out"),
)


class SourceWeights(NamedTuple):
    """The frames of one source, ordered by their index in it."""

    name: str
    label: str
    index: np.ndarray  # [n] index of the frame in its source
    weight: np.ndarray  # [n] weights sum to 1 over all sources


class Orbits(NamedTuple):
    """Measured orbits, one row each; `hkl / ndiv` is the index in the unit cell."""

    hkl: np.ndarray  # [n, 3] a representative of the orbit
    ndiv: np.ndarray  # [3]
    cell: np.ndarray  # [6] unit cell, A and degrees
    laue: str
    inverse_d: np.ndarray  # [n] 1/d, A^-1
    shell: np.ndarray  # [n] number of the resolution shell
    multiplicity: np.ndarray  # [n] distinct images in the full sphere
    observed: np.ndarray  # [n] on the scale of the experiment
    calculated: np.ndarray  # [n] fitted weights, on the scale of the model
    uniform: np.ndarray  # [n] uniform weights, on the scale of the model
    held_out: np.ndarray  # [n] bool, not fitted
    sigma: np.ndarray  # [n] of observed; NaN where the map has none


class Datum(NamedTuple):
    """A row of experiments.csv: a datum, calculated before and after the fit in the unit of its measurement. The
    deviations are in sigma; error: the standard deviation of ``after`` over resamples, NaN where there are none."""

    experiment: str
    datum: str
    bound: str
    measured: float
    sigma: float
    before: float
    after: float
    deviation_before: float
    deviation: float
    error: float
    held_out: bool


class ExperimentsRun(RunFiles):
    """The files of a run that may have experiments beside a map, or without one."""

    @functools.cached_property
    def experiments(self) -> dict[str, list[Datum]]:
        """The data of each experiment; none of a run without."""
        if not self.has(EXPERIMENTS):
            return {}
        found = {}
        for row in self.checked_rows(EXPERIMENTS, EXPERIMENT_COLUMNS):
            datum = Datum(*row[:3], *(float(text or "nan") for text in row[3:10]), row[10] == "True")
            found.setdefault(datum.experiment, []).append(datum)
        return found


class FrameWeightsRun(ExperimentsRun):
    """The files of a run, and those that only this kind writes."""

    @functools.cached_property
    def sources(self) -> list[dict[str, Any]]:
        """Rows of sources.csv: source, label (str), frames (int), uniform_weight, weight (float)."""
        path = self.path("sources.csv")
        try:
            return [_typed(row) for row in read_csv(path)]
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path} is damaged: {error!r}", remedy=AGAIN) from None

    @functools.cached_property
    def weights(self) -> list[SourceWeights]:
        """The weights by source, in the order of sources.csv."""
        table = self.datasets("weights.h5", ("source", "index", "label", "weight"))
        source, label = (np.array([*map(in_one_line, texts(table[key]))]) for key in ("source", "label"))
        names, group = np.unique(source, return_inverse=True)
        order = np.lexsort((table["index"], group))
        parts = np.split(order, np.cumsum(np.bincount(group))[:-1])
        by_name = {
            str(name): SourceWeights(str(name), str(label[part[0]]), table["index"][part], table["weight"][part])
            for name, part in zip(names, parts, strict=True)
        }
        listed = [row["source"] for row in self.sources]
        if set(listed) != set(by_name):
            odd = ", ".join(f"'{name}'" for name in sorted(set(listed) ^ set(by_name))[:5])
            raise InputError(
                f"{self.path('weights.h5')} and {self.path('sources.csv')} name different sources: only one has {odd}",
                remedy=AGAIN,
            )
        return [by_name[name] for name in listed]

    @functools.cached_property
    def orbits(self) -> Orbits:
        """The orbits of the measured map, beside the fitted and the uniform one."""
        names = ("hkl", "inverse_d", "shell", "multiplicity", "observed", "calculated", "uniform")
        table = self.datasets("map.h5", names, {"held_out": False, "sigma": np.nan})
        attributes = {name: self.attribute("map.h5", name) for name in MAP_ATTRIBUTES}
        return Orbits(**table, **attributes)

    def unit_of_map(self, name: str) -> str:
        """The unit of a dataset of map.h5; "" in runs of versions that did not say it."""
        with opened(self.path("map.h5")) as file:
            return text(file[name].attrs.get("units", ""))


def _typed(row: dict[str, str]) -> dict[str, Any]:
    numbers = {
        "frames": int(row["frames"]),
        "uniform_weight": float(row["uniform_weight"]),
        "weight": float(row["weight"]),
    }
    return {"source": row["source"], "label": row["label"], **numbers}
