"""The tests. What they start compiles the same functions again and again: here each is compiled once a session.

All processes of a session keep what they compile in one folder, which HPCFIT_TESTS_COMPILED names. `tools/test` makes
it for its runs of pytest; a pytest without it makes its own, for its workers (pytest-xdist) too.
"""

import atexit
import os
import shutil
import tempfile

if "HPCFIT_TESTS_COMPILED" not in os.environ:
    os.environ["HPCFIT_TESTS_COMPILED"] = tempfile.mkdtemp(prefix="hpcfit-tests-compiled-")
    atexit.register(shutil.rmtree, os.environ["HPCFIT_TESTS_COMPILED"], ignore_errors=True)
os.environ |= {
    "JAX_COMPILATION_CACHE_DIR": os.environ["HPCFIT_TESTS_COMPILED"],
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    # JAX writes an entry in place: who reads it at that moment finds the beginning, says so and compiles by itself.
    "PYTHONWARNINGS": "ignore:Error reading persistent compilation cache entry:UserWarning",
    # XLA warns of two preferences of its own compiler that are no features of a processor, at each function it loads.
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
