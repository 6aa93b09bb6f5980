"""`hpcfit export`: what a run found, in the formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcfit.errors import InputError
from hpcfit.kinds.table import KINDS, kind_named
from hpcfit.runs.files import METRICS, RunFiles
from hpcfit.runs.wanted import Wanted


def run_export(folder: Path, file: Path, **options: Any) -> None:
    """Write one file of what a finished run found; options are those of ``Wanted``.

    Raises InputError for a run that has not ended or is of a kind without such files, for files that are there, and for
    what its kind cannot write.
    """
    run = RunFiles(folder)
    run.path(METRICS)
    kind = kind_named(run.kind).of(run.config.get("problem", {}) | {"kind": run.kind})
    if not kind.export:
        having = " or ".join(f"'{name}'" for name, one in KINDS.items() if one.export)
        raise InputError(
            f"{folder} is a run of kind '{run.kind}', of which `hpcfit export` writes nothing",
            remedy=f"give a run of kind {having}",
        )
    wanted = Wanted(**options)
    wanted.check_is_free(file)
    with run.understood(file.name):
        kind.part("export")(run, file, wanted)
