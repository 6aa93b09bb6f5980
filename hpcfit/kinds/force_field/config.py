"""Tables of [problem] that several estimators of kind "force-field" have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from hpcfit.config.observables.experiments import CurveConfig
from hpcfit.config.observables.measured import Finite, Length, Name, Number, OneOrMore, Vector
from hpcfit.config.table import (
    FilePath,
    Kelvin,
    Positive,
    Share,
    Table,
    check_are_unique,
    file_of_function,
    function_beside_config,
    relative_to_config,
)
from hpcfit.errors import InputError, nearest

EnergyUnit = Literal["kJ/mol", "kcal/mol", "eV", "hartree"]
FORCE_UNITS = [f"{energy}/{length}" for energy in get_args(EnergyUnit) for length in get_args(Length)]


class ParameterConfig(Table):
    """A parameter that may move: a class of them (`lj.sigma`), or one entry of a class (`lj.sigma:HOH.O`).

    transform: "log" moves its logarithm, which keeps its sign. bounds: [low, high], between which it stays; a logistic
    function of what moves. prior: the standard deviation of a Gaussian around the start, of the logarithm where that
    moves, and of what moves between bounds, in units that are those of the parameter at the start. scale: the change
    that an optimizer takes for one; the prior where there is one. net_charge: of charges, what their moves leave as it
    is: the net charge of each of the "molecules", unless another is said, that of each of the "residues" of the
    topology, that of each "system", or none ("free").
    """

    name: Name
    transform: Literal["linear", "log"] = "linear"
    bounds: Annotated[list[Finite], Field(min_length=2, max_length=2)] | None = None
    prior: Positive | None = None
    scale: Positive | None = None
    net_charge: Literal["molecules", "residues", "system", "free"] | None = None

    @model_validator(mode="after")
    def _bounds(self) -> ParameterConfig:
        if self.bounds is not None and self.transform == "log":
            raise ValueError(f"parameter '{self.name}' has bounds, and transform = 'log': give one of them")
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"parameter '{self.name}': bounds = {self.bounds} are not [low, high]")
        return self


class MovingCurveConfig(CurveConfig):
    """A Karplus curve of couplings, which several observables may share.

    prior: of one that is fitted, the root mean square over the circle of the change that is expected, Hz.
    """

    prior: Positive | None = None

    @model_validator(mode="after")
    def _fitted_by_a_prior(self) -> MovingCurveConfig:
        if self.fitted != (self.prior is not None):
            raise ValueError(
                f"curve '{self.name}': `prior` holds the change of a curve that is fitted: give both, or neither"
            )
        return self


class EnergyConfig(Table):
    """A system with its energy, and where it starts.

    Either ``system``, a System that OpenMM serialized, with a ``topology`` that names its atoms; or ``energy``, a
    function of one's own of (positions, parameters, box), with parameters and masses. positions: .npy, [N, 3] or
    [n, N, 3], nm; without it those of the topology. box: nm, of one's own energy.
    """

    name: Name
    system: FilePath | None = None
    topology: FilePath | None = None
    energy: str | None = None
    parameters: dict[str, OneOrMore] = {}
    masses: Positive | Annotated[list[Positive], Field(min_length=1)] | None = None
    positions: FilePath | None = None
    box: Vector | Annotated[list[Vector], Field(min_length=3, max_length=3)] | None = None

    _paths = field_validator("system", "topology", "positions")(
        lambda path, info: None if path is None else relative_to_config(path, info)
    )

    _function = field_validator("energy")(
        lambda name, info: None if name is None else function_beside_config(name, info)
    )

    @model_validator(mode="after")
    def _one_energy(self) -> EnergyConfig:
        if (self.system is None) == (self.energy is None):
            raise ValueError(f"system '{self.name}' needs `system` or `energy`: give just one of them")
        own = {"parameters": self.parameters or None, "masses": self.masses, "box": self.box}
        for key, value in own.items() if self.system is not None else ():
            if value is not None:
                raise ValueError(f"system '{self.name}': `{key}` has no effect, {self.system} has its own")
        if self.energy is not None and not (self.parameters and self.masses is not None and self.positions):
            raise ValueError(f"system '{self.name}': an energy of one's own needs `parameters`, `masses`, `positions`")
        if self.positions is None and self.topology is None:
            raise ValueError(f"system '{self.name}' starts nowhere: give `topology` (PDB, mmCIF) or `positions` (.npy)")
        return self

    @property
    def files(self) -> dict[str, Path]:
        """The input files, by key; that of a function of one's own too."""
        found = {"system": self.system, "topology": self.topology, "positions": self.positions}
        found["energy"] = file_of_function(self.energy or "")
        return {key: path for key, path in found.items() if path is not None}


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
    temperature: Kelvin | None = None
    cutoff: Positive | None = None
    held_out: bool | Share | Annotated[list[Number], Field(min_length=1)] = False

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


def check_is_asked(name: str, solver: str) -> None:
    """Raise InputError for an optimizer that is named beside a ``solver`` which is not "optimizer"."""
    if solver != "optimizer" and name != "lbfgs":
        raise InputError(
            f"[optimizer] name = '{name}' has no effect on [problem] solver = '{solver}'",
            remedy="set solver = 'optimizer', or leave the name out",
        )
