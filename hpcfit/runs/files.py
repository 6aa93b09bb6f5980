"""The files of a run directory, read and checked: the report knows a run through this module alone."""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from hpcfit.errors import InputError
from hpcfit.runs.hdf5 import opened
from hpcfit.runs.history import AGAIN, History, read_history


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
        """True once the run has written its results; metrics.json is written last."""
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
        """True where the history has a row: a run may end without a fit that evaluates anything."""
        path = self.directory / "history.jsonl"
        return path.is_file() and path.stat().st_size > 0

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path(name)
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is not JSON: {error}", remedy=AGAIN) from None

    def datasets(
        self, name: str, wanted: tuple[str, ...], optional: Mapping[str, Any] = MappingProxyType({})
    ) -> dict[str, np.ndarray]:
        """1-D or 2-D datasets of equal length from one HDF5 file; of those that it may lack their value everywhere."""
        path = self.path(name)
        with opened(path) as file:
            table = {key: file[key][()] for key in (*wanted, *(key for key in optional if key in file))}
        lengths = {key: len(values) for key, values in table.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"{path} is damaged: its datasets have different lengths, {lengths}", remedy=AGAIN)
        n = next(iter(lengths.values()))
        return {key: np.full(n, value) for key, value in optional.items()} | table

    def attribute(self, name: str, attribute: str) -> Any:
        """An attribute of an HDF5 file, or the dataset of that name."""
        with opened(self.path(name)) as file:
            if attribute not in file.attrs and attribute not in file:
                raise InputError(f"{self.path(name)} has no attribute '{attribute}'", remedy=AGAIN)
            value = file.attrs[attribute] if attribute in file.attrs else file[attribute][()]
        return value.decode() if isinstance(value, bytes) else value
