"""Errors for users: each is one sentence that names both values that disagree, and a remedy."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from hpcfit.characters import printable

EXIT_FAILED = 1
EXIT_INPUT = 2
EXIT_REQUEUE = 75  # EX_TEMPFAIL: stopped by a signal after a checkpoint; job scripts requeue on it


class HpcfitError(Exception):
    """An error whose text is meant for the user; ``exit_code`` is what the process returns."""

    exit_code = EXIT_FAILED
    on_all_ranks = False  # whether every rank raises it at the same place: then root alone prints it
    is_echo = False  # whether another rank has met one before, which it prints

    def __init__(self, what: str, *, remedy: str = ""):
        self.what, self.remedy = printable(what), printable(remedy)  # both may quote names from files of others
        super().__init__(self.what if not remedy else f"{self.what}\n  remedy: {self.remedy}")


class InputError(HpcfitError):
    """The config, a file or the machine does not hold what the run needs."""

    exit_code = EXIT_INPUT


class DamagedFile(InputError):
    """A file that hpcfit wrote does not hold what its checksums say."""


class NumericalError(HpcfitError):
    """A quantity of the fit stopped being a number."""


def together(error: HpcfitError) -> HpcfitError:
    """The error, marked as one that every rank raises at the same place."""
    error.on_all_ranks = True
    return error


NO_FILE = {
    stat.S_IFDIR: "is a folder", stat.S_IFIFO: "is a named pipe", stat.S_IFSOCK: "is a socket",
    stat.S_IFCHR: "is a device", stat.S_IFBLK: "is a device",
}  # fmt: skip


def check_is_file(path: str | Path, what: str = "", remedy: str = "") -> None:
    """Raise InputError unless a path is a file that may be read. what: the words before the path, in the error.

    It is not opened: to open a named pipe waits for whoever writes into it.
    """
    said = f"{what} {path}".lstrip()
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        raise InputError(f"{said} does not exist", remedy=remedy or "correct the path in the config") from None
    except (OSError, ValueError) as error:  # a loop of links, a folder that may not be read; a NUL in the name
        raise InputError(f"{said} is no file: {_reason(error)}", remedy=remedy or "correct the path") from None
    if kind in NO_FILE:
        raise InputError(f"{said} {NO_FILE[kind]}, not a file", remedy=remedy or "give the path of a file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{said} may not be read", remedy="have its owner give you the right to read it")


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def nearest(name: str, valid: Iterable[str]) -> str:
    """A clause that names the valid name closest to ``name``, or lists them all."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"valid: {', '.join(valid)}"
