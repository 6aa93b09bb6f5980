"""Windows of rigid water with virtual sites: equilibration, averages, derivatives by constrained lengths."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from hpcfit.energies.constraints import Constraints
from hpcfit.errors import InputError
from hpcfit.fit.grid import make_grid
from hpcfit.fit.rounds import jacobian
from hpcfit.kinds.force_field.simulated.assembly import check_lengths
from hpcfit.kinds.force_field.simulated.case import SimulatedCase
from hpcfit.kinds.table import load_config
from hpcfit.ranks import Ranks
from tests.kinds.force_field.rigid_windows import CONFIG, write_water

pytest.importorskip("openmm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("water")
    write_water(folder)
    return folder


def opened(folder, before="", after=""):
    """The case of the config with a change."""
    assert before in CONFIG
    (folder / "config.toml").write_text(CONFIG.replace(before, after, 1))
    return SimulatedCase.open(load_config(folder / "config.toml"))


def equilibrated(case, **more):
    """(the evaluation of all windows, where they begin)"""
    ranks = Ranks()
    work = case.equilibration(ranks)
    list(work.run(range(work.n_units)))
    grid = make_grid(ranks, case.shape(1, case.config.grid), case.n_blocks, 1)
    return case.evaluate(grid), case.start(work.product(), grid)


@pytest.fixture(scope="module")
def evaluated(folder):
    case = opened(folder)
    evaluate, start = equilibrated(case)
    return case, evaluate, start, evaluate(start)


def test_starts_and_ends_of_windows_fulfil_constraints_and_sites_stay(evaluated):
    case, _, start, found = evaluated
    [one] = case.opened
    sites = one.masses == 0
    ends = [start.local["starts"][0], found.rows.local[0]["ends"]]
    for x, v, *_ in ends:
        for row in np.reshape(x, (-1, *x.shape[-2:]))[:3]:
            assert float(Constraints.violation(one.constraints, row, one.parameters)) < 1e-9
            np.testing.assert_array_equal(row[sites], one.positions[0][sites])
        assert np.all(v[..., sites, :] == 0)
        assert np.all(v[..., ~sites, :].reshape(-1) != 0)
    assert np.all(found.rows.local[0]["broke"] == -1)


@pytest.mark.parametrize("estimator", ["pathwise", "fluctuation"])
def test_a_constrained_distance_has_its_length_and_derivative_1(folder, evaluated, estimator):
    """Of the averages by (first length, second length): bonds are theirs, whatever the estimator."""
    case = opened(folder, '"pathwise"', f'"{estimator}"')
    evaluate = case.evaluate(evaluated[1].grid)
    found = evaluate(start := evaluated[2])
    bonds = np.asarray(found.sums["data"])[:3]
    lengths = case.opened[0].parameters["constraint.length"]
    np.testing.assert_allclose(bonds, lengths[[0, 0, 1]], rtol=1e-9)
    _, J = jacobian(evaluate, found)
    by_length = J[:3, :2] * 0.01 / case.moving.own_slopes(start.shared)[:2]  # of sigma
    np.testing.assert_allclose(by_length, [[1, 0], [1, 0], [0, 1]], atol=1e-9)


def test_the_derivatives_of_windows_are_those_of_differences(evaluated):
    """Starts too are brought onto the lengths that a round tries."""
    _, evaluate, start, found = evaluated
    for leaf, values in start.shared.items():
        for entry in range(len(values)):
            change = np.zeros(len(values))
            change[entry] = 1e-4
            at = [start._replace(shared=start.shared | {leaf: values + sign * change}) for sign in (1, -1)]
            up, down = (evaluate.value(one).loss for one in at)
            assert found.gradient.shared[leaf][entry] == pytest.approx((up - down) / 2e-4, rel=1e-6)


@pytest.mark.parametrize("way", [{"matrix": (True,)}, {"pulled": True}], ids=str)
def test_other_ways_to_the_derivatives_agree_where_there_are_constraints_and_sites(evaluated, way):
    """The Hessian as a matrix, and a pull-back of each averaged number. Errors are relative to the largest derivative
    by a parameter: that of a constrained distance by an energy is nothing but rounding."""
    case, evaluate, start, found = evaluated
    chosen = replace(case)
    vars(chosen)["direction"] = case.direction._replace(**way)
    other = chosen.evaluate(evaluate.grid)(start)
    assert other.loss == pytest.approx(found.loss, rel=1e-12)
    n = len(start.shared)
    for place, (one, expected) in enumerate(zip(other.tangents, found.tangents)):
        scale = max(np.max(np.abs(leaf)) for leaf in found.tangents[place % n :: n])
        np.testing.assert_allclose(one, expected, rtol=0, atol=1e-12 * scale)


def test_constraints_that_cannot_be_kept_are_one_error(folder):
    with pytest.raises(InputError, match="6 constraints, which integrator = 'overdamped' does not keep"):
        opened(folder, "step = 0.001", 'step = 0.001\nintegrator = "overdamped"')
    far = np.load(folder / "water.npy")
    far[1] += 3.0
    np.save(folder / "far.npy", far)
    with pytest.raises(InputError, match=r"a constrained distance of system 'water' is off by .* % in start 0"):
        opened(folder, "water.npy", "far.npy")


def test_lengths_of_bodies_that_bend_are_not_for_the_fluctuation_formula(evaluated):
    case = evaluated[0]
    kept = case.opened[0].constraints
    bent = Constraints(kept.atoms, kept.there & [True, True, False], kept.place, kept.lengths, kept.inverse_masses)
    assert kept.rigid
    assert not bent.rigid
    one = SimpleNamespace(name="water", lengths="constraint.length", constraints=bent)
    choice = SimpleNamespace(estimator="pathwise", derivative_draws=0)
    check_lengths(choice, [one], case.moving)
    choice.derivative_draws = 1
    with pytest.raises(InputError, match=r"'constraint\.length' of system 'water' moves"):
        check_lengths(choice, [one], case.moving)


def test_the_words_of_check_say_what_forces_run_over(evaluated):
    assert evaluated[0].summary()["forces"] == "water over all pairs"
