"""Tables of observables of positions: sizes, distances, angles, neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from hpcfit.config.observables.measured import (
    Atoms,
    MeasuredCurve,
    MeasuredLengths,
    Name,
    Number,
    ObservableConfig,
    Quadruples,
    Range,
    Triple,
)
from hpcfit.config.table import Count, NonNegative, Positive, file_of_function, function_beside_config

Pair = Annotated[list[Number], Field(min_length=2, max_length=2)]


class RadiusOfGyrationConfig(MeasuredLengths):
    """The radius of gyration of some atoms, nm."""

    observable: Literal["radius-of-gyration"]
    atoms: Atoms


class DistancesConfig(MeasuredLengths):
    """Mean distances of pairs of atoms, nm; with a power, (mean of r^-power)^(-1/power), as NOEs have it."""

    observable: Literal["distances"]
    pairs: Annotated[list[Pair], Field(min_length=1)]
    power: Literal[3, 6] | None = None


class AnglesConfig(ObservableConfig):
    """Mean angles of triples of atoms, rad."""

    observable: Literal["angles"]
    triples: Annotated[list[Triple], Field(min_length=1)]


class TorsionSharesConfig(ObservableConfig):
    """The share of frames in each of so many equal parts of the circle, torsion by torsion; width: rad."""

    observable: Literal["torsion-shares"]
    quadruples: Quadruples
    parts: Annotated[int, Field(ge=2, le=10_000)]
    width: Positive


class CoordinationConfig(ObservableConfig):
    """The mean number of neighbours of atoms ``of`` among others; a pair counts half at r0, nm."""

    observable: Literal["coordination"]
    r0: Positive
    width: Positive
    of: Atoms
    among: Atoms


class RadialDistributionConfig(MeasuredCurve):
    """g(r) in bins between ``edges``, nm, or in so many equal ``bins`` of a ``range``, nm; width: nm, of the Gaussian
    that smears a distance. A curve is taken at the centres of bins, from its rows within them."""

    observable: Literal["radial-distribution"]
    edges: Annotated[list[NonNegative], Field(min_length=2)] | None = None
    bins: Count | None = None
    range: Range | None = None
    width: Positive
    of: Atoms
    among: Atoms

    @model_validator(mode="after")
    def _one_set_of_bins(self) -> RadialDistributionConfig:
        if (self.bins is None) != (self.range is None) or (self.bins is None) == (self.edges is None):
            raise ValueError(f"observable '{self.name}' needs `edges`, or `bins` with `range`: give one")
        return self

    @property
    def borders(self) -> list[float]:
        """The edges of all bins, [B + 1] nm."""
        if self.edges is not None:
            return self.edges
        first, last = self.range
        return [first + (last - first) * n / self.bins for n in range(self.bins + 1)]


class PowersConfig(ObservableConfig):
    """Mean powers of one coordinate of an atom, nm^power: for test systems."""

    observable: Literal["powers"]
    atom: Number = 0
    axis: Annotated[int, Field(ge=0, le=2)] = 0
    powers: Annotated[list[Count], Field(min_length=1)]


class OwnConfig(ObservableConfig):
    """A function of one's own, ``module:function`` or ``FILE.py:function``, of (positions, box), in JAX; it gives the
    numbers that are averaged, [M]. Its code is run."""

    observable: Literal["own"]
    function: Name

    _function = field_validator("function")(function_beside_config)

    @property
    def files(self) -> dict[str, Path]:
        """The files of measurements and of the function, if they are any."""
        where = file_of_function(self.function)
        return super().files | ({} if where is None else {"function": where})


GEOMETRY = (
    RadiusOfGyrationConfig, DistancesConfig, AnglesConfig, TorsionSharesConfig, CoordinationConfig,
    RadialDistributionConfig, PowersConfig, OwnConfig,
)  # fmt: skip
