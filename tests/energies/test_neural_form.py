"""A neural potential is a term as any other: invariant, differentiable, with lists; it learns a pair potential."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.spatial.transform import Rotation

from hpcfit.energies.energy import Energy
from hpcfit.energies.lists import Frame, pair_source
from hpcfit.energies.neural_form import Architecture, NeuralPotential, initial_parameters

ATOMS = 9
ELEMENT = np.arange(ATOMS) % 2


@pytest.fixture(scope="module")
def potential():
    term = NeuralPotential(pairs=pair_source(ATOMS, cutoff=0.6), element=ELEMENT)
    return Energy((term,)), initial_parameters(2, Architecture(), seed=1)


@pytest.fixture(scope="module")
def positions():
    return np.random.default_rng(0).uniform(0, 0.8, (ATOMS, 3))


energy_of = jax.jit(lambda energy, x, parameters, lists=None: energy(x, parameters, None, lists))


def test_it_is_invariant_under_motions_and_exchanges(potential, positions):
    expected = float(energy_of(potential[0], positions, potential[1]))
    turned = positions @ Rotation.random(rng=np.random.default_rng(2)).as_matrix() + [1.0, 2.0, 3.0]
    assert float(energy_of(potential[0], turned, potential[1])) == pytest.approx(expected, rel=1e-12)
    exchanged = positions.copy()
    exchanged[[0, 4]] = positions[[4, 0]]
    assert float(energy_of(potential[0], exchanged, potential[1])) == pytest.approx(expected, rel=1e-12)
    other = positions.copy()
    other[[0, 1]] = positions[[1, 0]]
    assert abs(float(energy_of(potential[0], other, potential[1])) - expected) > 1e-6


def test_forces_and_lists(potential, positions):
    energy, parameters = potential
    direction = np.random.default_rng(3).normal(size=positions.shape)
    slope = float(jnp.sum(jax.jit(jax.grad(energy))(positions, parameters) * direction))
    h = 1e-5
    ends = [float(energy_of(energy, positions + s * h * direction, parameters)) for s in (1, -1)]
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-7)
    listed = energy_of(energy, positions, parameters, energy.lists(positions))
    assert float(listed) == pytest.approx(float(energy_of(energy, positions, parameters)), rel=1e-12)
    assert np.isnan(energy_of(energy, positions + direction, parameters, energy.lists(positions)))


def test_it_learns_the_energies_of_a_pair():
    """Energies of two atoms, of a Morse curve, to 2 % of its depth."""
    term = NeuralPotential(pairs=pair_source(2, cutoff=0.6), element=np.zeros(2, int))
    r = jnp.linspace(0.2, 0.55, 24)
    morse = (1 - jnp.exp(-12 * (r - 0.3))) ** 2
    places = jnp.zeros((24, 2, 3)).at[:, 1, 0].set(r)
    optimizer = optax.adam(0.02)

    @jax.jit
    def loss(parameters):
        energies = jax.vmap(lambda x: term.energy(Frame(x), parameters))(places)
        return jnp.mean((energies - morse) ** 2)

    @jax.jit
    def train(parameters):
        def step(state, _):
            parameters, memory = state
            updates, memory = optimizer.update(jax.grad(loss)(parameters), memory)
            return (optax.apply_updates(parameters, updates), memory), None

        return jax.lax.scan(step, (parameters, optimizer.init(parameters)), length=600)[0][0]

    fitted = train(initial_parameters(1, Architecture(), seed=0))
    assert float(loss(fitted)) < 0.02**2
