"""Parameters that move: linear and logarithmic ones, what priors hold, and which cannot."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.force_field.simulated.config import ParameterConfig
from hpcfit.kinds.force_field.simulated.parameters import moving

LABELS = {"q": ["H", "O"], "epsilon": ["H", "O"]}


def system(**values):
    """A system with charges and epsilons, of which one is 0."""
    start = {"q": np.array([0.4, -0.8]), "epsilon": np.array([0.0, 0.65])} | values

    def entries(name):
        leaf, _, label = name.partition(":")
        return leaf, [LABELS[leaf].index(label)] if label else [0, 1]

    return SimpleNamespace(name="water", parameters=start, labels=LABELS, entries=entries)


def test_values_slopes_and_priors_are_those_of_their_transforms():
    chosen = [
        ParameterConfig(name="q:O", prior=0.2),
        ParameterConfig(name="epsilon", transform="log", scale=0.1, prior=0.05),
    ]
    found = moving(chosen, [system()])
    assert found.labels == ("epsilon:O", "q:O")  # the epsilon of 0 has no logarithm and does not move
    u = {"epsilon": np.array([0.5]), "q": np.array([2.0])}
    np.testing.assert_allclose(found.values(u), [0.65 * np.exp(0.05), -0.8 + 0.4], rtol=1e-14)
    np.testing.assert_allclose(found.slopes(u), [0.1 * 0.65 * np.exp(0.05), 0.2], rtol=1e-14)
    np.testing.assert_allclose(found.priors(u), [0.5 * 0.1 / 0.05, 2.0], rtol=1e-14)  # (change) / prior
    whole = found.at(u, system().parameters)
    np.testing.assert_allclose(whole["q"], [0.4, -0.4], rtol=1e-14)
    np.testing.assert_allclose(whole["epsilon"], [0.0, 0.65 * np.exp(0.05)], rtol=1e-14)
    by_u = jax.jacfwd(lambda one: found.at(u | {"q": one}, system().parameters)["q"])(u["q"])
    np.testing.assert_allclose(np.ravel(by_u), [0.0, 0.2], rtol=1e-14)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ([{"name": "epsilon:H", "transform": "log"}], "'epsilon:H' starts at 0"),
        ([{"name": "epsilon:H"}], "'epsilon:H' starts at 0"),
        ([{"name": "q"}, {"name": "q:O"}], "'q:O' is named twice"),
        ([{"name": "sigma"}], "no system has parameters 'sigma'"),
    ],
)
def test_a_parameter_that_cannot_move_is_one_error(tables, said):
    with pytest.raises(InputError, match=said):
        moving([ParameterConfig(**table) for table in tables], [system()])


def test_systems_that_share_a_parameter_start_alike():
    other = system(q=np.array([0.41, -0.82]))
    with pytest.raises(InputError, match=r"H = 0\.4, O = -0\.8 in system 'water' and H = 0\.41"):
        moving([ParameterConfig(name="q")], [system(), other])
