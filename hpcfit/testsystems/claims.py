"""Claims that a tool checks: what was said, what was found, and whether it holds; printed as one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Claim(NamedTuple):
    """One row. reference: the figure that ours is held against, in words; holds: None where nothing is demanded."""

    what: str
    reference: str
    found: str
    holds: bool | None = None


def near(what: str, reference: float, tolerance: float, found: float) -> Claim:
    """That a number is the reference to a tolerance."""
    return Claim(what, f"{reference:g} +- {tolerance:g}", f"{found:.5g}", abs(found - reference) <= tolerance)


def below(what: str, limit: float, found: float, reference: str = "") -> Claim:
    """That a number is at most so large."""
    return Claim(what, f"{reference} (at most {limit:g})".strip(), f"{found:.3g}", found <= limit)


def table(claims: Sequence[Claim]) -> str:
    """One line a claim, and how many hold."""
    words = {True: "pass", False: "FAIL", None: ""}
    rows = [("", "reference", "found", ""), *((*claim[:3], words[claim.holds]) for claim in claims)]
    width = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*(cell.ljust(n) for cell, n in zip(row, width)), row[3]]).rstrip() for row in rows]
    judged = [claim for claim in claims if claim.holds is not None]
    return "\n".join([*lines, f"{sum(claim.holds for claim in judged)} of {len(judged)} claims hold"])
