"""One made-up trajectory of three waters with forces, in every format that `hpcfit prepare` reads forces from."""

import warnings
from typing import NamedTuple

import h5py
import numpy as np
from scipy import constants

from hpcfit.physics.scattering import orthogonalization
from hpcfit.testsystems.water_dimer import write_topology

CELL = (12.0, 13.0, 14.0, 90.0, 80.0, 90.0)
ELEMENTS = ("O", "H", "H") * 3
N, T = 9, 70
WATER = np.array([[0.0, 0, 0], [0.9572, 0, 0], [-0.24, 0.9266, 0]])
# By CODATA, independently of the program's own numbers.
AVOGADRO = constants.N_A / 1000  # J -> kJ/mol
EV, HARTREE = constants.eV * AVOGADRO, constants.physical_constants["Hartree energy"][0] * AVOGADRO
BOHR = constants.physical_constants["Bohr radius"][0] * 1e10


class Truth(NamedTuple):
    """positions [T, n, 3] A, forces [T, n, 3] kJ/mol/A, box [3, 3] A, time [T] ps."""

    positions: np.ndarray
    forces: np.ndarray
    box: np.ndarray
    time: np.ndarray


def truth(frames=T, seed=3) -> Truth:
    rng = np.random.default_rng(seed)
    places = np.array([[1.0, 2, 3], [5, 6, 7], [9, 2, 10]])
    still = (places[:, None] + WATER).reshape(N, 3)
    positions = still + 0.05 * rng.normal(size=(frames, N, 3))
    box = np.round(orthogonalization(CELL).T, 6)
    return Truth(positions, 200 * rng.normal(size=(frames, N, 3)), box, 0.5 * np.arange(frames))


def write_md(path, what: Truth):
    """TRR, NetCDF or H5MD by MDAnalysis, which converts to the units of the format."""
    import MDAnalysis

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe.empty(N, trajectory=True, forces=True)
        options = {".h5md": {"lengthunit": "nm", "timeunit": "ps", "forceunit": "kJ/(mol*nm)"}}
        with MDAnalysis.Writer(str(path), N, **options.get(path.suffix, {})) as writer:
            for frame in range(len(what.time)):
                universe.trajectory.ts.positions = what.positions[frame]
                universe.trajectory.ts.forces = what.forces[frame]
                universe.dimensions = CELL
                universe.trajectory.ts.time, universe.trajectory.ts.frame = what.time[frame], frame
                writer.write(universe.atoms)
    return path


def write_extxyz(path, what: Truth):
    import ase.io
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator

    images = []
    for x, f in zip(what.positions, what.forces):
        atoms = Atoms(ELEMENTS, x, cell=what.box, pbc=True)
        atoms.calc = SinglePointCalculator(atoms, forces=f / EV)
        images.append(atoms)
    ase.io.write(path, images)
    return path


def write_npz(path, what: Truth):
    """In nm and kJ/mol, by names of their own."""
    np.savez(path, coords=what.positions / 10, Fs=what.forces * 10, box=what.box / 10, time=what.time)
    return path


def write_h5(path, what: Truth):
    """In bohr and hartree, by the default names; a box for each frame."""
    with h5py.File(path, "w") as file:
        file["positions"], file["forces"] = what.positions / BOHR, what.forces / HARTREE * BOHR
        file["box"], file["time"] = np.repeat(what.box[None] / BOHR, len(what.time), axis=0), what.time
    return path


def write_deepmd(folder, what: Truth, cut=40):
    """Two sets, in A and eV."""
    for number, rows in enumerate((slice(0, cut), slice(cut, None))):
        one = folder / f"set.{number:03d}"
        one.mkdir(parents=True)
        np.save(one / "coord.npy", what.positions[rows].reshape(-1, 3 * N))
        np.save(one / "force.npy", what.forces[rows].reshape(-1, 3 * N) / EV)
        np.save(one / "box.npy", np.repeat(what.box.reshape(1, 9), len(what.time[rows]), axis=0))
    (folder / "type.raw").write_text("".join(f"{'OH'.index(element)}\n" for element in ELEMENTS))
    (folder / "type_map.raw").write_text("O\nH\n")
    return folder


UNITS = 'topology = "water.pdb"\nlength_unit = "{}"\nenergy_unit = "{}"\n'
WRITERS = {
    "run.trr": (write_md, 'topology = "water.pdb"\n'),
    "run.h5md": (write_md, 'topology = "water.pdb"\n'),
    "run.extxyz": (write_extxyz, ""),
    "run.npz": (write_npz, UNITS.format("nm", "kJ/mol") + 'keys = { positions = "coords", forces = "Fs" }\n'),
    "run.h5": (write_h5, UNITS.format("bohr", "hartree")),
    "deep": (write_deepmd, ""),
}
KINDS = {"run.npz": "arrays", "run.h5": "arrays", "deep": "deepmd"}


def table(name: str, more: str | None = None) -> str:
    """The [[prepare.source]] of a file of WRITERS."""
    return (
        f'[[prepare.source]]\n{KINDS.get(name, "trajectory")} = "{name}"\n{WRITERS[name][1] if more is None else more}'
    )


def write_config(folder, *tables: str, keys="", below=""):
    """A config that prepares forces into `store`; with the topology of the waters beside it."""
    write_topology(folder / "water.pdb", 3, truth(1).positions[0], CELL)
    path = folder / "config.toml"
    prepare = f'[prepare]\ncontent = "forces"\nshard_frames = 64\n{keys}'
    path.write_text("\n".join(['[frames]\nstore = "store"', prepare, *tables, below]))
    return path
