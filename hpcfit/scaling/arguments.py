"""Numbers and lists on the command line: ranks `1,2,4`, grids `2x1,1x2`."""

from __future__ import annotations

import re

from hpcfit.errors import InputError


def counts(option: str, text: str) -> list[int]:
    """`1,2,4` in ascending order, each once; raises InputError that names the option."""
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if not word.isdigit() or int(word) < 1]
    if wrong:
        raise InputError(
            f"{option} {text}: '{wrong[0]}' is not a number of ranks from 1 on", remedy=f"for example {option} 1,2,4"
        )
    return sorted({int(word) for word in words})


def grids(option: str, text: str) -> list[tuple[int, int]]:
    """`2x1,1x2` as (frames, slices); raises InputError that names the option."""
    found = [re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", word.strip()) for word in text.split(",")]
    if not all(found):
        raise InputError(
            f"{option} {text}: a grid is written FRAMESxSLICES, like 2x1", remedy=f"for example {option} 2x1,1x2"
        )
    return [(int(match[1]), int(match[2])) for match in found]


def grid_choice(option: str, text: str) -> str | list[tuple[int, int]]:
    """`auto` or `all` as they are, else a list of grids."""
    return text if text in ("auto", "all") else grids(option, text)


def at_least_one(option: str, value: int) -> None:
    """Raise InputError that names the option."""
    if value < 1:
        raise InputError(f"{option} {value}: there is nothing to measure", remedy=f"give {option} a number from 1 on")
