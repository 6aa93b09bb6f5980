"""The bytes of a shard are those of its content: not of when Python lets go of HDF5's objects."""

import h5py
import numpy as np
import pytest

from hpcfit.testsystems import synthetic
from hpcfit.testsystems.harmonic_beads import HarmonicBeads, write_force_store


def structure_factors(folder):
    H = len(synthetic.cubic_reflections())
    folder.mkdir()
    synthetic.write_problem(
        folder, [synthetic.Source("a", synthetic.gaussian_frames(70, H, seed=0), "A")], np.ones(70) / 70
    )
    return folder / "frames.store"


def forces(folder):
    system = HarmonicBeads(4)
    write_force_store(folder, system.particles, {"a": (*system.frames(70, 1), None)})
    return folder


@pytest.mark.parametrize("written", [structure_factors, forces])
def test_a_reference_that_lives_longer_moves_nothing_in_the_file(tmp_path, monkeypatch, written):
    """HDF5 places a chunk when its dataset is closed, or when it is told to."""
    [plain] = written(tmp_path / "made").glob("a*.h5")
    plain = plain.rename(tmp_path / "plain.h5")
    (tmp_path / "made").rename(tmp_path / "before")  # a shard names the path that it was made from
    kept, get = [], h5py.Group.__getitem__

    def kept_open(group, name):
        kept.append(get(group, name))
        return kept[-1]

    monkeypatch.setattr(h5py.Group, "__getitem__", kept_open)
    [late] = written(tmp_path / "made").glob("a*.h5")
    assert kept
    assert plain.read_bytes() == late.read_bytes()
