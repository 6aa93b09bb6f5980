"""Labels of compositions: written, read back, in both orders."""

import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.composition import Roles, composition_of


@pytest.mark.parametrize(
    ("roles", "counts", "label"),
    [
        (Roles(("Pb",), ("I",), ("O",)), {"O": 2, "I": 3, "Pb": 2, "S": 0}, "Pb2I3O2"),
        (Roles(("Zn", "Pb"), ("I", "Br")), {"I": 1, "Zn": 1, "Br": 4, "Pb": 1}, "PbZnBr4I"),
        (Roles(("Zn",), ("I", "Br"), style="saxshell"), {"I": 1, "Zn": 1, "Br": 4}, "IBr4Zn"),
        (Roles(("Li",), ("PF6",)), {"PF6": 2, "Li": 1}, "Li(PF6)2"),
    ],
)
def test_a_label_is_read_back_as_the_composition_it_was_written_from(roles, counts, label):
    assert roles.label(counts) == label
    assert composition_of(label) == {species: count for species, count in counts.items() if count}


def test_a_species_has_the_first_role_that_names_it():
    roles = Roles(("Pb",), ("I",), ("I", "O"))
    assert [roles.of(one) for one in ("Pb", "I", "O", "C")] == ["node", "linker", "shell", None]
    assert roles.nodes_in({"Pb": 2, "I": 3}) == 2


@pytest.mark.parametrize("text", ["", "pb2", "Pb2(", "2Pb", "Pb 2"])
def test_what_is_no_composition_is_an_error_that_shows_it(text):
    with pytest.raises(InputError, match="is no composition"):
        composition_of(text)
