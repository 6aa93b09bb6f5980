"""One job at a time writes into a folder: the second is told who does, and what a dead one left is in nobody's way."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from hpcfit.errors import InputError
from hpcfit.ranks import Ranks
from hpcfit.store import locks
from hpcfit.store.locks import LOCK, check_free, locked
from tests.command import ROOT
from tests.conftest import wait_for

HOLD = """
import sys, time
from pathlib import Path
from hpcfit.ranks import Ranks
from hpcfit.store.locks import locked
with locked(Path(sys.argv[1]), Ranks()):
    time.sleep(float(sys.argv[2]))
"""

# Each waits for its turn and writes down that it is in and out: nobody may be in between.
TURNS = """
import sys, time
from pathlib import Path
from hpcfit.errors import InputError
from hpcfit.ranks import Ranks
from hpcfit.store.locks import locked
folder, name = Path(sys.argv[1]), sys.argv[2]
for turn in range(5):
    while True:
        try:
            with locked(folder, Ranks()):
                for what in ("in", "out"):
                    with open(folder / "turns", "a") as file:
                        file.write(f"{what} {name}\\n")
                    time.sleep(0.005)
            break
        except InputError as error:
            assert "is in use by another hpcfit" in str(error), error
            time.sleep(0.003)
"""


def refused(folder):
    """The error of a second job in a folder."""
    with pytest.raises(InputError, match="is in use by another hpcfit") as error, locked(folder, Ranks()):
        pass
    return str(error.value)


def changed(folder, **changes):
    """Change what the lock of a folder says."""
    path = folder / LOCK
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def left(tmp_path):
    """A folder whose lock was left by a process that was killed."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path, "600"], cwd=ROOT)
    wait_for(lambda: (tmp_path / LOCK).exists())
    holder.kill()
    holder.wait()
    return tmp_path


def test_the_second_is_told_who_is_the_first(tmp_path):
    with locked(tmp_path / "new/run", Ranks()):
        said = refused(tmp_path / "new/run")
        for words in (str(tmp_path / "new/run"), f"process {os.getpid()} on {socket.gethostname().partition('.')[0]}"):
            assert words in said
        assert json.loads((tmp_path / "new/run" / LOCK).read_text())["since"] in said
        with pytest.raises(InputError, match="is in use"):
            check_free(tmp_path / "new/run")
    assert list(tmp_path.iterdir()) == []  # the folders that were made for the lock alone are gone
    check_free(tmp_path / "new/run")


def test_it_goes_with_an_error_and_what_was_written_stays(tmp_path):
    def write_and_fail():
        with locked(tmp_path / "run", Ranks()):
            (tmp_path / "run/result").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["result"]


def test_what_a_killed_process_left_is_taken_over(left):
    check_free(left)
    with locked(left, Ranks()):
        assert json.loads((left / LOCK).read_text())["pid"] == os.getpid()
    assert list(left.iterdir()) == []


def test_another_process_of_the_same_number_is_not_the_one(left):
    changed(left, pid=os.getpid())  # which lives, and began at another time
    with locked(left, Ranks()):
        pass


def test_a_process_that_cannot_be_seen_may_live(left):
    for what in ({"host": "elsewhere"}, {"machine": "another boot pid:[1]"}):
        lock = (left / LOCK).read_text()
        changed(left, **what)
        assert f"remove {left / LOCK}" in refused(left)
        with pytest.raises(InputError, match="is in use"):
            check_free(left)
        (left / LOCK).write_text(lock)


def test_a_slurm_job_that_was_requeued_to_another_node_has_ended_before(left, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    changed(left, host="elsewhere", job="17", restarts="0")
    refused(left)  # two steps of one job
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    changed(left, job="16")
    refused(left)
    changed(left, job="17")
    with locked(left, Ranks()):
        pass


def no_links(*_paths):
    raise PermissionError(1, "Operation not permitted")


def test_without_hard_links_there_is_one_all_the_same(left, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    with locked(left, Ranks()):
        assert str(os.getpid()) in refused(left)
    assert list(left.iterdir()) == []


def test_a_link_whose_answer_was_lost_counts(tmp_path, monkeypatch):
    link = os.link

    def lost(*paths):
        link(*paths)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "link", lost)
    with locked(tmp_path, Ranks()):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]


@pytest.mark.parametrize("text", ["", "[]", "{}", "not JSON"])
def test_a_lock_that_says_nothing_is_named(tmp_path, monkeypatch, text):
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    (tmp_path / LOCK).write_text(text)
    said = rf"{LOCK} is the lock of its folder, but does not say whose\n.*remove"
    with pytest.raises(InputError, match=said), locked(tmp_path, Ranks()):
        pass


def test_a_takeover_that_was_killed_is_taken_over_in_turn_or_named_where_it_cannot_be_seen(left, monkeypatch):
    guard = left / f"{LOCK}.{json.loads((left / LOCK).read_text())['key']}"
    lock = (left / LOCK).read_text()
    guard.write_text(lock)
    with locked(left, Ranks()):
        assert [path.name for path in left.iterdir()] == [LOCK]
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    (left / LOCK).write_text(lock)
    guard.write_text(json.dumps(json.loads(lock) | {"host": "elsewhere"}))
    with pytest.raises(InputError, match=f"remove {left / LOCK} and {guard}"), locked(left, Ranks()):
        pass


def test_of_many_at_once_one_is_in(left):
    """They begin at a lock that was left, which all want to take over."""
    jobs = [subprocess.Popen([sys.executable, "-c", TURNS, left, str(n)], cwd=ROOT) for n in range(6)]
    assert [job.wait(240) for job in jobs] == [0] * 6
    turns = (left / "turns").read_text().splitlines()
    assert len(turns) == 60
    for first, second in zip(turns[::2], turns[1::2]):
        assert (first.split()[0], second.split()[0]) == ("in", "out")
        assert first.split()[1] == second.split()[1]
    assert [path.name for path in left.iterdir()] == ["turns"]


def test_it_goes_when_the_process_is_told_to_end_or_interrupted(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path, "600"], cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_for(lambda: (tmp_path / LOCK).exists())
    holder.send_signal(signal.SIGINT)
    holder.wait(60)
    assert list(tmp_path.iterdir()) == []
