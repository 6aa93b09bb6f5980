"""Force maps on several ranks: the same bits in maps, mapped frames, potentials, training and the simulation of beads,
on every grid."""

import hashlib
import json
import shutil

import h5py
import numpy as np
import pytest

from hpcfit.testsystems.harmonic_beads import HarmonicBeads, write_force_store
from tests.command import here, sets
from tests.conftest import assert_one_clear_error
from tests.kinds.force_map.force_map_runs import force_map_config

pytestmark = pytest.mark.mpi

ATOMS, FRAMES = 300, 230  # more than one panel of products; four blocks, the last one short
CONFIG = force_map_config("""
blocks = 7
bootstrap = 3
[problem.beads]
each = "index 10 20 150 290"
[problem.map]
methods = ["slice", "basic", "optimal", "local", "features"]
use = "local"
support = 3
ridge = 0.01
noise = 0.05
[problem.force_matching]
types = "one"
pair_functions = 6
[problem.force_matching.neural]
width = 4
depth = 1
functions = 3
cutoff = 30.0
[problem.force_matching.simulation]
model = "neural"
frames = 8
interval = 0.02
[optimizer]
max_steps = 3
""")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    system = HarmonicBeads(ATOMS)
    r, f = system.frames(FRAMES, 1)
    path = tmp_path_factory.mktemp("ranks")
    cut = 140
    sources = {"a": (r[:cut], f[:cut], None), "b": (r[cut:], f[cut:], None)}
    write_force_store(path / "store", system.particles, sources)
    (path / "config.toml").write_text(CONFIG)
    return path


def result(directory) -> dict[str, str]:
    """Hashes of everything that a run found."""
    metrics = json.loads((directory / "metrics.json").read_text())
    kept = ("maps", "learning", "inefficiency", "comparison", "force_matching", "chosen")
    found = {name: json.dumps(metrics[name]) for name in kept}
    found["history"] = str([
        (row["loss"], row["residual_free"], row["gradient_norm"])
        for row in map(json.loads, (directory / "history.jsonl").read_text().splitlines())
    ])  # fmt: skip
    found["map"] = hashlib.sha256((directory / "force_map.npy").read_bytes()).hexdigest()
    for shard in sorted((directory / "mapped").glob("[ab].h5")):
        with h5py.File(shard) as file:
            group = file["particles/trajectory"]
            for name in ("position", "force"):
                found[f"{shard.name} {name}"] = hashlib.sha256(group[name]["value"][:].tobytes()).hexdigest()
    with h5py.File(directory / "simulation.h5") as file:
        found["simulation"] = str([file[f"profile {name}/model"][:].tolist() for name in ("end to end", "rmsd")])
    return found


def fitted(folder, frames, slices) -> list:
    """The words of a fit on a grid of ranks, in a folder of its own."""
    settings = (f"run.directory={folder / f'{frames}x{slices}'}", f"grid.frames={frames}", f"grid.slices={slices}")
    return ["optimize", folder / "config.toml", *sets(*settings, "run.report=false")]


@pytest.fixture(scope="module")
def alone(folder):
    """What one rank finds."""
    done = here(*fitted(folder, 1, 1))
    assert done.returncode == 0, done.stderr
    return result(folder / "1x1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frames", "slices"), [(1, 2), (3, 1), pytest.param(2, 1, marks=pytest.mark.nightly)]
)  # fmt: skip
def test_every_grid_gives_the_same_bits(folder, hpcfit, alone, frames, slices):
    done = hpcfit(*fitted(folder, frames, slices), ranks=frames * slices)
    assert done.returncode == 0, done.stderr
    assert alone["history"].count("(") >= 3
    assert result(folder / f"{frames}x{slices}") == alone


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_damaged_frame_is_one_error_that_names_it(folder, hpcfit, tmp_path, ranks):
    shutil.copytree(folder / "store", tmp_path / "store")
    with h5py.File(tmp_path / "store/b.h5", "r+") as file:
        values = file["particles/trajectory/force/value"]
        row = values[70]
        row[5] = np.nan
        values[70] = row
    (tmp_path / "config.toml").write_text(CONFIG)
    done = hpcfit("optimize", tmp_path / "config.toml", ranks=ranks)
    assert_one_clear_error(done, [str(tmp_path / "store/b.h5"), "frames 204 to 229", "checksum"])
    assert not (tmp_path / "run/metrics.json").exists()
