"""The report on structures: outcome, energies along the way, ends of replicas, the best structures."""

from __future__ import annotations

from typing import Any

import numpy as np

from hpcfit.kinds.structure.files import REPLICAS, STRUCTURES, TRACES, StructureRun
from hpcfit.report.page import (
    Figure,
    Section,
    Table,
    Text,
    duration,
    number,
    percent,
    plural,
    plus_minus,
    significant,
)
from hpcfit.report.report import Contents
from hpcfit.report.sections import phases, settings, study

METHODS = (
    "All methods begin at the same starts and have the same budget of gradients. Median: over replicas, with its"
    " standard error by bootstrap. Minima: ends that differ in energy, or in structure where particles cannot be"
    " exchanged. At a minimum: replicas whose energy does not change any more, without overlaps."
    " Succeed: within 5 % of the known energy, with the standard error of the share. CPU: of all replicas."
)
SPECTRUM = "Eigenvalues of the graph's Laplacian, and how many particles take part in each mode (1 / sum of v^4)."
MODES_TABLE = "The slowest modes; the residual of each is in units of the largest sum of couplings at a particle."
TRACE = (
    "The energy after so many gradients, and after so much CPU time, above the known one, or above the least that was"
    " found where none is known: medians over replicas, with the lower and upper quartile as a band. While cores are"
    " capped it is the energy with capped cores."
)
ENDS = "The energies at which the replicas of each method end, above the same level; those at it stand at the left end."
FAR = (
    "The energy of each replica against its RMSD from the reference structure {file}, at the best superposition of"
    " {atoms} ({count}). A low energy far from the reference is a minimum of this energy all the same."
)
SIDES = (
    "The best structure of each method, along its shortest principal axis and along its longest. Lines join what is"
    " coupled most. Colour: the distance from who looks."
)


def outcome(run: StructureRun) -> Section:
    """The methods in a table."""
    m = run.metrics
    if not m["methods"]:
        return Section("Outcome", [Text(f"{plural(m['particles'], 'particle')}; no method was asked for.")])
    said = (
        f"{plural(m['particles'], 'particle')}, {plural(m['frames'], 'replica')} by each of"
        f" {plural(len(m['methods']), 'method')}. The least energy is {m['fitted']['least_energy']:.8g}"
        f"{' ' + m['unit'] if m['unit'] else ''}, by {m['of']}"
        + (f"; {m['reference']:.8g} is known." if m["reference"] is not None else ".")
    )
    known, graph = m["reference"] is not None, any(one["contacts"] is not None for one in m["methods"])
    head = ["method", "best", "median", "minima", "at a minimum", "overlapping", "gradients", "CPU"]
    head += ["contacts", "pieces"] if graph else []
    head += ["succeed"] if known else []
    head += ["RMSD of the best", "least RMSD"] if m["compared_with"] else []
    rows = [_row(one, graph, known) for one in m["methods"]]
    return Section("Outcome", [Text(said), Table(head, rows, METHODS)])


def _row(one: dict[str, Any], graph: bool, known: bool) -> list[Any]:
    R = one["replicas"]
    row = [
        one["method"], significant(one["best"], 7), plus_minus(significant(one["median"], 5), one["median_error"]),
        one["minima"], f"{one['converged']} of {R}", f"{one['overlapping']} of {R}",
        number(one["evaluations"], f"{one['evaluations']:.0f}"), duration(one["seconds"]),
    ]  # fmt: skip
    if graph:
        row += [percent(one["contacts"]), number(one["pieces"], f"{one['pieces']:g}")]
    if known:
        row.append(plus_minus(f"{100 * one['successes']:.0f} %", 100 * one["successes_error"]))
    if "rmsd" in one:
        row += [significant(one["rmsd"][key]) for key in ("best", "least")]
    return row


def slow_modes(run: StructureRun) -> Section | None:
    """The slowest modes of the graph; None where there is none."""
    from hpcfit.kinds.structure import figures

    found = run.metrics["modes"]
    if found is None:
        return None
    said = f"The graph is in {plural(found['pieces'], 'piece')}, each of which moves as a whole at no cost."
    if found["spread"] is not None:
        said += f" Hessians were averaged over {found['samples']} configurations of width {found['spread']:.3g}"
        said += f" {run.metrics['length']}."
    elif found["samples"] is not None:
        said += f" Hessians were averaged over {plural(found['samples'], 'frame')} of a store."
    if found["overlap"] is not None:
        share, chance = found["overlap"]
        said += f" {100 * share:.1f} % of these modes are in those of the couplings, as many and those with nearly the"
        said += f" same eigenvalue as the last; {100 * chance:.0f} % by chance."
    if not found["values"]:
        return Section("Slow modes", [Text(said)])
    rows = [
        [str(n + 1), significant(value), f"{part:.1f}", significant(residual, 2)]
        for n, (value, part, residual) in enumerate(zip(found["values"], found["participation"], found["residuals"]))
    ]
    head = ("mode", "eigenvalue", "particles that take part", "residual")
    drawn = figures.spectrum(np.array(found["values"]), np.array(found["participation"]))
    return Section(
        "Slow modes",
        [Text(said), Figure(drawn, "eigenvalues and participation", SPECTRUM), Table(head, rows, MODES_TABLE)],
    )


def energies(run: StructureRun) -> Section | None:
    """Along the way, and at the ends; None without methods."""
    from hpcfit.kinds.structure import figures

    m = run.metrics
    if not m["methods"]:
        return None
    known = m["reference"] is not None
    floor = m["reference"] if known else min(float(np.min(one)) for one in run.energies.values())
    label = f"energy above the {'known' if known else 'least'} one" + (f", {m['unit']}" if m["unit"] else "")
    along, ends = figures.traces(run.traces, floor, label), figures.ends(run.energies, floor, label)
    drawn = [
        Figure(along, "energies against gradients and seconds", TRACE),
        Figure(ends, "energies of all replicas", ENDS),
    ]
    if compared := m["compared_with"]:
        away = figures.energy_and_rmsd(run.energies, run.deviations, m["unit"], m["length"])
        text = FAR.format(file=compared["file"], atoms=compared["atoms"], count=compared["count"])
        drawn.append(Figure(away, "energies against RMSDs", text))
    return Section("Energies", drawn)


def structures(run: StructureRun) -> Section | None:
    """Pictures of the best; None without methods."""
    from hpcfit.report.figures import Body, two_sides

    if not run.metrics["methods"]:
        return None
    best = [Body(name, run.best(name), run.edges) for name in run.energies]
    drawn = two_sides(best, run.metrics["length"])
    return Section("Structures", [Figure(drawn, "the best structures from two sides", SIDES)])


def time(run: StructureRun) -> Section:
    """The time of the parts of the run."""
    return Section("Time", [phases(run)])


def so_far(run: StructureRun) -> Section:
    """The stages that have ended."""
    return Section("So far", [Text("The run has not ended."), *study(run)])


CONTENTS = Contents(
    finished=(outcome, energies, structures, slow_modes, time, settings),
    unfinished=(so_far, settings),
    files=("config.toml", "environment.json", REPLICAS, TRACES, STRUCTURES),
    run=StructureRun,
)
