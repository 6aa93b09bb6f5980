"""What tests of force maps share: the config of a run of the store beside it, and the run."""

import json
from pathlib import Path

from hpcfit.commands.optimize import run_optimize
from hpcfit.kinds.table import load_config
from hpcfit.ranks import Ranks


def force_map_config(more: str, *, report: bool = False) -> str:
    """A config. more: the keys of its [problem], and further tables."""
    return f"""
[run]
directory = "run"
report = {str(report).lower()}
[frames]
store = "store"
[problem]
kind = "force-map"
{more}"""


def optimized(folder: Path, text: str, *sets: str) -> dict:
    """The metrics of a run of this config in this process; they are JSON as every program reads it."""
    (folder / "config.toml").write_text(text)
    config = load_config(folder / "config.toml", sets)
    assert run_optimize(config, Ranks(), overwrite=True) == 0
    return json.loads((config.run.directory / "metrics.json").read_text(), parse_constant=_no_number)


def _no_number(constant: str):
    raise AssertionError(f"{constant} is no number of JSON")
