"""One section."""

from hpcfit.report.page import Section, Text
from hpcfit.report.report import Contents
from hpcfit.report.sections import settings
from hpcfit.runs.files import RunFiles


def outcome(run: RunFiles) -> Section:
    return Section("The line", [Text(f"The slope is {run.metrics['slope']:.3f}.")])


CONTENTS = Contents(finished=(outcome, settings), unfinished=(settings,), files=("config.toml", "environment.json"))
