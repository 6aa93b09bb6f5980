"""`hpcfit prepare`: inputs to a store of shards; restartable, on any number of ranks or of a cluster's workers."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hpcfit.config import Config
from hpcfit.log import logger
from hpcfit.physics.scattering import FFTError
from hpcfit.prepare.dealing import Advance, Dealer, OverCrew, OverRanks
from hpcfit.prepare.particles import begin_particles
from hpcfit.prepare.shards import Begun, check_seen, cut_into_shards, missing_plans, tidied
from hpcfit.prepare.sources import Source
from hpcfit.prepare.structure_factors import begin_factors
from hpcfit.ranks import Ranks
from hpcfit.store.catalog import write_catalog
from hpcfit.store.content import Content
from hpcfit.store.locks import check_free, locked
from hpcfit.store.shard import ShardPlan
from hpcfit.store.writer import ShardWriter
from hpcfit.workflow.stopping import stopped_by_signals

# By content: opens the sources and agrees on what all frames share, collectively and with the same result everywhere.
BEGIN: dict[str, Callable[[Config, Dealer], Begun]] = {
    "structure-factors": begin_factors,
    "forces": begin_particles,
    "positions": begin_particles,
}


class Prepared(NamedTuple):
    """The result of a run of prepare.

    computed: frames of this run. kept: frames of shards that were there. width: reflections or particles of a frame.
    """

    store: Path
    computed: int
    kept: int
    width: int
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
    ranks.on_root(lambda: config.require("frames", command="prepare"))
    with stopped_by_signals(), locked(config.frames.store, ranks):
        return _prepared(config, OverRanks(ranks))


def run_prepare_on_cluster(config: Config) -> Prepared:
    """Make the same store, bit for bit, as tasks on the [cluster] of `config`; this process deals them out."""
    from hpcfit.workflow.cluster.opening import open_cluster

    config.require("frames", "cluster", command="prepare")
    check_free(config.frames.store)
    with open_cluster(config.cluster, "prepare") as crew, locked(config.frames.store, Ranks()):
        return _prepared(config, OverCrew(crew, "prepare"))


@dataclass(frozen=True)
class Work:
    """Everything that a shard is made from. command: the command line that a shard is to name as its maker."""

    folder: Path
    sources: tuple[Source, ...]
    content: Content
    command: str

    def source(self, plan: ShardPlan) -> Source:
        """The source of a plan."""
        return next(source for source in self.sources if source.name == plan.source)


def _prepared(config: Config, dealer: Dealer) -> Prepared:
    began = time.monotonic()
    folder, prepare = config.frames.store, config.prepare
    sources, content, store, decided_by, error = BEGIN[prepare.content](config, dealer)
    plans = cut_into_shards(sources, prepare.shard_frames, decided_by, store)
    missing = missing_plans(folder, plans, content, dealer)
    work = Work(folder, sources, content, shlex.join(sys.argv))
    _announce(work, plans, missing)
    dealer.dealt_frames(partial(write_shard, dealer.share(work)), missing, lambda plan: (plan.file, plan.n_frames))
    dealer.on_root(lambda: check_seen(folder, missing))
    dealer.on_root(lambda: tidied(folder))  # what a worker left that died
    dealer.on_root(lambda: write_catalog(folder, plans, content))
    computed = sum(plan.n_frames for plan in missing)
    kept = sum(plan.n_frames for plan in plans) - computed
    seconds = dealer.on_root(lambda: time.monotonic() - began)
    return _reported(Prepared(folder, computed, kept, content.width, seconds, error), content.columns)


def write_shard(work: Work, plan: ShardPlan, advance: Advance) -> None:
    """Write one shard, calling `advance` for each of its frames. Doing it twice, also at once, does no harm."""
    with ShardWriter(work.folder, plan, work.content, work.command) as shard:
        for frame in work.source(plan).frames(plan.start, plan.stop):
            shard.append(frame)
            advance()


def _announce(work: Work, plans: Sequence[ShardPlan], missing: Sequence[ShardPlan]) -> None:
    total, content = sum(plan.n_frames for plan in plans), work.content
    logger.info(
        "store %s: %d frames of %d sources x %d %s, %.3g MB in %d shards",
        work.folder,
        total,
        len(work.sources),
        content.width,
        content.columns,
        total * content.frame_bytes / 1e6,
        len(plans),
    )
    logger.info("%s", "; ".join(f"{name}: {value}" for name, value in content.facts().items()))
    if len(missing) < len(plans):
        logger.info("%d shards are there and complete; %d are to be made", len(plans) - len(missing), len(missing))


def _reported(done: Prepared, columns: str) -> Prepared:
    logger.info(
        "prepared %s: %d frames x %d %s made in %.1f s (%.3g frames/s with set-up), %d frames were there",
        done.store,
        done.computed,
        done.width,
        columns,
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
