"""The dipeptide's geometry: torsions as asked for, an L residue, and bonds where the force field expects them."""

import numpy as np
import pytest

from hpcfit.testsystems import dipeptide


@pytest.mark.parametrize(("phi", "psi"), [(-80.0, 80.0), (-65.0, -40.0), (55.0, 175.0)])
def test_torsions_are_those_asked_for(phi, psi):
    x = dipeptide.coordinates(phi, psi)
    # Rounding of arctan2 and of a product of three rotations: some 1e-14 of 180 degrees.
    assert dipeptide.dihedral(x, dipeptide.PHI) == pytest.approx(phi, abs=1e-10)
    assert dipeptide.dihedral(x, dipeptide.PSI) == pytest.approx(psi, abs=1e-10)


def test_dihedral_agrees_with_an_independent_program_for_many_frames():
    from MDAnalysis.lib.distances import calc_dihedrals

    x = np.random.default_rng(1).normal(size=(50, 4, 3))
    expected = np.degrees(calc_dihedrals(*x.transpose(1, 0, 2)))
    assert np.allclose(dipeptide.dihedral(x, (0, 1, 2, 3)), expected, rtol=0, atol=1e-4)  # float32 in MDAnalysis


def test_the_residue_is_left_handed():
    at = dict(zip(dipeptide.ATOMS, dipeptide.coordinates(-80, 80)))
    n, c, cb = (at[f"ALA:{name}"] - at["ALA:CA"] for name in ("N", "C", "CB"))
    # 2.0 to 3.0 A^3 for the 127 residues with a CB of PDB entry 1STN; a D residue has the opposite sign.
    assert 2.0 < n @ np.cross(c, cb) < 3.0


def test_only_bonded_atoms_are_close():
    x = dipeptide.coordinates(-80, 80)
    distance = np.linalg.norm(x[:, None] - x, axis=-1)
    bonded = {frozenset(dipeptide.ATOMS.index(atom) for atom in bond) for bond in dipeptide.BONDS}
    close = {frozenset((i, j)) for i, j in np.argwhere(np.triu(distance < 1.6, k=1)).tolist()}
    assert close == bonded
    assert len(bonded) == len(dipeptide.ATOMS) - 1  # a tree: no rings
