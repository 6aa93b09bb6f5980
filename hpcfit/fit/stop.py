"""Why a fit ends: known to what reads and writes runs without JAX, too."""

from __future__ import annotations

from typing import NamedTuple


class Stop(NamedTuple):
    """Why a run ends. interrupted: from outside, so that it is to be continued (exit code 75)."""

    reason: str
    interrupted: bool = False
