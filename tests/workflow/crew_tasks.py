"""Work that the tests deal to workers: a module of its own, since workers import it."""

import os
import signal
import time
from pathlib import Path

from hpcfit.errors import InputError
from hpcfit.workflow.cluster.progress import report


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


def damaged_input(folder: Path, number):
    if number == 3:
        raise InputError("three.xyz, frame 7: NaN", remedy="repair the file")
    time.sleep(0.02)
    (folder / str(number)).touch()


def divides_by_zero(number):
    return 1 / (number - 3)


def slowly(seconds, number):
    time.sleep(seconds)
    return number


def reports(number):
    for frame in range(1, 4):
        report("prepare", f"shard{number}", frame, 4, 12.5, "frames/s")
    time.sleep(0.05)


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
