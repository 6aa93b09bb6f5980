"""The files by which a run is continued: checkpoints of a fit that goes on, records of fits that have ended, stages.

Every file is sealed (``store.files.Seal``), whatever the number of ranks, and there whole or not at all. A damaged one,
or one under the name of another, is passed over with a warning. One that is whole, but of another run or of another
schema, is an error.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from hpcfit.errors import DamagedFile, InputError
from hpcfit.fit.grid import Grid
from hpcfit.fit.loop import Step
from hpcfit.fit.problem import Params
from hpcfit.fit.state import Arrays, check_agreement, from_arrays, gather_rows, to_arrays
from hpcfit.log import logger
from hpcfit.ranks import Ranks
from hpcfit.store.files import sha256_of_file
from hpcfit.store.seals import Seal, check_seal, hdf5_opened, hdf5_sealed

CHECKPOINT, RECORD, STAGE = "checkpoint", "record of a fit", "stage"
STAGE_ENDING = ".stage"  # HDF5 too, but no record of a fit, which is what *.h5 finds
# 2: a checkpoint names its fit; 3: weights of the simplex are squares of the parameters; 4: sealed, records too; 5: of
# many fits, and of steps that are rounding
SCHEMA = 5


# ---- the format --------------------------------------------------------------------------------------------------


@contextmanager
def _written(path: Path, format: str, identity: dict[str, str], arrays: Arrays, **facts: Any) -> Iterator[h5py.File]:
    with hdf5_sealed(path, Seal(format, SCHEMA, path.stem)) as file:
        file.attrs.update(identity=json.dumps(identity), **facts)
        for group, values in arrays._asdict().items():
            for name, value in values.items():
                file.require_group(group).create_dataset(name.replace("/", "|"), data=value)
        yield file


def _is_whole(path: Path, format: str) -> bool:
    """Whether a file can be used; where it cannot a warning says why. Raises InputError for another schema."""
    try:
        check_seal(path, Seal(format, SCHEMA, path.stem))
    except DamagedFile as error:
        logger.warning("%s: it is not used", error)
        return False
    return True


def _read(file: h5py.File, blocks: range) -> Arrays:
    """The arrays of a file, of the rows those of some blocks."""
    shared = {name: value[()] for name, value in file.get("shared", {}).items()}
    local = {name: value[blocks.start : blocks.stop] for name, value in file.get("local", {}).items()}
    return Arrays(shared, local)


def _check_is_ours(path: Path, file: h5py.File, identity: dict[str, str]) -> None:
    written = json.loads(file.attrs["identity"])
    for name in identity:
        if written.get(name) != identity[name]:
            raise InputError(
                f"{path} belongs to another run: {name} was {written.get(name)}, is now {identity[name]}",
                remedy="resume with the config the run was started with, or start anew in another [run] directory",
            )


# ---- checkpoints -------------------------------------------------------------------------------------------------


class Restart(NamedTuple):
    """The last step of a checkpoint, and the evaluations of the run until then."""

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
        path = self.folder / f"step_{step.number:08d}.h5"
        with _written(
            path, CHECKPOINT, self.identity, arrays, step=step.number, gradient_norm=step.gradient_norm,
            evaluations=self.evaluations(), fit=self.fit,
        ) as file:  # fmt: skip
            file["losses"] = np.array(step.losses, float)
        others = [] if self._begun else [old for old in self._paths() if old != path]
        for old in [*others, *self._paths()[self.keep :]]:
            old.unlink(missing_ok=True)
        self._begun = True

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
        with hdf5_opened(path) as file:
            if file.attrs["fit"] != self.fit:
                return None
            self._begun = True
            if self.grid.world.is_root:
                logger.info("resuming from %s", path)
            arrays = _read(file, self.grid.blocks)
            if not np.array_equal(arrays.local["ids"], self.ids):
                raise InputError(
                    f"{path} holds other frames than the store",
                    remedy="resume with the store that the run was started with",
                )
            last = Step(
                int(file.attrs["step"]), from_arrays(template, arrays), float(file.attrs["gradient_norm"]),
                tuple(file["losses"][:].tolist()),
            )  # fmt: skip
            return Restart(last, int(file.attrs["evaluations"]))

    def newest_evaluations(self) -> int | None:
        """Evaluations of the run until its newest whole checkpoint, of whatever fit; None without one. Collective."""

        def read() -> int | None:
            path = self._newest_whole()
            if path is None:
                return None
            with hdf5_opened(path) as file:
                return int(file.attrs["evaluations"])

        return self.grid.world.on_root(read)

    def _newest_whole(self) -> Path | None:
        for path in self._paths():
            if _is_whole(path, CHECKPOINT):
                with hdf5_opened(path) as file:
                    _check_is_ours(path, file, self.identity)
                return path
        return None


# ---- records of fits that have ended -----------------------------------------------------------------------------


class Record(NamedTuple):
    """params, rows: where the fit ended. facts: its metrics and counts. evaluations: of the run until then."""

    params: Params
    rows: Params
    facts: dict[str, Any]
    evaluations: int


@dataclass(frozen=True)
class Records:
    """The records of a run, one small file a fit.

    identity: what must be the same as it was, by name. limits: of the optimizer; a fit that ended at other ones is gone
    on with from its checkpoint.
    """

    folder: Path
    grid: Grid
    identity: dict[str, str]
    limits: str

    def save(self, name: str, record: Record) -> None:
        """Write one; collective."""
        arrays = to_arrays({"params": record.params, "rows": record.rows})
        rows = gather_rows(arrays.local, self.grid)
        self.grid.world.on_root(lambda: self._write(name, record, Arrays(arrays.shared, rows)))

    def load(self, name: str, params: Params, rows: Params) -> Record | None:
        """Read one into the structure of these; None where this run has none. Collective. Raises InputError for one of
        another run."""
        path = self._path(name)
        if not self.grid.world.on_root(lambda: self._holds(path, name)):
            return None
        with hdf5_opened(path) as file:
            found = from_arrays({"params": params, "rows": rows}, _read(file, self.grid.blocks))
            facts, evaluations = json.loads(file.attrs["facts"]), int(file.attrs["evaluations"])
            return Record(found["params"], found["rows"], facts, evaluations)

    def evaluations(self) -> int:
        """Evaluations of the run until its last record; on root."""
        counts = [self._evaluations(path) for path in sorted(self.folder.glob("*.h5"))]
        return max((count for count in counts if count is not None), default=0)

    def _path(self, name: str) -> Path:
        return self.folder / f"{_file_name(name)}.h5"

    def _write(self, name: str, record: Record, arrays: Arrays) -> None:
        facts = json.dumps(record.facts)
        with _written(
            self._path(name), RECORD, self.identity, arrays, fit=name, limits=self.limits, facts=facts,
            evaluations=record.evaluations,
        ):  # fmt: skip
            pass

    def _holds(self, path: Path, name: str) -> bool:
        """Whether a file is a record that this run can use, of the fit of that name."""
        if self._evaluations(path) is None:
            return False
        with hdf5_opened(path) as file:
            if file.attrs["fit"] != name:
                return False
        logger.info("fit %s has ended before: %s", name, path)
        return True

    def _evaluations(self, path: Path) -> int | None:
        """What a record of this run counts; None where there is none that can be used."""
        if not path.exists() or not _is_whole(path, RECORD):
            return None
        with hdf5_opened(path) as file:
            _check_is_ours(path, file, self.identity)
            return int(file.attrs["evaluations"]) if file.attrs["limits"] == self.limits else None


# ---- stages ------------------------------------------------------------------------------------------------------


class Progress(NamedTuple):
    """The state of a stage. done: the numbers of its units. arrays: their sums, or its product where it has ended.
    files: digests of the files it has left, by their path."""

    ended: bool
    done: Sequence[int]
    arrays: Mapping[str, np.ndarray]
    files: Mapping[str, str] = {}


@dataclass(frozen=True)
class Stages:
    """The stages of a run, one file each, as far as they are. identity: as in ``Records``."""

    folder: Path
    world: Ranks
    identity: dict[str, str]

    def save(self, name: str, inputs: Mapping[str, str], progress: Progress) -> None:
        """Write one; on root."""
        facts = {"inputs": dict(inputs), "done": list(map(int, progress.done)), "files": dict(progress.files)}
        with _written(
            self._path(name), STAGE, self.identity, Arrays(dict(progress.arrays), {}), stage=name,
            ended=progress.ended, facts=json.dumps(facts),
        ):  # fmt: skip
            pass

    @contextmanager
    def opened(self, name: str, inputs: Mapping[str, str]) -> Iterator[Progress | None]:
        """Yield how far one is, its arrays read when they are asked for; None where it must begin. Collective."""
        path = self._path(name)
        if not self.world.on_root(lambda: self._holds(path, name, inputs)):
            yield None
            return
        with hdf5_opened(path) as file:
            facts = json.loads(file.attrs["facts"])
            yield Progress(bool(file.attrs["ended"]), facts["done"], _Lazy(file), facts["files"])

    def any(self) -> bool:
        """True where there is a stage of this run; on root."""
        return any(self._is_ours(path) for path in sorted(self.folder.glob(f"*{STAGE_ENDING}")))

    def _path(self, name: str) -> Path:
        return self.folder / f"{_file_name(name)}{STAGE_ENDING}"

    def _is_ours(self, path: Path) -> bool:
        if not path.exists() or not _is_whole(path, STAGE):
            return False
        with hdf5_opened(path) as file:
            _check_is_ours(path, file, self.identity)
        return True

    def _holds(self, path: Path, name: str, inputs: Mapping[str, str]) -> bool:
        """Whether a file is of that stage, with these inputs, and the files that it has left are as it left them."""
        if not self._is_ours(path):
            return False
        with hdf5_opened(path) as file:
            facts = json.loads(file.attrs["facts"])
            if file.attrs["stage"] != name or facts["inputs"] != dict(inputs):
                logger.info("stage '%s' begins again: %s was made from something else", name, path)
                return False
        changed = [kept for kept, digest in facts["files"].items() if _digest_of(Path(kept)) != digest]
        if changed:
            logger.warning("stage '%s' begins again: %s is not as it left it", name, changed[0])
        return not changed


class _Lazy(Mapping):
    """The arrays of an open file."""

    def __init__(self, file: h5py.File):
        self._group = file.get("shared", {})

    def __getitem__(self, name: str) -> np.ndarray:
        return self._group[name.replace("/", "|")][()]

    def __iter__(self) -> Iterator[str]:
        return (name.replace("|", "/") for name in self._group)

    def __len__(self) -> int:
        return len(self._group)


def _digest_of(path: Path) -> str | None:
    return sha256_of_file(path) if path.exists() else None


def _file_name(name: str) -> str:
    return name.replace(" ", "_").replace("/", "_")
