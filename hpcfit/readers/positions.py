"""Positions from the files of simulations: topologies and trajectories, frame by frame, whatever the format."""

from __future__ import annotations

import contextlib
import functools
import gzip
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from hpcfit.errors import InputError, check_is_file
from hpcfit.physics.scattering import orthogonalization
from hpcfit.readers import dcd_files, gromacs_files, h5md_files
from hpcfit.readers.boundary import reading
from hpcfit.readers.frame_folders import folder_frames, is_frame_folder, open_frame_folder
from hpcfit.readers.netcdf_heads import check_head
from hpcfit.readers.pdb_columns import element_named, pdb_columns, warn_of_alternates, without_element
from hpcfit.readers.text_layout import check_layout
from hpcfit.store.frame import NOT_PERIODIC, PERIODIC, Frame, Topology
from hpcfit.store.pieces import SETTINGS, open_pieces, piece_frames, read_settings

WITH_TOPOLOGY = {
    ".dcd": "dcd", ".xtc": "gromacs", ".trr": "gromacs", ".nc": "netcdf", ".ncdf": "netcdf",
} | dict.fromkeys(h5md_files.SUFFIXES, "h5md")  # fmt: skip
WITHOUT_TOPOLOGY = ("XDATCAR", "XDATCAR.gz", ".extxyz", ".extxyz.gz", ".xyz", ".xyz.gz")
MODELS = (".pdb", ".ent")  # a model a frame
WHOLE = "check that it is whole"


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
    elements, and the cell of its box; group: of its particles, of an H5MD with several."""

    path: Path
    topology: Topology
    n_frames: int
    announced: int | None = None
    group: str | None = None

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
        if kind == "h5md":
            return h5md_files.frames(self.path, self.group, rows)
        return _FRAMES[kind](self.path, rows)


def _kind(path: Path) -> str:
    if path.is_dir():
        if not is_frame_folder(path) and not (path / SETTINGS).exists():
            raise InputError(
                f"the folder {path} has no frames: no file *.xyz or *.pdb; nor is it a trajectory of `hpcfit simulate`,"
                f" which has {SETTINGS}",
                remedy="correct [[prepare.source]] trajectory; of simulated replicas give DIRECTORY/*",
            )
        return "frames" if is_frame_folder(path) else "pieces"
    if path.suffix.lower() in WITH_TOPOLOGY:
        return WITH_TOPOLOGY[path.suffix.lower()]
    if path.suffix.lower() in MODELS:
        return "models"
    if path.name.endswith(WITHOUT_TOPOLOGY) or path.name.startswith("XDATCAR"):
        return "ase"
    raise InputError(
        f"{path} is not a trajectory format that hpcfit reads",
        remedy=f"give one of {', '.join((*WITH_TOPOLOGY, *WITHOUT_TOPOLOGY, *MODELS))}",
    )


def _is_xdatcar(path: Path) -> bool:
    return not path.name.removesuffix(".gz").endswith("xyz") and _kind(path) == "ase"


def has_elements(path: Path) -> bool:
    """Return True if a trajectory names its elements, so that it needs no topology."""
    return _kind(path) in ("ase", "frames", "pieces", "models")


def open_positions(path: Path, topology: Path | Topology | None, group: str | None = None) -> TrajectoryReader:
    """Open a trajectory; `topology`, read or not, where the format has no elements; group: of the particles of an H5MD
    that has several.

    Raises InputError for files that are missing, damaged, of unknown format, or of other atoms than the topology.
    """
    kind = _kind(path)
    if group is not None and kind != "h5md":
        raise InputError(
            f"{path} is no H5MD: group = '{group}' would have no effect",
            remedy="leave [[prepare.source]] group out, or give this trajectory a source of its own",
        )
    if kind == "pieces":
        atoms, n_frames = open_pieces(path)
        return TrajectoryReader(path, atoms, n_frames, read_settings(path).frames)
    if kind == "frames":
        return TrajectoryReader(path, *open_frame_folder(path))
    check_is_file(path, "trajectory", "correct [[prepare.source]] trajectory")
    if kind == "ase":
        atoms, n_frames = _ase_topology(path)
    elif kind == "models":
        check_layout(path, "pdb")
        atoms, n_frames = _with_topology(path, read_topology(path), *_counted_by_mdanalysis(path))
        atoms = atoms._replace(cell=_cell_of_models(path))
    else:
        atoms, n_frames = _with_topology(path, topology, *_counted(kind, path, group))
        reader = TrajectoryReader(path, atoms, n_frames, _announced(path), group)
        first = next(reader.frames(range(1))) if n_frames else None
        box = None if first is None or first.box is None else cell_or_none(cell_of(first.box))
        return reader._replace(topology=atoms._replace(cell=box or atoms.cell))
    return TrajectoryReader(path, atoms, n_frames, _announced(path))


def _counted(kind: str, path: Path, group: str | None) -> tuple[int, int]:
    """The atoms and the whole frames of a file that has no elements."""
    if kind == "gromacs":
        index = gromacs_files.index_of(path)
        return index.n_atoms, len(index.offsets)
    if kind == "dcd":
        with dcd_files.opened(path) as file:
            return file.header["natoms"], file.n_frames
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
    return _frames_of_xdatcar(path) if _is_xdatcar(path) else None


def _frames_of_xdatcar(path: Path) -> int | None:
    """How many configurations begin in an XDATCAR; ASE ends, without a word, at the first line it does not expect."""
    opens = gzip.open if path.suffix == ".gz" else open
    with reading(f"trajectory {path} cannot be read", WHOLE), opens(path, "rt", errors="replace") as file:
        # Each begins with "Direct configuration=" or with "Cartesian ..."; in those of VASP 4 with an empty line.
        return sum(line.lstrip().lower().startswith(("direct", "cartesian")) for line in file) or None


def read_topology(path: Path) -> Topology:
    """Elements and cell of a PDB (MDAnalysis) or mmCIF (gemmi) file, atoms in the order of the file."""
    check_is_file(path, "topology", "correct [[prepare.source]] topology")
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

    with quiet(), reading(f"topology {path} cannot be read as PDB", "check the file"):
        universe = MDAnalysis.Universe(str(path), to_guess=())
        cell = cell_or_none(universe.dimensions)
        universe.trajectory.close()
        columns = pdb_columns(path)
    if not all(columns.elements):
        number = columns.elements.index("")
        said, remedy = without_element(path, number, columns.names[number])
        raise InputError(said, remedy=remedy)
    warn_of_alternates(path, columns.alternates)
    return Topology(columns.elements, cell, columns.space_group)


def _mmcif_topology(path: Path) -> Topology:
    import gemmi

    with reading(f"topology {path} cannot be read as mmCIF", "check the file"):
        block = gemmi.cif.read(str(path)).sole_block()
        # The hierarchy of gemmi would regroup atoms by chain; the trajectory follows the rows of the file.
        table = block.find("_atom_site.", ["type_symbol", "?pdbx_PDB_model_num"])
        rows = [(row.str(0), row.str(1) if row.has(1) else "1") for row in table]
        structure = gemmi.make_structure_from_block(block)
    elements = tuple(element_named(symbol) for symbol, model in rows if model == rows[0][1])
    cell = cell_or_none(structure.cell.parameters if structure.cell.is_crystal() else None)
    return Topology(elements, cell, structure.spacegroup_hm)


def cell_or_none(cell) -> tuple[float, ...] | None:
    # A CRYST1 of 1 x 1 x 1 A says that there is no cell.
    if cell is None or min(cell[:3]) <= 1.0:
        return None
    return tuple(map(float, cell))


def _with_topology(path: Path, topology: Path | Topology | None, n_atoms: int, n_frames: int) -> tuple[Topology, int]:
    if topology is None:
        raise InputError(f"{path} holds no elements", remedy="give topology = a PDB or mmCIF file of the same atoms")
    atoms = topology if isinstance(topology, Topology) else read_topology(topology)
    if n_atoms != len(atoms.elements):
        raise InputError(
            f"{path} has {n_atoms} atoms, {_named(topology)} has {len(atoms.elements)} atoms",
            remedy="give the topology of this trajectory",
        )
    return atoms, n_frames


def cell_of(box: np.ndarray) -> tuple[float, ...]:
    """Lengths (A) and angles (degrees) of a box [3, 3], whatever its orientation."""
    lengths = np.linalg.norm(box, axis=1)
    pairs = ((1, 2), (0, 2), (0, 1))
    cosines = [np.dot(box[i], box[j]) / max(lengths[i] * lengths[j], 1e-300) for i, j in pairs]
    # 90 - asin is 90 exactly for a right angle
    return (*map(float, lengths), *(90.0 - float(np.degrees(np.arcsin(np.clip(one, -1, 1)))) for one in cosines))


def _cell_of_models(path: Path) -> tuple[float, ...] | None:
    """The one box of all models of a PDB file; InputError where CRYST1 records differ, of which models have none."""
    with open(path, encoding="utf-8", errors="replace") as file:
        records = {line[6:54] for line in file if line.startswith("CRYST1")}
    if len(records) > 1:
        raise InputError(
            f"{path} has {len(records)} different CRYST1 records; the models of a PDB file share one box",
            remedy="convert it to a format with a box for each frame, for instance XTC or extended XYZ",
        )
    ends = (0, 9, 18, 27, 34, 41, 48)
    with reading(f"the CRYST1 record of {path} cannot be read", "correct it"):
        found = [[float(text[a:b]) for a, b in pairwise(ends)] for text in records]
    return cell_or_none(found[0] if found else None)


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


def _ase_topology(path: Path) -> tuple[Topology, int]:
    images = _ase_images(str(path), path.stat().st_mtime_ns)
    elements = elements_of(path, images, "frame")
    cell = images[0].cell.cellpar() if images[0].cell.rank == 3 else None
    return Topology(elements, cell_or_none(cell)), len(images)


def _ase_frames(path: Path, rows: range) -> Iterator[Frame]:
    from ase import units

    images = _ase_images(str(path), path.stat().st_mtime_ns)
    for row in rows:
        atoms = images[row]
        forces = atoms.calc.results.get("forces") if atoms.calc else None
        forces = None if forces is None else forces / (units.kJ / units.mol)
        box = atoms.cell.array if atoms.cell.rank == 3 else None
        yield Frame(row, atoms.get_positions(), forces, box, pbc=tuple(map(bool, atoms.pbc)))


@functools.lru_cache(maxsize=2)
def _ase_images(path: str, _modified: int) -> list:
    """All frames of a text trajectory; such files are read from the start, so they are kept while they are in use."""
    form = "vasp-xdatcar" if _is_xdatcar(Path(path)) else "extxyz"
    return read_images(f"trajectory {path}", path, form, "frames", WHOLE)


def read_images(what: str, path: Path | str, form: str, images: str, remedy: str) -> list:
    """All images of a text file in a format of ASE. what, images: the words of errors for the file and what it holds;
    remedy: that of a file which cannot be read."""
    import ase.io

    check_layout(Path(path), form)
    with reading(f"{what} cannot be read by ASE as {form}", remedy):
        # With mpi4py loaded ASE reads on one rank and sends its file to all, who asked for other files: parallel=False.
        found = ase.io.read(path, index=":", format=form, parallel=False, do_not_split_by_at_sign=True)
    if not found:
        raise InputError(f"{what} has no {images}", remedy=f"give a file with {images}")
    return found


def elements_of(path: Path, images: list, word: str) -> tuple[str, ...]:
    """The elements of all images of ASE; InputError, which calls them by ``word``, where they differ."""
    elements = tuple(images[0].get_chemical_symbols())
    for number, image in enumerate(images):
        if tuple(image.get_chemical_symbols()) != elements:
            raise InputError(
                f"{path}, {word} {number}: {image.get_chemical_formula()}, {word} 0 has"
                f" {images[0].get_chemical_formula()}, or another order",
                remedy="give a file of the same atoms throughout, those of other molecules in files of their own",
            )
    return elements


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of MDAnalysis on what a PDB lacks, or on its plans; what hpcfit needs it checks itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_FRAMES = {"ase": _ase_frames, "dcd": dcd_files.frames, "gromacs": gromacs_files.frames, "netcdf": _md_frames}
