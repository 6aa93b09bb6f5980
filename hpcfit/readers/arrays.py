"""Positions, and forces, in arrays: NumPy archives, HDF5 datasets, and folders of DeePMD-kit."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcfit.config import BLOCK_FRAMES
from hpcfit.config.frames import ArrayKeys
from hpcfit.errors import InputError, check_is_file
from hpcfit.readers.boundary import loaded_archive, loaded_array, reading
from hpcfit.readers.foreign_hdf5 import dataset, opened
from hpcfit.readers.units import Units
from hpcfit.store.files import sha256_of_file
from hpcfit.store.frame import NOT_PERIODIC, PERIODIC, Frame

HDF5 = (".h5", ".hdf5", ".hdf")


class ArrayFile(NamedTuple):
    """Arrays [T, n, 3] of positions, and of forces unless positions alone are wanted; optional box and time [T].

    box: [T, 3, 3] (rows are cell vectors), [T, 9], [T, 3] (lengths), or [3, 3], [9] or [3] for all frames. forces, box,
    time: the names of these arrays, None where there are none. elements: of an array [n] of symbols, if there is one.
    ps: of a unit of time.
    """

    path: Path
    n_frames: int
    n_atoms: int
    positions: str
    forces: str | None
    box: str | None
    time: str | None
    units: Units
    elements: tuple[str, ...] = ()
    ps: float = 1.0
    announced: int | None = None  # nor do they say more of their number than their shape

    @property
    def inputs(self) -> dict[str, str]:
        """File -> SHA-256."""
        return {str(self.path): sha256_of_file(self.path)}

    def frames(self, rows: range) -> Iterator[Frame]:
        """The frames `rows`, one by one, read in blocks."""
        for start in range(0, len(rows), BLOCK_FRAMES):
            yield from self._block(rows[start : start + BLOCK_FRAMES])

    def _block(self, rows: range) -> Iterator[Frame]:
        chosen = slice(rows.start, rows.stop, rows.step)
        positions = self.units.positions(_read(self.path, self.positions, chosen).astype(float))
        forces = [None] * len(rows)
        if self.forces is not None:
            forces = self.units.forces(_read(self.path, self.forces, chosen).astype(float))
        box = None if self.box is None else self.units.positions(self._boxes(chosen, len(rows)))
        time = None if self.time is None else _read(self.path, self.time, chosen).astype(float)
        pbc = NOT_PERIODIC if box is None else PERIODIC
        for at, row in enumerate(rows):
            when = None if time is None else float(time[at]) * self.ps
            yield Frame(row, positions[at], forces[at], None if box is None else box[at], when, pbc=pbc)

    def _boxes(self, chosen: slice, frames: int) -> np.ndarray:
        if (shape := _shape(self.path, self.box)) in ((3, 3), (9,), (3,)):
            box = self._lengths_above_0(_read(self.path, self.box, slice(None)).astype(float))
            return np.broadcast_to(np.diag(box) if shape == (3,) else box.reshape(3, 3), (frames, 3, 3))
        box = self._lengths_above_0(_read(self.path, self.box, chosen).astype(float))
        return box[:, None, :] * np.eye(3) if box.shape[1:] == (3,) else box.reshape(frames, 3, 3)

    def _lengths_above_0(self, box: np.ndarray) -> np.ndarray:
        """The array as it is. Raises InputError for lengths [3] or [T, 3] that are 0 or negative."""
        if box.shape[-1:] == (3,) and box.shape[-2:] != (3, 3) and np.any(box <= 0):
            wrong = box.reshape(-1, 3)[np.any(box.reshape(-1, 3) <= 0, axis=1)][0]
            raise InputError(
                f"{self.path}: {self.box} has a box of lengths {wrong.tolist()}, which are not all above 0",
                remedy="repair the array; without periodic boxes leave it out",
            )
        return box


def open_arrays(path: Path, keys: ArrayKeys, units: Units, n_atoms: int | None, *, forces: bool = True,
                ps: float = 1.0) -> ArrayFile:  # fmt: skip
    """Open a .npz or HDF5 file of arrays for so many atoms; None: as many as it names the elements of.

    Raises InputError for a file that cannot be read, lacks an array, or has one of another shape.
    """
    check_is_file(path, remedy="correct [[prepare.source]] arrays")
    if path.suffix.lower() not in (".npz", *HDF5):
        raise InputError(f"{path} is no file of arrays", remedy=f"give one of .npz, {', '.join(HDF5)}")
    shape = _shape(path, keys.positions)
    other = _shape(path, keys.forces) if forces else shape
    if len(shape) != 3 or shape[2] != 3 or shape != other:
        also = f", {keys.forces} has {list(other)}" if forces else ""
        raise InputError(
            f"{path}: {keys.positions} has shape {list(shape)}{also}",
            remedy="positions and forces are both [frames, atoms, 3]" if forces else "positions are [frames, atoms, 3]",
        )
    named = None if forces else _optional(path, keys, "elements")
    elements = () if named is None else _symbols(path, named)
    if n_atoms is None and not elements:
        raise InputError(
            f"{path} has no array {keys.elements}, which names the elements of its {shape[1]} atoms",
            remedy="name it in keys = { elements = ... }, or give the source a topology",
        )
    n_atoms = len(elements) if n_atoms is None else n_atoms
    if shape[1] != n_atoms:
        raise InputError(
            f"{path} has {shape[1]} atoms, its {'elements have' if elements else 'topology has'} {n_atoms}",
            remedy="give the topology of these arrays",
        )
    box, time = (_optional(path, keys, name) for name in ("box", "time"))
    allowed = {"box": [(3, 3), (9,), (3,), (shape[0], 3, 3), (shape[0], 9), (shape[0], 3)], "time": [(shape[0],)]}
    for what, name in (("box", box), ("time", time)):
        if name is not None and _shape(path, name) not in allowed[what]:
            raise InputError(
                f"{path}: {name} has shape {list(_shape(path, name))}, which is no {what} of {shape[0]} frames",
                remedy=f"write it in one of the shapes {', '.join(str(list(one)) for one in allowed[what])}",
            )
    return ArrayFile(
        path, shape[0], n_atoms, keys.positions, keys.forces if forces else None, box, time, units, elements, ps
    )


def _symbols(path: Path, name: str) -> tuple[str, ...]:
    """The elements of an array of symbols."""
    found = _read(path, name, slice(None))
    return tuple((one.decode() if isinstance(one, bytes) else str(one)).strip().capitalize() for one in found.tolist())


def _optional(path: Path, keys: ArrayKeys, name: str) -> str | None:
    """The array's name; None where the config does not name it and the file has none of the default name."""
    given = getattr(keys, name)
    return given if name in keys.model_fields_set or given in _names(path) else None


def _names(path: Path) -> Sequence[str]:
    if path.suffix.lower() in HDF5:
        with opened(path) as file:
            return list(file)
    with _archive(path) as archive:
        return archive.files


def _shape(path: Path, name: str) -> tuple[int, ...]:
    if path.suffix.lower() in HDF5:
        with opened(path) as file:
            return dataset(file, name).shape
    return _member(str(path), path.stat().st_mtime_ns, name).shape


def _read(path: Path, name: str, rows: slice) -> np.ndarray:
    if path.suffix.lower() in HDF5:
        with opened(path) as file:
            return dataset(file, name)[rows]
    return _member(str(path), path.stat().st_mtime_ns, name)[rows]


@functools.lru_cache(maxsize=4)
def _member(path: str, _modified: int, name: str) -> np.ndarray:
    """An array of an archive, which NumPy reads whole: so it is kept while its frames are in use."""
    with _archive(path) as archive:
        if name in archive.files:
            return archive[name]
        raise InputError(
            f"{path} has no array {name}; it has {', '.join(archive.files)}",
            remedy="name it in the source: keys = { positions = ..., forces = ..., box = ..., time = ... }",
        )


@contextlib.contextmanager
def _archive(path: str | Path) -> Iterator[Any]:
    """An archive, open as long as it is looked at: one that is only dropped is closed when somebody collects it."""
    with _readable(str(path)), loaded_archive(path) as archive:
        yield archive


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turns what NumPy raises for damaged files into an error with the file."""
    with reading(f"{path} cannot be read by NumPy", "check that it was written and copied whole"):
        yield


class DeepmdFolder(NamedTuple):
    """A system of DeePMD-kit: type.raw, type_map.raw and set.*/{coord,force,box}.npy. ends: of the sets, in frames."""

    path: Path
    sets: tuple[str, ...]
    ends: tuple[int, ...]
    periodic: bool
    units: Units
    elements: tuple[str, ...]
    announced: int | None = None  # arrays say no more of their number than their shape

    @property
    def n_frames(self) -> int:
        """Frames of all sets."""
        return self.ends[-1]

    @property
    def n_atoms(self) -> int:
        """Atoms."""
        return len(self.elements)

    @property
    def inputs(self) -> dict[str, str]:
        """File -> SHA-256."""
        names = ("coord.npy", "force.npy", *["box.npy"] * self.periodic)
        files = [self.path / one / name for one in self.sets for name in names]
        return {str(file): sha256_of_file(file) for file in (self.path / "type.raw", *files)}

    def frames(self, rows: range) -> Iterator[Frame]:
        """The frames `rows`, counted through the sets in their order."""
        number, arrays = -1, {}
        for row in rows:
            found = int(np.searchsorted(self.ends, row, side="right"))
            if found != number:
                number, arrays = found, {name: _npy(self.path / self.sets[found], name) for name in self._files}
            at = row - (self.ends[number - 1] if number else 0)
            values = {name: array[at].astype(float).reshape(-1, 3) for name, array in arrays.items()}
            box = self.units.positions(values["box"]) if self.periodic else None
            positions, forces = self.units.positions(values["coord"]), self.units.forces(values["force"])
            yield Frame(row, positions, forces, box, pbc=PERIODIC if self.periodic else NOT_PERIODIC)

    @property
    def _files(self) -> tuple[str, ...]:
        return ("coord", "force", "box") if self.periodic else ("coord", "force")


def open_deepmd(folder: Path, units: Units) -> DeepmdFolder:
    """Open a system of DeePMD-kit. Raises InputError that names the file that is missing, damaged or of other atoms."""
    elements = _deepmd_elements(folder)
    sets = sorted(path for path in folder.glob("set.*") if path.is_dir())
    if not sets:
        raise InputError(f"{folder} has no set.*", remedy="give a folder in the format deepmd/npy")
    periodic = not (folder / "nopbc").exists()
    widths = {"coord": 3 * len(elements), "force": 3 * len(elements), **({"box": 9} if periodic else {})}
    frames = []
    for one in sets:
        if (one / "real_atom_types.npy").exists():
            raise InputError(
                f"{one} is of the mixed format: its frames are of different systems",
                remedy="convert it to deepmd/npy, a folder for each system",
            )
        shapes = {name: _npy(one, name).shape for name in widths}
        frames.append(shapes["coord"][0])
        for name, width in widths.items():
            if shapes[name] != (frames[-1], width):
                raise InputError(
                    f"{one / name}.npy has shape {list(shapes[name])}; {frames[-1]} frames of the {len(elements)} atoms"
                    f" in {folder / 'type.raw'} have {[frames[-1], width]}",
                    remedy="give a folder whose files are of one system",
                )
    ends = tuple(itertools.accumulate(frames))
    return DeepmdFolder(folder, tuple(one.name for one in sets), ends, periodic, units, elements)


def _deepmd_elements(folder: Path) -> tuple[str, ...]:
    from ase.data import atomic_numbers

    texts = []
    for name in ("type.raw", "type_map.raw"):
        try:
            texts.append((folder / name).read_text(encoding="utf-8").split())
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{folder / name} cannot be read: {error}", remedy="give a folder in the format deepmd/npy, with both"
            ) from None
    types, known = texts
    try:
        elements = tuple(known[int(number)] for number in types if int(number) >= 0)
    except (ValueError, IndexError):
        raise InputError(
            f"{folder / 'type.raw'} has types that are none of the {len(known)} in type_map.raw",
            remedy="correct one of them: types count from 0",
        ) from None
    if len(elements) < len(types) or not elements:
        raise InputError(
            f"{folder / 'type.raw'} has {len(types)} types, {len(types) - len(elements)} of them negative",
            remedy="correct it: a type for each atom, counted from 0",
        )
    if unknown := set(elements) - atomic_numbers.keys() | {"X"} & set(elements):
        raise InputError(
            f"{folder / 'type_map.raw'}: {', '.join(sorted(unknown))} is no element",
            remedy="name each type by its element",
        )
    return elements


def _npy(folder: Path, name: str) -> np.ndarray:
    """An array [T, width] of a set, mapped and not read."""
    path = folder / f"{name}.npy"
    if name == "force" and not path.exists():
        raise InputError(f"{folder} has no forces: {path} does not exist", remedy="give sets with force.npy")
    with _readable(str(path)):
        return loaded_array(path)
