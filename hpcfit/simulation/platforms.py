"""OpenMM and the platform it runs on here: each worker finds the fastest that works on its own machine."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hpcfit.errors import InputError
from hpcfit.physics.openmm_library import import_openmm
from hpcfit.workflow.cluster.journal import worker_name


class Platform(NamedTuple):
    """A platform of OpenMM by name, with the properties of its contexts."""

    name: str
    properties: dict[str, str]

    def context(self, system: Any, integrator: Any) -> Any:
        """An OpenMM Context on this platform."""
        openmm = import_openmm()
        return openmm.Context(system, integrator, openmm.Platform.getPlatformByName(self.name), self.properties)


@functools.cache
def choose_platform(wanted: str, threads: int) -> Platform:
    """The wanted platform, or with "auto" the fastest on which a particle can be moved here.

    Mixed precision on GPUs, of which each worker of a node takes its own; `threads` on CPUs; forces are summed in a
    fixed order. Raises InputError that says of each platform why it does not work.
    """
    openmm = import_openmm()
    there = [openmm.Platform.getPlatform(number) for number in range(openmm.Platform.getNumPlatforms())]
    there.sort(key=lambda platform: platform.getSpeed(), reverse=True)
    reasons = []
    for platform in there if wanted == "auto" else [p for p in there if p.getName() == wanted]:
        try:
            candidate = Platform(platform.getName(), _properties(platform, threads))
            _move_one_particle(candidate)
        except openmm.OpenMMException as error:
            reasons.append(f"{platform.getName()}: {error}")
        else:
            return candidate
    reasons += [text for text in openmm.Platform.getPluginLoadFailures() if wanted == "auto" or wanted in text]
    raise InputError(
        f"[simulate] platform = '{wanted}' does not work here: " + "; ".join(reasons or ["OpenMM does not have it"]),
        remedy=f"use one of {', '.join(platform.getName() for platform in there)}, or 'auto'",
    )


def _properties(platform: Any, threads: int) -> dict[str, str]:
    wanted = {"Precision": "mixed", "Threads": str(threads), "DeterministicForces": "true"}
    known = {name: value for name, value in wanted.items() if name in platform.getPropertyNames()}
    return _own_device(platform.getDevices(), place_on_node()) | known


def _own_device(devices: Sequence[Mapping[str, str]], place: int) -> dict[str, str]:
    """The properties of one of several devices: OpenMM left to itself takes the same one in every worker of a node."""
    return dict(devices[place % len(devices)]) if len(devices) > 1 else {}


def place_on_node() -> int:
    """The number of this worker on its node: Slurm's for one of several tasks of srun, else the worker's own."""
    # In a step of one task (salloc, srun -n1) all workers of a local cluster are that task, whose number is 0.
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return int(os.environ["SLURM_LOCALID"])
    number = re.search(r"\d+$", worker_name() or "")  # "1" of a local cluster, "SLURMCluster-0-1" of a job
    return int(number[0]) if number else 0


def _move_one_particle(platform: Platform) -> None:
    openmm = import_openmm()
    system = openmm.System()
    system.addParticle(1.0)
    integrator = openmm.VerletIntegrator(0.001)
    context = platform.context(system, integrator)
    context.setPositions([openmm.Vec3(0, 0, 0)])
    integrator.step(1)
