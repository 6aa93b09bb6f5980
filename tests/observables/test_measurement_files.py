"""Files of measurements as users have them, and one error for each way in which one can be wrong."""

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.observables.readers import (
    distances_in_nm,
    radial_in_nm,
    read_bme,
    read_curve,
    read_named,
    read_values,
    require_items,
    scattering_per_nm,
)


@pytest.fixture
def file(tmp_path):
    def write(text, name="measured.dat"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("text", ["4.2 0.4\n\n3.0\t0.2 # far\n", "value, sigma\n4.2,0.4\n3.0, 0.2\n"])
def test_values_stand_in_two_columns(file, text):
    found = read_values(file(text))
    np.testing.assert_array_equal(found.value, [4.2, 3.0])
    np.testing.assert_array_equal(found.sigma, [0.4, 0.2])
    assert found.names == ("0", "1")
    assert not found.bound.any()


def test_bmes_dialects(file):
    older = read_bme(file("# DATA=NOE PRIOR=GAUSS POWER=6\nC1_1H2'_C2_H1'\t 4.21\t0.4\nC1_H5_C2_H5 5.0 0.1 LOWER\n"))
    assert (older.data, older.power, older.names[0]) == ("NOE", 6, "C1_1H2'_C2_H1'")
    np.testing.assert_array_equal(older.value, [4.21, 5.0])
    np.testing.assert_array_equal(older.bound, [0, -1])
    newer = read_bme(file("# DATA=NOE BOUND=UPPER\n# 7 9.9 0.1\n7 5.2 0.1 \n8 4.6 0.1\n"))
    np.testing.assert_array_equal(newer.bound, [1, 1])
    assert newer.names == ("7", "8")
    couplings = read_bme(file("# DATA=JCOUPLINGS PRIOR=GAUSS\nA1-H1'-H2' 1.5 1.0\n"))
    assert (couplings.data, couplings.power) == ("JCOUPLINGS", None)
    assert read_bme(file("# DATA=NOE POWER=3\na 2.0 0.1\n")).power == 3


def test_bioens_generic_data_have_names(file):
    found = read_named(file("noe-1 4.2 0.4\n17 3.0 0.2\n", "exp-generic.dat"))
    assert found.names == ("noe-1", "17")
    require_items(found, 2, "NOE 'ala5'")
    with pytest.raises(InputError, match=r"exp-generic.dat has 2 rows, but NOE 'ala5' has 3 items"):
        require_items(found, 3, "NOE 'ala5'")


def test_a_curve_has_text_above_and_below(file):
    text = " 17-Feb-2013 (sample)\nq I sigma\n 0.01 5.0E+02 1.0\n 0.02 4.0E+02 2.0\n ====\nBuffer: water\n"
    found = scattering_per_nm(read_curve(file(text)), "A")
    np.testing.assert_allclose(found.at, [0.1, 0.2])
    np.testing.assert_array_equal(found.value, [500, 400])


def test_measured_curves_of_programs(shared_data):
    saxs = read_curve(shared_data / "saxs" / "SASDA96.dat")
    assert len(saxs.at) == 1366
    assert (saxs.at[0], saxs.value[0], saxs.sigma[0]) == (0.166206, 796.310, 22.0672)
    soper = shared_data / "rev_sim" / "soper_2013_water_rdf.txt"
    found = radial_in_nm(read_curve(soper, (0, 1, 2), (2.4, 9.0)), "A")
    assert found.value.max() == 2.4953
    assert found.at[np.argmax(found.value)] == pytest.approx(0.279)
    with pytest.raises(InputError, match="line 1: sigma is 0, not above 0"):
        read_curve(soper)
    with pytest.raises(InputError, match=r"distances of 25.2 nm cannot be.*"):
        radial_in_nm(found._replace(at=100 * found.at), "nm")


def test_units_that_cannot_be_are_an_error(file):
    found = read_bme(file("# DATA=NOE\na 4.21 0.4\n"))
    inside = distances_in_nm(found, "A")
    np.testing.assert_allclose((inside.value[0], inside.sigma[0]), (0.421, 0.04))
    with pytest.raises(InputError, match=r"distances of 4.21 nm cannot be.*\n.*the numbers fit A or bohr"):
        distances_in_nm(found, "nm")
    with pytest.raises(InputError, match="unit = 'angstroms' is no unit of length"):
        distances_in_nm(found, "angstroms")
    curve = read_curve(file("0.1 5 1\n80 4 1\n"))
    with pytest.raises(InputError, match="to 80 1/A cannot be"):
        scattering_per_nm(curve, "A")


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        (read_values, "1.0 0.1\n2.0\n", "line 2 has 1 fields, not 2"),
        (read_values, "1.0 0.1 3.0\n", "line 1 has 3 fields, not 2"),
        (read_values, "1.0 0.1\n2.0 0.0\n", "line 2: sigma is 0, not above 0"),
        (read_values, "1.0 0.1\n2.0 -1\n", "line 2: sigma is -1, not above 0"),
        (read_values, "1.0 0.1\n\n2.0 O.1\n", "line 3: sigma is 'O.1'"),
        (read_values, "1.0 0.1\nx 1\n2.0 0.1\n", "line 2: value is 'x'"),
        (read_values, "nan 0.1\n", "line 1: value is 'nan'"),
        (read_values, "1.0,,0.1\n", "line 1 has 3 fields, not 2"),
        (read_values, "# nothing\n", "has no rows of numbers"),
        (read_named, "", "has no rows of numbers"),
        (read_named, "a 1.0\n", "line 1 has 2 fields, not 3 or 4"),
        (read_named, "a 1.0 0.1\na 2.0 0.1\n", "line 2 and line 1 are both 'a'"),
        (read_named, "a 1.0 0.1 BELOW\n", "line 1: 'BELOW' is no bound"),
        (read_bme, "a 1.0 0.1\n", "line 1 is 'a 1.0 0.1', not BME's head"),
        (read_bme, "# DATA=XYZ\na 1.0 0.1\n", "line 1 is '# DATA=XYZ', not BME's head"),
        (read_bme, "# DATA=NOE BOUND=LEFT\na 1.0 0.1\n", "line 1: 'LEFT' is no bound"),
        (read_bme, "# DATA=NOE POWER=5\na 1.0 0.1\n", "line 1: POWER=5 of an NOE"),
        (read_curve, "0.1 1.0 0.1\n0.2 1.0\n", "line 2 has 2 fields, not 3"),
        (read_curve, "0.1 1.0\n0.2 1.0\n", "line 1 has 2 fields, not 3"),
        (read_curve, "0.2 1.0 0.1\n0.1 1.0 0.1\n", "line 2 is at 0.1, but line 1 at 0.2"),
        (lambda path: read_curve(path, between=(5, 6)), "0.1 1.0 0.1\n", "reaches from 0.1 to 0.1, and no row lies"),
    ],
)
def test_what_is_wrong_is_one_error_with_file_and_line(file, reader, text, message):
    with pytest.raises(InputError) as caught:
        reader(file(text))
    assert message in str(caught.value)
    assert "measured.dat" in str(caught.value)
    assert "remedy" in str(caught.value)


def test_files_that_are_no_text(file, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_values(tmp_path / "nowhere.dat")
    binary = tmp_path / "binary.dat"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_values(binary)
