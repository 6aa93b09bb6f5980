"""Frames from simulations: positions of a trajectory, and their structure factors by density FFT."""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.data.files import sha256_of_file
from hpcfit.data.reference import Reflections
from hpcfit.data.shard import Frame
from hpcfit.errors import InputError
from hpcfit.physics.scattering import DensityFFT, FFTError, fractional_coordinates, orthogonalization

WITH_TOPOLOGY = (".dcd", ".xtc", ".trr", ".nc", ".ncdf")
WITHOUT_TOPOLOGY = ("XDATCAR", "XDATCAR.gz", ".extxyz", ".extxyz.gz", ".xyz", ".xyz.gz")
LARGEST_BOX_CHANGE = 0.05  # relative; more is another supercell or another unit, not constant pressure


class Snapshot(NamedTuple):
    """One frame of a file: positions [N, 3] A, box [3, 3] A (rows) or None, forces [N, 3] kJ/mol/A or None, time ps."""

    positions: np.ndarray
    box: np.ndarray | None
    forces: np.ndarray | None
    time: float | None


class Topology(NamedTuple):
    """What does not change: elements of the N atoms and the cell of the box (A, degrees) if the file has one."""

    elements: tuple[str, ...]
    cell: tuple[float, ...] | None


class Scattering(NamedTuple):
    """How structure factors are computed: on the store's reflections, to d_min (A), on a grid finer by oversampling."""

    reflections: Reflections
    d_min: float
    oversampling: float

    @property
    def box(self) -> tuple[float, ...]:
        """The cell of the supercell."""
        lengths = np.multiply(self.reflections.cell[:3], self.reflections.ndiv)
        return (*map(float, lengths), *self.reflections.cell[3:])


@dataclass(frozen=True)
class TrajectorySource:
    """One trajectory file. A FrameSource once `on` told it which structure factors to compute.

    rows: the frames of the file that are used, start:stop:stride of the config. keep: of positions and forces.
    """

    name: str
    label: str
    path: Path
    topology: Topology
    rows: range
    inputs: dict[str, str]  # file -> SHA-256
    keep_positions: bool = False
    keep_forces: bool = False
    scattering: Scattering | None = None

    @property
    def n_frames(self) -> int:
        """Frames after start, stop and stride."""
        return len(self.rows)

    @property
    def digest(self) -> str:
        """SHA-256 over trajectory and topology."""
        return hashlib.sha256("".join(self.inputs.values()).encode()).hexdigest()

    def on(self, scattering: Scattering) -> TrajectorySource:
        """The same source, giving these structure factors."""
        return replace(self, scattering=scattering)

    def frames(self, start: int, stop: int) -> Iterator[Frame]:
        """Frames start to stop - 1 of `rows`, with structure factors on the store's reflections."""
        fft = self._fft()
        with contextlib.closing(snapshots(self.path, self.topology, self.rows[start:stop])) as found:
            for row, snapshot in zip(self.rows[start:stop], found, strict=True):
                yield self._frame(row, snapshot, fft)

    def _frame(self, row: int, snapshot: Snapshot, fft: DensityFFT) -> Frame:
        f_h = fft(self.fractional(row, snapshot))
        positions = snapshot.positions.astype(np.float32) if self.keep_positions else None
        if self.keep_forces and snapshot.forces is None:
            raise InputError(f"{self.path}, frame {row}: no forces", remedy="set [prepare] forces = false")
        forces = snapshot.forces if self.keep_forces else None
        return Frame(row, f_h, positions, snapshot.box, forces, snapshot.time)

    def fractional(self, row: int, snapshot: Snapshot) -> np.ndarray:
        """Fractional coordinates [N, 3] in the frame's box, or in the reference box when the frame has none."""
        if not np.all(np.isfinite(snapshot.positions)):
            atom = int(np.argwhere(~np.isfinite(snapshot.positions))[0][0])
            raise InputError(
                f"{self.path}, frame {row}: the position of atom {atom} is {snapshot.positions[atom].tolist()}",
                remedy="repair the trajectory, or leave the frame out with start, stop and stride",
            )
        box = orthogonalization(self.scattering.box).T if snapshot.box is None else snapshot.box
        _check_box(box, self.scattering.box, self.path, row)
        return fractional_coordinates(snapshot.positions, box)

    def fft_error(self, row: int, sample: int = 200) -> FFTError:
        """The error of the density FFT for one frame of `rows`, against direct summation on `sample` reflections."""
        number = self.rows[row]
        snapshot = next(iter(snapshots(self.path, self.topology, range(number, number + 1))))
        return self._fft().error(self.fractional(number, snapshot), sample)

    def _fft(self) -> DensityFFT:
        s = self.scattering
        return _density_fft(
            self.topology.elements, s.box, np.asarray(s.reflections.hkl, np.int32).tobytes(), s.d_min, s.oversampling
        )


@functools.lru_cache(maxsize=1)
def _density_fft(elements, box, hkl: bytes, d_min: float, oversampling: float) -> DensityFFT:
    # Shards of one topology follow each other; the model of a million atoms is not to be built for each.
    return DensityFFT(elements, box, np.frombuffer(hkl, np.int32).reshape(-1, 3), d_min, oversampling)


def _check_box(box, cell, path: Path, row: int) -> None:
    lengths = np.linalg.norm(box, axis=1)
    if not np.allclose(lengths, cell[:3], rtol=LARGEST_BOX_CHANGE):
        raise InputError(
            f"{path}, frame {row}: the box has lengths {np.round(lengths, 3).tolist()} A, cell x supercell has"
            f" {np.round(cell[:3], 3).tolist()} A",
            remedy="correct [prepare] cell or supercell",
        )


def open_trajectory(path: Path, topology: Path | None, label: str, frames: slice) -> TrajectorySource:
    """Open one trajectory file, with its topology where the format has no elements, cut to a range of frames.

    Raises InputError for files that are missing, damaged, of unknown format, of other atoms, or without frames.
    """
    kind = _kind(path)
    if not path.is_file():
        raise InputError(f"trajectory {path} does not exist", remedy="correct [[prepare.source]] trajectory")
    if kind == "ase":
        atoms, n_frames = _ase_topology(path)
    else:
        atoms, n_frames = _with_topology(path, topology)
    rows = range(n_frames)[frames]
    if not rows:
        raise InputError(
            f"{path} has {n_frames} frames; {frames.start}:{frames.stop}:{frames.step} selects none",
            remedy="correct start, stop and stride of this [[prepare.source]]",
        )
    if path.suffix.lower() == ".dcd":
        _check_dcd_count(path, n_frames, frames.stop)
    _check_whole(path, atoms, rows)
    files = [path] if kind == "ase" else [path, topology]
    return TrajectorySource(path.name, label, path, atoms, rows, {str(file): sha256_of_file(file) for file in files})


def _check_whole(path: Path, atoms: Topology, rows: range) -> None:
    """Find a truncated file before hours are spent on its first frames: the last frame must be readable."""
    next(iter(snapshots(path, atoms, rows[-1:])))


def _check_dcd_count(path: Path, n_frames: int, stop: int | None) -> None:
    """MDAnalysis counts the whole frames of a DCD, and so drops a last one that is cut; its header knows better."""
    header = np.fromfile(path, "<i4", 3)
    # The first word is the length of the header record, 84: it tells the byte order; NSET follows "CORD".
    announced = int(header[2] if header[0] == 84 else header.byteswap()[2])
    if announced > n_frames and (stop is None or stop > n_frames):
        raise InputError(
            f"{path} announces {announced} frames and holds {n_frames} whole ones",
            remedy=f"the file is truncated: repair it, or set stop = {n_frames} to use what there is",
        )


def trajectory_files(patterns, topology: Path | None) -> list[Path]:
    """The files that paths or globs name, sorted within each pattern; InputError for one that names none."""
    files = []
    for pattern in patterns:
        found = sorted(glob.glob(pattern)) or ([pattern] if Path(pattern).exists() else [])
        if not found:
            raise InputError(f"no trajectory at {pattern}", remedy="correct [[prepare.source]] trajectory")
        files += [Path(name) for name in found if topology is None or Path(name) != topology]
    return files


def _kind(path: Path) -> str:
    if path.suffix.lower() in WITH_TOPOLOGY:
        return "mdanalysis"
    if path.name.endswith(WITHOUT_TOPOLOGY) or path.name.startswith("XDATCAR"):
        return "ase"
    raise InputError(
        f"{path} is not a trajectory format that hpcfit reads",
        remedy=f"give one of {', '.join(WITH_TOPOLOGY + WITHOUT_TOPOLOGY)}",
    )


def snapshots(path: Path, topology: Topology, rows: range) -> Iterator[Snapshot]:
    """The frames `rows` of a file, one by one."""
    return _ase_snapshots(path, rows) if _kind(path) == "ase" else _md_snapshots(path, rows, len(topology.elements))


def read_topology(path: Path) -> Topology:
    """Elements and cell of a PDB (MDAnalysis) or mmCIF (gemmi) file, atoms in the order of the file."""
    if not path.is_file():
        raise InputError(f"topology {path} does not exist", remedy="correct [[prepare.source]] topology")
    readers = {".pdb": _pdb_topology, ".ent": _pdb_topology, ".cif": _mmcif_topology, ".mmcif": _mmcif_topology}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"topology {path}: '{path.suffix}' is not read", remedy=f"give one of {', '.join(readers)}")
    topology = reader(path)
    if not topology.elements:
        raise InputError(f"topology {path} has no atoms", remedy="give the file that the simulation started from")
    return topology


def _pdb_topology(path: Path) -> Topology:
    import MDAnalysis

    with _quiet():
        try:
            universe = MDAnalysis.Universe(str(path), to_guess=())
            elements = tuple(str(e).capitalize() for e in universe.atoms.elements)
        except MDAnalysis.NoDataError:
            elements = ("",)
        except (ValueError, OSError, IndexError) as error:
            raise InputError(f"topology {path} cannot be read as PDB: {error}", remedy="check the file") from None
    if not all(elements):
        raise InputError(
            f"topology {path} has no element for atom {elements.index('') + 1} (columns 77-78)",
            remedy="write the elements, for instance with gemmi convert",
        )
    return Topology(elements, _cell_or_none(universe.dimensions))


def _mmcif_topology(path: Path) -> Topology:
    import gemmi

    try:
        block = gemmi.cif.read(str(path)).sole_block()
        # The hierarchy of gemmi would regroup atoms by chain; the trajectory follows the rows of the file.
        table = block.find("_atom_site.", ["type_symbol", "?pdbx_PDB_model_num"])
        rows = [(row.str(0), row.str(1) if row.has(1) else "1") for row in table]
        cell = gemmi.make_structure_from_block(block).cell
    except (RuntimeError, ValueError) as error:
        raise InputError(f"topology {path} cannot be read as mmCIF: {error}", remedy="check the file") from None
    elements = tuple(symbol.capitalize() for symbol, model in rows if model == rows[0][1])
    return Topology(elements, _cell_or_none(cell.parameters if cell.is_crystal() else None))


def _cell_or_none(cell) -> tuple[float, ...] | None:
    # A CRYST1 of 1 x 1 x 1 A says that there is no cell.
    if cell is None or min(cell[:3]) <= 1.0:
        return None
    return tuple(map(float, cell))


def _with_topology(path: Path, topology: Path | None) -> tuple[Topology, int]:
    if topology is None:
        raise InputError(f"{path} holds no elements", remedy="give topology = a PDB or mmCIF file of the same atoms")
    atoms = read_topology(topology)
    with _md_reader(path, len(atoms.elements)) as reader:
        if reader.n_atoms != len(atoms.elements):
            raise InputError(
                f"{path} has {reader.n_atoms} atoms, topology {topology} has {len(atoms.elements)}",
                remedy="give the topology of this trajectory",
            )
        first = reader[0] if reader.n_frames else None
        box = None if first is None else _cell_or_none(first.dimensions)
        return atoms._replace(cell=box or atoms.cell), reader.n_frames


@contextlib.contextmanager
def _md_reader(path: Path, n_atoms: int) -> Iterator:
    from MDAnalysis.coordinates.core import reader

    with _quiet():
        try:
            opened = reader(str(path), n_atoms=n_atoms)
        except (OSError, ValueError, EOFError, TypeError, RuntimeError) as error:
            raise InputError(f"trajectory {path} cannot be opened: {error}", remedy="check that it is whole") from None
        with opened:
            yield opened


def _md_snapshots(path: Path, rows: range, n_atoms: int) -> Iterator[Snapshot]:
    with _md_reader(path, n_atoms) as reader:
        for row in rows:
            try:
                step = reader[row]
            except (OSError, EOFError, IndexError, ValueError, RuntimeError) as error:
                raise InputError(
                    f"{path}, frame {row} cannot be read: {error}",
                    remedy="the file is truncated: repair it, or use the frames before with stop",
                ) from None
            box = None if _cell_or_none(step.dimensions) is None else step.triclinic_dimensions.astype(float)
            forces = step.forces.copy() if step.has_forces else None
            yield Snapshot(step.positions.astype(float), box, forces, float(step.time))


def _ase_topology(path: Path) -> tuple[Topology, int]:
    images = _ase_images(str(path), path.stat().st_mtime_ns)
    elements = tuple(images[0].get_chemical_symbols())
    for row, image in enumerate(images):
        if tuple(image.get_chemical_symbols()) != elements:
            raise InputError(
                f"{path}, frame {row}: {image.get_chemical_formula()}, frame 0 has"
                f" {images[0].get_chemical_formula()}, or another order",
                remedy="give frames of the same atoms",
            )
    cell = images[0].cell.cellpar() if images[0].cell.rank == 3 else None
    return Topology(elements, _cell_or_none(cell)), len(images)


def _ase_snapshots(path: Path, rows: range) -> Iterator[Snapshot]:
    from ase import units

    images = _ase_images(str(path), path.stat().st_mtime_ns)
    for row in rows:
        atoms = images[row]
        forces = atoms.calc.results.get("forces") if atoms.calc else None
        forces = None if forces is None else forces / (units.kJ / units.mol)
        yield Snapshot(atoms.get_positions(), atoms.cell.array if atoms.cell.rank == 3 else None, forces, None)


@functools.lru_cache(maxsize=2)
def _ase_images(path: str, _modified: int) -> list:
    """All frames of a text trajectory; such files are read from the start, so they are kept while they are in use."""
    import ase.io

    xyz = path.removesuffix(".gz").endswith("xyz")
    try:
        images = ase.io.read(path, index=":", format="extxyz" if xyz else "vasp-xdatcar")
    except Exception as error:  # the readers of ASE raise whatever their parsing met
        raise InputError(
            f"trajectory {path} cannot be read by ASE: {type(error).__name__}: {error}", remedy="check that it is whole"
        ) from None
    if not images:
        raise InputError(f"trajectory {path} has no frames", remedy="give a file with frames")
    return images


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of MDAnalysis on what a PDB lacks, or on its own plans; what hpcfit needs it checks itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
