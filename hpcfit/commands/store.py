"""`hpcfit store info` and `hpcfit store verify`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from hpcfit.config import ClusterConfig
from hpcfit.errors import EXIT_INPUT
from hpcfit.log import logger
from hpcfit.store.catalog import Store, open_store, verify_shard
from hpcfit.store.force_store import FORCES, ForceStore, open_force_store, verify_force_shard
from hpcfit.store.shard_list import content_of


def run_info(folder: Path) -> None:
    """Print what is in a store: frames of each source, bytes, and reflections, cell and encoding, or particles."""
    from rich.console import Console
    from rich.table import Table

    store = _opened(folder)
    console = Console()
    facts = _force_facts(store) if isinstance(store, ForceStore) else _facts(store)
    for name, value in facts.items():
        console.print(f"{name:<14} {value}", highlight=False)
    table = Table("source", "label", "frames", "frame ids", "shards", "MB")
    for source in dict.fromkeys(shard.source for shard in store.shards):
        shards = [shard for shard in store.shards if shard.source == source]
        frames, last = sum(s.frames for s in shards), shards[-1]
        ids = f"{shards[0].first_id} to {last.first_id + last.frames - 1}"
        table.add_row(
            source, shards[0].label, str(frames), ids, str(len(shards)), f"{sum(s.bytes for s in shards) / 1e6:.1f}"
        )
    console.print(table)


def _opened(folder: Path) -> Store | ForceStore:
    return open_force_store(folder) if content_of(folder) == FORCES else open_store(folder)


def _force_facts(store: ForceStore) -> dict[str, str]:
    particles, constraints = store.particles, store.particles.constraints
    known = "constraints unknown" if constraints is None else f"{len(constraints)} constraints"
    facts = {
        "store": f"{store.folder}, {store.bytes / 1e6:.1f} MB in {len(store.shards)} shards",
        "frames": str(store.n_frames),
        "particles": f"{len(particles)} in {particles.n_residues} residues, {len(particles.bonds)} bonds, {known}",
        "box": "periodic" if store.periodic else "none",
        "stored as": "positions (A) and forces (kJ/mol/A) in float32, H5MD",
    }
    made_from = ", ".join(f"{name} = {value}" for name, value in store.made_from.items())
    return facts | ({"made from": made_from} if made_from else {})


def _facts(store: Store) -> dict[str, str]:
    from hpcfit.physics.reciprocal import inverse_d2

    reflections, encoding = store.reference.reflections, store.encoding
    inverse_d = np.sqrt(inverse_d2(reflections.hkl, reflections.ndiv, reflections.cell))
    rounded = "" if encoding.mantissa_bits is None else f", mantissas rounded to {encoding.mantissa_bits} bits"
    return {
        "store": f"{store.folder}, {store.bytes / 1e6:.1f} MB in {len(store.shards)} shards",
        "frames": str(store.n_frames),
        "reflections": f"{len(reflections)}, to {1 / inverse_d.max():.3f} A",
        "cell": " ".join(f"{value:.3f}" for value in reflections.cell) + f", {reflections.space_group}",
        "ndiv": " ".join(map(str, reflections.ndiv)),
        "stored as": f"(F - F0) / s in {encoding.dtype}{rounded}, compression {encoding.compression}",
    }


def run_verify(folder: Path, cluster: ClusterConfig | None = None) -> int:
    """Compare every checksum, in this process or on a cluster; returns the exit code."""
    store = _opened(folder.resolve())  # workers may stand in another folder
    problems = _problems(store, cluster)
    for problem in problems:
        logger.error("%s", problem)
    if problems:
        logger.error(
            "%d damaged parts in %s: delete the shards named above and run `hpcfit prepare` again",
            len(problems),
            folder,
        )
        return EXIT_INPUT
    logger.info("%s: %d frames in %d shards are as they were written", folder, store.n_frames, len(store.shards))
    return 0


def _problems(store: Store | ForceStore, cluster: ClusterConfig | None) -> list[str]:
    check = verify_force_shard if isinstance(store, ForceStore) else verify_shard
    numbers = range(len(store.shards))
    if cluster is None:
        return [problem for number in numbers for problem in check(store, number)]
    from hpcfit.workflow.cluster.opening import open_cluster

    with open_cluster(cluster, "verify") as crew:
        found = crew.map(partial(check, crew.share(store)), numbers)
    return [problem for problems in found for problem in problems]
