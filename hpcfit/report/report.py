"""The report of a run: from the files of its directory alone to one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from hpcfit.errors import InputError, nearest
from hpcfit.kinds.force_map import report as force_map
from hpcfit.kinds.force_map import report_models as potentials
from hpcfit.kinds.force_map import report_noise as noise
from hpcfit.kinds.force_map.report_coefficients import coefficients
from hpcfit.kinds.frame_weights import report as whole
from hpcfit.kinds.frame_weights import report_map as maps
from hpcfit.kinds.frame_weights import report_study as study
from hpcfit.kinds.frame_weights.report_weights import weights
from hpcfit.log import logger
from hpcfit.report.page import Section, render
from hpcfit.report.sections import settings
from hpcfit.runs.files import RunFiles
from hpcfit.store.files import write_text

Builder = Callable[[RunFiles], Section | None]  # None where the run has nothing of the kind


class Contents(NamedTuple):
    """The sections of a report, in order, and the files that they read."""

    finished: Sequence[Builder]
    files: Sequence[str]  # of a finished run
    unfinished: Sequence[Builder]  # of a run that has only its history so far
    run: type[RunFiles] = RunFiles  # what reads them


CONTENTS = {
    "frame-weights": Contents(
        finished=(
            whole.outcome,
            study.starts,
            study.theta,
            weights,
            whole.convergence,
            maps.shells,
            maps.sections,
            study.dropping,
            maps.agreement,
            whole.time,
            settings,
        ),
        files=("config.toml", "environment.json", "history.jsonl", "sources.csv", "weights.h5", "map.h5"),
        unfinished=(whole.so_far, whole.convergence, settings),
        run=whole.FrameWeightsRun,
    ),
    "force-map": Contents(
        finished=(
            force_map.outcome,
            force_map.maps,
            coefficients,
            noise.learning,
            noise.correlation,
            noise.validity,
            potentials.matching,
            potentials.simulation,
            force_map.time,
            settings,
        ),
        files=("config.toml", "environment.json", "maps.h5"),
        unfinished=(force_map.so_far, potentials.fits_so_far, settings),
    ),
}


def write_report(run_directory: Path) -> Path:
    """Write report.html into a run directory and return its path.

    A run without metrics.json is unfinished: its report says so and holds the history alone. Raises InputError that
    names the file when one is missing or damaged, or when the kind of problem has no report.
    """
    run = RunFiles(run_directory)
    if run.kind not in CONTENTS:
        source = "metrics.json" if run.finished else "config.toml"
        raise InputError(
            f"{run.path(source)}: problem kind '{run.kind}' has no report", remedy=nearest(run.kind, CONTENTS)
        )
    contents = CONTENTS[run.kind]
    run = contents.run(run_directory)
    for name in contents.files if run.finished else ():
        run.path(name)  # a missing file is said before any figure is drawn
    builders = contents.finished if run.finished else contents.unfinished
    sections = [section for build in builders if (section := build(run)) is not None]
    page = render(f"hpcfit: {run.directory.resolve().name}", run.kind, sections)
    path = run.directory / "report.html"
    write_text(path, page)
    logger.info("report %s (%.2g MB)", path, len(page) / 1e6)
    return path
