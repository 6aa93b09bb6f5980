"""The systems of a config, opened: energy, parameters, where they start and how they move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.columns import Column
from hpcfit.energies.constraints import Constraints
from hpcfit.energies.energy import Energy, require_used
from hpcfit.energies.geometry import require_box
from hpcfit.energies.lists import Lists, PairSource
from hpcfit.energies.own_form import OwnForm, load_form, require_form
from hpcfit.energies.systems import LoadedSystem, from_system
from hpcfit.errors import InputError, check_is_file
from hpcfit.kinds.force_field.config import EnergyConfig
from hpcfit.kinds.force_field.simulated.given import GivenFrames, open_frames
from hpcfit.kinds.force_field.simulated.systems_config import StateConfig
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.physics.openmm_library import import_openmm
from hpcfit.readers.bonding import molecules
from hpcfit.readers.boundary import loaded_array, reading
from hpcfit.readers.topology import Structure, read_structure, read_system
from hpcfit.simulation.langevin import SCHEMES, Bath, Scheme
from hpcfit.simulation.model import deserialized

HOTTEST = 80.0  # kT; a particle of a system in equilibrium has more once in e^80
WAY = 30.0  # times the thermal way of a step, beyond which a particle has been thrown
DENSER = 1.25  # than its starts, that a system may become at constant pressure
SKIN = 0.12  # of a list of neighbours, over the shortest cut-off
OFF = 0.2  # of a constrained distance, up to which a start is brought onto it: another model of water, not another atom
# Slots of lists over all pairs, below which lists save more than their renewals cost; of systems so large that what is
# computed of all pairs leaves the cache, 512 particles take 0.44 of the time by lists of 0.58 of the pairs.
WORTH, WORTH_BEYOND_CACHE = 0.5, 0.9
CACHED = 1 << 16  # pairs


@dataclass(frozen=True)
class Opened:
    """A system that was read. positions: [n, N, 3] nm, n starts; box: [3, 3] nm or None; labels: of the entries of each
    class of parameters. molecules: the atoms of each. loaded: the System of OpenMM that it is of, if any; structure: of
    its topology, if any; given: its frames, where they are, the first of which is where it starts."""

    config: EnergyConfig
    potential: Energy
    parameters: dict[str, np.ndarray]
    labels: dict[str, list[str]]
    masses: np.ndarray
    positions: np.ndarray
    box: np.ndarray | None
    molecules: tuple[tuple[int, ...], ...]
    loaded: LoadedSystem | None = None
    structure: Structure | None = None
    given: GivenFrames | None = None

    @property
    def name(self) -> str:
        """The name in the config."""
        return self.config.name

    def entries(self, name: str) -> tuple[str, list[int]]:
        """The class and the entries of a parameter: `lj.sigma`, or `lj.sigma:HOH.O`."""
        if self.loaded is not None:
            return self.loaded.entries(name)
        leaf, colon, label = name.partition(":")
        if colon and label not in self.labels[leaf]:
            raise InputError(f"{leaf} has no entry {label}", remedy=f"use one of {', '.join(self.labels[leaf])}")
        return leaf, [self.labels[leaf].index(label)] if colon else list(range(len(self.labels[leaf])))

    def atoms(self, chosen: str | Sequence[int], key: str) -> tuple[int, ...]:
        """The atoms of a selection in MDAnalysis's language, of a list of numbers, or "all"."""
        if chosen == "all":
            return tuple(range(len(self.masses)))
        if isinstance(chosen, str):
            if self.structure is None:
                raise InputError(f"{key} = '{chosen}' selects by names", remedy="give a topology, or numbers")
            return tuple(map(int, self.structure.particles.select(chosen)))
        for atom in chosen:
            if not 0 <= atom < len(self.masses):
                raise InputError(f"{key} names atom {atom} of {len(self.masses)}", remedy="atoms count from 0")
        return tuple(chosen)

    @property
    def elements(self) -> tuple[str, ...]:
        """The elements of all atoms, none without a topology."""
        return () if self.structure is None else self.structure.particles.elements

    @property
    def residues(self) -> tuple[tuple[int, ...], ...]:
        """The atoms of each residue of the topology, none without one."""
        return () if self.structure is None else _parts(self.structure.particles.residue)

    @property
    def charges(self) -> dict[str, np.ndarray]:
        """The entries [N] that the charges of the particles take, by class of parameters; -1 for a constant."""
        columns = [getattr(term, "charge", None) for term in self.potential.terms]
        return {one.leaf: one.index for one in columns if isinstance(one, Column) and one.leaf}

    @property
    def n_constraints(self) -> int:
        """The number of constraints of distances."""
        return 0 if self.constraints is None else int(np.sum(self.constraints.there))

    @cached_property
    def energy(self) -> float:
        """The energy where it starts, kJ/mol."""
        return float(jax.jit(Energy.__call__)(self.potential, self.positions[0], self.parameters, self.box))

    @cached_property
    def kT(self) -> float:
        """kJ/mol."""
        return self.config.kT or GAS_CONSTANT * self.config.temperature

    @property
    def scheme(self) -> Scheme:
        """One step of the integrator; a particle without mass does not move by itself."""
        bath = Bath(self.kT, self.config.friction, self.config.step)
        return SCHEMES[self.config.integrator](bath, np.where(self.masses > 0, self.masses, np.inf))

    @property
    def constraints(self) -> Constraints | None:
        """The constraints of distances, if there are any."""
        found = None if self.loaded is None else self.loaded.constraints
        return None if found is None or not len(found.atoms) else found

    @property
    def lengths(self) -> str:
        """The class of parameters that are constrained distances; empty if there is none."""
        return "" if self.constraints is None else self.constraints.lengths.leaf

    @cached_property
    def lists(self) -> Lists | None:
        """Lists of neighbours with room for the densest start, denser ones still where the volume may change, or None
        where all pairs cost less."""
        listed = self._with_cutoff
        if not listed:
            return None
        skin = SKIN * min(source.cutoff for source in listed)
        found = self.potential.lists(*self._densest, skin=skin)
        needed = any(source.table is None for source in listed)
        pairs = _slots_of_all(listed) * len(self.masses)
        worth = (WORTH if pairs < CACHED else WORTH_BEYOND_CACHE) * _slots_of_all(listed)
        return found if needed or _slots(found) < worth else None

    @property
    def _densest(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The starts and the box, denser where boxes may differ, for which lists need room."""
        if self.box is None or not self._boxes_differ:
            return self.positions, self.box
        return DENSER ** (-1 / 3) * self.positions, DENSER ** (-1 / 3) * self.box

    @property
    def _boxes_differ(self) -> bool:
        pressed = isinstance(self.config, StateConfig) and self.config.pressure is not None
        return pressed or (self.given is not None and self.given.boxed)

    def with_room(self) -> Opened:
        """The system with room for lists in energies of single frames; raises InputError where these cannot be."""
        return replace(self, potential=self.potential.with_room(*self._densest, source=f"system '{self.name}'"))

    @property
    def _with_cutoff(self) -> list[PairSource]:
        return [source for source in self.potential.pair_sources.values() if source.cutoff is not None]

    @property
    def pairs(self) -> str:
        """The pairs that forces run over, in words."""
        if self.lists is None:
            return "all pairs"
        skin, whole = next(iter(self.lists.values())).skin, _slots_of_all(self._with_cutoff)
        return f"lists of up to {_slots(self.lists)} of {whole} pairs a particle, skin {skin:.3g} nm"

    @property
    def pressed(self) -> str:
        """The pressure, in words, empty at constant volume."""
        return "" if self.config.pressure is None else f", {self.config.pressure:g} bar"

    @property
    def limits(self) -> tuple[float, float]:
        """The kinetic energy of a particle, kJ/mol, and its way in a step, nm, above which it has exploded."""
        lightest, step = self.masses[self.masses > 0].min(), self.config.step
        if self.config.integrator == "overdamped":
            return np.inf, WAY * float(np.sqrt(2 * self.kT * step / (self.config.friction * lightest)))
        return HOTTEST * self.kT, WAY * step * float(np.sqrt(self.kT / lightest))


def open_system(config: StateConfig) -> Opened:
    """Read and check all that a system is of."""
    opened = open_energy(config, config.frames)
    if opened.constraints is not None and config.integrator == "overdamped":
        raise InputError(
            f"the System in {config.system} has {opened.n_constraints} constraints, which integrator = 'overdamped'"
            " does not keep",
            remedy="set integrator = 'middle', or make it with constraints=None and rigidWater=False",
        )
    return opened


def open_energy(config: EnergyConfig, frames: Sequence[str] = ()) -> Opened:
    """Read and check a system that need not move. frames: files of those that are given."""
    opened = _own(config) if config.energy is not None else _of_openmm(config)
    if len(opened.positions[0]) != len(opened.masses):
        raise InputError(
            f"system '{config.name}' has {len(opened.masses)} particles; {config.positions or config.topology} has"
            f" {len(opened.positions[0])}",
            remedy="give the files of one system, virtual sites included",
        )
    if frames:
        opened = _with_frames(opened, frames)
    opened = _on_constraints(opened.with_room())
    _check_energy(opened)
    return opened


def _with_frames(opened: Opened, frames: Sequence[str]) -> Opened:
    found = open_frames(opened.name, frames, opened.masses, opened.box)
    x, box = found.read(0, 1)
    return replace(opened, positions=x, box=opened.box if box is None else box[0], given=found)


def _of_openmm(config: EnergyConfig) -> Opened:
    import_openmm()
    system, source = deserialized(config.system, import_openmm().System), f"the System in {config.system}"
    facts = read_system(config.system)
    structure = None if config.topology is None else read_structure(config.topology, facts)
    names = None if structure is None else _names(structure)
    loaded = from_system(system, names=names, source=source)
    return Opened(
        config, loaded.energy, loaded.parameters, loaded.labels, loaded.masses, _positions(config, structure),
        loaded.box, _molecules(system, source), loaded, structure,
    )  # fmt: skip


def _on_constraints(opened: Opened) -> Opened:
    """The system with its starts brought onto its constraints, as files round positions."""
    kept = opened.constraints
    if kept is None:
        return opened
    onto = jax.jit(jax.vmap(_projected, (None, 0, None)))
    found, off = map(np.asarray, onto(kept, opened.positions, opened.parameters))
    bad = np.flatnonzero(~np.all(np.isfinite(found), axis=(1, 2)) | (off > OFF))
    if len(bad):
        raise InputError(
            f"a constrained distance of system '{opened.name}' is off by {100 * off[bad[0]]:.3g} % in start {bad[0]}",
            remedy=f"start from positions that fulfil the constraints to {100 * OFF:g} %, each molecule whole",
        )
    return replace(opened, positions=found)


def _projected(constraints: Constraints, x: Any, parameters: Any) -> tuple[Any, Any]:
    """(positions on the constraints, the largest relative deviation before)"""
    return constraints.positions(x, x, parameters), constraints.violation(x, parameters)


def _slots(lists: Lists) -> int:
    return sum(listed.table.index.shape[1] for listed in lists.values())


def _slots_of_all(sources: Sequence[PairSource]) -> int:
    return sum(source.atoms // 2 for source in sources)


def _own(config: EnergyConfig) -> Opened:
    form = load_form(config.energy)
    structure = None if config.topology is None else read_structure(config.topology)
    positions = _positions(config, structure)
    values = {leaf: np.atleast_1d(np.array(value, float)) for leaf, value in sorted(config.parameters.items())}
    labels = {leaf: [str(n) if len(value) > 1 else "" for n in range(len(value))] for leaf, value in values.items()}
    masses = np.broadcast_to(np.array(config.masses, float), np.shape(config.masses) or positions.shape[1]).copy()
    box = None if config.box is None else np.array(config.box, float)
    box = np.diag(box) if box is not None and box.ndim == 1 else box
    molecules = _bonded(structure, len(masses))
    opened = Opened(config, Energy((form,)), values, labels, masses, positions, box, molecules, structure=structure)
    if box is not None:
        require_box(box, 0.0, source=f"system '{config.name}'")
    require_form(form, positions[0], values, box, name=config.energy)
    _check_all_used(opened, form)
    return opened


def _check_all_used(opened: Opened, form: OwnForm) -> None:
    """Raise InputError for a parameter that the function takes no notice of."""
    x = jnp.asarray(opened.positions[0])
    forces = jax.grad(form.function)
    slopes = jax.jit(jax.jacfwd(lambda theta: forces(x, theta, opened.box)))(opened.parameters)
    for leaf, slope in slopes.items():
        idle = np.flatnonzero(~np.any(np.asarray(slope) != 0, axis=(0, 1)))
        if len(idle):
            raise InputError(
                f"no force of {opened.config.energy} depends on parameter '{leaf}'"
                + (f", entry {idle[0]}" if len(opened.labels[leaf]) > 1 else ""),
                remedy="leave it out, or start where it has an effect: nothing would determine it",
            )


def _check_energy(opened: Opened) -> None:
    source = f"system '{opened.name}'"
    if opened.loaded is not None:
        of_terms = {leaf: values for leaf, values in opened.parameters.items() if leaf != opened.lengths}
        require_used(opened.loaded.energy, of_terms, source=source)
        opened.loaded.energy.require_box(opened.box, source=source)
    if not np.isfinite(opened.energy):
        raise InputError(
            f"the energy of {source} is {opened.energy} where it starts",
            remedy="minimise it first: atoms lie on each other",
        )


def _molecules(system: Any, source: str) -> tuple[tuple[int, ...], ...]:
    """The atoms of each molecule, as OpenMM finds them by bonds, constraints and virtual sites."""
    openmm = import_openmm()
    integrator, platform = openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    with reading(f"OpenMM cannot simulate {source}", "make it anew, until OpenMM does"):
        found = openmm.Context(system, integrator, platform).getMolecules()
    return tuple(sorted(tuple(sorted(atoms)) for atoms in found))


def _bonded(structure: Structure | None, N: int) -> tuple[tuple[int, ...], ...]:
    """The atoms of each molecule by the bonds of a topology; single atoms without one."""
    of_atom = np.arange(N) if structure is None else molecules(len(structure.particles), structure.particles.bonds)
    return _parts(of_atom)


def _parts(of_atom: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """The atoms of each part, from the number of the part that each atom [N] is of."""
    return tuple(tuple(np.flatnonzero(of_atom == number).tolist()) for number in range(of_atom.max() + 1))


def _names(structure: Structure) -> list[str]:
    """RESIDUE.ATOM of each atom."""
    particles = structure.particles
    return [f"{particles.residue_names[number]}.{name}" for number, name in zip(particles.residue, particles.names)]


def _positions(config: EnergyConfig, structure: Structure | None) -> np.ndarray:
    """The starts [n, N, 3] nm."""
    if config.positions is None:
        return structure.positions[None] / 10
    path: Path = config.positions
    check_is_file(path, "positions")
    with reading(f"positions {path} cannot be read by NumPy", "save them by numpy.save"):
        found = loaded_array(path)
    found = found[None] if found.ndim == 2 else found
    if found.ndim != 3 or found.dtype.kind not in "fiu" or not np.all(np.isfinite(found)) or not len(found):
        raise InputError(
            f"positions {path} have shape {list(found.shape)} and type {found.dtype}, or are not all finite",
            remedy="give finite numbers [N, 3] or [starts, N, 3], nm",
        )
    return found.astype(float)
