"""Moves of charges that keep net charges: some charges move freely, others follow them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpcfit.errors import InputError

DEPENDENT = 1e-9  # of a constraint: what is left of one that follows from others


def how_kept(leaf: str, tables: Sequence[Any], states: Sequence[Any]) -> list[str]:
    """The net charge that each entry of a class keeps, which its table of the config says: "molecules" unless it is
    said, "free" for classes that are no charges."""
    is_charge = any(leaf in state.charges for state in states)
    for one in tables:
        if one.net_charge is not None and not is_charge:
            raise InputError(
                f"parameter '{one.name}' is no charge: net_charge = '{one.net_charge}' has no effect",
                remedy="leave net_charge out",
            )
        if is_charge and (one.transform == "log" or one.bounds) and one.net_charge != "free":
            raise InputError(
                f"parameter '{one.name}' moves charges in logarithms or between bounds, so that they do not add up",
                remedy="move them linearly without bounds, or set net_charge = 'free' if the net charge may change",
            )
    return [(one.net_charge or "molecules") if is_charge else "free" for one in tables]


def counts(leaf: str, kept: Mapping[int, str], states: Sequence[Any]) -> np.ndarray:
    """The numbers of particles with each entry of a class, [C, n], in each sort of molecule, residue or system that
    keeps its net charge.

    kept: entry -> "molecules", "residues", "system" or "free"; states: systems with ``charges``, ``molecules`` and
    ``residues``. Raises InputError for a charge that is to keep that of its residue, where no topology says which.
    """
    places = np.array(list(kept))
    found = [np.zeros((0, len(places)), int)]
    for state in states:
        if leaf not in state.charges:
            continue
        is_entry = np.asarray(state.charges[leaf])[:, None] == places
        whole = (tuple(range(len(is_entry))),)
        for how, parts in {"molecules": state.molecules, "residues": state.residues, "system": whole}.items():
            keeping = is_entry & np.array([one == how for one in kept.values()])
            rows = np.array([keeping[list(atoms)].sum(axis=0) for atoms in parts], int).reshape(-1, len(places))
            if rows.sum() < keeping.sum():
                raise InputError(
                    f"net_charge = '{how}' of '{leaf}': {keeping.sum() - rows.sum()} of {keeping.sum()} such charges of"
                    f" a system stand in none of the {how} that are known",
                    remedy="give the topology of each system that has these charges",
                )
            found.append(rows)
    rows = np.unique(np.concatenate(found), axis=0)
    return rows[np.any(rows > 0, axis=1)]


def followed(counted: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(free [k], of_free [n, k]): the entries that move freely, and how all entries move with them, in units of their
    scales, such that ``counted`` [C, n] times the changes is 0. The entries of most weight follow."""
    left = counted * scale
    n, followers, rows = len(scale), [], []
    while left.size and np.max(np.abs(left)) > DEPENDENT * np.max(counted * scale):
        row, column = np.unravel_index(np.argmax(np.abs(left)), left.shape)
        pivot = left[row] / left[row, column]
        left = np.delete(left - left[:, [column]] * pivot, row, axis=0)
        rows = [other - other[column] * pivot for other in rows] + [pivot]
        followers.append(column)
    free = np.setdiff1d(np.arange(n), followers)
    of_free = np.zeros((n, len(free)))
    of_free[free, np.arange(len(free))] = 1.0
    for column, row in zip(followers, rows):
        of_free[column] = -row[free]
    return free, of_free
