"""The nuclease crystal: what its configs say, how its map is indexed, and the correlations of the comparison."""

import warnings
from pathlib import Path

import MDAnalysis
import numpy as np
import pytest

from hpcfit.kinds.frame_weights.config import FrameWeightsConfig
from hpcfit.kinds.frame_weights.observed import splines
from hpcfit.kinds.frame_weights.orbits import match_orbits
from hpcfit.kinds.table import load_config
from hpcfit.physics import reciprocal
from hpcfit.physics.null_models import rigid_translations
from hpcfit.readers.maps import read_map
from hpcfit.store.reference import Reflections
from hpcfit.testsystems import snase


def test_the_config_names_every_source_and_the_crystal(tmp_path):
    config = tmp_path / "prepare.toml"
    sources = [snase.short_simulation(Path("/data")), snase.source_table("long", [Path("/md/a"), Path("/md/b")])]
    config.write_text(snase.prepare_config(sources, "frames.store"))
    prepare = load_config(config).prepare
    assert [(source.label, source.trajectory) for source in prepare.source] == [
        ("short", ["/data/snase_crystal_163.dcd"]),
        ("long", ["/md/a", "/md/b"]),
    ]
    assert (prepare.cell, prepare.space_group, prepare.d_min) == (snase.CELL, "P 41", 3.0)


@pytest.mark.parametrize("reindex", [snase.AS_COORDINATES, snase.AS_IN_FILE])
def test_the_map_has_the_axes_of_the_coordinates_when_reindexed(shared_data, reindex):
    data, choice = shared_data / "diffuse/snase", FrameWeightsConfig(kind="frame-weights", laue=snase.LAUE, d_min=3.0)
    reflections = Reflections(reciprocal.sphere(snase.CELL, (1, 1, 1), 3.0), (1, 1, 1), snase.CELL, snase.SPACE_GROUP)
    measured = read_map(snase.experiment(data, reindex))
    orbits = match_orbits(reflections, measured, choice)
    assert len(orbits.observed) == 3008
    inv_d2 = reciprocal.inverse_d2(reflections.hkl, (1, 1, 1), snase.CELL)
    x_h = rigid_translations(snase.molecules(data, reflections.hkl).F_mh, inv_d2, 0.4)
    x = np.bincount(orbits.orbit, x_h[orbits.column]) / np.bincount(orbits.orbit)
    radial = splines(orbits.inverse_d, 23, even_in=3)
    left = [snase.without(values, radial, orbits.multiplicity) for values in (x, orbits.observed)]
    found = snase.correlation(*left, orbits.multiplicity)
    # nothing in common: 1 / sqrt(3008) = 0.018; what both indexings share by the mirror of 4/mmm stays
    assert (found > 0.35) if reindex == snase.AS_COORDINATES else (found < 0.1)


def test_a_weight_counts_as_so_many_equal_values():
    rng = np.random.default_rng(0)
    x, y, times = rng.random(50), rng.random(50), rng.integers(1, 9, 50)
    repeated = np.corrcoef(np.repeat(x, times), np.repeat(y, times))[0, 1]
    assert snase.correlation(x, y, times) == pytest.approx(repeated, abs=1e-13)


def test_functions_are_taken_away_and_nothing_else():
    rng = np.random.default_rng(1)
    functions, weight, values = rng.random((3, 100)), rng.integers(1, 9, 100), rng.random(100)
    left = snase.without(values, functions, weight)
    # 100 values of size 1 and weights below 9: rounding of sums is below 1000 x 2e-16
    np.testing.assert_allclose(functions @ (weight * left), 0, atol=1e-11)
    more = values + [1.0, -3.0, 2.0] @ functions
    np.testing.assert_allclose(snase.without(more, functions, weight), left, atol=1e-11)
    np.testing.assert_allclose(snase.without(left, functions, weight), left, atol=1e-11)


def test_the_network_moves_each_residue_as_a_whole(shared_data, tmp_path):
    data, network = shared_data / "diffuse/snase", snase.Network(frames=40, modes=30, mean_b=20.0)
    snase.write_network_ensemble(data, tmp_path, network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MDAnalysis on a PDB file without charges and times
        universe = MDAnalysis.Universe(str(tmp_path / "network.pdb"), str(tmp_path / "network.dcd"))
        rest = MDAnalysis.Universe(str(tmp_path / "network.pdb")).atoms.positions
    assert (len(rest), len(universe.trajectory)) == (4 * 2226, 40)
    np.testing.assert_allclose(universe.dimensions, snase.CELL)
    first = np.unique(universe.atoms.resindices, return_index=True)[1]
    assert len(first) == 4 * 136
    shifts = np.array([universe.atoms.positions - rest for _ in universe.trajectory])
    # float32 of coordinates below 100 A: 4e-6 A each
    np.testing.assert_allclose(shifts, shifts[:, first][:, universe.atoms.resindices], atol=3e-5)
    # 30 modes, the softest of which has a fifth of the motion at most: relative variance of B below 2 x 0.2 / 40
    assert 8 * np.pi**2 / 3 * np.mean(np.sum(shifts[:, first] ** 2, axis=2)) == pytest.approx(20.0, rel=5 * 0.1)
