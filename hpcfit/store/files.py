"""Files that are there whole or not at all: written under another name, flushed to the disk, then renamed.

A sealed file also says in its first bytes what it is, of which schema, under which name it was written, and the SHA-256
of the rest: it is read only where all of that is true.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import itertools
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from hpcfit import __version__
from hpcfit.characters import cell, text_of
from hpcfit.errors import DamagedFile, HpcfitError, InputError

Buffer = Any  # bytes, or what gives a memoryview
LIBVER = ("earliest", "v110")  # newer formats cannot be read by the HDF5 1.10 that many clusters still have
SEAL_BYTES = 512  # of a seal: the user block of an HDF5 file, which HDF5 passes over
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# What h5py raises when the bytes of a header make no sense.
NONSENSE = (OSError, KeyError, ValueError, TypeError, RuntimeError)


@contextlib.contextmanager
def written_whole(path: Path, publish: Callable[[Path, Path], None] = os.replace) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is fsynced and renamed, on failure removed.

    publish: gives the finished file its name; `keep_first` instead of the default leaves a file that is there.

    A full disk, a read-only folder or a missing right becomes one error that names the file.
    """
    # A name of its own for each attempt, since two at one file may run at once; it says who writes.
    temporary = path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _flush(temporary)
            publish(temporary, path)
            _flush(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def keep_first(temporary: Path, path: Path) -> None:
    """Give a finished file its name, unless another has it by now: then that one stays."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        os.replace(temporary, path)
    temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, pattern: str = "*") -> list[Path]:
    """Remove what dead attempts at files named like `pattern` left half written, and nothing that is being written.

    Whether a process of another machine lives cannot be seen: its files go when they have not changed for a day.
    """
    dead = [path for path in folder.glob(f".{pattern}.*.tmp") if not _is_being_written(path)]
    for path in dead:
        path.unlink(missing_ok=True)
    return dead


def _is_being_written(path: Path) -> bool:
    before, _, process = path.name.removesuffix(".tmp").rpartition(".")[0].rpartition(".")
    if before.endswith(f".{_host()}"):
        return _lives(process)
    try:
        return time.time() - path.stat().st_mtime < 86400
    except FileNotFoundError:
        return False


def _lives(process: str) -> bool:
    """Whether a process of this machine runs; one that was killed may stay listed until its parent asks for it."""
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


def _host() -> str:
    return socket.gethostname().partition(".")[0]


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system or HDF5 says of a failed write into an error with the file and a remedy."""
    try:
        yield
    except HpcfitError:
        raise
    except OSError as error:
        free = _free_bytes(path.parent)
        raise InputError(
            f"cannot write {path}: {_reason(error)} ({free})",
            remedy="free some space, or choose a folder that you may write to; what was complete before is kept",
        ) from error


@contextlib.contextmanager
def hdf5_written_whole(path: Path, publish: Callable[[Path, Path], None] = os.replace) -> Iterator[h5py.File]:
    """Yield an HDF5 file that appears at ``path``, whole, when the block ends without an error; see `written_whole`."""
    with written_whole(path, publish) as temporary, PatientFile(temporary) as raw:
        with h5py.File(raw, "w", libver=LIBVER) as file:
            yield file
        raw.check()


class Seal(NamedTuple):
    """A seal says what a file is (a record of a fit, say), its schema, and the name it is written under."""

    format: str
    schema: int
    name: str


@contextlib.contextmanager
def hdf5_sealed(path: Path, seal: Seal) -> Iterator[h5py.File]:
    """Yield an HDF5 file that appears at ``path``, whole and sealed, when the block ends without an error."""
    with written_whole(path) as temporary:
        with PatientFile(temporary) as raw:
            with h5py.File(raw, "w", libver=LIBVER, userblock_size=SEAL_BYTES) as file:
                yield file
            raw.check()
        said = {**seal._asdict(), "hpcfit_version": __version__}
        with open(temporary, "r+b") as file:
            digest = _sealing_digest(said, file)
            file.seek(0)
            file.write(_stamp({**said, "sha256": digest}))


def check_seal(path: Path, expected: Seal) -> None:
    """Raise unless ``path`` is whole and what ``expected`` says, without HDF5 seeing a byte of it.

    Raises DamagedFile where bytes were changed or lost, or the file is another one than its name says. Raises
    InputError where it is whole, but of another schema.
    """
    with open(path, "rb") as file:
        stamp = file.read(SEAL_BYTES)
        said = _said(stamp)
        whole = said is not None and said.pop("sha256") == _sealing_digest(said, file)
    if stamp.startswith(HDF5_SIGNATURE):
        raise _other_schema(path, "no seal: it is older than seals are", expected)
    if not whole:
        raise DamagedFile(f"{path} is damaged: it differs from its checksum")
    if (said["format"], said["name"]) != (expected.format, expected.name):
        raise DamagedFile(
            f"{path} is the {said['format']} '{said['name']}', not the {expected.format} '{expected.name}'"
        )
    if said["schema"] != expected.schema:
        raise _other_schema(path, f"schema {said['schema']} (hpcfit {said['hpcfit_version']})", expected)


def _sealing_digest(said: dict[str, Any], file: Any) -> str:
    """The SHA-256 of what a seal says, and of all that follows it."""
    file.seek(SEAL_BYTES)
    digest = hashlib.sha256(json.dumps(said).encode())
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def _stamp(said: dict[str, Any]) -> bytes:
    return json.dumps(said).encode().ljust(SEAL_BYTES - 1) + b"\n"


def _said(stamp: bytes) -> dict[str, Any] | None:
    """What a seal says; None where it is not, to the byte, as a seal is written."""
    try:
        said = json.loads(stamp)
        whole = _stamp(said) == stamp and {*Seal._fields, "hpcfit_version", "sha256"} == set(said)
    except (ValueError, TypeError):
        return None
    return said if whole else None


def _other_schema(path: Path, found: str, expected: Seal) -> InputError:
    return InputError(
        f"{path} has {found}; hpcfit {__version__} reads schema {expected.schema} of a {expected.format}",
        remedy="go on with the version of hpcfit that wrote it, or start anew with --overwrite",
    )


class PatientFile(io.FileIO):
    """A file that HDF5 writes into: a failed write is remembered and said by ``check``.

    HDF5 does not survive a write that fails (a full disk): it prints pages and may crash when it closes. So it is told
    that all went well, and the file is thrown away afterwards. Nor does it survive to read anything else than it wrote,
    heaps of strings for one: from the first failure on, what it writes is kept in memory, and read from there.
    """

    PAGE = 4096  # bytes
    LARGEST = 1 << 20  # bytes: rows of a dataset, which HDF5 does not read back, and which might fill the memory

    def __init__(self, path: Path):
        super().__init__(path, "w+")
        self._failure: OSError | None = None
        self._pages: dict[int, bytearray] = {}

    def write(self, data: Buffer) -> int:
        """Write all of it, or remember why not."""
        view = memoryview(data).cast("B")
        done, place = 0, self.tell()
        try:
            while done < len(view) and self._failure is None:
                done += super().write(view[done:])
        except OSError as error:
            self._failure = error
        if done < len(view) <= self.LARGEST:
            self._keep(place + done, view[done:])
        return len(view)

    def readinto(self, buffer: Buffer) -> int:
        """Read what was written, whether the disk took it or not."""
        view, place = memoryview(buffer).cast("B"), self.tell()
        found = super().readinto(view)
        if self._failure is None:
            return found
        view[found:] = bytes(len(view) - found)
        for page, start, stop in self._parts(place, len(view)):
            if page in self._pages:
                of_page = page * self.PAGE
                view[start - place : stop - place] = self._pages[page][start - of_page : stop - of_page]
        return len(view)

    def _keep(self, place: int, view: memoryview) -> None:
        for page, start, stop in self._parts(place, len(view)):
            of_page = page * self.PAGE
            if page not in self._pages:
                self.seek(of_page)
                self._pages[page] = bytearray((super().read(self.PAGE) or b"").ljust(self.PAGE, b"\0"))
            self._pages[page][start - of_page : stop - of_page] = view[start - place : stop - place]

    def _parts(self, place: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(page, first byte, byte behind the last) of each page that a stretch touches."""
        for page in range(place // self.PAGE, -(-(place + length) // self.PAGE)):
            yield page, max(place, page * self.PAGE), min(place + length, (page + 1) * self.PAGE)

    def check(self) -> None:
        """Raise the first failure there was."""
        if self._failure is not None:
            raise self._failure

    def __exit__(self, kind, error, trace) -> None:
        super().__exit__(kind, error, trace)
        if error is not None:
            self.check()  # what failed first explains what HDF5 or the caller stumbled over


def hdf5_facts() -> str:
    """Versions of h5py and HDF5, for `hpcfit doctor`."""
    mpi_io = "yes" if h5py.get_config().mpi else "no (not needed)"
    return f"h5py {h5py.version.version}, HDF5 {h5py.version.hdf5_version}, MPI-IO {mpi_io}"


def write_rows(dataset: h5py.Dataset, rows: slice, values: Any) -> None:
    """Write rows of a dataset, whose chunks get their place in the file now.

    HDF5 places them when the dataset is closed, which waits for the last reference to it: files of equal content would,
    rarely, differ in their bytes.
    """
    dataset[rows] = values
    dataset.flush()


def write_text(path: Path, text: str) -> None:
    """Write a small text file whole."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file, whole: a line of names, then the rows. Floats have all their digits, None is an empty cell.

    Text has no control characters, and no cell of it begins as a formula of spreadsheet programs (``characters.cell``);
    ``read_csv`` gives the text as it was.
    """
    with written_whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(map(cell, columns))
        writer.writerows(map(cell, row) for row in rows)


def csv_lines(path: Path) -> list[list[str]]:
    """The cells of a CSV file that ``write_csv`` wrote, as text, line by line; the first has the names of columns."""
    with open(path, newline="", encoding="utf-8") as file:
        return [[text_of(one) for one in row] for row in csv.reader(file)]


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file that ``write_csv`` wrote, by the name of the column; what a short row lacks is None."""
    head, *rows = csv_lines(path) or [[]]
    return [dict(itertools.zip_longest(head, row[: len(head)])) for row in rows if row]


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error).splitlines()[0]


def _free_bytes(folder: Path) -> str:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    status = os.statvfs(folder)
    return f"{status.f_bavail * status.f_frsize / 1e6:.1f} MB free in {folder}"
