"""`hpcfit report`: the page of a run, or table and page of a sweep, written anew from their files."""

from __future__ import annotations

from pathlib import Path

from hpcfit.errors import InputError
from hpcfit.kinds.table import report_of
from hpcfit.report.report import write_deck, write_report
from hpcfit.runs.files import RunFiles
from hpcfit.sweep.files import is_sweep, write_sweep
from hpcfit.sweep.outcome import read_sweep


def run_report(folder: Path, *, slides: bool = False) -> Path:
    """Write the page of a run directory, or of the folder of a sweep; the page's path. slides: of a run, report.pptx
    beside it."""
    if is_sweep(folder):
        if slides:
            raise InputError(
                f"{folder} is the folder of a sweep, which has no slides", remedy="give one of its runs, or no --pptx"
            )
        return write_sweep(read_sweep(folder))
    run = RunFiles(folder)
    contents = report_of(run.config.get("problem", {}) | {"kind": run.kind})
    if slides:
        write_deck(folder, contents)
    return write_report(folder, contents)
