"""What the tests share: real data where it is, a small store, and ranks started under the embedded MPI."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; skipped where it is absent (it is never part of the project)."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.exists():
        pytest.skip(f"no real data at {folder}")
    return folder
