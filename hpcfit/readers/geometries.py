"""Geometries of a molecule with reference energies and forces, as programs of quantum chemistry give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcfit.errors import InputError, check_is_file
from hpcfit.readers.ase_files import elements_of, read_images
from hpcfit.readers.boundary import loaded_archive, reading
from hpcfit.readers.units import ENERGIES, LENGTHS

ANGSTROMS = 10.0  # in a nm


class Geometries(NamedTuple):
    """T geometries of N atoms. elements: symbols, none where the file does not say. positions: [T, N, 3] nm; energies:
    [T] kJ/mol; forces: [T, N, 3] kJ/mol/nm; None where they are not asked for."""

    elements: tuple[str, ...]
    positions: np.ndarray
    energies: np.ndarray | None
    forces: np.ndarray | None


def read_geometries(path: Path, length: str, energy: str | None, force: str | None) -> Geometries:
    """All geometries of a file, extxyz or .npz. length, energy, force: their units; of None nothing is read.

    Raises InputError for what is missing, of another shape, or not finite.
    """
    check_is_file(path, "geometries")
    wanted = ["positions", *(["energies"] if energy else []), *(["forces"] if force else [])]
    elements, found = _of_archive(path, wanted) if path.suffix == ".npz" else _of_extxyz(path, wanted)
    shape = np.shape(found["positions"])
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise InputError(f"{path}: positions have shape {list(shape)}", remedy="give [geometries, atoms, 3]")
    for name, expected in (("energies", shape[:1]), ("forces", shape)):
        if name in found and np.shape(found[name]) != expected:
            raise InputError(
                f"{path}: {name} have shape {list(np.shape(found[name]))}, positions {list(shape)}",
                remedy=f"give {name} of shape {list(expected)}",
            )
    for name, values in found.items():
        bad = np.flatnonzero(~np.all(np.isfinite(values.reshape(shape[0], -1)), axis=1))
        if len(bad):
            raise InputError(f"{path}: {name} of geometry {bad[0]} are not finite", remedy="leave this geometry out")
    if elements is not None and len(elements) != shape[1]:
        raise InputError(f"{path} has {len(elements)} elements for {shape[1]} atoms", remedy="give one an atom")
    energies = found["energies"] * ENERGIES[energy] if energy else None
    return Geometries(elements or (), found["positions"] * LENGTHS[length] / ANGSTROMS, energies, _in_nm(found, force))


def _in_nm(found: dict[str, np.ndarray], unit: str | None) -> np.ndarray | None:
    if unit is None:
        return None
    energy, _, length = unit.rpartition("/")
    return found["forces"] * (ENERGIES[energy] / LENGTHS[length] * ANGSTROMS)


def _of_archive(path: Path, wanted: list[str]) -> tuple[tuple[str, ...] | None, dict[str, np.ndarray]]:
    with (
        reading(f"geometries {path} cannot be read by NumPy", "save them by numpy.savez"),
        loaded_archive(path) as file,
    ):
        for name in wanted:
            if name not in file:
                raise InputError(f"{path} has no {name}: it has {', '.join(file)}", remedy=f"save {name} in it")
        found = {name: np.asarray(file[name], float) for name in wanted}
        return _symbols(path, file["elements"]) if "elements" in file else None, found


def _symbols(path: Path, elements: np.ndarray) -> tuple[str, ...]:
    from ase.data import chemical_symbols

    if elements.dtype.kind not in "iu":
        return tuple(map(str, elements))
    if np.any((elements < 1) | (elements >= len(chemical_symbols))):
        raise InputError(f"{path}: elements are {elements}", remedy="give symbols or atomic numbers")
    return tuple(chemical_symbols[number] for number in elements)


def _of_extxyz(path: Path, wanted: list[str]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    images = read_images(str(path), path, "extxyz", "geometries", "give extxyz, or .npz of NumPy")
    elements = elements_of(path, images, "geometry")
    return elements, {name: np.array([_of_image(path, k, image, name) for k, image in enumerate(images)], float)
                      for name in wanted}  # fmt: skip


def _of_image(path: Path, number: int, image: Any, name: str) -> np.ndarray:
    if name == "positions":
        return image.get_positions()
    key = {"energies": "energy", "forces": "forces"}[name]
    found = (image.calc.results if image.calc else {}).get(key)
    if found is None:
        known = [*(image.calc.results if image.calc else {}), *image.info, *image.arrays]
        raise InputError(
            f"{path}, geometry {number} has no {name}: it has {', '.join(known)}",
            remedy=f"write them as '{key}', the name that ASE reads them by",
        )
    return np.asarray(found)
