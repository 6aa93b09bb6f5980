"""The files of a run of kind "force-map": maps.h5, force_map.npy, metrics.json; the mapped frames are there already."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse

from hpcfit.bead_models.force_matching import decomposition
from hpcfit.fit.stages import Result
from hpcfit.kinds.force_map.case import ForceMapCase
from hpcfit.kinds.force_map.files import OF_NOISE, BeadNoise, Coefficients, Maps
from hpcfit.kinds.force_map.map_fits import FoundMap, Learning
from hpcfit.kinds.force_map.map_statistics import FRAMES_PER_COEFFICIENT, optimism
from hpcfit.kinds.force_map.mapped_frames import SPANS, MappedSums
from hpcfit.kinds.force_map.models import write_models
from hpcfit.kinds.force_map.study import Findings
from hpcfit.readers.units import Units
from hpcfit.runs.directory import RunDirectory
from hpcfit.statistics.blocks import inefficiency_of_spans

LARGEST_MATRIX = 10_000_000  # coefficients of a force_map.npy; maps.h5 has every map in sparse form
RADIAL = 3.0  # f = F_1 . u is 2 of the 6 components of a pair: a mean over components times 3 is one of f squared


def write_results(
    directory: RunDirectory, case: ForceMapCase, result: Result | None, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write maps and metrics; collective. The metrics are returned on every rank; forces in them are kJ/mol/A."""
    findings: Findings = facts.pop("findings")
    warnings = [*facts.pop("warnings"), *_disagreements(findings)]
    metrics = {**facts, **_metrics(case, findings), "warnings": warnings}
    findings.world.on_root(lambda: _write(directory, case, findings, metrics))
    return metrics


def headline(metrics: dict[str, Any]) -> list[str]:
    """Mean squares of the maps, held out, and what was made with which, for the log."""
    unit = metrics["unit"]
    lines = [
        f"map {one['name']:9s} mean |F|^2 {one['held_out'] * unit['factor'] ** 2:.6g} +-"
        f" {one['held_out_error'] * unit['factor'] ** 2:.2g} ({unit['name']})^2 on held-out blocks;"
        f" |M W^T - 1| {one['consistency']:.1e}, within rigid groups {one['orthogonality']:.1e}"
        + ("" if one["valid"] else "  INVALID")
        for one in metrics["maps"]
    ]
    return [*lines, f"mapped by '{metrics['chosen']}' into {metrics['mapped']}"]


def _write(directory: RunDirectory, case: ForceMapCase, findings: Findings, metrics: dict[str, Any]) -> None:
    maps = _maps(case, findings)
    unit = "(kJ/mol/A)^2"
    units = dict.fromkeys(OF_NOISE[:3], unit)
    directory.write_h5("maps.h5", maps.datasets(), {"chosen": maps.chosen, "unit": unit}, units)
    chosen = next(named for named in findings.named if named.name == maps.chosen)
    if np.prod(chosen.W.shape) <= LARGEST_MATRIX:
        directory.write_npy("force_map.npy", chosen.W.toarray())
    if findings.matching is not None:
        write_models(directory, case, findings)
    directory.write_json("metrics.json", metrics)  # last: a run with metrics is a finished one


def _maps(case: ForceMapCase, findings: Findings) -> Maps:
    particles, found = case.particles, findings.found
    return Maps(
        found.chosen.name, list(case.reduced.beads.names), list(particles.names), particles.residue,
        list(particles.residue_names), np.asarray(particles.residue_numbers), case.reduced.group,
        _coefficients(case.reduced.beads.M),
        {one.name: BeadNoise(one.held_out, one.held_out_error, one.fitted, one.p) for one in found.maps},
        {one.name: _coefficients(named.W, None if one.error is None else case.reduced.spread(one.error))
         for one, named in zip(found.maps, findings.named)},
    )  # fmt: skip


def _coefficients(matrix: scipy.sparse.csr_array, error: Any = None) -> Coefficients:
    """The entries of M or W, with their errors where they are known."""
    entries = matrix.tocoo()
    bead, atom = entries.coords
    known = np.full(len(bead), np.nan) if error is None else np.asarray(error[bead, atom]).ravel()
    return Coefficients(bead, atom, entries.data, known)


def _metrics(case: ForceMapCase, findings: Findings) -> dict[str, Any]:
    choice, found = case.config.problem, findings.found
    best = found.chosen
    return {
        "kind": choice.kind,
        "frames": case.n_frames,
        "atoms": len(case.particles),
        "beads": case.reduced.n_beads,
        "groups": case.reduced.n_groups,
        "constraints": case.held.said,
        "statistical_blocks": case.parts.n,
        "temperature": choice.temperature,
        "unit": {"name": choice.unit, "factor": 1 / Units(*_length_and_energy(choice.unit)).forces(1.0)},
        "maps": [_of_map(one, case.n_frames) for one in found.maps],
        "chosen": best.name,
        "mapped": str(case.mapped_folder),
        "noise": choice.map.noise,
        "learning": {name: [_of_point(point) for point in points] for name, points in found.learning.items()},
        "inefficiency": _inefficiency(findings),
        "comparison": _comparison(findings),
        "decomposition": list(_decomposition(findings)),
        "force_matching": None if findings.matching is None else findings.matching.metrics,
        "passes_of_frames": findings.passes,
        "fitted": {"held_out": float(best.held_out.mean()), "train": float(best.fitted.mean())},
    }


def _length_and_energy(unit: str) -> tuple[str, str]:
    energy, _, length = unit.rpartition("/")
    return length, energy


def _of_map(one: FoundMap, n_frames: int) -> dict[str, Any]:
    law = optimism(one.fitted, one.p, n_frames)
    return {
        "name": one.name,
        "ridge": one.ridge,
        "free": float(one.p.mean()),
        "frames_asked": FRAMES_PER_COEFFICIENT * float(one.p.max()),
        "fitted": float(one.fitted.mean()),
        "held_out": float(one.held_out.mean()),
        "held_out_error": one.total_error,
        "predicted": float(np.mean(law.held_out)) if np.all(np.isfinite(law.held_out)) else None,
        "curve": [list(point) for point in one.curve],
        "consistency": one.check.consistency,
        "orthogonality": one.check.orthogonality,
        "valid": one.valid,
    }


def _of_point(point: Learning) -> dict[str, Any]:
    """JSON has no infinite numbers."""
    return point._asdict() | ({} if np.isfinite(point.predicted) else {"predicted": None})


def _inefficiency(findings: Findings) -> dict[str, Any]:
    if not findings.sums.spanned:
        return {}
    ratio = inefficiency_of_spans(findings.sums.spans, SPANS)
    return {"spans": list(SPANS), "of": {one.name: row.tolist() for one, row in zip(findings.named, ratio)}}


def _comparison(findings: Findings) -> dict[str, Any] | None:
    if findings.compared is None:
        return None
    reference, found = findings.compared
    rows = [
        {"name": one.name, "cross": list(result.cross), "cross_in_errors": result.cross.z,
         "difference_in_errors": result.difference.z, "doubt": result.doubt, "agrees": bool(result.agrees),
         "verdict": result.verdict}
        for one, result in zip(findings.named, found)
    ]  # fmt: skip
    return {"reference": reference, "maps": rows}


def _disagreements(findings: Findings) -> list[str]:
    if findings.compared is None:
        return []
    reference, found = findings.compared
    return [
        f"map '{one.name}' does not have the mean force of map '{reference}': {result.verdict}"
        for one, result in zip(findings.named, found)
        if not result.agrees
    ]


def _decomposition(findings: Findings) -> Iterator[dict[str, Any]]:
    """chi^2 = PMF error + noise + cross, of the force along the pair, where the mean force is known.

    For no potential, and for the one fitted to each map. (kJ/mol/A)^2; the bias is kJ/mol/A.
    """
    if findings.mean_force is None:
        return
    n, sums = len(findings.named), findings.sums
    models: dict[str, np.ndarray] = {"none": np.zeros((n, sums.normal.gram.shape[-1]))}
    if findings.matching is not None:
        models["fitted"] = findings.matching.theta
    for name, theta in models.items():
        for number, one in enumerate(findings.named):
            products = RADIAL * _four_products(sums, n + number, 2 * n, theta[number])
            found = decomposition(products, sums.normal.rows)
            yield {"potential": name, "map": one.name,
                   **{key: [part.value, part.error] for key, part in found._asdict().items()},
                   "cross_in_errors": found.cross.z}  # fmt: skip


def _four_products(sums: MappedSums, column: int, exact: int, theta: np.ndarray) -> np.ndarray:
    """[B, 4, 4], of a map's radial force, the mean force, that of a linear model, and the direction of the pair."""
    columns = [column, exact, exact + 1]
    found = np.empty((len(sums.products), 4, 4))
    known = [0, 1, 3]
    found[np.ix_(range(len(found)), known, known)] = sums.products[:, columns][:, :, columns]
    found[:, 2, known] = found[:, known, 2] = np.einsum("bkc,k->bc", sums.normal.rhs[..., columns], theta)
    found[:, 2, 2] = np.einsum("k,bkl,l->b", theta, sums.normal.gram, theta)
    return found
