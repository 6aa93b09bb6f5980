"""A neural potential of beads, fitted to mapped forces.

    U(R) = U_prior(R) + kT sum_i MLP(e_{s(i)}, h_i(R), b_i(R)),      F = -grad U by automatic differentiation
    h_ikc = sum_j f_c(r_ij) exp(-(r_ij - mu_k)^2 / 2 w^2) e_{s(j) c} / scale_k

after Behler and Parrinello 2007 (10.1103/PhysRevLett.98.146401), with a prior that keeps chains together where there
are no frames (CGnet: Wang and others 2019, 10.1021/acscentsci.8b00913). e is a learned vector of each type of beads,
b_i sums functions of the bonds, angles and dihedrals around a bead. All features are invariant under shifts, rotations
and exchanges of like beads; mirror images differ by their dihedrals.

    loss = <|F - F_t|^2>_fitted / <|F_t|^2> + l2 |weights|^2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from functools import partial as bind
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError
from hpcfit.fit.problem import Block, Cell, FrameRows, Params, Reduce, Statistics
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.physics.internal_coordinates import (
    angles,
    bonded_terms,
    dihedrals,
    distances,
    length,
    pairs_beyond,
    separation,
)  # fmt: skip
from hpcfit.pytrees import pytree

STIFFEST = 0.01  # A or rad, the least standard deviation of a bond or angle that makes a spring
REPULSION = 12  # power of the prior's repulsion
BONDED = 8  # features of bonds (2), angles (2) and dihedrals (4)


@dataclass(frozen=True)
class Architecture:
    """width, depth: of the hidden layers. functions: Gaussians of distances up to the cutoff, A. embedding: numbers
    that stand for a type of beads."""

    width: int = 64
    depth: int = 2
    functions: int = 20
    cutoff: float = 12.0
    embedding: int = 4

    @property
    def inputs(self) -> int:
        """The number of inputs of the network for one bead."""
        return self.embedding * (1 + self.functions) + BONDED


@pytree
@dataclass(frozen=True)
class Molecule:
    """Molecular topology. species: [N], the number of each bead's type. bonds, angles, dihedrals: beads [T, 2 to 4].

    free: [N, N] bool, the pairs that repel each other (more than two bonds apart).
    """

    species: np.ndarray
    bonds: np.ndarray
    angles: np.ndarray
    dihedrals: np.ndarray
    free: np.ndarray


@pytree
@dataclass(frozen=True)
class Prior:
    """Springs of bonds and angles, [b] and [a], from means and variances of the frames (kT / variance), and a repulsion
    kT (sigma / r)^12, sigma [N, N] the least distance that pairs of these types have in the frames. kT: kJ/mol."""

    bond: np.ndarray
    bond_stiffness: np.ndarray
    angle: np.ndarray
    angle_stiffness: np.ndarray
    sigma: np.ndarray
    kT: float


class ResidualSums(NamedTuple):
    """Sums over the fitted and over the held-out frames, [2]: squared residuals, (kJ/mol/A)^2, and component counts."""

    square: jax.Array
    count: jax.Array


# ---- rows of data --------------------------------------------------------------------------------------------------


class BeadFrames(NamedTuple):
    """The frames that ``NeuralForceMatching`` reads, float32.

    R: [T, N, 3], A. F: [T, N, 3], kJ/mol/A. part: [T], 0 fitted, 1 held out. box: [T, 3, 3], A, rows are the cell
    vectors; None for frames that have no cell.
    """

    R: Any
    F: Any
    part: Any
    box: Any = None


def bead_frames(R: np.ndarray, F: np.ndarray, part: np.ndarray, box: np.ndarray | None = None) -> BeadFrames:
    """Frames of beads in the precision in which they are kept."""
    return BeadFrames(*(None if leaf is None else np.asarray(leaf, np.float32) for leaf in (R, F, part, box)))


# ---- the potential -------------------------------------------------------------------------------------------------


@pytree
@dataclass(frozen=True)
class NeuralForceMatching:
    """The problem (see ``fit.problem.Problem``): shared parameters are the network's, there are no local ones.

    Cell.data: ``BeadFrames``. scale: [functions], which pair features are divided by. mean_square: of
    the forces' components, (kJ/mol/A)^2, in units of which the residual is minimised. weight_decay: l2 of the network's
    weights. precision: of the kernels; sums over frames are float64.
    """

    molecule: Molecule
    prior: Prior
    scale: np.ndarray
    mean_square: float
    weight_decay: float
    architecture: Architecture = field(metadata={"static": True})
    n_types: int = field(metadata={"static": True})
    precision: str = field(default="float32", metadata={"static": True})

    @property
    def tiles(self) -> np.ndarray:
        """One, without constants."""
        return np.zeros(1)

    @property
    def n_beads(self) -> int:
        """N."""
        return self.molecule.species.shape[0]

    def init(self, seed: int, frames: FrameRows | None = None) -> Params:
        """Random weights, a function of the seed."""
        key, of_types = jax.random.split(jax.random.key(seed))
        arrays = eqx.filter(_network(self.architecture, key), eqx.is_array)
        embedding = jax.random.normal(of_types, (self.n_types, self.architecture.embedding))
        leaves = tuple(np.asarray(leaf, float) for leaf in jax.tree.leaves(arrays))
        return Params({"embedding": np.asarray(embedding, float), "network": leaves}, ())

    def gauge(self, params: Params, frames: FrameRows, reduce: Reduce) -> Params:
        """All parameters are as good as any."""
        return params

    def energy(self, shared: dict, R: jax.Array, box: jax.Array | None = None) -> jax.Array:
        """U of one frame R [N, 3] (A) in a cell [3, 3] or none, kJ/mol, to a constant."""
        R = jnp.asarray(R, self.precision)
        box = None if box is None else jnp.asarray(box, self.precision)
        shared, own = (jax.tree.map(lambda a: jnp.asarray(a, self.precision), t) for t in (shared, self._constants))
        prior, scale = own
        r = _all_distances(R, box)
        q = _bonded(self.molecule, R, box)
        network = _unflattened(self.architecture, shared["network"])
        features = self._features(shared["embedding"], prior, scale, r, q)
        return self._prior_energy(prior, r, q) + prior.kT * jnp.sum(jax.vmap(network)(features))

    def forces(self, shared: dict, R: jax.Array, box: jax.Array | None = None) -> jax.Array:
        """-grad U of one frame, [N, 3], kJ/mol/A."""
        return -jax.grad(lambda positions: self.energy(shared, positions, box))(jnp.asarray(R, self.precision))

    @property
    def _constants(self) -> tuple[Prior, np.ndarray]:
        return self.prior, self.scale

    def _features(self, embedding, prior: Prior, scale, r: jax.Array, q: _Bonded) -> jax.Array:
        """[N, inputs]."""
        molecule, product = self.molecule, bind(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
        of_type = jax.nn.one_hot(molecule.species, self.n_types, dtype=r.dtype)
        e = product("is,sc->ic", of_type, embedding)
        g = _gaussians(self.architecture, r) / scale
        h = product("ijk,jc->ikc", g, e).reshape(len(e), -1)
        stretch = (q.bonds - prior.bond) * jnp.sqrt(prior.bond_stiffness / prior.kT)
        bend = (q.angles - prior.angle) * jnp.sqrt(prior.angle_stiffness / prior.kT)
        twist = jnp.stack([f(k * q.dihedrals) for k in (1, 2) for f in (jnp.cos, jnp.sin)], axis=1)
        around = [
            _at_beads(molecule.bonds, len(e), jnp.stack([stretch, stretch**2], axis=1)),
            _at_beads(molecule.angles[:, 1:2], len(e), jnp.stack([bend, bend**2], axis=1)),
            _at_beads(molecule.dihedrals[:, 1:3], len(e), twist),
        ]
        return jnp.concatenate([e, h, *around], axis=1)

    def _prior_energy(self, prior: Prior, r: jax.Array, q: _Bonded) -> jax.Array:
        bonds = 0.5 * jnp.sum(prior.bond_stiffness * (q.bonds - prior.bond) ** 2)
        bends = 0.5 * jnp.sum(prior.angle_stiffness * (q.angles - prior.angle) ** 2)
        close = jnp.where(self.molecule.free, prior.sigma / jnp.where(self.molecule.free, r, 1), 0)
        return bonds + bends + 0.5 * prior.kT * jnp.sum(close**REPULSION)

    # ---- sums ------------------------------------------------------------------------------------------------------

    def of_frames(self, params: Params, block: Block) -> jax.Array:
        """The number of frames."""
        return jnp.sum(jnp.where(block.ids >= 0, 1.0, 0.0))

    def partial(self, params: Params, cell: Cell) -> ResidualSums:
        """Squared residuals of 64 frames."""
        return jax.tree.map(
            lambda leaf: jnp.sum(leaf, axis=0),
            jax.vmap(lambda frame, held: self._residual(params.shared, frame, held))(cell.data, cell.ids >= 0),
        )

    def _residual(self, shared: dict, frame: BeadFrames, held: jax.Array) -> ResidualSums:
        R, F, part, box = jax.tree.map(lambda leaf: jnp.asarray(leaf, self.precision), frame)
        # Where there is no frame the row may hold anything: forces are taken of some shape that has derivatives.
        R = jnp.where(held, R, jnp.asarray(_some_shape(self.n_beads), R.dtype))
        box = None if box is None else jnp.where(held, box, 1e3 * jnp.eye(3, dtype=R.dtype))
        difference = (self.forces(shared, R, box) - F).astype(float)
        square = jnp.where(held, jnp.sum(jnp.where(held, difference, 0) ** 2), 0)
        in_part = jnp.where(held, part == jnp.arange(2), False)
        return ResidualSums(jnp.where(in_part, square, 0), jnp.where(in_part, 3.0 * self.n_beads, 0))

    def summary(self, statistics: Statistics, shared: dict, tile: Any) -> ResidualSums:
        """The sums themselves."""
        return statistics.sliced

    def loss(self, sums: ResidualSums, common: jax.Array, shared: dict) -> jax.Array:
        """The mean squared residual of the fitted frames in units of the mean squared force, and weight decay."""
        weights = sum(jnp.sum(jnp.asarray(leaf) ** 2) for leaf in shared["network"] if np.ndim(leaf) == 2)
        return sums.square[0] / sums.count[0] / self.mean_square + self.weight_decay * weights

    def metrics(self, sums: ResidualSums, common: jax.Array, shared: dict) -> dict[str, jax.Array]:
        """residual, residual_free: mean squared residuals of a component, (kJ/mol/A)^2; the latter of the frames held
        out, NaN where there are none."""
        mean = jnp.where(sums.count > 0, sums.square / jnp.where(sums.count > 0, sums.count, 1), jnp.nan)
        return {"residual": mean[0], "residual_free": mean[1]}


class _Bonded(NamedTuple):
    """Bond lengths [b], angles [a], dihedrals [d] of one frame."""

    bonds: jax.Array
    angles: jax.Array
    dihedrals: jax.Array


def _bonded(molecule: Molecule, R: jax.Array, box: jax.Array | None) -> _Bonded:
    return _Bonded(*(
        of(*_gathered(R, beads), box)[0]
        for of, beads in ((distances, molecule.bonds), (angles, molecule.angles), (dihedrals, molecule.dihedrals))
    ))  # fmt: skip


def _gathered(R: jax.Array, beads: jax.Array) -> tuple[jax.Array, np.ndarray]:
    """The positions of each term apart, so that the derivative adds over terms by a product, in one order."""
    picked = jax.nn.one_hot(jnp.ravel(beads), R.shape[0], dtype=R.dtype)
    places = np.arange(beads.size).reshape(beads.shape)
    return jnp.matmul(picked, R, precision=jax.lax.Precision.HIGHEST), places


def _at_beads(beads: jax.Array, n_beads: int, terms: jax.Array) -> jax.Array:
    """Sums [N, f] of features [T, f] over the terms that each bead is one of ``beads`` [T, k] of."""
    member = jnp.sum(jax.nn.one_hot(beads, n_beads, dtype=terms.dtype), axis=1)
    return jnp.matmul(member.T, terms, precision=jax.lax.Precision.HIGHEST)


def _all_distances(R: jax.Array, box: jax.Array | None) -> jax.Array:
    """[N, N], 0 on the diagonal."""
    return length(separation(R[:, None], R[None], box))


def _gaussians(architecture: Architecture, r: jax.Array) -> jax.Array:
    """[N, N, functions], 0 beyond the cutoff and of a bead with itself."""
    centres = np.linspace(0, architecture.cutoff, architecture.functions + 1)[1:]
    x = (r[..., None] - jnp.asarray(centres, r.dtype)) / (centres[1] - centres[0] if len(centres) > 1 else centres[0])
    inside = (r > 0) & (r < architecture.cutoff)
    smooth = jnp.where(inside, 0.5 * (1 + jnp.cos(np.pi * r / architecture.cutoff)), 0)
    return jnp.exp(-0.5 * x * x) * smooth[..., None]


def _some_shape(n_beads: int) -> np.ndarray:
    i = np.arange(n_beads)
    return np.stack([3 * np.cos(1.7 * i), 3 * np.sin(1.7 * i), 1.5 * i], axis=1)


def _network(architecture: Architecture, key: jax.Array) -> eqx.nn.MLP:
    return eqx.nn.MLP(
        architecture.inputs, "scalar", architecture.width, architecture.depth, activation=jnp.tanh, key=key
    )  # fmt: skip


@lru_cache
def _skeleton(architecture: Architecture) -> tuple[Any, Any]:
    """The structure of the network's arrays, and the rest of it."""
    shapes = eqx.filter_eval_shape(_network, architecture, jax.random.key(0))
    is_array = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)  # noqa: E731
    arrays, rest = eqx.partition(shapes, is_array)
    return jax.tree.structure(arrays), rest


def _unflattened(architecture: Architecture, leaves: Sequence[jax.Array]) -> eqx.nn.MLP:
    structure, rest = _skeleton(architecture)
    return eqx.combine(jax.tree.unflatten(structure, leaves), rest)


# ---- making the problem --------------------------------------------------------------------------------------------


class BeadSample(NamedTuple):
    """Beads in some of their frames, of which the prior and the scales of features are made.

    types: of the N beads. bonds: [b, 2]. R: [T, N, 3], A. box: [T, 3, 3], A, rows are the cell vectors, or None.
    """

    types: Sequence[str]
    bonds: np.ndarray
    R: np.ndarray
    box: np.ndarray | None = None


def neural_force_matching(
    sample: BeadSample,
    mean_square: float,
    temperature: float,
    architecture: Architecture = Architecture(),
    weight_decay: float = 0.0,
    precision: str = "float32",
) -> NeuralForceMatching:
    """The problem of these beads.

    mean_square: of a component of the forces, (kJ/mol/A)^2; temperature: K. Raises InputError for forces that are all
    0, and for less than two frames.
    """
    types, bonds, R, box = sample
    if not mean_square > 0:
        raise InputError(f"the mean squared force is {mean_square}", remedy="check the forces and the map")
    if len(R) < 2:
        raise InputError(f"{len(R)} frames give no variances for the prior", remedy="give 2 frames or more")
    names = sorted(set(types))
    species, terms = np.array([names.index(name) for name in types]), bonded_terms(len(types), bonds)
    free = np.zeros((len(types), len(types)), bool)
    free[tuple(pairs_beyond(len(types), bonds, 2).T)] = True
    molecule = Molecule(species, *terms, free | free.T)
    r, bonded = _geometry(molecule, np.asarray(R, float), None if box is None else np.asarray(box, float))
    g = np.mean(np.sum(_gaussians(architecture, r), axis=2) ** 2, axis=(0, 1))
    scale = np.sqrt(np.maximum(g, 1e-4 * g.max()))
    prior = _prior(molecule, types, np.asarray(r), bonded, GAS_CONSTANT * temperature)
    return NeuralForceMatching(
        molecule, prior, scale, mean_square, weight_decay, architecture, len(names), precision
    )  # fmt: skip


@jax.jit
def _geometry(molecule: Molecule, R: np.ndarray, box: np.ndarray | None) -> tuple[jax.Array, _Bonded]:
    """Of all frames, [T, ...]."""
    return jax.lax.map(lambda frame: (_all_distances(*frame), _bonded(molecule, *frame)), (R, box))


def _prior(molecule: Molecule, types: Sequence[str], r: np.ndarray, bonded: _Bonded, kT: float) -> Prior:
    springs = []
    for beads, name in ((molecule.bonds, "bonds"), (molecule.angles, "angles")):
        q = np.asarray(getattr(bonded, name))
        mean, spread = np.zeros(len(beads)), np.ones(len(beads))
        for like in _alike(beads, types):
            mean[like], spread[like] = q[:, like].mean(), max(q[:, like].std(), STIFFEST)
        springs += [mean, kT / spread**2]
    sigma = np.zeros(molecule.free.shape)
    pairs = np.argwhere(molecule.free)
    for like in _alike(pairs, types):
        sigma[tuple(pairs[like].T)] = r[:, pairs[like, 0], pairs[like, 1]].min()
    return Prior(*springs, sigma, kT)


def _alike(beads: np.ndarray, types: Sequence[str]) -> list[np.ndarray]:
    """The numbers of the terms that have the same types, forwards or backwards."""
    names = [tuple(types[bead] for bead in term) for term in beads]
    classes = ["-".join(min(name, name[::-1])) for name in names]
    return [np.flatnonzero([found == wanted for found in classes]) for wanted in sorted(set(classes))]
