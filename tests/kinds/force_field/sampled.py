"""Systems that OpenMM samples: dimers whose mean length is known in closed form, and liquid argon."""

from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from hpcfit.testsystems import argon

DIMERS, MASS, TEMPERATURE, STIFF, LENGTH = 6, 20.0, 300.0, 20000.0, 0.15  # amu, K, kJ/mol/nm^2, nm
MEAN_LENGTH = """
import jax.numpy as jnp

def mean(x, box):
    return jnp.mean(jnp.linalg.norm(x[0::2] - x[1::2], axis=1))
"""
ROUNDS = f"""
[run]
directory = "run"
report = false
[simulate]
replicas = 2
frames = 200
interval = 0.1
equilibration = 2.0
step = 0.002
friction = 5.0
platform = "Reference"
minimize = false
[cluster]
workers = 1
dashboard = "127.0.0.1:0"
[problem]
kind = "force-field"
estimator = "reweighting"
windows = 8
[[problem.parameter]]
name = "bond.length"
transform = "log"
scale = 0.01
prior = 0.5
[[problem.system]]
name = "dimers"
system = "dimers.xml"
topology = "dimers.pdb"
temperature = {TEMPERATURE}
[[problem.system.observable]]
name = "length"
observable = "own"
function = "lengths.py:mean"
values = {{mean}}
sigma = 0.0001
"""


def write_dimers(folder: Path) -> Path:
    """Dimers of bonds alone, whose length is 3 % off in the System; the path of a config of rounds."""
    system, bonds, topology = openmm.System(), openmm.HarmonicBondForce(), app.Topology()
    chain, places = topology.addChain(), []
    for number in range(DIMERS):
        residue = topology.addResidue("DIM", chain)
        for place in range(2):
            system.addParticle(MASS)
            topology.addAtom(f"A{place}", app.element.neon, residue)
            places.append([number, 0.0, LENGTH * place])
        bonds.addBond(2 * number, 2 * number + 1, 1.03 * LENGTH, STIFF)
    system.addForce(bonds)
    _write(folder, "dimers", system, topology, places)
    (folder / "lengths.py").write_text(MEAN_LENGTH)
    (folder / "rounds.toml").write_text(ROUNDS.format(mean=mean_length(LENGTH)))
    return folder / "rounds.toml"


def mean_length(length: float) -> float:
    """<r> of r^2 exp(-k (r - length)^2 / 2 kT), nm."""
    kT = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin) * TEMPERATURE
    # The moments of a Gaussian: <r^2> = l^2 + s, <r^3> = l^3 + 3 l s; the share of r < 0 is e^-400.
    variance = kT / STIFF
    return (length**3 + 3 * length * variance) / (length**2 + variance)


def write_argon(folder: Path, name: str, epsilon: float) -> None:
    """64 atoms of liquid argon as a System with this epsilon, and their start."""
    system, force, topology = openmm.System(), openmm.NonbondedForce(), app.Topology()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.7)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(0.6)
    chain = topology.addChain()
    for _ in range(argon.N):
        system.addParticle(argon.MASS)
        force.addParticle(0.0, 0.34, epsilon)
        topology.addAtom("AR", app.element.argon, topology.addResidue("AR", chain))
    system.addForce(force)
    system.setDefaultPeriodicBoxVectors(*argon.box())
    topology.setPeriodicBoxVectors(argon.box() * unit.nanometer)
    _write(folder, name, system, topology, argon.lattice())


def _write(folder: Path, name: str, system, topology, places) -> None:
    (folder / f"{name}.xml").write_text(openmm.XmlSerializer.serialize(system))
    with open(folder / f"{name}.pdb", "w") as file:
        app.PDBFile.writeFile(topology, np.array(places) * unit.nanometer, file)
