"""The misfit of averages: bounds, factors and constants in closed form, its derivatives, BME's and BioEn's files."""

import zipfile

import jax
import numpy as np
import pytest

from hpcfit.config.observables.averages import AveragedConfig
from hpcfit.errors import InputError
from hpcfit.observables.averages import (
    Adjusted,
    Data,
    adjustments,
    deviations,
    half_chi2,
    in_units_of_measurements,
    misfits,
)
from hpcfit.observables.frame_tables import data_of, open_data

M = 7
NO_CURVES = np.zeros((0, 3))
WORDS = ("scale", "offset", "both", "modulation-depth")
# The columns of the regression on (c, 1), and what is regressed, for each adjustment.
DESIGN = {
    "scale": (lambda c: [c], lambda c, e: e),
    "offset": (lambda c: [np.ones_like(c)], lambda c, e: e - c),
    "both": (lambda c: [c, np.ones_like(c)], lambda c, e: e),
    "modulation-depth": (lambda c: [c - 1], lambda c, e: e - 1),
}


def data(words=(), count=None, **given):
    """A set of M data for each word, adjusted so, of one ensemble; plain ones without any."""
    n = M * max(len(words), 1)
    random = np.random.default_rng(3)
    ones = np.ones(n)
    adjusted = np.repeat(np.arange(len(words)), M) if words else -ones.astype(int)
    fields = {
        "ensemble": np.zeros(n, int), "column": np.arange(n), "curve": -np.ones(n, int), "power": np.zeros(n),
        "intensity": np.zeros(n), "side": np.zeros(n, int), "measured": random.uniform(1, 3, n),
        "sigma": random.uniform(0.1, 0.4, n), "count": ones if count is None else np.tile(count, max(len(words), 1)),
        "of_held_out": np.zeros(n), "adjusted": adjusted, "sets": Adjusted.of(words),
    }  # fmt: skip
    return Data(**(fields | given))


def averages(n, seed=4):
    return np.random.default_rng(seed).uniform(-4, 4, (1, n))


@pytest.mark.parametrize("count", [None, [1, 1, 0, 1, 1, 0, 1], [2, 0, 1, 3, 1, 1, 0]])
def test_factors_and_constants_are_those_of_weighted_regression(count):
    d = data(WORDS, count)
    X = averages(len(d.measured))
    found, off = adjustments(d, X, NO_CURVES), np.asarray(deviations(d, X, NO_CURVES))
    for number, word in enumerate(WORDS):
        part = slice(number * M, (number + 1) * M)
        e, sigma, weight = d.measured[part], d.sigma[part], np.sqrt(d.count[part]) / d.sigma[part]
        c = e + sigma * X[0, part]
        columns, target = DESIGN[word]
        design = np.stack(columns(c), axis=1)
        x = np.linalg.lstsq(design * weight[:, None], target(c, e) * weight, rcond=None)[0]
        expected = (design @ x - target(c, e)) / sigma
        np.testing.assert_allclose(off[part], expected, rtol=1e-11, atol=1e-12)
        adjusted = found.scale[number] * c + found.offset[number]
        np.testing.assert_allclose((adjusted - e) / sigma, expected, rtol=1e-11, atol=1e-12)


def test_a_set_of_which_nothing_is_fitted_is_adjusted_by_its_own_data():
    X, fitted = averages(M), data(("both",))
    held_out = fitted._replace(count=np.zeros(M), of_held_out=np.ones(M))
    np.testing.assert_array_equal(deviations(held_out, X, NO_CURVES), deviations(fitted, X, NO_CURVES))


def test_the_misfit_is_at_its_minimum_in_what_is_adjusted():
    d = data(("both",))
    X = averages(M)
    least = half_chi2(d, X, NO_CURVES)
    found = adjustments(d, X, NO_CURVES)
    c = d.measured + d.sigma * X[0]
    for da, db in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        off = ((found.scale[0] + da) * c + found.offset[0] + db - d.measured) / d.sigma
        assert off @ off / 2 > least


@pytest.mark.parametrize("words", [(), WORDS])
def test_derivatives_are_those_of_differences(words):
    d = data(words, [1, 0, 2, 1, 1, 1, 1], side=np.tile([0, 1, -1, 0, 1, -1, 0], max(len(words), 1)) * (not words))
    X, h = averages(len(d.measured)), 1e-5
    gradient = np.asarray(jax.grad(half_chi2, 1)(d, X, NO_CURVES))[0]
    for n in range(len(d.measured)):
        step = h * np.eye(len(d.measured))[None, n]
        central = (half_chi2(d, X + step, NO_CURVES) - half_chi2(d, X - step, NO_CURVES)) / (2 * h)
        assert gradient[n] == pytest.approx(float(central), rel=1e-6, abs=1e-7)


def test_bounds_count_only_beyond_them():
    off = np.array([0.5, -0.5, 2.0, -2.0])
    of = lambda side: np.asarray(misfits(data(side=side), off))  # noqa: E731
    np.testing.assert_array_equal(of(np.array([1, 1, 1, 1])), [0.25, 0, 4, 0])
    np.testing.assert_array_equal(of(np.array([-1, -1, -1, -1])), [0, 0.25, 0, 4])
    np.testing.assert_array_equal(of(np.array([0, 0, 0, 0])), off**2)


def test_distances_and_intensities_are_compared_as_their_formulas_say():
    r, m, sigma, w = np.array([[3.0, 4.0], [5.0, 2.5]]), np.array([3.5, 3.0]), np.array([0.2, 0.3]), [0.25, 0.75]
    X = (w @ (r / m) ** -6.0)[None]
    both = {"power": np.full(2, 6), "measured": m, "sigma": sigma, "column": np.arange(2), "count": np.ones(2)}
    cut = {key: getattr(data(), key)[:2] for key in ("ensemble", "curve", "side", "of_held_out", "adjusted")}
    distances, intensities = (data(**both, **cut, intensity=np.full(2, one)) for one in (0, 1))
    effective, F = (w @ r**-6.0) ** (-1 / 6), m**-6.0
    off = np.asarray(deviations(distances, X, NO_CURVES))
    np.testing.assert_allclose(off, (effective - m) / sigma, rtol=1e-12)
    np.testing.assert_allclose(in_units_of_measurements(distances, off), effective, rtol=1e-12)
    off = np.asarray(deviations(intensities, X, NO_CURVES))
    np.testing.assert_allclose(off, -(w @ r**-6.0 - F) / (6 * F * sigma / m), rtol=1e-10)  # above 0: too long
    np.testing.assert_allclose(in_units_of_measurements(intensities, off), effective, rtol=1e-10)


# ---- files -----------------------------------------------------------------------------------------------------------

VALUES = np.array([[1.5, 2.5, 3.5], [1.0, 2.0, 4.0], [2.0, 2.25, 3.0], [1.25, 3.0, 5.0]])
EXPERIMENT = "# DATA=CS\na 1.0 0.1\nb 2.0 0.2\nc 3.0 0.3\n"
CALCULATED = "".join(f"frame{n} {' '.join(map(str, row))}\n" for n, row in enumerate(VALUES.tolist()))


def opened(folder, calculated, experiment=EXPERIMENT, **more):
    (folder / "exp.dat").write_text(experiment)
    paths = {"measured": folder / "exp.dat", "calculated": folder / calculated}
    return open_data(AveragedConfig(name="data", **paths, **more), [])


def write_bme(folder):
    (folder / "calc.dat").write_text("# frame a b c\n" + CALCULATED)
    return "calc.dat"


def write_archive(folder):
    with zipfile.ZipFile(folder / "calc.dat.zip", "w") as archive:
        archive.writestr("calc.dat", CALCULATED)
    return "calc.dat.zip"


def write_files_of_data(folder):
    for name, column in zip("abc", VALUES.T):
        (folder / f"sim-{name}-cs.dat").write_text("# a number a model\n" + "\n".join(map(str, column)) + "\n")
    return "sim-{name}-cs.dat"


def write_files_of_frames(folder):
    for number, row in zip((2, 0, 10, 1), VALUES[[2, 0, 3, 1]]):  # 10 comes behind 2
        (folder / f"lys{number}-cs.dat").write_text("".join(f"0.{n} {value}\n" for n, value in enumerate(row)))
    return "lys{frame}-cs.dat"


def write_csv(folder):
    np.savetxt(folder / "calc.csv", VALUES, delimiter=",", header="a,b,c", comments="")
    return "calc.csv"


@pytest.mark.parametrize("write", [write_bme, write_archive, write_files_of_data, write_files_of_frames, write_csv])
def test_files_of_other_programs_are_one_table(tmp_path, write):
    found = opened(tmp_path, write(tmp_path))
    np.testing.assert_array_equal(found.frames.rows(slice(1, 4)), VALUES[1:])
    assert (found.frames.n_rows, found.measured.names) == (4, ("a", "b", "c"))
    np.testing.assert_allclose(found.features(slice(0, 1)), [[5.0, 2.5, 0.5 / 0.3]])
    assert set(data_of([[found]]).measured) == {1.0, 2.0, 3.0}


def replaced(old, new):
    return lambda folder: (folder / "calc.dat").write_text(CALCULATED.replace(old, new))


@pytest.mark.parametrize(
    ("change", "experiment", "said"),
    [
        (replaced(" 3.5", ""), EXPERIMENT, "line 1 has 3 fields, not 4.*remedy: give the name of the frame and 3"),
        (replaced("2.25", "x"), EXPERIMENT, "line 3: 'x' is no number"),
        (replaced("2.25", "nan"), EXPERIMENT, "row 2, column b is nan"),
        (lambda folder: (folder / "calc.dat").write_text("# nothing\n"), EXPERIMENT, "has no rows of numbers"),
        (lambda folder: (folder / "calc.dat").unlink(), EXPERIMENT, "calc.dat does not exist"),
        (replaced("frame0", "# f a c b\nframe0"), EXPERIMENT, "column 1 is 'c', the datum is 'b'"),
        (replaced("", ""), EXPERIMENT.replace("0.2", "0"), "line 3: sigma is 0, not above 0"),
        (replaced("", ""), EXPERIMENT.replace(" 0.2", ""), "line 3 has 2 fields, not 3 or 4"),
        (replaced("", ""), "# DATA=CS\n", "exp.dat has no rows of numbers"),
        (replaced("", ""), EXPERIMENT.replace("CS", "XX"), "not BME's head"),
        (replaced("", ""), EXPERIMENT.replace("b 2", "a 2"), "line 3 and line 2 are both 'a'"),
        (replaced("1.5", "-1.5"), EXPERIMENT.replace("CS", "NOE"), "data of power are distances, above 0"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_error(tmp_path, change, experiment, said):
    (tmp_path / "calc.dat").write_text(CALCULATED)
    change(tmp_path)
    with pytest.raises(InputError, match=f"(?s){said}"):
        opened(tmp_path, "calc.dat", experiment)


@pytest.mark.parametrize(
    ("more", "head", "said"),
    [
        ({"adjusted": "scale"}, "DATA=NOE", "adjusted = 'scale', and .* distances by a power"),
        ({"adjusted": "scale"}, "DATA=CS BOUND=UPPER", "adjusted = 'scale', and .* bounds"),
        ({"bound": "upper"}, "DATA=CS BOUND=UPPER", "bounds of its own"),
        ({"compared": "distances"}, "DATA=CS", "compared has no effect without a power"),
        ({"groups": [1, 2]}, "DATA=CS", "2 groups are given, .* has 3 rows"),
    ],
)
def test_options_that_do_not_suit_the_file_are_errors(tmp_path, more, head, said):
    (tmp_path / "calc.dat").write_text(CALCULATED)
    with pytest.raises(InputError, match=said):
        opened(tmp_path, "calc.dat", EXPERIMENT.replace("DATA=CS", head), **more)


def test_the_head_says_power_bound_and_what_is_compared(tmp_path):
    (tmp_path / "calc.dat").write_text(CALCULATED)
    found = opened(tmp_path, "calc.dat", EXPERIMENT.replace("DATA=CS", "DATA=NOE BOUND=UPPER POWER=3"))
    assert (found.power, found.intensities, set(found.measured.bound.tolist())) == (3, True, {1})
    np.testing.assert_allclose(found.features(slice(1, 2)), [[1.0, 1.0, (4 / 3) ** -3.0]])
    assert not opened(tmp_path, "calc.dat", EXPERIMENT, power=6).intensities
