"""Form factors of species in a Debye sum: of X-rays (neutral atoms and ions) and neutrons, in vacuum or in a solvent.

X-rays: sums of five Gaussians and a constant (Waasmaier and Kirfel 1995, 10.1107/S0108767394013292), without f', f''.
Neutrons: coherent scattering lengths. Both are periodictable's tables. A solvent of density rho is displaced by dummy
atoms of volume V (Fraser, MacRae and Suzuki 1978, 10.1107/S0021889878014296):

    f_in_solvent(q) = f(q) - rho V exp(-q^2 V^(2/3) / (4 pi))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from hpcfit.errors import InputError

Radiation = Literal["xray", "neutron"]
WATER = {"xray": 0.334, "neutron": -0.056}  # electrons / A^3; fm / A^3 of light water (0.1 fm / A^3 is 1e-6 / A^2)
LARGEST_Q = 6 * 4 * np.pi  # 1/A, up to which the X-ray table holds
# Volumes that atoms displace, A^3 (Fraser et al. 1978; ions: Svergun et al. 1995, 10.1107/S0021889895007047).
DISPLACED = {
    "H": 5.15, "D": 5.15, "C": 16.44, "N": 2.49, "O": 9.13, "P": 5.73, "S": 19.86, "Mg": 17.16, "Ca": 31.89, "Mn": 9.20,
    "Fe": 7.99, "Cu": 8.78, "Zn": 9.85,
}  # fmt: skip


class Solvent(NamedTuple):
    """A solvent that is displaced. density: electrons / A^3 of X-rays, fm / A^3 of neutrons; volumes: A^3, by species,
    in place of those of ``displaced_volume``; scale: all volumes are multiplied by it."""

    density: float
    volumes: Mapping[str, float] = {}
    scale: float = 1.0


def amplitudes(
    species: Sequence[str], q: np.ndarray, radiation: Radiation = "xray", ions: Mapping[str, str] | None = None,
    solvent: Solvent | None = None,
) -> np.ndarray:  # fmt: skip
    """f [S, Q] at q [Q], 1/A: electrons of X-rays, fm of neutrons.

    species: elements, or ions such as "Pb2+" and "I1-"; ions: the ion that scatters in place of an element. Raises
    InputError for what has no form factor, and for q beyond the table.
    """
    q, of = np.asarray(q, float), {"xray": _of_xrays, "neutron": _of_neutrons}
    if radiation not in of:
        raise InputError(f"radiation = '{radiation}'", remedy=f"use one of {', '.join(of)}")
    if len(q) and not (np.min(q) >= 0 and np.max(q) <= LARGEST_Q):
        raise InputError(f"q from {np.min(q):g} to {np.max(q):g} 1/A", remedy=f"use 0 to {LARGEST_Q:.0f} 1/A")
    found = np.array([of[radiation]((ions or {}).get(one, one), q) for one in species]).reshape(len(species), len(q))
    if solvent is None:
        return found
    volumes = solvent.scale * np.array([solvent.volumes.get(one) or displaced_volume(one) for one in species])
    return found - solvent.density * volumes[:, None] * np.exp(-np.outer(volumes ** (2 / 3), q**2) / (4 * np.pi))


def displaced_volume(species: str) -> float:
    """The volume of solvent that an atom displaces, A^3: of the table above, else its van der Waals sphere (MDAnalysis'
    table of radii). A sphere is too large where atoms are bonded, and where an ion binds its solvent."""
    from MDAnalysis.guesser.tables import vdwradii

    element = element_of(species)
    if element in DISPLACED:
        return DISPLACED[element]
    if element.upper() not in vdwradii:
        raise InputError(f"'{species}' has no van der Waals radius", remedy="give its displaced volume in A^3")
    return 4 / 3 * np.pi * vdwradii[element.upper()] ** 3


def element_of(species: str) -> str:
    """The element of an element or ion: Pb of Pb2+."""
    return species.rstrip("0123456789+-")


def _of_xrays(symbol: str, q: np.ndarray) -> np.ndarray:
    from periodictable.cromermann import fxrayatq

    try:
        return fxrayatq(symbol, q)
    except KeyError:
        known = _ions_of(element_of(symbol))
        remedy = f"use one of {', '.join(known)}" if known else "correct the element"
        raise InputError(f"'{symbol}' has no form factor for X-rays", remedy=remedy) from None


def _ions_of(element: str) -> list[str]:
    from periodictable import cromermann

    return sorted(name for name in cromermann._cmformulas if element_of(name) == element)


def _of_neutrons(symbol: str, q: np.ndarray) -> np.ndarray:
    import periodictable

    try:
        length = periodictable.elements.symbol(element_of(symbol)).neutron.b_c
    except ValueError:
        length = None
    if length is None:
        raise InputError(f"'{symbol}' has no scattering length of neutrons", remedy="correct the element")
    return np.full(len(q), float(length))
