"""Runs of kind "structure": files and report of a loop, the same bits on other ranks and after a stop, bad input."""

import csv
import json

import gemmi
import h5py
import jax
import numpy as np
import pytest
import scipy.linalg

from hpcfit.kinds.structure.files import REPLICA_COLUMNS, REPLICAS, STRUCTURES, TRACES
from hpcfit.kinds.structure.landscapes.loops import Loops
from hpcfit.kinds.structure.landscapes.peptide import Peptide
from hpcfit.kinds.structure.structure_text import structure_text
from hpcfit.kinds.table import load_config
from hpcfit.physics.superposition import rmsd
from tests.command import here, sets
from tests.conftest import assert_one_clear_error

CONFIG = """
[run]
directory = "run"
report = false
[problem]
kind = "structure"
replicas = 3
block = 2
budget = 60
[problem.energy]
form = "loops"
n = 24
[problem.start]
kind = "chain"
[[problem.method]]
name = "precond"
parametrisation = "precond"
[[problem.method]]
name = "linear"
parametrisation = "linear"
modes = 8
[[problem.method]]
name = "gnn"
parametrisation = "gnn"
optimizer = "adam"
[[problem.method]]
name = "hopping"
optimizer = "basin-hopping"
temperature = 0.001
step = 0.2
[[problem.method]]
name = "scipy"
optimizer = "scipy"
"""
HESSIAN = """
[problem.modes]
source = "hessian"
samples = 3
spread = 0.8
cap = 0.9
number = 5
"""
METHODS = ["precond", "linear", "gnn", "hopping", "scipy"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with its run on one rank."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "config.toml").write_text(CONFIG)
    done = here("optimize", folder / "config.toml", *sets("run.report=true"))
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


def ends(folder):
    with h5py.File(folder / "run" / STRUCTURES) as file:
        return {name: file[f"methods/{name}"][:] for name in METHODS}


def test_the_resolved_config_is_one_that_can_be_read(whole):
    folder, _ = whole
    first, second = (load_config(folder / name) for name in ("config.toml", "run/config.toml"))
    assert first.problem == second.problem


def test_the_files_tell_of_the_structures_that_they_hold(whole):
    folder, log = whole
    loop, found = Loops.of(24), ends(folder)
    with (folder / "run" / REPLICAS).open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == REPLICA_COLUMNS
    assert [row["method"] for row in rows] == [name for name in METHODS for _ in range(3)]
    for row in rows:
        x = found[row["method"]][int(row["replica"])]
        assert float(row["energy"]) == pytest.approx(loop.independent(x), rel=1e-12)
        assert int(row["contacts"]) == loop.contacts(x)[0]
        assert int(row["gradients"]) <= 60
    metrics = json.loads((folder / "run/metrics.json").read_text())
    assert metrics["reference"] == pytest.approx(loop.reference())
    for one in metrics["methods"]:
        energies = [float(row["energy"]) for row in rows if row["method"] == one["method"]]
        assert one["best"] == min(energies)
        assert one["median"] == pytest.approx(np.median(energies))
        assert f"{one['method']}: best" in log
    best = next(one for one in metrics["methods"] if one["method"] == metrics["of"])
    lines = (folder / f"run/structures/{metrics['of']}.xyz").read_text().splitlines()
    assert len(lines) == 26
    assert float(lines[1].split()[-1]) == pytest.approx(best["best"])
    assert loop.independent(np.array([line.split()[1:] for line in lines[2:]], float)) == pytest.approx(
        best["best"], rel=1e-6
    )


def test_every_method_begins_at_the_same_energy(whole):
    """But slow modes alone, which cannot say all that a start is."""
    with (whole[0] / "run" / TRACES).open() as file:
        first = {row["method"]: float(row["median"]) for row in csv.DictReader(file) if row["gradients"] == "1"}
    same = [first[name] for name in ("precond", "gnn", "hopping")]  # with capped cores
    assert same == pytest.approx([same[0]] * 3, rel=1e-9)


def test_the_report_shows_all_methods(whole):
    text = (whole[0] / "run/report.html").read_text()
    assert all(name in text for name in METHODS)
    assert text.count("data:image/svg+xml") == 4
    assert "the best structures from two sides" in text


def test_slow_modes_alone_are_those_of_the_hessian_that_they_say(tmp_path):
    """The Laplacian of block norms, averaged over the same samples by JAX's whole Hessian."""
    text = CONFIG.partition("[[problem.method]]")[0] + HESSIAN
    (tmp_path / "config.toml").write_text(text)
    done = here("optimize", tmp_path / "config.toml", *sets("run.report=true"))
    assert done.returncode == 0, done.stderr
    loop, n = Loops.of(24), 24
    samples = [0.8 * np.random.default_rng([0, number]).standard_normal((n, 3)) for number in range(3)]
    hessian = jax.jit(jax.hessian(lambda x: loop.energy(x, 0.9)))
    norms = np.mean([np.linalg.norm(np.asarray(hessian(x)), axis=(1, 3)) for x in samples], axis=0)
    np.fill_diagonal(norms, 0)
    values, vectors = np.linalg.eigh(np.diag(norms.sum(axis=1)) - norms)
    with h5py.File(tmp_path / "run/modes.h5") as file:
        np.testing.assert_allclose(file["values"][:], values[1:6], rtol=1e-9)
        angles = scipy.linalg.subspace_angles(file["vectors"][:], vectors[:, 1:6])
        assert np.max(angles) < 1e-6
    assert "particles that take part" in (tmp_path / "run/report.html").read_text()


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.mpi
def test_ranks_find_the_same_bits(whole, ranks, tmp_path, hpcfit):
    (tmp_path / "config.toml").write_text(CONFIG)
    done = hpcfit("optimize", tmp_path / "config.toml", ranks=ranks)
    assert done.returncode == 0, done.stderr
    for name, x in ends(tmp_path).items():
        np.testing.assert_array_equal(x, ends(whole[0])[name])


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(whole, tmp_path):
    """A clock that has run out after the first unit of each job."""
    (tmp_path / "config.toml").write_text(CONFIG)
    short = sets("optimizer.wall_clock_minutes=1e-9")
    done = here("optimize", tmp_path / "config.toml", *short)
    jobs = 1
    while done.returncode == 75:
        assert jobs < 20
        done = here("optimize", tmp_path / "config.toml", "--resume", *short)
        jobs += 1
    assert done.returncode == 0, done.stderr
    assert jobs > 3
    for name, x in ends(tmp_path).items():
        np.testing.assert_array_equal(x, ends(whole[0])[name])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["problem.energy={form='loops', n=5}"], ["n", "12"]),
        (["problem.energy={form='lennard-jones', n=7}"], ["'chain'", "graph of couplings"]),
        (["problem.energy={form='lennard-jones', n=7}", "problem.start={kind='random'}"], ["'precond'", "a graph"]),
        (["problem.start={kind='native'}"], ["'native'", "system or a protein"]),
        (["problem.start={kind='file', file='nowhere.npy'}"], ["nowhere.npy"]),
        (["problem.start={kind='random', noise=0.1}"], ["noise", "no effect"]),
        (["problem.modes={samples=3}"], ["samples", "no effect"]),
        (["problem.method=[{name='a/b'}]"], ["name", "pattern"]),
        (["problem.method=[{name='a', parametrisation='gnn', network_rate=0.1}]"], ["network_rate", "no effect"]),
        (["problem.method=[{name='a', parametrisation='gnn', network='mlp', modes=3}]"], ["modes", "no effect"]),
        (["problem.budget=0"], ["budget"]),
        (["problem.reference='nowhere.npy'"], ["nowhere.npy"]),
        (["problem.reference_atoms='all'"], ["reference_atoms", "no effect"]),
        (["problem.written=4"], ["written", "3 replicas"]),
        (["problem.method=[{name='a', modes=3}]"], ["modes", "no effect"]),
        (["problem.method=[{name='a', parametrisation='linear', modes=25}]"], ["25", "24"]),
        (["problem.method=[{name='a'}, {name='a'}]"], ["'a'", "twice"]),
    ],
)
def test_one_clear_error(changes, words, tmp_path):
    (tmp_path / "config.toml").write_text(CONFIG)
    assert_one_clear_error(here("optimize", tmp_path / "config.toml", *sets(*changes)), words)


FORMS = {
    "peptide": ("{form='peptide', sequence='GG'}", "{kind='native', noise=0.1}"),
    "elastic-network": ("{form='elastic-network', file='sites.xyz', cutoff=1.5}", "{kind='native', noise=0.1}"),
    "stokes": ("{form='stokes', side=4}", "{kind='random', scale=0.1}"),
    "function": ("{form='function', function='own.py:energy', n=3, d=2}", "{kind='random'}"),
    "thomson": ("{form='thomson', n=4}", "{kind='random'}"),
}


def test_ends_are_compared_with_a_reference_and_written_as_pdb(tmp_path):
    peptide = Peptide.of_sequence("GAG")
    (tmp_path / "native.pdb").write_text(structure_text(peptide, peptide.native[None], "native")[1])
    text = CONFIG.partition("[[problem.method]]")[0] + '[[problem.method]]\nname = "L-BFGS"\n'
    (tmp_path / "config.toml").write_text(text)
    keys = ("energy={form='peptide', sequence='GAG'}", "start={kind='native', noise=2.0}", "reference='native.pdb'")
    done = here(
        "optimize", tmp_path / "config.toml",
        *sets("run.report=true", "problem.written=2", *(f"problem.{key}" for key in keys)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [method] = json.loads((tmp_path / "run/metrics.json").read_text())["methods"]
    with (tmp_path / "run" / REPLICAS).open() as file:
        rows = list(csv.DictReader(file))
    away = [float(row["rmsd"]) for row in rows]
    best = min(rows, key=lambda row: float(row["energy"]))
    assert method["rmsd"]["best"] == float(best["rmsd"])
    assert method["rmsd"]["median"] == pytest.approx(np.median(away))
    models = gemmi.read_structure(str(tmp_path / "run/structures/L-BFGS.pdb"))
    alphas = np.array([[cra.atom.pos.tolist() for cra in model.all() if cra.atom.name == "CA"] for model in models])
    named = np.array([name == "CA" for name in peptide.particles().names])
    assert len(models) == 2
    assert rmsd(alphas, peptide.native[named])[0] == pytest.approx(float(best["rmsd"]), abs=2e-3)
    report = (tmp_path / "run/report.html").read_text()
    assert "RMSD from the reference" in report
    assert "Cα (3)" in report


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_energy_is_minimised(form, tmp_path):
    (tmp_path / "own.py").write_text("def energy(x):\n    return ((x - 2.0) ** 2).sum()\n")
    (tmp_path / "sites.xyz").write_text("4\n\n" + "".join(f"C {x} {y} 0\n" for x in (0, 1) for y in (0, 1)))
    text = CONFIG.partition("[problem.energy]")[0].replace("budget = 60", "budget = 200")
    text += '[[problem.method]]\nname = "L-BFGS"\nlongest = 1.0\n'
    energy, start = FORMS[form]
    (tmp_path / "config.toml").write_text(text)
    done = here("optimize", tmp_path / "config.toml", *sets(f"problem.energy={energy}", f"problem.start={start}"))
    assert done.returncode == 0, done.stderr
    [method] = json.loads((tmp_path / "run/metrics.json").read_text())["methods"]
    known = {"elastic-network": 0.0, "function": 0.0, "thomson": 3 * np.sqrt(1.5)}  # a tetrahedron
    if form in known:
        assert method["best"] == pytest.approx(known[form], abs=1e-6)
    with (tmp_path / "run" / TRACES).open() as file:
        first = next(csv.DictReader(file))
    assert method["median"] < float(first["median"])
