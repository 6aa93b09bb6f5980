"""Small OpenMM Systems with constraints: waters with SETTLE or a virtual site, ethane with rigid bonds of hydrogen."""

import numpy as np

from hpcfit.energies.systems import LoadedSystem, from_system
from hpcfit.simulation.langevin import Constrained, middle
from hpcfit.testsystems import water_dimer
from tests.energies.openmm_cases import waters

CH, CC, TETRAHEDRAL = 0.109, 0.153, 1.9106
OH, HH = 0.09572, 0.15139


def settled(number: int, field: str = "tip3p.xml"):
    """(System, topology, positions nm) of up to 8 rigid waters without a box."""
    from openmm import Vec3, app, unit

    topology, positions = waters(number, 2, 0.62)
    forces = app.ForceField(field)
    modeller = app.Modeller(topology, unit.Quantity([Vec3(*place) for place in positions], unit.nanometer))
    modeller.addExtraParticles(forces)
    system = forces.createSystem(modeller.topology, removeCMMotion=False)
    return system, modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer))


def mixture():
    """(System, positions nm) of ethane, whose angles and carbons vibrate, and of a water with and one without a site.

    Atoms 0-7 are C C H H H H H H, 8-10 are O H H, 11-14 are O H H and the site.
    """
    import openmm

    system, pairs = openmm.System(), openmm.NonbondedForce()
    _ethane(system, pairs)
    _water(system, pairs, OH, HH, (-0.8340, 0.4170))
    _water(system, pairs, 1.01 * OH, 1.01 * HH, (0.0, 0.5242))
    system.addParticle(0.0)
    system.setVirtualSite(14, openmm.ThreeParticleAverageSite(11, 12, 13, 0.74, 0.13, 0.13))
    pairs.addParticle(-1.0484, 1.0, 0.0)
    for atom in (11, 12, 13):
        pairs.addException(14, atom, 0, 1, 0)
    system.addForce(pairs)
    molecule = water_dimer.molecule() / 10
    plain, turned = molecule + np.array([0.35, 0.1, 0.1]), molecule[:, [1, 2, 0]] + np.array([-0.3, 0.25, 0.1])
    return system, np.concatenate([_staggered(), plain, turned, turned[:1]])


def _ethane(system, pairs) -> None:
    import openmm

    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    for number in range(8):
        carbon = number < 2
        system.addParticle(12.011 if carbon else 1.008)
        pairs.addParticle(-0.18 if carbon else 0.06, 0.35 if carbon else 0.25, 0.27 if carbon else 0.12)
    bonds.addBond(0, 1, CC, 2.2e5)
    pairs.addException(0, 1, 0, 1, 0)
    for end, hydrogens in enumerate(([2, 3, 4], [5, 6, 7])):
        for number, one in enumerate(hydrogens):
            system.addConstraint(end, one, CH)
            angles.addAngle(one, end, 1 - end, TETRAHEDRAL, 300.0)
            pairs.addException(end, one, 0, 1, 0)
            for other in hydrogens[:number]:
                angles.addAngle(one, end, other, TETRAHEDRAL, 280.0)
                pairs.addException(one, other, 0, 1, 0)
    system.addForce(bonds)
    system.addForce(angles)


def _water(system, pairs, oh: float, hh: float, charges: tuple[float, float]) -> None:
    first = system.getNumParticles()
    for mass, charge, sigma in ((15.9994, charges[0], 0.315), (1.008, charges[1], 1.0), (1.008, charges[1], 1.0)):
        system.addParticle(mass)
        pairs.addParticle(charge, sigma, 0.64 if mass > 2 else 0.0)
    for one, other, length in ((0, 1, oh), (0, 2, oh), (1, 2, hh)):
        system.addConstraint(first + one, first + other, length)
        pairs.addException(first + one, first + other, 0, 1, 0)


def _staggered() -> np.ndarray:
    along, across = -CH * np.cos(TETRAHEDRAL), CH * np.sin(TETRAHEDRAL)
    turns = 2 * np.pi * np.arange(3) / 3
    ring = lambda turn: across * np.stack([np.cos(turn), np.sin(turn)], 1)  # noqa: E731
    hydrogens = [
        np.column_stack([ring(turns), np.full(3, -along)]),
        np.column_stack([ring(turns + np.pi / 3), np.full(3, CC + along)]),
    ]
    return np.concatenate([[[0, 0, 0], [0, 0, CC]], *hydrogens])


def loaded(system, positions) -> tuple[LoadedSystem, np.ndarray]:
    """The System as an energy, and its positions on the constraints, nm."""
    found = from_system(system)
    return found, np.asarray(found.constraints.positions(positions, positions, found.parameters))


def constrained(constraints, masses, bath, parameters, scheme=middle):
    """A step of a scheme on constraints."""
    positions = lambda moved, before: constraints.positions(moved, before, parameters)  # noqa: E731
    return Constrained(scheme(bath, masses), bath.step, positions, constraints.velocities)
