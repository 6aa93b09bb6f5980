"""Systems of OpenMM that energies are compared with, and the comparison itself: energies, forces, derivatives."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.testsystems import dipeptide, water_dimer

STENCIL = {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}  # f' to fourth order
STEP = 5e-4


class Case(NamedTuple):
    """A System with its topology and positions [N, 3] nm."""

    system: object
    topology: object
    positions: np.ndarray


def _peptide(*fields: str, disturbed: float = 0.01, **options) -> Case:
    from openmm import app

    topology = dipeptide.topology(1, (40.0, 40.0, 40.0))
    positions = dipeptide.coordinates(-70.0, 40.0) / 10
    positions = positions + np.random.default_rng(3).normal(0, disturbed, positions.shape)
    system = app.ForceField(*fields).createSystem(topology, **options)
    return Case(system, topology, positions)


def _cln025(data: Path, *fields: str) -> Case:
    """Chignolin, 166 atoms; in shared data."""
    from openmm import app, unit

    pdb = app.PDBFile(str(data / "structure" / "CLN025.pdb"))
    field = app.ForceField(*fields)
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.deleteWater()
    modeller.addHydrogens(field)
    system = field.createSystem(modeller.topology)
    return Case(system, modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer)))


def _lattice(side: int, edge: float, seed: int = 0) -> np.ndarray:
    """Positions [3·side³, 3] nm of waters O H H at random orientations."""
    from scipy.spatial.transform import Rotation

    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    turns = Rotation.random(len(grid), rng=np.random.default_rng(seed)).as_matrix()
    places = np.einsum("mxy,ay->max", turns, water_dimer.molecule() / 10)
    return ((grid + 0.5) * edge / side)[:, None].repeat(3, 1).reshape(-1, 3) + places.reshape(-1, 3)


def waters(number: int, side: int = 3, edge: float = 0.99):
    """A topology of so many waters O, H1, H2, and their positions [3·number, 3] nm, on a lattice."""
    from openmm import app

    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(number):
        residue = topology.addResidue("HOH", chain)
        oxygen, *hydrogens = (
            topology.addAtom(name, app.Element.getBySymbol(name[0]), residue) for name in ("O", "H1", "H2")
        )
        for hydrogen in hydrogens:
            topology.addBond(oxygen, hydrogen)
    return topology, _lattice(side, edge)[: 3 * number]


def _water(*fields: str, side: int = 3, edge: float = 0.99, cutoff: float = 0.48, triclinic: bool = False, **options):
    from openmm import Vec3, app, unit

    topology, positions = waters(side**3, side, edge)
    tilt = 0.2 * edge if triclinic else 0.0
    topology.setPeriodicBoxVectors([Vec3(edge, 0, 0), Vec3(tilt, edge, 0), Vec3(-tilt, tilt, edge)])
    field = app.ForceField(*fields)
    modeller = app.Modeller(topology, unit.Quantity([Vec3(*place) for place in positions], unit.nanometer))
    modeller.addExtraParticles(field)
    given = {"nonbondedMethod": app.PME, "nonbondedCutoff": cutoff, **options}
    system = field.createSystem(modeller.topology, **given)
    return Case(system, modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer)))


def _lennard_jones() -> Case:
    """A mixture with charges in a triclinic box: reaction field, switch, dispersion correction."""
    import openmm

    rng = np.random.default_rng(7)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    positions = (grid + 0.5) * 0.38 + rng.normal(0, 0.02, grid.shape)
    system = openmm.System()
    edge = 4 * 0.38
    system.setDefaultPeriodicBoxVectors([edge, 0, 0], [0.3, edge, 0], [-0.2, 0.25, edge])
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.7)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(0.6)
    for number in range(len(positions)):
        system.addParticle(39.9)
        kind = number % 3
        force.addParticle([0.1, -0.1, 0.05][kind], [0.34, 0.30, 0.36][kind], [0.99, 0.5, 1.2][kind])
    system.addForce(force)
    return Case(system, None, positions)


def _bonds() -> Case:
    import openmm

    rng = np.random.default_rng(5)
    positions = rng.normal(0, 0.3, (5, 3))
    system = openmm.System()
    force = openmm.HarmonicBondForce()
    for number in range(5):
        system.addParticle(12.0)
        if number:
            force.addBond(number - 1, number, 0.15 + 0.01 * (number % 2), 2e5)
    system.addForce(force)
    system.addForce(openmm.CMMotionRemover())
    return Case(system, None, positions)


def _salt(method: str = "PME") -> Case:
    """Rock salt, its ions displaced."""
    import openmm

    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    positions = grid * 0.282 + np.random.default_rng(2).normal(0, 0.01, grid.shape)
    system = openmm.System()
    edge = 4 * 0.282
    system.setDefaultPeriodicBoxVectors([edge, 0, 0], [0, edge, 0], [0, 0, edge])
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(getattr(openmm.NonbondedForce, method))
    force.setCutoffDistance(0.55)
    for x, y, z in grid:
        sodium = (x + y + z) % 2 == 0
        system.addParticle(22.99 if sodium else 35.45)
        force.addParticle(*((1.0, 0.243, 0.366) if sodium else (-1.0, 0.448, 0.149)))
    system.addForce(force)
    return Case(system, None, positions)


def _born_field() -> Case:
    """OpenMM's own GBSAOBCForce beside a NonbondedForce with the same charges."""
    import openmm

    case = _peptide("amber14/protein.ff14SB.xml")
    nonbonded = next(force for force in case.system.getForces() if isinstance(force, openmm.NonbondedForce))
    nonbonded.setReactionFieldDielectric(1.0)
    force = openmm.GBSAOBCForce()
    for number, atom in enumerate(case.topology.atoms()):
        charge, *_ = nonbonded.getParticleParameters(number)
        radius, scale = {"H": (0.12, 0.85), "C": (0.17, 0.72), "N": (0.155, 0.79), "O": (0.15, 0.85)}[
            atom.element.symbol
        ]
        force.addParticle(charge, radius, scale)
    case.system.addForce(force)
    return case


def _rev_sim(name: str, folder: Path) -> Case:
    from openmm import app

    return _water(
        str(folder / "rev_sim" / name), nonbondedMethod=app.CutoffPeriodic, rigidWater=False, constraints=None
    )


CASES = {
    "amber14": lambda _: _peptide("amber14/protein.ff14SB.xml"),
    "amber19 with CMAP": lambda _: _peptide("amber19/protein.ff19SB.xml"),
    "charmm36 (2024)": lambda _: _peptide("charmm36_2024.xml"),
    "charmm36, CLN025": lambda data: _cln025(data, "charmm36.xml"),
    "amber19, CLN025": lambda data: _cln025(data, "amber19-all.xml"),
    "TIP3P, PME": lambda _: _water("tip3p.xml", rigidWater=False, switchDistance=0.4),
    "TIP3P, PME, triclinic": lambda _: _water("tip3p.xml", rigidWater=False, edge=1.1, triclinic=True),
    "TIP4P-Ew, PME": lambda _: _water("tip4pew.xml"),
    "TIP5P, PME": lambda _: _water("tip5p.xml"),
    "OPC, PME": lambda _: _water("opc.xml"),
    "SPC/E, PME": lambda _: _water("spce.xml"),
    "Lennard-Jones, reaction field": lambda _: _lennard_jones(),
    "OBC1": lambda _: _peptide("amber14/protein.ff14SB.xml", "implicit/obc1.xml"),
    "OBC2": lambda _: _peptide("amber14/protein.ff14SB.xml", "implicit/obc2.xml"),
    "OBC2 with salt and cut-off": lambda _: _obc_cut(),
    "GBSAOBCForce": lambda _: _born_field(),
    "GBn": lambda _: _peptide("amber14/protein.ff14SB.xml", "implicit/gbn.xml"),
    "GBn2": lambda _: _peptide("amber14/protein.ff14SB.xml", "implicit/gbn2.xml"),
    "bonds only": lambda _: _bonds(),
    "NaCl, PME": lambda _: _salt(),
    "NaCl, Ewald": lambda _: _salt("Ewald"),
    "double exponential": lambda data: _rev_sim("double_exponential.xml", data),
    "Buckingham": lambda data: _rev_sim("buckingham.xml", data),
    "soft core": lambda data: _rev_sim("lj_soft_core.xml", data),
}


def _obc_cut() -> Case:
    from openmm import app, unit

    cutoff = 0.5 * unit.nanometer
    options = {"nonbondedMethod": app.CutoffNonPeriodic, "nonbondedCutoff": cutoff, "implicitSolventKappa": 1.0}
    return _peptide("amber14/protein.ff14SB.xml", "implicit/obc2.xml", **options)


class Reference:
    """OpenMM's Reference platform, in double precision."""

    def __init__(self, system, positions, *, tolerance: float = 1e-5):
        import openmm

        self.context = openmm.Context(
            system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
        )
        self.context.setPositions(positions)
        self.context.computeVirtualSites()

    def energy(self) -> float:
        """The energy, kJ/mol."""
        from openmm import unit

        energy = self.context.getState(getEnergy=True).getPotentialEnergy()
        return energy.value_in_unit(unit.kilojoule_per_mole)

    def forces(self) -> np.ndarray:
        """The forces, [N, 3] kJ/mol/nm."""
        return self.context.getState(getForces=True).getForces(asNumpy=True)._value

    def positions(self) -> np.ndarray:
        """The positions with virtual sites in their places, [N, 3] nm."""
        return self.context.getState(getPositions=True).getPositions(asNumpy=True)._value


def along(loaded, positions, parameters, leaf: str, direction: np.ndarray) -> float:
    """OpenMM's derivative of the energy by the steps of an array of parameters along a direction, of fourth order."""
    total = 0.0
    for step, weight in STENCIL.items():
        moved = parameters | {leaf: parameters[leaf] + STEP * step * direction}
        total += weight * Reference(loaded.to_system(moved), positions).energy()
    return total / STEP
