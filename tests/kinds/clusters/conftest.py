"""What the tests of clusters share."""

import atexit
import gc

import pytest


@pytest.fixture(scope="session", autouse=True)
def _freud_ends_in_peace():
    """Commands in this process freeze their objects at its end, of which freud's bindings would report each as a leak;
    in a process of its own a command sees to it itself (``extraction.neighbours``)."""
    yield
    atexit.unregister(gc.freeze)
