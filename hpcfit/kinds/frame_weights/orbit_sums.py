"""Input and output of one reading of the structure factors (``kinds.frame_weights.one_pass``), for its kernels."""

from __future__ import annotations

from typing import Any, NamedTuple

FRAMES = 64  # T is a multiple of it: the block of frames whose moments are summed in the type of the weights


class Orbits(NamedTuple):
    """The orbits of the reflections of each tile, [tiles, width]; none crosses a strip.

    share: s^2 / reflections of the orbit, 0 for padding; orbit: its number within the tile, 0 ... width - 1, int32.
    """

    share: Any
    orbit: Any


class Coefficients(NamedTuple):
    """Functions that gradients combine: c_k = basis_k, k < K0, and c_K0 = powered x^power, by orbit of the tile.

    There are N sets of them. basis: [N, tiles, K0, width], K0 may be 0; powered: [N, tiles, width], 0 for orbits that
    do not count; power: 1 or -1, of all sets.
    """

    basis: Any
    powered: Any
    power: int


class Sums(NamedTuple):
    """Sums for R weight vectors, in the type of these.

    m1: [R, tiles, width, 2]; m2: [R, tiles, width]; G: [R, tiles, K0 + 1, T].
    """

    m1: Any
    m2: Any
    G: Any
