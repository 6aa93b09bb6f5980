"""Clusters of single frames against brute force, closed forms and the golden data.

Not proved: speed, and what OVITO or others would find.
"""

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.composition import Roles
from hpcfit.kinds.clusters.extraction.cutoffs import cutoff_matrices, first_minimum, species_of_pair
from hpcfit.kinds.clusters.extraction.frame import Finder
from hpcfit.kinds.clusters.extraction.neighbours import face_distance, minimum_image, pairs_within
from hpcfit.kinds.clusters.extraction.participants import participants_of
from hpcfit.kinds.clusters.extraction.stages import Guard
from hpcfit.kinds.clusters.library import medoid
from hpcfit.readers.topology import particles_of_elements
from hpcfit.store.particles import Particles
from tests.kinds.clusters import golden_clusters as golden

ROLE = {"Pb": "node", "I": "linker", "O": "shell"}
CUBE = np.diag([14.0, 15.0, 16.0])
TRICLINIC = np.array([[15.0, 0.0, 0.0], [-4.0, 15.0, 0.0], [3.0, -5.0, 14.0]])
TURNED = np.array([[0.0, 15.0, 1.0], [0.5, -4.0, 15.0], [14.5, 3.0, -5.0]])  # no vector along x, left-handed


def particles(seed, n=40):
    rng = np.random.default_rng(seed)
    elements = ["Pb"] * 12 + ["I"] * 18 + ["O"] * (n - 30)
    return rng.uniform(-20, 30, (n, 3)), [elements[k] for k in rng.permutation(n)]


def members(found):
    """The particles of each cluster."""
    of = found.of
    sets = [set() for _ in range(len(found))]
    for cluster, unit in zip(found.cluster.tolist(), found.unit.tolist()):
        sets[cluster] |= set(of.particle[of.start[unit] : of.start[unit + 1]].tolist())
    return [frozenset(one) for one in sets]


@pytest.mark.parametrize("box", [None, CUBE, TRICLINIC, TURNED], ids=["none", "cube", "triclinic", "turned"])
@pytest.mark.parametrize("growth", ["plain", "level 0", "unshared", "shared"])
def test_s5_025_clusters_are_those_of_brute_force(box, growth):
    bond = {frozenset(("Pb", "I")): 3.9, frozenset(("Pb",)): 2.5}
    shell, cutoffs = None, {"I-Pb": {0: 3.9}, "Pb-Pb": {0: 2.5}}
    if growth == "level 0":
        bond |= {frozenset(("Pb", "O")): 3.4, frozenset(("I", "O")): 2.8}
        cutoffs |= {"Pb-O": {0: 3.4}, "O-I": {0: 2.8}}
    elif growth != "plain":
        bond |= {frozenset(("I", "O")): 2.8}
        shell = {frozenset(("Pb", "O")): 4.6}
        cutoffs |= {"O-Pb": {1: 4.6}, "O-I": {0: 2.8}}
    with_shell = () if growth == "plain" else ("O",)
    role = ROLE if with_shell else {key: value for key, value in ROLE.items() if key != "O"}
    for seed in range(6):
        x, elements = particles(seed)
        x = x if box is not None else x * 0.3
        finder = golden.finder_of(elements, with_shell, cutoffs, (1,) if shell else (), shared=growth == "shared")
        found = finder.clusters(x, box)
        assert members(found) == golden.brute_force(x, elements, box, role, bond, shell, growth == "shared")


def test_s5_014_without_sharing_a_shell_atom_is_in_one_cluster_at_most():
    x, elements = particles(3)
    for shared in (False, True):
        finder = golden.finder_of(elements, ("O",), {"Pb-I": {0: 3.9}, "Pb-O": {1: 5.5}}, (1,), shared=shared)
        found = finder.clusters(x, CUBE)
        times = np.bincount(found.unit[found.of.core :])
        assert (times.max() > 1) == shared
        assert found.counts.sum() == len(found.unit)


def test_s5_013_shell_atoms_join_but_do_not_propagate_and_are_in_labels_where_asked():
    """Two nodes that touch one shell atom stay two clusters; the atom is of the first."""
    x = np.array([[0.0, 0, 0], [6.0, 0, 0], [3.0, 0, 0]])
    for labelled in (False, True):
        finder = golden.finder_of(["Pb", "Pb", "O"], ("O",), {"Pb-O": {0: 3.1}}, linker=(), labelled=labelled)
        found = finder.clusters(x, None)
        assert golden.labels_of(found) == ({"PbO": 1, "Pb": 1} if labelled else {"Pb": 2})
        assert members(found) == [frozenset((0, 2)), frozenset((1,))]


def test_s5_004_free_linkers_are_clusters_and_s5_006_a_cutoff_is_inclusive_and_has_no_order():
    x = np.array([[0.0, 0, 0], [4.0, 0, 0], [9.0, 0, 0]])
    for pair in ("Pb-I", "I-Pb"):
        found = golden.finder_of(["Pb", "I", "I"], cutoffs={pair: {0: 4.0}}).clusters(x, None)
        assert golden.labels_of(found) == {"PbI": 1, "I": 1}
    found = golden.finder_of(["Pb", "I", "I"], cutoffs={"Pb-I": {0: np.nextafter(4.0, 0)}}).clusters(x, None)
    assert golden.labels_of(found) == {"Pb": 1, "I": 2}


def test_s5_007_the_default_cutoff_is_of_missing_pairs():
    x = np.array([[0.0, 0, 0], [3.0, 0, 0], [6.2, 0, 0]])
    elements = ["Pb", "I", "I"]
    assert golden.labels_of(golden.finder_of(elements, cutoffs={"Pb-I": {0: 3.0}}).clusters(x, None)) == {
        "PbI": 1,
        "I": 1,
    }
    found = golden.finder_of(elements, cutoffs={"Pb-I": {0: 3.0}}, default=3.5).clusters(x, None)
    assert golden.labels_of(found) == {"PbI2": 1}  # linkers bind each other by default
    with pytest.raises(InputError, match=r"binds no pair of species(.|\n)*default_cutoff"):
        cutoff_matrices(Roles(("Pb",), ("I",)), {}, None, ())
    with pytest.raises(InputError, match="binds shell species O to nothing"):
        cutoff_matrices(Roles(("Pb",), ("I",), ("O",)), {"Pb-I": {0: 4.0}}, None, ())
    with pytest.raises(InputError, match="twice"):
        cutoff_matrices(Roles(("Pb",), ("I",)), {"Pb-I": {0: 4.0}, "I-Pb": {0: 3.0}}, None, ())


def test_pairs_near_a_cutoff_are_decided_in_float64():
    """Distances within 1e-9 of the cut-off, far from the origin, where float32 has steps of 4e-6."""
    box, shift = np.diag([100.0, 100.0, 100.0]), np.array([77.7, -33.3, 49.99])
    for off in (-1e-9, 1e-9):
        x = np.array([[0.0, 0, 0], [3.0 + off, 0, 0]]) + shift
        exact = np.linalg.norm(x[1] - x[0])
        found = pairs_within(x, box, np.full((1, 1), 3.0), np.zeros(2, int), np.ones(2, bool), "here")
        assert len(found.i) == (exact <= 3.0)


def test_s5_012_a_box_that_is_too_small_is_an_error():
    with pytest.raises(InputError, match=r"cut-off is 4 A, opposite faces of the box are 7 A apart"):
        golden.finder_of(["Pb", "I"]).clusters(np.array([[0.0, 0, 0], [1.0, 0, 0]]), np.diag([7.0, 20, 20]), "here")
    assert face_distance(TRICLINIC) < 15


def test_places_are_unwrapped_along_bonds_and_the_first_atom_stays():
    """A chain across the walls of a triclinic box comes back as it was built, by its first atom."""
    rng = np.random.default_rng(1)
    chain = np.cumsum(np.vstack([[5.0, 5, 5], rng.normal(size=(11, 3))]), axis=0)
    steps = np.linalg.norm(np.diff(chain, axis=0), axis=1)
    chain[1:] = chain[0] + np.cumsum(np.diff(chain, axis=0) / steps[:, None] * 2.9, axis=0)
    wrapped = chain - np.floor(chain @ np.linalg.inv(TRICLINIC)) @ TRICLINIC
    order = rng.permutation(12)
    elements = ["Pb" if k % 2 == 0 else "I" for k in order]
    found = golden.finder_of(elements, cutoffs={"Pb-I": {0: 2.95}}).clusters(wrapped[order], TRICLINIC)
    assert len(found) == 1
    one = found.structure(0)
    np.testing.assert_allclose(one.positions[0], wrapped[order][0], atol=1e-12)
    np.testing.assert_allclose(one.positions - one.positions[0], chain[order] - chain[order][0], atol=1e-9)
    centred = chain - chain.mean(axis=0)
    np.testing.assert_allclose(found.squared_radii(), [np.mean(np.sum(centred**2, axis=1))], rtol=1e-12)


def test_s5_008_unwrapped_clusters_are_those_of_the_golden_library(shared_data):
    """Each file of the library names frame and first atom; its distances are those of the cluster there, and its
    place."""
    x, elements, box = golden.frames(shared_data)
    finder, found = golden.finder_of(elements), {}
    for path in sorted((shared_data / "clusters/pbi64_golden/library").glob("*/*.xyz")):
        frame, atom = int(path.stem[1:5]), int(path.stem[7:])
        if frame not in found:
            found[frame] = finder.clusters(x[frame], box)
        of = found[frame].of
        cluster = found[frame].cluster[np.flatnonzero(of.particle[: of.core] == atom)[0]]
        one = found[frame].structure(int(cluster))
        rows = [line.split() for line in path.read_text().splitlines()[2:]]
        assert [row[0] for row in rows] == list(one.elements)
        np.testing.assert_allclose(one.positions, np.array([row[1:4] for row in rows], float), atol=2e-8)


def molecules():
    """Two Li, and two PF6 of three atoms each across a wall; one PF6 touches a Li by one of its atoms."""
    residue = np.array([0, 1, 2, 2, 2, 3, 3, 3])
    elements = ("Li", "Li", "P", "F", "F", "P", "F", "F")
    found = Particles(
        ("Li", "Li", "P", "F1", "F2", "P", "F1", "F2"), elements, residue, ("LI", "LI", "PF6", "PF6"), (1, 2, 3, 4),
        ("",) * 4, np.ones(8), np.empty((0, 2), int),
    )  # fmt: skip
    x = np.array([[1.0, 5, 5], [10, 10, 10], [18.5, 5, 5], [19.5, 5, 5], [17.0, 5, 5],
                  [5, 15, 15], [6, 15, 15], [4, 15, 15]])  # fmt: skip
    return found, x


def test_molecules_are_units_by_their_residues_and_bind_by_any_atom():
    found, x = molecules()
    roles = Roles(("Li",), ("PF6",))
    finder = Finder(participants_of(roles, found), cutoff_matrices(roles, {"Li-PF6": {0: 2.0}}, None, ()))
    clusters = finder.clusters(x, np.diag([20.0, 20, 20]))
    assert golden.labels_of(clusters) == {"Li(PF6)": 1, "Li": 1, "(PF6)": 1}
    one = clusters.structure(0)
    assert one.species == ("Li", "PF6", "PF6", "PF6")
    assert one.elements == ("Li", "P", "F", "F")
    np.testing.assert_allclose(one.positions[:, 0], [1.0, -1.5, -0.5, -3.0])
    with pytest.raises(InputError, match=r"'DMF' is no element and no residue of the frames; elements: F, Li, P;"):
        participants_of(Roles(("Li",), ("DMF",)), found)


def test_a_cluster_that_spans_the_box_is_refused_or_counted():
    x = np.arange(6)[:, None] * [2.0, 0, 0]
    elements = ["Pb", "I"] * 3
    finder = golden.finder_of(elements, cutoffs={"Pb-I": {0: 2.5}})
    across, within = finder.clusters(x, np.diag([12.0, 30, 30])), finder.clusters(x, np.diag([20.0, 30, 30]))
    assert (across.spanning.tolist(), within.spanning.tolist()) == ([True], [False])
    assert Guard(256, False).check(across, "frame 7") == 1
    assert Guard(256, True).check(within, "frame 7") == 0
    with pytest.raises(InputError, match=r"frame 7: a cluster of 6 of the 6 nodes and linkers is bound to its own"):
        Guard(256, True).check(across, "frame 7")
    with pytest.raises(InputError, match=r"has more than 5"):
        Guard(5, True).check(within, "frame 7")


def test_s5_006_a_cutoff_from_the_first_minimum_of_a_curve():
    """A peak at 3, a minimum at 4, a second shell at 5, under noise."""
    r = np.arange(0.025, 8, 0.05)
    bump = lambda at, width: np.exp(-0.5 * ((r - at) / width) ** 2)  # noqa: E731
    g = np.where(r < 2.2, 0, 1 + 9 * bump(3, 0.3) - 0.7 * bump(4.1, 0.35) + 0.6 * bump(5.2, 0.4))
    noise = 0.05 * np.random.default_rng(0).normal(size=len(r)) * (g > 0)
    assert first_minimum(r, g) == pytest.approx(4.05, abs=0.15)
    assert first_minimum(r, g + noise) == pytest.approx(first_minimum(r, g), abs=0.2)
    assert first_minimum(r, np.zeros_like(r)) is None
    assert species_of_pair("A-B-C", ["A", "B-C"]) == ("A", "B-C")
    with pytest.raises(InputError, match="'Pb-Cl' is no pair of Pb, I"):
        species_of_pair("Pb-Cl", ["Pb", "I"])


def test_the_medoid_is_the_same_in_any_turn_and_order():
    rng = np.random.default_rng(2)
    finder = golden.finder_of(["Pb", "I", "I"])
    base = np.array([[0.0, 0, 0], [3.0, 0, 0], [0, 3.0, 0]])
    some = [finder.clusters(base * scale, None).structure(0) for scale in (0.9, 1.0, 1.02, 1.3)]
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned = [one._replace(positions=one.positions[::-1] @ turn, elements=one.elements[::-1]) for one in some]
    assert medoid(some) == medoid(turned) in (1, 2)


@pytest.mark.parametrize("run", golden.SHELLS, ids=lambda name: name or "ions")
def test_s5_025_golden_counts_are_equal(shared_data, run):
    """And in each frame every node is in one cluster."""
    x, elements, box = golden.frames(shared_data)
    labels, counts = golden.counts_of(shared_data / "clusters/pbi64_golden" / run)
    finder, found = golden.finder_of(elements, *golden.SHELLS[run]), []
    for frame in x:
        clusters = finder.clusters(frame, box)
        found.append(golden.labels_of(clusters))
        assert clusters.counts[:, 0].sum() == elements.count("Pb")
        assert clusters.counts[:, 1].sum() == elements.count("I")
    assert set().union(*found) == set(labels)
    np.testing.assert_array_equal([[one[label] for label in labels] for one in found], counts)


def test_minimum_image_of_a_triclinic_box():
    rng = np.random.default_rng(0)
    for vector in rng.uniform(-40, 40, (50, 3)):
        shortest = golden.nearest_image(vector, TRICLINIC)
        if np.linalg.norm(shortest) < face_distance(TRICLINIC) / 2:
            np.testing.assert_allclose(minimum_image(vector, TRICLINIC), shortest, atol=1e-12)


def test_participants_are_in_the_order_of_their_atoms():
    of = participants_of(Roles(("Pb",), ("I",), ("O",)), particles_of_elements(["O", "I", "Pb", "C", "O", "Pb", "I"]))
    assert of.particle.tolist() == [1, 2, 5, 6, 0, 4]
    assert [of.species[kind] for kind in of.kind] == ["I", "Pb", "Pb", "I", "O", "O"]
    assert (of.core, of.core_atoms) == (4, 4)
    assert of.is_node.tolist() == [False, True, True, False, False, False]
