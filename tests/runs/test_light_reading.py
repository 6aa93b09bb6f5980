"""What reads the files of runs and sweeps, and follows a run, needs no JAX: it starts in a moment, anywhere."""

import subprocess
import sys

READERS = (
    "runs.directory", "runs.files", "runs.history", "runs.live", "sweep.outcome", "commands.watch", "report.page",
)  # fmt: skip
HEAVY = ("jax", "matplotlib", "mpi4py")


def test_reading_a_run_loads_no_jax_and_no_matplotlib():
    imports = "; ".join(f"import hpcfit.{module}" for module in READERS)
    code = f"import sys; {imports}; print(*(name for name in {HEAVY} if name in sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert said.stdout.split() == []
