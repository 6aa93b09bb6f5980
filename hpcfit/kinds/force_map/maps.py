"""Maps of atomic forces to beads that are exact for the mean force, and among them the ones of least noise.

The mapped force of a bead is F_I = sum_i W_Ii f_i. Its mean at fixed positions R = M r of the beads is the force of the
potential of mean force if M W^T = 1 and if W gives all atoms of a rigid group one coefficient (Noid and others,
10.1063/1.2938860; Ciccotti, Kapral and Vanden-Eijnden, 10.1002/cphc.200400669). Of all such W the one with the least
mean square of F is a quadratic program (Kramer and others, 10.1021/acs.jpclett.3c00444), for which the mean products of
the reduced forces (``kinds.force_map.bead_choice``) are enough. A map is written as its coefficients C [N, q], W = C
[S^T; M].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse

from hpcfit.errors import InputError
from hpcfit.kinds.force_map.bead_choice import Beads, Reduced, reduced
from hpcfit.kinds.force_map.map_statistics import (
    FRAMES_PER_COEFFICIENT,
    local_mean_square,
    mean_square,
    noise_map,
    optimism,
    residual_matrix,
)
from hpcfit.physics.equality_qp import Equalities, minimise, solve_equalities

__all__ = [  # all that is known of force maps, wherever it stands
    "FRAMES_PER_COEFFICIENT",
    "Beads",
    "MapCheck",
    "Reduced",
    "basic_map",
    "check_map",
    "free_coefficients",
    "local_map",
    "local_mean_square",
    "mean_square",
    "noise_map",
    "optimal_map",
    "optimism",
    "reduced",
    "residual_matrix",
    "slice_map",
    "sub_grams",
    "tied_map",
]

# What rounding leaves of M W^T - 1 and of the differences within a group; coefficients are of the order of 1.
CONSISTENT = 1e-10


def slice_map(reduced: Reduced) -> np.ndarray:
    """W = M, C [N, q]: the force on the bead's own atoms; not valid if one of them is constrained (``check_map``)."""
    return np.hstack([np.zeros((reduced.n_beads, reduced.n_groups)), np.eye(reduced.n_beads)])


def basic_map(reduced: Reduced) -> np.ndarray:
    """C [N, q]: the sum of the forces on the rigid groups of the bead. InputError for beads that share a group."""
    shared = np.flatnonzero(np.count_nonzero(reduced.A, axis=0) > 1)
    if len(shared):
        first, second = (reduced.beads.described(bead) for bead in np.flatnonzero(reduced.A[:, shared[0]])[:2])
        raise InputError(
            f"beads {first} and {second} share a rigid group: the basic map gives each the force of both",
            remedy="leave the basic map out, or make beads that share no rigid group",
        )
    return _with_slices((reduced.A > 0).astype(float), reduced)


def optimal_map(
    gram: np.ndarray, reduced: Reduced, ridge: float = 0.0, towards: np.ndarray | None = None
) -> np.ndarray:
    """C [N, q] with the least mean square of each mapped force.

    gram: [q, q], mean products of the reduced forces per frame and component. ridge: times the mean square of a group's
    force times (c - c0)^T D (c - c0), D the sizes of the groups; c0: 0 or the map ``towards`` [N, q].
    """
    m = reduced.n_groups
    inner = gram[:m, :m]
    pull, c0 = ridge * np.trace(inner) / m, _target(towards, reduced)
    return _with_slices(minimise(inner, reduced.sizes, reduced.equalities, pull, c0.T).T, reduced)


def local_map(
    gram: np.ndarray, reduced: Reduced, support: np.ndarray, ridge: float = 0.0, towards: np.ndarray | None = None
) -> np.ndarray:
    """C [N, q]: ``optimal_map`` with coefficients on the support of each bead only.

    support: groups, [N, k], padded with -1. gram: [q, q], or of each bead (``sub_grams``) [N, k + 1, k + 1]. The mean
    square that ``ridge`` is a fraction of is that of the groups in any support.
    """
    subgrams, c0 = sub_grams(gram, support), _target(towards, reduced)
    pull = ridge * _mean_square_of_groups(subgrams, support)
    C = np.zeros((reduced.n_beads, reduced.n_groups))
    for bead, (groups, used) in enumerate(zip(support, support >= 0)):
        groups, inner = groups[used], subgrams[bead, :-1, :-1][np.ix_(used, used)]
        equalities = _local_equalities(bead, groups, reduced)
        found = minimise(inner, reduced.sizes[groups], equalities, pull, c0[bead, groups][:, None])
        C[bead, groups] = found[:, 0]
    return _with_slices(C, reduced)


def tied_map(
    gram: np.ndarray,
    reduced: Reduced,
    support: np.ndarray,
    classes: np.ndarray,
    ridge: float = 0.0,
    towards: np.ndarray | None = None,
) -> np.ndarray:
    """C [N, q]: ``local_map`` with one coefficient for all bead-and-group pairs of a class, over all beads.

    classes: [N, k], numbers from 0; -1: coefficient 0.
    """
    subgrams, c0 = sub_grams(gram, support), _target(towards, reduced)
    pull = ridge * _mean_square_of_groups(subgrams, support)
    n_classes, used = int(classes.max()) + 1, (support >= 0) & (classes >= 0)
    P, D, pulled = np.zeros((n_classes, n_classes)), np.zeros(n_classes), np.zeros(n_classes)
    for bead, chosen in enumerate(used):
        groups, kinds = support[bead, chosen], classes[bead, chosen]
        np.add.at(P, (kinds[:, None], kinds), subgrams[bead, :-1, :-1][np.ix_(chosen, chosen)])
        np.add.at(D, kinds, reduced.sizes[groups])
        np.add.at(pulled, kinds, reduced.sizes[groups] * c0[bead, groups])
    seen = D > 0  # numbers without a pair keep the coefficient 0
    equalities = _tied_equalities(support, classes, used, seen, reduced)
    theta = np.zeros(n_classes)
    theta[seen] = minimise(P[np.ix_(seen, seen)], D[seen], equalities, pull, (pulled[seen] / D[seen])[:, None])[:, 0]
    C = np.zeros((reduced.n_beads, reduced.n_groups))
    for bead, chosen in enumerate(used):
        C[bead, support[bead, chosen]] = theta[classes[bead, chosen]]
    return _with_slices(C, reduced)


def sub_grams(gram: np.ndarray, support: np.ndarray) -> np.ndarray:
    """[..., N, k + 1, k + 1]: the products of the groups of each support and the bead's slice force.

    gram: [..., q, q], or what this function returned. Padding is 0.
    """
    N, k = support.shape
    if gram.shape[-3:] == (N, k + 1, k + 1):
        return gram
    rows = np.hstack([support, gram.shape[-1] - N + np.arange(N)[:, None]])
    found = gram[..., rows[:, :, None], rows[:, None, :]]
    return np.where((rows[:, :, None] >= 0) & (rows[:, None, :] >= 0), found, 0.0)


def free_coefficients(
    reduced: Reduced, support: np.ndarray | None = None, classes: np.ndarray | None = None
) -> np.ndarray:
    """Free coefficients of each bead, [N], the p of ``optimism``; tied ones are shared out among the beads."""
    if support is None:
        return np.full(reduced.n_beads, float(reduced.n_groups - reduced.n_beads))
    if classes is None:
        return np.array(
            [
                len(_local_equalities(bead, groups[groups >= 0], reduced).free)
                for bead, groups in enumerate(support)
            ],
            float,
        )  # fmt: skip
    used = (support >= 0) & (classes >= 0)
    seen = np.bincount(classes[used]) > 0
    free = _tied_equalities(support, classes, used, seen, reduced).free
    return np.full(reduced.n_beads, len(free) / reduced.n_beads)


def _with_slices(C: np.ndarray, reduced: Reduced) -> np.ndarray:
    return np.hstack([C, np.zeros((reduced.n_beads, reduced.n_beads))])


def _target(towards: np.ndarray | None, reduced: Reduced) -> np.ndarray:
    """c0, [N, m]."""
    if towards is None:
        return np.zeros((reduced.n_beads, reduced.n_groups))
    if np.any(towards[:, reduced.n_groups :]):
        raise InputError(
            "a map cannot be drawn towards the slice map, which is not a sum over rigid groups",
            remedy="draw it towards the basic map",
        )
    return towards[:, : reduced.n_groups]


def _mean_square_of_groups(subgrams: np.ndarray, support: np.ndarray) -> float:
    """Over the groups in any support."""
    _, first = np.unique(support, return_index=True)
    chosen = first[support.ravel()[first] >= 0]
    return float(np.mean(np.einsum("nkk->nk", subgrams)[:, :-1].ravel()[chosen]))


def _local_equalities(bead: int, groups: np.ndarray, reduced: Reduced) -> Equalities:
    A = reduced.A[:, groups]
    touched = np.flatnonzero(A.any(axis=1) | (np.arange(reduced.n_beads) == bead))
    found = solve_equalities(A[touched], (touched == bead).astype(float)[:, None])
    if found.violation[0] > CONSISTENT:
        others = ", ".join(f"'{reduced.beads.names[other]}'" for other in touched[touched != bead][:4])
        raise InputError(
            f"bead {reduced.beads.described(bead)} has no local map: the {len(groups)} groups near it cannot tell it"
            f" from {others or 'nothing, none of them is its own'}",
            remedy="raise the distance of the support",
        )
    return found


def _tied_equalities(support, classes, used, seen, reduced: Reduced) -> Equalities:
    """The different ones among sum_a A_Ja theta_class(I, a) = [I = J] for all I and J."""
    rows, pairs = [], []
    for bead, chosen in enumerate(used):
        A = reduced.A[:, support[bead, chosen]]
        touched = np.flatnonzero(A.any(axis=1) | (np.arange(reduced.n_beads) == bead))
        row = np.zeros((len(touched), len(seen) + 1))
        np.add.at(row.T, classes[bead, chosen], A[touched].T)
        row[:, -1] = touched == bead
        rows.append(row)
        pairs += [(bead, other) for other in touched]
    different, first = np.unique(np.round(np.vstack(rows), 12), axis=0, return_index=True)
    A, e = different[:, :-1][:, seen], different[:, -1:]
    found = solve_equalities(A, e)
    if found.violation[0] > CONSISTENT:
        x = found.complete(np.zeros((len(found.free), 1)))
        bead, other = pairs[first[np.argmax(np.abs(A @ x - e))]]
        raise InputError(
            f"the tied coefficients of bead {reduced.beads.described(bead)} cannot have a mapped force that is 1 on it"
            f" and 0 on the others, such as {reduced.beads.described(other)}",
            remedy="tie fewer coefficients, or raise the distance of the support",
        )
    return found


class MapCheck(NamedTuple):
    """The deviation of a map from one that is exact for the mean force."""

    consistency: float  # max |M W^T - 1|
    orthogonality: float  # max |W_Ii - W_Ij| over atoms i and j of a rigid group

    @property
    def valid(self) -> bool:
        return self.consistency <= CONSISTENT and self.orthogonality <= CONSISTENT


def check_map(C: np.ndarray, reduced: Reduced) -> MapCheck:
    """``MapCheck`` of C [N, q]; the slice map is invalid where an atom of a bead is constrained."""
    W = reduced.spread(C)
    consistency = np.abs((reduced.beads.M @ W.T).toarray() - np.eye(reduced.n_beads)).max()
    return MapCheck(float(consistency), _difference_within_groups(W, reduced))


def _difference_within_groups(W: scipy.sparse.csr_array, reduced: Reduced) -> float:
    atoms = np.flatnonzero(reduced.group >= 0)
    atoms = atoms[np.argsort(reduced.group[atoms], kind="stable")]
    starts = np.searchsorted(reduced.group[atoms], np.arange(reduced.n_groups))
    largest = 0.0
    for bead in range(reduced.n_beads):
        w = W[[bead]].toarray()[0, atoms]
        spread = np.maximum.reduceat(w, starts) - np.minimum.reduceat(w, starts)
        largest = max(largest, float(spread.max()))
    return largest
