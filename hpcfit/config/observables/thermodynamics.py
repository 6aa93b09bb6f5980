"""Tables of observables of states: pressures, energies, and what fluctuations tell."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hpcfit.config.observables.measured import Atoms, Finite, Name, ObservableConfig
from hpcfit.config.table import Count


class PressureConfig(ObservableConfig):
    """The pressure at constant volume, bar. by: what moves when the box is scaled, molecules as a whole or atoms."""

    observable: Literal["pressure"]
    by: Literal["molecules", "atoms"] = "molecules"


class DensityConfig(ObservableConfig):
    """The density at constant pressure, kg/m^3."""

    observable: Literal["density"]


class MolecularConfig(ObservableConfig):
    """A quantity of a mole of molecules; number: of molecules, those of the System where it is not given."""

    number: Count | None = None


class PotentialEnergyConfig(MolecularConfig):
    """The potential energy of a mole of molecules, kJ/mol."""

    observable: Literal["potential-energy"]


class VaporisationEnthalpyConfig(MolecularConfig):
    """The enthalpy of vaporisation of a liquid to an ideal gas, kJ/mol. gas: the potential energy of a molecule in the
    gas, kJ/mol, 0 for atoms and rigid molecules; where the gas is simulated too, the enthalpy is a
    [[problem.difference]] of two potential energies."""

    observable: Literal["vaporisation-enthalpy"]
    gas: Finite = 0.0


class HeatCapacityConfig(MolecularConfig):
    """The heat capacity of a mole of molecules, J/mol/K: C_V, or C_p at constant pressure."""

    observable: Literal["heat-capacity"]


class CompressibilityConfig(ObservableConfig):
    """The isothermal compressibility at constant pressure, 1/bar."""

    observable: Literal["compressibility"]


class ThermalExpansionConfig(ObservableConfig):
    """The thermal expansion at constant pressure, 1/K."""

    observable: Literal["thermal-expansion"]


class DielectricConstantConfig(ObservableConfig):
    """The static dielectric constant under conducting boundaries.

    of: the atoms of all molecules that have a dipole, such as those of the water without ions. charges: of each atom,
    e, or the class of parameters that has them; those of the System where they are not given.
    """

    observable: Literal["dielectric-constant"]
    of: Atoms = "all"
    charges: Name | Annotated[list[Finite], Field(min_length=1)] | None = None


class FreeEnergyChangeConfig(ObservableConfig):
    """The free energy less that at the parameters given, kJ/mol; the difference of two systems, and what their own free
    energies differ by at the parameters given, is a [[problem.difference]]."""

    observable: Literal["free-energy-change"]


THERMODYNAMICS = (
    PressureConfig, DensityConfig, PotentialEnergyConfig, VaporisationEnthalpyConfig, HeatCapacityConfig,
    CompressibilityConfig, ThermalExpansionConfig, DielectricConstantConfig, FreeEnergyChangeConfig,
)  # fmt: skip
