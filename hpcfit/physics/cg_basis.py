"""A linear basis of coarse-grained energy functions, its force fields, and the normal equations of force matching.

    U(R) = sum_k theta_k u_k(R),   u_k = sum over the terms of a class of phi_k(q),   q a distance, angle or dihedral
    Phi_k(R) = -grad u_k = -sum phi_k'(q) grad q                   F_U = sum_k theta_k Phi_k

(multiscale coarse-graining: Izvekov and Voth 2005, 10.1021/jp044629q; Noid and others 2008, 10.1063/1.2938860). Terms
of beads of the same types share their functions: they are a class, and a class has its columns side by side. Functions
are Gaussians or cubic B-splines at equal distances. Nothing is scattered: for each bead and class there is a list of
its terms, so the sums have one order on any device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError
from hpcfit.physics.internal_coordinates import COORDINATES, bonded_terms, check_cutoff, pairs_beyond

Shape = Literal["gaussian", "b-spline"]
Ranges = Mapping[str, tuple[float, float]]
FRAMES_AT_ONCE = 8
# How far a function is felt from its centre, in steps or standard deviations: what coverage counts. A Gaussian that is
# left out 2.4 of them from the nearest frame makes the error of a mean force half as large again.
REACH = {"b-spline": 2.0, "gaussian": 3.0}
TAPER = 2.0  # over how many steps before the cut-off pair functions fall to 0
NARROWEST = 0.05  # A or rad: a range that is shorter (a distance held fixed) is widened to twice this


@dataclass(frozen=True)
class BasisOptions:
    """Which functions there are.

    pairs: the shape of those of pairs, None for no pairs; bonded functions are B-splines. exclusions: pairs up to so
    many bonds apart have none. cutoff: where pair functions end with force 0, A; None: nowhere. width: of Gaussians,
    in distances between their centres.
    """

    pairs: Shape | None = "b-spline"
    pair_functions: int = 20
    bonded_functions: int = 12
    exclusions: int = 2
    bonds: bool = True
    angles: bool = True
    dihedrals: bool = True
    cutoff: float | None = None
    width: float = 1.0

    def __post_init__(self):
        for key, least in {"pair_functions": 4, "bonded_functions": 4, "exclusions": 0}.items():
            if getattr(self, key) < least:
                raise InputError(f"{key} = {getattr(self, key)} of a basis", remedy=f"use {least} or more")
        if self.pairs is not None and self.pairs not in ("gaussian", "b-spline"):
            raise InputError(f"pairs = '{self.pairs}' is no shape of functions", remedy="use 'gaussian' or 'b-spline'")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Family:
    """All classes of one kind of term.

    beads: [T, 2 to 4] of each term; group: [T], its class. low, high: [C], A or rad, the range of each class. slots:
    [S, L], for one bead and class (``slot_bead``, ``slot_class``: [S]) which places of the flattened ``beads`` are
    this bead; their number for padding. column: the first of the family's columns, which are [C, functions].
    """

    beads: np.ndarray
    group: np.ndarray
    low: np.ndarray
    high: np.ndarray
    slots: np.ndarray
    slot_bead: np.ndarray
    slot_class: np.ndarray
    kind: str = field(metadata={"static": True})
    shape: Shape = field(metadata={"static": True})
    labels: tuple[str, ...] = field(metadata={"static": True})
    functions: int = field(metadata={"static": True})
    column: int = field(metadata={"static": True})
    cut: bool = field(metadata={"static": True})
    width: float = field(metadata={"static": True})

    @property
    def periodic(self) -> bool:
        """Whether the coordinate is one of a circle."""
        return self.kind == "dihedrals"

    @property
    def columns(self) -> slice:
        """Of all classes."""
        return slice(self.column, self.column + len(self.labels) * self.functions)

    @property
    def step(self) -> np.ndarray:
        """The distance between centres, [C]."""
        n = self.functions
        if self.shape == "gaussian":
            return (self.high - self.low) / (n - 1)
        return (self.high - self.low) / (n if self.cut or self.periodic else n - 3)

    @property
    def reach(self) -> np.ndarray:
        """How far from its centre a function counts a coordinate as seen, [C]."""
        return REACH[self.shape] * self.step * (self.width if self.shape == "gaussian" else 1.0)

    @property
    def centres(self) -> np.ndarray:
        """[C, functions]. The first B-spline of a range is centred one step before it, of a circle at its beginning."""
        first = 0 if self.shape == "gaussian" or self.periodic else -1
        return self.low[:, None] + (first + np.arange(self.functions)) * self.step[:, None]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Basis:
    """families: those that have terms. n_beads: N. Its K columns are those of the families, one after the other."""

    families: tuple[Family, ...]
    n_beads: int = field(metadata={"static": True})

    @property
    def size(self) -> int:
        """K."""
        return sum(len(family.labels) * family.functions for family in self.families)

    @property
    def classes(self) -> list[tuple[Family, int, slice]]:
        """Each class: its family, its number in it, and its columns."""
        return [
            (family, number, slice(first, first + family.functions))
            for family in self.families
            for number in range(len(family.labels))
            for first in [family.column + number * family.functions]
        ]

    @property
    def cutoff(self) -> float | None:
        """The longest distance of any pair, where pairs have a cut-off, A."""
        cut = [float(np.max(family.high)) for family in self.families if family.cut]
        return max(cut) if cut else None

    def names(self) -> list[str]:
        """One name a column: "pairs CA-CA 5.20"."""
        return [
            f"{family.kind} {family.labels[number]} {centre:.2f}"
            for family, number, _ in self.classes
            for centre in family.centres[number]
        ]

    def constants(self) -> np.ndarray:
        """Coefficients [g, K] of the energies that are a constant, and give no force: the sums of whole B-splines."""
        found = []
        for family, _, columns in self.classes:
            if family.shape == "b-spline" and not family.cut:
                found.append(np.zeros(self.size))
                found[-1][columns] = 1
        return np.array(found).reshape(-1, self.size)

    def roughness(self) -> np.ndarray:
        """P [K, K]: theta P theta is the sum of the squared second differences of the coefficients of each class."""
        P = np.zeros((self.size, self.size))
        for family, _, columns in self.classes:
            eye = np.eye(family.functions)
            D = np.roll(eye, 1, axis=0) - 2 * eye + np.roll(eye, -1, axis=0)
            D = D if family.periodic else D[1:-1]
            P[columns, columns] = D.T @ D
        return P


class NormalEquations(NamedTuple):
    """Sums over frames, of the force fields Phi [F, N, 3, K] of a basis and one or several forces [F, N, 3, maps].

    All may have leading axes: statistical blocks.
    """

    gram: Any  # Phi^T Phi, [K, K], 1/A^2
    rhs: Any  # Phi^T F, [K, maps], kJ/mol/A^2
    square: Any  # F^T F, [maps], (kJ/mol/A)^2
    coverage: Any  # terms of frames that each function saw, [K]
    rows: Any  # components of forces: 3 N frames


# ---- making a basis ------------------------------------------------------------------------------------------------


def make_basis(
    types: Sequence[str], bonds: np.ndarray, options: BasisOptions = BasisOptions(), ranges: Ranges | None = None
) -> Basis:
    """The basis of N beads of these types with bonds [b, 2].

    ranges: by class ("pairs A-B", as ``observed_ranges`` names them) or by kind ("pairs"), A or rad. Without one,
    angles and dihedrals have their whole range, pairs that of the cut-off. Raises InputError where a range is missing.
    """
    ranges, families, column = ranges or {}, [], 0
    for kind, (beads, group, labels) in _terms(types, bonds, options).items():
        shape, functions = ("b-spline", options.bonded_functions) if kind != "pairs" else (
            options.pairs, options.pair_functions,
        )  # fmt: skip
        cut = kind == "pairs" and options.cutoff is not None
        limits = np.array([_range(kind, label, ranges, options.cutoff if cut else None) for label in labels])
        families.append(
            Family(
                beads, group, limits[:, 0], limits[:, 1], *_slots(beads, group, len(types)), kind=kind, shape=shape,
                labels=labels, functions=functions, column=column, cut=cut, width=options.width,
            )
        )  # fmt: skip
        column += len(labels) * functions
    if not families:
        raise InputError(
            f"{len(types)} beads with {len(bonds)} bonds have no term of the basis",
            remedy="lower exclusions, or allow pairs",
        )
    return Basis(tuple(families), len(types))


def validity_basis(n_beads: int, range: tuple[float, float], functions: int = 12) -> Basis:
    """Test fields with which force maps are compared: Gaussians of all distances between n beads, whatever their types.

    range: of the centres, A.
    """
    options = BasisOptions("gaussian", pair_functions=functions, exclusions=0)
    return make_basis(["bead"] * n_beads, np.zeros((0, 2), int), options, {"pairs": range})


class ObservedRanges:
    """Finds the least and the largest coordinate of each class in frames; of pairs, below the cut-off.

    The terms are looked up once: frames come block by block.
    """

    def __init__(self, types: Sequence[str], bonds: np.ndarray, options: BasisOptions):
        self._cutoff = options.cutoff
        self._terms = {
            kind: terms for kind, terms in _terms(types, bonds, options).items() if kind != "dihedrals"
        }

    def __call__(self, R: np.ndarray, box: np.ndarray | None = None) -> dict[str, tuple[float, float]]:
        """Of frames R [F, N, 3], A, with boxes [F, 3, 3] or none."""
        found: dict[str, tuple[float, float]] = {}
        for kind, (beads, group, labels) in self._terms.items():
            q = np.asarray(_coordinates(kind, jnp.asarray(R), beads, box))
            for number, label in enumerate(labels):
                of_class = q if len(labels) == 1 else q[:, group == number]
                if kind == "pairs" and self._cutoff is not None:
                    of_class = of_class[of_class < self._cutoff]
                if of_class.size:
                    found[f"{kind} {label}"] = (float(of_class.min()), float(of_class.max()))
        return found


def observed_ranges(
    types: Sequence[str], bonds: np.ndarray, options: BasisOptions, R: np.ndarray, box: np.ndarray | None = None
) -> dict[str, tuple[float, float]]:
    """``ObservedRanges`` of frames that are all there."""
    return ObservedRanges(types, bonds, options)(R, box)


def united(ranges: Iterable[Ranges]) -> dict[str, tuple[float, float]]:
    """The ranges of all frames, from those of parts of them."""
    found: dict[str, tuple[float, float]] = {}
    for part in ranges:
        for label, (low, high) in part.items():
            before = found.get(label, (low, high))
            found[label] = (min(before[0], low), max(before[1], high))
    return found


def _terms(types: Sequence[str], bonds: np.ndarray, options: BasisOptions) -> dict[str, tuple]:
    """beads [T, n], class [T] and labels [C] of each kind that has terms."""
    n = len(types)
    bonded = bonded_terms(n, bonds)
    wanted = {
        "pairs": pairs_beyond(n, bonds, options.exclusions) if options.pairs else (),
        "bonds": bonded.bonds if options.bonds else (),
        "angles": bonded.angles if options.angles else (),
        "dihedrals": bonded.dihedrals if options.dihedrals else (),
    }
    return {kind: (np.asarray(beads), *_classified(beads, types)) for kind, beads in wanted.items() if len(beads)}


def _classified(beads: np.ndarray, types: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which terms are alike, read forwards or backwards."""
    named = [tuple(str(types[bead]) for bead in term) for term in beads]
    classes = ["-".join(min(name, name[::-1])) for name in named]
    labels = sorted(set(classes))
    number = {label: place for place, label in enumerate(labels)}
    return np.array([number[label] for label in classes]), tuple(labels)


def _range(kind: str, label: str, ranges: Ranges, cutoff: float | None) -> tuple[float, float]:
    if kind == "dihedrals":
        return -np.pi, np.pi
    whole = {"angles": (0.0, np.pi)} | ({"pairs": (0.0, cutoff)} if cutoff else {})
    found = ranges.get(f"{kind} {label}", ranges.get(kind, whole.get(kind)))
    if found is None:
        raise InputError(f"no range is given for {kind} {label}", remedy="take it from the frames (observed_ranges)")
    low, high = found[0], found[1] if cutoff is None else cutoff
    if not (np.isfinite([low, high]).all() and low <= high):
        raise InputError(f"the range {low:g} to {high:g} of {kind} {label} is none", remedy="give the lower end first")
    short = max(2 * NARROWEST - (high - low), 0.0)
    return low - short / 2, high + short / 2


def _slots(beads: np.ndarray, group: np.ndarray, n_beads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each bead and class with terms, the places of the bead in the flattened list of beads, padded."""
    size = beads.shape[1]
    key = beads.ravel() * (group.max() + 1) + np.repeat(group, size)
    order = np.argsort(key, kind="stable")
    keys, first, count = np.unique(key[order], return_index=True, return_counts=True)
    slots = np.full((len(keys), count.max()), beads.size)
    for row, (start, n) in enumerate(zip(first, count)):
        slots[row, :n] = order[start : start + n]
    return slots, keys // (group.max() + 1), keys % (group.max() + 1)


# ---- forces and energies -------------------------------------------------------------------------------------------


def basis_forces(basis: Basis, R: jax.Array, box: jax.Array | None = None) -> jax.Array:
    """Phi [F, N, 3, K], 1/A: the forces of each function at coefficient 1, in the precision of R [F, N, 3] (A).

    box: [F, 3, 3], A, the vectors of the cell as rows, or None. Raises InputError for a cell narrower than twice the
    cut-off.
    """
    _check_box(basis, box)
    return _all_forces(basis, jnp.asarray(R), None if box is None else jnp.asarray(box, jnp.asarray(R).dtype))


def basis_energies(basis: Basis, R: jax.Array, box: jax.Array | None = None) -> jax.Array:
    """u [F, K]: the energies of each function at coefficient 1; otherwise as ``basis_forces``."""
    _check_box(basis, box)
    return _all_energies(basis, jnp.asarray(R), None if box is None else jnp.asarray(box, jnp.asarray(R).dtype))


def normal_equations(
    basis: Basis, R: jax.Array, F: jax.Array, box: jax.Array | None = None, weights: jax.Array | None = None
) -> NormalEquations:
    """The sums of one block of frames, float64, by products in the precision of R [F, N, 3] (A).

    F: [F, N, 3, maps] or [F, N, 3], kJ/mol/A. weights: [F], 1 for a frame and 0 for padding, whose numbers are not
    looked at.
    """
    _check_box(basis, box, weights)
    R = jnp.asarray(R)
    F = jnp.asarray(F, R.dtype)
    F = F[..., None] if F.ndim == 3 else F
    weights = jnp.ones(len(R), R.dtype) if weights is None else jnp.asarray(weights, R.dtype)
    return _sums(basis, R, F, None if box is None else jnp.asarray(box, R.dtype), weights)


def class_functions(family: Family, number: int, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """phi [Q, functions] of one class at coordinates q [Q], and phi' (1/A or 1/rad)."""
    return _functions(family, np.asarray(q, float), np.full(len(q), number), np)


def _check_box(basis: Basis, box: Any, weights: Any = None) -> None:
    if box is not None and basis.cutoff is not None:
        boxes = np.asarray(box)
        check_cutoff(basis.cutoff, boxes if weights is None else boxes[np.asarray(weights) > 0])


@partial(jax.jit, static_argnums=0)
def _coordinates(kind: str, R: jax.Array, beads: np.ndarray, box: Any) -> jax.Array:
    """[F, T]."""
    return _each(lambda r, b: COORDINATES[kind](r, beads, b)[0], R, box)


@jax.jit
def _all_forces(basis: Basis, R: jax.Array, box: Any) -> jax.Array:
    return _each(lambda r, b: _frame(basis, r, b)[0], R, box)


@jax.jit
def _all_energies(basis: Basis, R: jax.Array, box: Any) -> jax.Array:
    return _each(lambda r, b: _frame(basis, r, b)[2], R, box)


@jax.jit
def _sums(basis: Basis, R: jax.Array, F: jax.Array, box: Any, weights: jax.Array) -> NormalEquations:
    """Few frames at a time, whose sums of float32 products are added in float64."""
    def piece(_, frames):
        r, f, b, w = frames
        Phi, seen, _ = jax.vmap(lambda *frame: _frame(basis, *frame))(r, b)
        held = (w > 0)[:, None, None, None]
        Phi = jnp.where(held, Phi, 0).reshape(-1, Phi.shape[-1])
        f = jnp.where(held, f, 0).reshape(-1, f.shape[-1])
        product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
        seen = jnp.sum(jnp.where((w > 0)[:, None], seen, 0), axis=0)
        parts = product(Phi.T, Phi), product(Phi.T, f), jnp.sum(jnp.astype(f, float) ** 2, axis=0), seen
        return None, tuple(part.astype(float) for part in parts)

    _, parts = jax.lax.scan(piece, None, _pieces((R, F, box, weights)))
    rows = 3.0 * basis.n_beads * jnp.sum((weights > 0).astype(float))
    return NormalEquations(*(jnp.sum(part, axis=0) for part in parts), rows)


def _each(function: Any, R: jax.Array, box: Any) -> Any:
    """``function(R, box)`` of each frame."""
    found = jax.lax.map(lambda piece: jax.vmap(function)(*piece), _pieces((R, box)))
    return found.reshape(-1, *found.shape[2:])[: len(R)]


def _pieces(frames: Any) -> Any:
    """Leaves [F, ...] as [pieces, frames of a piece, ...], with zeros at the end."""
    n = len(jax.tree.leaves(frames)[0])
    at_once = min(FRAMES_AT_ONCE, max(n, 1))
    padded = lambda a: jnp.concatenate([a, jnp.zeros((-n % at_once, *a.shape[1:]), a.dtype)])  # noqa: E731
    return jax.tree.map(lambda a: padded(a).reshape(-1, at_once, *a.shape[1:]), frames)


def _frame(basis: Basis, R: jax.Array, box: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Phi [N, 3, K], how many terms each function saw [K], and u [K] of one frame."""
    parts = [_family(family, basis.n_beads, R, box) for family in basis.families]
    return tuple(jnp.concatenate(part, axis=-1) for part in zip(*parts))


def _family(family: Family, n_beads: int, R: jax.Array, box: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    q, gradient = COORDINATES[family.kind](R, family.beads, box)
    values, slopes = _functions(family, q, family.group)
    size, shape = gradient.shape[1], (len(family.labels), family.functions)
    # A last row of zeros is what padding points to.
    gradient = jnp.concatenate([gradient.reshape(-1, 3), jnp.zeros((1, 3), R.dtype)])[family.slots]
    of_slots = jnp.concatenate([slopes, jnp.zeros((1, family.functions), R.dtype)])[family.slots // size]
    forces = -jnp.einsum("slk,slx->sxk", of_slots, gradient, precision=jax.lax.Precision.HIGHEST)
    Phi = jnp.zeros((n_beads, shape[0], 3, shape[1]), R.dtype).at[family.slot_bead, family.slot_class].set(
        forces, unique_indices=True
    )
    member = (family.group == jnp.arange(shape[0])[:, None]).astype(R.dtype)
    of_classes = lambda terms: jnp.matmul(member, terms, precision=jax.lax.Precision.HIGHEST).ravel()  # noqa: E731
    seen = of_classes(_seen(family, q).astype(R.dtype))
    return Phi.swapaxes(1, 2).reshape(n_beads, 3, -1), seen, of_classes(values)


def _seen(family: Family, q: jax.Array) -> jax.Array:
    """[T, functions]: whether a coordinate lies where the function is felt."""
    centres = jnp.asarray(family.centres, q.dtype)[family.group]
    reach = jnp.asarray(family.reach, q.dtype)[family.group][:, None]
    u = _clamped(family, q, family.group)[:, None] - centres
    u = (u + np.pi) % (2 * np.pi) - np.pi if family.periodic else u
    inside = jnp.abs(u) < reach
    return inside & (q < jnp.asarray(family.high, q.dtype)[family.group])[:, None] if family.cut else inside


def _functions(family: Family, q: Any, group: Any, xp: Any = jnp) -> tuple[Any, Any]:
    """phi [T, functions] of terms of these classes, and phi'; xp: NumPy or jax.numpy, whatever q is of."""
    step = xp.asarray(family.step, q.dtype)[group][:, None]
    inside = _clamped(family, q, group, xp)[:, None]
    u = (inside - xp.asarray(family.centres, q.dtype)[group]) / step
    if family.periodic:
        u = (u + family.functions / 2) % family.functions - family.functions / 2
    if family.shape == "b-spline":
        values, slopes = _b_spline(u, xp)
        slopes = slopes / step
        # beyond the range the energy goes on straight
        return values + slopes * (q[:, None] - inside), slopes
    values = xp.exp(-0.5 * (u / family.width) ** 2)
    slopes = -values * u / family.width**2 / step
    if not family.cut:
        return values, slopes
    end = xp.asarray(family.high, q.dtype)[group][:, None]
    taper, its_slope = _taper(q[:, None], end - TAPER * step, end, xp)
    return values * taper, slopes * taper + values * its_slope


def _clamped(family: Family, q: Any, group: Any, xp: Any = jnp) -> Any:
    """The coordinate, or the end of the range that it lies beyond, where functions go on straight."""
    if family.shape == "gaussian" or family.periodic:
        return q
    low, high = (xp.asarray(end, q.dtype)[group] for end in (family.low, family.high))
    return xp.maximum(q, low) if family.cut else xp.clip(q, low, high)


def _b_spline(u: Any, xp: Any) -> tuple[Any, Any]:
    """The cubic B-spline on knots -2, -1, 0, 1, 2, and its derivative."""
    a = xp.abs(u)
    outer = xp.maximum(2 - a, 0)
    values = xp.where(a < 1, 2 / 3 - a * a + a**3 / 2, outer**3 / 6)
    return values, xp.sign(u) * xp.where(a < 1, -2 * a + 1.5 * a * a, -(outer**2) / 2)


def _taper(r: Any, begin: Any, end: Any, xp: Any) -> tuple[Any, Any]:
    """From 1 to 0 with two continuous derivatives, 1 - x^3 (10 - 15 x + 6 x^2), and its derivative."""
    x = xp.clip((r - begin) / (end - begin), 0, 1)
    return 1 - x**3 * (10 - 15 * x + 6 * x * x), -30 * x * x * (1 - x) ** 2 / (end - begin)
