"""Every number of every table has a range, and the error of one outside of it names key, value and range."""

import importlib
import pkgutil
import typing

import pytest

import hpcfit
from hpcfit.config.table import Table
from hpcfit.errors import InputError
from hpcfit.kinds.table import load_config
from tests.config.test_config import FORCE_MAP_MINIMAL, MINIMAL, written


def tables():
    """All classes of tables, with those of every kind."""
    for module in pkgutil.walk_packages(hpcfit.__path__, "hpcfit."):
        if module.name.startswith("hpcfit.config") or module.name.endswith("config"):
            importlib.import_module(module.name)
    found, new = [], [Table]
    while new:
        new = [below for one in new for below in one.__subclasses__() if below.__module__.startswith("hpcfit.")]
        found += new
    return dict.fromkeys(found)


def numbers(annotation, metadata):
    """The bounds of each number that a field may hold: sets of ge, gt, le, lt."""
    if annotation in (int, float):
        parts = [part for one in metadata for part in getattr(one, "metadata", [one])]
        yield {name for part in parts for name in ("ge", "gt", "le", "lt") if hasattr(part, name)}
    elif hasattr(annotation, "__metadata__"):
        yield from numbers(annotation.__origin__, (*metadata, *annotation.__metadata__))
    else:
        for part in typing.get_args(annotation):
            yield from numbers(part, metadata)


def test_every_number_of_every_table_has_a_range():
    bounds = {
        (table.__name__, key): found
        for table in tables()
        for key, field in table.model_fields.items()
        for found in numbers(field.annotation, tuple(field.metadata))
    }
    assert len(bounds) > 250
    assert [key for key, found in bounds.items() if not (found & {"ge", "gt"} and found & {"le", "lt"})] == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("theta = inf", "'problem.theta' = inf: must be at least 0 and at most 1e+15"),
        ("theta = nan", "'problem.theta' = nan: must be at least 0 and at most 1e+15"),
        ("theta = 1e300", "'problem.theta' = 1e+300: must be at least 0 and at most 1e+15"),
        ("theta = [0.1, inf]", "'problem.theta.1' = inf: must be at least 0 and at most 1e+15"),
        ("hold_out = 1", "'problem.hold_out' = 1: must be at least 0 and below 1"),
        ("dropping_percentile = 0", "'problem.dropping_percentile' = 0: must be above 0 and below 100"),
        ("hold_out_seed = 9223372036854775808", "'problem.hold_out_seed' = 9223372036854775808: must be at least 0"),
        ("d_min = -0.0", "'problem.d_min' = -0.0: must be at least 0.05 and at most 10000"),
        ("[run]\nthreads = 0x" + "f" * 6000, "'run.threads' = a number of thousands of digits: must be at least 1"),
        ("[experiment]\ncell = [1, 1, 1, 90, 90, 180]", "'experiment.cell.5' = 180: must be above 0 and below 180"),
    ],
)
def test_a_number_out_of_its_range_is_one_error_with_key_value_and_range(tmp_path, line, words):
    text = MINIMAL.replace('[experiment]\nfile = "map.npz"\n', "") if "[experiment]" in line else MINIMAL
    with pytest.raises(InputError) as caught:
        load_config(written(tmp_path, text + line.replace("[experiment]", '[experiment]\nfile = "map.npz"') + "\n"))
    assert words in str(caught.value)
    assert str(caught.value).count("'problem.theta") <= 1  # not what the other types of the key would be too


def test_of_two_numbers_the_range_of_the_one_that_is_out(tmp_path):
    for pair, words in (("[-1, 2]", "'problem.force_matching.pair_range.0' = -1: must be at least 0"),
                        ("[1, 0]", "'problem.force_matching.pair_range.1' = 0: must be at least 1e-15")):  # fmt: skip
        with pytest.raises(InputError) as caught:
            load_config(written(tmp_path, FORCE_MAP_MINIMAL + f"[problem.force_matching]\npair_range = {pair}\n"))
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "line", ["shells = " + "1" * 5000, "laue = " + "[" * 5000 + "]" * 5000, "laue = '\udc80'", "laue = '\x00'"]
)
def test_what_is_no_toml_is_said(tmp_path, line):
    path = tmp_path / "config.toml"
    path.write_bytes((MINIMAL + line + "\n").encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"config.toml is not TOML"):
        load_config(path)
