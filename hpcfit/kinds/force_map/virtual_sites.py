"""Forces on virtual sites handed to the atoms that the sites are made of.

A virtual site has no mass, and its position is a function of its parents'. A force map takes the forces of the real
atoms with the energy of the sites included: f_i + sum_s f_s . dr_s/dr_i, the chain rule. OpenMM has done that in the
forces it returns; engines that write the force of each particle as it was computed have not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError
from hpcfit.physics.internal_coordinates import separation


@dataclass(frozen=True)
class Average:
    """sum_i weights_i r_i over two, three or more parents."""

    site: int
    parents: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def numbers(self) -> tuple[float, ...]:
        return self.weights

    @staticmethod
    def displacement(numbers: jax.Array, u: jax.Array) -> jax.Array:
        return numbers @ u


@dataclass(frozen=True)
class OutOfPlane:
    """r_1 + w12 (r_2 - r_1) + w13 (r_3 - r_1) + cross (r_2 - r_1) x (r_3 - r_1); cross in 1/A."""

    site: int
    parents: tuple[int, int, int]
    w12: float
    w13: float
    cross: float

    @property
    def numbers(self) -> tuple[float, ...]:
        return self.w12, self.w13, self.cross

    @staticmethod
    def displacement(numbers: jax.Array, u: jax.Array) -> jax.Array:
        a, b = u[1] - u[0], u[2] - u[0]
        return u[0] + numbers[0] * a + numbers[1] * b + numbers[2] * jnp.cross(a, b)


@dataclass(frozen=True)
class LocalCoordinates:
    """A fixed place (A) in the axes x, z = x times y, y = z times x, normalised, at the origin.

    Origin and the directions of x and y are weighted sums over the parents; the weights sum to 1, 0 and 0.
    """

    site: int
    parents: tuple[int, ...]
    origin: tuple[float, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    place: tuple[float, float, float]

    @property
    def numbers(self) -> tuple[float, ...]:
        return self.origin + self.x + self.y + self.place

    @staticmethod
    def displacement(numbers: jax.Array, u: jax.Array) -> jax.Array:
        origin, x, y = numbers[:-3].reshape(3, -1) @ u
        z = jnp.cross(x, y)
        axes = jnp.stack([axis / jnp.linalg.norm(axis) for axis in (x, jnp.cross(z, x), z)])
        return origin + numbers[-3:] @ axes


VirtualSite = Average | OutOfPlane | LocalCoordinates


def spread_forces(
    sites: Iterable[VirtualSite], positions: np.ndarray, forces: np.ndarray, box: np.ndarray | None = None
) -> np.ndarray:
    """Forces [F, n, 3] of which none is left on a site, of positions [F, n, 3] (A), in the type of ``forces``.

    box: [F, 3, 3], cell vectors as rows, or None; parents may lie on different sides of it. Sites may be parents of
    sites. Positions of the sites themselves are not read.
    """
    forces = np.array(forces)
    if box is None:
        # A cell that nothing is shifted by.
        box = np.broadcast_to(np.eye(3, dtype=forces.dtype) * _FAR, (len(forces), 3, 3))
    for batch in _batches(tuple(sites), positions.shape[1]):
        parents = np.array([site.parents for site in batch])
        numbers = np.array([site.numbers for site in batch], forces.dtype)
        own = np.array([site.site for site in batch])
        shares = _shares(type(batch[0]), numbers, positions[:, parents], forces[:, own], box)
        forces[:, own] = 0
        np.add.at(forces, (slice(None), parents), np.asarray(shares))
    return forces


_FAR = 1e6  # A


@partial(jax.jit, static_argnums=0)
def _shares(kind, numbers, positions, forces, box) -> jax.Array:
    """What each parent gets, [F, s, p, 3]."""

    def of_site(numbers, positions, force, box):
        u = separation(positions, positions[0], box)
        _, pull_back = jax.vjp(partial(kind.displacement, numbers), u)
        return pull_back(force)[0]

    of_frame = jax.vmap(of_site, in_axes=(0, 0, 0, None))
    return jax.vmap(of_frame, in_axes=(None, 0, 0, 0))(numbers, positions, forces, box)


def _batches(sites: tuple[VirtualSite, ...], n_atoms: int) -> list[list[VirtualSite]]:
    """Sites of one kind and number of parents, each after all sites that it is a parent of."""
    of = {site.site: site for site in sites}
    depth: dict[int, int] = {}

    def depth_of(number: int, below: tuple[int, ...] = ()) -> int:
        if number in below:
            raise InputError(f"virtual site {number} is made of itself", remedy="correct the topology")
        if not 0 <= number < n_atoms:
            raise InputError(
                f"a virtual site names atom {number}, but there are {n_atoms} atoms (from 0)",
                remedy="take virtual sites and trajectory from the same system",
            )
        if number not in of:
            return 0
        if number not in depth:
            depth[number] = 1 + max(depth_of(parent, (*below, number)) for parent in of[number].parents)
        return depth[number]

    def kind(site: VirtualSite) -> tuple:
        return -depth_of(site.site), type(site).__name__, len(site.parents)

    return [list(batch) for _, batch in groupby(sorted(sites, key=kind), key=kind)]


def sites_of_system(system) -> tuple[VirtualSite, ...]:
    """The virtual sites of an OpenMM System. Raises InputError for a kind that is not known here."""
    return tuple(
        _from_openmm(number, system.getVirtualSite(number))
        for number in range(system.getNumParticles())
        if system.isVirtualSite(number)
    )


def _from_openmm(number: int, site) -> VirtualSite:
    import openmm

    parents = tuple(site.getParticle(i) for i in range(site.getNumParticles()))
    if isinstance(site, openmm.TwoParticleAverageSite | openmm.ThreeParticleAverageSite):
        return Average(number, parents, tuple(site.getWeight(i) for i in range(len(parents))))
    if isinstance(site, openmm.OutOfPlaneSite):
        return OutOfPlane(number, parents, site.getWeight12(), site.getWeight13(), site.getWeightCross() / 10)  # 1/nm
    if isinstance(site, openmm.LocalCoordinatesSite):
        weights = (tuple(of()) for of in (site.getOriginWeights, site.getXWeights, site.getYWeights))
        place = tuple(site.getLocalPosition().value_in_unit(openmm.unit.angstrom))
        return LocalCoordinates(number, parents, *weights, place)
    raise InputError(
        f"particle {number} is a virtual site that is no average, not out of the plane of three atoms and not in local"
        " coordinates: its force cannot be handed to its parents",
        remedy="write the forces with OpenMM, which does that itself, and leave the particle out",
    )
