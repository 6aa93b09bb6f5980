"""Ensembles of `hpcfit export`: frames drawn by their weights, with positions of a store, as XTC or PDB of models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcfit.errors import InputError
from hpcfit.log import logger
from hpcfit.readers.cells import cell_of
from hpcfit.readers.gromacs_files import write_xtc
from hpcfit.readers.pdb_columns import Model, write_pdb
from hpcfit.runs.files import RunFiles
from hpcfit.runs.hdf5 import texts
from hpcfit.runs.wanted import Wanted
from hpcfit.store.catalog import frame_rows
from hpcfit.store.files import read_csv, write_csv
from hpcfit.store.frame import Frame
from hpcfit.store.positions import ParticleStore, open_position_store, read_block

ENSEMBLES = (".xtc", ".pdb")
FRAMES = 100  # drawn without --frames
COLUMNS = ("number", "frame", "source", "index", "weight")
TURNED = 1e-3  # of its length: how far a box vector may lie off the axes that a PDB file gives its cell


@dataclass(frozen=True)
class WeightedFrames:
    """The frames of a run that have weight, with their places in a store of positions, in the order of that store.

    frame: [T] ids in the run; source, index: where they are from; weight: [T], of sum 1; place: [T] ids in the store.
    """

    store: ParticleStore
    frame: np.ndarray
    source: np.ndarray
    index: np.ndarray
    weight: np.ndarray
    place: np.ndarray

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """Blocks of the store: rows [k] here, positions [k, n, 3] (A), and boxes [k, 3, 3] or None."""
        for block in self.store.blocks():
            rows = np.flatnonzero((self.place >= block.first_id) & (self.place < block.first_id + block.frames))
            if len(rows):
                found, within = read_block(self.store, block), self.place[rows] - block.first_id
                yield rows, found.positions[within], None if found.box is None else found.box[within]


def weighted_frames(run: RunFiles, folder: Path | None) -> WeightedFrames:
    """The frames of a run in a store of positions, found by source and index; without a map, by their number.

    Raises InputError without a store, for weights that are no shares, and for frames that the store does not have.
    """
    if folder is None:
        raise InputError(
            "no store of positions was given",
            remedy="give --positions, a store that [prepare] content = 'positions' makes of the same trajectories",
        )
    store, (frame, source, index, weight) = open_position_store(folder), _weights(run)
    if not (np.all(weight >= 0) and np.isfinite(weight).all() and weight.sum() > 0):
        raise InputError(
            f"run directory {run.directory}: weights from {weight.min():g} to {weight.max():g} are no shares of an"
            " ensemble",
            remedy='give a run with weights = "simplex"',
        )
    place = _places(run, store, frame, source, index)
    order = np.argsort(place, kind="stable")
    order = order[weight[order] > 0]
    columns = frame[order], source[order], index[order], weight[order] / weight.sum(), place[order]
    return WeightedFrames(store, *columns)


def _weights(run: RunFiles) -> tuple[np.ndarray, ...]:
    """Id, source, index and weight of each frame; of a run without a map source is ""."""
    if run.has("weights.h5"):
        table = run.datasets("weights.h5", ("frame", "source", "index", "weight"))
        return table["frame"], np.array(texts(table["source"]), object), table["index"], table["weight"]
    rows = read_csv(run.path("weights.csv"))
    frame = np.array([int(row["frame"]) for row in rows])
    return frame, np.full(len(rows), "", object), frame, np.array([float(row["weight"]) for row in rows])


def _places(run: RunFiles, store: ParticleStore, frame: np.ndarray, source: np.ndarray, index: np.ndarray):
    """The id in the store of each frame, [T]."""
    rows = frame_rows(store, store.blocks())
    if not run.has("weights.h5"):
        if len(frame) != store.n_frames:
            raise InputError(
                f"run directory {run.directory} weighs {len(frame)} frames, {store.folder} has {store.n_frames}",
                remedy="give the positions of the same frames",
            )
        return rows.id[frame]
    known = dict(zip(zip(rows.source, rows.index.tolist()), rows.id.tolist()))
    if len(known) < len(rows.id):
        raise InputError(
            f"{store.folder} has {len(rows.id)} frames, of which {len(known)} differ in source and index",
            remedy="give each trajectory a file name of its own, and prepare again",
        )
    wanted = list(zip(source.tolist(), index.tolist()))
    absent = [one for one in wanted if one not in known]
    if absent:
        there = ", ".join(sorted(set(rows.source))[:5])
        raise InputError(
            f"{store.folder} lacks {len(absent)} of the {len(wanted)} frames of {run.directory}, for instance frame"
            f" {absent[0][1]} of '{absent[0][0]}'; its sources are {there}",
            remedy="prepare positions of the same trajectories, with the same start, stop and stride",
        )
    return np.array([known[one] for one in wanted])


def systematic(weight: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Rows [n], ascending, drawn by weights [T] at equal distances from one random number on, so that the copies of a
    row differ from n w by less than 1 (Kitagawa 1996, 10.1080/10618600.1996.10474692)."""
    edges = np.cumsum(weight) / np.sum(weight)
    edges[-1] = 1.0
    points = (np.arange(n) + np.random.default_rng(seed).random()) / n
    return np.minimum(np.searchsorted(edges, points, side="right"), len(weight) - 1)


def export_ensemble(run: RunFiles, file: Path, wanted: Wanted) -> None:
    """Draw frames by weight and write them, and beside them a table of the same name that says which they are."""
    table, n = file.with_suffix(".csv"), FRAMES if wanted.frames is None else wanted.frames
    if n < 1:
        raise InputError(f"--frames {n}", remedy="draw at least one frame")
    wanted.check_is_free(table)
    frames = weighted_frames(run, wanted.positions)
    rows = systematic(frames.weight, n, wanted.seed or 0)
    if file.suffix.lower() == ".xtc":
        write_xtc(file, _drawn(frames, rows))
    else:
        about = (f"HPCFIT: {n} FRAMES DRAWN BY WEIGHT, SEE {table.name.upper()}",)
        write_pdb(file, frames.store.particles, map(_as_model, _drawn(frames, rows)), about)
    columns = (part[rows] for part in (frames.frame, frames.source, frames.index, frames.weight))
    write_csv(table, COLUMNS, zip(range(n), *columns, strict=True))
    logger.info(
        "%s: %d frames drawn by weight, %d different ones of %d, the most frequent one %d times; %s says which",
        file, n, len(np.unique(rows)), len(frames.weight), np.bincount(rows).max(), table,
    )  # fmt: skip


def _drawn(frames: WeightedFrames, rows: np.ndarray) -> Iterator[Frame]:
    """The drawn frames one by one, in the order of the store; the step of each is its id in the run."""
    copies = np.bincount(rows, minlength=len(frames.weight))
    for of_block, positions, boxes in frames.parts():
        for row, r, box in zip(of_block, positions, [None] * len(positions) if boxes is None else boxes):
            for _ in range(copies[row]):
                yield Frame(int(row), r, box=box, step=int(frames.frame[row]))


def _as_model(frame: Frame) -> Model:
    return Model(frame.positions, pdb_cell(frame.box))


def pdb_cell(box: np.ndarray | None) -> tuple[float, ...] | None:
    """The cell of a box, for a PDB file. Raises InputError where a does not lie along x, or b not in the plane xy."""
    if box is None:
        return None
    if np.any(np.abs(np.triu(box, 1)) > TURNED * np.abs(np.diag(box)).max()):
        raise InputError(
            f"the box {box.tolist()} A has a not along x, or b not in the plane of x and y, as a PDB file has them",
            remedy="write an XTC, which keeps the box as it is",
        )
    return cell_of(box)
