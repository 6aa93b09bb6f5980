"""Rigid water with a virtual site as a system of a config: two molecules without a box."""

from pathlib import Path

import numpy as np

from tests.simulation.rigid_systems import settled

CONFIG = """
[run]
directory = "run"
report = false
[problem]
kind = "force-field"
estimator = "pathwise"
rounds = 0
derivative_draws = 0
windows = 3
window = 0.02
frames = 2
[[problem.parameter]]
name = "constraint.length"
[[problem.parameter]]
name = "lj.epsilon:HOH.O"
[[problem.system]]
name = "water"
system = "water.xml"
topology = "water.pdb"
positions = "water.npy"
temperature = 300.0
step = 0.001
equilibration = 0.02
[[problem.system.observable]]
name = "bonds"
observable = "distances"
pairs = [[0, 1], [0, 2], [1, 2]]
values = [0.1, 0.1, 0.15]
sigma = 0.01
[[problem.system.observable]]
name = "apart"
observable = "distances"
pairs = [[0, 4], [3, 7]]
values = [0.3, 0.3]
sigma = 0.01
"""


def write_water(folder: Path) -> None:
    """The files that CONFIG names, and itself as config.toml."""
    import openmm
    from openmm import app

    system, topology, positions = settled(2, "tip4pew.xml")
    (folder / "water.xml").write_text(openmm.XmlSerializer.serialize(system))
    with (folder / "water.pdb").open("w") as file:
        app.PDBFile.writeFile(topology, 10 * positions, file)
    np.save(folder / "water.npy", positions)
    (folder / "config.toml").write_text(CONFIG)
