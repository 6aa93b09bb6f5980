"""What libraries pass over in silence: a damaged file is one error that names it and the place."""

import struct

import numpy as np
import pytest

from hpcfit.errors import InputError
from tests.fuzz.formats import FORMATS


def changed(tmp_path, name, *, old=b"", new=b"", at=None):
    """Read a format of the fuzzer after its file is changed: once `old` for `new`, or bytes `new` from byte `at` on."""
    form = FORMATS[name]
    form.write(tmp_path)
    path = tmp_path / form.file
    data = path.read_bytes()
    assert old in data
    at = data.index(old) if at is None else at
    path.write_bytes(data[:at] + new + data[at + (len(old) or len(new)) :])
    return form.read(tmp_path)


XTC_STREAM = 4 * (4 + 9 + 1)  # bytes before the precision of the first frame


@pytest.mark.parametrize(
    ("at", "new", "words"),
    [
        (4, struct.pack(">i", 14), "it has 14 atoms by its head, 15 by its coordinates"),
        (XTC_STREAM, struct.pack(">f", np.nan), "frame 0 cannot be read: ValueError: .*precision nan"),
        (XTC_STREAM + 28, struct.pack(">i", 73), "frame 0 cannot be read: ValueError: .*width 73"),
        (XTC_STREAM + 28, struct.pack(">i", 60), "bytes of coordinates are not those of 15 atoms"),
        (XTC_STREAM + 32, struct.pack(">i", 4000), "its coordinates have 4000 bytes for 15 atoms"),
        (XTC_STREAM + 16, struct.pack(">3i", -(2**31), -(2**31), -(2**31)), "precision 1000, bounds"),
    ],
)
def test_a_compressed_frame_is_followed_before_it_is_decoded(tmp_path, at, new, words):
    """libmdaxdr reads behind the end of such frames, or writes there."""
    with pytest.raises(InputError, match=rf"(?s)run.xtc.*{words}"):
        changed(tmp_path, "XTC", at=at, new=new)


def test_the_last_bits_of_a_compressed_frame_count(tmp_path):
    """Ones in place of the end of the first frame: its last atoms are a run that goes on behind it."""
    form = FORMATS["XTC"]
    form.write(tmp_path)
    data = (tmp_path / "run.xtc").read_bytes()
    (n_bytes,) = struct.unpack(">i", data[XTC_STREAM + 32 : XTC_STREAM + 36])
    with pytest.raises(InputError, match=r"run.xtc, frame 0 cannot be read"):
        changed(tmp_path, "XTC", at=XTC_STREAM + 36 + n_bytes - 14, new=b"\xff" * 14)


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("extxyz", b"Properties", b"Pvoperties", "line 10: .*other frames than this one name their columns"),
        ("extxyz", b"O 0.960", b"O 0.960 1", "line 3: 'O 0.960 1 .*: 8 columns, where Properties has 7"),
        ("extxyz", b"13.000000", b"inf", "line 2: .*: 'inf' is no finite number"),
        (
            "XDATCAR",
            b"Direct configuration=     2\n",
            b"",
            "XDATCAR, line 16: .*: the scale, or a vector of the cell, is to stand here",
        ),
        ("XDATCAR", b" 2 4\n", b" 2 5\n", "line 15: 'Direct .*: one of the 7 rows of the configuration of line 8"),
        ("PDB", b"   1.934", b"", "line 3: .*: its coordinates are out of their columns, 31 to 54"),
        ("PDB", b"MODEL        2\n", b"", "line 10: .*: an atom behind END, or between ENDMDL and MODEL"),
        ("PDB", b"MODEL        1\n", b"", "line 9: 'MODEL .*: the model above has not begun"),
        ("PDB topology", b"1.000   1.000", b"1.000      1. ", "top.pdb, line 2"),
        ("mmCIF topology", b"1.957", b"nan", r"top.cif: atom 1 has the name 'H1' and the position \[nan"),
        ("mmCIF topology", b"label_atom_id", b"label_atom_im", "top.cif: atom 0 has the name ''"),
        ("System", b'p1="0"', b'p1="7"', r"system.xml has 6 particles and a constraint of \(7, 1\)"),
        ("System", b'mass="15', b'mass="-15', "system.xml has 6 particles and a mass of -15"),
        ("MTZ", b"CELL  ", b"CELL !", "frame.mtz: its head has 'CELL !"),
        ("MTZ", b"SYMINF", b"SYXINF", "frame.mtz: its head has the record .SYXINF"),
    ],
)
def test_what_a_library_takes_for_sound(tmp_path, name, old, new, words):
    with pytest.raises(InputError, match=words):
        changed(tmp_path, name, old=old, new=new)


@pytest.mark.parametrize("value", [np.nan, 0.5, 1e9])
def test_indices_that_are_none(tmp_path, value):
    with pytest.raises(InputError, match=r"frame.mtz: row 0 has the index \["):
        changed(tmp_path, "MTZ", at=80, new=np.array(value, "<f4").tobytes())


def test_an_array_ends_where_its_file_does(tmp_path):
    FORMATS["NumPy table"].write(tmp_path)
    with open(tmp_path / "table.npy", "ab") as file:
        file.write(b"\0" * 8)
    with pytest.raises(
        InputError, match=r"table.npy cannot be read by NumPy: .*8 bytes follow an array of shape \[6, 4\]"
    ):
        FORMATS["NumPy table"].read(tmp_path)


def test_variables_of_netcdf_lie_where_its_head_says(tmp_path):
    data = (FORMATS["NetCDF"].write(tmp_path), (tmp_path / "run.nc").read_bytes())[1]
    name = data.index(b"cell_angles")
    begin = data.index(b"\0\0\0\x18", name) + 4  # after the bytes of a record, three doubles
    moved = struct.pack(">q", struct.unpack(">q", data[begin : begin + 8])[0] + 1024)
    with pytest.raises(InputError, match=r"run.nc cannot be opened: ValueError: .* begins at byte"):
        changed(tmp_path, "NetCDF", at=begin, new=moved)


def test_a_box_that_repeats_has_edges(tmp_path):
    import h5py

    FORMATS["H5MD"].write(tmp_path)
    with h5py.File(tmp_path / "run.h5md", "a") as file:
        del file["particles/water/box/edges"]
    with pytest.raises(InputError, match=r"run.h5md: /particles/water/box repeats along .*, and has no edges"):
        FORMATS["H5MD"].read(tmp_path)
