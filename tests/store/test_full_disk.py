"""A disk that takes no more: HDF5 goes on with what it wrote, nothing crashes, and the error comes at the end."""

import subprocess
import sys

import pytest

from tests.command import ROOT

# A limit on the size of files stops a write as a full disk does. Strings of any length lie in heaps, which HDF5 reads
# back to add to them.
CHILD = """
import resource, sys
from pathlib import Path
import h5py, numpy as np
from hpcfit.errors import InputError
from hpcfit.store.files import hdf5_written_whole, write_rows
path, limit = Path(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
try:
    with hdf5_written_whole(path) as file:
        rows = file.create_dataset("rows", (640, 30), "f4", chunks=(64, 30))
        names = file.create_dataset("names", (640,), h5py.string_dtype())
        for start in range(0, 640, 16):
            write_rows(rows, slice(start, start + 16), np.full((16, 30), start))
            names[start : start + 16] = [f"frame {start + k} of a long name" for k in range(16)]
        assert [name.decode() for name in names[:]] == [f"frame {k} of a long name" for k in range(640)]
        assert np.array_equal(rows[:, 0], np.repeat(np.arange(0, 640, 16), 16))
except InputError as error:
    print(error)
"""

# Pieces over each other on both sides of what the disk takes, and the same in memory.
PIECES = """
import resource, sys
from pathlib import Path
import numpy as np
from hpcfit.store.files import PatientFile
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
rng, memory = np.random.default_rng(0), bytearray(40_000)
with PatientFile(Path(sys.argv[1])) as file:
    for _ in range(200):
        place, length = int(rng.integers(0, 30_000)), int(rng.integers(1, 9_000))
        piece = rng.bytes(length)
        file.seek(place)
        assert file.write(piece) == length
        memory[place : place + length] = piece
        place, found = int(rng.integers(0, 30_000)), bytearray(b"x" * 9_000)
        file.seek(place)
        file.readinto(found)
        assert found == memory[place : place + 9_000].ljust(9_000, b"\\0"), place
    try:
        file.check()
    except OSError as error:
        print(error.strerror)
"""


def test_what_was_written_is_read_whether_the_disk_took_it_or_not(tmp_path):
    """HDF5 reads rows of strings before it writes others over them, and crashes on what it never wrote."""
    child = [sys.executable, "-c", PIECES, tmp_path / "file"]
    done = subprocess.run(child, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert (done.returncode, done.stdout) == (0, "File too large\n"), done.stderr


@pytest.mark.parametrize("limit", [3_000, 50_000])
def test_what_the_disk_does_not_take_is_one_error_and_no_crash(tmp_path, limit):
    child = [sys.executable, "-c", CHILD, tmp_path / "rows.h5", str(limit)]
    done = subprocess.run(child, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"cannot write {tmp_path / 'rows.h5'}: File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_with_room_for_all_of_it_the_file_is_there(tmp_path):
    child = [sys.executable, "-c", CHILD, tmp_path / "rows.h5", "10000000"]
    done = subprocess.run(child, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert (tmp_path / "rows.h5").stat().st_size > 90_000
