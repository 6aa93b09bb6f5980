"""Mutated inputs of every format: one error with file and remedy, the same bits, or what a plain reader finds as well.

Inputs are read in a process apart, so that one that ends or hangs it is known by its format and seed; another process
goes on behind it. `python -m tests.fuzz.test_fuzz 60` reads so many inputs of each format and prints a table.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from tests.command import ROOT
from tests.fuzz.formats import FORMATS

GOOD = ("refused", "same", "confirmed")
OF_EACH = 400  # inputs of a format, nightly


def fuzzed(jobs: list[tuple[str, int]], folder: Path) -> list[dict]:
    """What came of each input, in their order."""
    found: list[dict] = []
    while len(found) < len(jobs):
        left = jobs[len(found) :]
        place = Path(tempfile.mkdtemp(dir=folder))
        text = "".join(f"{name}\t{seed}\n" for name, seed in left)
        done = subprocess.run([sys.executable, "-m", "tests.fuzz.batch", place], input=text, stdout=subprocess.PIPE,
                              text=True, cwd=ROOT)  # fmt: skip
        found += map(json.loads, done.stdout.splitlines())
        if len(found) < len(jobs):
            name, seed = jobs[len(found)]
            said = (place / "stderr.txt").read_text(errors="replace")
            assert "Traceback" not in said, f"not of an input: {said}"
            came = "hang" if "Timeout" in said else "crash"
            found.append({"format": name, "seed": seed, "by": "", "came": came, "said": said[-2000:]})
    return found


def bad(found: list[dict]) -> list[str]:
    """A paragraph for each input that something else came of than may."""
    return [f"{one['came']}: {one['format']} {one['seed']} ({one['by']}): {one['said']}" for one in found
            if one["came"] not in GOOD]  # fmt: skip


def test_a_few_inputs_of_each_format(tmp_path):
    jobs = [(name, seed) for name in FORMATS for seed in range(10)]
    found = bad(fuzzed(jobs, tmp_path))
    assert not found, "\n\n".join(found)


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_many_inputs(tmp_path, name):
    found = bad(fuzzed([(name, seed) for seed in range(10, 10 + OF_EACH)], tmp_path))
    assert not found, "\n\n".join(found)


def main(words: list[str]) -> None:
    """Print the table of many inputs, or what came of one."""
    with tempfile.TemporaryDirectory() as folder:
        if len(words) > 1 and words[0] in FORMATS:
            print(json.dumps(fuzzed([(words[0], int(words[1]))], Path(folder))[0], indent=1))
            return
        names = words[1:] or list(FORMATS)
        found = fuzzed([(name, seed) for name in names for seed in range(int(words[0]))], Path(folder))
    kinds = list(dict.fromkeys([*GOOD, *(one["came"] for one in found)]))
    counts = Counter((one["format"], one["came"]) for one in found)
    print(f"{'':20}" + "".join(f"{kind:>12}" for kind in kinds))
    for name in names:
        print(f"{name:20}" + "".join(f"{counts[name, kind]:12}" for kind in kinds))
    print(f"{'all':20}" + "".join(f"{sum(counts[name, kind] for name in names):12}" for kind in kinds))
    print("\n\n".join(bad(found)))


if __name__ == "__main__":
    main(sys.argv[1:])
