"""The study of an energy.

slow modes   of the couplings, or a stage over Hessians of many configurations
methods      each minimises the same replicas, a stage each
"""

from __future__ import annotations

from typing import Any

from hpcfit.fit.stages import Fits, Work
from hpcfit.kinds.structure.baselines import Baseline
from hpcfit.kinds.structure.case import StructureCase
from hpcfit.kinds.structure.config import OF_OTHERS, MethodConfig
from hpcfit.kinds.structure.found import Found, warnings
from hpcfit.kinds.structure.hopping import STEP, TEMPERATURE, Hopping, Hops
from hpcfit.kinds.structure.methods import phases
from hpcfit.kinds.structure.minimisations import Minimisations, Replicas
from hpcfit.kinds.structure.minimisers import minimiser
from hpcfit.kinds.structure.modes.found import STAGE, graph_of, slow_modes


def study(case: StructureCase, fits: Fits) -> dict[str, Any]:
    """All stages; the modes and what each method found, on root. Collective."""
    choice, seed, is_root = case.config.problem, case.config.run.seed, fits.grid.world.is_root
    by_stage = [STAGE] if choice.modes.source == "hessian" else []
    fits.announce([*by_stage, *(method.name for method in choice.method)])
    weights, sampling = graph_of(case.landscape, choice.modes, seed, fits, case.frames)
    modes = None
    if weights is not None and (is_root or choice.modes.solver == "slepc"):  # which all ranks call
        modes = slow_modes(case.landscape, weights, sampling, choice.modes)
    found = []
    for method in choice.method:
        arrays = fits.stage(method.name, _work(case, method, weights, fits), {})
        if is_root:
            found.append(Found.of(method.name, case.landscape, arrays, case.reference))
    fits.warn(fits.grid.world.bcast(warnings(found, choice.budget) if is_root else None))
    return {"found": found if is_root else None, "modes": modes if is_root else None}


def _work(case: StructureCase, method: MethodConfig, weights: Any, fits: Fits) -> Work:
    choice, about, ranks = case.config.problem, (case.landscape, case.starts), fits.grid.frames
    if method.optimizer in OF_OTHERS:
        made = minimiser(method, case.landscape, case.config.run.seed)
        return Baseline(made, *about, case.n_frames, choice.budget, ranks)
    replicas = Replicas(case.n_frames, case.block_frames, choice.budget, case.config.run.seed)
    parts = phases(method, case.landscape, weights, choice.budget, choice.modes.solver)
    if method.optimizer == "basin-hopping":
        hops = Hops(method.quenches, method.temperature or TEMPERATURE, method.step or STEP)
        return Hopping(*about, parts[0].make, hops, parts[0].cap, replicas, ranks)
    return Minimisations(*about, parts, replicas, ranks)
