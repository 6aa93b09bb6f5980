"""Positions from the files of simulations: topologies and trajectories, frame by frame, whatever the format."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from pathlib import Path

import h5py

from hpcfit.errors import InputError
from hpcfit.store.pieces import open_pieces, piece_snapshots
from hpcfit.store.snapshot import Snapshot, Topology

H5MD = (".h5", ".h5md")
WITH_TOPOLOGY = (".dcd", ".xtc", ".trr", ".nc", ".ncdf", *H5MD)
WITHOUT_TOPOLOGY = ("XDATCAR", "XDATCAR.gz", ".extxyz", ".extxyz.gz", ".xyz", ".xyz.gz")


def _kind(path: Path) -> str:
    if path.is_dir():
        return "pieces"
    if path.suffix.lower() in WITH_TOPOLOGY:
        return "mdanalysis"
    if path.name.endswith(WITHOUT_TOPOLOGY) or path.name.startswith("XDATCAR"):
        return "ase"
    raise InputError(
        f"{path} is not a trajectory format that hpcfit reads",
        remedy=f"give one of {', '.join(WITH_TOPOLOGY + WITHOUT_TOPOLOGY)}",
    )


def has_elements(path: Path) -> bool:
    """Whether a trajectory names its elements, so that it needs no topology."""
    return _kind(path) in ("ase", "pieces")


def open_positions(path: Path, topology: Path | Topology | None) -> tuple[Topology, int]:
    """Elements, cell and number of frames of a trajectory; `topology`, read or not, where the format has no elements.

    Raises InputError for files that are missing, damaged, of unknown format, or of other atoms than the topology.
    """
    kind = _kind(path)
    if kind == "pieces":
        return open_pieces(path)
    if not path.is_file():
        raise InputError(f"trajectory {path} does not exist", remedy="correct [[prepare.source]] trajectory")
    return _ase_topology(path) if kind == "ase" else _with_topology(path, topology)


def snapshots(path: Path, topology: Topology, rows: range) -> Iterator[Snapshot]:
    """The frames `rows` of a trajectory, one by one."""
    kind = _kind(path)
    if kind == "pieces":
        return piece_snapshots(path, rows)
    return _ase_snapshots(path, rows) if kind == "ase" else _md_snapshots(path, rows, len(topology.elements))


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

    with quiet():
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
    cell = cell_or_none(universe.dimensions)
    universe.trajectory.close()
    return Topology(elements, cell)


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
    return Topology(elements, cell_or_none(cell.parameters if cell.is_crystal() else None))


def cell_or_none(cell) -> tuple[float, ...] | None:
    # A CRYST1 of 1 x 1 x 1 A says that there is no cell.
    if cell is None or min(cell[:3]) <= 1.0:
        return None
    return tuple(map(float, cell))


def _with_topology(path: Path, topology: Path | Topology | None) -> tuple[Topology, int]:
    if topology is None:
        raise InputError(f"{path} holds no elements", remedy="give topology = a PDB or mmCIF file of the same atoms")
    atoms = topology if isinstance(topology, Topology) else read_topology(topology)
    with _md_reader(path, len(atoms.elements)) as reader:
        if reader.n_atoms != len(atoms.elements):
            raise InputError(
                f"{path} has {reader.n_atoms} atoms, {_named(topology)} has {len(atoms.elements)}",
                remedy="give the topology of this trajectory",
            )
        first = reader[0] if reader.n_frames else None
        box = None if first is None else cell_or_none(first.dimensions)
        return atoms._replace(cell=box or atoms.cell), reader.n_frames


def _named(topology: Path | Topology) -> str:
    return "its topology" if isinstance(topology, Topology) else f"topology {topology}"


@contextlib.contextmanager
def _md_reader(path: Path, n_atoms: int) -> Iterator:
    from MDAnalysis.coordinates.core import reader

    is_h5md = path.suffix.lower() in H5MD
    if is_h5md and not h5py.is_hdf5(path):
        raise InputError(f"trajectory {path} is no HDF5 file", remedy="check that it is whole")
    with quiet():
        try:
            opened = reader(str(path), "H5MD" if is_h5md else None, n_atoms=n_atoms)
        except (OSError, ValueError, EOFError, TypeError, RuntimeError, KeyError) as error:
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
            box = None if cell_or_none(step.dimensions) is None else step.triclinic_dimensions.astype(float)
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
    return Topology(elements, cell_or_none(cell)), len(images)


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
        # With mpi4py loaded ASE reads on one rank and sends its file to all, who asked for other files: parallel=False.
        options = {"parallel": False, "do_not_split_by_at_sign": True}
        images = ase.io.read(path, index=":", format="extxyz" if xyz else "vasp-xdatcar", **options)
    except Exception as error:  # the readers of ASE raise whatever their parsing met
        raise InputError(
            f"trajectory {path} cannot be read by ASE: {type(error).__name__}: {error}", remedy="check that it is whole"
        ) from None
    if not images:
        raise InputError(f"trajectory {path} has no frames", remedy="give a file with frames")
    return images


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of MDAnalysis on what a PDB lacks, or on its plans; what hpcfit needs it checks itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
