"""Python's search for cycles of garbage: rare, and not in what a command has loaded when its process ends."""

import json
import subprocess
import sys

from tests.command import ROOT

# `hpcfit WORDS`, which leaves in a file how often it looked through all objects, and how many it will not look through.
COUNTED = """
import atexit, gc, json, sys
from pathlib import Path
file, full = Path(sys.argv.pop(1)), []
gc.callbacks.append(lambda phase, about: full.append(about) if phase + str(about["generation"]) == "stop2" else None)
atexit.register(lambda: file.write_text(json.dumps([len(full), gc.get_freeze_count()])))  # the last to be called
from hpcfit.cli import main
main()
"""


def test_what_a_command_loads_is_not_searched_for_garbage(two_sources, tmp_path):
    script, file = tmp_path / "counted.py", tmp_path / "found.json"
    script.write_text(COUNTED)
    done = subprocess.run(
        [sys.executable, script, file, "check", two_sources], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    searches, frozen = json.loads(file.read_text())
    assert searches == 0
    assert frozen > 100_000  # JAX, NumPy and what they made
