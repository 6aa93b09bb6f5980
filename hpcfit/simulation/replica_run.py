"""The task of `hpcfit simulate`: one replica, gone on with from the last of its pieces that is whole.

It may be run any number of times, also twice at once (a worker that was given up for lost may still live): each piece
is written whole or not at all, and one that is there already and follows from the piece before is left as it is.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

from hpcfit.errors import DamagedFile
from hpcfit.log import logger
from hpcfit.progress import Count
from hpcfit.simulation.dynamics import Dynamics, Exploded
from hpcfit.simulation.replicas import Replica
from hpcfit.store.files import remove_leftovers
from hpcfit.store.piece import START, Piece, Tail, add_piece, piece_file, read_piece, write_piece
from hpcfit.store.pieces import read_chain
from hpcfit.workflow.cluster.journal import report, worker_name


class Simulated(NamedTuple):
    """The result of one attempt at a replica. frames: all that it has; made, seconds: of this attempt."""

    name: str
    frames: int
    made: int
    seconds: float
    interval: float  # ps
    platform: str
    worker: str

    @property
    def nanoseconds(self) -> float:
        """Simulated time of this attempt, ns."""
        return self.made * self.interval / 1000

    @property
    def rate(self) -> float:
        """ns/day of this attempt."""
        return self.nanoseconds / self.seconds * 86400


class Failed(NamedTuple):
    """A replica whose atoms flew off, and when."""

    name: str
    why: str


def is_finished(replica: Replica) -> bool:
    """True where all frames of a replica are there; reads all headers, and the last piece whole."""
    chain = read_chain(replica.folder, replica.settings.digest)
    if chain.frames < replica.simulate.frames:
        return False
    try:
        read_piece(replica.folder / piece_file(chain.pieces[-1].number))
    except DamagedFile:
        return False
    return True


def attempt_replica(replica: Replica) -> Simulated | Failed:
    """The task: as `simulate_replica`, but atoms that fly off are a result, which leaves the other replicas running."""
    try:
        return simulate_replica(replica)
    except Exploded as error:
        return Failed(replica.name, str(error).splitlines()[0])


def simulate_replica(replica: Replica) -> Simulated:
    """Make what a replica lacks, piece by piece.

    Raises InputError for a system that cannot be built, Exploded for atoms that fly off; what is complete stays.
    """
    simulate, folder = replica.simulate, replica.folder
    remove_leftovers(folder)
    dynamics = Dynamics(replica)
    tail = _tail(replica) or _kept(folder, dynamics.start()).tail
    watch = _Watch(replica, dynamics.platform.name, tail.stop)
    while tail.stop < simulate.frames:
        frames = min(simulate.piece, simulate.frames - tail.stop)
        tail = _kept(folder, dynamics.piece(tail, frames, watch.frame)).tail
    return watch.summary(tail.stop)


def _tail(replica: Replica) -> Tail | None:
    """The end of the last whole piece, or of the equilibration; None where nothing is whole."""
    folder = replica.folder
    chain = read_chain(folder, replica.settings.digest)
    if chain.frames < replica.simulate.frames and (folder / piece_file(len(chain.pieces))).exists():
        logger.warning("%s: %s; it is made again", replica.name, chain.end)
    for number in [*(header.number for header in reversed(chain.pieces)), START]:
        path = folder / piece_file(number)
        try:
            if path.exists():
                return read_piece(path).tail
        except DamagedFile as error:
            logger.warning("%s: %s; it is made again", replica.name, str(error).splitlines()[0])
    return None


def _kept(folder: Path, made: Piece) -> Piece:
    """Write a piece, unless another attempt was faster: then the trajectory goes on from that one."""
    # Asked first: of a file that comes after this it is not known whether it is bad, so it is not written over.
    publish = write_piece if (folder / piece_file(made.number)).exists() else add_piece
    if there := _in_place_of(folder, made):
        return there
    publish(folder, made)
    return _in_place_of(folder, made) or made


def _in_place_of(folder: Path, made: Piece) -> Piece | None:
    """The whole piece in the folder that follows from the same one before; None where there is none."""
    try:
        there = read_piece(folder / piece_file(made.number))
    except DamagedFile:
        return None
    same = (there.settings, there.first, there.follows) == (made.settings, made.first, made.follows)
    return there if same else None


class _Watch:
    """Reports the frames of one replica as they come."""

    def __init__(self, replica: Replica, platform: str, done: int):
        self._replica, self._platform = replica, platform
        simulate = replica.simulate
        self._frames = Count(simulate.frames, done, unit="ns/day", worth=simulate.interval / 1000 * 86400)
        self.frame(done)

    def frame(self, done: int) -> None:
        """So many frames are there."""
        self._frames.done = done
        report("simulate", self._replica.name, self._frames)

    def summary(self, done: int) -> Simulated:
        """The outcome of the replica, which ends with so many frames."""
        self._frames.done = done
        made, seconds, interval = self._frames.made, self._frames.seconds, self._replica.simulate.interval
        return Simulated(self._replica.name, done, made, seconds, interval, self._platform, _worker())


def _worker() -> str:
    """This worker's name and machine; the machine alone outside a Dask worker."""
    return " on ".join(filter(None, [worker_name(), socket.gethostname()]))
