"""Debye sums by moments: against brute force, closed forms and Monte Carlo, additive, and the same bits in any order.

S5-093 classical Debye, S5-095 self terms undamped, S5-096 pairs symmetric, S5-097 B, S5-098 sigma = 0, S5-139 sums.
"""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.observables import pair_moments as pm
from hpcfit.observables.form_factors import amplitudes
from hpcfit.ranks import Ranks
from tests.fit.thread_ranks import Meeting, ThreadRanks

Q = np.linspace(0.02, 1.2, 60)
SPECIES = ("I", "Pb")
WIDTH = pm.bin_width(1.2)


def ball(n, jitter, seed=1):
    """A ball cut out of a simple cubic lattice, 3.2 A, [n, 3]."""
    axis = np.arange(-12, 13) * 3.2
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    grid = grid[np.argsort(np.sum(grid**2, axis=1), kind="stable")[:n]]
    return grid + jitter * np.random.default_rng(seed).standard_normal(grid.shape)


def kinds_of(n):
    return ["Pb" if i % 3 == 0 else "I" for i in range(n)]


def brute_force(x, kinds, q, sigma=None):
    """The documented double sum, [Q]; sigma: of a pair of kinds."""
    f = amplitudes(SPECIES, q)[[SPECIES.index(one) for one in kinds]]
    r = np.linalg.norm(x[:, None] - x[None], axis=-1)
    squares = np.zeros_like(r) if sigma is None else np.array([[sigma(a, b) ** 2 for a in kinds] for b in kinds])
    np.fill_diagonal(squares, 0)
    return np.array(
        [f[:, k] @ (np.sinc(v * r / np.pi) * np.exp(-(v**2) * squares / 2)) @ f[:, k] for k, v in enumerate(q)]
    )


@pytest.mark.parametrize(("jitter", "allowed"), [(0.2, 1e-7), (0.0, 1e-6)])
def test_s5_093_moments_and_exact_sums_equal_brute_force(jitter, allowed):
    x, kinds = ball(400, jitter), kinds_of(400)
    f, expected = amplitudes(SPECIES, Q), brute_force(x, kinds, Q)
    moments = pm.pair_moments(x, kinds, SPECIES, WIDTH)
    np.testing.assert_allclose(pm.mean_intensity(moments, f, Q), expected, rtol=allowed)
    exact = pm.intensity(moments.atoms, pm.exact_pair_sums(x, kinds, SPECIES, Q), f, Q)
    np.testing.assert_allclose(exact, expected, rtol=1e-12)


def test_s5_093_forward_scattering_one_atom_and_a_dimer():
    x, kinds = ball(50, 0.2), kinds_of(50)
    zero = np.array([0.0])
    f = amplitudes(SPECIES, zero)
    total = 17 * f[1, 0] + 33 * f[0, 0]
    moments = pm.pair_moments(x, kinds, SPECIES, WIDTH)
    assert pm.mean_intensity(moments, f, zero)[0] == pytest.approx(total**2, rel=1e-13)
    f, r = amplitudes(SPECIES, Q), 3.05
    one = pm.pair_moments(np.zeros((1, 3)), ["Pb"], SPECIES, WIDTH)
    np.testing.assert_allclose(pm.mean_intensity(one, f, Q), f[1] ** 2, rtol=1e-14)
    dimer = pm.pair_moments(np.array([[0.0, 0, 0], [0, r, 0]]), ["Pb", "I"], SPECIES, WIDTH)
    closed = f[0] ** 2 + f[1] ** 2 + 2 * f[0] * f[1] * np.sin(Q * r) / (Q * r)
    np.testing.assert_allclose(pm.mean_intensity(dimer, f, Q), closed, rtol=1e-8)


def test_s5_095_to_098_displacements_damp_pairs_alone_and_by_their_species():
    x, kinds = ball(60, 0.2), kinds_of(60)
    sigmas = {("I", "I"): 0.4, ("I", "Pb"): 0.2, ("Pb", "Pb"): 0.3}
    assert pm.pairs_of(SPECIES) == list(sigmas)
    sigma, f = np.array(list(sigmas.values())), amplitudes(SPECIES, Q)
    moments = pm.pair_moments(x, kinds, SPECIES, WIDTH)
    expected = brute_force(x, kinds, Q, lambda a, b: sigmas[tuple(sorted((a, b)))])
    np.testing.assert_allclose(pm.mean_intensity(moments, f, Q, sigma), expected, rtol=1e-7)
    undamped = pm.mean_intensity(moments, f, Q)
    assert np.array_equal(pm.mean_intensity(moments, f, Q, np.zeros(3)), undamped)
    far = np.array([40.0])
    own = moments.atoms.astype(float) @ amplitudes(SPECIES, far) ** 2
    np.testing.assert_allclose(pm.mean_intensity(moments, amplitudes(SPECIES, far), far, sigma), own, rtol=1e-13)
    assert pm.sigma_of(pm.b_factor(0.31)) == pytest.approx(0.31, rel=1e-15)
    b = pm.b_factor(sigma[:, None])
    np.testing.assert_allclose(
        np.exp(-(Q**2) * sigma[:, None] ** 2 / 2), np.exp(-b * Q**2 / (16 * np.pi**2)), rtol=1e-13
    )


def test_s5_095_damping_is_exact_for_gaussian_clouds():
    """Monte Carlo of two atoms whose separation spreads by 0.3 A along each axis; 5 standard errors of its mean."""
    separation = np.array([0, 0, 3.2]) + 0.3 * np.random.default_rng(3).standard_normal((200_000, 3))
    terms = np.sinc(np.multiply.outer(np.linalg.norm(separation, axis=1), Q) / np.pi)
    mean, error = terms.mean(axis=0), terms.std(axis=0) / np.sqrt(len(terms))
    pair = pm.pair_moments(np.array([[0, 0, 0], [0, 0, 3.2]]), ["Pb", "I"], SPECIES, WIDTH)
    of_pair = pair.pair_sums(Q)[1] * np.exp(-(Q**2) * 0.09 / 2)
    assert np.all(np.abs(of_pair - mean) < 5 * error + 1e-9)


def test_chosen_pairs_and_the_others_make_up_all():
    x, kinds = ball(40, 0.2), kinds_of(40)
    near = np.linalg.norm(x[:, None] - x[None], axis=-1) < 4.6
    every, some = (pm.pair_moments(x, kinds, SPECIES, WIDTH, among) for among in (None, near))
    assert some.count.sum() == np.triu(near, 1).sum()
    np.testing.assert_allclose(some.pair_sums(Q), pm.exact_pair_sums(x, kinds, SPECIES, Q, near), rtol=0, atol=1e-7)
    rest = every - some
    np.testing.assert_allclose(rest.pair_sums(Q) + some.pair_sums(Q), every.pair_sums(Q), rtol=0, atol=1e-10)


def test_moments_of_many_structures_are_the_sum_of_each():
    x, kinds = [ball(n, 0.2, n) for n in (5, 1, 12)], [kinds_of(n)[::-1] for n in (5, 1, 12)]
    each = [pm.pair_moments(a, b, SPECIES, WIDTH) for a, b in zip(x, kinds)]
    many = pm.moments_of_many(np.concatenate(x), [one for some in kinds for one in some], [0, 5, 6, 18], SPECIES, WIDTH)
    added = each[0] + each[1] + each[2]
    assert (many.structures, many.atoms.tolist()) == (3, added.atoms.tolist())
    assert np.array_equal(many.count[:, : added.bins], added.count)
    np.testing.assert_allclose(many.pair_sums(Q), added.pair_sums(Q), rtol=1e-12)


def test_s5_139_sums_have_the_same_bits_on_any_number_of_ranks(monkeypatch):
    monkeypatch.setattr(pm, "PAIRS_TOGETHER", 5000)
    x, kinds = ball(300, 0.2), kinds_of(300)
    parts = list(pm.moments_by_parts(x, kinds, SPECIES, WIDTH))
    assert len(parts) > 5

    def summed(world, own):
        total = pm.MomentSum(SPECIES, WIDTH)
        for part in own[: len(own) // 2]:
            total.add(part)
        later = pm.MomentSum(SPECIES, WIDTH)
        later.take_up(total.kept())
        for part in own[len(own) // 2 :]:
            later.add(part)
        return later.total(world)

    alone = summed(Ranks(), parts)
    meeting = Meeting(2)
    with ThreadPoolExecutor(2) as pool:
        run = lambda rank: summed(ThreadRanks(meeting, rank, 2), parts[rank::2][::-1])  # noqa: E731
        first, second = pool.map(run, range(2))
    for other in (first, second):
        assert np.array_equal(other.count, alone.count)
        assert np.array_equal(other.moments.view(np.uint64), alone.moments.view(np.uint64))
        assert other.atoms.tolist() == alone.atoms.tolist() == [200, 100]
        assert other.structures == alone.structures == 1
    whole = pm.pair_moments(x, kinds, SPECIES, WIDTH)
    assert np.array_equal(alone.count, whole.count)
    np.testing.assert_allclose(alone.moments, whole.moments, rtol=1e-12, atol=1e-10)


def test_s5_141_intensity_is_differentiable_by_sigma_and_f():
    x, kinds = ball(30, 0.2), kinds_of(30)
    moments = pm.pair_moments(x, kinds, SPECIES, WIDTH)
    sums, f = moments.pair_sums(Q), amplitudes(SPECIES, Q)
    value = lambda sigma, scale: jnp.sum(jnp.log(pm.intensity(moments.atoms, sums, f * scale[:, None], Q, sigma)))  # noqa: E731
    at = (np.array([0.2, 0.3, 0.4]), np.array([1.0, 1.1]))
    for which in (0, 1):
        gradient = jax.grad(value, which)(*map(jnp.asarray, at))
        for k in range(len(gradient)):
            moved = [list(map(np.copy, at)) for _ in range(2)]
            moved[0][which][k] += 1e-5
            moved[1][which][k] -= 1e-5
            slope = (value(*moved[0]) - value(*moved[1])) / 2e-5
            assert float(gradient[k]) == pytest.approx(float(slope), rel=1e-7)


def test_wrong_structures_are_errors():
    with pytest.raises(InputError, match="'O', which is not among the species I, Pb"):
        pm.pair_moments(np.zeros((1, 3)), ["O"], SPECIES, WIDTH)
    with pytest.raises(InputError, match="not finite, for 2 atoms"):
        pm.pair_moments(np.full((2, 3), np.nan), ["I", "I"], SPECIES, WIDTH)
    with pytest.raises(InputError, match=r"in bins of 0.5 A"):
        pm.MomentSum(SPECIES, WIDTH).add(pm.pair_moments(np.zeros((1, 3)), ["I"], SPECIES, 0.5))
    with pytest.raises(InputError, match="the largest q is 0"):
        pm.bin_width(0)
