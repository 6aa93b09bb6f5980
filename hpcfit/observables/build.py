"""From the tables of observables in a config (``config.observables``) to observables of a system."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hpcfit.config.observables import experiments, motion, thermodynamics
from hpcfit.config.observables import geometry as tables
from hpcfit.config.observables.measured import ObservableConfig
from hpcfit.energies.own_form import load_function
from hpcfit.errors import InputError
from hpcfit.observables import free_energy, geometry, nmr, pair_distribution, scattering
from hpcfit.observables import motion as motions
from hpcfit.observables import thermodynamics as states
from hpcfit.observables.measured import measured, momentum_transfers
from hpcfit.observables.site import Site


def build(config: ObservableConfig, site: Site) -> Any:
    """The observable of a table. Raises InputError for what the system has not."""
    try:
        return BUILDERS[type(config)](config, site)
    except InputError as error:
        raise InputError(f"observable '{config.name}': {error.what}", remedy=error.remedy) from None


# ---- positions -------------------------------------------------------------------------------------------------------


def _radius_of_gyration(config: tables.RadiusOfGyrationConfig, site: Site) -> geometry.RadiusOfGyration:
    atoms = site.select(config.atoms, "atoms")
    return geometry.RadiusOfGyration(np.asarray(site.start.masses)[list(atoms)], atoms)


def _distances(config: tables.DistancesConfig, site: Site) -> geometry.Distances | nmr.NoeDistances:
    pairs = site.rows(config.pairs, "pairs")
    if config.power is None:
        return geometry.Distances(pairs)
    return nmr.NoeDistances(tuple(((i,), (j,)) for i, j in pairs), config.power, True)


def _angles(config: tables.AnglesConfig, site: Site) -> geometry.Angles:
    return geometry.Angles(site.rows(config.triples, "triples"))


def _torsion_shares(config: tables.TorsionSharesConfig, site: Site) -> geometry.TorsionShares:
    return geometry.TorsionShares(config.width, site.rows(config.quadruples, "quadruples"), config.parts)


def _coordination(config: tables.CoordinationConfig, site: Site) -> geometry.Coordination:
    return geometry.Coordination(config.r0, config.width, *_of_among(config, site))


def _radial_distribution(config: tables.RadialDistributionConfig, site: Site) -> pair_distribution.RadialDistribution:
    site.box("a radial distribution")
    return pair_distribution.RadialDistribution(np.array(config.borders), config.width, *_of_among(config, site))


def _of_among(config: Any, site: Site) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return site.select(config.of, "of"), site.select(config.among, "among")


def _powers(config: tables.PowersConfig, site: Site) -> geometry.Powers:
    site.select([config.atom], "atom")
    return geometry.Powers(config.atom, config.axis, tuple(config.powers))


def _own(config: tables.OwnConfig, site: Site) -> geometry.Own:
    return geometry.Own(load_function(config.function, "observable"))


# ---- states ----------------------------------------------------------------------------------------------------------


def _pressure(config: thermodynamics.PressureConfig, site: Site) -> states.Pressure:
    site.box("a pressure")
    if config.by == "molecules":
        return states.Pressure(tuple(molecule for molecule in site.molecules if len(molecule) > 1))
    if site.constraints:
        raise InputError(
            f"by = 'atoms' stretches the {site.constraints} constraints of the system", remedy="set by = 'molecules'"
        )
    return states.Pressure(())


def _density(config: thermodynamics.DensityConfig, site: Site) -> states.Density:
    site.varying_volume("a density")
    return states.Density()


def _number(config: thermodynamics.MolecularConfig, site: Site) -> int:
    return config.number or len(site.molecules)


def _potential_energy(config: thermodynamics.PotentialEnergyConfig, site: Site) -> states.PotentialEnergy:
    return states.PotentialEnergy(_number(config, site))


def _vaporisation(config: thermodynamics.VaporisationEnthalpyConfig, site: Site) -> states.VaporisationEnthalpy:
    return states.VaporisationEnthalpy(np.array(config.gas), _number(config, site))


def _heat_capacity(config: thermodynamics.HeatCapacityConfig, site: Site) -> states.HeatCapacity:
    pressure = site.pressure or 0.0
    return states.HeatCapacity(_enthalpy(site), np.array(pressure), _number(config, site), site.degrees)


def _enthalpy(site: Site) -> np.ndarray:
    """U + p V of the start, kJ/mol, about which moments are taken."""
    work = site.pressure * float(states.volume(site.start)) / states.BAR if site.pressure is not None else 0.0
    return np.array(site.energy + work)


def _compressibility(config: thermodynamics.CompressibilityConfig, site: Site) -> states.Compressibility:
    site.varying_volume("a compressibility")
    return states.Compressibility(np.array(states.volume(site.start)))


def _thermal_expansion(config: thermodynamics.ThermalExpansionConfig, site: Site) -> states.ThermalExpansion:
    pressure = site.varying_volume("a thermal expansion")
    return states.ThermalExpansion(np.array(states.volume(site.start)), _enthalpy(site), np.array(pressure))


def _dielectric_constant(config: thermodynamics.DielectricConstantConfig, site: Site) -> states.DielectricConstant:
    site.box("a dielectric constant")
    charges = site.column_of_charges(config.charges)
    found = states.DielectricConstant(charges, site.form.sites, site.whole_molecules(config.of, "of"))
    states.require_neutral(found, site.start.parameters)
    return found


def _free_energy_change(config: thermodynamics.FreeEnergyChangeConfig, site: Site) -> free_energy.FreeEnergyChange:
    return free_energy.FreeEnergyChange(site.form, dict(site.start.parameters), np.asarray(site.start.kT))


# ---- motions ---------------------------------------------------------------------------------------------------------


def _velocities(config: motion.VelocityAutocorrelationConfig, site: Site) -> motions.VelocityAutocorrelation:
    site.require_velocities("an autocorrelation of velocities")
    atoms = site.moving_atoms(config.atoms, "atoms")
    return motions.VelocityAutocorrelation(atoms, site.lags(config.lags, "lags"), 0)


def _positions(config: motion.PositionAutocorrelationConfig, site: Site) -> motions.PositionAutocorrelation:
    atoms = site.moving_atoms(config.atoms, "atoms")
    centre = np.asarray(site.start.x)[list(atoms)] if config.centre is None else np.array(config.centre)
    if centre.ndim == 2 and len(centre) != len(atoms):
        raise InputError(f"centre has {len(centre)} places for {len(atoms)} atoms", remedy="give one, or one of each")
    return motions.PositionAutocorrelation(centre, atoms, site.lags(config.lags, "lags"), 0)


def _displacement(config: motion.MeanSquareDisplacementConfig, site: Site) -> motions.MeanSquareDisplacement:
    atoms = site.moving_atoms(config.atoms, "atoms")
    return motions.MeanSquareDisplacement(atoms, site.lags(config.lags, "lags"), 0)


def _diffusion(config: motion.DiffusionConfig, site: Site) -> motions.Diffusion:
    return motions.Diffusion(site.moving_atoms(config.atoms, "atoms"), site.lags(config.lags, "lags"), 0)


def _diffusion_of_velocities(config: motion.DiffusionOfVelocitiesConfig, site: Site) -> motions.DiffusionOfVelocities:
    site.require_velocities("a diffusion of velocities")
    [last] = site.lags([config.last], "last")
    return motions.DiffusionOfVelocities(site.moving_atoms(config.atoms, "atoms"), last, 0)


# ---- experiments -----------------------------------------------------------------------------------------------------


def _debye(
    config: experiments.SmallAngleScatteringConfig, site: Site
) -> scattering.DebyeIntensity | scattering.ScaledIntensity:
    q, atoms = momentum_transfers(config), site.select(config.atoms, "atoms")
    elements = [site.of_elements("small-angle scattering")[atom] for atom in atoms]
    found = scattering.DebyeIntensity(q, scattering.form_factors(elements, q / 10, config.radiation), atoms)
    if config.units == "absolute":
        return found
    if len(q) < 2 + config.background:
        raise InputError(
            f"{len(q)} momentum transfers agree with whatever is calculated, but for its units",
            remedy='give more of them, or set units = "absolute"',
        )
    value, sigma, _ = measured(config, found, len(q))
    return scattering.ScaledIntensity(found, value, sigma, config.background)


def _structure_factors(
    config: experiments.StructureFactorsConfig, site: Site
) -> scattering.StructureFactors | scattering.StructureAmplitudes:
    waves = 2 * np.pi * np.array(config.hkl) @ np.linalg.inv(site.box("a structure factor")).T
    q = np.linalg.norm(waves, axis=1) / 10
    f = scattering.form_factors(site.of_elements("a structure factor"), q, config.radiation)
    kind = scattering.StructureAmplitudes if config.parts == "amplitude" else scattering.StructureFactors
    return kind(f, tuple(map(tuple, config.hkl)))


def _electron_density(config: experiments.ElectronDensityConfig, site: Site) -> scattering.ElectronDensity:
    site.box("an electron density")
    gaussians = scattering.density_gaussians(site.of_elements("an electron density"), config.blur)
    return scattering.ElectronDensity(np.array(config.points), *gaussians)


def _noe(config: experiments.NoeConfig, site: Site) -> nmr.NoeDistances:
    groups = tuple(tuple(site.select(side, "groups") for side in effect) for effect in config.groups)
    for left, right in groups:
        if set(left) & set(right):
            raise InputError(
                f"groups have atom {min(set(left) & set(right))} on both sides of an effect", remedy="correct them"
            )
    return nmr.NoeDistances(groups, config.power, config.divided)


def _couplings(config: experiments.ScalarCouplingsConfig, site: Site) -> nmr.ScalarCouplings:
    curve = None if config.curve is None else site.curves[config.curve]
    coefficients = np.array(config.coefficients if curve is None else curve.coefficients)
    offset = np.array(config.offset) + (0.0 if curve is None else curve.offset)
    for key, rows in {"coefficients": coefficients[..., 0], "offset": offset}.items():
        if rows.ndim and len(rows) != len(config.quadruples):
            raise InputError(
                f"{key} has {len(rows)} rows for {len(config.quadruples)} quadruples", remedy="give one, or one of each"
            )
    return nmr.ScalarCouplings(coefficients, offset, site.rows(config.quadruples, "quadruples"), config.curve or "")


BUILDERS: dict[type, Callable[[Any, Site], Any]] = {
    tables.RadiusOfGyrationConfig: _radius_of_gyration,
    tables.DistancesConfig: _distances,
    tables.AnglesConfig: _angles,
    tables.TorsionSharesConfig: _torsion_shares,
    tables.CoordinationConfig: _coordination,
    tables.RadialDistributionConfig: _radial_distribution,
    tables.PowersConfig: _powers,
    tables.OwnConfig: _own,
    thermodynamics.PressureConfig: _pressure,
    thermodynamics.DensityConfig: _density,
    thermodynamics.PotentialEnergyConfig: _potential_energy,
    thermodynamics.VaporisationEnthalpyConfig: _vaporisation,
    thermodynamics.HeatCapacityConfig: _heat_capacity,
    thermodynamics.CompressibilityConfig: _compressibility,
    thermodynamics.ThermalExpansionConfig: _thermal_expansion,
    thermodynamics.DielectricConstantConfig: _dielectric_constant,
    thermodynamics.FreeEnergyChangeConfig: _free_energy_change,
    motion.VelocityAutocorrelationConfig: _velocities,
    motion.PositionAutocorrelationConfig: _positions,
    motion.MeanSquareDisplacementConfig: _displacement,
    motion.DiffusionConfig: _diffusion,
    motion.DiffusionOfVelocitiesConfig: _diffusion_of_velocities,
    experiments.SmallAngleScatteringConfig: _debye,
    experiments.StructureFactorsConfig: _structure_factors,
    experiments.ElectronDensityConfig: _electron_density,
    experiments.NoeConfig: _noe,
    experiments.ScalarCouplingsConfig: _couplings,
}
