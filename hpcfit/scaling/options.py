"""The options of `hpcfit scaling`, and of `hpcfit step`: what is measured, and the machine to predict for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from hpcfit.errors import InputError

STEPS = 9  # of a measurement


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


def _parsed(parse: Callable[[str, str], Any]) -> Callable:
    """A parser of (option, text) as cyclopts calls it."""
    return lambda _type, tokens: parse(tokens[0].keyword, tokens[0].value)


@dataclass(frozen=True)
class Plan:
    """The measurements wanted. grids: "auto" as a run would choose, "all" that fit, or pairs (frames, slices)."""

    ranks: Annotated[
        Sequence[int],
        Parameter(
            converter=_parsed(counts), n_tokens=1, negative="", metavar="STR",
            show_default=lambda ranks: ",".join(map(str, ranks)), help="Numbers of MPI ranks, with commas between.",
        ),
    ] = (1, 2, 4)  # fmt: skip
    mode: Annotated[
        Literal["strong", "weak"],
        Parameter(help="strong: all frames on any ranks; weak: frames in proportion to ranks."),
    ] = "strong"
    grids: Annotated[
        str | Sequence[tuple[int, int]],
        Parameter(
            converter=_parsed(grid_choice), n_tokens=1, negative="", metavar="STR",
            help="auto: the grid that a run would choose; all: every one that fits; or a list: 2x1,1x2.",
        ),
    ] = "auto"  # fmt: skip
    repeats: Annotated[int, Parameter(help="Measurements of each point, in turns; medians count.")] = 3
    steps: Annotated[int, Parameter(help="Steps of each measurement.")] = STEPS

    def __post_init__(self):
        at_least_one("--repeats", self.repeats)
        at_least_one("--steps", self.steps)


@dataclass(frozen=True)
class Beyond:
    """The machine that the model predicts for, up to 1024 ranks."""

    memory_bandwidth: Annotated[float, Parameter(help="Of a rank's GPU, GB/s.")] = 3000.0
    memory_share: Annotated[
        float | None, Parameter(help="Of it that a step reaches, 0 to 1; by default what it reaches here.")
    ] = None
    network_bandwidth: Annotated[float, Parameter(help="Of a rank, GB/s.")] = 25.0
    latency: Annotated[float, Parameter(help="Of a small message, microseconds.")] = 5.0

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(
                    f"--{field.name.replace('_', '-')} {value:g}: a machine to predict for has more than 0, and no end",
                    remedy="give the figure of its data sheet",
                )
        if (self.memory_share or 0) > 1:
            raise InputError(
                f"--memory-share {self.memory_share:g}: a step cannot reach more than the whole bandwidth, 1",
                remedy="give a share between 0 and 1",
            )
