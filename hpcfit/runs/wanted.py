"""The options of `hpcfit export`, as a kind of problem gets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from hpcfit.errors import InputError


@dataclass(frozen=True)
class Wanted:
    """The options that were given; None stands for one that was not.

    which: the map, and minus: a run directory whose map is subtracted. positions: a store of positions of the same
    frames. frames: how many to draw, by a random number of ``seed``. superpose: a selection of atoms. overwrite: files
    may be replaced.
    """

    which: str | None = None
    minus: Path | None = None
    positions: Path | None = None
    frames: int | None = None
    seed: int | None = None
    superpose: str | None = None
    overwrite: bool = False

    def check_used(self, what: str, used: Sequence[str]) -> None:
        """Raise InputError for an option that was given and has no effect on ``what``; used: those that have one."""
        options = [one.name for one in fields(self) if one.name != "overwrite"]
        idle = [name for name in options if name not in used and getattr(self, name) is not None]
        if idle:
            raise InputError(
                f"--{idle[0]} has no effect on {what}",
                remedy=f"leave it out; what counts there is {', '.join(f'--{name}' for name in used)}",
            )

    def check_is_free(self, *files: Path) -> None:
        """Raise InputError for files that are there and may not be replaced."""
        there = [file for file in files if file.exists() and not self.overwrite]
        if there:
            raise InputError(f"{there[0]} exists", remedy="give another name, or --overwrite")
