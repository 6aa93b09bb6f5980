"""`hpcfit prepare`: inputs to a store of shards; restartable, on any number of ranks."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hpcfit.commands.dealing import dealt
from hpcfit.commands.progress import Progress
from hpcfit.commands.reference import agreed_reference
from hpcfit.config import Config, PrepareConfig
from hpcfit.data.catalog import write_catalog
from hpcfit.data.reference import Encoding, Reference
from hpcfit.data.shard import ShardPlan, ShardWriter, open_shard
from hpcfit.data.sources import (
    FrameSource,
    all_on_store,
    entries,
    file_name,
    is_simulation,
    open_source,
    with_unique_names,
)
from hpcfit.errors import DamagedFile
from hpcfit.log import logger
from hpcfit.physics.scattering import FFTError
from hpcfit.ranks import Ranks

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
    config.require("frames", command="prepare")
    prepare, folder = config.prepare, config.frames.store
    opened = _open_sources(prepare, ranks)
    settings = _settings(prepare, opened)
    reference = agreed_reference(config, opened, settings, ranks)
    sources = ranks.on_all(lambda: all_on_store(opened, reference.reflections, prepare))
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


def _open_sources(prepare: PrepareConfig, ranks: Ranks) -> list[FrameSource]:
    found = ranks.on_root(lambda: entries(prepare))
    opened = dealt(ranks, found, lambda entry: open_source(entry, prepare))
    return ranks.on_all(lambda: with_unique_names(opened))


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
    identity = [source.name, source.label, _identity(source)]
    kept = [prepare.positions, prepare.forces, prepare.oversampling]
    what = [identity, numbers, work.reference.digest(), work.encoding, kept]
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    file = f"{file_name(source.name)}.{start:07d}-{stop:07d}.h5"
    path, inputs = str(source.path), dict(source.inputs)
    return ShardPlan(file, source.name, source.label, path, first_id, start, stop, digest, inputs)


def _missing(folder: Path, plans: Sequence[ShardPlan], ranks: Ranks) -> list[ShardPlan]:
    """The plans without a complete shard of the same digest."""
    ranks.on_root(lambda: _remove_leftovers(folder))
    there = dealt(ranks, plans, lambda plan: _is_there(folder, plan))
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
