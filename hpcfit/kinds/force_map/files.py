"""The HDF5 files of a run of kind "force-map", written and read: maps, potentials, simulation."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.runs.files import RunFiles
from hpcfit.runs.hdf5 import opened, text, texts
from hpcfit.runs.history import AGAIN


class ForceMapRun(RunFiles):
    """The files of a run, and those that only this kind writes."""

    @functools.cached_property
    def maps(self) -> Maps:
        """The maps that metrics.json lists."""
        found, listed = read_maps(self.path("maps.h5")), [row["name"] for row in self.metrics["maps"]]
        if set(listed) != set(found.noise):
            odd = ", ".join(f"'{name}'" for name in sorted(set(listed) ^ set(found.noise)))
            raise InputError(
                f"{self.path('maps.h5')} and {self.path('metrics.json')} name different maps: only one has {odd}",
                remedy=AGAIN,
            )
        return found

    @functools.cached_property
    def potentials(self) -> Potentials:
        """The potentials of a run with force matching."""
        return read_potentials(self.path("potentials.h5"))

    @functools.cached_property
    def simulation(self) -> SimulatedBeads:
        """The free energies of a run that simulates its beads."""
        return read_simulation(self.path("simulation.h5"))


class BeadNoise(NamedTuple):
    """Mean |F|^2 of each bead of one map, [N], (kJ/mol/A)^2: of frames that it was not fitted to, with its error, and
    of those that it was fitted to. free: coefficients of each bead."""

    held_out: np.ndarray
    error: np.ndarray
    fitted: np.ndarray
    free: np.ndarray


OF_NOISE = ("held_out", "held_out_error", "fitted", "free")  # names of its datasets


class Coefficients(NamedTuple):
    """W of one map, one entry each. error: by the bootstrap, NaN where it is not known."""

    bead: np.ndarray
    atom: np.ndarray
    value: np.ndarray
    error: np.ndarray

    def datasets(self, name: str) -> dict[str, np.ndarray]:
        """The datasets of the group of that name."""
        found = {f"{name}/bead": self.bead, f"{name}/atom": self.atom, f"{name}/coefficient": self.value}
        return found if np.all(np.isnan(self.error)) else found | {f"{name}/error": self.error}


@dataclass(frozen=True)
class Maps:
    """The contents of maps.h5. noise: of each map by its name; coefficients: of those that have constant ones.

    residue: [n], the index of each atom's residue; group: [n], of its rigid group, -1 for atoms left out. M: the
    configurational map.
    """

    chosen: str
    beads: list[str]
    atoms: list[str]
    residue: np.ndarray
    residue_names: list[str]
    residue_numbers: np.ndarray
    group: np.ndarray
    M: Coefficients
    noise: dict[str, BeadNoise]
    coefficients: dict[str, Coefficients]

    def datasets(self) -> dict[str, Any]:
        """The datasets of maps.h5."""
        found = {
            "beads": self.beads, "atoms": self.atoms, "residue": self.residue, "residue_names": self.residue_names,
            "residue_numbers": self.residue_numbers, "group": self.group, **self.M.datasets("M"),
        }  # fmt: skip
        for name, noise in self.noise.items():
            found |= {f"{name}/{key}": values for key, values in zip(OF_NOISE, noise)}
        for name, one in self.coefficients.items():
            found |= one.datasets(name)
        return found

    def own_groups(self, bead: int) -> np.ndarray:
        """The rigid groups that a bead has atoms in."""
        return np.unique(self.group[self.M.atom[self.M.bead == bead]])

    def is_own(self) -> np.ndarray:
        """True where an atom is in a rigid group that a bead has atoms in, bool [N, n]."""
        return np.array([np.isin(self.group, self.own_groups(bead)) for bead in range(len(self.beads))])

    def residue_label(self, residue: int) -> str:
        """GLY 7."""
        return f"{self.residue_names[residue]} {self.residue_numbers[residue]}"


def read_maps(path: Path) -> Maps:
    """maps.h5. Raises InputError that names it."""
    with opened(path) as file:
        names = [name for name in file if name != "M" and hasattr(file[name], "keys")]
        noise = {name: BeadNoise(*(file[name][key][()] for key in OF_NOISE)) for name in names}
        constant = {name: _coefficients(file[name]) for name in names if "coefficient" in file[name]}
        return Maps(
            text(file.attrs["chosen"]), texts(file["beads"]), texts(file["atoms"]), file["residue"][()],
            texts(file["residue_names"]), file["residue_numbers"][()], file["group"][()], _coefficients(file["M"]),
            noise, constant,
        )  # fmt: skip


def _coefficients(group: Any) -> Coefficients:
    value = group["coefficient"][()]
    error = group["error"][()] if "error" in group else np.full(len(value), np.nan)
    return Coefficients(group["bead"][()], group["atom"][()], value, error)


class Potential(NamedTuple):
    """One term of a fitted force field. kind: pairs, bonds, angles or dihedrals; q: A or rad; U: kJ/mol, 0 at its
    least; error: by the jackknife over blocks; coverage: of each of its functions, how often frames were in its reach.
    """

    kind: str
    label: str
    q: np.ndarray
    U: np.ndarray
    error: np.ndarray
    dU: np.ndarray
    coverage: np.ndarray

    @property
    def samples(self) -> float:
        """The number of times that frames were in the reach of the term's functions, summed over them."""
        return float(np.sum(self.coverage))


class Exact(NamedTuple):
    """The exact mean force between two beads. r: A; U: kJ/mol; f: kJ/mol/A."""

    r: np.ndarray
    U: np.ndarray
    f: np.ndarray


class Potentials(NamedTuple):
    """The potentials of each map by term, "bonds A-B"; exact: the mean force, where it is known."""

    of_map: dict[str, dict[str, Potential]]
    exact: Exact | None

    def datasets(self) -> dict[str, np.ndarray]:
        """The datasets of potentials.h5."""
        terms = {f"{name}/{term}": one for name, terms in self.of_map.items() for term, one in terms.items()}
        found = {f"{group}/{key}": getattr(one, key) for group, one in terms.items() for key in Potential._fields[2:]}
        return found | ({f"exact/{key}": values for key, values in self.exact._asdict().items()} if self.exact else {})

    def units(self) -> dict[str, str]:
        """The units of its datasets, by their paths."""
        found = {"exact/r": "A", "exact/U": "kJ/mol", "exact/f": "kJ/mol/A"}
        for name, terms in self.of_map.items():
            for term, one in terms.items():
                unit, path = "rad" if one.kind in ("angles", "dihedrals") else "A", f"{name}/{term}"
                found |= {f"{path}/q": unit, f"{path}/dU": f"kJ/mol/{unit}"}
                found |= {f"{path}/U": "kJ/mol", f"{path}/error": "kJ/mol"}
        return found


def read_potentials(path: Path) -> Potentials:
    """potentials.h5. Raises InputError that names it."""
    with opened(path) as file:
        exact = Exact(*(file["exact"][key][()] for key in Exact._fields)) if "exact" in file else None
        of_map = {name: {term: _potential(term, file[name][term]) for term in file[name]}
                  for name in file if name != "exact"}  # fmt: skip
        return Potentials(of_map, exact)


def _potential(name: str, group: Any) -> Potential:
    kind, _, label = name.partition(" ")
    return Potential(kind, label, *(group[key][()] for key in Potential._fields[2:]))


class FreeEnergy(NamedTuple):
    """Free energies along one coordinate, kJ/mol, of the mapped frames and of the model; infinite where no frame is.

    divergence, error: how far the two distributions are apart.
    """

    name: str
    label: str
    x: np.ndarray
    reference: np.ndarray
    reference_error: np.ndarray
    model: np.ndarray
    model_error: np.ndarray
    divergence: float
    error: float

    def datasets(self) -> dict[str, Any]:
        """The datasets of its group of simulation.h5."""
        values = {key: getattr(self, key) for key in CURVES} | {"label": [self.label]}
        values["divergence"] = np.array([self.divergence, self.error])
        return {f"profile {self.name}/{key}": value for key, value in values.items()}


CURVES = ("x", "reference", "reference_error", "model", "model_error")


class Slow(NamedTuple):
    """Free energies in two slow coordinates, [nx, ny], kJ/mol, of the mapped frames and of the model."""

    edges_x: np.ndarray
    edges_y: np.ndarray
    reference: np.ndarray
    model: np.ndarray
    divergence: float
    error: float


class SimulatedBeads(NamedTuple):
    """Free energies of a simulation of the beads; slow: where there are enough beads for slow coordinates."""

    profiles: list[FreeEnergy]
    slow: Slow | None

    def datasets(self) -> dict[str, Any]:
        """The datasets of simulation.h5."""
        found = {key: values for profile in self.profiles for key, values in profile.datasets().items()}
        if self.slow is not None:
            found |= {f"tica/{key}": getattr(self.slow, key) for key in Slow._fields[:4]}
            found["tica/divergence"] = np.array([self.slow.divergence, self.slow.error])
        return found


def read_simulation(path: Path) -> SimulatedBeads:
    """simulation.h5. Raises InputError that names it."""
    with opened(path) as file:
        profiles = [_free_energy(name.removeprefix("profile "), file[name])
                    for name in file if name.startswith("profile ")]  # fmt: skip
        slow = None
        if "tica" in file:
            slow = Slow(*(file["tica"][key][()] for key in Slow._fields[:4]), *file["tica/divergence"][()])
        return SimulatedBeads(profiles, slow)


def _free_energy(name: str, group: Any) -> FreeEnergy:
    curves = (group[key][()] for key in CURVES)
    return FreeEnergy(name, texts(group["label"])[0], *curves, *(float(value) for value in group["divergence"][()]))
