"""The system that an observable is made for, and what it has to have for that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpcfit.energies.columns import Column, entries, fixed
from hpcfit.energies.coulomb import Coulomb, EwaldCoulomb
from hpcfit.energies.energy import Energy
from hpcfit.errors import InputError
from hpcfit.observables.geometry import Indices
from hpcfit.observables.observable import State

WHOLE = 1e-6  # of a lag: by how much it may be off a whole number of intervals


@dataclass(frozen=True)
class Site:
    """A system and its windows.

    select: (a selection of a config, its key) -> atoms. form: its energy function; start: its first frame, whose
    velocities are None where it has none; energy: that of this frame, kJ/mol. elements: of all atoms, none where no
    topology says them; molecules: the atoms of each; constraints: their number. interval: ps between two frames;
    frames: of a window that are averaged. pressure: bar, None where the volume is constant. curves: name -> Karplus
    curves with ``coefficients`` [3] Hz and an ``offset``, rad.
    """

    select: Callable[[Any, str], tuple[int, ...]]
    form: Energy
    start: State
    energy: float
    elements: tuple[str, ...]
    molecules: Indices
    constraints: int
    interval: float
    frames: int
    pressure: float | None = None
    curves: Mapping[str, Any] = field(default_factory=dict)

    # ---- atoms -----------------------------------------------------------------------------------------------------

    def rows(self, numbers: Sequence[Sequence[int]], key: str) -> Indices:
        """Rows of different atoms each."""
        for row in numbers:
            self.select(row, key)  # says where an atom is none
            if len(set(row)) != len(row):
                raise InputError(f"{key} has {list(row)}, which names an atom twice", remedy="correct the numbers")
        return tuple(map(tuple, numbers))

    def whole_molecules(self, chosen: Any, key: str) -> Indices:
        """The molecules of the chosen atoms."""
        atoms = set(self.select(chosen, key))
        for molecule in self.molecules:
            cut = atoms & set(molecule)
            if cut and len(cut) < len(molecule):
                raise InputError(
                    f"{key} has {len(cut)} of the {len(molecule)} atoms of the molecule of atom {molecule[0]}",
                    remedy="select whole molecules",
                )
        return tuple(molecule for molecule in self.molecules if molecule[0] in atoms)

    @property
    def degrees(self) -> int:
        """The degrees of freedom of velocities."""
        return 3 * int(np.count_nonzero(np.asarray(self.start.masses) > 0)) - self.constraints

    # ---- what a system may lack ------------------------------------------------------------------------------------

    def box(self, what: str) -> np.ndarray:
        """The box [3, 3] nm."""
        if self.start.box is None:
            raise InputError(f"{what} needs a box, and this system has none", remedy="use a periodic system")
        return np.asarray(self.start.box)

    def of_elements(self, what: str) -> tuple[str, ...]:
        """The elements of all atoms."""
        if not self.elements:
            raise InputError(f"{what} needs the elements of atoms", remedy="give the system its topology")
        return self.elements

    def varying_volume(self, what: str) -> float:
        """The pressure, bar."""
        self.box(what)
        if self.pressure is None:
            raise InputError(
                f"{what} needs frames of constant pressure; the volume of this system is constant",
                remedy="measure its pressure, at the density of the experiment",
            )
        return self.pressure

    def moving_atoms(self, chosen: Any, key: str) -> tuple[int, ...]:
        """Atoms with a mass."""
        atoms = self.select(chosen, key)
        bare = [atom for atom in atoms if not np.asarray(self.start.masses)[atom] > 0]
        if bare:
            raise InputError(f"{key} has atom {bare[0]}, a virtual site", remedy="select atoms with a mass")
        return atoms

    def require_velocities(self, what: str) -> None:
        """Raise InputError where frames have no velocities."""
        if self.start.v is None:
            raise InputError(
                f"{what} needs velocities, which the overdamped integrator has not",
                remedy='set integrator = "middle", or use displacements',
            )

    def column_of_charges(self, given: str | Sequence[float] | None) -> Column:
        """The charges of all atoms, e: those given, of a class of parameters, or of the energy."""
        N = len(np.asarray(self.start.masses))
        if given is None:
            return self._own_charges()
        if isinstance(given, str):
            return self._class_of_charges(given, N)
        if len(given) != N:
            raise InputError(f"{len(given)} charges are given for {N} atoms", remedy="give one for each atom")
        return fixed(given)

    def _own_charges(self) -> Column:
        found = [term.charge for term in self.form.terms if isinstance(term, Coulomb | EwaldCoulomb)]
        if not found:
            raise InputError("the energy of this system has no charges", remedy="give `charges`")
        return found[0]

    def _class_of_charges(self, name: str, N: int) -> Column:
        known = self.start.parameters
        if name not in known or np.size(known[name]) != N:
            has = "is no class of parameters" if name not in known else f"has {np.size(known[name])} entries"
            raise InputError(f"charges = '{name}' {has}; there are {N} atoms", remedy="name a class with an entry each")
        return entries(name, np.arange(N))

    # ---- times -----------------------------------------------------------------------------------------------------

    def lags(self, times: Sequence[float], key: str) -> tuple[int, ...]:
        """Lags in frames, of lags in ps."""
        found = []
        for time in times:
            lag = time / self.interval
            if abs(lag - round(lag)) > WHOLE * max(lag, 1):
                raise InputError(
                    f"{key} has {time:g} ps, which is {lag:.6g} times the {self.interval:g} ps between two frames",
                    remedy="give whole multiples, or change [problem] window and frames",
                )
            if round(lag) >= self.frames:
                raise InputError(
                    f"{key} has {time:g} ps; the {self.frames} frames of a window that are averaged span"
                    f" {(self.frames - 1) * self.interval:g} ps",
                    remedy="lengthen [problem] window, lower skipped, or shorten the lags",
                )
            found.append(round(lag))
        return tuple(found)
