"""Independent work dealt out to ranks; an error on one rank is raised on all, so that none waits for ever."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from hpcfit.ranks import Ranks

T = TypeVar("T")
Item = TypeVar("Item")


def dealt(ranks: Ranks, items: Sequence[Item], work: Callable[[Item], T]) -> list[T]:
    """[work(item) for item in items] on every rank, each item done by one of them in turns. Collective."""
    return ranks.bcast(dealt_to_root(ranks, items, work))


def dealt_to_root(ranks: Ranks, items: Sequence[Item], work: Callable[[Item], T]) -> list[T] | None:
    """As `dealt`, with the results on root alone and None elsewhere: for large ones. Collective."""
    mine, error = None, None
    try:
        mine = [work(item) for item in items[ranks.rank :: ranks.size]]
    except Exception as caught:  # whatever it is, the other ranks must learn of it
        error = caught
    ranks.raise_together(error)
    parts = ranks.gather(mine)
    return parts and [parts[number % ranks.size][number // ranks.size] for number in range(len(items))]
