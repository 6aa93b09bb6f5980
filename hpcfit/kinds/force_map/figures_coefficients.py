"""The figures of the coefficients of a force map: which atoms carry the force on which bead."""

from __future__ import annotations

from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize

from hpcfit.kinds.force_map.files import Maps
from hpcfit.report.drawing import BLUE, DIVERGING, PALE, UNMEASURED, drawn, shortened

MOST_ATOMS, MOST_BEADS = 600, 60  # of a heat map
MOST_NAMES = 90  # atoms of a single residue that are named
FURTHEST = 12  # residues from the bead; what is further is one


@drawn
def heat_map(maps: Maps, W: np.ndarray):
    """Coefficients W [N, n], atoms in the order of their residues; the atoms of the bead's own rigid groups framed."""
    order = np.argsort(maps.residue, kind="stable")
    n_beads, n_atoms = W.shape
    figure, axis = plt.subplots(figsize=(9, 1.5 + min(6.0, 0.24 * n_beads)))
    limit = 1.2 * float(np.abs(W).max()) or 1.0  # the ends of the colours are too dark for frames to be seen
    mesh = axis.pcolormesh(
        np.arange(n_atoms + 1), np.arange(n_beads + 1), W[:, order], cmap=DIVERGING,
        norm=Normalize(-limit, limit), rasterized=True,
    )  # fmt: skip
    axis.add_collection(LineCollection(_frames(maps.is_own()[:, order]), colors="black", linewidths=0.8))
    axis.set_yticks(np.arange(n_beads) + 0.5, [shortened(name, 20) for name in maps.beads], fontsize=_font(n_beads, 30))
    axis.invert_yaxis()
    axis.grid(visible=False)
    _atom_axis(axis, maps, order)
    figure.colorbar(mesh, ax=axis, label="coefficient", aspect=18, pad=0.01)
    return figure


def _frames(own: np.ndarray) -> list[list[tuple[float, float]]]:
    """A rectangle around each run of atoms of a row that are the bead's own."""
    found = []
    for row, values in enumerate(own):
        steps = np.diff(np.concatenate([[0], values.astype(int), [0]]))
        for left, right in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)):
            found.append([(left, row), (right, row), (right, row + 1), (left, row + 1), (left, row)])
    return found


def _atom_axis(axis, maps: Maps, order: np.ndarray) -> None:
    """Residues with their borders; the atoms where there is but one residue."""
    residue = maps.residue[order]
    first = np.flatnonzero(np.diff(residue, prepend=-1))
    if len(first) > 1:
        middle = (first + np.append(first[1:], len(residue))) / 2
        axis.vlines(first[1:], 0, len(maps.beads), color=UNMEASURED, linewidth=0.5)
        names = [maps.residue_label(number) for number in residue[first]]
        crowded = len(names) > 14
        axis.set_xticks(middle, names, rotation=90 if crowded else 0, fontsize=_font(len(names), 45))
        axis.set_xlabel("atoms, by residue")
    elif len(order) <= MOST_NAMES:
        axis.set_xticks(np.arange(len(order)) + 0.5, [maps.atoms[number] for number in order], rotation=90,
                        fontsize=_font(len(order), 50))  # fmt: skip
        axis.set_xlabel(f"atoms of {maps.residue_label(residue[0])}")
    else:
        axis.set_xlabel(f"number of the atom, all of {maps.residue_label(residue[0])}")
    axis.tick_params(length=0)


def _font(n: int, easy: int) -> float:
    """Points: 8 where there is room for all names, less where there are more."""
    return float(np.clip(8.0 * easy / max(n, 1), 4.0, 8.0))


class Offsets(NamedTuple):
    """Sums of |c| by how many residues the atoms are away from the bead. offset: [d]; total: [beads, d]."""

    offset: np.ndarray
    total: np.ndarray


def by_offset(maps: Maps, W: np.ndarray) -> Offsets:
    """Sums of |c| of coefficients W [N, n]; atoms more than ``FURTHEST`` residues away count as outermost."""
    heaviest = [maps.M.atom[maps.M.bead == bead][np.argmax(maps.M.value[maps.M.bead == bead])]
                for bead in range(len(W))]  # fmt: skip
    offset = np.clip(maps.residue[None, :] - maps.residue[heaviest][:, None], -FURTHEST, FURTHEST)
    steps = np.arange(-FURTHEST, FURTHEST + 1)
    total = np.array([np.bincount(row + FURTHEST, np.abs(c), len(steps)) for row, c in zip(offset, W)])
    kept = total.any(axis=0)
    return Offsets(steps[kept], total[:, kept])


@drawn
def offsets(found: Offsets):
    """Means over the beads, and what nine in ten of them have."""
    figure, axis = plt.subplots(figsize=(9, 3.0))
    mean = found.total.mean(axis=0)
    low, high = np.percentile(found.total, [5, 95], axis=0)
    axis.bar(found.offset, mean, 0.8, color=PALE)
    axis.errorbar(found.offset, mean, yerr=[np.maximum(mean - low, 0), np.maximum(high - mean, 0)], fmt="o", color=BLUE,
                  capsize=3)  # fmt: skip
    axis.set_xticks(found.offset, [_offset_name(step) for step in found.offset])
    axis.set(xlabel="residues away from the bead", ylabel="sum of |coefficient|")
    axis.grid(axis="x", visible=False)
    return figure


def _offset_name(step: int) -> str:
    sign = "≤ −" if step == -FURTHEST else "≥ +" if step == FURTHEST else "−" if step < 0 else "+" if step > 0 else ""
    return f"{sign}{abs(step)}"
