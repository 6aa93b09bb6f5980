"""One frame, as every reader of a file gives it and every shard takes it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

PBC = tuple[bool, bool, bool]
NOT_PERIODIC: PBC = (False, False, False)
PERIODIC: PBC = (True, True, True)
FAR = 1e4  # A


class Frame(NamedTuple):
    """One frame as its file has it, in A, ps and kJ/mol; None stands for what the file does not hold.

    row: its number in the file, from 0. positions: [n, 3]. forces: [n, 3], without those of constraints. box: [3, 3],
    the file's own matrix, whose rows are the cell vectors; pbc: along which of them the system repeats. step: of the
    simulation. structure_factors: [H] complex128, electrons, in the store's order of reflections. file: the file it is
    from, where that is not the source's own (a folder of MTZ files).
    """

    row: int
    positions: np.ndarray | None = None
    forces: np.ndarray | None = None
    box: np.ndarray | None = None
    time: float | None = None
    file: str = ""
    pbc: PBC = NOT_PERIODIC
    step: int | None = None
    structure_factors: np.ndarray | None = None


def opened_box(box: np.ndarray, pbc: PBC) -> np.ndarray:
    """Boxes [..., 3, 3] whose vectors are FAR long where they do not repeat: for all that takes a box as one that
    repeats along all of its vectors, so that nothing meets an image of its own there."""
    lengths = np.linalg.norm(np.asarray(box, float), axis=-1)
    return box * np.where(pbc, 1.0, FAR / lengths)[..., None]


class Topology(NamedTuple):
    """Elements of the n atoms, which no frame changes, and the cell of the box (A, degrees) if the file has one;
    space_group: that it names, or ""."""

    elements: tuple[str, ...]
    cell: tuple[float, ...] | None
    space_group: str = ""
