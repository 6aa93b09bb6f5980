"""Making the shards of a store, whatever their content: plans, what is missing, what a restart must find unchanged."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hpcfit.errors import DamagedFile, InputError
from hpcfit.log import logger
from hpcfit.physics.scattering import FFTError
from hpcfit.prepare.dealing import Dealer
from hpcfit.prepare.sources import Source, file_name, identity
from hpcfit.store.content import Content
from hpcfit.store.files import remove_leftovers
from hpcfit.store.shard import ShardPlan
from hpcfit.store.writer import has_shard

SEEN_SECONDS = 60.0  # by which a network file system may be late to show what another node wrote


class Begun(NamedTuple):
    """A store whose shards can be made.

    store: its id. decided_by: what decides the bytes of all its shards. fft_error: how far structure factors that are
    computed are from direct summation.
    """

    sources: tuple[Source, ...]
    content: Content
    store: str
    decided_by: list
    fft_error: FFTError | None = None


def begun(folder: Path, content: Content, settings: dict[str, str]) -> str:
    """Begin a store, or find it begun with the same settings; return its id."""
    if not content.is_begun(folder):
        return content.begin(folder, settings)
    store, before = content.begun_with(folder)
    check_same_settings(folder, before, settings)
    return store


def check_same_settings(folder: Path, before: dict[str, str], settings: dict[str, str]) -> None:
    """Raise InputError, naming the key and both values, where a store was begun with other settings."""
    for key in sorted(before.keys() | settings.keys()):
        if before.get(key) != settings.get(key):
            raise InputError(
                f"the store {folder} was prepared with {key} = {before.get(key, 'nothing')};"
                f" the config has {settings.get(key, 'nothing')}",
                remedy="go back to that setting, or give [frames] store another folder",
            )


def cut_into_shards(sources: Sequence[Source], shard_frames: int, decided_by: list, store: str) -> list[ShardPlan]:
    """Each source cut into shards of so many frames; names and digests follow from source and range, never from ranks.

    decided_by: what decides the bytes of all shards. store: the id of the store.
    """
    plans, first_id = [], 0
    for source in sources:
        what = [source.name, source.label, identity(source)]
        for start in range(0, source.n_frames, shard_frames):
            stop = min(start + shard_frames, source.n_frames)
            numbers = (start, stop, first_id + start)
            digest = hashlib.sha256(json.dumps([what, numbers, *decided_by]).encode()).hexdigest()
            plans.append(_plan(source, numbers, digest, (store, len(plans))))
        first_id += source.n_frames
    return plans


def _plan(source: Source, numbers: tuple[int, int, int], digest: str, place: tuple[str, int]) -> ShardPlan:
    start, stop, first_id = numbers
    file = f"{file_name(source.name)}.{start:07d}-{stop:07d}.h5"
    path, inputs = str(source.path), dict(source.inputs)
    return ShardPlan(file, source.name, source.label, path, first_id, start, stop, digest, inputs, *place)


def missing_plans(folder: Path, plans: Sequence[ShardPlan], content: Content, dealer: Dealer) -> list[ShardPlan]:
    """The plans without a complete shard of the same digest; what processes left that have ended is removed."""
    dealer.on_root(lambda: tidied(folder))
    there = dealer.dealt(partial(_is_whole, dealer.share(content), folder), plans, at_once=50)
    return [plan for plan, complete in zip(plans, there) if not complete]


def _is_whole(content: Content, folder: Path, plan: ShardPlan) -> bool:
    try:
        return has_shard(content, folder, plan)
    except DamagedFile as error:
        logger.warning("%s", str(error).splitlines()[0] + "; it is made again")
        return False


def tidied(folder: Path) -> None:
    """Remove what processes left half written that have ended."""
    for path in remove_leftovers(folder):
        logger.info("removed %s, which a process left that has ended", path)


def check_seen(folder: Path, made: Sequence[ShardPlan]) -> None:
    """Raise InputError if what other processes wrote is not to be seen from here."""
    end = time.monotonic() + SEEN_SECONDS
    for plan in made:
        while not (folder / plan.file).exists():
            if time.monotonic() > end:
                raise InputError(
                    f"{folder / plan.file} was written, but is not to be seen on {socket.gethostname()}",
                    remedy="put [frames] store on a file system that all nodes share",
                )
            time.sleep(0.1)
