"""The energies of a CP2K run (`.ener`): step, time (fs), kinetic energy, temperature (K), potential energy, ..."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError, check_is_file
from hpcfit.readers.tables import strict_number


class Energies(NamedTuple):
    """[n] each: time in fs, energies in hartree, temperature in K."""

    time: np.ndarray
    kinetic: np.ndarray
    temperature: np.ndarray
    potential: np.ndarray


def read_energies(path: Path) -> Energies:
    """Read a file of energies. Raises InputError that names file and line."""
    rows = []
    check_is_file(path, "energies", "correct [problem] energy_file")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"energies {path} cannot be read: {error}", remedy="correct [problem] energy_file") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            rows.append([strict_number(word) for word in line.split()[1:5]])
        except ValueError:
            rows.append([])
        if len(rows[-1]) < 4 or not np.all(np.isfinite(rows[-1])):
            raise InputError(
                f"{path}, line {number}: '{line.strip()[:60]}' has not the five finite numbers of CP2K's .ener: step,"
                " time (fs), kinetic energy, temperature, potential energy",
                remedy="repair the line",
            )
        if len(rows) > 1 and rows[-1][0] < rows[-2][0]:
            raise InputError(
                f"{path}, line {number}: its time is {rows[-1][0]:g} fs, that of the row before {rows[-2][0]:g} fs",
                remedy="times may not fall: join the files of restarted runs without what both have",
            )
    if not rows:
        raise InputError(f"energies {path} has no rows", remedy="correct [problem] energy_file")
    return Energies(*np.array(rows).T)
