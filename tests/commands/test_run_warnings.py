"""Warnings of a run stand in run.log, in its results and in a section of its report, once, on any number of ranks."""

import json
import logging
import re
import subprocess
import sys
from html import unescape
from types import SimpleNamespace

import pytest

from hpcfit import log
from hpcfit.testsystems.harmonic_beads import HarmonicBeads, write_force_store
from tests.command import ROOT, sets
from tests.kinds.force_map.force_map_runs import force_map_config

RANKS = pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.mpi)])


def assert_told_once(done, directory, told: str) -> list[str]:
    """All warnings of a run, one of which has these words: in its log, its metrics and its report, once in each."""
    assert done.returncode == 0, done.stderr
    found = json.loads((directory / "metrics.json").read_text())["warnings"]
    assert [told in warning for warning in found].count(True) == 1, found
    assert len(set(found)) == len(found)
    page = unescape((directory / "report.html").read_text())
    section = re.search(r"<h2[^>]*>Warnings</h2>(.*?)<h2", page, re.DOTALL)[1]
    lines = (directory / "run.log").read_text().splitlines()
    for warning in found:
        assert section.count(warning) == page.count(warning) == 1
        assert [f"WARNING {warning}" in line for line in lines].count(True) == 1, lines
    assert done.stderr.count(told) == 1
    return found


@RANKS
def test_a_warning_of_a_reader_of_frame_weights(hpcfit, two_sources, tmp_path, ranks):
    cell = "experiment.cell=[10.01, 10.01, 10.01, 90.0, 90.0, 90.0]"  # the map says 10
    given = (f"run.directory={tmp_path / 'run'}", "optimizer.max_steps=2", cell)
    done = hpcfit("optimize", two_sources, *sets(*given), ranks=ranks)
    told = "[experiment] cell = (10.01, 10.01, 10.01, 90.0, 90.0, 90.0) is used"
    assert told in assert_told_once(done, tmp_path / "run", told)[0]  # what was read comes before what the study found


@RANKS
def test_warnings_of_the_study_of_force_maps(hpcfit, tmp_path, ranks):
    """Two of them, in the order of the maps on any number of ranks."""
    system = HarmonicBeads(12)
    r, f = system.frames(130, 1)
    write_force_store(tmp_path / "store", system.particles, {"a": (r[:70], f[:70], None), "b": (r[70:], f[70:], None)})
    more = 'blocks = 5\nbootstrap = 0\n[problem.beads]\nresidue = "CA"\n[problem.map]\nmethods = ["optimal", "local"]\n'
    (tmp_path / "config.toml").write_text(force_map_config(more, report=True))
    done = hpcfit("optimize", tmp_path / "config.toml", ranks=ranks)
    found = assert_told_once(done, tmp_path / "run", "map 'optimal' has")
    assert [warning.split()[1] for warning in found] == ["'optimal'", "'local'"]


def test_the_log_of_a_run_goes_on_where_it_is_continued_and_begins_anew_with_a_new_run(hpcfit, two_sources, tmp_path):
    given = sets(f"run.directory={tmp_path}", "optimizer.max_steps=2", "run.report=false")
    assert hpcfit("optimize", two_sources, *given).returncode == 0
    first = (tmp_path / "run.log").read_text().splitlines()
    assert hpcfit("optimize", two_sources, *given, "--resume").returncode == 0
    second = (tmp_path / "run.log").read_text().splitlines()
    assert second[: len(first)] == first
    assert len(second) > len(first)
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (INFO|WARNING) ", line) for line in second)
    assert hpcfit("optimize", two_sources, *given, "--overwrite").returncode == 0
    assert len((tmp_path / "run.log").read_text().splitlines()) == len(first)


# ---- what other libraries say ----------------------------------------------------------------------------------------


def test_what_libraries_say_is_a_line_of_the_log_once(caplog):
    said = log.OfLibraries()
    library = logging.Logger("MDAnalysis.coordinates")
    library.addHandler(said)
    with caplog.at_level(logging.INFO, "hpcfit"):
        for _ in range(2):
            library.warning("no %s\nmore", "box")
            said.warned(UserWarning("old format"), UserWarning, "/x/site-packages/gemmi/cif.py", 3)
        library.info("nothing to say")
        library.warning("%d does not fit", "text")
        said.ignored(SimpleNamespace(exc_value=OSError("closed"), object=None))
    assert [record.getMessage() for record in caplog.records] == [
        "MDAnalysis: no box", "gemmi, UserWarning: old format", "MDAnalysis: %d does not fit",
        "python: an exception was ignored, OSError: closed",
    ]  # fmt: skip


NOISY = """
import logging, sys, warnings
from hpcfit import cli

class Ends:
    def __del__(self):
        raise ValueError("at its end")

@cli.app.command
def noisy() -> int:
    cli._start_logging()
    logging.getLogger("ase.io").warning("raw\\nand more")
    warnings.warn("a plain warning")
    Ends()
    return 0

@cli.app.command
def broken() -> int:
    cli._start_logging()
    raise ZeroDivisionError("of hpcfit")

sys.argv = ["hpcfit", sys.argv[1]]
cli.main()
"""


def _program(folder, word: str) -> subprocess.CompletedProcess:
    """A process with commands of its own, started as the console script starts one."""
    (folder / "program.py").write_text(NOISY)
    return subprocess.run([sys.executable, folder / "program.py", word], capture_output=True, text=True, cwd=ROOT)


def test_nothing_of_libraries_is_raw_on_the_terminal(tmp_path):
    done = _program(tmp_path, "noisy")
    assert done.returncode == 0, done.stderr
    said = [re.sub(r"^\d\d:\d\d:\d\d INFO ", "", line) for line in done.stderr.splitlines()]
    assert said == ["ase: raw", "program, UserWarning: a plain warning",
                    "python: an exception was ignored, ValueError: at its end"]  # fmt: skip


def test_a_fault_of_hpcfit_says_that_it_is_one_and_where(tmp_path):
    done = _program(tmp_path, "broken")
    assert done.returncode == 1
    assert "by a fault in hpcfit and not in its input. Please report this" in done.stderr
    assert "ZeroDivisionError: of hpcfit" in done.stderr
