"""Half-written files: those of dead attempts go, those that are being written stay."""

import os
import socket
import subprocess
import time
from pathlib import Path

import h5py
import pytest

from hpcfit.errors import DamagedFile, InputError
from hpcfit.store.files import keep_first, remove_leftovers, written_whole
from hpcfit.store.seals import Seal, check_seal, hdf5_sealed
from tests.prepare.test_prepare import half_written_by_a_killed_process


def test_only_what_a_dead_process_left_is_removed(tmp_path):
    half_written_by_a_killed_process(tmp_path / "dead.h5")
    with written_whole(tmp_path / "alive.h5") as alive:
        alive.write_bytes(b"half")
        removed = remove_leftovers(tmp_path)
        assert [path.name.split(".h5")[0] for path in removed] == [".dead"]
        assert list(tmp_path.iterdir()) == [alive]
        alive.write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["alive.h5"]


def test_of_another_machine_only_what_is_old_is_removed(tmp_path):
    for name, age in (("old", 2 * 86400), ("young", 600)):
        path = tmp_path / f".{name}.h5.elsewhere.1.abcd.tmp"
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    assert [path.name.split(".h5")[0] for path in remove_leftovers(tmp_path)] == [".old"]


def test_only_leftovers_at_the_named_files_are_removed(tmp_path):
    half_written_by_a_killed_process(tmp_path / "piece.h5")
    half_written_by_a_killed_process(tmp_path / "settings.json")
    assert len(remove_leftovers(tmp_path, "*.h5")) == 1
    assert [path.name.split(".json")[0] for path in tmp_path.iterdir()] == [".settings"]


def test_two_attempts_at_one_file_do_not_meet(tmp_path):
    with written_whole(tmp_path / "x") as first, written_whole(tmp_path / "x") as second:
        assert first != second
        first.write_text("same")
        second.write_text("same")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["same"]


def no_links(*_paths):
    raise PermissionError(1, "Operation not permitted")


def test_the_first_of_two_attempts_is_kept(tmp_path, monkeypatch):
    for content in ("first", "second"):
        with written_whole(tmp_path / "x", keep_first) as temporary:
            temporary.write_text(content)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["first"]
    monkeypatch.setattr(os, "link", no_links)  # a file system without them, where the last one stays
    with written_whole(tmp_path / "x", keep_first) as temporary:
        temporary.write_text("third")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["third"]


def test_what_a_killed_process_left_is_removed_although_its_parent_has_not_asked_for_it(tmp_path):
    host = socket.gethostname().partition(".")[0]
    dead, alive = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
    try:
        dead.kill()
        while "(sleep) Z" not in (stat := Path(f"/proc/{dead.pid}/stat")).read_text():
            assert stat.exists()
        for process in (dead, alive):
            (tmp_path / f".a.h5.{host}.{process.pid}.01234567.tmp").touch()
        (removed,) = remove_leftovers(tmp_path)
        assert f".{dead.pid}." in removed.name
    finally:
        alive.kill()
        alive.wait()
        dead.wait()


SEAL = Seal("table", 2, "numbers")


@pytest.fixture
def sealed(tmp_path):
    with hdf5_sealed(tmp_path / "numbers.h5", SEAL) as file:
        file["x"] = [1.0, 2.0, 3.0]
    return tmp_path / "numbers.h5"


def test_a_sealed_file_is_hdf5_that_says_what_it_is(sealed):
    check_seal(sealed, SEAL)
    with h5py.File(sealed) as file:
        assert file["x"][:].tolist() == [1.0, 2.0, 3.0]


def test_no_flipped_bit_and_no_lost_byte_of_a_sealed_file_goes_unnoticed(sealed):
    content = sealed.read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        sealed.write_bytes(changed)
        with pytest.raises(DamagedFile, match=r"numbers\.h5 is "):
            check_seal(sealed, SEAL)
    for length in (0, 1, 511, 512, 513, len(content) - 1):
        sealed.write_bytes(content[:length])
        with pytest.raises(DamagedFile, match="damaged"):
            check_seal(sealed, SEAL)
    sealed.write_bytes(content + b"0")
    with pytest.raises(DamagedFile, match="damaged"):
        check_seal(sealed, SEAL)


def test_a_sealed_file_under_another_name_or_of_another_kind_is_not_that_one(sealed):
    with pytest.raises(DamagedFile, match="is the table 'numbers', not the table 'others'"):
        check_seal(sealed, SEAL._replace(name="others"))
    with pytest.raises(DamagedFile, match="not the picture"):
        check_seal(sealed, SEAL._replace(format="picture"))


def test_a_whole_file_of_another_schema_names_both(sealed):
    with pytest.raises(InputError, match=r"has schema 2 .* reads schema 3 of a table") as found:
        check_seal(sealed, SEAL._replace(schema=3))
    assert not isinstance(found.value, DamagedFile)
