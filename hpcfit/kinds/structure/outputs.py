"""The files of a run of kind "structure": replicas, traces of energies, structures, metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import scipy.sparse

from hpcfit.fit.stages import Result
from hpcfit.kinds.structure.case import StructureCase
from hpcfit.kinds.structure.config import ModesConfig
from hpcfit.kinds.structure.deviations import Reference
from hpcfit.kinds.structure.files import (
    ENDS,
    MODES,
    REPLICA_COLUMNS,
    REPLICAS,
    STRUCTURES,
    TRACE_COLUMNS,
    TRACES,
)
from hpcfit.kinds.structure.found import Found
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.kinds.structure.minimisations import STOPPED, marks
from hpcfit.kinds.structure.modes.found import SlowModes, as_arrays
from hpcfit.kinds.structure.modes.graph import GraphModes, moving
from hpcfit.kinds.structure.opening import unit_of
from hpcfit.kinds.structure.structure_text import structure_text
from hpcfit.runs.directory import RunDirectory
from hpcfit.store.files import write_text

SWING = 24  # frames of a trajectory along a mode, a whole period


def write_results(
    directory: RunDirectory, case: StructureCase, result: Result | None, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write all files; collective only in that every rank calls it. Returns the metrics, on root."""
    found: list[Found] | None = facts.pop("found")
    modes: SlowModes | None = facts.pop("modes")
    if found is None:  # on other ranks than root
        return {}
    landscape, reference = case.landscape, case.landscape.reference()
    told = [one.told(reference) for one in found]
    lowest = min(found, key=lambda one: one.energy[one.best], default=None)
    best = {} if lowest is None else fitted(lowest)
    metrics = {
        "kind": "structure", "frames": case.n_frames, "unit": landscape.unit, "length": landscape.length,
        "particles": landscape.n, "reference": reference, "compared_with": compared_with(case.reference),
        "methods": told, "fitted": best,
        "of": None if lowest is None else lowest.name, "modes": None if modes is None else modes.told(), **facts,
    }  # fmt: skip
    if modes is not None:
        directory.write_h5(MODES, as_arrays(modes), {"length": landscape.length}, {})
    directory.write_csv(REPLICAS, REPLICA_COLUMNS, replica_rows(found))
    directory.write_csv(TRACES, TRACE_COLUMNS, trace_rows(found, marks(case.config.problem.budget)))
    ends = {f"methods/{one.name}": one.positions for one in found}
    attributes = {"length": landscape.length, "energy": landscape.unit}
    units = dict.fromkeys(ends, landscape.length)
    directory.write_h5(STRUCTURES, ends | {"edges": strongest(landscape)}, attributes, units)
    if modes is not None and landscape.d > 1:
        shown = _shown(case) if lowest is None else lowest.positions[lowest.best]
        write_trajectories(directory, landscape, modes.modes, shown, case.config.problem.modes)
    for one in found:
        write_ends(directory, landscape, one, case.config.problem.written)
    directory.write_json("metrics.json", metrics)  # last: a run with metrics is a finished one
    return metrics


def write_ends(directory: RunDirectory, landscape: Landscape, one: Found, written: int) -> None:
    """The replicas of least energy of a method as models of one file, the best first."""
    chosen = np.argsort(one.energy)[:written]
    title = f"{one.name}, replica {', '.join(map(str, chosen))}, energy {one.energy[one.best]:.12g} {landscape.unit}"
    suffix, text = structure_text(landscape, one.positions[chosen], title.strip())
    folder = directory.path / ENDS
    folder.mkdir(exist_ok=True)
    write_text(folder / f"{one.name}{suffix}", text)


def _shown(case: StructureCase) -> np.ndarray:
    """The structure [n, d] that modes are shown by where no method has found one."""
    native = getattr(case.landscape, "native", None)
    return case.starts(np.zeros(1, int))[0] if native is None else np.asarray(native)


def write_trajectories(
    directory: RunDirectory, landscape: Landscape, modes: GraphModes, x: np.ndarray, choice: ModesConfig
) -> None:
    """A file for each of the slowest modes, in which a structure [n, d] swings along it."""
    for number in range(min(choice.trajectories, len(modes.values))):
        frames = moving(x, modes.vectors[:, number], choice.amplitude * unit_of(landscape), SWING)
        title = f"slow mode {number + 1}, eigenvalue {modes.values[number]:.6g}"
        suffix, text = structure_text(landscape, frames, title)
        write_text(directory.path / f"mode_{number + 1}{suffix}", text)


def fitted(found: Found) -> dict[str, float]:
    """The numbers of a method that sweeps compare."""
    return {
        "least_energy": float(found.energy[found.best]), "median_energy": float(np.median(found.energy)),
        "replicas_at_minimum": int(found.converged.sum()), "median_gradients": float(np.median(found.evaluations)),
    }  # fmt: skip


def strongest(landscape: Landscape) -> np.ndarray:
    """The pairs that are coupled at least half as strongly as any, [e, 2]; none where all are alike."""
    couplings = landscape.couplings()
    if couplings is None:
        return np.zeros((0, 2), int)
    pairs = scipy.sparse.coo_array(scipy.sparse.triu(couplings, 1))
    strong = pairs.data >= 0.5 * np.max(pairs.data, initial=0.0)
    return np.stack([pairs.row[strong], pairs.col[strong]], axis=1)


def compared_with(reference: Reference | None) -> dict[str, Any] | None:
    """The file of the reference structure, and which of its atoms are superposed."""
    return None if reference is None else {
        "file": reference.file, "atoms": reference.which, "count": len(reference.chosen)
    }  # fmt: skip


def replica_rows(found: Sequence[Found]) -> Iterator[tuple[Any, ...]]:
    """A row for each replica of each method."""
    for one in found:
        for n in range(len(one.energy)):
            counts = (one.contacts[n], one.possible[n], one.pieces[n], one.overlaps[n])
            yield (
                one.name, n, float(one.energy[n]), int(one.evaluations[n]), *map(int, counts), float(one.seconds[n]),
                bool(one.converged[n]), STOPPED[int(one.status[n])], "" if one.rmsd is None else float(one.rmsd[n]),
            )  # fmt: skip


def trace_rows(found: Sequence[Found], at: np.ndarray) -> Iterator[tuple[Any, ...]]:
    """Quartiles and the least of energies after so many gradients, with the seconds that they took a replica."""
    for one in found:
        a_gradient = float(np.median(one.seconds / np.maximum(one.evaluations, 1)))
        quantiles = np.quantile(one.trace, [0.0, 0.25, 0.5, 0.75, 1.0], axis=0)
        for number, values in zip(at.tolist(), quantiles.T.tolist()):
            yield one.name, number, number * a_gradient, *values


def headline(metrics: dict[str, Any]) -> list[str]:
    """A line for the modes, and one for each method."""
    unit = f" {metrics['unit']}" if metrics["unit"] else ""
    lines = []
    if modes := metrics["modes"]:
        values = modes["values"]
        lines.append(
            f"{len(values)} slow modes, eigenvalues {values[0]:.4g} to {values[-1]:.4g}, residuals up to"
            f" {max(modes['residuals']):.1e}; the graph is in {modes['pieces']} piece{'s' * (modes['pieces'] != 1)}"
        )
    for one in metrics["methods"]:
        line = f"{one['method']}: best {one['best']:.8g}, median {one['median']:.6g} +- {one['median_error']:.2g}{unit}"
        line += f" of {one['replicas']} replicas in {one['evaluations']:.0f} gradients"
        if "successes" in one:
            line += f"; {100 * one['successes']:.0f} +- {100 * one['successes_error']:.0f} % succeed"
        if "rmsd" in one:
            best, least = one["rmsd"]["best"], one["rmsd"]["least"]
            line += f"; RMSD of the best {best:.3g} {metrics['length']}, least {least:.3g}"
        lines.append(line)
    return lines
