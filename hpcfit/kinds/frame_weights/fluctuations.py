"""Fluctuations of atoms in a weighted ensemble: RMSF and B factors with errors, and the mean structure."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.frame_weights.conclusions import memory
from hpcfit.kinds.frame_weights.ensemble import WeightedFrames, pdb_cell, weighted_frames
from hpcfit.log import inputs, logger
from hpcfit.physics.superposition import superposed
from hpcfit.readers.pdb_columns import Model, write_pdb
from hpcfit.runs.files import RunFiles
from hpcfit.runs.wanted import Wanted
from hpcfit.statistics.blocks import jackknife_error
from hpcfit.statistics.resampling import blocks_of_frames, blocks_per_source
from hpcfit.store.files import write_csv

COLUMNS = (
    *("atom", "name", "element", "residue", "residue_number", "chain"),
    *("rmsf_A", "rmsf_error_A", "b_factor_A2", "b_factor_error_A2"),
)
BLOCKS = 20  # of successive frames of a source, for errors; of more sources one each
FEWEST = 3  # atoms that frames are superposed by
PASSES, SETTLED = 20, 1e-4  # superpositions on the mean, and by how much it then may move, A
BROKEN = 0.25  # RMSF over the shortest box vector, beyond which a molecule is in pieces


class Fluctuations(NamedTuple):
    """mean: [n, 3] A; rmsf and b_factors: [n], A and A^2, with their standard errors."""

    mean: np.ndarray
    rmsf: np.ndarray
    rmsf_error: np.ndarray
    b_factors: np.ndarray
    b_error: np.ndarray


def export_fluctuations(run: RunFiles, file: Path, wanted: Wanted) -> None:
    """Write a table with a row an atom, and beside it a PDB of the mean structure with the B factors."""
    structure = file.with_suffix(".pdb")
    wanted.check_is_free(structure)
    frames = weighted_frames(run, wanted.positions)
    particles, selection = frames.store.particles, wanted.superpose or "all"
    found = fluctuations(frames, None if selection == "none" else _chosen(frames, selection))
    box = _mean_box(frames)
    _warn_of_broken_molecules(frames, found, box)
    said = "not superposed" if selection == "none" else f"superposed by weight on their mean by: {selection}"
    about = ("HPCFIT: MEAN OF THE WEIGHTED FRAMES, B = 8 PI^2/3 RMSF^2", f"FRAMES {said}")
    write_pdb(structure, particles, [Model(found.mean, pdb_cell(box), found.b_factors)], about)
    residue = particles.residue
    of_residues = [[column[one] for one in residue]
                   for column in (particles.residue_names, particles.residue_numbers, particles.chains)]  # fmt: skip
    rows = zip(range(len(particles)), particles.names, particles.elements, *of_residues, *found[1:], strict=True)
    write_csv(file, COLUMNS, rows)
    logger.info(
        "%s and %s: %d atoms in %d frames, %s; RMSF %.2f A on average",
        file, structure, len(particles), len(frames.weight), said, found.rmsf.mean(),
    )  # fmt: skip


def _chosen(frames: WeightedFrames, selection: str) -> np.ndarray:
    """The atoms of a selection; raises InputError where they leave a turn open."""
    chosen = frames.store.particles.select(selection)
    if len(chosen) < FEWEST:
        raise InputError(
            f"--superpose '{selection}' selects {len(chosen)} atoms of {frames.store.folder}, which leave turns open",
            remedy=f"select at least {FEWEST} that lie on no line, or none",
        )
    return chosen


def fluctuations(frames: WeightedFrames, chosen: np.ndarray | None) -> Fluctuations:
    """Weighted fluctuations of all atoms about their weighted mean; chosen: the atoms that frames are superposed by, or
    None for frames as they are.

    RMSF^2 = sum_t w_t |r_t - <r>|^2, and B = 8 pi^2 / 3 RMSF^2. Errors are those of a jackknife over blocks of
    successive frames within sources; superposition and mean are those of all frames.
    """
    mean = _mean(frames, chosen)
    number = _blocks(frames)
    n, n_blocks = len(mean), number.max() + 1
    weight, first, second = np.zeros(n_blocks), np.zeros((n_blocks, n, 3)), np.zeros((n_blocks, n))
    for rows, positions, _ in frames.parts():
        deviation = _upon(positions, mean, chosen) - mean
        for row, d in zip(rows, deviation):
            w, block = frames.weight[row], number[row]
            weight[block] += w
            first[block] += w * d
            second[block] += w * (d**2).sum(axis=1)
    total = _variance(weight.sum(), first.sum(axis=0), second.sum(axis=0))
    left_out = np.array(
        [_variance(weight.sum() - weight[b], first.sum(axis=0) - first[b], second.sum(axis=0) - second[b])
         for b in range(n_blocks)]
    )  # fmt: skip
    factor = 8 * np.pi**2 / 3
    b_error, rmsf_error = factor * jackknife_error(left_out), jackknife_error(np.sqrt(left_out))
    return Fluctuations(mean, np.sqrt(total), rmsf_error, factor * total, b_error)


def _blocks(frames: WeightedFrames) -> np.ndarray:
    """The statistical block of each frame, [T]: of a source in the order of time, twice as long as its weights remember
    where there are so many frames."""
    source = np.unique(frames.source, return_inverse=True)[1]
    order = np.lexsort((frames.index, source))
    source, number = source[order], np.empty(len(source), int)
    most = max(BLOCKS // (source[-1] + 1), 1)
    n_blocks = blocks_per_source(source, memory(frames.weight[order], source), most)
    number[order] = blocks_of_frames(source, n_blocks)
    return number


def _variance(weight: float, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The variance [n] of weighted deviations by their sums; NaN where no weight is left."""
    if not weight > 1e-12:
        return np.full(len(second), np.nan)
    return np.maximum(second / weight - ((first / weight) ** 2).sum(axis=1), 0.0)


def _mean(frames: WeightedFrames, chosen: np.ndarray | None) -> np.ndarray:
    """The weighted mean [n, 3] of all frames, superposed on itself: first on the heaviest frame, then on the mean until
    that no longer moves."""
    heaviest = int(np.argmax(frames.weight))
    mean = next(positions[rows == heaviest][0] for rows, positions, _ in frames.parts() if heaviest in rows)
    for _ in range(PASSES):
        before, mean = mean, np.zeros(np.shape(mean))
        for rows, positions, _ in frames.parts():
            mean += np.einsum("t,tix->ix", frames.weight[rows], _upon(positions, before, chosen))
        if chosen is None or np.abs(mean - before).max() < SETTLED:
            return mean
    inputs.warning("the mean structure still moves after %d superpositions: the frames have no common fold", PASSES)
    return mean


def _upon(positions: np.ndarray, reference: np.ndarray, chosen: np.ndarray | None) -> np.ndarray:
    return positions.astype(float) if chosen is None else superposed(positions, reference, chosen)


def _mean_box(frames: WeightedFrames) -> np.ndarray | None:
    parts = [np.einsum("t,txy->xy", frames.weight[rows], box) for rows, _, box in frames.parts() if box is not None]
    return np.sum(parts, axis=0) if parts else None


def _warn_of_broken_molecules(frames: WeightedFrames, found: Fluctuations, box: np.ndarray | None) -> None:
    if box is None or not frames.store.periodic:
        return
    shortest, atom = np.linalg.norm(box, axis=1).min(), int(np.argmax(found.rmsf))
    if found.rmsf[atom] > BROKEN * shortest:
        inputs.warning(
            "the RMSF of %s is %.1f A in a box of %.1f A: molecules are broken at its walls or diffuse; make them whole"
            " before they are prepared, and look at those alone that stay together",
            frames.store.particles.label(atom), found.rmsf[atom], shortest,
        )  # fmt: skip
