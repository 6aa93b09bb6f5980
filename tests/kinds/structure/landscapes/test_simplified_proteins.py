"""The simplified protein: graphs of residues, its energy against a sum of its own, its extended start, files."""

import jax
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.structure.landscapes import peptide
from hpcfit.kinds.structure.landscapes.peptide import Peptide
from hpcfit.kinds.structure.landscapes.residues import PEPTIDE_BOND, RESIDUES, chain_of

HEAVY = dict(zip("GASCTVPLIMDNEQKRHFYW", (4, 5, 6, 6, 7, 7, 7, 8, 8, 8, 8, 8, 9, 9, 9, 11, 10, 11, 12, 14)))
RINGS = {"P": 1, "H": 1, "F": 1, "Y": 1, "W": 2}


@jax.jit
def value_and_slope(landscape, x, cap):
    return jax.value_and_grad(landscape.energy)(x, cap)


@pytest.fixture(scope="module")
def hairpin():
    return Peptide.of_sequence("GAWPTGKV")


@pytest.mark.parametrize("letter", RESIDUES)
def test_residues_have_their_heavy_atoms_and_rings(letter):
    chain = chain_of(f"G{letter}")
    own = [element for element, number in zip(chain.elements, chain.residue) if number == 1]
    assert len(own) - own.count("H") == HEAVY[letter]
    assert own.count("H") == (letter != "P")
    assert len(chain.bonds) == len(chain.names) - 1 + RINGS.get(letter, 0)


def test_angles_in_the_plane_of_a_flat_atom_add_up():
    chain = chain_of("GHWF")
    for atom in np.flatnonzero(chain.flat):
        own = chain.rest_angles[chain.angles[:, 1] == atom]
        if len(own) == 3:
            assert own.sum() == pytest.approx(2 * np.pi)


def test_the_extended_chain_is_at_rest_in_bonds_and_angles(hairpin):
    x, chain = hairpin.native, chain_of("GAWPTGKV")
    np.testing.assert_allclose(
        np.linalg.norm(x[hairpin.bonds[:, 0]] - x[hairpin.bonds[:, 1]], axis=1), hairpin.lengths, atol=0.02
    )
    for residue in range(7):
        ends = x[chain.atom(residue, "C")] - x[chain.atom(residue + 1, "N")]
        assert np.linalg.norm(ends) == pytest.approx(PEPTIDE_BOND, abs=0.02)
    assert np.linalg.norm(x[chain.atom(7, "CA")] - x[chain.atom(0, "CA")]) > 0.75 * 7 * 3.8
    assert (hairpin.contacts(x), hairpin.pieces(x)) == ((len(hairpin.bonds),) * 2, 1)


def test_the_energy_is_that_of_an_independent_sum(hairpin):
    x = hairpin.native + np.random.default_rng(0).normal(0, 0.1, hairpin.native.shape)
    value, slope = value_and_slope(hairpin, x, 0.0)
    assert float(value) == pytest.approx(hairpin.independent(x), rel=1e-11)
    along, h = np.random.default_rng(1).normal(size=x.shape), 1e-6
    difference = (hairpin.independent(x + h * along) - hairpin.independent(x - h * along)) / (2 * h)
    assert np.vdot(slope, along) == pytest.approx(difference, rel=1e-6)
    together = np.zeros_like(x)
    assert all(np.all(np.isfinite(part)) for part in value_and_slope(hairpin, together, 0.9))
    assert hairpin.overlaps(together) == len(hairpin.core.atoms)


def test_pair_potentials_have_their_depths_at_their_minima():
    s = np.linspace(0.9, 1.6, 70001)
    assert float(np.min(peptide._twelve_six(s))) == pytest.approx(-1, abs=1e-6)
    assert float(np.min(peptide._six_four(s))) == pytest.approx(-1, abs=1e-6)


def test_hydrogen_bonds_and_contacts_are_between_residues_apart(hairpin):
    chain = chain_of("GAWPTGKV")
    donors, acceptors = hairpin.hydrogen_bonds.atoms.T
    assert {chain.names[atom] for atom in donors} == {"H"}
    assert {chain.names[atom] for atom in acceptors} == {"O"}
    assert np.abs(chain.residue[donors] - chain.residue[acceptors]).min() == 3
    letters = {chain.sequence[chain.residue[atom]] for atom in hairpin.hydrophobic.atoms.ravel()}
    assert letters == set("AWPV")
    assert hairpin.label(0) == "GLY 1.N"


@pytest.mark.parametrize(("sequence", "said"), [("GXA", "residue 2 of the sequence is 'X'"), ("G", "1 residues")])
def test_what_is_no_sequence_is_an_input_error(sequence, said):
    with pytest.raises(InputError, match=said):
        Peptide.of_sequence(sequence)


@pytest.mark.parametrize(("name", "atoms"), [("1l2y", 168), ("CLN025", 100)])
def test_structures_are_near_rest_and_below_their_extended_chains(shared_data, name, atoms):
    path = shared_data / "structure" / f"{name}.pdb"
    if not path.exists():
        pytest.skip(f"no {path}")
    folded = Peptide.of_file(path)
    assert folded.n == atoms
    x = folded.native
    off = np.linalg.norm(x[folded.bonds[:, 0]] - x[folded.bonds[:, 1]], axis=1) - folded.lengths
    assert np.sqrt(np.mean(off**2)) < 0.04
    assert folded.overlaps(x) == 0
    assert folded.independent(x) < 0


def test_a_residue_that_is_none_of_the_20_is_named(shared_data):
    path = shared_data / "structure" / "2F4K.pdb"
    if not path.exists():
        pytest.skip(f"no {path}")
    with pytest.raises(InputError, match="residue NLE"):
        Peptide.of_file(path)
