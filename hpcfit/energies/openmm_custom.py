"""OpenMM's custom forces, in and out: their expressions are parsed, whatever they say.

A parameter of an item that is exactly 0 is a constant: it marks an absence, and derivatives at 0 need not exist. So
is one that chooses an entry of a table of whole numbers. Charges that equal those of the NonbondedForce are the same
parameters.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from hpcfit.energies.columns import Column, Types, fixed
from hpcfit.energies.custom import CustomBonded, CustomExternal, CustomPairs
from hpcfit.energies.custom_gb import ALL_PAIRS, PAIRS, SINGLE, CustomGB, Step
from hpcfit.energies.expressions import parse, require_names
from hpcfit.energies.openmm_reading import Box, Read, numbers, pairs_of, plain, table, values
from hpcfit.energies.pair_potentials import kind_pairs
from hpcfit.energies.splines import spline
from hpcfit.energies.tabulated import Tabulated
from hpcfit.errors import InputError

CHARGE = ("charge", "q")  # names of parameters that may be the charges of the NonbondedForce
OF_PLACES = ("distance", "angle", "dihedral", "pointdistance", "pointangle", "pointdihedral")


class _Items(NamedTuple):
    """The words of a force's interface. item: of its rows. atoms: in a row."""

    item: str
    atoms: int

    def count(self, force) -> int:
        """The number of rows."""
        return getattr(force, f"getNum{self.item}s")()

    def row(self, force) -> Callable:
        """A row by its number."""
        return getattr(force, f"get{self.item}Parameters")

    def names(self, force) -> list[str]:
        """The names of the parameters of a row."""
        count = getattr(force, f"getNumPer{self.item}Parameters")()
        return [getattr(force, f"getPer{self.item}ParameterName")(number) for number in range(count)]


class _Parts:
    """The expressions, tables, common parameters and parameters of items of one custom force."""

    def __init__(
        self,
        force: Any,
        types: Types,
        items: _Items,
        texts: list[str],
        variables: set[str],
        ends: tuple[str, ...] = ("",),
        functions: tuple[str, ...] = (),
    ):
        """ends: what stands behind the name of an item's parameter in an expression: 1 and 2 for a1 and a2."""
        self.force, self.types, self.items, self.prefix = force, types, items, types.prefix(_prefix(force))
        self.tables, self._table_columns = _tables(force, types, self.prefix)
        self.atoms, self._rows = table(items.count(force), items.row(force), items.atoms)
        own = items.names(force)
        common = [force.getGlobalParameterName(number) for number in range(force.getNumGlobalParameters())]
        known_functions = {*self.tables, *functions}
        self.expressions = [parse(text, functions=known_functions, source=force.getName()) for text in texts]
        for expression in self.expressions:
            known = variables | set(common) | {name + end for name in own for end in ends}
            require_names(expression, known, source=force.getName())
        chosen = self._chosen()
        self.common = {name: self._common(number, name in chosen) for number, name in enumerate(common)}
        self.own = self._own(own, {name for name in own if any(name + end in chosen for end in ends)})

    def _chosen(self) -> set[str]:
        """The names that choose entries of tables of whole numbers."""
        discrete = {name for name, one in self.tables.items() if one.spline is None}
        return {name for expression in self.expressions for name in expression.arguments_of(discrete)}

    def _common(self, number: int, constant: bool) -> Column:
        name = self.force.getGlobalParameterName(number)
        value = self.force.getGlobalParameterDefaultValue(number)
        return fixed([value]) if constant else self.types.scalar(f"global.{name}", value)

    def _own(self, names: list[str], constant: set[str]) -> dict[str, Column]:
        columns = dict(zip(names, self._rows))
        shared = {name: self.types.shared("charge", columns[name]) for name in names if name in CHARGE}
        shared = {name: column for name, column in shared.items() if column is not None}
        zero = {name: (column == 0) | (name in constant) for name, column in columns.items()}
        items = self.atoms if self.items.atoms else np.arange(len(self.atoms))
        left = {name: column for name, column in columns.items() if name not in shared}
        found = self.types.columns(self.prefix, left, items, constant=zero) if left else {}
        return {name: shared.get(name) or found[name] for name in names}

    def write(self, force, parameters) -> None:
        """Puts parameters into another copy of the force."""
        for number, column in enumerate(self.common.values()):
            force.setGlobalParameterDefaultValue(number, float(column.values(parameters)[0]))
        for number, column in enumerate(self._table_columns):
            function = force.getTabulatedFunction(number)
            function.setFunctionParameters(*_with_values(function, np.asarray(column.values(parameters)).tolist()))
        if not self.own:
            return
        put = getattr(force, f"set{self.items.item}Parameters")
        for item, row in enumerate(values(parameters, *self.own.values())):
            put(item, *self._atoms_of(item), row)

    def _atoms_of(self, item: int) -> list:
        """The atoms of a row as OpenMM's interface wants them: a list of them in compound bonds."""
        atoms = numbers(self.atoms[item])
        return [atoms] if self.force.__class__.__name__ == "CustomCompoundBondForce" else atoms

    def term(self) -> dict[str, Any]:
        """The fields that all terms of expressions share."""
        return {"own": self.own, "common": self.common, "tables": self.tables}


def _prefix(force) -> str:
    """The name of the force, as `custom_bond`, or as its owner has named it."""
    name = force.getName().removesuffix("Force")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().replace(" ", "_").replace(".", "_")


def _tables(force, types: Types, prefix: str) -> tuple[dict[str, Tabulated], list[Column]]:
    found, columns = {}, []
    count = force.getNumTabulatedFunctions() if hasattr(force, "getNumTabulatedFunctions") else 0
    for number in range(count):
        name, function = force.getTabulatedFunctionName(number), force.getTabulatedFunction(number)
        tabulated = _tabulated(function, types, f"{prefix}.{name}", force)
        found[name] = tabulated
        columns.append(tabulated.values)
    return found, columns


def _tabulated(function, types: Types, leaf: str, force) -> Tabulated:
    kind = function.__class__.__name__
    sizes, numbers_, limits = _parts_of_table(function)
    prefix, _, name = leaf.rpartition(".")
    column = types.columns(prefix, {name: numbers_}, None, constant={name: numbers_ == 0})[name]
    if kind.startswith("Discrete"):
        return Tabulated(column, None, sizes)
    if not kind.startswith("Continuous"):
        raise InputError(f"{force.getName()} has a {kind}, which hpcfit does not read", remedy="use a Continuous1D")
    ranges = list(zip(limits[::2], limits[1::2]))
    return Tabulated(column, spline(ranges, sizes, periodic=function.getPeriodic()), sizes)


def _parts_of_table(function) -> tuple[tuple[int, ...], np.ndarray, list[float]]:
    """Its sizes, values and limits, from OpenMM's ([sizes …,] values[, limits …])."""
    parts = [plain(part) for part in function.getFunctionParameters()]
    place = next(number for number, part in enumerate(parts) if isinstance(part, list | tuple))
    table_values = np.array(parts[place], dtype=float)
    sizes = tuple(int(size) for size in parts[:place]) or (len(table_values),)
    return sizes, table_values, [float(limit) for limit in parts[place + 1 :]]


def _with_values(function, table_values: list[float]) -> list:
    parts = [plain(part) for part in function.getFunctionParameters()]
    return [table_values if isinstance(part, list | tuple) else part for part in parts]


def bonded(force: Any, types: Types) -> Read:
    """CustomBondForce, CustomAngleForce, CustomTorsionForce and CustomCompoundBondForce."""
    compound = force.__class__.__name__ == "CustomCompoundBondForce"
    if compound:
        items = _Items("Bond", force.getNumParticlesPerBond())
        variables = {f"{kind}{number + 1}" for kind in "pxyz" for number in range(items.atoms)}
    else:
        items, variable = {
            "CustomBondForce": (_Items("Bond", 2), "r"),
            "CustomAngleForce": (_Items("Angle", 3), "theta"),
            "CustomTorsionForce": (_Items("Torsion", 4), "theta"),
        }[force.__class__.__name__]
        variables = {variable}
    parts = _Parts(force, types, items, [force.getEnergyFunction()], variables, functions=OF_PLACES if compound else ())
    periodic = force.usesPeriodicBoundaryConditions()
    term = CustomBonded(
        expression=parts.expressions[0], atoms=parts.atoms, periodic=periodic, compound=compound, **parts.term()
    )
    return Read((term,), parts.write)


def external(force: Any, types: Types) -> Read:
    """CustomExternalForce."""
    texts, functions = [force.getEnergyFunction()], ("periodicdistance",)
    parts = _Parts(force, types, _Items("Particle", 1), texts, set("xyz"), functions=functions)
    term = CustomExternal(expression=parts.expressions[0], atoms=parts.atoms[:, 0], **parts.term())
    return Read((term,), parts.write)


def pairs(force: Any, types: Types, box: Box) -> Read:
    """CustomNonbondedForce."""
    if force.getNumComputedValues():
        raise InputError(f"{force.getName()} has computed values, which hpcfit does not read", remedy="write them out")
    parts = _Parts(force, types, _Items("Particle", 0), [force.getEnergyFunction()], {"r"}, ("1", "2"))
    atoms = force.getNumParticles()
    excluded = _excluded(force) + _outside_of_groups(force, atoms)
    source = pairs_of(force, atoms, excluded, box)
    start = plain(force.getSwitchingDistance()) if source.cutoff and force.getUseSwitchingFunction() else None
    tail = None
    if source.periodic and force.getUseLongRangeCorrection():
        if force.getNumInteractionGroups():
            raise InputError(f"{force.getName()} has interaction groups and a long-range correction, which hpcfit does"
                             " not compute together", remedy="switch the correction off")  # fmt: skip
        tail = kind_pairs(tuple(parts.own.values()), atoms)
    term = CustomPairs(expression=parts.expressions[0], pairs=source, switch_from=start, tail=tail, **parts.term())
    return Read((term,), parts.write)


def _excluded(force) -> list[tuple[int, int]]:
    return [tuple(force.getExclusionParticles(number)) for number in range(force.getNumExclusions())]


def _outside_of_groups(force, atoms: int) -> list[tuple[int, int]]:
    """The pairs that no interaction group of the force holds; none where it has no groups."""
    groups = [force.getInteractionGroupParameters(number) for number in range(force.getNumInteractionGroups())]
    if not groups:
        return []
    inside = np.zeros((atoms, atoms), dtype=bool)
    for one, other in groups:
        inside[np.ix_(list(one), list(other))] = True
    return np.argwhere(np.triu(~(inside | inside.T), 1)).tolist()


def gb(force: Any, types: Types, box: Box) -> Read:
    """CustomGBForce."""
    value_steps = [force.getComputedValueParameters(number) for number in range(force.getNumComputedValues())]
    energy_steps = [force.getEnergyTermParameters(number) for number in range(force.getNumEnergyTerms())]
    names = [name for name, _, _ in value_steps]
    texts = [text for _, text, _ in value_steps] + [text for text, _ in energy_steps]
    variables = {"r", *"xyz", *names, *(name + end for name in names for end in "12")}
    parts = _Parts(force, types, _Items("Particle", 0), texts, variables, ("", "1", "2"))
    over = {force.SingleParticle: SINGLE, force.ParticlePair: PAIRS, force.ParticlePairNoExclusions: ALL_PAIRS}
    kinds = [over[kind] for *_, kind in (*value_steps, *energy_steps)]
    steps = [
        Step(name, kind, expression)
        for name, kind, expression in zip([*names, *[""] * len(energy_steps)], kinds, parts.expressions)
    ]
    atoms = force.getNumParticles()
    term = CustomGB(
        values=tuple(steps[: len(names)]),
        energies=tuple(steps[len(names) :]),
        pairs=pairs_of(force, atoms, _excluded(force), box),
        all_pairs=pairs_of(force, atoms, (), box),
        **parts.term(),
    )
    return Read((term,), parts.write)
