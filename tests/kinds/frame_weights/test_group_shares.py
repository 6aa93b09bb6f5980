"""Populations of groups alone, and their bias by finite sampling: against the definition, over a grid of shares.

What is not proven here: how often intervals hold the truth; `tools/coverage_frame_weights` counts that.
"""

import json

import numpy as np
import pytest

from hpcfit.commands.optimize import run_optimize
from hpcfit.commands.session import open_session
from hpcfit.fit.reduction import FastSum
from hpcfit.kinds.frame_weights.group_shares import PARTS, GroupMoments
from hpcfit.kinds.table import load_config
from hpcfit.ranks import Ranks
from hpcfit.testsystems.two_states import write_two_states

GRID = np.linspace(0.5, 0.9, 4001)


def correlations(F: dict[str, np.ndarray], y: np.ndarray, corrected: bool, parts: int) -> np.ndarray:
    """CC with the map at each share of A on the grid; F: of each state, [T, H]."""
    found = []
    variance = {}
    for state, F_th in F.items():
        means = np.array([part.mean(axis=0) for part in np.array_split(F_th, parts)])
        variance[state] = np.sum(np.abs(means - means.mean(axis=0)) ** 2, axis=0) / (parts * (parts - 1))
    for P in GRID:
        shares = {"A": P, "B": 1 - P}
        x = sum(p * np.mean(np.abs(F[s]) ** 2, axis=0) for s, p in shares.items())
        x = x - np.abs(sum(p * F[s].mean(axis=0) for s, p in shares.items())) ** 2
        if corrected:
            x = x + sum(p**2 * variance[s] for s, p in shares.items())
        found.append(np.corrcoef(x, y)[0, 1])
    return np.array(found)


@pytest.mark.parametrize(("memory", "parts"), [(1.0, PARTS), (16.0, 4), (500.0, 2)])
def test_shares_are_those_that_agree_best_by_the_definition(tmp_path, memory, parts):
    """To the step of the grid; with the variance of the means, and without."""
    config = load_config(write_two_states(tmp_path, 3), ["run.precision=float64"])
    session = open_session(config, Ranks(), "optimize")
    case, grid = session.case, session.grid
    evaluate = case.gradient(grid, session.device.memory, FastSum(grid))
    work = GroupMoments(case, evaluate, np.full(2, memory))
    assert work.n_units == 2 * parts
    assert list(work.run(range(work.n_units))) == list(range(work.n_units))
    found = work.shares(work.product(), np.array([0.6, 0.4]), {})
    F = frames(case)
    for shares, corrected in ((found.alone, False), (found.corrected, True)):
        best = GRID[np.argmax(correlations(F, case.orbits.observed, corrected, parts))]
        assert shares[0] == pytest.approx(best, abs=2 * (GRID[1] - GRID[0]))
        assert shares.sum() == pytest.approx(1, abs=1e-12)
    assert abs(found.bias[0]) > 0.003


def frames(case) -> dict[str, np.ndarray]:
    """Structure factors as they are stored, in the order of the orbits, which have one reflection each."""
    from hpcfit.store.stream import StructureFactors

    columns = np.full((1, len(case.orbits.column)), -1)
    columns[0, case.orbits.orbit] = case.orbits.column
    pairs = StructureFactors(case.store, case.blocks, columns).read_all()[0].astype(float)
    F_th = pairs.reshape(len(case.blocks) * 64, -1, 2) @ [1, 1j] * case.store.reference.scale[columns[0]]
    labels = np.repeat(case.labels(), 64)
    return {state: F_th[labels == state] for state in "AB"}


def test_sums_of_parts_can_be_taken_up_again(tmp_path):
    """Half of the units, the rest by another object that takes up what is kept: the same bits."""
    session = open_session(load_config(write_two_states(tmp_path, 3)), Ranks(), "optimize")
    evaluate = session.case.gradient(session.grid, session.device.memory, FastSum(session.grid))
    whole, first, second = (GroupMoments(session.case, evaluate, np.ones(2)) for _ in range(3))
    list(whole.run(range(whole.n_units)))
    list(first.run(range(5)))
    second.take_up(first.kept())
    list(second.run(range(5, whole.n_units)))
    for name, values in whole.product().items():
        assert np.array_equal(second.product()[name], values)


@pytest.mark.parametrize("alike", [True, False])
def test_shares_that_no_correlation_can_find_have_no_errors(tmp_path, alike):
    """Of two states that fluctuate alike the shares are undetermined, and the run says so."""
    config = write_two_states(tmp_path, 1, alike=alike, options='theta = 0.1\nstarts = ["prior"]\nresamples = 2\n')
    assert run_optimize(load_config(config, ["run.report=false"]), Ranks()) == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert [row["determined"] for row in metrics["populations"]] == [not alike] * 2
    assert any("does not determine the shares of 'A' and 'B'" in words for words in metrics["warnings"]) is alike
    for kind in ("frames", "orbits"):
        assert all((error is None) is alike for error in metrics["errors"][kind]["groups"].values())
    [a, b] = metrics["populations"]
    assert a["fitted"] + b["fitted"] == pytest.approx(1, abs=1e-9)
    assert a["corrected"] + b["corrected"] == pytest.approx(1, abs=1e-9)
