"""Data as reports show them: deviations with their errors, within and beyond bounds, and labels."""

import numpy as np

from hpcfit.kinds.force_field.files import Observable, data_labels


def datum(bound, after):
    return Observable("box", "distance", "0", bound, 3.0, 0.5, 3.0, after, False, 0.4)


def test_an_error_moves_a_deviation_as_far_as_its_bound_lets_it():
    """0.4 are 0.8 sigma; an upper bound of 3 counts from there on, a lower one below."""
    for bound, after, expected in (
        ("", 3.1, (0.8, 0.8)), ("upper", 2.0, (0.0, 0.0)), ("upper", 2.9, (0.0, 0.6)), ("upper", 3.1, (0.2, 0.8)),
        ("lower", 2.9, (0.8, 0.2)), ("lower", 4.0, (0.0, 0.0)),
    ):  # fmt: skip
        np.testing.assert_allclose(datum(bound, after).error_bars(after, 0.4), expected, rtol=1e-12, atol=1e-15)


def test_numbers_stand_beside_the_names_of_observables_of_several():
    names = [("pressure", "0"), ("g", "0"), ("g", "1"), ("pressure", "0")]
    assert data_labels(names) == ["pressure", "g 0", "g 1", "pressure"]
