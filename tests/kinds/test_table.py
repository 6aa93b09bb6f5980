"""The table of kinds: what its entries name exists, and what protocols ask of cases they have."""

from dataclasses import fields

import pytest

from hpcfit.config import ProblemTable
from hpcfit.errors import InputError
from hpcfit.kinds.base import SteppedCase, WeighedCase
from hpcfit.kinds.table import KINDS, Kind, kind_named, tables_of
from hpcfit.report.report import Contents

PARTS = [field.name for field in fields(Kind) if field.name not in ("about", "files", "metrics")]


@pytest.mark.parametrize("name", KINDS)
def test_the_parts_of_a_kind_are_there(name):
    kind = kind_named(name)
    parts = {part: kind.part(part) for part in PARTS}
    assert issubclass(parts.pop("config"), ProblemTable)
    assert isinstance(parts.pop("report"), Contents)
    assert all(map(callable, parts.values()))
    assert len({metric.name for metric in kind.metrics}) == len(kind.metrics)
    assert all(bool(metric.chooses) == bool(metric.better) for metric in kind.metrics)


def test_each_kind_has_its_own_tables():
    assert set(tables_of("frame-weights")) == {"problem", "experiment"}
    assert set(tables_of("force-map")) == {"problem"}
    assert "experiment" in tables_of(None)


def test_an_unknown_kind_is_one_error_with_the_known_ones():
    with pytest.raises(InputError, match=r"'force-mop'.*did you mean 'force-map'(?s:.*)force-map, frame-weights"):
        kind_named("force-mop")


@pytest.mark.parametrize(("name", "stepped"), [("frame-weights", True), ("force-map", False)])
def test_only_what_a_kind_can_do_is_asked_of_it(name, stepped):
    case = kind_named(name).part("open").__self__
    for protocol in (SteppedCase, WeighedCase):
        methods = {name for name in vars(protocol) if not name.startswith("_")}
        assert methods
        assert all(hasattr(case, method) for method in methods) == stepped
