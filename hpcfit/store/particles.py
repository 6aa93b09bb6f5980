"""The particles of a store: atoms with residues, masses, bonds and constraints, or beads."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass, replace

import h5py
import numpy as np

from hpcfit.errors import DamagedFile, InputError
from hpcfit.store.files import set_units

TEXTS = ("names", "elements", "residue_names", "chains")
INTEGERS = ("residue", "residue_numbers")
PAIRS = ("bonds", "constraints")


@dataclass(frozen=True, eq=False)
class Particles:
    """The n particles of every frame, in the order of positions and forces.

    A virtual site has mass 0 and no element (""); beads have no element either. `bonds` and `constraints` are pairs of
    particles, the lower number first, sorted; None says that the constraints of the simulation are not known.
    """

    names: tuple[str, ...]  # [n]
    elements: tuple[str, ...]  # [n] symbols
    residue: np.ndarray  # [n] int32, counted from 0
    residue_names: tuple[str, ...]  # [residues]
    residue_numbers: tuple[int, ...]  # [residues], as the topology numbers them
    chains: tuple[str, ...]  # [residues]
    masses: np.ndarray  # [n] float64, amu
    bonds: np.ndarray  # [b, 2] int32
    constraints: np.ndarray | None = None  # [c, 2] int32

    def __post_init__(self):
        for name, kind in (("residue", np.int32), ("masses", float)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), kind))
        for name in PAIRS:
            found = getattr(self, name)
            object.__setattr__(self, name, None if found is None else _sorted_pairs(found))
        _check(self)

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict:
        """Leave out what `select` keeps: ranks that receive particles from root need not import MDAnalysis for it."""
        return {name: value for name, value in vars(self).items() if name != "_universe"}

    @property
    def n_residues(self) -> int:
        """Residues."""
        return len(self.residue_names)

    @functools.cached_property
    def virtual_sites(self) -> np.ndarray:
        """The particles without mass and element, [v] int."""
        bare = np.array([not element for element in self.elements])
        return np.flatnonzero((self.masses == 0) & bare)

    def label(self, particle: int) -> str:
        """A particle as an error names it: number from 0, name, residue, chain."""
        residue = int(self.residue[particle])
        chain = f", chain {self.chains[residue]}" if self.chains[residue] else ""
        where = f"{self.residue_names[residue]} {self.residue_numbers[residue]}{chain}"
        return f"atom {particle} ({self.names[particle]} of {where})"

    def select(self, selection: str) -> np.ndarray:
        """The particles of a selection in the language of MDAnalysis, [k] int, in the order of the file.

        Raises InputError for a selection that MDAnalysis does not understand, or that selects nothing.
        """
        import MDAnalysis

        universe = self._universe
        try:
            chosen = universe.select_atoms(selection).indices
        except (MDAnalysis.SelectionError, MDAnalysis.NoDataError, ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"selection '{selection}' is not understood: {error}",
                remedy="write it in MDAnalysis's language, for instance 'protein and name CA'",
            ) from None
        if not len(chosen):
            raise InputError(
                f"selection '{selection}' selects none of the {len(self)} particles"
                f" (residues {_some(self.residue_names)}; names {_some(self.names)})",
                remedy="correct the selection",
            )
        return np.asarray(chosen, int)

    @functools.cached_property
    def _universe(self):
        import MDAnalysis

        chains = list(dict.fromkeys(self.chains))
        number = {chain: row for row, chain in enumerate(chains)}
        universe = MDAnalysis.Universe.empty(
            len(self), self.n_residues, len(chains),
            atom_resindex=self.residue, residue_segindex=[number[chain] for chain in self.chains],
        )  # fmt: skip
        per_atom = {"names": self.names, "elements": self.elements, "types": self.elements, "masses": self.masses}
        per_atom["chainIDs"] = [self.chains[residue] for residue in self.residue]
        for name, values in per_atom.items():
            universe.add_TopologyAttr(name, list(values))
        universe.add_TopologyAttr("resnames", list(self.residue_names))
        universe.add_TopologyAttr("resids", list(self.residue_numbers))
        universe.add_TopologyAttr("segids", chains)
        universe.add_TopologyAttr("bonds", [tuple(pair) for pair in self.bonds.tolist()])
        return universe

    def changed(self, **parts) -> Particles:
        """Return these particles with other `masses`, `bonds`, `constraints`, ..."""
        return replace(self, **parts)

    def subset(self, kept: np.ndarray) -> Particles:
        """Some of the particles, in their order, with the residues, bonds and constraints that are left of them."""
        kept = np.unique(np.asarray(kept, int))
        number = np.full(len(self), -1)
        number[kept] = np.arange(len(kept))
        residues, residue = np.unique(self.residue[kept], return_inverse=True)

        def left(pairs: np.ndarray | None) -> np.ndarray | None:
            return None if pairs is None else number[pairs][(number[pairs] >= 0).all(axis=1)]

        def rows(values: tuple, chosen: np.ndarray) -> tuple:
            return tuple(values[row] for row in chosen)

        of_residues = (rows(getattr(self, name), residues) for name in ("residue_names", "residue_numbers", "chains"))
        names, elements = rows(self.names, kept), rows(self.elements, kept)
        pairs = (left(self.bonds), left(self.constraints))
        return Particles(names, elements, residue, *of_residues, self.masses[kept], *pairs)

    def difference(self, other: Particles) -> str:
        """Say what differs between two sets of particles; empty where they are the same."""
        if len(self) != len(other):
            return f"{len(self)} and {len(other)} particles"
        for name in (*TEXTS, "residue_numbers"):
            for row, (mine, its) in enumerate(zip(getattr(self, name), getattr(other, name))):
                if mine != its:
                    return f"{name.replace('_', ' ')} ({mine!r} and {its!r} at {row})"
        for name in ("residue", "masses", *PAIRS):
            mine, its = getattr(self, name), getattr(other, name)
            if (mine is None) != (its is None) or (mine is not None and not np.array_equal(mine, its)):
                return f"{name} ({_size(mine)} and {_size(its)})" if name in PAIRS else name
        return ""

    def digest(self) -> str:
        """Identifies the particles: SHA-256 of everything about them, 16 digits."""
        texts = [getattr(self, name) for name in (*TEXTS, "residue_numbers")]
        digest = hashlib.sha256(json.dumps([*texts, self.constraints is None]).encode())
        for values in (self.residue, self.masses, self.bonds, self.constraints):
            digest.update(b"" if values is None else np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()[:16]

    def write(self, group: h5py.Group) -> None:
        """Write them as datasets of a group."""
        for name in TEXTS:
            group.create_dataset(name, data=np.array(getattr(self, name), object), dtype=h5py.string_dtype())
        for name in INTEGERS:
            group[name] = np.asarray(getattr(self, name), "<i4")
        group["masses"] = self.masses.astype("<f8")
        set_units(group["masses"], "amu")
        for name in PAIRS:
            if getattr(self, name) is not None:
                group[name] = getattr(self, name).astype("<i4")
        group.attrs["digest"] = self.digest()

    @classmethod
    def read(cls, group: h5py.Group) -> Particles:
        """Read what `write` wrote; raises DamagedFile when it differs from its digest."""
        texts = {name: tuple(group[name].asstr()[:]) for name in TEXTS}
        numbers = tuple(group["residue_numbers"][:].tolist())
        pairs = {name: group[name][:] for name in PAIRS if name in group}
        found = cls(**texts, residue=group["residue"][:], residue_numbers=numbers, masses=group["masses"][:], **pairs)
        if found.digest() != group.attrs["digest"]:
            raise DamagedFile(
                f"{group.file.filename}: the particles differ from their checksum", remedy="prepare the store again"
            )
        return found


def _sorted_pairs(pairs) -> np.ndarray:
    """[p, 2] int32 without repetitions, the lower number first, sorted."""
    pairs = np.asarray(pairs, np.int32).reshape(-1, 2)
    return np.unique(np.sort(pairs, axis=1), axis=0).astype(np.int32).reshape(-1, 2)


def _check(particles: Particles) -> None:
    """Raise InputError unless all parts are of the same particles and residues."""
    n, residues = len(particles.names), len(particles.residue_names)
    lengths = {"elements": n, "residue": n, "masses": n, "residue_numbers": residues, "chains": residues}
    wrong = [name for name, length in lengths.items() if len(getattr(particles, name)) != length]
    numbers = {"residue": residues, "bonds": n, "constraints": n}
    wrong += [name for name, count in numbers.items() if not _are_below(getattr(particles, name), count)]
    if wrong or not n:
        raise InputError(
            f"{n} particles in {residues} residues do not fit their {', '.join(wrong) or 'number'}",
            remedy="give the topology of one system, with its own bonds and constraints",
        )


def _are_below(numbers: np.ndarray | None, count: int) -> bool:
    return numbers is None or not numbers.size or (numbers.min() >= 0 and numbers.max() < count)


def _size(pairs: np.ndarray | None) -> str:
    return "unknown" if pairs is None else str(len(pairs))


def _some(names: tuple[str, ...]) -> str:
    found = list(dict.fromkeys(names))
    return ", ".join(found[:12]) + (" ..." if len(found) > 12 else "")
