"""Measured scattering curves: text of SAXS programs, canSAS, detectors stitched, solvents, Guinier (S5-009)."""

from pathlib import Path

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.readers.scattering_curves import (
    ScatteringCurve,
    at_momenta,
    guinier,
    read_scattering_curve,
    stitched,
    without_background,
)

TABLE = """Sample description: 7 mg/ml
  0.1   10.0   0.5
  0.2    8.0   0.4
  0.3    5.0   0.3  1.0
creator 3
"""
Q = np.linspace(0.01, 0.4, 300)


def written(tmp_path, text, name="curve.dat"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def gaussian(seed=0, radius=15.0, noise=0.01, q=Q, scale=1.0):
    """A curve exp(-q^2 Rg^2 / 3) with relative errors."""
    I = scale * np.exp(-((q * radius) ** 2) / 3)
    s = noise * scale * (0.2 + np.exp(-((q * radius) ** 2) / 3))
    return ScatteringCurve(q, I + s * np.random.default_rng(seed).standard_normal(len(q)), s, f"gaussian {seed}")


@pytest.mark.parametrize("separator", ["   ", ",", "; ", "\t"])
def test_three_columns_between_text_in_both_units(tmp_path, separator):
    path = written(tmp_path, TABLE.replace("   ", separator))
    curve = read_scattering_curve(path)
    np.testing.assert_allclose(np.stack(curve[:3]), [[0.1, 0.2, 0.3], [10, 8, 5], [0.5, 0.4, 0.3]])
    np.testing.assert_allclose(read_scattering_curve(path, "1/nm").q, [0.01, 0.02, 0.03])


def test_columns_are_chosen_and_comments_passed_over(tmp_path):
    path = written(tmp_path, "# q in column 2\n1 0.1 5 0.1 # first\n2 0.2 4 0.1\n")
    curve = read_scattering_curve(path, columns=(1, 2, 3))
    np.testing.assert_allclose(np.stack(curve[:3]), [[0.1, 0.2], [5, 4], [0.1, 0.1]])


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("0.1 5 0.1\n0.2 4 -0.1\n", {}, "line 2: sigma is -0.1, not above 0, at I = 4 \\(1 of 2 rows\\)"),
        ("0.1 5 0.1\n0.2 4 0\n", {}, "line 2: sigma is 0, not above 0"),
        ("0.1 5 0.1\n0.2 4 nan\n", {}, "line 2: sigma is missing"),
        ("0.1 5 0.1\n0.2 4\n", {}, "line 2: sigma is missing"),
        ("0.1 5\n0.2 4\n", {}, "line 1 has 2 fields, and sigma is asked for in field 3"),
        ("0.1 5\n0.2 4\n", {"sigma": "drop"}, "no row has a sigma above 0"),
        ("0.2 5 1\n0.1 4 1\n", {}, "line 2 is at q = 0.1, but line 1 at 0.2"),
        ("0.2 5 1\n90 4 1\n", {}, "q from 0.2 to 90"),
        ("0.1 5 1\n0.2 inf 1\n", {}, "line 2: intensity is no finite number"),
        ("nothing\n", {}, "has no rows of numbers"),
        ("0.1 5 1\n", {"unit": "nm"}, "unit = 'nm' is none of q"),
    ],
)
def test_bad_curves_are_one_error_with_line_and_values(tmp_path, text, arguments, message):
    with pytest.raises(InputError, match=message) as error:
        read_scattering_curve(written(tmp_path, text), **arguments)
    assert error.value.remedy


def test_rules_for_missing_errors(tmp_path):
    path = written(tmp_path, "0.1 5 0.1\n0.2 -4 0\n0.3 3 0.1\n")
    dropped = read_scattering_curve(path, sigma="drop")
    assert (dropped.q.tolist(), dropped.dropped) == ([0.1, 0.3], 1)
    np.testing.assert_allclose(read_scattering_curve(path, sigma=0.05).sigma, [0.1, 0.2, 0.1])
    np.testing.assert_allclose(read_scattering_curve(written(tmp_path, "0.1 5\n0.2 4\n"), sigma=0.1).sigma, [0.5, 0.4])


def test_cansas_and_nexus_are_read_by_sasdata():
    sasdata = pytest.importorskip("sasdata")
    folder = Path(sasdata.__file__).parent / "example_data" / "1d_data"
    curve = read_scattering_curve(folder / "ISIS_Polymer_Blend_RT2.xml")
    assert len(curve.q) == 124
    np.testing.assert_allclose([curve.q[0], curve.sigma[0]], [0.008, 0.691609])
    nexus = read_scattering_curve(folder / "33837rear_1D_1.75_16.5_NXcanSAS.h5")
    np.testing.assert_allclose([nexus.q[0], nexus.sigma[0]], [0.00416, 0.61522475])


def test_a_file_that_is_no_cansas_is_an_error(tmp_path):
    pytest.importorskip("sasdata")
    with pytest.raises(InputError, match="cannot be read by sasdata"):
        read_scattering_curve(written(tmp_path, "<nothing/>", "curve.xml"))


def test_segments_are_stitched_with_their_scales():
    low, high = gaussian(1, q=Q[:180]), gaussian(2, q=Q[120:] + 1e-5, scale=2.5)
    whole, [overlap] = stitched([high, low])
    assert overlap.points == 59
    assert abs(overlap.scale - 0.4) < 5 * overlap.error
    assert overlap.error < 0.01
    assert 0.5 < overlap.reduced < 2
    assert len(whole.q) == len(low.q) + len(high.q)
    assert np.all(np.diff(whole.q) > 0)
    pulls = (whole.intensity - np.exp(-((whole.q * 15) ** 2) / 3)) / whole.sigma
    assert abs(np.mean(pulls**2) - 1) < 0.3


def test_points_of_the_same_q_are_averaged_by_their_errors():
    flat = [ScatteringCurve(np.arange(1, 6) / 10, np.full(5, v), np.full(5, s)) for v, s in ((1.0, 1.0), (2.0, 0.5))]
    whole, _ = stitched(flat, scaled=False, tolerance=2)
    np.testing.assert_allclose(whole.intensity, 1.8)
    np.testing.assert_allclose(whole.sigma, 0.2**0.5)


def test_segments_that_disagree_or_do_not_meet_are_errors():
    low, high = gaussian(1, q=Q[:180]), gaussian(2, radius=18, q=Q[120:])
    with pytest.raises(InputError, match=r"disagree where they overlap: by .*chi2 .* at 60 points"):
        stitched([low, high])
    with pytest.raises(InputError, match=r"disagree where they overlap: by .* after scaling by 1"):
        stitched([low, gaussian(3, q=Q[120:], scale=2)], scaled=False)
    with pytest.raises(InputError, match="0 points overlap"):
        stitched([gaussian(1, q=Q[:100]), gaussian(2, q=Q[150:])])


def test_the_real_detectors_are_stitched(shared_data):
    paths = sorted((shared_data / "clusters").glob("pbi2_dmf2_bseries_hs10?_389.txt"))
    segments = [read_scattering_curve(path) for path in paths]
    assert [len(one.q) for one in segments] == [1006, 394, 502]
    whole, overlaps = stitched(segments)
    assert (whole.q[0], whole.q[-1]) == (0.0025405, 4.4578)
    assert [one.points for one in overlaps] == [3, 9]
    assert all(one.deviation < 2e-3 for one in overlaps)
    # As they stand the files differ by a fifth: this is said.
    with pytest.raises(InputError, match="disagree"):
        stitched(segments, scaled=False)


def test_a_solvent_is_subtracted_with_both_errors():
    curve, solvent = gaussian(1), ScatteringCurve(np.array([0.0, 0.5]), np.array([1.0, 2.0]), np.array([0.1, 0.1]))
    less = without_background(curve, solvent, 0.5)
    np.testing.assert_allclose(less.intensity, curve.intensity - 0.5 * (1 + 2 * Q), rtol=1e-12)
    np.testing.assert_allclose(at_momenta(solvent, np.array([0.25]))[1], 0.1 / 2**0.5)
    assert np.all(less.sigma > curve.sigma)
    with pytest.raises(InputError, match=r"reaches from q = 0.1"):
        without_background(curve, solvent._replace(q=np.array([0.1, 0.5])))


def test_guinier_recovers_a_known_radius_within_its_error():
    pulls = np.array([(found.radius - 15) / found.radius_error for found in (guinier(gaussian(n)) for n in range(60))])
    assert abs(pulls.mean()) < 4 / 60**0.5
    assert 0.7 < pulls.std() < 1.3
    found = guinier(gaussian(0))
    assert found.valid
    assert 1.25 < found.q_rg <= 1.3


def test_guinier_flags_aggregates_and_late_starts():
    curve = gaussian(0)
    aggregate = curve._replace(intensity=curve.intensity + 0.3 * np.exp(-((Q * 60) ** 2) / 3))
    assert any("aggregates" in flag for flag in guinier(aggregate).flags)
    late = gaussian(4, q=Q[60:])
    assert any("the first point is at q Rg" in flag for flag in guinier(late).flags)
    with pytest.raises(InputError, match="no Guinier region"):
        guinier(curve._replace(intensity=1 + Q))


def test_guinier_of_lysozyme(shared_data):
    found = guinier(read_scattering_curve(shared_data / "saxs" / "SASDA96.dat", "1/nm"))
    assert found.valid
    assert found.radius == pytest.approx(15.08, abs=0.05)
    assert found.reduced == pytest.approx(1.0, abs=0.05)
    other = guinier(read_scattering_curve(shared_data / "saxs" / "lysozyme_8mgml_subtracted.dat"), 0.015)
    assert other.radius == pytest.approx(14.36, abs=0.04)
    assert other.reduced == pytest.approx(2.43, abs=0.02)
    assert len(other.flags) == 2
