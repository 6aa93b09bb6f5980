"""tools/layers finds what breaks each rule of the layout, finds nothing new in hpcfit itself, and counts lines.

It does not prove that a module keeps to its purpose. Imports made from strings are seen in the table of kinds alone.
"""

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def check(root: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, REPOSITORY / "tools" / "layers", root]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / "hpcfit" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


FILES = {
    "__init__.py": "",
    "__main__.py": "from hpcfit import cli\n",
    "cli.py": "from hpcfit.commands import optimize\nfrom hpcfit.workflow.jobs.options import Site\n",
    "commands/init.py": "import hpcfit.testsystems.crystal\n",
    "commands/optimize.py": "from hpcfit import ranks, kinds\nfrom ..log import logger\nimport numpy\n",
    "sweep/points.py": "def f():\n    from hpcfit.scaling import series\n",
    "scaling/series.py": "from ..kinds.table import KINDS\n",
    "scaling/run_options.py": "import sys\nfrom cyclopts import Parameter\nfrom hpcfit.errors import E\n",
    "kinds/__init__.py": "",
    "kinds/table.py": 'K("hpcfit.kinds.frame_weights.case:open", "hpcfit.kinds.clusters", metrics=["loss", "cc"])\n',
    "kinds/base.py": "from hpcfit.fit import loop\n",
    "kinds/frame_weights/__init__.py": "frame_weights = 'force-map'\n",
    "kinds/frame_weights/case.py": "from hpcfit.kinds.base import Case\nfrom . import config\ncc = 'cc'\n",
    "kinds/frame_weights/config.py": "from typing import Any\nimport pydantic\nfrom hpcfit.config import table\n",
    "kinds/frame_weights/outputs.py": "import h5py\n",
    "kinds/clusters/__init__.py": "",
    "workflow/jobs/options.py": "if TYPE_CHECKING:\n    from hpcfit.store import shard\n",
    "workflow/client.py": "import dask.distributed, bokeh\nimport hpcfit.config\n",
    "fit/checkpoint.py": "import h5py\n",
    "fit/loop.py": "structure = 'clusters'\nif cluster.kind != 'local': pass\n",
    "store/shard.py": "import h5py\nfrom ..errors import E\nfrom hpcfit import __version__\n",
    "physics/a.py": "",
    "config/__init__.py": "",
    "config/table.py": "from hpcfit.errors import E\n",
    "ranks.py": "from mpi4py import MPI\n",
    "log.py": "",
    "errors.py": "",
    "testsystems/crystal.py": "def f():\n    from hpcfit.fit import loop\n    kind = 'force-map'\n",
}
# Small files with one importer that are so on purpose.
REASONS = "".join(
    f"hpcfit/{path}: for the test\n"
    for path in ("config/table.py", "scaling/series.py", "store/shard.py", "testsystems/crystal.py")
)


@pytest.fixture
def layers(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(REPOSITORY / "tools")
    loader = importlib.machinery.SourceFileLoader("layers", str(REPOSITORY / "tools" / "layers"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("layers", loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def complaints(layers, tmp_path):
    """``complaints({path below hpcfit: text}, small=..., words=...)``: what is said of the allowed tree so changed."""

    def say(changed: dict[str, str], *, small: str = REASONS, words: str = "") -> list[str]:
        write(tmp_path, FILES | changed)
        (tmp_path / "tools").mkdir(exist_ok=True)
        (tmp_path / "tools" / "layers_small.txt").write_text(small)
        (tmp_path / "tools" / "layers_words.txt").write_text(words)
        return list(layers.complaints(layers.read_source(tmp_path), tmp_path))

    return say


def test_an_allowed_tree_passes(complaints):
    assert complaints({}) == []


@pytest.mark.parametrize(
    ("name", "text", "line", "reason"),
    [
        # the order of rooms
        ("physics/a.py", "import numpy\nimport hpcfit.store.shard\n", 2, "imports go down only, and store is above"),
        ("physics/a.py", "from ..store import shard\n", 1, "store is above physics"),
        ("physics/a.py", "from .. import fit\n", 1, "fit is above physics"),
        ("physics/deep/a.py", "def late():\n    from ...fit import loop\n", 2, "fit is above physics"),
        ("errors.py", "from .physics import a\n", 1, "physics is above errors"),
        ("__init__.py", "from hpcfit.physics import a\n", 1, "physics is above hpcfit itself"),
        ("sweep/points.py", "from hpcfit.commands import optimize\n", 1, "commands is above sweep"),
        ("kinds/base.py", "from hpcfit.kinds import table\n", 1, "kinds/table is above kinds/base"),
        ("prepare/a.py", "from hpcfit.kinds.base import Case\n", 1, "kinds/base is above prepare"),
        ("runs/a.py", "if TYPE_CHECKING:\n    import hpcfit.report.page\n", 2, "report is above runs"),
        ("bead_models/a.py", "from hpcfit.simulation import b\n", 1, "simulation is above bead_models"),
        ("fit/a.py", "from hpcfit.utils import b\n", 1, "hpcfit.utils is in no room"),
        ("utils.py", "import numpy\n", 1, "hpcfit.utils is in no room"),
        ("kinds/base.py", "def f(:\n", 1, "does not parse"),
        # kinds
        ("kinds/clusters/__init__.py", "import hpcfit.kinds.frame_weights\n", 1, "one kind does not know another"),
        ("kinds/base.py", "from hpcfit.kinds import frame_weights\n", 1, "only kinds/table and the kind itself know"),
        ("commands/optimize.py", "def f():\n    from hpcfit.kinds import clusters\n", 2, "only kinds/table and"),
        ("config/__init__.py", "import hpcfit.kinds.frame_weights.config\n", 1, "only kinds/table and the kind itself"),
        ("kinds/table.py", "A = 1, 'hpcfit.kinds.nothing.case:open'\n", 1, "case: there is no such module"),
        ("kinds/table.py", "A = 'hpcfit.commands.optimize'\n", 1, "commands is above kinds/table"),
        # their names
        ("fit/a.py", "\nif x == 'frame-weights': pass\n", 2, "text frame-weights is the name of a kind"),
        ("fit/a.py", "x = {'a': f'{y}', 'force_map': 1}\n", 1, "text force_map is the name of a kind"),
        ("fit/a.py", "x.force_map()\n", 1, "identifier force_map is the name of a kind"),
        ("fit/a.py", "def force_field(): pass\n", 1, "identifier force_field is the name of a kind"),
        ("fit/a.py", "def f(frame_weights): pass\n", 1, "identifier frame_weights is the name of a kind"),
        ("fit/a.py", "import numpy as force_map\n", 1, "identifier force_map is the name of a kind"),
        ("fit/a.py", "f(force_map=1)\n", 1, "identifier force_map is the name of a kind"),
        ("fit/a.py", "x = problem.kind in ('clusters', other)\n", 1, "text clusters is compared with a kind"),
        ("fit/a.py", "match x.kind:\n    case 'structure': pass\n", 1, "text structure is compared with a kind"),
        ("runs/a.py", "x = row['cc']\n", 1, "text cc is a metric of one kind"),
        ("runs/a.py", "cc = 1\n", 1, "identifier cc is a metric of one kind"),
        # testsystems
        ("commands/optimize.py", "from hpcfit.testsystems import b\n", 1, "only hpcfit/commands/init.py, tests"),
        ("testsystems/a.py", "from hpcfit.kinds import base\n", 1, "testsystems knows only what is below the kinds"),
        ("testsystems/a.py", "import hpcfit.commands.optimize\n", 1, "testsystems knows only what is below the kinds"),
        # libraries
        ("fit/loop.py", "def late():\n    import mpi4py.MPI\n", 2, "mpi4py belongs to ranks.py alone"),
        ("commands/a.py", "import os, dask\n", 1, "dask belongs to workflow/* alone"),
        ("simulation/a.py", "from distributed import Client\n", 1, "distributed belongs to workflow/* alone"),
        ("prepare/a.py", "import dask_jobqueue.slurm\n", 1, "dask_jobqueue belongs to workflow/* alone"),
        ("report/a.py", "import bokeh\n", 1, "bokeh belongs to workflow/* alone"),
        ("fit/loop.py", "from h5py import File\n", 1, "h5py belongs to store/*"),
        ("kinds/frame_weights/case.py", "import h5py\n", 1, "h5py belongs to store/*"),
        # what is imported early
        ("kinds/clusters/config.py", "import numpy\n", 1, "it may import hpcfit.config, hpcfit.errors, pydantic and"),
        ("kinds/clusters/config.py", "from hpcfit.fit import loop\n", 1, "it may import hpcfit.config, hpcfit.errors"),
        ("commands/options.py", "import pydantic\n", 1, "it may import cyclopts, hpcfit.characters, hpcfit.errors and"),
        ("scaling/run_options.py", "def f():\n    import hpcfit.config\n", 2, "it may import cyclopts, hpcfit"),
        ("workflow/jobs/options.py", "import jinja2\n", 1, "it may import cyclopts, hpcfit.characters, hpcfit.errors"),
    ],
)  # fmt: skip
def test_each_rule_names_file_line_and_reason(complaints, name, text, line, reason):
    unrelated = [f"hpcfit/{path}" for path in FILES if path != name]
    said = [one for one in complaints({name: text}) if not one.startswith((*unrelated, "tools/layers_small.txt"))]
    assert said, "nothing is said"
    assert all(one.startswith(f"hpcfit/{name}:{line}: ") for one in said)
    assert any(reason in one for one in said), said


def test_a_cycle_is_said_once_at_its_first_file(complaints):
    files = {"fit/c.py": "from . import b\n", "fit/b.py": "from . import a, c\n", "fit/a.py": "\nimport hpcfit.fit.b\n"}
    cycles = [one for one in complaints(files) if "cycle" in one]
    assert cycles == ["hpcfit/fit/a.py:2: a cycle of files: hpcfit.fit.a -> hpcfit.fit.b -> hpcfit.fit.a"]


def test_a_small_file_with_one_importer_needs_a_reason(complaints):
    files = {"store/files.py": "x = 1\n" * 79, "store/shard.py": "from . import files\n"}
    [said] = complaints(files)
    assert said.startswith("hpcfit/store/files.py:1: has under 80 lines and only hpcfit.store.shard imports it")
    assert complaints(files, small=REASONS + "# by format\nhpcfit/store/files.py: one format a file\n") == []
    [said] = complaints(files, small=REASONS + "hpcfit/store/files.py:\n")
    assert said == "tools/layers_small.txt:5: hpcfit/store/files.py is listed without a reason"
    longer = files | {"store/files.py": "x = 1\n" * 80}
    assert complaints(longer) == []
    [said] = complaints(longer, small=REASONS + "hpcfit/store/files.py: one format\n")
    assert said.startswith("tools/layers_small.txt:5: hpcfit/store/files.py is no small file with one importer")


@pytest.mark.parametrize(
    ("name", "importer"),
    [
        ("commands/watch.py", "cli.py"),
        ("kinds/clusters/case.py", "kinds/clusters/study.py"),
        ("kinds/clusters/config.py", "kinds/clusters/case.py"),
        ("readers/__init__.py", "fit/loop.py"),
    ],
)
def test_what_the_layout_asks_for_may_be_small(complaints, name, importer):
    module = name.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")
    said = complaints({name: "", importer: FILES.get(importer, "") + f"import hpcfit.{module}\n"})
    assert not [one for one in said if "has under 80 lines" in one]


def test_a_word_may_mean_something_else_in_a_file_that_is_listed_with_its_reason(complaints):
    wrong = {"fit/loop.py": "x = 'force-map'\n\ndef force_field(): pass\n", "fit/a.py": "force_field = 1\n"}
    assert [one.split(": ")[0] for one in complaints(wrong)] == [
        "hpcfit/fit/a.py:1", "hpcfit/fit/loop.py:1", "hpcfit/fit/loop.py:3",
    ]  # fmt: skip
    entry = "hpcfit/fit/loop.py: force_field"
    said = complaints(wrong, words=f"# OpenMM\n{entry}: its word\n")
    assert [one.split(": ")[0] for one in said] == ["hpcfit/fit/a.py:1", "hpcfit/fit/loop.py:1"]
    assert complaints(wrong, words=f"{entry}:\n")[-1] == f"tools/layers_words.txt:1: {entry} is listed without a reason"
    mended = {"fit/loop.py": "", "fit/a.py": ""}
    [said] = complaints(mended, words=f"# OpenMM\n{entry}: its word\n")
    assert said == f"tools/layers_words.txt:2: {entry} does not occur, remove it from the list"


def test_violations_are_printed_and_end_with_1(tmp_path):
    write(tmp_path, {"log.py": "import dask\n"})
    result = check(tmp_path)
    assert result.returncode == 1
    assert result.stdout == "hpcfit/log.py:1: imports dask: dask belongs to workflow/* alone\n"


def test_a_folder_without_hpcfit_is_an_error(tmp_path):
    result = check(tmp_path)
    assert result.returncode == 2
    assert str(tmp_path) in result.stderr


COUNTED = '''"""A module.

Of two lines.
"""

import os
from pathlib import (
    Path,
)

# A comment.
TEXT = """
# not a comment

"""


def f():
    """One line."""

    def inner():
        import json
        return json

    return inner  # code
'''


def sizes(root: Path) -> list[str]:
    command = [sys.executable, REPOSITORY / "tools" / "layers", "--sizes", root]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout.splitlines()


def test_sizes_count_each_line_once_and_small_files_with_one_importer(tmp_path):
    """By hand: 25 lines, of them 8 of code, 6 blank outside of texts, 5 of docstrings, 1 comment, 5 of imports."""
    loop = "from hpcfit.fit import {}\n"
    files = {"__init__.py": "", "log.py": COUNTED, "fit/__init__.py": "import hpcfit.log\n"}
    write(tmp_path, files | {"fit/a.py": loop.format("b"), "fit/b.py": loop.format("c"), "fit/c.py": loop.format("a")})
    found = sizes(tmp_path)
    rows = {line.split()[0]: [int(word) for word in line.split()[1:]] for line in found[1:4]}
    assert found[0].split() == ["room", "modules", "lines", "code", "blank", "docstrings", "comments", "imports"]
    assert rows["(top)"] == [2, 25, 8, 6, 5, 1, 5]
    assert rows["fit"] == [4, 4, 0, 0, 0, 0, 4]
    assert rows["all"] == [a + b for a, b in zip(rows["(top)"], rows["fit"])]
    assert found[5:] == [
        "lines of 4 files: median 1, q90 25, longest 25",
        "lines of 2 functions without docstring: median 5, q90 7, longest 7",
        "modules under 80 lines with one importer: 4",
        "cycles of files: 1",
        "  hpcfit.fit.a -> hpcfit.fit.b -> hpcfit.fit.c -> hpcfit.fit.a",
    ]


def test_sizes_find_a_shortest_cycle_of_each_knot(tmp_path):
    files = {
        "a.py": "def f():\n    from . import b\n",
        "b.py": "from . import c\n",
        "c.py": "from . import a, d\n",
        "d.py": "from . import c\n",
        "e.py": "from . import f, a\n",
        "f.py": "from . import e\n",
        "g.py": "from . import g, e\n",
    }
    write(tmp_path, files)
    assert sizes(tmp_path)[-3:] == [
        "cycles of files: 2",
        "  hpcfit.c -> hpcfit.d -> hpcfit.c",
        "  hpcfit.e -> hpcfit.f -> hpcfit.e",
    ]
