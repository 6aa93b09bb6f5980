"""What a rank reports to its monitor, with a fit that is made up."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest

from hpcfit.commands.reporter import MAX_POINTS, Reporter, thinned
from hpcfit.fit.loop import Step
from hpcfit.kinds.table import Metric
from hpcfit.ranks import Ranks
from hpcfit.workflow.pages.collector import FIT_TOPIC, Collector


@pytest.fixture
def run(tmp_path):
    """A fit without data: its recorder says what a test tells it to."""
    (tmp_path / "history.jsonl").touch()
    optimizer = SimpleNamespace(max_steps=1000, wall_clock_minutes=None)
    config = SimpleNamespace(run=SimpleNamespace(directory=tmp_path), optimizer=optimizer)
    weights = {"groups": {"A": (1.0, 1.0)}, "width": 0.05, "first": 0, "frames": [3]}
    live_weights, summary = lambda *about: lambda params: weights, lambda: {"frames": 3}
    case = SimpleNamespace(live_weights=live_weights, summary=summary, n_frames=3)
    kind, grid = SimpleNamespace(metrics=[Metric("cc", "CC")]), SimpleNamespace(slices=Ranks())
    session = SimpleNamespace(config=config, world=Ranks(), case=case, grid=grid, kind=kind)
    evaluate = SimpleNamespace(problem=None, passes=2, frames=SimpleNamespace(rows=None))
    recorder = SimpleNamespace(evaluate=evaluate, last={}, spent={}, params=object(), step=0, passed=0)
    return SimpleNamespace(session=session, evaluate=evaluate, recorder=recorder)


def step(run, reporter, number, *, compute=0.02, reduce=0.005):
    """A step of the fit, with one evaluation."""
    spent = run.recorder.spent
    run.recorder.last = {"evaluation": number + 1, "loss": -0.5, "cc": number / 100, "gradient_norm": 1e-3}
    run.recorder.spent = {"compute": spent.get("compute", 0.0) + compute, "reduce": spent.get("reduce", 0.0) + reduce}
    run.recorder.passed = 2 * (number + 1)
    run.recorder.step = number + 1  # that of the next evaluation
    reporter(Step(number, None, 1e-3, ()))


def test_each_report_has_the_new_points_and_what_a_step_took_since_the_last_one(run):
    reporter = Reporter(run, every=1.0)
    assert set(reporter.message()) == {"run", "rank"}, "before the first step there is nothing to tell"
    step(run, reporter, 0)
    first = reporter.message()
    assert first["begins"]
    assert "seconds" not in first
    for number in (1, 2, 3, 4):
        step(run, reporter, number, compute=0.03)
    second = reporter.message()
    assert not second["begins"]
    assert [point["step"] for point in first["points"] + second["points"]] == [0, 1, 2, 3, 4]
    assert [point["passes"] for point in second["points"]] == [4, 6, 8, 10]
    assert second["seconds"]["compute"] == pytest.approx(0.03)
    assert second["seconds"]["reduce"] == pytest.approx(0.005)
    assert second["seconds"]["read"] == 0
    assert second["seconds"]["other"] >= 0
    third = reporter.message()
    assert third["points"] == []
    assert "seconds" not in third, "no step was taken"
    json.dumps(second)


def test_a_fit_of_many_short_steps_is_thinned(run):
    reporter = Reporter(run, every=1.0)
    step(run, reporter, 0)
    reporter.message()
    for number in range(1, 501):
        step(run, reporter, number)
    steps = [point["step"] for point in reporter.message()["points"]]
    assert len(steps) == MAX_POINTS
    assert (steps[0], steps[-1]) == (1, 500)
    assert max(np.diff(steps)) - min(np.diff(steps)) <= 1
    assert thinned(steps, 50) == steps


def test_a_continued_run_shows_what_went_before(run):
    """Two evaluations in step 2, of which the second was taken; the clock of the new part begins at 0."""
    rows = [(1, 0, 0.1), (2, 1, 0.2), (3, 2, 0.9), (4, 2, 0.3), (5, 3, 0.35)]
    lines = [
        json.dumps({"step": step, "evaluation": evaluation, "cc": cc, "seconds": 0.5 * evaluation, "read_seconds": 0.1})
        for evaluation, step, cc in rows
    ]
    (run.session.config.run.directory / "history.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    reporter = Reporter(run, every=1.0)
    reporter(Step(3, None, 1e-3, ()))  # the step that the checkpoint holds has not been evaluated again
    step(run, reporter, 5)
    points = reporter.message()["points"]
    assert [point["step"] for point in points] == [0, 1, 2, 3, 5]
    assert [point["cc"] for point in points] == [0.1, 0.2, 0.3, 0.35, 0.05]
    assert points[3]["seconds"] == 2.5
    assert 2.5 <= points[4]["seconds"] < 2.5 + 60
    assert not any(name.endswith("_seconds") for name in points[0])


def test_a_run_that_begins_again_replaces_what_was_shown_of_it(run):
    collector = Collector()
    for _ in range(2):
        reporter = Reporter(run, every=1.0)
        for number in range(3):
            step(run, reporter, number)
        collector.event(FIT_TOPIC, reporter.message(), "rank-0")
    (fit,) = collector.fits.values()
    assert fit.history.values["step"] == [0, 1, 2]


def test_the_end_is_said_with_its_reason(run, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    run.session.config.optimizer.wall_clock_minutes = 1.0
    reporter = Reporter(run, every=1.0)
    step(run, reporter, 0)
    reporter.message()
    now[0] += 0.5
    step(run, reporter, 1)
    found = {why.split(" (")[0]: at for at, why in reporter.message()["status"]["ends"]}
    assert found["wall clock"] == pytest.approx(160)
    assert found["1000 steps"] == pytest.approx(100.5 + 999 * 0.5)
