"""Runs of 34 blocks with everything on: the same bytes on 1, 2 and 3 ranks, and through a stop in every stage.

One chain of jobs goes through the whole study: each is held at a gate in the next stage, ended there, and continued on
another number of ranks. It is ended by SIGTERM, which keeps what is done, or killed.

Not proved: a machine that loses files which were written.
"""

import csv
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.command import ROOT, WIDE, here
from tests.conftest import wait_for
from tests.kinds.clusters.mixtures import components, measured
from tests.kinds.clusters.test_clusters_run import ARRAYS, CONFIG, copied, everything
from tests.workflow.crew_tasks import Gate

FRAMES, RARE = 1050, 700  # of each of two trajectories; the frame of the first with a label of its own
SIDE = 19.2  # A, of the box
ASKED = """
identity = true
residence = true
dwell = 1
percolation = "flag"
[problem.prediction]
[problem.placement]
conformers = 1
[[problem.curve]]
file = "curve.dat"
[problem.mixture]
prior = 0.1
folds = 2
bootstrap = 2
posterior = 100
burn = 5
"""
# `hpcfit`, whose root waits at a gate in one step of the study: after a unit of a stage, in the second step of a fit,
# or within what root does alone.
HELD = """
import sys
from pathlib import Path
from hpcfit import cli
from hpcfit.commands.run import Run
from hpcfit.kinds.clusters import study
from hpcfit.kinds.clusters.mixture import study as mixture
from tests.workflow.crew_tasks import Gate
gate, held = Gate(Path(sys.argv.pop(1))), sys.argv.pop(1)

def stage(self, name, work, inputs, before=Run.stage):
    units = work.run
    def waiting(numbers):
        for unit in units(numbers):
            if unit is not None and unit >= 0 and self.session.world.is_root:
                gate.wait()
            yield unit
    if name == held:
        work.run = waiting
    return before(self, name, work, inputs)

def fit(self, name, *arguments, before=Run.fit, **options):
    def wait(step):
        if step.number == 2 and self.session.world.is_root:
            gate.wait()
    return before(self, name, *arguments, **options, **({"also": wait} if name == held else {}))

def waits(function):
    def waiting(*arguments, **options):
        gate.wait()
        return function(*arguments, **options)
    return waiting

Run.stage, Run.fit = stage, fit
if held == "kinetics":
    study.observed = waits(study.observed)
if held == "posterior":
    import hpcfit.kinds.clusters.mixture.posterior as posterior
    posterior._sample = waits(posterior._sample)
cli.main()
"""
STAGES = ("radial distributions", "clusters", "intervals of predicted counts", "predicted structures", "pair sums")
# Every step of the study, and the ranks of the job that is ended in it.
STEPS = [
    ("radial distributions", 2), ("clusters", 1), ("kinetics", 2), ("intervals of predicted counts", 3),
    ("predicted structures", 2), ("pair sums", 3), ("observed mixture", 1), ("mixture", 2), ("left out 2", 1),
    ("resample 1", 2), ("posterior", 1),
]  # fmt: skip


def on_a_lattice(seed, rare=None):
    """Positions [FRAMES, 10, 3] A of 4 nodes on sites of a lattice and 6 linkers halfway to next sites, which join two
    nodes where both sites have one; in the frame `rare` all linkers are about one node, as nowhere else."""
    random, x = np.random.default_rng(seed), []
    sites = 6.4 * np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    sides = 3.2 * np.concatenate([np.eye(3), -np.eye(3)])
    nodes, linkers = random.permutation(27)[:4], random.permutation(24)[:6]
    for frame in range(FRAMES):
        if random.random() < 0.4:
            nodes = np.append(nodes[1:], random.choice(np.setdiff1d(np.arange(27), nodes)))
        if random.random() < 0.4:
            linkers = np.append(linkers[1:], random.choice(np.setdiff1d(np.arange(24), linkers)))
        if np.bincount(linkers // 6).max() == 6:  # a new one, since that is for the rare frame
            linkers = random.permutation(24)[:6]
        at, beside = (sites[[0, 13, 26, 16]], np.arange(6)) if frame == rare else (sites[nodes], linkers)
        x.append(np.concatenate([at, at[beside // 6] + sides[beside % 6]]) + 0.1 * random.standard_normal((10, 3)))
    return np.array(x) % SIDE


@pytest.fixture(scope="module")
def beads(tmp_path_factory):
    """A folder with the store of two trajectories, and with a curve. One label is in the 11th block alone."""
    folder = tmp_path_factory.mktemp("steady")
    for number, rare in ((1, RARE), (2, None)):
        np.savez(
            folder / f"part{number}.npz", coordinates=on_a_lattice(number, rare).astype("<f4"), box=np.full(3, SIDE),
            elements=np.array(["Pb"] * 4 + ["I"] * 6), time_fs=100.0 * np.arange(1, FRAMES + 1),
        )  # fmt: skip
    text = CONFIG.format(source=ARRAYS.format(file="part*.npz")).replace("Pb-I = 4.0", 'Pb-I = "minimum"')
    (folder / "config.toml").write_text(text.replace("[problem.cutoffs]", ASKED + "[problem.cutoffs]"))
    curve = measured(components({"Pb": 0.6, "PbI2": 0.4}), error=0.01)
    np.savetxt(folder / "curve.dat", np.stack(curve[:3], axis=1)[::3])
    done = here("prepare", folder / "config.toml")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def whole(beads):
    """The results of the run on one rank, which nothing interrupts."""
    done = here("optimize", beads / "config.toml")
    assert done.returncode == 0, done.stderr
    return everything(beads / "run")


def moved(beads, folder):
    (folder / "curve.dat").write_bytes((beads / "curve.dat").read_bytes())
    return copied(beads, folder)


def assert_same(run, whole):
    """The same results; checkpoints tell when they were written."""
    expected, found = ({name: one for name, one in of.items() if not name.startswith("checkpoints")}
                       for of in (whole, everything(run)))  # fmt: skip
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_s5_011_024_the_run_has_every_stage_and_a_label_of_one_block(beads, whole):
    """Without which the tests below would show little."""
    study = json.loads((beads / "run/study.json").read_text())
    names = {name for name, _ in STEPS} - {"kinetics", "posterior"}
    assert names <= {one["name"] for one in study["study"]}
    with (beads / "run/counts.csv").open(newline="") as file:
        counts = list(csv.DictReader(file))
    assert len(counts) == 2 * FRAMES
    blocks = {name: {int(row["frame"]) // 64 for row in counts if row[name] != "0"} for name in list(counts[0])[2:]}
    assert any(len(of_label) == 1 for of_label in blocks.values())
    assert {"predictions.csv", "mixture.csv", "saxs_components.csv", "rdf.csv", "tracked.csv"} <= whole.keys()
    assert any(name.startswith("predicted/") for name in whole)
    inputs = {"config.toml", "curve.dat", "part1.npz", "part2.npz", "store"}
    assert {path.name for path in beads.iterdir()} == inputs | {"run"}


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_s5_134_135_139_everything_has_the_same_bytes_on_ranks(beads, whole, ranks, tmp_path, hpcfit):
    """Tables, arrays and structures of counts, kinetics, predictions and scattering."""
    done = hpcfit("optimize", moved(beads, tmp_path), ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "run", whole)


def ended(step, ranks, number, config, gate, mpiexec):
    """The end of a job that waits at a gate in this step of the study, and is sent a signal there."""
    launcher = [mpiexec, "-n", str(ranks)] if ranks > 1 else []
    command = [*launcher, sys.executable, "-c", HELD, gate.folder, step, "optimize", config, "--resume", "auto"]
    job = subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | WIDE
    )  # fmt: skip
    try:
        [process] = wait_for(lambda: (gate.folder.exists() and gate.waiting()) or (job.poll() is not None and [0]))
        assert process, job.communicate()[1]
        os.kill(process, number)
        gate.open()
        said = job.communicate(timeout=120)[1]
    finally:
        job.kill()
    return job.returncode, said


@pytest.mark.mpi
def test_s5_140_fits_that_ended_on_two_ranks_are_remembered_on_one(beads, whole, tmp_path, mpiexec):
    """Their grid, all ranks along q, is another than that of the stages, all ranks along the frames."""
    config = moved(beads, tmp_path)
    code, said = ended("left out 2", 2, signal.SIGKILL, config, Gate(tmp_path / "gate 0"), mpiexec)
    assert code not in (0, 75), said
    done = here("optimize", config, "--resume")
    assert done.returncode == 0, done.stderr
    assert all(f"stage '{name}' has ended before" in done.stderr for name in STAGES)
    assert all(f"fit {name} has ended before" in done.stderr for name in ("observed mixture", "mixture", "left out 1"))
    assert_same(tmp_path / "run", whole)


@pytest.mark.mpi
@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.nightly)], ids=["ended", "killed"]
)
def test_s5_140_jobs_that_end_in_every_step_find_the_same(beads, whole, tmp_path, number, hpcfit, mpiexec):
    config = moved(beads, tmp_path)
    for job, (step, ranks) in enumerate(STEPS):
        code, said = ended(step, ranks, number, config, Gate(tmp_path / f"gate {job}"), mpiexec)
        assert (code == 75) is (number == signal.SIGTERM), (step, code, said)
        names = [name for name, _ in STEPS[:job] if name in STAGES]
        going_on = names[-1:] if job and STEPS[job - 1][0] in STAGES else []  # from the job before, in this stage
        assert [name for name in names if f"stage '{name}' has ended before" in said] == names[
            : len(names) - len(going_on)
        ]
        assert all((f"stage '{name}' goes on" in said) is (number == signal.SIGTERM) for name in going_on), said
    done = hpcfit("optimize", config, "--resume", ranks=3)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "run", whole)
