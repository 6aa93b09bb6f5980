"""Ranks that stay and run one command of hpcfit after another: imports and compilations are paid once.

As a program, ``mpiexec -n N python -m tests.standing_ranks``, the ranks: root reads a request a line, all of them run
the command in their process, and root answers with a line of their exit codes. What a command leaves behind in its
process is undone. A rank that aborts ends them all; the next command then starts others.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = str(ROOT / "hpcfit/__main__.py")  # what `python -m hpcfit` has for its name
STREAMS = {"stdout": 1, "stderr": 2}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StandingRanks:
    """Those that a launcher starts, or one process without one. Nothing is started before the first command."""

    def __init__(self, launcher: list[str]):
        self._launcher = launcher
        self._job: subprocess.Popen | None = None

    def run(self, arguments: list[str], timeout: float) -> subprocess.CompletedProcess:
        """What the command returned and said; raises TimeoutExpired where it takes longer."""
        if self._job is None:
            self._start()
        with tempfile.TemporaryDirectory() as folder:
            answer = self._ask({"arguments": arguments, "folder": folder}, timeout)
            if not answer:
                code = self._end()
            said = {name: path.read_text() for name in STREAMS if (path := Path(folder, name)).exists()}
        if answer is None:
            raise subprocess.TimeoutExpired(arguments, timeout, said.get("stdout"), said.get("stderr"))
        if answer:
            code, *others = json.loads(answer)
            assert set(others) <= {code}, f"the ranks ended with {code}, {others}: {said}"
        return subprocess.CompletedProcess(arguments, code, said.get("stdout", ""), said.get("stderr", ""))

    def close(self) -> None:
        """End the ranks."""
        if self._job is not None:
            self._end()

    def _start(self) -> None:
        self._job = subprocess.Popen(
            [*self._launcher, sys.executable, "-m", "tests.standing_ranks"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {"COLUMNS": "200"},
        )  # fmt: skip

    def _ask(self, request: dict, timeout: float) -> str | None:
        """The answer; "" where the ranks have ended, None where there is none in time."""
        print(json.dumps(request), file=self._job.stdin, flush=True)
        answered, _, _ = select.select([self._job.stdout], [], [], timeout)
        return self._job.stdout.readline() if answered else None

    def _end(self) -> int:
        """The exit code of the ranks: they end with their input, and are killed where they do not."""
        job, self._job = self._job, None
        with job:
            job.stdin.close()
            try:
                return job.wait(timeout=10)
            except subprocess.TimeoutExpired:
                job.terminate()
                raise


def serve() -> None:
    """Run the commands that root reads, until its input ends; collective."""
    from hpcfit.ranks import world_ranks

    ranks, answers = world_ranks(), os.dup(1)
    while line := ranks.on_root(sys.stdin.readline):  # the others sleep
        codes = ranks.gather(exit_code(**json.loads(line)))
        if ranks.is_root:
            os.write(answers, f"{json.dumps(codes)}\n".encode())


def exit_code(arguments: list[str], folder: str) -> int:
    """That of a command, which writes to files of a folder; collective."""
    from hpcfit.cli import main

    with undone(), written_to(folder), mock.patch("sys.argv", [PROGRAM, *arguments]):
        try:
            main()
        except SystemExit as end:
            return end.code
    raise AssertionError("`hpcfit` ended without an exit code")


@contextlib.contextmanager
def undone() -> Iterator[None]:
    """Give the process back its cores, signals, folder and environment, and close files that nobody holds."""
    cores, folder, handlers = os.sched_getaffinity(0), os.getcwd(), [signal.getsignal(number) for number in SIGNALS]
    with mock.patch.dict(os.environ):
        yield
    os.sched_setaffinity(0, cores)
    os.chdir(folder)
    for number, handler in zip(SIGNALS, handlers):
        signal.signal(number, handler)
    gc.collect()


@contextlib.contextmanager
def written_to(folder: str) -> Iterator[None]:
    """Standard output and error, also of libraries, go to files that all ranks append to."""
    kept = {number: os.dup(number) for number in STREAMS.values()}
    for name, number in STREAMS.items():
        file = os.open(Path(folder, name), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.dup2(file, number)
        os.close(file)
    yield
    sys.stdout.flush()
    sys.stderr.flush()
    for number, file in kept.items():
        os.dup2(file, number)
        os.close(file)


if __name__ == "__main__":
    serve()
