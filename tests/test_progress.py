"""Progress of counted work: rates, the time left, and when a line of it is written."""

import logging
import time

import pytest

from hpcfit.progress import Count, Shown
from hpcfit.ranks import Ranks


@pytest.fixture
def clock(monkeypatch):
    """The time that the package sees, in seconds; a list of one number."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_count_knows_rate_and_time_left_of_what_it_has_made_itself(clock):
    count = Count(100, 40, unit="ns/day", worth=86.4)
    assert (count.made, count.rate, count.left()) == (0, 0.0, "")
    clock[0], count.done = 110.0, 60
    assert (count.made, count.seconds) == (20, 10.0)
    assert count.rate == pytest.approx(2 * 86.4)  # 20 frames of 1 ps in 10 s
    assert count.left() == "about 20 s left"
    assert count.left(running=5.0) == "about 14 s left"  # 35 more at 2.5 a second
    count.done = 100
    assert count.left() == ""


def test_lines_become_rarer_and_the_last_one_says_all(clock, caplog, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    with caplog.at_level(logging.INFO, "hpcfit"), Shown("frames", 100, Ranks()) as shown:
        for _ in range(100):
            clock[0] += 1.0
            shown.advance()
    assert [record.getMessage() for record in caplog.records] == [
        "15 of 100 frames, 1 frames/s, about 85 s left",
        "45 of 100 frames, 1 frames/s, about 55 s left",
        "100 of 100 frames, 1 frames/s",
    ]


def test_a_bar_replaces_the_lines_on_a_terminal(clock, caplog, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with caplog.at_level(logging.INFO, "hpcfit"), Shown("frames", 20, Ranks()) as shown:
        for _ in range(20):
            clock[0] += 1.0
            shown.advance()
        [bar] = shown._bar.tasks
    assert (bar.completed, bar.total) == (20, 20)
    assert len(caplog.records) == 1
