"""`hpcfit prepare`: inputs to a store of shards; restartable, on any number of ranks or of a cluster's workers."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hpcfit.config import Config, PrepareConfig
from hpcfit.log import logger
from hpcfit.physics.scattering import FFTError
from hpcfit.prepare.dealing import Advance, Dealer, OverCrew, OverRanks
from hpcfit.prepare.forces import PreparedForces, prepare_forces
from hpcfit.prepare.given_weights import write_given_weights
from hpcfit.prepare.reference import agreed_reference
from hpcfit.prepare.shards import check_seen, cut_into_shards, missing_plans, tidied
from hpcfit.prepare.sources import (
    FrameSource,
    all_on_store,
    entries,
    is_simulation,
    open_sources,
    sharing_elements,
    unread,
    with_checksums,
    with_unique_names,
)
from hpcfit.ranks import Ranks
from hpcfit.readers.mtz_frames import MtzSource
from hpcfit.store.catalog import write_catalog
from hpcfit.store.files import sha256_of_file
from hpcfit.store.reference import Encoding, Reference
from hpcfit.store.shard import ShardWriter, open_shard
from hpcfit.store.shard_file import ShardPlan
from hpcfit.workflow.stopping import stopped_by_signals

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


def run_prepare(config: Config, ranks: Ranks) -> Prepared | PreparedForces:
    """Make the store of `config`, or what is missing of it. Collective; every rank gets the same result.

    Raises InputError for inputs that cannot be used, and for a store that was begun with other settings.
    """
    with stopped_by_signals():
        return _prepared(config, OverRanks(ranks))


def run_prepare_on_cluster(config: Config) -> Prepared | PreparedForces:
    """The same, bit for bit, as tasks on the [cluster] of `config`; this process deals them out."""
    from hpcfit.workflow.cluster.opening import open_cluster

    config.require("frames", "cluster", command="prepare")
    with open_cluster(config.cluster, "prepare") as crew:
        return _prepared(config, OverCrew(crew, "prepare"))


def _prepared(config: Config, dealer: Dealer) -> Prepared | PreparedForces:
    config.require("frames", command="prepare")
    return prepare_forces(config, dealer) if config.prepare.content == "forces" else _prepare(config, dealer)


def _prepare(config: Config, dealer: Dealer) -> Prepared:
    begun = time.monotonic()
    prepare, folder = config.prepare, config.frames.store
    opened = _open_sources(prepare, dealer)
    settings = _settings(prepare, opened)
    reference = agreed_reference(config, opened, settings, dealer)
    sources = dealer.on_all(lambda: all_on_store(opened, reference.reflections, prepare))
    encoding = Encoding(prepare.dtype, prepare.mantissa_bits, prepare.compression)
    work = Work(folder, tuple(sources), reference, encoding, shlex.join(sys.argv))
    plans = shard_plans(work, prepare)
    missing = missing_plans(folder, plans, _is_there, dealer)
    _announce(work, plans, missing)
    dealer.dealt_frames(partial(write_shard, dealer.share(work)), missing, lambda plan: (plan.file, plan.n_frames))
    dealer.on_root(lambda: check_seen(folder, missing))
    dealer.on_root(lambda: tidied(folder))  # what a worker left that died
    dealer.on_root(lambda: write_given_weights(folder, sources))
    dealer.on_root(lambda: write_catalog(folder, plans, reference, encoding))
    error = dealer.on_root(lambda: _fft_error(sources))
    computed = sum(plan.n_frames for plan in missing)
    kept = sum(plan.n_frames for plan in plans) - computed
    seconds = dealer.on_root(lambda: time.monotonic() - begun)
    return _reported(Prepared(folder, computed, kept, len(reference.reflections), seconds, error))


@dataclass(frozen=True)
class Work:
    """What every shard needs."""

    folder: Path
    sources: tuple[FrameSource, ...]
    reference: Reference
    encoding: Encoding
    command: str  # the command line that a shard is to name as its maker

    def source(self, plan: ShardPlan) -> FrameSource:
        """The source of a plan."""
        return next(source for source in self.sources if source.name == plan.source)


def _open_sources(prepare: PrepareConfig, dealer: Dealer) -> list[FrameSource]:
    found = dealer.on_root(lambda: entries(prepare))
    parts = dealer.dealt(partial(open_sources, prepare), found)
    opened = sharing_elements([source for part in parts for source in part])
    checksums = dealer.dealt(sha256_of_file, [file for source in opened for file in unread(source)], at_once=50)
    return dealer.on_all(lambda: with_unique_names(with_checksums(opened, checksums)))


def _settings(prepare: PrepareConfig, sources: Sequence[FrameSource]) -> dict[str, str]:
    """Everything that decides the bytes of a store, as text: what a restart must find unchanged."""
    chosen = prepare.model_dump(mode="json", exclude={"source", "content"})
    settings = {key: json.dumps(value) for key, value in chosen.items()}
    settings["sources"] = ", ".join(source.name for source in sources)
    for source in sources:
        settings[f"source {source.name}"] = (
            f"label '{source.label}', {source.n_frames} frames, SHA-256 {_identity(source)}"
        )
    return settings


def _identity(source: FrameSource) -> str:
    """Of the bytes of a source and of the frames that are used."""
    chosen = source.columns if isinstance(source, MtzSource) else source.rows
    return hashlib.sha256(f"{source.digest} {chosen}".encode()).hexdigest()[:16]


def shard_plans(work: Work, prepare: PrepareConfig) -> list[ShardPlan]:
    """Each source cut into shards; names and digests are functions of source and range, never of ranks."""
    shared = [work.reference.digest(), work.encoding, [prepare.positions, prepare.forces, prepare.oversampling]]
    return cut_into_shards(work.sources, _identity, prepare.shard_frames, shared)


def _is_there(folder: Path, plan: ShardPlan) -> bool:
    if not (folder / plan.file).exists():
        return False
    with open_shard(folder / plan.file) as shard:
        shard.check_header()
        return shard.plan == plan.digest


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


def write_shard(work: Work, plan: ShardPlan, advance: Advance) -> None:
    """Write one shard, calling `advance` for each of its frames. Doing it twice, also at once, does no harm."""
    with ShardWriter(work.folder, plan, work.reference, work.encoding, work.command) as shard:
        for frame in work.source(plan).frames(plan.start, plan.stop):
            shard.append(frame)
            advance()


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
