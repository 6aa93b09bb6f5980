"""From the tables of a config (``config.observables``) to observables, and to what was measured of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from hpcfit.config import observables as tables
from hpcfit.energies.own_form import load_function
from hpcfit.errors import InputError
from hpcfit.observables import geometry, nmr, pair_distribution
from hpcfit.readers.tables import check_all, open_table

Select = Callable[[Any, str], tuple[int, ...]]  # (a selection, its key) -> atoms
SIDES = {"upper": 1.0, "lower": -1.0, None: 0.0}


class Site(NamedTuple):
    """The system that an observable is of. select: the atoms of a selection; masses: [N] amu."""

    select: Select
    masses: np.ndarray


def build(config: tables.ObservableConfig, site: Site) -> Any:
    """The observable of a table. Raises InputError for atoms that there are not."""
    return BUILDERS[type(config)](config, site)


def _radius_of_gyration(config: tables.RadiusOfGyrationConfig, site: Site) -> geometry.RadiusOfGyration:
    atoms = site.select(config.atoms, "atoms")
    return geometry.RadiusOfGyration(site.masses[list(atoms)], atoms)


def _distances(config: tables.DistancesConfig, site: Site) -> geometry.Distances | nmr.NoeDistances:
    pairs = _numbers(config.pairs, site, "pairs")
    if config.power is None:
        return geometry.Distances(pairs)
    return nmr.NoeDistances(tuple(((i,), (j,)) for i, j in pairs), config.power, True)


def _coordination(config: tables.CoordinationConfig, site: Site) -> geometry.Coordination:
    return geometry.Coordination(config.r0, config.width, *_of_among(config, site))


def _radial_distribution(
    config: tables.RadialDistributionConfig, site: Site
) -> pair_distribution.RadialDistribution:
    return pair_distribution.RadialDistribution(np.array(config.edges), config.width, *_of_among(config, site))


def _torsion_shares(config: tables.TorsionSharesConfig, site: Site) -> geometry.TorsionShares:
    return geometry.TorsionShares(config.width, _numbers(config.quadruples, site, "quadruples"), config.parts)


BUILDERS: dict[type, Callable[[Any, Site], Any]] = {
    tables.RadiusOfGyrationConfig: _radius_of_gyration,
    tables.DistancesConfig: _distances,
    tables.AnglesConfig: lambda config, site: geometry.Angles(_numbers(config.triples, site, "triples")),
    tables.TorsionSharesConfig: _torsion_shares,
    tables.CoordinationConfig: _coordination,
    tables.RadialDistributionConfig: _radial_distribution,
    tables.PowersConfig: lambda config, site: geometry.Powers(config.atom, config.axis, tuple(config.powers)),
    tables.OwnConfig: lambda config, site: geometry.Own(load_function(config.function, "observable")),
}


def _of_among(config: Any, site: Site) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return site.select(config.of, "of"), site.select(config.among, "among")


def _numbers(rows: Sequence[Sequence[int]], site: Site, key: str) -> tuple[tuple[int, ...], ...]:
    for row in rows:
        site.select(row, key)  # says where an atom is none
        if len(set(row)) != len(row):
            raise InputError(f"{key} has {list(row)}, which names an atom twice", remedy="correct the numbers")
    return tuple(map(tuple, rows))


def measured(config: tables.ObservableConfig, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The values and sigmas [M] of an observable that has ``count`` numbers. Raises InputError for another number."""
    values, sigma = _given(config)
    if len(values) != count or len(sigma) != count:
        raise InputError(
            f"observable '{config.name}' has {count} numbers; {config.measured or 'the config'} has {len(values)}"
            f" values and {len(sigma)} sigmas",
            remedy="give a value and a sigma for each",
        )
    return values, sigma


def _given(config: tables.ObservableConfig) -> tuple[np.ndarray, np.ndarray]:
    if config.measured is None:
        values, sigma = np.atleast_1d(np.array(config.values, float)), np.array(config.sigma, float)
        return values, np.full(len(values), sigma) if sigma.ndim == 0 else sigma
    table = open_table(config.measured)
    if len(table.names) != 2:
        raise InputError(
            f"{table.path} has {len(table.names)} columns", remedy="give two: the measured value and its sigma"
        )
    rows = table.rows(slice(None))
    good = np.stack([rows[:, 0] < np.inf, rows[:, 1] > 0], 1)
    check_all(table, good, "sigma must be above 0", "give sigma")
    return rows[:, 0], rows[:, 1]
