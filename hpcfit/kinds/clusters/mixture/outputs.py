"""The files of scattering: traces, components, parameters with their errors, arrays, and metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from hpcfit.kinds.clusters.extraction.box_sums import BoxScattering
from hpcfit.kinds.clusters.files import (
    BOX,
    BOX_COLUMNS,
    MIXTURE,
    MIXTURE_COLUMNS,
    PROFILE_COLUMNS,
    PROFILES,
    SCATTERING_ARRAYS,
    TRACE_COLUMNS,
    TRACES,
)
from hpcfit.kinds.clusters.mixture.study import OBSERVED, Scattering, Trace
from hpcfit.observables.pair_moments import pairs_of
from hpcfit.runs.directory import RunDirectory

LEVELS = (0.05, 0.95)  # quantiles of draws beside each parameter


def write_scattering(directory: RunDirectory, found: Scattering) -> dict[str, Any]:
    """Write all files, on root. Returns the metrics."""
    directory.write_csv(TRACES, TRACE_COLUMNS, trace_rows(found))
    directory.write_csv(PROFILES, PROFILE_COLUMNS, profile_rows(found))
    if found.result is not None:
        directory.write_csv(MIXTURE, MIXTURE_COLUMNS, parameter_rows(found))
    if found.box is not None:
        directory.write_csv(BOX, BOX_COLUMNS, box_rows(found.box))
    attributes, units = {"q": "1/A", "intensity": "square of form factors"}, {"q": "1/A", "sigma_A": "A"}
    directory.write_h5(SCATTERING_ARRAYS, _arrays(found), attributes, units)
    return _metrics(found)


def trace_rows(found: Scattering) -> Iterator[tuple[Any, ...]]:
    """A row for each trace and q. Without a curve fitted is raw: scale 1, offset 0."""
    curve, q = found.measured.curve, found.measured.q
    empty = [None] * len(q)
    for name, trace in found.traces.items():
        fitted, experimental, sigma, residual, scaled, least = trace.raw.tolist(), empty, empty, empty, empty, empty
        if curve is not None and trace.result is not None and trace.reference is not None:
            left = curve.intensity - trace.result.model
            fitted, experimental, sigma = (one.tolist() for one in (trace.result.model, curve.intensity, curve.sigma))
            residual, scaled = left.tolist(), (left / curve.sigma).tolist()
            least = (trace.reference.scale * trace.raw + trace.reference.offset).tolist()
        which = "observed" if name == OBSERVED else "all"
        columns = (q.tolist(), trace.raw.tolist(), fitted, experimental, sigma, residual, scaled, least)
        for row in zip(*columns, trace.factor.tolist()):
            yield (which, *row)


def profile_rows(found: Scattering) -> Iterator[tuple[Any, ...]]:
    """A row for each component and q: its intensity, and what it adds to the fit."""
    q, result = found.measured.q, found.result
    weights = found.mixture.prior() if found.mixture else _shares(found)
    factors = None
    if found.mixture is not None:
        log_b = np.asarray(result.params.shared["log_b"])
        factors = np.exp(log_b @ found.mixture.problem().pair_of)
    for number, one in enumerate(found.components):
        moved = one if factors is None else one._replace(sigma=one.sigma * np.sqrt(factors))
        share = weights[number] if result is None else result.weights[number]
        added = [None] * len(q) if result is None else result.contributions[number].tolist()
        for row in zip(q.tolist(), moved.intensity(q).tolist(), added):
            yield (one.label, one.source, one.nodes, float(share), *row)


def box_rows(box: BoxScattering) -> Iterator[tuple[Any, ...]]:
    """A row for each shell of |q| of "total", and of each pair of elements."""
    names = ["total", *("-".join(pair) for pair in pairs_of(box.species))]
    values, errors = (np.concatenate([one[None], more]) for one, more in
                      ((box.total, box.partial), (box.total_error, box.partial_error)))  # fmt: skip
    for name, value, error in zip(names, values.tolist(), errors):
        told = [None if np.isnan(one) else one for one in error.tolist()]
        for row in zip(box.q.tolist(), box.vectors.tolist(), value, told):
            yield (name, *row)


def _shares(found: Scattering) -> np.ndarray:
    weights = np.array([one.weight for one in found.components])
    return weights / weights.sum()


def parameter_rows(found: Scattering) -> Iterator[tuple[Any, ...]]:
    """A row for each population and parameter: start, value, errors of the bootstrap and of the posterior."""
    result, drawn, posterior = found.result, found.bootstrap, found.posterior
    for number, (one, start) in enumerate(zip(found.components, found.mixture.prior().tolist())):
        resampled = None if drawn is None else drawn.weights[:, number]
        draws = None if posterior is None else posterior.weights[:, number]
        yield ("population", one.label, start, float(result.weights[number]), *_spread(resampled, draws))
    for name, value in result.parameters.items():
        if (name == "solvent" and found.mixture.solvent is None) or (
            name == "offset" and not found.mixture.options.offset
        ):
            continue
        resampled = None if drawn is None else drawn.parameters[name]
        draws = None if posterior is None else posterior.parameters[name]
        start = found.mixture.options.start_of(name) if name in found.mixture.options.sphere_names else None
        yield ("parameter", name, start, value, *_spread(resampled, draws))


def _spread(resampled: np.ndarray | None, draws: np.ndarray | None) -> tuple[float | None, ...]:
    error = None if resampled is None else float(resampled.std(ddof=1))
    if draws is None:
        return error, None, None, None, None
    return (error, float(draws.mean()), float(draws.std()), *(float(one) for one in np.quantile(draws, LEVELS)))


def _arrays(found: Scattering) -> dict[str, Any]:
    curve = found.measured.curve
    arrays: dict[str, Any] = {
        "q": found.measured.q, "labels": [one.label for one in found.components],
        "sources": [one.source for one in found.components],
        "populations": np.array([one.weight for one in found.components]),
        "profiles": np.stack([one.intensity(found.measured.q) for one in found.components]),
        "sigma_A": np.stack([one.sigma for one in found.components]),
    }  # fmt: skip
    for name, trace in found.traces.items():
        arrays |= {f"{name}/raw": trace.raw, f"{name}/structure_factor": trace.factor}
        if trace.result is not None:
            arrays |= {f"{name}/fitted": trace.result.model, f"{name}/weights": trace.result.weights,
                       f"{name}/contributions": trace.result.contributions}  # fmt: skip
    if (box := found.box) is not None:
        arrays |= {f"box/{name}": values for name, values in box._asdict().items() if name != "species"}
        arrays["box/pairs"] = ["-".join(pair) for pair in pairs_of(box.species)]
    if curve is not None:
        arrays |= {"measured/intensity": curve.intensity, "measured/sigma": curve.sigma}
    for name, drawn in (("bootstrap", found.bootstrap), ("posterior", found.posterior)):
        if drawn is not None:
            arrays[f"{name}/weights"] = drawn.weights
            arrays |= {f"{name}/{key}": values for key, values in drawn.parameters.items()}
    return arrays


def _metrics(found: Scattering) -> dict[str, Any]:
    measured, result, curve = found.measured, found.result, found.measured.curve
    metrics: dict[str, Any] = {
        "components": len(found.components),
        "predicted_components": sum(one.source != "averaged" for one in found.components),
        "q_min": float(measured.q[0]), "q_max": float(measured.q[-1]), "points": len(measured.q),
        "traces": {name: _of_trace(trace) for name, trace in found.traces.items()},
    }  # fmt: skip
    if (box := found.box) is not None:
        peak = int(np.argmax(box.total))
        metrics["box"] = {
            "elements": list(box.species), "shells": len(box.q), "vectors": float(box.vectors.sum()),
            "q_min": float(box.q[0]), "q_max": float(box.q[-1]), "peak_q": float(box.q[peak]),
            "peak": float(box.total[peak]),
        }  # fmt: skip
    if curve is None or result is None:
        return metrics
    metrics |= {
        "curve": curve.source, "chi2": result.chi2, "chi2_red": result.reduced, "free_parameters": result.free,
        "spheres": found.mixture.options.spheres, "parameters": result.parameters,
        "overlaps": [one._asdict() for one in measured.overlaps],
        "guinier": None if measured.guinier is None else measured.guinier._asdict(), "guinier_why": measured.why,
        "solvent": None if found.mixture.solvent is None else measured.solvent.source,
        "prior": found.mixture.options.alpha, "stopped": result.stopped,
    }  # fmt: skip
    if found.left_out is not None:
        metrics["left_out"] = {name: values.tolist() for name, values in found.left_out._asdict().items()}
    if found.bootstrap is not None:
        metrics["bootstrap"] = len(found.bootstrap.chi2)
    if found.posterior is not None:
        metrics["posterior"] = {"draws": len(found.posterior.weights), "largest_r": float(found.posterior.r.max())}
    return metrics


def _of_trace(trace: Trace) -> dict[str, Any]:
    """The numbers of a trace: without a curve scale 1, offset 0 and no root mean square."""
    if trace.reference is None or trace.result is None:
        return {"scale": 1.0, "offset": 0.0}
    return {
        "scale": trace.result.parameters["scale"], "offset": trace.result.parameters["offset"],
        "chi2": trace.result.chi2, "chi2_red": trace.result.reduced, "free_parameters": trace.result.free,
        "least_squares": trace.reference._asdict(),
    }  # fmt: skip
