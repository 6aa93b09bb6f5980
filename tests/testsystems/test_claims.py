"""A claim is judged as it says, and the table shows it."""

from hpcfit.testsystems.claims import Claim, below, near, table


def test_numbers_are_judged_by_their_tolerance():
    assert near("bias", 10.0, 2.0, 11.9).holds
    assert not near("bias", 10.0, 2.0, 12.1).holds
    assert below("time", 0.5, 0.5).holds
    assert not below("time", 0.5, 0.51).holds


def test_the_table_counts_what_is_judged_only():
    lines = table([near("a", 1.0, 0.1, 2.0), below("b", 1.0, 0.5), Claim("c", "3", "4")]).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["a", "b", "c"]
    assert lines[1].endswith("FAIL")
    assert lines[-1] == "1 of 2 claims hold"
