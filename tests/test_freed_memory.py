"""Memory that is freed is not given back to the system, so that the next call of a kernel finds its pages mapped."""

import ctypes
import subprocess
import sys

import pytest

CODE = """
import resource, threading
import numpy as np
from hpcfit.machine import keep_freed_memory

keep_freed_memory()
faults = []

def allocated():  # in a thread, as XLA does: threads have arenas of their own, or would
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(100_000_000, np.int8)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=allocated)
thread.start()
thread.join()
print(*faults)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this malloc cannot be told so")
def test_an_array_as_large_as_one_that_was_freed_has_its_pages():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    first, *others = map(int, done.stdout.split())
    assert first > 40  # 100 MB in pages of 4 kB or 2 MB
    assert max(others) < first / 4
