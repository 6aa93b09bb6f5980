"""Fits of a run that have ended, kept so that an interrupted run does not repeat them: one small file each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from hpcfit.data.files import NONSENSE, hdf5_written_whole
from hpcfit.fit.grid import Grid
from hpcfit.fit.state import Arrays, from_arrays, gather_rows, to_arrays
from hpcfit.log import logger
from hpcfit.problems.base import Params


class Record(NamedTuple):
    """params: where the fit ended. facts: its metrics and counts. evaluations: of the run until then."""

    params: Params
    facts: dict[str, Any]
    evaluations: int


@dataclass(frozen=True)
class FitRecords:
    """Records of one run. identity: of its data, problem, optimizer and limits; those of another are not read."""

    folder: Path
    grid: Grid
    identity: dict[str, str]

    def save(self, name: str, record: Record) -> None:
        """Write one; collective."""
        arrays = to_arrays({"params": record.params})
        rows = gather_rows(arrays.local, self.grid)
        self.grid.world.on_root(lambda: self._write(name, record, Arrays(arrays.shared, rows)))

    def load(self, name: str, template: Params) -> Record | None:
        """Read one; None where this run has none. Collective."""
        path = self.grid.world.on_root(lambda: self._whole(name))
        if path is None:
            return None
        with h5py.File(path, "r") as file:
            rows = slice(self.grid.blocks.start, self.grid.blocks.stop)
            shared = {key: value[()] for key, value in file.get("shared", {}).items()}
            local = {key: value[rows] for key, value in file.get("local", {}).items()}
            params = from_arrays({"params": template}, Arrays(shared, local))["params"]
            return Record(params, json.loads(file.attrs["facts"]), int(file.attrs["evaluations"]))

    def evaluations(self) -> int:
        """Evaluations of the run until its last record; on root."""
        counts = [int(file) for path in self._paths() if (file := self._attribute(path, "evaluations")) is not None]
        return max(counts, default=0)

    def clear(self) -> None:
        """Remove all; on root."""
        for path in self._paths():
            path.unlink(missing_ok=True)

    def _paths(self) -> Sequence[Path]:
        return sorted(self.folder.glob("*.h5"))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '_').replace('/', '_')}.h5"

    def _write(self, name: str, record: Record, arrays: Arrays) -> None:
        with hdf5_written_whole(self._path(name)) as file:
            file.attrs.update(
                format="hpcfit fit", name=name, identity=json.dumps(self.identity), facts=json.dumps(record.facts),
                evaluations=record.evaluations,
            )  # fmt: skip
            for group, values in arrays._asdict().items():
                for key, value in values.items():
                    file.require_group(group).create_dataset(key.replace("/", "|"), data=value)

    def _whole(self, name: str) -> Path | None:
        path = self._path(name)
        if not path.exists():
            return None
        if self._attribute(path, "evaluations") is None:
            return None
        logger.info("fit %s has ended before: %s", name, path)
        return path

    def _attribute(self, path: Path, name: str) -> Any:
        """Of a whole record of this run; None where it is damaged or of another run."""
        try:
            with h5py.File(path, "r") as file:
                return file.attrs[name] if json.loads(file.attrs["identity"]) == self.identity else None
        except NONSENSE:
            logger.warning("%s is damaged: that fit is run again", path)
            return None
