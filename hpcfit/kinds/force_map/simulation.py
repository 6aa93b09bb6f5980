"""[problem.force_matching.simulation]: a short simulation of the coarse-grained model beside the mapped frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcfit.bead_models.free_energy import (
    Landscape,
    Profile,
    blocks_of,
    common_edges,
    compare,
    end_to_end,
    landscape,
    pair_distance,
    profile,
    rmsd,
)
from hpcfit.bead_models.openmm_model import build_system
from hpcfit.bead_models.tables import Term
from hpcfit.kinds.force_map.case import ForceMapCase
from hpcfit.kinds.force_map.neural_frames import TrainedPotential
from hpcfit.log import logger
from hpcfit.simulation.beads import Langevin, simulate_forces, simulate_system
from hpcfit.store.forces import open_force_store
from hpcfit.store.stream import block_frames

WALKERS = 4
MOST_REFERENCE = 20_000  # mapped frames that are compared with
LAG = 10  # frames of the reference, at most a twentieth of a trajectory
BINS = 40


@dataclass(frozen=True)
class NamedProfile:
    """Free energies along one coordinate, A, of the reference and of the model."""

    name: str
    label: str
    reference: Profile
    model: Profile
    divergence: float
    error: float


@dataclass(frozen=True)
class Simulated:
    """What came of it. slow: in two slow coordinates, where there are enough beads."""

    profiles: list[NamedProfile]
    slow: Landscape | None
    metrics: dict[str, Any]


def simulate(case: ForceMapCase, terms: Sequence[Term], neural: Sequence[TrainedPotential]) -> Simulated:
    """Simulate the chosen map's model from mapped frames, and compare free energies; on root."""
    choice, temperature = case.config.problem.force_matching.simulation, case.config.problem.temperature
    reference, box = _mapped(case)
    plan = Langevin(
        temperature, -(-choice.frames // WALKERS), choice.interval, choice.step, choice.friction,
        equilibration=50 * choice.interval, seed=choice.seed,
    )  # fmt: skip
    every = np.concatenate(reference)
    start = every[np.linspace(0, len(every) - 1, WALKERS).astype(int)]
    logger.info("simulating the %s model: %d walkers, %d frames each", choice.model, WALKERS, plan.frames)
    if choice.model == "linear":
        system = build_system(terms, case.coarse.masses, case.types, box)
        frames = simulate_system(system, start, plan)
    else:
        problem, shared = neural[0].problem, neural[0].fitted.params.shared
        frames = simulate_forces(lambda R, cell: problem.forces(shared, R, cell), case.coarse.masses, start, plan, box)
    return _compared(reference, list(frames), box, temperature, choice.model)


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
        _profile(name, label, of(a), of(b), walker, temperature)
        for name, (label, of) in _coordinates(a, box).items()
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
    return Simulated(profiles, slow, metrics)


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


def _profile(name: str, label: str, q: np.ndarray, p: np.ndarray, walker: np.ndarray, temperature: float):
    edges = common_edges([q, p], BINS)
    found = compare(q, p, walker, edges, temperature)
    return NamedProfile(
        name, label, profile(q, blocks_of(len(q)), edges, temperature), profile(p, walker, edges, temperature),
        found.js, found.error,
    )  # fmt: skip
