"""The files of a run directory, read and checked: the report knows a run through this module alone."""

from __future__ import annotations

import csv
import functools
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.runs.hdf5 import opened, texts
from hpcfit.runs.history import AGAIN, History, read_history


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


class RunFiles:
    """The files of a run directory, read at first use; what is missing or broken raises InputError with its path."""

    def __init__(self, directory: Path):
        self.directory = Path(directory)
        if not self.directory.is_dir():
            raise InputError(f"run directory {self.directory} does not exist", remedy="give the directory of a run")

    def path(self, name: str) -> Path:
        """The path of a file that must be there."""
        path = self.directory / name
        if not path.is_file():
            raise InputError(f"run directory {self.directory} has no {name}: the run is not complete", remedy=AGAIN)
        return path

    @property
    def finished(self) -> bool:
        """Whether the run wrote its results; metrics.json is written last."""
        return (self.directory / "metrics.json").is_file()

    @functools.cached_property
    def kind(self) -> str:
        """The problem kind: of metrics.json, or of config.toml while the run is unfinished."""
        return self.metrics["kind"] if self.finished else self.config.get("problem", {}).get("kind", "")

    @functools.cached_property
    def metrics(self) -> dict[str, Any]:
        return self._json("metrics.json")

    @functools.cached_property
    def environment(self) -> dict[str, Any]:
        return self._json("environment.json")

    @functools.cached_property
    def config_text(self) -> str:
        return self.path("config.toml").read_text(encoding="utf-8")

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self.config_text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{self.path('config.toml')} is not TOML: {error}", remedy=AGAIN) from None

    @functools.cached_property
    def history(self) -> History:
        return read_history(self.path("history.jsonl"))

    @property
    def evaluated(self) -> bool:
        """Whether the history has a row: a run may end without a fit that evaluates anything."""
        path = self.directory / "history.jsonl"
        return path.is_file() and path.stat().st_size > 0

    @functools.cached_property
    def sources(self) -> list[dict[str, Any]]:
        """Rows of sources.csv: source, label (str), frames (int), uniform_weight, weight (float)."""
        path = self.path("sources.csv")
        try:
            with path.open(newline="", encoding="utf-8") as file:
                return [_typed(row) for row in csv.DictReader(file)]
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path} is damaged: {error!r}", remedy=AGAIN) from None

    @functools.cached_property
    def weights(self) -> list[SourceWeights]:
        """The weights by source, in the order of sources.csv."""
        table = self._datasets("weights.h5", ("source", "index", "label", "weight"))
        source, label = (np.array(texts(table[key])) for key in ("source", "label"))
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
        names = ("hkl", "inverse_d", "shell", "multiplicity", "observed", "calculated", "uniform")
        table = self._datasets("map.h5", names, {"held_out": False})
        attributes = {name: self._attribute("map.h5", name) for name in ("ndiv", "cell", "laue")}
        return Orbits(**table, **attributes)

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path(name)
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is not JSON: {error}", remedy=AGAIN) from None

    def _datasets(
        self, name: str, datasets: tuple[str, ...], optional: Mapping[str, Any] = MappingProxyType({})
    ) -> dict[str, np.ndarray]:
        """1-D or 2-D datasets of equal length from one HDF5 file; of those that it may lack their value everywhere."""
        path = self.path(name)
        with opened(path) as file:
            table = {key: file[key][()] for key in (*datasets, *(key for key in optional if key in file))}
        lengths = {key: len(values) for key, values in table.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"{path} is damaged: its datasets have different lengths, {lengths}", remedy=AGAIN)
        n = next(iter(lengths.values()))
        return {key: np.full(n, value) for key, value in optional.items()} | table

    def _attribute(self, name: str, attribute: str) -> Any:
        """An attribute of an HDF5 file, or the dataset of that name."""
        with opened(self.path(name)) as file:
            if attribute not in file.attrs and attribute not in file:
                raise InputError(f"{self.path(name)} has no attribute '{attribute}'", remedy=AGAIN)
            value = file.attrs[attribute] if attribute in file.attrs else file[attribute][()]
        return value.decode() if isinstance(value, bytes) else value


def _typed(row: dict[str, str]) -> dict[str, Any]:
    numbers = {
        "frames": int(row["frames"]),
        "uniform_weight": float(row["uniform_weight"]),
        "weight": float(row["weight"]),
    }
    return {"source": row["source"], "label": row["label"], **numbers}
