"""Checkpoints: one file whatever the number of ranks, whole or not there, and never the only one."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from hpcfit import __version__
from hpcfit.data.files import hdf5_written_whole
from hpcfit.errors import InputError
from hpcfit.fit.grid import Grid
from hpcfit.fit.loop import Step
from hpcfit.fit.state import Arrays, check_agreement, from_arrays, gather_rows, to_arrays
from hpcfit.log import logger

SCHEMA = 1


class Restart(NamedTuple):
    """What a checkpoint gives back."""

    last: Step
    evaluations: int


@dataclass
class Checkpoints:
    """The checkpoints of a run; as a hook it saves every ``every_steps`` steps and ``every_minutes`` of root's clock.

    identity: what must not change between a run and its continuation, by name.
    ids: frame ids of this rank, [blocks, 64].
    """

    folder: Path
    grid: Grid
    ids: np.ndarray
    identity: dict[str, str]
    evaluations: Any  # () -> int
    keep: int = 3
    every_steps: int = 0
    every_minutes: float | None = None
    _saved: float = field(default_factory=time.monotonic)

    def __call__(self, step: Step) -> None:
        """Save where it is due."""
        elapsed = time.monotonic() - self._saved
        late = self.every_minutes is not None and self.grid.world.bcast(elapsed > 60 * self.every_minutes)
        if late or (self.every_steps and step.number % self.every_steps == 0):
            self.save(step)

    def save(self, step: Step) -> None:
        """Write one checkpoint; collective. Ranks must agree on what is written."""
        check_agreement(step.state.params, self.grid)
        arrays = to_arrays(step.state)
        rows = gather_rows({**arrays.local, "ids": self.ids}, self.grid)
        self.grid.world.on_root(lambda: self._write(step, Arrays(arrays.shared, rows)))
        self._saved = time.monotonic()

    def _write(self, step: Step, arrays: Arrays) -> None:
        with hdf5_written_whole(self.folder / f"step_{step.number:08d}.h5") as file:
            file.attrs.update(
                format="hpcfit checkpoint", schema=SCHEMA, hpcfit_version=__version__, step=step.number,
                gradient_norm=step.gradient_norm, evaluations=self.evaluations(), identity=json.dumps(self.identity),
            )  # fmt: skip
            file["losses"] = np.array(step.losses, float)
            for group, values in arrays._asdict().items():
                for name, value in values.items():
                    file.create_group(group) if group not in file else None
                    file[group].create_dataset(name.replace("/", "|"), data=value)
            file.attrs["sha256"] = _content_digest(file)
        for old in self._paths()[self.keep :]:
            old.unlink()

    def _paths(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("step_*.h5"), reverse=True)

    def restart(self, template: Any) -> Restart:
        """The newest checkpoint that opens and hashes right; collective.

        Raises InputError where there is none that fits.
        """
        path = self.grid.world.on_root(self._newest_whole)
        with h5py.File(path, "r", locking=False) as file:
            ids = file["local"]["ids"][:]
            shared = {name: value[()] for name, value in file.get("shared", {}).items()}
            rows = slice(self.grid.blocks.start, self.grid.blocks.stop)
            local = {name: value[rows] for name, value in file["local"].items()}
            if not np.array_equal(ids[rows], self.ids):
                raise InputError(
                    f"{path} holds other frames than the store",
                    remedy="resume with the store that the run was started with",
                )
            state = from_arrays(template, Arrays(shared, local))
            last = Step(
                int(file.attrs["step"]), state, float(file.attrs["gradient_norm"]), tuple(file["losses"][:].tolist())
            )
            return Restart(last, int(file.attrs["evaluations"]))

    def _newest_whole(self) -> Path:
        for path in self._paths():
            try:
                with h5py.File(path, "r", locking=False) as file:
                    if file.attrs["sha256"] == _content_digest(file):
                        self._check_identity(path, file)
                        logger.info("resuming from %s", path)
                        return path
                    why = "its content differs from its checksum"
            except (OSError, KeyError) as error:
                why = str(error).splitlines()[0]
            logger.warning("checkpoint %s is damaged (%s): trying the one before", path, why)
        raise InputError(f"no whole checkpoint in {self.folder}", remedy="run without --resume")

    def _check_identity(self, path: Path, file: h5py.File) -> None:
        written = json.loads(file.attrs["identity"])
        for name in self.identity:
            if written.get(name) != self.identity[name]:
                raise InputError(
                    f"{path} belongs to another run: {name} was {written.get(name)}, is now {self.identity[name]}",
                    remedy="resume with the config the run was started with, or start anew in another [run] directory",
                )


def _content_digest(file: h5py.File) -> str:
    """SHA-256 of names, shapes and values of all datasets, and of the step."""
    digest = hashlib.sha256(f"{file.attrs['step']} {file.attrs['evaluations']} {file.attrs['identity']}".encode())

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            digest.update(f"{name} {item.shape} {item.dtype}".encode() + np.ascontiguousarray(item[()]).tobytes())

    file.visititems(add)
    return digest.hexdigest()
