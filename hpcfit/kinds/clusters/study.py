"""The study of clusters.

radial distributions   a stage, where a cut-off is to be the first minimum of one
clusters               a stage over all frames: counts by label, radii, contacts, a sample of structures
kinetics               births, deaths and lifetimes from the counts, by label and by size, on root
larger clusters        where they are asked for: see prediction/study.py
pair sums, mixture     what clusters scatter, and the mixture that agrees with a curve: see mixture/study.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.fit.stages import Fits
from hpcfit.kinds.clusters.case import ClustersCase
from hpcfit.kinds.clusters.config import MINIMUM
from hpcfit.kinds.clusters.extraction.cutoffs import first_minimum, species_of_pair
from hpcfit.kinds.clusters.extraction.stages import Distributions, Extraction, blocks_of
from hpcfit.kinds.clusters.found import (
    Counted,
    Series,
    Share,
    Sizes,
    coordination,
    counted,
    series,
    size_distribution,
    speciation,
)
from hpcfit.kinds.clusters.geometry import first_shell_pairs
from hpcfit.kinds.clusters.kinetics import Bins, Kinetics, Lifetimes, kinetics, time_bins, tracked
from hpcfit.kinds.clusters.library import typical
from hpcfit.kinds.clusters.mixture.study import Given, names_of, scattering
from hpcfit.kinds.clusters.prediction.shares import mixture_weight
from hpcfit.kinds.clusters.prediction.study import Foreseen, foresee, reaches, stages_of

RDF, CLUSTERS = "radial distributions", "clusters"
SAMPLED = 256  # frames of a radial distribution, about
FEW_LABELS, FEW_SIZES = 6, 3


class Radial(NamedTuple):
    """r [bins] A, and g [bins] by pair of species, with the cut-off (A) that its first minimum gave."""

    r: np.ndarray
    g: Mapping[str, np.ndarray]
    minimum: Mapping[str, float]


class Observed(NamedTuple):
    """Everything that was found in the frames. kinetics: by label, of_sizes: by units of a cluster; of_clusters:
    lifetimes of the same atoms, by label; of_bonds: of the same bonds, by pair of species; medoids: number of each
    label's structure."""

    counted: Counted
    kinetics: Mapping[str, Kinetics]
    of_sizes: Mapping[int, Kinetics]
    bins: Bins
    series: Series
    sizes: Sizes
    speciation: list[Share]
    coordination: list[Share]
    of_clusters: Mapping[str, Lifetimes]
    of_bonds: Mapping[str, Lifetimes]
    medoids: Mapping[str, int]


def study(case: ClustersCase, fits: Fits) -> dict[str, Any]:
    """All stages; what was found, on root. Collective."""
    world = fits.grid.world
    predicts = case.choice.prediction is not None
    before = [RDF] if case.choice.asks_for_minima else []
    fits.announce([*before, CLUSTERS, *stages_of(case), *names_of(case, predicts)])
    radial = _radial(case, fits) if case.choice.asks_for_minima else None
    by_level = _by_level(case, radial)
    work = Extraction(case.frames, case.finder(case.cutoffs(by_level)), case.guard, case.wanted, fits.grid.frames)
    arrays = fits.stage(CLUSTERS, work, {"cutoffs": json.dumps(by_level, sort_keys=True)})
    found: list[Observed] = []  # on root: other ranks need no more than the warnings
    fits.on_root(lambda: found.append(observed(case, arrays)))
    fits.warn(world.bcast(warnings(case, found[0]) if found else None))
    seen, foreseen = found[0] if found else None, None
    if predicts:
        foreseen = foresee(case, fits, seen and seen.counted, seen and seen.kinetics, by_level)
        fits.warn(world.bcast(foreseen and foreseen.prediction.notes))
    facts = {"observed": seen, "radial": radial, "cutoffs": by_level, "foreseen": foreseen}
    if case.choice.scatters:
        weights = world.bcast(component_weights(case, seen) if found else None)
        predicted = world.bcast(predicted_components(case, foreseen, weights, by_level) if foreseen else [])
        facts["scattering"] = scattering(case, fits, by_level, weights, predicted)
    return facts


def component_weights(case: ClustersCase, found: Observed) -> dict[str, float]:
    """The weight of each label that scatters, in the unit of mean counts."""
    chosen, prediction = case.choice.of_scattering, case.choice.prediction
    how = chosen.populations if prediction is None else prediction.weighs_mixture
    return {
        label: mixture_weight(found.kinetics[label].mean_count, found.kinetics[label].occupancy, how)
        for label, nodes in zip(found.counted.labels, found.counted.nodes) if nodes or chosen.linkers
    }  # fmt: skip


def predicted_components(
    case: ClustersCase, foreseen: Foreseen, observed: Mapping[str, float], by_level: dict[str, dict[int, float]]
) -> list[Given]:
    """The predicted clusters that scatter beside the observed ones: those of labels that were not seen."""
    shell = partial(first_shell_pairs, roles=case.roles, cutoffs=reaches(case, by_level))
    return [
        Given(one.label, one.weight, one.n_node, one.structures, one.sigma or {},
              shell if one.damped == "first_shell" else None)
        for one in foreseen.populations if one.source == "predicted" and not observed.get(one.label, 0.0) > 0
    ]  # fmt: skip


def _radial(case: ClustersCase, fits: Fits) -> Radial:
    """The radial distributions, and their first minima for the pairs that ask for one; on every rank."""
    stride = max(1, case.n_frames // SAMPLED)
    if not case.frames.periodic:
        raise InputError(
            "a cut-off 'minimum' is that of a radial distribution, which needs the volume of a periodic box",
            remedy="give the cut-offs as numbers (A), or periodic = true with a box",
        )
    work = Distributions(case.frames, case.of, case.choice.rdf_range, stride, fits.grid.frames)
    arrays = fits.stage(RDF, work, {"stride": str(stride)})
    return fits.grid.world.on_root(lambda: _minima(case, arrays["r"], arrays["g"]))


def _minima(case: ClustersCase, r: np.ndarray, g: np.ndarray) -> Radial:
    species, curves, minima = case.of.species, {}, {}
    for pair, of_levels in case.choice.by_level.items():
        a, b = (species.index(one) for one in species_of_pair(pair, species))
        curves[pair] = g[a, b]
        if MINIMUM not in of_levels.values():
            continue
        found = first_minimum(r, np.nan_to_num(g[a, b]))
        if found is None:
            raise InputError(
                f"[problem.cutoffs] {pair} = 'minimum': its radial distribution up to {case.choice.rdf_range:g} A has"
                f" no minimum behind a peak; its largest value is {np.nanmax(g[a, b]):.3g}",
                remedy="give the cut-off as a number (A), or a longer rdf_range",
            )
        minima[pair] = found
    return Radial(r, curves, minima)


def _by_level(case: ClustersCase, radial: Radial | None) -> dict[str, dict[int, float]]:
    return {
        pair: {level: radial.minimum[pair] if r == MINIMUM else r for level, r in of_levels.items()}
        for pair, of_levels in case.choice.by_level.items()
    }


def observed(case: ClustersCase, arrays: Mapping[str, np.ndarray]) -> Observed:
    """Everything that follows from the arrays of the stage."""
    choice, axis, seed = case.choice, case.axis, case.config.run.seed
    found = counted(arrays, case.of, choice.structures)
    sizes = np.unique(found.sizes)
    pooled = np.stack([found.counts[:, found.sizes == size].sum(axis=1) for size in sizes], axis=1)
    errors = (choice.resamples, seed)
    return Observed(
        found,
        dict(zip(found.labels, kinetics(found.counts, axis, *errors))),
        dict(zip(sizes.tolist(), kinetics(pooled, axis, *errors))),
        time_bins(found.counts, axis, choice.frames_per_bin),
        series(found, axis),
        size_distribution(found, axis, *errors),
        speciation(found, axis, *errors),
        coordination(found, axis, case.of, *errors),
        _of_clusters(case, arrays, found),
        _of_bonds(case, arrays),
        {label: typical(some, case.roles, "medoid")[1] for label, some in found.structures.items() if some},
    )


def _of_clusters(case: ClustersCase, arrays: Mapping[str, np.ndarray], found: Counted) -> dict[str, Lifetimes]:
    """Lifetimes of clusters of the same nodes and linkers, by the label that each had first."""
    if not case.choice.identity:
        return {}
    sets, labels = [], []
    parts = (blocks_of(arrays, name) for name in ("compositions", "counts", "sets", "set labels"))
    for compositions, counts, of_sets, label in zip(*parts):
        names = [case.roles.label(dict(zip(case.of.species, row))) for row in compositions.tolist()]
        numbers = np.array([found.labels.index(name) for name in names])
        ends = np.cumsum(counts.sum(axis=1))[:-1]
        sets += np.split(of_sets, ends)
        labels += np.split(numbers[label], ends)
    lived = tracked(sets, labels, case.axis, case.choice.dwell)
    return {found.labels[number]: one for number, one in sorted(lived.items())}


def _of_bonds(case: ClustersCase, arrays: Mapping[str, np.ndarray]) -> dict[str, Lifetimes]:
    """How long units stay bound to each other, by pair of species."""
    if not case.choice.residence:
        return {}
    of, S = case.of, len(case.of.species)
    keys, pairs = [], []
    for bonds, number in zip(blocks_of(arrays, "bonds"), blocks_of(arrays, "bonds a frame")):
        a, b = np.sort(of.kind[bonds], axis=1).T
        ends = np.cumsum(number)[:-1]
        keys += np.split(bonds[:, 0].astype(np.int64) * len(of.kind) + bonds[:, 1], ends)
        pairs += np.split(a * S + b, ends)
    lived = tracked(keys, pairs, case.axis, case.choice.dwell)
    return {f"{of.species[pair // S]}-{of.species[pair % S]}": one for pair, one in sorted(lived.items())}


def warnings(case: ClustersCase, found: Observed) -> list[str]:
    """Sentences that a reader of the results must know."""
    said, labels = [], found.counted
    if (wrong := int(labels.percolating[case.axis.rows].sum())) > 0:
        frames = int(np.count_nonzero(labels.percolating[case.axis.rows]))
        said.append(
            f"{wrong} clusters in {frames} frames are bound to their own image, or have more than {case.guard.largest}"
            " units: their places and radii mean nothing"
        )
    with_nodes, sizes = int(np.sum(labels.nodes > 0)), len(found.sizes.nodes)
    if with_nodes < FEW_LABELS or sizes < FEW_SIZES:
        said.append(
            f"{with_nodes} labels with nodes of {sizes} sizes were seen: with fewer than {FEW_LABELS} labels, or"
            f" {FEW_SIZES} sizes, trends over sizes are of little data"
        )
    brief = [
        label for label, one in found.kinetics.items()
        if one.mean_lifetime is not None and one.mean_lifetime < 2 * case.axis.step
    ]  # fmt: skip
    if brief:
        named = ", ".join(brief[:6]) + (" ..." if len(brief) > 6 else "")
        said.append(
            f"lifetimes of {named} are below two steps of {case.axis.step:g} fs: they tell how often frames are written"
        )
    return said
