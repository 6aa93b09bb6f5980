"""Libraries of structures: folders of all kinds, compositions by majority, shapes, representatives, bad lines."""

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.composition import Roles, Structure
from hpcfit.kinds.clusters.debye_waller import widths_of
from hpcfit.kinds.clusters.library import Library, Shape, counts_in, medoid, read_library, read_structure
from tests.kinds.clusters.golden_library import golden_folder, library, table

ROLES = Roles(("Pb",), ("I",))


def write(path, elements, positions=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    positions = np.arange(3.0 * len(elements)).reshape(-1, 3) if positions is None else positions
    rows = [f"{e} {x} {y} {z}" for e, (x, y, z) in zip(elements, positions)]
    path.write_text("\n".join([str(len(elements)), "comment", *rows]) + "\n")


def test_s5_008_motif_folders_replace_the_files_beside_them_and_representatives_are_left_out(tmp_path):
    write(tmp_path / "PbI" / "motif_1" / "b.xyz", ["Pb", "I"])
    write(tmp_path / "PbI" / "motif_10" / "a.xyz", ["Pb", "I"])
    write(tmp_path / "PbI" / "beside.xyz", ["Pb", "I"])
    write(tmp_path / "representative_PbI" / "a.xyz", ["Pb", "I"])
    write(tmp_path / "Pb2I" / "only.xyz", ["Pb", "Pb", "I"])
    (tmp_path / "Pb3").mkdir()
    (tmp_path / "PbI2").mkdir()
    (tmp_path / "PbI2" / "notes.txt").write_text("nothing here")
    found = read_library(tmp_path, ROLES, "first")
    assert list(found.ensembles) == ["Pb2I", "PbI"]
    assert found.ensembles["PbI"].motifs == ("motif_1", "motif_10")
    assert len(found.ensembles["PbI"].structures) == 2
    assert [one.source for one in found.ensembles["PbI"].beside] == [str(tmp_path / "PbI" / "beside.xyz")]
    assert widths_of(found.ensembles["PbI"], ROLES, {}, pairs="all")["I", "Pb"].structures == 3
    assert len(found.ensembles["Pb2I"].structures) == 1


def test_s5_035_the_composition_is_that_of_most_files_not_of_the_folder(tmp_path):
    for number in range(2):
        write(tmp_path / "PbI2" / f"{number + 1}.xyz", ["Pb", "Pb", "I", "I"])
    write(tmp_path / "PbI2" / "0.xyz", ["Pb", "I", "I"])
    write(tmp_path / "PbI" / "0.xyz", ["Pb", "I"])  # a tie: more atoms win
    write(tmp_path / "PbI" / "1.xyz", ["Pb", "I", "I", "O"])  # O has no role
    write(tmp_path / "I" / "0.xyz", ["I"])
    found = read_library(tmp_path, ROLES, "first")
    one = found.ensembles["PbI2"]
    assert (one.counts, one.n_node, one.representative) == ({"Pb": 2, "I": 2}, 2, 1)
    assert one.mean_atoms == pytest.approx(11 / 3)
    assert found.ensembles["PbI"].counts == {"Pb": 1, "I": 2}
    assert found.without_nodes == ("I",)


def test_s5_038_and_040_shapes_do_not_change_with_motion_and_squares_of_semiaxes_sum_to_rg():
    random = np.random.default_rng(3)
    for n in (1, 2, 3, 9):
        x = random.normal(size=(n, 3))
        turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
        one, other = Shape.of(x), Shape.of(x @ turn + 7.0)
        np.testing.assert_allclose(one, other, atol=1e-7)  # √ε of an axis that is 0
        assert one.a >= one.b >= one.c >= 0
        assert one.a**2 + one.b**2 + one.c**2 == pytest.approx(one.rg**2)
        centred = x - x.mean(axis=0)
        assert one.rmax == pytest.approx(np.linalg.norm(centred, axis=1).max())


def test_s5_041_the_medoid_is_the_middle_one_whatever_the_order_of_equal_atoms():
    bonds = [2.0, 3.1, 3.0, 4.0]
    structures = [Structure(("Pb", "I"), ("Pb", "I"), np.array([[0, 0, 0], [d, 0, 0]])) for d in bonds]
    turned = structures[1]._replace(elements=("I", "Pb"), species=("I", "Pb"))
    assert medoid(structures) == 1
    assert medoid([structures[0], structures[2], turned, structures[3]]) == 1
    by_label = Library.of({"PbI": structures}, ROLES)
    assert by_label.ensembles["PbI"].representative == 1


def test_molecules_are_counted_by_their_rarest_element(tmp_path):
    roles = Roles(("Li",), ("PF6",))
    lines = ["ATOM      1 LI   LIT A   1       0.000   0.000   0.000  1.00  0.00          LI"]
    for molecule in range(2):
        for k, element in enumerate("PFFFFFF"):
            number = 2 + 7 * molecule + k
            lines.append(
                f"ATOM  {number:5d} {element}{k}   PF6 A{molecule + 2:4d}    {k:8.3f}{molecule:8.3f}{0:8.3f}"
                f"  1.00  0.00           {element}"
            )
    (tmp_path / "x.pdb").write_text("\n".join([*lines, "ENDMDL", lines[0]]))
    one = read_structure(tmp_path / "x.pdb", roles)
    assert len(one.elements) == 15
    assert counts_in(one, roles) == {"Li": 1, "PF6": 2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2\n\nPb 0 0 0\nI 1 x 0\n", "line 4: 'I 1 x 0'"),
        ("2\n\nPb 0 0 0\nI 1 0\n", "line 4"),
        ("2\n\nPb 0 0 nan\nI 1 0 0\n", "line 3"),
        ("3\n\nPb 0 0 0\nI 1 0 0\n", "4 lines for 3 atoms"),
        ("two\n\n", "line 1: 'two' is no number of atoms"),
        ("", "line 1"),
        ("0\n\n", "holds no atoms"),
    ],
)
def test_an_unreadable_line_is_named_with_its_file(tmp_path, text, said):
    (tmp_path / "Pb2I").mkdir()
    path = tmp_path / "Pb2I" / "bad.xyz"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_library(tmp_path, ROLES)
    assert str(path) in str(error.value)
    assert said in str(error.value)
    assert error.value.remedy


def test_s5_008_a_missing_or_useless_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_library(tmp_path / "none", ROLES)
    write(tmp_path / "I" / "0.xyz", ["I"])
    with pytest.raises(InputError, match="1 structures in 1 folders, and none with a node"):
        read_library(tmp_path, ROLES)


def test_s5_036_to_041_the_golden_library_has_the_same_shapes_and_representatives(shared_data):
    folder = golden_folder(shared_data)
    found = library(folder, "main")
    assert found.without_nodes == ("I",)
    for row in table(folder, "main", "training")["training"]:
        one = found.ensembles[row["label"]]
        assert (one.counts, one.n_node, len(one.structures)) == (
            *(row["element_counts"], row["node_count"], row["file_count"]),
        )
        assert one.structures[one.representative].source.endswith(row["representative_path"])
        names = ("radius_of_gyration", "max_radius", "semiaxis_a", "semiaxis_b", "semiaxis_c")
        # roots of eigenvalues give 1e-8 for axes that are 0
        np.testing.assert_allclose(one.shape, [row[f"mean_{name}"] for name in names], rtol=1e-12, atol=2e-8)
        assert one.mean_atoms == row["mean_atom_count"]
