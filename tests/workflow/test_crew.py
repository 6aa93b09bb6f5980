"""Dealing out independent work: order, bounds, workers that die, errors, and what is logged of it."""

import logging
import os
import re
import time
from functools import partial

import pytest

from hpcfit.config import ClusterConfig
from hpcfit.errors import HpcfitError, InputError
from hpcfit.progress import Count
from hpcfit.workflow.cluster import crew as crew_module
from hpcfit.workflow.cluster.journal import Journal, report
from hpcfit.workflow.cluster.opening import open_cluster
from tests.conftest import wait_for
from tests.workflow import crew_tasks

pytestmark = pytest.mark.programs


@pytest.fixture(scope="module")
def crew():
    with open_cluster(ClusterConfig(workers=2, dashboard="127.0.0.1:0"), "test") as opened:
        yield opened


def scheduler_tasks(dask_scheduler):
    return len(dask_scheduler.tasks)


def test_results_come_in_the_order_of_the_items(crew):
    assert crew.map(crew_tasks.square, range(300)) == [number**2 for number in range(300)]
    assert crew.map(crew_tasks.square, []) == []


def test_few_of_many_items_are_in_flight(crew, monkeypatch):
    monkeypatch.setattr(crew_module, "IN_FLIGHT", 20)
    known, seen = [], []
    for number, result in crew.completed(crew_tasks.square, range(200)):
        seen.append((number, result))
        if len(seen) % 20 == 0:
            known.append(crew.client.run_on_scheduler(scheduler_tasks))
    assert sorted(seen) == [(number, number**2) for number in range(200)]
    # Beside the 20 in flight: the one just yielded, and those whose release is still on its way.
    assert max(known) < 60


def test_a_shared_value_arrives_in_partials_and_inside_items(crew):
    factors = crew.share({"scale": 3})
    assert crew.map(partial(crew_tasks.scaled, factors), range(4)) == [0, 3, 6, 9]
    assert crew.map(crew_tasks.scaled_pair, [(factors, 1), (factors, 2)]) == [3, 6]


def test_workers_have_one_thread(crew):
    found = crew.map(crew_tasks.environment, range(8))
    assert {threads for threads, _ in found} == {"1"}
    assert os.getpid() not in {process for _, process in found}
    assert set(crew.client.nthreads().values()) == {1}
    assert crew.size == 2


def test_an_item_whose_worker_dies_is_run_again_and_the_shared_value_survives(crew, tmp_path, caplog):
    value = crew.share(["shared"])
    work = partial(crew_tasks.dies_once, tmp_path / "mark", value)
    names = [f"item {number}" for number in range(8)]
    assert crew.map(work, range(8), names=names) == [(["shared"], number) for number in range(8)]
    assert (tmp_path / "mark").exists()
    assert "item 3 lost its worker" in caplog.text
    assert "(1 of 3)" in caplog.text


def test_a_shared_value_whose_unpacking_was_killed_is_made_again(crew, tmp_path):
    value = crew.share(crew_tasks.DiesWhenUnpacked(tmp_path / "mark"))
    assert crew.map(partial(crew_tasks.with_value, value), range(6)) == [("mark", number) for number in range(6)]
    assert (tmp_path / "mark").exists()


def test_an_item_that_kills_every_worker_ends_the_work_with_its_name(crew):
    names = [f"item {number}" for number in range(8)]
    with pytest.raises(HpcfitError, match=r"item 3 lost its worker 2 times.*\n.*out of memory"):
        crew.map(crew_tasks.dies_always, range(8), names=names, retries=1)


def test_the_first_failure_cancels_the_rest_and_keeps_its_text(crew, tmp_path):
    gate = crew_tasks.Gate(tmp_path / "gate")
    with pytest.raises(InputError) as caught:
        crew.map(partial(crew_tasks.damaged_input, tmp_path, gate), range(500))
    assert str(caught.value) == "three.xyz, frame 7: NaN\n  remedy: repair the file"
    wait_for(lambda: crew.client.run_on_scheduler(scheduler_tasks) < 20)  # it has forgotten those that waited
    gate.open()
    crew.map(crew_tasks.square, range(4))  # what had begun has ended
    assert len(list(tmp_path.iterdir())) < 20


def test_any_other_failure_names_its_item_and_shows_where(crew):
    with pytest.raises(HpcfitError, match="divides_by_zero 4 of 5 failed") as caught:
        crew.map(crew_tasks.divides_by_zero, range(5))
    assert "crew_tasks.py" in str(caught.value)
    assert "ZeroDivisionError" in str(caught.value)
    assert caught.value.exit_code == 1


def test_reports_of_tasks_are_logged_by_the_driver(crew, monkeypatch, caplog):
    monkeypatch.setattr("hpcfit.progress.LOG_INTERVAL", 0.0)
    with caplog.at_level(logging.INFO, "hpcfit"):
        crew.map(crew_tasks.reports, range(8))
    assert "test, reports: " in caplog.text
    assert re.search(r"reports: \d of 8 done, [\d.e+]+ frames/s", caplog.text)


def test_a_report_outside_a_worker_does_nothing(crew):
    report("prepare", "shard", Count(1, 1, unit="frames/s"))


def test_the_line_counts_what_is_done_and_what_runs(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    journal = Journal("simulate, simulate replica", 4)
    assert journal.line() == "simulate, simulate replica: 0 of 4 done"
    journal.completed()
    for task, done, rate in (("a", 5, 40.0), ("b", 10, 30.0), ("c", 5, 2.0)):
        unit = "frames/s" if task == "c" else "ns/day"
        journal.event((0.0, {"task": task, "done": done, "total": 10, "rate": rate, "unit": unit}))
    # 1 done and 2 halves running in 100 s (b is done): 2 more of 4 to go.
    clock[0] = 200.0
    assert journal.line() == "simulate, simulate replica: 1 of 4 done, 40 ns/day, 2 frames/s, about 1 min 40 s left"
