"""The coarse-grained models of a run as files: tables, an OpenMM System and structure, potentials for the report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from hpcfit.bead_models.force_matching import LinearFit
from hpcfit.bead_models.tables import Term, write_tables
from hpcfit.kinds.force_map.case import ForceMapCase
from hpcfit.kinds.force_map.matching import Matched
from hpcfit.kinds.force_map.simulation import Simulated
from hpcfit.log import logger
from hpcfit.runs.directory import RunDirectory
from hpcfit.store.files import write_text
from hpcfit.store.forces import open_force_store
from hpcfit.store.positions import read_block

FOLDER = "coarse_grained"
POINTS = 400
CHAINS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Curve(NamedTuple):
    """A potential with its jackknife error over blocks, 0 at its least. q: A or rad; U: kJ/mol."""

    q: np.ndarray
    U: np.ndarray
    error: np.ndarray
    dU: np.ndarray


def write_models(directory: RunDirectory, case: ForceMapCase, findings: Any) -> None:
    """Everything that a force field is used or looked at with; on root."""
    matched: Matched = findings.matching
    names = [one.name for one in findings.found.maps]
    chosen = names.index(findings.found.chosen.name)
    folder = directory.path / FOLDER
    write_tables(folder / "tables", matched.terms[chosen])
    _write_system(directory, case, matched.terms[chosen])
    directory.write_h5("potentials.h5", dict(_potentials(names, matched, findings)), {"unit": "kJ/mol"})
    if matched.simulated is not None:
        directory.write_h5("simulation.h5", dict(_simulation(matched.simulated)), {"unit": "kJ/mol"})


def _write_system(directory: RunDirectory, case: ForceMapCase, terms: list[Term]) -> None:
    from hpcfit.bead_models.openmm_model import build_system, system_xml

    folder, store = directory.path / FOLDER, open_force_store(case.mapped_folder)
    frames = read_block(store, store.blocks()[0])
    box = None if frames.box is None else frames.box[0]
    try:
        system = build_system(terms, case.coarse.masses, case.types, box)
    except ImportError:
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


def _potentials(names: list[str], matched: Matched, findings: Any) -> Iterator[tuple[str, np.ndarray]]:
    coverage = findings.sums.normal.coverage.sum(axis=0)
    for name, fit, terms in zip(names, matched.linear, matched.terms):
        for term in terms:
            group = f"{name}/{term.kind} {term.label.replace('/', '|')}"
            columns = _columns(term)
            for key, values in curve(term, fit)._asdict().items():
                yield f"{group}/{key}", values
            yield f"{group}/coverage", coverage[columns]
    if findings.mean_force is not None:
        r, f = findings.mean_force
        U = np.concatenate([[0.0], np.cumsum((f[1:] + f[:-1]) / 2 * -np.diff(r))])
        yield "exact/r", r
        yield "exact/f", f
        yield "exact/U", U - U.min()


def _columns(term: Term) -> slice:
    first = term.family.column + term.number * term.family.functions
    return slice(first, first + term.family.functions)


def curve(term: Term, fit: LinearFit) -> Curve:
    """One term on its fitted range, with errors from the fits that left one block out."""
    q = np.linspace(term.low, term.high, POINTS)
    U, dU = term(q)
    lowest = int(np.argmin(U))
    left_out = np.array([replace(term, coefficients=theta[_columns(term)])(q)[0] for theta in fit.left_out])
    left_out -= left_out[:, lowest : lowest + 1]
    n = len(left_out)
    error = np.sqrt((n - 1) / n * np.sum((left_out - left_out.mean(axis=0)) ** 2, axis=0))
    return Curve(q, U - U[lowest], error, dU)


def _simulation(found: Simulated) -> Iterator[tuple[str, np.ndarray]]:
    for one in found.profiles:
        group = f"profile {one.name}"
        yield f"{group}/x", one.reference.centres
        for name, of in (("reference", one.reference), ("model", one.model)):
            yield f"{group}/{name}", of.F
            yield f"{group}/{name}_error", of.error
        yield f"{group}/label", [one.label]
        yield f"{group}/divergence", np.array([one.divergence, one.error])
    if found.slow is not None:
        slow = found.slow
        for key, values in (("edges_x", slow.edges[0]), ("edges_y", slow.edges[1]), ("reference", slow.reference),
                            ("model", slow.coarse)):  # fmt: skip
            yield f"tica/{key}", values
        yield "tica/divergence", np.array([slow.comparison.js, slow.comparison.error])
