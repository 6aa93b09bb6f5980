"""What a command loads: `--help` and what writes or explains configs no numerics, a fit nothing that it does not use.

Each of thousands of ranks imports it again, from one file system.
"""

import json
import subprocess
import sys

import pytest

from hpcfit.testsystems import harmonic_beads
from tests.command import ROOT, sets

HEAVY = ("numpy", "jax", "scipy", "h5py", "matplotlib", "distributed")
OF_SOME_FITS = (
    "MDAnalysis", "distributed", "equinox", "matplotlib", "numba", "openmm", "optax", "scipy.fft", "scipy.interpolate",
    "scipy.optimize", "scipy.sparse", "scipy.stats",
)  # fmt: skip
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


@pytest.fixture(scope="module")
def force_map(tmp_path_factory):
    """The config of a map of harmonic beads, and a linear force field of them."""
    folder = tmp_path_factory.mktemp("force_map")
    system = harmonic_beads.HarmonicBeads()
    r, f = system.frames(200, 0)
    harmonic_beads.write_force_store(folder / "store", system.particles, {"a": (r, f, None)})
    config = folder / "config.toml"
    config.write_text(
        '[frames]\nstore = "store"\n[problem]\nkind = "force-map"\nbootstrap = 0\n'
        '[problem.beads]\neach = "index 2 9"\n[problem.map]\nmethods = ["basic"]\n'
        '[problem.force_matching]\ntypes = "one"\n'
    )
    return config


def of_a_fit(config, tmp_path, launcher, *options):
    """The libraries of OF_SOME_FITS that a fit without a report has loaded, a list a rank."""
    words = sets("run.report=false", f"run.directory={tmp_path / 'run'}", *options)
    return loaded(tmp_path, OF_SOME_FITS, "optimize", config, *words, launcher=launcher)


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_fit_of_weights_loads_what_it_uses(mpiexec, two_sources, tmp_path, ranks):
    launcher = [mpiexec, "-n", str(ranks)] if ranks > 1 else []
    options = ("optimizer.max_steps=2", "problem.theta=0", 'problem.starts=["prior"]', "problem.resamples=0")
    assert of_a_fit(two_sources, tmp_path, launcher, *options) == [["numba"]] * ranks


@pytest.mark.mpi
def test_a_force_map_loads_what_it_uses(mpiexec, force_map, tmp_path):
    on_root, on_other = of_a_fit(force_map, tmp_path, [mpiexec, "-n", "2"])
    assert on_root == ["MDAnalysis", "openmm", "scipy.sparse"]  # to choose atoms, and to write the model for OpenMM
    assert on_other == ["scipy.sparse"]
