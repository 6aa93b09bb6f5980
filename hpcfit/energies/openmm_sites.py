"""OpenMM's virtual sites, in: two and three particle averages, out of plane, local coordinates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from hpcfit.energies.openmm_reading import plain
from hpcfit.energies.sites import AverageSites, LocalSites, OutOfPlaneSites, Sites
from hpcfit.errors import InputError

KINDS = {
    "TwoParticleAverageSite": AverageSites,
    "ThreeParticleAverageSite": AverageSites,
    "OutOfPlaneSite": OutOfPlaneSites,
    "LocalCoordinatesSite": LocalSites,
}


def read_sites(system: Any) -> Sites:
    """The virtual sites of a System; those that hang on other sites come after them."""
    left = {atom: system.getVirtualSite(atom) for atom in range(system.getNumParticles()) if system.isVirtualSite(atom)}
    groups = []
    while left:
        ready = {atom: site for atom, site in left.items() if not set(_parents(site)) & left.keys()}
        if not ready:
            raise InputError(f"the virtual sites {sorted(left)} hang on each other", remedy="define them by atoms")
        groups += _groups(ready)
        left = {atom: site for atom, site in left.items() if atom not in ready}
    return Sites(tuple(groups))


def _parents(site) -> list[int]:
    return [site.getParticle(number) for number in range(site.getNumParticles())]


def _groups(sites: dict[int, Any]) -> Iterator:
    """Sites of one class with the same number of parents are a group."""
    kinds: dict[tuple[str, int], list[int]] = {}
    for atom, site in sites.items():
        kinds.setdefault((site.__class__.__name__, site.getNumParticles()), []).append(atom)
    for (kind, _), atoms in kinds.items():
        if kind not in KINDS:
            raise InputError(
                f"particle {atoms[0]} is a virtual site that hpcfit does not place",
                remedy=f"use one of {', '.join(KINDS)}",
            )
        parents = np.array([_parents(sites[atom]) for atom in atoms], dtype=np.int32)
        weights = [np.array(column) for column in zip(*(_weights(sites[atom]) for atom in atoms))]
        yield KINDS[kind](np.array(atoms, dtype=np.int32), parents, *weights)


def _weights(site) -> list:
    """The numbers of a site, in the order of the fields of its class here."""
    kind = site.__class__.__name__
    if kind == "OutOfPlaneSite":
        return [[site.getWeight12(), site.getWeight13(), site.getWeightCross()]]
    if kind == "LocalCoordinatesSite":
        local = plain(site.getLocalPosition())
        return [site.getOriginWeights(), site.getXWeights(), site.getYWeights(), [local[k] for k in range(3)]]
    return [[site.getWeight(number) for number in range(site.getNumParticles())]]
