"""Numbers of a run of kind "force-map" that several sections of its report show, with forces in the report's unit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from hpcfit.report.page import grouped, number, plus_minus, significant

REFERENCE = "basic"  # the valid map that needs no fit
DIGITS = 4  # of mean squares


class ForceUnit(NamedTuple):
    """The unit of forces on the page. factor: from kJ/mol/A."""

    name: str
    factor: float

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> ForceUnit:
        return cls(metrics["unit"]["name"].replace("/A", "/Å"), metrics["unit"]["factor"])

    @property
    def squared(self) -> str:
        return f"({self.name})²"

    def head(self, title: str, power: int = 2) -> Markup:
        """The head of a column, its unit in one piece."""
        unit = self.squared if power == 2 else self.name
        return Markup('{}, <span style="white-space: nowrap">{}</span>').format(title, unit)

    def square(self, value: float | np.ndarray | None) -> Any:
        """A mean square, (kJ/mol/A)^2, in this unit squared."""
        return None if value is None else value * self.factor**2

    def shown(self, value: float | None, error: float | None = None, power: int = 2) -> Markup:
        """A force to the power 1 or 2, with its error where there is one."""
        scale = self.factor**power
        converted, width = (None if one is None else float(one) * scale for one in (value, error))
        if converted is None or not width or not math.isfinite(converted * width):
            return significant(converted, DIGITS)
        return plus_minus(_as_precise(converted, width), width)


def _as_precise(value: float, error: float) -> Markup:
    """A number to the place of its error's second digit, never less than one before the decimal point."""
    decimals = min(max(0, 1 - math.floor(math.log10(error))), 12)
    return number(value, f"{value:.{decimals}f}" if decimals else grouped(round(value)))


def map_named(metrics: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The row of a map; None where the run has none of that name."""
    return next((row for row in metrics["maps"] if row["name"] == name), None)


def chosen_map(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return map_named(metrics, metrics["chosen"])


def shown_first(names: Sequence[str], metrics: Mapping[str, Any]) -> list[str]:
    """The chosen map and the basic one beside it, of those there are."""
    return [name for name in dict.fromkeys((metrics["chosen"], REFERENCE)) if name in names]


def data_efficiency(metrics: Mapping[str, Any]) -> float | None:
    """The number of frames of the basic map that carry as much as one of the chosen map.

    It is the ratio of what force fields leave of their forces, or of their mean squares where none was fitted. None
    where there is nothing to compare.
    """
    chosen, matched = metrics["chosen"], metrics.get("force_matching")
    if chosen == REFERENCE or map_named(metrics, REFERENCE) is None or not chosen_map(metrics)["valid"]:
        return None
    if matched:
        held_out = {row["map"]: row["held_out"][0] for row in matched["linear"]}
    else:
        held_out = {row["name"]: row["held_out"] for row in metrics["maps"]}
    return held_out[REFERENCE] / held_out[chosen] if held_out[chosen] > 0 else None


def inefficiency(metrics: Mapping[str, Any], name: str) -> float | None:
    """g of a map at the largest span."""
    rows = metrics.get("inefficiency", {}).get("of", {}).get(name)
    return rows[-1] if rows else None
