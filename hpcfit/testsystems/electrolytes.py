"""Electrolytes whose clusters are known or can be looked up: LiPF6 in butyronitrile (BN) and fluoroethylene carbonate
(FEC), the test trajectory of solvation-analysis 0.4.2 (Cohen and others 2023, 10.21105/joss.05183; GPL-3, never copied
into this project: `pip install --no-deps --target FOLDER solvation_analysis==0.4.2`), and NaCl in water, which
config/nacl.toml makes.

The known numbers of LiPF6 were counted with MDAnalysis and networkx, apart from hpcfit, at the radii RADII.
"""

from __future__ import annotations

import csv
import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

PACKAGE, DATA = "solvation_analysis", "tests/data/bn_fec_data"
TRAJECTORY = "bn_fec_short_wrap.dcd"
RESIDUES = {"Li1": "LI", "C3F1H3O3": "FEC", "C4H7N1": "BN", "F6P1": "PF6"}  # by their atoms
RADII = {"Li-PF6": 2.8, "Li-BN": 2.61468, "Li-FEC": 2.43158}  # A
COORDINATION = {"PF6": 0.1367, "BN": 4.3286, "FEC": 0.2531}
STATES = {"isolated": 0.8633, "paired": 0.1122, "networked": 0.0245}  # shares of the Li ions
NETWORKS = {"(PF6)": 429, "Li": 423, "Li(PF6)": 55, "Li2(PF6)": 6}  # in all 10 frames
CONTACTS = (8, 8, 8, 8, 7, 3, 6, 7, 7, 5)  # of Li with PF6 in each
CONFIG = """
[run]
directory = "{run}"
[frames]
store = "store"
[prepare]
content = "positions"
[[prepare.source]]
trajectory = "{trajectory}"
topology = "lipf6.pdb"
[problem]
kind = "clusters"
node = ["Li"]
linker = ["PF6"]
shell = ["BN", "FEC"]
[problem.cutoffs]
{cutoffs}
"""


def package_folder(given: Path | None = None) -> Path | None:
    """The folder of the package: `given`, one that has it, or the installed one; None where there is none."""
    spec = importlib.util.find_spec(PACKAGE) if given is None else None
    places = [Path(one) for one in spec.submodule_search_locations] if spec else []
    places += [] if given is None else [given, given / PACKAGE]
    return next((place for place in places if (place / DATA / TRAJECTORY).is_file()), None)


def write_lipf6(folder: Path, package: Path, cutoffs: Mapping[str, float | str], run: str = "run") -> Path:
    """Write lipf6.pdb, with residues, and RUN.toml into a folder; the config's path. cutoffs: A, or "minimum"."""
    import MDAnalysis

    data = package / DATA
    elements = np.loadtxt(data / "bn_fec_elements.csv", dtype=str)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of attributes that a PDB has and a LAMMPS file has not
        universe = MDAnalysis.Universe(str(data / "bn_fec.data"), str(data / TRAJECTORY))
        for name in ("names", "elements"):
            universe.add_TopologyAttr(name, elements)
        universe.add_TopologyAttr("resnames", [_residue(one.atoms.elements) for one in universe.residues])
        universe.atoms.write(str(folder / "lipf6.pdb"), bonds=None)
    lines = [f"{pair} = {value!r}" for pair, value in cutoffs.items()]
    path = folder / f"{run}.toml"
    path.write_text(CONFIG.format(run=run, trajectory=data / TRAJECTORY, cutoffs="\n".join(lines)))
    return path


class Found(NamedTuple):
    """The numbers of a run. networks: clusters of each label in all frames; contacts: of Li with PF6 in each frame,
    from the labels of two and three ions."""

    coordination: dict[str, float]
    states: dict[str, float]
    networks: dict[str, int]
    contacts: tuple[int, ...]


def found_lipf6(run: Path) -> Found:
    """The numbers of Li in a run's directory."""
    of_li = [row for row in _rows(run / "speciation.csv") if row["species"] == "Li"]
    by = lambda what: {row["of"]: float(row["value"]) for row in of_li if row["quantity"] == what}  # noqa: E731
    counts = [{label: int(row[label]) for label in list(row)[2:]} for row in _rows(run / "counts.csv")]
    networks = {label: sum(one[label] for one in counts) for label in counts[0]}
    contacts = tuple(one.get("Li(PF6)", 0) + 2 * one.get("Li2(PF6)", 0) for one in counts)
    return Found(by("coordination"), by("state"), networks, contacts)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _residue(elements: np.ndarray) -> str:
    """The name of a residue by its atoms."""
    kinds, counts = np.unique(elements, return_counts=True)
    formula = "".join(f"{kind}{count}" for kind, count in zip(kinds, counts))
    return RESIDUES[formula]
