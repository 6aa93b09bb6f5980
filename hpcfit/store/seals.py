"""Seals: files that say in their first bytes what they are, and are read only where that is true.

A seal names format, schema and the name that the file was written under, and has the SHA-256 of the rest. It is
compared before HDF5 sees a byte of the file, which may hang or crash on one that was damaged. Values that have
checksums of their own, by which they are compared while they are read, stand apart: the seal says where, and covers
what is around them. So the seal of a large file costs no more than reading its small parts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from hpcfit import __version__
from hpcfit.errors import DamagedFile, InputError
from hpcfit.store.files import LIBVER, PatientFile, check_is_file, written_whole

SEAL_BYTES = 512  # the user block of an HDF5 file, which HDF5 passes over
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
PIECE = 1 << 20  # bytes
MOST_APART = 32
START_ANEW = "go on with the version of hpcfit that wrote it, or start anew with --overwrite"


class Seal(NamedTuple):
    """A seal says what a file is (a record of a fit, say), its schema, and the name it is written under."""

    format: str
    schema: int
    name: str


class Stretch(NamedTuple):
    """A stretch of a file, from its first byte to the one behind its last."""

    start: int
    stop: int


@contextlib.contextmanager
def hdf5_sealed(path: Path, seal: Seal, apart: Sequence[str] = ()) -> Iterator[h5py.File]:
    """Yield an HDF5 file that appears at ``path``, whole and sealed, when the block ends without an error.

    apart: datasets whose values have checksums of their own.
    """
    with written_whole(path) as temporary:
        with PatientFile(temporary) as raw:
            with h5py.File(raw, "w", libver=LIBVER, userblock_size=SEAL_BYTES) as file:
                yield file
                file.flush()
                stretches = _merged(stretch for name in apart if name in file for stretch in _stretches(file[name]))
            raw.check()
        with open(temporary, "r+b") as file:
            said = {**seal._asdict(), "hpcfit_version": __version__}
            if stretches:
                said = _with_the_largest(said | {"bytes": temporary.stat().st_size}, stretches)
            digest = _sealing_digest(said, file)
            file.seek(0)
            file.write(_stamp({**said, "sha256": digest}))


def check_seal(path: Path, expected: Seal, remedy: str = START_ANEW) -> None:
    """Raise unless ``path`` is whole and what ``expected`` says, without HDF5 seeing a byte of it.

    Raises DamagedFile where bytes were changed or lost, or the file is another one than its name says. Raises
    InputError where it is whole, but of another schema; remedy: of that.
    """
    said = read_seal(path, expected, remedy)
    if said["name"] != expected.name:
        raise DamagedFile(
            f"{path} is the {expected.format} '{said['name']}', not the {expected.format} '{expected.name}'"
        )


def read_seal(path: Path, expected: Seal, remedy: str = START_ANEW) -> dict[str, Any]:
    """Read what the seal of a whole file says, its digest as sha256; raises as ``check_seal``, not for another name."""
    check_is_file(path)
    with open(path, "rb") as file:
        stamp = file.read(SEAL_BYTES)
        said = _said(stamp)
        whole = said is not None and _is_whole(said, file)
    if stamp.startswith(HDF5_SIGNATURE):
        raise _other_schema(path, "no seal: it is older than seals are, or of another program", expected, remedy)
    if not whole:
        raise DamagedFile(f"{path} is damaged: it differs from its checksum")
    if said["format"] != expected.format:
        raise DamagedFile(
            f"{path} is the {said['format']} '{said['name']}', not the {expected.format} '{expected.name}'"
        )
    if said["schema"] != expected.schema:
        raise _other_schema(path, f"schema {said['schema']} (hpcfit {said['hpcfit_version']})", expected, remedy)
    return said


def _is_whole(said: dict[str, Any], file: Any) -> bool:
    try:
        return said["sha256"] == _sealing_digest({k: value for k, value in said.items() if k != "sha256"}, file)
    except (OSError, ValueError, TypeError, OverflowError):  # stretches that make no sense
        return False


def _sealing_digest(said: dict[str, Any], file: Any) -> str:
    """The SHA-256 of what a seal says, and of all that follows it and does not stand apart."""
    digest, place = hashlib.sha256(json.dumps(said).encode()), SEAL_BYTES
    for start, stop in said.get("apart", ()):
        _add_bytes(digest, file, place, start - place)
        place = stop
    _add_bytes(digest, file, place, -1)
    if "bytes" in said and file.seek(0, 2) != said["bytes"]:
        raise ValueError("cut or grown")
    return digest.hexdigest()


def _add_bytes(digest: Any, file: Any, place: int, left: int) -> None:
    """Add so many bytes from a place on, all where `left` is below 0."""
    file.seek(place)
    while piece := file.read(PIECE if left < 0 else min(PIECE, left)):
        digest.update(piece)
        left -= len(piece) if left > 0 else 0


def _stretches(dataset: h5py.Dataset) -> Iterator[Stretch]:
    """Where the values of a dataset lie in its file."""
    if dataset.chunks is None:
        start = dataset.id.get_offset()
        if start is not None:
            yield Stretch(start, start + dataset.id.get_storage_size())
        return
    found: list[Stretch] = []
    dataset.id.chunk_iter(lambda chunk: found.append(Stretch(chunk.byte_offset, chunk.byte_offset + chunk.size)))
    yield from found


def _merged(stretches: Iterator[Stretch]) -> list[Stretch]:
    """In their order, those that follow each other as one."""
    merged: list[Stretch] = []
    for one in sorted(stretches):
        if merged and one.start <= merged[-1].stop:
            merged[-1] = Stretch(merged[-1].start, max(merged[-1].stop, one.stop))
        else:
            merged.append(one)
    return merged


def _with_the_largest(said: dict[str, Any], stretches: Sequence[Stretch]) -> dict[str, Any]:
    """What a seal is to say, with as many stretches apart, the largest, as there is room for."""
    by_size = sorted(stretches, key=lambda one: one.start - one.stop)
    room = SEAL_BYTES - len(', "sha256": ""') - 2 * hashlib.sha256().digest_size - 1
    for chosen in range(min(len(by_size), MOST_APART), -1, -1):
        said = said | {"apart": sorted(by_size[:chosen])}
        if len(json.dumps(said)) <= room:
            break
    return said


def _stamp(said: dict[str, Any]) -> bytes:
    return json.dumps(said).encode().ljust(SEAL_BYTES - 1) + b"\n"


def _said(stamp: bytes) -> dict[str, Any] | None:
    """What a seal says; None where it is not, to the byte, as a seal is written."""
    try:
        said = json.loads(stamp)
        whole = _stamp(said) == stamp and {*Seal._fields, "hpcfit_version", "sha256"} <= set(said)
    except (ValueError, TypeError, RecursionError):
        return None
    return said if whole else None


def _other_schema(path: Path, found: str, expected: Seal, remedy: str) -> InputError:
    return InputError(
        f"{path} has {found}; hpcfit {__version__} reads schema {expected.schema} of a {expected.format}",
        remedy=remedy,
    )


# ---- HDF5 that refers to nothing outside -------------------------------------------------------------------------


@contextlib.contextmanager
def hdf5_opened(path: Path, **options: Any) -> Iterator[h5py.File]:
    """Yield a file, open to be read, whose values lie in it: hpcfit writes no others.

    A dataset that refers to other files, or to itself, is refused before HDF5 follows it, which may crash.
    """
    check_is_file(path)
    with h5py.File(path, "r", locking=False, **options) as file:
        strange = _first_reference(file)
        if strange:
            raise DamagedFile(
                f"{path} is damaged: {strange}, where hpcfit writes values that lie in the file",
                remedy="delete this file and have it made again",
            )
        yield file


PLAIN = (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)


def _first_reference(file: h5py.File) -> str:
    """A dataset or link that refers to somewhere else, as an error says it; "" where there is none."""

    def of_link(name: bytes, info: Any) -> str | None:
        return None if info.type == h5py.h5l.TYPE_HARD else f"{name.decode(errors='replace')} is a link elsewhere"

    def of_item(name: str, item: Any) -> str | None:
        if not isinstance(item, h5py.Dataset):
            return None
        layout = item.id.get_create_plist()
        if layout.get_layout() not in PLAIN:
            return f"{name} is a virtual dataset"
        return f"{name} lies in another file" if layout.get_external_count() else None

    return file.id.links.visit(of_link, info=True) or file.visititems(of_item) or ""


# ---- JSON with a checksum ----------------------------------------------------------------------------------------


def sealed_json(found: dict[str, Any]) -> str:
    """The text of a JSON file that has a checksum of itself."""
    return json.dumps({**found, "sha256": _digest_of(found)}, indent=1)


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; raises FileNotFoundError, and DamagedFile for anything else."""
    check_is_file(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{path} is not valid JSON ({error})") from None
    if not isinstance(found, dict):
        raise DamagedFile(f"{path} is damaged: it holds {type(found).__name__}, not keys and values")
    return found


def is_as_sealed(found: dict[str, Any]) -> bool:
    """Return True if what was read of a JSON file agrees with the checksum in it."""
    return found.get("sha256") == _digest_of({key: value for key, value in found.items() if key != "sha256"})


def _digest_of(found: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
