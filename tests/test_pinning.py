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
for left in json.loads(sys.argv[1]):
    os.sched_setaffinity(0, left[world_ranks().rank])
    found = world_ranks().gather(choose_device(RunConfig(device="cpu"), world_ranks()).cores)
    if found:
        print(json.dumps(found))
"""


# The cores that a launcher leaves two ranks: all to all, one bound and one free, both on one core.
LEFT = [[[0, 1], [0, 1]], [[0], [0, 1]], [[1], [1]]]


def test_ranks_divide_the_cores_that_they_were_left(mpiexec):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core: nothing to share out")
    done = subprocess.run(
        [mpiexec, "-n", "2", sys.executable, "-c", CODE, json.dumps(LEFT)],
        capture_output=True, text=True, timeout=300, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    taken = list(map(json.loads, done.stdout.splitlines()))
    for cores, left in zip(taken, LEFT, strict=True):
        assert all(len(mine) == 1 and mine[0] in allowed for mine, allowed in zip(cores, left, strict=True))
    assert taken[0][0] != taken[0][1]
