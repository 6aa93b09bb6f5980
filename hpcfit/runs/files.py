"""The files of a run directory, by name, read and checked: whatever asks about a run reads it here, without JAX."""

from __future__ import annotations

import contextlib
import functools
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from hpcfit.errors import InputError
from hpcfit.runs.hdf5 import opened
from hpcfit.runs.history import AGAIN, History, read_history
from hpcfit.runs.study import STUDY, StudyProgress, read_study
from hpcfit.store.files import csv_lines

CONFIG, ENVIRONMENT, HISTORY = "config.toml", "environment.json", "history.jsonl"
STOPPED, METRICS = "stopped.json", "metrics.json"
LOG = "run.log"  # what was logged, by root
MONITOR = "monitor.json"  # where the dashboard of a run is, as long as it has one
EARLIER = ".earlier"  # where a run that is being replaced waits for the first step of the new one
REPORT = "report.html"
DECK = "report.pptx"  # its slides, where they were asked for
# What a run of any kind leaves beside its config and its environment; an entry of kinds/table names what its kind does.
LEFT = (METRICS, STOPPED, HISTORY, MONITOR, STUDY, LOG, "history.h5", REPORT, DECK)


class _Told(dict):
    """A table of a JSON file. A key that it lacks is an InputError that names the file."""

    def __init__(self, path: Path, table: Mapping[str, Any]):
        super().__init__(table)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise InputError(f"{self._path} has no '{key}'", remedy=AGAIN)


class RunFiles:
    """The files of a run directory, each read when it is first asked for, and only then.

    What is missing or broken raises InputError with its path.
    """

    def __init__(self, directory: Path):
        self.directory = Path(directory)
        self._asked: dict[str, None] = {}  # names of files that were read, in their order

    @contextlib.contextmanager
    def understood(self, what: str) -> Iterator[None]:
        """Turn what a file with other values than a run writes leads to into an InputError; what: that is not made."""
        try:
            yield
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            said = f"{type(error).__name__}: {(str(error) or repr(error)).splitlines()[0]}"
            raise InputError(
                f"{what} cannot be made of {self.directory}: {said}; of its files were read {', '.join(self._asked)}",
                remedy=f"if one of them is not as the run wrote it, restore it, or {AGAIN}",
            ) from error

    def has(self, name: str) -> bool:
        """True where a file is there."""
        return (self.directory / name).is_file()

    def path(self, name: str) -> Path:
        """The path of a file that must be there."""
        if not self.directory.is_dir():
            raise InputError(f"run directory {self.directory} does not exist", remedy="give the directory of a run")
        if not self.has(name):
            raise InputError(f"run directory {self.directory} has no {name}: the run is not complete", remedy=AGAIN)
        self._asked[name] = None
        return self.directory / name

    def checked_rows(self, name: str, columns: tuple[str, ...]) -> list[list[str]]:
        """The rows of a CSV file of the run, as text. Raises InputError unless it has these columns, in each row."""
        path = self.path(name)
        head, *rows = csv_lines(path) or [[]]
        if tuple(head) != columns or any(len(row) != len(columns) for row in rows):
            raise InputError(f"{path} is damaged: its columns are not {', '.join(columns)}", remedy=AGAIN)
        return rows

    @property
    def finished(self) -> bool:
        """True once the run has written its results; metrics.json is written last."""
        return self.has(METRICS)

    @functools.cached_property
    def kind(self) -> str:
        """The problem kind: of metrics.json, or of config.toml while the run is unfinished."""
        return self.metrics["kind"] if self.finished else self.config.get("problem", {}).get("kind", "")

    @functools.cached_property
    def metrics(self) -> dict[str, Any]:
        """The results in numbers."""
        return self.json(METRICS)

    @functools.cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, host, command and scheduler of the run."""
        return self.json(ENVIRONMENT)

    @functools.cached_property
    def config_text(self) -> str:
        """The config, with every default."""
        try:
            return self.path(CONFIG).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path(CONFIG)} is not text: {error}", remedy=AGAIN) from None

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The tables of the config."""
        try:
            return tomllib.loads(self.config_text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.path(CONFIG)} is not TOML: {error}", remedy=AGAIN) from None

    @functools.cached_property
    def history(self) -> History:
        """A row for each evaluation of the loss."""
        return read_history(self.path(HISTORY))

    @property
    def evaluated(self) -> bool:
        """True where the history has a row: a run may end without a fit that evaluates anything."""
        return self.has(HISTORY) and (self.directory / HISTORY).stat().st_size > 0

    @property
    def study(self) -> StudyProgress | None:
        """The progress of its fits and stages; None where the run says nothing of them."""
        return read_study(self.directory)

    def checkpoint(self) -> float | None:
        """The time at which the newest checkpoint was written, seconds since 1970; None where there is none."""
        times = []
        for path in (self.directory / "checkpoints").glob("step_*.h5"):
            with contextlib.suppress(OSError):  # an old one, removed in between
                times.append(path.stat().st_mtime)
        return max(times, default=None)

    def json(self, name: str) -> dict[str, Any]:
        """The content of a JSON file."""
        path = self.path(name)
        try:
            found = json.loads(path.read_text(encoding="utf-8"), object_hook=lambda table: _Told(path, table))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is not JSON: {error}", remedy=AGAIN) from None
        if not isinstance(found, dict):
            raise InputError(f"{path} holds a {type(found).__name__}, not a table", remedy=AGAIN)
        return found

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
