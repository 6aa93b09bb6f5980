"""One hash of all that decides the result of a fit: its config, and the content of the files that it reads."""

from __future__ import annotations

import hashlib
import json
from functools import cache, reduce
from operator import getitem
from pathlib import Path

from hpcfit.config import Config
from hpcfit.errors import InputError
from hpcfit.store.contents import open_any_store
from hpcfit.store.files import sha256_of_file

WITHOUT_EFFECT = {
    "run": {"directory", "report"}, "simulate": True, "prepare": True, "checkpoint": True, "cluster": True,
    "monitor": True,
}  # fmt: skip
HASH_DIGITS = 12


class Identities:
    """The hashes of fits. Each file is read once: what changes it later makes other fits only in the next object."""

    def __init__(self):
        self._of_store = cache(_store_digest)
        self._of_file = cache(_digest)

    def __call__(self, config: Config) -> str:
        """Of one fit. Raises InputError naming an input that is not there."""
        content = config.model_dump(mode="json", exclude=WITHOUT_EFFECT)
        if config.frames:
            content["frames"]["store"] = self._of_store(config.frames.store)
        for place, table in config.of_kind():
            for key, path in table.files.items():
                *tables, name = [*place, *key.split(".")]
                inner = reduce(getitem, tables, content)
                inner[name] = self._of_file(f"[{place[0]}] {key}", path)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:HASH_DIGITS]


def _store_digest(folder: Path) -> str:
    return open_any_store(folder).digest()


def _digest(named: str, path: Path) -> str:
    try:
        return sha256_of_file(path)
    except FileNotFoundError:
        raise InputError(f"{named} {path} does not exist", remedy=f"correct {named}") from None
    except OSError as error:
        raise InputError(f"{named} {path}: {error.strerror}", remedy=f"give a file as {named}") from None
