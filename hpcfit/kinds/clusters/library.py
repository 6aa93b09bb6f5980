"""Structures of clusters by label: read from a folder, or filled from the instances of a trajectory.

The composition of a label is the most frequent one among its structures, whatever its folder is called.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist, pdist

from hpcfit.errors import InputError, check_is_file
from hpcfit.kinds.clusters.composition import Roles, Structure
from hpcfit.readers.pdb_columns import is_element
from hpcfit.store.files import sha256_of_file

Choice = Literal["medoid", "first"]
SUFFIXES = (".xyz", ".pdb")
FURTHEST = 1e6  # A, from the origin, beyond which no place of an atom can be meant
TIE = 1e-6  # A, differences of mean distances that do not tell a medoid from another


class Shape(NamedTuple):
    """The size of a structure about its unweighted centroid, A. rg: root mean square distance; rmax: the largest one;
    a, b, c: semiaxes in falling order, with a² + b² + c² = rg²."""

    rg: float
    rmax: float
    a: float
    b: float
    c: float

    @classmethod
    def of(cls, positions: np.ndarray) -> Shape:
        """The shape of positions [n, 3] A."""
        centred = positions - positions.mean(axis=0)
        squares = (centred**2).sum(axis=1)
        # an axis that is 0 comes out as 1e-8 A, as it does in SAXSShell, whose predictions of radii carry it on
        axes = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(centred.T, bias=True))[::-1], 0.0))
        return cls(float(np.sqrt(squares.mean())), float(np.sqrt(squares.max())), *map(float, axes))


class Ensemble(NamedTuple):
    """All structures of a label.

    counts: the composition of most of them; n_node: its nodes; representative: the number of the structure that stands
    for the label; motifs: names of the folders below the label's; beside: structures in the label's folder that are in
    none of its motif folders, which count for widths of pairs alone, as in SAXSShell.
    """

    label: str
    counts: dict[str, int]
    n_node: int
    structures: tuple[Structure, ...]
    representative: int
    motifs: tuple[str, ...] = ()
    beside: tuple[Structure, ...] = ()

    @property
    def shape(self) -> Shape:
        """The means of the shapes, each over all structures."""
        return Shape(*map(float, np.mean([Shape.of(one.positions) for one in self.structures], axis=0)))

    @property
    def mean_atoms(self) -> float:
        """The mean number of atoms of a structure."""
        return float(np.mean([len(one.positions) for one in self.structures]))


class Library(NamedTuple):
    """Ensembles by label, in the order of labels. without_nodes: labels that were dropped, as they have no node."""

    roles: Roles
    ensembles: dict[str, Ensemble]
    without_nodes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        structures_by_label: Mapping[str, Sequence[Structure]],
        roles: Roles,
        representative: Choice = "medoid",
        motifs: Mapping[str, Sequence[str]] | None = None,
    ) -> Library:
        """The library of structures by label. representative: the medoid of the structures with the label's
        composition, or the first one of them by the name of its source."""
        found, without = {}, []
        for label, structures in sorted(structures_by_label.items()):
            if not structures:
                continue
            counts, chosen = typical(structures, roles, representative)
            if not roles.nodes_in(counts):
                without.append(label)
                continue
            names = tuple((motifs or {}).get(label, ()))
            found[label] = Ensemble(label, counts, roles.nodes_in(counts), tuple(structures), chosen, names)
        return cls(roles, found, tuple(without))


def typical(structures: Sequence[Structure], roles: Roles, representative: Choice) -> tuple[dict[str, int], int]:
    """The most frequent composition, of equals the one with more atoms, then the first by the alphabet; and the number
    of the structure with it that stands for all."""
    signatures = [tuple(sorted(counts_in(one, roles).items())) for one in structures]
    most = Counter(one for one in signatures if one)
    if not most:
        return {}, 0
    best = min(most, key=lambda one: (-most[one], -sum(count for _, count in one), one))
    rows = [number for number, one in enumerate(signatures) if one == best]
    return dict(best), rows[medoid([structures[row] for row in rows])] if representative == "medoid" else rows[0]


def counts_in(structure: Structure, roles: Roles) -> dict[str, int]:
    """The counts of the species that have a role. A molecule is counted by its rarest element."""
    by_species: dict[str, Counter[str]] = {}
    for species, element in zip(structure.species, structure.elements):
        if roles.of(species):
            by_species.setdefault(species, Counter())[element] += 1
    return {species: min(atoms.values()) for species, atoms in by_species.items()}


def medoid(structures: Sequence[Structure]) -> int:
    """The number of the structure with the smallest sum of distances to the others, the first of equals.

    All have one composition. Two differ by the root mean square difference of their sorted pair distances of each pair
    of elements, which neither motions nor the order of equal atoms change.
    """
    if len(structures) < 3 or len(structures[0].elements) < 2:
        return 0
    vectors = np.array([np.concatenate([np.sort(d) for d in distances(one).values()]) for one in structures])
    sums = cdist(vectors, vectors).mean(axis=1) / np.sqrt(vectors.shape[1])
    return int(np.flatnonzero(sums <= sums.min() + TIE)[0])


def distances(structure: Structure) -> dict[tuple[str, str], np.ndarray]:
    """The distances of all pairs of atoms by pair of elements, A; the elements of a pair by the alphabet."""
    elements = np.array(structure.elements)
    first, second = np.triu_indices(len(elements), 1)
    names = np.sort(np.stack([elements[first], elements[second]], axis=1), axis=1)
    values = pdist(structure.positions)
    pairs = sorted({(str(a), str(b)) for a, b in names})
    return {pair: values[np.all(names == pair, axis=1)] for pair in pairs}


# ---- folders -------------------------------------------------------------------------------------------------------


def read_library(folder: Path, roles: Roles, representative: Choice = "medoid") -> Library:
    """The library of a folder: `LABEL/*.xyz` or `.pdb`, or `LABEL/motif_*/…`, beside which the label's own files count
    for widths of pairs alone. Folders `representative_*` are left out.

    Raises InputError for a folder or line that cannot be read.
    """
    check_folder(folder)
    structures, motifs, beside = {}, {}, {}
    for of_label in sorted(path for path in folder.iterdir() if path.is_dir()):
        if of_label.name.startswith("representative_"):
            continue
        below = sorted(path for path in of_label.glob("motif_*") if path.is_dir())
        files = [path for one in below or [of_label] for path in sorted(one.iterdir())]
        files = [path for path in files if path.suffix.lower() in SUFFIXES and path.is_file()]
        structures[of_label.name] = [read_structure(path, roles) for path in files]
        motifs[of_label.name] = sorted({path.parent.name for path in files if below})
        others = sorted({path for path in of_label.rglob("*") if path.suffix.lower() in SUFFIXES} - set(files))
        beside[of_label.name] = tuple(read_structure(path, roles) for path in others)
    library = Library.of(structures, roles, representative, motifs)
    ensembles = {label: one._replace(beside=beside[label]) for label, one in library.ensembles.items()}
    library = library._replace(ensembles=ensembles)
    if not library.ensembles:
        raise InputError(
            f"{folder} holds {sum(map(len, structures.values()))} structures in {len(structures)} folders, and none"
            f" with a node ({', '.join(roles.node)})",
            remedy="give a folder with one folder a label, as Pb2I3/*.xyz, or correct the nodes",
        )
    return library


def check_folder(folder: Path) -> None:
    """Raise InputError where there is no such folder."""
    if not folder.is_dir():
        raise InputError(
            f"the folder of structures {folder} {'is a file' if folder.exists() else 'does not exist'}",
            remedy="correct [problem.library] folder, or leave it out: the trajectory's own structures are then taken",
        )


def digest_of_folder(folder: Path) -> str:
    """A digest of the names and contents of all structures below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    told = [(str(path.relative_to(folder)), sha256_of_file(path)) for path in files]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def read_structure(path: Path, roles: Roles) -> Structure:
    """The structure of an XYZ file (its first frame) or a PDB file (its first model). Residues that have a role are
    species of their own. Raises InputError that names file and line."""
    check_is_file(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text: {error}", remedy="give a text file, or remove it") from None
    atoms = _atoms_of_pdb(path, lines, roles) if path.suffix.lower() == ".pdb" else _atoms_of_xyz(path, lines)
    if not atoms:
        raise InputError(f"{path} holds no atoms", remedy="give a structure, or remove the file")
    species, elements, positions = zip(*atoms)
    return Structure(species, elements, np.array(positions, float), str(path))


def _atoms_of_xyz(path: Path, lines: Sequence[str]) -> list[tuple[str, str, list[float]]]:
    try:
        n = int(lines[0])
    except (IndexError, ValueError):
        first = lines[0] if lines else ""
        raise InputError(f"{path}, line 1: '{first}' is no number of atoms", remedy="correct this line") from None
    if len(lines) < n + 2:
        raise InputError(f"{path} has {len(lines)} lines for {n} atoms, not {n + 2}", remedy="give the whole file")
    behind = next((k for k, line in enumerate(lines[n + 2 :], n + 3) if line.strip()), None)
    if behind is not None and not lines[behind - 1].strip().isdecimal():  # where another frame would begin
        raise InputError(
            f"{path}, line 1 announces {n} atoms, and line {behind} is '{lines[behind - 1].strip()}'",
            remedy="correct the number of atoms",
        )
    atoms = []
    for number, line in enumerate(lines[2 : n + 2], 3):
        name, *rest = line.split() or [""]
        element = name.capitalize()
        atoms.append((element, element, _coordinates(path, number, line, element, rest[:3])))
    return atoms


def _atoms_of_pdb(path: Path, lines: Sequence[str], roles: Roles) -> list[tuple[str, str, list[float]]]:
    atoms = []
    for number, line in enumerate(lines, 1):
        if line.startswith("ENDMDL"):
            break
        if line.startswith(("ATOM", "HETATM")):
            element = (line[76:78].strip() or line[12:14].strip().lstrip("0123456789")).capitalize()
            residue = line[17:20].strip()
            values = [line[start : start + 8] for start in (30, 38, 46)]
            position = _coordinates(path, number, line, element, values)
            atoms.append((residue if roles.of(residue) else element, element, position))
    return atoms


def _coordinates(path: Path, number: int, line: str, element: str, values: Sequence[str]) -> list[float]:
    try:
        position = [float(value) for value in values]
    except ValueError:
        position = []
    if not element.isalpha() or len(position) != 3 or not np.all(np.abs(position) <= FURTHEST):
        raise InputError(
            f"{path}, line {number}: '{line.strip()}' is no element with three coordinates", remedy="correct this line"
        )
    if not is_element(element):
        raise InputError(f"{path}, line {number}: '{element}' is no element", remedy="correct this line")
    return position
