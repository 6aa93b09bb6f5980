"""The tests. What they start compiles the same functions again and again: here each is compiled once a session."""

import atexit
import os
import shutil
import tempfile

_COMPILED = tempfile.mkdtemp(prefix="hpcfit-tests-compiled-")
atexit.register(shutil.rmtree, _COMPILED, ignore_errors=True)
os.environ |= {
    "JAX_COMPILATION_CACHE_DIR": _COMPILED,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    # XLA warns of two preferences of its own compiler that are no features of a processor, at each function it loads.
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
