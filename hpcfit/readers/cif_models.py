"""The models of a mmCIF file as frames, in the order of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.physics.scattering import orthogonalization
from hpcfit.readers.boundary import reading
from hpcfit.readers.cells import cell_or_none
from hpcfit.readers.pdb_columns import element_named
from hpcfit.readers.tables import number, strict_number
from hpcfit.store.frame import NOT_PERIODIC, PERIODIC, Frame

COLUMNS = ["type_symbol", "label_atom_id", "label_comp_id", "Cartn_x", "Cartn_y", "Cartn_z", "?pdbx_PDB_model_num"]


class Models(NamedTuple):
    """The T models of a file: the elements of their n atoms, positions [T, n, 3] A, and the box [3, 3] A, or None."""

    elements: tuple[str, ...]
    positions: np.ndarray
    box: np.ndarray | None


def models_of(path: Path) -> Models:
    """The models of a mmCIF file, kept while they are in use; raises as `read_models`."""
    return _models(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _models(path: Path, _modified: int) -> Models:
    return read_models(path)


def read_models(path: Path) -> Models:
    """The models of a mmCIF file. Raises InputError where they are of different atoms, or have no elements."""
    import gemmi

    with reading(f"trajectory {path} cannot be read as mmCIF", "check that it is whole"):
        block = gemmi.cif.read(str(path)).sole_block()
        table = block.find("_atom_site.", COLUMNS)
        if not len(table):
            raise ValueError("it has no atoms: no loop of _atom_site")
        models: dict[str, list] = {}
        for row in table:
            models.setdefault(row.str(6) if row.has(6) else "1", []).append([row.str(column) for column in range(6)])
        cell = cell_of_block(block)
        first, *others = models.items()
        for name, rows in others:
            _compare(path, first, (name, rows))
        positions = np.array([[[strict_number(word) for word in row[3:]] for row in rows] for rows in models.values()])
    elements = tuple(element_named(row[0]) for row in first[1])
    if "" in elements:
        raise InputError(
            f"{path} has no element for atom {elements.index('')}", remedy="write it into _atom_site.type_symbol"
        )
    return Models(elements, positions, None if cell is None else orthogonalization(cell).T)


CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")


def cell_of_block(block: Any) -> tuple[float, ...] | None:
    """The cell (A, degrees) of a block of mmCIF; None where it has none, or that of 1 x 1 x 1 A, which says so.

    Raises ValueError where some of its six numbers are missing, or are none: gemmi passes over such a cell.
    """
    import gemmi

    found = {name: block.find_value(f"_cell.{name}") for name in CELL}
    if all(value is None or gemmi.cif.is_null(value) for value in found.values()):
        return None
    numbers = {name: None if value is None else number(gemmi.cif.as_string(value)) for name, value in found.items()}
    wrong = [name for name, value in numbers.items() if value is None or not value > 0]
    if wrong:
        raise ValueError(f"_cell.{wrong[0]} is {found[wrong[0]] or 'missing'}, where a positive number is to stand")
    return cell_or_none(tuple(numbers.values()))


def _compare(path: Path, first: tuple[str, list], other: tuple[str, list]) -> None:
    (name_a, a), (name_b, b) = first, other
    if len(a) != len(b):
        what = f"{len(b)} atoms, model {name_a} has {len(a)}"
    elif [row[:3] for row in a] != [row[:3] for row in b]:
        at = next(n for n, (x, y) in enumerate(zip(a, b)) if x[:3] != y[:3])
        what = f"{' '.join(b[at][:3])} as atom {at}, model {name_a} has {' '.join(a[at][:3])}"
    else:
        return
    raise InputError(f"{path}: model {name_b} has {what}", remedy="give models of the same atoms, in one order")


def frames(path: Path, rows: range) -> Iterator[Frame]:
    """The models of these rows."""
    found = models_of(path)
    for row in rows:
        pbc = NOT_PERIODIC if found.box is None else PERIODIC
        yield Frame(row, found.positions[row], box=found.box, pbc=pbc)
