"""The [problem] table of kind "force-map", with [problem.beads], [problem.constraints], [problem.map] and
[problem.force_matching]."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from hpcfit.config.table import (
    Count,
    FilePath,
    Kelvin,
    NonNegative,
    Positive,
    ProblemTable,
    Repeats,
    Share,
    Table,
    Whole,
    changed,
    relative_to_config,
)

Ridge = Literal["auto"] | NonNegative | Annotated[list[NonNegative], Field(min_length=1)]
AUTO_RIDGE = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
BEAD_KEYS = ("residue", "each", "centers", "atoms", "matrix", "particles")


def ridges(value: Ridge) -> tuple[float, ...]:
    """The strengths that are tried, ascending."""
    if value == "auto":
        return AUTO_RIDGE
    return tuple(sorted(set(value))) if isinstance(value, list) else (value,)


class BeadsConfig(Table):
    """The configurational map, by one of six keys.

    residue: one bead for each residue of `selection`, at the atom of that name, or at the centre of its backbone or of
    all its atoms. each: one bead on each atom of a selection. centers: one bead at the centre of each selection. atoms:
    the same for lists of atom numbers, from 0. matrix: a file of beads x atoms. particles: the store is coarse-grained
    already, and its particles are the beads. weights: of the atoms in a centre.
    """

    residue: str | None = None
    each: str | None = None
    centers: Annotated[list[str], Field(min_length=1)] | None = None
    atoms: Annotated[list[Annotated[list[Whole], Field(min_length=1)]], Field(min_length=1)] | None = None
    matrix: FilePath | None = None
    particles: Literal[True] | None = None
    selection: str = "all"
    weights: Literal["mass", "equal"] = "mass"

    @field_validator("matrix")
    @classmethod
    def _path(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return relative_to_config(value, info)

    @model_validator(mode="after")
    def _one_way(self) -> BeadsConfig:
        given = [key for key in BEAD_KEYS if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"beads are defined by one of {', '.join(BEAD_KEYS)}; here by {given or 'none'}")
        centred = self.centers or self.atoms or self.residue in ("backbone", "center-of-mass")
        if "weights" in changed(self) and not centred:
            raise ValueError(f"weights = '{self.weights}' has no effect: no bead is the centre of several atoms")
        if "selection" in changed(self) and self.residue is None:
            raise ValueError(f"selection = '{self.selection}' has no effect without residue")
        return self


class ConstraintsConfig(Table):
    """Distances that the simulation held fixed. Sources given together are united, but must not contradict the store.

    store: those that the frames came with. system: an OpenMM System. rules: by the topology. pairs: atom numbers from
    0. virtual_sites: of the system; whether the forces on them are to be given to their parents, or have been (as by
    OpenMM and GROMACS). check: distances in a sample of the frames must agree with what is said here.
    """

    store: bool = True
    system: FilePath | None = None
    rules: list[Literal["h-bonds", "all-bonds", "rigid-water"]] = []
    pairs: list[Annotated[tuple[Whole, Whole], Field(strict=False)]] = []
    virtual_sites: Literal["redistribute", "done"] | None = None
    check: bool = True

    @field_validator("system")
    @classmethod
    def _path(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return relative_to_config(value, info)

    @model_validator(mode="after")
    def _sites_of_a_system(self) -> ConstraintsConfig:
        if self.virtual_sites is not None and self.system is None:
            raise ValueError(f"virtual_sites = '{self.virtual_sites}' has no effect without system, which says them")
        return self


class FeaturesConfig(Table):
    """Coefficients that depend on the distance of a group of atoms from the bead: Gaussians up to a cutoff (A)."""

    functions: Annotated[int, Field(ge=1, le=50)] = 6
    cutoff: Positive = 8.0


class MapConfig(Table):
    """The force maps to make, and the one that maps the frames: "best" has the least noise on held-out blocks.

    support: of local and tied maps, in bonds from the bead. tie: equivalent atoms of like molecules or residues share
    a coefficient. ridge: fraction of the mean squared force on a group. noise: standard deviation (A) of Gaussian
    noise added to the beads, with the forces that belong to it.
    """

    methods: Annotated[
        list[Literal["slice", "basic", "optimal", "local", "tied", "features", "file"]], Field(min_length=1)
    ] = ["slice", "basic", "optimal"]
    use: Literal["best", "slice", "basic", "optimal", "local", "tied", "features", "file"] = "best"
    support: Whole = 6
    tie: Literal["molecules", "residues"] = "molecules"
    ridge: Ridge = "auto"
    ridge_towards: Literal["zero", "basic", "tied"] = "zero"
    gram: Literal["auto", "dense", "local"] = "auto"
    features: FeaturesConfig = FeaturesConfig()
    file: FilePath | None = None
    noise: Positive | None = None

    @field_validator("file")
    @classmethod
    def _path(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return relative_to_config(value, info)

    @model_validator(mode="after")
    def _no_option_without_effect(self) -> MapConfig:
        if self.use != "best" and self.use not in self.methods:
            raise ValueError(f"use = '{self.use}' is not among methods = {self.methods}")
        local = "local" in self.methods or ("tied" in self.methods and self.tie == "residues")
        fitted = {"optimal", "local", "tied", "features"} & set(self.methods)
        needs = {
            "support": (local, "method local, or tied by residues"),
            "tie": ("tied" in self.methods or self.ridge_towards == "tied", "method tied"),
            "ridge": (fitted, "a method that is fitted"),
            "ridge_towards": (fitted, "a method that is fitted"),
            "features": ("features" in self.methods, "method features"),
            "file": ("file" in self.methods, "method file"),
        }  # fmt: skip
        for key in changed(self) & needs.keys():
            there, words = needs[key]
            if not there:
                raise ValueError(f"{key} = {getattr(self, key)} has no effect without {words}")
        if "file" in self.methods and self.file is None:
            raise ValueError("method file needs file: a text file or .npy of beads x atoms")
        if self.gram == "local" and not {"local", "tied"} & set(self.methods):
            raise ValueError("gram = 'local' keeps what methods local and tied need; neither is among methods")
        if self.gram == "local" and "optimal" in self.methods:
            raise ValueError("gram = 'local' does not hold what method optimal needs: leave out one of the two")
        return self


class NeuralConfig(Table):
    """A neural potential beside the linear one. hold_out: of the statistical blocks, the share that is never fitted."""

    width: Annotated[int, Field(ge=1, le=65_536)] = 64
    depth: Annotated[int, Field(ge=1, le=8)] = 2
    functions: Annotated[int, Field(ge=2, le=200)] = 20
    cutoff: Positive = 12.0
    weight_decay: NonNegative = 0.0
    hold_out: Share = 0.2
    compare: list[str] = []


class SimulationConfig(Table):
    """A short simulation of the coarse-grained model, beside the frames that it was made from. Times in ps."""

    model: Literal["linear", "neural"] = "linear"
    frames: Count = 2000
    interval: Positive = 0.2
    step: Positive = 0.01
    friction: Positive = 1.0
    seed: Whole = 0


class ForceMatchingConfig(Table):
    """A coarse-grained force field fitted to the mapped forces.

    types: of beads: those of a residue's name (and place in it), all alike, or each its own. pair_functions: of each
    pair of types, between pair_range (A; "auto": where there are frames), as Gaussians or cubic B-splines; exclusions:
    bonds apart up to which pairs have no pair function. bonds: between beads of consecutive residues of a chain
    ("auto"), or given; bonded terms are B-splines.
    """

    types: Literal["residue", "one", "each"] = "residue"
    pairs: Literal["gaussian", "b-spline"] = "b-spline"
    pair_functions: Annotated[int, Field(ge=4, le=400)] = 20
    pair_range: Literal["auto"] | Annotated[tuple[NonNegative, Positive], Field(strict=False)] = "auto"
    exclusions: Annotated[int, Field(ge=0, le=3)] = 2
    bonds: Literal["auto", "none"] | list[Annotated[tuple[Whole, Whole], Field(strict=False)]] = "auto"
    bonded_functions: Annotated[int, Field(ge=4, le=100)] = 12
    dihedrals: bool = True
    ridge: Ridge = "auto"
    neural: NeuralConfig | None = None
    simulation: SimulationConfig | None = None

    @model_validator(mode="after")
    def _model_of_the_simulation(self) -> ForceMatchingConfig:
        if self.simulation is not None and self.simulation.model == "neural" and self.neural is None:
            raise ValueError("simulation.model = 'neural' needs [problem.force_matching.neural]")
        return self


class ForceMapConfig(ProblemTable):
    """blocks: statistical blocks, contiguous parts of the trajectories, for cross-validation and errors.

    unit: in which the report gives forces. mapped: a folder for the coarse-grained frames. reference: a table of the
    exact mean force between two beads (columns r, A; f, kJ/mol/A), where it is known.
    """

    needs: ClassVar = ("frames",)
    without_effect: ClassVar = ("frames.residence",)

    kind: Literal["force-map"]
    temperature: Kelvin = 300.0
    unit: Literal["kJ/mol/A", "kJ/mol/nm", "kcal/mol/A", "eV/A"] = "kJ/mol/A"
    blocks: Annotated[int, Field(ge=2, le=1000)] = 10
    bootstrap: Repeats = 200
    beads: BeadsConfig
    constraints: ConstraintsConfig = ConstraintsConfig()
    map: MapConfig = MapConfig()
    mapped: FilePath | None = None
    reference: FilePath | None = None
    force_matching: ForceMatchingConfig | None = None

    @field_validator("mapped", "reference")
    @classmethod
    def _paths(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return relative_to_config(value, info)

    @property
    def files(self) -> dict[str, Path]:
        """The input files that it names, by key."""
        named = {
            "beads.matrix": self.beads.matrix,
            "constraints.system": self.constraints.system,
            "map.file": self.map.file,
            "reference": self.reference,
        }
        return {key: path for key, path in named.items() if path is not None}
