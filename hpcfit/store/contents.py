"""The contents that a store can have, by their names in config and catalog."""

from __future__ import annotations

from pathlib import Path

from hpcfit.errors import InputError
from hpcfit.store.catalog import Store, content_of, opened_store
from hpcfit.store.content import Content
from hpcfit.store.forces import ForceContent
from hpcfit.store.positions import PositionContent
from hpcfit.store.structure_factors import FactorContent

CONTENTS: dict[str, type[Content]] = {one.name: one for one in (FactorContent, ForceContent, PositionContent)}


def open_any_store(folder: Path) -> Store:
    """Open a store, whatever it holds; raises InputError or DamagedFile naming the file."""
    name = content_of(folder)
    if name not in CONTENTS:
        raise InputError(
            f"{folder} is a store of {name}; this version of hpcfit reads {', '.join(CONTENTS)}",
            remedy="update hpcfit, or prepare the store again with this version",
        )
    return opened_store(folder, CONTENTS[name])
