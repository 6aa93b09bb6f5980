"""Scores, ranks, shares and mixture weights of predicted clusters; their mass, from the tail of observed sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from hpcfit.kinds.clusters.prediction.candidates import Candidate
from hpcfit.kinds.clusters.prediction.rows import Row

LEAST_OCCUPANCY = 0.05
MixtureWeight = Literal["occupancy", "number"]


class Predicted(NamedTuple):
    """A candidate with its predicted quantities by name (mean_count, occupancy, mean_lifetime fs, rates 1/ps, radii A).

    distance: of its composition from the first candidate of its size; source: the observed label whose structure it
    grows from; rank: within its size, from 1; fate: "predicted", or why it is not; interval: of the mean count, by
    resampled frames; outer: with the errors that its model made of the largest observed size as well.
    """

    candidate: Candidate
    values: dict[str, float]
    score: float
    distance: float
    source: str
    rank: int = 0
    share: float = 0.0
    weight: float = 0.0
    fate: str = "predicted"
    interval: tuple[float, float] | None = None
    outer: tuple[float, float] | None = None

    @property
    def label(self) -> str:
        """The label of the composition."""
        return self.candidate.label

    @property
    def n_node(self) -> int:
        """The number of nodes."""
        return self.candidate.n_node


class Tail(NamedTuple):
    """The mass of predicted clusters. by_size: observed weights by number of nodes; decay: per node, as found and after
    clipping; anchored: extrapolated by the decay, at most the last observed size's; modelled: the sum of the predicted
    counts by the same rule of weights, to compare."""

    by_size: dict[int, float]
    found_decay: float
    decay: float
    anchored: float
    modelled: float


def mixture_weight(mean_count: float, occupancy: float, rule: MixtureWeight) -> float:
    """The weight of a component: its mean count, which a number average has, or that times its occupancy (at least
    0.05), as SAXSShell has it."""
    count = max(mean_count, 0.0)
    return count if rule == "number" else count * max(occupancy, LEAST_OCCUPANCY)


def score(values: Mapping[str, float], timestep: float, distance: float) -> float:
    """count · lifetime · occupancy / (1 + distance)."""
    kinetics = max(values["mean_lifetime"], timestep) * max(values["occupancy"], LEAST_OCCUPANCY)
    return max(values["mean_count"], 0.0) * kinetics / (1 + distance)


def ranked(of_size: Sequence[Predicted], keep: int, by_label: bool) -> list[Predicted]:
    """The candidates of a size by falling score, ranks from 1; beyond ``keep`` they are cut. Equal scores are ordered
    by distance from the first candidate, or, as SAXSShell does, by label alone."""
    order = sorted(of_size, key=lambda one: (-one.score, 0 if by_label else one.distance, one.label))
    fates = ["predicted"] * keep + ["cut: beyond candidates per size"] * len(order)
    return [one._replace(rank=rank, fate=fate) for rank, (one, fate) in enumerate(zip(order, fates), 1)]


def with_shares(predicted: Sequence[Predicted], timestep: float, rule: MixtureWeight) -> list[Predicted]:
    """Shares that sum to 1 over all sizes: of the mixture weight; where it is 0, of the occupancy; where this is 0 too,
    of the lifetime in frames."""
    raw = []
    for one in predicted:
        values = one.values
        weight = mixture_weight(values["mean_count"], values["occupancy"], rule)
        raw.append(weight or max(values["occupancy"], 0.0) or max(values["mean_lifetime"], timestep) / timestep)
    total = sum(raw)
    return [one._replace(share=value / total) for one, value in zip(predicted, raw)]


def pruned(predicted: Sequence[Predicted], threshold: float) -> list[Predicted]:
    """Candidates with a share below the threshold are pruned, but for the best of each size; the shares of the others
    sum to 1 again. Those that are left come first: larger sizes first, ranks anew by share, score, label."""
    sizes = sorted({one.n_node for one in predicted}, reverse=True)
    left, gone = [], []
    for n in sizes:
        of_size = [one for one in predicted if one.n_node == n]
        order = sorted(of_size, key=lambda one: (-one.share, -one.score, one.label))
        small = [one for one in order[1:] if one.share < threshold]
        gone += [one._replace(fate="pruned: share below threshold") for one in small]
        left += [one._replace(rank=rank) for rank, one in enumerate((o for o in order if o not in small), 1)]
    total = sum(one.share for one in left)
    return [one._replace(share=one.share / total) for one in left] + gone


def observed_weights(rows: Sequence[Row], rule: MixtureWeight) -> np.ndarray:
    """The mixture weights of the training rows [m]."""
    return np.array([mixture_weight(row.observed.mean_count, row.observed.occupancy, rule) for row in rows])


def tail(
    rows: Sequence[Row],
    predicted: Sequence[Predicted],
    rule: MixtureWeight = "occupancy",
    clip: tuple[float, float] = (0.05, 0.9),
) -> Tail:
    """The mass of predicted clusters by the decay of observed size totals S_n.

    r: the median of (S_n'/S_n)^(1/(n'-n)) of successive sizes with weight (0.5 of a single one), clipped; the mass is
    Σ S_last r^(n - last) over predicted sizes, at most S_last; where nothing was observed, what the models say.
    """
    totals: dict[int, float] = {}
    for row, weight in zip(rows, observed_weights(rows, rule)):
        if weight > 0:
            totals[row.n_node] = totals.get(row.n_node, 0.0) + float(weight)
    modelled = sum(mixture_weight(one.values["mean_count"], one.values["occupancy"], rule) for one in predicted)
    if not totals:
        return Tail({}, np.nan, np.nan, modelled or 1.0, modelled)
    sizes = sorted(totals)
    steps = [(totals[b] / totals[a]) ** (1 / (b - a)) for a, b in pairwise(sizes)]
    found = float(np.median(steps)) if steps else 0.5
    decay, last = float(np.clip(found, *clip)), sizes[-1]
    wanted = sorted({one.n_node for one in predicted})
    mass = sum(totals.get(n, totals[last]) if n <= last else totals[last] * decay ** (n - last) for n in wanted)
    return Tail({n: totals[n] for n in sizes}, found, decay, float(min(mass, totals[last])), modelled)
