"""What was measured of an observable: from the config, from tables, from text files in several dialects."""

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.observables.build import build
from hpcfit.observables.measured import measured
from tests.observables.waters import site, table, whole

PAIRS = {"pairs": [[0, 3], [1, 4]]}


@pytest.fixture
def file(tmp_path):
    def write(text, name="measured.dat"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def of(config):
    """What was measured of an observable of two waters with two numbers, or of a curve."""
    return measured(config, build(config, site()), 2)


def test_numbers_of_the_config_share_a_sigma_and_a_bound():
    found = of(table("distances", **PAIRS, values=[0.3, 0.4], sigma=0.1, bound="lower"))
    np.testing.assert_array_equal(found, [[0.3, 0.4], [0.1, 0.1], [-1, -1]])


def test_a_table_of_numbers_is_in_nm(tmp_path):
    np.save(tmp_path / "m.npy", [[0.3, 0.1], [0.4, 0.2]])
    found = of(table("distances", **PAIRS, measured=tmp_path / "m.npy"))
    np.testing.assert_array_equal(found, [[0.3, 0.4], [0.1, 0.2], [0, 0]])


@pytest.mark.parametrize(
    "text", ["3 1\n4 2\n", "value,sigma\n3,1\n4,2\n", "a 3 1\nb 4 2\n", "# DATA=DIST\na 3 1\nb 4 2\n"]
)
def test_text_is_of_any_dialect_and_its_unit_is_said(file, text):
    found = of(table("distances", **PAIRS, measured=file(text), unit="A"))
    np.testing.assert_allclose(found, [[0.3, 0.4], [0.1, 0.2], [0, 0]])


def test_lengths_that_are_no_distances_of_atoms_are_any(file):
    found = of(table("distances", **PAIRS, measured=file("50 1\n40 2\n")))
    np.testing.assert_array_equal(found.value, [50, 40])


def test_bounds_are_those_of_the_file_or_of_the_config(file):
    mixed = file("a 0.3 0.1 UPPER\nb 0.4 0.2\n", "mixed.dat")
    np.testing.assert_array_equal(of(table("distances", **PAIRS, measured=mixed)).side, [1, 0])
    plain = file("a 0.3 0.1\nb 0.4 0.2\n", "plain.dat")
    np.testing.assert_array_equal(of(table("distances", **PAIRS, measured=plain, bound="upper")).side, [1, 1])
    with pytest.raises(InputError, match=r"mixed.dat says 'no bound' of item 1 \(b\), but .* has bound = 'upper'"):
        of(table("distances", **PAIRS, measured=mixed, bound="upper"))
    head = file("# DATA=NOE BOUND=LOWER\na 3.0 0.1\nb 4.0 0.2\n", "head.dat")
    same = table("distances", **PAIRS, power=6, measured=head, unit="A", bound="lower")
    np.testing.assert_array_equal(of(same).side, [-1, -1])


def test_couplings_of_bme(file):
    config = whole("scalar-couplings", measured=file("# DATA=JCOUPLINGS\na 4.0 1.0\n"))
    np.testing.assert_array_equal(measured(config, None, 1), [[4], [1], [0]])


NOE = "# DATA=NOE POWER=6\na 3.0 0.1\nb 4.0 0.2\n"
ERRORS = {
    "another number of values": (PAIRS | {"values": [0.3]}, None, "has 2 numbers; the config has 1 values"),
    "another number of sigmas": (PAIRS | {"values": [0.3, 0.4], "sigma": [0.1]}, None, "2 values and 1 sigmas"),
    "another number of rows": (PAIRS, "a 0.3 0.1\n", "has 1 rows, but observable 'o' has 2 items"),
    "another power": (PAIRS | {"power": 3, "unit": "A"}, NOE, "is of averages of r^-6"),
    "no power": (PAIRS | {"unit": "A"}, NOE, "observable 'o' has power = None"),
    "other data": (PAIRS, "# DATA=RDC\na 3.0 0.1\nb 4.0 0.2\n", "has DATA=RDC, but observable 'o' is 'distances'"),
    "another unit": (PAIRS | {"power": 6}, NOE, "the numbers fit A or bohr"),
}


@pytest.mark.parametrize("what", ERRORS)
def test_what_does_not_fit_is_one_error(file, what):
    keys, text, message = ERRORS[what]
    keys = keys if text is None else keys | {"measured": file(text)}
    with pytest.raises(InputError) as caught:
        of(table("distances", **{"sigma": 0.1} | keys if text is None else keys))
    assert message in str(caught.value)
    assert "remedy" in str(caught.value)


def test_a_table_of_another_form_is_an_error(tmp_path):
    path = tmp_path / "m.npy"
    np.save(path, np.ones((2, 3)))
    with pytest.raises(InputError, match="has 3 columns"):
        of(table("distances", **PAIRS, measured=path))
    np.save(path, [[0.3, 0.1], [0.4, 0.0]])
    with pytest.raises(InputError, match=r"row 1, column 1 is 0 .*sigma must be above 0"):
        of(table("distances", **PAIRS, measured=path))


# ---- curves ------------------------------------------------------------------------------------------------------

CURVE = "r g e other e\n" + "".join(f"{r} {r / 5} 0.1 {r / 2} {0.01 * r}\n" for r in (1.5, 2.0, 3.0, 4.0, 5.0, 6.0))


def test_a_radial_distribution_is_interpolated_at_the_centres_of_bins(file):
    """Bins of 0.075 nm from 0.2 to 0.5: centres at 2.375 ... 4.625 A of a file in A, which is linear."""
    centres = np.array([2.375, 3.125, 3.875, 4.625])
    for columns, value, sigma in (([0, 1, 2], centres / 5, 0.1), ([0, 3, 4], centres / 2, 0.01 * centres)):
        found = of(whole("radial-distribution", measured=file(CURVE), unit="A", columns=columns))
        np.testing.assert_allclose(found.value, value)
        np.testing.assert_allclose(found.sigma, np.broadcast_to(sigma, 4))


def test_rows_outside_of_the_bins_need_no_errors(file):
    """The first rows of a g(r) have errors of 0."""
    path = file("0.0 0 0\n1.0 0 0\n2.0 1 0.1\n5.0 1 0.1\n9.0 1 0\n")
    np.testing.assert_allclose(of(whole("radial-distribution", measured=path, unit="A")).sigma, 0.1)


def test_a_bin_beyond_the_rows_is_an_error(file):
    text = "2.5 1 0.1\n4.0 1 0.1\n"
    with pytest.raises(InputError, match=r"has a number at 0.2375, but .* reach from 0.25 to 0.4"):
        of(whole("radial-distribution", measured=file(text), unit="A"))


def test_a_scattering_curve_says_its_momentum_transfers(file):
    """In 1/A, of which a range in 1/nm is used; the others are not compared."""
    path = file("0.1 9 1\n0.2 8 2\n0.3 7 3\n0.4 6 4\n")
    config = table("small-angle-scattering", measured=path, unit="A", range=[1.5, 3.5], units="absolute")
    one = build(config, site())
    np.testing.assert_allclose(one.q, [2.0, 3.0])
    np.testing.assert_allclose(measured(config, one, 2), [[8, 7], [2, 3], [0, 0]])
    at = table("small-angle-scattering", measured=path, unit="A", q=[2.5], units="absolute")
    np.testing.assert_allclose(of(at), [[7.5], [2.5], [0]])
    with pytest.raises(InputError, match="no row lies between"):
        build(table("small-angle-scattering", measured=path, range=[1.5, 3.5]), site())
