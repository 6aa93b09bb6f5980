"""Synthetic mixtures for the tests of the mixture fit: small Pb-I clusters, curves with known parameters and errors."""

import numpy as np

from hpcfit.kinds.clusters.composition import Structure
from hpcfit.kinds.clusters.mixture.components import averaged, single
from hpcfit.observables.form_factors import amplitudes
from hpcfit.observables.interparticle import hard_spheres
from hpcfit.observables.pair_moments import bin_width, moments_of_many
from hpcfit.readers.scattering_curves import ScatteringCurve

SPECIES = ("I", "Pb")
Q = np.geomspace(0.02, 2.0, 150)
F = amplitudes(SPECIES, Q)
TRUE = {"Pb": 0.45, "PbI2": 0.3, "Pb2I3": 0.15, "Pb4I6": 0.1}
SIGMA = np.array([0.3, 0.15, 0.25])  # I-I, I-Pb, Pb-Pb
SOLVENT = ScatteringCurve(
    np.array([0.0, 0.5, 1.0, 1.5, 2.5]), np.array([1.0, 1.5, 3.0, 6.0, 4.0]), np.full(5, 0.01), "solvent"
)


def cluster(nodes, linkers, seed=0):
    """A chain of Pb, 4 A apart, with I about it."""
    random = np.random.default_rng((nodes, linkers, seed))
    x = np.concatenate([np.arange(nodes)[:, None] * [4.0, 0, 0], 0.3 * random.standard_normal((linkers, 3))])
    x[nodes:] += np.arange(linkers)[:, None] * [4.0 * nodes / max(linkers, 1), 0, 0] + [0, 3.1, 0]
    return Structure(("Pb",) * nodes + ("I",) * linkers, ("Pb",) * nodes + ("I",) * linkers, x)


SIZES = {"Pb": (1, 0), "PbI2": (1, 2), "Pb2I3": (2, 3), "Pb4I6": (4, 6)}


def components(weights=TRUE, sigma=SIGMA):
    """Single structures whose pairs spread."""
    return [single(label, w, cluster(*SIZES[label]), SPECIES, F, Q, sigma) for label, w in weights.items()]


def averaged_components(weights=TRUE, n=20, start=0):
    """Means over structures."""
    found = []
    for label, w in weights.items():
        many = [cluster(*SIZES[label], seed) for seed in range(start, start + n)]
        starts = np.cumsum([0, *(len(one.elements) for one in many)])
        kinds = [kind for one in many for kind in one.elements]
        x = np.concatenate([one.positions for one in many])
        found.append(averaged(label, w, moments_of_many(x, kinds, starts, SPECIES, bin_width(Q[-1])), F, Q))
    return found


def measured(of, scale=1e-3, solvent=0.0, offset=0.2, spheres=None, error=0.003, seed=0):
    """The curve of components at their weights, with relative errors, and its exact values."""
    total = sum(one.weight for one in of)
    mean = sum(one.weight * one.intensity(Q) for one in of) / total
    S = 1.0 if spheres is None else np.asarray(hard_spheres(Q, *spheres))
    exact = scale * S * mean + solvent * np.interp(Q, SOLVENT.q, SOLVENT.intensity) + offset
    sigma = error * exact
    noise = sigma * np.random.default_rng(seed).standard_normal(len(Q)) if error else 0.0
    return ScatteringCurve(Q, exact + noise, np.maximum(sigma, 1e-4 * exact), f"synthetic {seed}")
