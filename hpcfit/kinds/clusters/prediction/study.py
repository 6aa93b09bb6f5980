"""The study of larger clusters, after the kinetics of those that were seen.

library                structures by label, of a folder or of the trajectory
rows, prediction       models, candidates, shares and weights, on root
intervals              a stage of resampled blocks of frames
predicted structures   a stage, one cluster after another
widths, self-check     Debye-Waller widths of all pairs, and what they are worth, on root
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from hpcfit.fit.stages import Fits
from hpcfit.kinds.clusters.case import ClustersCase
from hpcfit.kinds.clusters.composition import Roles, Structure
from hpcfit.kinds.clusters.debye_waller import (
    DebyeWallerRow,
    Estimator,
    Pairs,
    SelfCheck,
    Width,
    debye_waller_table,
    fit_widths,
    self_check,
    widths_of,
)
from hpcfit.kinds.clusters.found import Counted, block_sums
from hpcfit.kinds.clusters.geometry import Cutoffs, Geometry, Pair, first_shell_pairs, geometry_of, pair_of
from hpcfit.kinds.clusters.kinetics import Kinetics
from hpcfit.kinds.clusters.library import Library, read_library
from hpcfit.kinds.clusters.mixture.components import single
from hpcfit.kinds.clusters.placement import Terms
from hpcfit.kinds.clusters.prediction.candidates import Charges
from hpcfit.kinds.clusters.prediction.config import SAXSHELL
from hpcfit.kinds.clusters.prediction.populations import (
    Blocks,
    Interval,
    with_errors_of_the_model,
    without_largest_size,
)
from hpcfit.kinds.clusters.prediction.predict import Options, Prediction, predict
from hpcfit.kinds.clusters.prediction.ridge import Regression
from hpcfit.kinds.clusters.prediction.rows import Observed, Weighting, training_rows
from hpcfit.kinds.clusters.prediction.stages import (
    Fitted,
    Growing,
    Grown,
    Resampled,
    Structures,
    grown,
    intervals,
)
from hpcfit.kinds.clusters.relaxation import SimpleEnergy, check_elements
from hpcfit.observables.form_factors import amplitudes
from hpcfit.observables.pair_moments import pairs_of

INTERVALS, STRUCTURES = "intervals of predicted counts", "predicted structures"
Q = np.linspace(0.5, 4.5, 81)  # 1/A, of the self-check


class Population(NamedTuple):
    """A label of a mixture. weight: its clusters, in the unit of all weights; structures: all that are known of it;
    representative: the one that stands for them; sigma: A, by pair of elements, None where none is known; damped:
    which pairs sigma widens."""

    label: str
    source: Literal["observed", "predicted"]
    n_node: int
    weight: float
    structures: tuple[Structure, ...]
    representative: Structure
    sigma: Mapping[Pair, float] | None
    damped: Pairs


class Foreseen(NamedTuple):
    """Everything of a prediction. options: as they were taken; cutoffs: A by pair; grown: of each predicted cluster;
    sigma_models: by pair, with the labels that each rests on; populations: observed ones first; mean_counts: of all
    labels of the frames, whether they train or not."""

    options: Options
    library: Library
    prediction: Prediction
    geometry: Geometry
    grown: list[Grown]
    widths: list[DebyeWallerRow]
    sigma_models: Mapping[Pair, tuple[Regression, int]]
    checks: list[SelfCheck]
    populations: list[Population]
    mean_counts: Mapping[str, float]


class _Begun(NamedTuple):
    """What all ranks must know of a prediction to do the units of its stages."""

    fitted: list[Fitted]
    blocks: Blocks
    growing: Growing
    predicted: list


def stages_of(case: ClustersCase) -> list[str]:
    """The names of the stages to come; none without [problem.prediction]."""
    if case.choice.prediction is None:
        return []
    return [*([INTERVALS] if case.choice.resamples > 1 else []), STRUCTURES]


def foresee(
    case: ClustersCase,
    fits: Fits,
    counted: Counted | None,
    kinetics: Mapping[str, Kinetics] | None,
    cutoffs: Mapping[str, Mapping[int, float]],
) -> Foreseen | None:
    """All steps of the prediction; on root what was found, None on other ranks. Collective.

    counted, kinetics: by label, on root; cutoffs: A by pair and level.
    """
    ranks, resamples = fits.grid.frames, case.choice.resamples
    reached = reaches(case, cutoffs)
    held: list[tuple[Library, Prediction, Geometry]] = []  # on root

    def begin() -> _Begun:
        library = library_of(case, counted)
        rows = training_rows(library, {label: seen(one) for label, one in kinetics.items()})
        prediction, geometry = predict(rows, case.roles, options_of(case)), geometry_of(library, reached)
        held.append((library, prediction, geometry))
        fitted = _whose_intervals(prediction, case.roles, options_of(case).weighting)
        return _Begun(fitted, _blocks(case, counted), _growing(case, library, geometry), prediction.predicted)

    begun: _Begun = fits.on_root(begin)
    inputs = {"predicted": _digest(begun.fitted, begun.growing)}
    drawn: Mapping[str, np.ndarray] = {}
    if resamples > 1 and begun.predicted and len(begun.blocks.frames) > 1:
        drawn = fits.stage(INTERVALS, Resampled(begun.fitted, begun.blocks, resamples, ranks), inputs)
    arrays = fits.stage(STRUCTURES, Structures(begun.growing, begun.predicted, ranks), inputs)
    found: list[Foreseen] = []

    def end() -> None:
        library, prediction, geometry = held[0]
        if drawn:
            prediction = _with_intervals(prediction, drawn, begun.blocks.level)
        structures = grown(arrays, prediction.predicted)
        counts = {label: one.mean_count for label, one in kinetics.items()}
        found.append(
            _with_widths(case, library, prediction, geometry, structures, reached)._replace(mean_counts=counts)
        )

    fits.on_root(end)
    return found[0] if found else None


# ---- what is taken from config and frames --------------------------------------------------------------------------


def options_of(case: ClustersCase) -> Options:
    """The choices of the config."""
    given = case.choice.prediction
    charges = Charges(dict(given.charges), given.charge_per_node) if given.charges else None
    common = Options(case.axis.step, given.sizes, given.candidates, given.threshold, charges=charges)
    if given.compatible == SAXSHELL:
        return common.compatible()
    return common._replace(
        model="best" if given.model == "auto" else given.model, weighting=given.weighting, scaling=given.scaling,
        trend=given.trend, mixture_weight=given.mixture_weight, mass=given.mass, decay_clip=given.decay_clip,
    )  # fmt: skip


def reaches(case: ClustersCase, by_level: Mapping[str, Mapping[int, float]]) -> dict[Pair, float]:
    """The cut-offs (A) within which species are bound, of whatever level, by pair."""
    matrices, species = case.cutoffs(by_level), case.of.species
    largest = np.maximum(matrices.bond, matrices.shell)
    return {
        pair_of(species[i], species[j]): float(largest[i, j])
        for i, j in zip(*np.triu_indices(len(species))) if largest[i, j] > 0
    }  # fmt: skip


def library_of(case: ClustersCase, counted: Counted) -> Library:
    """The structures that train: of a folder, or those kept of each label of the trajectory."""
    given = case.choice.library
    compatible = case.choice.prediction.compatible == SAXSHELL
    representative = "first" if compatible else given.representative
    if given.folder is not None:
        found = read_library(given.folder, case.roles, representative)
    else:
        found = Library.of(counted.structures, case.roles, representative)
    largest = given.through_nodes or np.inf
    return found._replace(ensembles={label: one for label, one in found.ensembles.items() if one.n_node <= largest})


def seen(one: Kinetics) -> Observed:
    """The kinetics of a label as a training row has them."""
    return Observed(
        *(one.observations, one.occupied, one.mean_count, one.occupancy, one.births, one.deaths),
        *(one.association_rate, one.dissociation_rate, len(one.completed), len(one.truncated)),
        *(one.mean_lifetime, one.std_lifetime),
    )


def _whose_intervals(prediction: Prediction, roles: Roles, weighting: Weighting) -> list[Fitted]:
    """The chosen model with the predicted clusters, then every model that was judged, of the size left out."""
    of = [one.candidate.counts for one in prediction.predicted]
    smaller, held_out = without_largest_size(prediction.rows)
    judged = dict.fromkeys(one.model for one in prediction.foretold)
    counts = [row.counts for row in held_out]
    return [
        Fitted(prediction.model.name, weighting, prediction.rows, roles, of),
        *(Fitted(name, weighting, smaller, roles, counts) for name in judged),
    ]


def _with_intervals(prediction: Prediction, drawn: Mapping[str, np.ndarray], level: float) -> Prediction:
    """The prediction with the intervals of its clusters and of the labels of the size left out."""
    factors = [one.factor for one in prediction.foretold if one.model == prediction.model.name]
    predicted = []
    for one, low, high in zip(prediction.predicted, *intervals(drawn, 0, level)):
        outer = with_errors_of_the_model(one.values["mean_count"], Interval(low, high), factors, level)
        predicted.append(one._replace(interval=(float(low), float(high)), outer=(float(outer.low), float(outer.high))))
    foretold = []
    for turn, name in enumerate(dict.fromkeys(one.model for one in prediction.foretold), start=1):
        mine = [one for one in prediction.foretold if one.model == name]
        bounds = zip(mine, *intervals(drawn, turn, level))
        foretold += [one._replace(interval=(float(low), float(high))) for one, low, high in bounds]
    return prediction._replace(predicted=predicted, foretold=foretold)


def _blocks(case: ClustersCase, counted: Counted) -> Blocks:
    rows = case.axis.rows
    sums = block_sums(counted.counts[rows], case.axis)
    frames = block_sums(np.ones((len(rows), 1)), case.axis)[:, 0]
    return Blocks({label: sums[:, n] for n, label in enumerate(counted.labels)}, frames, case.config.run.seed)


def _growing(case: ClustersCase, library: Library, geometry: Geometry) -> Growing:
    """The library and the options by which structures are grown."""
    given, compatible = case.choice.placement, case.choice.prediction.compatible == SAXSHELL
    energy = None
    if given.relax is not None:
        energy = SimpleEnergy(**given.relax.model_dump())
        structures = (one for ensemble in library.ensembles.values() for one in ensemble.structures)
        check_elements(energy, sorted({name for one in structures for name in one.elements}))
    return Growing(
        library, geometry, Terms(**given.terms), "median" if compatible else given.bridging, given.conformers,
        case.config.run.seed, energy,
    )  # fmt: skip


def _digest(fitted: Sequence[Fitted], growing: Growing) -> str:
    """A digest of what the stages depend on: rows, model, compositions, medians and quartiles, options."""
    text = repr((fitted, *growing[1:]))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# ---- widths of pairs -----------------------------------------------------------------------------------------------


class _Widening(NamedTuple):
    pairs: Pairs
    estimator: Estimator
    ddof: int | None


def _with_widths(
    case: ClustersCase,
    library: Library,
    prediction: Prediction,
    geometry: Geometry,
    structures: list[Grown],
    reached: Cutoffs,
) -> Foreseen:
    given, options, rows = case.choice.debye_waller, options_of(case), prediction.rows
    compatible = case.choice.prediction.compatible == SAXSHELL
    how = _Widening("first_shell", "rank", 0) if compatible else _Widening(given.pairs, given.estimator, given.ddof)
    measured = {
        label: widths_of(one, case.roles, reached, pairs=how.pairs, estimator=how.estimator, ddof=how.ddof)
        for label, one in library.ensembles.items()
    }
    models = fit_widths(rows, measured, case.roles, options.weighting, options.scaling)
    table = debye_waller_table(library, rows, prediction.predicted, measured, models)
    checks = _checks(library, measured, reached, how.pairs)
    populations = _populations(library, prediction, structures, table, how.pairs)
    return Foreseen(options, library, prediction, geometry, structures, table, models, checks, populations, {})


def _checks(
    library: Library, measured: Mapping[str, Mapping[Pair, Width]], reached: Cutoffs, pairs: Pairs
) -> list[SelfCheck]:
    """The self-check of each label with two structures or more."""
    several = {label: one for label, one in library.ensembles.items() if len(one.structures) > 1}
    elements = sorted({name for one in several.values() for s in one.structures for name in s.elements})
    if not elements:
        return []
    f = amplitudes(elements, Q)

    def intensity(structure: Structure, sigma: Mapping[Pair, float]) -> np.ndarray:
        among = first_shell_pairs(structure, library.roles, reached) if pairs == "first_shell" else None
        spreads = np.array([sigma.get(pair_of(*pair), 0.0) for pair in pairs_of(elements)])
        return single("", 1.0, structure, elements, f, Q, spreads, among).intensity(Q)

    return [
        self_check(one, {pair: width.sigma for pair, width in measured[label].items()}, intensity)
        for label, one in several.items()
    ]


def _populations(
    library: Library,
    prediction: Prediction,
    structures: Sequence[Grown],
    table: Sequence[DebyeWallerRow],
    pairs: Pairs,
) -> list[Population]:
    sigma: dict[tuple[str, str], dict[Pair, float]] = {}
    for row in table:
        sigma.setdefault((row.kind, row.label), {})[row.pair] = row.sigma
    found = []
    for row, weight in zip(prediction.rows, prediction.observed_weights.tolist()):
        one = library.ensembles[row.label]
        known, stands = sigma.get(("observed", row.label)), one.structures[one.representative]
        found.append(Population(row.label, "observed", row.n_node, weight, one.structures, stands, known, pairs))
    for one, placed in zip(prediction.predicted, structures):
        known, every = sigma.get(("predicted", one.label)), (placed.first, *placed.others)
        found.append(Population(one.label, "predicted", one.n_node, one.weight, every, placed.first, known, pairs))
    return found
