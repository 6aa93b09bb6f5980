"""Logging for many ranks: root says what happens, the others only what goes wrong; plain lines when nobody watches."""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("hpcfit")


def set_up(rank: int, size: int) -> None:
    """Send root's INFO and everyone's warnings to standard error, tagged with the rank where there are several."""
    handler = _terminal_handler() if sys.stderr.isatty() and size == 1 else logging.StreamHandler(sys.stderr)
    tag = f" [rank {rank}/{size}]" if size > 1 else ""
    if not sys.stderr.isatty() or size > 1:
        handler.setFormatter(logging.Formatter(f"%(asctime)s{tag} %(levelname)s %(message)s", "%H:%M:%S"))
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    logger.propagate = False


def _terminal_handler() -> logging.Handler:
    from rich.console import Console
    from rich.logging import RichHandler

    return RichHandler(console=Console(stderr=True), show_path=False, markup=False)
