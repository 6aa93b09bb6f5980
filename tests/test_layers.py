"""tools/layers finds each kind of forbidden import, finds none in hpcfit itself, and counts lines and cycles.

It does not prove that a module keeps to its purpose, nor does it see imports made from strings (importlib).
"""

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


def test_hpcfit_itself_keeps_the_rule():
    result = check(REPOSITORY)
    assert result.returncode == 0, result.stdout + result.stderr


ALLOWED = {
    "__init__.py": "",
    "cli.py": "from hpcfit.commands import prepare\n",
    "commands/prepare.py": "from hpcfit import ranks, data\nfrom ..log import logger\nimport numpy\n",
    "ranks.py": "from mpi4py import MPI\n",
    "workflow/client.py": "import dask.distributed\nimport hpcfit.config\n",
    "data/shard.py": "import h5py\nfrom . import catalog\nfrom ..errors import E\nfrom hpcfit import __version__\n",
    "problems/frame_weights.py": "from hpcfit.physics.scattering import f\n",
    "testsystems/crystal.py": "def f():\n    from hpcfit.physics import x\n    from hpcfit import data, config\n",
}


def test_allowed_imports_pass(tmp_path):
    write(tmp_path, ALLOWED)
    result = check(tmp_path)
    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.parametrize(
    ("name", "text", "line", "reason"),
    [
        ("physics/a.py", "import numpy\nimport hpcfit.data.shard\n", 2, "imports go down only, and data is above"),
        ("physics/a.py", "from ..problems import base\n", 1, "problems is above physics"),
        ("physics/a.py", "from .. import fit\n", 1, "fit is above physics"),
        ("physics/deep/a.py", "from ...fit import loop\n", 1, "fit is above physics"),
        ("data/__init__.py", "from hpcfit import results\n", 1, "results is above data"),
        ("log.py", "from .physics import x\n", 1, "physics is above log"),
        ("fit/loop.py", "def late():\n    import mpi4py.MPI\n", 2, "mpi4py belongs to ranks alone"),
        ("problems/a.py", "from h5py import File\n", 1, "h5py belongs to data and results alone"),
        ("commands/a.py", "import os, dask\n", 1, "dask belongs to workflow alone"),
        ("workflow/a.py", "from hpcfit.ranks import Ranks\n", 1, "workflow must not know ranks"),
        ("problems/a.py", "from hpcfit.ranks import Ranks\n", 1, "problems must not know ranks"),
        ("testsystems/a.py", "from hpcfit.fit import loop\n", 1, "testsystems may import data, physics"),
        ("commands/a.py", "from hpcfit.testsystems import b\n", 1, "testsystems stands beside the layers"),
        ("fit/a.py", "from hpcfit.utils import b\n", 1, "hpcfit.utils is in no layer"),
        ("utils.py", "import numpy\n", 1, "hpcfit.utils is in no layer"),
        ("physics/a.py", "import numpy\ndef f(:\n", 2, "does not parse"),
    ],
)
def test_a_forbidden_import_is_named_with_its_line_and_rule(tmp_path, name, text, line, reason):
    write(tmp_path, ALLOWED | {name: text})
    result = check(tmp_path)
    assert result.returncode == 1
    [message] = result.stdout.splitlines()
    assert message.startswith(f"{tmp_path / 'hpcfit' / name}:{line}: ")
    assert reason in message


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
