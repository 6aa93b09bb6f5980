"""Frames from MTZ files: one file a frame, expanded to P1, on the reflections that all files have."""

from __future__ import annotations

import functools
import glob
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.data.frame import Frame
from hpcfit.data.reference import Reflections
from hpcfit.errors import InputError
from hpcfit.physics import reciprocal

KNOWN_COLUMNS = (("FC", "PHIC"), ("FMODEL", "PHIFMODEL"), ("F-model", "PHIF-model"), ("FCALC", "PHICALC"))
ONE_CELL = (1, 1, 1)


def open_mtz(path: Path):
    """A gemmi.Mtz; InputError when the file is missing, damaged or not an MTZ."""
    import gemmi

    try:
        return gemmi.read_mtz_file(str(path))
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as MTZ: {error}", remedy="check the file, or leave it out") from None


def column(mtz, label: str, path: Path) -> np.ndarray:
    """A column by its label, float64; InputError that lists the columns there are."""
    found = mtz.column_with_label(label)
    if found is None:
        raise InputError(
            f"{path} has no column '{label}'; it has {', '.join(mtz.column_labels())}",
            remedy="name one of these columns in the config",
        )
    return np.array(found.array, np.float64)


def amplitude_and_phase(mtz, given: tuple[str, str] | None, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes (electrons) and phases (degrees) from the columns given, or from the first known pair."""
    labels = mtz.column_labels()
    pair = given or next((pair for pair in KNOWN_COLUMNS if set(pair) <= set(labels)), None)
    if pair is None:
        known = "; ".join(",".join(pair) for pair in KNOWN_COLUMNS)
        raise InputError(
            f"{path} has no amplitude and phase columns ({known}); it has {', '.join(labels)}",
            remedy="set columns = ['amplitude', 'phase'] in this [[prepare.source]]",
        )
    return column(mtz, pair[0], path), column(mtz, pair[1], path)


class MtzData(NamedTuple):
    """The reflections of a file that have numbers: hkl [n, 3] int32, F [n] complex128, electrons."""

    hkl: np.ndarray
    structure_factors: np.ndarray
    cell: tuple[float, ...]
    space_group: str  # extended Hermann-Mauguin symbol


def read_mtz(path: Path, columns: tuple[str, str] | None = None) -> MtzData:
    """Structure factors of a merged MTZ file; reflections without amplitude or phase count as missing."""
    mtz = open_mtz(path)
    amplitude, phase = amplitude_and_phase(mtz, columns, path)
    present = np.isfinite(amplitude) & np.isfinite(phase)
    f_h = amplitude[present] * np.exp(1j * np.radians(phase[present]))
    hkl = np.asarray(mtz.make_miller_array(), np.int32)[present]
    return MtzData(hkl, f_h, tuple(mtz.cell.parameters), _space_group(mtz, path))


def _space_group(mtz, path: Path) -> str:
    """The group whose operations the header lists: its name alone ('F d -3 m') does not say the choice of origin."""
    import gemmi

    raw = path.read_bytes()
    header = raw[raw.rfind(b"VERS MTZ") :].decode("ascii", "replace")
    records = (header[i : i + 80] for i in range(0, len(header), 80))
    triplets = [record[5:].strip() for record in records if record.startswith("SYMM ")]
    group = gemmi.find_spacegroup_by_ops(gemmi.GroupOps(list(map(gemmi.Op, triplets)))) if triplets else mtz.spacegroup
    if group is None:
        raise InputError(
            f"{path}: '{mtz.spacegroup_name}' with {len(triplets)} operations is not a known space group",
            remedy="write a standard space group into the MTZ header, or expand the file to P1",
        )
    return group.xhm()


class Expansion(NamedTuple):
    """How a list of reflections becomes one hemisphere of P1: F(hkl) = F_file[row] * factor, conjugate if flipped."""

    hkl: np.ndarray
    row: np.ndarray
    factor: np.ndarray
    flipped: np.ndarray

    def apply(self, f_h) -> np.ndarray:
        """F [H] complex128 of the hemisphere."""
        f_h = f_h[self.row] * self.factor
        return np.where(self.flipped, f_h.conj(), f_h)


def expansion(hkl, space_group: str) -> Expansion:
    """All images of reflections under a space group, in one hemisphere, each once, without 000.

    An operation x' = R x + t of the crystal gives F(R^T h) = F(h) exp(-2 pi i h . t).
    """
    import gemmi

    hkl, images, factors = np.asarray(hkl, np.int64).reshape(-1, 3), [], []
    for op in gemmi.find_spacegroup_by_name(space_group).operations().sym_ops:
        images.append(hkl @ (np.array(op.rot) // op.DEN))
        factors.append(np.exp(-2j * np.pi * (hkl @ np.array(op.tran)) / op.DEN))
    canonical, flipped = reciprocal.hemisphere(np.concatenate(images))
    _, first = np.unique(reciprocal.packed(canonical), return_index=True)
    first = first[np.any(canonical[first] != 0, axis=1)]
    return Expansion(canonical[first], first % len(hkl), np.concatenate(factors)[first], flipped[first])


@functools.lru_cache(maxsize=4)
def _expansion_of_bytes(hkl: bytes, space_group: str) -> Expansion:
    # The files of a folder mostly hold one and the same list, so that its expansion is made once.
    return expansion(np.frombuffer(hkl, np.int32).reshape(-1, 3), space_group)


def expanded(data: MtzData) -> tuple[np.ndarray, np.ndarray]:
    """The reflections of a file in one hemisphere of P1: (hkl [H, 3], F [H] complex128)."""
    plan = _expansion_of_bytes(data.hkl.tobytes(), data.space_group)
    return plan.hkl, plan.apply(data.structure_factors)


@dataclass(frozen=True)
class MtzSource:
    """A folder or glob of MTZ files, one frame each. A FrameSource once `on` gave it the store's reflections."""

    name: str
    label: str
    path: Path
    files: tuple[Path, ...]
    columns: tuple[str, str] | None
    checksums: tuple[str, ...] = ()  # SHA-256 of each file, once they have been read
    reflections: Reflections | None = None

    @property
    def n_frames(self) -> int:
        """One frame a file."""
        return len(self.files)

    @property
    def digest(self) -> str:
        """SHA-256 over the checksums of all files, in order."""
        return hashlib.sha256("".join(self.checksums).encode()).hexdigest()

    @property
    def inputs(self) -> dict[str, str]:
        """The input and its SHA-256."""
        return {str(self.path): self.digest}

    def on(self, reflections: Reflections) -> MtzSource:
        """The same source, giving its frames on these reflections."""
        return replace(self, reflections=reflections)

    def frames(self, start: int, stop: int) -> Iterator[Frame]:
        """Frames start to stop - 1, on the reflections of the store."""
        store = np.ascontiguousarray(self.reflections.hkl, np.int32).tobytes()
        for file in self.files[start:stop]:
            yield Frame(0, self._on_store(file, store), file=str(file))

    def _on_store(self, file: Path, store: bytes) -> np.ndarray:
        data = read_mtz(file, self.columns)
        hkl, f_h = expanded(data)
        index = _matched(store, hkl.tobytes())
        if len(index) != len(self.reflections):
            raise InputError(
                f"{file} has {len(index)} of the {len(self.reflections)} reflections of the store",
                remedy="the file was changed after the store was begun: prepare into an empty folder",
            )
        return f_h[index]


@functools.lru_cache(maxsize=4)
def _matched(store: bytes, hkl: bytes) -> np.ndarray:
    wanted, found = (np.frombuffer(raw, np.int32).reshape(-1, 3) for raw in (store, hkl))
    return reciprocal.match(wanted, ONE_CELL, found, ONE_CELL)[1]


def open_mtz_source(pattern: str, label: str, columns, frames: slice) -> MtzSource:
    """The MTZ files of a folder or glob, sorted naturally (frame2 before frame10), cut to a range of frames.

    They are not read; `checksums` are for the caller to fill in.
    """
    path = Path(pattern)
    paths = path.glob("*.mtz") if path.is_dir() else map(Path, glob.glob(pattern))
    files = tuple(sorted(paths, key=_natural)[frames])
    if not files:
        raise InputError(
            f"no MTZ file at {pattern} (frames {frames.start}:{frames.stop}:{frames.step})",
            remedy="give a folder that holds *.mtz, or a glob that matches files",
        )
    stem = re.sub(r"[*?\[\]]+", "", path.stem).strip("_-.") or path.parent.name
    return MtzSource(path.name if path.is_dir() else stem, label, path, files, columns)


def _natural(path: Path) -> list:
    # Text and numbers alternate, so that like is compared with like.
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]
