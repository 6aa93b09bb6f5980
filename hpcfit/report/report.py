"""The report of a run: from the files of its directory alone to one HTML page that needs no other file, or to
slides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from hpcfit.log import logger
from hpcfit.report.page import Section, Text, render
from hpcfit.report.slides import write_slides
from hpcfit.runs.files import DECK, REPORT, RunFiles
from hpcfit.store.files import write_text

Builder = Callable[..., Section | None]  # of the files of a run; None where the run has nothing of the kind


class Contents(NamedTuple):
    """The contents of the reports of a kind.

    finished, unfinished: the sections, in order; those of a run that has only its history so far are few. files: that a
    finished run must have. run: the class that reads them.
    """

    finished: Sequence[Builder]
    unfinished: Sequence[Builder]
    files: Sequence[str]
    run: type[RunFiles] = RunFiles


def write_report(run_directory: Path, contents: Contents) -> Path:
    """Write report.html into a run directory and return its path.

    A run without metrics.json is unfinished: its report says so and holds the history alone. Raises InputError that
    names the file when one is missing or damaged.
    """
    run, sections = _built(run_directory, contents)
    page = render(_title(run), run.kind, sections)
    path = run.directory / REPORT
    write_text(path, page)
    logger.info("report %s (%.2g MB)", path, len(page) / 1e6)
    return path


def write_deck(run_directory: Path, contents: Contents) -> Path:
    """Write the same sections as slides, report.pptx, and return its path. Raises InputError as ``write_report``."""
    from hpcfit.report.drawing import as_png

    with as_png():
        run, sections = _built(run_directory, contents)
    path = run.directory / DECK
    write_slides(path, _title(run), run.kind, sections)
    return path


def _built(run_directory: Path, contents: Contents) -> tuple[RunFiles, list[Section]]:
    run = contents.run(run_directory)
    for name in contents.files if run.finished else ():
        run.path(name)  # a missing file is said before any figure is drawn
    builders = contents.finished if run.finished else contents.unfinished
    with run.understood("a report"):
        first, *others = [section for build in builders if (section := build(run)) is not None]
        return run, [first, *_warnings(run), *others]


def _warnings(run: RunFiles) -> list[Section]:
    """The section with the warnings of a run that has ended, if there are any."""
    found = run.metrics.get("warnings", []) if run.finished else []
    return [Section("Warnings", [Text(sentence, warning=True) for sentence in found])] if found else []


def _title(run: RunFiles) -> str:
    return f"hpcfit: {run.directory.resolve().name}"
