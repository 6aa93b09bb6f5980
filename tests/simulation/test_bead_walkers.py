"""Simulations of beads against closed forms; stopped between segments and gone on with, with the bits of one go."""

import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.fit.stages import Interrupted
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.simulation import beads
from hpcfit.simulation.bead_engines import JaxForces, OpenMMSystem
from hpcfit.simulation.beads import Langevin, Walkers
from hpcfit.simulation.dynamics import Exploded
from tests.fit.stage_runs import stage_done
from tests.fit.thread_ranks import on_ranks

openmm = pytest.importorskip("openmm")

T = 300.0
KT = GAS_CONSTANT * T
SPRING = 8.0  # kJ/mol/A^2 between two beads
ENGINES = pytest.mark.parametrize("kind", ["jax", "openmm"])


def spring(R, box):
    u = R[1] - R[0]
    return SPRING * jnp.stack([u, -u]) - 0.5 * R


def spring_system():
    system = openmm.System()
    for _ in range(2):
        system.addParticle(40.0)
    force = openmm.CustomCompoundBondForce(2, f"0.5*{SPRING * 100}*distance(p1,p2)^2")
    force.addBond([0, 1], [])
    system.addForce(force)
    outer = openmm.CustomExternalForce("0.5*50*(x^2+y^2+z^2)")
    for bead in range(2):
        outer.addParticle(bead, [])
    system.addForce(outer)
    return system


def engine_of(kind, plan):
    """Not on platform "Reference": its random numbers are of the process, which ranks that are threads share."""
    masses = np.full(2, 40.0)
    return JaxForces(spring, masses, plan) if kind == "jax" else OpenMMSystem(spring_system(), plan, "CPU")


def walked(engine, start, folder, ranks=1, stops_after=None):
    """The frames of all walkers [W, T, N, 3] as a stage leaves them; None where it was interrupted."""

    def on_rank(world):
        try:
            return stage_done(Walkers(engine, start, world), world, folder, stops_after=stops_after)
        except Interrupted:
            return None

    root, *others = on_ranks(ranks, on_rank)
    assert others == [root and {}] * (ranks - 1)
    return root and root["frames"]


@ENGINES
def test_langevin_dynamics_samples_boltzmann(kind, tmp_path):
    """u = R1 - R0 is Gaussian: k = 8 + 0.5/2 in each direction; R0 + R1 has k = 0.5/2: variances kT / k.

    BAOAB and OpenMM's middle scheme have configurations of a harmonic force without error in the step.
    """
    plan = Langevin(T, frames=1500, interval=0.5, step=0.05, friction=4.0, equilibration=10.0)
    R = walked(engine_of(kind, plan), np.random.default_rng(0).normal(size=(2, 2, 3)), tmp_path)
    assert R.shape == (2, 1500, 2, 3)
    for found, k in ((R[:, :, 1] - R[:, :, 0], SPRING + 0.25), (R[:, :, 1] + R[:, :, 0], 0.25)):
        parts = (found.astype(float) ** 2).reshape(2, 15, 100, 3).mean(axis=(2, 3)).ravel()  # 30 parts of 50 ps
        error = parts.std(ddof=1) / np.sqrt(30)
        assert error < 0.2 * KT / k
        assert abs(parts.mean() - KT / k) < 4 * error


def test_the_seed_decides_a_trajectory_and_walkers_differ(tmp_path):
    plans = [Langevin(T, frames=3, interval=0.1, step=0.05, friction=4.0, seed=seed) for seed in (1, 1, 2)]
    one, again, other = (
        walked(engine_of("jax", plan), np.zeros((2, 2, 3)), tmp_path / str(number)) for number, plan in enumerate(plans)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one[0], one[1])


PLAN = Langevin(T, frames=4, interval=0.3, step=0.05, friction=4.0, equilibration=0.55, seed=3)  # 11 + 4 x 6 steps
START = np.random.default_rng(1).normal(size=(4, 2, 3))


@ENGINES
@pytest.mark.parametrize("segment", [500, 8])
def test_walkers_dealt_over_ranks_have_the_same_bits(kind, segment, tmp_path, monkeypatch):
    """On 1, 2 and 3 ranks, and on more ranks than there are walkers."""
    monkeypatch.setattr(beads, "SEGMENT", segment)
    alone = walked(engine_of(kind, PLAN), START, tmp_path / "1")
    assert alone.shape == (4, 4, 2, 3)
    assert len({walker.tobytes() for walker in alone}) == 4
    for size in (2, 3, 5):
        assert walked(engine_of(kind, PLAN), START, tmp_path / str(size), size).tobytes() == alone.tobytes()


def test_segments_of_forces_in_jax_change_no_bit(tmp_path, monkeypatch):
    whole = walked(engine_of("jax", PLAN), START, tmp_path / "whole")
    monkeypatch.setattr(beads, "SEGMENT", 1)
    np.testing.assert_array_equal(walked(engine_of("jax", PLAN), START, tmp_path / "steps"), whole)


@ENGINES
@pytest.mark.parametrize("stops_after", [0, 3, 8])
@pytest.mark.parametrize(("first", "then"), [(1, 1), (1, 3), (3, 2)])
def test_a_walker_goes_on_from_its_last_segment_on_other_ranks(kind, first, then, stops_after, tmp_path, monkeypatch):
    """35 steps are 5 segments; none is done twice."""
    monkeypatch.setattr(beads, "SEGMENT", 8)
    whole = walked(engine_of(kind, PLAN), START, tmp_path / "whole")
    segment, done = Walkers._segment, []
    monkeypatch.setattr(
        Walkers,
        "_segment",
        lambda self, walker, trail: (done.append((walker, trail.steps)), segment(self, walker, trail))[1],
    )
    if walked(engine_of(kind, PLAN), START, tmp_path / "run", first, stops_after) is None:
        assert 0 < len(done) < 20
        assert walked(engine_of(kind, PLAN), START, tmp_path / "run", then).tobytes() == whole.tobytes()
    assert sorted(done) == [(walker, steps) for walker in range(4) for steps in range(0, 35, 8)]


def test_a_simulation_that_is_longer_than_every_job_ends(tmp_path, monkeypatch):
    """Each job does one segment on each rank."""
    monkeypatch.setattr(beads, "SEGMENT", 8)
    whole, jobs = walked(engine_of("jax", PLAN), START, tmp_path / "whole"), 0
    while (found := walked(engine_of("jax", PLAN), START, tmp_path / "jobs", 2, stops_after=0)) is None:
        jobs += 1
        assert jobs <= 2 * 6
    np.testing.assert_array_equal(found, whole)


def test_beads_that_fly_off_are_an_error(tmp_path):
    plan = Langevin(T, frames=20, interval=1.0, step=1.0, friction=0.1)
    with pytest.raises(Exploded, match=r"walker 0.*1 ps"):
        walked(JaxForces(lambda R, box: -1e4 * R, np.ones(2), plan), np.ones((1, 2, 3)), tmp_path)


def test_the_first_walker_that_flies_off_is_told_on_any_number_of_ranks(tmp_path):
    plan = Langevin(T, frames=20, interval=1.0, step=1.0, friction=0.1)
    start = np.stack([np.zeros((2, 3)), *[np.full((2, 3), far) for far in (30.0, 40.0)]])
    steep = JaxForces(lambda R, box: jnp.where(jnp.abs(R) > 20.0, -1e4 * R, -1e-3 * R), np.full(2, 1e4), plan)
    said = []
    for size in (1, 2, 3):
        with pytest.raises(Exploded, match="walker 1") as caught:
            walked(steep, start, tmp_path / str(size), size)
        said.append(str(caught.value))
    assert len(set(said)) == 1


def test_a_system_that_flies_off_leaves_the_others_walking_and_is_told_at_the_end(tmp_path):
    plan = Langevin(T, frames=20, interval=1.0, step=1.0, friction=0.1)
    system = openmm.System()
    system.addParticle(1.0)
    force = openmm.CustomExternalForce("select(step(x), 1e9*x^4, 0)")
    force.addParticle(0, [])
    system.addForce(force)
    start = np.array([[[-1e5, 0.0, 0.0]], [[30.0, 0.0, 0.0]], [[40.0, 0.0, 0.0]]])
    said = []
    for size in (1, 3):
        with pytest.raises(Exploded, match="flew off") as caught:
            walked(OpenMMSystem(system, plan, "CPU"), start, tmp_path / str(size), size)
        said.append(str(caught.value))
    assert len(set(said)) == 1


def test_a_plan_that_is_none_is_refused():
    with pytest.raises(InputError, match=r"step = 0\.5"):
        Langevin(T, frames=2, interval=0.2, step=0.5)
