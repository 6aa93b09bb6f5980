"""Small OpenMM Systems with constraints: waters with SETTLE, ethane with constrained bonds of hydrogen, TIP4P."""

import numpy as np

from hpcfit.energies.systems import LoadedSystem, from_system
from tests.energies.openmm_cases import waters

CH, CC, TETRAHEDRAL = 0.109, 0.153, 1.9106


def settled(number: int, field: str = "tip3p.xml"):
    """(System, topology, positions nm) of up to 8 rigid waters without a box."""
    from openmm import Vec3, app, unit

    topology, positions = waters(number, 2, 0.62)
    forces = app.ForceField(field)
    modeller = app.Modeller(topology, unit.Quantity([Vec3(*place) for place in positions], unit.nanometer))
    modeller.addExtraParticles(forces)
    system = forces.createSystem(modeller.topology)
    return system, modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer))


def ethane():
    """The same of ethane, staggered; angles and the bond of carbons vibrate, all hydrogens meet by charges and LJ."""
    import openmm

    system, bonds, angles, pairs = (
        openmm.System(), openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.NonbondedForce(),
    )  # fmt: skip
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
    for force in (bonds, angles, pairs):
        system.addForce(force)
    return system, None, _staggered()


def _staggered() -> np.ndarray:
    along, across = -CH * np.cos(TETRAHEDRAL), CH * np.sin(TETRAHEDRAL)
    turns = 2 * np.pi * np.arange(3) / 3
    ring = lambda turn: across * np.stack([np.cos(turn), np.sin(turn)], 1)  # noqa: E731
    hydrogens = [
        np.column_stack([ring(turns), np.full(3, -along)]),
        np.column_stack([ring(turns + np.pi / 3), np.full(3, CC + along)]),
    ]
    return np.concatenate([[[0, 0, 0], [0, 0, CC]], *hydrogens])


RIGID = {
    "SETTLE": lambda: settled(3),
    "SHAKE": ethane,
    "TIP4P": lambda: settled(2, "tip4pew.xml"),
}


def loaded(made) -> tuple[LoadedSystem, np.ndarray]:
    """The System as an energy, and its positions on the constraints."""
    system, topology, positions = made
    found = from_system(system, topology)
    return found, np.asarray(found.constraints.positions(positions, positions, found.parameters))
