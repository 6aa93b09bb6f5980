"""`hpcfit report`: the page of a run, or table and page of a sweep, written anew from their files."""

from __future__ import annotations

from pathlib import Path

from hpcfit.kinds.table import report_of
from hpcfit.report.report import write_report
from hpcfit.runs.files import RunFiles
from hpcfit.sweep.files import is_sweep, write_sweep
from hpcfit.sweep.outcome import read_sweep


def run_report(folder: Path) -> Path:
    """Write the page of a run directory, or of the folder of a sweep; the page's path."""
    if is_sweep(folder):
        return write_sweep(read_sweep(folder))
    run = RunFiles(folder)
    return write_report(folder, report_of(run.config.get("problem", {}) | {"kind": run.kind}))
