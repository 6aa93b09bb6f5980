"""The tables of simulated systems, and of differences of their averages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from hpcfit.config.observables import AnyObservable
from hpcfit.config.observables.measured import Finite, Name, ObservableConfig
from hpcfit.config.table import Count, Kelvin, NonNegative, Positive, changed, check_are_unique, relative_to_config
from hpcfit.kinds.force_field.config import EnergyConfig

MOVES = {"integrator", "friction", "step", "equilibration", "barostat_every"}  # keys of a system that is simulated


class StateConfig(EnergyConfig):
    """A system in a state, and how it moves.

    temperature: K, or kT: kJ/mol; friction: 1/ps; step: ps; equilibration: ps before the first window. pressure: bar,
    of a volume that changes by a trial move before every ``barostat_every``-th step (25); without it the volume is
    constant.

    frames: of this system in this state, which then are averaged, and none is simulated: a store of positions,
    trajectories, folders of `hpcfit simulate`, or .npy, [T, N, 3] nm.
    """

    temperature: Kelvin | None = None
    kT: Positive | None = None
    pressure: Finite | None = None
    barostat_every: Count | None = None
    integrator: Literal["middle", "stochastic", "overdamped"] = "middle"
    friction: Positive = 10.0
    step: Positive = 0.001
    equilibration: NonNegative = 0.0
    frames: list[str] = []
    observable: Annotated[list[AnyObservable], Field(min_length=1)]

    _one_or_many = field_validator("frames", mode="before")(lambda value: [value] if isinstance(value, str) else value)
    _frames = field_validator("frames")(
        lambda value, info: [str(relative_to_config(Path(item), info)) for item in value]
    )

    @model_validator(mode="after")
    def _frames_do_not_move(self) -> StateConfig:
        idle = sorted(changed(self) & MOVES) if self.frames else []
        if idle:
            raise ValueError(f"system '{self.name}': {', '.join(idle)} have no effect on frames that are given")
        return self

    @model_validator(mode="after")
    def _one_temperature(self) -> StateConfig:
        if (self.temperature is None) == (self.kT is None):
            raise ValueError(f"system '{self.name}' needs `temperature` (K) or `kT` (kJ/mol): give just one of them")
        return self

    @model_validator(mode="after")
    def _volume_can_change(self) -> StateConfig:
        if self.pressure is None and self.barostat_every is not None:
            raise ValueError(f"system '{self.name}': `barostat_every` has no effect without `pressure`")
        if self.pressure is not None and self.integrator == "overdamped":
            raise ValueError(f"system '{self.name}': `pressure` needs velocities: set integrator = 'middle'")
        return self

    @model_validator(mode="after")
    def _names(self) -> StateConfig:
        check_are_unique(f"observables of system '{self.name}'", [one.name for one in self.observable])
        return self

    @property
    def files(self) -> dict[str, Path]:
        """The input files, by key, those of observables too."""
        of_observables = {f"{one.name} {key}": path for one in self.observable for key, path in one.files.items()}
        return super().files | of_observables


DIFFERENCE = "difference"  # in place of a system, in the names of data
Member = Annotated[list[Name], Field(min_length=2, max_length=2)]


class DifferenceConfig(ObservableConfig):
    """A measured difference of two averages, factor (minuend - subtrahend) + constant, item by item.

    minuend, subtrahend: [system, observable]. An enthalpy of vaporisation is the potential energy of a molecule in the
    gas less that in the liquid, with kT as the constant.
    """

    observable: ClassVar = "a difference"
    minuend: Member
    subtrahend: Member
    factor: Finite = 1.0
    constant: Finite = 0.0

    @model_validator(mode="after")
    def _is_measured(self) -> DifferenceConfig:
        if not self.is_measured:
            raise ValueError(f"difference '{self.name}' needs `values` with `sigma`, or a file `measured`: give one")
        if self.factor == 0 or self.minuend == self.subtrahend:
            raise ValueError(f"difference '{self.name}' is its constant, whatever the averages")
        return self
