"""The table of kinds: what its entries name exists, and what protocols ask of cases they have."""

from dataclasses import fields

import pytest

from hpcfit.config import ProblemTable
from hpcfit.errors import InputError
from hpcfit.kinds.base import SteppedCase, WeighedCase
from hpcfit.kinds.table import KINDS, Kind, kind_named, tables_of
from hpcfit.report.report import Contents

SOME_HAVE = ("rounds", "modes", "export")  # parts that not every kind has
NO_PARTS = ("about", "files", "seeded", "metrics", "package", "choice", "usual", "variants", *SOME_HAVE)
PARTS = [one.name for one in fields(Kind) if one.name not in NO_PARTS]
VARIANTS = [
    (name, {kind.choice: value} if value else {})
    for name, kind in KINDS.items()
    for value in ([None] if kind.config else []) + list(kind.variants)
]


@pytest.mark.parametrize(("name", "chosen"), VARIANTS)
def test_the_parts_of_a_kind_are_there(name, chosen):
    kind = kind_named(name).of(chosen)
    parts = {part: kind.part(part) for part in PARTS}
    assert issubclass(parts.pop("config"), ProblemTable)
    assert isinstance(parts.pop("report"), Contents)
    assert all(map(callable, parts.values()))
    assert all(callable(kind.part(part)) for part in SOME_HAVE if getattr(kind, part))
    assert len({metric.name for metric in kind.metrics}) == len(kind.metrics)
    assert all(bool(metric.chooses) == bool(metric.better) for metric in kind.metrics)


def test_each_kind_has_its_own_tables():
    assert set(tables_of({"kind": "frame-weights"})) == {"problem", "experiment"}
    assert set(tables_of({"kind": "force-map"})) == {"problem"}
    assert "experiment" in tables_of(None)


def test_an_unknown_kind_is_one_error_with_the_known_ones():
    with pytest.raises(InputError, match=r"'force-mop'.*did you mean 'force-map'(?s:.*)force-map, frame-weights"):
        kind_named("force-mop")


@pytest.mark.parametrize(
    ("problem", "said"),
    [({}, "missing key 'problem.estimator'"), ({"estimator": "tabulate"}, "'tabulate'.*did you mean 'tabulated'")],
)
def test_a_kind_that_is_asked_in_several_ways_says_so(problem, said):
    with pytest.raises(InputError, match=f"{said}(?s:.*)pathwise, fluctuation, reweighting, tabulated"):
        tables_of({"kind": "force-field"} | problem)


@pytest.mark.parametrize(("name", "stepped"), [("frame-weights", True), ("force-map", False)])
def test_only_what_a_kind_can_do_is_asked_of_it(name, stepped):
    case = kind_named(name).part("open").__self__
    for protocol in (SteppedCase, WeighedCase):
        methods = {name for name in vars(protocol) if not name.startswith("_")}
        assert methods
        assert all(hasattr(case, method) for method in methods) == stepped
