"""Starts of minimisations: coordinates [n, d] that are functions of a seed and the number of a replica alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import csc_array, csr_array, diags_array, triu
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from scipy.spatial.transform import Rotation

from hpcfit.errors import InputError, check_is_file
from hpcfit.kinds.structure.landscapes.system import SystemLandscape
from hpcfit.physics.openmm_library import import_openmm
from hpcfit.readers.boundary import loaded_array, reading
from hpcfit.readers.positions import open_positions
from hpcfit.readers.topology import MMCIF, read_structure

IN_ANGSTROM = {"nm": 10.0, "A": 1.0}  # lengths of landscapes; reduced ones are taken as they stand in a file
ZIGZAG = np.deg2rad(120)  # between successive steps of an extended chain
FRICTION, STEP = 1.0, 0.001  # 1/ps and ps, of the dynamics that snapshots are of


def _generator(seed: int, replica: int) -> np.random.Generator:
    return np.random.default_rng([seed, replica])


def random(n: int, d: int, scale: float, seed: int, replica: int = 0) -> np.ndarray:
    """Independent normal coordinates of standard deviation ``scale``, [n, d]."""
    return scale * _generator(seed, replica).standard_normal((n, d))


def uniform(n: int, d: int, edge: float, seed: int, replica: int = 0) -> np.ndarray:
    """Independent coordinates [n, d] within a cube of this edge around the origin."""
    return edge * (_generator(seed, replica).random((n, d)) - 0.5)


def laplacian_gaussian(
    couplings: csr_array, d: int, seed: int, replica: int = 0, *, scale: float = 0.65, mu: float = 1e-4
) -> np.ndarray:
    """Coordinates [n, d] of covariance scale² (L + μ)⁻¹, with L the Laplacian of the couplings: a Gaussian chain where
    these are a chain, scale² being the mean square of each component of a bond of weight 1.

    Drawn exactly by one sparse solution: L = Σ_e w_e b_e b_eᵀ over edges, so that y = Σ_e √w_e ξ_e b_e + √μ η has the
    covariance L + μ, and (L + μ)⁻¹ y has its inverse. Each connected component is centred; where there are several,
    their centres are normal with a standard deviation of scale n^(1/3), as dense as one coil would be.
    """
    n, draw = couplings.shape[0], _generator(seed, replica)
    edges = triu(couplings, 1).tocoo()
    first, second = edges.coords
    flow = np.sqrt(edges.data)[:, None] * draw.standard_normal((edges.nnz, d))
    y = np.sqrt(mu) * draw.standard_normal((n, d))
    np.add.at(y, first, flow)
    np.add.at(y, second, -flow)
    degree = np.asarray(couplings.sum(axis=1)).ravel() - couplings.diagonal()
    matrix = csc_array(diags_array(degree + mu) - triu(couplings, 1) - triu(couplings, 1).T)
    x = scale * splu(matrix).solve(y)
    count, part = connected_components(couplings, directed=False)
    size = np.bincount(part)[:, None]
    centre = np.stack([np.bincount(part, column) for column in x.T], axis=1) / size
    x = x - centre[part]
    if count > 1:
        x = x + (scale * n ** (1 / 3) * draw.standard_normal((count, d)))[part]
    return x - x.mean(axis=0)


def extended_chain(order: Sequence[int], d: int = 3, *, spacing: float = 1.0) -> np.ndarray:
    """A flat zigzag [n, d] of particles in the order of their chain, ``spacing`` apart, around the origin."""
    order = np.asarray(order)
    if d < 2 or len(np.unique(order)) != len(order):
        raise InputError(f"a zigzag of {len(order)} particles in {d} dimensions", remedy="name each particle once")
    x = np.zeros((len(order), d))
    step = np.arange(len(order))
    x[order, 0] = spacing * np.sin(ZIGZAG / 2) * step
    x[order, 1] = spacing * np.cos(ZIGZAG / 2) * (step % 2)
    return x - x.mean(axis=0)


def extended_backbone(x: np.ndarray, bonds: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Positions [N, 3] of a protein with its phi and psi at 180 degrees, but for those in rings, as of prolines and of
    what disulphides close. bonds: [b, 2]; names: of atoms, of which N, CA and C are the backbone."""
    x, n = np.array(x, float), len(x)
    near = [set() for _ in range(n)]
    for i, j in np.asarray(bonds).tolist():
        near[i].add(j)
        near[j].add(i)
    for middle in [atom for atom in range(n) if names[atom] == "CA"]:
        for own, far in (("N", "C"), ("C", "N")):  # phi is C-N-CA-C, psi is N-CA-C-N
            ends = [a for a in near[middle] if names[a] == own], [a for a in near[middle] if names[a] == far]
            for axis in ends[0]:
                outer = [atom for atom in near[axis] - {middle} if names[atom] == far]
                if not outer or not ends[1]:
                    continue
                beyond = _without(near, axis, middle)
                if middle not in beyond:
                    x[beyond] = _turned(x, outer[0], axis, middle, ends[1][0], np.array(beyond))
    return x


def _without(near: Sequence[set[int]], first: int, second: int) -> list[int]:
    """The atoms on the side of the first when its bond with the second is cut."""
    reached, edge = {first}, {first}
    while edge:
        edge = {other for atom in edge for other in near[atom] if {atom, other} != {first, second}} - reached
        reached |= edge
    return sorted(reached)


def _turned(x: np.ndarray, a: int, b: int, c: int, d: int, moved: np.ndarray) -> np.ndarray:
    """Atoms that are moved, turned about the bond b-c until the dihedral a-b-c-d is 180 degrees."""
    axis = (x[b] - x[c]) / np.linalg.norm(x[b] - x[c])
    first, last = (v - (v @ axis) * axis for v in (x[a] - x[b], x[d] - x[c]))
    angle = np.arctan2(np.cross(first, -last) @ axis, first @ -last)
    return x[b] + Rotation.from_rotvec(angle * axis).apply(x[moved] - x[b])


def from_file(path: Path, n: int, length: str, frame: int = 0) -> np.ndarray:
    """The coordinates [n, 3] of a frame of a PDB, mmCIF, XYZ or extended XYZ file, or of an array .npy.

    length: the unit of the landscape; lengths of files are A where it is one of IN_ANGSTROM. Arrays are in that unit.
    Raises InputError for files of other particles.
    """
    if path.suffix == ".npy":
        check_is_file(path, "coordinates")
        with reading(f"coordinates {path} cannot be read by NumPy", "save them by numpy.save"):
            x = loaded_array(path)
        x = x[frame] if x.ndim == 3 else x
    else:
        x = _of_frame(path, frame) / IN_ANGSTROM.get(length, 1.0)
    if x.ndim != 2 or len(x) != n or x.dtype.kind not in "fiu" or not np.all(np.isfinite(x)):
        raise InputError(
            f"{path} has coordinates of shape {list(x.shape)} and type {x.dtype}, or some that are not finite; the"
            f" energy takes {n} particles",
            remedy="give those of this very system, hydrogens included",
        )
    return np.asarray(x, float)


def _of_frame(path: Path, frame: int) -> np.ndarray:
    if path.suffix.lower() in MMCIF:
        return read_structure(path).positions
    reader = open_positions(path, None)
    if not 0 <= frame < reader.n_frames:
        raise InputError(f"{path} has {reader.n_frames} frames, not number {frame}", remedy="frames count from 0")
    return np.asarray(next(iter(reader.frames(range(frame, frame + 1)))).positions, float)


def snapshot(
    landscape: SystemLandscape, temperature: float, duration: float, seed: int, replica: int = 0
) -> np.ndarray:
    """The positions [N, 3] nm of a System after Langevin dynamics of ``duration`` ps at a temperature (K), from its
    native positions, minimised, and random velocities.

    By OpenMM on one core with deterministic forces. Raises InputError where the dynamics explodes.
    """
    openmm = import_openmm()
    system = openmm.XmlSerializer.deserialize(landscape.facts.xml)
    numbers = np.random.SeedSequence([seed, replica]).generate_state(2) % (1 << 30) + 1
    integrator = openmm.LangevinMiddleIntegrator(temperature, FRICTION, STEP)
    integrator.setRandomNumberSeed(int(numbers[0]))
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(system, integrator, platform, {"Threads": "1", "DeterministicForces": "true"})
    context.setPositions(landscape.native)
    openmm.LocalEnergyMinimizer.minimize(context)
    context.setVelocitiesToTemperature(temperature, int(numbers[1]))
    with reading(f"the dynamics at {temperature:g} K ended", "lower the temperature"):
        integrator.step(round(duration / STEP))
    positions = context.getState(getPositions=True).getPositions(asNumpy=True)._value
    if not np.all(np.isfinite(positions)):
        raise InputError(f"the dynamics at {temperature:g} K has exploded", remedy="lower the temperature")
    return np.asarray(positions, float)
