"""The map of ranks to nodes, cores and devices, which `check` and `doctor` print."""

from __future__ import annotations

from itertools import groupby

from hpcfit.log import in_columns
from hpcfit.machine import Device
from hpcfit.ranks import Ranks


def rank_map(world: Ranks, device: Device, more: dict[str, str]) -> list[str]:
    """A header and a line for each rank, in columns, on root; nothing elsewhere. Collective.

    more: further columns by their names.
    """
    row = {
        "rank": str(world.rank), "node": device.node, "local": str(device.local_rank),
        "bound to": _ranges(device.bound), "runs on": _ranges(device.cores), "device": device.name, "GPUs": device.gpus,
        "free": f"{device.memory / 1e9:.1f} GB", **more,
    }  # fmt: skip
    rows = world.gather(row)
    return in_columns([list(row), *(list(row.values()) for row in rows)]) if rows else []


def _ranges(cores: tuple[int, ...]) -> str:
    """(0, 1, 2, 5) as 0-2,5."""
    runs = [[core for _, core in run] for _, run in groupby(enumerate(cores), lambda item: item[1] - item[0])]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
