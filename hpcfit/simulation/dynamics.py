"""Langevin dynamics of one replica with OpenMM, piece by piece.

Each piece is a Context of its own, which begins with the State that the piece before left, and with seeds of its own.
So a trajectory that was interrupted between two pieces goes on as if it had not been: there is nothing else to carry
over, and on the CPU platform with one thread the same State and seeds give the same bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hpcfit.errors import HpcfitError, InputError
from hpcfit.physics.openmm_library import import_openmm
from hpcfit.simulation.model import build_model, check_barostats, refused
from hpcfit.simulation.platforms import choose_platform
from hpcfit.simulation.replicas import Replica
from hpcfit.store.h5md import ELEMENTS, Rows
from hpcfit.store.piece import START, Piece, Tail

FURTHEST = 1e6  # A; beyond it float32 has no tenth of an A, and an atom that is there was thrown there
CALMER = (
    "shorten [simulate] step, or begin with a structure without overlaps (minimize = true, a longer equilibration);"
    " the pieces before are kept"
)


class Exploded(InputError):
    """Atoms of one replica flew off; others may well go on."""


class Dynamics:
    """One replica on the platform of this worker."""

    def __init__(self, replica: Replica):
        simulate = replica.simulate
        self._openmm = import_openmm()
        self._replica, self._simulate = replica, simulate
        self.platform = choose_platform(simulate.platform, simulate.threads)
        self._model = build_model(replica.system, replica.temperature, simulate.pressure)
        check_barostats(self._model.system, simulate)
        self._made_by = {
            "openmm": self._openmm.version.version,
            "platform": self.platform.name,
            **self.platform.properties,
        }

    def start(self) -> Piece:
        """The State behind minimisation and equilibration, as a piece without frames; time begins there."""
        context = self._context(START)
        with refused(f"{self._replica.name} cannot begin with the positions given"):
            self._place(context)
        with self._failures("in the equilibration"):
            if self._simulate.minimize:
                self._openmm.LocalEnergyMinimizer.minimize(context)
            if self._simulate.minimize or not _has_velocities(self._model.start):
                seed = self._replica.seed("velocities", START)
                context.setVelocitiesToTemperature(self._replica.temperature, seed)
            context.getIntegrator().step(round(self._simulate.equilibration / self._simulate.step))
            self._observed(context)
        context.setTime(0)
        context.setStepCount(0)
        return self._piece(context, START, 0, Rows(np.empty(0, "<i8"), np.empty(0), {}), "")

    def piece(self, before: Tail, frames: int, watch: Callable[[int], None]) -> Piece:
        """So many frames after those before; `watch` is told the number of each frame when it is there."""
        context = self._context(before.number + 1)
        context.setState(self._openmm.XmlSerializer.deserialize(before.state))
        step = (before.stop + 1 + np.arange(frames)) * self._simulate.steps_a_frame
        time = step * self._simulate.step
        values: dict[str, np.ndarray] = {}
        for row in range(frames):
            with self._failures(f"in the {self._simulate.interval:g} ps before {time[row]:g} ps"):
                context.getIntegrator().step(self._simulate.steps_a_frame)
                observed = self._observed(context)
            values = values or {name: _empty(name, frames, value) for name, value in observed.items()}
            for name, value in observed.items():
                values[name][row] = value
            watch(before.stop + row + 1)
        return self._piece(context, before.number + 1, before.stop, Rows(step, time, values), before.checksum)

    def _piece(self, context: Any, number: int, first: int, rows: Rows, follows: str) -> Piece:
        state = context.getState(positions=True, velocities=True, parameters=True)
        text = self._openmm.XmlSerializer.serialize(state)
        digest = self._replica.settings.digest
        return Piece(number, first, self._model.species, rows, text, digest, follows, self._made_by)

    def _context(self, number: int) -> Any:
        """A Context for one piece, without positions."""
        replica, simulate = self._replica, self._simulate
        for index, force in enumerate(self._model.system.getForces()):
            if hasattr(force, "setRandomNumberSeed"):
                force.setRandomNumberSeed(replica.seed(f"force {index}", number))
        integrator = self._openmm.LangevinMiddleIntegrator(replica.temperature, simulate.friction, simulate.step)
        integrator.setRandomNumberSeed(replica.seed("integrator", number))
        with refused(f"system '{replica.system.name}' cannot run on {self.platform.name}"):
            return self.platform.context(self._model.system, integrator)

    def _place(self, context: Any) -> None:
        start = self._model.start
        if start is not None and self._periodic:
            context.setPeriodicBoxVectors(*start.getPeriodicBoxVectors())
        context.setPositions(self._model.positions)
        if _has_velocities(start):
            context.setVelocities(start.getVelocities())
        for name, value in self._parameters(context).items():
            context.setParameter(name, value)
        context.computeVirtualSites()

    def _parameters(self, context: Any) -> dict[str, float]:
        """The parameters of the State given that mean something here: not the temperature, which the config decides."""
        start, openmm = self._model.start, self._openmm
        if start is None or not start.getDataTypes() & openmm.State.Parameters:
            return {}
        decided = {force.Temperature() for force in self._model.system.getForces() if hasattr(force, "Temperature")}
        if self._simulate.pressure is not None:
            decided.add(openmm.MonteCarloBarostat.Pressure())
        # A State of constant pressure may well begin a replica of constant volume, which lacks the barostat's.
        known = set(context.getParameters()) - decided
        return {name: value for name, value in dict(start.getParameters()).items() if name in known}

    @property
    def _periodic(self) -> bool:
        return self._model.system.usesPeriodicBoundaryConditions()

    def _observed(self, context: Any) -> dict[str, Any]:
        """What is written of the present frame, in the units of the file."""
        unit, simulate, atoms = self._openmm.unit, self._simulate, self._model.atoms
        state = context.getState(positions=True, forces=simulate.forces, energy=simulate.energies)
        found = {"positions": state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)[atoms]}
        _check_positions(found["positions"])
        if self._periodic:
            found["box"] = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
        if simulate.forces:
            force_unit = unit.kilojoule_per_mole / unit.angstrom
            found["forces"] = state.getForces(asNumpy=True).value_in_unit(force_unit)[atoms]
        if simulate.energies:
            found["potential_energy"] = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        return found

    @contextlib.contextmanager
    def _failures(self, when: str) -> Iterator[None]:
        """Say of which replica and when something went wrong."""
        try:
            yield
        except (FloatingPointError, self._openmm.OpenMMException) as error:
            what = f"{self._replica.name}, {when}: {error}"
            if isinstance(error, FloatingPointError) or "NaN" in str(error):
                raise Exploded(what, remedy=CALMER) from None
            raise HpcfitError(what, remedy="see what OpenMM says; the pieces before are kept") from None


def _empty(name: str, frames: int, value: Any) -> np.ndarray:
    return np.empty((frames, *np.shape(value)), ELEMENTS[name].dtype)


def _has_velocities(state: Any) -> bool:
    return state is not None and bool(state.getDataTypes() & type(state).Velocities)


def _check_positions(positions: np.ndarray) -> None:
    thrown = ~(np.abs(positions) < FURTHEST).all(axis=1)
    if thrown.any():
        atom = int(np.argmax(thrown))
        raise FloatingPointError(f"atom {atom} is at {positions[atom].tolist()} A")
