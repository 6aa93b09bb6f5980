"""The study of an energy: every method minimises the same replicas, each a stage; then what was found is compared."""

from __future__ import annotations

from typing import Any

from hpcfit.fit.stages import Fits
from hpcfit.kinds.structure.baselines import MINIMISERS, Baseline
from hpcfit.kinds.structure.case import StructureCase
from hpcfit.kinds.structure.found import Found, warnings
from hpcfit.kinds.structure.hopping import Hopping, Hops
from hpcfit.kinds.structure.minimisations import Minimisations


def study(case: StructureCase, fits: Fits) -> dict[str, Any]:
    """A stage for each method; what each found, on root. Collective."""
    choice = case.config.problem
    fits.announce([method.name for method in choice.method])
    found = []
    sizes = (case.n_frames, case.block_frames, choice.budget, case.config.run.seed, fits.grid.frames)
    for method, phases in zip(choice.method, case.methods):
        about = (case.landscape, case.starts)
        if method.optimizer in MINIMISERS:
            work = Baseline(method.optimizer, *about, case.n_frames, choice.budget, fits.grid.frames)
        elif method.optimizer == "basin-hopping":
            hops = Hops(method.quenches, method.temperature, method.step)
            work = Hopping(*about, phases[0].make, hops, method.cap, *sizes)
        else:
            work = Minimisations(*about, phases, *sizes)
        arrays = fits.stage(method.name, work, {})
        if fits.grid.world.is_root:
            found.append(Found.of(method.name, case.landscape, arrays))
    fits.warn(fits.grid.world.bcast(warnings(found, choice.budget) if fits.grid.world.is_root else None))
    return {"found": found}
