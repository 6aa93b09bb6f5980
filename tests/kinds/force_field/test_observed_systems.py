"""Observables of a System of OpenMM and of an energy of one's own, as a config names them: what the systems say of
themselves is what the observables are made of."""

import json

import numpy as np
import pytest
from openmm import TwoParticleAverageSite, XmlSerializer, app, unit

from hpcfit.config.observables import NAMES
from hpcfit.errors import InputError
from hpcfit.kinds.force_field.simulated.case import SimulatedCase
from hpcfit.kinds.table import load_config
from hpcfit.physics.constants import GAS_CONSTANT
from tests.energies.openmm_cases import waters
from tests.observables.waters import TABLES

HEAD = """
[problem]
kind = "force-field"
estimator = "{estimator}"
window = 0.1
frames = 10
skipped = 4
windows = 1
block = 1
[[problem.parameter]]
name = "{parameter}"
[[problem.system]]
name = "it"
step = 0.001
"""
WATERS = 'system = "system.xml"\ntopology = "waters.pdb"\ntemperature = 300.0\n'
CHAIN = 'energy = "chain.py:energy"\npositions = "chain.npy"\nparameters = {k = 5.0}\nmasses = 12.0\nkT = 2.0\n'
OBSERVABLE = '[[problem.system.observable]]\nname = "{0}"\nobservable = "{0}"\n{1}\nvalues = {2}\nsigma = 1.0\n'
ENERGY = """
import jax.numpy as jnp
def energy(x, theta, box):
    return theta["k"][0] * jnp.sum((x[1:] - x[:-1]) ** 2)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two flexible TIP3P waters in a box with a reaction field, and a chain of three of one's own."""
    folder = tmp_path_factory.mktemp("systems")
    topology, positions = waters(2)
    topology.setUnitCellDimensions((1.0, 1.0, 1.0))
    system = app.ForceField("tip3p.xml").createSystem(
        topology, nonbondedMethod=app.CutoffPeriodic, nonbondedCutoff=0.45, rigidWater=False
    )
    (folder / "system.xml").write_text(XmlSerializer.serialize(system))
    with (folder / "waters.pdb").open("w") as file:
        app.PDBFile.writeFile(topology, positions * unit.nanometer, file)
    np.save(folder / "chain.npy", [[0.0, 0, 0], [0.1, 0, 0], [0.1, 0.2, 0]])
    (folder / "chain.py").write_text(ENERGY)
    return folder


def opened(folder, system, *observables, more="", estimator="pathwise"):
    """The case of a config; observables: (name, keys, values)."""
    parameter = "charge" if system == WATERS else "k"
    text = HEAD.format(estimator=estimator, parameter=parameter) + system + more + "\n"
    path = folder / "config.toml"
    path.write_text(text + "".join(OBSERVABLE.format(*one) for one in observables))
    return SimulatedCase.open(load_config(path))


def test_a_system_of_openmm_has_molecules_charges_and_elements(folder):
    case = opened(
        folder, WATERS, ("heat-capacity", "", 1.0), ("dielectric-constant", 'of = "resname HOH"', 1.0),
        ("pressure", "", 1.0), ("structure-factors", "hkl = [[1, 0, 0]]", 1.0), ("potential-energy", "", 1.0),
        ("noe", 'groups = [["name H1 and resid 1", "name H1 and resid 2"]]', 1.0),
        ("velocity-autocorrelation", 'atoms = "name O"\nlags = [0.0, 0.05]', [1.0, 1.0]),
    )  # fmt: skip
    [one], [ensemble] = case.opened, case.ensembles
    heat, dielectric, pressure, factors, energy, noe, motion = ensemble.observables
    assert one.molecules == dielectric.molecules == pressure.molecules == ((0, 1, 2), (3, 4, 5))
    assert (heat.number, heat.degrees, energy.number) == (2, 18, 2)
    assert float(heat.about) == one.energy
    np.testing.assert_allclose(dielectric.charges.values(one.parameters), [-0.834, 0.417, 0.417] * 2)
    assert factors.f.shape == (1, 6)
    assert noe.groups == (((1,), (4,)),)
    assert (motion.atoms, motion.lags) == ((0, 3), (0, 5))
    assert [name.observable for name in case.data_names()][-2:] == ["velocity-autocorrelation"] * 2
    assert one.kT == pytest.approx(300 * GAS_CONSTANT)


def test_a_system_that_openmm_refuses_is_one_error(folder):
    """Virtual sites cannot have a mass."""
    system = XmlSerializer.deserialize((folder / "system.xml").read_text())
    system.setVirtualSite(2, TwoParticleAverageSite(0, 1, 0.5, 0.5))
    (folder / "heavy.xml").write_text(XmlSerializer.serialize(system))
    with pytest.raises(InputError, match=r"OpenMM cannot simulate the System in .*heavy\.xml: OpenMMException: "):
        opened(folder, WATERS.replace("system.xml", "heavy.xml"), ("pressure", "", 1.0))


def test_an_energy_of_ones_own_has_atoms_alone(folder):
    case = opened(folder, CHAIN, ("potential-energy", "", 1.0), ("mean-square-displacement", MOTION, 1.0))
    energy, motion = case.ensembles[0].observables
    assert case.opened[0].molecules == ((0,), (1,), (2,))
    assert (energy.number, motion.lags) == (3, (2,))


PAIR = """
[[problem.system]]
name = "other"
{0}kT = 2.0
positions = "chain.npy"
masses = 12.0
parameters = {{k = 5.0}}
[[problem.system.observable]]
name = "free"
observable = "free-energy-change"
[[problem.difference]]
name = "stretching"
minuend = {1}
subtrahend = ["other", "free"]
factor = 0.5
constant = 3.0
{2}
"""
OTHER = 'energy = "chain.py:energy"\n'
DATUM = "values = 1.0\nsigma = 0.1"
FREE = ("free-energy-change", "", 1.0)


def with_other(folder, minuend, measured=DATUM, first=FREE):
    """The case of two systems and a difference of them."""
    text = HEAD.format(estimator="pathwise", parameter="k") + CHAIN + OBSERVABLE.format(*first)
    (folder / "pair.toml").write_text(text + PAIR.format(OTHER, minuend, measured))
    return SimulatedCase.open(load_config(folder / "pair.toml"))


def test_a_difference_is_a_datum_behind_those_of_systems(folder):
    case = with_other(folder, '["it", "free-energy-change"]')
    assert [(one.system, one.observable, one.measured) for one in case.data_names()] == [
        ("it", "free-energy-change", True), ("other", "free", False), ("difference", "stretching", True),
    ]  # fmt: skip
    assert case.summary()["data"] == "2 fitted, 0 held out"
    np.testing.assert_array_equal(case.problem.differences.behind(np.array([1.0, 2.0])), [1.0, 2.0, 2.5])
    assert case.problem.tiles[1][0].sigma == [[np.inf]]
    assert case.problem.tiles[2][0].value == [[1.0]]


@pytest.mark.parametrize(
    ("minuend", "measured", "first", "message"),
    [
        ('["it", "free"]', DATUM, FREE, "names ['it', 'free']; the observables are [['it', 'free-energy-change'],"),
        ('["other", "free"]', DATUM, FREE, "difference 'stretching' is its constant"),
        ('["it", "free-energy-change"]', "", FREE, "difference 'stretching' needs `values` with `sigma`"),
        ('["it", "powers"]', DATUM, ("powers", "powers = [1, 2]", [0.0, 0.0]), "is of 2 numbers of ['it', 'powers']"),
    ],
)
def test_what_is_no_difference_is_one_error(folder, minuend, measured, first, message):
    with pytest.raises(InputError) as caught:
        with_other(folder, minuend, measured, first)
    assert message in str(caught.value)


def test_an_average_that_nothing_uses_is_an_error(folder):
    text = HEAD.format(estimator="pathwise", parameter="k") + CHAIN + OBSERVABLE.format(*FREE)
    (folder / "idle.toml").write_text(text.replace("values = 1.0\nsigma = 1.0\n", ""))
    with pytest.raises(InputError, match=r"observable 'free-energy-change' of system 'it' needs `values`"):
        load_config(folder / "idle.toml")
    more = '[[problem.system.observable]]\nname = "idle"\nobservable = "potential-energy"\n'
    (folder / "idle.toml").write_text(text + more)
    with pytest.raises(InputError, match=r"observable 'idle' of system 'it' needs .* or name it in"):
        load_config(folder / "idle.toml")


def test_a_config_with_every_table_comes_back_from_what_it_writes(folder):
    text = HEAD.format(estimator="pathwise", parameter="k") + CHAIN
    for name, (keys, _) in TABLES.items():
        text += OBSERVABLE.format(name, "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items()), 1.0)
    (folder / "whole.toml").write_text(text + PAIR.format(OTHER, '["it", "pressure"]', DATUM))
    config = load_config(folder / "whole.toml")
    (folder / "again.toml").write_text(config.to_toml())
    assert load_config(folder / "again.toml") == config
    assert {type(one) for _, one in config.problem.observables()} == set(NAMES.values())


MOTION = 'atoms = "all"\nlags = [0.02]'
ERRORS = {
    "no box": (CHAIN, ("electron-density", "points = [[0.0, 0.0, 0.0]]", 1.0), {}, "electron density needs a box"),
    "no charges": (
        CHAIN, ("dielectric-constant", "", 1.0), {"more": "box = [2.0, 2.0, 2.0]"},
        "the energy of this system has no charges",
    ),
    "a topology": (
        CHAIN, ("structure-factors", "hkl = [[1, 0, 0]]", 1.0), {"more": "box = [2.0, 2.0, 2.0]"},
        "a structure factor needs the elements of atoms",
    ),
    "a constant volume": (WATERS, ("density", "", 1.0), {}, "a density needs frames of constant pressure"),
    "no velocities": (
        CHAIN, ("diffusion-of-velocities", 'atoms = "all"\nlast = 0.01', 1.0), {"more": 'integrator = "overdamped"'},
        "a diffusion of velocities needs velocities",
    ),
    "a lag beyond the window": (
        CHAIN, ("mean-square-displacement", 'atoms = "all"\nlags = [0.06]', 1.0), {},
        "the 6 frames of a window that are averaged span 0.05 ps",
    ),
    "single frames": (
        CHAIN, ("mean-square-displacement", MOTION, 1.0), {"estimator": "fluctuation"}, "knows single frames alone",
    ),
}  # fmt: skip


def test_an_atom_below_0_is_none(folder):
    with pytest.raises(InputError, match=r"pairs.0.1' = -1: must be at least 0"):
        opened(folder, CHAIN, ("distances", "pairs = [[0, -1]]", 1.0))


@pytest.mark.parametrize("what", ERRORS)
def test_what_a_system_lacks_is_one_error_that_names_the_observable(folder, what):
    system, observable, more, message = ERRORS[what]
    with pytest.raises(InputError) as caught:
        opened(folder, system, observable, **more)
    assert message in str(caught.value)
    assert observable[0] in str(caught.value)
    assert "remedy" in str(caught.value)
