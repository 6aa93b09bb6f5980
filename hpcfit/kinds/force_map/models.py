"""The coarse-grained models of a run as files: tables, an OpenMM System and structure, potentials for the report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from hpcfit.bead_models.force_matching import LinearFit
from hpcfit.bead_models.tables import Term, write_tables
from hpcfit.kinds.force_map.case import ForceMapCase
from hpcfit.kinds.force_map.files import CURVES, Exact, Potential, Potentials
from hpcfit.kinds.force_map.matching import Matched
from hpcfit.log import logger
from hpcfit.physics.openmm_library import NoOpenMM
from hpcfit.runs.directory import RunDirectory
from hpcfit.statistics.blocks import jackknife_error
from hpcfit.store.files import write_text
from hpcfit.store.forces import open_force_store
from hpcfit.store.positions import read_block

FOLDER = "coarse_grained"
POINTS = 400
CHAINS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def write_models(directory: RunDirectory, case: ForceMapCase, findings: Any) -> None:
    """Everything that a force field is used or looked at with; on root."""
    matched: Matched = findings.matching
    names = [one.name for one in findings.found.maps]
    chosen = names.index(findings.found.chosen.name)
    folder = directory.path / FOLDER
    write_tables(folder / "tables", matched.terms[chosen])
    _write_system(directory, case, matched.terms[chosen])
    found = _potentials(names, matched, findings)
    directory.write_h5("potentials.h5", found.datasets(), {"unit": "kJ/mol"}, found.units())
    if matched.simulated is not None:
        units = dict.fromkeys(CURVES[1:], "kJ/mol")
        directory.write_h5("simulation.h5", matched.simulated.beads.datasets(), {"unit": "kJ/mol"}, units)


def _write_system(directory: RunDirectory, case: ForceMapCase, terms: list[Term]) -> None:
    from hpcfit.bead_models.openmm_model import build_system, system_xml

    folder, store = directory.path / FOLDER, open_force_store(case.mapped_folder)
    frames = read_block(store, store.blocks()[0])
    box = None if frames.box is None else frames.box[0]
    try:
        system = build_system(terms, case.coarse.masses, case.types, box)
    except NoOpenMM:
        logger.warning("no OpenMM here: the model is written as tables only (pip install 'hpcfit[simulate]')")
        return
    write_text(folder / "system.xml", system_xml(system))
    write_text(folder / "beads.pdb", "".join(_pdb_lines(case, frames.positions[0])))


def _pdb_lines(case: ForceMapCase, R: np.ndarray) -> Iterator[str]:
    """The first mapped frame; carbon stands for a bead, since a PDB must name an element."""
    beads, chains = case.coarse, list(dict.fromkeys(case.coarse.chains))
    for number, (name, r) in enumerate(zip(beads.names, R)):
        residue = beads.residue[number]
        chain = CHAINS[chains.index(beads.chains[residue]) % len(CHAINS)]
        where = f"{beads.residue_names[residue][:3]:>3s} {chain}{beads.residue_numbers[residue] % 10000:4d}"
        place = "".join(f"{x:8.3f}" for x in r)
        yield f"HETATM{(number + 1) % 100000:5d} {name[:4]:<4s} {where}    {place}  1.00  0.00           C\n"
    for a, b in beads.bonds:
        yield f"CONECT{a + 1:5d}{b + 1:5d}\n"
    yield "END\n"


def _potentials(names: list[str], matched: Matched, findings: Any) -> Potentials:
    coverage = findings.sums.normal.coverage.sum(axis=0)
    of_map = {
        name: {f"{one.kind} {one.label}": one for one in (potential(term, fit, coverage) for term in terms)}
        for name, fit, terms in zip(names, matched.linear, matched.terms)
    }
    if findings.mean_force is None:
        return Potentials(of_map, None)
    r, f = findings.mean_force
    U = np.concatenate([[0.0], np.cumsum((f[1:] + f[:-1]) / 2 * -np.diff(r))])
    return Potentials(of_map, Exact(r, U - U.min(), f))


def potential(term: Term, fit: LinearFit, coverage: np.ndarray) -> Potential:
    """One term on its fitted range, with errors from the fits that left one block out. coverage: of all functions."""
    q = np.linspace(term.low, term.high, POINTS)
    U, dU = term(q)
    lowest, columns = int(np.argmin(U)), _columns(term)
    left_out = np.array([replace(term, coefficients=theta[columns])(q)[0] for theta in fit.left_out])
    left_out -= left_out[:, lowest : lowest + 1]
    label = term.label.replace("/", "|")  # a slash would be a group of the file
    return Potential(term.kind, label, q, U - U[lowest], jackknife_error(left_out), dU, coverage[columns])


def _columns(term: Term) -> slice:
    first = term.family.column + term.number * term.family.functions
    return slice(first, first + term.family.functions)
