"""The coefficients in a report on kind "force-map": which atoms carry the force on which bead, and how surely."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from hpcfit.kinds.force_map.files import Coefficients, ForceMapRun, Maps
from hpcfit.report.page import Figure, Section, Table, Text, number, significant

MOST_ROWS = 15  # coefficients of the table
MOST_ATOMS_NAMED = 6  # of a rigid group
HEAD = ("bead", "rigid group", "coefficient", "±", "|coefficient| / ±")
HEAT_MAP = (
    "Coefficients of the chosen map '{name}': the force on a bead (row) is their sum over atoms (columns) times the "
    "atoms' forces. Red: the force of the atom counts, blue: it counts with the opposite sign, white: not at all. "
    "Framed: the rigid groups of the bead's own atoms, on which alone the basic map, the baseline, has coefficients, "
    "all 1.{names}"
)
CONSTANT_PART = " Shown is the constant part; what depends on distances is added to it."
BORDERS = " Thin lines: borders of residues."
OFFSETS = (
    "Absolute coefficients of the chosen map '{name}', summed over the atoms of the residue so far from the bead's "
    "own: mean over the beads, bars from the 5th to the 95th percentile. The baseline, the basic map, has all of it "
    "on the bead's rigid groups."
)
LARGEST = (
    "The {n} largest coefficients of the chosen map outside the beads' own rigid groups, where the basic map, the "
    "baseline, has 0. Atoms of a rigid group share one."
)
ERRORS = (
    "By the bootstrap over statistical blocks, the standard deviation of the coefficients that were fitted is "
    "{median} in the median and {largest} at most."
)


def coefficients(run: ForceMapRun) -> Section | None:
    """The section on the coefficients of the chosen map; None where it has no constant ones."""
    maps, name = run.maps, run.maps.chosen
    if name not in maps.coefficients:
        return None
    of_map = maps.coefficients[name]
    outside = outside_own(maps, of_map)
    table = Table(HEAD, [_cells(maps, one) for one in outside[:MOST_ROWS]],
                  LARGEST.format(n=min(MOST_ROWS, len(outside))), text_columns=2)  # fmt: skip
    blocks: list[Any] = [*_figure(maps, of_map, name), *_errors(of_map)]
    return Section("Coefficients", [*blocks, table] if outside else blocks)


def _figure(maps: Maps, of_map: Coefficients, name: str) -> list[Figure]:
    from hpcfit.kinds.force_map import figures_coefficients as figures

    W = np.zeros((len(maps.beads), len(maps.atoms)))
    W[of_map.bead, of_map.atom] = of_map.value
    constant = CONSTANT_PART if name == "features" else ""
    if W.shape[0] <= figures.MOST_BEADS and W.shape[1] <= figures.MOST_ATOMS:
        borders = BORDERS if len(maps.residue_names) > 1 else ""
        caption = HEAT_MAP.format(name=name, names=borders) + constant
        return [Figure(figures.heat_map(maps, W), "Coefficients of the chosen map by bead and atom", caption)]
    found = figures.by_offset(maps, W)
    if len(found.offset) < 2:
        return []
    caption = OFFSETS.format(name=name) + constant
    return [Figure(figures.offsets(found), "Absolute coefficients by distance along the residues", caption)]


class Outside(NamedTuple):
    """A coefficient of a rigid group that the bead has no atom in."""

    bead: int
    group: int
    value: float
    error: float


def outside_own(maps: Maps, of_map: Coefficients) -> list[Outside]:
    """One for each bead and rigid group, largest first."""
    own = maps.is_own()[of_map.bead, of_map.atom]
    found: dict[tuple[int, int], Outside] = {}
    for entry in np.flatnonzero(~own & (of_map.value != 0)):
        bead, group = int(of_map.bead[entry]), int(maps.group[of_map.atom[entry]])
        found.setdefault((bead, group), Outside(bead, group, float(of_map.value[entry]), float(of_map.error[entry])))
    return sorted(found.values(), key=lambda one: -abs(one.value))


def _cells(maps: Maps, one: Outside) -> list[Markup | str]:
    ratio = abs(one.value) / one.error if one.error > 0 else None
    value = number(one.value, f"{one.value:.4f}")
    return [maps.beads[one.bead], _group_name(maps, one.group), value, significant(one.error, 2), significant(ratio)]


def _group_name(maps: Maps, group: int) -> str:
    """TYR 2: C25, H26 and 3 more."""
    atoms = np.flatnonzero(maps.group == group)
    names = [maps.atoms[atom] for atom in atoms[:MOST_ATOMS_NAMED]]
    more = f" and {len(atoms) - len(names)} more" if len(atoms) > len(names) else ""
    return f"{maps.residue_label(maps.residue[atoms[0]])}: {', '.join(names)}{more}"


def _errors(of_map: Coefficients) -> list[Text]:
    """What is known of the errors of coefficients that are not fixed."""
    fitted = of_map.error[of_map.error > 0]
    if not len(fitted):
        return []
    median, largest = (significant(float(of(fitted)), 2) for of in (np.median, np.max))
    return [Text(Markup(ERRORS).format(median=median, largest=largest))]
