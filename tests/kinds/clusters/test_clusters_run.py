"""Runs of kind "clusters": the golden data through every input, the same bytes on other ranks and after a stop, bad
input.

Not proved: how many ranks pay.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest

from hpcfit.kinds.clusters.files import COLORMAP_COLUMNS, LIFETIME_COLUMNS, read_dataset, write_dataset
from hpcfit.testsystems import beads_in_clusters
from tests.command import ROOT, here, sets
from tests.conftest import assert_one_clear_error, wait_for
from tests.kinds.clusters import golden_clusters as golden
from tests.readers.test_frame_folders import write_xyz
from tests.workflow.crew_tasks import Gate

PROBLEM = """
[problem]
kind = "clusters"
node = ["Pb"]
linker = ["I"]
frames_per_bin = 10
resamples = 20
structures = 3
[problem.cutoffs]
Pb-I = 4.0
"""
CONFIG = (
    """
[run]
directory = "run"
report = false
[frames]
store = "store"
[prepare]
content = "positions"
shard_frames = 64
[[prepare.source]]
{source}
"""
    + PROBLEM
)
ARRAYS = (
    'arrays = "{file}"\nkeys = {{ positions = "coordinates", time = "time_fs" }}\nlength_unit = "A"\ntime_unit = "fs"\n'
)
# `hpcfit`, whose root waits at a gate when it has looked for the clusters of so many blocks.
HELD = """
import sys
from pathlib import Path
from hpcfit import cli
from hpcfit.kinds.clusters.extraction import stages
from tests.workflow.crew_tasks import Gate
gate, done, of_block = Gate(Path(sys.argv.pop(1))), [], stages.summary
def held(*arguments):
    done.append(1)
    if len(done) == 3:
        gate.wait()
    return of_block(*arguments)
stages.summary = held
cli.main()
"""


def rows(folder, name):
    with (folder / "run" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def everything(run):
    """The bytes of all results of a run directory but reports and what tells of the run itself."""
    left_out = {"metrics.json", "environment.json", "history.jsonl", "history.h5", "study.json", "stopped.json",
                "config.toml", "run.log"}  # fmt: skip
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path.name not in left_out]
    return {str(path.relative_to(run)): path.read_bytes() for path in files if path.parent.name != "fits"}


@pytest.fixture(scope="module")
def beads(tmp_path_factory):
    """A folder with 70 frames each of two trajectories of few beads, and their store: four blocks. One label, of a
    cluster that is put there, is in the first block alone."""
    folder = tmp_path_factory.mktemp("beads")
    few = beads_in_clusters.Beads(nodes=6, linkers=12, side=22.0, frames=70, equilibration=200)
    for number in (1, 2):
        beads_in_clusters.write(folder, few._replace(seed=number))
        arrays = dict(np.load(folder / "trajectory.npz"))
        if number == 1:  # nine linkers around a node
            x = arrays["coordinates"]
            x[5, 6:15] = x[5, 0] + 2.0 * np.array([[a, b, 1] for a in (-1, 0, 1) for b in (-1, 0, 1)])
            arrays["coordinates"] = x % 22.0
        np.savez(folder / f"part{number}.npz", **arrays)
    (folder / "config.toml").write_text(CONFIG.format(source=ARRAYS.format(file="part*.npz")))
    more = "resamples = 20\nidentity = true\nresidence = true\ndwell = 1"
    text = (folder / "config.toml").read_text().replace("resamples = 20", more)
    (folder / "config.toml").write_text(text)
    done = here("prepare", folder / "config.toml")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def whole(beads):
    """The run of it on one rank."""
    done = here("optimize", beads / "config.toml", *sets("run.report=true"))
    assert done.returncode == 0, done.stderr
    return beads / "run"


def copied(beads, folder):
    shutil.copytree(beads / "store", folder / "store")
    shutil.copy(beads / "config.toml", folder)
    return folder / "config.toml"


def test_s5_027_028_029_136_the_tables_agree_with_each_other(beads, whole):
    counts, kinetics = (
        rows(beads, "counts.csv"),
        {row["of"]: row for row in rows(beads, "kinetics.csv") if row["by"] == "label"},
    )
    labels = list(counts[0])[2:]
    assert len(counts) == 140
    assert labels == list(kinetics)
    n = np.array([[int(row[label]) for label in labels] for row in counts])
    with h5py.File(whole / "clusters.h5") as file:
        np.testing.assert_array_equal(file["counts"][:], n)
        assert file["counts"].dtype == np.int32
        compositions = file["compositions"][:]
        assert file["labels"].asstr()[:].tolist() == labels
        assert file["trajectory"][:].tolist() == [0] * 70 + [1] * 70
    np.testing.assert_array_equal(n @ compositions, np.tile([6, 12], (140, 1)))
    for label, column in zip(labels, n.T):
        assert int(kinetics[label]["observations"]) == column.sum()
        births = sum(np.maximum(np.diff(part), 0).sum() for part in (column[:70], column[70:]))
        assert int(kinetics[label]["births"]) == births
    alone = [label for label, column in zip(labels, n.T) if np.flatnonzero(column).tolist() == [5]]
    assert any("I9" in label or "I1" in label for label in alone), alone


def test_s5_120_114_columns_of_colormap_and_lifetimes(beads, whole):
    found = rows(beads, "colormap.csv")
    assert tuple(found[0]) == COLORMAP_COLUMNS
    assert {row["mode"] for row in found} == {"count", "fraction", "mean"}
    for mode, name in (("count", "raw_count"), ("fraction", "fraction"), ("mean", "mean_count_per_frame")):
        assert all(float(row["value"]) == float(row[name]) for row in found if row["mode"] == mode)
    lifetimes = rows(beads, "lifetimes.csv")
    assert tuple(lifetimes[0]) == LIFETIME_COLUMNS
    assert len(LIFETIME_COLUMNS) == 18
    weights = [float(row["Observed-only Weight %"]) for row in lifetimes if row["Observed-only Weight %"]]
    assert sum(weights) == pytest.approx(100)
    assert {row["Notes"] for row in lifetimes if row["Nodes"] == "0"} == {"without nodes"}


def test_s5_041_structures_are_clusters_of_their_label(beads, whole):
    for path in sorted((whole / "structures").glob("*.xyz")):
        lines = path.read_text().splitlines()
        n = int(lines[0])
        assert len(lines) % (n + 2) == 0
        assert len(lines) // (n + 2) <= 3
        elements = [line.split()[0] for line in lines[2 : n + 2]]
        x = np.array([line.split()[1:] for line in lines[2 : n + 2]], float)
        label = "".join(f"{name}{elements.count(name) if elements.count(name) > 1 else ''}"
                        for name in ("Pb", "I") if name in elements)  # fmt: skip
        assert path.stem == label
        distances = np.linalg.norm(x[:, None] - x, axis=2) + 99 * np.eye(n)
        assert n == 1 or np.all(distances.min(axis=1) <= 4.0)


def test_s5_119_the_data_set_comes_back_as_it_was(whole, tmp_path):
    content = read_dataset(whole / "dataset.json")
    write_dataset(tmp_path / "again.json", content)
    assert (tmp_path / "again.json").read_bytes() == (whole / "dataset.json").read_bytes()
    assert content["cutoffs_A"] == {"Pb-I": {"0": 4.0}}


def test_s5_113_125_the_report_shows_labels_lifetimes_and_limitations(whole):
    text = (whole / "report.html").read_text()
    for words in ("Labels in time", "Lifetimes", "Speciation", "clusters are not followed by their atoms",
                  "no graph neural network", "aggregation numbers and radii in time",
                  "of the same nodes and linkers"):  # fmt: skip
        assert words in text
    assert (whole / "colormap.png").stat().st_size > 1000
    assert (whole / "colormap.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_s5_134_135_ranks_write_the_same_bytes(beads, whole, ranks, tmp_path, hpcfit):
    """With a label that only one rank sees."""
    done = hpcfit("optimize", copied(beads, tmp_path), *sets("run.report=false"), ranks=ranks)
    assert done.returncode == 0, done.stderr
    found, expected = everything(tmp_path / "run"), everything(whole)
    for name in ("colormap.png", "colormap.pdf", "report.html"):
        del expected[name]
    assert found == expected


@pytest.mark.mpi
def test_s5_140_a_run_that_is_stopped_at_a_gate_goes_on_on_other_ranks(beads, whole, tmp_path, hpcfit):
    config, gate = copied(beads, tmp_path), Gate(tmp_path / "gate")
    command = [sys.executable, "-c", HELD, gate.folder, "optimize", config]
    held = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        [process] = wait_for(lambda: gate.folder.exists() and gate.waiting())
        os.kill(process, signal.SIGTERM)
        (gate.folder / "open").touch()
        said = held.communicate(timeout=120)[1]
    finally:
        held.kill()
    assert held.returncode == 75, said
    done = hpcfit("optimize", config, "--resume", ranks=2)
    assert done.returncode == 0, done.stderr
    assert "of 4 units are done" in done.stderr
    found, expected = everything(tmp_path / "run"), everything(whole)
    assert {name: found[name] for name in found if name.endswith((".csv", ".h5", ".xyz"))} == {
        name: expected[name] for name in expected if name.endswith((".csv", ".h5", ".xyz"))
    }


def test_s5_140_jobs_of_one_unit_find_the_same(beads, whole, tmp_path):
    """A clock that has run out after the first unit of each job."""
    config, short = copied(beads, tmp_path), sets("optimizer.wall_clock_minutes=1e-9", "run.report=false")
    done, jobs = here("optimize", config, *short), 1
    while done.returncode == 75:
        assert jobs < 10
        done = here("optimize", config, "--resume", *short)
        jobs += 1
    assert done.returncode == 0, done.stderr
    assert jobs > 2
    assert everything(tmp_path / "run")["counts.csv"] == everything(whole)["counts.csv"]


# ---- the golden data through the whole program -----------------------------------------------------------------------


KINETICS = {
    "observations": "total_observations", "occupied": "occupied_frames", "mean_count": "mean_count_per_frame",
    "occupancy": "occupancy_fraction", "births": "association_events", "deaths": "dissociation_events",
    "association_rate": "association_rate_per_ps", "dissociation_rate": "dissociation_rate_per_ps",
    "mean_lifetime": "mean_lifetime_fs", "std_lifetime": "std_lifetime_fs",
}  # fmt: skip
# of the golden folders: what the config has more than that without shells
GROWTH = {
    "": "",
    "shell_level0": "Pb-O = 3.3\n[problem.shells]\nin_labels = true\n",
    "shell_unshared": "Pb-O = { 1 = 3.3 }\n[problem.shells]\nlevels = [1]\nin_labels = true\n",
}


@pytest.mark.parametrize(
    ("source", "shells"),
    [("arrays", ""), ("folder", ""), ("arrays", "shell_level0"), ("folder", "shell_unshared")],
    ids=["arrays", "folder", "level0", "unshared"],
)
def test_s5_003_005_013_014_020_022_024_025_026_032_golden_data_from_end_to_end(shared_data, tmp_path, source, shells):
    """From the HDF5 file, whose times begin at 1000 fs, and from files frame_<i>.xyz, whose times are i x 1000 fs."""
    folder = shared_data / "clusters/pbi64_golden"
    if source == "arrays":
        text = CONFIG.format(source=ARRAYS.format(file=shared_data / "clusters/pbi64_langevin.h5") + "stop = 100\n")
    else:
        x, elements, box = golden.frames(shared_data)
        (tmp_path / "frames").mkdir()
        for k, frame in enumerate(x):
            write_xyz(tmp_path / f"frames/frame_{k:04d}.xyz", frame, elements)
        text = CONFIG.format(source='trajectory = "frames"\n')
        text = text.replace("frames_per_bin", f"box = {np.diag(box).tolist()}\ntimestep_fs = 1000.0\nframes_per_bin")
    if shells:
        text = text.replace("frames_per_bin", 'shell = ["O"]\nframes_per_bin') + GROWTH[shells]
    (tmp_path / "config.toml").write_text(text)
    for command in ("prepare", "optimize"):
        done = here(command, tmp_path / "config.toml")
        assert done.returncode == 0, done.stderr
    labels, counts = golden.counts_of(folder / shells)
    found = rows(tmp_path, "counts.csv")
    assert set(found[0]) - {"frame", "time_fs"} == set(labels)
    np.testing.assert_array_equal([[int(row[label]) for label in labels] for row in found], counts)
    start = 1000.0 if source == "arrays" else 0.0
    assert [float(row["time_fs"]) for row in found] == [start + 1000 * k for k in range(100)]
    dataset, told = read_dataset(tmp_path / "run/dataset.json"), golden.kinetics_of(folder / shells)
    assert_kinetics({row["label"]: row for row in dataset["labels"]}, told["by_label"], "label")
    assert_kinetics({row["size"]: row for row in dataset["sizes"]}, told["by_size"], "cluster_size")
    if not shells:
        bins = json.loads((folder / "bins.json").read_text())
        for row in rows(tmp_path, "colormap.csv"):
            label, number = row["label"], int(row["bin_index"])
            assert int(row["raw_count"]) == bins["raw_count"][label][number]
            assert float(row["fraction"]) == pytest.approx(bins["fraction"][label][number], rel=1e-12)
            assert float(row["mean_count_per_frame"]) == pytest.approx(bins["mean_count"][label][number], rel=1e-12)


def assert_kinetics(found, expected, name):
    """All kinetics of a golden table, with its lists of lifetimes."""
    assert sorted(found) == sorted(row[name] for row in expected)
    for row in expected:
        one = found[row[name]]
        for mine, told in KINETICS.items():
            assert one[mine] == (None if row[told] is None else pytest.approx(row[told], rel=1e-12)), (row[name], mine)
        for mine, told in (("completed_fs", "completed"), ("truncated_fs", "window_truncated")):
            lifetimes = sorted(row[f"{told}_lifetimes_fs"])
            np.testing.assert_allclose(sorted(one[mine]), lifetimes, rtol=1e-12, err_msg=f"{row[name]} {mine}")


def test_cutoffs_from_the_first_minimum_are_written_and_shown(beads, tmp_path):
    config = copied(beads, tmp_path)
    done = here(
        "optimize", config, *sets("problem.cutoffs={Pb-I='minimum'}", "problem.rdf_range=7.0", "run.report=true")
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert 3.3 < metrics["minima"]["Pb-I"] < 5.5
    assert metrics["cutoffs"] == {"Pb-I": {"0": metrics["minima"]["Pb-I"]}}
    curve = rows(tmp_path, "rdf.csv")
    g, r = (np.array([float(row[name]) for row in curve]) for name in ("Pb-I", "r_A"))
    assert g[r < 2].max() < 0.1
    assert 2.8 < r[np.argmax(g)] < 3.3
    assert "first minimum of the smoothed curve" in (tmp_path / "run/report.html").read_text()


def test_s5_010_033_energies_stand_below_the_colormap(beads, tmp_path):
    config = copied(beads, tmp_path)
    lines = [f"{k} {160.0 * k} 0.1 300.0 {-5 - k} 0.0 1.0" for k in range(100)]
    (tmp_path / "run-1.ener").write_text("\n".join(["# Step Nr. Time[fs] Kin.[a.u.] Temp[K] Pot.[a.u.]", *lines]))
    done = here("optimize", config, *sets("problem.energy_file=run-1.ener", "run.report=true"))
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path, "energies.csv")
    assert (float(found[0]["time_fs"]), float(found[0]["potential_hartree"])) == (160.0, -6.0)
    assert len(found) == 71  # up to the end of the window, 71 x 160 fs
    (tmp_path / "run-1.ener").write_text("1 0.5 0.1\n")
    assert_one_clear_error(here("check", config, *sets("problem.energy_file=run-1.ener")), ["run-1.ener, line 1"])


def test_s5_123_the_demo_is_made_in_seconds_and_is_summed_up(tmp_path, monkeypatch):
    brief = beads_in_clusters.Beads(frames=70, equilibration=200)
    monkeypatch.setattr(beads_in_clusters, "Beads", lambda: brief)
    done = here("init", "clusters", "--demo", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    done = here("optimize", tmp_path / "demo/config.toml", *sets("run.report=false"))
    assert done.returncode == 0, done.stderr
    assert "clusters a frame" in done.stderr


# ---- bad input -------------------------------------------------------------------------------------------------------

BAD = [
    (["problem.node=[]"], ["problem.node"]),  # S5-003
    (["problem.node=['Sn']"], ["node = 'Sn' is no element and no residue", "Pb"]),
    (["problem.shell=['I']"], ["species I has two roles"]),
    (["problem.cutoffs={}"], ["binds no pair of species", "default_cutoff"]),
    (["problem.cutoffs={Pb-Cl=4.0}"], ["'Pb-Cl' is no pair of Pb, I"]),
    (["problem.cutoffs={Pb-I={2=4.0}}"], ["level 2", "shells.levels"]),
    (["problem.cutoffs={Pb-I=11.5}"], ["cut-off is 11.5 A", "22 A apart"]),
    (["problem.box=[22.0,22.0,22.0]"], ["box = [22.0, 22.0, 22.0]", "boxes of their own"]),
    (["problem.shells={in_labels=true}"], ["shells", "no effect without a species of role shell"]),
    (["problem.residence=false", "problem.identity=false"], ["dwell = 1 has no effect"]),
    (["problem.first_time_fs=3.0"], ["first_time_fs = 3.0 has no effect without timestep_fs"]),
    (["problem.rdf_range=9.0"], ["rdf_range = 9.0 has no effect"]),
    (["problem.start_fs=5.0", "problem.stop_fs=4.0"], ["start_fs = 5.0 is not before stop_fs = 4.0"]),
    (["problem.start_fs=1e9"], ["0 of its frames lie between"]),
    (["problem.energy_file=nowhere.ener"], ["nowhere.ener does not exist"]),
    (["problem.largest=1"], ["has more than 1", "percolation = 'flag'"]),
    (["problem.cutoffs={Pb-I='minimum'}", "problem.periodic=false"], ["needs the volume of a periodic box"]),
]


@pytest.mark.parametrize(("changes", "words"), BAD, ids=lambda value: str(value[0])[:40])
def test_one_clear_error(beads, changes, words, tmp_path):
    config = copied(beads, tmp_path)
    assert_one_clear_error(here("optimize", config, *sets(*changes)), words)


@pytest.mark.mpi
def test_one_clear_error_on_ranks(beads, tmp_path, hpcfit):
    """One that a single rank meets in its frames."""
    done = hpcfit("optimize", copied(beads, tmp_path), *sets("problem.largest=9"), ranks=2)
    assert_one_clear_error(done, ["has more than 9"])


def test_s5_012_a_missing_box_is_an_error(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "frames").mkdir()
    for k in range(3):
        write_xyz(tmp_path / f"frames/frame_{k}.xyz", rng.uniform(0, 9, (4, 3)), ["Pb", "I", "I", "I"])
    (tmp_path / "config.toml").write_text(CONFIG.format(source='trajectory = "frames"\n'))
    assert here("prepare", tmp_path / "config.toml").returncode == 0
    periodic = here("optimize", tmp_path / "config.toml", *sets("problem.periodic=true", "problem.timestep_fs=1.0"))
    assert_one_clear_error(periodic, ["periodic = true", "have no box"])
    done = here("optimize", tmp_path / "config.toml", *sets("problem.timestep_fs=1.0"))
    assert done.returncode == 0, done.stderr
    (tmp_path / "frames/frame_1.xyz").write_text("4\n\nPb 1 2 3\nI 1 2\nI 1 2 3\nI 1 2 3\n")
    shutil.rmtree(tmp_path / "store")
    assert_one_clear_error(here("prepare", tmp_path / "config.toml"), ["frame_1.xyz, line 4"])


def test_s5_001_molecules_of_pdb_frames_with_boxes_of_their_own(tmp_path):
    """A Li, two linear molecules PF6 by residue: one is bound to Li across the wall in every other frame, in boxes that
    grow."""
    (tmp_path / "frames").mkdir()
    line = "HETATM{:5d} {:<4} {:<3} A{:4d}    {:8.3f}{:8.3f}{:8.3f}  1.00  0.00          {:>2}\n"
    for k in range(6):
        side = 20 + 0.1 * k
        x = [1.0, *(side - 1.0 - (0 if k % 2 else 3) + np.array([0.0, -1.5, 1.2])), 9.0, 10.5, 7.5]
        atoms = [("LI", "LI", 1, "Li"), *[("P", "PF6", 2, "P"), ("F1", "PF6", 2, "F"), ("F2", "PF6", 2, "F")],
                 *[("P", "PF6", 3, "P"), ("F1", "PF6", 3, "F"), ("F2", "PF6", 3, "F")]]  # fmt: skip
        text = f"CRYST1{side:9.3f}{side:9.3f}{side:9.3f}  90.00  90.00  90.00 P 1           1\n"
        text += "".join(line.format(n + 1, *row[:3], x[n] % side, 5, 5, row[3]) for n, row in enumerate(atoms))
        (tmp_path / f"frames/frame_{k}.pdb").write_text(text + "END\n")
    problem = PROBLEM.replace('["Pb"]', '["Li"]').replace('["I"]', '["PF6"]').replace("Pb-I = 4.0", "Li-PF6 = 2.5")
    text = CONFIG.format(source='trajectory = "frames"\n').replace(PROBLEM, problem)
    (tmp_path / "config.toml").write_text(text.replace("frames_per_bin = 10", "timestep_fs = 2.0"))
    for command in ("prepare", "optimize"):
        done = here(command, tmp_path / "config.toml")
        assert done.returncode == 0, done.stderr
    counts = rows(tmp_path, "counts.csv")
    assert [row["Li(PF6)"] for row in counts] == ["0", "1"] * 3
    assert [row["(PF6)"] for row in counts] == ["2", "1"] * 3
    shares = {
        (row["quantity"], row["species"], row["of"]): float(row["value"]) for row in rows(tmp_path, "speciation.csv")
    }
    assert shares["state", "Li", "paired"] == 0.5
    assert shares["coordination", "Li", "PF6"] == 0.5
    structure = (tmp_path / "run/structures/Li(PF6).xyz").read_text().splitlines()[2:6]
    assert [one.split()[0] for one in structure] == ["Li", "P", "F", "F"]
    places = np.array([one.split()[1:] for one in structure], float)
    np.testing.assert_allclose(places[:, 0], [1.0, -1.0, -2.5, 0.2], atol=2e-3)
    (tmp_path / "frames/frame_9.xyz").write_text("1\n\nLi 0 0 0\n")
    shutil.rmtree(tmp_path / "store")
    assert_one_clear_error(here("prepare", tmp_path / "config.toml"), ["two formats", "frame_9.xyz"])


def test_percolating_clusters_are_counted_where_they_are_flagged(beads, tmp_path):
    done = here("optimize", copied(beads, tmp_path), *sets("problem.percolation='flag'", "problem.largest=3"))
    assert done.returncode == 0, done.stderr
    [said] = [
        text for text in json.loads((tmp_path / "run/metrics.json").read_text())["warnings"] if "own image" in text
    ]
    assert "more than 3 units" in said
