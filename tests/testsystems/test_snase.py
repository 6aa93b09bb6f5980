"""The nuclease crystal: what its configs say, how its map is indexed, and the correlations of the comparison."""

import warnings
from pathlib import Path

import MDAnalysis
import numpy as np
import pytest

from hpcfit.config import load_config
from hpcfit.data.experiment import read_map
from hpcfit.physics import reciprocal
from hpcfit.physics.null_models import rigid_translations
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


def means(group, values, n):
    count = np.bincount(group, minlength=n)
    return np.bincount(group, values, n) / np.where(count, count, np.nan)


@pytest.mark.parametrize("reindexed", [True, False])
def test_the_map_has_the_axes_of_the_coordinates_when_reindexed(shared_data, tmp_path, reindexed):
    data = shared_data / "diffuse/snase"
    measured = read_map(snase.write_measured(data, tmp_path / "map.npz") if reindexed else snase.experiment(data))
    hkl = reciprocal.sphere(snase.CELL, (1, 1, 1), snase.D_MIN)
    inv_d2 = reciprocal.inverse_d2(hkl, (1, 1, 1), snase.CELL)
    x = rigid_translations(snase.molecules(data, hkl).F_mh, inv_d2, 0.4)
    both = np.concatenate([hkl, measured.hkl])
    orbit, size = reciprocal.laue_orbits(both, reciprocal.laue_operations(snase.LAUE), (1, 1, 1))
    x, inverse_d = (means(orbit[: len(hkl)], values, len(size)) for values in (x, np.sqrt(inv_d2)))
    y = means(orbit[len(hkl) :], measured.intensity, len(size))
    use = np.isfinite(x) & np.isfinite(y)
    assert use.sum() == 3008
    x, y = (snase.anisotropic(values[use], inverse_d[use], size[use]) for values in (x, y))
    found = snase.correlation(x, y, size[use])
    # nothing in common: 1 / sqrt(3008) = 0.018; what both indexings share by the mirror of 4/mmm stays
    assert (found > 0.35) if reindexed else (found < 0.1)


def test_a_weight_counts_as_so_many_equal_values():
    rng = np.random.default_rng(0)
    x, y, times = rng.random(50), rng.random(50), rng.integers(1, 9, 50)
    repeated = np.corrcoef(np.repeat(x, times), np.repeat(y, times))[0, 1]
    assert snase.correlation(x, y, times) == pytest.approx(repeated, abs=1e-13)


def test_shell_means_are_taken_away_and_nothing_else():
    rng = np.random.default_rng(1)
    shell, weight, values = np.repeat(np.arange(5), 20), rng.integers(1, 9, 100), rng.random(100)
    left = snase.minus_shell_means(values, shell, weight)
    np.testing.assert_allclose(np.bincount(shell, weight * left), 0, atol=1e-13)
    np.testing.assert_allclose(snase.minus_shell_means(values + 7.0 * shell**2, shell, weight), left, atol=1e-12)
    # within a shell all differences stay
    np.testing.assert_allclose(np.diff(left[:20]), np.diff(values[:20]), atol=1e-13)


def test_a_smooth_function_of_the_radius_leaves_less_in_narrow_shells_with_a_spline():
    hkl = reciprocal.sphere(snase.CELL, (1, 1, 1), snase.D_MIN)
    inv_d2 = reciprocal.inverse_d2(hkl, (1, 1, 1), snase.CELL)
    weight, rings = np.ones(len(hkl)), np.exp(-8 * inv_d2) * inv_d2
    smooth = snase.anisotropic(rings, np.sqrt(inv_d2), weight)
    shells = snase.minus_shell_means(rings, reciprocal.shells(inv_d2, 20)[0], weight)
    assert smooth.var() < 1e-3 * rings.var()
    assert smooth.var() < 0.05 * shells.var()


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
