"""Files that are there whole or not at all: written under another name, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import itertools
import os
import secrets
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py

from hpcfit.characters import cell, text_of
from hpcfit.errors import HpcfitError, InputError

Buffer = Any  # bytes, or what gives a memoryview
LIBVER = ("earliest", "v110")  # newer formats cannot be read by the HDF5 1.10 that many clusters still have
# What h5py raises when the bytes of a header make no sense.
NONSENSE = (OSError, KeyError, ValueError, TypeError, RuntimeError)


@contextlib.contextmanager
def written_whole(path: Path, publish: Callable[[Path, Path], None] = os.replace) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is fsynced and renamed, on failure removed.

    publish: gives the finished file its name; `keep_first` instead of the default leaves a file that is there.

    A full disk, a read-only folder or a missing right becomes one error that names the file.
    """
    # A name of its own for each attempt, since two at one file may run at once; it says who writes.
    temporary = path.with_name(f".{path.name}.{host_name()}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
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
    if before.endswith(f".{host_name()}"):
        return bool(process_started(process))
    try:
        return time.time() - path.stat().st_mtime < 86400
    except FileNotFoundError:
        return False


def process_started(process: int | str) -> str:
    """The time at which a process of this machine began, in ticks since the machine did; "" where there is none.

    One that was killed may stay listed until its parent asks for it.
    """
    try:
        after_name = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if after_name[0] in ("Z", "X") else after_name[19]


def host_name() -> str:
    """The name of this machine, without its domain."""
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


def check_is_file(path: Path) -> None:
    """Raise InputError for what is there and no file: a folder, a pipe that nobody writes into, a device."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}", remedy="correct the path") from None
    if not stat.S_ISREG(mode):
        raise InputError(
            f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'no file')}, and a file was expected",
            remedy="correct the path, or put the file back",
        )


_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip


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


def set_units(data: h5py.Dataset, units: str) -> None:
    """Say the unit of a dataset, by the attribute of H5MD (``unit``) and by that of NeXus (``units``)."""
    data.attrs.update(unit=units, units=units)


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
