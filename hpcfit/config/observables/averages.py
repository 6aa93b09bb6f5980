"""The table of a set of data: tables of numbers of frames, whose averages are compared with measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from hpcfit.config.observables.measured import Name
from hpcfit.config.table import FilePath, Integer, Table, Whole, relative_to_config

PLACES = ("{name}", "{frame}")  # in a path: a file for each datum, or for each frame
HDF5 = (".h5", ".hdf5")  # of BioEn: measured and calculated numbers over their sigmas in one file


class AveragedConfig(Table):
    """A set of data: numbers of each frame [T, M], whose averages are compared with M measurements.

    calculated: .npy or .csv [T, M], BME's text or its archive, or BioEn's files, a path with {name} or {frame} in it;
    or BioEn's HDF5, which is then measured as well.
    torsions: rad, of which a ``curve`` makes couplings. positions: a store of them, of which an ``observable`` of some
    ``atoms`` is computed, in A. measured: .npy or .csv [M, 2] of value and sigma, or the text
    of ``observables.readers``. power: of distances. compared: these, or intensities r^-power; None: intensities of
    BME's NOE files, else distances. bound: of all data. adjusted: a factor, a constant, both, or a modulation depth,
    solved for before calculated and measured numbers are compared. held_out: a validation set, never fitted. groups:
    [M], names or numbers; data of one ensemble that have one are held out of a fit together; single ones by default.
    """

    name: Name
    calculated: FilePath | None = None
    torsions: FilePath | None = None
    positions: FilePath | None = None
    observable: Literal["distances", "torsions", "scattering"] | None = None
    atoms: Annotated[list[list[Whole | list[Whole]]], Field(min_length=1)] | None = None
    curve: str | None = None
    measured: FilePath
    power: Literal[3, 6] | None = None
    compared: Literal["distances", "intensities"] | None = None
    bound: Literal["upper", "lower"] | None = None
    adjusted: Literal["scale", "offset", "both", "modulation-depth"] | None = None
    held_out: bool = False
    groups: Annotated[list[Name | Integer], Field(min_length=1)] | None = None

    _paths = field_validator("calculated", "torsions", "positions", "measured")(
        lambda path, info: None if path is None else relative_to_config(path, info)
    )

    @property
    def files(self) -> dict[str, Path]:
        """The input files, by key; those of a path with {name} or {frame} in it, by their own names. No stores."""
        found = {"calculated": self.calculated, "torsions": self.torsions, "measured": self.measured}
        named = {key: path for key, path in found.items() if path is not None}
        for key in [key for key, path in named.items() if any(place in path.name for place in PLACES)]:
            path = named.pop(key)
            pattern = path.name.replace("{name}", "*").replace("{frame}", "*")
            named |= {f"{key} {one.name}": one for one in sorted(path.parent.glob(pattern))}
        return named

    @model_validator(mode="after")
    def _one_source(self) -> AveragedConfig:
        if sum(one is not None for one in (self.calculated, self.torsions, self.positions)) != 1:
            raise ValueError(
                f"data '{self.name}' need one of calculated, torsions and positions: give just one of them"
            )
        if (self.torsions is not None or self.observable == "torsions") != (self.curve is not None):
            raise ValueError(f"data '{self.name}': torsions and the curve that makes couplings of them go together")
        if self.power is not None and self.curve is not None:
            raise ValueError(f"data '{self.name}': power = {self.power} is of distances, and has no effect on torsions")
        if self.groups is not None and self.held_out:
            raise ValueError(f"data '{self.name}': groups are of data that are fitted, and have no effect on held_out")
        return self

    @model_validator(mode="after")
    def _numbers_over_sigmas(self) -> AveragedConfig:
        given = [path for path in (self.measured, self.calculated, self.torsions) if path and path.suffix in HDF5]
        if not given:
            return self
        if self.calculated != self.measured:
            raise ValueError(
                f"data '{self.name}': {given[0].name} holds measured and calculated numbers over their sigmas: give it"
                " as both measured and calculated"
            )
        if self.power is not None or self.adjusted not in (None, "scale"):
            what = "power" if self.power is not None else f"adjusted = '{self.adjusted}'"
            raise ValueError(
                f"data '{self.name}': {what} needs numbers that are not over their sigmas, as those of"
                f" {given[0].name} are: give them in text, .npy or .csv, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _positions_are_observed(self) -> AveragedConfig:
        if (self.positions is None) != (self.observable is None):
            raise ValueError(f"data '{self.name}': positions and the observable that is computed of them go together")
        if (self.observable in ("distances", "torsions")) != (self.atoms is not None):
            raise ValueError(f"data '{self.name}': atoms are those of the observables distances and torsions")
        if self.power is not None and self.observable == "scattering":
            raise ValueError(f"data '{self.name}': power = {self.power} has no effect on scattering")
        return self

    @model_validator(mode="after")
    def _nothing_is_adjusted_in_vain(self) -> AveragedConfig:
        if self.adjusted is not None and (self.power is not None or self.bound is not None):
            raise ValueError(
                f"data '{self.name}': adjusted = '{self.adjusted}' is of numbers that are averaged and compared on both"
                " sides, not of distances by a power or of bounds"
            )
        if self.compared is not None and self.power is None and self.measured.suffix in (".npy", ".csv"):
            raise ValueError(f"data '{self.name}': compared = '{self.compared}' has no effect without power")
        return self
