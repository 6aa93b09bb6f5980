"""Frames that were given: of stores, trajectories and arrays, one source after another, cut into windows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from hpcfit.errors import InputError, check_is_file
from hpcfit.kinds.force_field.simulated.ensemble import Ensemble
from hpcfit.kinds.force_field.simulated.weighed import Drawn, drawn
from hpcfit.readers.boundary import loaded_array, reading
from hpcfit.readers.patterns import matching
from hpcfit.readers.positions import TrajectoryReader, open_positions
from hpcfit.store.catalog import CATALOG
from hpcfit.store.files import sha256_of_file
from hpcfit.store.frame import Frame, Topology
from hpcfit.store.pieces import pieces_digest
from hpcfit.store.positions import ParticleStore, each_frame, open_position_store
from hpcfit.store.stream import block_frames

ANGSTROM = 0.1  # nm
ROUNDED = 1e-6  # of a box in float32


class Array(NamedTuple):
    """Positions [T, N, 3] nm of a .npy file, whose frames have the box of their system."""

    path: Path
    n_frames: int

    def frames(self, rows: range) -> Iterator[Frame]:
        """The frames of some rows."""
        found = loaded_array(self.path)
        return (Frame(row, np.array(found[row], float)) for row in rows)

    def digest(self) -> str:
        """A digest of all frames."""
        return sha256_of_file(self.path)


class Stored(NamedTuple):
    """The frames of a store of positions."""

    path: Path
    store: ParticleStore

    @property
    def n_frames(self) -> int:
        """All that it has."""
        return self.store.n_frames

    def frames(self, rows: range) -> Iterator[Frame]:
        """The frames of some rows."""
        blocks = [
            one for one in self.store.blocks() if one.first_id < rows.stop and rows.start < one.first_id + one.frames
        ]
        for block, found, origin in block_frames(self.store, blocks):
            for number, frame in enumerate(each_frame(found, origin)):
                if block.first_id + number in rows:
                    yield _in_nm(frame)

    def digest(self) -> str:
        """A digest of all frames."""
        return self.store.digest()


class Trajectory(NamedTuple):
    """The frames of a trajectory, a file or a folder of pieces."""

    path: Path
    reader: TrajectoryReader

    @property
    def n_frames(self) -> int:
        """All that it has."""
        return self.reader.n_frames

    def frames(self, rows: range) -> Iterator[Frame]:
        """The frames of some rows."""
        return map(_in_nm, self.reader.frames(rows))

    def digest(self) -> str:
        """A digest of all frames."""
        return pieces_digest(self.path, self.n_frames - 1) if self.path.is_dir() else sha256_of_file(self.path)


def _in_nm(frame: Frame) -> Frame:
    box = None if frame.box is None else ANGSTROM * np.asarray(frame.box, float)
    return frame._replace(positions=ANGSTROM * np.asarray(frame.positions, float), box=box)


@dataclass(frozen=True)
class GivenFrames:
    """The frames of a system. atoms: [n], those that files hold which lack virtual sites; size: all particles; box:
    [3, 3] nm, that of the system, or None; boxed: whether frames have a box each."""

    name: str
    sources: tuple[Array | Stored | Trajectory, ...]
    atoms: np.ndarray
    size: int
    box: np.ndarray | None
    boxed: bool

    @property
    def n_frames(self) -> int:
        """The frames of all sources."""
        return sum(source.n_frames for source in self.sources)

    def digest(self) -> str:
        """A digest of all frames."""
        return hashlib.sha256(" ".join(source.digest() for source in self.sources).encode()).hexdigest()[:16]

    def read(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray | None]:
        """So many consecutive frames: positions [count, size, 3] nm, 0 for virtual sites that files lack, and boxes
        [count, 3, 3] nm, or None. Raises InputError for what is not finite, or lacks its box."""
        frames = list(self._frames(range(first, first + count)))
        x = np.zeros((count, self.size, 3))
        for row, frame in enumerate(frames):
            x[row, self._places(frame)] = frame.positions
        return x, np.stack([self._box(frame) for frame in frames]) if self.boxed else None

    def _frames(self, rows: range) -> Iterator[Frame]:
        begin = 0
        for source in self.sources:
            own = range(max(rows.start - begin, 0), min(rows.stop - begin, source.n_frames))
            for frame in source.frames(own) if own else ():
                _check(source.path, frame, self.boxed)
                yield frame
            begin += source.n_frames

    def _box(self, frame: Frame) -> np.ndarray:
        """That of a frame, or of the system where files have only rounded it."""
        return self.box if np.allclose(frame.box, self.box, rtol=ROUNDED, atol=ROUNDED) else frame.box

    def _places(self, frame: Frame) -> np.ndarray | slice:
        return slice(None) if len(frame.positions) == self.size else self.atoms


def open_frames(name: str, paths: Sequence[str], masses: np.ndarray, box: np.ndarray | None) -> GivenFrames:
    """The frames of system ``name``, looked at where each source begins. Raises InputError for what they lack."""
    size, atoms = len(masses), np.flatnonzero(masses > 0)
    files = [file for path in paths for file in _matching(name, path)]
    sources = tuple(_opened(file, size) for file in files)
    firsts = [_first(name, source, size, len(atoms)) for source in sources]
    boxed = box is not None and any(frame.box is not None for frame in firsts)
    for source, frame in zip(sources, firsts):
        if box is not None and frame.box is None and (boxed or not isinstance(source, Array)):
            raise InputError(
                f"the frames of {source.path} have no box, and system '{name}' is periodic",
                remedy="give frames with a box each; those of a .npy file, alone, have that of their system",
            )
    return GivenFrames(name, sources, atoms, size, box, boxed)


def drawn_windows(given: GivenFrames, ensemble: Ensemble, theta: Any, windows: np.ndarray, total: int) -> Drawn:
    """Some of ``total`` windows of frames that were drawn at these parameters, leaves [*windows.shape, frames, ...];
    the last window has the last frame. Raises InputError for a frame without a finite energy."""
    F = ensemble.frames
    first = given.n_frames - total * F
    places = [number if number < total else 0 for number in windows.ravel().tolist()] or [0]
    found = [drawn(ensemble, theta, *given.read(first + number * F, F)) for number in places]
    for number, one in zip(places, found):
        _check_drawn(given.name, ensemble, first + number * F, one)
    whole = jax.tree.map(lambda *leaves: np.stack(leaves)[: windows.size], *found)
    return jax.tree.map(lambda leaf: leaf.reshape(*windows.shape, *leaf.shape[1:]), whole)


def _check_drawn(name: str, ensemble: Ensemble, first: int, frames: Drawn) -> None:
    for row, energy in enumerate(np.asarray(frames.energy)):
        where = f"frame {first + row} of system '{name}'"
        if frames.box is not None:
            ensemble.potential.require_box(np.asarray(frames.box[row]), source=where)
        if not np.isfinite(energy):
            raise InputError(
                f"the energy of {where} is {energy}",
                remedy="give frames of this system, each molecule whole and on its constraints",
            )


def _matching(name: str, path: str) -> list[Path]:
    found = matching(path)
    if not found:
        raise InputError(f"frames of system '{name}': {path} does not exist", remedy="correct the path or the pattern")
    return found


def _opened(path: Path, size: int) -> Array | Stored | Trajectory:
    if (path / CATALOG).exists():
        return Stored(path, open_position_store(path))
    if path.suffix == ".npy":
        return _array(path)
    return Trajectory(path, open_positions(path, Topology(("X",) * size, None)))


def _array(path: Path) -> Array:
    check_is_file(path, "frames")
    with reading(f"frames {path} cannot be read by NumPy", "save them by numpy.save"):
        found = loaded_array(path)
    if found.ndim != 3 or found.shape[2] != 3 or found.dtype.kind not in "fiu":
        raise InputError(
            f"frames {path} have shape {list(found.shape)} and type {found.dtype}",
            remedy="give positions [frames, N, 3], nm",
        )
    return Array(path, len(found))


def _first(name: str, source: Array | Stored | Trajectory, size: int, atoms: int) -> Frame:
    """The first frame of a source, which must have the particles of its system."""
    if not source.n_frames:
        raise InputError(f"{source.path} has no frames of system '{name}'", remedy="leave it out, or sample it anew")
    frame = next(iter(source.frames(range(1))))
    if len(frame.positions) not in (size, atoms):
        raise InputError(
            f"the frames of {source.path} have {len(frame.positions)} atoms, system '{name}' has {size}",
            remedy="give frames of this system; virtual sites may be left out",
        )
    return frame


def _check(path: Path, frame: Frame, boxed: bool) -> None:
    numbers = [frame.positions, *([frame.box] if boxed and frame.box is not None else [])]
    if boxed and frame.box is None:
        raise InputError(f"{path}, frame {frame.row} has no box, unlike the first", remedy="leave such frames out")
    if not all(np.all(np.isfinite(part)) for part in numbers):
        raise InputError(f"{path}, frame {frame.row} holds what is no finite number", remedy="leave such frames out")
