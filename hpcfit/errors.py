"""Errors for users: each is one sentence that names both values that disagree, and a remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_FAILED = 1
EXIT_INPUT = 2
EXIT_REQUEUE = 75  # EX_TEMPFAIL: stopped by a signal after a checkpoint; job scripts requeue on it


class HpcfitError(Exception):
    """An error whose text is meant for the user; ``exit_code`` is what the process returns."""

    exit_code = EXIT_FAILED
    on_all_ranks = False  # whether every rank raises it at the same place: then root alone prints it
    is_echo = False  # whether another rank has met one before, which it prints

    def __init__(self, what: str, *, remedy: str = ""):
        self.what, self.remedy = what, remedy
        super().__init__(what if not remedy else f"{what}\n  remedy: {remedy}")


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


def nearest(name: str, valid: Iterable[str]) -> str:
    """A clause that names the valid name closest to ``name``, or lists them all."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"valid: {', '.join(valid)}"
