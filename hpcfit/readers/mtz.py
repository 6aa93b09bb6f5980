"""One MTZ file: its columns, and its structure factors with the space group they are of."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError, check_is_file
from hpcfit.readers.boundary import reading
from hpcfit.readers.tables import number

# Of many programs; of Phenix; of REFMAC with the solvent.
KNOWN_COLUMNS = (
    ("FC", "PHIC"), ("FMODEL", "PHIFMODEL"), ("F-model", "PHIF-model"), ("FCALC", "PHICALC"), ("FC_ALL", "PHIC_ALL"),
)  # fmt: skip
# Types of columns of CCP4, by what they are not.
TYPES = {
    "J": "an intensity", "Q": "a standard deviation", "H": "an index", "Y": "M/ISYM", "B": "a batch number",
    "I": "an integer", "P": "a phase", "F": "an amplitude", "W": "a weight", "D": "an anomalous difference",
    "G": "an amplitude of one Friedel mate", "K": "an intensity of one Friedel mate", "A": "a phase coefficient",
    "L": "a standard deviation of one Friedel mate", "M": "a standard deviation of one Friedel mate",
}  # fmt: skip
LARGEST_INDEX = 2**15
# The words that a record of the head may begin with, by their first four letters.
RECORDS = {
    "VERS", "TITL", "NCOL", "CELL", "SORT", "SYMI", "SYMM", "RESO", "VALM", "COLU", "COLS", "COLG", "NDIF", "PROJ",
    "CRYS", "DATA", "DCEL", "DWAV", "BATC", "END",
}  # fmt: skip
AMPLITUDES, PHASES, INTENSITIES = "FGER", "PR", "JKFGER"


def open_mtz(path: Path):
    """A gemmi.Mtz of merged reflections; InputError when the file is missing, damaged, not an MTZ, or unmerged."""
    import gemmi

    check_is_file(path)
    with reading(f"{path} cannot be read as MTZ", "check the file, or leave it out"):
        _head(path)  # gemmi takes the memory that it announces
        mtz = gemmi.read_mtz_file(str(path))
    _check_head(mtz, path)
    of_rows = [column.label for column in mtz.columns if column.type in "YB"]
    if mtz.batches or of_rows:
        said = f"{len(mtz.batches)} batches" if mtz.batches else f"columns {', '.join(of_rows)}"
        raise InputError(f"{path} is unmerged ({said})", remedy="merge it first, for instance with AIMLESS")
    hkl = indices(mtz, path)
    different = len(np.unique(hkl, axis=0))
    if different < len(hkl):
        raise InputError(
            f"{path} is unmerged: {len(hkl)} rows have {different} different indices", remedy="merge it first"
        )
    return mtz


def _head(path: Path) -> list[str]:
    """The records of the head, each of 80 characters, to its end."""
    opens = gzip.open if path.suffix == ".gz" else open
    with opens(path, "rb") as file:
        first = file.read(20)
        order = ">" if first[8:9] == b"\x11" else "<"
        (start,) = struct.unpack(f"{order}i", first[4:8])  # in words of four bytes, from 1
        if start == -1:  # of a file of more than 8 GB
            (start,) = struct.unpack(f"{order}q", first[12:20])
        file.seek(4 * (start - 1))
        records = file.read().decode("ascii", "replace")
    lines = [records[k : k + 80] for k in range(0, len(records), 80)]
    found = lines[: next((k for k, line in enumerate(lines) if line.split() == ["END"]), len(lines))]
    if not found or not found[0].startswith("VERS"):
        raise ValueError(f"its head does not stand at the {start}th number, where its first bytes say")
    for said in (line.split()[1:3] for line in found if line.startswith("NCOL")):
        if not all(map(str.isdecimal, said)) or math.prod(map(int, said)) > start:
            raise ValueError(f"its head announces {' x '.join(said)} numbers and stands at the {start}th")
    return found


def _check_head(mtz, path: Path) -> None:
    """Raise InputError for a record that is none, and for a cell that gemmi did not take: it passes over both."""
    for line in _head(path):
        if line[:4].strip() not in RECORDS or not line.isprintable() or "\ufffd" in line:
            raise InputError(f"{path}: its head has the record {line.strip()!r:.70}", remedy="write the file again")
        if line.startswith("CELL"):
            cell = [number(word) for word in line.split()[1:7]]
            if len(cell) != 6 or None in cell or not np.allclose(cell, mtz.cell.parameters, rtol=1e-6):
                raise InputError(
                    f"{path}: its head has {line.strip()!r}, read as the cell {mtz.cell.parameters}",
                    remedy="write the file again",
                )


def indices(mtz, path: Path) -> np.ndarray:
    """The indices hkl [n, 3] int32, by the type of their columns, which need not be the first ones."""
    found = [one for one in mtz.columns if one.type == "H"]
    named = {one.label: one for one in found}
    chosen = [named[name] for name in "HKL"] if set("HKL") <= set(named) else found
    if len(chosen) != 3:
        raise InputError(
            f"{path} has {len(found)} columns of indices (type H): {', '.join(named) or 'none'}",
            remedy="give a file whose columns H, K and L have the type H",
        )
    hkl = np.stack([np.array(one.array, float) for one in chosen], axis=1)
    wrong = ~np.all((np.abs(hkl) <= LARGEST_INDEX) & (hkl == np.rint(hkl)), axis=1)
    if wrong.any():
        raise InputError(
            f"{path}: row {np.argmax(wrong)} has the index {hkl[wrong][0].tolist()}",
            remedy=f"indices are integers of at most {LARGEST_INDEX}: repair the file, or write it again",
        )
    return hkl.astype(np.int32)


def column(mtz, label: str, path: Path, types: str = "") -> np.ndarray:
    """A column by its label, float64; InputError that lists the columns there are, and for one of another type than
    these where any are asked for."""
    found = mtz.column_with_label(label)
    if found is None:
        raise InputError(
            f"{path} has no column '{label}'; it has {', '.join(mtz.column_labels())}",
            remedy="name one of these columns in the config",
        )
    if types and found.type not in types:
        wanted = " or ".join(f"{TYPES[one]} ({one})" for one in types if one in TYPES)
        raise InputError(
            f"{path}: column '{label}' has type {found.type}, {TYPES.get(found.type, 'another quantity')}; {wanted} is"
            " wanted",
            remedy=f"choose another of {', '.join(f'{one.label} ({one.type})' for one in mtz.columns)}",
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
    return column(mtz, pair[0], path, AMPLITUDES), column(mtz, pair[1], path, PHASES)


class MtzData(NamedTuple):
    """The reflections of a file that have numbers: hkl [n, 3] int32, amplitude [n] in electrons, phase [n] in degrees.

    space_group: extended Hermann-Mauguin symbol.
    """

    hkl: np.ndarray
    amplitude: np.ndarray
    phase: np.ndarray
    cell: tuple[float, ...]
    space_group: str

    def structure_factors(self) -> np.ndarray:
        """F [n] complex128, electrons."""
        f_h, angle = np.empty(len(self.hkl), np.complex128), np.radians(self.phase)
        f_h.real, f_h.imag = self.amplitude * np.cos(angle), self.amplitude * np.sin(angle)
        return f_h


def read_mtz(path: Path, columns: tuple[str, str] | None = None) -> MtzData:
    """The reflections of a merged MTZ file; those without amplitude or phase count as missing."""
    mtz = open_mtz(path)
    amplitude, phase = amplitude_and_phase(mtz, columns, path)
    present = np.isfinite(amplitude) & np.isfinite(phase)
    hkl = indices(mtz, path)
    if not present.all():
        hkl, amplitude, phase = hkl[present], amplitude[present], phase[present]
    return MtzData(hkl, amplitude, phase, tuple(mtz.cell.parameters), space_group_of(mtz, path))


def space_group_of(mtz, path: Path) -> str:
    """The extended symbol of the group whose operations the header lists: its name alone ('F d -3 m', 'R -3 m') says
    neither the choice of origin nor that of axes. Raises InputError where they are those of no known group."""
    import gemmi

    triplets = [record[5:].strip() for record in _head(path) if record.startswith("SYMM ")]
    with reading(f"the operations of {path} (SYMM) cannot be read", "write a standard space group into its header"):
        operations = gemmi.GroupOps(list(map(gemmi.Op, triplets)))
        group = gemmi.find_spacegroup_by_ops(operations) if triplets else mtz.spacegroup
    if group is None:
        raise InputError(
            f"{path}: '{mtz.spacegroup_name}' with {len(triplets)} operations is not a known space group",
            remedy="write a standard space group into the MTZ header, or expand the file to P1",
        )
    return group.xhm()
