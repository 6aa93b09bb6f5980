"""The [problem] table of kind "force-field" where frames are simulated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from hpcfit.config.observables.measured import ObservableConfig
from hpcfit.config.observables.motion import MOTIONS
from hpcfit.config.table import (
    Count,
    FilePath,
    Positive,
    ProblemTable,
    Repeats,
    Share,
    Space,
    Whole,
    changed,
    check_are_unique,
    relative_to_config,
)
from hpcfit.errors import InputError, nearest
from hpcfit.kinds.force_field.config import (
    EnergyConfig,
    GeometriesConfig,
    MovingCurveConfig,
    ParameterConfig,
    check_geometries,
    check_is_asked,
)
from hpcfit.kinds.force_field.simulated.systems_config import DIFFERENCE, DifferenceConfig, StateConfig

STEPS = 4  # of an optimizer on one sample of frames
# Keys of windows that are simulated.
DRAWS = {"window", "frames", "skipped", "settled", "steps_a_draw", "derivative_draws", "tangents"}


class SimulatedConfig(ProblemTable):
    """The table [problem]: trajectories of each system in windows, in rounds of one step of the parameters each.

    windows: trajectories of each system, which are dealt out to ranks; window: ps of each in a round, with so many
    ``frames``, of which the first ``skipped`` (half of them) are not averaged; block: windows that are computed side by
    side. rounds: 0 measures only. solver: "gauss-newton", or the optimizer of the config. settled: from this round on
    the mean of what the rounds find is taken. largest_step: of a round, in units of the parameters' scales.
    steps_a_draw: after so many steps (1; 4 of "reweighting") windows are drawn anew; more than 1 is for "reweighting",
    and for an optimizer that compares losses. least_share: of the frames that must carry averages of "reweighting".
    derivative_draws: draws at the end, by which the derivatives of all estimators are compared; 0 for none. tangents:
    frames after which tangents begin anew at 0, of which then each time the first are skipped; "auto": those of the
    least error, by as many draws before the rounds; without it the window.
    curve: Karplus curves, fixed or fitted. difference: what was measured of two averages. start: parameters.csv of a
    run, whose values are begun with; priors stay around those of the systems. geometries: stored ones with reference
    energies, of a system or of a ``molecule`` that is not simulated. geometries_in: "rounds", whose loss has a term of
    them, or "start": a fit to them alone says where the rounds begin.

    Where systems have ``frames``, which are of the parameters at the start, a window is a run of consecutive ones.
    "fluctuation" takes one step from their averages, "reweighting" as many as frames carry that are weighed anew.
    """

    without_effect: ClassVar = ("frames", "run.precision")

    kind: Literal["force-field"]
    estimator: Literal["pathwise", "fluctuation", "reweighting"]
    solver: Literal["gauss-newton", "optimizer"] = "gauss-newton"
    rounds: Repeats = 20
    settled: Count | None = None
    largest_step: Positive = 1.0
    steps_a_draw: Count | None = None
    least_share: Share = 0.3
    windows: Count = 24
    block: Count = 2
    window: Positive | None = None
    frames: Count = 10
    skipped: Whole | None = None
    derivative_draws: Whole = 1
    tangents: Count | Literal["auto"] | None = None
    system: Annotated[list[StateConfig], Field(min_length=1)]
    parameter: Annotated[list[ParameterConfig], Field(min_length=1)]
    curve: list[MovingCurveConfig] = []
    difference: list[DifferenceConfig] = []
    start: FilePath | None = None
    molecule: list[EnergyConfig] = []
    geometries: list[GeometriesConfig] = []
    geometries_in: Literal["rounds", "start"] = "rounds"

    _path = field_validator("start")(lambda path, info: None if path is None else relative_to_config(path, info))

    def check_optimizer(self, name: str, space: Space) -> None:
        """Raise InputError for an optimizer that cannot search this problem, or is not asked."""
        super().check_optimizer(name, space)
        check_is_asked(name, self.solver)
        if self.solver == "optimizer" and name == "lbfgs" and self.steps_of_a_draw == 1:
            raise InputError(
                "[optimizer] name = 'lbfgs' compares losses, and steps_a_draw = 1 gives each its own noise",
                remedy="set [problem] steps_a_draw to 5 or more, or use 'adam' or solver = 'gauss-newton'",
            )

    @property
    def files(self) -> dict[str, Path]:
        """The input files, by system and key."""
        tables = [*self.system, *self.difference, *self.molecule, *self.geometries]
        start = {} if self.start is None else {"start": self.start}
        return start | {f"{one.name} {key}": path for one in tables for key, path in one.files.items()}

    @property
    def given(self) -> bool:
        """True where the frames of all systems are given."""
        return bool(self.system[0].frames)

    @property
    def full_steps(self) -> int:
        """Rounds before the mean of rounds is taken: all of them on frames that are given."""
        if self.given:
            return self.rounds + 1
        return max(self.rounds // 2, 1) if self.settled is None else self.settled

    @property
    def steps(self) -> int:
        """Steps of the parameters."""
        return min(self.rounds, 1) if self.given and self.estimator == "fluctuation" else self.rounds

    @property
    def steps_of_a_draw(self) -> int:
        """Steps of the optimizer on the same noise, or the same frames; all of them on frames that are given."""
        if self.given:
            return 1 if self.estimator == "fluctuation" else max(self.rounds, 2)
        return (STEPS if self.estimator == "reweighting" else 1) if self.steps_a_draw is None else self.steps_a_draw

    @property
    def stretch(self) -> int:
        """Frames along which tangents are carried, of a pilot where they are chosen."""
        return self.tangents if isinstance(self.tangents, int) else self.frames

    @property
    def skipped_frames(self) -> int:
        """Frames of a stretch before those that are averaged: tangents begin at 0, and have to grow."""
        return self.stretch // 2 if self.skipped is None else self.skipped

    def observables(self) -> Iterator[tuple[StateConfig, ObservableConfig]]:
        """All observables with their systems."""
        return ((system, one) for system in self.system for one in system.observable)

    @model_validator(mode="after")
    def _keys_have_effect(self) -> SimulatedConfig:
        if self.skipped_frames >= self.stretch:
            raise ValueError(f"skipped = {self.skipped} of frames = {self.stretch}: none is left to average")
        if self.settled is not None and self.settled > self.rounds:
            raise ValueError(f"settled = {self.settled} is after the last of rounds = {self.rounds}")
        if self.settled is not None and self.steps_of_a_draw > 1:
            raise ValueError(f"settled = {self.settled} has no effect on steps_a_draw = {self.steps_of_a_draw}")
        if self.estimator != "reweighting" and self.least_share != type(self).model_fields["least_share"].default:
            raise ValueError(f"least_share has no effect on estimator = '{self.estimator}'")
        for key in ("settled", "largest_step"):
            if self.solver != "gauss-newton" and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} has no effect on solver = '{self.solver}'")
        return self

    @model_validator(mode="after")
    def _tangents_are_carried(self) -> SimulatedConfig:
        if self.tangents is not None and self.estimator != "pathwise":
            raise ValueError(f"tangents has no effect on estimator = '{self.estimator}', which has none")
        if self.frames % self.stretch:
            raise ValueError(f"tangents = {self.tangents} do not divide frames = {self.frames}: they must")
        if self.tangents == "auto" and not self.derivative_draws:
            raise ValueError("tangents = 'auto' is chosen by derivative_draws draws: set them to 1 or more")
        return self

    @model_validator(mode="after")
    def _frames_are_given(self) -> SimulatedConfig:
        without = [one.name for one in self.system if not one.frames]
        if without and len(without) < len(self.system):
            raise ValueError(f"system '{without[0]}' has no `frames`: give those of all systems, or of none")
        if without:
            return self
        if idle := sorted(changed(self) & DRAWS):
            raise ValueError(f"{', '.join(idle)} have no effect on frames that are given")
        if self.estimator == "pathwise":
            raise ValueError("estimator = 'pathwise' is of trajectories; frames that are given need 'reweighting'")
        if self.estimator == "fluctuation" and self.rounds > 1 and "rounds" in changed(self):
            raise ValueError(f"rounds = {self.rounds}: 'fluctuation' takes one step on frames, 'reweighting' several")
        for system, one in self.observables():
            if isinstance(one, MOTIONS):
                raise ValueError(f"observable '{one.name}' of system '{system.name}' is of a motion, not of frames")
        return self

    @model_validator(mode="after")
    def _names_and_data(self) -> SimulatedConfig:
        check_are_unique("[[problem.system]]", [DIFFERENCE, *(one.name for one in self.system)])
        check_are_unique("[[problem.parameter]]", [one.name for one in self.parameter])
        check_are_unique("[[problem.difference]]", [one.name for one in self.difference])
        data = [*(one for _, one in self.observables() if one.is_measured), *self.difference]
        if data and all(one.held_out for one in data):
            raise ValueError("all observables are held out: there is nothing to fit")
        return self

    @model_validator(mode="after")
    def _curves_are_used(self) -> SimulatedConfig:
        check_are_unique("[[problem.curve]]", [one.name for one in self.curve])
        known = [one.name for one in self.curve]
        for system, one in self.observables():
            if getattr(one, "curve", None) is not None and one.curve not in known:
                raise ValueError(
                    f"observable '{one.name}' of system '{system.name}': there is no curve '{one.curve}'; "
                    + (nearest(one.curve, known) if known else "there is no [[problem.curve]] at all")
                )
        for curve in self.curve:
            users = [one for _, one in self.observables() if getattr(one, "curve", None) == curve.name]
            if not users:
                raise ValueError(f"curve '{curve.name}' is used by no observable: leave it out")
            if curve.fitted and all(one.held_out for one in users):
                raise ValueError(f"curve '{curve.name}' is to be fitted, and all its data are held out")
        return self

    @model_validator(mode="after")
    def _stored(self) -> SimulatedConfig:
        names = [one.name for one in (*self.system, *self.molecule)]
        check_are_unique("[[problem.system]] and [[problem.molecule]]", names)
        if self.geometries:
            check_geometries(self.geometries, names)
        elif self.geometries_in != "rounds":
            raise ValueError(f"geometries_in = '{self.geometries_in}' has no effect without [[problem.geometries]]")
        for one in self.molecule:
            if one.name not in [of.molecule for of in self.geometries]:
                raise ValueError(f"molecule '{one.name}' has no [[problem.geometries]]: leave it out")
        return self

    @model_validator(mode="after")
    def _members(self) -> SimulatedConfig:
        known = [[system.name, one.name] for system, one in self.observables()]
        used = [member for one in self.difference for member in (one.minuend, one.subtrahend)]
        for member in used:
            if member not in known:
                raise ValueError(f"[[problem.difference]] names {member}; the observables are {known}")
        for (system, _), one in zip(known, (one for _, one in self.observables())):
            if not one.is_measured and [system, one.name] not in used:
                raise ValueError(
                    f"observable '{one.name}' of system '{system}' needs `values` with `sigma`, or a file `measured`:"
                    " give one, or name it in a [[problem.difference]]"
                )
        return self

    @model_validator(mode="after")
    def _pressures(self) -> SimulatedConfig:
        pressed = [system.name for system in self.system if system.pressure is not None]
        if pressed and self.estimator not in ("fluctuation", "reweighting"):
            raise ValueError(
                f"system '{pressed[0]}' has a `pressure`, and estimator = '{self.estimator}': a change of the volume is"
                " accepted or not, and trajectories have no derivative where that changes; use 'fluctuation' or"
                " 'reweighting'"
            )
        return self

    @model_validator(mode="after")
    def _steps_make_frames(self) -> SimulatedConfig:
        for system in self.system if self.window is not None else ():
            stride = self.window / self.frames / system.step
            if round(stride) < 1 or abs(stride - round(stride)) > 1e-6 * stride:
                raise ValueError(
                    f"system '{system.name}': window = {self.window:g} ps in frames = {self.frames} is {stride:.6g}"
                    f" steps of {system.step:g} ps from frame to frame; it must be a whole number"
                )
        return self
