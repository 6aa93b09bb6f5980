"""The measured map of staphylococcal nuclease against numbers that the C programs of LUNUS print for it.

LUNUS averages over 4/m with `symlt`, takes a smooth radial curve away with `anisolt`, and `corrlt` prints the
correlation of two lattices. All three are imitated here, in single precision, since its sums move the last digits, as
two habits do:

* `symlt` finds mates by their place in the file, without looking at the edges of the lattice, so that a mate beyond an
  edge is read at the other side; an average without that differs by 5e-7 in CC.
* `anisolt` does not subtract the mean of a shell but a cubic spline through the means, at each voxel's own radius. The
  slope of the rings within a shell, which a plain mean leaves in both maps, is then gone: 0.885 instead of 0.937.
"""

from typing import NamedTuple

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from hpcfit.config import ExperimentConfig
from hpcfit.physics import reciprocal
from hpcfit.readers.maps import read_map

CELL = (48.5, 48.5, 63.5, 90.0, 90.0, 90.0)
SHAPE, ORIGIN = np.array([62, 62, 80]), np.array([30, 30, 39])
STRIDES = np.array([1, SHAPE[0], SHAPE[0] * SHAPE[1]])
LUNUS_TOTAL, LUNUS_ANISOTROPIC = 0.998332, 0.884546
LAST_DIGIT = 0.5e-6


class Lattice(NamedTuple):
    """A whole lattice in the order of its file: hkl [N, 3], value float32 [N], there [N] bool."""

    hkl: np.ndarray
    value: np.ndarray
    there: np.ndarray


@pytest.fixture
def measured(shared_data):
    return read_map(ExperimentConfig(file=shared_data / "diffuse/snase/snc_diffuse.lat", cell=CELL))


@pytest.fixture
def lattice(measured):
    k, j, i = np.unravel_index(np.arange(SHAPE.prod()), SHAPE[::-1])
    hkl, place = np.stack([i, j, k], axis=1) - ORIGIN, (measured.hkl + ORIGIN) @ STRIDES
    value, there = np.zeros(len(hkl), np.float32), np.zeros(len(hkl), bool)
    value[place], there[place] = measured.intensity, True
    return Lattice(hkl, value, there)


def averaged(lattice):
    """`symlt`: the mean over the mates that have a value, mates beyond an edge read at the other side."""
    total, count = np.zeros(len(lattice.hkl)), np.zeros(len(lattice.hkl), int)
    for operation in reciprocal.laue_operations("4/m"):
        place = (lattice.hkl @ operation.T + ORIGIN) @ STRIDES
        inside = (place >= 0) & (place < len(total))
        mate = np.where(inside, place, 0)
        use = inside & lattice.there[mate]
        total += np.where(use, lattice.value[mate], 0)
        count += use
    return Lattice(lattice.hkl, (total / np.maximum(count, 1)).astype(np.float32), count > 0)


def radius(hkl):
    """|s| of each voxel in diagonals of one voxel, in single precision."""
    reciprocal_axes = np.float32(1) / np.array(CELL[:3], np.float32)
    return np.sqrt(squared_length(hkl.astype(np.float32) * reciprocal_axes) / squared_length(reciprocal_axes))


def squared_length(vector):
    x, y, z = vector[..., 0], vector[..., 1], vector[..., 2]
    return x * x + y * y + z * z


def anisotropic(lattice):
    """`anisolt`: a not-a-knot cubic spline through the means of shells of one voxel's diagonal is taken away."""
    r = radius(lattice.hkl)
    shell = (r + 0.5).astype(int)
    count = np.bincount(shell[lattice.there])
    knots = np.flatnonzero(count)
    means = [added(lattice.value[lattice.there & (shell == knot)]) / np.float32(count[knot]) for knot in knots]
    use = lattice.there & (r >= knots[0]) & (r <= knots[-2])
    return Lattice(lattice.hkl, (lattice.value - CubicSpline(knots, means)(r)).astype(np.float32), use)


def added(values):
    """One value after the other, in single precision; numpy.sum adds in pairs."""
    return np.cumsum(values, dtype=np.float32)[-1]


def printed_correlation(a, b):
    """`corrlt`: Pearson's coefficient over the voxels of both."""
    use = a.there & b.there
    da, db = (one.value[use] - added(one.value[use]) / np.float32(use.sum()) for one in (a, b))
    return added(da * db) / np.sqrt(added(da * da)) / np.sqrt(added(db * db))


def test_the_average_over_4_m_is_that_of_symlt(lattice):
    assert printed_correlation(lattice, averaged(lattice)) == pytest.approx(LUNUS_TOTAL, abs=LAST_DIGIT)


def test_the_anisotropic_parts_are_those_of_anisolt(lattice):
    found = printed_correlation(anisotropic(lattice), anisotropic(averaged(lattice)))
    assert found == pytest.approx(LUNUS_ANISOTROPIC, abs=LAST_DIGIT)


def test_the_laue_orbits_of_the_measured_voxels(measured):
    orbit, size = reciprocal.laue_orbits(measured.hkl, reciprocal.laue_operations("4/m"), measured.ndiv)
    assert len(size) == 30547
    mean = np.bincount(orbit, measured.intensity) / np.bincount(orbit)
    # 3e-6 = 5e-7 of the mates beyond an edge and the rest of LUNUS's sums of 117,010 terms in single precision
    assert np.corrcoef(measured.intensity, mean[orbit])[0, 1] == pytest.approx(LUNUS_TOTAL, abs=3e-6)
    # k, h, l are no mates in 4/m: averaging over 4/mmm as well must be seen
    wrong, _ = reciprocal.laue_orbits(measured.hkl, reciprocal.laue_operations("4/mmm"), measured.ndiv)
    mean = np.bincount(wrong, measured.intensity) / np.bincount(wrong)
    assert np.corrcoef(measured.intensity, mean[wrong])[0, 1] < LUNUS_TOTAL - 1e-3
