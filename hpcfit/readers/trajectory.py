"""Frames from simulations: structure factors of a trajectory by density FFT."""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.physics.scattering import DensityFFT, FFTError, fractional_coordinates, orthogonalization
from hpcfit.readers.positions import has_elements, open_positions, snapshots
from hpcfit.store.files import sha256_of_file
from hpcfit.store.frame import Frame
from hpcfit.store.pieces import check_finished, pieces_digest
from hpcfit.store.reference import Reflections
from hpcfit.store.snapshot import Snapshot, Topology

LARGEST_BOX_CHANGE = 0.05  # relative; more is another supercell or another unit, not constant pressure


class Scattering(NamedTuple):
    """How structure factors are computed: on the store's reflections, to d_min (A), on a grid finer by oversampling."""

    reflections: Reflections
    d_min: float
    oversampling: float

    @property
    def box(self) -> tuple[float, ...]:
        """The cell of the supercell."""
        lengths = np.multiply(self.reflections.cell[:3], self.reflections.ndiv)
        return (*map(float, lengths), *self.reflections.cell[3:])


@dataclass(frozen=True)
class TrajectorySource:
    """One trajectory, a file or a folder of pieces.

    A FrameSource once `on` told it which structure factors to compute.
    rows: the frames of the file that are used, start:stop:stride of the config. keep: of positions and forces.
    """

    name: str
    label: str
    path: Path
    topology: Topology
    rows: range
    inputs: dict[str, str]  # file -> SHA-256
    keep_positions: bool = False
    keep_forces: bool = False
    scattering: Scattering | None = None

    @property
    def n_frames(self) -> int:
        """Frames after start, stop and stride."""
        return len(self.rows)

    @property
    def digest(self) -> str:
        """SHA-256 over trajectory and topology."""
        return hashlib.sha256("".join(self.inputs.values()).encode()).hexdigest()

    def on(self, scattering: Scattering) -> TrajectorySource:
        """The same source, giving these structure factors."""
        return replace(self, scattering=scattering)

    def frames(self, start: int, stop: int) -> Iterator[Frame]:
        """Frames start to stop - 1 of `rows`, with structure factors on the store's reflections."""
        fft = self._fft()
        with contextlib.closing(snapshots(self.path, self.topology, self.rows[start:stop])) as found:
            for row, snapshot in zip(self.rows[start:stop], found, strict=True):
                yield self._frame(row, snapshot, fft)

    def _frame(self, row: int, snapshot: Snapshot, fft: DensityFFT) -> Frame:
        f_h = fft(self.fractional(row, snapshot))
        positions = snapshot.positions.astype(np.float32) if self.keep_positions else None
        if self.keep_forces and snapshot.forces is None:
            raise InputError(f"{self.path}, frame {row}: no forces", remedy="set [prepare] forces = false")
        forces = snapshot.forces if self.keep_forces else None
        return Frame(row, f_h, positions, snapshot.box, forces, snapshot.time)

    def fractional(self, row: int, snapshot: Snapshot) -> np.ndarray:
        """Fractional coordinates [N, 3] in the frame's box, or in the reference box when the frame has none."""
        if not np.all(np.isfinite(snapshot.positions)):
            atom = int(np.argwhere(~np.isfinite(snapshot.positions))[0][0])
            raise InputError(
                f"{self.path}, frame {row}: the position of atom {atom} is {snapshot.positions[atom].tolist()}",
                remedy="repair the trajectory, or leave the frame out with start, stop and stride",
            )
        box = orthogonalization(self.scattering.box).T if snapshot.box is None else snapshot.box
        _check_box(box, self.scattering.box, self.path, row)
        return fractional_coordinates(snapshot.positions, box)

    def fft_error(self, row: int, sample: int = 200) -> FFTError:
        """The error of the density FFT for one frame of `rows`, against direct summation on `sample` reflections."""
        number = self.rows[row]
        snapshot = next(iter(snapshots(self.path, self.topology, range(number, number + 1))))
        return self._fft().error(self.fractional(number, snapshot), sample)

    def _fft(self) -> DensityFFT:
        s = self.scattering
        return _density_fft(
            self.topology.elements, s.box, np.asarray(s.reflections.hkl, np.int32).tobytes(), s.d_min, s.oversampling
        )


@functools.lru_cache(maxsize=1)
def _density_fft(elements, box, hkl: bytes, d_min: float, oversampling: float) -> DensityFFT:
    # Shards of one topology follow each other; the model of a million atoms is not to be built for each.
    return DensityFFT(elements, box, np.frombuffer(hkl, np.int32).reshape(-1, 3), d_min, oversampling)


def _check_box(box, cell, path: Path, row: int) -> None:
    lengths = np.linalg.norm(box, axis=1)
    if not np.allclose(lengths, cell[:3], rtol=LARGEST_BOX_CHANGE):
        raise InputError(
            f"{path}, frame {row}: the box has lengths {np.round(lengths, 3).tolist()} A, cell x supercell has"
            f" {np.round(cell[:3], 3).tolist()} A",
            remedy="correct [prepare] cell or supercell",
        )


def open_trajectory(path: Path, topology: Path | None, label: str, frames: slice) -> TrajectorySource:
    """Open one trajectory file, with its topology where the format has no elements, cut to a range of frames.

    Raises InputError for files that are missing, damaged, of unknown format, of other atoms, or without frames.
    """
    atoms, rows = opened_rows(path, topology, frames)
    return TrajectorySource(path.name, label, path, atoms, rows, _digests(path, topology, rows))


def opened_rows(path: Path, topology: Path | Topology | None, frames: slice) -> tuple[Topology, range]:
    """Elements and cell of a trajectory, and which of its frames are used; raises as `open_trajectory`."""
    atoms, n_frames = open_positions(path, topology)
    rows = chosen_rows(path, n_frames, frames)
    if path.suffix.lower() == ".dcd":
        _check_dcd_count(path, n_frames, frames.stop)
    if path.is_dir():
        check_finished(path, frames.stop)
    _check_whole(path, atoms, rows)
    return atoms, rows


def chosen_rows(path: Path, n_frames: int, frames: slice) -> range:
    """The frames start:stop:stride of a file; InputError where there are none."""
    rows = range(n_frames)[frames]
    if not rows:
        raise InputError(
            f"{path} has {n_frames} frames; {frames.start}:{frames.stop}:{frames.step} selects none",
            remedy="correct start, stop and stride of this [[prepare.source]]",
        )
    return rows


def _digests(path: Path, topology: Path | None, rows: range) -> dict[str, str]:
    """What is read of a trajectory: file -> SHA-256. Of one in pieces, what the used frames follow from."""
    if path.is_dir():
        return {str(path): pieces_digest(path, rows[-1])}
    files = [path] if has_elements(path) else [path, topology]
    return {str(file): sha256_of_file(file) for file in files}


def _check_whole(path: Path, atoms: Topology, rows: range) -> None:
    """Find a truncated file before hours are spent on its first frames: the last frame must be readable."""
    next(iter(snapshots(path, atoms, rows[-1:])))


def _check_dcd_count(path: Path, n_frames: int, stop: int | None) -> None:
    """MDAnalysis counts the whole frames of a DCD, and so drops a last one that is cut; its header knows better."""
    header = np.fromfile(path, "<i4", 3)
    # The first word is the length of the header record, 84: it tells the byte order; NSET follows "CORD".
    announced = int(header[2] if header[0] == 84 else header.byteswap()[2])
    if announced > n_frames and (stop is None or stop > n_frames):
        raise InputError(
            f"{path} announces {announced} frames and holds {n_frames} whole ones",
            remedy=f"the file is truncated: repair it, or set stop = {n_frames} to use what there is",
        )


def trajectory_files(patterns, topology: Path | None) -> list[Path]:
    """The files that paths or globs name, sorted within each pattern; InputError for one that names none."""
    files = []
    for pattern in patterns:
        found = sorted(glob.glob(pattern)) or ([pattern] if Path(pattern).exists() else [])
        if not found:
            raise InputError(f"no trajectory at {pattern}", remedy="correct [[prepare.source]] trajectory")
        files += [Path(name) for name in found if topology is None or Path(name) != topology]
    return files
