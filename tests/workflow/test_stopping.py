"""Signals that tell a driver to stop, also where a library goes on after any error."""

import contextlib
import os
import signal

import pytest

from hpcfit.config import ClusterConfig
from hpcfit.workflow.cluster.opening import open_cluster
from hpcfit.workflow.stopping import Stopped, heed, stopped_by_signals
from tests.workflow import crew_tasks


def lose(number) -> None:
    """Receive a signal where nobody lets an error through."""
    with contextlib.suppress(Exception):
        os.kill(os.getpid(), number)
        raise AssertionError("the signal raised nothing")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_what_is_open(number):
    closed = []

    @stopped_by_signals()
    def work():
        try:
            os.kill(os.getpid(), number)
        finally:
            closed.append(True)
            os.kill(os.getpid(), number)  # a second one does nothing

    with pytest.raises(Stopped, match=f"stopped by {number.name}"):
        work()
    assert closed == [True]
    heed()  # it is over


def test_one_that_was_lost_is_raised_again_before_a_wait():
    passed = []

    @stopped_by_signals()
    def work():
        lose(signal.SIGTERM)
        passed.append("lost")
        heed()
        passed.append("waited")

    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        work()
    assert passed == ["lost"]


def test_one_that_was_lost_is_raised_again_at_the_end():
    work = stopped_by_signals()(lambda: lose(signal.SIGUSR1))
    for inside in (work, stopped_by_signals()(work)):
        with pytest.raises(Stopped, match="stopped by SIGUSR1"):
            inside()
    stopped_by_signals()(heed)()


@pytest.mark.programs
def test_one_that_is_lost_while_work_is_handed_to_dask_stops_it(monkeypatch):
    done = []

    def work():
        with open_cluster(ClusterConfig(workers=1, dashboard="127.0.0.1:0"), "test") as crew:
            subscribe = crew.client.subscribe_topic
            losing = lambda *given: (lose(signal.SIGTERM), subscribe(*given))  # noqa: E731
            monkeypatch.setattr(crew.client, "subscribe_topic", losing)
            done.extend(crew.map(crew_tasks.square, range(3)))

    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        work()
    assert not done


def test_a_block_that_has_ended_does_not_end_the_one_around_it():
    passed = []

    @stopped_by_signals()
    def work():
        with stopped_by_signals():
            passed.append("inner")
        lose(signal.SIGTERM)
        heed()
        passed.append("waited")

    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        work()
    assert passed == ["inner"]
