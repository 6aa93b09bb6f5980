"""The points of a sweep: the product of its axes, each a config of its own in a directory named by its hash."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hpcfit.config import Config, MonitorConfig
from hpcfit.errors import InputError
from hpcfit.kinds.table import kind_named, load_config
from hpcfit.store.files import write_text
from hpcfit.sweep import outcome as results
from hpcfit.sweep.fit_identity import Identities

SEED = "run.seed"


@dataclass(frozen=True)
class Axis:
    """A key of the config and its values, as they are typed after `--set KEY=`.

    repeat: values that are averaged over. fixed: further overrides that each point needs with it.
    """

    key: str
    values: Sequence[str]
    repeat: bool = False
    fixed: Sequence[str] = ()


def grid(text: str) -> Axis:
    """`problem.theta=0,1e-3,1e-2` as an axis."""
    key, equals, values = text.partition("=")
    found = [value.strip() for value in split_values(values)]
    if not (equals and "." in key and all(found)):
        raise InputError(
            f"--grid {text}: expected section.key=value,value,...", remedy="for example --grid problem.theta=0,1e-3"
        )
    return Axis(key.strip(), found)


def folds(number: int) -> Axis:
    """Each of so many parts of the measured orbits held out in turn."""
    return Axis("problem.fold", _counted("--folds", number, 0, 2), repeat=True, fixed=[f"problem.folds={number}"])


MOST_POINTS = 100_000


def seeds(number: int) -> Axis:
    """Random starts; what makes a run depend on its seed is the kind's to say."""
    return Axis(SEED, _counted("--seeds", number, 0, 1), repeat=True)


def bootstrap(number: int) -> Axis:
    """Bootstrap samples of the measured orbits."""
    return Axis("problem.bootstrap", _counted("--bootstrap", number, 1, 1), repeat=True)


def _counted(option: str, number: int, first: int, fewest: int) -> list[str]:
    if number < fewest:
        raise InputError(f"{option} {number}: at least {fewest} are needed", remedy=f"for example {option} 5")
    if number > MOST_POINTS:
        raise InputError(f"{option} {number}: at most {MOST_POINTS} are fitted", remedy=f"for example {option} 5")
    return [str(first + count) for count in range(number)]


def split_values(text: str) -> list[str]:
    """The values between commas; a comma inside brackets, braces or quotes belongs to its value."""
    values, depth, quote = [""], 0, ""
    for character in text:
        if character == "," and not depth and not quote:
            values.append("")
            continue
        values[-1] += character
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        else:
            depth += (character in "[{") - (character in "]}")
    return values


class Point(NamedTuple):
    """One fit: its values of the axes by key, and its config, which names its run directory."""

    values: dict[str, Any]
    config: Config

    @property
    def directory(self) -> Path:
        """The run directory of the point."""
        return self.config.run.directory

    @property
    def name(self) -> str:
        """The values in words."""
        return ", ".join(f"{key} = {value}" for key, value in self.values.items())


def points_of(path: Path, overrides: Sequence[str], axes: Sequence[Axis], folder: Path) -> list[Point]:
    """The product of the axes, in order, under ``folder``.

    Raises InputError where a config is wrong, a fit comes twice, or an input is missing.
    """
    _check_keys(axes)
    fixed = [text for axis in axes for text in axis.fixed]
    if any(axis.key == SEED for axis in axes):
        fixed += kind_named(load_config(path, overrides).problem.kind).seeded
    points: dict[str, Point] = {}
    identity = Identities()
    for values in itertools.product(*(axis.values for axis in axes)):
        chosen = [f"{axis.key}={value}" for axis, value in zip(axes, values, strict=True)]
        config = load_config(path, [*overrides, *fixed, *chosen])
        name = identity(config)
        if name in points:
            raise InputError(
                f"two points of the sweep are the same fit: {' '.join(chosen)} and {points[name].name}",
                remedy="give values that differ, of keys or files that change what a fit finds",
            )
        point = Point({axis.key: value_of(config, axis.key) for axis in axes}, _placed(config, folder / name))
        points[name] = point
    return list(points.values())


def _check_keys(axes: Sequence[Axis]) -> None:
    keys = [axis.key for axis in axes]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise InputError(f"{', '.join(twice)} is given by two axes", remedy="give each key once, with all its values")
    if not keys:
        raise InputError(
            "a sweep without an axis is one fit",
            remedy="give --grid, --folds, --seeds or --bootstrap, or `hpcfit optimize`",
        )


def value_of(config: Config, key: str) -> Any:
    """The value of `section.key` in a config, or of `section.0.key` in a list of tables, as JSON has it; None where it
    is not set."""
    value: Any = config.model_dump(mode="json")
    for name in key.split("."):
        if isinstance(value, list):
            value = value[int(name)]
        elif isinstance(value, dict):
            value = value.get(name)
        else:
            return None
    return value


def _placed(config: Config, directory: Path) -> Config:
    """The config of one of many fits: a directory of its own, no cluster and no dashboard."""
    run = config.run.model_copy(update={"directory": directory})
    return config.model_copy(update={"run": run, "cluster": None, "monitor": MonitorConfig()})


def write_plan(folder: Path, axes: Sequence[Axis], points: Sequence[Point]) -> None:
    """Write the config of each point into its directory, and sweep.json, from which the table is made."""
    for point in points:
        write_text(point.directory / "config.toml", point.config.to_toml())
    plan = results.plan_text(
        [results.Axis(axis.key, axis.repeat) for axis in axes],
        [results.Point(point.values, point.directory) for point in points],
    )
    write_text(folder / results.PLAN, plan)
