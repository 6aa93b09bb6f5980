"""Free energies of harmonic wells, known in closed form, and their derivatives; pymbar's own BAR beside them."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss

from hpcfit.errors import InputError
from hpcfit.observables.free_energy import (
    FreeEnergyChange,
    between_states,
    energies_and_slopes,
    slopes_of_difference,
)
from hpcfit.observables.observable import State, numbers

kT, K = 2.5, np.array([400.0, 700.0, 1200.0])  # kJ/mol/nm^2
SHIFT = np.array([0.0, 0.005, 0.01])  # nm, of the bottoms of the wells
EXACT = 1.5 * kT * np.log(K / K[0])
COUNTS = np.array([1500, 1000, 2000])


def well(x, parameters, box):
    """k |x - shift|^2 / 2, and a part that all states share."""
    return 0.5 * parameters["k"] * jnp.sum((x - parameters["shift"]) ** 2) - 1e5


def sample(state, count, seed):
    spread = np.sqrt(kT / K[state])
    return SHIFT[state] + spread * np.random.default_rng(seed).normal(size=(count, 1, 3))


FRAMES = [sample(state, count, state) for state, count in enumerate(COUNTS)]


def energies_of(frames):
    of_states = jax.jit(lambda k, shift: energies_and_slopes(well, {"k": k, "shift": shift}, frames)[0])
    return np.stack([of_states(*one) for one in zip(K, SHIFT)])


def test_free_energies_of_wells_are_those_of_their_widths():
    pytest.importorskip("pymbar", reason="needs pymbar (pip install 'hpcfit[simulate]')")
    found = between_states(energies_of(np.concatenate(FRAMES)), COUNTS, kT)
    assert found.values[0] == 0
    assert np.all(np.abs(found.values[1:] - EXACT[1:]) < 3 * found.errors[0, 1:])
    assert np.all(found.errors[0, 1:] < 0.02 * EXACT[1:])
    np.testing.assert_allclose(found.weights.sum(axis=0), 1, rtol=1e-8)
    np.testing.assert_allclose(found.overlap.sum(axis=1), 1, rtol=1e-8)


def test_two_states_are_bar():
    pymbar = pytest.importorskip("pymbar", reason="needs pymbar (pip install 'hpcfit[simulate]')")
    energies = energies_of(np.concatenate(FRAMES[:2]))[:2]
    work = (energies[1] - energies[0]) / kT
    bar = pymbar.bar(work[:1500], -work[1500:], uncertainty_method="MBAR")
    found = between_states(energies, COUNTS[:2], kT)
    assert found.values[1] == pytest.approx(kT * bar["Delta_f"], abs=1e-7)
    # Independent frames: their inefficiency is 1 within its own error of some sqrt(2 / 1000).
    assert found.errors[0, 1] == pytest.approx(kT * bar["dDelta_f"], rel=0.1)


def test_states_that_do_not_overlap_are_warned_of(caplog):
    pytest.importorskip("pymbar", reason="needs pymbar (pip install 'hpcfit[simulate]')")
    far = np.concatenate([FRAMES[0][:200], FRAMES[0][200:400] + 0.5])
    energies = np.array([200 * np.sum((far - by) ** 2, axis=(1, 2)) for by in (0.0, 0.5)])
    with caplog.at_level(logging.WARNING, "hpcfit.inputs"):
        between_states(energies, np.array([200, 200]), kT)
    assert "overlaps no other by more than" in caplog.text


@pytest.mark.parametrize(
    ("energies", "counts", "message"),
    [
        (np.zeros((2, 5)), [2, 2], r"energies have shape \[2, 5\], but 2 states have 4 frames"),
        (np.zeros((2, 4)), [4, 0], "state 1 has 0 frames"),
        (np.array([[0, 0, 0, 0], [0, np.inf, 0, 0]]), [2, 2], "frame 1 has the energy inf in state 1"),
    ],
)
def test_energies_that_cannot_be_are_an_error(energies, counts, message):
    with pytest.raises(InputError, match=message):
        between_states(energies, counts, kT)


def test_slopes_of_a_difference_come_from_the_end_states():
    """dF/dk = 3 kT / 2 k, and nothing by the place of a well: dU/dk is |u|^2 / 2, a squared normal number a component,
    whose standard error is known."""
    of_ends = [energies_and_slopes(well, {"k": K[s], "shift": SHIFT[s]}, FRAMES[s])[1] for s in (0, 2)]
    first, last = (np.stack([one["k"], one["shift"]], axis=1) for one in of_ends)
    found = slopes_of_difference(first, last)
    # One parameter k that scaled both wells would have the difference of the two slopes.
    exact = 1.5 * kT * (1 / K[2] - 1 / K[0])
    assert abs(found.value[0] - exact) < 3 * found.error[0]
    assert abs(found.value[1]) < 3 * found.error[1]
    known = np.hypot(*(kT / k * np.sqrt(1.5 / count) for k, count in zip(K[[0, 2]], COUNTS[[0, 2]])))
    assert found.error[0] == pytest.approx(known, rel=3 / np.sqrt(2 * 18))  # of ten blocks each
    with pytest.raises(InputError, match="the last state has 5 frames, fewer than 10 blocks"):
        slopes_of_difference(first, last[:5])


def test_a_change_of_free_energy_is_exact_by_quadrature():
    """From k = 400 to 420, weights and all: 3/2 kT ln(420 / 400), and its slope 3/2 kT / 420."""
    nodes, weights = hermegauss(16)
    x = np.sqrt(kT / 400) * np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), -1).reshape(-1, 1, 3)
    prior = np.prod(np.stack(np.meshgrid(weights, weights, weights, indexing="ij"), -1).reshape(-1, 3), axis=1)

    energy = lambda x, parameters, box: 0.5 * parameters["k"] * jnp.sum(x**2)  # noqa: E731

    @jax.jit
    def change(k, prior):
        one = FreeEnergyChange(jax.tree_util.Partial(energy), {"k": 400.0}, kT)
        state = lambda x: State(x, None, None, lambda x, box: energy(x, {"k": k}, box), {}, kT, np.ones(1))  # noqa: E731
        weight = prior * jnp.exp((400 - k) * jnp.sum(x**2, axis=(1, 2)) / (2 * kT))
        found = jax.vmap(lambda x: numbers(one, state(x)))(x)
        return one.of_average(jnp.tensordot(weight / weight.sum(), found, 1))[0]

    value, slope = jax.value_and_grad(change)(420.0, prior)
    assert float(value) == pytest.approx(1.5 * kT * np.log(420 / 400), rel=1e-10)
    assert float(slope) == pytest.approx(1.5 * kT / 420, rel=1e-10)
