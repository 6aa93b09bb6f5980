"""Small systems for `hpcfit simulate`: alanine dipeptide with amber14, and atoms that springs hold in place."""

import json
from pathlib import Path

from hpcfit.kinds.table import load_config
from hpcfit.simulation.replicas import Replica, all_replicas
from hpcfit.store.pieces import write_settings
from hpcfit.testsystems import dipeptide

SPRING = 1000.0  # kJ/mol/nm^2
EDGE = 40.0  # A

DIPEPTIDE = """
[[simulate.system]]
name = "amber14"
topology = "dipeptide.pdb"
force_field = ["amber14/protein.ff14SB.xml"]
nonbonded = "NoCutoff"
"""
SPRINGS = '[[simulate.system]]\nname = "springs"\ntopology = "springs.pdb"\nsystem = "springs.xml"\n'


def write_config(folder: Path, system: str, **keys) -> Path:
    """A config that simulates this system; `keys` of [simulate]."""
    keys = {"directory": "trajectories", "platform": "CPU", **keys}
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    path = folder / "config.toml"
    path.write_text("\n".join(["[simulate]", *lines, system, ""]))
    return path


def write_dipeptide(folder: Path, **keys) -> Path:
    """The dipeptide in vacuum, without equilibration unless asked for; its config's path."""
    from openmm import app, unit

    with open(folder / "dipeptide.pdb", "w") as file:
        positions = dipeptide.coordinates(-80, 80) * unit.angstrom
        app.PDBFile.writeFile(dipeptide.topology(1, (30.0, 30.0, 30.0)), positions, file)
    return write_config(folder, DIPEPTIDE, **{"equilibration": 0.1, "interval": 0.02, **keys})


def write_springs(folder: Path, atoms: int = 200, **keys) -> Path:
    """Argon atoms in a periodic box, each held by a spring at its place in the PDB; its config's path."""
    import openmm
    from openmm import app, unit

    topology, system = app.Topology(), openmm.System()
    spring = openmm.CustomExternalForce(f"{SPRING / 2}*periodicdistance(x, y, z, x0, y0, z0)^2")
    for name in ("x0", "y0", "z0"):
        spring.addPerParticleParameter(name)
    chain, places = topology.addChain(), []
    for number in range(atoms):
        topology.addAtom("AR", app.element.argon, topology.addResidue("AR", chain))
        system.addParticle(39.948)
        places.append(openmm.Vec3(*divmod(number, 10), 5) * 0.2)
        spring.addParticle(number, places[-1])
    system.addForce(spring)
    vectors = [openmm.Vec3(*(EDGE / 10 * (row == column) for column in range(3))) for row in range(3)]
    system.setDefaultPeriodicBoxVectors(*vectors)
    topology.setPeriodicBoxVectors(vectors)
    (folder / "springs.xml").write_text(openmm.XmlSerializer.serialize(system))
    with open(folder / "springs.pdb", "w") as file:
        app.PDBFile.writeFile(topology, unit.Quantity(places, unit.nanometer), file)
    return write_config(folder, SPRINGS, **keys)


def replicas(config: Path, *overrides: str) -> list[Replica]:
    """The replicas of a config, with their folders begun, as `hpcfit simulate` deals them out."""
    found = all_replicas(load_config(config, overrides).simulate)
    for replica in found:
        write_settings(replica.folder, replica.settings)
    return found


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
