"""S(q) of periodic boxes against a perfect lattice, an ideal gas, and the sum written out with NumPy.

Not proved: that a run averages it right (tests/kinds/clusters/test_box_scattering_run.py).
"""

import numpy as np
import pytest

from hpcfit.observables.box_scattering import densities, lattice_vectors, n_shells, shell_sums

CUBE = 20.0 * np.eye(3)
TRICLINIC = np.array([[14.0, 0.0, 0.0], [3.0, 12.0, 0.0], [-2.0, 4.0, 11.0]])
EVERY = 10**9


def sums_of(x, box, starts, q_max, width, most=EVERY, f=None):
    """The vectors, and the sums of their shells; all f are 1 without any."""
    vectors = lattice_vectors(box, q_max, width, most)
    f = np.ones((len(starts) - 1, len(vectors.q))) if f is None else f(vectors.q)
    rho = densities(x, box, np.array(starts), vectors.hkl)
    return vectors, shell_sums(rho, np.diff(starts).astype(float), f, vectors, n_shells(q_max, width))


def test_vectors_are_one_of_each_pair_within_the_sphere():
    q_max = 3.0
    vectors = lattice_vectors(TRICLINIC, q_max, 0.1, EVERY)
    grid = np.stack(np.meshgrid(*[np.arange(-12, 13)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    q = np.linalg.norm(2 * np.pi * grid @ np.linalg.inv(TRICLINIC).T, axis=1)
    wanted = {tuple(one) for one in grid[(q <= q_max) & (q > 0)].tolist()}
    found = [tuple(one) for one in vectors.hkl.tolist()]
    assert len(found) == len(set(found)) == len(wanted) // 2
    assert wanted == {*found, *(tuple(-n for n in one) for one in found)}
    lengths = np.linalg.norm(2 * np.pi * vectors.hkl @ np.linalg.inv(TRICLINIC).T, axis=1)
    np.testing.assert_allclose(vectors.q, lengths, rtol=1e-12)
    assert np.all(np.abs(vectors.q - 0.1 * (vectors.shell + 0.5)) <= 0.05 + 1e-9)


def test_a_shell_keeps_an_even_sample_which_the_box_decides():
    whole, some = (lattice_vectors(CUBE, 4.0, 0.2, most) for most in (EVERY, 30))
    every, kept = np.bincount(whole.shell), np.bincount(some.shell)
    np.testing.assert_array_equal(kept, np.minimum(every, 30))
    again = lattice_vectors(CUBE.copy(), 4.0, 0.2, 30)
    np.testing.assert_array_equal(some.hkl, again.hkl)
    # Of a shell with thousands of vectors the mean of a component of 30 is 0 within 5 of its standard errors.
    last = some.hkl[some.shell == 19] @ np.diag(2 * np.pi / np.diag(CUBE)) / 3.9
    signs = np.sign(last[:, 2:])
    assert np.all(np.abs(np.mean(last[:, :2] * np.where(signs == 0, 1, signs), axis=0)) < 5 / np.sqrt(3 * 30))


@pytest.mark.parametrize("side", [3, 4])
def test_a_perfect_lattice_has_bragg_peaks_of_n(side):
    """Simple cubic: N where h, k and l are all multiples of the number of cells along an edge, else 0."""
    x = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * CUBE[0, 0] / side
    vectors = lattice_vectors(CUBE, 4.0, 0.1, EVERY)
    S = np.abs(densities(x, CUBE, np.array([0, len(x)]), vectors.hkl)[0]) ** 2 / len(x)
    bragg = np.all(vectors.hkl % side == 0, axis=1)
    assert bragg.sum() > 10
    # Rounding: phases up to 2 pi h, h <= 12, in units of 2^-53, of N atoms, squared.
    np.testing.assert_allclose(S, np.where(bragg, len(x), 0.0), atol=len(x) * 2 * np.pi * 12 * 2**-52)


def test_rock_salt_has_partial_peaks_of_both_signs():
    """NaCl: at odd h, k, l of the unit cell both kinds scatter against each other, at even ones together."""
    corners = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
    cells = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    na = (cells + corners).reshape(-1, 3) * 10.0
    x = np.concatenate([na, na + np.array([5.0, 0, 0])])
    n = len(na)
    vectors = lattice_vectors(CUBE, 2.5, 0.01, EVERY)
    rho = densities(x, CUBE, np.array([0, n, 2 * n]), vectors.hkl)
    cross = (rho[0] * rho[1].conj()).real / n
    cell, on = vectors.hkl // 2, np.all(vectors.hkl % 2 == 0, axis=1)
    odd, even = on & np.all(cell % 2 == 1, axis=1), on & np.all(cell % 2 == 0, axis=1)
    assert odd.any()
    assert even.any()
    np.testing.assert_allclose(cross, n * (even * 1.0 - odd), atol=n * 2 * np.pi * 12 * 2**-52)


def test_an_ideal_gas_scatters_one():
    """|rho|^2 / N is exponentially distributed with mean 1; of V vectors and F frames its mean has the error
    1 / sqrt(V F). For unlike species the mean is 0, with an error smaller by sqrt(2)."""
    random, frames = np.random.default_rng(5), 40
    found = sum(
        sums_of(random.random((200, 3)) @ TRICLINIC, TRICLINIC, [0, 120, 200], 3.0, 0.3)[1] for _ in range(frames)
    )
    seen = found[-1] > 0
    like_a, unlike, like_b, total = found[:4, seen] / found[-1, seen]
    error = 1 / np.sqrt(found[-1, seen])
    for values, mean, factor in ((like_a, 1, 1), (like_b, 1, 1), (total, 1, 1), (unlike, 0, 0.5**0.5)):
        assert np.all(np.abs(values - mean) < 5 * factor * error)


@pytest.mark.parametrize("atoms", [90, 5000])
def test_sums_of_shells_are_those_of_numpy(atoms):
    """5000 atoms are more than are held at a time."""
    random = np.random.default_rng(1)
    x, starts = 3 * (random.random((atoms, 3)) - 0.4) @ TRICLINIC, [0, atoms // 9, atoms // 2, atoms]
    f = lambda q: np.stack([10 * np.exp(-(q**2)), 3 + q, 0 * q + 1])  # noqa: E731
    vectors, found = sums_of(x, TRICLINIC, starts, 1.5, 0.25, f=f)
    G = 2 * np.pi * np.linalg.inv(TRICLINIC).T
    kinds, n = np.repeat(np.arange(3), np.diff(starts)), np.diff(starts)
    wanted = np.zeros_like(found)
    for hkl in vectors.hkl:
        q = hkl @ G
        phase, size = np.exp(1j * x @ q), np.linalg.norm(q)
        rho, of = np.array([phase[kinds == a].sum() for a in range(3)]), f(size)
        rows = [(rho[a] * np.conj(rho[b])).real / np.sqrt(n[a] * n[b]) for a in range(3) for b in range(a, 3)]
        rows += [abs(np.sum(of * rho)) ** 2 / (n @ of**2), size, 1]
        wanted[:, int(size / 0.25)] += rows
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9 * atoms)
