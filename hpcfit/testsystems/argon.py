"""Liquid argon at Rahman's state point, with a known force field: what a fit from another one has to find.

64 atoms at 94.4 K and 1374 kg/m^3 (Rahman 1964, 10.1103/PhysRev.136.A405), simulated here at sigma = 0.34 nm and
epsilon = 0.996 kJ/mol; its g(r), enthalpy of vaporisation and pressure are the measurements, with errors as an
experiment may have.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.constants import AVOGADRO
from hpcfit.observables.observable import State, numbers
from hpcfit.observables.pair_distribution import RadialDistribution
from hpcfit.observables.thermodynamics import Pressure, VaporisationEnthalpy
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.simulation.langevin import Bath, Course, Motion, PhasePoint, middle, noise_key, thermal, walk
from hpcfit.store.files import write_csv
from hpcfit.testsystems import lennard_jones

N, MASS, DENSITY, TEMPERATURE = 64, 39.948, 1374.0, 94.4  # amu, kg/m^3, K
TRUE = {"sigma": np.array([0.34]), "epsilon": np.array([0.996])}  # nm, kJ/mol
FRICTION, STEP = 10.0, 0.005  # 1/ps, ps
WALKS, STEPS, STRIDE, SEED = 48, 2000, 20, 1964  # the first half of each walk is its equilibration
BINS = np.linspace(0.30, 0.70, 21)  # nm
SMEARED = 0.01  # nm
EXPERIMENT = {"g": 0.02, "vaporisation": 0.02, "pressure": 20.0}  # errors of the instrument, beside that of the mean
EVERY = tuple(range(N))
OBSERVED = {
    "g": RadialDistribution(BINS, SMEARED, EVERY, EVERY),
    "vaporisation": VaporisationEnthalpy(0.0, N),
    "pressure": Pressure(()),
}


def box() -> np.ndarray:
    """The cube that has the density, [3, 3] nm."""
    return np.eye(3) * (N * MASS / DENSITY * 1e24 / AVOGADRO) ** (1 / 3)


def lattice() -> np.ndarray:
    """Atoms on a simple cubic lattice, somewhat displaced, [N, 3] nm: a start."""
    places = (np.arange(4) + 0.5) / 4
    x = np.stack(np.meshgrid(places, places, places), axis=-1).reshape(-1, 3)
    return x @ box() + np.random.default_rng(SEED).normal(scale=0.005, size=(N, 3))


def write(folder: Path, walks: int = WALKS, experiment: Mapping[str, float] = EXPERIMENT) -> None:
    """The energy, where to start, and what was measured, `g.csv`, `vaporisation.csv`, `pressure.csv`; the mean over so
    many walks, with these errors beside those of the mean."""
    shutil.copy(Path(lennard_jones.__file__), folder / "lennard_jones.py")
    np.save(folder / "start.npy", lattice())
    for name, seen in sampled(walks).items():
        error = np.hypot(seen.std(axis=0, ddof=1) / np.sqrt(len(seen)), experiment[name])
        columns = {"value": seen.mean(axis=0).tolist(), "sigma": error.tolist()}
        if name == "g":
            columns = {"r": OBSERVED["g"].at.tolist(), **columns}
        write_csv(folder / f"{name}.csv", tuple(columns), zip(*columns.values()))


def sampled(walks: int) -> dict[str, np.ndarray]:
    """The means over each walk of each observable, [walks, M]."""
    with jax.enable_x64(True):
        found = jax.lax.map(_walked, jnp.arange(walks), batch_size=2)
        return {name: np.asarray(leaf) for name, leaf in found.items()}


def _walked(number: Any) -> dict[str, Any]:
    bath = Bath(GAS_CONSTANT * TEMPERATURE, FRICTION, STEP)
    masses, key = np.full(N, MASS), noise_key(SEED, 0, number)
    x = jnp.asarray(lattice())
    start = PhasePoint(x, thermal(jax.random.fold_in(key, 1), bath, masses, x))
    forces = lambda x, memory: -jax.grad(lennard_jones.energy)(x, TRUE, box())  # noqa: E731
    motion, observe = Motion(forces, middle(bath, masses)), partial(_observed, bath.kT, masses)
    seen = walk(motion, start, key, Course(STEPS, STRIDE), observe).seen
    return {name: leaf[len(leaf) // 2 :].mean(axis=0) for name, leaf in seen.items()}


def _observed(kT: float, masses: np.ndarray, point: PhasePoint) -> dict[str, Any]:
    potential = lambda x, box: lennard_jones.energy(x, TRUE, box)  # noqa: E731
    state = State(point.x, point.v, jnp.asarray(box()), potential, TRUE, kT, masses)
    return {name: numbers(one, state) for name, one in OBSERVED.items()}
