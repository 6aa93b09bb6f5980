"""The files of a run of kind "structure": their columns, and how they are read."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from hpcfit.runs.files import RunFiles
from hpcfit.store.files import csv_lines, read_csv

REPLICAS, TRACES, STRUCTURES, MODES = "replicas.csv", "traces.csv", "structures.h5", "modes.h5"
ENDS = "structures"  # a folder, with a file for each method
REPLICA_COLUMNS = (
    *("method", "replica", "energy", "gradients", "contacts", "possible_contacts", "pieces", "overlaps", "seconds"),
    *("converged", "stopped", "rmsd"),
)
TRACE_COLUMNS = ("method", "gradients", "seconds", "least", "lower", "median", "upper", "most")


class Trace(NamedTuple):
    """Energies of the replicas of a method after so many gradients, [marks] each."""

    gradients: np.ndarray
    seconds: np.ndarray
    least: np.ndarray
    lower: np.ndarray
    median: np.ndarray
    upper: np.ndarray
    most: np.ndarray


class StructureRun(RunFiles):
    """The files of a run, and those that only this kind writes."""

    @functools.cached_property
    def traces(self) -> dict[str, Trace]:
        """By method."""
        rows = csv_lines(self.path(TRACES))[1:]
        names = dict.fromkeys(row[0] for row in rows)
        return {name: Trace(*np.array([row[1:] for row in rows if row[0] == name], float).T) for name in names}

    @property
    def energies(self) -> dict[str, np.ndarray]:
        """Energies of all replicas [R] by method."""
        return self._by_method("energy")

    @property
    def deviations(self) -> dict[str, np.ndarray]:
        """RMSDs of all replicas [R] from the reference structure by method; there must be one."""
        return self._by_method("rmsd")

    def _by_method(self, column: str) -> dict[str, np.ndarray]:
        names = dict.fromkeys(row["method"] for row in self._replicas)
        return {
            name: np.array([float(row[column]) for row in self._replicas if row["method"] == name]) for name in names
        }

    @functools.cached_property
    def _replicas(self) -> list[dict[str, str]]:
        return read_csv(self.path(REPLICAS))

    def best(self, method: str) -> np.ndarray:
        """The positions [n, d] of the replica of least energy of a method."""
        return self.datasets(STRUCTURES, [f"methods/{method}"])[f"methods/{method}"][self._best(method)]

    @functools.cached_property
    def edges(self) -> np.ndarray:
        """The pairs that are coupled most, [e, 2]."""
        return self.datasets(STRUCTURES, ["edges"])["edges"]

    def _best(self, method: str) -> int:
        return int(np.nanargmin(self.energies[method]))
