"""[problem.beads]: each way of saying beads against matrices made by hand, and errors that name what is wrong."""

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.force_map.bead_choice import reduced
from hpcfit.kinds.force_map.beads import open_beads, read_matrix, residues_of
from hpcfit.kinds.force_map.config import BeadsConfig
from hpcfit.store.particles import Particles

# Two chains, each of one alanine and one glycine with the same numbers, and a water of chain B with a virtual site.
NAMES = ("N", "CA", "CB", "C", "O", "N", "CA", "C", "O") * 2 + ("OW", "H1", "H2", "M")
MASSES = {"N": 14.0, "C": 12.0, "O": 16.0, "H": 1.0, "M": 0.0}
N = len(NAMES)


def particles() -> Particles:
    residue = np.repeat([0, 1, 2, 3, 4], [5, 4, 5, 4, 4])
    return Particles(
        names=NAMES,
        elements=tuple("" if name == "M" else name[0] for name in NAMES),
        residue=residue,
        residue_names=("ALA", "GLY", "ALA", "GLY", "HOH"),
        residue_numbers=(1, 2, 1, 2, 3),
        chains=("A", "A", "B", "B", "B"),
        masses=[MASSES[name[0]] for name in NAMES],
        bonds=np.empty((0, 2), int),
    )


def rows(*weights: dict[int, float]) -> np.ndarray:
    M = np.zeros((len(weights), N))
    for row, of_atoms in zip(M, weights):
        row[list(of_atoms)] = list(of_atoms.values())
    return M


def centre(*atoms: int, equal=False) -> dict[int, float]:
    """Weights of a centre, without NumPy's help."""
    masses = {atom: 1.0 if equal else MASSES[NAMES[atom][0]] for atom in atoms}
    return {atom: mass / sum(masses.values()) for atom, mass in masses.items()}


ALA, GLY = range(5), range(5, 9)
WAYS = {
    "residue_atom": (
        {"residue": "CA"}, rows({1: 1.0}, {6: 1.0}, {10: 1.0}, {15: 1.0}),
        ("ALA1 CA", "GLY2 CA", "ALA1 CA (2)", "GLY2 CA (2)"),
    ),
    "residue_atom_of_a_selection": (
        {"residue": "CA", "selection": "resname GLY"}, rows({6: 1.0}, {15: 1.0}), ("GLY2 CA", "GLY2 CA (2)"),
    ),
    "backbone": (
        {"residue": "backbone"}, rows(centre(0, 1, 3, 4), centre(5, 6, 7, 8), centre(9, 10, 12, 13),
                                      centre(14, 15, 16, 17)),
        ("ALA1", "GLY2", "ALA1 (2)", "GLY2 (2)"),
    ),
    "center_of_mass": (
        {"residue": "center-of-mass", "selection": "protein or resname HOH"},
        rows(centre(*ALA), centre(*GLY), centre(*(9 + a for a in ALA)), centre(*(9 + a for a in GLY)),
             centre(18, 19, 20)),
        ("ALA1", "GLY2", "ALA1 (2)", "GLY2 (2)", "HOH3"),
    ),
    "centers": (
        {"centers": ["segid A", "resname HOH"], "weights": "equal"},
        rows(centre(*range(9), equal=True), centre(18, 19, 20, equal=True)), ("segid A", "resname HOH"),
    ),
    "each": ({"each": "name OW CB"}, rows({2: 1.0}, {11: 1.0}, {18: 1.0}), ("ALA1 CB", "ALA1 CB (2)", "HOH3 OW")),
    "atoms": ({"atoms": [[18, 19, 20], [7, 5]]}, rows(centre(18, 19, 20), centre(5, 7)), ("bead 0", "bead 1")),
    "particles": (
        {"particles": True}, np.eye(N),
        tuple(f"{residue}{number} {name}" for residue, number, name in zip(
            np.repeat(["ALA", "GLY"], [5, 4]), np.repeat([1, 2], [5, 4]), NAMES[:9])),
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_matrix_and_names(way):
    """A mean of masses that are sums of two numbers of 53 bits: 4 roundings."""
    choice, expected, names = WAYS[way]
    beads = open_beads(BeadsConfig(**choice), particles())
    np.testing.assert_allclose(beads.M.toarray(), expected, rtol=4 * np.finfo(float).eps)
    assert beads.names[: len(names)] == names
    assert len(beads.names) == len(set(beads.names)) == len(expected)


@pytest.mark.parametrize("suffix", ["npy", "txt", "csv"])
def test_a_matrix_of_a_file(tmp_path, suffix):
    M = rows({0: 0.25, 4: 0.75}, {20: 1.0})
    path = tmp_path / f"beads.{suffix}"
    if suffix == "npy":
        np.save(path, M)
    else:
        np.savetxt(path, M, delimiter="," if suffix == "csv" else " ")
    beads = open_beads(BeadsConfig(matrix=path), particles())
    np.testing.assert_array_equal(beads.M.toarray(), M)
    assert beads.names == ("bead 0", "bead 1")
    np.testing.assert_array_equal(residues_of(beads, particles()), [0, 4])


def test_the_residue_of_a_bead_is_that_of_its_heaviest_share():
    beads = open_beads(BeadsConfig(atoms=[[3, 8], [8, 3, 18], [19, 0]]), particles())
    np.testing.assert_array_equal(residues_of(beads, particles()), [1, 1, 0])


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"each": "name CAX"}, "selection 'name CAX' selects none of the 22 particles"),
        ({"centers": ["segid A", "resname XXX"]}, "selection 'resname XXX' selects none"),
        ({"each": "nome CA"}, "selection 'nome CA' is not understood"),
        ({"residue": "CG"}, r"residue = 'CG': no atom of this name in selection 'all' \(names there: C, CA, CB, H1"),
        ({"residue": "CA", "selection": "resname HOH"}, "'CA': no atom of this name in selection 'resname HOH'"),
        ({"atoms": [[0, 22]]}, "atom 22 is not among the 22 atoms of the store, counted from 0"),
        ({"atoms": [[3, 4, 3]]}, r"\[3, 4, 3\] names an atom twice"),
        ({"centers": ["name M"]}, "bead 'name M' has no mass"),
    ],
)
def test_errors_name_the_selection_or_the_atom(choice, words):
    with pytest.raises(InputError, match=words):
        open_beads(BeadsConfig(**choice), particles())


def test_a_residue_with_two_atoms_of_the_name_is_named():
    names = list(NAMES)
    names[17] = "CA"
    with pytest.raises(InputError, match="residue GLY 2 has several atoms 'CA'"):
        open_beads(BeadsConfig(residue="CA"), particles().changed(names=tuple(names)))


def test_a_selection_that_comes_twice_is_two_beads_which_no_map_tells_apart():
    beads = open_beads(BeadsConfig(centers=["name CB and segid A"] * 2), particles())
    assert beads.names == ("name CB and segid A", "name CB and segid A (2)")
    with pytest.raises(InputError, match=r"'name CB and segid A \(2\)' .*lie in one rigid group"):
        reduced(beads, np.arange(N))


def write(path, content):
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.npy", np.eye(3, 21), "m.npy has 21 columns, the store has 22 atoms"),
        ("m.npy", np.ones(22), r"m.npy has shape \[22\]"),
        ("m.npy", np.full((1, 22), np.nan), "numbers that are not finite"),
        ("m.npy", np.full((1, 22), "a"), "m.npy cannot be read"),
        ("m.npy", b"\x93NUMPY but no more", "m.npy cannot be read"),
        ("m.txt", b"1 0 0\n0 1\n", "m.txt cannot be read: .*columns"),
        ("m.txt", b"1 0 zero\n", "m.txt cannot be read"),
        ("m.txt", b"\xff\xfe", "m.txt cannot be read"),
    ],
)
def test_errors_of_a_matrix_name_the_file_and_both_shapes(tmp_path, name, content, words):
    with pytest.raises(InputError, match=words):
        open_beads(BeadsConfig(matrix=write(tmp_path / name, content)), particles())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"the table .*none.txt does not exist"):
        read_matrix(tmp_path / "none.txt", "the table")
