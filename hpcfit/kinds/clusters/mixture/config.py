"""The tables [problem.scattering], [[problem.curve]], [problem.background] and [problem.mixture]."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from hpcfit.config.table import (
    Count,
    FilePath,
    NonNegative,
    Positive,
    ProblemTable,
    Real,
    Repeats,
    Table,
    Whole,
    changed,
    relative_to_config,
)

SPHERES = {"none": (), "hard": ("radius", "fraction"), "charged": ("radius", "fraction", "charge")}
Bounds = Annotated[list[NonNegative], Field(min_length=2, max_length=2)]
Columns = Annotated[list[Whole], Field(min_length=2, max_length=3)]


class FileConfig(Table):
    """A curve in a file. unit: of q in text; columns: of q, I and sigma in text, from 0; sigma: "measured", "drop" for
    leaving rows without one out, or a fraction of I."""

    file: FilePath
    unit: Literal["1/A", "1/nm"] = "1/A"
    columns: Columns = [0, 1, 2]
    sigma: Literal["measured", "drop"] | Positive = "measured"

    _path = field_validator("file")(relative_to_config)

    @model_validator(mode="after")
    def _different_columns(self) -> FileConfig:
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"columns = {self.columns} names a column twice: q, I and sigma have one each")
        return self


class CurveConfig(FileConfig):
    """A measured curve, or the segment of one detector. q_min, q_max: the rows that are used, 1/A."""

    q_min: NonNegative = 0.0
    q_max: Positive | None = None


class BackgroundConfig(FileConfig):
    """The curve of the solvent. use: "fit", as a component with a weight of its own, or "subtract", `factor` times."""

    use: Literal["fit", "subtract"] = "fit"
    factor: Positive = 1.0

    @model_validator(mode="after")
    def _factor_of_subtraction(self) -> BackgroundConfig:
        if "factor" in changed(self) and self.use == "fit":
            raise ValueError(f"factor = {self.factor} has no effect with use = 'fit': leave it out")
        return self


class ScatteringConfig(Table):
    """The scattering of clusters. q_min, q_max: 1/A, by default those of the curve, or 0.02 to 1.2; points: of q,
    without a curve. ions: scatter in place of elements. solvent_density: of the solvent that atoms displace,
    electrons/A^3 (X-rays) or fm/A^3 (neutrons); volumes: A^3, by element; volume_scale: of all. populations: "number",
    mean counts, or "occupancy", these times the share of frames (at least 0.05). linkers: free ones scatter too. box:
    S(q) of all atoms of the periodic box as well, in vacuum, up to box_q_max (1/A, by default that of the clusters), in
    shells of |q| of box_width (1/A), from at most box_vectors vectors of each.
    stitch_scaled: whether segments are scaled to those before them; stitch_tolerance: relative difference that is left.
    guinier_q_min: 1/A, guinier_q_rg: largest q Rg of Guinier's fit."""

    q_min: NonNegative | None = None
    q_max: Positive | None = None
    points: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    radiation: Literal["xray", "neutron"] = "xray"
    ions: dict[str, str] = {}
    solvent_density: Real | None = None
    volumes: dict[str, Positive] = {}
    volume_scale: Positive = 1.0
    populations: Literal["number", "occupancy"] = "number"
    linkers: bool = False
    box: bool = False
    box_q_max: Positive | None = None
    box_width: Positive = 0.05
    box_vectors: Count = 500
    stitch_scaled: bool = True
    stitch_tolerance: Positive = 0.05
    guinier_q_min: NonNegative = 0.0
    guinier_q_rg: Positive = 1.3

    @model_validator(mode="after")
    def _no_option_without_effect(self) -> ScatteringConfig:
        if self.solvent_density is None and (given := {"volumes", "volume_scale"} & changed(self)):
            raise ValueError(f"{sorted(given)[0]} has no effect without solvent_density: leave it out")
        if not self.box and (given := {"box_q_max", "box_width", "box_vectors"} & changed(self)):
            raise ValueError(f"{sorted(given)[0]} has no effect without box = true: leave it out")
        if self.ions and self.radiation == "neutron":
            raise ValueError("ions have no effect on radiation = 'neutron': nuclei scatter, leave them out")
        if None not in (self.q_min, self.q_max) and self.q_min >= self.q_max:
            raise ValueError(f"q_min = {self.q_min} is not below q_max = {self.q_max}")
        return self


class MixtureConfig(Table):
    """The fit of a mixture. weights: populations are fitted, held by prior x KL(w || w0) to those that were counted and
    predicted; offset: a constant is; spheres: S(q), with bounds and starts of radius (A), fraction and charge (e),
    debye_length and bjerrum in A; refine_b: pairs such as "Pb-I" whose B is fitted, by a factor of some exp(+-b_width).
    folds: segments of q that are left out in turn; bootstrap: refits, of points of q in runs of `neighbours`, and of
    blocks of frames; posterior: draws of DREAM after `burn` generations, 0: none."""

    weights: bool = True
    prior: NonNegative = 1.0
    offset: bool = True
    spheres: Literal["none", "hard", "charged"] = "none"
    bounds: dict[str, Bounds] = {}
    starts: dict[str, Positive] = {}
    debye_length: Positive | None = None
    bjerrum: Positive | None = None
    refine_b: list[str] = []
    b_width: Positive = 1.0
    folds: Annotated[int, Field(ge=0, le=50)] = 5
    bootstrap: Repeats = 20
    neighbours: Count = 1
    posterior: Whole = 0
    burn: Count = 500

    @model_validator(mode="after")
    def _no_option_without_effect(self) -> MixtureConfig:
        names = SPHERES[self.spheres]
        for table in ("bounds", "starts"):
            if wrong := sorted(getattr(self, table).keys() - set(names)):
                known = f"has {', '.join(names)}" if names else "has no parameters"
                raise ValueError(f"{table}.{wrong[0]} has no effect: S(q) of spheres = '{self.spheres}' {known}")
        needs = {
            "debye_length": (self.spheres == "charged", "spheres = 'charged'"),
            "bjerrum": (self.spheres == "charged", "spheres = 'charged'"),
            "prior": (self.weights, "weights = true"),
            "b_width": (bool(self.refine_b), "refine_b"),
            "neighbours": (self.bootstrap > 0, "bootstrap"),
            "burn": (self.posterior > 0, "posterior"),
        }
        for key in sorted(changed(self) & needs.keys()):
            there, words = needs[key]
            if not there:
                raise ValueError(f"{key} = {getattr(self, key)} has no effect without {words}: leave it out")
        if self.spheres == "charged" and None in (self.debye_length, self.bjerrum):
            raise ValueError("spheres = 'charged' needs debye_length and bjerrum (A; of water 7.13, DMF 15.2)")
        for name, (low, high) in self.bounds.items():
            if low >= high:
                raise ValueError(f"bounds.{name} = [{low}, {high}]: the first is not below the second")
        if self.bootstrap == 1:
            raise ValueError("bootstrap = 1: a standard error needs 2 refits at least, or 0 for none")
        if self.folds == 1:
            raise ValueError("folds = 1: with all points left out none are fitted; give 2 at least, or 0 for none")
        if self.posterior and not (self.weights or self.refine_b or names):
            raise ValueError("posterior has nothing to draw: fit weights, refine_b or spheres, or leave it out")
        return self


class ScatteringTables(ProblemTable):
    """The tables about scattering, with what they ask of each other."""

    scattering: ScatteringConfig | None = None
    curve: list[CurveConfig] = []
    background: BackgroundConfig | None = None
    mixture: MixtureConfig | None = None

    @field_validator("curve", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @property
    def scatters(self) -> bool:
        """True where intensities are asked for."""
        return self.scattering is not None or bool(self.curve)

    @property
    def of_scattering(self) -> ScatteringConfig:
        """The table [problem.scattering], or its defaults."""
        return self.scattering or ScatteringConfig()

    @property
    def of_mixture(self) -> MixtureConfig:
        """The table [problem.mixture], or its defaults."""
        return self.mixture or MixtureConfig()

    @property
    def scattering_files(self) -> dict[str, Path]:
        """The files of curves, by key."""
        found = {f"curve {number}": one.file for number, one in enumerate(self.curve, 1)}
        return found if self.background is None else found | {"background": self.background.file}

    @model_validator(mode="after")
    def _curve_where_one_is_needed(self) -> ScatteringTables:
        given = changed(self.scattering) if self.scattering else set()
        if self.curve and "points" in given:
            raise ValueError("scattering.points has no effect with a curve, whose points of q are taken: leave it out")
        stitching = {"stitch_scaled", "stitch_tolerance"} & given
        if len(self.curve) < 2 and stitching:
            raise ValueError(f"scattering.{sorted(stitching)[0]} has no effect on fewer than two [[problem.curve]]")
        if not self.curve:
            guinier = {"guinier_q_min", "guinier_q_rg"} & given
            if guinier:
                raise ValueError(f"scattering.{sorted(guinier)[0]} has no effect without [[problem.curve]]")
            for name in ("background", "mixture"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} has no effect without a measured curve: give [[problem.curve]] file")
        return self
