"""Fits to stored geometries: a brute-force loss, known truth, the same bits on any ranks, what may be wrong."""

import csv
import json

import numpy as np
import pytest

from hpcfit.energies.systems import from_system
from hpcfit.fit.grid import Shape, make_grid
from hpcfit.fit.problem import Params
from hpcfit.kinds.force_field.files import GEOMETRIES, PARAMETERS
from hpcfit.kinds.force_field.geometries.study import errors, normal
from hpcfit.kinds.table import load_config, open_case
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.ranks import Ranks
from hpcfit.testsystems import stored_geometries
from tests.command import ROOT, here, sets
from tests.conftest import also_on_ranks, assert_one_clear_error, history
from tests.kinds.force_field.springs import (
    CONFIG,
    START,
    TRUTH,
    energy,
    geometries,
    gradient,
    reference,
    write_springs,
)
from tests.kinds.force_field.wells import COLD, write_wells

NAMES = ("k", "length", "strength")  # in the order of a pytree
SIGMA, FORCE_SIGMA, PRIOR = 0.5, 20.0, 2.0
SAME = ("fit", "step", "evaluation", "loss", "chi2", "energy_rmse_held_out", "k", "gradient_norm")


@pytest.fixture
def folder(tmp_path):
    write_springs(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with its run on one rank."""
    folder = tmp_path_factory.mktemp("whole")
    write_springs(folder)
    done = here("optimize", folder / "config.toml", *sets("run.report=true"))
    assert done.returncode == 0, done.stderr
    return folder


def metrics_of(run):
    return json.loads((run / "metrics.json").read_text())


def rows_of(run, name):
    return list(csv.DictReader((run / name).read_text().splitlines()))


def result(run):
    """All that must be the same on any ranks, through interruptions."""
    metrics = metrics_of(run)
    keys = ("fitted", "before", "parameters", "undetermined", "sets")
    tables = [(run / name).read_text() for name in (PARAMETERS, GEOMETRIES)]
    return {key: metrics[key] for key in keys}, tables, [tuple(row[name] for name in SAME) for row in history(run)]


# ---- the loss, by brute force ----------------------------------------------------------------------------------------


def weights(name):
    """How the fit weighs geometries of a set."""
    above = reference(name, 0.3) - reference(name, 0.3).min()
    return np.exp(-above / (GAS_CONSTANT * 600)) if name == "pair" else np.where(np.isin(range(11), [1, 4]), 0.0, 1.0)


def at(u):
    """k, length and strength from the numbers that the optimizer sees."""
    return START["k"] * np.exp(0.1 * u[0]), START["length"] + 0.01 * u[1], START["strength"] + PRIOR * u[2]


def residuals(u):
    """All residuals, the offset of each molecule the weighted mean of its fitted geometries."""
    k, length, strength = at(u)
    found = []
    for name in ("pair", "chain"):
        d = np.array([energy(x, k, length, strength) for x in geometries(name)]) - reference(name, 0.3)
        w = weights(name)
        found.append(np.sqrt(w) * (d - w @ d / w.sum()) / SIGMA)
    for x, w in zip(geometries("chain"), weights("chain")):
        off = gradient(lambda at: energy(at, **TRUTH) - energy(at, k, length, strength), x)
        found.append(np.sqrt(w) * off.ravel() / FORCE_SIGMA)
    return np.concatenate([*found, [u[2]]])


def jacobian(u, step=1e-4):
    columns = [(residuals(u + step * e) - residuals(u - step * e)) / (2 * step) for e in np.eye(3)]
    return np.stack(columns, axis=1)


@pytest.fixture
def evaluate(folder):
    case = open_case(load_config(folder / "config.toml"), Ranks())
    grid = make_grid(Ranks(), Shape(1, 1, ""), case.n_blocks, 1)
    return case, case.evaluate(grid)


def test_loss_gradient_and_curvature_are_those_of_all_residuals(evaluate):
    _, gradient_of = evaluate
    u = np.array([0.7, -0.3, 0.1])
    here_ = gradient_of(Params({name: u[k : k + 1] for k, name in enumerate(NAMES)}, ()))
    r, J = residuals(u), jacobian(u)
    assert here_.loss == pytest.approx(r @ r / 2, rel=1e-8)
    assert np.concatenate([here_.gradient.shared[name] for name in NAMES]) == pytest.approx(J.T @ r, rel=1e-6, abs=1e-5)
    assert normal(gradient_of, here_) == pytest.approx(J.T @ J, rel=1e-5, abs=1e-6)
    found = gradient_of.metrics(here_)
    energies = np.concatenate([SIGMA * r[:7], SIGMA * r[7:18]])
    count = weights("pair").sum() + 9
    assert found["energy_rmse"] == pytest.approx(np.sqrt(energies @ energies / count), rel=1e-8)
    assert found["force_rmse"] == pytest.approx(np.sqrt(np.mean((FORCE_SIGMA * r[18:-1]) ** 2) * 11 / 9), rel=1e-8)


def test_errors_are_those_of_the_scatter_over_geometries(evaluate):
    """N^-1 (sum of g g^T over geometries) N^-1, with the factor for few of them."""
    case, gradient_of = evaluate
    u = np.array([0.2, 0.1, 0.0])
    here_ = gradient_of(Params({name: u[k : k + 1] for k, name in enumerate(NAMES)}, ()))
    r, J = residuals(u), jacobian(u)
    of = np.concatenate([np.arange(18), np.repeat(np.arange(7, 18), 9)])
    g = np.zeros((18, 3))
    for name, first, T in (("pair", 0, 7), ("chain", 7, 11)):
        w, step = weights(name), 1e-4
        sides = [(_plain(name, u + step * e), _plain(name, u - step * e)) for e in np.eye(3)]
        slope = np.stack([(up - down) / (2 * step) for up, down in sides], axis=1)
        slope -= w @ slope / w.sum()  # the offset moves with the parameters
        g[first : first + T] += (np.sqrt(w) * r[first : first + T] / SIGMA)[:, None] * slope
    np.add.at(g, of[18:], r[18:-1, None] * J[18:-1])
    inverse, counted = np.linalg.inv(J.T @ J), 7 + 9
    n = 7 + 9 * 10
    expected = inverse @ g.T @ g @ inverse * counted / (counted - 1) * (n - 1) / (n - 3 - 2)
    found = errors(gradient_of, here_, case.stored)["parameters"]
    slopes = [START["k"] * np.exp(0.02) * 0.1, 0.01, PRIOR]
    assert found["of_data"] == pytest.approx(slopes * np.sqrt(np.diag(expected)), rel=1e-5)


def _plain(name, u):
    """Energies of a set."""
    k, length, strength = at(u)
    return np.array([energy(x, k, length, strength) for x in geometries(name)])


def test_a_cutoff_leaves_out_and_a_share_is_held_out(folder):
    text = CONFIG.replace('weights = "boltzmann"\ntemperature = 600.0', "cutoff = 12.0")
    (folder / "config.toml").write_text(text.replace("held_out = [1, 4]", "held_out = 0.4"))
    case = open_case(load_config(folder / "config.toml"), Ranks())
    scan, energies = case.stored.sets[0], reference("pair", 0.3)
    assert scan.number.tolist() == np.flatnonzero(energies - energies.min() <= 12).tolist()
    assert 0 < len(scan.number) < 7
    assert np.all(scan.weight == 1)
    assert case.stored.sets[1].held_out.sum() == 4  # of 11
    assert case.n_blocks == -(-len(scan.number) // 4) + 4


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_a_run_says_what_the_fit_found(whole):
    run = whole / "run"
    metrics, rows = metrics_of(run), rows_of(run, GEOMETRIES)
    assert [row["set"] for row in rows] == ["scan"] * 7 + ["frames"] * 11 + ["others"] * 5
    assert [row["held_out"] == "True" for row in rows] == [False] * 7 + [n in (1, 4) for n in range(11)] + [True] * 5
    assert [float(row["weight"]) for row in rows[:7]] == pytest.approx(weights("pair").tolist(), rel=1e-9)
    values = {row["name"]: float(row["value"]) for row in rows_of(run, PARAMETERS)}
    u = [10 * np.log(values["k"] / START["k"]), 100 * (values["length"] - START["length"])]
    u = np.array([*u, (values["strength"] - START["strength"]) / PRIOR])
    assert np.abs(jacobian(u).T @ residuals(u)).max() < 1e-4  # nothing lowers the loss
    d = np.array([energy(x, **values) for x in geometries("chain")]) - reference("chain", 0.3)
    offset = np.mean(np.delete(d, [1, 4]))
    found = [float(row["after"]) - float(row["reference"]) for row in rows[7:18]]
    assert found == pytest.approx((d - offset).tolist(), abs=1e-8)
    others = np.array([energy(x, **values) for x in geometries("others")]) - reference("others", 0.3) - offset
    [of_others] = [one["energy"] for one in metrics["sets"] if one["set"] == "others"]
    assert of_others["after"] == pytest.approx(np.sqrt(np.mean(others**2)), abs=1e-8)
    assert 0 < of_others["after_error"] < of_others["after"] < of_others["before"]
    assert (run / "report.html").stat().st_size > 10_000


def test_gradients_in_place_of_forces_are_told(folder):
    with np.load(folder / "chain.npz") as file:
        np.savez(folder / "chain.npz", **dict(file) | {"forces": -file["forces"]})
    done = here("optimize", folder / "config.toml")
    assert done.returncode == 0, done.stderr
    [told] = [one for one in metrics_of(folder / "run")["warnings"] if "gradients" in one]
    assert "forces of geometries 'frames' are off by" in told


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [pytest.param(2, marks=pytest.mark.nightly), 3])
def test_ranks_find_the_same_bits(whole, ranks, tmp_path, hpcfit):
    run = tmp_path / "run"
    done = hpcfit("optimize", whole / "config.toml", *sets(f"run.directory={run}"), ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert result(run) == result(whole / "run")


def test_an_interrupted_fit_goes_on_to_the_same_bits(whole, tmp_path):
    words = ["optimize", whole / "config.toml", *sets(f"run.directory={tmp_path / 'run'}")]
    done = here(*words, *sets("optimizer.wall_clock_minutes=1e-9"))
    assert done.returncode == 75, done.stderr
    done = here(*words, "--resume")
    assert done.returncode == 0, done.stderr
    assert result(tmp_path / "run") == result(whole / "run")


@pytest.mark.parametrize("frames", [24, pytest.param(200, marks=pytest.mark.nightly)])
def test_perturbed_torsions_and_charges_of_amber14_are_recovered(tmp_path, frames):
    """Exact energies and forces: the parameters of the right System, and with them NAME.xml, come out to 1e-6."""
    import openmm
    from openmm import app

    stored_geometries.write(tmp_path, frames)
    (tmp_path / "config.toml").write_text((ROOT / "config/force_field_geometries.toml").read_text())
    done = here("optimize", tmp_path / "config.toml", *sets("run.report=false"))
    assert done.returncode == 0, done.stderr
    read = lambda path: openmm.XmlSerializer.deserialize(path.read_text())  # noqa: E731
    topology = app.PDBFile(str(tmp_path / "dipeptide.pdb")).topology
    right = from_system(read(tmp_path / "amber14.xml"), topology).parameters
    start, found = (from_system(read(tmp_path / name), topology) for name in ("dipeptide.xml", "run/dipeptide.xml"))
    for leaf in ("torsion.k", "charge"):
        assert np.max(np.abs(start.parameters[leaf] / right[leaf] - 1)) > 0.05
        assert found.parameters[leaf] == pytest.approx(right[leaf], rel=1e-6)


# ---- beside simulations ----------------------------------------------------------------------------------------------


BRIEF = ["problem.derivative_draws=0"]
TERM = """
geometries_in = "{where}"
[[problem.geometries]]
name = "scan"
molecule = "cold"
file = "scan.npz"
length_unit = "nm"
energy_unit = "kJ/mol"
energy_sigma = {sigma}
"""


@pytest.mark.parametrize(("where", "expected", "share"), [("rounds", 2.1, 0.5), ("start", 2.2, 1.0)])
def test_geometries_are_a_term_of_the_rounds_or_say_where_they_begin(tmp_path, where, expected, share):
    """Energies of k = 2.2, known to 4 % as <x^2> of k = 2 is: together they say 2.1, and half of the variance is left.
    Where they say the start, 2.2 is found at once; no round moves it here."""
    squares = write_scan(tmp_path, where)
    rounds = "problem.rounds=0" if where == "start" else "run.report=true"
    done = here("optimize", tmp_path / "config.toml", *sets(*BRIEF, rounds))
    assert done.returncode == 0, done.stderr
    [row] = rows_of(tmp_path / "run", PARAMETERS)
    assert float(row["value"]) == pytest.approx(expected, abs=1e-6 if where == "start" else 0.04)
    assert float(row["error_of_data"]) == pytest.approx(0.04 * expected * np.sqrt(share), rel=0.2)
    [scan] = metrics_of(tmp_path / "run")["sets"]
    d = (float(row["value"]) - 2.2) * squares
    assert scan["energy"]["after"] == pytest.approx(d.std(), abs=1e-9)
    assert len(rows_of(tmp_path / "run", GEOMETRIES)) == 30


def write_scan(folder, where):
    """The wells with stored energies of k = 2.2; |x|^2 / 2 of their geometries."""
    write_wells(folder)
    x = np.random.default_rng(0).normal(scale=0.7, size=(30, 2, 3))
    squares = np.sum(x**2, axis=(1, 2)) / 2
    sigma = 0.04 * 2.2 * np.sqrt(np.sum((squares - squares.mean()) ** 2))  # of ln k
    np.savez(folder / "scan.npz", positions=x, energies=2.2 * squares - 17.0)
    text = COLD.replace("[[problem.parameter]]", TERM.format(where=where, sigma=sigma) + "[[problem.parameter]]", 1)
    (folder / "config.toml").write_text(text)
    return squares


@pytest.mark.nightly
@pytest.mark.mpi
def test_ranks_find_the_same_bits_beside_windows(tmp_path, hpcfit):
    write_scan(tmp_path, "rounds")
    found = []
    for ranks in (1, 3):
        run = tmp_path / str(ranks)
        words = sets(*BRIEF, "problem.rounds=2", f"run.directory={run}")
        done = hpcfit("optimize", tmp_path / "config.toml", *words, ranks=ranks)
        assert done.returncode == 0, done.stderr
        metrics = metrics_of(run)
        losses = [row["loss"] for row in history(run)]
        found.append([losses, *(metrics[key] for key in ("fitted", "parameters", "sets", "averages"))])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ('molecule = "cold"', 'molecule = "cald"', ["'scan' are of 'cald': did you mean 'cold'"]),
        ("[[problem.geometries]]", '[[problem.molecule]]\nname = "idle"\nsystem = "a.xml"\ntopology = "a.pdb"\n'
         "[[problem.geometries]]", ["molecule 'idle' has no [[problem.geometries]]: leave it out"]),
        (None, None, ["geometries_in = 'start' has no effect without [[problem.geometries]]"]),
    ],
)  # fmt: skip
def test_wrong_geometries_beside_windows_are_one_clear_error(tmp_path, before, after, expected):
    write_scan(tmp_path, "start")
    text = (tmp_path / "config.toml").read_text()
    if before is None:
        before, after = text[text.index("[[problem.geometries]]") : text.index("[[problem.parameter]]")], ""
    assert before in text
    (tmp_path / "config.toml").write_text(text.replace(before, after, 1))
    assert_one_clear_error(here("check", tmp_path / "config.toml"), expected)


# ---- what may be wrong -----------------------------------------------------------------------------------------------


def changed(before, after):
    """A fault in the config."""

    def write(folder):
        assert before in CONFIG
        (folder / "config.toml").write_text(CONFIG.replace(before, after, 1))

    return write


def archived(name="chain", without=(), **arrays):
    """A fault in a file of geometries: other arrays in it, or less of them."""

    def write(folder):
        with np.load(folder / f"{name}.npz") as file:
            found = {key: values for key, values in (dict(file) | arrays).items() if key not in without}
        np.savez(folder / f"{name}.npz", **found)

    return write


def of_openmm(constraint=False, atoms="OHH", swapped=False, scale=1.0):
    """A fault where the chain is a System of OpenMM, water, and its geometries an extxyz file."""

    def write(folder):
        import openmm
        from openmm import Vec3, app, unit

        system, bond, topology = openmm.System(), openmm.HarmonicBondForce(), app.Topology()
        residue = topology.addResidue("HOH", topology.addChain())
        names = [topology.addAtom(name, app.Element.getBySymbol(name[0]), residue) for name in ("O", "H1", "H2")]
        for number, mass in enumerate((16.0, 1.0, 1.0)):
            system.addParticle(mass)
            if number:
                bond.addBond(0, number, 0.1, 1000.0)
                topology.addBond(names[0], names[number])
        system.addForce(bond)
        if constraint:
            system.addConstraint(1, 2, 0.16)
        (folder / "water.xml").write_text(openmm.XmlSerializer.serialize(system))
        x = np.array([[0.0, 0.0, 0.0], [0.08, 0.06, 0.0], [-0.08, 0.06, 0.0]])
        with (folder / "water.pdb").open("w") as file:
            app.PDBFile.writeFile(topology, [Vec3(*one) for one in x] * unit.nanometer, file)
        order = [1, 0, 2] if swapped else range(len(atoms))
        lines = [f"{atoms[k]} {' '.join(map(str, 10 * scale * x[k % 3]))} 0 0 0" for k in order]
        head = "Properties=species:S:1:pos:R:3:forces:R:3 energy=1.0"
        (folder / "water.extxyz").write_text("\n".join([str(len(lines)), head, *lines, ""]) * 3)
        text = CONFIG.replace(MOLECULE, 'system = "water.xml"\ntopology = "water.pdb"')
        text = text.replace("chain.npz", "water.extxyz")
        (folder / "config.toml").write_text(text.replace(OTHERS, ""))

    return write


MOLECULE = CONFIG[CONFIG.rindex('energy = "springs.py') : CONFIG.index("[[problem.geometries]]")].rstrip()
OTHERS = CONFIG[CONFIG.index('[[problem.geometries]]\nname = "others"') : CONFIG.index("[[problem.parameter]]")]
NAN = np.where(np.arange(11) == 7, np.nan, 1.0)
FAULTS = {
    "atoms": (archived(positions=np.zeros((11, 4, 3)), forces=np.zeros((11, 4, 3))),
              ["chain.npz has 4 atoms, molecule 'chain' of", "chain.npy has 3"]),
    "no energies": (archived(without=["energies"]), ["chain.npz has no energies: it has positions, forces"]),
    "shape of forces": (archived(forces=np.zeros((11, 3))), ["forces have shape [11, 3], positions [11, 3, 3]"]),
    "shape of energies": (archived(energies=np.zeros(10)), ["energies have shape [10], positions [11, 3, 3]"]),
    "NaN": (archived(energies=NAN), ["chain.npz: energies of geometry 7 are not finite"]),
    "on each other": (archived(positions=np.zeros((11, 3, 3))), ["the energy of geometry 0 of", "chain.npz is "]),
    "elements": (archived(elements=["O", "H"]), ["has 2 elements for 3 atoms"]),
    "no file": (changed('"chain.npz"', '"chian.npz"'), ["chian.npz does not exist"]),
    "energy unit": (changed("kcal/mol", "kcal"), ["energy_unit' = 'kcal'"]),
    "length unit": (changed('length_unit = "A"', 'length_unit = "a"'), ["length_unit' = 'a'"]),
    "force unit": (changed("kcal/mol/A", "kcal/mol/a"), ["force_unit = 'kcal/mol/a'", "did you mean 'kcal/mol/A'"]),
    "no force unit": (changed('force_unit = "kcal/mol/A"\n', ""), ["force_sigma and force_unit go together"]),
    "temperature": (changed("temperature = 600.0\n", ""), ["weights = 'boltzmann' and temperature (K) go together"]),
    "cold": (changed("temperature = 600.0", "temperature = 0.01"), ["leave 1 of 7 geometries of molecule 'pair'"]),
    "held out": (changed("[1, 4]", "[1, 14]"), ["held_out of geometries 'frames' names number 14 of 11"]),
    "molecule": (changed('molecule = "pair"', 'molecule = "pear"'), ["'scan' are of 'pear': did you mean 'pair'"]),
    "two starts": (changed("k = 700.0", "k = 600.0"), ["'k:' is 700 in molecule 'chain' and 600 in another"]),
    "parameter": (changed('name = "length"', 'name = "lenght"'), ["did you mean 'length'"]),
    "optimizer": (changed("[problem]", '[optimizer]\nname = "adam"\n[problem]'), ["no effect on [problem] solver"]),
    "constraints": (of_openmm(constraint=True), ["'frames' have forces, and", "water.xml has 1 constraints"]),
    "number of atoms": (of_openmm(atoms="OHHH"), ["water.extxyz has 4 atoms", "water.pdb has 3"]),
    "order": (of_openmm(swapped=True), ["atom 0 is H in", "water.extxyz and O in", "water.pdb"]),
    "bohr": (of_openmm(scale=1.89), ["read in A, the nearest atoms of geometry 0 are 0.189 nm apart", "0.1 nm"]),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "ranks"), also_on_ranks([*FAULTS], 3, always=("atoms",)))
def test_wrong_geometries_are_one_clear_error(folder, fault, ranks, hpcfit):
    write, expected = FAULTS[fault]
    write(folder)
    assert_one_clear_error(hpcfit("check", folder / "config.toml", ranks=ranks), expected)
