"""`hpcfit prepare`: inputs to a store of shards; restartable, on any number of ranks."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.commands.progress import Progress
from hpcfit.config import Config, PrepareConfig
from hpcfit.data import mtz
from hpcfit.data.catalog import REFERENCE, read_reference, read_reference_settings, write_catalog, write_reference
from hpcfit.data.files import write_text
from hpcfit.data.reference import Encoding, Reference, Reflections
from hpcfit.data.shard import ShardPlan, ShardWriter, open_shard
from hpcfit.data.sources import (
    Entry,
    FrameSource,
    entries,
    file_name,
    is_simulation,
    on_store,
    open_source,
    with_unique_names,
)
from hpcfit.errors import DamagedFile, InputError
from hpcfit.log import logger
from hpcfit.physics import reciprocal
from hpcfit.physics.scattering import FFTError
from hpcfit.ranks import Ranks

SAME_CELL = 1e-3  # relative
FFT_SAMPLE = 200  # reflections


class Prepared(NamedTuple):
    """What a run of prepare did. computed: frames of this run, kept: frames of shards that were there."""

    store: Path
    computed: int
    kept: int
    reflections: int
    seconds: float
    fft_error: FFTError | None

    @property
    def rate(self) -> float:
        """Frames a second of this run."""
        return self.computed / self.seconds


def run_prepare(config: Config, ranks: Ranks) -> Prepared:
    """Make the store of `config`, or what is missing of it. Collective; every rank gets the same result.

    Raises InputError for inputs that cannot be used, and for a store that was begun with other settings.
    """
    begun = time.monotonic()
    prepare, folder = config.prepare, config.frames.store
    sources = _open_sources(prepare, ranks)
    settings = _settings(prepare, sources)
    reference = _reference(prepare, folder, sources, settings, ranks)
    sources = _on_store(sources, reference.reflections, prepare)
    encoding = Encoding(prepare.dtype, prepare.mantissa_bits, prepare.compression)
    work = Work(folder, tuple(sources), reference, encoding)
    plans = shard_plans(work, prepare)
    missing = _missing(folder, plans, ranks)
    _announce(work, plans, missing)
    _write_shards(work, missing, ranks)
    ranks.barrier()  # the catalog lists complete shards only
    ranks.on_root(lambda: write_catalog(folder, plans, reference, encoding))
    error = ranks.on_root(lambda: _fft_error(sources))
    computed = sum(plan.n_frames for plan in missing)
    kept = sum(plan.n_frames for plan in plans) - computed
    seconds = ranks.bcast(time.monotonic() - begun)
    return _reported(Prepared(folder, computed, kept, len(reference.reflections), seconds, error))


@dataclass(frozen=True)
class Work:
    """What every shard needs."""

    folder: Path
    sources: tuple[FrameSource, ...]
    reference: Reference
    encoding: Encoding

    def source(self, plan: ShardPlan) -> FrameSource:
        """The source of a plan."""
        return next(source for source in self.sources if source.name == plan.source)


def _everywhere(ranks: Ranks, work: Callable[[], object]) -> list:
    """The results of all ranks, on all ranks; an error on one of them is raised on all."""
    value, error = None, None
    try:
        value = work()
    except Exception as caught:  # every error travels: the other ranks would wait for ever
        error = caught
    ranks.raise_together(error)
    return ranks.bcast(ranks.gather(value))


def _dealt(ranks: Ranks, items: Sequence, work: Callable) -> list:
    """[work(item) for item in items], done by all ranks in turns."""
    parts = _everywhere(ranks, lambda: [work(item) for item in items[ranks.rank :: ranks.size]])
    return [parts[number % ranks.size][number // ranks.size] for number in range(len(items))]


def _open_sources(prepare: PrepareConfig, ranks: Ranks) -> list[FrameSource]:
    if prepare.forces and not prepare.positions:
        raise InputError(
            "[prepare] forces = true with positions = false: H5MD keeps forces beside positions",
            remedy="set positions = true",
        )
    found: list[Entry] = ranks.on_root(lambda: entries(prepare))
    return with_unique_names(_dealt(ranks, found, lambda entry: open_source(entry, prepare)))


def _settings(prepare: PrepareConfig, sources: Sequence[FrameSource]) -> dict[str, str]:
    """Everything that decides the bytes of a store, as text: what a restart must find unchanged."""
    chosen = prepare.model_dump(mode="json", exclude={"source"})
    settings = {key: json.dumps(value) for key, value in chosen.items()}
    settings["sources"] = ", ".join(source.name for source in sources)
    for source in sources:
        settings[f"source {source.name}"] = (
            f"label '{source.label}', {source.n_frames} frames, SHA-256 {_identity(source)}"
        )
    return settings


def _identity(source: FrameSource) -> str:
    """Of the bytes of a source and of the frames that are used."""
    chosen = str(source.rows) if is_simulation(source) else str(source.columns)
    return hashlib.sha256(f"{source.digest} {chosen}".encode()).hexdigest()[:16]


def _reference(prepare, folder: Path, sources, settings, ranks: Ranks) -> Reference:
    """The reference that the store was begun with, or a new one."""
    found = ranks.on_root(lambda: _existing_reference(folder, settings))
    if found is not None:
        return found
    reflections = _reflections(prepare, folder, sources, ranks)
    sources = _on_store(sources, reflections, prepare)
    return _sampled_reference(prepare, folder, (sources, reflections, settings), ranks)


def _existing_reference(folder: Path, settings: dict[str, str]) -> Reference | None:
    if not (folder / REFERENCE).exists():
        return None
    before = read_reference_settings(folder)
    for key in sorted(before.keys() | settings.keys()):
        if before.get(key) != settings.get(key):
            raise InputError(
                f"the store {folder} was prepared with {key} = {before.get(key, 'nothing')};"
                f" the config has {settings.get(key, 'nothing')}",
                remedy="go back to that setting, or give [frames] store another folder",
            )
    return read_reference(folder)


def _reflections(prepare: PrepareConfig, folder: Path, sources, ranks: Ranks) -> Reflections:
    """Those common to all MTZ files; without MTZ files, the sphere to d_min."""
    folders = [source for source in sources if not is_simulation(source)]
    if not folders:
        return _sphere(prepare, sources)
    files = [(file, source.columns) for source in folders for file in source.files]
    surveys = _everywhere(ranks, lambda: mtz.survey(files[ranks.rank :: ranks.size]))
    rows = [surveys[number % ranks.size].rows[number // ranks.size] for number in range(len(files))]
    lists = {digest: hkl for survey in surveys for digest, hkl in survey.lists.items()}
    reflections, presence = mtz.agree(mtz.Survey(lists, rows), prepare.supercell, prepare.d_min)
    if prepare.cell is not None and not np.allclose(prepare.cell, reflections.cell, rtol=SAME_CELL):
        raise InputError(
            f"[prepare] cell = {prepare.cell}, {files[0][0]} has {reflections.cell}",
            remedy="leave cell out, or correct it or supercell",
        )
    ranks.on_root(lambda: _report_missing(folder, presence, len(reflections)))
    group = prepare.space_group or reflections.space_group
    return Reflections(reflections.hkl, reflections.ndiv, reflections.cell, group)


def _report_missing(folder: Path, presence: Sequence[mtz.Presence], common: int) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(mtz.Presence._fields)
    writer.writerows(presence)
    write_text(folder / "missing.csv", text.getvalue())
    incomplete = [row for row in presence if row.missing]
    log = logger.warning if incomplete else logger.info
    log(
        "%d reflections are common to all %d MTZ files; %d files lack reflections that others have (%s)",
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


def _on_store(sources, reflections: Reflections, prepare: PrepareConfig) -> list[FrameSource]:
    furthest = reciprocal.inverse_d2(reflections.hkl, reflections.ndiv, reflections.cell).max() ** -0.5
    d_min = min(prepare.d_min or furthest, furthest)
    return [on_store(source, reflections, d_min, prepare.oversampling) for source in sources]


def _sampled_reference(prepare: PrepareConfig, folder: Path, what, ranks: Ranks) -> Reference:
    """F0 and s from frames spread evenly over all sources; the same whatever the number of ranks."""
    sources, reflections, settings = what
    ends = np.cumsum([source.n_frames for source in sources])
    rows = np.unique(np.linspace(0, ends[-1] - 1, min(prepare.sample, ends[-1])).round().astype(int))
    owners = np.searchsorted(ends, rows, side="right")
    logger.info("reference: mean and spread of %d frames of %d sources", len(rows), len(set(owners.tolist())))

    def structure_factors(chosen):
        row, owner = chosen
        start = int(row - ends[owner] + sources[owner].n_frames)
        return next(iter(sources[owner].frames(start, start + 1))).structure_factors

    def written(f_th):
        reference = Reference.of_sample(reflections, f_th)
        write_reference(folder, reference, settings)
        return reference

    mine = _gathered(ranks, list(zip(rows, owners)), structure_factors)
    return ranks.on_root(lambda: written(np.stack(mine)))


def _gathered(ranks: Ranks, items: Sequence, work: Callable) -> list | None:
    """As `_dealt`, on root only: the results are large."""
    value, error = None, None
    try:
        value = [work(item) for item in items[ranks.rank :: ranks.size]]
    except Exception as caught:  # every error travels: the other ranks would wait for ever
        error = caught
    ranks.raise_together(error)
    parts = ranks.gather(value)
    return parts and [parts[number % ranks.size][number // ranks.size] for number in range(len(items))]


def shard_plans(work: Work, prepare: PrepareConfig) -> list[ShardPlan]:
    """Each source cut into shards; names and digests are functions of source and range, never of ranks."""
    plans, first_id = [], 0
    for source in work.sources:
        for start in range(0, source.n_frames, prepare.shard_frames):
            stop = min(start + prepare.shard_frames, source.n_frames)
            plans.append(_plan(work, source, (start, stop, first_id + start), prepare))
        first_id += source.n_frames
    return plans


def _plan(work: Work, source: FrameSource, numbers, prepare: PrepareConfig) -> ShardPlan:
    start, stop, first_id = numbers
    what = {
        "source": [source.name, source.label, _identity(source)], "range": numbers, "reference": work.reference.digest(),
        "encoding": work.encoding._asdict(), "keep": [prepare.positions, prepare.forces], "oversampling": prepare.oversampling,
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    return ShardPlan(
        f"{file_name(source.name)}.{start:07d}-{stop:07d}.h5",
        source.name,
        source.label,
        str(source.path),
        first_id,
        start,
        stop,
        digest,
        dict(source.inputs),
    )


def _missing(folder: Path, plans: Sequence[ShardPlan], ranks: Ranks) -> list[ShardPlan]:
    """The plans without a complete shard of the same digest."""
    ranks.on_root(lambda: _remove_leftovers(folder))
    there = _dealt(ranks, plans, lambda plan: _is_there(folder, plan))
    return [plan for plan, complete in zip(plans, there) if not complete]


def _remove_leftovers(folder: Path) -> None:
    """What a killed run left half written; two runs at once in one store are not supported."""
    for path in folder.glob(".*.h5.*.tmp"):
        logger.info("removed %s, which an interrupted run left", path)
        path.unlink(missing_ok=True)


def _is_there(folder: Path, plan: ShardPlan) -> bool:
    if not (folder / plan.file).exists():
        return False
    try:
        with open_shard(folder / plan.file) as shard:
            shard.check_header()
            return shard.plan == plan.digest
    except DamagedFile as error:
        logger.warning("%s", str(error).splitlines()[0] + "; it is made again")
        return False


def _announce(work: Work, plans: Sequence[ShardPlan], missing: Sequence[ShardPlan]) -> None:
    reflections, total = work.reference.reflections, sum(plan.n_frames for plan in plans)
    size = total * len(reflections) * 2 * work.encoding.storage.itemsize
    logger.info(
        "store %s: %d frames of %d sources x %d reflections, %s, %.3g MB in %d shards",
        work.folder,
        total,
        len(work.sources),
        len(reflections),
        work.encoding.dtype,
        size / 1e6,
        len(plans),
    )
    if len(missing) < len(plans):
        logger.info("%d shards are there and complete; %d are to be made", len(plans) - len(missing), len(missing))


def _write_shards(work: Work, missing: Sequence[ShardPlan], ranks: Ranks) -> None:
    """Write the shards of this rank. An error ends the job: the other ranks may be hours from their next meeting."""
    mine = missing[ranks.rank :: ranks.size]
    with Progress("frames", sum(plan.n_frames for plan in mine), ranks) as progress:
        for plan in mine:
            with ShardWriter(work.folder, plan, work.reference, work.encoding) as shard:
                for frame in work.source(plan).frames(plan.start, plan.stop):
                    shard.append(frame)
                    progress.advance()


def _fft_error(sources: Sequence[FrameSource]) -> FFTError | None:
    """Of the first frame of the first trajectory; structure factors from MTZ files are not ours to judge."""
    first = next(filter(is_simulation, sources), None)
    return None if first is None else first.fft_error(0, FFT_SAMPLE)


def _reported(done: Prepared) -> Prepared:
    logger.info(
        "prepared %s: %d frames x %d reflections made in %.1f s (%.3g frames/s with set-up), %d frames were there",
        done.store,
        done.computed,
        done.reflections,
        done.seconds,
        done.rate,
        done.kept,
    )
    if done.fft_error is not None:
        error = done.fft_error
        logger.info(
            "density FFT against direct summation, %d reflections of one frame: rms |dF| / rms |F| = %.1e,"
            " median |dF| / |F| = %.1e",
            error.reflections,
            error.rms,
            error.median,
        )
    return done
