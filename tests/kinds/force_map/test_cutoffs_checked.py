"""Cut-offs beyond half the box of the frames are an error of `hpcfit check`, and so of every run."""

import numpy as np
import pytest

from hpcfit.testsystems.harmonic_beads import HarmonicBeads, write_force_store
from tests.command import sets
from tests.conftest import assert_one_clear_error

CONFIG = """
[frames]
store = "store"
[problem]
kind = "force-map"
bootstrap = 0
blocks = 2
[problem.beads]
atoms = [[0, 1, 2], [3, 4, 5]]
[problem.map]
methods = ["basic"]
[problem.force_matching]
types = "one"
bonds = "none"
pair_range = [0.0, 5.2]
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two beads in a box of 12 x 10.5 x 13 A."""
    folder, system = tmp_path_factory.mktemp("cutoffs"), HarmonicBeads(6)
    box = np.broadcast_to(np.diag([12.0, 10.5, 13.0]), (128, 3, 3))
    write_force_store(folder / "store", system.particles, {"one": (*system.frames(128, 1), box)})
    (folder / "config.toml").write_text(CONFIG)
    return folder / "config.toml"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ["problem.force_matching.pair_range=[0.0, 5.3]"],
            "[problem.force_matching] pair_range = 5.3: the cut-off 5.3",
        ),
        (
            ["problem.force_matching.neural.cutoff=12.0"],
            "[problem.force_matching.neural] cutoff = 12: the cut-off 12 A",
        ),
    ],
)
def test_a_cutoff_beyond_half_the_box_is_an_error_of_check(hpcfit, config, settings, words):
    done = hpcfit("check", config, *sets(*settings))
    assert_one_clear_error(done, [words, "half the smallest width of the box, 10.500 A", "use at most 5.250 A"])


def test_one_within_it_is_none(hpcfit, config):
    done = hpcfit("check", config, *sets("problem.force_matching.neural.cutoff=5.2"))
    assert done.returncode == 0, done.stderr
