"""Tables of [problem] that several estimators of kind "force-field" have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from hpcfit.config.observables.measured import Length, Name, Number
from hpcfit.config.table import FilePath, Positive, Table, check_are_unique, relative_to_config
from hpcfit.errors import nearest

EnergyUnit = Literal["kJ/mol", "kcal/mol", "eV", "hartree"]
FORCE_UNITS = [f"{energy}/{length}" for energy in get_args(EnergyUnit) for length in get_args(Length)]


class GeometriesConfig(Table):
    """A set of geometries of a molecule, with their reference energies, and forces perhaps.

    file: extxyz, or .npz with `positions` [T, N, 3], `energies` [T], `forces` [T, N, 3], `elements` [N] of symbols or
    atomic numbers. energy_sigma: kJ/mol, force_sigma: kJ/mol/nm of a component, which makes forces targets too; of one
    that is not given nothing is a target. weights: of a geometry, 1, or "boltzmann": exp(-E / kT) of its energy E above
    the least of the set at ``temperature``, K. cutoff: geometries with a larger E, kJ/mol, take no part. held_out: all
    of them, a share that is drawn, or their numbers from 0: compared and never fitted.
    """

    name: Name
    molecule: Name
    file: FilePath
    length_unit: Length
    energy_unit: EnergyUnit | None = None
    force_unit: str | None = None
    energy_sigma: Positive | None = None
    force_sigma: Positive | None = None
    weights: Literal["equal", "boltzmann"] = "equal"
    temperature: Positive | None = None
    cutoff: Positive | None = None
    held_out: bool | Annotated[float, Field(gt=0, lt=1)] | Annotated[list[Number], Field(min_length=1)] = False

    _path = field_validator("file")(relative_to_config)

    @property
    def files(self) -> dict[str, Path]:
        """The file, by its key."""
        return {"file": self.file}

    @property
    def needs_energies(self) -> bool:
        """True where energies are targets, or decide what each geometry weighs."""
        return self.energy_sigma is not None or self.weights == "boltzmann" or self.cutoff is not None

    @model_validator(mode="after")
    def _targets(self) -> GeometriesConfig:
        where = f"geometries '{self.name}'"
        if self.energy_sigma is None and self.force_sigma is None:
            raise ValueError(f"{where} need energy_sigma (kJ/mol), force_sigma (kJ/mol/nm) or both")
        if self.needs_energies != (self.energy_unit is not None):
            raise ValueError(f"{where}: energy_unit goes with energy_sigma, weights and cutoff: give both or neither")
        if (self.force_sigma is None) != (self.force_unit is None):
            raise ValueError(f"{where}: force_sigma and force_unit go together")
        if self.force_unit is not None and self.force_unit not in FORCE_UNITS:
            raise ValueError(f"{where}: force_unit = '{self.force_unit}': {nearest(self.force_unit, FORCE_UNITS)}")
        if (self.weights == "boltzmann") != (self.temperature is not None):
            raise ValueError(f"{where}: weights = 'boltzmann' and temperature (K) go together")
        return self


def check_geometries(sets: Sequence[GeometriesConfig], molecules: Sequence[str]) -> None:
    """Raise ValueError for sets of geometries with one name, of no molecule, or of which none is fitted."""
    check_are_unique("[[problem.geometries]]", [one.name for one in sets])
    for one in sets:
        if one.molecule not in molecules:
            raise ValueError(f"geometries '{one.name}' are of '{one.molecule}': {nearest(one.molecule, molecules)}")
    if all(one.held_out is True for one in sets):
        raise ValueError("all geometries are held out: there is nothing to fit")
