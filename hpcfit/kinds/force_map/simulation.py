"""[problem.force_matching.simulation]: a short simulation of the coarse-grained model beside the mapped frames."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from hpcfit.bead_models.free_energy import (
    Landscape,
    blocks_of,
    common_edges,
    compare,
    end_to_end,
    landscape,
    pair_distance,
    profile,
)
from hpcfit.bead_models.openmm_model import build_system, system_xml
from hpcfit.bead_models.tables import Term
from hpcfit.fit.stages import Fits
from hpcfit.kinds.force_map.case import ForceMapCase
from hpcfit.kinds.force_map.files import FreeEnergy, SimulatedBeads, Slow
from hpcfit.kinds.force_map.neural_frames import TrainedPotential
from hpcfit.log import logger
from hpcfit.physics.superposition import rmsd
from hpcfit.simulation.bead_engines import JaxForces, OpenMMSystem
from hpcfit.simulation.beads import Engine, Langevin, Walkers
from hpcfit.store.forces import open_force_store
from hpcfit.store.stream import block_frames

SIMULATION = "simulation"  # the stage
WALKERS = 4
MOST_REFERENCE = 20_000  # mapped frames that are compared with
LAG = 10  # frames of the reference, at most a twentieth of a trajectory
BINS = 40


class Simulated(NamedTuple):
    """A simulation of the model compared with the mapped frames."""

    beads: SimulatedBeads
    metrics: dict[str, Any]


def simulate(
    case: ForceMapCase, fits: Fits, terms: Sequence[Term], neural: Sequence[TrainedPotential]
) -> Simulated:  # fmt: skip
    """Simulate the chosen map's model from mapped frames, the walkers dealt over ranks, and compare free energies;
    collective."""
    choice, temperature = case.config.problem.force_matching.simulation, case.config.problem.temperature
    world = fits.grid.world
    reference, box = world.on_all(lambda: _mapped(case) if world.is_root else (None, None))
    start, box = world.bcast((_starts(reference), box) if world.is_root else None)
    plan = Langevin(
        temperature, -(-choice.frames // WALKERS), choice.interval, choice.step, choice.friction,
        equilibration=50 * choice.interval, seed=choice.seed,
    )  # fmt: skip
    if world.is_root:
        logger.info("simulating the %s model: %d walkers, %d frames each", choice.model, WALKERS, plan.frames)
    make = partial(_linear, terms) if choice.model == "linear" else partial(_neural, neural[0])
    engine, model = world.on_all(lambda: make(case, plan, box))
    made_from = hashlib.sha256(repr(plan).encode() + start.tobytes() + model).hexdigest()
    frames = fits.stage(SIMULATION, Walkers(engine, start, world), {"model, plan and start": made_from})
    return fits.on_root(lambda: _compared(reference, list(frames["frames"]), box, temperature, choice.model))


def _linear(terms: Sequence[Term], case: ForceMapCase, plan: Langevin, box: np.ndarray | None) -> tuple[Engine, bytes]:
    """The engine of the linear model, and all that the model is made of."""
    system = build_system(terms, case.coarse.masses, case.types, box)
    return OpenMMSystem(system, plan), system_xml(system).encode()


def _neural(
    trained: TrainedPotential, case: ForceMapCase, plan: Langevin, box: np.ndarray | None
) -> tuple[Engine, bytes]:
    """The same of a neural one."""
    problem, shared = trained.problem, trained.fitted.params.shared
    leaves = jax.tree.leaves((problem, shared, case.coarse.masses, box))
    engine = JaxForces(lambda R, cell: problem.forces(shared, R, cell), case.coarse.masses, plan, box)
    return engine, b"".join(np.asarray(leaf).tobytes() for leaf in leaves)


def _starts(reference: Sequence[np.ndarray]) -> np.ndarray:
    """Frames [WALKERS, N, 3], A, from all over the mapped ones."""
    every = np.concatenate(reference)
    return every[np.linspace(0, len(every) - 1, WALKERS).astype(int)]


def _mapped(case: ForceMapCase) -> tuple[list[np.ndarray], np.ndarray | None]:
    """The mapped trajectories [T, N, 3], thinned where there are many frames, and the mean box."""
    store = open_force_store(case.mapped_folder)
    blocks = store.blocks()
    kept = blocks[:: max(1, -(-store.n_frames // MOST_REFERENCE))]
    by_source: dict[str, list[np.ndarray]] = {}
    boxes = []
    for block, frames, _ in block_frames(store, kept):
        by_source.setdefault(store.shards[block.shard].source, []).append(frames.positions)
        boxes += [] if frames.box is None else [frames.box.mean(axis=0)]
    return [np.concatenate(parts) for parts in by_source.values()], np.mean(boxes, axis=0) if boxes else None


def _compared(
    reference: list[np.ndarray], model: list[np.ndarray], box: np.ndarray | None, temperature: float, kind: str
) -> Simulated:
    a, b = np.concatenate(reference), np.concatenate(model)
    walker = np.repeat(np.arange(len(model)), [len(one) for one in model])
    profiles = [
        _profile(name, label, of(a), of(b), walker, temperature) for name, (label, of) in _coordinates(a, box).items()
    ]
    slow = None
    if a.shape[1] >= 3 and box is None:
        lag = max(1, min(LAG, min(map(len, reference)) // 20))
        slow = landscape(reference, model, lag, temperature, BINS)
    metrics = {
        "model": kind,
        "frames": len(b),
        "reference_frames": len(a),
        "profiles": [{"name": one.name, "divergence": one.divergence, "error": one.error} for one in profiles],
        "slow": None if slow is None else {
            **slow.comparison._asdict(), "timescales_in_frames": slow.timescales.tolist(),
        },
    }  # fmt: skip
    return Simulated(SimulatedBeads(profiles, None if slow is None else _slow(slow)), metrics)


def _slow(found: Landscape) -> Slow:
    return Slow(*found.edges, found.reference, found.coarse, found.comparison.js, found.comparison.error)


def _coordinates(reference: np.ndarray, box: np.ndarray | None) -> dict[str, tuple[str, Any]]:
    """What free energies are compared along: label and function of frames."""
    if reference.shape[1] == 2:

        def distance(R: np.ndarray) -> np.ndarray:
            return pair_distance(R, 0, 1, None if box is None else np.broadcast_to(box, (len(R), 3, 3)))

        return {"distance": ("distance of the two beads", distance)}
    if box is not None:
        return {"first pair": ("distance of beads 0 and 1",
                               lambda R: pair_distance(R, 0, 1, np.broadcast_to(box, (len(R), 3, 3))))}  # fmt: skip
    return {
        "end to end": ("distance of the first bead from the last", end_to_end),
        "rmsd": ("RMSD from the first mapped frame", lambda R: rmsd(R, reference[0])),
    }


def _profile(
    name: str, label: str, q: np.ndarray, p: np.ndarray, walker: np.ndarray, temperature: float
) -> FreeEnergy:  # fmt: skip
    edges = common_edges([q, p], BINS)
    found = compare(q, p, walker, edges, temperature)
    a, b = profile(q, blocks_of(len(q)), edges, temperature), profile(p, walker, edges, temperature)
    return FreeEnergy(name, label, a.centres, a.F, a.error, b.F, b.error, found.js, found.error)
