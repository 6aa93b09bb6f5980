"""Commands run in the test's process answer as a process does, and leave nothing behind in it."""

import logging
import os
import signal
import sys

import pytest

from tests.command import SIGNALS, apart, here, sets


def state() -> tuple:
    """What a command changes in its process."""
    logger = logging.getLogger("hpcfit")
    handlers = [signal.getsignal(number) for number in SIGNALS]
    streams = (sys.stdout, sys.stderr, list(sys.argv))
    return (
        os.sched_getaffinity(0), handlers, dict(os.environ), os.getcwd(), list(logger.handlers), logger.level,
        logger.propagate, streams,
    )  # fmt: skip


@pytest.mark.parametrize("words", [["--version"], ["nonsense"], ["watch", "/nowhere"]], ids=lambda words: words[0])
def test_code_and_output_are_those_of_a_process(words):
    found, expected = here(*words), apart(*words)
    assert (found.returncode, found.stdout, found.stderr) == (expected.returncode, expected.stdout, expected.stderr)
    assert found.stdout + found.stderr


def test_a_run_leaves_the_process_as_it_was(two_sources, tmp_path):
    before = state()
    settings = sets(f"run.directory={tmp_path / 'run'}", "optimizer.max_steps=1", "run.report=false")
    done = here("optimize", two_sources, *settings)
    assert done.returncode == 0, done.stderr
    assert "1 steps done" in done.stderr
    assert state() == before
    assert here("optimize", two_sources, *settings).returncode == 2  # the folder is occupied
    assert state() == before


def test_a_defect_is_a_traceback_and_another_code(two_sources, monkeypatch):
    def defect(*_):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("hpcfit.commands.check.run_check", defect)
    done = here("check", two_sources)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError: a defect" in done.stderr
