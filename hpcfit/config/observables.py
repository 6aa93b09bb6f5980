"""The tables of observables in a config: averages of frames, and what was measured of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from hpcfit.config.table import Count, FilePath, NonNegative, Positive, Table, relative_to_config
from hpcfit.errors import nearest

Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
Atoms = Name | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Pair = Annotated[list[int], Field(min_length=2, max_length=2)]
Triple = Annotated[list[int], Field(min_length=3, max_length=3)]
Quadruple = Annotated[list[int], Field(min_length=4, max_length=4)]
OneOrMore = Finite | Annotated[list[Finite], Field(min_length=1)]

def function_beside_config(name: str, info: ValidationInfo) -> str:
    """``module:function``, or ``FILE.py:function`` with the file as seen from the folder of the config."""
    where, _, function = name.rpartition(":")
    return f"{relative_to_config(Path(where), info)}:{function}" if where.endswith(".py") else name


class ObservableConfig(Table):
    """An average, and what was measured of it: inline, or a table [M, 2] of value and sigma.

    bound: the measurement is one from above or from below. held_out: it is compared and not fitted.
    """

    name: Name
    values: OneOrMore | None = None
    sigma: Positive | Annotated[list[Positive], Field(min_length=1)] | None = None
    measured: FilePath | None = None
    bound: Literal["upper", "lower"] | None = None
    held_out: bool = False

    _paths = field_validator("measured")(lambda path, info: None if path is None else relative_to_config(path, info))

    @model_validator(mode="after")
    def _one_measurement(self) -> ObservableConfig:
        if (self.measured is None) == (self.values is None):
            raise ValueError(f"observable '{self.name}' needs `values` with `sigma`, or a file `measured`: give one")
        if (self.values is None) != (self.sigma is None):
            raise ValueError(f"observable '{self.name}': `values` and `sigma` go together")
        return self

    @property
    def files(self) -> dict[str, Path]:
        """The file of measurements, if it is one."""
        return {} if self.measured is None else {"measured": self.measured}


class RadiusOfGyrationConfig(ObservableConfig):
    """The radius of gyration of some atoms, nm."""

    observable: Literal["radius-of-gyration"]
    atoms: Atoms


class DistancesConfig(ObservableConfig):
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
    quadruples: Annotated[list[Quadruple], Field(min_length=1)]
    parts: Annotated[int, Field(ge=2)]
    width: Positive


class CoordinationConfig(ObservableConfig):
    """The mean number of neighbours of atoms ``of`` among others; a pair counts half at r0, nm."""

    observable: Literal["coordination"]
    r0: Positive
    width: Positive
    of: Atoms
    among: Atoms


class RadialDistributionConfig(ObservableConfig):
    """g(r) in bins between ``edges``, nm, or in ``bins`` equal ones up to r_max; width: of the smearing of a
    distance."""

    observable: Literal["radial-distribution"]
    edges: Annotated[list[NonNegative], Field(min_length=2)]
    width: Positive
    of: Atoms
    among: Atoms


class PowersConfig(ObservableConfig):
    """Mean powers of one coordinate of an atom, nm^power: for test systems."""

    observable: Literal["powers"]
    atom: Annotated[int, Field(ge=0)] = 0
    axis: Annotated[int, Field(ge=0)] = 0
    powers: Annotated[list[Count], Field(min_length=1)]


class OwnConfig(ObservableConfig):
    """A function of one's own, ``module:function`` or ``FILE.py:function``, of (positions, box), in JAX; it gives the
    numbers that are averaged, [M]. Its code is run."""

    observable: Literal["own"]
    function: Name

    _file = field_validator("function")(lambda name, info: function_beside_config(name, info))

    @property
    def files(self) -> dict[str, Path]:
        """The file of measurements and that of the function, if they are some."""
        where = self.function.rpartition(":")[0]
        return super().files | ({"function": Path(where)} if where.endswith(".py") else {})


OBSERVABLES: tuple[type[ObservableConfig], ...] = (
    RadiusOfGyrationConfig, DistancesConfig, AnglesConfig, TorsionSharesConfig, CoordinationConfig,
    RadialDistributionConfig, PowersConfig, OwnConfig,
)  # fmt: skip
NAMES = {get_args(table.model_fields["observable"].annotation)[0]: table for table in OBSERVABLES}


def _known(values: Any) -> Any:
    """The values, of which `observable` is the name of a table."""
    if isinstance(values, ObservableConfig):
        return values
    name = values.get("observable") if isinstance(values, dict) else None
    if name not in NAMES:
        said = "key `observable` is missing" if name is None else f"observable = '{name}': {nearest(str(name), NAMES)}"
        raise ValueError(f"{said}; use one of {', '.join(NAMES)}")
    return values


def _member(values: Any) -> str:
    """The member of the union that a table is of, with a blank, which no key of a config has."""
    return f"as {values['observable'] if isinstance(values, dict) else values.observable}"


AnyObservable = Annotated[
    Union[tuple(Annotated[table, Tag(f"as {name}")] for name, table in NAMES.items())],  # noqa: UP007
    Discriminator(_member),
    BeforeValidator(_known),
]
