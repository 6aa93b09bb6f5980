"""A simplified energy of a protein, of the form used with Hessian reparametrisation (openreview lmIz3KvrUS).

    E = Σ_bonds k_b (r − r₀)² + Σ_angles k_a (θ − θ₀)² + Σ ε₁ 4 (s⁻¹² − s⁻⁶) + Σ ε 27/4 (s⁻⁶ − s⁻⁴)
    s⁶ = (r/σ)⁶ + ζ⁶,    ζ = 0.65: every core is soft

The sums of pairs: van der Waals between atoms more than three bonds apart, σ = a_i + a_j; hydrogen bonds between H of
amides and O of residues HELD apart or more, σ = 1.5 A; side-chain carbons of hydrophobic residues, σ = c_i + c_j,
c = 2 A. Both latter forms have the depth ε. The authors publish neither the ε nor the k, nor how ζ enters: the
constants below are ours. Units are A and kJ/mol; handedness costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_array

from hpcfit.energies.geometry import angle
from hpcfit.errors import InputError
from hpcfit.kinds.structure.landscapes import contact_graph
from hpcfit.kinds.structure.landscapes.landscape import OVERLAP, Landscape, Stiff, Stiffnesses, capped
from hpcfit.kinds.structure.landscapes.residues import (
    HYDROPHOBIC,
    LETTERS,
    RESIDUES,
    SINGLE,
    TETRAHEDRAL,
    TRIGONAL,
    Chain,
    chain_of,
)
from hpcfit.physics.internal_coordinates import length, pairs_beyond
from hpcfit.pytrees import pytree
from hpcfit.readers.topology import particles_of_residues, read_structure
from hpcfit.store.particles import Particles

# The constants that the authors leave out. Stiffnesses are about those of AMBER; a hydrogen bond is some 8 kT deep.
BOND, ANGLE = 1200.0, 250.0  # k_b kJ/mol/A², k_a kJ/mol/rad²
VDW, HYDROGEN_BOND, CONTACT_OF_CARBONS = 0.4, 20.0, 0.5  # ε, kJ/mol
BACKGROUND = 30.0  # kJ/mol/A², about the stiffness of an atom in forces of atoms that are not bonded
RADIUS = {"C": 1.70, "N": 1.55, "O": 1.52, "S": 1.80, "H": 1.10}  # a, A: Bondi (1964), 10.1021/j100785a001
SIGMA_OF_HYDROGEN_BOND, RADIUS_OF_CONTACT = 1.5, 2.0  # A
ZETA = 0.65
EXCLUDED = 3  # bonds, up to which atoms have no pair potential
HELD = 2  # residues between donor and acceptor of a hydrogen bond, at least


class Pairs(NamedTuple):
    """atoms: [p, 2]; sigma: [p] A."""

    atoms: np.ndarray
    sigma: np.ndarray


@pytree
@dataclass(frozen=True)
class Peptide(Landscape):
    """A chain of residues. Made by ``of_sequence`` or ``of_file``. native: [n, 3] A, of the file, else extended."""

    bonds: np.ndarray
    lengths: np.ndarray
    angles: np.ndarray
    rest_angles: np.ndarray
    core: Pairs
    hydrogen_bonds: Pairs
    hydrophobic: Pairs
    native: np.ndarray
    n: int = field(metadata={"static": True})
    labels: tuple[str, ...] = field(metadata={"static": True})
    named: Particles = field(metadata={"static": True})
    d: int = field(default=3, metadata={"static": True})
    unit: str = field(default="kJ/mol", metadata={"static": True})
    length: str = field(default="A", metadata={"static": True})

    @classmethod
    def of_sequence(cls, sequence: str) -> Peptide:
        """The chain of a sequence in one-letter code, extended."""
        chain = chain_of(sequence)
        return cls._of(chain, extended(chain))

    @classmethod
    def of_file(cls, path: Path) -> Peptide:
        """The chain of the first model of a PDB or mmCIF file, with its positions.

        Hydrogens of amides that it lacks are placed. Raises InputError for a residue that is none of the 20, and for
        another atom that is missing.
        """
        structure = read_structure(path)
        particles = structure.particles
        used = sorted(set(np.asarray(particles.residue).tolist()))
        chosen = [number for number in used if particles.residue_names[number] not in ("HOH", "WAT")]
        for number in chosen:
            if particles.residue_names[number] not in LETTERS:
                raise InputError(
                    f"{path} has the residue {particles.residue_names[number]} {particles.residue_numbers[number]},"
                    " none of the 20 of proteins",
                    remedy="leave it out, or take the force field of an OpenMM System",
                )
        chain = chain_of("".join(LETTERS[particles.residue_names[number]] for number in chosen))
        place = {(of, name): row for row, (of, name) in enumerate(zip(particles.residue, particles.names))}
        native = np.full((len(chain.names), 3), np.nan)
        for atom, name in enumerate(chain.names):
            row = place.get((chosen[chain.residue[atom]], name))
            if row is not None:
                native[atom] = structure.positions[row]
            elif name != "H":
                raise InputError(f"{path} has no atom {chain.label(atom)}", remedy="complete the residue")
        return cls._of(chain, _with_hydrogens(chain, native))

    @classmethod
    def _of(cls, chain: Chain, native: np.ndarray) -> Peptide:
        n = len(chain.names)
        hydrogen_bonds = _hydrogen_bonds(chain)
        bonded = set(map(tuple, np.sort(hydrogen_bonds.atoms, axis=1).tolist()))
        beyond = pairs_beyond(n, chain.bonds, EXCLUDED)
        beyond = beyond[[tuple(pair) not in bonded for pair in beyond.tolist()]]
        radius = np.array([RADIUS[element] for element in chain.elements])
        return cls(
            chain.bonds, chain.lengths, chain.angles, chain.rest_angles, Pairs(beyond, radius[beyond].sum(axis=1)),
            hydrogen_bonds, _hydrophobic(chain), np.asarray(native, float), n, tuple(map(chain.label, range(n))),
            _particles(chain),
        )  # fmt: skip

    def energy(self, x: jax.Array, cap: Any = 0.0) -> jax.Array:
        """See ``Landscape``."""
        core = jnp.sum(_pair_energies(x, self.core, cap, VDW, _twelve_six))
        held = jnp.sum(_pair_energies(x, self.hydrogen_bonds, cap, HYDROGEN_BOND, _six_four))
        carbons = jnp.sum(_pair_energies(x, self.hydrophobic, cap, CONTACT_OF_CARBONS, _six_four))
        return bonded_energy(x, self.bonds, self.lengths, self.angles, self.rest_angles) + core + held + carbons

    def independent(self, x: np.ndarray) -> float:
        """See ``Landscape``."""
        x = np.asarray(x, np.float64)
        found = BOND * np.sum((np.linalg.norm(x[self.bonds[:, 0]] - x[self.bonds[:, 1]], axis=1) - self.lengths) ** 2)
        for (i, j, k), rest in zip(self.angles, self.rest_angles):
            u, v = x[i] - x[j], x[k] - x[j]
            theta = np.arccos(np.clip(u @ v / np.sqrt((u @ u) * (v @ v)), -1, 1))
            found += ANGLE * (theta - rest) ** 2
        for (atoms, sigma), depth, high, low, factor in (
            (self.core, VDW, 12, 6, 4.0),
            (self.hydrogen_bonds, HYDROGEN_BOND, 6, 4, 6.75),
            (self.hydrophobic, CONTACT_OF_CARBONS, 6, 4, 6.75),
        ):
            s = ((np.linalg.norm(x[atoms[:, 0]] - x[atoms[:, 1]], axis=1) / sigma) ** 6 + ZETA**6) ** (1 / 6)
            found += factor * depth * np.sum(s**-high - s**-low)
        return float(found)

    def couplings(self) -> csr_array:
        """See ``Landscape``: 1 of each bond."""
        return contact_graph.joined(self.n, self.bonds)

    def stiffnesses(self) -> Stiffnesses:
        """See ``Landscape``: of bonds and angles."""
        kinds = ((self.bonds, BOND), (self.angles, ANGLE))
        return Stiffnesses(tuple(Stiff(atoms, np.full(len(atoms), 2 * k)) for atoms, k in kinds), BACKGROUND)

    def contacts(self, x: np.ndarray) -> tuple[int, int]:
        """The bonds within the limits of a contact, in units of their rest lengths, and all of them."""
        return int(self._intact(x).sum()), len(self.bonds)

    def overlaps(self, x: np.ndarray) -> int:
        """See ``Landscape``."""
        return int((contact_graph.distances(x, self.core.atoms) < OVERLAP * self.core.sigma).sum())

    def pieces(self, x: np.ndarray) -> int:
        """See ``Landscape``."""
        return contact_graph.pieces(self.n, self.bonds[self._intact(x)])

    def _intact(self, x: np.ndarray) -> np.ndarray:
        return contact_graph.in_contact(contact_graph.distances(x, self.bonds), self.lengths)

    def label(self, particle: int) -> str:
        """See ``Landscape``."""
        return self.labels[particle]

    def particles(self) -> Particles:
        """See ``Landscape``; one chain, its residues counted from 1."""
        return self.named

    def elements(self) -> Sequence[str]:
        """See ``Landscape``."""
        return self.named.elements

    def distinguishable(self) -> bool:
        """See ``Landscape``."""
        return True


def _particles(chain: Chain) -> Particles:
    names = [RESIDUES[letter][0] for letter in chain.sequence]
    return particles_of_residues(chain.names, chain.elements, chain.residue, names, bonds=chain.bonds)


def _with_hydrogens(chain: Chain, x: np.ndarray) -> np.ndarray:
    """The positions with those of hydrogens that are NaN: in the plane of the amide, opposite to both of its bonds."""
    x = x.copy()
    for atom in np.flatnonzero(np.isnan(x[:, 0])):
        number = int(chain.residue[atom])
        middle = x[chain.atom(number, "N")]
        bonds = [x[chain.atom(number - 1, "C")] - middle, x[chain.atom(number, "CA")] - middle]
        away = -sum(bond / np.linalg.norm(bond) for bond in bonds)
        x[atom] = middle + SINGLE["HN"] * away / np.linalg.norm(away)
    return x


def _hydrogen_bonds(chain: Chain) -> Pairs:
    donors = [n for n, name in enumerate(chain.names) if name == "H"]
    acceptors = [n for n, name in enumerate(chain.names) if name == "O"]
    pairs = [(h, o) for h in donors for o in acceptors if abs(chain.residue[h] - chain.residue[o]) > HELD]
    return Pairs(np.array(pairs, int).reshape(-1, 2), np.full(len(pairs), SIGMA_OF_HYDROGEN_BOND))


def _hydrophobic(chain: Chain) -> Pairs:
    """The carbons of side chains of hydrophobic residues, those of different residues in pairs."""
    chosen = [
        n for n, name in enumerate(chain.names)
        if chain.sequence[chain.residue[n]] in HYDROPHOBIC and name[0] == "C" and name not in ("C", "CA")
    ]  # fmt: skip
    pairs = [
        (i, j) for place, i in enumerate(chosen) for j in chosen[place + 1 :] if chain.residue[i] != chain.residue[j]
    ]
    return Pairs(np.array(pairs, int).reshape(-1, 2), np.full(len(pairs), 2 * RADIUS_OF_CONTACT))


def bonded_energy(x: jax.Array, bonds, lengths, angles, rest_angles) -> jax.Array:
    """The energy of bonds and angles, kJ/mol."""
    stretched = length(x[bonds[:, 0]] - x[bonds[:, 1]]) - lengths
    first, second = x[angles[:, 0]] - x[angles[:, 1]], x[angles[:, 2]] - x[angles[:, 1]]
    bent = angle(first.T, second.T) - rest_angles
    return BOND * jnp.sum(stretched**2) + ANGLE * jnp.sum(bent**2)


def _pair_energies(x: jax.Array, pairs: Pairs, cap: Any, depth: float, form: Any) -> jax.Array:
    r = length(x[pairs.atoms[:, 0]] - x[pairs.atoms[:, 1]])
    return depth * capped(form, r / pairs.sigma, cap)


def _twelve_six(s: jax.Array) -> jax.Array:
    inverse = 1 / (s**6 + ZETA**6)
    return 4 * inverse * (inverse - 1)


def _six_four(s: jax.Array) -> jax.Array:
    sixth = s**6 + ZETA**6
    return 6.75 * (1 / sixth - sixth ** (-2 / 3))


def extended(chain: Chain) -> np.ndarray:
    """Positions [n, 3] A of the chain with its backbone stretched: placed bond by bond, then relaxed in bonds and
    angles, which closes rings."""
    x = _placed(chain)

    @jax.jit
    def value_and_slope(flat):
        bonded = lambda x: bonded_energy(x, chain.bonds, chain.lengths, chain.angles, chain.rest_angles)  # noqa: E731
        value, slope = jax.value_and_grad(bonded)(flat.reshape(-1, 3))
        return value, slope.ravel()

    of_flat = lambda flat: tuple(np.asarray(part, float) for part in value_and_slope(flat))  # noqa: E731
    found = minimize(of_flat, x.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x.reshape(-1, 3)
    return found - found.mean(axis=0)


def _placed(chain: Chain) -> np.ndarray:
    """Positions by a tree of bonds: each atom at its rest length and angle; the first of its siblings is trans."""
    near: list[list[int]] = [[] for _ in chain.names]
    rest = {tuple(pair): size for pair, size in zip(chain.bonds.tolist(), chain.lengths)}
    for i, j in chain.bonds.tolist():
        near[i].append(j)
        near[j].append(i)
    x = np.zeros((len(chain.names), 3))
    spine = {"N": 0, "CA": 1, "C": 2}
    first = chain.atom(0, "N")
    # The parents' frame of the first atom: two points that are no atoms.
    queue, seen = [(first, np.array([-1.2, 0.8, 0.0]), np.array([-2.4, 0.0, 0.0]))], {first}
    while queue:
        atom, parent, grand = queue.pop(0)
        # The backbone goes on trans; others follow.
        children = sorted((o for o in near[atom] if o not in seen), key=lambda o: (chain.names[o] not in spine, o))
        bend, turn = (TRIGONAL, np.pi) if chain.flat[atom] else (TETRAHEDRAL, 2 * np.pi / 3)
        for place, child in enumerate(children):
            size = rest[tuple(sorted((atom, child)))]
            x[child] = _next(grand, parent, x[atom], size, bend, np.pi + place * turn)
            seen.add(child)
            queue.append((child, x[atom], parent))
    return x


def _next(a: np.ndarray, b: np.ndarray, c: np.ndarray, size: float, bend: float, twist: float) -> np.ndarray:
    """The point at a distance from c, at an angle with b, and at a dihedral with a."""
    along = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, along)
    normal = normal / np.linalg.norm(normal)
    out = np.cross(normal, along)
    return c + size * (-np.cos(bend) * along + np.sin(bend) * (np.cos(twist) * out + np.sin(twist) * normal))
