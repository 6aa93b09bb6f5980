"""A simulated trajectory as a folder of pieces, each the continuation of the one before.

    settings.json                what decided the trajectory, and how many frames it is to have
    start.h5                     the OpenMM State behind the equilibration, no frames
    piece_00000.h5, ...          frames, and the OpenMM State behind the last of them

Pieces that follow each other from the first on are a chain; what does not follow is made again, and never read.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hpcfit.errors import DamagedFile, InputError
from hpcfit.store.files import write_text
from hpcfit.store.frame import NOT_PERIODIC, PERIODIC, Frame, Topology
from hpcfit.store.h5md import Rows
from hpcfit.store.piece import REPAIR, Header, piece_file, read_header, read_piece

SETTINGS = "settings.json"


class Settings(NamedTuple):
    """The settings that decided a trajectory, by key, and how many frames it is to have."""

    decided_by: dict[str, Any]
    frames: int

    @property
    def digest(self) -> str:
        """SHA-256 of what decided the trajectory."""
        return hashlib.sha256(json.dumps(self.decided_by, sort_keys=True).encode()).hexdigest()


def write_settings(folder: Path, settings: Settings) -> None:
    """Say in the folder what its trajectory is.

    Raises InputError, naming the key and both values, where the folder was begun with other settings.
    """
    before = read_settings(folder) if (folder / SETTINGS).exists() else settings
    for key in sorted(before.decided_by.keys() | settings.decided_by.keys()):
        old, new = (json.dumps(found.decided_by.get(key, "nothing")) for found in (before, settings))
        if old != new:
            raise InputError(
                f"{folder} was simulated with {key} = {old}; the config has {new}",
                remedy="go back to that setting, or give [simulate] directory another folder",
            )
    write_text(folder / SETTINGS, json.dumps(settings._asdict(), indent=1) + "\n")


def read_settings(folder: Path) -> Settings:
    """Read the settings of a trajectory from its folder of pieces."""
    try:
        return Settings(**json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(
            f"{folder} has no {SETTINGS}, so it is no trajectory of `hpcfit simulate`",
            remedy="give the folders that it wrote, one a replica, for instance DIRECTORY/*",
        ) from None
    except (ValueError, TypeError) as error:
        raise DamagedFile(f"{folder / SETTINGS} is damaged: {error}", remedy=REPAIR) from None


class Chain(NamedTuple):
    """The pieces of a folder that follow each other from the first on, and what keeps the next from doing so."""

    pieces: tuple[Header, ...]
    end: str

    @property
    def frames(self) -> int:
        """The number of their frames."""
        return self.pieces[-1].stop if self.pieces else 0


def read_chain(folder: Path, settings: str) -> Chain:
    """The chain of a folder, from the headers of its files; `settings`: the digest that all pieces must have.

    Raises InputError for a piece of other settings.
    """
    pieces: list[Header] = []
    # Listed, since a network file system remembers for a while that a single file was not there.
    names = set(os.listdir(folder))
    while True:
        path = folder / piece_file(len(pieces))
        if path.name not in names:
            return Chain(tuple(pieces), f"{path.name} does not exist")
        try:
            header = read_header(path)
        except DamagedFile as error:
            return Chain(tuple(pieces), str(error).splitlines()[0])
        if header.settings != settings:
            raise InputError(
                f"{path} was made with other settings than {SETTINGS} beside it says",
                remedy="do not mix the files of two simulations: remove those that do not belong here",
            )
        if objection := _objection(path.name, header, pieces):
            return Chain(tuple(pieces), objection)
        pieces.append(header)


def _objection(file: str, header: Header, before: list[Header]) -> str:
    """Why a piece does not follow those before; nothing if it does."""
    expected = before[-1].stop if before else 0
    if header.first != expected:
        return f"{file} begins with frame {header.first}, and not with {expected}"
    if before and header.follows != before[-1].checksum:
        return f"{file} does not continue {piece_file(before[-1].number)}, which was made again since"
    return ""


def open_pieces(folder: Path) -> tuple[Topology, int]:
    """Elements and cell of a trajectory in pieces, and how many frames follow each other from the first on."""
    import gemmi
    from ase.geometry import cell_to_cellpar

    chain = _chain(folder)
    if not chain.pieces:
        raise InputError(f"{folder} has no frames: {chain.end}", remedy="run `hpcfit simulate`: it goes on")
    first = read_piece(folder / piece_file(0))
    box = first.rows.values.get("box")
    cell = None if box is None else tuple(map(float, cell_to_cellpar(box[0])))
    return Topology(tuple(gemmi.Element(int(z)).name for z in first.species), cell), chain.frames


def check_finished(folder: Path, stop: int | None) -> None:
    """Raise InputError that names what is missing, unless a trajectory has all its frames, or those before `stop`."""
    announced, chain = read_settings(folder).frames, _chain(folder)
    if chain.frames < min(announced, stop or announced):
        raise InputError(
            f"{folder} is to have {announced} frames and holds {chain.frames} that follow each other: {chain.end}",
            remedy=f"run `hpcfit simulate`: it goes on; or set stop = {chain.frames} to use what there is",
        )


def end_state(folder: Path) -> str:
    """The State of OpenMM behind the last frame, XML. Raises InputError unless all frames are there."""
    check_finished(folder, None)
    return read_piece(folder / piece_file(_chain(folder).pieces[-1].number)).state


def pieces_digest(folder: Path, row: int) -> str:
    """Stands for all frames up to `row`: the checksum of its piece, which follows from all before."""
    return next(piece.checksum for piece in _chain(folder).pieces if row < piece.stop)


def piece_frames(folder: Path, rows: range) -> Iterator[Frame]:
    """The frames `rows` of a trajectory in pieces; each piece is compared with its checksum."""
    pieces = iter(_chain(folder).pieces)
    header, piece = next(pieces), None
    for row in rows:
        while row >= header.stop:
            header, piece = next(pieces), None
        piece = piece or read_piece(folder / piece_file(header.number))
        yield _frame(piece.rows, row, row - header.first)


def _frame(rows: Rows, row: int, at: int) -> Frame:
    positions, box, forces = (rows.values.get(name) for name in ("positions", "box", "forces"))
    return Frame(
        row, positions[at].astype(float), None if forces is None else forces[at],
        None if box is None else box[at].astype(float), float(rows.time[at]),
        pbc=NOT_PERIODIC if box is None else PERIODIC, step=int(rows.step[at]),
    )  # fmt: skip


def _chain(folder: Path) -> Chain:
    return _chain_as_of(folder, folder.stat().st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _chain_as_of(folder: Path, _modified: int) -> Chain:
    # Each shard asks again, and a long trajectory has thousands of headers; a new file changes the folder's time.
    return read_chain(folder, read_settings(folder).digest)
