"""Logging for many ranks: root says what happens, the others only what goes wrong; plain lines when nobody watches."""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from hpcfit.characters import in_one_line, printable

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger("hpcfit")
inputs = logging.getLogger("hpcfit.inputs")  # of what was read: its warnings stand in the results (`Warned`)


class Warned(logging.Handler):
    """A list of the warnings of `inputs` that are logged while it is entered, each once, in their order."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.sentences: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Add one."""
        if (sentence := record.getMessage()) not in self.sentences:
            self.sentences.append(sentence)

    def __enter__(self) -> Warned:
        inputs.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        inputs.removeHandler(self)


class Printable(logging.Formatter):
    """Lines of the log without control characters, whatever the names in them: a terminal would obey some."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        return printable(super().format(record))


class RunLog(logging.Handler):
    """The lines of root's log, from when it is entered; from ``begin`` on in a file, behind what that has already."""

    def __init__(self):
        super().__init__()
        self.setFormatter(Printable("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        self._waiting: list[str] = []
        self._path: Path | None = None

    def begin(self, path: Path) -> None:
        """Write what was logged so far, and from now on each line at once."""
        self._path, waiting, self._waiting = path, self._waiting, []
        for line in waiting:
            self._write(line)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, or keep it until there is a file."""
        line = self.format(record)
        if self._path is None:
            self._waiting.append(line)
        else:
            self._write(line)

    def _write(self, line: str) -> None:
        try:
            with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(line + "\n")
        except OSError:  # a full disk ends a run where something that it needs is written
            pass

    def __enter__(self) -> RunLog:
        logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logger.removeHandler(self)


class OfLibraries(logging.Handler):
    """Lines of the log for what other libraries log, warn of or ignore: each names its library, and comes once."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Say one."""
        try:
            self.say(record.name.partition(".")[0], record.getMessage())
        except (TypeError, ValueError):  # a message that does not fit its arguments
            self.say(record.name.partition(".")[0], str(record.msg))

    def say(self, library: str, message: str) -> None:
        """The first line of a message, unless it has been said."""
        line = f"{library}: {(message.strip().splitlines() or [''])[0]}"
        if line not in self._said:
            self._said.add(line)
            logger.info("%s", line)

    def warned(self, message: Warning | str, category: type[Warning], filename: str, *_: object, **__: object) -> None:
        """Stand in for `warnings.showwarning`, which writes to the terminal."""
        parts = Path(filename).parts
        after = parts.index("site-packages") + 1 if "site-packages" in parts else len(parts) - 1
        self.say(f"{Path(parts[after]).stem}, {category.__name__}", str(message))

    def ignored(self, of: object) -> None:
        """Stand in for `sys.unraisablehook`, which writes "Exception ignored in" to the terminal."""
        error = of.exc_value
        self.say("python", f"an exception was ignored, {type(error).__name__}: {error}")


libraries = OfLibraries()


def span(seconds: float) -> str:
    """A time as a person says it: 3.2 ms, 12.4 s, 3 min 05 s, 2 h 07 min; a dash where it is not known."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 99.95:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def in_columns(table: Sequence[Sequence[str]]) -> list[str]:
    """The rows of a table as lines whose columns stand below each other, without control characters."""
    table = [[in_one_line(cell) for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]


def set_up(rank: int, size: int) -> None:
    """Send root's INFO and everyone's warnings to standard error, tagged with the rank where there are several."""
    handler = _terminal_handler() if sys.stderr.isatty() and size == 1 else logging.StreamHandler(sys.stderr)
    tag = f" [rank {rank}/{size}]" if size > 1 else ""
    plain = not sys.stderr.isatty() or size > 1
    layout = f"%(asctime)s{tag} %(levelname)s %(message)s" if plain else None
    handler.setFormatter(Printable(layout, "%H:%M:%S"))
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    logger.propagate = False
    if libraries not in logging.getLogger().handlers:
        logging.getLogger().addHandler(libraries)
    warnings.showwarning = libraries.warned


def _terminal_handler() -> logging.Handler:
    from rich.logging import RichHandler

    return RichHandler(console=console(), show_path=False, markup=False)


@cache
def console() -> Console:
    """The terminal that lines of the log, and bars below them, are written to."""
    from rich.console import Console

    return Console(stderr=True)
