"""study.json: the fits and stages of a run by name, in their order, and how far each is; written and read here.

A study announces what is to come as far as it knows it. What it finds out on the way is added where it begins.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hpcfit.store.files import write_text

STUDY = "study.json"
TO_COME, RUNNING, ENDED, NOT_NEEDED = "to come", "running", "ended", "not needed"


class StudyProgress(NamedTuple):
    """The progress of a study: the fits and stages that have ended, of how many, and the one that runs, or ""."""

    ended: int
    total: int
    running: str


class StudyFile:
    """Writes the file of one run; on root."""

    def __init__(self, directory: Path):
        self._path = directory / STUDY
        self._states: dict[str, str] = {}

    def announce(self, names: Sequence[str]) -> None:
        """Add what is to come."""
        self._states |= {name: TO_COME for name in names if name not in self._states}
        self._write()

    def begin(self, name: str) -> None:
        """A fit or a stage begins."""
        self._states[name] = RUNNING
        self._write()

    def end(self, name: str) -> None:
        """It has ended; the file says so with the next that begins."""
        self._states[name] = ENDED

    def close(self) -> None:
        """The study has ended: what was announced and has not begun was not needed."""
        self._states = {name: NOT_NEEDED if state == TO_COME else state for name, state in self._states.items()}
        self._write()

    def _write(self) -> None:
        rows = [{"name": name, "state": state} for name, state in self._states.items()]
        write_text(self._path, json.dumps({"study": rows}, indent=1))


def read_study(directory: Path) -> StudyProgress | None:
    """The progress of the study of a run; None where the run says nothing of it."""
    try:
        rows = json.loads((directory / STUDY).read_text(encoding="utf-8"))["study"]
        states = {row["name"]: row["state"] for row in rows if row["state"] != NOT_NEEDED}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    running = next((name for name, state in states.items() if state == RUNNING), "")
    return StudyProgress(sum(state == ENDED for state in states.values()), len(states), running)
