"""The common part of all tables of observables: a name and a measurement, inline or in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from hpcfit.config.table import FilePath, Integer, NonNegative, Positive, Real, Table, Whole, relative_to_config

Name = Annotated[str, Field(min_length=1)]
Number = Whole
Finite = Real
Atoms = Name | Annotated[list[Number], Field(min_length=1)]
Triple = Annotated[list[Integer], Field(min_length=3, max_length=3)]
Quadruples = Annotated[list[Annotated[list[Integer], Field(min_length=4, max_length=4)]], Field(min_length=1)]
Vector = Annotated[list[Finite], Field(min_length=3, max_length=3)]
Range = Annotated[list[NonNegative], Field(min_length=2, max_length=2)]
OneOrMore = Finite | Annotated[list[Finite], Field(min_length=1)]
Length = Literal["nm", "A", "bohr"]


class ObservableConfig(Table):
    """An average, and what was measured of it.

    values and sigma stand in the config, or in a file ``measured``: .npy [M, 2], or text of value and sigma, of name,
    value, sigma and perhaps UPPER or LOWER, or of BME. bound: the measurement is one from above or from below.
    held_out: it is compared and not fitted. Without a measurement an average is there for differences alone.
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
        if self.measured is not None and self.values is not None:
            raise ValueError(f"observable '{self.name}' has `values` and a file `measured`: give one")
        if (self.values is None) != (self.sigma is None):
            raise ValueError(f"observable '{self.name}': `values` and `sigma` go together")
        if not self.is_measured and (self.bound is not None or self.held_out):
            raise ValueError(f"observable '{self.name}': bound and held_out are of measurements, and it has none")
        return self

    @property
    def is_measured(self) -> bool:
        """False for an average that is compared with nothing, and only taken for a difference of two of them."""
        return self.measured is not None or self.values is not None

    @property
    def files(self) -> dict[str, Path]:
        """The file of measurements, if it is one."""
        return {} if self.measured is None else {"measured": self.measured}

    @property
    def is_text(self) -> bool:
        """True where measurements stand in a file of text."""
        return self.measured is not None and self.measured.suffix != ".npy"

    def require_text(self, *keys: str) -> None:
        """Raise ValueError for keys of a file of text where measurements are in none."""
        for key in keys:
            if not self.is_text and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"observable '{self.name}': `{key}` is of a text file of measurements, and has no effect on"
                    f" {self.measured or 'values of the config'}"
                )


class MeasuredLengths(ObservableConfig):
    """An observable whose measurements are lengths; unit: that of a text file."""

    unit: Length = "nm"

    @model_validator(mode="after")
    def _unit_has_effect(self) -> MeasuredLengths:
        self.require_text("unit")
        return self


class MeasuredCurve(MeasuredLengths):
    """An observable whose measurements may be a curve: a text file with rows of where, value and sigma.

    columns: of these three, from 0; unit: of length in the file, so that "A" means momentum transfers in 1/A. Values
    and sigmas are interpolated linearly where the observable has its numbers.
    """

    columns: Annotated[list[Number], Field(min_length=3, max_length=3)] = [0, 1, 2]

    @model_validator(mode="after")
    def _columns_have_effect(self) -> MeasuredCurve:
        self.require_text("columns")
        if self.bound is not None:
            raise ValueError(f"observable '{self.name}': bound = '{self.bound}' of a curve; bounds are of single data")
        return self
