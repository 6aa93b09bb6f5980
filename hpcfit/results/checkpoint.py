"""Checkpoints: one file whatever the number of ranks, whole or not there, and never the only one.

The file's name carries the SHA-256 of its bytes, which are compared before HDF5 sees them: damaged HDF5 can hang it.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from hpcfit import __version__
from hpcfit.data.files import LIBVER, written_whole
from hpcfit.errors import InputError
from hpcfit.fit.grid import Grid
from hpcfit.fit.loop import Step
from hpcfit.fit.state import Arrays, check_agreement, from_arrays, gather_rows, to_arrays
from hpcfit.log import logger

SCHEMA = 3  # 2: a checkpoint names its fit; 3: weights of the simplex are squares of the parameters


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
    fit: str  # its name: a run may be several fits, one after another
    keep: int = 3
    every_steps: int = 0
    every_minutes: float | None = None
    _saved: float = field(default_factory=time.monotonic)
    _begun: bool = False  # whether files of this fit are there, rather than of the one before

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
        content = self._content(step, arrays)
        name = f"step_{step.number:08d}.{_digest(content)}.h5"
        with written_whole(self.folder / name) as temporary:
            temporary.write_bytes(content)
        same_step = [path for path in self.folder.glob(f"step_{step.number:08d}.*.h5") if path.name != name]
        others = [] if self._begun else [path for path in self._paths() if path.name != name]
        for old in [*same_step, *others, *self._paths()[self.keep :]]:
            old.unlink(missing_ok=True)
        self._begun = True

    def _content(self, step: Step, arrays: Arrays) -> bytes:
        buffer = io.BytesIO()
        with h5py.File(buffer, "w", libver=LIBVER) as file:
            file.attrs.update(
                format="hpcfit checkpoint", schema=SCHEMA, hpcfit_version=__version__, step=step.number,
                gradient_norm=step.gradient_norm, evaluations=self.evaluations(), identity=json.dumps(self.identity),
                fit=self.fit,
            )  # fmt: skip
            file["losses"] = np.array(step.losses, float)
            for group, values in arrays._asdict().items():
                for name, value in values.items():
                    file.require_group(group).create_dataset(name.replace("/", "|"), data=value)
        return buffer.getvalue()

    def _paths(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("step_*.h5"), reverse=True)

    def restart(self, template: Any) -> Restart | None:
        """The newest checkpoint that is whole, or None where there is none of this fit; collective.

        Raises InputError if it belongs to another run.
        """
        path = self.grid.world.on_root(self._newest_whole)
        if path is None:
            return None
        with h5py.File(io.BytesIO(path.read_bytes()), "r") as file:
            if file.attrs["fit"] != self.fit:
                return None
            self._begun = True
            if self.grid.world.is_root:
                logger.info("resuming from %s", path)
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

    def newest_evaluations(self) -> int | None:
        """Evaluations of the run until its newest whole checkpoint, of whatever fit; None without one. Collective."""

        def read() -> int | None:
            path = self._newest_whole()
            if path is None:
                return None
            with h5py.File(io.BytesIO(path.read_bytes()), "r") as file:
                return int(file.attrs["evaluations"])

        return self.grid.world.on_root(read)

    def _newest_whole(self) -> Path | None:
        for path in self._paths():
            content = path.read_bytes()
            if f".{_digest(content)}." in path.name:  # HDF5 sees no byte that is not as it was written
                with h5py.File(io.BytesIO(content), "r") as file:
                    self._check_is_ours(path, file)
                return path
            logger.warning("checkpoint %s is damaged (it differs from its checksum): trying the one before", path)
        return None

    def _check_is_ours(self, path: Path, file: h5py.File) -> None:
        if file.attrs["schema"] != SCHEMA:
            raise InputError(
                f"{path} has schema {file.attrs['schema']} (hpcfit {file.attrs['hpcfit_version']});"
                f" hpcfit {__version__} reads {SCHEMA}",
                remedy="resume with the version that wrote it, or start anew",
            )
        written = json.loads(file.attrs["identity"])
        for name in self.identity:
            if written.get(name) != self.identity[name]:
                raise InputError(
                    f"{path} belongs to another run: {name} was {written.get(name)}, is now {self.identity[name]}",
                    remedy="resume with the config the run was started with, or start anew in another [run] directory",
                )


def _digest(content: bytes) -> str:
    """What the file's name says of its bytes."""
    return hashlib.sha256(content).hexdigest()[:16]
