"""Peptides with forces: the capped CLN025 of the reference, whose file has elements but no residues, and uncapped ones
built from PDB entries for OpenMM to run.

Residues are found in the graph of bonds: they are what is left when the amide bonds between residues are cut.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.bead_models.basis import Basis, BasisOptions, make_basis
from hpcfit.bead_models.linear import basis_forces
from hpcfit.bead_models.ranges import observed_ranges, united
from hpcfit.errors import InputError
from hpcfit.readers.bonding import guessed_bonds, molecules
from hpcfit.store.forces import open_force_store
from hpcfit.store.positions import read_block

CLN025 = ("ACE", "TYR", "TYR", "ASP", "PRO", "GLU", "THR", "GLY", "THR", "TRP", "TYR", "NME")
HYDROGEN_MASS = 3.0  # amu, with which steps of 4 fs keep the energy


class Chain(NamedTuple):
    """The atoms of a peptide. residue: [n], counted from 0 along the chain; names: unique within a residue."""

    elements: tuple[str, ...]
    residue: np.ndarray
    names: tuple[str, ...]
    bonds: np.ndarray


def find_chain(elements: Sequence[str], positions: np.ndarray) -> Chain:
    """Residues and backbone names of a peptide from its elements and positions [n, 3], A.

    Backbone atoms are called N, CA, C and O; others by element and number, as no residue in a library has them.
    """
    bonds = guessed_bonds(elements, positions, None)
    bonded: list[set[int]] = [set() for _ in elements]
    for a, b in bonds:
        bonded[a].add(int(b))
        bonded[b].add(int(a))

    def carbonyl(atom: int) -> bool:
        return elements[atom] == "C" and any(elements[o] == "O" and len(bonded[o]) == 1 for o in bonded[atom])

    amides = [
        (c, n)
        for c in range(len(elements)) if carbonyl(c)
        for n in bonded[c] if elements[n] == "N" and sum(elements[k] == "C" for k in bonded[n]) > 1
    ]  # fmt: skip
    cut = {tuple(sorted(pair)) for pair in amides}
    residue = molecules(len(elements), np.array([pair for pair in bonds.tolist() if tuple(pair) not in cut]))
    backbone = {n: "N" for _, n in amides} | {c: "C" for c, _ in amides}
    for c, _ in amides:
        backbone |= {o: "O" for o in bonded[c] if elements[o] == "O"}
        alpha = [a for a in bonded[c] if elements[a] == "C" and any(backbone.get(n) == "N" for n in bonded[a])]
        backbone |= dict.fromkeys(alpha, "CA")
    return Chain(tuple(elements), residue, _named(elements, residue, backbone), bonds)


def _named(elements: Sequence[str], residue: np.ndarray, backbone: dict[int, str]) -> tuple[str, ...]:
    seen: dict[tuple[int, str], int] = {}
    names = []
    for atom, element in enumerate(elements):
        key = (int(residue[atom]), element)
        seen[key] = seen.get(key, 0) + 1
        names.append(backbone.get(atom, f"{element}x{seen[key]}"))
    return tuple(names)


def write_topology(path: Path, elements: Sequence[str], positions: np.ndarray, sequence: Sequence[str]) -> Chain:
    """Write a PDB of the peptide with its residues; positions [n, 3] in A. Raises InputError if the bonds show others
    than ``sequence`` in number."""
    chain = find_chain(elements, positions)
    found = int(chain.residue.max()) + 1
    if found != len(sequence):
        raise InputError(
            f"the bonds of {len(elements)} atoms show {found} residues, the sequence has {len(sequence)}",
            remedy="give positions of one frame without broken bonds",
        )
    lines = [
        f"ATOM  {atom + 1:5d} {_column(name)} {sequence[number]:3} A{number + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
        f"  1.00  0.00          {element:>2}  "
        for atom, (name, element, number, (x, y, z)) in enumerate(
            zip(chain.names, elements, chain.residue, np.asarray(positions, float))
        )
    ]
    path.write_text("\n".join([*lines, "END", ""]))
    return chain


def _column(name: str) -> str:
    return name if len(name) == 4 else f" {name:<3}"


def write_simulated(source: Path, name: str, folder: Path) -> tuple[Path, Path]:
    """NAME.pdb and NAME.xml of the peptide in a PDB entry, for `hpcfit simulate`: its first model, without water.

    amber14 with GBn2 (10.1021/acs.jctc.5b00255 and 10.1021/ct3010485), constrained bonds of hydrogen, and hydrogens of
    3 amu. Hydrogens that the entry lacks are added.
    """
    import openmm
    from openmm import app, unit

    entry = app.PDBFile(str(source))
    forces = app.ForceField("amber14-all.xml", "implicit/gbn2.xml")
    modeller = app.Modeller(entry.topology, entry.positions)
    modeller.deleteWater()
    modeller.addHydrogens(forces)
    system = forces.createSystem(
        modeller.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds, hydrogenMass=HYDROGEN_MASS * unit.amu
    )
    text = io.StringIO()
    app.PDBFile.writeFile(modeller.topology, modeller.positions, text, keepIds=True)
    # Its remark is the date.
    kept = [line for line in text.getvalue().splitlines(keepends=True) if not line.startswith("REMARK")]
    topology, serialized = folder / f"{name}.pdb", folder / f"{name}.xml"
    topology.write_text("".join(kept))
    serialized.write_text(openmm.XmlSerializer.serialize(system))
    return topology, serialized


# ---- what the noise of forces costs force matching -----------------------------------------------------------------


def right_sides(folder: Path, basis: Basis) -> np.ndarray:
    """phi_k . F of each frame of a coarse-grained store and each function of the basis, [T, K], kJ/mol/A^2.

    Their mean is the right side of the normal equations of force matching; their variance is what a linear model needs
    frames to overcome.
    """
    store = open_force_store(folder)
    found = []
    for block in store.blocks():
        frames = read_block(store, block)
        Phi = np.asarray(basis_forces(basis, frames.positions))
        found.append(np.einsum("tnxk,tnx->tk", Phi.astype(float), frames.forces.astype(float)))
    return np.concatenate(found)


def bead_basis(folder: Path) -> Basis:
    """B-splines of bonds, angles, dihedrals and pairs of the beads of a coarse-grained store, all beads alike."""
    store, options = open_force_store(folder), BasisOptions()
    types, bonds = ["bead"] * len(store.particles), np.asarray(store.particles.bonds)
    frames = (read_block(store, block).positions for block in store.blocks())
    return make_basis(types, bonds, options, united(observed_ranges(types, bonds, options, R) for R in frames))


def variance_ratios(noisy: Path, quiet: Path) -> dict[str, np.ndarray]:
    """Ratios of the variance of the right sides by the forces of one store to that by those of another, of the same
    frames, for each function that moved; arrays by kind of term."""
    basis = bead_basis(quiet)
    first, second = (right_sides(folder, basis).var(axis=0) for folder in (noisy, quiet))
    seen = second > 1e-6 * second.max()
    return {
        family.kind: first[columns][seen[columns]] / second[columns][seen[columns]]
        for family in basis.families
        for columns in [np.arange(family.columns.start, family.columns.stop)]
    }
