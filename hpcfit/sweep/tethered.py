"""`python -m hpcfit.sweep.tethered PARENT COMMAND ...`: a command that ends with its parent (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1


def tethered(command: Sequence[str]) -> list[str]:
    """The command, to be started by this process.

    It gets a SIGTERM, at which a fit writes a checkpoint, when the thread that starts it ends.
    """
    return [sys.executable, "-m", "hpcfit.sweep.tethered", str(os.getpid()), *command]


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):  # it died before the line above, of which nothing tells
        os.kill(os.getpid(), signal.SIGTERM)
    os.execvp(sys.argv[2], sys.argv[2:])
