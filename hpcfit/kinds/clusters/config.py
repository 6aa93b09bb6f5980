"""The [problem] table of kind "clusters": who forms clusters, within which distances, and what is counted of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from hpcfit.config.table import (
    Count,
    FilePath,
    NonNegative,
    Positive,
    Real,
    Repeats,
    Table,
    Whole,
    changed,
    relative_to_config,
)
from hpcfit.kinds.clusters.mixture.config import ScatteringTables
from hpcfit.kinds.clusters.prediction.config import (
    DebyeWallerConfig,
    LibraryConfig,
    PlacementConfig,
    PredictionConfig,
    check_tables,
)

MINIMUM = "minimum"
Radius = Positive | Literal["minimum"]
Lengths = Annotated[list[Positive], Field(min_length=3, max_length=6)]


class ShellsConfig(Table):
    """The growth of shells. levels: around nodes, within the cut-offs of these levels (Pb-O = { 1 = 3.3 }); within
    those of level 0 shells join what they touch. shared: those of higher levels may belong to several clusters,
    else to the first; in_labels: labels and radii count them."""

    levels: list[Count] = []
    shared: bool = False
    in_labels: bool = False


class ClustersConfig(ScatteringTables):
    """Clusters of nodes that linkers join, in the frames of a store of positions.

    node, linker, shell: elements, or molecules by the names of their residues. cutoffs: distances (A) by pair,
    inclusive, "minimum": the first minimum of the radial distribution (up to rdf_range, A); a table gives them by
    level. default_cutoff: of other pairs, which are else not bound. box: lengths (A), or lengths and angles
    (degrees), where frames have none; periodic: by default as the frames say. timestep_fs: between frames without
    times, which begin at first_time_fs; start_fs, stop_fs: the window. frames_per_bin: of the colormap.
    percolation: what is to be done about clusters that are bound to their own image, or have more units than
    largest (256 or 10 % of them). structures: kept of each label. identity: lifetimes of the same atoms; residence:
    of the same bonds; dwell: frames of absence that they bridge. resamples: of blocks of frames, for errors.
    energy_file: of CP2K, drawn below the colormap.
    """

    needs: ClassVar = ("frames",)
    without_effect: ClassVar = ("frames.residence",)

    kind: Literal["clusters"]
    node: Annotated[list[str], Field(min_length=1)]
    linker: list[str] = []
    shell: list[str] = []
    label_style: Literal["roles", "saxshell"] = "roles"
    cutoffs: dict[str, Radius | dict[str, Radius]] = {}
    default_cutoff: Positive | None = None
    rdf_range: Positive = 8.0
    shells: ShellsConfig = ShellsConfig()
    periodic: bool | None = None
    box: Lengths | None = None
    timestep_fs: Positive | None = None
    first_time_fs: NonNegative | None = None
    start_fs: Real | None = None
    stop_fs: Real | None = None
    frames_per_bin: Count = 1
    percolation: Literal["error", "flag"] = "error"
    largest: Count | None = None
    structures: Count = 24
    identity: bool = False
    residence: bool = False
    dwell: Whole = 0
    resamples: Repeats = 200
    energy_file: FilePath | None = None
    prediction: PredictionConfig | None = None
    library: LibraryConfig = LibraryConfig()
    placement: PlacementConfig = PlacementConfig()
    debye_waller: DebyeWallerConfig = DebyeWallerConfig()

    _path = field_validator("energy_file")(relative_to_config)

    @property
    def files(self) -> dict[str, Path]:
        """The energies, and the measured curves."""
        energies = {} if self.energy_file is None else {"energy_file": self.energy_file}
        return energies | self.scattering_files

    @property
    def by_level(self) -> dict[str, dict[int, Radius]]:
        """Cut-offs by pair and level."""
        return {
            pair: {int(level): r for level, r in given.items()} if isinstance(given, dict) else {0: given}
            for pair, given in self.cutoffs.items()
        }

    @property
    def asks_for_minima(self) -> bool:
        """True where a cut-off is to be found by a radial distribution."""
        return any(MINIMUM in of_levels.values() for of_levels in self.by_level.values())

    @model_validator(mode="after")
    def _species(self) -> ClustersConfig:
        listed = [*self.node, *self.linker, *self.shell]
        twice = sorted({one for one in listed if listed.count(one) > 1})
        if twice:
            raise ValueError(
                f"the species {', '.join(twice)} has two roles, or is named twice; it has one of node, linker, shell"
            )
        for pair, given in self.cutoffs.items():
            if isinstance(given, dict):
                wrong = [
                    level for level in given if not level.isdecimal() or int(level) not in (0, *self.shells.levels)
                ]
                if wrong:
                    raise ValueError(
                        f"cutoffs.{pair} has level {wrong[0]}, which is neither 0 nor one of shells.levels ="
                        f" {self.shells.levels}"
                    )
        return self

    @model_validator(mode="after")
    def _no_option_without_effect(self) -> ClustersConfig:
        tracked = self.identity or self.residence
        needs = {
            "rdf_range": (self.asks_for_minima, "a cut-off 'minimum'"),
            "shells": (bool(self.shell), "a species of role shell"),
            "first_time_fs": (self.timestep_fs is not None, "timestep_fs"),
            "dwell": (tracked or not self.dwell, "identity or residence"),
            "box": (self.periodic is not False, "periodic frames"),
        }
        for key in sorted(changed(self) & needs.keys()):
            there, words = needs[key]
            if not there and getattr(self, key) is not None:
                raise ValueError(f"{key} = {getattr(self, key)} has no effect without {words}: leave it out")
        if self.shells.shared and not self.shells.levels:
            raise ValueError("shells.shared has an effect on shells.levels only: give levels, or leave it out")
        if self.box is not None and len(self.box) not in (3, 6):
            raise ValueError("box has 3 lengths (A), or 3 lengths and 3 angles (degrees)")
        check_tables(self)
        if None not in (self.start_fs, self.stop_fs) and self.start_fs >= self.stop_fs:
            raise ValueError(f"start_fs = {self.start_fs} is not before stop_fs = {self.stop_fs}")
        return self
