"""The page /hpcfit: what is collected, what it shows of tasks and fits, and that its absence is no harm."""

import asyncio
import logging
import sys
import time

import dask
import numpy as np
import pytest
from bokeh.document import Document
from bokeh.models import ColumnDataSource, Div, Plot
from distributed import Client, LocalCluster, Scheduler

from hpcfit.progress import Count
from hpcfit.workflow.cluster.journal import TOPIC, report
from hpcfit.workflow.pages import hooks as pages
from hpcfit.workflow.pages.collector import FIT_TOPIC, Collector, Columns, Work
from hpcfit.workflow.pages.style import COLORS
from hpcfit.workflow.pages.whole_page import Page
from tests.workflow.browser import columns, get, needs_chromium, photograph, session, share_of, text


@pytest.fixture
def _dask_as_before():
    with dask.config.set({"distributed.scheduler.preload": []}):
        yield


def simulate(number: int) -> int:
    """A task that reports as `hpcfit simulate` does."""
    frames = Count(100, unit="ns/day")
    for frames.done in range(0, 101, 10):
        report("simulate", f"amber14_300K_r{number}", frames)
        time.sleep(0.15)
    return number


@pytest.fixture(scope="module")
def cluster():
    """The dashboard of a cluster on which tasks have run whose page nobody had opened yet."""
    with dask.config.set({"distributed.scheduler.preload": []}):
        assert pages.add_work_page()
        assert pages.add_work_page(), "twice is as once"
        with (
            LocalCluster(
                n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            ) as started,
            Client(started) as client,
        ):  # fmt: skip
            assert client.gather(client.map(simulate, range(3))) == [0, 1, 2]
            yield f"http://127.0.0.1:{started.scheduler.http_server.port}"


def test_the_page_stands_in_dasks_navigation_bar_and_answers(cluster):
    assert 'href="hpcfit"' in get(f"{cluster}/status")
    assert 'href="hpcfit"' in get(f"{cluster}/hpcfit")


def test_a_page_opened_after_the_work_shows_its_whole_history(cluster):
    with session(f"{cluster}/hpcfit") as opened:
        shown = text(opened)
        assert "<b>3 of 3</b>" in shown, "all tasks have ended"
        assert "300 of 300" in shown
        for number in range(3):
            assert f"amber14_300K_r{number}" in shown
        done = columns(opened, "done")
        assert len(done) >= 2
        assert np.all(np.diff(done) >= 0)
        assert done[0] < 100 < done[-1]


@pytest.mark.nightly
@needs_chromium
def test_a_real_browser_draws_the_work(cluster, tmp_path):
    shown, pixels = photograph(f"{cluster}/hpcfit", tmp_path / "work.png", "--until", "300 of 300")
    assert "ns/day" in shown
    assert "rates, all running tasks together" not in shown, "titles of figures are drawn, not written"
    assert share_of(pixels, "#ffffff") > 0.5, "a light page"
    assert share_of(pixels, COLORS[2]) > 0.0005, "the bars of ended tasks"
    assert share_of(pixels, COLORS[0]) > 0.0002, "the curve of the frames so far"


@pytest.mark.nightly
@needs_chromium
def test_a_dark_browser_gets_a_dark_page(cluster, tmp_path):
    _, pixels = photograph(f"{cluster}/hpcfit", tmp_path / "dark.png", "--dark", "--until", "300 of 300")
    assert share_of(pixels, "#15191e") > 0.5
    assert share_of(pixels, "#c6cfd8") > 0.0002, "axes and labels in light ink"
    assert share_of(pixels, "#33404c", tolerance=2) < 0.0002, "and none in dark ink"


@pytest.mark.usefixtures("_dask_as_before")
def test_another_version_of_distributed_means_no_page_and_no_failure(caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed.dashboard.core", None)
    assert not pages.add_work_page()

    async def start():
        async with Scheduler(host="127.0.0.1", port=0, dashboard_address="127.0.0.1:0") as scheduler:
            scheduler.log_event(TOPIC, message(1, 2))
            return scheduler.plugins["hpcfit"].collector.works["simulate"].done

    # Dask's own dashboard needs the module as well; a scheduler without pages still runs and collects.
    with caplog.at_level(logging.INFO, "hpcfit"):
        assert asyncio.run(start()) == 1
    assert caplog.text.count("no page /hpcfit on the dashboard") == 1


def message(done, total, task="t0", what="simulate", rate=5.0):
    return {"what": what, "task": task, "done": done, "total": total, "rate": rate, "unit": "ns/day"}


def test_columns_are_thinned_evenly_and_never_grow_beyond_their_limit():
    history = Columns(limit=100)
    for number in range(1000):
        history.append({"step": float(number)})
        assert history.length == len(history.values["step"]) < 100
    kept = np.array(history.values["step"])
    assert kept[0] == 0
    assert history.added == 1000
    gaps = np.diff(kept)
    assert set(gaps[:-64]) <= {2.0**history.thinned}
    assert np.all(gaps > 0)


def test_a_column_that_comes_later_is_nan_before():
    history = Columns()
    history.append({"step": 0.0})
    history.append({"step": 1.0, "cc_free": 0.5})
    history.append({"step": 2.0})
    np.testing.assert_array_equal(history.values["cc_free"], [np.nan, 0.5, np.nan])


def test_what_is_left_counts_tasks_that_have_not_begun(monkeypatch):
    unfinished, now = [4], [0.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    collector = Collector(lambda: unfinished[0])
    collector.event(TOPIC, message(100, 100, what="an earlier work"), "worker-0")
    for now[0], done in ((10.0, 0), (12.0, 20), (14.0, 40)):
        collector.event(TOPIC, message(done, 100), "worker-0")
    collector.count_waiting()
    earlier, work = collector.works.values()
    assert earlier.ended() == (1, 1)
    assert work.ended() == (0, 4)
    # 10 frames a second; 60 are left of the task that runs, and three tasks of 100 frames wait.
    assert work.per_second() == pytest.approx(10.0)
    assert work.seconds_left() == pytest.approx((60 + 3 * 100) / 10.0)
    unfinished[0] = 0
    collector.event(TOPIC, message(100, 100), "worker-0")
    collector.count_waiting()
    assert work.seconds_left() == 0
    assert work.history.last("done") == 100, "the end is never left out"


def test_a_task_that_falls_silent_no_longer_counts_as_running(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    work = Work("simulate")
    work.event(message(1, 100), "worker-0")
    assert work.rates() == {"ns/day": 5.0}
    now[0] += 31
    assert work.rates() == {}


METRICS = [
    {"name": name, "title": title, "unit": unit, "digits": digits, "brief": True}
    for name, title, unit, digits in (
        ("cc", "CC", "", "correlation"), ("cc_free", "CC free", "", "correlation"), ("ess", "ESS", "frames", 3),
    )
]  # fmt: skip


def fit_message(rank, **parts):
    return {"run": "run", "rank": rank, "seconds": {"compute": 0.02 + 0.01 * rank, "reduce": 0.0, "read": 0.0}, **parts}


def collected():
    collector = Collector()
    collector.event("all", {"run": "other"}, "")
    collector.event(FIT_TOPIC, fit_message(1, weights={"groups": {"A": (0.1, 0.2), "B": (0.3, 0.3)}, "width": 0.5,
                                                       "first": -3, "frames": [1, 0, 2]}), "rank-1")  # fmt: skip
    row = {"seconds": 0.1, "loss": -0.5, "cc": 0.5, "cc_free": 0.4, "ess": 7.0, "gradient_norm": 1e-3}
    points = [row | {"step": number, "passes": 2 * number} for number in range(3)]
    collector.event(FIT_TOPIC, fit_message(0, points=points, weights={"groups": {"A": (0.4, 0.2), "B": (0.2, 0.3)},
        "width": 0.5, "first": -1, "frames": [4]}, about={"ranks": 2, "frames": 9, "every": 1.0, "max_steps": 100,
                                                                 "metrics": METRICS},
        status={"state": "running", "ends": [[time.time() + 100, "why"]]}), "rank-0")  # fmt: skip
    return collector


def test_reports_of_ranks_are_added():
    fit = collected().fits["run"]
    assert fit.groups() == {"A": pytest.approx((0.5, 0.4)), "B": pytest.approx((0.5, 0.6))}
    edges, frames = fit.distribution()
    np.testing.assert_allclose(edges, [-1.5, -1.0, -0.5, 0.0])
    np.testing.assert_array_equal(frames, [1, 0, 6])
    assert fit.imbalance() == pytest.approx(0.03 / 0.025)
    assert list(collected().fits) == ["run"], "events of other topics are none of ours"


def test_a_histogram_of_many_bins_keeps_all_frames_and_an_edge_at_zero():
    fit = collected().fits["run"]
    fit.weights = {0: {"groups": {}, "width": 0.05, "first": -173, "frames": list(range(300))}}
    edges, frames = fit.distribution(bars=40)
    assert len(frames) <= 41
    assert frames.sum() == sum(range(300))
    assert np.min(np.abs(edges)) == 0
    left = sum(count for number, count in enumerate(range(300)) if number - 173 < 0)
    assert frames[edges[:-1] < 0].sum() == left


def test_a_page_opened_before_the_first_report_fills_itself():
    collector = Collector()
    page, document = Page(collector), Document()
    document.add_root(page.root)
    assert "Nothing has been reported yet" in page.root.children[0].text
    full = collected()
    collector.fits = full.fits
    page.update()
    titles = {plot.title.text for plot in document.select({"type": Plot})}
    assert {"correlation with the data", "ESS, frames", "distribution of the weights"} <= titles
    full.event(FIT_TOPIC, fit_message(0, points=[{"step": 3.0, "passes": 6.0, "seconds": 0.3, "cc": 0.99}]), "rank-0")
    page.update()
    sources = [source.data for source in document.select({"type": ColumnDataSource})]
    lengths = {len(data["cc_free"]) for data in sources if "cc_free" in data}
    assert lengths == {4}, "every metric of CC has its curve, as long as the others"
    assert "<b>0.9900</b>" in html_of(document).replace('<data value="0.99">', "").replace("</data>", "")


def html_of(document):
    return "".join(div.text for div in document.select({"type": Div}))


def test_of_several_fits_the_newest_is_shown_until_another_one_is_chosen():
    collector = collected()
    page = Page(collector)
    collector.fits["second"] = collected().fits["run"]
    collector.fits["second"].name = "second"
    page.update()
    choice, section = page.root.children[:2]
    assert (choice.options, choice.value, choice.visible) == (["run", "second"], "second", True)
    assert "<h2>second</h2>" in section.children[0].text
    choice.value = "run"
    page.update()
    assert "<h2>run</h2>" in page.root.children[1].children[0].text
