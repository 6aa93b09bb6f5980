"""Work that the tests deal to workers: a module of its own, since workers import it."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from hpcfit.errors import InputError
from hpcfit.progress import Count
from hpcfit.workflow.cluster.journal import report


@dataclass(frozen=True)
class Gate:
    """A folder at which tasks wait until a test opens it: what the test does meanwhile is never too late."""

    folder: Path

    def wait(self) -> None:
        """Leave this process's id there, and wait."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / str(os.getpid())).touch()
        while not (self.folder / "open").exists():
            time.sleep(0.05)

    def waiting(self) -> list[int]:
        """The processes that have come so far."""
        return [int(path.name) for path in self.folder.glob("[0-9]*")]

    def open(self) -> None:
        """From now on nobody waits."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "open").touch()


def held_after_two_shards(gate: Gate, work, *arguments, **keywords):
    """A task of `hpcfit prepare`: it waits at a gate beside the store once two shards are there."""
    if len(list((gate.folder.parent / "store").glob("*.xyz.*.h5"))) >= 2:
        gate.wait()
    return work(*arguments, **keywords)


def held_after_two_pieces(gate: Gate, work, replica):
    """A replica of `hpcfit simulate` that waits when its second piece is there."""
    from hpcfit.simulation import replica_run

    add = replica_run.add_piece

    def add_and_wait(folder, piece):
        add(folder, piece)
        if piece.number == 1:
            gate.wait()

    replica_run.add_piece = add_and_wait
    try:
        return work(replica)
    finally:
        replica_run.add_piece = add


def held_but_the_first(gate: Gate, number):
    if number:
        gate.wait()
    return number


def square(number):
    return number**2


def scaled(factors, number):
    return factors["scale"] * number


def scaled_pair(pair):
    return scaled(*pair)


def environment(_):
    return os.environ.get("OMP_NUM_THREADS"), os.getpid()


def dies_once(mark: Path, value, number):
    """Kill this worker process the first time it is number 3's turn."""
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return value, number


def dies_always(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def damaged_input(folder: Path, gate: Gate, number):
    """Number 3 fails; those after it wait."""
    if number == 3:
        raise InputError("three.xyz, frame 7: NaN", remedy="repair the file")
    (folder / str(number)).touch()
    if number > 3:
        gate.wait()


def divides_by_zero(number):
    return 1 / (number - 3)


def slowly(seconds, number):
    time.sleep(seconds)
    return number


def reports(number):
    frames = Count(4, unit="frames/s")
    for frames.done in range(1, 4):
        report("prepare", f"shard{number}", frames)


class DiesWhenUnpacked:
    """A value that kills the first process that unpacks it."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return unpacked, (self.mark,)


def unpacked(mark: Path):
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return DiesWhenUnpacked(mark)


def with_value(value, number):
    return value.mark.name, number
