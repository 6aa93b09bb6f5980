"""Pressure, density, energies and what their fluctuations tell, of the states of a simulation.

Lengths are nm, energies kJ/mol, masses amu, charges e, pressures bar. Moments are taken about a constant near the mean
of the sample, so that the variance of a large number loses no digits; averages do not depend on that constant, but for
rounding.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.columns import Column
from hpcfit.energies.constants import AVOGADRO, VACUUM
from hpcfit.energies.sites import Sites
from hpcfit.errors import InputError
from hpcfit.observables.geometry import AsAveraged, Indices
from hpcfit.observables.observable import State, fixed, observable
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.physics.internal_coordinates import separation

BAR = 1e25 / AVOGADRO  # 1 kJ/mol/nm^3 = 16.6054 bar
DENSITY = 1e24 / AVOGADRO  # 1 amu/nm^3 = 1.66054 kg/m^3


@observable
class Pressure(AsAveraged):
    """The pressure of a state, [1] bar: n kT / V - dU / dV, where box and positions are scaled together.

    molecules: the atoms of each. With them n counts molecules, and a molecule is moved by its centre of mass and not
    scaled, as it must be where its bonds are rigid; an atom in none is one of its own. Without them (an empty tuple) n
    counts atoms. No atom may be further than half the box from the first one of its molecule.
    """

    molecules: Indices = fixed()

    def of_state(self, state: State) -> Any:
        arms, moving = arms_of_molecules(self.molecules, state.masses, state.x, state.box)
        scaled = (state.x - arms, state.box)
        _, by_length = jax.jvp(state.potential, (state.x, state.box), scaled)  # dU / dlnL = 3 V dU / dV
        return BAR * ((moving * state.kT - by_length / 3) / volume(state))[None]


def arms_of_molecules(molecules: Indices, masses: Any, x: Any, box: Any) -> tuple[Any, Any]:
    """(arms [N, 3] nm from the centre of its molecule to each atom, number of molecules that have a mass), of positions
    [N, 3] nm; see ``Pressure``."""
    masses, N = jnp.asarray(masses), len(x)
    first, owner = _first_atoms(molecules, N), _owners(molecules, N)
    u = separation(x, x[first], box)
    total = jnp.zeros(N).at[owner].add(masses)
    centre = jnp.zeros((N, 3)).at[owner].add(masses[:, None] * u) / jnp.where(total > 0, total, 1.0)[:, None]
    return jnp.where(total[owner, None] > 0, u - centre[owner], 0.0), jnp.sum(total > 0)


def _first_atoms(molecules: Indices, N: int) -> np.ndarray:
    """The first atom of the molecule of each atom, [N]."""
    first = np.arange(N)
    for atoms in molecules:
        first[list(atoms)] = atoms[0]
    return first


def _owners(molecules: Indices, N: int) -> np.ndarray:
    """The number of the molecule of each atom, [N], below N."""
    return np.unique(_first_atoms(molecules, N), return_inverse=True)[1]


def volume(state: State) -> Any:
    """The volume of a periodic state, nm^3."""
    if state.box is None:
        raise InputError("a state without a box has no volume", remedy="give periodic frames with their boxes")
    return jnp.abs(jnp.linalg.det(state.box))


@observable
class Density(AsAveraged):
    """The density of a periodic state, [1] kg/m^3."""

    def of_state(self, state: State) -> Any:
        return DENSITY * (jnp.sum(jnp.asarray(state.masses)) / volume(state))[None]


@observable
class PotentialEnergy(AsAveraged):
    """The potential energy over a number of particles or molecules, [1] kJ/mol."""

    number: int = fixed()

    def of_state(self, state: State) -> Any:
        return (state.potential(state.x, state.box) / self.number)[None]


@observable
class VaporisationEnthalpy(AsAveraged):
    """The enthalpy of vaporisation U_gas - U / number + kT, [1] kJ/mol, of so many molecules of a liquid.

    gas: the mean potential energy of a molecule in the gas, kJ/mol: 0 for rigid molecules and atoms. The gas is ideal
    and the volume of the liquid is nothing beside its own.
    """

    gas: Any
    number: int = fixed()

    def of_state(self, state: State) -> Any:
        return (self.gas + state.kT - state.potential(state.x, state.box) / self.number)[None]


def enthalpy(state: State, about: Any, pressure: Any) -> Any:
    """U + p V less a constant ``about`` (kJ/mol), in kT. pressure: bar; without a box there is no p V."""
    work = 0.0 if state.box is None else pressure / BAR * volume(state)
    return (state.potential(state.x, state.box) - about + work) / state.kT


@observable
class HeatCapacity:
    """The heat capacity of a mole of molecules, [1] J/mol/K: R (degrees / 2 + var(U + p V) / kT^2) / number.

    Frames of constant volume give C_V, whatever the pressure; frames of constant pressure give C_p. about: kJ/mol, a
    constant near the mean of U + p V; pressure: bar; number: molecules; degrees: the degrees of freedom of velocities,
    three an atom less the constraints.
    """

    about: Any
    pressure: Any
    number: int = fixed()
    degrees: int = fixed()

    def of_state(self, state: State) -> Any:
        h = enthalpy(state, self.about, self.pressure)
        return jnp.stack([h, h * h])

    def of_average(self, average: Any) -> Any:
        mean, square = average
        return 1000 * GAS_CONSTANT * (0.5 * self.degrees + square - mean**2)[None] / self.number


@observable
class Compressibility:
    """The isothermal compressibility var(V) / (kT <V>), [1] 1/bar, of frames of constant pressure.

    about: nm^3, a constant near the mean volume.
    """

    about: Any

    def of_state(self, state: State) -> Any:
        v = volume(state) - self.about
        return jnp.stack([v, v / jnp.sqrt(state.kT), v * v / state.kT])

    def of_average(self, average: Any) -> Any:
        v, mean, square = average
        return (square - mean**2)[None] / (self.about + v) / BAR


@observable
class ThermalExpansion:
    """The thermal expansion cov(V, U + p V) / (k T^2 <V>), [1] 1/K, of frames of constant pressure.

    volume_about: nm^3, about: kJ/mol, constants near the means of V and of U + p V; pressure: bar.
    """

    volume_about: Any
    about: Any
    pressure: Any

    def of_state(self, state: State) -> Any:
        v, h = volume(state) - self.volume_about, enthalpy(state, self.about, self.pressure)
        per_kelvin = GAS_CONSTANT / state.kT
        return jnp.stack([v, h * per_kelvin, v * h * per_kelvin])

    def of_average(self, average: Any) -> Any:
        v, h, both = average
        return (both - v * h)[None] / (self.volume_about + v)


@observable
class DielectricConstant:
    """The static dielectric constant 1 + (<M^2> - <M>^2) / (3 eps0 <V> kT), [1], under conducting boundaries.

    charges: of each atom, e, a column of the parameters, so that it depends on those that are fitted. molecules: the
    atoms of each, made whole before their dipoles are summed; an atom in none has no dipole, so that ions do not count.
    Every molecule must be neutral (``require_neutral``). sites: the rules that place virtual sites, of the energy.
    """

    charges: Column
    sites: Sites
    molecules: Indices = fixed()

    def of_state(self, state: State) -> Any:
        x = self.sites.place(jnp.asarray(state.x))
        u = separation(x, x[_first_atoms(self.molecules, len(x))], state.box)
        dipole = self.charges.values(state.parameters) @ u
        s = dipole / jnp.sqrt(3 * VACUUM * state.kT)
        return jnp.concatenate([s, jnp.stack([jnp.sum(s * s), volume(state)])])

    def of_average(self, average: Any) -> Any:
        mean, square, held = average[:3], average[3], average[4]
        return 1 + (square - jnp.sum(mean**2))[None] / held


def require_neutral(one: DielectricConstant, parameters: Any) -> None:
    """Raise InputError for a molecule with a charge, whose dipole depends on the origin."""
    charges = np.asarray(one.charges.values(parameters))
    for number, atoms in enumerate(one.molecules):
        total = charges[list(atoms)].sum()
        if abs(total) > 1e-6:
            raise InputError(
                f"molecule {number} of a dielectric constant has the charge {total:g} e, not 0",
                remedy="leave ions out of its molecules, and constrain the charges that are fitted",
            )
