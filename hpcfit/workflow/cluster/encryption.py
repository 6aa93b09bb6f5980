"""Certificates by which the parts of one run know each other: schedulers, workers and clients of Dask.

Dask unpickles a message before it asks who sent it, so that whoever reaches a port runs code as the user. With mutual
TLS only who has the run's key gets as far as a message.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import socket
import ssl
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from distributed.security import Security

from hpcfit.config import ClusterConfig, MonitorConfig
from hpcfit.errors import InputError
from hpcfit.store.files import disk_errors
from hpcfit.workflow import slurm
from hpcfit.workflow.stopping import heed

PAUSE = 0.1  # seconds between two looks whether another task has written them
PROTOCOL = "tls://"
# Clocks of nodes differ: where it is before now, a certificate from now on would be refused.
SKEW = datetime.timedelta(days=1)
LIFE = datetime.timedelta(days=365)  # longer than a job, or a chain of requeued ones
PREFIX = ".hpcfit-tls-"
OF_JOB = f"{PREFIX}job-"
CERTIFICATE, KEY = "certificate.pem", "key.pem"


def made_for_a_run() -> Security:
    """A new key and the certificate that it has signed, in memory: they end with the processes that hold them.

    As `Security.temporary`, whose certificates are valid only from the second in which they are made.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hpcfit")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return _security(certificate.public_bytes(Encoding.PEM).decode(), private.decode())


def _security(certificate: str, key: str, ca: str | None = None) -> Security:
    """The same certificate for all roles, as text or as a path; ca: who has signed it, by default itself."""
    roles = {f"tls_{role}_{what}": value for role in ("client", "scheduler", "worker")
             for what, value in (("cert", certificate), ("key", key))}  # fmt: skip
    return Security(require_encryption=True, tls_ca_file=ca or certificate, **roles)


# ---- for processes that neither MPI nor a pipe reaches ------------------------------------------------------------


@contextlib.contextmanager
def as_files(security: Security, folder: Path) -> Iterator[Security]:
    """Inside, the certificate and key are files in a folder of their own below `folder`, which only this user may read.

    For worker jobs, which get them by the file system that they share. What a killed run of this node has left is
    removed first.
    """
    _remove_left_by_killed(folder)
    with disk_errors(folder / PREFIX):
        own = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{socket.gethostname()}-{os.getpid()}-", dir=folder))
    try:
        with disk_errors(own / KEY):
            _write(security, own)
        yield _security(str(own / CERTIFICATE), str(own / KEY))
    finally:
        shutil.rmtree(own, ignore_errors=True)


def words(files: Security) -> list[str]:
    """The options of a Dask worker's command line for certificates that are files."""
    return ["--tls-ca-file", files.tls_ca_file, "--tls-cert", files.tls_worker_cert, "--tls-key", files.tls_worker_key]


def of_step(folder: Path, job: str, *further: str) -> Path:
    """The place below `folder` where the tasks of a step find them; further: which step of the job."""
    return folder / f"{OF_JOB}{'-'.join((job, *further))}"


def publish(security: Security, place: Path) -> None:
    """Write them into the folder `place`, which must not be there yet, at once and as a whole. What killed jobs have
    left beside it is removed."""
    _remove_left_by_ended_jobs(place.parent)
    with disk_errors(place):
        own = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place.parent))
        try:
            _write(security, own)
            own.rename(place)
        except BaseException:
            shutil.rmtree(own, ignore_errors=True)
            raise


def published(place: Path, patience: float) -> Security:
    """The security that another process of this user has published, or publishes within so many seconds; in memory.

    Raises InputError where there is none, or where others may read it.
    """
    end = time.monotonic() + patience
    while not place.exists():
        if time.monotonic() > end:
            raise InputError(
                f"task 0 has not made {place} within {patience:g} s ([cluster] patience)",
                remedy="start in a folder that all nodes share, or see what task 0 has said",
            )
        heed()
        time.sleep(PAUSE)
    with disk_errors(place):
        found = place.lstat()
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
        if not ours or stat.S_IMODE(found.st_mode) & 0o077:
            raise InputError(f"{place} is not this user's alone", remedy="remove it, and start again")
        return _security((place / CERTIFICATE).read_text(), (place / KEY).read_text())


def _write(security: Security, folder: Path) -> None:
    for name, text in ((CERTIFICATE, security.tls_worker_cert), (KEY, security.tls_worker_key)):
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)


def _remove_left_by_ended_jobs(folder: Path) -> None:
    for left in folder.glob(f"{OF_JOB}*"):
        with contextlib.suppress(InputError):  # Slurm does not answer
            if slurm.all_ended([left.name.removeprefix(OF_JOB).partition("-")[0]]):
                shutil.rmtree(left, ignore_errors=True)


def _remove_left_by_killed(folder: Path) -> None:
    start = f"{PREFIX}{socket.gethostname()}-"
    for left in folder.glob(f"{start}*"):
        number = left.name.removeprefix(start).partition("-")[0]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(left, ignore_errors=True)


# ---- of a scheduler that somebody else has started ----------------------------------------------------------------


def security_of(config: ClusterConfig | MonitorConfig, where: str) -> Security | None:
    """The certificates that a config names for a scheduler which runs already; None where it is trusted without.

    where: the table, for errors. Raises InputError for files that are no certificates, or do not belong together.
    """
    if config.ca is None:
        return None
    found = _security(str(config.cert), str(config.key), str(config.ca))
    try:
        found.get_connection_args("client")
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        reason = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else error
        raise InputError(
            f"{where} ca = {config.ca}, cert = {config.cert}, key = {config.key} cannot be used: {reason}",
            remedy="give the PEM files that the scheduler was started with (`dask scheduler --tls-ca-file ...`)",
        ) from None
    return found
