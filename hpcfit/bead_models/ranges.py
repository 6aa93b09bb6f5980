"""The ranges of the coordinates of a basis (``cg_basis``) that frames show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.bead_models.basis import BasisOptions, Ranges, class_terms
from hpcfit.bead_models.linear import each_frame
from hpcfit.physics.internal_coordinates import COORDINATES


class ObservedRanges:
    """Finds the least and the largest coordinate of each class in frames; of pairs, below the cut-off.

    The terms are looked up once: frames come block by block.
    """

    def __init__(self, types: Sequence[str], bonds: np.ndarray, options: BasisOptions):
        self._cutoff = options.cutoff
        self._terms = {kind: terms for kind, terms in class_terms(types, bonds, options).items() if kind != "dihedrals"}

    def __call__(self, R: np.ndarray, box: np.ndarray | None = None) -> dict[str, tuple[float, float]]:
        """Of frames R [F, N, 3], A, with boxes [F, 3, 3] or none."""
        found: dict[str, tuple[float, float]] = {}
        for kind, (beads, group, labels) in self._terms.items():
            q = np.asarray(_coordinates(kind, jnp.asarray(R), beads, box))
            for number, label in enumerate(labels):
                of_class = q if len(labels) == 1 else q[:, group == number]
                if kind == "pairs" and self._cutoff is not None:
                    of_class = of_class[of_class < self._cutoff]
                if of_class.size:
                    found[f"{kind} {label}"] = (float(of_class.min()), float(of_class.max()))
        return found


def observed_ranges(
    types: Sequence[str], bonds: np.ndarray, options: BasisOptions, R: np.ndarray, box: np.ndarray | None = None
) -> dict[str, tuple[float, float]]:
    """``ObservedRanges`` of frames that are all there."""
    return ObservedRanges(types, bonds, options)(R, box)


def united(ranges: Iterable[Ranges]) -> dict[str, tuple[float, float]]:
    """The ranges of all frames, from those of parts of them."""
    found: dict[str, tuple[float, float]] = {}
    for part in ranges:
        for label, (low, high) in part.items():
            before = found.get(label, (low, high))
            found[label] = (min(before[0], low), max(before[1], high))
    return found


@partial(jax.jit, static_argnums=0)
def _coordinates(kind: str, R: jax.Array, beads: np.ndarray, box: Any) -> jax.Array:
    """[F, T]."""
    return each_frame(lambda r, b: COORDINATES[kind](r, beads, b)[0], R, box)
