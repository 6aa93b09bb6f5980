"""Medians of bonds, contacts, angles and coordination: those of the reference, and those of molecules made by hand."""

import numpy as np
import pytest

from hpcfit.kinds.clusters.composition import Roles, Structure
from hpcfit.kinds.clusters.geometry import Quartiles, bonds_in, first_shell, geometry_of, scaffold, sites
from hpcfit.kinds.clusters.library import Library
from tests.kinds.clusters.golden_library import CUTOFFS, VARIANTS, golden_folder, library, table

ROLES = Roles(("Pb",), ("I",), ("O",))
SQUARE = Structure(
    ("Pb", "I", "I", "I", "I", "O"),
    ("Pb", "I", "I", "I", "I", "O"),
    np.array([[0, 0, 0], [3, 0, 0], [0, 3, 0], [-3, 0, 0], [0, -3, 0], [0, 0, 2.5]], float),
)


def geometry(structures, cutoffs=None):
    cutoffs = {("I", "Pb"): 3.4, ("Pb", "O"): 3.0} if cutoffs is None else cutoffs
    return geometry_of(Library.of({"x": structures}, ROLES), cutoffs)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("name", "told", "between"),
    [
        ("bonds", "bond_length_medians", "-"),  # S5-069 … S5-071
        ("contacts", "contact_distance_medians", "-"),  # S5-072
        ("role_contacts", "geometry_contact_distance_medians", "-"),  # S5-073, S5-079 … S5-081
        ("angles", "node_angle_medians", "-"),  # S5-074, S5-078
        ("node_coordination", "node_coordination_medians", "-"),  # S5-075
        ("nodes_of", "non_node_node_coordination_medians", "-"),  # S5-076
        ("coordination", "atom_coordination_medians", " around-> "),  # S5-077
    ],
)
def test_s5_069_to_081_medians_are_those_of_the_reference(shared_data, variant, name, told, between):
    folder = golden_folder(shared_data)
    expected = table(folder, variant, "geometry")
    found = geometry_of(library(folder, variant), CUTOFFS)
    assert found.node_bond.median == pytest.approx(expected["node_bond_length"], rel=1e-14)
    medians = {
        between.join(key) if isinstance(key, tuple) else key: one.median for key, one in getattr(found, name).items()
    }
    assert medians == pytest.approx(expected[told], rel=1e-13)


def test_s5_074_to_077_a_square_with_a_shell_atom():
    found = geometry([SQUARE])
    assert found.bonds["I", "Pb"] == Quartiles(3, 3, 3, 4)
    assert found.bonds["O", "Pb"].median == 2.5
    assert found.angles["linker", "shell"].median == pytest.approx(90)
    assert (found.angles["linker", "linker"].low, found.angles["linker", "linker"].high) == pytest.approx((90, 157.5))
    assert found.node_coordination["linker"].median == 4
    assert found.node_coordination["node"].median == 0
    assert found.nodes_of["O"].median == 1
    assert found.closest["I", "I"] == pytest.approx(3 * np.sqrt(2))
    assert found.coordination["linker", "shell"].median == 1


def test_s5_080_contacts_reach_as_far_as_the_nearest_distances_and_cutoffs_tell():
    found = geometry([SQUARE])
    assert found.contacts["I", "I"].n == 4  # not those across, at 6 A
    assert found.role_contacts["linker", "shell"].median == pytest.approx(np.hypot(3, 2.5))


def test_defaults_where_nothing_was_seen():
    found = geometry([Structure(("Pb",), ("Pb",), np.zeros((1, 3)))])
    assert found.node_bond == Quartiles(6.4, 6.4, 6.4, 0)  # twice the median cutoff to nodes
    assert (found.angle("node", "node").median, found.angle("linker", "node").median) == (180, 120)
    assert found.bond_of("I").median == 3.4
    alone = geometry([Structure(("Pb",), ("Pb",), np.zeros((1, 3)))], {})
    assert alone.node_bond.median == 3.0
    assert geometry([SQUARE], {("Pb", "Pb"): 4.0}).node_bond.median == 4.0


def test_the_scaffold_keeps_pairs_within_reach_and_joins_the_rest_by_the_shortest():
    x = np.array([0.0, 3.0, 6.0, 20.0, 21.0])
    distance = np.abs(x[:, None] - x)
    assert scaffold(distance, np.full((5, 5), 3.0)) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert scaffold(distance, np.full((5, 5), 6.0)) == [(0, 1), (0, 2), (1, 2), (2, 3), (3, 4)]
    nowhere = np.full((3, 3), np.nan)
    triangle = np.ones((3, 3)) - np.eye(3)
    noise = 1e-9 * np.array([[0, 3, 1], [3, 0, 2], [1, 2, 0]])
    assert scaffold(triangle, nowhere) == scaffold(triangle + noise, nowhere) == [(0, 1), (0, 2)]


def test_a_linker_beyond_every_cutoff_is_bound_to_the_nearest_node():
    far = SQUARE._replace(positions=SQUARE.positions * 3)
    found = bonds_in(far, ROLES, {("Pb", "I"): 3.4})
    assert found.attached == {k: [0] for k in range(1, 6)}
    assert first_shell(far, ROLES, {("Pb", "I"): 3.4}).size == 0
    assert first_shell(SQUARE, ROLES, {("Pb", "I"): 3.4}).tolist() == [[0, 1], [0, 2], [0, 3], [0, 4]]


def test_a_molecule_is_one_site():
    roles = Roles(("Li",), ("PF6",))
    one = Structure(("Li", *["PF6"] * 7), ("Li", *"FPFFFFF"), np.arange(24.0).reshape(8, 3))
    assert sites(one, roles).tolist() == [0, 2]
