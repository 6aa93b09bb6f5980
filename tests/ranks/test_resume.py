"""`--resume auto`: begins, continues, or does nothing, whichever state the run directory is in; and what it will not do."""

import shutil

import pytest

from tests.conftest import assert_one_clear_error, fingerprint


@pytest.fixture(scope="module")
def finished(two_sources, tmp_path_factory):
    """The run directory of a fit in one go, which `--resume auto` began."""
    import subprocess
    import sys

    from tests.conftest import ROOT

    directory = tmp_path_factory.mktemp("finished") / "run"
    subprocess.run(
        [sys.executable, "-m", "hpcfit", *words(two_sources, directory)],
        check=True, capture_output=True, timeout=90, cwd=ROOT,
    )  # fmt: skip
    return directory
