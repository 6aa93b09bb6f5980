"""What a command loads: `--help` and what writes or explains configs no numerics, a fit without a report no figures."""

import json
import subprocess
import sys

import pytest

from tests.command import ROOT, sets

HEAVY = ("numpy", "jax", "scipy", "h5py", "matplotlib", "distributed")
CONFIGS = sorted(path.name for path in (ROOT / "config").glob("*.toml"))
# `hpcfit WORDS`, which leaves in FILE.RANK which of some libraries it has loaded.
LOADED = """
import atexit, json, sys
from pathlib import Path
file, libraries = Path(sys.argv.pop(1)), json.loads(sys.argv.pop(1))
def leave():
    ranks = sys.modules.get("hpcfit.ranks")
    rank = ranks.world_ranks().rank if ranks else 0
    loaded = [name for name in libraries if name in sys.modules]
    file.with_name(f"{file.name}.{rank}").write_text(json.dumps(loaded))
atexit.register(leave)
from hpcfit.cli import main
main()
"""


def loaded(folder, libraries, *words, launcher=()):
    """The libraries that the processes of a command have loaded, a list a rank."""
    script, file = folder / "loaded.py", folder / "found"
    script.write_text(LOADED)
    command = [*launcher, sys.executable, script, file, json.dumps(libraries), *words]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(path.read_text()) for path in sorted(folder.glob("found.*"))]


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["optimize", "--help"], ["job", "--sites"]], ids=" ".join)
def test_help_loads_no_numerics(tmp_path, words):
    assert loaded(tmp_path, HEAVY, *words) == [[]]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_job_script_of_each_kind_is_written_without_numerics(tmp_path, config):
    assert loaded(tmp_path, HEAVY, "job", ROOT / "config" / config) == [[]]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.mpi)])
def test_a_fit_without_a_report_draws_nothing(request, two_sources, tmp_path, ranks):
    options = sets("run.report=false", f"run.directory={tmp_path / 'run'}", "optimizer.max_steps=2", "problem.theta=0",
                   'problem.starts=["prior"]', "problem.resamples=0")  # fmt: skip
    launcher = [request.getfixturevalue("mpiexec"), "-n", str(ranks)] if ranks > 1 else []
    found = loaded(tmp_path, ["jax", "matplotlib"], "optimize", two_sources, *options, launcher=launcher)
    assert found == [["jax"]] * ranks
