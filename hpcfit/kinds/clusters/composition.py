"""Roles of species in clusters, and compositions written as labels.

A species is an element, or a molecule by the name of its residue. Nodes make a cluster, linkers join nodes, shells
surround them. A label has the species in order with their counts, 1 left out: `Pb2I3`, `Li(PF6)2`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import numpy as np

from hpcfit.errors import InputError

Role = Literal["node", "linker", "shell"]
LabelStyle = Literal["roles", "saxshell"]
FIRST = ("Pb", "I")  # of a label as SAXSShell writes it, then the others by the alphabet
ELEMENT = re.compile(r"[A-Z][a-z]?")
PART = re.compile(r"(?:\(([^()]+)\)|([A-Z][a-z]?))(\d*)")


class Roles(NamedTuple):
    """The species of each role. style: of labels, "roles": nodes, linkers, shells, each by the alphabet; "saxshell": Pb
    and I first, then all others by the alphabet."""

    node: tuple[str, ...]
    linker: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    style: LabelStyle = "roles"

    def of(self, species: str) -> Role | None:
        """The role of a species, None where it takes no part; the first role that names it."""
        return next((role for role in ("node", "linker", "shell") if species in getattr(self, role)), None)

    def ordered(self, species: Iterable[str]) -> list[str]:
        """Different species in the order of a label."""
        if self.style == "saxshell":
            return sorted(set(species), key=lambda one: (FIRST.index(one) if one in FIRST else len(FIRST), one))
        place = {"node": 0, "linker": 1, "shell": 2, None: 3}
        return sorted(set(species), key=lambda one: (place[self.of(one)], one))

    def label(self, counts: Mapping[str, int]) -> str:
        """The label of a composition; species that are not there are left out."""
        there = {species: count for species, count in counts.items() if count > 0}
        return "".join(_written(one) + (str(there[one]) if there[one] > 1 else "") for one in self.ordered(there))

    def nodes_in(self, counts: Mapping[str, int]) -> int:
        """The nodes of a composition."""
        return sum(count for species, count in counts.items() if self.of(species) == "node")


def composition_of(label: str) -> dict[str, int]:
    """The counts of species of a label. Raises InputError for a text that is none."""
    found: Counter[str] = Counter()
    end = 0
    for part in PART.finditer(label):
        if part.start() != end:
            break
        found[part[1] or part[2]] += int(part[3] or 1)
        end = part.end()
    if end != len(label) or not found:
        raise InputError(f"'{label}' is no composition", remedy="write it as Pb2I3, molecules as Li(PF6)2")
    return dict(found)


def _written(species: str) -> str:
    return species if ELEMENT.fullmatch(species) else f"({species})"


class Structure(NamedTuple):
    """A cluster in space. species: of each atom [n] (the molecule's for atoms of molecules); elements: [n];
    positions: [n, 3] A, unwrapped; source: where it comes from, for people."""

    species: tuple[str, ...]
    elements: tuple[str, ...]
    positions: np.ndarray
    source: str = ""
