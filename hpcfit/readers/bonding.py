"""Bonds by the distances of atoms: for files that hold elements and positions, but no topology."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hpcfit.physics.scattering import SITE

REACH = 1.2  # of the sum of two covalent radii: below it atoms are bonded, thermal motion included
# Atoms of these elements are ions in what is simulated: near to others, but not bonded.
IONS = {"Li", "Na", "K", "Rb", "Cs", "Be", "Mg", "Ca", "Sr", "Ba"}
# Elements of atoms that are a residue by themselves, and ions there.
ION_ELEMENTS = {*IONS, "F", "Cl", "Br", "I", "Zn", "Mn", "Fe", "Co", "Ni", "Cu", "Cd", "Al", "Ag", "Hg", "La"}
SAMPLE = 200  # atoms whose nearest neighbour is looked for


def guessed_bonds(elements: Sequence[str], positions: np.ndarray, box: np.ndarray | None) -> np.ndarray:
    """Pairs of atoms nearer than 1.2 times the sum of their covalent radii (10.1039/b801115j), [b, 2].

    positions: [n, 3]; box: [3, 3] rows are cell vectors (nearest images count), or None. Particles without an element
    have no bonds.
    """
    from ase import Atoms
    from ase.data import atomic_numbers, covalent_radii
    from ase.neighborlist import neighbor_list

    bonding = np.array([bool(element) and element not in {*IONS, SITE} for element in elements])
    numbers = [atomic_numbers["H" if element == "D" else element] if element else 0 for element in elements]
    atoms = Atoms(numbers, positions, cell=box, pbc=box is not None)
    reach = np.where(bonding, REACH * covalent_radii[numbers], 0.0)
    first, second = neighbor_list("ij", atoms, reach)
    chosen = (first < second) & bonding[first] & bonding[second]
    return np.stack([first[chosen], second[chosen]], axis=1)


def molecules(n_atoms: int, bonds: np.ndarray) -> np.ndarray:
    """The number of the molecule of each atom, [n] int32, counted by their first atoms."""
    ones = np.ones(len(bonds), bool)
    graph = coo_array((ones, (bonds[:, 0], bonds[:, 1])), shape=(n_atoms, n_atoms))
    _, found = connected_components(graph, directed=False)
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int32)


def formula(elements: Sequence[str]) -> str:
    """The formula of a molecule in Hill's order: carbon, hydrogen, then the others by name."""
    counts = Counter(elements)
    ahead = ["C", "H"] if "C" in counts else []
    order = [*(element for element in ahead if element in counts), *sorted(counts.keys() - set(ahead))]
    return "".join(f"{element}{counts[element] if counts[element] > 1 else ''}" for element in order)


def nearest_distances(positions: np.ndarray, box: np.ndarray | None, among: np.ndarray | None = None) -> np.ndarray:
    """Distance of some atoms, evenly chosen of all or among these, to the atom, or image of one, nearest to them."""
    among = np.arange(len(positions)) if among is None else among
    n = len(among)
    positions = np.asarray(positions, float)
    inverse = None if box is None else np.linalg.inv(np.asarray(box, float))
    found = []
    for atom in among[np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).round().astype(int))]:
        apart = np.delete(positions, atom, axis=0) - positions[atom]
        if inverse is not None:
            # Rounding gives the nearest image wherever it is nearer than half the least width of the cell.
            apart -= np.round(apart @ inverse) @ box
        found.append(np.sqrt(np.min(np.sum(apart**2, axis=1))))
    return np.array(found)
