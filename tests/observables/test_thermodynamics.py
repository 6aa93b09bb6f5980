"""Observables of states against closed forms, by exact quadrature, and against OpenMM and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import openmm
import pytest
import scipy.constants as si
from numpy.polynomial.hermite_e import hermegauss
from scipy.special import roots_genlaguerre

from hpcfit.energies.columns import Column, entries, fixed
from hpcfit.energies.constants import VACUUM
from hpcfit.energies.energy import Energy
from hpcfit.energies.lists import pair_source
from hpcfit.energies.pair_potentials import PairPotential, kind_pairs
from hpcfit.energies.sites import AverageSites, Sites
from hpcfit.energies.systems import from_system
from hpcfit.errors import InputError
from hpcfit.observables.observable import State, numbers
from hpcfit.observables.thermodynamics import (
    Compressibility,
    Density,
    DielectricConstant,
    HeatCapacity,
    PotentialEnergy,
    Pressure,
    ThermalExpansion,
    VaporisationEnthalpy,
    require_neutral,
)
from tests.energies.openmm_cases import CASES, Reference, _water

T, R = 300.0, si.R / 1000
kT = R * T
BOX = np.array([[1.5, 0, 0], [0.2, 1.4, 0], [-0.1, 0.3, 1.6]])
MOLECULES = ((0, 1, 2), (3, 4))


def averaged(one, potential, parameters, frames, boxes, prior):
    """An observable over frames [T, N, d] weighed by prior exp(-U / kT): exact where the quadrature is."""

    def state(x, box):
        return State(x, None, box, lambda x, box: potential(x, parameters, box), parameters, kT, np.ones(len(x)))

    found = jax.vmap(lambda x, box: numbers(one, state(x, box)))(frames, boxes)
    energies = jax.vmap(lambda x, box: potential(x, parameters, box))(frames, boxes)
    weight = prior * jnp.exp((energies[0] - energies) / kT)
    return one.of_average(jnp.tensordot(weight / weight.sum(), found, 1))


def value_and_slopes(one, potential, parameters, frames, boxes, prior):
    function = lambda parameters: averaged(one, potential, parameters, frames, boxes, prior)[0]  # noqa: E731
    return jax.jit(jax.value_and_grad(function))({name: jnp.asarray(value) for name, value in parameters.items()})


# ---- closed forms ------------------------------------------------------------------------------------------------


def test_the_heat_capacity_of_two_levels_is_schottkys_anomaly():
    """Three independent atoms that are up or down: N R x^2 e^x / (1 + e^x)^2 with x = gap / kT, and its slope."""
    frames = np.stack(np.meshgrid(*[[0.0, 1.0]] * 3, indexing="ij"), -1).reshape(8, 3, 1)
    boxes = np.broadcast_to(2.0 * np.eye(3), (8, 3, 3))
    one = HeatCapacity(1e7, 0.0, 3, 9)
    gap = lambda x, p, box: p["gap"] * jnp.sum(x) + 1e7  # noqa: E731
    value, slope = value_and_slopes(one, gap, {"gap": 5.0}, frames, boxes, np.ones(8))
    x = 5.0 / kT
    expected = si.R * (1.5 + x**2 * np.exp(x) / (1 + np.exp(x)) ** 2)
    by_gap = si.R / kT * np.exp(x) * (2 * x / (1 + np.exp(x)) ** 2 + x**2 * (1 - np.exp(x)) / (1 + np.exp(x)) ** 3)
    # 1e7 kJ/mol, from which a variance of kT^2 is found, has 2e-9 kJ/mol of rounding.
    assert float(value) == pytest.approx(expected, rel=1e-8)
    assert float(slope["gap"]) == pytest.approx(by_gap, rel=1e-7)


@pytest.fixture(scope="module")
def well():
    """(frames [T, 2, 3], boxes, prior): a fixed atom and one in the harmonic well k x^2 / 2 about it, k = 1000, by a
    rule that is exact for polynomials of degree 15; the prior takes exp(-U / kT) out of the rule's weights."""
    nodes, weights = hermegauss(8)
    x = np.sqrt(kT / 1000.0) * np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), -1).reshape(-1, 3)
    prior = np.prod(np.stack(np.meshgrid(weights, weights, weights, indexing="ij"), -1).reshape(-1, 3), axis=1)
    frames = np.stack([np.zeros_like(x), x], axis=1)
    prior = prior * np.exp(500.0 * np.sum(x**2, axis=1) / kT)
    return frames, np.broadcast_to(2.0 * np.eye(3), (len(x), 3, 3)), prior


def spring(x, parameters, box):
    return 0.5 * parameters["k"][0] * jnp.sum((x[1] - x[0]) ** 2)


def test_harmonic_wells_have_the_heat_capacity_of_dulong_and_petit(well):
    """3 R whatever the force constant: the third cumulants in its slope cancel."""
    value, slope = value_and_slopes(HeatCapacity(2.0, 0.0, 1, 3), spring, {"k": [1000.0]}, *well)
    assert float(value) == pytest.approx(3 * si.R, rel=1e-12)
    assert abs(1000 * float(slope["k"][0])) < 1e-10 * value


def test_a_charge_on_a_spring_has_the_dielectric_constant_of_its_polarizability(well):
    """1 + q^2 / (eps0 V k), in SI units here."""
    column = Column(np.array([-1, 0]), np.array([0.0, 0.0]), "q", True)
    neutral = lambda q: jnp.concatenate([-q, q])  # noqa: E731
    one = DielectricConstant(column, Sites(), ((0, 1),))
    value, slope = value_and_slopes(one, spring, {"k": [1000.0], "q": [0.3]}, *well)
    k = 1000.0 * 1e3 / si.N_A / 1e-18
    chi = (0.3 * si.e) ** 2 / (si.epsilon_0 * 8e-27 * k)
    assert float(value) - 1 == pytest.approx(chi, rel=1e-8)  # CODATA 2018 and 2022
    assert float(slope["q"][0]) == pytest.approx(2 * chi / 0.3, rel=1e-8)
    assert float(slope["k"][0]) == pytest.approx(-chi / 1000.0, rel=1e-8)
    both = DielectricConstant(entries("q", [0, 1]), Sites(), ((0, 1),))
    require_neutral(both, {"q": neutral(jnp.array([0.3]))})
    with pytest.raises(InputError, match="molecule 0 of a dielectric constant has the charge"):
        require_neutral(one, {"q": jnp.array([0.3])})


def test_a_virtual_site_has_its_charge_where_its_parents_put_it():
    """Half way between two atoms of its molecule, wherever the frame has it."""
    sites = Sites((AverageSites(np.array([2]), np.array([[0, 1]]), np.array([[0.5, 0.5]])),))
    one = DielectricConstant(fixed([0.0, 0.5, -0.5]), sites, ((0, 1, 2),))
    x = jnp.array([[0.1, 0, 0], [0.3, 0.2, 0], [5.0, 5.0, 5.0]])
    dipole = lambda x: numbers(one, State(x, None, np.eye(3), None, {}, kT, np.ones(3)))[0]  # noqa: E731
    value, slope = jax.value_and_grad(dipole)(x)
    unit = np.sqrt(3 * VACUUM * kT)
    assert float(value) == pytest.approx(0.5 * 0.1 / unit, rel=1e-12)
    np.testing.assert_allclose(slope[:, 0] * unit, [-0.25, 0.25, 0], atol=1e-12)


def test_a_dipole_in_a_field_is_langevins():
    """M = q a L(x), x = q a E / kT: 1 + (q a)^2 (1 - L^2) / (3 eps0 V kT), of which the ensemble depends on q too."""
    a, E = 0.1, 60.0
    cosine, weight = np.polynomial.legendre.leggauss(40)
    azimuth = np.arange(4) * np.pi / 2
    sine = np.sqrt(1 - cosine**2)[:, None]
    up = np.stack([sine * np.cos(azimuth), sine * np.sin(azimuth), np.broadcast_to(cosine[:, None], (40, 4))], -1)
    frames = np.stack([np.zeros((160, 3)), a * up.reshape(-1, 3)], axis=1)
    boxes, prior = np.broadcast_to(1.5 * np.eye(3), (160, 3, 3)), np.repeat(weight, 4)
    one = DielectricConstant(Column(np.array([-1, 0]), np.zeros(2), "q", True), Sites(), ((0, 1),))
    field = lambda x, p, box: -p["q"][0] * E * (x[1, 2] - x[0, 2])  # noqa: E731
    value, slope = value_and_slopes(one, field, {"q": [0.4]}, frames, boxes, prior)

    def closed(q):
        x = q * a * E / kT
        L = 1 / jnp.tanh(x) - 1 / x
        volts = si.epsilon_0 * 1.5**3 * 1e-27 * kT * 1e3 / si.N_A
        return 1 + (q * a * 1e-9 * si.e) ** 2 * (1 - L**2) / (3 * volts)

    expected, by_q = jax.value_and_grad(closed)(0.4)
    assert float(value) == pytest.approx(float(expected), rel=1e-8)
    assert float(slope["q"][0]) == pytest.approx(float(by_q), rel=1e-7)


def test_an_ideal_gas_at_constant_pressure():
    """The volume has a gamma distribution of shape N + 1: compressibility 1 / p, expansion 1 / T, and, of N atoms,
    C_p = R (5/2 + 1/N); the pressure is p on average."""
    N, p = 4, 50.0
    nodes, prior = roots_genlaguerre(6, N - 1)
    prior = nodes * prior  # V^N exp(-p V / kT), exact for 1 / V as well
    nm3 = kT * 1e3 / si.N_A / (p * 1e5) * 1e27  # kT / p
    edge = np.cbrt(nm3 * nodes)
    frames, boxes = np.zeros((6, N, 3)), edge[:, None, None] * np.eye(3)
    about = p * 1e5 * 5 * nm3 * 1e-27 * si.N_A / 1e3
    expected = {
        Compressibility(5 * nm3): 1 / p,
        ThermalExpansion(4.5 * nm3, about, p): 1 / T,
        HeatCapacity(about, p, N, 3 * N): si.R * (2.5 + 1 / N),
        Pressure(()): p,
        Density(): N * 1e-3 / si.N_A / (N * nm3 * 1e-27),
    }
    nothing = lambda x, p, box: jnp.zeros(())  # noqa: E731
    found = jax.jit(lambda prior: [averaged(one, nothing, {}, frames, boxes, prior)[0] for one in expected])(prior)
    np.testing.assert_allclose(found, list(expected.values()), rtol=1e-8)


def test_energies_of_a_liquid():
    state = State(np.zeros((6, 3)), None, None, lambda x, box: jnp.asarray(-80.0), {}, kT, np.ones(6))
    assert float(numbers(PotentialEnergy(2), state)[0]) == -40.0
    assert float(numbers(VaporisationEnthalpy(-3.0, 2), state)[0]) == pytest.approx(40.0 - 3.0 + kT, rel=1e-14)
    with pytest.raises(InputError, match="a state without a box has no volume"):
        numbers(Density(), state)


# ---- derivatives and OpenMM ----------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
X = np.stack(np.meshgrid(*[[0.2, 0.7]] * 3, indexing="ij"), -1).reshape(8, 3) + RNG.normal(0, 0.02, (8, 3))
PARAMETERS = {"sigma": np.array([0.34, 0.3]), "epsilon": np.array([1.0, 0.6]), "q": np.array([0.2, -0.2, 0.1, -0.1])}
OF_STATES = (
    Pressure(()),
    Pressure(MOLECULES),
    Density(),
    PotentialEnergy(8),
    VaporisationEnthalpy(-3.0, 8),
    HeatCapacity(-8.0, 10.0, 8, 24),
    Compressibility(3.0),
    ThermalExpansion(3.0, -8.0, 10.0),
    DielectricConstant(Column(np.array([0, 1, -1, 2, 3, -1, -1, -1]), np.zeros(8), "q", True), Sites(), MOLECULES),
)


def mixture():
    """Two kinds of Lennard-Jones atoms, with a tail correction."""
    columns = {name: entries(name, [0, 0, 1, 1, 0, 1, 0, 1]) for name in ("sigma", "epsilon")}
    kinds = kind_pairs(tuple(columns.values()), 8)
    return Energy((PairPotential(pairs=pair_source(8, cutoff=0.68, periodic=True), **columns, tail=kinds),))


def test_derivatives_by_positions_box_and_parameters_are_those_of_central_differences():
    masses = np.arange(1.0, 9.0)

    def of_state(energy, x, box, parameters):
        state = State(x, None, box, lambda x, box: energy(x, parameters, box), parameters, kT, masses)
        return jnp.concatenate([numbers(one, state) for one in OF_STATES])

    energy, point = mixture(), (jnp.asarray(X), jnp.asarray(BOX), jax.tree.map(jnp.asarray, PARAMETERS))
    function = jax.jit(of_state)
    along = jax.jit(lambda energy, point, by: jax.jvp(lambda *point: of_state(energy, *point), point, by)[1])
    nothing = jax.tree.map(jnp.zeros_like, point)
    directions = jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape)), point)
    directions = (directions[0], jnp.tril(directions[1]), directions[2])
    depends = np.zeros(len(function(energy, *point)), bool)
    for part in range(3):
        by = (*nothing[:part], directions[part], *nothing[part + 1 :])
        step = lambda h, by=by: function(energy, *jax.tree.map(lambda one, other: one + h * other, point, by))  # noqa: E731
        # Fourth order in 1e-4: truncation below 1e-9, rounding 1e-12 of the value.
        expected = (8 * (step(1e-4) - step(-1e-4)) - (step(2e-4) - step(-2e-4))) / 1.2e-3
        found = along(energy, point, by)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8 * np.max(np.abs(step(0.0))))
        depends |= np.abs(expected) > 1e-9
    assert depends.all()


def scaled(positions, box, masses, molecules, scale):
    """Positions and box with the centres of mass of molecules scaled."""
    moved = positions.copy()
    for atoms in molecules:
        moved[atoms] += (scale - 1) * np.average(positions[atoms], axis=0, weights=masses[atoms])
    return moved, scale * box


def openmm_pressure(system, positions, masses, molecules):
    """n kT / V - dU / dV of OpenMM's energies in double precision, by differences of fourth order, bar."""
    box = np.array([vector._value for vector in system.getDefaultPeriodicBoxVectors()])
    reference, h, slope = Reference(system, positions), 2e-4, 0.0
    for step, weight in ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12)):
        moved, vectors = scaled(positions, box, masses, molecules, 1 + step * h)
        reference.context.setPeriodicBoxVectors(*vectors)
        reference.context.setPositions(moved)
        slope += weight / h * reference.energy()
    return (len(molecules) * kT - slope / 3) / np.linalg.det(box) * 1e3 / si.N_A * 1e27 / 1e5


@pytest.mark.parametrize("name", ["Lennard-Jones, reaction field", "TIP3P, PME", "TIP3P, broken molecules"])
def test_pressures_are_openmms(name):
    if name.startswith("TIP3P"):
        case = _water("tip3p.xml", side=2, edge=0.8, cutoff=0.38, switchDistance=0.3)
        molecules = [list(range(i, i + 3)) for i in range(0, len(case.positions), 3)]
        for force in case.system.getForces():
            if isinstance(force, openmm.NonbondedForce):
                force.setPMEParameters(14.0, 20, 20, 20)  # one mesh; no step at the cut-off
    else:
        case = CASES[name](None)
        molecules = [[i] for i in range(len(case.positions))]
    loaded = from_system(case.system, case.topology)
    expected = openmm_pressure(case.system, case.positions, loaded.masses, molecules)
    x = case.positions - (np.round(case.positions / 0.8) * 0.8 if "broken" in name else 0.0)
    one = Pressure(tuple(map(tuple, molecules)) if name.startswith("TIP3P") else ())

    @jax.jit
    def pressure(energy, x, box, parameters):
        state = State(x, None, box, lambda x, box: energy(x, parameters, box), parameters, kT, loaded.masses)
        return numbers(one, state)[0]

    found = pressure(loaded.energy, x, loaded.box, loaded.parameters)
    # Differences leave 1e-9 of U / h; the energies agree to 1e-8 of forces that cancel to a tenth.
    assert float(found) == pytest.approx(expected, rel=1e-6)
