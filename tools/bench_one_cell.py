"""What a rank with a single cell costs: two blocks of windows of a simulation, on one rank and on two.

Usage: tools/bench_one_cell.py [--rounds N]. Prints CPU seconds of a value and of a gradient (Reverse, Forward) for each
rank, the ratio of a rank with one cell to the rank with both, and the floor of that ratio, 1/2. Runs alternate, medians
are printed, and every loss is compared: it has the same bits on one and on two ranks. A rank that waits for the other
spins, and that counts: on a machine with other work the ratio says nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.fit.by_blocks import Forward, Reverse
from hpcfit.fit.gradient import Frames
from hpcfit.fit.grid import Shape, make_grid
from hpcfit.fit.problem import FrameRows, Params
from hpcfit.fit.reduction import ReproducibleSum
from hpcfit.machine import keep_freed_memory
from hpcfit.pytrees import pytree
from hpcfit.ranks import world_ranks
from hpcfit.store.stream import Chunk

ATOMS, STEPS, WIDTH = 16, 400, 6
WAYS = {"value": (Reverse, True), "gradient, Reverse": (Reverse, False), "gradient, Forward": (Forward, False)}
WORKER = "--worker"


@pytree
@dataclass(frozen=True)
class Windows:
    """Atoms that repel each other, in windows of overdamped dynamics; their mean square distance is fitted."""

    tiles: Any

    def gauge(self, params, frames, reduce):
        return params

    def of_frames(self, params, block):
        return jnp.sum(jnp.where(block.ids >= 0, 1.0, 0.0))

    def partial(self, params, cell):
        energy = lambda x: jnp.sum(jnp.exp(-_squares(x) / params.shared["width"] ** 2)) * params.shared["height"]  # noqa: E731

        def window(x):
            move = lambda _, x: x - 0.01 * jax.grad(energy)(x)  # noqa: E731
            return jnp.mean(_squares(jax.lax.scan(lambda x, n: (move(n, x), None), x, jnp.arange(STEPS))[0]))

        return jnp.sum(jnp.where(cell.ids >= 0, jax.lax.map(window, cell.data), 0.0))

    def summary(self, statistics, shared, tile):
        return statistics.sliced / statistics.common

    def loss(self, sums, common, shared):
        return (sums - 1.0) ** 2

    def metrics(self, sums, common, shared):
        return {}


def _squares(x: jax.Array) -> jax.Array:
    return jnp.sum((x[:, None] - x[None]) ** 2, axis=-1)


def worker(rounds: int) -> None:
    """Time the ways on this rank's cells; root prints what all ranks measured as JSON."""
    keep_freed_memory()  # as every command does
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[world_ranks().rank % os.cpu_count()]})
    jax.config.update("jax_enable_x64", True)
    ranks = world_ranks()
    grid = make_grid(ranks, Shape(ranks.size, 1, ""), 2, 1)
    mine = slice(grid.blocks.start, grid.blocks.stop)
    data = np.random.default_rng(0).standard_normal((1, 2, WIDTH, ATOMS, 3))[:, mine]
    ids = np.arange(2 * WIDTH).reshape(2, WIDTH)[mine]
    rows = FrameRows(ids, 2 * WIDTH)
    chunk = Chunk(slice(0, len(ids)), slice(0, 1), data)
    params = Params({"height": np.array(0.3), "width": np.array(1.2)}, {})
    found = {}
    for name, (kind, only_value) in WAYS.items():
        evaluate = kind(Windows(np.zeros(1)), Frames(rows, lambda: iter([chunk])), grid, ReproducibleSum(grid))
        call = evaluate.value if only_value else evaluate
        loss, seconds = call(params).loss, []
        for _ in range(rounds):
            before = time.process_time()
            call(params)
            seconds.append(time.process_time() - before)
        found[name] = (loss, ranks.gather(statistics.median(seconds)))
    if ranks.is_root:
        print(json.dumps(found))


def measured(ranks: int, rounds: int) -> dict[str, tuple[float, list[float]]]:
    """The medians of so many ranks."""
    mpiexec = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or "mpiexec"
    command = [mpiexec, "-n", str(ranks), sys.executable, __file__, WORKER, "--rounds", str(rounds)]
    threads = {"OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | threads)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument(WORKER, action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        worker(chosen.rounds)
        return
    runs = [(measured(1, chosen.rounds), measured(2, chosen.rounds)) for _ in range(3)]
    print(f"{'CPU-s an evaluation':22s} {'1 rank, 2 cells':>16s} {'2 ranks, 1 cell each':>22s} {'ratio':>6s}  floor")
    for name in WAYS:
        assert len({run[name][0] for pair in runs for run in pair}) == 1, f"{name}: losses differ between ranks"
        one = statistics.median(alone[name][1][0] for alone, _ in runs)
        each = statistics.median(max(both[name][1]) for _, both in runs)
        ratio = statistics.median(max(both[name][1]) / alone[name][1][0] for alone, both in runs)
        print(f"{name:22s} {one:16.4f} {each:22.4f} {ratio:6.2f}   0.50")


if __name__ == "__main__":
    main()
