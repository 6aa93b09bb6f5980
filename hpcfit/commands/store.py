"""`hpcfit store info` and `hpcfit store verify`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from hpcfit.characters import in_one_line
from hpcfit.config import ClusterConfig
from hpcfit.config.frames import LATER
from hpcfit.errors import EXIT_INPUT
from hpcfit.log import logger
from hpcfit.store.catalog import Store, verify_shard
from hpcfit.store.contents import open_any_store


def run_info(folder: Path) -> None:
    """Print what is in a store: frames of each source, bytes, and reflections, cell and encoding, or particles."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    store = open_any_store(folder)
    console = Console()
    facts = {
        "store": f"{store.folder}, {store.bytes / 1e6:.1f} MB in {len(store.shards)} shards",
        "frames": str(store.n_frames),
        **store.content.facts(),
        **{key: value for key, value in store.content.begun_with(store.folder)[1].items() if key in LATER},
    }
    for name, value in facts.items():
        console.print(f"{name:<14} {in_one_line(value)}", highlight=False, markup=False)
    table = Table("source", "label", "frames", "frame ids", "shards", "MB")
    for source in dict.fromkeys(shard.source for shard in store.shards):
        shards = [shard for shard in store.shards if shard.source == source]
        frames, last = sum(s.frames for s in shards), shards[-1]
        ids = f"{shards[0].first_id} to {last.first_id + last.frames - 1}"
        table.add_row(
            *(Text(in_one_line(name)) for name in (source, shards[0].label)),
            *(str(frames), ids, str(len(shards)), f"{sum(s.bytes for s in shards) / 1e6:.1f}"),
        )
    console.print(table)


def run_verify(folder: Path, cluster: ClusterConfig | None = None) -> int:
    """Compare every checksum, in this process or on a cluster; returns the exit code."""
    store = open_any_store(folder.resolve())  # workers may stand in another folder
    problems = _problems(store, cluster)
    for problem in problems:
        logger.error("%s", problem)
    if problems:
        logger.error(
            "%d damaged parts in %s: delete the files named above and run `hpcfit prepare` again",
            len(problems),
            folder,
        )
        return EXIT_INPUT
    logger.info("%s: %d frames in %d shards are as they were written", folder, store.n_frames, len(store.shards))
    return 0


def _problems(store: Store, cluster: ClusterConfig | None) -> list[str]:
    numbers, of_view = range(len(store.shards)), filter(None, [store.content.view_objection(store.folder, store.id)])
    if cluster is None:
        return [*of_view, *(problem for number in numbers for problem in verify_shard(store, number))]
    from hpcfit.workflow.cluster.opening import open_cluster

    with open_cluster(cluster, "verify") as crew:
        found = crew.map(partial(verify_shard, crew.share(store)), numbers)
    return [*of_view, *(problem for problems in found for problem in problems)]
