"""Diffuse intensities, and their gradients with respect to frame weights, from one reading of the structure factors.

A loss of the intensities x_o of orbits has the gradient sum_o a_o dx_o/dw_t. Where a_o is a combination of given
functions of the orbit and of one power of x_o, the sum over each of them can be formed before its factor is known, and
factors that need all reflections (means, variances, a scale) are applied to the few sums G_kt afterwards. So a strip of
reflections, for all frames, is read from memory once: the second traversal finds it in the cache.

Any number of weight vectors share the reading: of many fits of the same frames.

Of a strip, with the stored f = (F - F0) / s, F0 in units of s, and weights w_t of sum W:

    m1_h = sum_t w_t f_th                   m2_h = sum_t w_t |f_th|^2               M1_h = m1_h + W F0_h
    x_h  = m2_h + 2 F0_h.m1_h + W |F0_h|^2 - |M1_h|^2                                x_o = sum_{h in o} share_h x_h
    c_kh = share_h basis_k,o(h)             c_Kh = share_h powered_o(h) x_o(h)^power
    G_kt = sum_h c_kh f_th.(f_th - 2 (M1_h - F0_h))

which is sum_h c_kh dx_h/dw_t without |F0_h|^2 - 2 M1_h.F0_h: the same for all frames, and the caller's to add where the
weights are not on the simplex.

Types: running sums have that of ``w_t``. Moments are summed over 64 frames in it and over these blocks in float64; G is
summed over one strip and then over strips. x and c are found in float64. Nothing depends on other tiles or on threads.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from hpcfit.kinds.frame_weights.orbit_sums import FRAMES, Coefficients, Orbits, Sums

LANES = 16  # a strip is a multiple of it: the widest vectors hold 16 float32, and no remainder is left to a slow loop

# A strip is wide enough that adding up the lanes of a vector takes less time than filling them, and no wider where all
# frames would take more than a core's L2 cache of 1 to 2 MiB; the next strip takes the place of the one in use line by
# line. Measured on a core of Zen 4 (1 MiB, plain stream 14 GB/s) by its CPU time with K = 3, GB/s of the data:
#   2048 frames  float32  32: 13.5  64: 13.2  128:  9.4      float16  64: 9.4   96: 10.3  128: 9.0
#    256 frames  float32  64: 12.8  96: 12.0  128:  9.5      float16  64: 8.5   96:  9.1  128: 9.3  256: 7.2
#   5056 frames  float32  16: 10    32: 12.6 in some processes and 5 in others, 1.2 MiB     float16  32: 7.6   64: 9.0
STRIP_BYTES = 1 << 20
NARROWEST = 16
WIDEST = {2: 96, 4: 64, 8: 32}  # by the bytes of a real


def one_pass(
    w_rt: Any,
    totals: Any,
    data: Any,
    orbits: Orbits,
    coefficients: Coefficients,
    F0: Any = None,
    *,
    of: Any = None,
    held: Any = None,
    threads: int = 1,
) -> Sums:
    """Moments and partial gradients (see the module) of all tiles; x and G have the units of s^2, here share's.

    w_rt: [R, T] float32 or float64, R weight vectors, 0 for frames that pad; totals: [R], W of each of them.
    data: [tiles, strips, T, 2 strip] float16, float32 or float64, real and imaginary parts alternating.
    F0: [tiles, width, 2] in units of s, with width = strips * strip; None: zero.
    of: [R], which set of coefficients each weight vector has; None: there are R of them.
    held: [T] bool, which of the rows are frames; the others pad, and need not be read. None: all of them.
    threads: of a CPU, each with tiles of its own; a GPU uses what it has.
    The bits of a weight vector's sums do not depend on the others. A frame that is not finite makes G not finite.
    Raises ValueError if T or strip is not a multiple of 64 or 16, or the data have a wider type than the weights.
    """
    tiles, strips, n_frames, columns = data.shape
    if data.dtype.itemsize > w_rt.dtype.itemsize:
        raise ValueError(f"data in {data.dtype} cannot be summed in the weights' {w_rt.dtype}")
    if n_frames % FRAMES or columns % (2 * LANES):
        raise ValueError(f"{n_frames} frames, strips of {columns / 2:g}: not multiples of {FRAMES} and {LANES}")
    if F0 is None:
        F0 = np.zeros((tiles, strips * columns // 2, 2), w_rt.dtype)
    of = np.arange(len(w_rt)) if of is None else of
    # Numba or XLA, whichever serves the device; neither is imported for the other's sake.
    if jax.default_backend() == "cpu":
        from hpcfit.kinds.frame_weights import one_pass_cpu

        return Sums(*one_pass_cpu.sums(w_rt, totals, data, F0, orbits, coefficients, of, threads, held))
    from hpcfit.kinds.frame_weights import one_pass_xla

    return Sums(*one_pass_xla.sums(w_rt, totals, data, F0, orbits, coefficients, of))


def as_read(arrays: Any) -> Any:
    """A tree of arrays of JAX as the pass reads them without a copy: on a CPU those of NumPy."""
    return jax.tree.map(np.asarray, arrays) if jax.default_backend() == "cpu" else arrays


def strip_reflections(n_frames: int, itemsize: int, largest_orbit: int) -> int:
    """Reflections of a strip, for reals of ``itemsize`` bytes; a function of the data set, not of the machine.

    Of the widths that the cache allows, the one that whole orbits of the largest size fill best.
    """
    narrowest = max(NARROWEST, -(-largest_orbit // LANES) * LANES)
    fitting = STRIP_BYTES // (2 * n_frames * itemsize)
    widths = range(narrowest, max(narrowest, min(fitting, WIDEST[itemsize])) + 1, LANES)
    return min(widths, key=lambda width: (width % largest_orbit / width, -width))
