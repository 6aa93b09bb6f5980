"""Progress of a count with its rate: a bar where somebody watches, a line now and then in a log."""

from __future__ import annotations

import sys
import time

from hpcfit.log import NowAndThen, logger
from hpcfit.ranks import Ranks


class Progress:
    """Count `total` steps of this rank; only root shows them."""

    def __init__(self, what: str, total: int, ranks: Ranks):
        self._what, self._total, self._done = what, total, 0
        self._shown = ranks.is_root and total > 0
        self._of_rank = f" of rank 0 of {ranks.size}" if ranks.size > 1 else ""
        self._bar = None

    def __enter__(self) -> Progress:
        self._begun = time.monotonic()
        self._line_time = NowAndThen()
        if self._shown and sys.stderr.isatty():
            self._bar = _bar(self._what + self._of_rank, self._total)
            self._bar.start()
        return self

    def __exit__(self, *_exception) -> None:
        if self._bar:
            self._bar.stop()
        if self._shown and self._done:
            logger.info(self._line())

    def advance(self) -> None:
        """One more is done."""
        self._done += 1
        if self._bar:
            rate = self._done / (time.monotonic() - self._begun)
            self._bar.update(self._bar.task_ids[0], advance=1, rate=f"{rate:.3g}/s")
        elif self._shown and self._line_time.is_due():
            logger.info(self._line())

    def _line(self) -> str:
        seconds = max(time.monotonic() - self._begun, 1e-9)
        return f"{self._done} of {self._total} {self._what}{self._of_rank}, {self._done / seconds:.3g} {self._what}/s"


def _bar(what: str, total: int):
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    bar = Bar(*columns, console=Console(stderr=True))
    bar.add_task(what, total=total, rate="")
    return bar
