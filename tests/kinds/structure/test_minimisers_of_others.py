"""Minimisers and dynamics of other libraries: budgets counted to the gradient, ends by our own energy."""

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.fit.lbfgs import SMALL_CHANGE
from hpcfit.kinds.structure.baselines import Baseline
from hpcfit.kinds.structure.config import MethodConfig
from hpcfit.kinds.structure.landscapes.clusters import Cluster
from hpcfit.kinds.structure.landscapes.system import SystemLandscape
from hpcfit.kinds.structure.landscapes.thomson import Thomson
from hpcfit.kinds.structure.minimisations import BUDGET, GAVE_UP, energies_and_slopes, marks
from hpcfit.kinds.structure.minimisers import check_minimiser, minimiser
from hpcfit.ranks import Ranks

LJ7 = Cluster.of(7)


def starts(numbers):
    return np.stack([np.random.default_rng([8, int(n)]).normal(size=(7, 3)) for n in numbers])


def found(name, landscape=LJ7, begin=starts, budget=40, **keys):
    made = minimiser(MethodConfig(name="one", optimizer=name, **keys), landscape, 1)
    stage = Baseline(made, landscape, begin, 2, budget, Ranks())
    for _ in stage.run(range(stage.n_units)):
        pass
    return stage.product()


@pytest.mark.parametrize("name", ["scipy", "ase", "openmm"])
def test_minimisers_keep_to_the_budget(name):
    pytest.importorskip("openmm")
    product = found(name)
    assert np.all(product["evaluations"] <= 40)
    energy, _ = energies_and_slopes(LJ7, product["positions"])
    np.testing.assert_allclose(energy, product["energy"], rtol=1e-12)
    first, _ = energies_and_slopes(LJ7, starts(np.arange(2)))
    assert np.all(product["energy"] < first)


def test_openmm_comes_to_a_minimum_of_an_energy_that_it_does_not_know():
    """Four charges on a sphere: a tetrahedron."""
    pytest.importorskip("openmm")
    begin = lambda numbers: np.stack([np.random.default_rng(int(n)).normal(size=(4, 3)) for n in numbers])  # noqa: E731
    product = found("openmm", Thomson.of(4), begin, 500)
    assert product["status"].tolist() == [SMALL_CHANGE] * 2
    np.testing.assert_allclose(product["energy"], 3 * np.sqrt(1.5), rtol=1e-10)
    assert np.all(product["evaluations"] < 300)


def molecule():
    """Seven atoms of argon, without a box."""
    openmm = pytest.importorskip("openmm")
    system, force = openmm.System(), openmm.NonbondedForce()
    for _ in range(7):
        system.addParticle(39.9)
        force.addParticle(0.0, 0.34, 1.0)
    system.addForce(force)
    return SystemLandscape.of(system, 0.34 * 1.5 * starts([0])[0])


def close(numbers):
    """The corners of a pentagonal bipyramid, shaken: near the least energy of seven."""
    turn = 2 * np.pi * np.arange(5) / 5
    ring = 0.95 * np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)
    x = 0.38 * np.concatenate([ring, [[0, 0, 0.55], [0, 0, -0.55]]])
    return np.stack([x + 0.005 * np.random.default_rng(int(n)).normal(size=x.shape) for n in numbers])


def test_dynamics_of_openmm_takes_the_whole_budget():
    argon = molecule()
    product = found("openmm-langevin", argon, close, 100, temperature=20.0)
    assert product["evaluations"].tolist() == [100] * 2
    assert product["status"].tolist() == [BUDGET] * 2
    assert product["trace"].shape == (2, len(marks(100)))
    assert np.all(np.diff(product["trace"], axis=1) <= 0)
    energy, _ = energies_and_slopes(argon, product["positions"])
    np.testing.assert_allclose(energy, product["energy"], rtol=1e-12)
    again = found("openmm-langevin", argon, close, 100, temperature=20.0)
    np.testing.assert_array_equal(product["positions"], again["positions"])


def test_annealing_by_openmm_ends_in_the_minimum():
    product = found("openmm-annealing", molecule(), close, 600, temperature=5.0, share=0.25)
    np.testing.assert_allclose(product["energy"], -16.505384, rtol=1e-6)
    assert product["status"].tolist() == [SMALL_CHANGE] * 2
    assert np.all((product["evaluations"] > 150) & (product["evaluations"] <= 600))


def test_dynamics_that_explodes_is_said_so():
    """At 1e9 K atoms are nowhere after some steps; the replica ends with what was found by then."""
    product = found("openmm-langevin", molecule(), close, 3000, temperature=1e14)
    assert set(product["status"].tolist()) <= {GAVE_UP, BUDGET}
    assert np.all(np.isfinite(product["energy"]))


def test_dynamics_of_openmm_needs_a_system():
    pytest.importorskip("openmm")
    method = MethodConfig(name="one", optimizer="openmm-langevin")
    with pytest.raises(InputError, match="needs a System of OpenMM"):
        check_minimiser(method, LJ7)
