"""Tables of observables: what they refuse, with its reason, and their files."""

import re
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from hpcfit.config.observables import AnyObservable
from tests.observables.waters import TABLES, table, whole


@pytest.mark.parametrize("name", TABLES)
def test_a_table_comes_back_from_what_it_writes(name):
    config = whole(name)
    assert TypeAdapter(AnyObservable).validate_python(config.model_dump(exclude_none=True)) == config


RADIAL = {"of": "all", "among": "all", "width": 0.01}
REFUSED = {
    "no name of an observable": ({"observable": "radius"}, "observable = 'radius': did you mean"),
    "no observable": ({}, "key `observable` is missing"),
    "a bound of nothing": (
        {"observable": "pressure", "values": None, "sigma": None, "bound": "upper"}, "bound and held_out are of",
    ),
    "measured twice": ({"observable": "pressure", "measured": "p.npy"}, "give one"),
    "no sigma": ({"observable": "pressure", "sigma": None}, "`values` and `sigma` go together"),
    "a unit of the config": ({"observable": "distances", "pairs": [[0, 1]], "unit": "A"}, "no effect on values of"),
    "a unit of a table": (
        {"observable": "distances", "pairs": [[0, 1]], "unit": "A", "measured": "d.npy", "values": None, "sigma": None},
        "`unit` is of a text file of measurements, and has no effect on d.npy",
    ),
    "columns of the config": (
        {"observable": "radial-distribution", **RADIAL, "edges": [0.1, 0.2], "columns": [0, 3, 4]},
        "`columns` is of a text file",
    ),
    "a bound of a curve": (
        {"observable": "radial-distribution", **RADIAL, "edges": [0.1, 0.2], "bound": "upper"},
        "bound = 'upper' of a curve",
    ),
    "no bins": ({"observable": "radial-distribution", **RADIAL, "bins": 3}, "needs `edges`, or `bins` with `range`"),
    "two sets of bins": (
        {"observable": "radial-distribution", **RADIAL, "edges": [0.1, 0.2], "bins": 3, "range": [0.1, 0.2]},
        "needs `edges`, or `bins` with `range`",
    ),
    "no momentum transfers": ({"observable": "small-angle-scattering"}, "needs `q`, or a text file"),
    "a background in absolute units": (
        {"observable": "small-angle-scattering", "q": [1.0], "units": "absolute", "background": True},
        "background = true has no effect on units = 'absolute'",
    ),
    "arbitrary units of nothing": (
        {"observable": "small-angle-scattering", "q": [1.0], "values": None, "sigma": None}, "set units = 'absolute'",
    ),
    "a range of no curve": (
        {"observable": "small-angle-scattering", "q": [1.0], "range": [0.0, 1.0]},
        "`range` is of a text file",
    ),
    "an unknown key": ({"observable": "density", "atoms": "all"}, "Extra inputs are not permitted"),
    "one lag of a slope": ({"observable": "diffusion", "atoms": [0], "lags": [0.1]}, "at least 2 items"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_effect_or_no_meaning_is_refused(what):
    keys, message = REFUSED[what]
    values = {"name": "o", "values": 1.0, "sigma": 0.1} | keys
    with pytest.raises(ValidationError, match=re.escape(message)):
        TypeAdapter(AnyObservable).validate_python(values)


def test_bins_are_equal_parts_of_their_range():
    np.testing.assert_allclose(whole("radial-distribution").borders, [0.2, 0.275, 0.35, 0.425, 0.5])
    given = table("radial-distribution", **RADIAL, edges=[0.1, 0.2, 0.4])
    np.testing.assert_array_equal(given.borders, [0.1, 0.2, 0.4])


def test_files_lie_beside_the_config():
    keys = {"name": "o", "observable": "own", "function": "seen.py:squares", "measured": "m.dat"}
    found = TypeAdapter(AnyObservable).validate_python(keys, context={"folder": Path("/somewhere")})
    assert found.function == "/somewhere/seen.py:squares"
    assert found.files == {"measured": Path("/somewhere/m.dat"), "function": Path("/somewhere/seen.py")}
    assert whole("own").files == {}
