"""Two waters in a box as tables of observables see them, and those tables with all that they can say."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import TypeAdapter

from hpcfit.config.observables import AnyObservable
from hpcfit.energies.columns import Column, entries
from hpcfit.energies.coulomb import Coulomb
from hpcfit.energies.energy import Energy
from hpcfit.errors import InputError
from hpcfit.observables.observable import OfWalks, State, numbers
from hpcfit.observables.site import Site

PLACES = 0.1 * np.array(
    [[1.0, 1, 1], [1.9, 1.2, 1], [0.8, 1.9, 1.1], [4.0, 4.2, 3.8], [4.9, 4.1, 3.9], [3.7, 5.1, 3.7]]
)
BOX = np.diag([1.0, 1.1, 1.2])
MASSES = np.array([16.0, 1, 1, 16, 1, 1])
PARAMETERS = {"k": np.array([3.0]), "q": np.array([-0.8, 0.4]), "each": np.array([-0.8, 0.4, 0.4, 0, 0, 0])}
INTERVAL, FRAMES = 0.1, 6

# The keys of each table, and how many numbers it makes.
TABLES = {
    "radius-of-gyration": ({"atoms": [0, 1, 2]}, 1),
    "distances": ({"pairs": [[0, 3], [1, 4]]}, 2),
    "angles": ({"triples": [[1, 0, 2]]}, 1),
    "torsion-shares": ({"quadruples": [[1, 0, 3, 4]], "parts": 3, "width": 0.2}, 3),
    "coordination": ({"r0": 0.3, "width": 0.02, "of": [0], "among": "all"}, 1),
    "radial-distribution": ({"bins": 4, "range": [0.2, 0.5], "width": 0.05, "of": [0, 3], "among": [0, 3]}, 4),
    "powers": ({"atom": 2, "axis": 1, "powers": [1, 2]}, 2),
    "own": ({"function": "tests.observables.waters:squares"}, 3),
    "pressure": ({}, 1),
    "density": ({}, 1),
    "potential-energy": ({}, 1),
    "vaporisation-enthalpy": ({"gas": 1.5}, 1),
    "heat-capacity": ({"number": 2}, 1),
    "compressibility": ({}, 1),
    "thermal-expansion": ({}, 1),
    "dielectric-constant": ({"of": [3, 4, 5]}, 1),
    "free-energy-change": ({}, 1),
    "velocity-autocorrelation": ({"atoms": [0, 3], "lags": [0.0, 0.1]}, 2),
    "position-autocorrelation": ({"atoms": [0, 3], "lags": [0.2], "centre": [0.0, 0.0, 0.0]}, 1),
    "mean-square-displacement": ({"atoms": [0], "lags": [0.5]}, 1),
    "diffusion": ({"atoms": [0, 3], "lags": [0.1, 0.2, 0.3]}, 1),
    "diffusion-of-velocities": ({"atoms": [0, 3], "last": 0.3}, 1),
    "small-angle-scattering": ({"q": [0.0, 5.0], "atoms": [0, 1, 2], "units": "absolute"}, 2),
    "structure-factors": ({"hkl": [[0, 0, 0], [1, 0, 2]]}, 2),
    "electron-density": ({"points": [[0.1, 0.1, 0.1]]}, 1),
    "noe": ({"groups": [[[1, 2], [4]], [[1], [2]]], "power": 3, "divided": False}, 2),
    "scalar-couplings": ({"quadruples": [[1, 0, 3, 4]], "coefficients": [9.0, -1.0, 0.5], "offset": [0.3]}, 1),
}


def squares(x, box):
    """An observable of one's own."""
    return jnp.sum(x[:3] ** 2, axis=1)


def table(observable, **keys):
    """The table of an observable with one measurement where the keys say none."""
    given = {} if keys.keys() & {"values", "measured"} else {"values": 1.0, "sigma": 0.1}
    return TypeAdapter(AnyObservable).validate_python({"name": "o", "observable": observable, **given, **keys})


def whole(observable, **keys):
    """The table of an observable with the keys of TABLES, some of them others."""
    return table(observable, **TABLES[observable][0] | keys)


def potential(x, theta, box):
    """Springs from each atom to all others, kJ/mol."""
    return theta["k"][0] * jnp.sum((x[:, None] - x[None]) ** 2)


def select(chosen, key):
    if chosen == "all":
        return tuple(range(6))
    if max(chosen) > 5:
        raise InputError(f"{key} names atom {max(chosen)} of 6")
    return tuple(chosen)


def charged(column: Column) -> Energy:
    """An energy that has charges."""
    return Energy((Coulomb(pairs=None, charge=column),))


def site(**changed) -> Site:
    """The two waters at 1 bar. Keys of ``State`` change the start, those of ``Site`` the rest."""
    start = State(PLACES, np.ones((6, 3)), BOX, lambda x, box: potential(x, PARAMETERS, box), PARAMETERS, 2.5, MASSES)
    start = start._replace(**{key: changed.pop(key) for key in State._fields if key in changed})
    found = Site(
        select, charged(entries("q", [0, 1, 1, 0, 1, 1])), start, float(potential(PLACES, PARAMETERS, BOX)),
        tuple("OHHOHH"), ((0, 1, 2), (3, 4, 5)), 0, INTERVAL, FRAMES, 1.0,
    )  # fmt: skip
    return replace(found, **changed)


@jax.jit
def still(observables, x, v):
    """What observables say of a window that stands still."""
    state = State(x, v, BOX, lambda x, box: potential(x, PARAMETERS, box), PARAMETERS, 2.5, MASSES)
    found = {}
    for name, one in observables.items():
        kept = numbers(one, state)
        if isinstance(one, OfWalks):
            kept = one.of_walk(jnp.broadcast_to(kept, (FRAMES, *kept.shape)), INTERVAL)
        found[name] = one.of_average(kept)
    return found
