"""Trajectories in H5MD 1.1 of any program: groups of particles, elements with steps of their own, boxes, units.

de Buyl, Colberg and Hofling, Comput. Phys. Commun. 185, 1546 (2014), 10.1016/j.cpc.2014.01.018. Every element has its
own steps; a frame is a step at which there are positions, and has the forces and the box of this step. An element that
is a dataset of its own does not change in time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from hpcfit.errors import InputError
from hpcfit.readers.boundary import reading
from hpcfit.readers.units import ENERGIES, LENGTHS
from hpcfit.store.frame import NOT_PERIODIC, PBC, Frame

SUFFIXES = (".h5", ".h5md")
TIMES = {"s": 1e12, "ms": 1e9, "us": 1e6, "ns": 1e3, "ps": 1.0, "fs": 1e-3}  # ps
_LENGTH = {"Angstrom": 1.0, "angstrom": 1.0, "A": 1.0, "nm": 10.0, "pm": 0.01, "um": 1e4, "m": 1e10} | LENGTHS
_ENERGY = {"kJ": 1.0, "J": 1e-3, "kcal": 4.184, "cal": 4.184e-3, "eV": ENERGIES["eV"], "Hartree": ENERGIES["hartree"]}
# A newton for each particle, in kJ/mol/A.
_BASES = _LENGTH | _ENERGY | {"mol": 1.0, "N": 6.02214076e10, "Newton": 6.02214076e10}


class Element(NamedTuple):
    """A quantity of the particles in a file. value: path of its dataset; steps: [T] of its rows, None where it does
    not change in time; times: [T] ps, or None; scale: to A, or kJ/mol/A."""

    value: str
    steps: np.ndarray | None
    times: np.ndarray | None
    scale: float


class Layout(NamedTuple):
    """The quantities of a group of particles. pbc: along which vectors of the box it repeats."""

    group: str
    n_atoms: int
    positions: Element
    forces: Element | None
    box: Element | None
    pbc: PBC

    @property
    def n_frames(self) -> int:
        """The steps at which there are positions."""
        return len(self.positions.steps)


def layout_of(path: Path, group: str | None) -> Layout:
    """The layout of an H5MD file; group: of its particles, needed where it has several.

    Raises InputError for a file that is no H5MD, for groups that are not there or not chosen, and for elements whose
    shapes, steps or units do not go together.
    """
    return _layout(path, group, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _layout(path: Path, group: str | None, _modified: int) -> Layout:
    if not h5py.is_hdf5(path):
        raise InputError(f"trajectory {path} is no HDF5 file", remedy="check that it is whole")
    with reading(f"trajectory {path} cannot be opened", "check that it is H5MD and whole"), h5py.File(path) as file:
        name = _chosen(path, file, group)
        particles = file[f"particles/{name}"]
        positions = _element(path, particles, "position")
        if positions is None or positions.steps is None:
            raise InputError(
                f"{path}: particles/{name} has no positions that change in time", remedy="give a file with a trajectory"
            )
        forces = _element(path, particles, "force")
        shape = file[positions.value].shape
        if forces is not None and file[forces.value].shape[1:] != shape[1:]:
            raise InputError(
                f"{path}: particles/{name} has positions {list(shape)} and forces {list(file[forces.value].shape)}",
                remedy="write both for the same particles",
            )
        box, pbc = _box(path, particles, _unit(file[positions.value]))
        return Layout(name, shape[1], positions, forces, box, pbc)


def frames(path: Path, group: str | None, rows: range) -> Iterator[Frame]:
    """The frames of these rows, one by one; raises InputError naming file and frame."""
    found = layout_of(path, group)
    steps = found.positions.steps
    with h5py.File(path) as file:
        for row in rows:
            remedy = "the file is damaged: repair it, or leave the frame out with start, stop and stride"
            with reading(f"{path}, frame {row} cannot be read", remedy):
                step = int(steps[row])
                positions = file[found.positions.value][row] * found.positions.scale
                forces = _at(file, found.forces, step)
                box = _at(file, found.box, step)
                if found.box is not None and box is None:
                    raise InputError(
                        f"{path}, frame {row} (step {step}): its box has steps {_some(found.box.steps)}, none of which"
                        " is this one",
                        remedy="write the box at every step of the positions, or choose frames with start and stride",
                    )
                if box is not None and box.ndim == 1:
                    box = np.diag(box)
            times = found.positions.times
            yield Frame(
                row, positions, forces, box, None if times is None else float(times[row]), pbc=found.pbc, step=step
            )


# ---- what the file says --------------------------------------------------------------------------------------------


def _chosen(path: Path, file: h5py.File, group: str | None) -> str:
    there = sorted(file["particles"]) if "particles" in file else []
    with_positions = [name for name in there if "position" in file[f"particles/{name}"]]
    sizes = [f"{name} ({_size(file[f'particles/{name}/position'])})" for name in with_positions]
    if group is not None and group not in with_positions:
        raise InputError(
            f"{path} has no group of particles '{group}' with positions, but {', '.join(sizes) or 'none'}",
            remedy="correct [[prepare.source]] group",
        )
    if group is None and len(with_positions) > 1:
        raise InputError(
            f"{path} has {len(with_positions)} groups of particles: {', '.join(sizes)}",
            remedy=f'choose one, for instance group = "{with_positions[0]}" in its [[prepare.source]]',
        )
    if not with_positions:
        said = f"particles/{', particles/'.join(there)} without positions" if there else "no particles"
        raise InputError(f"{path} cannot be opened: it has {said}", remedy="give a file in H5MD")
    return group or with_positions[0]


def _size(element: h5py.Group | h5py.Dataset) -> str:
    data = element if isinstance(element, h5py.Dataset) else element["value"]
    return f"{data.shape[-2]} particles" if data.ndim >= 2 else "no positions"


def _element(path: Path, group: h5py.Group, name: str) -> Element | None:
    """An element of vectors; one of other shape than [T, N, 3], or [N, 3], is an error."""
    if name not in group:
        return None
    node = group[name]
    data = node if isinstance(node, h5py.Dataset) else node["value"]
    fixed = isinstance(node, h5py.Dataset)
    if data.ndim != (2 if fixed else 3) or data.shape[-1] != 3:
        raise InputError(
            f"{path}: {data.name} has shape {list(data.shape)}; three coordinates of particles are needed",
            remedy="give a file in three dimensions",
        )
    steps, times = (None, None) if fixed else _steps(path, node, len(data))
    return Element(data.name, steps, times, _scale(path, data))


def _steps(path: Path, node: h5py.Group, n: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The steps and times (ps) of the rows of an element; a fixed distance in steps or time is one number."""
    steps = _series(path, node, "step", n)
    times = _series(path, node, "time", n)
    if steps is None:
        raise InputError(f"{path}: {node.name} has no steps", remedy="write H5MD 1.1, with a step for each value")
    steps = steps.astype(np.int64)
    if n > 1 and not np.all(np.diff(steps) > 0):
        at = int(np.argmax(np.diff(steps) <= 0))
        raise InputError(
            f"{path}: {node.name} has step {steps[at + 1]} after step {steps[at]}",
            remedy="give a file whose steps increase",
        )
    if times is not None:
        times = times * TIMES.get(_unit(node["time"]) or "ps", 1.0)
    return steps, times


def _series(path: Path, node: h5py.Group, name: str, n: int) -> np.ndarray | None:
    if name not in node:
        return None
    data = node[name]
    if data.ndim == 0:
        return np.arange(n) * data[()] + _attribute(data, "offset", 0)
    if len(data) != n:
        raise InputError(
            f"{path}: {node.name} has {n} values and {len(data)} of {name}", remedy="repair the file, or write it again"
        )
    return data[:]


def _box(path: Path, particles: h5py.Group, unit: str | None) -> tuple[Element | None, PBC]:
    """The edges of the box, in their own unit or else that of positions, and where it repeats. One that repeats along
    no vector is none."""
    if "box" not in particles:
        return None, NOT_PERIODIC
    group = particles["box"]
    said = np.atleast_1d(_attribute(group, "boundary", "none")).tolist()
    words = [one.decode() if isinstance(one, bytes) else str(one) for one in said]
    pbc = tuple(word == "periodic" for word in (words * 3 if len(words) == 1 else words)[:3])
    if not any(pbc):
        return None, NOT_PERIODIC
    if "edges" not in group:
        raise InputError(
            f"{path}: {group.name} repeats along {' '.join(words)}, and has no edges",
            remedy="repair the file, or write it again",
        )
    node = group["edges"]
    fixed = isinstance(node, h5py.Dataset)
    data = node if fixed else node["value"]
    if data.shape[(0 if fixed else 1) :] not in ((3,), (3, 3)):
        raise InputError(
            f"{path}: {data.name} has shape {list(data.shape)}; a box has three lengths, or a matrix [3, 3]",
            remedy="give a file in three dimensions",
        )
    steps, times = (None, None) if fixed else _steps(path, node, len(data))
    return Element(data.name, steps, times, _scale(path, data, unit)), pbc


def _attribute(node: h5py.Group | h5py.Dataset, name: str, default: Any) -> Any:
    """An attribute, or a default where there is none; `attrs.get` takes the default for one that is damaged, too."""
    return node.attrs[name] if name in node.attrs else default  # noqa: SIM401


def _unit(data: h5py.Dataset) -> str | None:
    unit = _attribute(data, "unit", None)
    return unit.decode() if isinstance(unit, bytes) else None if unit is None else str(unit)


def _scale(path: Path, data: h5py.Dataset, default: str | None = None) -> float:
    """The factor from the unit of a dataset to A, or kJ/mol/A: a product of powers, as `kJ mol-1 nm-1`, or with
    slashes, as `kJ/mol/nm`."""
    written = _unit(data) or default
    if written is None:
        raise InputError(
            f"{path}: {data.name} has no unit", remedy="give it the attribute unit, for instance nm or kJ mol-1 nm-1"
        )
    factor = 1.0
    for sign, part in zip([1, *[-1] * written.count("/")], written.split("/")):
        for name, power in re.findall(r"([A-Za-z]+)\s*\^?([+-]?\d+)?", part):
            if name not in _BASES:
                raise InputError(
                    f"{path}: {data.name} is in '{written}', of which '{name}' is unknown",
                    remedy=f"write it in {', '.join(sorted(_LENGTH | _ENERGY))}",
                )
            factor *= _BASES[name] ** (sign * int(power or 1))
    return factor


def _at(file: h5py.File, element: Element | None, step: int) -> np.ndarray | None:
    """The value of an element at a step, None where it has none."""
    if element is None:
        return None
    if element.steps is None:
        return file[element.value][()] * element.scale
    row = int(np.searchsorted(element.steps, step))
    if row == len(element.steps) or element.steps[row] != step:
        return None
    return file[element.value][row] * element.scale


def _some(steps: np.ndarray | None) -> str:
    shown = ", ".join(map(str, steps[:3].tolist()))
    return f"{shown}, ..., {steps[-1]}" if len(steps) > 3 else shown
