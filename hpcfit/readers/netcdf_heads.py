"""The head of a NetCDF file (classic or 64-bit offsets), compared with the bytes that are there.

SciPy, by which MDAnalysis reads AMBER's files, takes the records to follow the first variable that has some, wherever
the head says that the others lie.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8}  # of a number, by its type
DIMENSIONS, VARIABLES, ATTRIBUTES = 10, 11, 12
MOST = 10_000  # dimensions, variables, attributes or characters of a name


def check_head(path: Path) -> None:
    """Raise ValueError or struct.error unless all variables lie in the file, those of records one behind another."""
    with open(path, "rb") as file:
        magic = file.read(4)
        if magic[:3] != b"CDF" or magic[3:] not in (b"\x01", b"\x02"):
            raise ValueError(f"it begins with {magic!r}, not with CDF and version 1 or 2")
        records = _take(file, ">i")
        dimensions = _listed(file, DIMENSIONS, lambda: (_name(file), _take(file, ">i"))[1])
        _listed(file, ATTRIBUTES, lambda: _attribute(file))
        wide = ">i" if magic[3] == 1 else ">q"
        variables = _listed(file, VARIABLES, lambda: _variable(file, dimensions, wide))
    _check_places(variables, records, path.stat().st_size)


def _check_places(variables: list[tuple[str, bool, int, int]], records: int, size: int) -> None:
    """variables: name, whether it has records, bytes (of one record) and where it begins."""
    for name, has_records, n_bytes, begin in variables:
        if not has_records and not 0 < begin <= begin + n_bytes <= size:
            raise ValueError(f"{name} lies from byte {begin} to {begin + n_bytes} of {size}")
    of_records = [one for one in variables if one[1]]
    place = of_records[0][3] if of_records else 0
    for name, _, n_bytes, begin in of_records:
        if begin != place:
            raise ValueError(f"{name} begins at byte {begin}, where the one before it ends at {place}")
        place += n_bytes if len(of_records) == 1 else -(-n_bytes // 4) * 4
    if of_records and records >= 0:
        begin = of_records[0][3]
        end = begin + records * (place - begin) - (place - of_records[-1][3] - of_records[-1][2])
        if not 0 < begin <= end <= size and records:
            raise ValueError(f"its {records} records end at byte {end} of {size}")


def _variable(file: BinaryIO, dimensions: list[int], wide: str) -> tuple[str, bool, int, int]:
    name = _name(file)
    of = [_take(file, ">i") for _ in range(_count(file))]
    _listed(file, ATTRIBUTES, lambda: _attribute(file))
    kind, _, begin = _take(file, ">i"), _take(file, ">i"), _take(file, wide)
    if kind not in BYTES or not all(0 <= one < len(dimensions) for one in of):
        raise ValueError(f"{name} has type {kind} and dimensions {of}")
    sizes = [dimensions[one] for one in of]
    has_records = bool(sizes) and sizes[0] == 0
    return name, has_records, BYTES[kind] * math.prod(sizes[has_records:]), begin


def _attribute(file: BinaryIO) -> None:
    name, kind, n = _name(file), _take(file, ">i"), _take(file, ">i")
    if kind not in BYTES or n < 0:
        raise ValueError(f"attribute {name} has {n} values of type {kind}")
    file.seek(-(-BYTES[kind] * n // 4) * 4, 1)


def _listed(file: BinaryIO, tag: int, each: Callable[[], Any]) -> list:
    found, n = _take(file, ">i"), _count(file)
    if found not in (0, tag) or (n and not found):
        raise ValueError(f"a list begins with {found}, where {tag} is to stand")
    return [each() for _ in range(n)]


def _name(file: BinaryIO) -> str:
    n = _count(file)
    return file.read(-(-n // 4) * 4)[:n].decode("utf-8")


def _count(file: BinaryIO) -> int:
    n = _take(file, ">i")
    if not 0 <= n <= MOST:
        raise ValueError(f"there are {n} of something")
    return n


def _take(file: BinaryIO, kind: str) -> int:
    return struct.unpack(kind, file.read(struct.calcsize(kind)))[0]
