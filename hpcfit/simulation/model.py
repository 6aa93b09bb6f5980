"""A system of [[simulate.system]] as OpenMM wants it: built from a structure and a force field, or deserialized."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcfit.config import SimulateConfig, SystemConfig
from hpcfit.errors import HpcfitError, InputError, check_is_file
from hpcfit.log import logger
from hpcfit.physics.openmm_library import import_openmm

ATTEMPTS_A_PIECE = 20  # of a barostat, at least: with fewer most of them find its volume step not yet adapted


@dataclass(frozen=True)
class Model:
    """A system to be simulated. system, start: OpenMM's System and, if any, State; positions: [particles, 3] nm.

    atoms: the particles that are written, those with an element (a virtual site has none); species: their atomic
    numbers.
    """

    system: Any
    start: Any | None
    positions: np.ndarray
    atoms: np.ndarray
    species: np.ndarray


def build_model(config: SystemConfig, temperature: float, pressure: float | None) -> Model:
    """The model at a temperature (K) and, where one is given, a pressure (bar).

    Raises InputError, with OpenMM's own words, for files that OpenMM cannot read or that do not fit together.
    """
    structure = _structure(config.topology)
    system = _system(config, structure.topology)
    _set_surroundings(system, config, temperature, pressure)
    start = None if config.state is None else deserialized(config.state, import_openmm().State)
    with refused(f"{config.state or config.topology} gives no positions"):
        positions = np.asarray((start or structure).getPositions(asNumpy=True)._value)
    elements = [atom.element for atom in structure.topology.atoms()]
    for what, count in ((config.topology, len(elements)), (config.state or config.topology, len(positions))):
        if count != system.getNumParticles():
            raise InputError(
                f"{what} has {count} atoms, system '{config.name}' has {system.getNumParticles()} particles",
                remedy="give the files of one system; virtual sites stand in the structure too",
            )
    atoms = np.array([number for number, element in enumerate(elements) if element is not None])
    species = np.array([elements[atom].atomic_number for atom in atoms], "<i4")
    return Model(system, start, positions, atoms, species)


def _structure(path: Path) -> Any:
    check_is_file(path, "structure")
    app = import_openmm().app
    reader = app.PDBxFile if path.suffix.lower() in (".cif", ".mmcif") else app.PDBFile
    with (
        refused(f"{path} cannot be read as a structure"),
        warnings.catch_warnings(record=True, action="always") as said,
    ):
        structure = reader(str(path))
    for warning in said[:1]:  # OpenMM says the same of every atom
        logger.warning("%s: %s (%d warnings)", path, warning.message, len(said))
    return structure


def _system(config: SystemConfig, topology: Any) -> Any:
    if config.system is not None:
        return deserialized(config.system, import_openmm().System)
    app = import_openmm().app
    # OpenMM's lengths are nm.
    cutoff = {} if config.nonbonded == "NoCutoff" else {"nonbondedCutoff": config.cutoff / 10}
    constraints = None if config.constraints == "none" else getattr(app, config.constraints)
    method = getattr(app, config.nonbonded)
    with refused(f"system '{config.name}' cannot be built of {config.topology} and {', '.join(config.force_field)}"):
        force_field = app.ForceField(*config.force_field)
        return force_field.createSystem(topology, nonbondedMethod=method, constraints=constraints, **cutoff)


def deserialized(path: Path, kind: type) -> Any:
    """The object of this class of OpenMM that was serialized to a file. Raises InputError for another file."""
    check_is_file(path)
    openmm = import_openmm()
    with refused(f"{path} cannot be read as an XML file of OpenMM"):
        found = openmm.XmlSerializer.deserialize(path.read_text(encoding="utf-8"))
        if not isinstance(found, kind):
            raise TypeError(f"it holds a {type(found).__name__}, not a {kind.__name__}")
        return found


def _set_surroundings(system: Any, config: SystemConfig, temperature: float, pressure: float | None) -> None:
    """Give barostats and thermostats that a System brings along this temperature; add a barostat for a pressure."""
    openmm = import_openmm()
    coupled = [force for force in system.getForces() if hasattr(force, "setDefaultTemperature")]
    for force in coupled:
        force.setDefaultTemperature(temperature)
    if pressure is None:
        return
    if any(map(_is_barostat, coupled)):
        raise InputError(
            f"[simulate] pressure = {pressure}, but {config.system} has a barostat of its own",
            remedy="leave pressure out",
        )
    if not system.usesPeriodicBoundaryConditions():
        raise InputError(
            f"[simulate] pressure = {pressure}, but system '{config.name}' has no periodic box",
            remedy="leave pressure out, or choose nonbonded = 'PME'",
        )
    system.addForce(openmm.MonteCarloBarostat(pressure, temperature))


def check_barostats(system: Any, simulate: SimulateConfig) -> None:
    """Raise InputError where a piece is too short for a barostat, which begins anew in each of them.

    Its counter of steps to the next attempt begins at 0, and the size of its changes of volume is adapted again; the
    attempts until then are no equilibrium, and in pieces below its frequency there are none at all.
    """
    steps = simulate.piece * simulate.steps_a_frame
    for barostat in filter(_is_barostat, system.getForces()):
        least = ATTEMPTS_A_PIECE * barostat.getFrequency()
        if steps < least:
            raise InputError(
                f"[simulate] piece = {simulate.piece}, interval = {simulate.interval:g} ps and"
                f" step = {simulate.step:g} ps give pieces of {steps} steps; {type(barostat).__name__} changes the"
                f" volume every {barostat.getFrequency()} and begins anew in each piece, which needs {least} or more",
                remedy=f"set piece = {-(-least // simulate.steps_a_frame)} or more",
            )


def _is_barostat(force: Any) -> bool:
    return "Barostat" in type(force).__name__


@contextlib.contextmanager
def refused(what: str) -> Iterator[None]:
    """Turn whatever OpenMM raises for bad input into an error that begins with `what`."""
    try:
        yield
    except HpcfitError:
        raise
    except Exception as error:  # OpenMM raises whatever its parsing met
        raise InputError(f"{what}: {error}", remedy="correct [[simulate.system]] or the file") from None
