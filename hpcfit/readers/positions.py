"""Positions from the files of simulations: topologies and trajectories, frame by frame, whatever the format."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol

from hpcfit.errors import InputError, check_is_file
from hpcfit.physics.scattering import orthogonalization
from hpcfit.readers import ase_files, cif_models, cp2k_files, dcd_files, gromacs_files, h5md_files, lammps_dumps
from hpcfit.readers.ase_files import NOT_GIVEN, WHOLE, Given
from hpcfit.readers.boundary import quiet, reading
from hpcfit.readers.cells import cell_of, cell_or_none, sound_cell
from hpcfit.readers.frame_folders import folder_frames, is_frame_folder, open_frame_folder
from hpcfit.readers.netcdf_heads import check_head
from hpcfit.readers.patterns import suffix_of
from hpcfit.readers.pdb_columns import element_named, pdb_columns, warn_of_alternates, without_element
from hpcfit.readers.program_topologies import PROGRAMS, read_program_topology
from hpcfit.readers.text_layout import check_layout
from hpcfit.readers.units import Units
from hpcfit.store.frame import NOT_PERIODIC, PERIODIC, Frame, Topology
from hpcfit.store.pieces import SETTINGS, open_pieces, piece_frames, read_settings

WITH_TOPOLOGY = {
    ".dcd": "dcd", ".xtc": "gromacs", ".trr": "gromacs", ".nc": "netcdf", ".ncdf": "netcdf",
} | dict.fromkeys(h5md_files.SUFFIXES, "h5md")  # fmt: skip
WITHOUT_TOPOLOGY = ("XDATCAR", "vasprun.xml", "OUTCAR", ".extxyz", ".xyz", "*-pos-1.xyz of CP2K")
PDB, MMCIF = (".pdb", ".ent"), (".cif", ".mmcif")  # a model a frame
CONVERTS = {
    ".tng": "gmx trjconv", ".g96": "gmx trjconv", ".gro": "gmx trjconv", ".edr": "gmx trjconv, of a trajectory",
    ".mdcrd": "cpptraj", ".crd": "cpptraj", ".rst7": "cpptraj", ".inpcrd": "cpptraj", ".binpos": "mdconvert of MDTraj",
    ".dtr": "VMD or mdconvert of MDTraj", ".stk": "VMD or mdconvert of MDTraj", ".lh5": "mdconvert of MDTraj",
    ".h5": "mdconvert of MDTraj", ".hdf5": "mdconvert of MDTraj", ".arc": "mdconvert of MDTraj", ".gsd": "MDAnalysis",
    ".trz": "MDAnalysis", ".traj": "ase convert", ".db": "ase convert", ".dms": "MDAnalysis", ".coor": "VMD",
    ".history": "MDAnalysis",
}  # fmt: skip


class Reader(Protocol):
    """An opened file of frames, picklable and without open files.

    elements: those that the file names itself, or none. n_frames: how many frames it holds; announced: how many it must
    hold, by what it says of itself, or None where its format does not say.
    """

    path: Path
    elements: tuple[str, ...]
    n_frames: int
    announced: int | None

    def frames(self, rows: range) -> Iterator[Frame]:
        """The frames `rows` of the file, one by one, in A, ps and kJ/mol/A; raises InputError naming file and row."""


class TrajectoryReader(NamedTuple):
    """A Reader of a trajectory: a file, a folder of pieces, or one with a file for each frame. topology: its
    elements, and the cell of its box; group: of its particles, of an H5MD with several; given: what the config says of
    a format that leaves it open."""

    path: Path
    topology: Topology
    n_frames: int
    announced: int | None = None
    group: str | None = None
    given: Given = NOT_GIVEN

    @property
    def elements(self) -> tuple[str, ...]:
        """The elements that the trajectory names itself, or none."""
        return self.topology.elements if has_elements(self.path) else ()

    def frames(self, rows: range) -> Iterator[Frame]:
        """See `Reader`."""
        kind = _kind(self.path)
        if kind == "pieces":
            return piece_frames(self.path, rows)
        if kind == "frames":
            return folder_frames(self.path, rows, self.topology.elements)
        if kind == "models":
            return _in_one_box(_md_frames(self.path, rows), self.topology.cell)
        if kind == "lammps":
            return lammps_dumps.frames(self.path, rows, _units_of_dump(self.path, self.given))
        if kind == "ase":
            return ase_files.frames(self.path, rows, self.given)
        if kind == "h5md":
            return h5md_files.frames(self.path, self.group, rows)
        return _FRAMES[kind](self.path, rows)


def _kind(path: Path) -> str:
    if path.is_dir():
        if not is_frame_folder(path) and not (path / SETTINGS).exists():
            raise InputError(
                f"the folder {path} has no frames: no file *.xyz, *.pdb or *.cif; nor is it a trajectory of `hpcfit"
                f" simulate`, which has {SETTINGS}",
                remedy="correct [[prepare.source]] trajectory; of simulated replicas give DIRECTORY/*",
            )
        return "frames" if is_frame_folder(path) else "pieces"
    if path.suffix.lower() in WITH_TOPOLOGY:
        return WITH_TOPOLOGY[path.suffix.lower()]
    if suffix_of(path) in PDB:
        return "models"
    if suffix_of(path) in MMCIF:
        return "cif"
    if lammps_dumps.is_dump(path):
        return "lammps"
    if cp2k_files.is_cp2k(path):
        return "cp2k"
    if ase_files.form_of(path) is not None:
        return "ase"
    named = (*WITH_TOPOLOGY, *WITHOUT_TOPOLOGY, *PDB, *MMCIF, *lammps_dumps.SUFFIXES, "dump.*")
    converts = CONVERTS.get(suffix_of(path), "MDAnalysis, mdconvert of MDTraj, cpptraj or VMD")
    raise InputError(
        f"{path} is not a trajectory format that hpcfit reads",
        remedy=f"give one of {', '.join(named)}; {converts} writes XTC or DCD of it",
    )


def _units_of_dump(path: Path, given: Given) -> Units:
    return lammps_dumps.units_of(path, given.length, given.energy)


def has_elements(path: Path) -> bool:
    """Return True if a trajectory names its elements, so that it needs no topology."""
    kind = _kind(path)
    return kind in ("ase", "frames", "pieces", "models", "cif", "cp2k") or (
        kind == "lammps" and path.is_file() and bool(lammps_dumps.elements_of(path))
    )


def files_of(path: Path) -> list[Path]:
    """The files of a trajectory: itself, and those that CP2K writes beside it."""
    return cp2k_files.files_of(path) if _kind(path) == "cp2k" else [path]


def open_positions(
    path: Path, topology: Path | Topology | None, group: str | None = None, given: Given = NOT_GIVEN
) -> TrajectoryReader:
    """Open a trajectory; `topology`, read or not, where the format has no elements; group: of the particles of an H5MD
    that has several; given: units of a dump of LAMMPS, units and columns of extended XYZ.

    Raises InputError for files that are missing, damaged, of unknown format, or of other atoms than the topology.
    """
    kind = _kind(path)
    if group is not None and kind != "h5md":
        raise InputError(
            f"{path} is no H5MD: group = '{group}' would have no effect",
            remedy="leave [[prepare.source]] group out, or give this trajectory a source of its own",
        )
    _check_given(path, kind, given)
    if kind == "pieces":
        atoms, n_frames = open_pieces(path)
        return TrajectoryReader(path, atoms, n_frames, read_settings(path).frames)
    if kind == "frames":
        return TrajectoryReader(path, *open_frame_folder(path))
    check_is_file(path, "trajectory", "correct [[prepare.source]] trajectory")
    if kind == "models":
        check_layout(path, "pdb")
        atoms, n_frames = _with_topology(path, read_topology(path), *_counted_by_mdanalysis(path))
        atoms = atoms._replace(cell=_cell_of_models(path))
    elif has_elements(path):
        atoms, n_frames = _with_elements(path, kind)
    else:
        atoms, n_frames = _with_topology(path, topology, *_counted(kind, path, group))
    reader = TrajectoryReader(path, atoms, n_frames, _announced(path), group, given)
    if kind == "models":
        return reader
    first = next(reader.frames(range(1))) if n_frames else None
    box = None if first is None or first.box is None else sound_cell(path, cell_of(first.box))
    return reader._replace(topology=atoms._replace(cell=box or atoms.cell))


def _check_given(path: Path, kind: str, given: Given) -> None:
    """Raise InputError for keys of a source that mean nothing for the format of its trajectory."""
    of_xyz = kind == "ase" and ase_files.form_of(path) == "extxyz"
    for name, value, means in (
        ("keys", given.positions or given.forces, of_xyz), ("length_unit", given.length, of_xyz or kind == "lammps"),
        ("energy_unit", given.energy, of_xyz or kind == "lammps"),
    ):  # fmt: skip
        if value is not None and not means:
            raise InputError(
                f"{path} says its columns and units itself: {name} = '{value}' would have no effect",
                remedy=f"leave [[prepare.source]] {name} out, or give this trajectory a source of its own",
            )


def _with_elements(path: Path, kind: str) -> tuple[Topology, int]:
    """The elements, and the number of whole frames, of a file that names its elements."""
    if kind == "lammps":
        return Topology(lammps_dumps.elements_of(path), None), len(lammps_dumps.index_of(path).offsets)
    if kind == "cp2k":
        index = cp2k_files.index_of(path)
        return Topology(index.elements, None), len(index.offsets)
    if kind == "cif":
        return read_topology(path), len(cif_models.models_of(path).positions)
    images = ase_files.images_of(path)
    return Topology(ase_files.elements_of(path, images, "frame"), None), len(images)


def _counted(kind: str, path: Path, group: str | None) -> tuple[int, int]:
    """The atoms and the whole frames of a file that has no elements."""
    if kind == "gromacs":
        index = gromacs_files.index_of(path)
        return index.n_atoms, len(index.offsets)
    if kind == "dcd":
        with dcd_files.opened(path) as file:
            return file.header["natoms"], file.n_frames
    if kind == "lammps":
        index = lammps_dumps.index_of(path)
        return index.n_atoms, len(index.offsets)
    if kind == "h5md":
        layout = h5md_files.layout_of(path, group)
        return layout.n_atoms, layout.n_frames
    return _counted_by_mdanalysis(path)


def _counted_by_mdanalysis(path: Path) -> tuple[int, int]:
    with _md_reader(path) as reader:
        return reader.n_atoms, reader.n_frames


def _announced(path: Path) -> int | None:
    """How many frames a file must hold; None where its format does not say."""
    kind = _kind(path)
    if kind == "gromacs":
        return gromacs_files.index_of(path).begun
    if kind == "dcd":
        return dcd_files.announced(path)
    if kind == "lammps":
        return lammps_dumps.index_of(path).begun
    if kind == "cp2k":
        return cp2k_files.index_of(path).begun
    return ase_files.announced(path) if kind == "ase" else None


def read_topology(path: Path) -> Topology:
    """Elements and cell of a PDB (MDAnalysis), mmCIF (gemmi) or program's topology, atoms in the order of the file."""
    check_is_file(path, "topology", "correct [[prepare.source]] topology")
    readers = dict.fromkeys(PDB, _pdb_topology) | dict.fromkeys(MMCIF, _mmcif_topology)
    reader = (readers | dict.fromkeys(PROGRAMS, _program_topology)).get(suffix_of(path))
    if reader is None or (reader is _program_topology and path.suffix == ".gz"):
        raise InputError(
            f"topology {path}: '{path.suffix}' is not read",
            remedy=f"give one of {', '.join((*readers, *PROGRAMS))}; ParmEd, VMD or MDAnalysis write PDB of others",
        )
    topology = reader(path)
    if not topology.elements:
        raise InputError(f"topology {path} has no atoms", remedy="give the file that the simulation started from")
    return topology


def _pdb_topology(path: Path) -> Topology:
    import MDAnalysis

    with quiet(), reading(f"topology {path} cannot be read as PDB", "check the file"):
        universe = MDAnalysis.Universe(str(path), to_guess=())
        cell = sound_cell(path, universe.dimensions)
        universe.trajectory.close()
        columns = pdb_columns(path)
    if not all(columns.elements):
        number = columns.elements.index("")
        said, remedy = without_element(path, number, columns.names[number])
        raise InputError(said, remedy=remedy)
    warn_of_alternates(path, columns.alternates)
    return Topology(columns.elements, cell, columns.space_group)


def _program_topology(path: Path) -> Topology:
    found = read_program_topology(path)
    return Topology(found.elements, sound_cell(path, found.cell))


def _mmcif_topology(path: Path) -> Topology:
    import gemmi

    with reading(f"topology {path} cannot be read as mmCIF", "check the file"):
        block = gemmi.cif.read(str(path)).sole_block()
        # The hierarchy of gemmi would regroup atoms by chain; the trajectory follows the rows of the file.
        table = block.find("_atom_site.", ["type_symbol", "?pdbx_PDB_model_num"])
        rows = [(row.str(0), row.str(1) if row.has(1) else "1") for row in table]
        structure = gemmi.make_structure_from_block(block)
        cell = sound_cell(path, cif_models.cell_of_block(block))
    elements = tuple(element_named(symbol) for symbol, model in rows if model == rows[0][1])
    return Topology(elements, cell, structure.spacegroup_hm)


def _with_topology(path: Path, topology: Path | Topology | None, n_atoms: int, n_frames: int) -> tuple[Topology, int]:
    if topology is None:
        raise InputError(
            f"{path} holds no elements",
            remedy="give topology = a PDB, mmCIF, GRO, TPR, PSF or PRMTOP of the same atoms",
        )
    atoms = topology if isinstance(topology, Topology) else read_topology(topology)
    if n_atoms != len(atoms.elements):
        raise InputError(
            f"{path} has {n_atoms} atoms, {_named(topology)} has {len(atoms.elements)} atoms",
            remedy="give the topology of this trajectory",
        )
    return atoms, n_frames


def _cell_of_models(path: Path) -> tuple[float, ...] | None:
    """The one box of all models of a PDB file; InputError where CRYST1 records differ, of which models have none."""
    opens = gzip.open if path.suffix == ".gz" else open
    with opens(path, "rt", encoding="utf-8", errors="replace") as file:
        records = {line[6:54] for line in file if line.startswith("CRYST1")}
    if len(records) > 1:
        raise InputError(
            f"{path} has {len(records)} different CRYST1 records; the models of a PDB file share one box",
            remedy="convert it to a format with a box for each frame, for instance XTC or extended XYZ",
        )
    ends = (0, 9, 18, 27, 34, 41, 48)
    with reading(f"the CRYST1 record of {path} cannot be read", "correct it"):
        found = [[float(text[a:b]) for a, b in pairwise(ends)] for text in records]
    return sound_cell(path, found[0] if found else None)


def _in_one_box(frames: Iterator[Frame], cell: tuple[float, ...] | None) -> Iterator[Frame]:
    """The models of a PDB file in its box; MDAnalysis gives a model what stands behind it in the file."""
    box, pbc = (None, NOT_PERIODIC) if cell is None else (orthogonalization(cell).T, PERIODIC)
    with contextlib.closing(frames):
        for frame in frames:
            yield frame._replace(box=box, pbc=pbc)


def _named(topology: Path | Topology) -> str:
    return "its topology" if isinstance(topology, Topology) else f"topology {topology}"


@contextlib.contextmanager
def _md_reader(path: Path) -> Iterator:
    """AMBER NetCDF and PDB by MDAnalysis, whose boxes are lengths and angles in these formats themselves."""
    from MDAnalysis.coordinates.core import reader

    with quiet():
        with reading(f"trajectory {path} cannot be opened", WHOLE):
            if _kind(path) == "netcdf":
                check_head(path)
            opened = reader(str(path))
        with opened:
            yield opened


def _md_frames(path: Path, rows: range) -> Iterator[Frame]:
    with _md_reader(path) as reader:
        for row in rows:
            remedy = "the file is truncated: repair it, or use the frames before with stop"
            with reading(f"{path}, frame {row} cannot be read", remedy):
                frame = _md_frame(row, reader[row])
            yield frame


def _md_frame(row: int, step) -> Frame:
    has_box = cell_or_none(step.dimensions) is not None
    return Frame(
        row,
        step.positions.astype(float),
        step.forces.copy() if step.has_forces else None,
        step.triclinic_dimensions.astype(float) if has_box else None,
        float(step.time),
        pbc=PERIODIC if has_box else NOT_PERIODIC,
        step=int(step.data["step"]) if "step" in step.data else None,
    )


_FRAMES = {
    "cif": cif_models.frames, "cp2k": cp2k_files.frames, "dcd": dcd_files.frames, "gromacs": gromacs_files.frames,
    "netcdf": _md_frames,
}  # fmt: skip
