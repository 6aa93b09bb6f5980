"""The files of a run of kind "clusters": counts, lifetimes, speciation, structures, data set, metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from hpcfit.fit.stages import Result
from hpcfit.kinds.clusters.axis import Axis
from hpcfit.kinds.clusters.case import ClustersCase
from hpcfit.kinds.clusters.energies import Energies, read_energies
from hpcfit.kinds.clusters.files import (
    ARRAYS,
    COLORMAP,
    COLORMAP_COLUMNS,
    COUNTS,
    DATASET,
    ENERGIES,
    KINETICS,
    KINETICS_COLUMNS,
    LIFETIME_COLUMNS,
    LIFETIMES,
    RDF,
    SERIES,
    SERIES_COLUMNS,
    SHARE_COLUMNS,
    SIZE_COLUMNS,
    SIZES,
    SPECIATION,
    STRUCTURES,
    TRACKED,
    TRACKED_COLUMNS,
    write_dataset,
    xyz,
)
from hpcfit.kinds.clusters.found import STATES
from hpcfit.kinds.clusters.kinetics import ERRORS, Kinetics, Lifetimes
from hpcfit.kinds.clusters.mixture.outputs import write_scattering
from hpcfit.kinds.clusters.prediction import outputs as prediction
from hpcfit.kinds.clusters.prediction.study import Foreseen
from hpcfit.kinds.clusters.study import Observed, Radial
from hpcfit.runs.directory import RunDirectory
from hpcfit.store.files import write_text

LEAST_OCCUPANCY = 0.05  # of the weight of a label
UNITS = {"ns": 1e6, "ps": 1e3, "fs": 1.0}
UNITS_OF_ARRAYS = dict.fromkeys(("time_fs", "edges_fs", "completed_fs", "truncated_fs"), "fs") | {
    "squared_radii_A2": "A^2"
}


def write_results(
    directory: RunDirectory, case: ClustersCase, result: Result | None, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write all files; collective only in that every rank calls it. Returns the metrics, on root."""
    found, radial, cutoffs, foreseen = (facts.pop(name) for name in ("observed", "radial", "cutoffs", "foreseen"))
    scattered = facts.pop("scattering", None)
    if found is None:  # on other ranks than root
        return {}
    _write_tables(directory, case, found, radial, foreseen)
    _write_structures(directory, found)
    arrays, attributes = _arrays(case, found)
    directory.write_h5(ARRAYS, arrays, attributes, UNITS_OF_ARRAYS)
    content = dataset(case, found, cutoffs)
    if foreseen is not None:
        prediction.write_prediction(directory, foreseen)
        content["prediction"] = prediction.dataset(foreseen)
    write_dataset(directory.path / DATASET, content)
    if case.config.run.report:
        from hpcfit.kinds.clusters.figures import write_colormap

        write_colormap(directory.path, found.bins, found.counted.labels)
    metrics = {
        "kind": "clusters", "frames": case.n_frames, **_facts(case, found, radial, cutoffs),
        "fitted": {"aggregation": float(np.mean(found.series.weighted)),
                   "clusters_a_frame": float(np.mean(found.series.clusters))},
        **({} if foreseen is None else {"prediction": prediction.facts(foreseen)}),
        **facts,
    }  # fmt: skip
    if scattered is not None:
        metrics["scattering"] = write_scattering(directory, scattered)
        if (of_curve := scattered.result) is not None:
            metrics["fitted"] |= {"chi2_red": of_curve.reduced}
    directory.write_json("metrics.json", metrics)  # last: a run with metrics is a finished one
    return metrics


def _write_tables(
    directory: RunDirectory, case: ClustersCase, found: Observed, radial: Radial | None, foreseen: Foreseen | None
) -> None:
    axis, labels, series, sizes = case.axis, found.counted, found.series, found.sizes
    ids = frame_ids(case)[axis.rows].tolist()
    times = axis.time.tolist()
    rows = zip(ids, times, labels.counts[axis.rows].tolist())
    directory.write_csv(COUNTS, ("frame", "time_fs", *labels.labels), ((*row[:2], *row[2]) for row in rows))
    directory.write_csv(COLORMAP, COLORMAP_COLUMNS, colormap_rows(found))
    directory.write_csv(LIFETIMES, LIFETIME_COLUMNS, lifetime_rows(found, foreseen))
    directory.write_csv(KINETICS, KINETICS_COLUMNS, kinetics_rows(found))
    shares = [("coordination", *one) for one in found.coordination]
    shares += [("state" if one.where in STATES else "label", *one) for one in found.speciation]
    directory.write_csv(
        SPECIATION, SHARE_COLUMNS, ([None if _undefined(one) else one for one in row] for row in shares)
    )
    rows = zip(ids, times, *(values.tolist() for values in series))
    directory.write_csv(SERIES, SERIES_COLUMNS, ([None if _undefined(one) else one for one in row] for row in rows))
    rows = zip(*(values.tolist() for values in sizes))
    directory.write_csv(SIZES, SIZE_COLUMNS, ([None if _undefined(one) else one for one in row] for row in rows))
    if found.of_clusters or found.of_bonds:
        directory.write_csv(TRACKED, TRACKED_COLUMNS, tracked_rows(found))
    if radial is not None:
        columns = [radial.r.tolist(), *(np.nan_to_num(one).tolist() for one in radial.g.values())]
        directory.write_csv(RDF, ("r_A", *radial.g), zip(*columns))
    if case.choice.energy_file is not None:
        energies = in_window(read_energies(case.choice.energy_file), axis)
        names = ("time_fs", "kinetic_hartree", "temperature_K", "potential_hartree")
        directory.write_csv(ENERGIES, names, zip(*(values.tolist() for values in energies)))


def in_window(energies: Energies, axis: Axis) -> Energies:
    """The energies between the start and the end of the window."""
    start, stop = min(one.start for one in axis.segments), max(one.stop for one in axis.segments)
    inside = (energies.time >= start) & (energies.time <= stop)
    return Energies(*(values[inside] for values in energies))


def frame_ids(case: ClustersCase) -> np.ndarray:
    """The ids of all frames, [T]."""
    return np.concatenate([np.arange(block.first_id, block.first_id + block.frames) for block in case.blocks])


def colormap_rows(found: Observed) -> Iterator[tuple[Any, ...]]:
    """A row for each mode, label and bin."""
    bins, labels = found.bins, found.counted
    span = bins.edges[-1] - bins.edges[0]
    unit, scale = next(((unit, scale) for unit, scale in UNITS.items() if span >= 10 * scale), ("fs", 1.0))
    edges, values = bins.edges.tolist(), {"count": bins.raw, "fraction": bins.fraction, "mean": bins.mean}
    for mode, value in values.items():
        for n, (label, size) in enumerate(zip(labels.labels, labels.sizes.tolist())):
            for b, (start, stop) in enumerate(pairwise(edges)):
                times = (start, stop, (start + stop) / 2)
                of_bin = (float(value[n, b]), int(bins.raw[n, b]), float(bins.fraction[n, b]), float(bins.mean[n, b]))
                totals = (int(bins.frames[b]), int(bins.total[b]))
                yield (label, size, b, *times, *(time / scale for time in times), unit, mode, *of_bin, *totals)


def observed_weights(found: Observed) -> dict[str, float]:
    """The weight of each label with nodes, count x max(occupancy, 0.05), in shares of 1."""
    weights = {
        label: found.kinetics[label].mean_count * max(found.kinetics[label].occupancy, LEAST_OCCUPANCY)
        for label, nodes in zip(found.counted.labels, found.counted.nodes) if nodes
    }  # fmt: skip
    total = sum(weights.values())
    return {label: weight / total for label, weight in weights.items()} if total > 0 else weights


def lifetime_rows(found: Observed, foreseen: Foreseen | None = None) -> Iterator[tuple[Any, ...]]:
    """The table of lifetimes: observed labels by nodes, then by weight; then what was predicted. With a prediction the
    weights are those of its rule and of the labels of its library."""
    weights, combined = observed_weights(found), {}
    if foreseen is not None:
        weights, combined, _ = prediction.weights_of(foreseen)
    nodes = dict(zip(found.counted.labels, found.counted.nodes.tolist()))
    order = sorted(found.counted.labels, key=lambda label: (nodes[label], -weights.get(label, 0.0), label))
    rank: dict[int, int] = {}
    for label in order:
        one = found.kinetics[label]
        rank[nodes[label]] = rank.get(nodes[label], 0) + 1
        some = found.counted.structures.get(label, ())
        note = "without nodes" if not nodes[label] else None if label in weights else "not in the library"
        yield (
            "Observed", nodes[label], rank[nodes[label]], None, label, _percent(weights.get(label)),
            _percent(combined.get(label)), None, one.mean_lifetime,
            one.std_lifetime, len(one.completed), len(one.truncated), one.association_rate, one.dissociation_rate,
            100 * one.occupancy, one.mean_count, some[found.medoids[label]].source if some else None, note,
        )  # fmt: skip
    if foreseen is not None:
        yield from prediction.lifetime_rows(foreseen, rank)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def kinetics_rows(found: Observed) -> Iterator[tuple[Any, ...]]:
    """The kinetics of each label, then of each size."""
    sizes = dict(zip(found.counted.labels, found.counted.sizes.tolist()))
    for label, one in found.kinetics.items():
        yield ("label", label, sizes[label], *_of_kinetics(one))
    for size, one in found.of_sizes.items():
        yield ("size", size, size, *_of_kinetics(one))


def _of_kinetics(one: Kinetics) -> tuple[Any, ...]:
    error = {name: None if _undefined(one.errors[name]) else one.errors[name] for name in ERRORS}
    return (
        one.observations, one.occupied, one.mean_count, error["mean_count"], one.occupancy, error["occupancy"],
        one.births, one.deaths, one.association_rate, error["association_rate"], one.dissociation_rate,
        error["dissociation_rate"], len(one.completed), len(one.truncated), one.mean_lifetime, error["mean_lifetime"],
        one.std_lifetime,
    )  # fmt: skip


def tracked_rows(found: Observed) -> Iterator[tuple[Any, ...]]:
    """Lifetimes of the same atoms by label, and of the same bonds by pair."""
    for what, lived in (("cluster", found.of_clusters), ("bond", found.of_bonds)):
        for name, one in lived.items():
            yield (what, name, *_of_lifetimes(one))


def _of_lifetimes(one: Lifetimes) -> tuple[Any, ...]:
    whole = one.completed
    known = (float(np.mean(whole)), float(np.median(whole)), float(np.std(whole))) if len(whole) else (None,) * 3
    return len(whole), len(one.truncated), *known


def _undefined(value: Any) -> bool:
    return isinstance(value, float) and not np.isfinite(value)


def _write_structures(directory: RunDirectory, found: Observed) -> None:
    """A file of each label: the representative first, then the others in their order."""
    folder = directory.path / STRUCTURES.partition("/")[0]
    folder.mkdir(exist_ok=True)
    for label, some in found.counted.structures.items():
        if some:
            first = found.medoids[label]
            write_text(folder / f"{label}.xyz", xyz([some[first], *some[:first], *some[first + 1 :]], f"label={label}"))


def _arrays(case: ClustersCase, found: Observed) -> tuple[dict[str, Any], dict[str, Any]]:
    labels, axis = found.counted, case.axis
    arrays = {
        "frame": frame_ids(case)[axis.rows], "time_fs": axis.time, "trajectory": axis.source,
        "labels": list(labels.labels), "species": list(labels.species), "compositions": labels.compositions,
        "counts": labels.counts[axis.rows], "squared_radii_A2": labels.radii[axis.rows],
        "contacts": labels.contacts[axis.rows], "percolating": labels.percolating[axis.rows],
        "bins/edges_fs": found.bins.edges, "bins/frames": found.bins.frames, "bins/count": found.bins.raw,
        "bins/fraction": found.bins.fraction, "bins/mean": found.bins.mean,
    }  # fmt: skip
    for label, one in found.kinetics.items():
        arrays[f"lifetimes/{label}/completed_fs"] = one.completed
        arrays[f"lifetimes/{label}/truncated_fs"] = one.truncated
    return arrays, {"time_step_fs": axis.step, "times": axis.said}


def dataset(case: ClustersCase, found: Observed, cutoffs: Mapping[str, Mapping[int, float]]) -> dict[str, Any]:
    """Everything that was found, as plain values: the data set that other programs read."""
    labels, axis = found.counted, case.axis
    return {
        "roles": {name: list(getattr(labels.roles, name)) for name in ("node", "linker", "shell")},
        "cutoffs_A": {pair: {str(level): r for level, r in levels.items()} for pair, levels in cutoffs.items()},
        "time": {"step_fs": axis.step, "source": axis.said,
                 "windows_fs": [[one.start, one.stop, len(one.rows)] for one in axis.segments]},
        "labels": [
            {"label": label, "composition": dict(zip(labels.species, row)), "nodes": int(nodes), "size": int(size),
             **_kinetics_of(found.kinetics[label])}
            for label, row, nodes, size in zip(labels.labels, labels.compositions.tolist(), labels.nodes, labels.sizes)
        ],
        "sizes": [{"size": size, **_kinetics_of(one)} for size, one in found.of_sizes.items()],
    }  # fmt: skip


def _kinetics_of(one: Kinetics) -> dict[str, Any]:
    told = one._asdict() | {"completed_fs": one.completed.tolist(), "truncated_fs": one.truncated.tolist()}
    del told["completed"], told["truncated"]
    return told | {"errors": {name: None if _undefined(error) else error for name, error in one.errors.items()}}


def _facts(case: ClustersCase, found: Observed, radial: Radial | None, cutoffs: Mapping[str, Any]) -> dict[str, Any]:
    labels, axis = found.counted, case.axis
    return {
        "labels": len(labels.labels), "labels_with_nodes": int(np.sum(labels.nodes > 0)),
        "units": {name: int(n) for name, n in
                  zip(labels.species, np.bincount(case.of.kind, minlength=len(labels.species)))},
        "cutoffs": {pair: {str(level): r for level, r in levels.items()} for pair, levels in cutoffs.items()},
        "minima": None if radial is None else dict(radial.minimum),
        "trajectories": len(axis.segments), "time_step_fs": axis.step, "duration_ps": axis.duration,
        "times": axis.said, "resamples": case.choice.resamples,
        "largest_nodes": int(found.series.largest.max()),
    }  # fmt: skip


def headline(metrics: dict[str, Any]) -> list[str]:
    """A line for the run, and one for its fit to a curve."""
    fitted, scattered = metrics["fitted"], metrics.get("scattering", {})
    of_curve = []
    if "chi2_red" in scattered:
        of_curve = [
            f"{scattered['components']} components against {scattered['points']} points of {scattered['curve']}: chi2"
            f" {scattered['chi2_red']:.4g} a degree of freedom, {scattered['free_parameters']} free parameters"
        ]
    return [
        f"{metrics['labels_with_nodes']} labels of clusters with nodes in {metrics['duration_ps']:g} ps:"
        f" {fitted['clusters_a_frame']:.4g} clusters a frame, a node is in one of"
        f" {fitted['aggregation']:.4g} nodes on average,"
        f" the largest has {metrics['largest_nodes']}",
        *of_curve,
    ]
