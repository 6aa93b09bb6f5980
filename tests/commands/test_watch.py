"""`hpcfit watch`: what the files of a run directory say while they are written, cut, replaced, or left alone."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import time

import pytest

from hpcfit.commands.watch import BARS, run_watch, sparkline
from hpcfit.errors import InputError
from hpcfit.runs.live import LiveRun, ends
from tests.command import HPCFIT, ROOT
from tests.conftest import assert_one_clear_error

CONFIG = '[problem]\nkind = "frame-weights"\n[optimizer]\nmax_steps = 100\n'


def row(evaluation, seconds=None, **more):
    seconds = 0.1 * evaluation if seconds is None else seconds
    return {"step": evaluation - 1, "evaluation": evaluation, "loss": -0.5, "cc": 0.9, "ess": 7.0, "seconds": seconds,
            "compute_seconds": 0.05, "reduce_seconds": 0.03, "read_seconds": 0.01} | more  # fmt: skip


def append(run, *lines):
    with open(run / "history.jsonl", "a", encoding="utf-8") as file:
        file.writelines(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def run(tmp_path):
    """The directory of a run with ten evaluations."""
    (tmp_path / "config.toml").write_text(CONFIG, encoding="utf-8")
    append(tmp_path, *map(row, range(1, 11)))
    return tmp_path


def evaluations(live):
    return [found["evaluation"] for found in live.rows]


def test_rows_come_as_they_are_written_and_a_half_written_one_when_it_is_whole(run):
    live = LiveRun(run)
    assert evaluations(live) == list(range(1, 11))
    assert not live.update()
    line = json.dumps(row(11)) + "\n"
    append(run, line[:20])
    assert not live.update()
    append(run, line[20:])
    assert live.update()
    assert evaluations(live) == list(range(1, 12))


def test_a_resume_that_replaces_the_history_is_followed(run):
    live = LiveRun(run)
    new = run / "history.jsonl.new"
    new.write_text("".join(json.dumps(row(number)) + "\n" for number in range(1, 6)), encoding="utf-8")
    os.replace(new, run / "history.jsonl")
    live.update()
    assert evaluations(live) == [1, 2, 3, 4, 5]
    append(run, row(6, seconds=0.2), row(7, seconds=0.3))
    live.update()
    assert evaluations(live) == [1, 2, 3, 4, 5, 6, 7]
    assert [found["elapsed"] for found in live.rows[-3:]] == pytest.approx([0.5, 0.7, 0.8]), "its clock began again"


def test_a_history_that_is_cut_or_done_again_in_place_is_followed(run):
    live = LiveRun(run)
    size = len((run / "history.jsonl").read_bytes())
    os.truncate(run / "history.jsonl", size // 2)
    live.update()
    assert evaluations(live) == [1, 2, 3, 4, 5]
    append(run, "\n", row(4, cc=0.5), row(5, cc=0.6))
    live.update()
    assert [(found["evaluation"], found["cc"]) for found in live.rows[-3:]] == [(3, 0.9), (4, 0.5), (5, 0.6)]


def test_every_state_is_told(run):
    live = LiveRun(run)
    assert live.state().name == "running"
    written = time.time() - 3600
    os.utime(run / "history.jsonl", (written, written))
    assert live.state().name == "silent"
    assert time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(written)) in live.state().text
    (run / "stopped.json").write_text('{"reason": "signal SIGUSR1", "interrupted": true}', encoding="utf-8")
    assert live.state().text == "interrupted: signal SIGUSR1; `--resume` continues it"
    (run / "stopped.json").write_text('{"reason": "100 steps done", "interrupted": false}', encoding="utf-8")
    assert live.state().text == "writes its results: 100 steps done"
    (run / "metrics.json").write_text("{}", encoding="utf-8")
    assert live.state().name == "finished"


def test_a_slow_fit_is_not_silent_between_its_evaluations(run):
    append(run, *(row(number, seconds=1.0 + 600 * (number - 10)) for number in range(11, 40)))
    os.utime(run / "history.jsonl", (time.time() - 1200,) * 2)
    assert LiveRun(run).state().name == "running"


def test_the_end_is_the_earliest_of_steps_wall_clock_and_job():
    steps = (1000.0, 100, 40, 2.0)  # now, of 100 steps 40 are done, 2 s each
    assert ends(*steps, 0.0, None, None)[0] == (1120.0, "100 steps (optimizer.max_steps)")
    assert ends(*steps, 500.0, 10.0, None)[0] == (1100.0, "wall clock (optimizer.wall_clock_minutes)")
    assert ends(*steps, 500.0, 10.0, 1050.0)[0] == (1050.0, "time limit of the Slurm job")
    assert ends(1000.0, 100, 0, float("nan"), 500.0, None, None) == []


def test_the_pace_of_steps_counts_their_line_searches(run):
    """Two evaluations a step, 0.1 s each, and 60 steps to go."""
    (run / "history.jsonl").unlink()
    append(run, *(row(number, step=number // 2) for number in range(1, 81)))
    live = LiveRun(run)
    assert live.pace() == pytest.approx(0.1)
    (end,) = live.ends()
    assert end.at - live.written == pytest.approx(60 * 0.2, rel=0.03)  # 49 gaps over 25 or 24 steps


def printed(path, **options) -> str:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        run_watch(path, **{"once": True, "every": 0.05} | options)
    return shown.getvalue()


def test_steps_are_those_of_the_present_fit_and_at_the_end_of_the_result(run):
    """Of three fits that follow each other, whose steps are counted through."""
    append(run, *(row(number, fit=1, step=9 + number // 2, cc=0.8) for number in range(11, 21)))
    append(run, *(row(number, fit=2, step=20 + number - 21, cc=0.7) for number in range(21, 25)))
    live = LiveRun(run)
    assert (live.steps, len(live.of_fit)) == (3, 4)
    (run / "metrics.json").write_text('{"final_fit": 1}', encoding="utf-8")
    assert (live.steps, len(live.of_fit)) == (5, 10)
    shown = printed(run)
    assert "5 of at most 100" in shown
    assert "of the final fit" in shown
    assert "0.800000" in shown


def test_once_prints_the_table(run):
    (run / "checkpoints").mkdir()
    (run / "checkpoints/step_00000005.0123456789abcdef.h5").touch()
    append(run, row(11, cc=0.95, cc_free=0.7))
    shown = printed(run)
    for words in ("running", "10 of at most 100", "0.950000", "cc_free", "0.700000", "100 ms"):
        assert words in shown, shown
    assert re.search(r"\d s ago", shown), shown
    for words in ("computing 50 ms, reductions 30 ms, reading 10 ms", "ends at the latest", "optimizer.max_steps"):
        assert words in shown, shown
    assert "▁▁▁▁▁▁▁▁▁▁█" in shown


def test_lines_come_with_the_evaluations_and_end_with_the_run(run):
    command = [*HPCFIT, "watch", str(run), "--every", "0.05"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as watch:
        assert "step 9 of at most 100" in watch.stdout.readline()
        append(run, row(11, cc=0.987654))
        assert "cc 0.987654" in watch.stdout.readline()
        assert watch.poll() is None
        (run / "metrics.json").write_text("{}", encoding="utf-8")
        assert "finished" in watch.stdout.readline()
        assert watch.wait(300) == 0


@pytest.fixture
def _interruptible():
    """Children heed interrupts, as in a terminal: tests that a shell began in the background inherit a disregard."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_ends_it_without_a_traceback(run):
    command = [*HPCFIT, "watch", str(run), "--every", "0.05"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as watch:
        assert "running" in watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
        assert watch.wait(300) == 0
        assert watch.stderr.read() == ""


def test_a_run_that_has_not_yet_evaluated_is_shown(tmp_path):
    (tmp_path / "config.toml").write_text("", encoding="utf-8")
    assert "none yet" in printed(tmp_path)


def test_a_directory_that_is_no_run_is_one_clear_error(hpcfit, tmp_path):
    assert_one_clear_error(hpcfit("watch", tmp_path), [str(tmp_path), "neither history.jsonl nor config.toml"])
    with pytest.raises(InputError, match="seconds are above 0"):
        run_watch(tmp_path, once=True, every=0.0)


@pytest.mark.parametrize(
    ("values", "shown"),
    [([0.0, 1.0], "▁█"), ([1.0], ""), ([], ""), ([2.0, 2.0, 2.0], "▁▁▁"), ([None, 0.0, float("nan"), 7.0], "▁█")],
)
def test_a_sparkline_is_of_what_is_known(values, shown):
    assert sparkline(values) == shown


def test_a_sparkline_rises_with_its_values_and_has_a_length():
    line = sparkline([float(number) for number in range(1000)])
    assert len(line) == 32
    assert line == "".join(sorted(line, key=BARS.index))
    assert (line[0], line[-1]) == (BARS[0], BARS[-1])
