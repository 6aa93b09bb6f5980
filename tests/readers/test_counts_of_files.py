"""Files that hold less than they announce, or something else in its place: each is refused in words that name it."""

import re

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.readers.positions import open_positions
from hpcfit.readers.topology import read_particles, read_structure
from tests.fuzz.of_programs import ROWS

WRITERS = {file: write for _, file, write, *_ in ROWS}


def read(path):
    """Whatever a file is: its particles, or all of its frames."""
    if path.suffix in (".gro", ".psf", ".prmtop", ".data"):
        return read_structure(path) if path.suffix == ".gro" else read_particles(path)
    reader = open_positions(path, None)
    return list(reader.frames(range(reader.n_frames)))


FAULTS = [
    ("run.data", "2 1 1 3\n", "", "its header has 4 bonds, its section Bonds 3 rows"),
    ("run.data", "\n6 2 2", "\n5 2 2", "a number stands twice in its section Atoms"),
    ("run.data", "4 1 4 6", "4 1 4 9", "a bond names atom 9, which is not there"),
    ("run.gro", "    6\n", "    5\n", "where the box should"),
    ("run.gro", "0.25000", "nan", "where the box should, of three or nine numbers"),
    ("run.gro", "1.40000   0.00000", "1.40000   0.30000", "which GROMACS does not know"),
    ("run.psf", "       4 !NBOND", "       5 !NBOND", "its section !NBOND announces 5 and has 4"),
    ("run.psf", "!NBOND", "!NFOND", "it has no section !NBOND"),
    ("run.psf", "TIP3 H1   H1  ", "TIP3      H1  ", "has not the columns of an atom"),
    ("run.prmtop", "       9      12       1", "       9              1", "BONDS_INC_HYDROGEN has a field that is no"),
    ("OUTCAR", " POTCAR:    PAW_PBE O", " PODCAR:    PAW_PBE O", "are not listed twice alike"),
    ("OUTCAR", "      direct lattice vectors", "      indirect vectors", "no cell (direct lattice vectors) stands"),
    ("vasprun.xml", '<varray name="forces">\n<v>', '<varray name="forces">\n<v> 0.0 0.0 0.0 </v>\n<v>',
     "step 0 has 1 tables of forces with 7 of 6 rows of three numbers"),
    ("vasprun.xml", "<rc><c>O</c><c>1</c></rc>\n", "", "with 6 of 5 rows"),
    ("models.cif", "_cell.length_b 13.0\n", "", "_cell.length_b is missing"),
    ("models.cif", "_cell.angle_beta 80.0", "_cell.angle_beta 180.0", "there is no cell of"),
    ("water-pos-1.xyz", "\n       6\n i =       10", "\n\n       6\n i =       10", "where frame 1 should begin"),
    ("water-frc-1.xyz", " i =       20", " i =       10", "step 10 stands 1 times in .*water-pos-1.xyz and 2 times"),
    ("water-1.cell", "20 10.0", "10 10.0", "step 10 stands 1 times in .*water-pos-1.xyz and 2 times in .*water-1.cell"),
    ("run.dump", "0 13 2.5", "13 0 2.5", "the bounds of its box are"),
    ("run.dump", "ITEM: TIME\n0.0", "ITEM: TIME\ninf", "its time is inf"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "words"), FAULTS)
def test_what_a_file_lacks_is_said(tmp_path, file, old, new, words):
    WRITERS[file](tmp_path)
    path = tmp_path / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    positions = path.with_name("water-pos-1.xyz") if "water" in file else path
    words = words if ".*" in words else re.escape(words)
    with pytest.raises(InputError, match=words) as error:
        read(positions)
    assert file in str(error.value)


def test_comments_of_a_prmtop_are_no_fields(tmp_path):
    WRITERS["run.prmtop"](tmp_path)
    path = tmp_path / "run.prmtop"
    before = read(path)
    lines = path.read_text().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith("%FLAG MASS"))
    path.write_text("".join([*lines[: at + 1], "%COMMENT amu, by element\n", *lines[at + 1 :]]))
    assert read(path).masses.tolist() == before.masses.tolist()


def test_steps_that_a_restart_wrote_again_are_paired_in_their_order(tmp_path):
    WRITERS["water-pos-1.xyz"](tmp_path)
    for file in ("water-pos-1.xyz", "water-frc-1.xyz", "water-1.cell"):
        lines = (tmp_path / file).read_text().splitlines(keepends=True)
        again = lines[-1:] if file.endswith(".cell") else lines[-8:]
        if "frc" in file:
            atoms = [line.split() for line in again[2:]]
            again[2:] = ["{} {} {} {}\n".format(name, *(2 * float(one) for one in f)) for name, *f in atoms]
        (tmp_path / file).write_text("".join(lines + again))
    found = read(tmp_path / "water-pos-1.xyz")
    assert [frame.step for frame in found] == [0, 10, 20, 20]
    np.testing.assert_allclose(found[3].forces, 2 * found[2].forces, rtol=1e-12)
