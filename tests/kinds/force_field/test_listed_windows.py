"""Windows over lists of neighbours: the averages and derivatives of all pairs, and lists that are full."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.energies.cells import Cells
from hpcfit.energies.columns import entries
from hpcfit.energies.energy import Energy
from hpcfit.energies.lists import pair_source
from hpcfit.energies.pair_potentials import PairPotential
from hpcfit.errors import InputError
from hpcfit.kinds.force_field.simulated.case import SimulatedCase
from hpcfit.kinds.force_field.simulated.ensemble import Ensemble
from hpcfit.kinds.force_field.simulated.equilibration import Equilibration, Exploded, planned
from hpcfit.kinds.table import load_config
from hpcfit.observables.geometry import RadiusOfGyration
from hpcfit.ranks import Ranks
from hpcfit.simulation.barostat import Barostat
from hpcfit.simulation.langevin import Bath, PhasePoint, middle, noise_key, thermal

N, SIDE, RHO, CUTOFF = 125, 5, 0.4, 1.5
EDGE = (N / RHO) ** (1 / 3)
BATH, BOX = Bath(2.0, 1.0, 0.004), EDGE * np.eye(3)
THETA = {"lj.epsilon": np.ones(1), "lj.sigma": np.ones(1)}
WINDOWS, STEPS = 2, 60


def energy() -> Energy:
    """A Lennard-Jones fluid of T* = 2, in reduced units."""
    pairs = pair_source(N, cutoff=CUTOFF, periodic=True, orthorhombic=True)
    columns = {name: entries(f"lj.{name}", np.zeros(N, int)) for name in ("sigma", "epsilon")}
    return Energy((PairPotential(pairs=pairs, **columns),))


def starts() -> PhasePoint:
    grid = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), -1).reshape(-1, 3)
    x = np.broadcast_to((grid + 0.5) * EDGE / SIDE, (WINDOWS, N, 3))
    return PhasePoint(x, np.asarray(thermal(jax.random.key(0), BATH, np.ones(N), x)))


def ensemble(lists=None) -> Ensemble:
    return Ensemble(
        energy(), THETA, BOX, np.ones(N), np.array(BATH.kT), middle(BATH, np.ones(N)),
        (np.array(200.0), np.array(1.0)), (RadiusOfGyration(np.ones(N), tuple(range(N))),), np.array(0.08), 20,
        STEPS // 20, 0, lists=lists,
    )  # fmt: skip


@partial(jax.jit, static_argnames="reverse")
def walked(one, sigma, points, reverse):
    """(d/dsigma of the mean square of positions, walks), carried along, or pulled back with steps computed again."""

    def ends(sigma):
        theta = THETA | {"lj.sigma": sigma}
        x = lambda point: point.x  # noqa: E731
        of_window = lambda number, point: one.walked(theta, point, noise_key(0, 0, number), x, reverse)  # noqa: E731
        found = one.each(of_window, jnp.arange(WINDOWS), points)
        return jnp.mean(found.seen**2), found

    return (jax.grad if reverse else jax.jacfwd)(ends, has_aux=True)(sigma)


@pytest.fixture(scope="module")
def lists():
    return energy().lists(starts().x[0], BOX, skin=0.15)


@pytest.fixture(scope="module")
def listed(lists):
    return walked(ensemble(lists), THETA["lj.sigma"], starts(), False)


def test_lists_are_renewed_and_give_the_walks_of_all_pairs(lists, listed):
    """Sums of 20 pairs an atom in another order differ by 20 eps; 60 steps of 0.004 multiply that by less than e^4 in
    this fluid (Lyapunov exponents of a few 1/tau), and forces of contacts are up to 1e3 larger than the mean: 1e-10."""
    slope, found = listed
    expected, other = walked(ensemble(), THETA["lj.sigma"], starts(), False)
    assert np.all(found.broke == -1)
    np.testing.assert_allclose(found.end.x, other.end.x, rtol=0, atol=1e-10)
    np.testing.assert_allclose(slope, expected, rtol=1e-9)
    [last], [first] = found.memory.values(), lists.values()
    assert np.all(np.abs(last.positions - first.positions).max(axis=(1, 2)) > 0.5 * first.skin)
    assert last.table.index.shape[2] < 0.5 * (N // 2)


def test_lists_pull_back_what_they_carry_along(lists, listed):
    np.testing.assert_allclose(walked(ensemble(lists), THETA["lj.sigma"], starts(), True)[0], listed[0], rtol=1e-10)


def test_tangents_by_the_hessian_as_a_matrix_run_over_lists(lists, listed):
    slope, found = walked(dataclasses.replace(ensemble(lists), matrix=True), THETA["lj.sigma"], starts(), False)
    np.testing.assert_allclose(slope, listed[0], rtol=1e-12)
    np.testing.assert_array_equal(found.end.x, listed[1].end.x)


def test_a_list_that_is_full_breaks_its_window_and_is_said(lists):
    """Two slots an atom are not enough for a fluid."""
    short = {
        key: dataclasses.replace(
            one, table=dataclasses.replace(one.table, index=one.table.index[:, :2], inside=one.table.inside[:, :2])
        )
        for key, one in lists.items()
    }
    apart = np.asarray(starts().x[:1]) + 0.2 * np.random.default_rng(0).uniform(-1, 1, (1, N, 3))
    work = Equilibration([planned("fluid", ensemble(short), apart, 5, BATH)], 1, 1, 0, Ranks())
    assert list(work.run([0])) == []
    expected = "'fluid' ran out of slots for neighbours in its equilibration: window 0, step 0, where atoms have 2"
    with pytest.raises(Exploded, match=expected):
        work.product()


# ---- constant pressure -----------------------------------------------------------------------------------------------


def pressed(one, pressure):
    """The ensemble at a pressure, in reduced units, and its starts."""
    x, v, *_ = starts()
    points = PhasePoint(x, v, np.broadcast_to(BOX, (WINDOWS, 3, 3)), np.full(WINDOWS, 0.1))
    barostat = Barostat(np.array(pressure), one.kT, one.masses, (), 3)
    return dataclasses.replace(one, barostat=barostat, boxed=True), points


@jax.jit
def pressed_walks(one, points):
    """The walks of all windows."""
    return one.each(partial(end_of, one), jnp.arange(WINDOWS), points)


@pytest.fixture(scope="module")
def pressed_over_all_pairs():
    return pressed_walks(*pressed(ensemble(), 0.5))


@pytest.mark.parametrize("cells", [None, Cells((3, 3, 3), 30)])
def test_lists_follow_the_volume(monkeypatch, pressed_over_all_pairs, cells):
    """As over all pairs, through 20 trial moves: no rounding decides one. The lists have room for denser places, and
    nothing can fall back on a table of all pairs."""
    other = pressed_over_all_pairs
    monkeypatch.setattr("hpcfit.energies.lists.ALL_PAIRS", 0)
    lists = energy().lists(0.8 * starts().x[0], 0.8 * BOX, skin=0.15)
    lists = {key: dataclasses.replace(listed, cells=cells) for key, listed in lists.items()}
    found = pressed_walks(*pressed(ensemble(lists), 0.5))
    assert np.all(found.broke == -1)
    assert np.all(np.abs(np.log(found.end.box[:, 0, 0] / EDGE)) > 1e-3)
    np.testing.assert_allclose(found.end.box, other.end.box, rtol=1e-12)
    np.testing.assert_allclose(found.end.x, other.end.x, rtol=0, atol=1e-10)


def end_of(one, number, point):
    return one.walked(one.parameters, point, noise_key(0, 0, number), lambda point: ())


def test_a_box_that_shrinks_below_twice_the_cutoff_breaks_its_window_and_is_said():
    one = ensemble()
    [term] = one.potential.terms
    wide = dataclasses.replace(term, pairs=dataclasses.replace(term.pairs, cutoff=0.495 * EDGE))
    narrow, _ = pressed(dataclasses.replace(one, potential=Energy((wide,))), 100.0)
    work = Equilibration([planned("fluid", narrow, np.asarray(starts().x[:1]), 30, BATH)], 1, 1, 0, Ranks())
    assert list(work.run([0])) == []
    expected = "'fluid' shrank below twice its cut-off in its equilibration: window 0, step .* had to be 6.718 nm"
    with pytest.raises(Exploded, match=expected):
        work.product()


CONFIG = """
[run]
directory = "run"
[problem]
kind = "force-field"
estimator = "pathwise"
window = 1.0
[[problem.parameter]]
name = "lj.sigma"
[[problem.system]]
name = "argon"
system = "argon.xml"
positions = "argon.npy"
temperature = 94.4
step = 0.005
observable = [{name = "size", observable = "radius-of-gyration", atoms = "all", values = 1.0, sigma = 0.1}]
"""


def argon(folder, side, config=CONFIG, method="CutoffPeriodic"):
    """The case of a config with side^3 atoms."""
    openmm = pytest.importorskip("openmm")
    system, force, edge = openmm.System(), openmm.NonbondedForce(), 0.38 * side
    system.setDefaultPeriodicBoxVectors(*(edge * np.eye(3)))
    force.setNonbondedMethod(getattr(force, method))
    force.setCutoffDistance(0.7)
    for _ in range(side**3):
        system.addParticle(39.948)
        force.addParticle(0.0, 0.3405, 0.996)
    system.addForce(force)
    (folder / "argon.xml").write_text(openmm.XmlSerializer.serialize(system))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    np.save(folder / "argon.npy", 0.38 * (grid + 0.5))
    (folder / "config.toml").write_text(config)
    return SimulatedCase.open(load_config(folder / "config.toml"))


@pytest.mark.parametrize(
    ("side", "expected"), [(4, "all pairs"), (6, "lists of up to [23][0-9] of 108 pairs a particle, skin 0.084 nm")]
)
def test_lists_are_made_where_they_are_short_and_check_says_so(tmp_path, side, expected):
    case = argon(tmp_path, side)
    assert re.fullmatch(f"argon over {expected}", case.summary()["forces"])
    assert (case.ensembles[0].lists is None) == (expected == "all pairs")


@pytest.mark.parametrize("pressure", ["", "pressure = 1.0\n"])
def test_systems_of_more_particles_than_all_pairs_have_lists_and_the_energy_of_all_pairs(
    tmp_path, monkeypatch, pressure
):
    config = CONFIG.replace("step = 0.005\n", f"step = 0.005\n{pressure}")
    config = config.replace("pathwise", "fluctuation") if pressure else config
    monkeypatch.setattr("hpcfit.energies.lists.ALL_PAIRS", 1000)
    [one] = argon(tmp_path, 12, config).ensembles
    [listed] = one.lists.values()
    assert listed.cells is not None
    x = 0.38 * np.random.default_rng(0).normal(scale=0.05, size=(12**3, 3)) + np.load(tmp_path / "argon.npy")
    monkeypatch.undo()
    whole = argon(tmp_path, 12, config).ensembles[0].potential
    energy = jax.jit(lambda potential, x, box: jax.value_and_grad(potential, (0, 2))(x, one.parameters, box))
    for found, expected in zip(*(jax.tree.leaves(energy(some, x, one.box)) for some in (one.potential, whole))):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


def test_too_many_particles_without_a_cut_off_are_one_error(tmp_path, monkeypatch):
    monkeypatch.setattr("hpcfit.energies.lists.ALL_PAIRS", 50)
    with pytest.raises(InputError, match="system 'argon' has 64 particles that meet in pairs at any distance"):
        argon(tmp_path, 4, method="NoCutoff")
