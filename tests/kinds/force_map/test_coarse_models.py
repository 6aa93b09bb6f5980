"""The files of a coarse-grained model after a run: tables, System and structure agree, and with closed forms."""

import sys

import h5py
import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from hpcfit.bead_models.basis import validity_basis
from hpcfit.bead_models.force_matching import LinearFit
from hpcfit.bead_models.tables import make_terms
from hpcfit.kinds.force_map.models import potential
from hpcfit.physics.internal_coordinates import COORDINATES, bonded_terms, pairs_beyond
from hpcfit.statistics.blocks import Estimate
from hpcfit.store.forces import open_force_store
from hpcfit.store.positions import read_block
from hpcfit.testsystems.harmonic_beads import HarmonicBeads, write_force_store
from tests.kinds.force_map.force_map_runs import force_map_config, optimized

openmm = pytest.importorskip("openmm")

CHAIN = force_map_config("""
blocks = 6
bootstrap = 0
[problem.beads]
residue = "CA"
[problem.map]
methods = ["basic", "optimal"]
use = "basic"
ridge = 0.0
[problem.force_matching]
pair_functions = 8
bonded_functions = 6
[problem.force_matching.simulation]
frames = 80
interval = 0.02
""")
BEADS = 5


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A run of five beads on a line that is bent, so that angles and dihedrals are defined."""
    folder, system = tmp_path_factory.mktemp("chain"), HarmonicBeads(3 * BEADS, tether=400.0)
    r, f = system.frames(500, 1)
    i = np.arange(3 * BEADS) // 3
    r += 3.0 * np.stack([0 * i, i % 2, (i // 2) % 2], axis=1)
    write_force_store(folder / "store", system.particles, {"a": (r, f, None)})
    return folder / "run", optimized(folder, CHAIN)


def table(path) -> np.ndarray:
    return np.loadtxt(path)


def test_there_is_a_table_a_term(chain):
    directory, _ = chain
    found = sorted(path.name for path in (directory / "coarse_grained/tables").iterdir())
    assert found == [
        "angles_00_ALA-ALA-ALA.txt", "bonds_00_ALA-ALA.txt", "dihedrals_00_ALA-ALA-ALA-ALA.txt", "pairs_00_ALA-ALA.txt",
    ]  # fmt: skip
    for name in found:
        path = directory / "coarse_grained/tables" / name
        q, U, dU = table(path).T
        unit = "rad" if name[0] in "ad" else "A"
        assert path.read_text().startswith(f"# {name.split('_')[0]} ALA")
        assert f"q ({unit}), U (kJ/mol), dU/dq (kJ/mol/{unit})" in path.read_text()
        # by central differences: h^2 U''' / 6 but for a step at each knot, and coordinates rounded to 1e-6
        slope = (U[2:] - U[:-2]) / (q[2:] - q[:-2])
        step, third = q[1] - q[0], np.abs(np.gradient(np.gradient(dU, q), q)).max()
        np.testing.assert_allclose(dU[1:-1], slope, atol=step**2 * third + 1e-6 / step * np.abs(dU).max())


def test_the_system_has_the_energies_of_the_tables(chain):
    """Splines through 1000 written points of 8 digits, of energies up to some hundred kJ/mol: 1e-3 kJ/mol."""
    directory, _ = chain
    folder = directory / "coarse_grained"
    system = openmm.XmlSerializer.deserialize((folder / "system.xml").read_text())
    np.testing.assert_allclose([system.getParticleMass(k)._value for k in range(BEADS)], 3 * 12.011)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    store = open_force_store(directory / "mapped")
    R = read_block(store, store.blocks()[0]).positions[:10].astype(float)
    bonds = np.array([(k, k + 1) for k in range(BEADS - 1)])
    terms = {"pairs": pairs_beyond(BEADS, bonds, 2), **bonded_terms(BEADS, bonds)._asdict()}
    expected = np.zeros(len(R))
    for path in (folder / "tables").iterdir():
        kind = path.name.split("_")[0]
        q_U = CubicSpline(*table(path).T[:2])
        for row, frame in enumerate(R):
            expected[row] += q_U(np.asarray(COORDINATES[kind](frame, np.asarray(terms[kind]), None)[0])).sum()
    for frame, energy in zip(R, expected):
        context.setPositions(frame / 10)
        found = context.getState(energy=True).getPotentialEnergy().value_in_unit(openmm.unit.kilojoule_per_mole)
        assert found == pytest.approx(energy, abs=1e-3)


def test_the_structure_is_the_first_mapped_frame_with_its_bonds(chain):
    directory, _ = chain
    from openmm import app

    pdb = app.PDBFile(str(directory / "coarse_grained/beads.pdb"))
    store = open_force_store(directory / "mapped")
    first = read_block(store, store.blocks()[0]).positions[0]
    np.testing.assert_allclose(np.array(pdb.positions.value_in_unit(openmm.unit.angstrom)), first, atol=6e-4)
    atoms = list(pdb.topology.atoms())
    assert [(atom.name, atom.residue.name, atom.residue.id) for atom in atoms] == [
        ("CA", "ALA", f"{k}") for k in range(1, BEADS + 1)
    ]
    bonded = sorted(tuple(sorted((a.index, b.index))) for a, b in pdb.topology.bonds())
    assert bonded == [(k, k + 1) for k in range(BEADS - 1)]


@pytest.mark.parametrize("name", ["basic", "optimal"])
def test_potentials_have_their_least_value_0_and_slopes(chain, name):
    directory, _ = chain
    with h5py.File(directory / "potentials.h5") as file:
        assert file.attrs["unit"] == "kJ/mol"
        terms = {label: {key: values[:] for key, values in group.items()} for label, group in file[name].items()}
    assert sorted(terms) == ["angles ALA-ALA-ALA", "bonds ALA-ALA", "dihedrals ALA-ALA-ALA-ALA", "pairs ALA-ALA"]
    for label, term in terms.items():
        q, U, dU, error = (term[key] for key in ("q", "U", "dU", "error"))
        assert len(q) == len(U) == len(dU) == len(error) == 400
        assert U.min() == 0
        assert error[np.argmin(U)] == 0
        assert error.max() > 0
        # trapezoids of a slope that is piecewise quadratic: steps times the change of its slope
        integral = np.concatenate([[0], np.cumsum((dU[1:] + dU[:-1]) / 2 * np.diff(q))])
        bend = np.abs(np.diff(dU)).max() * (q[1] - q[0])
        np.testing.assert_allclose(U - U[0], integral, atol=10 * bend, err_msg=label)
    # each of 500 frames has 4 bonds; a length is felt by four cubic splines, or five at a knot
    assert 3 * 2000 <= terms["bonds ALA-ALA"]["coverage"].sum() <= 5 * 2000


def test_only_the_chosen_map_is_tabulated(chain):
    directory, metrics = chain
    assert metrics["chosen"] == "basic"
    with h5py.File(directory / "potentials.h5") as file:
        term = {name: file[f"{name}/bonds ALA-ALA"] for name in ("basic", "optimal")}
        q, U = term["basic"]["q"][:], term["basic"]["U"][:]
        others = np.interp(q, term["optimal"]["q"][:], term["optimal"]["U"][:])
    T = table(directory / "coarse_grained/tables/bonds_00_ALA-ALA.txt")
    ours = CubicSpline(T[:, 0], T[:, 1])(q)
    np.testing.assert_allclose(ours - ours.min(), U, atol=1e-3)
    assert np.abs(U - others).max() > 0.1


def test_the_simulation_is_written_with_errors_of_both(chain):
    directory, metrics = chain
    with h5py.File(directory / "simulation.h5") as file:
        assert sorted(file) == ["profile end to end", "profile rmsd", "tica"]
        for name in ("profile end to end", "profile rmsd"):
            group = file[name]
            lengths = {len(group[key]) for key in ("x", "reference", "reference_error", "model", "model_error")}
            assert len(lengths) == 1
            assert 0 <= group["divergence"][0] <= np.log(2) + 1e-12  # of Jensen and Shannon
    told = metrics["force_matching"]["simulation"]
    assert told["model"] == "linear"
    assert told["frames"] == 80
    assert told["reference_frames"] == 500


def test_without_openmm_the_model_is_written_as_tables_alone(tmp_path, monkeypatch, caplog):
    for name in ("openmm", "openmm.app"):
        monkeypatch.setitem(sys.modules, name, None)
    r, f = HarmonicBeads(6, tether=400.0).frames(90, 1)
    write_force_store(tmp_path / "store", HarmonicBeads(6).particles, {"a": (r, f, None)})
    metrics = optimized(tmp_path, CHAIN[: CHAIN.index("[problem.force_matching.simulation]")])
    assert metrics["force_matching"]["linear"]
    made = sorted(path.name for path in (tmp_path / "run/coarse_grained").iterdir())
    assert made == ["tables"]
    assert "the model is written as tables only" in caplog.text


PAIR = force_map_config("""
bootstrap = 0
reference = "exact.txt"
[problem.beads]
each = "index 0 3"
[problem.map]
methods = ["basic", "optimal"]
ridge = 0.0
[problem.force_matching]
types = "one"
bonds = "none"
pair_functions = 10
""")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two beads whose potential of mean force is harmonic, k r^2 / 2, and its force as a table."""
    folder, system = tmp_path_factory.mktemp("pair"), HarmonicBeads(5)
    M = np.eye(5)[[0, 3]]
    r, f = system.frames(1500, 2)
    write_force_store(folder / "store", system.particles, {"a": (r - system.places, f, None)})
    apart = np.array([1, -1])
    stiffness = 1 / (apart @ np.linalg.inv(system.bead_stiffness(M)) @ apart)
    grid = np.linspace(0, 12, 200)
    np.savetxt(folder / "exact.txt", np.stack([grid, -stiffness * grid], axis=1))
    return folder / "run", optimized(folder, PAIR), float(stiffness)


def test_the_exact_potential_is_the_integral_of_its_force(pair):
    """Of a line by trapezoids: no error but rounding."""
    directory, _, k = pair
    with h5py.File(directory / "potentials.h5") as file:
        r, f, U = (file[f"exact/{key}"][:] for key in "rfU")
    np.testing.assert_allclose(f, -k * r, atol=1e-12 * k * 12)
    np.testing.assert_allclose(U, k * r**2 / 2, atol=1e-11 * U.max())


def test_the_fitted_potential_is_the_exact_one_within_its_errors(pair):
    """Of the map without noise: the middle nine tenths of the frames' distances, within 5 standard errors and what
    splines of 10 functions leave of a parabola, which is nothing."""
    directory, metrics, k = pair
    assert metrics["chosen"] == "optimal"
    with h5py.File(directory / "potentials.h5") as file:
        term = {key: file[f"optimal/pairs bead-bead/{key}"][:] for key in ("q", "U", "dU", "error")}
    inside = (term["q"] > 1.0) & (term["q"] < 4.0)
    away = (term["U"] - k * term["q"] ** 2 / 2)[inside]
    away -= away.mean()
    assert np.all(np.abs(away) < 5 * term["error"][inside].max() + 1e-3)
    exact = [row for row in metrics["decomposition"] if row["map"] == "optimal"]
    none, fitted = (next(row for row in exact if row["potential"] == name) for name in ("none", "fitted"))
    assert abs(fitted["pmf_error"][0]) < 0.02 * none["pmf_error"][0]
    assert abs(none["cross_in_errors"]) < 4


def test_errors_are_those_of_the_jackknife_with_the_least_value_held_at_0():
    rng, n = np.random.default_rng(0), 7
    basis = validity_basis(2, (1.0, 5.0), 6)
    theta, left_out = rng.normal(size=6), rng.normal(size=(n, 6))
    (term,) = make_terms(basis, theta, np.full(6, 100.0), 300.0)
    fit = LinearFit(theta, np.zeros(6), np.zeros(6, bool), 0.0, (0.0,), (1.0,), 1.0, Estimate(1.0, 0.1), left_out)
    found = potential(term, fit, np.full(6, 100.0))
    phi = np.exp(-0.5 * ((found.q[:, None] - np.linspace(1, 5, 6)) / 0.8) ** 2)
    inside = (found.q >= 1) & (found.q <= 5)  # where no wall is
    lowest = int(np.argmin(found.U))
    assert inside[lowest]
    np.testing.assert_allclose(found.U[inside], (phi @ theta - phi[lowest] @ theta)[inside], atol=1e-12)
    values = left_out @ (phi - phi[lowest]).T
    np.testing.assert_allclose(found.error[inside], np.sqrt((n - 1) * np.var(values, axis=0))[inside], atol=1e-12)
