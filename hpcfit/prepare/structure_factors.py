"""Preparing structure factors: the sources, and what all shards share: reflections, F0 and s."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from hpcfit.config import Config, PrepareConfig
from hpcfit.config.frames import LATER
from hpcfit.config.table import changed
from hpcfit.errors import InputError
from hpcfit.log import logger
from hpcfit.physics import reciprocal
from hpcfit.physics.scattering import SITE, FFTError
from hpcfit.prepare.dealing import Dealer, batches
from hpcfit.prepare.shards import Begun, begun, check_same_settings
from hpcfit.prepare.sources import (
    Source,
    all_on_store,
    described,
    entries,
    is_simulation,
    open_sources,
    sharing_elements,
    stores_among,
    unread,
    with_checksums,
    with_unique_names,
)
from hpcfit.readers.bonding import ION_ELEMENTS, formula
from hpcfit.readers.cells import cell_of
from hpcfit.readers.lunus import LunusSource
from hpcfit.readers.other_store import StoreSource, reflections_of_stores
from hpcfit.readers.reflections import SAME_CELL, Presence, agree, merged, survey
from hpcfit.readers.trajectory import LARGEST_BOX_CHANGE, TrajectorySource
from hpcfit.store.files import sha256_of_file, write_csv
from hpcfit.store.reference import Encoding, Reference, Reflections
from hpcfit.store.structure_factors import FactorContent, read_reference

LUNUS_WEIGHTS = "lunus_weights.csv"
FFT_SAMPLE = 200  # reflections
SAMPLED_BOXES = 64  # of a trajectory
NOTABLE_SPREAD = 0.005  # relative, half of the range of a length
TABLES = {
    "xray": "X-rays (IT92), F in electrons", "neutron": "neutrons (Neutron92), F in fm",
    "electron": "electrons (C4322), F in A",
}  # fmt: skip
SURVEYED = 50  # files in one task: so many are read again if its worker dies


def begin_factors(config: Config, dealer: Dealer) -> Begun:
    """Open the sources of a store of structure factors and agree on its reference. Collective.

    Raises InputError when the store was begun with other settings, or when reflections cannot be agreed on.
    """
    prepare, folder = config.prepare, config.frames.store
    opened = _open_sources(prepare, dealer)
    dealer.on_root(lambda: _log_form_factors(prepare, opened))
    settings = dealer.on_root(lambda: _settings(prepare, opened))
    encoding = Encoding(prepare.dtype, prepare.mantissa_bits, prepare.compression)
    reference = dealer.on_root(lambda: _existing(folder, settings)) or _agreed(config, opened, dealer)
    content = FactorContent(reference, encoding)
    store = dealer.on_root(lambda: begun(folder, content, settings))
    sources = dealer.on_all(lambda: all_on_store(opened, reference.reflections, prepare))
    decided_by = [reference.digest(), encoding, [prepare.positions, prepare.forces, prepare.oversampling]]
    decided_by += [prepare.later] if prepare.later else []
    dealer.on_root(lambda: _write_given_weights(folder, sources))
    return Begun(tuple(sources), content, store, decided_by, dealer.on_root(lambda: _fft_error(sources)))


def _fft_error(sources: Sequence[Source]) -> FFTError | None:
    """The error of the first frame of the first trajectory; structure factors from files are not ours to judge."""
    first = next(filter(is_simulation, sources), None)
    return None if first is None else first.fft_error(0, FFT_SAMPLE)


def _open_sources(prepare: PrepareConfig, dealer: Dealer) -> list[Source]:
    found = dealer.on_root(lambda: entries(prepare))
    parts = dealer.dealt(partial(open_sources, prepare), found)
    opened = sharing_elements([source for part in parts for source in part])
    checksums = dealer.dealt(sha256_of_file, [file for source in opened for file in unread(source)], at_once=50)
    return dealer.on_all(lambda: with_unique_names(with_checksums(opened, checksums)))


def _settings(prepare: PrepareConfig, sources: Sequence[Source]) -> dict[str, str]:
    """Everything that decides the bytes of a store, as text: what a restart must find unchanged."""
    chosen = prepare.model_dump(mode="json", exclude={"source", "content", *LATER}) | prepare.later
    return {key: json.dumps(value) for key, value in chosen.items()} | _of_other_stores(sources) | described(sources)


def _of_other_stores(sources: Sequence[Source]) -> dict[str, str]:
    """What scatters in the stores among the sources, as their settings say it; InputError where they differ."""
    said: dict[Path, dict[str, str]] = {}
    for source in sources:
        if isinstance(source, StoreSource) and source.store not in said:
            before = FactorContent.begun_with(source.store)[1]
            said[source.store] = {key: before[key] for key in LATER if key in before}
    first = next(iter(said), None)
    for folder, settings in said.items():
        for key in LATER:
            if settings.get(key) != said[first].get(key):
                raise InputError(
                    f"store {first} has {key} = {said[first].get(key, 'its default')}, store {folder} has"
                    f" {settings.get(key, 'its default')}",
                    remedy="prepare them into different stores",
                )
    return said.get(first, {})


def _log_form_factors(prepare: PrepareConfig, sources: Sequence[Source]) -> None:
    """Say which atoms scatter how: of the ions, that they count as neutral atoms where the config says no charges."""
    simulated = [source for source in sources if is_simulation(source)]
    for source in {source.topology.elements: source for source in simulated}.values():
        elements = [one for one in source.topology.elements if one != SITE]
        logger.info("%s: %s atoms scatter, %s", source.path, len(elements), formula(elements))
    there = {element for source in simulated for element in source.topology.elements}
    if absent := sorted(set(prepare.charges) - there) if simulated else []:
        raise InputError(
            f"[prepare] charges name {', '.join(absent)}; the sources have {', '.join(sorted(there - {SITE}))}",
            remedy="correct charges: the charge of all atoms of an element, such as charges = {Na = 1, Cl = -1}",
        )
    if simulated:
        ions = sorted(there & ION_ELEMENTS | set(prepare.charges))
        words = "".join(f", {ion} {prepare.charges.get(ion, 0):+d}" for ion in ions).replace("+0", "neutral")
        logger.info("form factors: %s%s", TABLES[prepare.radiation], words)


def _existing(folder: Path, settings: dict[str, str]) -> Reference | None:
    """The reference that the store was begun with."""
    if not FactorContent.is_begun(folder):
        return None
    check_same_settings(folder, FactorContent.begun_with(folder)[1], settings)
    return read_reference(folder)


def _agreed(config: Config, sources: Sequence[Source], dealer: Dealer) -> Reference:
    """A new reference of these sources."""
    prepare = config.prepare
    if dealer.on_all(lambda: stores_among(sources)):
        reflections, reference = dealer.on_all(lambda: _of_stores(prepare, sources))
    else:
        reflections, reference = _reflections(prepare, config.frames.store, sources, dealer), None
    if reference is None:
        sample = _sampled(all_on_store(sources, reflections, prepare), prepare.sample, dealer)
        reference = dealer.on_root(lambda: Reference.of_sample(reflections, np.stack(sample)))
    return reference


def _of_stores(prepare: PrepareConfig, stores: Sequence[StoreSource]) -> tuple[Reflections, Reference | None]:
    """What `reflections_of_stores` finds; InputError for settings that mean nothing there."""
    of_inputs = sorted(changed(prepare) & {"cell", "supercell", "space_group", "oversampling", *LATER})
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
        cells = dealer.dealt(sampled_cells, sources)
        dealer.on_root(lambda: _check_spread(sources, cells))
        return dealer.on_all(lambda: _sphere(prepare, sources, _mean_cell(cells)))
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
    write_csv(folder / "missing.csv", Presence._fields, presence)
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


def sampled_cells(source: TrajectorySource) -> np.ndarray:
    """The boxes of frames spread evenly over a trajectory as lengths (A) and angles, [at most 64, 6]; none where frames
    have none."""
    rows = np.unique(np.linspace(0, source.n_frames - 1, min(SAMPLED_BOXES, source.n_frames)).round().astype(int))
    boxes = (next(iter(source.read(row, row + 1))).box for row in rows.tolist())
    return np.array([cell_of(np.asarray(box, float)) for box in boxes if box is not None]).reshape(-1, 6)


def _mean_cell(cells: Sequence[np.ndarray]) -> tuple[float, ...] | None:
    """The mean over the boxes of all sources; None where they have none."""
    every = np.concatenate(cells)
    if not len(every):
        return None
    return tuple(map(float, every[0] if not np.ptp(every, axis=0).any() else every.mean(axis=0)))


def _check_spread(sources: Sequence[Source], cells: Sequence[np.ndarray]) -> None:
    """Say how much the boxes of each source vary, where they do; InputError where lengths vary by more than 5 %."""
    for source, found in zip(sources, cells):
        if len(found) < 2 or not np.ptp(found, axis=0).any():
            continue
        mean = found.mean(axis=0)
        axis = int(np.argmax(np.ptp(found[:, :3], axis=0) / mean[:3]))
        low, high = (int(pick(found[:, axis])) for pick in (np.argmin, np.argmax))
        if np.ptp(found[:, axis]) > LARGEST_BOX_CHANGE * mean[axis]:
            rows = np.linspace(0, source.n_frames - 1, len(found)).round().astype(int)
            frames = [source.rows[int(rows[one])] for one in (low, high)]
            raise InputError(
                f"{source.path}: the box is {np.round(found[low, :3], 3).tolist()} A in frame {frames[0]} and"
                f" {np.round(found[high, :3], 3).tolist()} A in frame {frames[1]}; it may vary by"
                f" {100 * LARGEST_BOX_CHANGE:g} %",
                remedy="use the frames of one box, with start and stop of the source",
            )
        spread = 100 * np.ptp(found[:, :3], axis=0) / mean[:3] / 2
        log = logger.warning if spread.max() > 100 * NOTABLE_SPREAD else logger.info
        log(
            "%s: the box varies, its lengths by +-%s %% of %s A: a reflection h is then a band of s, and F are those of"
            " fractional coordinates",
            source.path, ", ".join(f"{one:.2g}" for one in spread), ", ".join(f"{one:.3f}" for one in mean[:3]),
        )  # fmt: skip


def _sphere(prepare: PrepareConfig, sources: Sequence[Source], mean: tuple[float, ...] | None) -> Reflections:
    """All reflections of the supercell to d_min. The cell is the config's, or that of the mean box, or of the topology;
    the space group is the config's, or that which the topology names for one cell."""
    if prepare.d_min is None:
        raise InputError("[prepare] d_min is not set", remedy="set d_min in A: structure factors are computed to there")
    cell, box = prepare.cell, mean or sources[0].topology.cell
    if cell is None and box is None:
        raise InputError(f"{sources[0].path} has no box and its topology no cell", remedy="set [prepare] cell")
    if cell is None:
        cell = (*(length / n for length, n in zip(box[:3], prepare.supercell)), *box[3:])
    group = prepare.space_group or _named_group(prepare, sources[0])
    reciprocal.laue_operations(group)  # an unknown name is an error now, not at the fit
    return Reflections(reciprocal.sphere(cell, prepare.supercell, prepare.d_min), prepare.supercell, cell, group)


def _named_group(prepare: PrepareConfig, source: TrajectorySource) -> str:
    """The space group that a topology of one unit cell names, else P 1."""
    import gemmi

    name = source.topology.space_group if tuple(prepare.supercell) == (1, 1, 1) else ""
    return name if name and gemmi.find_spacegroup_by_name(name) is not None else "P 1"


def _sampled(sources: Sequence[Source], number: int, dealer: Dealer) -> list[np.ndarray] | None:
    """F [H] of frames spread evenly over all sources, on root; the same whoever computes them."""
    ends = np.cumsum([source.n_frames for source in sources])
    rows = np.unique(np.linspace(0, ends[-1] - 1, min(number, ends[-1])).round().astype(int))
    owners = np.searchsorted(ends, rows, side="right")
    logger.info("reference: mean and spread of %d frames of %d sources", len(rows), len(set(owners.tolist())))
    chosen = [(int(o), int(row - ends[o] + sources[o].n_frames)) for row, o in zip(rows, owners)]
    return dealer.dealt_to_root(partial(sample_frame, dealer.share(sources)), chosen)


def sample_frame(sources: Sequence[Source], chosen: tuple[int, int]) -> np.ndarray:
    """F [H] of one frame, given as (number of its source, number in the source)."""
    number, start = chosen
    return next(iter(sources[number].frames(start, start + 1))).structure_factors


def _write_given_weights(folder: Path, sources: Sequence[Source]) -> None:
    """Write ``lunus_weights.csv`` (frame, weight) of all frames whose LUNUS checkpoints have weights, 0 included."""
    ends = np.cumsum([0, *(source.n_frames for source in sources)])
    ids, weights = [], []
    for source, first in zip(sources, ends.tolist()):
        found = source.weights() if isinstance(source, LunusSource) else None
        if found is not None:
            ids += range(first, first + source.n_frames)
            weights += found.tolist()
    if weights:
        write_csv(folder / LUNUS_WEIGHTS, ("frame", "weight"), zip(ids, weights))
        _report_weights(folder / LUNUS_WEIGHTS, np.array(weights))


def _report_weights(path: Path, weights: np.ndarray) -> None:
    """LUNUS writes its checkpoint before it removes frames: these are not its result."""
    low, high = weights.min(), weights.max()
    logger.info("%s: the weights that LUNUS began with, of %d frames, %g to %g", path, len(weights), low, high)
    if not weights.all():
        logger.warning(
            "%d of %d weights in %s are 0: [problem] prior refuses them until they are replaced by small numbers",
            np.sum(weights == 0), len(weights), path,
        )  # fmt: skip
