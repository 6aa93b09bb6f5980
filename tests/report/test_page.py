"""Numbers read as a person writes them, and keep their full value for machines."""

import math
import re

import pytest

from hpcfit.report.page import change, correlation, duration, number, percent, significant

CASES = [
    (correlation, 0.951234, "0.9512"),
    (correlation, -0.25, "−0.2500"),
    (correlation, 0.99950001, "0.99950"),
    (correlation, 0.9999997459, "0.99999975"),
    (correlation, 1.0, "1.000000"),
    (change, 0.13, "+0.1300"),
    (change, -0.0213, "−0.0213"),
    (change, 1.56e-5, "+1.6 × 10<sup>−5</sup>"),
    (change, 0.0, "+0.0000"),
    (significant, 85.23, "85.2"),
    (significant, 0.0, "0"),
    (significant, 1615.2, "1615"),
    (significant, 16691.7, "16\u202f692"),
    (significant, 3.601e-4, "3.60 × 10<sup>−4</sup>"),
    (significant, -0.0879, "−0.0879"),
    (percent, 0.43753, "43.8 %"),
    (percent, 1.204, "120.4 %"),
    (duration, 0.0421, "42.1 ms"),
    (duration, 12.34, "12.3 s"),
    (duration, 187.4, "3 min 07 s"),
    (duration, 3599.7, "1 h 00 min"),
]


@pytest.mark.parametrize(("write", "value", "shown"), CASES)
def test_numbers_read_well_and_keep_their_value(write, value, shown):
    sign, full, text = re.fullmatch(r'(\+?)<data value="([^"]+)">(.*)</data>', str(write(value))).groups()
    assert sign + text == shown
    assert float(full) == value


@pytest.mark.parametrize("write", [correlation, change, significant, duration])
def test_what_is_no_number_is_a_dash(write):
    assert str(write(None)) == str(write(math.nan)) == "–"
    assert str(number(math.inf, "")) == "∞"
