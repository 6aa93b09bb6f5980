"""The tables of the input: [frames], [prepare] with its [[prepare.source]], [experiment]."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from hpcfit.config.table import (
    BLOCK_FRAMES,
    Cell,
    Count,
    Divisions,
    FilePath,
    Loose,
    Resolution,
    Table,
    Whole,
    changed,
    relative_to_config,
)

# Which kinds of source, and which keys of [prepare] beside shard_frames, mean something for which content.
SOURCE_KINDS = {
    "structure-factors": ("trajectory", "mtz", "lunus", "store"),
    "forces": ("trajectory", "arrays", "deepmd"),
    "positions": ("trajectory", "arrays"),
}
OF_STRUCTURE_FACTORS = {
    "d_min", "cell", "space_group", "supercell", "dtype", "mantissa_bits", "compression", "positions", "forces",
    "sample", "oversampling", "radiation", "charges",
}  # fmt: skip
# Keys that stores were begun without; at their defaults they are no setting of a store.
LATER = ("radiation", "charges", "selection")


class FramesConfig(Table):
    store: FilePath
    include: list[str] = ["*"]
    exclude: list[str] = []
    residence: Literal["auto", "memory", "disk"] = "auto"

    _path = field_validator("store")(relative_to_config)


class ArrayKeys(Table):
    """The names of arrays in a file of them; forces (of positions alone), elements, box and time are left out where the
    file has none of the default name."""

    positions: str = "positions"
    forces: str = "forces"
    elements: str = "elements"
    box: str = "box"
    time: str = "time"


class SourceConfig(Table):
    """Inputs of one kind, with what they need.

    arrays (NumPy .npz or HDF5, no structure factors), with their units and the names of arrays in `keys`; of forces
    deepmd: folders of DeePMD-kit (A and eV unless said otherwise); topology and `system` (an OpenMM System in XML:
    masses, constraints). group: of the particles of an H5MD that has several. keys: of a trajectory, the names of the
    columns of extended XYZ; units: of it, or of a dump of LAMMPS that does not say them.
    """

    label: str = ""
    store: FilePath | None = None
    mtz: str | None = None
    lunus: str | None = None
    columns: Annotated[tuple[str, str], Loose] | None = None
    topology: FilePath | None = None
    system: FilePath | None = None
    trajectory: list[str] = []
    group: str | None = None
    arrays: list[str] = []
    deepmd: list[str] = []
    keys: ArrayKeys = Field(default_factory=ArrayKeys)
    length_unit: Literal["A", "nm", "bohr"] | None = None
    energy_unit: Literal["kJ/mol", "kcal/mol", "eV", "hartree"] | None = None
    time_unit: Literal["fs", "ps"] | None = None
    start: Whole = 0
    stop: Count | None = None
    stride: Count = 1

    @field_validator("trajectory", "arrays", "deepmd", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("topology", "system", "store")
    @classmethod
    def _path(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return relative_to_config(value, info)

    @field_validator("mtz", "lunus")
    @classmethod
    def _pattern(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else str(relative_to_config(Path(value), info))

    @field_validator("trajectory", "arrays", "deepmd")
    @classmethod
    def _trajectory_paths(cls, value: list[str], info: ValidationInfo) -> list[str]:
        return [str(relative_to_config(Path(item), info)) for item in value]

    @model_validator(mode="after")
    def _one_kind(self) -> SourceConfig:
        given = self._given
        if len(given) != 1:
            raise ValueError(
                "a source has one of `trajectory`, `mtz`, `lunus` and `store`, or, of forces, one of `trajectory`,"
                f" `arrays` and `deepmd`, of positions one of the first two; this one has {given or 'none'}"
            )
        if self.columns is not None and self.mtz is None:
            raise ValueError("`columns` names the columns of MTZ files; this source has none")
        if self.topology is not None and given[0] not in SOURCE_KINDS["forces"]:
            raise ValueError("`topology` belongs to a trajectory; this source has none")
        if self.group is not None and not self.trajectory:
            raise ValueError("`group` chooses particles of a trajectory in H5MD; this source has none")
        return self

    @model_validator(mode="after")
    def _keys_of_this_kind(self) -> SourceConfig:
        if self.time_unit is not None and not self.arrays:
            raise ValueError(f"the times of {self.kind} are known: time_unit = {self.time_unit!r} would have no effect")
        if not (self.arrays or self.deepmd or self.trajectory) and (self.length_unit or self.energy_unit):
            raise ValueError(
                f"the units of {self.kind} are known: length_unit = {self.length_unit!r}, energy_unit ="
                f" {self.energy_unit!r} would have no effect"
            )
        if self.keys != ArrayKeys() and not (self.arrays or self.trajectory):
            raise ValueError("`keys` names arrays of `arrays` or columns of extended XYZ; this source has none")
        if self.trajectory and (others := sorted(changed(self.keys) - {"positions", "forces"})):
            raise ValueError(
                f"keys of a trajectory are positions and forces, columns of extended XYZ; not {', '.join(others)}"
            )
        return self

    @property
    def kind(self) -> str:
        """The sort of input: `trajectory`, `mtz`, `lunus`, `store`, `arrays` or `deepmd`."""
        return self._given[0]

    @property
    def _given(self) -> list[str]:
        kinds = dict.fromkeys(name for names in SOURCE_KINDS.values() for name in names)
        return [name for name in kinds if getattr(self, name)]


class PrepareConfig(Table):
    """The store that `hpcfit prepare` makes, and its sources: structure factors, positions and forces, or positions
    alone."""

    content: Literal["structure-factors", "forces", "positions"] = "structure-factors"
    source: list[SourceConfig] = []
    d_min: Resolution | None = None
    cell: Cell | None = None
    space_group: str | None = None
    radiation: Literal["xray", "neutron", "electron"] = "xray"
    charges: dict[str, Annotated[int, Field(ge=-8, le=8)]] = {}
    selection: str | None = None
    supercell: Divisions = (1, 1, 1)
    dtype: Literal["float16", "complex64"] = "float16"
    mantissa_bits: Annotated[int, Field(ge=4, le=23)] | None = None
    compression: Literal["none", "bitshuffle-lz4"] = "none"
    positions: bool = False
    forces: bool = False
    shard_frames: Annotated[int, Field(ge=BLOCK_FRAMES, le=2**20, multiple_of=BLOCK_FRAMES)] = 512
    sample: Annotated[int, Field(ge=2, le=2**20)] = 64
    oversampling: Annotated[float, Field(ge=1.25, le=4)] = 1.5

    @model_validator(mode="after")
    def _keys_of_this_content(self) -> PrepareConfig:
        without_effect = sorted(changed(self) & OF_STRUCTURE_FACTORS)
        if self.content != "structure-factors" and without_effect:
            raise ValueError(
                f"with content = '{self.content}' {', '.join(without_effect)} would have no effect;"
                f" its keys are source, shard_frames{', selection' if self.content == 'positions' else ''}"
            )
        for source in self.source:
            if source.kind not in SOURCE_KINDS[self.content]:
                raise ValueError(
                    f"`{source.kind}` gives no {self.content.replace('-', ' ')}; with content = '{self.content}' a"
                    f" source has one of {', '.join(SOURCE_KINDS[self.content])}"
                )
            _check_units(source, self.content)
            if source.system is not None and self.content != "forces":
                raise ValueError("`system` has an effect with content = 'forces' only")
        return self

    @model_validator(mode="after")
    def _charges_of_xrays(self) -> PrepareConfig:
        if self.charges and self.radiation != "xray":
            raise ValueError(f"`charges` choose X-ray form factors; radiation = '{self.radiation}' knows none")
        return self

    @model_validator(mode="after")
    def _atoms_of_trajectories(self) -> PrepareConfig:
        kinds = {source.kind for source in self.source}
        if self.selection is not None and (self.content == "forces" or kinds - {"trajectory"}):
            raise ValueError(
                "`selection` chooses atoms of trajectories, of structure factors and of positions; this config has"
                f" content = '{self.content}' and sources of {', '.join(sorted(kinds)) or 'nothing'}"
            )
        without_effect = sorted(changed(self) & {"radiation", "charges"})
        if self.content == "structure-factors" and without_effect and kinds and "trajectory" not in kinds:
            raise ValueError(
                f"{', '.join(without_effect)} would have no effect: the structure factors of"
                f" {', '.join(sorted(kinds))} are computed already"
            )
        return self

    @property
    def later(self) -> dict[str, Any]:
        """The keys that stores were begun without, where they are not at their default."""
        return {name: getattr(self, name) for name in LATER if name in changed(self)}

    @model_validator(mode="after")
    def _mantissa_of_float32(self) -> PrepareConfig:
        if self.forces and not self.positions:
            raise ValueError("`forces` are kept beside positions: set positions = true as well")
        if self.mantissa_bits is not None and self.dtype == "float16":
            raise ValueError(
                "`mantissa_bits` rounds complex64; float16 keeps 10 bits as it is: set dtype = 'complex64'"
            )
        return self


def _check_units(source: SourceConfig, content: str) -> None:
    """Raise ValueError for arrays without the units that they do not say, or with some that they do not need."""
    if content == "forces" and source.arrays and None in (source.topology, source.length_unit, source.energy_unit):
        raise ValueError(
            "arrays say neither atoms nor units: give `topology`, `length_unit` (A, nm, bohr) and `energy_unit`"
            " (kJ/mol, kcal/mol, eV, hartree); forces are in energy_unit/length_unit"
        )
    if content == "positions" and source.arrays:
        if source.length_unit is None:
            raise ValueError("arrays say no unit: give `length_unit` (A, nm, bohr)")
        if source.energy_unit is not None or "forces" in source.keys.model_fields_set:
            raise ValueError("`energy_unit` and keys.forces have no effect with content = 'positions'")


class ExperimentConfig(Table):
    file: FilePath
    intensity: str | None = None
    sigma: str | None = None
    halves: Annotated[tuple[str, str], Loose] | None = None
    ndiv: Divisions | None = None
    cell: Cell | None = None
    space_group: str | None = None
    reindex: str | None = None

    _path = field_validator("file")(relative_to_config)

    @property
    def files(self) -> dict[str, Path]:
        """The map."""
        return {"file": self.file}

    @field_validator("halves")
    @classmethod
    def _two_columns(cls, value: tuple[str, str] | None) -> tuple[str, str] | None:
        if value is not None and value[0] == value[1]:
            raise ValueError(f"both halves are '{value[0]}': give two independent merges")
        return value
