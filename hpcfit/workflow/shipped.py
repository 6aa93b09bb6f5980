"""Files that come beside the package: `jobs/` and `config/` of a checkout, which a wheel installs as well."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import hpcfit
from hpcfit.errors import InputError


def shipped(name: str) -> Path:
    """The path of a file such as "config/frame_weights.toml": beside the package in a checkout, else where a wheel put
    it, below `share/hpcfit` of the environment or of `pip install --user`. Raises InputError where it is in none."""
    beside = Path(hpcfit.__file__).resolve().parents[1]
    shared = [Path(sysconfig.get_path("data", scheme)) / "share/hpcfit" for scheme in _schemes()]
    folders = [beside, *shared]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"no file {name} in {', '.join(map(str, folders))}", remedy="install hpcfit again, or use a checkout"
    )


def _schemes() -> list[str]:
    return [sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")]
