"""Trajectories: one set of positions through every format, topologies, real data, and files that are wrong."""

import gzip
import warnings

import gemmi
import h5py
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.physics import reciprocal, scattering
from hpcfit.readers import trajectory
from hpcfit.readers.positions import read_topology
from hpcfit.store.reference import Reflections

CELL = (13.0, 14.0, 15.0, 90.0, 100.0, 90.0)
ELEMENTS = ["C"] * 6 + ["O"] * 3 + ["Na", "Cl"]
ALL = slice(None)
# Largest |dF| / rms |F| of the density FFT, measured 2e-4 at 3 A (see physics/scattering.py), with a margin of two.
FFT_ERROR = 4e-4


@pytest.fixture(scope="module")
def positions():
    """[3 frames, 11 atoms, 3], A: atoms that wander across the walls of the box."""
    rng = np.random.default_rng(11)
    x = rng.random((11, 3)) + 0.1 * rng.normal(size=(3, 11, 3))
    return x @ scattering.orthogonalization(CELL).T


def write_md(path, positions, topology):
    """DCD, XTC, TRR, NetCDF or H5MD, as MDAnalysis writes them."""
    import MDAnalysis

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe(str(topology), positions.astype(np.float32), dimensions=np.array(CELL))
        units = {"lengthunit": "nm", "timeunit": "ps"} if path.suffix == ".h5md" else {}
        with MDAnalysis.Writer(str(path), len(ELEMENTS), **units) as writer:
            for _ in universe.trajectory:
                universe.dimensions = CELL
                writer.write(universe.atoms)
    return path


def images(positions):
    from ase import Atoms

    cell = scattering.orthogonalization(CELL).T
    return [Atoms(ELEMENTS, positions=x, cell=cell, pbc=True) for x in positions]


@pytest.fixture
def topology(tmp_path):
    structure = gemmi.Structure()
    structure.cell, structure.spacegroup_hm = gemmi.UnitCell(*CELL), "P 1"
    model = gemmi.Model(1)
    # Chains A, B, A: gemmi would merge them by name and so move the atoms away from the trajectory's order.
    for number, element in enumerate(ELEMENTS):
        chain, residue, atom = gemmi.Chain("AB"[number % 2]), gemmi.Residue(), gemmi.Atom()
        residue.name, residue.seqid, residue.het_flag = "UNK", gemmi.SeqId(str(number + 1)), "H"
        atom.name, atom.element = element.upper(), gemmi.Element(element)
        residue.add_atom(atom)
        chain.add_residue(residue)
        model.add_chain(chain)
    structure.add_model(model)
    structure.write_pdb(str(tmp_path / "top.pdb"))
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(tmp_path / "top.cif"))
    return tmp_path / "top.pdb"


def reflections(cell=CELL, ndiv=(1, 1, 1), d_min=2.5):
    return Reflections(reciprocal.sphere(cell, ndiv, d_min), ndiv, cell, "P 1")


def opened(path, topology=None, frames=ALL, **keep):
    source = trajectory.open_trajectory(path, topology, "label", frames)
    source = trajectory.replace(source, **{f"keep_{name}": value for name, value in keep.items()})
    return source.on(trajectory.Scattering(reflections(), 2.5, 1.5))


def direct(positions):
    r, orth = reflections(), scattering.orthogonalization(CELL)
    s2 = reciprocal.inverse_d2(r.hkl, r.ndiv, r.cell)
    return scattering.structure_factors_direct(ELEMENTS, positions @ np.linalg.inv(orth).T, r.hkl, s2)


def check(source, positions, rounding):
    """F of all frames against direct summation: FFT error plus what positions off by `rounding` (A) can change."""
    frames = list(source.frames(0, source.n_frames))
    assert len(frames) == len(positions)
    for frame, x in zip(frames, positions, strict=True):
        expected = direct(x)
        scale = np.sqrt(np.mean(np.abs(expected) ** 2))
        # |dF| <= 2 pi s |dx| sum f <= 2 pi / 2.5 * sqrt(3) rounding * 11 atoms * 17 electrons
        bound = 2 * np.pi / 2.5 * np.sqrt(3) * rounding * 11 * 17
        assert np.abs(frame.structure_factors - expected).max() < FFT_ERROR * scale + bound
    return frames


# XTC keeps 0.001 nm = 0.01 A, of which half is the rounding; the others are float32.
@pytest.mark.parametrize(
    ("suffix", "rounding"), [("dcd", 2e-6), ("trr", 4e-6), ("nc", 2e-6), ("h5md", 2e-6), ("xtc", 0.0051)]
)
@pytest.mark.parametrize("kind", ["pdb", "cif"])
def test_formats_of_molecular_dynamics_give_the_same_structure_factors(
    tmp_path, positions, topology, suffix, rounding, kind
):
    path = write_md(tmp_path / f"run.{suffix}", positions, topology)
    source = opened(path, topology.with_suffix(f".{kind}"), positions=True)
    frames = check(source, positions, rounding)
    np.testing.assert_allclose(frames[2].positions, positions[2], atol=rounding + 1e-6)
    np.testing.assert_allclose(np.linalg.norm(frames[0].box, axis=1), CELL[:3], rtol=1e-5)
    assert [frame.row for frame in frames] == [0, 1, 2]
    np.testing.assert_allclose(source.topology.cell, CELL, rtol=1e-5)


def test_ab_initio_formats_give_the_same_structure_factors(tmp_path, positions):
    import ase.io

    ase.io.write(tmp_path / "run.extxyz", images(positions))
    ase.io.write(tmp_path / "XDATCAR", images(positions), format="vasp-xdatcar")
    (tmp_path / "run_XDATCAR.gz").write_bytes(gzip.compress((tmp_path / "XDATCAR").read_bytes()))
    # extxyz and XDATCAR have 8 decimals, of A and of the cell.
    for name in ("run.extxyz", "XDATCAR", "run_XDATCAR.gz"):
        source = opened(tmp_path / name)
        check(source, positions, 1e-7)
        assert list(source.topology.elements) == ELEMENTS
        assert list(source.inputs) == [str(tmp_path / name)]


def test_forces_come_in_units_of_kj_per_mol(tmp_path, positions):
    import ase.io
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = images(positions)[0]
    atoms.calc = SinglePointCalculator(atoms, forces=np.full((11, 3), 0.5))
    ase.io.write(tmp_path / "run.extxyz", atoms)
    (frame,) = opened(tmp_path / "run.extxyz", forces=True, positions=True).frames(0, 1)
    # 1 eV = 96.485 kJ/mol
    np.testing.assert_allclose(frame.forces, 0.5 * 96.4853, rtol=1e-5)


def test_forces_that_are_not_there_are_said(tmp_path, positions, topology):
    path = write_md(tmp_path / "run.dcd", positions, topology)
    with pytest.raises(InputError, match=r"run.dcd, frame 0: no forces"):
        list(opened(path, topology, forces=True).frames(0, 1))


def test_start_stop_and_stride_keep_the_index_in_the_file(tmp_path, positions, topology):
    path = write_md(tmp_path / "run.dcd", positions, topology)
    source = opened(path, topology, slice(0, None, 2))
    assert source.n_frames == 2
    assert [frame.row for frame in source.frames(0, 2)] == [0, 2]
    (last,) = source.frames(1, 2)
    expected = direct(positions[2])
    assert np.abs(last.structure_factors - expected).max() < FFT_ERROR * np.abs(expected).max()
    with pytest.raises(InputError, match=r"has 3 frames; 5:None:1 selects none"):
        opened(path, topology, slice(5, None, 1))


def test_a_box_that_breathes_keeps_fractional_coordinates(tmp_path, positions):
    import ase.io

    atoms = images(positions)
    atoms[1].set_cell(atoms[1].cell * 1.02, scale_atoms=True)
    atoms[1].rotate(40, (1, 2, 3), rotate_cell=True)  # nor does the orientation of the box matter
    atoms[2].set_cell(atoms[2].cell * 1.1, scale_atoms=True)
    ase.io.write(tmp_path / "run.extxyz", atoms)
    source = opened(tmp_path / "run.extxyz")
    frames = source.frames(0, 3)
    next(frames)
    expected = direct(positions[1])
    assert np.abs(next(frames).structure_factors - expected).max() < FFT_ERROR * np.abs(expected).max()
    with pytest.raises(InputError, match=r"frame 2: the box has lengths \[14.3.*has \[13"):
        next(frames)


def test_nan_positions_name_file_frame_and_atom(tmp_path, positions, topology):
    broken = positions.copy()
    broken[1, 4] = np.nan
    path = write_md(tmp_path / "run.dcd", broken, topology)
    with pytest.raises(InputError, match=r"run.dcd, frame 1: the position of atom 4 is \[nan"):
        list(opened(path, topology).frames(0, 3))


@pytest.mark.parametrize("suffix", ["h5", "h5md"])
def test_what_is_no_h5md_is_said(tmp_path, topology, suffix):
    path = tmp_path / f"run.{suffix}"
    path.write_bytes(b"rubbish")
    with pytest.raises(InputError, match="is no HDF5 file"):
        opened(path, topology)
    with h5py.File(path, "w") as file:
        file["positions"] = np.zeros((3, len(ELEMENTS), 3))
    with pytest.raises(InputError, match=r"cannot be opened: .*particles"):
        opened(path, topology)


@pytest.mark.parametrize("suffix", ["dcd", "xtc", "trr"])
def test_a_truncated_trajectory_is_found_when_it_is_opened(tmp_path, positions, topology, suffix):
    path = write_md(tmp_path / f"run.{suffix}", positions, topology)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=rf"run.{suffix}(, frame 2 cannot be read| announces 3 frames and holds 2)"):
        opened(path, topology)
    # The frames before can be had, by saying so.
    assert opened(path, topology, slice(0, 2)).n_frames == 2


def test_a_truncated_ab_initio_run_is_found_when_it_is_opened(tmp_path, positions):
    import ase.io

    ase.io.write(tmp_path / "XDATCAR", images(positions), format="vasp-xdatcar")
    lines = (tmp_path / "XDATCAR").read_text().splitlines(keepends=True)
    (tmp_path / "XDATCAR").write_text("".join(lines[:-4]))
    with pytest.raises(InputError, match="XDATCAR, line 54: the file ends: one of the 11 rows of"):
        opened(tmp_path / "XDATCAR")


def test_topology_of_other_atoms_is_refused(tmp_path, positions, topology):
    path = write_md(tmp_path / "run.dcd", positions, topology)
    lines = topology.read_text().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if line.startswith("HETATM"))
    (tmp_path / "other.pdb").write_text("".join(lines[:first] + lines[first + 1 :]))
    with pytest.raises(InputError, match=r"run.dcd has 11 atoms, topology .*other.pdb has 10"):
        opened(path, tmp_path / "other.pdb")


def test_topology_without_elements_is_refused(tmp_path, topology):
    lines = [
        line[:66] + "\n" if line.startswith("HETATM") else line
        for line in topology.read_text().splitlines(keepends=True)
    ]
    (tmp_path / "old.pdb").write_text("".join(lines))
    with pytest.raises(InputError, match=r"old.pdb has no element for atom 0"):
        read_topology(tmp_path / "old.pdb")


# MDAnalysis leaves half-made readers behind, which complain when they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("run.abc", b"", "not a trajectory format"),
        ("run.dcd", b"nonsense", "cannot be opened"),
        ("XDATCAR", b"x\n", "XDATCAR has no frames"),
        ("run.nc", b"nonsense", "run.nc cannot be opened"),
        ("run.extxyz", b"", "run.extxyz"),
    ],
)
def test_files_that_are_no_trajectories(tmp_path, topology, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        opened(tmp_path / name, topology)


def test_what_is_missing_is_named(tmp_path, positions, topology):
    path = write_md(tmp_path / "run.dcd", positions, topology)
    for trajectory_path, topology_path, words in (
        (tmp_path / "none.dcd", topology, "none.dcd does not exist"),
        (path, tmp_path / "none.pdb", "none.pdb does not exist"),
        (path, None, "holds no elements"),
        (path, path, r"'\.dcd' is not read"),
    ):
        with pytest.raises(InputError, match=words):
            opened(trajectory_path, topology_path)
    with pytest.raises(InputError, match="no trajectory at"):
        trajectory.trajectory_files([str(tmp_path / "*.xtc")], None)


def test_frames_of_unlike_atoms_are_refused(tmp_path, positions):
    import ase.io

    atoms = images(positions)
    atoms[1].symbols[0] = "N"
    ase.io.write(tmp_path / "run.extxyz", atoms)
    with pytest.raises(InputError, match="frame 1"):
        opened(tmp_path / "run.extxyz")


def test_a_protein_crystal(shared_data):
    folder = shared_data / "diffuse/snase"
    source = trajectory.open_trajectory(folder / "snase_crystal_163.dcd", folder / "snase_crystal.pdb", "md", ALL)
    assert (source.n_frames, len(source.topology.elements)) == (163, 11596)
    r = reflections(source.topology.cell, d_min=3.0)
    error = source.on(trajectory.Scattering(r, 3.0, 1.5)).fft_error(0)
    # The reference method has 0.6 to 1.6e-3.
    assert error.rms < 5e-5


def test_an_ab_initio_run_in_a_supercell(shared_data):
    path = shared_data / "diffuse/argyrodite/Li6PS5Cl/0p/run1/actual_XDATCAR.gz"
    source = trajectory.open_trajectory(path, None, "0p", slice(0, 2))
    cell = (*np.divide(source.topology.cell[:3], 2), 90.0, 90.0, 90.0)
    r = reflections(tuple(cell), (2, 2, 2), 1.5)
    source = source.on(trajectory.Scattering(r, 1.5, 1.5))
    first, _ = source.frames(0, 2)
    assert len(source.topology.elements) == 416
    # 000 is left out; the strongest of the rest is a Bragg peak, whole in the unit cell.
    assert np.all(r.hkl[np.argmax(np.abs(first.structure_factors))] % 2 == 0)
    assert source.fft_error(0).rms < 5e-5
