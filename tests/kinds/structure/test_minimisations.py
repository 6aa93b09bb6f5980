"""Replicas that are minimised in blocks: budgets, traces, phases, ranks, interruption, starts without an energy."""

from functools import partial

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.fit.inner import OfRows
from hpcfit.fit.lbfgs import Ends, Lbfgs
from hpcfit.kinds.structure import minimisations
from hpcfit.kinds.structure.found import CONVERGED, Found, warnings
from hpcfit.kinds.structure.hopping import Hopping, Hops
from hpcfit.kinds.structure.landscapes.clusters import Cluster
from hpcfit.kinds.structure.minimisations import (
    BUDGET,
    Minimisations,
    Phase,
    Replicas,
    energies,
    energies_and_slopes,
    marks,
)
from hpcfit.kinds.structure.parametrisations import Direct
from hpcfit.ranks import Ranks
from tests.fit.thread_ranks import on_ranks

# The four minima of seven Lennard-Jones particles (Tsai and Jordan 1993, 10.1021/j100145a019).
SEVEN = (-16.505384, -15.935043, -15.593211, -15.533060)
LJ7, WIDTH = Cluster.of(7), 3


def starts(numbers):
    return np.stack([np.random.default_rng([8, int(n)]).normal(size=(7, 3)) for n in numbers])


def lbfgs(inner: OfRows, seeds=(), steps=1000, tolerance=1e-12) -> Lbfgs:
    return Lbfgs(inner, longest=0.5, first_step=0.2, ends=Ends(steps, relative=tolerance, patience=3))


def work(replicas=7, width=WIDTH, budget=600, cap=0.9, ranks=None):
    direct = Direct((7, 3))
    every = [Phase(direct, lbfgs, cap), Phase(direct, lbfgs, 0.0)] if cap else [Phase(direct, lbfgs, 0.0)]
    return Minimisations(LJ7, starts, every, Replicas(replicas, width, budget, 1), ranks or Ranks())


def done(stage, units=None):
    for _ in stage.run(list(range(stage.n_units)) if units is None else units):
        pass
    return stage.product()


@pytest.fixture(scope="module")
def found():
    return done(work())


def test_ends_are_minima_of_the_energy_itself(found):
    energy, slope = energies_and_slopes(LJ7, found["positions"])
    np.testing.assert_array_equal(energies(LJ7, found["positions"]), found["energy"])
    np.testing.assert_allclose(energy, found["energy"], rtol=1e-13)  # 21 pairs in another order
    assert np.all(np.isin(found["status"], CONVERGED))
    assert np.max(np.abs(slope)) < 1e-3  # energies are within 1e-12 of themselves, and curvatures of order 100
    away = np.abs(found["energy"][:, None] - SEVEN)
    assert np.all(np.min(away, axis=1) < 1e-6)


def test_a_replica_is_the_same_alone_on_any_rank_and_after_an_interruption(found):
    alone = done(work(replicas=1))
    np.testing.assert_array_equal(alone["positions"][0], found["positions"][0])

    def of_rank(ranks):
        stage = work(ranks=ranks)
        for _ in stage.run(range(ranks.rank, stage.n_units, ranks.size)):
            pass
        return stage.product()

    for size in (2, 3):
        product = on_ranks(size, of_rank)[0]
        for name in ("positions", "energy", "evaluations", "status", "trace"):
            np.testing.assert_array_equal(product[name], found[name])
    half, rest = work(), work()
    for _ in half.run([0, 2]):
        pass
    rest.take_up(half.kept())
    np.testing.assert_array_equal(done(rest, [1])["positions"], found["positions"])


def test_a_replica_that_has_ended_is_not_evaluated_again(monkeypatch):
    asked = []

    def counted(landscape, x, cap=0.0):
        asked.append(len(x))
        return energies_and_slopes(landscape, x, cap)

    monkeypatch.setattr(minimisations, "energies_and_slopes", counted)
    found = done(work(replicas=3, cap=0.0))
    assert len(set(found["evaluations"])) > 1
    assert sum(asked) == sum(found["evaluations"])


def test_a_budget_is_kept_to_the_gradient():
    counted = []

    class Counted(Minimisations):
        def _after(self, block, state, chart, evaluated):
            counted.append(evaluated.sum())
            return super()._after(block, state, chart, evaluated)

    direct = Direct((7, 3))
    stage = Counted(LJ7, starts, [Phase(direct, lbfgs, 0.9)], Replicas(3, 3, 10, 1), Ranks())
    product = done(stage)
    assert product["evaluations"].tolist() == [10, 10, 10]
    assert np.all(product["status"] == BUDGET)
    assert sum(counted) == 30


def test_a_budget_that_ends_between_phases_is_that_of_each_replica():
    """Some have come to the second phase when others have spent all in the first: each does what it would do alone."""
    whole = done(work())
    budget = int(np.median(whole["evaluations"]))
    together = done(work(budget=budget))
    assert len(set(together["status"].tolist())) > 1
    assert np.all(together["evaluations"] <= budget)
    phases = [Phase(Direct((7, 3)), lbfgs, cap) for cap in (0.9, 0.0)]
    for number in range(7):
        of_one = lambda numbers, n=number: starts(np.full(len(numbers), n))  # noqa: E731
        alone = done(Minimisations(LJ7, of_one, phases, Replicas(1, WIDTH, budget, 1), Ranks()))
        assert alone["energy"][0] == together["energy"][number]
        assert alone["evaluations"][0] == together["evaluations"][number]


@pytest.mark.parametrize("budget", [1, 2])
def test_small_budgets_are_kept(budget):
    assert done(work(budget=budget))["evaluations"].tolist() == [budget] * 7


def test_a_trace_begins_at_the_start_and_never_rises():
    product = done(work(cap=0.0, budget=300))
    energy, _ = energies_and_slopes(LJ7, starts(np.arange(7)))
    np.testing.assert_array_equal(product["trace"][:, 0], energy)
    assert np.all(np.diff(product["trace"], axis=1) <= 1e-8 * np.abs(product["trace"][:, 1:]))
    assert product["trace"].shape[1] == len(marks(300))
    np.testing.assert_allclose(product["trace"][:, -1], product["energy"], rtol=1e-13)


def test_particles_that_lie_on_each_other_come_apart_by_a_capped_core():
    at_once = lambda numbers: np.zeros((len(numbers), 7, 3)) + 1e-3 * starts(numbers)  # noqa: E731
    direct = Direct((7, 3))
    capped = [Phase(direct, lbfgs, 0.9), Phase(direct, lbfgs, 0.0)]
    product = done(Minimisations(LJ7, at_once, capped, Replicas(2, 2, 2000, 1), Ranks()))
    assert np.all(product["energy"] < -12)
    same = lambda numbers: np.zeros((len(numbers), 7, 3))  # noqa: E731
    with pytest.raises(InputError, match=r"replica 0 is not finite where it starts: particle . and particle . are 0"):
        done(Minimisations(LJ7, same, [Phase(direct, lbfgs, 0.0)], Replicas(2, 2, 50, 1), Ranks()))


def hopping(quenches, replicas=4, budget=10**6, ranks=None):
    make = partial(lbfgs, steps=300, tolerance=1e-7)
    return Hopping(LJ7, starts, make, Hops(quenches, 0.8, 0.4), 0.9, Replicas(replicas, 4, budget, 1), ranks or Ranks())


def test_basin_hopping_finds_the_ground_state_in_every_walk():
    """Its basin takes a quarter of all quenches and more, so that four walks of 40 miss it with (3/4)^40, 1e-5."""
    product = done(hopping(40))
    np.testing.assert_allclose(product["energy"], SEVEN[0], atol=1e-5)
    assert product["quenches"].tolist() == [40] * 4
    energy, _ = energies_and_slopes(LJ7, product["positions"])
    np.testing.assert_allclose(energy, product["energy"], rtol=1e-14)


def test_a_walk_is_the_same_alone():
    together, alone = done(hopping(5)), done(hopping(5, replicas=1))
    np.testing.assert_array_equal(alone["positions"][0], together["positions"][0])
    assert alone["evaluations"][0] == together["evaluations"][0]


def test_walks_end_with_their_budget():
    product = done(hopping(10**6, budget=200))
    assert product["evaluations"].tolist() == [200] * 4
    assert np.all(product["status"] == BUDGET)


@pytest.mark.parametrize(
    ("quenches", "budget", "at_minima"), [(3, 10**6, 4), (10**6, 200, 0)], ids=["quenches", "budget"]
)
def test_a_walk_that_has_done_its_quenches_is_at_a_minimum(quenches, budget, at_minima):
    found = Found.of("hopping", LJ7, done(hopping(quenches, budget=budget)))
    assert found.told(None)["converged"] == at_minima
    said = [f"hopping: {4 - at_minima} of 4 replicas were not at a minimum when their {budget} gradients ended"]
    assert warnings([found], budget) == ([] if at_minima else said)
