"""Systems that cannot be computed: one error each, that names what is wrong and what to do."""

import logging

import numpy as np
import pytest

from hpcfit.energies.systems import from_system
from hpcfit.errors import InputError
from hpcfit.log import logger


def system_of(*forces, atoms: int = 2, edge: float = 3.0):
    import openmm

    system = openmm.System()
    for _ in range(atoms):
        system.addParticle(1.0)
    system.setDefaultPeriodicBoxVectors([edge, 0, 0], [0, edge, 0], [0, 0, edge])
    for force in forces:
        system.addForce(force)
    return system


def nonbonded(method: str, cutoff: float = 0.9):
    import openmm

    force = openmm.NonbondedForce()
    force.setNonbondedMethod(getattr(openmm.NonbondedForce, method))
    force.setCutoffDistance(cutoff)
    for _ in range(2):
        force.addParticle(0.1, 0.3, 0.5)
    return force


def unsupported():
    import openmm

    return system_of(openmm.GayBerneForce())


def lennard_jones_pme():
    return system_of(nonbonded("LJPME"))


def small_box():
    return system_of(nonbonded("PME"), edge=1.7)


def offsets():
    force = nonbonded("NoCutoff")
    force.addGlobalParameter("scale", 0.5)
    force.addParticleParameterOffset("scale", 0, 0.1, 0.0, 0.0)
    return system_of(force)


def computed_values():
    import openmm

    force = openmm.CustomNonbondedForce("v1*v2/r")
    force.addPerParticleParameter("a")
    force.addComputedValue("v", "a^2")
    for _ in range(2):
        force.addParticle([1.0])
    return system_of(force)


def unread_site():
    import openmm

    system = system_of(atoms=3)
    system.setParticleMass(2, 0.0)
    system.setVirtualSite(2, openmm.SymmetrySite(0, [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.1, 0, 0], False))
    return system


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (unsupported, "has a GayBerneForce"),
        (lennard_jones_pme, "uses LJPME"),
        (small_box, "1.7 nm wide, less than twice the cut-off of 0.9 nm"),
        (offsets, "has parameter offsets"),
        (computed_values, "has computed values"),
        (unread_site, "particle 2 is a virtual site that hpcfit does not place"),
    ],
)
def test_what_cannot_be_computed_is_one_error(make, words):
    with pytest.raises(InputError) as error:
        from_system(make())
    assert words in str(error.value)
    assert error.value.remedy


def test_what_has_no_energy_is_passed_over_with_a_line(caplog, monkeypatch):
    import openmm

    monkeypatch.setattr(logger, "propagate", True)
    system = system_of(openmm.CMMotionRemover(), openmm.MonteCarloBarostat(1.0, 300.0))
    with caplog.at_level(logging.INFO, logger="hpcfit"):
        loaded = from_system(system, source="water.xml")
    assert loaded.energy.terms == ()
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "CMMotionRemover of water.xml has no energy and is passed over",
        "MonteCarloBarostat of water.xml has no energy and is passed over",
    ]


def test_parameters_that_the_system_has_not_are_one_error():
    loaded = from_system(system_of(nonbonded("NoCutoff")))
    with pytest.raises(InputError, match=r"no parameters lj.sigmas(.|\n)*did you mean 'lj.sigma'"):
        loaded.to_system({"lj.sigmas": np.ones(1)})
    with pytest.raises(InputError, match=r"lj.sigma has 1 entries in the System, not 2"):
        loaded.to_system({"lj.sigma": np.ones(2)})


def test_positions_of_another_number_of_atoms_are_one_error():
    loaded = from_system(system_of(nonbonded("NoCutoff")))
    with pytest.raises(InputError, match="the System has 2 particles, but the positions are those of 3"):
        loaded.require_positions(np.zeros((3, 3)))
    with pytest.raises(InputError, match=r"positions have the shape \(2, 2\)"):
        loaded.require_positions(np.zeros((2, 2)))
    loaded.require_positions(np.zeros((2, 3)))
