"""The prediction of larger clusters as one function: models, candidates, shares and weights, each step kept for the
report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.composition import Roles
from hpcfit.kinds.clusters.prediction.candidates import (
    Candidate,
    Charges,
    Trend,
    composition_distance,
    raw_candidates,
    target_sizes,
)
from hpcfit.kinds.clusters.prediction.populations import (
    CountModel,
    Foretold,
    ModelName,
    best_model,
    fit_counts,
    leave_largest_size_out,
)
from hpcfit.kinds.clusters.prediction.ridge import Regression, Scaling, fit_targets
from hpcfit.kinds.clusters.prediction.rows import Row, Weighting, features, others_in, small_data
from hpcfit.kinds.clusters.prediction.shares import (
    MixtureWeight,
    Predicted,
    Tail,
    observed_weights,
    pruned,
    ranked,
    score,
    tail,
    with_shares,
)

# By number of the requirement that asks for the sentence.
LIMITATIONS = {
    "S5-125": "A few labels and sizes train the models: a prediction is a hint, to be checked by a longer simulation.",
    "S5-126": "Trends of composition are extrapolated; no latent representation of structures is learned.",
    "S5-127": "Structures are grown from medians of bonds, angles and contacts, not from their joint distribution.",
    "S5-128": "One structure stands for a predicted label; Debye-Waller widths give back a part of its ensemble, as the"
    " self-check of each observed label shows.",
    "S5-129": "Predicted structures are not minimised in energy.",
    "S5-130": "Lifetimes come from changes of counts, which do not know one cluster from another of the same label.",
    "S5-131": "No graph neural network is used.",
    "S5-132": "The models are linear (ridge, elastic net, mass action) and a Gaussian process; lasso, and message"
    " passing where thousands of labels are known, are related choices.",
    "S5-133": "Coefficients, weights and rejected candidates with their reasons are part of the report.",
}

IN_SIMPLE_ENERGY = "Predicted structures are minimised in a simple energy, not in that of the simulation."


class Options(NamedTuple):
    """Choices of a prediction. The defaults extrapolate; ``compatible`` gives those of SAXSShell.

    sizes: numbers of nodes, None for the next two; per_size: candidates kept of each; threshold: least share;
    model: of mean counts, "best" the one that foretells the largest size; mass: what the predicted weights sum to;
    by_label: equal scores in the order of labels.
    """

    timestep: float  # fs between frames
    sizes: tuple[int, ...] | None = None
    per_size: int = 3
    threshold: float = 0.02
    model: ModelName | Literal["best"] = "best"
    weighting: Weighting = "count"
    scaling: Scaling = "standardised"
    trend: Trend = "leak_free"
    mixture_weight: MixtureWeight = "number"
    decay_clip: tuple[float, float] = (0.0, 0.9)  # SAXSShell: 0.05, ten times too much where sizes decay faster
    mass: Literal["tail", "modelled"] = "tail"
    charges: Charges | None = None
    by_label: bool = False

    def compatible(self) -> Options:
        """These sizes and thresholds with all choices of SAXSShell."""
        one = self._replace(model="ridge", weighting="saxshell", scaling="documented", trend="leaky", by_label=True)
        return one._replace(mixture_weight="occupancy", decay_clip=(0.05, 0.9), mass="tail")


class Prediction(NamedTuple):
    """Predicted clusters and each step to them.

    predicted: left after pruning, larger sizes first; out: scored, but cut or pruned; candidates: all raw ones with the
    reasons; observed_weights: of the rows [m]; largest: the largest size with a share of at least the threshold and a
    lifetime of at least a frame, None without; why: the choice of the model in words; notes: what a reader must know.
    """

    rows: list[Row]
    predicted: list[Predicted]
    out: list[Predicted]
    candidates: list[Candidate]
    regressions: dict[str, Regression]
    model: CountModel
    foretold: list[Foretold]
    tail: Tail
    observed_weights: np.ndarray
    largest: int | None
    why: str
    notes: list[str]


def predict(rows: Sequence[Row], roles: Roles, options: Options) -> Prediction:
    """Larger clusters from training rows.

    Raises InputError where no size to predict is larger than those observed.
    """
    sizes = target_sizes(rows, options.sizes)
    if not sizes:
        raise InputError(
            f"sizes to predict {list(options.sizes or ())} are not above the largest observed one,"
            f" {max(row.n_node for row in rows)}",
            remedy="ask for larger sizes",
        )
    weights = np.array([row.weight(options.weighting) for row in rows])
    others = others_in(rows, roles)
    x = features([row.counts for row in rows], roles, others)
    regressions = fit_targets(rows, x, weights, options.timestep, options.scaling)
    foretold = leave_largest_size_out(rows, roles, weighting=options.weighting)
    name, why = best_model(foretold) if options.model == "best" else (options.model, f"{options.model}: as asked for")
    model = fit_counts(name, rows, roles, options.weighting)
    raw = [one for n in sizes for one in raw_candidates(rows, n, roles, weights, options.trend, options.charges)]
    notes = small_data(rows)
    found = []
    for n in sizes:
        kept = [one for one in raw if one.n_node == n and not one.rejected]
        of_size = ranked(_scored(kept, rows, roles, regressions, model, options), options.per_size, options.by_label)
        found += of_size
        if of_size and all(one.score == 0 for one in of_size):
            notes.append(
                f"all {len(of_size)} candidates with {n} nodes have score 0 by {name}: their order and shares mean"
                " nothing"
            )
        elif not of_size:
            notes.append(f"no candidate with {n} nodes is left by the filters")
    first = with_shares([one for one in found if one.fate == "predicted"], options.timestep, options.mixture_weight)
    shared = pruned(first, options.threshold)
    mass = tail(rows, shared, options.mixture_weight, options.decay_clip)
    total = mass.modelled if options.mass == "modelled" and mass.modelled > 0 else mass.anchored
    shared = [one._replace(weight=one.share * total if one.fate == "predicted" else 0.0) for one in shared]
    left = [one for one in shared if one.fate == "predicted"]
    worth = [
        one.n_node for one in left if one.share >= options.threshold and one.values["mean_lifetime"] >= options.timestep
    ]
    out = [one for one in (*shared, *found) if one.fate != "predicted"]
    return Prediction(
        *(list(rows), left, out, raw, regressions, model, foretold, mass),
        *(observed_weights(rows, options.mixture_weight), max(worth, default=None), why, notes),
    )


def source_label(counts: dict[str, int], n: int, preferred: str | None, rows: Sequence[Row]) -> str:
    """The label whose structure a candidate grows from: the one it was scaled from, or else the nearest by number of
    nodes, then by composition, then by name."""
    if preferred is not None:
        return preferred
    nearest = min(rows, key=lambda r: (abs(n - r.n_node), composition_distance(counts, r.counts, n), r.label))
    return nearest.label


def _scored(
    kept: Sequence[Candidate],
    rows: Sequence[Row],
    roles: Roles,
    regressions: dict[str, Regression],
    model: CountModel,
    options: Options,
) -> list[Predicted]:
    if not kept:
        return []
    x = features([one.counts for one in kept], roles, others_in(rows, roles))
    values = {name: regression.predict(x) for name, regression in regressions.items()}
    if model.name != "ridge" or options.scaling != "documented":
        values["mean_count"] = model.predict([one.counts for one in kept])
        values["occupancy"] = -np.expm1(-values["mean_count"])  # of independent (Poisson) counts
    found = []
    for number, one in enumerate(kept):
        of_one = {name: float(value[number]) for name, value in values.items()}
        distance = composition_distance(one.counts, kept[0].counts, one.n_node)
        source = source_label(one.counts, one.n_node, one.source, rows)
        found.append(Predicted(one, of_one, score(of_one, options.timestep, distance), distance, source))
    return found
