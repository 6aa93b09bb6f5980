"""Force matching with a linear basis, from sums over blocks of frames; and what these sums say of force maps.

    chi^2(theta) = <|F - Phi theta|^2> / 3N = (F^T F - 2 theta Phi^T F + theta Phi^T Phi theta) / rows

All is done with the normal equations of B statistical blocks (``bead_models.linear.NormalEquations``), contiguous parts
of the trajectories: cross-validation leaves out one block at a time, errors are those of the jackknife over blocks, and
no frame is read again.

Any two valid force maps have the same mean force, so the means of (F_w - F_ref) . G(R) vanish for every field G of the
beads' positions (Ciccotti, Kapral and Vanden-Eijnden 2005, 10.1002/cphc.200400669; Noid and others 2008,
10.1063/1.2938860). This is what ``compare_maps`` tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.special

from hpcfit.bead_models.linear import NormalEquations
from hpcfit.errors import InputError
from hpcfit.statistics.blocks import Estimate, block_mean, jackknife_error

# Of the mean diagonal of Phi^T Phi. A product of float32 numbers knows it to about 1e-7.
RIDGES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
DOUBT = 0.01  # the probability of calling one of several valid maps invalid


class LinearFit(NamedTuple):
    """A fitted linear model.

    coefficients, errors: [K], kJ/mol, with standard errors of the jackknife over blocks; 0 where ``empty``: no frame
    saw the function. ridge: the strength chosen; ridges, scores: those tried, and chi^2 of the blocks left out, per
    component of a force, (kJ/mol/A)^2. fitted: chi^2 of all blocks by the fit of all. test: that of the blocks left
    out. left_out: [B, K], coefficients without each block.
    """

    coefficients: np.ndarray
    errors: np.ndarray
    empty: np.ndarray
    ridge: float
    ridges: tuple[float, ...]
    scores: tuple[float, ...]
    fitted: float
    test: Estimate
    left_out: np.ndarray


class MapComparison(NamedTuple):
    """One map against the reference.

    fields: <(F_w - F_ref) . G_k> per component with standard errors, [K]. cross: the same along the field fitted to the
    reference's forces in the other blocks. difference: along the field fitted to the difference of the forces there;
    positive where the two mean forces differ. doubt: the probability that two valid maps look as different by chance.
    agrees: whether it is above ``DOUBT``.
    """

    fields: np.ndarray
    errors: np.ndarray
    cross: Estimate
    difference: Estimate
    doubt: float
    agrees: bool

    @property
    def verdict(self) -> str:
        """One sentence."""
        of_fields = np.max(np.abs(_z(self.fields, self.errors)), initial=0.0)
        furthest = max(abs(self.cross.z), self.difference.z, of_fields)
        word = "agree" if self.agrees else "differ"
        return f"the mean forces {word}: at most {furthest:.1f} s.e. apart, by chance with probability {self.doubt:.2g}"


class Decomposition(NamedTuple):
    """chi^2 = pmf_error + noise + cross, per component, (kJ/mol/A)^2.

    pmf_error: <|f* - F_U|^2>. noise: <|F - f*|^2>. cross: 2 <(F - f*) . (f* - F_U)>, 0 for every U if the map is valid.
    bias: <(F - f*) . e> along a field e.
    """

    chi2: Estimate
    pmf_error: Estimate
    noise: Estimate
    cross: Estimate
    bias: Estimate


# ---- sums of blocks ------------------------------------------------------------------------------------------------


def stacked(blocks: Sequence[NormalEquations]) -> NormalEquations:
    """The sums of B statistical blocks, leaves [B, ...] float64."""
    return NormalEquations(*(np.array([np.asarray(part, float) for part in parts]) for parts in zip(*blocks)))


def _of_map(blocks: NormalEquations, number: int) -> NormalEquations:
    """With one map: rhs [B, K], square [B]."""
    return blocks._replace(rhs=blocks.rhs[..., number], square=blocks.square[..., number])


def _without_each(blocks: NormalEquations) -> NormalEquations:
    """The sums of all blocks but one, for each: added anew, since a difference would lose digits of a small block."""
    kept = ~np.eye(len(blocks.rows), dtype=bool)
    return NormalEquations(*(np.array([np.sum(leaf[which], axis=0) for which in kept]) for leaf in blocks))


def _total(blocks: NormalEquations) -> NormalEquations:
    return NormalEquations(*(np.sum(leaf, axis=0) for leaf in blocks))


def _check_blocks(blocks: NormalEquations) -> None:
    n = int(np.sum(np.asarray(blocks.rows) > 0))
    if n < 2 or n < len(blocks.rows):
        raise InputError(
            f"{n} of {len(blocks.rows)} statistical blocks have frames; cross-validation and errors need 2 or more,"
            " each with frames",
            remedy="lower blocks, or give more frames",
        )


# ---- fitting -------------------------------------------------------------------------------------------------------


def fit_forces(
    blocks: NormalEquations,
    number: int = 0,
    ridges: Sequence[float] = RIDGES,
    constants: np.ndarray | None = None,
    roughness: np.ndarray | None = None,
    smoothness: float = 0.0,
) -> LinearFit:
    """Fit a linear model to the forces of one of the maps.

    ridges: fractions of the mean diagonal of Phi^T Phi; of several the one is taken whose models predict the blocks
    left out best. constants: [g, K], directions without force, set to 0 (``Basis.constants``). roughness: [K, K], what
    smoothness multiplies, also in units of the mean diagonal (``Basis.roughness``). Raises InputError for less than two
    blocks, or where no function saw a frame.
    """
    _check_blocks(blocks)
    blocks = _of_map(blocks, number)
    penalty = _Penalty.of(blocks, constants, roughness, smoothness)
    without = _without_each(blocks)
    candidates = [np.array([penalty.solve(part, ridge) for part in _each_block(without)]) for ridge in ridges]
    scores = [block_mean(chi2(blocks, theta), blocks.rows) for theta in candidates]
    best = int(np.argmin([score.value for score in scores]))
    whole = _total(blocks)
    theta, left_out = penalty.solve(whole, ridges[best]), candidates[best]
    return LinearFit(
        theta, jackknife_error(left_out), penalty.empty, float(ridges[best]), tuple(map(float, ridges)),
        tuple(score.value for score in scores), float(chi2(whole, theta)), scores[best], left_out,
    )  # fmt: skip


def chi2(blocks: NormalEquations, theta: np.ndarray) -> np.ndarray:
    """<|F - Phi theta|^2> per component, [...] of the leading axes; of one map, theta [..., K]."""
    linear = np.sum(theta * blocks.rhs, axis=-1)
    squared = np.einsum("...k,...kl,...l->...", theta, blocks.gram, theta)
    return (blocks.square - 2 * linear + squared) / blocks.rows


class _Penalty(NamedTuple):
    """What is added to Phi^T Phi, for each row (component) that there is.

    empty: [K]; scale: the mean diagonal of the functions seen, a row; fixed: [K, K], for constants and smoothness, in
    units of it.
    """

    empty: np.ndarray
    scale: float
    fixed: np.ndarray

    @classmethod
    def of(cls, blocks: NormalEquations, constants, roughness, smoothness: float) -> _Penalty:
        whole = _total(blocks)
        diagonal = np.diagonal(whole.gram)
        empty = ~((diagonal > 0) & (whole.coverage > 0))
        if empty.all():
            raise InputError("no function of the basis saw a frame", remedy="take its ranges from these frames")
        fixed = np.zeros_like(whole.gram)
        if constants is not None:
            fixed += np.asarray(constants).T @ np.asarray(constants)
        if roughness is not None:
            fixed += smoothness * roughness
        return cls(empty, float(diagonal[~empty].mean() / whole.rows), fixed)

    def solve(self, sums: NormalEquations, ridge: float) -> np.ndarray:
        """theta [K] at the least penalised chi^2 of these sums."""
        used = np.ix_(~self.empty, ~self.empty)
        P = sums.gram / sums.rows + self.scale * (self.fixed + ridge * np.eye(len(self.empty)))
        theta = np.zeros(len(self.empty))
        theta[~self.empty] = _least_squares(P[used], sums.rhs[~self.empty] / sums.rows)
        return theta


def _least_squares(P: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x of P x = b with P scaled to a unit diagonal; of the shortest length where P is singular to rounding."""
    size = np.sqrt(np.maximum(np.diagonal(P), np.finfo(float).tiny))
    scaled = P / np.outer(size, size)
    value, vector = scipy.linalg.eigh(scaled)
    kept = value > len(P) * np.finfo(float).eps * value[-1]
    return vector[:, kept] @ ((vector[:, kept].T @ (b / size)) / value[kept]) / size


def _each_block(blocks: NormalEquations) -> list[NormalEquations]:
    return [NormalEquations(*(leaf[b] for leaf in blocks)) for b in range(len(blocks.rows))]


# ---- comparing maps ------------------------------------------------------------------------------------------------


def compare_maps(
    blocks: NormalEquations, reference: int = 0, constants: np.ndarray | None = None, ridge: float = 1e-4
) -> tuple[MapComparison, ...]:
    """The comparison of each map's mean force with that of the reference, by the fields of a basis; one entry a map.

    Errors are those of means over blocks, which must be longer than forces remember. A field that no frame saw says
    nothing. The doubt is that of the largest of K + 2 deviations, each by Student's t with B - 1 degrees of freedom,
    corrected for their number (Bonferroni).
    """
    _check_blocks(blocks)
    return tuple(_compared(blocks, number, reference, constants, ridge) for number in range(np.shape(blocks.rhs)[-1]))


def _compared(blocks: NormalEquations, number: int, reference: int, constants, ridge: float) -> MapComparison:
    of_reference = _of_map(blocks, reference)
    # square is not that of the difference, and is not used
    difference = of_reference._replace(rhs=blocks.rhs[..., number] - blocks.rhs[..., reference])
    penalty = _Penalty.of(of_reference, constants, None, 0.0)
    # Fields fitted in the same block would follow the noise of the forces that they are then compared with.
    along, fitted = (
        np.array([penalty.solve(part, ridge) for part in _each_block(_without_each(forces))])
        for forces in (of_reference, difference)
    )
    rows, means = blocks.rows, difference.rhs / blocks.rows[:, None]
    fields = [block_mean(column, rows) for column in means.T]
    values, errors = (np.array([field[part] for field in fields]) for part in (0, 1))
    cross, other = (block_mean(np.sum(means * theta, axis=1), rows) for theta in (along, fitted))
    z = np.append(np.abs(_z(values, errors)), [abs(cross.z), max(other.z, 0.0)])
    one = 2 * scipy.special.stdtr(len(rows) - 1, -z.max())
    doubt = float(min(1.0, one * len(z)))
    return MapComparison(values, errors, cross, other, doubt, doubt > DOUBT)


def _z(values: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """In standard errors; 0 where a field saw no frame."""
    return np.divide(values, errors, out=np.zeros_like(values), where=errors > 0)


def decomposition(products: np.ndarray, rows: np.ndarray) -> Decomposition:
    """chi^2 of a field F_U against mapped forces F, where the exact mean force f* is known.

    products: [B, 4, 4], of statistical blocks, sums over frames and components of the products of F, f*, F_U and a
    field e that the bias is taken along; rows: [B], how many components. kJ/mol/A. Raises InputError for less than two
    blocks.
    """
    if len(rows) < 2:
        raise InputError("all frames are of one statistical block; errors need 2 or more", remedy="divide the frames")
    F, f, U, e = np.eye(4)
    of = lambda a, b: block_mean(np.einsum("i,bij,j->b", a, products, b) / rows, rows)  # noqa: E731
    return Decomposition(of(F - U, F - U), of(f - U, f - U), of(F - f, F - f), of(2 * (F - f), f - U), of(F - f, e))
