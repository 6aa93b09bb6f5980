"""Ranks share out the cores that the launcher left them, however uneven, and none waits for the others for ever."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.mpi

CODE = """
import json, os, sys
from hpcfit.config import RunConfig
from hpcfit.machine import choose_device
from hpcfit.ranks import world_ranks
os.sched_setaffinity(0, json.loads(sys.argv[1])[world_ranks().rank])
found = world_ranks().gather(choose_device(RunConfig(device="cpu"), world_ranks()).cores)
if found:
    print(json.dumps(found))
"""


@pytest.mark.parametrize(
    "left",
    [[[0, 1], [0, 1]], [[0], [0, 1]], [[1], [1]]],
    ids=["all to all", "one bound, one free", "both on one core"],
)
def test_ranks_divide_the_cores_that_they_were_left(mpiexec, left):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core: nothing to share out")
    done = subprocess.run(
        [mpiexec, "-n", "2", sys.executable, "-c", CODE, json.dumps(left)],
        capture_output=True, text=True, timeout=300, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    cores = json.loads(done.stdout)
    assert all(len(mine) == 1 and mine[0] in allowed for mine, allowed in zip(cores, left, strict=True))
    if left == [[0, 1], [0, 1]]:
        assert cores[0] != cores[1]
