"""The run directory: config, environment, history and metrics, each written so that a crash loses at most a line."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpcfit import __version__
from hpcfit.config import Config
from hpcfit.errors import InputError
from hpcfit.fit.stop import Stop
from hpcfit.log import logger
from hpcfit.runs.files import CONFIG, EARLIER, ENVIRONMENT, HISTORY, LEFT, METRICS, STOPPED, RunFiles
from hpcfit.store.files import (
    disk_errors,
    hdf5_written_whole,
    remove_leftovers,
    set_units,
    write_csv,
    write_text,
    written_whole,
)

KEPT = ("checkpoints/step_*.h5", "fits/*.h5", "fits/*.stage")  # what a run goes on from
LIBRARIES = ("numpy", "jax", "jaxlib", "h5py", "mpi4py", "optax", "gemmi", "scipy")


class RunDirectory:
    """The directory that a run leaves its files in; only root makes one."""

    def __init__(self, path: Path):
        self.path = path
        self._history: Any = None
        self._rows: list[dict] = []

    def occupied(self) -> bool:
        """True where a run has left something here."""
        return any((self.path / name).exists() for name in (HISTORY, METRICS, "checkpoints", "fits"))

    def finished(self) -> bool:
        """True where a run has ended here."""
        return RunFiles(self.path).finished

    def finished_with(self, config: Config, identity: dict[str, str]) -> bool:
        """True where a run of this very config on the same data (``identity``) has ended here."""
        files = RunFiles(self.path)
        if not (files.finished and files.has(CONFIG) and files.config_text == config.to_toml()):
            return False
        return files.metrics.get("identity") == identity

    def check_is_free(self) -> None:
        """Raise InputError if a run has left something here."""
        if self.occupied():
            raise InputError(
                f"run directory {self.path} already holds a run",
                remedy="continue it with --resume, replace it with --overwrite, or choose another [run] directory",
            )

    def set_aside(self, left: Iterable[str] = ()) -> None:
        """Move what makes a run out of the way, so that a new one is not taken for its continuation.

        left: the files that runs of its kind leave. What was set aside before, for a run that took no step, stays, and
        what that run left is removed.
        """
        with disk_errors(self.path / HISTORY):
            old = self._files(left)
            if self._earlier.exists():
                for path in old:
                    path.unlink(missing_ok=True)
                return
            for path in old:
                _moved(path, self.path, self._on_the_way)
            if self._on_the_way.exists():
                os.replace(self._on_the_way, self._earlier)

    def forget_earlier(self) -> None:
        """Remove for good what was set aside: the new run has taken its first step."""
        if self._earlier.exists():
            with disk_errors(self.path / HISTORY):
                shutil.rmtree(self._earlier)

    def take_back(self, left: Iterable[str] = ()) -> None:
        """Put back what was set aside, in place of what the new run has left; nothing where nothing was."""
        if self._history is not None:
            self._history.close()
        with disk_errors(self.path / HISTORY):
            if self._earlier.exists():
                for path in self._files(left):
                    path.unlink(missing_ok=True)
                os.replace(self._earlier, self._on_the_way)
            if self._on_the_way.exists():
                for path in [path for path in self._on_the_way.rglob("*") if path.is_file()]:
                    _moved(path, self._on_the_way, self.path)
                shutil.rmtree(self._on_the_way)
                logger.info("the earlier run in %s is back: the new one took no step", self.path)

    def recover(self, left: Iterable[str] = ()) -> None:
        """Put back what a job set aside that was killed before it had anything to go on from, and remove what it left
        half written."""
        for folder in (self.path, self.path / "checkpoints", self.path / "fits"):
            remove_leftovers(folder)
        begun = any(path for name in KEPT for path in self.path.glob(name))
        if self._on_the_way.exists() or (self._earlier.exists() and not begun):
            self.take_back(left)

    @property
    def _earlier(self) -> Path:
        return self.path / EARLIER

    @property
    def _on_the_way(self) -> Path:
        """The same while files are moved there or back."""
        return self.path / f"{EARLIER}.part"

    def _files(self, left: Iterable[str]) -> list[Path]:
        """What makes a run."""
        names = (*KEPT, *LEFT, *left, CONFIG, ENVIRONMENT)
        return [path for name in names for path in self.path.glob(name) if path.is_file()]

    def open(self, config: Config, kept_evaluations: int = 0) -> None:
        """Create it, or continue one: the history is cut to the evaluations that the checkpoint has seen."""
        with disk_errors(self.path / HISTORY):
            self.path.mkdir(parents=True, exist_ok=True)
            self._rows = self._read_history()[:kept_evaluations]
            for ending in (METRICS, STOPPED):  # until it ends again, this run is unfinished
                (self.path / ending).unlink(missing_ok=True)
            write_text(self.path / HISTORY, "".join(json.dumps(row) + "\n" for row in self._rows))
            self._history = open(self.path / HISTORY, "a", encoding="utf-8")  # noqa: SIM115 (closed in close)
        write_text(self.path / CONFIG, config.to_toml())
        write_text(self.path / ENVIRONMENT, json.dumps(environment(), indent=1))

    def add_evaluation(self, row: dict[str, float | int]) -> None:
        """One line of the history, at once on its way to the disk."""
        self._rows.append(row)
        with disk_errors(self.path / HISTORY):
            self._history.write(json.dumps(row) + "\n")
            self._history.flush()

    @property
    def rows(self) -> list[dict]:
        """The history so far, a row an evaluation."""
        return self._rows

    def close(self, stop: Stop) -> None:
        """Close the history, write it as columns, and say why the fit ended: results follow, or a continuation."""
        self._history.close()
        self.write_json(STOPPED, stop._asdict())
        with hdf5_written_whole(self.path / "history.h5") as file:
            for name in dict.fromkeys(name for row in self._rows for name in row):
                file[name] = [row.get(name, math.nan) for row in self._rows]
                if name.endswith("seconds"):
                    set_units(file[name], "s")

    def write_json(self, name: str, content: dict) -> None:
        """A JSON file, whole."""
        write_text(self.path / name, json.dumps(content, indent=1))

    def write_csv(self, name: str, columns: Sequence[str], rows: Any) -> None:
        """A CSV file, whole; floats with all their digits."""
        write_csv(self.path / name, columns, rows)

    def write_npy(self, name: str, array: np.ndarray) -> None:
        """A NumPy file, whole."""
        with written_whole(self.path / name) as temporary, open(temporary, "wb") as file:
            np.save(file, array)

    def write_h5(
        self, name: str, datasets: dict[str, Any], attributes: dict[str, Any], units: Mapping[str, str]
    ) -> None:
        """An HDF5 file of datasets, whole. units: of datasets that have one, by their path, or by the last name in it
        for all that are called so."""
        with hdf5_written_whole(self.path / name) as file:
            file.attrs.update(hpcfit_version=__version__, **attributes)
            for key, values in datasets.items():
                text = len(values) and isinstance(values[0], str)
                data = file.create_dataset(key, data=values, dtype=h5py.string_dtype() if text else None)
                if unit := units.get(key, units.get(key.rpartition("/")[2], "")):
                    set_units(data, unit)

    def _read_history(self) -> list[dict]:
        path = self.path / HISTORY
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                rows.append(json.loads(line))
            except ValueError:  # the last line of a run that was killed while writing it
                break
        return rows


def _moved(path: Path, folder: Path, to: Path) -> None:
    """Move a file of one folder to the same place of another."""
    place = to / path.relative_to(folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    os.replace(path, place)


def environment() -> dict[str, Any]:
    """The environment of the run: versions, host, command, scheduler variables."""
    return {
        "hpcfit": __version__,
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES if _installed(name)},
        "host": socket.gethostname(),
        "processor": _processor(),
        "command": shlex.join(sys.argv),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "scheduler": {
            key: value
            for key, value in sorted(os.environ.items())
            if key.startswith(("SLURM_JOB", "PBS_JOB", "LSB_JOB"))
        },
    }


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def check_is_writable(path: Path) -> None:
    """Raise InputError unless a run directory can be made or written at ``path``; leaves nothing behind."""
    with disk_errors(path / HISTORY):
        folder = next(p for p in (path, *path.absolute().parents) if p.exists())
        with tempfile.TemporaryFile(dir=folder):
            pass
