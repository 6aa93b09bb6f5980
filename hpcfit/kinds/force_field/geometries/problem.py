"""Energies and forces of stored geometries against those of a reference.

    L = 1/2 sum over geometries t of w_t [ ((d_t - o_m) / sigma_E)^2 + sum over components ((F - F_ref) / sigma_F)^2 ]
      + 1/2 sum over parameters of (change / prior)^2,          d = U - U_ref

The offset o of each molecule m, the difference of the zeros of the two energies, is solved for: the weighted mean of d.
With it the squares of energies are sum w d^2 - (sum w d)^2 / sum w, of three sums that ranks add.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from hpcfit.energies.energy import Energy
from hpcfit.fit.problem import Block, Cell, FrameRows, Params, Reduce, Statistics
from hpcfit.kinds.force_field.geometries.shared import Places, placed
from hpcfit.kinds.force_field.parameters import Moving
from hpcfit.pytrees import pytree

Tree = Any
# Columns of the weights of a geometry, of which it has those of its half: in units of 1 / sigma^2, and as they are.
FITTED, HELD_OUT, FITTED_PLAIN, HELD_OUT_PLAIN = range(4)


class Given(NamedTuple):
    """The geometries of a cell, leaves [width, ...], of up to N atoms.

    positions: [N, 3] nm; energy: kJ/mol, about 0; forces: [N, 3] kJ/mol/nm. of_energy, of_forces: [4], the weights of
    the energy and of each component of the forces.
    """

    positions: Any
    energy: Any
    forces: Any
    of_energy: Any
    of_forces: Any


@pytree
@dataclass(frozen=True)
class Molecule:
    """The energy of a molecule. parameters: all classes that it has; places: of those that move; shift: kJ/mol, taken
    off its energies, which are then about 0 at the start; real: [N, 1], 1 for an atom and 0 for a virtual site, which
    has no force."""

    potential: Energy
    parameters: Tree
    places: Places
    box: Any
    shift: Any
    real: Any

    def energy(self, theta: Tree, x: Any) -> Any:
        """The energy at positions [N, 3] nm."""
        return self.potential(x, theta, self.box) - self.shift


class Sums(NamedTuple):
    """Sums of weights, of weights times d and times d^2 by column and molecule, [4, M]; of weights times the squares of
    deviations of forces, [4]."""

    w: Any
    wd: Any
    wdd: Any
    forces: Any


class Curvature(NamedTuple):
    """Sums of J^T J, J the derivatives of residuals by the P parameters, [P, P]; of weights times derivatives of the
    energy, by molecule, [M, P]; of g g^T, g the share of one geometry in the gradient of the loss, [P, P]."""

    products: Any
    means: Any
    scatter: Any


@pytree
@dataclass(frozen=True)
class StoredGeometries:
    """See ``hpcfit.fit.problem.Problem``. A block of frames is of one molecule, whose number is ``Cell.more`` [width].

    Shared parameters are the numbers u of ``Moving``; there are no local ones. parameters: all
    entries of all molecules (``Shared``). Rows are ``deviation``, d of each geometry, and ``squares``, the sum of the
    squared deviations of its forces. components: numbers of the forces of
    all fitted geometries, and of those held out, as they count, [2]. with_forces: whether any forces are targets;
    priced: whether priors are part of the loss.
    """

    molecules: tuple[Molecule, ...]
    moving: Moving
    parameters: Tree
    components: Any
    with_forces: bool = field(metadata={"static": True})
    priced: bool = field(metadata={"static": True})

    @property
    def tiles(self) -> np.ndarray:
        """One tile."""
        return np.zeros(1)

    def init(self, seed: int, frames: FrameRows) -> Params:
        """The parameters as they were given."""
        return Params(self.moving.init(), ())

    def gauge(self, params: Params, frames: FrameRows, reduce: Reduce) -> Params:
        """The parameters as they are."""
        return params

    def of_frames(self, params: Params, block: Block) -> Any:
        """Nothing is known without the data."""
        return jnp.zeros(())

    # ---- sums over geometries --------------------------------------------------------------------------------------

    def at(self, u: Tree, molecule: Molecule) -> Tree:
        """The parameters of a molecule."""
        return placed(molecule.parameters, self.moving.at(u, self.parameters), molecule.places)

    def deviations(self, u: Tree, cell: Cell) -> tuple[Any, Any]:
        """d [width], and the deviations of forces [width, N, 3], zeros where none are targets."""
        return jax.lax.switch(cell.more[0], [partial(self._of_molecule, one) for one in self.molecules], u, cell.data)

    def _of_molecule(self, molecule: Molecule, u: Tree, given: Given) -> tuple[Any, Any]:
        theta, N = self.at(u, molecule), len(molecule.real)
        x = given.positions[:, :N]
        if not self.with_forces:
            return jax.vmap(partial(molecule.energy, theta))(x) - given.energy, jnp.zeros_like(given.forces)
        energy, slope = jax.vmap(jax.value_and_grad(partial(molecule.energy, theta)))(x)
        off = molecule.real * (-slope - given.forces[:, :N])
        return energy - given.energy, jnp.zeros_like(given.forces).at[:, :N].set(off)

    def partial(self, params: Params, cell: Cell) -> Sums:
        """The sums over the geometries of a cell."""
        return self.partial_and_rows(params, cell)[0]

    def partial_and_rows(self, params: Params, cell: Cell) -> tuple[Sums, Tree]:
        """(sums, rows), see the class."""
        d, off = self.deviations(params.shared, cell)
        squares, w = jnp.sum(off**2, axis=(1, 2)), cell.data.of_energy
        by_molecule = lambda values: jnp.outer(values @ w, self._member(cell))  # noqa: E731
        sums = Sums(by_molecule(jnp.ones_like(d)), by_molecule(d), by_molecule(d**2), squares @ cell.data.of_forces)
        return sums, jax.lax.stop_gradient({"deviation": d, "squares": squares})

    def no_rows(self, frames: FrameRows) -> Tree:
        """Zeros like the rows of all geometries of a rank."""
        return dict.fromkeys(("deviation", "squares"), np.zeros(frames.ids.shape))

    def _member(self, cell: Cell) -> Any:
        return jnp.where(jnp.arange(len(self.molecules)) == cell.more[0], 1.0, 0.0)

    def curvature(self, params: Params, cell: Cell, offsets: Any, means: Any) -> Curvature:
        """The sums over the geometries of a cell of what the curvature is made of. offsets, means: of d of the
        molecules, [M], and of its derivatives, [M, P], which the scatter is about."""
        u, tree = ravel_pytree(params.shared)
        found = self.deviations(params.shared, cell)
        of_energy, of_forces = jax.jacfwd(lambda v: self.deviations(tree(v), cell))(u)
        (d, off), member = found, self._member(cell)
        w, w_forces = cell.data.of_energy[:, FITTED], cell.data.of_forces[:, FITTED]
        wJ = w[:, None] * of_energy
        flat, off = of_forces.reshape(len(d), -1, len(u)), off.reshape(len(d), -1)
        products = wJ.T @ of_energy + jnp.einsum("tkp,t,tkq->pq", flat, w_forces, flat)
        about = of_energy - member @ means
        g = (w * (d - offsets @ member))[:, None] * about + w_forces[:, None] * jnp.einsum("tk,tkp->tp", off, flat)
        return Curvature(products, jnp.outer(member, jnp.sum(wJ, axis=0)), g.T @ g)

    def means(self, found: Curvature, sums: Sums) -> np.ndarray:
        """The weighted mean of the derivatives of each molecule's fitted energies, [M, P]; 0 where it has none."""
        w = np.asarray(sums.w)[FITTED][:, None]
        return np.asarray(found.means) / np.where(w > 0, w, 1.0)

    def normal(self, found: Curvature, sums: Sums) -> np.ndarray:
        """The second derivative of chi2 / 2 by Gauss and Newton, [P, P], from sums over all geometries."""
        return np.asarray(found.products) - np.asarray(found.means).T @ self.means(found, sums)

    @property
    def of_priors(self) -> np.ndarray:
        """The second derivative of what the priors add to the loss, [P, P]."""
        return self.moving.of_priors if self.priced else np.zeros_like(self.moving.of_priors)

    # ---- loss ------------------------------------------------------------------------------------------------------

    def summary(self, statistics: Statistics, shared: Tree, tile: Any) -> Sums:
        """The sums as they are: there is one tile."""
        return statistics.sliced

    def offsets(self, sums: Sums) -> Any:
        """The offset of each molecule, [M] kJ/mol: of its fitted geometries, or of those held out if it has no other
        ones; 0 where no energies are targets."""
        half = jnp.where(sums.w[FITTED] > 0, FITTED, HELD_OUT)
        w, wd = (jnp.take_along_axis(leaf, half[None], axis=0)[0] for leaf in (sums.w, sums.wd))
        return jnp.where(w > 0, wd / jnp.where(w > 0, w, 1.0), 0.0)

    def energy_squares(self, sums: Sums, column: int) -> Any:
        """The weighted sum of (d - offset)^2 of one column."""
        o = self.offsets(sums)
        return jnp.sum(sums.wdd[column] - 2 * o * sums.wd[column] + o**2 * sums.w[column])

    def loss(self, sums: Sums, common: Tree, shared: Tree) -> Any:
        """See the module."""
        prior = jnp.sum(self.moving.priors(shared) ** 2) if self.priced else 0.0
        return 0.5 * (self._chi2(sums, FITTED) + prior)

    def _chi2(self, sums: Sums, column: int) -> Any:
        return self.energy_squares(sums, column) + sums.forces[column]

    def metrics(self, sums: Sums, common: Tree, shared: Tree) -> dict[str, Any]:
        """chi2 of fitted and held-out geometries, what the priors add, root mean squares of the deviations of energies,
        kJ/mol, and of components of forces, kJ/mol/nm, and the parameters."""
        found = {"chi2": jnp.maximum(self._chi2(sums, FITTED), 0.0), "chi2_held_out": self._chi2(sums, HELD_OUT)}
        found["prior"] = jnp.sum(self.moving.priors(shared) ** 2)
        for name, column in (("", FITTED_PLAIN), ("_held_out", HELD_OUT_PLAIN)):
            found[f"energy_rmse{name}"] = _root(self.energy_squares(sums, column), jnp.sum(sums.w[column]))
            found[f"force_rmse{name}"] = _root(sums.forces[column], self.components[column - FITTED_PLAIN])
        return found | self.moving.named(shared)


def _root(squares: Any, count: Any) -> Any:
    """The root of a mean square, 0 of nothing."""
    return jnp.sqrt(jnp.maximum(squares, 0.0) / jnp.where(count > 0, count, 1.0))
