"""``kinds.frame_weights.one_pass`` on CPUs: loops that Numba compiles for the core they run on.

Both traversals run along the reals of a strip, several frames at a time, so that running sums and coefficients are
loaded once for all of them. The second also asks for the same place of the next strip: the first would otherwise wait
for memory while nothing is computed, and the second compute while nothing is loaded.
"""

from __future__ import annotations

import contextlib
import fcntl
import platform
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
from llvmlite import binding, ir
from numba import njit, typeof, types
from numba.extending import intrinsic, overload

from hpcfit.kinds.frame_weights.orbit_sums import FRAMES, Coefficients, Orbits

TOGETHER = 8  # frames whose weighted values are added before they meet the running sum
CACHE_LINE = 64
HALVES_IN_HARDWARE = platform.machine() != "x86_64" or binding.get_host_cpu_features().get("f16c", False)
# Sums may be reordered, or they could not be formed in vectors; NaN and infinity keep their meaning.
FAST = {"reassoc", "contract", "nsz", "arcp"}

_compiled = njit(fastmath=FAST, nogil=True, error_model="numpy")
LOCK = "hpcfit.lock"  # beside what Numba keeps on disk of the compiled loops


def sums(
    w_rt: np.ndarray,
    totals: np.ndarray,
    data: np.ndarray,
    F0: np.ndarray,
    orbits: Orbits,
    coefficients: Coefficients,
    of: np.ndarray,
    threads: int,
    held: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """m1, m2 and G as ``orbit_sums.Sums``; each thread takes a run of tiles."""
    w_rt, data, kind = np.ascontiguousarray(w_rt), np.ascontiguousarray(data), w_rt.dtype
    if data.dtype == np.float16:
        data = data.view(np.uint16)  # Numba knows no halves; _real reads them
    basis, powered, power = coefficients
    (many, frames), (_, tiles, width), K = w_rt.shape, np.shape(powered), np.shape(basis)[2] + 1
    totals, of = np.ascontiguousarray(totals, float), np.ascontiguousarray(of, np.int64)
    of_tiles = [np.ascontiguousarray(values, float) for values in (F0, orbits.share)]
    basis, powered = (np.ascontiguousarray(values, float) for values in (basis, powered))
    orbit = np.ascontiguousarray(orbits.orbit, np.int32)
    used = np.ones(frames // TOGETHER, bool) if held is None else held.reshape(-1, TOGETHER).any(axis=1)
    m1, m2 = np.empty((many, tiles, width, 2), kind), np.empty((many, tiles, width), kind)
    G = np.zeros((many, tiles, K, frames), kind)

    def arguments(first: int, stop: int) -> tuple:
        c_kj = np.empty((K, data.shape[-1]), kind)
        room = (c_kj, tuple(c_kj), (kind.type(0),) * K)
        arrays = (data, *of_tiles, orbit, basis, powered, m1, m2, G)
        return first, stop, w_rt, used, totals, of, power, *room, *arrays

    def run(own: tuple[int, int]) -> None:
        _tiles(*arguments(*own))

    _make_ready(arguments(0, tiles))
    ends = [tiles * number // threads for number in range(threads + 1)]
    runs = list(pairwise(ends))
    if threads == 1:
        run(runs[0])
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, runs))
    return m1, m2, G


def _make_ready(arguments: tuple) -> None:
    """Compile for arguments of these types, or load what was compiled before.

    One process at a time: where ranks with different types start together, Numba's index of what it keeps may give one
    the code of another.
    """
    signature = tuple(typeof(argument) for argument in arguments)
    if signature in _tiles.signatures:
        return
    folder = Path(_tiles.stats.cache_path)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a file system without locks
            folder.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(open(folder / LOCK, "w")), fcntl.LOCK_EX)
        _tiles.compile(signature)


@njit(fastmath=FAST, nogil=True, error_model="numpy", cache=True)
def _tiles(
    first, stop, w_rt, used, totals, of, power, c_kj, rows, zeros, data, F0, share, orbit, basis, powered, m1, m2, G
):
    """Fill m1, m2 and G of some tiles; c_kj [K, 2 strip]: room for the coefficients of a strip, ``rows`` its K rows.

    used: which eights of rows hold a frame. One weight vector after another runs through the same code, so that its
    bits do not depend on how many there are.
    """
    n, many = data.shape[3] // 2, len(w_rt)
    e_j, x_o = np.empty(2 * n, w_rt.dtype), np.empty(share.shape[1])
    sums, block = np.empty((2, 2 * n)), np.empty((2, 2 * n), w_rt.dtype)
    for tile in range(first, stop):
        for strip in range(data.shape[1]):
            own = slice(strip * n, (strip + 1) * n)
            f_tj = data[tile, strip]
            for r in range(many):
                k = of[r]
                _add_moments(w_rt[r], used, f_tj, sums, block)
                _centre(totals[r], sums, F0[tile, own], m1[r, tile, own], m2[r, tile, own], e_j)
                _intensities(totals[r], sums, F0[tile, own], share[tile, own], orbit[tile, own], x_o)
                _coefficients(share[tile, own], orbit[tile, own], basis[k, tile], powered[k, tile], x_o, power, c_kj)
                # The next strip takes this one's place in the cache while the last vector is done with it.
                ahead = len(f_tj) if r == many - 1 else 0
                _add_gradients(used, f_tj, e_j, rows, zeros, ahead, G[r, tile])


@_compiled
def _add_moments(w_t, used, f_tj, sums, block):
    """sums = (sum_t w_t f_tj, sum_t w_t f_tj^2) in float64, by blocks of 64 frames in the type of w_t."""
    sums[:] = 0
    for first in range(0, len(w_t), FRAMES):
        block[:] = 0
        b1_j, b2_j = block[0], block[1]
        for t in range(first, first + FRAMES, TOGETHER):
            if not used[t // TOGETHER]:
                continue
            w_a = (w_t[t], w_t[t + 1], w_t[t + 2], w_t[t + 3])
            w_b = (w_t[t + 4], w_t[t + 5], w_t[t + 6], w_t[t + 7])
            for j in range(f_tj.shape[1]):
                a1, a2 = _four_frames(w_a, f_tj, t, j)
                b1, b2 = _four_frames(w_b, f_tj, t + 4, j)
                b1_j[j] += a1 + b1
                b2_j[j] += a2 + b2
        for j in range(f_tj.shape[1]):
            sums[0, j] += b1_j[j]
            sums[1, j] += b2_j[j]


@_compiled
def _four_frames(w, f_tj, t, j):
    f0, f1, f2, f3 = _real(f_tj[t, j]), _real(f_tj[t + 1, j]), _real(f_tj[t + 2, j]), _real(f_tj[t + 3, j])
    wf0, wf1, wf2, wf3 = w[0] * f0, w[1] * f1, w[2] * f2, w[3] * f3
    return (wf0 + wf1) + (wf2 + wf3), (wf0 * f0 + wf1 * f1) + (wf2 * f2 + wf3 * f3)


@_compiled
def _centre(total, sums, F0, m1, m2, e_j):
    """The moments as they are given out, and e = -2 (M1 - F0) with M1 = m1 + W F0."""
    for h in range(len(m2)):
        m2[h] = sums[1, 2 * h] + sums[1, 2 * h + 1]
        for part in range(2):
            m1[h, part] = sums[0, 2 * h + part]
            e_j[2 * h + part] = -2 * (sums[0, 2 * h + part] + (total - 1) * F0[h, part])


@_compiled
def _intensities(total, sums, F0, share, orbit, x_o):
    """x_o of the orbits of a strip; the others are left as they are."""
    for h in range(len(share)):
        x_o[orbit[h]] = 0
    for h in range(len(share)):
        x = 0.0
        for part in range(2):
            m1, f0 = sums[0, 2 * h + part], F0[h, part]
            # m2 + 2 F0.m1 + W |F0|^2 - |m1 + W F0|^2, without the difference of large terms at W = 1
            x += sums[1, 2 * h + part] - m1 * m1 + (1 - total) * f0 * (2 * m1 + total * f0)
        x_o[orbit[h]] += share[h] * x


@_compiled
def _coefficients(share, orbit, basis, powered, x_o, power, c_kj):
    """c_kj = share basis_k, and last share powered x^power, for both reals of each reflection."""
    K0 = len(basis)
    for k in range(K0):
        for h in range(len(share)):
            c_kj[k, 2 * h] = c_kj[k, 2 * h + 1] = share[h] * basis[k, orbit[h]]
    for h in range(len(share)):
        factor = share[h] * powered[orbit[h]]
        if factor != 0:  # padding has x = 0
            factor *= x_o[orbit[h]] if power == 1 else 1 / x_o[orbit[h]]
        c_kj[K0, 2 * h] = c_kj[K0, 2 * h + 1] = factor


@_compiled
def _add_gradients(used, f_tj, e_j, rows, zeros, ahead, G):
    """G_kt += sum_j c_kj f_tj (f_tj + e_j), four frames at a time; asks for what lies ``ahead`` frames on."""
    n_frames, n = f_tj.shape
    for t in range(0, n_frames, 4):
        if not used[t // TOGETHER]:
            continue
        for j in range(0, 4 * n, CACHE_LINE // f_tj.itemsize):
            _fetch(f_tj, (ahead + t) * n + j)
        g0, g1, g2, g3 = zeros, zeros, zeros, zeros
        for j in range(n):
            f0, f1, f2, f3 = _real(f_tj[t, j]), _real(f_tj[t + 1, j]), _real(f_tj[t + 2, j]), _real(f_tj[t + 3, j])
            g0 = _add_rows(g0, rows, j, f0 * (f0 + e_j[j]))
            g1 = _add_rows(g1, rows, j, f1 * (f1 + e_j[j]))
            g2 = _add_rows(g2, rows, j, f2 * (f2 + e_j[j]))
            g3 = _add_rows(g3, rows, j, f3 * (f3 + e_j[j]))
        for k in range(len(zeros)):
            G[k, t] += g0[k]
            G[k, t + 1] += g1[k]
            G[k, t + 2] += g2[k]
            G[k, t + 3] += g3[k]


def _add_rows(g_k, rows, j, q):
    """g_k + rows_k q for all k."""


@overload(_add_rows, jit_options={"fastmath": FAST})
def _add_rows_of_a_tuple(g_k, rows, j, q):
    """Written out for the length of the tuple, so that each sum has a register of its own."""
    if len(g_k) == 1:
        return lambda g_k, rows, j, q: (g_k[0] + rows[0][j] * q,)
    return lambda g_k, rows, j, q: (g_k[0] + rows[0][j] * q, *_add_rows(g_k[1:], rows[1:], j, q))


def _real(stored):
    """A stored number as one to compute with: the bits of a half become float32."""


@overload(_real, inline="always")
def _real_of_its_type(stored):
    if stored != types.uint16:
        return lambda stored: stored
    return (lambda stored: _extended(stored)) if HALVES_IN_HARDWARE else (lambda stored: _composed(stored))


@intrinsic
def _extended(typing_context, bits):
    """LLVM's conversion of a half, an instruction on vectors of them."""

    def extend(context, builder, signature, arguments):
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), extend


@_compiled
def _composed(bits):
    """The same by integers, where LLVM would call a function that the process may not have."""
    wide = np.uint32(bits)
    size = np.uint32((wide & np.uint32(0x7FFF)) << np.uint32(13))
    # The exponent's bias grows from 15 to 127, by a product for the sake of subnormals; infinity and NaN remain.
    number = np.float32(size.view(np.float32) * np.float32(2.0**112)).view(np.uint32)
    if size >= np.uint32(0x7C00 << 13):
        number = np.uint32(size | np.uint32(0x7F800000))
    return np.uint32(number | np.uint32((wide & np.uint32(0x8000)) << np.uint32(16))).view(np.float32)


@intrinsic
def _fetch(typing_context, array, index):
    """Ask for the cache line of an element, counted from the first; it may lie beyond the array, and nothing faults."""

    def prefetch(context, builder, signature, arguments):
        first = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(first, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(function, [address, *(number(value) for value in (0, 2, 1))])  # to read, into L2, data
        return context.get_dummy_value()

    return types.void(array, types.intp), prefetch
