"""Constant pressure: trial moves that keep molecules whole, and the volume of an ideal gas."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.simulation.barostat import Barostat
from hpcfit.simulation.langevin import Bath, Course, Motion, PhasePoint, middle, noise_key, thermal, walk

MASSES = np.array([16.0, 1.0, 1.0, 16.0, 1.0, 1.0, 40.0, 0.0])
MOLECULES = ((0, 1, 2), (3, 4, 5))
BOX = np.array([[3.0, 0.0, 0.0], [0.7, 2.8, 0.0], [-0.5, 0.9, 2.6]])


@pytest.mark.parametrize("change", [-0.3, 0.1])
def test_centres_are_scaled_with_the_box_and_molecules_are_not(change):
    """Also one that reaches over the border of the box, and far from the origin; a particle of no mass is scaled too,
    and counts as no molecule."""
    random = np.random.default_rng(0)
    x = random.uniform(-3, 3, (8, 3))
    for first in (0, 3):
        x[first + 1 : first + 3] = x[first] + random.uniform(-0.1, 0.1, (2, 3))
    x[3:6] += 7 * BOX[0] - 2 * BOX[2]
    whole = x.copy()
    x[4] += BOX[1]  # the image of an atom that a molecule has elsewhere
    found, n = Barostat(1.0, 1.0, MASSES, MOLECULES, 1).scaled(PhasePoint(x, x, BOX, 0.1), change)
    length = np.exp(change / 3)
    assert int(n) == 3
    np.testing.assert_allclose(found.box, length * BOX, rtol=1e-15)
    np.testing.assert_array_equal(found.v, x)
    moved = np.array(found.x)
    moved[4] -= length * BOX[1]
    for atoms in map(list, MOLECULES):
        arms = lambda places, atoms=atoms: places[atoms] - places[atoms[0]]  # noqa: E731
        np.testing.assert_allclose(arms(moved), arms(whole), rtol=0, atol=1e-12)
        centre = MASSES[atoms] @ whole[atoms] / MASSES[atoms].sum()
        np.testing.assert_allclose(MASSES[atoms] @ moved[atoms] / MASSES[atoms].sum(), length * centre, rtol=1e-12)
    np.testing.assert_allclose(moved[6:], length * x[6:], rtol=1e-14)


def test_the_volume_of_an_ideal_gas_of_molecules_is_exact():
    """Three dimers and two atoms: p(V) is V^5 exp(-p V / kT), the gamma distribution of 6, whatever the bonds do."""
    kT, pressure, n, walks = 2.0, 1.3, 5, 64
    dimers, masses, bath = ((0, 1), (2, 3), (4, 5)), np.ones(8), Bath(2.0, 1.0, 0.05)
    barostat = Barostat(np.array(pressure), np.array(kT), masses, dimers, 2)

    def energy(x, *_):
        return 40.0 * jnp.sum((x[:6:2] - x[1:6:2]) ** 2)

    forces = lambda x, memory, box: -jax.grad(energy)(x)  # noqa: E731
    move = partial(barostat.tried, lambda point, memory: energy(point.x), lambda memory, x, box: memory)
    motion = Motion(forces, middle(bath, masses), jump=partial(move, 0.0), every=2)

    @jax.jit
    @jax.vmap
    def volumes(number):
        key = noise_key(0, 0, number)
        x = jax.random.normal(key, (8, 3))
        point = PhasePoint(x, thermal(key, bath, masses, x), 2.1 * jnp.eye(3), jnp.array(0.3))
        adapted = motion._replace(jump=partial(move, 0.1))
        begun = walk(adapted, point, key, Course(200, 200)).end
        found = walk(motion, begun, key, Course(2000, 20, 200), lambda point: jnp.linalg.det(point.box))
        return found.seen, begun.reach, found.end.reach

    found, reach, last = map(np.asarray, volumes(jnp.arange(walks)))
    np.testing.assert_array_equal(reach, last)  # a walk that samples adapts nothing
    assert 0.5 < np.median(reach) < 3.0  # the width of ln V is 0.4: a reach of 1.2 is accepted in half of the moves
    scale = kT / pressure
    for moment, exact in ((found, n + 1), (found**2, (n + 1) * (n + 2)), (1 / found, 1 / n)):
        power = {n + 1: 1, (n + 1) * (n + 2): 2, 1 / n: -1}[exact]
        means = moment.mean(axis=1) / scale**power
        assert abs(means.mean() - exact) < 4 * means.std(ddof=1) / np.sqrt(walks)
        assert means.std(ddof=1) / np.sqrt(walks) < 0.04 * exact
