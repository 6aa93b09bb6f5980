"""Files that programs wrote, from packages of PyPI, through `hpcfit prepare`: F of a frame against gemmi's direct sum
over positions of another reader, and forces against those that it gave.

Packages are downloaded once, into $HPCFIT_TEST_CACHE or ~/.cache/hpcfit-tests; without a network the tests are skipped.
MDAnalysis and ASE read the references; compositions are those of the systems as their authors describe them.
"""

import bz2
import gzip
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from hpcfit.kinds.table import load_config
from hpcfit.prepare.command import run_prepare
from hpcfit.ranks import world_ranks
from hpcfit.readers.bonding import formula
from hpcfit.readers.boundary import quiet
from hpcfit.readers.positions import read_topology
from hpcfit.store.forces import open_force_store
from hpcfit.store.positions import read_block
from hpcfit.store.reference import restored
from hpcfit.store.structure_factors import open_store

pytestmark = [pytest.mark.nightly]
# Package: version, and where its data lie.
PACKAGES = {
    "MDAnalysisTests": ("2.11.0", "MDAnalysisTests/data"), "openmmtools": ("0.27.0", "openmmtools/data"),
    "ParmEd": ("4.3.1", "examples"), "ase": ("3.29.0", "ase/test/testdata"), "mdtraj": ("1.11.1.post2", ""),
}  # fmt: skip
CHECKED = 40  # reflections
ADK = "C1040H1685N289O320S7"
ADK_IN_WATER = "C1040H23853N289Na4O11404S7"  # with 11,084 waters of four sites and 4 Na+
DHFR = "C805H15267N216O7263S7"  # the Joint Amber-CHARMM benchmark: 159 residues and 7023 waters
COBROTOXIN = "C277H9662Cl11N97Na8O4710S8"
ALONE, SMALL = "cell = [90, 90, 90, 90, 90, 90]", "cell = [60, 60, 60, 90, 90, 90]"  # of files without a box


class Real(NamedTuple):
    """A trajectory with its topology ("": it names its elements itself), and the formula of its atoms."""

    program: str
    trajectory: str
    topology: str
    formula: str = ""
    d_min: float = 4.0
    more: str = ""
    package: str = "MDAnalysisTests"


TABLE = [
    Real("GROMACS, XTC and GRO", "adk_oplsaa.xtc", "adk_oplsaa.gro", ADK_IN_WATER, 5.0),
    Real("GROMACS, TRR and TPR", "adk_oplsaa.trr", "adk_oplsaa.tpr", ADK_IN_WATER, 5.0),
    Real("GROMACS 2024, XTC and TPR", "cobrotoxin.xtc", "cobrotoxin_2024_4.tpr", COBROTOXIN, 5.0),
    Real("CHARMM, DCD and PSF", "adk_dims.dcd", "adk.psf", ADK, 5.0, ALONE),
    Real("CHARMM 36, triclinic DCD", "tip125_tric_C36.dcd", "tip125_tric_C36.psf", "H250O125"),
    Real("NAMD, triclinic DCD", "SiN_tric_namd.dcd", "SiN_tric_namd.psf", "Cl50H2458K50N1012O1229Si746"),
    Real("NAMD, DCD without a box", "adk_gbis_tmd-fast1_NAMD.dcd", "adk_closed_NAMD.psf", ADK, 5.0, ALONE),
    Real("AMBER, NetCDF and PRMTOP", "Amber/ace_tip3p.nc", "Amber/ace_tip3p.parm7", "C2H931O465"),
    Real("AMBER, truncated octahedron", "Amber/tz2.truncoct.nc", "Amber/tz2.truncoct.parm7.bz2", "C78H3842N20O1887"),
    Real("cpptraj, NetCDF", "Amber/cpptraj_traj.nc", "Amber/cpptraj_traj.prmtop", "C30H37N6O11"),
    Real("LAMMPS, dump with elements", "lammps/mass_q_elem.lammpstrj", ""),
    Real("LAMMPS, tilted dump and data", "lammps/albite_triclinic.dump", "lammps/albite_triclinic.data", "Al17"),
    Real("LAMMPS, DCD and data", "lammps/ifabp_apo_100mM.dcd", "lammps/ifabp_apo_100mM.data.bz2", d_min=5.0),
    Real("MDAnalysis, H5MD", "cobrotoxin.h5md", "cobrotoxin.tpr", COBROTOXIN, 5.0),
    Real("models of NMR, PDB", "nmr_neopetrosiamide.pdb", "", d_min=3.0, more=SMALL),
    Real("wwPDB, mmCIF", "mmcif/1YJP.cif.gz", "", d_min=2.0),
    Real("VASP, OUTCAR", "vasp/OUTCAR_example_1", "", d_min=1.5, package="ase"),
]  # fmt: skip


@pytest.fixture(scope="session")
def package():
    """A function: the folder of a package's files, downloaded once."""
    cache = Path(os.environ.get("HPCFIT_TEST_CACHE", Path.home() / ".cache/hpcfit-tests"))

    def folder(name):
        version, data = PACKAGES[name]
        place = cache / f"{name}-{version}"
        if not place.exists():
            cache.mkdir(parents=True, exist_ok=True)
            kind = ["--only-binary", name] if name == "mdtraj" else ["--no-binary", name, "--no-build-isolation"]
            words = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *kind, "-d", str(cache / "packed")]
            done = subprocess.run([*words, f"{name}=={version}"], capture_output=True, text=True, check=False)
            found = [one for one in (cache / "packed").glob("*") if one.name.lower().startswith(name.lower())]
            if not found:
                pytest.skip(f"{name} could not be downloaded: {done.stderr.strip().splitlines()[-1:]}")
            _unpack(found[0], place)
        return place if name == "mdtraj" else next(one for one in place.iterdir() if one.is_dir()) / data

    return folder


def _unpack(archive, place):
    partly = place.with_name(place.name + ".part")
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as file:
            file.extractall(partly)
    else:
        with tarfile.open(archive) as file:
            file.extractall(partly, filter="data")
    partly.rename(place)


def file_of(root, name, folder):
    """A file of a package, in the folder where it is used, without bz2 and with the suffix of its format."""
    path, place = root / name, folder / Path(name).name
    if path.suffix == ".bz2":
        place = place.with_suffix("")
        place.write_bytes(bz2.decompress(path.read_bytes()))
    else:
        place.write_bytes(path.read_bytes())
    if place.suffix in (".lammpstrj", ".dump"):  # cut by hand for the package, without the end of the last line
        place.write_bytes(place.read_bytes().rstrip() + b"\n")
    if place.name == "posfor.top":
        place = place.rename(place.with_suffix(".prmtop"))
    return place.rename(folder / "OUTCAR") if place.name.startswith("OUTCAR") else place


def factors(folder):
    store = open_store(folder / "store")
    with store.shard(0) as shard:
        found = restored(shard.read(0, slice(0, len(store.reference.scale))), store.reference)
    return store.reference.reflections, found


def prepared(folder, real, trajectory, topology):
    more = f'd_min = {real.d_min}\ndtype = "complex64"\noversampling = 2\n{real.more}'
    lines = [f'[frames]\nstore = "store"\n[prepare]\n{more}']
    lines.append(f'[[prepare.source]]\ntrajectory = "{trajectory.name}"\nstop = 2')
    lines += [f'topology = "{topology.name}"'] if topology else []
    (folder / "config.toml").write_text("\n".join([*lines, ""]))
    run_prepare(load_config(folder / "config.toml", ()), world_ranks())


def reference_frame(trajectory, topology, n_atoms):
    """Positions and box [3, 3] of the first frame, None without: by MDAnalysis, ASE, gemmi, of a dump by its text."""
    if trajectory.name == "OUTCAR":
        import ase.io

        first = ase.io.read(trajectory, index=0, format="vasp-out")
        return first.positions, first.cell.array
    if trajectory.suffix in (".lammpstrj", ".dump"):
        return _dump(trajectory, n_atoms)
    if trajectory.name.endswith(".cif.gz"):
        import gemmi

        with gzip.open(trajectory, "rt") as file:
            block = gemmi.cif.read_string(file.read()).sole_block()
        rows = block.find("_atom_site.", ["Cartn_x", "Cartn_y", "Cartn_z"])
        box = gemmi.make_structure_from_block(block).cell.orth.mat.tolist()
        return np.array([[float(word) for word in row] for row in rows]), np.array(box).T
    from MDAnalysis.coordinates.core import reader

    with quiet():  # it warns of files without times
        first = reader(str(trajectory), **({"n_atoms": n_atoms} if topology else {}))[0]
    if first.dimensions is None or not first.dimensions[:3].all():
        return first.positions.astype(float), None
    box = first.triclinic_dimensions.astype(float)
    if (
        trajectory.name == "tip125_tric_C36.dcd"
    ):  # CHARMM's matrix is symmetric; MDAnalysis gives it another orientation
        from MDAnalysis.lib.formats.libdcd import DCDFile

        with DCDFile(str(trajectory)) as file:
            xx, xy, yy, xz, yz, zz = file.read().unitcell
        box = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return first.positions.astype(float), box


def _dump(path, n_atoms):
    lines = path.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("ITEM: ATOMS"))
    columns = lines[at].split()[2:]
    rows = sorted(
        (line.split() for line in lines[at + 1 : at + 1 + n_atoms]), key=lambda row: int(row[columns.index("id")])
    )
    bounds = np.array([[float(word) for word in line.split()] for line in lines[at - 3 : at]])
    tilts = bounds[:, 2] if bounds.shape[1] == 3 else np.zeros(3)
    xy, xz, yz = tilts
    low = bounds[:, 0] - [min(0, xy, xz, xy + xz), min(0, yz), 0]
    high = bounds[:, 1] - [max(0, xy, xz, xy + xz), max(0, yz), 0]
    box = np.diag(high - low) + np.array([[0, 0, 0], [xy, 0, 0], [xz, yz, 0]])
    names = ("xs", "ys", "zs") if "xs" in columns else ("x", "y", "z")
    x = np.array([[float(row[columns.index(name)]) for name in names] for row in rows])
    return (low + x @ box if names[0] == "xs" else x), box


def gemmi_direct(elements, positions, cell, hkl):
    """F(h) of P1 by gemmi's own sum over atoms."""
    import gemmi

    cell = gemmi.UnitCell(*map(float, cell))
    model, chain, residue = gemmi.Model(1), gemmi.Chain("A"), gemmi.Residue()
    residue.name, residue.seqid = "ALL", gemmi.SeqId("1")
    for element, x in zip(elements, positions):
        atom = gemmi.Atom()
        atom.name, atom.element, atom.occ, atom.b_iso, atom.pos = (
            element,
            gemmi.Element(element),
            1,
            0,
            gemmi.Position(*x),
        )
        residue.add_atom(atom)
    chain.add_residue(residue)
    model.add_chain(chain)
    calculator = gemmi.StructureFactorCalculatorX(cell)
    return np.array([calculator.calculate_sf_from_model(model, list(map(int, h))) for h in hkl])


def assert_f(folder, real, elements, reference):
    """F of frame 0 at some reflections of all resolutions, at its fractional coordinates in the store's mean box."""
    import gemmi

    reflections, found = factors(folder)
    chosen = np.linspace(0, len(reflections) - 1, CHECKED).round().astype(int)
    mean = np.array(gemmi.UnitCell(*reflections.cell).orth.mat.tolist()).T
    positions, box = reference
    box = mean if real.more or box is None else box  # the config has a cell where the file has none
    scatter = np.array(elements) != "X"
    moved = np.asarray(positions)[scatter] @ np.linalg.inv(box) @ mean
    expected = gemmi_direct(np.array(elements)[scatter], moved, reflections.cell, reflections.hkl[chosen])
    rms = np.sqrt(np.mean(np.abs(found[0]) ** 2))
    error = np.max(np.abs(found[0, chosen] - expected) / np.maximum(np.abs(expected), rms))
    print(f"REAL {real.program}: {len(elements)} atoms, {len(reflections)} reflections, largest error of F {error:.1e}")
    assert error < 1e-3  # the FFT's rms is some 2e-5 at this oversampling; positions of 100 A in float32: 2 pi 8e-6 / d


@pytest.mark.parametrize("real", TABLE, ids=[one.program for one in TABLE])
def test_f_of_files_that_programs_wrote(tmp_path, package, real):
    root = package(real.package)
    trajectory = file_of(root, real.trajectory, tmp_path)
    topology = file_of(root, real.topology, tmp_path) if real.topology else None
    prepared(tmp_path, real, trajectory, topology)
    from hpcfit.readers.positions import open_positions

    elements = read_topology(topology).elements if topology else open_positions(trajectory, None).elements
    if real.formula:
        assert formula([one for one in elements if one != "X"]) == real.formula
    assert_f(tmp_path, real, elements, reference_frame(trajectory, topology, len(elements)))


FORCES = [
    Real("GROMACS, TRR", "cobrotoxin.trr", "cobrotoxin.tpr"),
    Real("AMBER, NetCDF", "Amber/posfor.ncdf", "Amber/posfor.top"),
    Real("MDAnalysis, H5MD", "cobrotoxin.h5md", "cobrotoxin.tpr"),
    Real("VASP, OUTCAR", "vasp/OUTCAR_example_1", "", package="ase"),
]


@pytest.mark.parametrize("real", FORCES, ids=[one.program for one in FORCES])
def test_forces_of_files_that_programs_wrote(tmp_path, package, real):
    root = package(real.package)
    trajectory = file_of(root, real.trajectory, tmp_path)
    topology = file_of(root, real.topology, tmp_path) if real.topology else None
    source = f'trajectory = "{trajectory.name}"\nstop = 1' + (f'\ntopology = "{topology.name}"' if topology else "")
    (tmp_path / "config.toml").write_text(
        f'[frames]\nstore = "store"\n[prepare]\ncontent = "forces"\n[[prepare.source]]\n{source}\n'
    )
    run_prepare(load_config(tmp_path / "config.toml", ()), world_ranks())
    store = open_force_store(tmp_path / "store")
    positions, forces, _ = read_block(store, store.blocks()[0])
    if trajectory.name == "OUTCAR":
        import ase.io
        from ase import units

        first = ase.io.read(trajectory, index=0, format="vasp-out")
        expected, x = first.get_forces(apply_constraint=False) / (units.kJ / units.mol), first.positions
    else:
        from MDAnalysis.coordinates.core import reader

        step = reader(str(trajectory), n_atoms=len(store.particles))[0]
        expected, x = step.forces, step.positions
    print(f"REAL forces, {real.program}: rms {np.sqrt(np.mean(expected**2)):.3g} kJ/mol/A")
    np.testing.assert_allclose(positions[0], x, atol=1e-4)
    np.testing.assert_allclose(forces[0], expected, rtol=1e-5, atol=1e-3)


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
import mdtraj, numpy as np
found = mdtraj.load(sys.argv[2])
many = mdtraj.join([found] * 3)
many.unitcell_lengths, many.unitcell_angles = np.full((3, 3), 1.9), np.full((3, 3), 90.0)
many.xyz += np.random.default_rng(0).normal(size=many.xyz.shape) * 0.01
many.time = np.arange(3) * 0.5
np.save("truth.npy", many.xyz * 10)
for name in ("run.xtc", "run.trr", "run.dcd", "run.nc", "run.lammpstrj", "run.pdb.gz", "run.gro"):
    try:
        many[:1].save(name) if name == "run.gro" else many.save(name)
    except ImportError as error:
        print(name, error)
"""


def test_files_that_mdtraj_writes(tmp_path, package):
    water = package("openmmtools") / "waterbox/watbox216.pdb"
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(package("mdtraj")), str(water)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode and "ModuleNotFoundError" in done.stderr:
        pytest.skip(f"MDTraj needs more: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    truth = np.load(tmp_path / "truth.npy")
    from hpcfit.readers.positions import open_positions

    for name, rounding in (("run.xtc", 6e-3), ("run.trr", 1e-5), ("run.dcd", 1e-5), ("run.nc", 1e-5),
                           ("run.lammpstrj", 1e-2), ("run.pdb.gz", 1e-3)):  # fmt: skip
        if not (tmp_path / name).exists():
            continue
        topology = tmp_path / "run.gro" if name != "run.pdb.gz" else None
        reader = open_positions(tmp_path / name, topology)
        assert formula(reader.topology.elements) == "H432O216"
        frames = list(reader.frames(range(reader.n_frames)))
        assert len(frames) == 3
        np.testing.assert_allclose([one.positions for one in frames], truth, atol=rounding, err_msg=name)
        print(f"REAL MDTraj, {name}: 648 atoms, 3 frames")


def test_files_that_openmm_writes(tmp_path, package):
    openmm = pytest.importorskip("openmm")
    from openmm import app, unit

    from hpcfit.readers.positions import open_positions

    found = app.PDBFile(str(package("openmmtools") / "waterbox/watbox216.pdb"))
    found.topology.setPeriodicBoxVectors(np.eye(3) * 1.9 * unit.nanometer)
    system = app.ForceField("tip3p.xml").createSystem(found.topology, nonbondedMethod=app.CutoffPeriodic,
                                                      nonbondedCutoff=0.8 * unit.nanometer)  # fmt: skip
    simulation = app.Simulation(found.topology, system, openmm.LangevinMiddleIntegrator(300, 1, 0.001),
                                openmm.Platform.getPlatformByName("Reference"))  # fmt: skip
    simulation.context.setPositions(found.positions)
    for reporter in (app.DCDReporter, app.XTCReporter):
        name = "run.dcd" if reporter is app.DCDReporter else "run.xtc"
        simulation.reporters.append(reporter(str(tmp_path / name), 2, enforcePeriodicBox=False))
    truth = []
    for _ in range(3):
        simulation.step(2)
        state = simulation.context.getState(getPositions=True)
        truth.append(state.getPositions(asNumpy=True).value_in_unit(unit.angstrom))
    simulation.reporters.clear()
    with open(tmp_path / "top.cif", "w") as file:
        app.PDBxFile.writeFile(found.topology, found.positions, file)
    for name, rounding in (("run.dcd", 1e-5), ("run.xtc", 6e-3)):
        reader = open_positions(tmp_path / name, tmp_path / "top.cif")
        frames = list(reader.frames(range(reader.n_frames)))
        assert formula(reader.topology.elements) == "H432O216"
        np.testing.assert_allclose([one.positions for one in frames], truth, atol=rounding)
        print(f"REAL OpenMM, {name}: 648 atoms, 3 frames")


TOPOLOGIES = [
    ("ParmEd, GRO", "ParmEd", "gromacs/dhfr_pme.gro", DHFR),
    ("psfgen of VMD", "ParmEd", "charmm/ala5_autopsf.psf", ""),
    ("CHARMM-GUI", "ParmEd", "charmm/ala2_charmmgui.psf", "C6H1320Cl2K2N2O657"),
    ("tleap of AmberTools", "ParmEd", "amber/ala2_solv.parm7", "C6H2014N2O1004"),
    ("tleap, repartitioned masses", "openmmtools", "dhfr/JAC.prmtop", DHFR),
]


@pytest.mark.parametrize(("program", "name", "file", "wanted"), TOPOLOGIES, ids=[one[0] for one in TOPOLOGIES])
def test_topologies_that_programs_wrote(tmp_path, package, program, name, file, wanted):
    found = read_topology(file_of(package(name), file, tmp_path)).elements
    print(f"REAL {program}: {len(found)} atoms, {formula([one for one in found if one != 'X'])}")
    if wanted:
        assert formula([one for one in found if one != "X"]) == wanted
