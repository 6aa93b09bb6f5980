"""Warnings that readers log while a run is opened are in its results and its report, once, on any number of ranks."""

import json
from html import unescape

import pytest

from tests.command import sets


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.mpi)])
def test_a_warning_of_a_reader_is_in_metrics_and_report_once(hpcfit, two_sources, tmp_path, ranks):
    cell = "experiment.cell=[10.01, 10.01, 10.01, 90.0, 90.0, 90.0]"  # the map says 10
    given = (f"run.directory={tmp_path / 'run'}", "optimizer.max_steps=2", cell)
    done = hpcfit("optimize", two_sources, *sets(*given), ranks=ranks)
    assert done.returncode == 0, done.stderr
    told = "[experiment] cell = (10.01, 10.01, 10.01, 90.0, 90.0, 90.0) is used"
    warnings = json.loads((tmp_path / "run/metrics.json").read_text())["warnings"]
    assert [told in warning for warning in warnings].count(True) == 1, warnings
    assert len(set(warnings)) == len(warnings)
    assert unescape((tmp_path / "run/report.html").read_text()).count(told) == 1
    assert done.stderr.count(told) == 1
