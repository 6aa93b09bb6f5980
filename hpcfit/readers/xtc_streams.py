"""The compressed coordinates of an XTC frame, followed bit by bit before libmdaxdr decodes them.

libmdaxdr believes what it reads: a damaged frame makes it read behind the end, or write there. The format is that of
xdrf of van Hoesel and van der Spoel: an atom by its place in the bounds of all, then a run of atoms by small
differences, whose width in bits may change by one from run to run.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

import numpy as np

FIRST, LAST = 9, 72  # widths of small differences that there are
HEAD = struct.Struct(">f3i3ii")


class Stream(NamedTuple):
    """The head of compressed coordinates. least, largest: integers [3] that all coordinates times `precision` (1/nm)
    lie within; small: the width of the first differences."""

    precision: float
    least: np.ndarray
    largest: np.ndarray
    small: int

    @property
    def wide(self) -> int:
        """Bits of an atom that is given by its place."""
        sizes = [int(one) for one in self.largest - self.least + 1]
        if max(sizes) > 0xFFFFFF:
            return sum(size.bit_length() for size in sizes)
        return (sizes[0] * sizes[1] * sizes[2]).bit_length()


def check_stream(file: BinaryIO, n_atoms: int, length: int) -> Stream:
    """The head of a frame's coordinates, which begin here. length: bytes of the number that says how many bytes follow.

    Raises ValueError unless just these atoms follow in just these bytes; struct.error where the head is cut.
    """
    precision, *bounds, small = HEAD.unpack(file.read(HEAD.size))
    (n_bytes,) = struct.unpack(">q" if length == 8 else ">i", file.read(length))
    head = Stream(precision, np.array(bounds[:3], np.int64), np.array(bounds[3:], np.int64), small)
    if not (np.isfinite(precision) and precision > 0 and np.all(head.largest >= head.least) and FIRST <= small <= LAST):
        raise ValueError(
            f"its coordinates have the precision {precision:g}, bounds {bounds[:3]} to {bounds[3:]} and width {small}"
        )
    data = np.frombuffer(file.read(n_bytes), np.uint8)
    bits = _follow()(data, n_atoms, head.wide, small)
    if bits < 0 or -(-bits // 8) != n_bytes:
        raise ValueError(f"its {n_bytes} bytes of coordinates are not those of {n_atoms} atoms")
    return head


def check_bounds(head: Stream, positions: np.ndarray) -> None:
    """Raise ValueError unless decoded positions [n, 3] (nm) lie within the bounds of their frame."""
    found = np.asarray(positions, float) * head.precision
    slack = 1 + np.abs(found) * 2.0**-22  # positions are float32
    wrong = np.any((found < head.least - slack) | (found > head.largest + slack), axis=1)
    if wrong.any():
        raise ValueError(f"atom {np.argmax(wrong)} is decoded outside of the frame's bounds")


@functools.cache
def _follow() -> Callable[[np.ndarray, int, int, int], int]:
    """A compiled function: the bits that so many atoms take, -1 where they take more than there are."""
    import numba

    @numba.njit
    def follow(data, n, wide, small):
        end, place, atoms, run = 8 * data.size, 0, 0, 0
        while atoms < n:
            place += wide
            if place >= end:
                return -1
            flag = (data[place >> 3] >> (7 - (place & 7))) & 1
            place += 1
            shift = 0
            if flag:
                if place + 5 > end:
                    return -1
                run = 0
                for k in range(place, place + 5):
                    run = 2 * run + ((data[k >> 3] >> (7 - (k & 7))) & 1)
                place += 5
                shift = run % 3 - 1
                run -= run % 3
            place += run // 3 * small
            atoms += 1 + run // 3
            small += shift
            if place > end or small < FIRST or small > LAST:
                return -1
        return place if atoms == n else -1

    return follow
