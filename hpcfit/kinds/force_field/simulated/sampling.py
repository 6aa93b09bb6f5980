"""Rounds in which OpenMM samples all systems with the parameters found last, and a fit to these frames goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcfit.config import Config, SimulateConfig, SystemConfig
from hpcfit.config.table import changed
from hpcfit.config.workflow import temperature_name
from hpcfit.errors import InputError
from hpcfit.kinds.force_field.files import PARAMETERS
from hpcfit.kinds.force_field.simulated.config import SimulatedConfig
from hpcfit.kinds.force_field.simulated.systems_config import StateConfig
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.runs.files import RunFiles
from hpcfit.store.files import write_text
from hpcfit.store.pieces import end_state

OF_STATES = ("directory", "system", "temperatures", "pressure", "forces", "energies")  # said by [problem], or by rounds


@dataclass(frozen=True)
class SampledRounds:
    """See ``kinds.base.Rounds``: trajectories and fit of round n lie in the folder round_n of the run directory.

    Each replica of a system goes on where it ended in the round before, with the System that its fit wrote. Priors are
    around the parameters of the config in every round.
    """

    config: Config

    def check(self) -> None:
        """See ``kinds.base.Rounds``."""
        self.config.require("simulate", command="pipeline --rounds")
        idle = sorted(changed(self.config.simulate) & set(OF_STATES))
        if idle:
            raise InputError(
                f"[simulate] {', '.join(idle)} have no effect on rounds, whose systems are those of [problem]",
                remedy="leave them out",
            )
        if self._problem.start is not None:
            raise InputError("[problem] start has no effect on rounds", remedy="leave it out: the systems say it")
        for state in self._problem.system:
            if state.system is None or state.topology is None or state.frames or state.positions:
                raise InputError(
                    f"system '{state.name}' is to be sampled by OpenMM, which needs `system` and `topology`, and takes"
                    " neither `frames` nor `positions`",
                    remedy="correct the system, or fit without --rounds",
                )

    def folder(self, number: int) -> Path:
        """See ``kinds.base.Rounds``."""
        return self.config.run.directory / f"round_{number:03d}"

    def fit(self, number: int) -> Config:
        """See ``kinds.base.Rounds``."""
        states = [
            state.model_copy(update={"frames": [str(_folder(one)) for one in self._replicas(place, number)]})
            for place, state in enumerate(self._problem.system)
        ]
        start = None if number == 1 else self.folder(number - 1) / PARAMETERS
        problem = self._problem.model_copy(update={"system": states, "start": start})
        run = self.config.run.model_copy(update={"directory": self.folder(number)})
        return self.config.model_copy(update={"simulate": None, "problem": problem, "run": run})

    def simulations(self, number: int) -> list[SimulateConfig]:
        """See ``kinds.base.Rounds``; writes the States that replicas begin with."""
        found = [one for place in range(len(self._problem.system)) for one in self._replicas(place, number)]
        for one, before in zip(found, self._before(number)):
            write_text(one.system[0].state, end_state(_folder(before)))
        return found

    def row(self, number: int) -> dict[str, Any]:
        """See ``kinds.base.Rounds``."""
        metrics = RunFiles(self.folder(number)).metrics
        table, fitted = metrics["parameters"], metrics["fitted"]
        errors = zip(table["errors_of_data"] or (), table["errors_of_frames"] or ())
        found = dict(zip(table["names"], table["values"]))
        found |= {f"error of {name}": (a * a + b * b) ** 0.5 for name, (a, b) in zip(table["names"], errors)}
        return {
            "round": number, "chi2_before": metrics["before"]["chi2"], "chi2": fitted["chi2"],
            "chi2_held_out": fitted["chi2_held_out"], "share_of_frames": fitted["share_of_frames"], **found,
        }  # fmt: skip

    @property
    def _problem(self) -> SimulatedConfig:
        return self.config.problem

    def _before(self, number: int) -> Iterator[SimulateConfig]:
        places = range(len(self._problem.system)) if number > 1 else ()
        return (one for place in places for one in self._replicas(place, number - 1))

    def _replicas(self, place: int, number: int) -> list[SimulateConfig]:
        """A simulation of one replica each, since each has a start of its own."""
        return [self._replica(place, number, replica) for replica in range(self.config.simulate.replicas)]

    def _replica(self, place: int, number: int, replica: int) -> SimulateConfig:
        state, simulate = self._problem.system[place], self.config.simulate
        name = f"{place}-{re.sub('[^A-Za-z0-9.-]', '-', state.name)}-{replica:02d}"
        later = {}
        if number > 1:
            start = self.folder(number) / "starts" / f"{name}.xml"
            later = {"state": start, "system": self.folder(number - 1) / f"{state.name}.xml"}
        system = SystemConfig(**{"name": name, "topology": state.topology, "system": state.system, **later})
        return simulate.model_copy(
            update={
                "directory": self.folder(number) / "trajectories",
                "system": [system],
                "temperatures": [_kelvin(state)],
                "pressure": state.pressure,
                "replicas": 1,
                "minimize": simulate.minimize and number == 1,
                "seed": (number << 32) + simulate.seed,
            }
        )


def _folder(simulate: SimulateConfig) -> Path:
    """The folder of the one trajectory of a simulation."""
    [system], [temperature] = simulate.system, simulate.temperatures
    return simulate.directory / f"{system.name}_{temperature_name(temperature)}_r00"


def _kelvin(state: StateConfig) -> float:
    return state.temperature or state.kT / GAS_CONSTANT
