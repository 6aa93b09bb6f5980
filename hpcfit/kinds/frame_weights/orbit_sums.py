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
    """Functions that the gradient combines: c_k = basis_k, k < K0, and c_K0 = powered x^power, by orbit of the tile.

    basis: [tiles, K0, width], K0 may be 0; powered: [tiles, width], 0 for orbits that do not count; power: 1 or -1.
    """

    basis: Any
    powered: Any
    power: int


class Sums(NamedTuple):
    """Sums of all tiles, in the type of the weights: m1 [tiles, width, 2], m2 [tiles, width], G [tiles, K0 + 1, T]."""

    m1: Any
    m2: Any
    G: Any
