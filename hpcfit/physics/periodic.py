"""Periodic cells: nearest images, and the longest distance of which there is but one.

A cell is [3, 3]; its rows are the vectors, A. In JAX: ``physics.internal_coordinates.separation``.
"""

from __future__ import annotations

import numpy as np

from hpcfit.errors import InputError


def nearest_image(step: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Differences [T, ..., 3], A, to the nearest image; they are right within half the width of the box [T, 3, 3]."""
    box = box.astype(float)
    fractions = np.einsum("t...i,tij->t...j", step, np.linalg.inv(box))
    return step - np.einsum("t...i,tij->t...j", np.rint(fractions), box)


def smallest_width(box: np.ndarray) -> float:
    """The smallest distance between opposite faces of any of the cells [..., 3, 3], A."""
    return float(1 / np.linalg.norm(np.linalg.inv(np.asarray(box, float)), axis=-2).max())


def check_cutoff(cutoff: float, box: np.ndarray) -> None:
    """Raise InputError where a bead could meet two images of another within the cut-off (A)."""
    width = smallest_width(box)
    if cutoff > width / 2:
        raise InputError(
            f"the cut-off {cutoff:g} A is beyond half the smallest width of the box, {width:.3f} A",
            remedy=f"use at most {width / 2:.3f} A",
        )
