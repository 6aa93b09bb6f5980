"""Annealing: the Boltzmann distribution at a temperature, cooling to a minimum, the same bits alone."""

import numpy as np

from hpcfit.fit.gradient import Evaluation
from hpcfit.fit.inner import OfRows
from hpcfit.fit.lbfgs import GOING, MAX_STEPS, NOT_FINITE
from hpcfit.fit.problem import Params
from hpcfit.kinds.structure.annealing import Annealing, Cooling
from hpcfit.kinds.structure.landscapes.clusters import Cluster
from hpcfit.kinds.structure.minimisations import Minimisations, Phase, Replicas, energies
from hpcfit.kinds.structure.parametrisations import Direct
from hpcfit.ranks import Ranks

LJ7 = Cluster.of(7)


def at(z, stiffness=2.0):
    """The evaluation of harmonic wells, one a row [1, W, size]."""
    return Evaluation(
        0.5 * stiffness * np.sum(z**2, axis=-1), Params((), {"z": stiffness * z}), Params((), {"z": z}), None, None, {}
    )


def run(annealing, z, steps):
    state = annealing.begun(Params((), {"z": z}), at(z))
    for _ in range(steps):
        state = annealing.told(state, at(annealing.trial(state).local["z"]))
        yield state


def test_wells_have_the_spread_of_a_temperature_that_hardly_falls():
    """<x^2> = kT / k, of 4000 independent wells after 400 steps, some four times the memory of velocities."""
    kT, wells = 0.5, 4000
    annealing = Annealing(OfRows((1, 1)), np.array([3], np.uint32), Cooling(kT, 0.2, 10**7))
    *_, state = run(annealing, np.zeros((1, 1, wells)), 400)
    found, expected = np.mean(state.params.local["z"] ** 2), kT / 2.0
    assert abs(found - expected) < 5 * expected * np.sqrt(2 / wells)


def test_a_cooled_well_ends_at_its_bottom():
    """Its energy lags behind by the memory of velocities, 100 to 200 of 3000 steps."""
    annealing = Annealing(OfRows((1, 1)), np.array([3], np.uint32), Cooling(0.5, 0.2, 3000))
    states = list(run(annealing, np.ones((1, 1, 30)), 3000))
    assert states[-2].status[0, 0] == GOING
    assert states[-1].status[0, 0] == MAX_STEPS
    assert states[-1].loss[0, 0] < 0.1 * np.mean([state.loss[0, 0] for state in states[500:700]])


def test_one_that_comes_to_no_energy_stays_where_it_was():
    annealing = Annealing(OfRows((1, 2)), np.array([3, 4], np.uint32), Cooling(0.5, 0.2, 100))
    z = np.ones((1, 2, 6))
    state = annealing.begun(Params((), {"z": z}), at(z))
    here = at(annealing.trial(state).local["z"])
    state = annealing.told(state, here._replace(loss=np.array([[np.nan, here.loss[0, 1]]])))
    assert state.status[0].tolist() == [NOT_FINITE, GOING]
    np.testing.assert_array_equal(state.params.local["z"][0, 0], z[0, 0])
    assert np.any(state.params.local["z"][0, 1] != z[0, 1])


def starts(numbers):
    return np.stack([np.random.default_rng([8, int(n)]).normal(size=(7, 3)) for n in numbers])


def annealed(replicas, budget=400):
    make = lambda inner, seeds: Annealing(inner, seeds, Cooling(0.3, 0.02, 10**4))  # noqa: E731
    stage = Minimisations(LJ7, starts, [Phase(Direct((7, 3)), make, 0.9)], Replicas(replicas, 3, budget, 1), Ranks())
    for _ in stage.run(range(stage.n_units)):
        pass
    return stage.product()


def test_a_replica_is_annealed_alike_alone_and_others_otherwise():
    together, alone = annealed(4), annealed(1)
    np.testing.assert_array_equal(alone["positions"][0], together["positions"][0])
    assert together["evaluations"].tolist() == [400] * 4
    assert len(np.unique(together["energy"])) == 4
    energy = energies(LJ7, together["positions"])
    np.testing.assert_array_equal(energy, together["energy"])
    assert np.all(np.isfinite(energy))
