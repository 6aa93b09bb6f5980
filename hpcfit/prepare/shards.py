"""Making the shards of a store, whatever their content: plans, what is missing, what a restart must find unchanged."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from hpcfit.errors import DamagedFile, InputError
from hpcfit.log import logger
from hpcfit.prepare.dealing import Dealer
from hpcfit.prepare.sources import file_name
from hpcfit.store.files import remove_leftovers
from hpcfit.store.shard_file import ShardPlan

SEEN_SECONDS = 60.0  # by which a network file system may be late to show what another node wrote


class Source(Protocol):
    """What a plan needs to know of an input."""

    name: str
    label: str
    path: Path
    n_frames: int
    inputs: dict[str, str]


AnySource = TypeVar("AnySource", bound=Source)


def check_same_settings(folder: Path, before: dict[str, str], settings: dict[str, str]) -> None:
    """Raise InputError, naming the key and both values, where a store was begun with other settings."""
    for key in sorted(before.keys() | settings.keys()):
        if before.get(key) != settings.get(key):
            raise InputError(
                f"the store {folder} was prepared with {key} = {before.get(key, 'nothing')};"
                f" the config has {settings.get(key, 'nothing')}",
                remedy="go back to that setting, or give [frames] store another folder",
            )


def cut_into_shards(
    sources: Sequence[AnySource], identity: Callable[[AnySource], str], shard_frames: int, shared: list
) -> list[ShardPlan]:
    """Each source cut into shards of so many frames. identity: of its bytes and frames; shared: what decides all."""
    plans, first_id = [], 0
    for source in sources:
        what = [source.name, source.label, identity(source)]
        for start in range(0, source.n_frames, shard_frames):
            stop = min(start + shard_frames, source.n_frames)
            plans.append(_plan(source, what, (start, stop, first_id + start), shared))
        first_id += source.n_frames
    return plans


def _plan(source: Source, identity: list[str], numbers: tuple[int, int, int], shared: list) -> ShardPlan:
    """The digest is of what decides the bytes: the source, the range, and what all shards share."""
    start, stop, first_id = numbers
    what = [identity, numbers, *shared]
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    file = f"{file_name(source.name)}.{start:07d}-{stop:07d}.h5"
    path, inputs = str(source.path), dict(source.inputs)
    return ShardPlan(file, source.name, source.label, path, first_id, start, stop, digest, inputs)


def missing_plans(
    folder: Path, plans: Sequence[ShardPlan], is_there: Callable[[Path, ShardPlan], bool], dealer: Dealer
) -> list[ShardPlan]:
    """The plans without a complete shard of the same digest; what processes left that have ended is removed."""
    dealer.on_root(lambda: tidied(folder))
    there = dealer.dealt(partial(_is_whole, is_there, folder), plans, at_once=50)
    return [plan for plan, complete in zip(plans, there) if not complete]


def _is_whole(is_there: Callable[[Path, ShardPlan], bool], folder: Path, plan: ShardPlan) -> bool:
    try:
        return is_there(folder, plan)
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
