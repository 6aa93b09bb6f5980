"""`hpcfit runs`: the runs below a folder beside each other: results, and the settings in which they differ."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcfit.errors import InputError
from hpcfit.kinds.table import kind_named
from hpcfit.runs.files import CONFIG, EARLIER, ENVIRONMENT, RunFiles

OF_EACH = ("run.directory",)  # settings in which runs always differ


def run_runs(folder: Path) -> int:
    """Print one table: of each run its outcome, then each setting that is not the same in all."""
    runs = found_runs(folder)
    sys.stdout.write("\n".join([*outcomes(folder, runs), "", *differences(folder, runs)]) + "\n")
    return 0


def found_runs(folder: Path) -> list[RunFiles]:
    """The run directories below a folder, or itself, by name. Raises InputError where there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder", remedy="give a folder with run directories")
    places = sorted(path.parent for path in folder.rglob(ENVIRONMENT) if _is_run(path.parent))
    if not places:
        raise InputError(
            f"{folder} has no run directory: none of its folders has {CONFIG} and {ENVIRONMENT}",
            remedy="give the folder that [run] directory of your configs lies in",
        )
    return [RunFiles(path) for path in places]


def _is_run(path: Path) -> bool:
    """Whether a folder is that of a run, and not where one waits that is being replaced."""
    return (path / CONFIG).is_file() and not path.name.startswith(EARLIER)


def outcomes(folder: Path, runs: Sequence[RunFiles]) -> Iterator[str]:
    """A line for each run: its kind and its result in words, or that it has not ended."""
    for run in runs:
        yield f"{_name(folder, run)}: {run.kind}: {'; '.join(_result(run))}"


def _result(run: RunFiles) -> Sequence[str]:
    if not run.finished:
        return ["has not ended"]
    kind = kind_named(run.kind).of(run.config.get("problem", {}) | {"kind": run.kind})
    with run.understood("a headline"):
        return kind.part("headline")(run.metrics)


def differences(folder: Path, runs: Sequence[RunFiles]) -> Iterator[str]:
    """The settings that are not the same in all runs, each with its value in every run."""
    settings = {_name(folder, run): dict(_flat(run.config)) for run in runs}
    keys = dict.fromkeys(key for of_run in settings.values() for key in of_run if key not in OF_EACH)
    differ = [key for key in keys if len({of_run.get(key) for of_run in settings.values()}) > 1]
    if not differ:
        yield "all settings are the same"
    for key in differ:
        yield key
        yield from (f"  {name}: {of_run.get(key, 'not given')}" for name, of_run in settings.items())


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Keys as `section.key`, with values as text."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", json.dumps(value, default=str)


def _name(folder: Path, run: RunFiles) -> str:
    return str(run.directory.relative_to(folder)) if run.directory != folder else folder.name
