"""The loop and its hooks: each hook ends the run when, and only when, its sentence is true."""

import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

import pytest

from hpcfit.errors import NumericalError
from hpcfit.fit import hooks
from hpcfit.fit.loop import Step, Stop, fit
from hpcfit.ranks import Ranks


class State(NamedTuple):
    loss: float
    gradient: Any = None
    stalled: str = ""
    params: Any = None


class Halving:
    """An optimizer whose loss halves each step."""

    def step(self, state, evaluate):
        return State(state.loss / 2)


def run(*chosen, optimizer=None, start=1.0):
    return fit(optimizer or Halving(), None, lambda gradient: 1.0, chosen, Step(0, State(start), 1.0, (start,)))


def at(number=1, loss=1.0, norm=1.0, losses=(1.0,)):
    return Step(number, State(loss), norm, losses)


def test_the_loop_counts_steps_and_says_why_it_stopped():
    outcome = run(hooks.MaxSteps(5))
    assert outcome.last.number == 5
    assert outcome.last.state.loss == 2.0**-5
    assert "5 steps" in outcome.stop.reason
    assert outcome.last.losses == tuple(2.0**-k for k in range(6))


def test_every_hook_is_called_at_every_step_even_when_one_stops():
    seen = []
    run(hooks.MaxSteps(3), lambda step: seen.append(step.number))
    assert seen == [0, 1, 2, 3]


def test_a_run_that_had_ended_ends_again_where_it_was():
    ended = run(hooks.MaxSteps(3)).last
    again = fit(Halving(), None, lambda gradient: 1.0, [hooks.MaxSteps(3)], ended)
    assert again.last == ended


def test_an_interruption_outranks_convergence():
    assert run(hooks.MaxSteps(1), lambda step: Stop("told to", interrupted=True)).stop.interrupted


def test_a_stalled_optimizer_ends_the_run():
    class Stuck:
        def step(self, state, evaluate):
            return state._replace(stalled="nowhere to go")

    assert run(optimizer=Stuck()).stop.reason == "nowhere to go"


def test_a_loss_that_is_not_a_number_is_an_error():
    class Diverging:
        def step(self, state, evaluate):
            return State(float("nan"))

    with pytest.raises(NumericalError, match="nan after step 1"):
        run(hooks.MaxSteps(9), optimizer=Diverging())


def test_small_gradient():
    hook = hooks.SmallGradient(1e-3)
    assert hook(at(norm=1.1e-3)) is None
    assert "gradient" in hook(at(norm=1e-3)).reason


def test_small_change_needs_patience_steps_in_a_row():
    hook = hooks.SmallChange(1e-6, 3)
    assert hook(at(losses=(1.0, 1.0, 1.0))) is None
    assert hook(at(losses=(1.0, 1.0, 1.0, 1.0))) is not None
    assert hook(at(losses=(1.0, 1.0, 1.001, 1.0))) is None
    assert hook(at(losses=(5.0, 1.0, 1.0, 1.0, 1.0))) is not None


def test_wall_clock_asks_for_continuation():
    hook = hooks.WallClock(Ranks(), 1e-9)
    time.sleep(0.001)
    assert hook(at()).interrupted
    assert hooks.WallClock(Ranks(), 10)(at()) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_stop_at_the_next_step(number):
    before = [(n, signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGUSR1)]
    try:
        hook = hooks.Signals(Ranks())
        assert hook(at()) is None
        signal.raise_signal(number)
        stop = hook(at())
        assert stop.interrupted
        assert signal.Signals(number).name in stop.reason
    finally:
        for n, handler in before:
            signal.signal(n, handler)


def test_watchdog_waits_for_many_medians():
    dog = hooks.Watchdog(Ranks(), patience=100.0, factor=50.0)
    try:
        dog._beats = [0.0, 10.0, 20.0, 31.0]
        assert dog.limit() == 500.0
        dog._beats = [0.0, 0.1, 0.2]
        assert dog.limit() == 100.0
    finally:
        dog.stop()


def test_watchdog_ends_a_process_that_hangs_and_says_where():
    """In a process of its own, whose main thread sleeps: exit code 1, with the stacks of all threads."""
    script = (
        "import time\nfrom hpcfit.fit.hooks import Watchdog\nfrom hpcfit.ranks import Ranks\n"
        "dog = Watchdog(Ranks(), patience=0.2, factor=1.0)\ndog.beat()\n"
        "def hanging(): time.sleep(50)\nhanging()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "a rank hangs" in done.stderr
    assert "in hanging" in done.stderr
