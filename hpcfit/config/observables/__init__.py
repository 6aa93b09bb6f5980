"""The tables of observables in a config: averages of frames, and what was measured of them."""

from __future__ import annotations

from typing import Annotated, Any, Union, get_args

from pydantic import BeforeValidator, Discriminator, Tag

from hpcfit.config.observables.experiments import EXPERIMENTS
from hpcfit.config.observables.geometry import GEOMETRY
from hpcfit.config.observables.measured import ObservableConfig
from hpcfit.config.observables.motion import MOTIONS
from hpcfit.config.observables.thermodynamics import THERMODYNAMICS
from hpcfit.errors import nearest

OBSERVABLES: tuple[type[ObservableConfig], ...] = (*GEOMETRY, *THERMODYNAMICS, *MOTIONS, *EXPERIMENTS)
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
