"""One measurement of a step, as `hpcfit step` writes it and a scaling series reads it."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hpcfit import __version__
from hpcfit.config import Config
from hpcfit.errors import InputError
from hpcfit.fit.cost import Load, Message, Part
from hpcfit.kinds.base import Case

SCHEMA = 2  # 2: parts say their passes


def identity(config: Config, case: Case, steps: int) -> dict[str, str]:
    """The facts, by name, in which two measurements must agree to be compared."""
    run, frames = config.run, config.frames
    read = f"frames.residence {frames.residence}, " if frames else ""
    settings = f"device {run.device}, {run.threads} threads, {read}{steps} steps"
    return case.identity() | {"settings": settings, "hpcfit": __version__}


class Spread(NamedTuple):
    """A time over the ranks, seconds."""

    mean: float
    largest: float


@dataclass(frozen=True)
class Measurement:
    """The record of a measurement, and what follows from it.

    ranks; grid: frames x slices; frames: how many; load: of the whole grid; per_rank: a row a rank with host, device,
    cores, seconds (medians over the steps), bytes_passed in a step and stream_bytes_per_second; messages: by name of
    the group; parts: steps of one rank alone; identity: what it is comparable with; environment: where it ran.
    """

    ranks: int
    grid: tuple[int, int]
    frames: int
    load: Load
    per_rank: list[dict[str, Any]]
    messages: dict[str, list[Message]]
    parts: list[Part]
    identity: dict[str, str]
    environment: dict[str, Any]

    def seconds(self, name: str) -> Spread:
        """Seconds of a step, or of its part ``name``: total, compute, reduce, read or other."""
        values = [row["seconds"][name] for row in self.per_rank]
        return Spread(statistics.fmean(values), max(values))

    @property
    def step(self) -> float:
        """Seconds of a step: the slowest rank's."""
        return self.seconds("total").largest

    @property
    def whole(self) -> Part:
        """The step as a part to fit the cost model to, where there is one rank."""
        seconds = self.step - self.seconds("read").largest
        return Part(self.load.n_blocks, self.load.n_tiles, seconds, self.load.passes(self.grid))

    @property
    def rate(self) -> float:
        """Bytes of frames that all ranks together pass over, per second."""
        return self.bytes_passed / self.step

    @property
    def bytes_passed(self) -> int:
        """Bytes of frames that all ranks together read from their memories in a step."""
        return sum(row["bytes_passed"] for row in self.per_rank)

    @property
    def stream(self) -> float:
        """Bytes per second that all ranks read together in a plain stream of their memory."""
        return sum(row["stream_bytes_per_second"] for row in self.per_rank)

    @property
    def nodes(self) -> int:
        """The number of nodes that the ranks ran on."""
        return len({row["host"] for row in self.per_rank})

    @property
    def oversubscribed(self) -> bool:
        """True where ranks shared cores, so that they waited for each other."""
        claimed, there = defaultdict(int), defaultdict(set)
        for row in self.per_rank:
            claimed[row["host"]] += len(row["cores"])
            there[row["host"]] |= set(row["cores"])
        return any(claimed[host] > len(there[host]) for host in claimed)

    def record(self) -> dict[str, Any]:
        """All of it, to be written as JSON."""
        record = {name: getattr(self, name) for name in self.__dataclass_fields__}
        record["load"] = vars(self.load)
        record["messages"] = {name: [m._asdict() for m in found] for name, found in self.messages.items()}
        record["parts"] = [part._asdict() for part in self.parts]
        return {"schema": SCHEMA, **record}


def read_measurement(path: Path) -> Measurement:
    """Read the JSON file of a ``record``; raises InputError that names the file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.pop("schema") != SCHEMA:
            raise InputError(
                f"{path}: its schema is not {SCHEMA}", remedy="delete it and measure again with this hpcfit"
            )
        return Measurement(
            **record
            | {
                "grid": tuple(record["grid"]),
                "load": Load(**record["load"]),
                "messages": {name: [Message(**m) for m in found] for name, found in record["messages"].items()},
                "parts": [Part(**part) for part in record["parts"]],
            }
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a measurement of `hpcfit step`: {error}", remedy="delete it and measure again"
        ) from error
