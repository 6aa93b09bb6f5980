"""Certificates of a run: who may read them, where they lie and how long, and that no text shows them."""

import datetime
import os
import pickle
import socket
import stat
import subprocess
import sys

import pytest
from cryptography import x509

from hpcfit.errors import InputError
from hpcfit.workflow import slurm
from hpcfit.workflow.cluster.encryption import KEY, PREFIX, as_files, made_for_a_run, of_step, publish, published
from hpcfit.workflow.pages.monitor import Place, choose_place


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_each_run_has_a_key_of_its_own_which_no_text_shows():
    one, other = made_for_a_run(), made_for_a_run()
    assert one.tls_worker_key != other.tls_worker_key
    assert one.require_encryption
    for shown in (
        repr(one),
        repr(Place("tls://127.0.0.1:1", None, one)),
        repr(choose_place("127.0.0.1:0", one_node=True)),
    ):
        assert "PRIVATE" not in shown
        assert "CERTIFICATE" not in shown
    assert pickle.loads(pickle.dumps(one)).tls_worker_key == one.tls_worker_key, "as MPI and Dask send it"


def test_a_certificate_is_valid_where_a_clock_is_behind():
    found = x509.load_pem_x509_certificate(made_for_a_run().tls_worker_cert.encode())
    now = datetime.datetime.now(datetime.UTC)
    assert found.not_valid_before_utc < now - datetime.timedelta(hours=23)
    assert found.not_valid_after_utc > now + datetime.timedelta(days=100)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_files_are_this_user_s_alone_and_gone_afterwards(tmp_path, umask):
    security, before = made_for_a_run(), os.umask(umask)
    try:
        with as_files(security, tmp_path) as files:
            (folder,) = tmp_path.iterdir()
            assert mode(folder) == 0o700
            assert {mode(path) for path in folder.iterdir()} == {0o600}
            assert (folder / KEY).read_text() == security.tls_worker_key
            assert files.tls_worker_key == files.tls_scheduler_key == str(folder / KEY)
            files.get_connection_args("worker")
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    finally:
        os.umask(before)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_has_left_is_removed_and_nothing_else(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-IS", "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    here = socket.gethostname()
    left = tmp_path / f"{PREFIX}{here}-{ended.stdout.strip()}-abc"
    alive, elsewhere = tmp_path / f"{PREFIX}{here}-{os.getpid()}-abc", tmp_path / f"{PREFIX}other-{here}-1-abc"
    for folder in (left, alive, elsewhere):
        folder.mkdir()
        (folder / KEY).touch()
    with as_files(made_for_a_run(), tmp_path):
        assert not left.exists()
        assert alive.exists()
        assert elsewhere.exists()


def test_tasks_read_what_the_first_has_published(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "states", lambda jobs: dict.fromkeys(jobs, "RUNNING"))
    security, place = made_for_a_run(), of_step(tmp_path, "7", "0", "0")
    publish(security, place)
    assert published(place, 0).tls_worker_key == security.tls_worker_key
    assert mode(place) == 0o700
    assert [path.name for path in tmp_path.iterdir()] == [place.name]
    with pytest.raises(InputError, match=r"cannot write .*7-0-0"):  # somebody has been there before
        publish(security, place)
    assert [path.name for path in tmp_path.iterdir()] == [place.name]
    (tmp_path / "link").symlink_to(place)
    place.chmod(0o750)
    for found in (place, tmp_path / "link"):
        with pytest.raises(InputError, match="is not this user's alone"):
            published(found, 0)


def test_what_a_job_has_left_is_removed_when_slurm_knows_that_it_has_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "states", lambda jobs: {job: {"7": "TIMEOUT", "8": "RUNNING"}[job] for job in jobs})
    left, runs = of_step(tmp_path, "7", "0", "0"), of_step(tmp_path, "8", "1", "0")
    left.mkdir()
    runs.mkdir()
    publish(made_for_a_run(), of_step(tmp_path, "9", "0", "0"))
    assert not left.exists()
    assert runs.exists()


def test_a_task_that_waits_in_vain_says_for_what(tmp_path):
    with pytest.raises(InputError, match=r"task 0 has not made .* within 0 s"):
        published(tmp_path / "nowhere", 0)


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path):
    with pytest.raises(InputError, match="cannot write"), as_files(made_for_a_run(), tmp_path / "nowhere"):
        pass
