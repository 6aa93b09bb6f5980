"""The force maps of a run, from the products of reduced forces: fits, their ridge by cross-validation, errors, checks.

Everything here is on root and reads no frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.force_map.bead_choice import Reduced
from hpcfit.kinds.force_map.config import MapConfig, ridges
from hpcfit.kinds.force_map.features import Features, feature_mean_square, solve_features
from hpcfit.kinds.force_map.maps import (
    FRAMES_PER_COEFFICIENT,
    MapCheck,
    basic_map,
    check_map,
    free_coefficients,
    local_map,
    local_mean_square,
    mean_square,
    optimal_map,
    optimism,
    residual_matrix,
    slice_map,
    tied_map,
)
from hpcfit.log import inputs
from hpcfit.statistics.blocks import bootstrap_error, weighted_error

LEARNING_SHARES = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


@dataclass(frozen=True)
class Evidence:
    """Products of the reduced forces, by statistical block.

    sums: [B, q, q], or of each bead [B, N, k + 1, k + 1] on ``support`` [N, k]. frames: [B].
    """

    sums: np.ndarray
    frames: np.ndarray
    support: np.ndarray | None = None

    def mean(self, counts: np.ndarray | None = None) -> np.ndarray:
        """Per frame and component, of blocks that count so often (by default once)."""
        counts = np.ones(len(self.frames)) if counts is None else counts
        return np.tensordot(counts, self.sums, 1) / (3 * (counts @ self.frames))

    def mean_square(self, C: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
        """Mean |F_I|^2 per component, [N], (kJ/mol/A)^2, of a map's coefficients [N, q]."""
        gram = self.mean(counts)
        return mean_square(C, gram) if self.support is None else local_mean_square(C, gram, self.support)

    def of_blocks(self, C: np.ndarray) -> np.ndarray:
        """Mean |F_I|^2 per component on each statistical block, [B, N], (kJ/mol/A)^2."""
        return np.stack([self.mean_square(C, row) for row in np.eye(len(self.frames))])


@dataclass(frozen=True)
class FeatureEvidence:
    """Products of the forces of features (``kinds.force_map.features``), by statistical block; otherwise as
    ``Evidence``.

    sums: [B, N, 1 + K, 1 + K], padded with 0 where a bead has fewer features than K.
    """

    sums: np.ndarray
    frames: np.ndarray

    mean = Evidence.mean

    def mean_square(self, theta: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
        """Mean |F_I|^2 per component, [N], (kJ/mol/A)^2, of the coefficients of features [N, K]."""
        pairs = zip(theta, self.mean(counts))
        return np.array([feature_mean_square(of_bead, gram) for of_bead, gram in pairs])

    def of_blocks(self, theta: np.ndarray) -> np.ndarray:
        """Mean |F_I|^2 per component on each statistical block, [B, N], (kJ/mol/A)^2."""
        return np.stack([self.mean_square(theta, row) for row in np.eye(len(self.frames))])


class Method(NamedTuple):
    """One kind of map, and its fit to mean products.

    fit(gram, ridge): its coefficients, C [N, q]; of features theta [N, K]. p: free coefficients, [N]. evidence: what
    the products are taken from. linear: C of the map that features are added to, None for others.
    """

    name: str
    fit: Callable[[np.ndarray, float], np.ndarray]
    p: np.ndarray
    ridges: tuple[float, ...]
    evidence: Evidence | FeatureEvidence
    linear: np.ndarray | None = None


class FoundMap(NamedTuple):
    """One map with what is known of its noise.

    C: [N, q]; theta: [N, K], of features that are added to it. fitted, held_out: mean square of each bead, [N], of the
    frames that it was fitted to, and of blocks that
    it was not fitted to; held_out_error: its standard error over blocks; total_error: that of its mean over beads.
    curve: (ridge, held out over all beads) for each ridge tried. error: standard deviation of C over resampled blocks.
    check: of validity.
    """

    name: str
    C: np.ndarray
    theta: np.ndarray | None
    p: np.ndarray
    ridge: float | None
    fitted: np.ndarray
    held_out: np.ndarray
    held_out_error: np.ndarray
    total_error: float
    curve: tuple[tuple[float, float], ...]
    error: np.ndarray | None
    check: MapCheck

    @property
    def valid(self) -> bool:
        """True if the map's mean force is that of the potential of mean force, by its coefficients."""
        return self.check.valid


def methods(
    choice: MapConfig, reduced: Reduced, evidence: Evidence, local: np.ndarray | None,
    tied: tuple[np.ndarray, np.ndarray] | None, of_file: np.ndarray | None,
    featured: tuple[Sequence[Features], FeatureEvidence] | None,
) -> list[Method]:  # fmt: skip
    """The methods of the config. local: support of method local; tied: support and classes of method tied; of_file: C
    of method file; featured: functions of each bead and their products, of method features."""
    none, tried = np.zeros(reduced.n_beads), ridges(choice.ridge)
    towards = _target(choice, reduced, tied)
    makers = {
        "slice": lambda: (lambda gram, ridge: slice_map(reduced), none, ()),
        "basic": lambda: (lambda gram, ridge: basic_map(reduced), none, ()),
        "file": lambda: (lambda gram, ridge: of_file, none, ()),
        "optimal": lambda: (
            lambda gram, ridge: optimal_map(gram, reduced, ridge, towards(gram)), free_coefficients(reduced), tried,
        ),
        "local": lambda: (
            lambda gram, ridge: local_map(gram, reduced, local, ridge, towards(gram)),
            free_coefficients(reduced, local), tried,
        ),
        "tied": lambda: (
            lambda gram, ridge: tied_map(gram, reduced, *tied, ridge, towards(gram)),
            free_coefficients(reduced, *tied), tried,
        ),
    }  # fmt: skip
    found = []
    for name in choice.methods:
        if name == "features":
            found.append(_with_features(*featured, basic_map(reduced), tried))
        else:
            found.append(Method(name, *makers[name](), evidence))
    return found


def _with_features(
    features: Sequence[Features], evidence: FeatureEvidence, linear: np.ndarray, tried: tuple[float, ...]
) -> Method:
    def fit(grams: np.ndarray, ridge: float) -> np.ndarray:
        theta = np.zeros((len(features), grams.shape[-1] - 1))
        for bead, (of_bead, gram) in enumerate(zip(features, grams)):
            used = of_bead.n_features + 1
            theta[bead, : used - 1] = solve_features(gram[:used, :used], ridge)
        return theta

    p = np.array([of_bead.n_features for of_bead in features], float)
    return Method("features", fit, p, tried, evidence, linear)


def _target(choice: MapConfig, reduced: Reduced, tied) -> Callable[[np.ndarray], np.ndarray | None]:
    """c0 of the ridge, which the tied map must be fitted for."""
    if choice.ridge_towards == "basic":
        basic = basic_map(reduced)
        return lambda gram: basic
    if choice.ridge_towards == "tied":
        return lambda gram: tied_map(gram, reduced, *tied)
    return lambda gram: None


def find_map(method: Method, reduced: Reduced, resamples: int, seed: int) -> FoundMap:
    """Fit one map to all blocks, at the ridge whose maps have the least noise on blocks left out."""
    evidence = method.evidence
    folds = 1 - np.eye(len(evidence.frames))
    tried = method.ridges or (0.0,)
    _check_determined(method, tried)
    held_out = {ridge: _held_out(method, folds, ridge) for ridge in tried}
    share = evidence.frames / evidence.frames.sum()
    score = {ridge: float((share @ values).mean()) for ridge, values in held_out.items()}
    best = min(tried, key=score.__getitem__)
    fitted = method.fit(evidence.mean(), best)
    values, featured = held_out[best], method.linear is not None
    C = method.linear if featured else fitted
    return FoundMap(
        method.name, C, fitted if featured else None, method.p, best if method.ridges else None,
        evidence.mean_square(fitted), share @ values,
        weighted_error(values, share), float(weighted_error(values.mean(axis=1, keepdims=True), share)[0]),
        tuple(score.items()) if method.ridges else (),
        None if featured else _coefficient_errors(method, best, resamples, seed), check_map(C, reduced),
    )  # fmt: skip


def _check_determined(method: Method, tried: Sequence[float]) -> None:
    """Raise InputError where the frames of a fit have fewer force components than the map has coefficients."""
    frames = method.evidence.frames
    components = 3 * int(frames.sum() - frames.max())
    p = float(method.p.max())
    if p >= components and not max(tried) > 0:
        raise InputError(
            f"map '{method.name}' has {p:.0f} free coefficients, {components} force components (of"
            f" {components // 3} frames) are there to fit them without a ridge: any forces could be made 0",
            remedy="give more frames, a ridge above 0, or use a local or tied map",
        )


def _held_out(method: Method, folds: np.ndarray, ridge: float) -> np.ndarray:
    """Mean square on each block of the map fitted to the others, [B, N]."""
    evidence = method.evidence
    if not method.ridges:
        return evidence.of_blocks(method.fit(evidence.mean(), ridge))
    return np.stack([evidence.mean_square(method.fit(evidence.mean(fold), ridge), 1 - fold) for fold in folds])


def _coefficient_errors(method: Method, ridge: float, resamples: int, seed: int) -> np.ndarray | None:
    """Standard deviation of the coefficients over resampled blocks, [N, q]; None where nothing is fitted."""
    if not (method.ridges and resamples):
        return None
    mean, n = method.evidence.mean, len(method.evidence.frames)
    return bootstrap_error(lambda counts: method.fit(mean(counts), ridge), n, resamples, seed)


class Learning(NamedTuple):
    """Mean squares, over all beads, of a map fitted to the first blocks: of these, and of the blocks that follow."""

    frames: int
    fitted: float
    held_out: float
    predicted: float  # the fitted one by the law of optimism


def learning_curve(method: Method, ridge: float) -> list[Learning]:
    """The noise against the number of frames fitted. All fits are judged by the last third of the blocks."""
    evidence = method.evidence
    n = len(evidence.frames)
    test = (np.arange(n) >= n - max(n // 3, 1)).astype(float)
    usable, points = n - int(test.sum()), []
    for count in sorted({max(1, round(share * usable)) for share in LEARNING_SHARES}):
        train = (np.arange(n) < count).astype(float)
        frames = int(train @ evidence.frames)
        C = method.fit(evidence.mean(train), ridge)
        fitted = evidence.mean_square(C, train)
        predicted = optimism(fitted, method.p, frames).held_out
        points.append(Learning(frames, float(fitted.mean()), float(evidence.mean_square(C, test).mean()),
                               float(np.mean(predicted))))  # fmt: skip
    return points


def choose_map(choice: MapConfig, found: Sequence[FoundMap]) -> FoundMap:
    """The map that the frames are mapped with. Raises InputError if none of them is valid."""
    by_name = {one.name: one for one in found}
    if choice.use != "best":
        chosen = by_name[choice.use]
        if not chosen.valid:
            inputs.warning("%s", invalid(chosen))
        return chosen
    valid = [one for one in found if one.valid]
    if not valid:
        raise InputError(
            f"none of the maps {', '.join(by_name)} gives the mean force of these beads under these constraints",
            remedy="add 'basic' or 'optimal' to [problem.map] methods, or name one as `use` to map with it anyhow",
        )
    return min(valid, key=lambda one: one.held_out.mean())


def invalid(one: FoundMap) -> str:
    """Why a map is none, in a sentence."""
    return (
        f"map '{one.name}' is invalid: it differs by {one.check.orthogonality:.2g} within a rigid group and by"
        f" {one.check.consistency:.2g} from M W^T = 1, so its mean is not the force of the potential of mean force"
    )


def warnings_of(found: Sequence[FoundMap], n_frames: int) -> list[str]:
    """Warnings for a reader of the maps: invalid maps, and maps with too few frames for their coefficients."""
    said = [invalid(one) for one in found if not one.valid]
    for one in found:
        p = float(one.p.max())
        if n_frames < FRAMES_PER_COEFFICIENT * p:
            better = ", or use a local or tied map" if one.name == "optimal" else ""
            said.append(
                f"map '{one.name}' has {p:.0f} free coefficients and {n_frames} frames, less than"
                f" {FRAMES_PER_COEFFICIENT} for each: it hides some of its noise; judge it by the held-out one{better}"
            )
    return said


def covariance(one: FoundMap, evidence: Evidence) -> np.ndarray:
    """Mean F_I F_J per component, [N, N]; of local products and of features only its diagonal is known."""
    if one.theta is not None:
        return np.diag(one.fitted)
    if evidence.support is None:
        return residual_matrix(one.C, evidence.mean())
    return np.diag(evidence.mean_square(one.C))
