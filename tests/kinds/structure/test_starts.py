"""Starts: the covariances that they are drawn from, chains, files, and dynamics; functions of seed and replica."""

import numpy as np
import pytest
from MDAnalysis.lib.distances import calc_dihedrals
from scipy.sparse import block_diag, csr_array

from hpcfit.errors import InputError
from hpcfit.kinds.structure import starts
from hpcfit.kinds.structure.landscapes.loops import Loops
from hpcfit.kinds.structure.landscapes.system import SystemLandscape
from tests.kinds.structure.landscapes.test_own_and_system import ZIGZAG, zigzag_system


def test_random_starts_differ_by_seed_and_replica_alone():
    one = starts.random(50, 3, 2.0, seed=1)
    np.testing.assert_array_equal(one, starts.random(50, 3, 2.0, seed=1))
    assert not np.allclose(one, starts.random(50, 3, 2.0, seed=2))
    assert not np.allclose(one, starts.random(50, 3, 2.0, seed=1, replica=1))
    assert one.std() == pytest.approx(2.0, abs=4 * 2.0 / np.sqrt(2 * 150))


def test_a_gaussian_start_has_the_covariance_of_the_inverse_laplacian():
    couplings, draws = Loops.of(14, seed=3).couplings(), 20000
    x = starts.laplacian_gaussian(couplings, draws, seed=0, scale=0.65)
    L = np.diag(np.asarray(couplings.sum(axis=1)).ravel()) - couplings.toarray()
    expected = 0.65**2 * np.linalg.pinv(L)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-10)
    # An element of a covariance of T draws has the variance (C_ii C_jj + C_ij²)/T.
    own = np.diag(expected)
    error = np.sqrt((np.outer(own, own) + expected**2) / draws)
    assert np.max(np.abs(x @ x.T / draws - expected) / error) < 4.5


def test_a_gaussian_start_of_many_particles_has_the_bonds_of_its_graph():
    """Foster: effective resistances, times weights, add up to n − 1 over the edges of a connected graph."""
    couplings = Loops.of(5000).couplings().tocoo()
    x = starts.laplacian_gaussian(couplings.tocsr(), 3, seed=0)
    first, second = couplings.coords
    stretched = 0.5 * np.sum(couplings.data * np.sum((x[first] - x[second]) ** 2, axis=1))
    freedom = 3 * 4999
    assert stretched / 0.65**2 == pytest.approx(freedom, abs=4 * np.sqrt(2 * freedom))


def test_pieces_that_nothing_ties_to_each_other_stay_near():
    piece = Loops.of(20, seed=None).couplings()
    apart = csr_array(block_diag([piece, piece, csr_array((1, 1))]))
    x = starts.laplacian_gaussian(apart, 3, seed=2)
    assert np.linalg.norm(x, axis=1).max() < 5 * 0.65 * 41 ** (1 / 3)
    assert np.linalg.norm(x[:20].mean(axis=0) - x[20:40].mean(axis=0)) > 0.1
    np.testing.assert_array_equal(x, starts.laplacian_gaussian(apart, 3, seed=2))


def test_an_extended_chain_follows_its_order():
    loops = Loops.of(12, seed=1)
    x = starts.extended_chain(loops.order, spacing=1.1)
    np.testing.assert_allclose(np.linalg.norm(np.diff(x[loops.order], axis=0), axis=1), 1.1, rtol=1e-12)
    ends = x[loops.order[2:]] - x[loops.order[:-2]]
    np.testing.assert_allclose(np.linalg.norm(ends, axis=1), 1.1 * np.sqrt(3), rtol=1e-12)
    with pytest.raises(InputError, match="12 particles"):
        starts.extended_chain([0] * 12)


def test_coordinates_are_read_in_the_unit_of_the_landscape(tmp_path):
    x = np.arange(9.0).reshape(3, 3)
    path = tmp_path / "one.xyz"
    rows = "".join(f"Ar {a} {b} {c}\n" for a, b, c in x)
    path.write_text(f"3\n\n{rows}3\n\n{rows.replace('0.0', '1.0', 1)}")
    np.testing.assert_allclose(starts.from_file(path, 3, "nm"), x / 10)
    np.testing.assert_allclose(starts.from_file(path, 3, "sigma", frame=1)[0], [1.0, 1.0, 2.0])
    np.save(tmp_path / "one.npy", x)
    np.testing.assert_array_equal(starts.from_file(tmp_path / "one.npy", 3, "nm"), x)
    with pytest.raises(InputError, match="takes 4 particles"):
        starts.from_file(path, 4, "nm")
    with pytest.raises(InputError, match="2 frames, not number 2"):
        starts.from_file(path, 3, "nm", frame=2)
    with pytest.raises(InputError, match="does not exist"):
        starts.from_file(tmp_path / "none.pdb", 3, "nm")


def test_snapshots_of_dynamics_are_functions_of_seed_and_replica():
    zigzag = SystemLandscape.of(zigzag_system(charged=False), ZIGZAG)  # a charge without a core would fall into another
    one = starts.snapshot(zigzag, 300.0, 0.2, seed=0)
    np.testing.assert_array_equal(one, starts.snapshot(zigzag, 300.0, 0.2, seed=0))
    assert not np.allclose(one, starts.snapshot(zigzag, 300.0, 0.2, seed=0, replica=1))
    assert zigzag.contacts(one) == (3, 3)


def test_a_cube_of_uniform_starts_is_filled_and_not_left():
    x = np.concatenate([starts.uniform(50, 3, 4.0, 1, replica) for replica in range(40)])
    assert np.abs(x).max() < 2
    # 6000 numbers: mean 0 and variance 16/12, within five standard errors (kurtosis of a uniform number: 9/5)
    assert abs(x.mean()) < 5 * np.sqrt(16 / 12 / 6000)
    assert abs(x.var() - 16 / 12) < 5 * 16 / 12 * np.sqrt(0.8 / 6000)


def test_a_protein_of_a_sequence_is_extended_but_for_its_proline():
    landscape = SystemLandscape.of_sequence("GAPG")
    names = [name.rpartition(".")[2] for name in landscape.facts.names]
    x = starts.extended_backbone(landscape.native, landscape.bonds, names)
    N, CA, C = ([k for k, name in enumerate(names) if name == kind] for kind in ("N", "CA", "C"))
    ends = (x[atoms] for atoms in (C[:-1], N[1:], CA[1:], C[1:]))
    np.testing.assert_allclose(np.abs(calc_dihedrals(*ends)[[0, 2]]), np.pi, atol=1e-5)  # of MDAnalysis, in float32
    ends = (x[atoms] for atoms in (N[:-1], CA[:-1], C[:-1], N[1:]))
    np.testing.assert_allclose(np.abs(calc_dihedrals(*ends)), np.pi, atol=1e-5)
    first, second = landscape.bonds.T
    lengths = (np.linalg.norm(at[first] - at[second], axis=1) for at in (x, landscape.native))
    np.testing.assert_allclose(*lengths, rtol=1e-12)


def test_letters_that_are_no_residues_are_an_input_error():
    with pytest.raises(InputError, match="'GX1' is none of the 20 residues"):
        SystemLandscape.of_sequence("GX1")
