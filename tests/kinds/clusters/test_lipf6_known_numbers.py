"""Coordination, shares of ions and networks of LiPF6 in BN and FEC, counted before apart from hpcfit.

Not proved: anything without solvation_analysis 0.4.2, whose test trajectory it is (`pip install --no-deps`, 20 MB).
"""

import pytest

from hpcfit.testsystems import electrolytes
from hpcfit.testsystems.electrolytes import (
    COORDINATION,
    NETWORKS,
    RADII,
    STATES,
    found_lipf6,
    package_folder,
    write_lipf6,
)
from tests.command import here, sets

HALF_A_DIGIT = 0.5e-4  # the known shares are written with four decimals


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    package = package_folder()
    if package is None:
        pytest.skip("solvation_analysis, whose test trajectory this reads, is not installed")
    found = tmp_path_factory.mktemp("lipf6")
    for run, cutoffs in (("known", RADII), ("minima", dict.fromkeys(RADII, "minimum"))):
        config = write_lipf6(found, package, cutoffs, run)
        for words in (["prepare"], ["optimize", *sets("run.report=false", "problem.resamples=0")]):
            done = here(words[0], config, *words[1:])
            assert done.returncode == 0, done.stderr
    return found


def test_at_the_known_radii_all_numbers_are_the_known_ones(folder):
    found = found_lipf6(folder / "known")
    assert found.coordination == pytest.approx(COORDINATION, abs=HALF_A_DIGIT)
    assert found.states == pytest.approx(STATES, abs=HALF_A_DIGIT)
    assert found.networks == NETWORKS
    assert found.contacts == electrolytes.CONTACTS


def test_at_minima_of_the_rdf_every_ion_is_counted_once(folder):
    found = found_lipf6(folder / "minima")
    assert sum(found.states.values()) == pytest.approx(1)
    lithium = {"Li": 1, "Li(PF6)": 1, "Li2(PF6)": 2}
    assert sum(n * found.networks.get(label, 0) for label, n in lithium.items()) == 490
    # Each cut-off is beyond the known one, so that nobody has fewer neighbours.
    assert all(found.coordination[one] >= COORDINATION[one] for one in COORDINATION)


def test_a_folder_without_the_package_is_none(tmp_path):
    assert package_folder(tmp_path) is None
