"""The nuclease crystal: what its configs say, and the two correlations against NumPy's."""

from pathlib import Path

import numpy as np
import pytest

from hpcfit.config import load_config
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


def test_a_weight_counts_as_so_many_equal_values():
    rng = np.random.default_rng(0)
    x, y, times = rng.random(50), rng.random(50), rng.integers(1, 9, 50)
    repeated = np.corrcoef(np.repeat(x, times), np.repeat(y, times))[0, 1]
    assert snase.correlation(x, y, times) == pytest.approx(repeated, abs=1e-13)


def test_the_anisotropic_part_forgets_the_rings_and_nothing_else():
    rng = np.random.default_rng(1)
    shell, weight, values = np.repeat(np.arange(5), 20), rng.integers(1, 9, 100), rng.random(100)
    left = snase.anisotropic(values, shell, weight)
    np.testing.assert_allclose(np.bincount(shell, weight * left), 0, atol=1e-13)
    np.testing.assert_allclose(snase.anisotropic(values + 7.0 * shell**2, shell, weight), left, atol=1e-12)
    # within a shell all differences stay
    np.testing.assert_allclose(np.diff(left[:20]), np.diff(values[:20]), atol=1e-13)
