"""`python -m hpcfit.workflow.tethered COMMAND ...`: become a command that is ended when its parent dies (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1


def tethered(command: Sequence[str]) -> list[str]:
    """The command; it gets a SIGTERM, at which a fit writes a checkpoint, when the thread that starts it ends."""
    return [sys.executable, "-m", "hpcfit.workflow.tethered", *command]


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execvp(sys.argv[1], sys.argv[1:])
