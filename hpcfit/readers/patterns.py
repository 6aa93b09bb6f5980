"""Files that a path, a folder or a pattern of the config names, in the order a reader expects."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from pathlib import Path


def matching(pattern: str) -> list[Path]:
    """The files that a path or a pattern names, sorted naturally; a path may hold what would be a pattern."""
    return [Path(pattern)] if Path(pattern).exists() else in_natural_order(map(Path, glob.glob(pattern)))


def in_natural_order(paths: Iterable[Path]) -> list[Path]:
    """Sorted by name with numbers by their value: frame2 before frame10."""
    return sorted(paths, key=_natural)


def _natural(path: Path) -> list:
    # Text and numbers alternate, so that like is compared with like.
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def suffix_of(path: Path) -> str:
    """The suffix of a file, lower case, that of what is compressed where it ends in .gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix
