"""`python -m tests.commands.killed NUMBER ...`: `hpcfit ...`, killed before the so many-th thing it does to a file.

What counts: flushing, linking, renaming and removing files, and a line of a history. NUMBER 0: it lives, and says last
how many there were.
"""

import itertools
import os
import signal
import sys

from hpcfit.cli import main
from hpcfit.runs.directory import RunDirectory
from tests.command import PROGRAM

COUNTED = "things done to files:"

if __name__ == "__main__":
    number, count = int(sys.argv[1]), itertools.count(1)
    sys.argv = [PROGRAM, *sys.argv[2:]]  # it is written into what is made

    def dying(function):
        def call(*given, **named):
            if next(count) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*given, **named)

        return call

    for name in ("fsync", "link", "replace", "unlink", "rmdir"):
        setattr(os, name, dying(getattr(os, name)))
    RunDirectory.add_evaluation = dying(RunDirectory.add_evaluation)
    try:
        main()
    finally:
        sys.stderr.write(f"{COUNTED} {next(count) - 1}\n")
