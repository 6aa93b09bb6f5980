"""What all shards of a store share, agreed on before the first is made: reflections, F0 and s."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from hpcfit.config import Config, PrepareConfig
from hpcfit.config.table import changed
from hpcfit.errors import InputError
from hpcfit.log import logger
from hpcfit.physics import reciprocal
from hpcfit.prepare.dealing import Dealer, batches
from hpcfit.prepare.shards import check_same_settings
from hpcfit.prepare.sources import FrameSource, all_on_store, is_simulation, stores_among
from hpcfit.readers.other_store import StoreSource, reflections_of_stores
from hpcfit.readers.reflections import SAME_CELL, Presence, agree, merged, survey
from hpcfit.store.catalog import REFERENCE, read_reference, read_reference_settings, write_reference
from hpcfit.store.files import write_text
from hpcfit.store.reference import Reference, Reflections

SURVEYED = 50  # files in one task: so many are read again if its worker dies


def agreed_reference(
    config: Config, sources: Sequence[FrameSource], settings: dict[str, str], dealer: Dealer
) -> Reference:
    """The reference that the store was begun with, or a new one of these sources, written. Collective.

    Raises InputError when the store was begun with other settings, or when reflections cannot be agreed on.
    """
    prepare, folder = config.prepare, config.frames.store
    found = dealer.on_root(lambda: _existing(folder, settings))
    if found is not None:
        return found
    if dealer.on_all(lambda: stores_among(sources)):
        reflections, reference = dealer.on_all(lambda: _of_stores(prepare, sources))
    else:
        reflections, reference = _reflections(prepare, folder, sources, dealer), None
    if reference is None:
        sample = _sampled(all_on_store(sources, reflections, prepare), prepare.sample, dealer)
        reference = dealer.on_root(lambda: Reference.of_sample(reflections, np.stack(sample)))
    dealer.on_root(lambda: write_reference(folder, reference, settings))
    return reference


def _existing(folder: Path, settings: dict[str, str]) -> Reference | None:
    if not (folder / REFERENCE).exists():
        return None
    check_same_settings(folder, read_reference_settings(folder), settings)
    return read_reference(folder)


def _of_stores(prepare: PrepareConfig, stores: Sequence[StoreSource]) -> tuple[Reflections, Reference | None]:
    """What `reflections_of_stores` finds; InputError for settings that mean nothing there."""
    of_inputs = sorted(changed(prepare) & {"cell", "supercell", "space_group", "oversampling"})
    if of_inputs:
        raise InputError(
            f"[prepare] {', '.join(of_inputs)} would have no effect: the source is the store {stores[0].store}",
            remedy="leave it out",
        )
    return reflections_of_stores(stores, prepare.d_min)


def _reflections(prepare: PrepareConfig, folder: Path, sources, dealer: Dealer) -> Reflections:
    """Those common to all files of structure factors; without such files, the sphere to d_min."""
    given = [source for source in sources if not is_simulation(source)]
    if not given:
        return dealer.on_all(lambda: _sphere(prepare, sources))
    files = [file for source in given for file in source.reflection_files]
    surveys = dealer.dealt(survey, batches(files, SURVEYED))
    reflections, presence = dealer.on_all(lambda: agree(merged(surveys), prepare.supercell, prepare.d_min))
    dealer.on_all(lambda: _compare_cells(prepare, files[0].path, reflections))
    dealer.on_root(lambda: _report_missing(folder, presence, len(reflections)))
    group = prepare.space_group or reflections.space_group
    return Reflections(reflections.hkl, reflections.ndiv, reflections.cell, group)


def _compare_cells(prepare: PrepareConfig, file: Path, reflections: Reflections) -> None:
    if prepare.cell is not None and not np.allclose(prepare.cell, reflections.cell, rtol=SAME_CELL):
        raise InputError(
            f"[prepare] cell = {prepare.cell}, {file} has {reflections.cell}",
            remedy="leave cell out, or correct it or supercell",
        )


def _report_missing(folder: Path, presence: Sequence[Presence], common: int) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Presence._fields)
    writer.writerows(presence)
    write_text(folder / "missing.csv", text.getvalue())
    incomplete = [row for row in presence if row.missing]
    log = logger.warning if incomplete else logger.info
    log(
        "%d reflections are common to all %d files; %d files lack reflections that others have (%s)",
        common,
        len(presence),
        len(incomplete),
        folder / "missing.csv",
    )
    for row in incomplete[:5]:
        log("  %s lacks %d of %d", row.file, row.missing, row.reflections + row.missing)


def _sphere(prepare: PrepareConfig, sources: Sequence[FrameSource]) -> Reflections:
    """All reflections of the supercell to d_min; the cell is the config's, or that of the first source."""
    if prepare.d_min is None:
        raise InputError("[prepare] d_min is not set", remedy="set d_min in A: structure factors are computed to there")
    cell, box = prepare.cell, sources[0].topology.cell
    if cell is None and box is None:
        raise InputError(f"{sources[0].path} has no box and its topology no cell", remedy="set [prepare] cell")
    if cell is None:
        cell = (*(length / n for length, n in zip(box[:3], prepare.supercell)), *box[3:])
    group = prepare.space_group or "P 1"
    reciprocal.laue_operations(group)  # an unknown name is an error now, not at the fit
    return Reflections(reciprocal.sphere(cell, prepare.supercell, prepare.d_min), prepare.supercell, cell, group)


def _sampled(sources: Sequence[FrameSource], number: int, dealer: Dealer) -> list[np.ndarray] | None:
    """F [H] of frames spread evenly over all sources, on root; the same whoever computes them."""
    ends = np.cumsum([source.n_frames for source in sources])
    rows = np.unique(np.linspace(0, ends[-1] - 1, min(number, ends[-1])).round().astype(int))
    owners = np.searchsorted(ends, rows, side="right")
    logger.info("reference: mean and spread of %d frames of %d sources", len(rows), len(set(owners.tolist())))
    chosen = [(int(o), int(row - ends[o] + sources[o].n_frames)) for row, o in zip(rows, owners)]
    return dealer.dealt_to_root(partial(sample_frame, dealer.share(sources)), chosen)


def sample_frame(sources: Sequence[FrameSource], chosen: tuple[int, int]) -> np.ndarray:
    """F [H] of one frame, given as (number of its source, number in the source)."""
    number, start = chosen
    return next(iter(sources[number].frames(start, start + 1))).structure_factors
