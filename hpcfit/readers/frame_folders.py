"""Folders with a file for each frame, all XYZ, PDB or mmCIF, and the times that `mdtrajectory_export.json` has."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError, check_is_file
from hpcfit.log import inputs
from hpcfit.physics.scattering import orthogonalization
from hpcfit.readers.cif_models import read_models
from hpcfit.readers.patterns import in_natural_order, suffix_of
from hpcfit.readers.tables import strict_number
from hpcfit.store.files import sha256_of_file
from hpcfit.store.frame import NOT_PERIODIC, PERIODIC, Frame, Topology

FORMATS = (".xyz", ".pdb", ".ent", ".cif", ".mmcif")
EXPORT = "mdtrajectory_export.json"
LATTICE = re.compile(r'Lattice="([^"]*)"', re.IGNORECASE)
REPAIR = "repair the file, or leave the frame out with start, stop and stride"


class OneFrame(NamedTuple):
    """The content of a file: elements, positions [n, 3] A, and the box [3, 3] A (rows are cell vectors), or None."""

    elements: tuple[str, ...]
    positions: np.ndarray
    box: np.ndarray | None


def is_frame_folder(path: Path) -> bool:
    """True for a folder that holds files of single frames and is no trajectory of `hpcfit simulate`."""
    return path.is_dir() and not (path / "settings.json").exists() and any(_named(path))


def _named(path: Path) -> Iterator[Path]:
    return (file for file in path.iterdir() if suffix_of(file) in FORMATS)


def frame_files(path: Path) -> list[Path]:
    """The files of a folder, numbers in their names by value. Raises InputError where formats are mixed."""
    files = in_natural_order(_named(path))
    other = next((file for file in files if suffix_of(file) != suffix_of(files[0])), None)
    if other is not None:
        raise InputError(
            f"{path} has frames of two formats: {files[0].name} and {other.name}",
            remedy="keep the frames of one trajectory in one folder, in one format",
        )
    return files


def open_frame_folder(path: Path) -> tuple[Topology, int]:
    """The elements of all frames, those of the first one, and how many frames there are."""
    files = frame_files(path)
    return Topology(read_frame(files[0]).elements, None), len(files)


def folder_frames(path: Path, rows: range, elements: tuple[str, ...]) -> Iterator[Frame]:
    """The frames `rows` of a folder; a row is the number of a file. Raises InputError for one of other atoms."""
    files = frame_files(path)
    times = _export_times(path, files)
    for row in rows:
        found = read_frame(files[row])
        if found.elements != elements:
            differs = next((n for n, (a, b) in enumerate(zip(found.elements, elements)) if a != b), None)
            what = (
                f"{len(found.elements)} atoms, {files[0].name} has {len(elements)}" if differs is None
                else f"{found.elements[differs]} as atom {differs}, {files[0].name} has {elements[differs]}"
            )  # fmt: skip
            raise InputError(
                f"{files[row]} has {what}", remedy="give frames of the same atoms throughout, in one order"
            )
        pbc = NOT_PERIODIC if found.box is None else PERIODIC
        time = None if times is None else times[row]
        yield Frame(row, found.positions, box=found.box, time=time, file=str(files[row]), pbc=pbc)


def folder_digest(path: Path) -> str:
    """SHA-256 over the names and bytes of all frames, and of the file of times."""
    files = frame_files(path) + [one for one in (path / EXPORT,) if one.exists()]
    return hashlib.sha256("".join(f"{one.name} {sha256_of_file(one)}\n" for one in files).encode()).hexdigest()


def _export_times(path: Path, files: list[Path]) -> list[float] | None:
    """Times (ps) of all files by the export's file, which lies in the folder; None without one that covers all."""
    export = path / EXPORT
    if not export.exists():
        return None
    try:
        written = json.loads(export.read_text(encoding="utf-8"))["written_frames"]
        told = [(Path(one["filename"]).name, float(one["time_fs"])) for one in written
                if one.get("time_fs") is not None]  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise InputError(f"{export} cannot be read: {error!r}", remedy="repair it, or remove it") from None
    times: dict[str, float] = {}
    for name, time in told:
        if not math.isfinite(time) or times.get(name, time / 1000) != time / 1000:
            before = f", before that {1000 * times[name]:g}" if name in times else ""
            raise InputError(f"{export}: time_fs of {name} is {time:g}{before}", remedy="repair it, or remove it")
        times[name] = time / 1000
    missing = [file.name for file in files if file.name not in times]
    if missing:
        inputs.warning("%s has no time of %d of %d frames, %s among them: its times are not used", export, len(missing),
                       len(files), missing[0])  # fmt: skip
        return None
    return [times[file.name] for file in files]


def read_frame(path: Path) -> OneFrame:
    """Read a file of one frame. Raises InputError that names file and line."""
    check_is_file(path)
    if suffix_of(path) in (".cif", ".mmcif"):
        found = read_models(path)
        return OneFrame(found.elements, found.positions[0], found.box)
    opens = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opens(path, "rt", encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", remedy=REPAIR) from None
    return _pdb(path, lines) if suffix_of(path) in (".pdb", ".ent") else _xyz(path, lines)


def _xyz(path: Path, lines: list[str]) -> OneFrame:
    first = lines[0].strip() if lines else ""
    if not first.isdecimal() or int(first) < 1:
        raise InputError(f"{path}, line 1: '{first[:60]}' is no number of atoms", remedy=REPAIR)
    n = int(first)
    if len(lines) < n + 2 or any(line.strip() for line in lines[n + 2 :]):
        there = max(sum(bool(line.strip()) for line in lines[2:]), 0)
        raise InputError(f"{path}, line 1 announces {n} atoms, the file has {there} lines of atoms", remedy=REPAIR)
    elements, places = [], []
    for number, line in enumerate(lines[2 : n + 2], 3):
        words = line.split()
        places.append(_numbers(path, number, line, words[1:4]))
        elements.append(_element(path, number, line, words[0]))
    lattice = LATTICE.search(lines[1])
    box = None if lattice is None else np.array(_numbers(path, 2, lines[1], lattice[1].split(), 9)).reshape(3, 3)
    return OneFrame(tuple(elements), np.array(places), box)


def _pdb(path: Path, lines: list[str]) -> OneFrame:
    elements, places, box = [], [], None
    for number, line in enumerate(lines, 1):
        if line.startswith("CRYST1"):
            cell = _numbers(path, number, line, [line[a:b] for a, b in
                            ((6, 15), (15, 24), (24, 33), (33, 40), (40, 47), (47, 54))], 6)  # fmt: skip
            box = orthogonalization(cell).T if min(cell[:3]) > 1 else None
        elif line.startswith(("ATOM", "HETATM")):
            places.append(_numbers(path, number, line, [line[30:38], line[38:46], line[46:54]]))
            elements.append(_element(path, number, line, line[76:78].strip() or line[12:14].strip()))
        elif line.startswith("ENDMDL"):
            break
    if not elements:
        raise InputError(f"{path} has no atoms", remedy=REPAIR)
    return OneFrame(tuple(elements), np.array(places), box)


def _numbers(path: Path, number: int, line: str, words: list[str], count: int = 3) -> list[float]:
    try:
        found = [strict_number(word) for word in words]
    except ValueError:
        found = []
    if len(found) != count or not np.all(np.isfinite(found)):
        raise InputError(f"{path}, line {number}: '{line.strip()[:60]}' has not {count} finite numbers", remedy=REPAIR)
    return found


def _element(path: Path, number: int, line: str, word: str) -> str:
    name = word.capitalize()
    if not re.fullmatch(r"[A-Z][a-z]?", name):
        raise InputError(f"{path}, line {number}: '{line.strip()[:60]}' names no element", remedy=REPAIR)
    return name
