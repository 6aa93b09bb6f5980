"""Errors of parameters where windows remember earlier rounds: against the exact covariance of the same steps on a
Gaussian process, frame by frame, and in a run."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from hpcfit.kinds.force_field.simulated.along_rounds import both
from hpcfit.kinds.force_field.simulated.memory import Course, Memory, certain, correlations_of
from tests.command import here, sets
from tests.kinds.force_field.test_averages import windows
from tests.kinds.force_field.wells import COLD, write_wells

SHORT = ("windows=64", "window=0.4", "frames=4", "rounds=8", "derivative_draws=0")


def drawn(course, decay, covariance):
    """The covariance of (coordinate, parameter, average of the window) after a window. The coordinate relaxes to the
    parameter by the factor ``decay`` a frame, and its variance at rest is 1."""
    for frame in range(course.frames):
        counted = (frame >= course.skipped) / (course.frames - course.skipped)
        along = np.eye(3)
        along[0] = [decay, 1 - decay, 0]
        along[2] += counted * along[0]
        of_noise = np.sqrt(1 - decay**2) * np.array([1, 0, counted])
        covariance = along @ covariance @ along.T + np.outer(of_noise, of_noise)
    return covariance


def exact_variance(course, decay, share):
    """The variance of the parameter after all rounds, which begin in equilibrium. Averages should be 0; a step follows
    them by a ``share``, and a prior at 0 by the rest."""
    covariance = np.diag([1.0, 0.0, 0.0])
    for n in range(course.rounds):
        covariance = drawn(course, decay, covariance)
        length = 1 / (max(n - course.full + 1, 0) + 1)
        move = np.eye(3)
        move[1:] = [[0, 1 - length * (1 - share), -length * share], [0, 0, 0]]
        covariance = move @ covariance @ move.T
    return covariance[1, 1]


def variance_of_the_mean(course, decay):
    """That of the mean of the last rounds at rest."""
    covariance = np.diag([1.0, 0.0, 0.0])
    for _ in range(course.of_the_mean):
        covariance = drawn(course, decay, covariance)
    return covariance[2, 2] / course.of_the_mean**2


@pytest.mark.parametrize("share", [1.0, 0.4])
@pytest.mark.parametrize("left", [0.02, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("course", [Course(14, 7, 24, 12), Course(9, 7, 5, 0)])
def test_errors_are_those_of_the_steps_on_averages_that_remember(course, left, share):
    memory = Memory(left, course.frames, course.skipped)
    decay = left ** (1 / course.frames)
    exact = np.sqrt(exact_variance(course, decay, share) / variance_of_the_mean(course, decay)) / share
    assert course.lengthened(memory.successive, share) == pytest.approx(exact, rel=1e-6)
    assert exact > 1


@pytest.mark.parametrize(
    ("course", "correlation", "share"), [
        (Course(14, 7, 24, 12), -0.3, 1.0),  # no memory
        (Course(14, 7, 24, 12), 0.6, 0.0),  # held by its prior
        (Course(14, 14, 24, 12), 0.6, 1.0),  # a single round
    ]
)  # fmt: skip
def test_errors_are_those_of_the_mean_where_nothing_comes_back(course, correlation, share):
    assert course.lengthened(correlation, share) == pytest.approx(1, rel=1e-12)


def test_correlations_are_by_parameter_and_certain_beyond_chance():
    rng = np.random.default_rng(1)
    first, noise = rng.normal(size=(2, 4000, 3))
    second = np.array([0.6, 0.0, 0.0]) * first + np.array([0.8, 1.0, 0.0]) * noise
    found = correlations_of(first, second)
    assert np.all(np.abs(found - [0.6, 0, 0]) < 4 / np.sqrt(4000))
    assert found[2] == 0
    # tanh(3 / sqrt(21)) = 0.575 of 24 blocks.
    assert [certain(one, 24) for one in (0.57, 0.58, 1.0)] == [False, True, True]
    assert not certain(0.99, 3)


def test_two_draws_are_compared_over_windows_that_held_in_both():
    case, problem = SimpleNamespace(n_frames=5), windows()
    x = np.arange(1.0, 7.0).reshape(2, 3, 1)
    rows = lambda observed, *broke: {  # noqa: E731
        "[0]['observed'][0]": observed, "[0]['weight']": np.isin(np.arange(6), broke, invert=True).reshape(2, 3) * 1.0,
    }  # fmt: skip
    u = problem.moving.init()
    first, second = both(case, problem, u, rows(x, 1), rows(10 * x, 4))
    # Windows 0, 2 and 3 of five: 1, 3 and 4, each left out in turn.
    np.testing.assert_allclose(first[:, 0], [3.5, 2.5, 2.0])
    np.testing.assert_allclose(second[:, 0], [35, 25, 20])
    assert both(case, problem, u, rows(x, 0, 1, 2), rows(x, 3, 4)) == ()


@pytest.mark.parametrize(("estimator", "told"), [("fluctuation", True), ("pathwise", False)])
def test_a_run_with_windows_that_remember_tells_and_has_larger_errors(tmp_path, estimator, told):
    """x^2 relaxes in 1.3 ps. Pathwise derivatives lack what windows remember, and have a warning of their own."""
    write_wells(tmp_path)
    (tmp_path / "config.toml").write_text(COLD)
    chosen = (f"problem.{one}" for one in (f"estimator={estimator}", *SHORT))
    done = here("optimize", tmp_path / "config.toml", *sets(*chosen))
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    [factor] = metrics["errors_lengthened"]
    assert told == (factor > 1.25)
    assert told == any("windows remember earlier rounds" in one for one in metrics["warnings"])
