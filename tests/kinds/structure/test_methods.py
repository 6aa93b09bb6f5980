"""Methods of a config as phases: the way from springs to attraction, networks that share weights, options at odds."""

import numpy as np
import pytest
from pydantic import ValidationError

from hpcfit.errors import InputError
from hpcfit.kinds.structure.config import MethodConfig
from hpcfit.kinds.structure.landscapes.clusters import Cluster
from hpcfit.kinds.structure.landscapes.loops import Loops
from hpcfit.kinds.structure.methods import check_method, phases
from hpcfit.kinds.structure.minimisations import Minimisations, Replicas, energies_and_slopes, marks
from hpcfit.ranks import Ranks

LOOP, BUDGET = Loops.of(24), 400


def starts(numbers):
    return np.stack([1.5 * np.random.default_rng([5, int(n)]).normal(size=(24, 3)) for n in numbers])


def product(replicas=3, width=3, budget=BUDGET, **keys):
    parts = phases(MethodConfig(name="one", **keys), LOOP, LOOP.couplings(), budget)
    stage = Minimisations(LOOP, starts, parts, Replicas(replicas, width, budget, 1), Ranks())
    for _ in stage.run(range(stage.n_units)):
        pass
    return stage.product()


@pytest.mark.parametrize("parametrisation", ["direct", "precond"])
def test_a_homotopy_begins_with_springs_and_ends_with_attraction(parametrisation):
    found = product(homotopy=True, share=0.4, parametrisation=parametrisation)
    bonded, _ = energies_and_slopes(Loops.of(24, bonded=True), starts(np.arange(3)), 0.9)
    np.testing.assert_allclose(found["trace"][:, 0], bonded, rtol=1e-12)
    pure, _ = energies_and_slopes(LOOP, found["positions"])
    np.testing.assert_array_equal(found["energy"], pure)
    assert np.all(found["evaluations"] <= BUDGET)


def test_a_homotopy_brings_a_chain_together_from_a_start_without_order():
    plain, bonded = product(budget=1500), product(budget=1500, homotopy=True)
    contacts = lambda found: np.mean([LOOP.contacts(x)[0] for x in found["positions"]])  # noqa: E731
    assert contacts(bonded) > contacts(plain)
    assert np.median(bonded["energy"]) < np.median(plain["energy"])


def test_shared_weights_lower_the_energies_of_all_replicas():
    keys = {"parametrisation": "gnn", "optimizer": "adam", "modes": 8, "network_rate": 0.01}
    shared = product(shared=True, **keys)
    first, _ = energies_and_slopes(LOOP, starts(np.arange(3)), 0.9)
    np.testing.assert_allclose(shared["trace"][:, 0], first, rtol=1e-9)
    at = int(np.flatnonzero(marks(BUDGET) <= BUDGET // 2)[-1])  # still in latent coordinates
    assert np.all(shared["trace"][:, at] < first)
    assert np.any(shared["positions"] != product(**keys)["positions"])


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"homotopy": True, "optimizer": "scipy"}, "homotopy goes with"),
        ({"homotopy": True, "parametrisation": "gnn"}, "homotopy goes with"),
        ({"parametrisation": "gauss-newton", "optimizer": "adam"}, "goes with L-BFGS"),
        ({"share": 0.3}, "share has no effect"),
        ({"shared": True}, "shared has no effect on parametrisation = 'direct'"),
        ({"shared": True, "parametrisation": "gnn"}, "shared has no effect on optimizer = 'lbfgs'"),
        ({"temperature": 3.0}, "temperature has no effect"),
        ({"optimizer": "openmm", "cap": 0.5}, "cap has no effect"),
        ({"optimizer": "openmm-langevin", "share": 0.4}, "share has no effect"),
        ({"optimizer": "annealing", "parametrisation": "linear"}, "no effect on optimizer = 'annealing'"),
    ],
)
def test_options_without_effect_are_errors(keys, words):
    with pytest.raises(ValidationError, match=words):
        MethodConfig(name="one", **keys)


@pytest.mark.parametrize(
    ("keys", "landscape", "words"),
    [
        ({"homotopy": True}, Cluster.of(7), "of pure loops alone"),
        ({"homotopy": True}, Loops.of(24, bonded=True), "of pure loops alone"),
        ({"optimizer": "annealing"}, LOOP, "annealing needs a temperature"),
    ],
)
def test_methods_that_an_energy_does_not_have_are_errors(keys, landscape, words):
    with pytest.raises(InputError, match=words):
        check_method(MethodConfig(name="one", **keys), landscape, True)
