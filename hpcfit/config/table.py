"""The base of every table of the config: a frozen, strict model, the types of its values, and its paths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo

from hpcfit.errors import InputError

# Every number has a range. These are for quantities without one of their own: squares and inverses stay finite.
LEAST, LARGEST, MOST = 1e-15, 1e15, 2**31 - 1
Positive = Annotated[float, Field(ge=LEAST, le=LARGEST)]
NonNegative = Annotated[float, Field(ge=0, le=LARGEST)]
Real = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=MOST)]
Whole = Annotated[int, Field(ge=0, le=MOST)]
Integer = Annotated[int, Field(ge=-MOST, le=MOST)]
Repeats = Annotated[int, Field(ge=0, le=100_000)]  # of a resampling, or of a fit
Folds = Annotated[int, Field(ge=2, le=10_000)]
Kelvin = Annotated[float, Field(ge=1e-12, le=1e12)]
Resolution = Annotated[float, Field(ge=0.05, le=1e4)]  # A
Edge = Annotated[float, Field(ge=1e-3, le=1e6)]  # A
Angle = Annotated[float, Field(gt=0, lt=180)]  # degrees
Loose = Field(strict=False)  # TOML has no paths and no tuples
FilePath = Annotated[Path, Loose]
Cell = Annotated[tuple[Edge, Edge, Edge, Angle, Angle, Angle], Loose]
Division = Annotated[int, Field(ge=1, le=2**15)]
Divisions = Annotated[tuple[Division, Division, Division], Loose]

# What an optimizer moves: vectors of parameters, weights that sum to 1, or choices of frames.
Space = Literal["vectors", "simplex", "selections"]
MOVES: dict[Space, str] = {"simplex": "moves on the simplex", "selections": "selects frames"}

BLOCK_FRAMES = 64  # frames of one HDF5 chunk, and of one block of the reproducible sums


def relative_to_config(path: Path | None, info: ValidationInfo) -> Path | None:
    """A relative path of a config means one from the folder of the config file; None stays None."""
    if path is None:
        return None
    folder = (info.context or {}).get("folder", Path())
    return Path(path) if Path(path).is_absolute() else folder / path


def function_beside_config(name: str, info: ValidationInfo) -> str:
    """``FILE.py:function`` with the file's path; a relative one means one from the folder of the config file."""
    where, _, function = name.rpartition(":")
    return f"{relative_to_config(Path(where), info)}:{function}" if where.endswith(".py") else name


def file_of_function(name: str) -> Path | None:
    """The file of ``FILE.py:function``; None for a function of a module."""
    where = name.rpartition(":")[0]
    return Path(where) if where.endswith(".py") else None


class Table(BaseModel):
    """A table of the config: frozen; a key that it does not know, and a number that is not finite, is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, strict=True, allow_inf_nan=False
    )  # fmt: skip

    @property
    def files(self) -> dict[str, Path]:
        """The input files that the table names, by key: their content decides what a fit finds."""
        return {}


class ProblemTable(Table):
    """The [problem] table of one kind of problem, and what this kind asks of the other tables.

    needs: tables that a fit needs beside it. owns: tables that no other kind has, by name; list[X] is an array of
    tables. without_effect: tables of all kinds, or keys of them (`frames.residence`), that mean nothing here.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    owns: ClassVar[Mapping[str, Any]] = {}
    without_effect: ClassVar[tuple[str, ...]] = ()

    kind: str

    def check_optimizer(self, name: str, space: Space) -> None:
        """Raise InputError where an optimizer that moves in this space cannot search the problem."""
        if space != "vectors":
            raise InputError(
                f"[optimizer] name = '{name}' {MOVES[space]}, which [problem] kind = '{self.kind}' does not",
                remedy="use name = 'lbfgs', or an elementwise one such as 'adam'",
            )


def check_are_unique(what: str, names: Iterable[str]) -> None:
    """Raise ValueError for a name that is given twice. what: has these names, in words."""
    listed = list(names)
    twice = sorted({name for name in listed if listed.count(name) > 1})
    if twice:
        raise ValueError(f"{what}: the name '{twice[0]}' is given twice; names tell them apart")


def changed(table: Table) -> set[str]:
    """The keys of a table that are not at their default."""
    return {name for name, field in type(table).model_fields.items() if getattr(table, name) != field.get_default()}
