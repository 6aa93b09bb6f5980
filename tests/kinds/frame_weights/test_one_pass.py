"""The kernel of one reading, both modules, against the formulas spelled out in float64; what must not change its bits.

The GPU itself is not tested: its module runs here on the CPU.
"""

import numba
import numpy as np
import pytest

from hpcfit.kinds.frame_weights import one_pass_cpu, one_pass_xla
from hpcfit.kinds.frame_weights.one_pass import one_pass, strip_reflections
from hpcfit.kinds.frame_weights.orbit_sums import Coefficients, Orbits, Sums

TILES, STRIPS, STRIP, T, HELD = 3, 2, 16, 128, 100  # HELD frames, the rest is padding
WIDTH = STRIPS * STRIP


def many_on_cpu(w_rt, totals, data, orbits, coefficients, F0, of, threads=1):
    return one_pass_cpu.sums(w_rt, totals, data, F0, orbits, coefficients, of, threads)


def many_by_xla(w_rt, totals, data, orbits, coefficients, F0, of):
    return [np.asarray(part) for part in one_pass_xla.sums(w_rt, totals, data, F0, orbits, coefficients, of)]


def one_set(coefficients):
    return Coefficients(coefficients.basis[None], coefficients.powered[None], coefficients.power)


def alone(module):
    """A kernel with one weight vector."""

    def found(w_t, total, data, orbits, coefficients, F0, *more):
        many = module(w_t[None], np.array([total]), data, orbits, one_set(coefficients), F0, np.zeros(1, int), *more)
        return [part[0] for part in many]

    return found


cpu, xla = alone(many_on_cpu), alone(many_by_xla)


def one(w_t, total, data, orbits, coefficients, *more, **options):
    """``one_pass`` of one weight vector."""
    many = one_pass(w_t[None], np.array([total]), data, orbits, one_set(coefficients), *more, **options)
    return Sums(*(part[0] for part in many))


@pytest.fixture
def problem():
    return make_problem()


def make_problem(kept="f4", kind="f4", K0=2, power=1):
    """The arguments of ``one_pass``: orbits of 1 to 4 reflections, padding in each strip, weights of sum 1.3."""
    rng = np.random.default_rng(5)
    share, orbit = np.zeros((TILES, WIDTH)), np.zeros((TILES, WIDTH), np.int32)
    for tile in range(TILES):
        number = 0
        for start in range(0, WIDTH, STRIP):
            sizes = np.array([[4, 3, 1, 4], [2, 2, 4, 1], [1, 1, 3, 4]][tile])
            members = np.repeat(np.arange(4), sizes)
            own = slice(start, start + len(members))
            share[tile, own] = rng.uniform(0.5, 2, len(members)) / sizes[members]
            orbit[tile, own] = number + members
            number += 4
    w_t = rng.random(T) * (np.arange(T) < HELD)
    w_t *= 1.3 / w_t.sum()
    data = rng.standard_normal((TILES, STRIPS, T, 2 * STRIP)) * (np.arange(T) < HELD)[:, None]
    data *= np.repeat(share > 0, 2, axis=1).reshape(TILES, STRIPS, 1, 2 * STRIP)
    basis, powered = rng.standard_normal((TILES, K0, WIDTH)), rng.standard_normal((TILES, WIDTH))
    powered[:, 1] = 0  # an orbit that does not count
    F0 = rng.standard_normal((TILES, WIDTH, 2))
    return w_t.astype(kind), 1.3, data.astype(kept), Orbits(share, orbit), Coefficients(basis, powered, power), F0


def spelled_out(w_t, total, data, orbits, coefficients, F0):
    """m1, m2, G as complex arithmetic and a loop over orbits say, and how many units of rounding G may be off.

    A float32 sum of n terms is off by at most n units u = 2^-24 of the sum of their moduli. Moments: 64 terms of 3
    products and one result, 68. G: 32 terms in a strip, 2 strips, and 5 roundings of c, e and the products, 39; twice,
    since e and the terms are. A power of x carries the relative error of x, dx = dm2 + e.dm1.
    """
    (share, orbit), (basis, powered, power) = orbits, coefficients
    f = np.swapaxes(data, 1, 2).reshape(TILES, T, -1, 2).astype(float)
    f, F0, w_t = f[..., 0] + 1j * f[..., 1], F0[..., 0] + 1j * F0[..., 1], w_t.astype(float)
    m1, m2 = np.einsum("t,ith->ih", w_t, f), np.einsum("t,ith->ih", w_t, abs(f) ** 2)
    F = f + F0[:, None]
    M1 = m1 + total * F0
    # padding frames have weight 0, so that F0 enters with W = 1.3 as all weights do
    x = np.einsum("t,ith->ih", w_t, abs(F) ** 2) - abs(np.einsum("t,ith->ih", w_t, F)) ** 2
    largest = np.einsum("t,ith->ih", w_t, abs(f) ** 2) + 2 * abs(M1 - F0) * np.einsum("t,ith->ih", w_t, abs(f))
    G, units = np.zeros((2, TILES, basis.shape[1] + 1, T))
    for i in range(TILES):
        for o in range(WIDTH):
            mine = np.flatnonzero((orbit[i] == o) & (share[i] > 0))
            x_o = share[i, mine] @ x[i, mine]
            c_k = np.append(basis[i, :, o], powered[i, o] * x_o**power if len(mine) else 0.0)
            terms = np.real(f[i][:, mine] * np.conj(f[i][:, mine] - 2 * (M1 - F0)[i, mine]))
            bounds = abs(f[i][:, mine]) ** 2 + 2 * abs(f[i][:, mine]) * abs(M1 - F0)[i, mine]
            units_k = 2 * 39 * abs(c_k)
            if len(mine):
                units_k[-1] += 2 * 68 * abs(c_k[-1] / x_o) * (share[i, mine] @ largest[i, mine])
            G[i] += np.outer(c_k, terms @ share[i, mine])
            units[i] += np.outer(units_k, bounds @ share[i, mine])
    return np.stack([m1.real, m1.imag], axis=-1), m2, G, units


@pytest.mark.parametrize("module", [cpu, xla])
@pytest.mark.parametrize(
    ("kept", "kind", "K0", "power"),
    [
        ("f4", "f4", 0, 1), ("f4", "f4", 2, 1), ("f4", "f4", 2, -1), ("f4", "f4", 4, -1),
        ("f2", "f4", 2, 1), ("f8", "f8", 2, 1), ("f8", "f8", 2, -1),
    ],
)  # fmt: skip
def test_equals_the_formulas_in_every_type(module, kept, kind, K0, power):
    arguments = make_problem(kept, kind, K0, power)
    m1, m2, G, units = spelled_out(*arguments)
    found = module(*arguments)
    assert all(part.dtype == np.dtype(kind) for part in found)
    w_t, _, data, *_ = arguments
    size = abs(data.astype(float))
    unit = {"f4": 2.0**-24, "f8": 2.0**-53}[kind]
    first = np.einsum("t,isth->ish", w_t, size).max()
    second = np.einsum("t,isth->ish", w_t, size**2).max()
    np.testing.assert_allclose(found[0], m1, rtol=0, atol=68 * unit * first)
    np.testing.assert_allclose(found[1], m2, rtol=0, atol=2 * 68 * unit * second)
    assert np.all(abs(found[2] - G) <= unit * units)


def test_one_pass_takes_the_module_of_the_device_and_no_F0(problem):
    w_t, total, data, orbits, coefficients, F0 = problem
    found = one(w_t, total, data, orbits, coefficients)
    for a, b in zip(found, cpu(w_t, total, data, orbits, coefficients, 0 * F0)):
        assert np.array_equal(a, b)


def test_the_gradient_is_that_of_the_intensities():
    """sum_o c_o dx_o/dw_t by central differences of the moments alone, the constant of the module's text added."""
    w_t, total, data, orbits, coefficients, F0 = make_problem("f8", "f8")
    tile, share = 1, orbits.share[1]

    def loss(weights):
        W = weights.sum()
        m1, m2, _ = cpu(weights, W, data, orbits, coefficients, F0)
        m1, m2 = m1[tile], m2[tile]
        x = m2 + (2 * F0[tile] * m1 + W * F0[tile] ** 2 - (m1 + W * F0[tile]) ** 2).sum(axis=1)
        return coefficients.basis[tile, 0, orbits.orbit[tile]] @ (share * x)

    m1, _, G = cpu(w_t, total, data, orbits, coefficients, F0)
    M1 = m1[tile] + total * F0[tile]
    c_h = coefficients.basis[tile, 0, orbits.orbit[tile]] * share
    constant = c_h @ (F0[tile] ** 2 - 2 * M1 * F0[tile]).sum(axis=1)
    step = 1e-3  # the loss is quadratic: only rounding is left, eps loss / step
    for t in (0, 17, 99):
        shift = step * (np.arange(T) == t)
        slope = (loss(w_t + shift) - loss(w_t - shift)) / (2 * step)
        assert slope == pytest.approx(G[tile, 0, t] + constant, abs=1e-10)


@pytest.mark.parametrize("module", [cpu, xla])
def test_a_tile_has_the_same_bits_alone_and_among_others(problem, module):
    w_t, total, data, orbits, coefficients, F0 = problem
    together = module(*problem)
    own = slice(1, 2)
    by_itself = module(
        w_t, total, data[own], Orbits(*(part[own] for part in orbits)),
        Coefficients(coefficients.basis[own], coefficients.powered[own], 1), F0[own],
    )  # fmt: skip
    for a, b in zip(together, by_itself):
        assert np.array_equal(a[own], b)


@pytest.mark.parametrize("module", [many_on_cpu, many_by_xla])
@pytest.mark.parametrize("kept", ["f4", "f2"])
def test_a_weight_vector_has_the_same_bits_alone_and_among_others(module, kept):
    """Each with a sum and coefficients of its own, named in another order than the vectors."""
    w_t, _, data, orbits, coefficients, F0 = make_problem(kept)
    random, R = np.random.default_rng(2), 5
    w_rt = w_t * random.random((R, T)).astype("f4")
    sets = Coefficients(*(np.stack([part * (n + 1) for n in range(3)]) for part in coefficients[:2]), 1)
    of = np.array([2, 0, 0, 1, 2])
    totals = w_rt.sum(axis=1, dtype=float)
    together = module(w_rt, totals, data, orbits, sets, F0, of)
    for some in ([0], [3], [4, 1]):
        found = module(w_rt[some], totals[some], data, orbits, sets, F0, of[some])
        for a, b in zip(together, found):
            assert np.array_equal(a[some], b)
    own = Coefficients(coefficients.basis * 3, coefficients.powered * 3, 1)
    for a, b in zip(together, alone(module)(w_rt[4], totals[4], data, orbits, own, F0)):
        assert np.array_equal(a[4], b)


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_do_not_change_the_bits(problem, threads):
    for a, b in zip(cpu(*problem), cpu(*problem, threads)):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("module", [cpu, xla])
@pytest.mark.parametrize("kept", ["f4", "f2"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_reaches_the_gradient_of_its_tile_alone(module, kept, bad):
    arguments = make_problem(kept)
    arguments[2][1, 0, 7, 3] = bad
    m1, m2, G = module(*arguments)
    assert not np.isfinite(m2[1, 1])
    assert not np.isfinite(m1[1, 1, 1])
    assert not np.isfinite(G[1]).any()
    for tile in (0, 2):
        assert np.isfinite(m1[tile]).all()
        assert np.isfinite(G[tile]).all()


@pytest.mark.parametrize("read", [one_pass_cpu._extended, one_pass_cpu._composed])
def test_every_half_is_read_as_numpy_reads_it(read):
    """With hardware and without: all 65536, subnormal, infinite and NaN included."""
    if read is one_pass_cpu._extended and not one_pass_cpu.HALVES_IN_HARDWARE:
        pytest.skip("this processor converts no halves")

    @numba.njit
    def converted(bits):
        values = np.empty(len(bits), np.float32)
        for i in range(len(bits)):
            values[i] = read(bits[i])
        return values

    bits = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):  # signalling NaN
        expected = bits.view(np.float16).astype(np.float32)
    assert np.array_equal(converted(bits), expected, equal_nan=True)


@pytest.mark.parametrize("module", [cpu, xla])
def test_long_sums_in_float32_keep_their_digits(module):
    """5056 equal terms: one running sum is off by 5e-6 or more, blocks of 64 by at most 68 units of 6e-8."""
    frames = 5056
    data = np.full((1, 1, frames, 2 * STRIP), 1.1, "f4")
    orbits = Orbits(np.ones((1, STRIP)), np.arange(STRIP, dtype=np.int32)[None])
    coefficients = Coefficients(np.zeros((1, 0, STRIP)), np.ones((1, STRIP)), 1)
    w_t = np.full(frames, 1 / frames, "f4")
    found = module(w_t, 1.0, data, orbits, coefficients, np.zeros((1, STRIP, 2)))
    square = float(data[0, 0, 0, 0]) ** 2
    running = np.cumsum(w_t * data[0, 0, :, 0] ** 2)[-1]
    assert running.dtype == np.float32
    exact = w_t.astype(float).sum() * square
    assert abs(running / exact - 1) > 68 * 2.0**-24
    np.testing.assert_allclose(found[1], 2 * exact, rtol=68 * 2.0**-24)


def test_what_does_not_fit_is_refused(problem):
    w_t, total, data, *rest = problem
    with pytest.raises(ValueError, match="100 frames"):
        one(w_t[:100], total, data[:, :, :100], *rest)
    with pytest.raises(ValueError, match="strips of 12"):
        one(w_t, total, data[..., :24], *rest)
    with pytest.raises(ValueError, match="float64 cannot be summed in the weights' float32"):
        one(w_t, total, data.astype(float), *rest)


@pytest.mark.parametrize(
    ("n_frames", "itemsize", "largest_orbit", "expected"),
    [
        (2048, 4, 1, 64),
        (256, 2, 8, 96),
        (256, 8, 1, 32),
        (5056, 4, 4, 16),  # 32 would take 1.2 MiB
        (2048, 4, 24, 48),  # two orbits, where 64 would leave a quarter empty
        (2048, 4, 96, 96),  # one orbit is wider than the cache would like
        (2048, 4, 50, 64),
        (100032, 4, 1, 16),
    ],
)
def test_the_width_of_a_strip(n_frames, itemsize, largest_orbit, expected):
    assert strip_reflections(n_frames, itemsize, largest_orbit) == expected


def test_rows_that_hold_no_frame_are_not_read(problem):
    """HELD = 100 frames fill 13 eights: what lies beyond them does not matter, and the bits are those of zeros."""
    w_t, total, data, *rest = problem
    spoilt = np.where(np.arange(T)[:, None] < 104, data, np.float32(np.nan))
    expected = one(w_t, total, data, *rest)
    found = one(w_t, total, spoilt, *rest, held=np.arange(T) < HELD)
    assert all(np.array_equal(mine, all_rows) for mine, all_rows in zip(found, expected))
    assert np.isnan(one(w_t, total, spoilt, *rest).m1).all()
