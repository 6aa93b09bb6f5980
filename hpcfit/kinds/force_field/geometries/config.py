"""The [problem] table of kind "force-field" with estimator = "geometries"."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hpcfit.config.table import Count, ProblemTable, Space, check_are_unique
from hpcfit.kinds.force_field.config import (
    EnergyConfig,
    GeometriesConfig,
    ParameterConfig,
    check_geometries,
    check_is_asked,
)


class StoredConfig(ProblemTable):
    """The table [problem]: parameters of molecules that make energies and forces of stored geometries those given.

    solver: "marquardt", damped steps from the curvature of the residuals, or the optimizer of the config. block:
    geometries that are computed side by side. resamples: of held-out geometries, for errors of their deviations.
    """

    without_effect: ClassVar = ("frames", "simulate", "run.precision", "run.gradient")

    kind: Literal["force-field"]
    estimator: Literal["geometries"]
    solver: Literal["marquardt", "optimizer"] = "marquardt"
    block: Count = 8
    resamples: Annotated[int, Field(ge=2, le=100_000)] = 200
    molecule: Annotated[list[EnergyConfig], Field(min_length=1)]
    geometries: Annotated[list[GeometriesConfig], Field(min_length=1)]
    parameter: Annotated[list[ParameterConfig], Field(min_length=1)]

    def check_optimizer(self, name: str, space: Space) -> None:
        """Raise InputError for an optimizer that cannot search this problem, or is not asked."""
        super().check_optimizer(name, space)
        check_is_asked(name, self.solver)

    @property
    def files(self) -> dict[str, Path]:
        """The input files, by table and key."""
        tables = [*self.molecule, *self.geometries]
        return {f"{one.name} {key}": path for one in tables for key, path in one.files.items()}

    @model_validator(mode="after")
    def _names(self) -> StoredConfig:
        check_are_unique("[[problem.molecule]]", [one.name for one in self.molecule])
        check_are_unique("[[problem.parameter]]", [one.name for one in self.parameter])
        known = [one.name for one in self.molecule]
        check_geometries(self.geometries, known)
        for name in known:
            if name not in [one.molecule for one in self.geometries]:
                raise ValueError(f"molecule '{name}' has no [[problem.geometries]]: leave it out")
        return self
