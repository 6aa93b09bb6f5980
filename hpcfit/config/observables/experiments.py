"""Tables of observables of scattering and of nuclear magnetic resonance."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpcfit.config.observables.measured import (
    Atoms,
    Finite,
    MeasuredCurve,
    MeasuredLengths,
    Name,
    ObservableConfig,
    OneOrMore,
    Quadruples,
    Range,
    Triple,
    Vector,
)
from hpcfit.config.table import NonNegative, Positive, Table

Radiation = Literal["xray", "neutron", "electron"]
Karplus = Annotated[list[Finite], Field(min_length=3, max_length=3)]


class SmallAngleScatteringConfig(MeasuredCurve):
    """The intensity of a molecule, by Debye's sum over its atoms without solvent.

    q: momentum transfers 4 pi sin(theta) / lambda, 1/nm; those of a measured curve where they are not given. range: of
    the curve, 1/nm. atoms: those that scatter. units: of what was measured, arbitrary ones, so that the factor that
    agrees best is taken, and with ``background`` a constant beside it; or squares of form factors, which are electrons
    (X-rays), fm (neutrons) or A (electrons).
    """

    observable: Literal["small-angle-scattering"]
    q: Annotated[list[NonNegative], Field(min_length=1)] | None = None
    range: Range | None = None
    radiation: Radiation = "xray"
    atoms: Atoms = "all"
    units: Literal["arbitrary", "absolute"] = "arbitrary"
    background: bool = False

    @model_validator(mode="after")
    def _momentum_transfers(self) -> SmallAngleScatteringConfig:
        self.require_text("range")
        if self.q is None and not self.is_text:
            raise ValueError(f"observable '{self.name}' needs `q`, or a text file `measured` that has them")
        if self.background and self.units == "absolute":
            raise ValueError(f"observable '{self.name}': background = true has no effect on units = 'absolute'")
        if self.units == "arbitrary" and not self.is_measured:
            raise ValueError(f"observable '{self.name}' is not measured, and has no units: set units = 'absolute'")
        return self


class StructureFactorsConfig(ObservableConfig):
    """Structure factors of the mean density of a periodic frame: amplitudes, or real and imaginary part of each hkl in
    turn; in electrons (X-rays), fm (neutrons) or A (electrons)."""

    observable: Literal["structure-factors"]
    hkl: Annotated[list[Triple], Field(min_length=1)]
    parts: Literal["amplitude", "complex"] = "amplitude"
    radiation: Radiation = "xray"


class ElectronDensityConfig(ObservableConfig):
    """The mean electron density at points of a periodic frame, electrons/nm^3. points: in fractions of the box; blur:
    B, A^2, by which all atoms are smeared."""

    observable: Literal["electron-density"]
    points: Annotated[list[Vector], Field(min_length=1)]
    blur: Positive = 20.0


class NoeConfig(MeasuredLengths):
    """Effective distances of nuclear Overhauser effects, nm: (<sum of r^-power> / n)^(-1/power) over all pairs of
    protons of two groups. n: the number of pairs if ``divided``, else 1."""

    observable: Literal["noe"]
    groups: Annotated[list[Annotated[list[Atoms], Field(min_length=2, max_length=2)]], Field(min_length=1)]
    power: Literal[3, 6] = 6
    divided: bool = True


class CurveConfig(Table):
    """A Karplus curve A cos^2 + B cos + C, Hz, of a torsion to which ``offset`` (rad) was added."""

    name: Name
    coefficients: Karplus
    offset: Finite = 0.0
    fitted: bool = False


class ScalarCouplingsConfig(ObservableConfig):
    """Couplings A cos^2(phi + offset) + B cos(phi + offset) + C of torsions, Hz. coefficients: A, B and C, Hz, one set
    or one of each torsion; or a ``curve`` of the problem has them. offset: rad, one or one of each, beside the curve's.
    """

    observable: Literal["scalar-couplings"]
    quadruples: Quadruples
    coefficients: Karplus | Annotated[list[Karplus], Field(min_length=1)] | None = None
    curve: Name | None = None
    offset: OneOrMore = 0.0

    @model_validator(mode="after")
    def _one_curve(self) -> ScalarCouplingsConfig:
        if (self.coefficients is None) == (self.curve is None):
            raise ValueError(f"observable '{self.name}' needs `coefficients` or a `curve`: give just one of them")
        return self


EXPERIMENTS = (
    SmallAngleScatteringConfig, StructureFactorsConfig, ElectronDensityConfig, NoeConfig, ScalarCouplingsConfig,
)  # fmt: skip
