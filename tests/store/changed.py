"""Files of a store or a run, changed in a way that no seal finds: sealed again, as only somebody could who means to."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py


def resealed(path: Path, **changes: Any) -> str:
    """Change what the seal of a file says, and seal it again: 512 bytes of JSON, then the content. Its new digest."""
    content = path.read_bytes()
    said = json.loads(content[:512]) | changes
    del said["sha256"]
    starts, stops = zip(*[(512, 512), *said.get("apart", ()), (len(content), len(content))])
    around = b"".join(content[stop:start] for stop, start in zip(stops, starts[1:]))
    digest = hashlib.sha256(json.dumps(said).encode() + around).hexdigest()
    path.write_bytes(json.dumps(said | {"sha256": digest}).encode().ljust(511) + b"\n" + content[512:])
    return digest


def changed_catalog(store: Path, change: Callable[[dict], None]) -> None:
    """Change the catalog of a store, with a checksum that fits."""
    found = json.loads((store / "catalog.json").read_text())
    change(found)
    found.pop("sha256", None)
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    (store / "catalog.json").write_text(json.dumps(found | {"sha256": digest}, indent=1))


def changed_shard(path: Path, change: Callable[[h5py.File], None]) -> None:
    """Change a shard in place, with a seal that fits, which the catalog has too."""
    with h5py.File(path, "r+") as file:
        change(file)
    recatalogued(path, resealed(path, bytes=path.stat().st_size))


def recatalogued(path: Path, seal: str) -> None:
    """Have the catalog name this seal of a shard, and its size."""

    def change(found: dict) -> None:
        row = next(row for row in found["shards"] if row["file"] == path.name)
        row.update(seal=seal, bytes=path.stat().st_size)

    changed_catalog(path.parent, change)
