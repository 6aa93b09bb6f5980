"""Pages as a browser gets them: by HTTP, as a Bokeh session, and as a picture of a headless Chromium."""

import contextlib
import shutil
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from bokeh.client import pull_session
from bokeh.models import ColumnDataSource, Div
from PIL import Image

from tests.conftest import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def needs_chromium(test):
    """Mark a test that looks at a page with a browser, whose processes want the whole machine."""
    there = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: apt-get install chromium")
    return pytest.mark.programs(there(test))


def get(address: str) -> str:
    """The body of a page; an error unless it answers 200."""
    with urllib.request.urlopen(address, timeout=300) as answer:
        assert answer.status == 200
        return answer.read().decode()


@contextlib.contextmanager
def session(address: str):
    """A window on a page: a Bokeh session with the document that the server keeps up to date."""
    opened = pull_session(url=address)
    try:
        yield opened
    finally:
        opened.close()


def text(opened) -> str:
    """All HTML in a window as far as its updates have been taken in."""
    return "\n".join(div.text for div in opened.document.select({"type": Div}))


def columns(opened, name: str) -> np.ndarray:
    """The longest column of that name among the data in a window, as far as its updates have been taken in."""
    sources = opened.document.select({"type": ColumnDataSource})
    found = [source.data[name] for source in sources if name in source.data]
    return np.array(max(found, key=len, default=[]), float)


def take_in_until(opened, condition, seconds: float = 240) -> None:
    """Take in the updates of a window, as a browser does, until a condition is true."""
    deadline = time.monotonic() + seconds
    opened._connection._loop_until(lambda: bool(condition()) or time.monotonic() > deadline)
    assert condition()


def photograph(*arguments) -> tuple[str, np.ndarray]:
    """`tools/screenshot` of a page: the text on it, and its pixels [height, width, 3]."""
    picture = next(argument for argument in map(str, arguments) if argument.endswith(".png"))
    command = [sys.executable, str(ROOT / "tools/screenshot"), "--seconds", "240", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, np.asarray(Image.open(picture).convert("RGB")).astype(int)


def share_of(pixels: np.ndarray, color: str, tolerance: int = 12) -> float:
    """The share of pixels that are nearly of a colour, #rrggbb."""
    wanted = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)])
    return float(np.mean(np.abs(pixels - wanted).max(axis=-1) <= tolerance))
