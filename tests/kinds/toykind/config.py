"""The tables of the toy: [problem], and [[series]] instead of [frames]."""

from __future__ import annotations

from typing import ClassVar, Literal

from hpcfit.config.table import Count, NonNegative, Positive, ProblemTable, Table


class SeriesConfig(Table):
    """Points (x, slope x + noise), made from their numbers."""

    points: Count
    slope: float = 1.0
    noise: NonNegative = 0.1


class ToyConfig(ProblemTable):
    """penalty: of the squared offsets. rounds: steps of the rough fit."""

    needs: ClassVar = ("series",)
    owns: ClassVar = {"series": list[SeriesConfig]}
    without_effect: ClassVar = ("frames",)

    kind: Literal["toy"]
    penalty: Positive = 1.0
    rounds: Count = 6
