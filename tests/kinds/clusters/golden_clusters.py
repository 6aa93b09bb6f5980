"""The golden data of the reference program (SAXSShell on 100 frames of pbi64_langevin.h5), and a brute-force oracle."""

import csv
import itertools
import json
from collections import Counter
from pathlib import Path

import h5py
import numpy as np

from hpcfit.kinds.clusters.composition import Roles
from hpcfit.kinds.clusters.extraction.cutoffs import cutoff_matrices
from hpcfit.kinds.clusters.extraction.frame import Finder
from hpcfit.kinds.clusters.extraction.participants import participants_of
from hpcfit.readers.topology import particles_of_elements

SHELLS = {  # of the golden folders: shell species, cut-offs by level, levels of growth
    "": ((), {"Pb-I": {0: 4.0}}, ()),
    "shell_level0": (("O",), {"Pb-I": {0: 4.0}, "Pb-O": {0: 3.3}}, ()),
    "shell_unshared": (("O",), {"Pb-I": {0: 4.0}, "Pb-O": {1: 3.3}}, (1,)),
}


def frames(shared_data: Path, count: int = 100):
    """Positions [count, 448, 3], elements and box [3, 3] of the first frames."""
    with h5py.File(shared_data / "clusters/pbi64_langevin.h5") as file:
        elements = [one.decode() for one in file["elements"][:]]
        return file["coordinates"][:count], elements, np.diag(file["box"][:])


def counts_of(folder: Path) -> tuple[list[str], np.ndarray]:
    """Labels, and their counts [frames, labels], of a golden folder."""
    with (folder / "label_frame_counts.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [row[0] for row in rows], np.array([row[1:] for row in rows], int).T


def kinetics_of(folder: Path) -> dict:
    """The kinetics of a golden folder."""
    return json.loads((folder / "kinetics.json").read_text())


def finder_of(elements, shell=(), cutoffs=None, levels=(), *, linker=("I",), shared=False, labelled=None, **other):
    """A finder of clusters of Pb, with particles known by their elements."""
    roles = Roles(("Pb",), linker, shell)
    of = participants_of(roles, other.get("particles") or particles_of_elements(elements))
    matrices = cutoff_matrices(roles, cutoffs or {"Pb-I": {0: 4.0}}, other.get("default"), levels)
    return Finder(of, matrices, shared, bool(shell) if labelled is None else labelled)


def labels_of(found) -> Counter:
    """How many clusters there are of each label."""
    of = found.of
    return Counter(of.roles.label(dict(zip(of.species, row))) for row in found.counts.tolist())


# ---- an oracle that shares nothing with the program ------------------------------------------------------------------


def nearest_image(vector, box):
    """The shortest of the 27 images of a vector."""
    if box is None:
        return vector
    images = np.array(list(itertools.product((-1, 0, 1), repeat=3))) @ box
    folded = vector - np.rint(vector @ np.linalg.inv(box)) @ box
    every = folded + images
    return every[np.argmin(np.sum(every**2, axis=1))]


def brute_force(x, elements, box, role, bond, shell=None, shared=False) -> list[frozenset]:
    """The atoms of each cluster with its shells, by flood fill as the reference does it: nodes first, then linkers.

    role: by element; bond, shell: cut-offs by pairs of elements, of level 0 and of shells around nodes.
    """

    def within(a, b, of):
        r = (of or {}).get(frozenset((elements[a], elements[b])))
        return r is not None and np.linalg.norm(nearest_image(x[b] - x[a], box)) <= r

    n, taken, clusters = len(x), set(), []
    for seed_role in ("node", "linker"):
        for seed in (a for a in range(n) if role.get(elements[a]) == seed_role):
            if seed in taken:
                continue
            members, queue = {seed}, [seed]
            taken.add(seed)
            while queue:
                a = queue.pop(0)
                if role[elements[a]] == "shell":
                    continue
                for b in range(n):
                    if b not in taken and role.get(elements[b]) and within(a, b, bond):
                        taken.add(b)
                        members.add(b)
                        queue.append(b)
            clusters.append(members)
    for members in clusters if shell else ():
        nodes = [a for a in members if role[elements[a]] == "node"]
        for b in (b for b in range(n) if role.get(elements[b]) == "shell"):
            if (shared or b not in taken) and any(within(a, b, shell) for a in nodes):
                members.add(b)
                taken.add(b)
    return [frozenset(members) for members in clusters]
