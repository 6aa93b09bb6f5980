"""What every table of the config stands on: a frozen, strict model, the types of its values, and its paths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Loose = Field(strict=False)  # TOML has no paths and no tuples
FilePath = Annotated[Path, Loose]
Cell = Annotated[tuple[Positive, Positive, Positive, Positive, Positive, Positive], Loose]
Divisions = Annotated[tuple[Count, Count, Count], Loose]

BLOCK_FRAMES = 64  # frames of one HDF5 chunk, and of one block of the reproducible sums


def relative_to_config(path: Path, info: ValidationInfo) -> Path:
    """A relative path of a config means one from the folder of the config file."""
    folder = (info.context or {}).get("folder", Path())
    return Path(path) if Path(path).is_absolute() else folder / path


class Table(BaseModel):
    """A table of the config: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, strict=True)


def changed(table: Table) -> set[str]:
    """The keys of a table that are not at their default."""
    return {name for name, field in type(table).model_fields.items() if getattr(table, name) != field.get_default()}
