"""The hardware of a rank: its device, its threads, and the bandwidth of its memory."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from hpcfit.config import RunConfig
from hpcfit.errors import InputError
from hpcfit.launcher import local_rank
from hpcfit.log import logger
from hpcfit.ranks import Ranks

# jax 0.10.2 and some later versions compute wrong numbers under jit on CPUs (jax issue 39103).
SELF_TEST_SIZE = 32771
KEPT = 1 << 30  # bytes of freed memory that a process keeps, and of an allocation that the system is asked for directly
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h


@dataclass(frozen=True)
class Device:
    """The processor or GPU that a rank computes on.

    name: as JAX says; node: its host, or what Slurm calls it; local_rank: the rank's number on the node;
    bound: the cores that the launcher left the rank; cores: those of them that it runs on;
    gpus: which the launcher showed it, and the one that it took; memory: bytes free to it.
    """

    platform: str
    name: str
    node: str
    local_rank: int
    bound: tuple[int, ...]
    cores: tuple[int, ...]
    gpus: str
    memory: int


def choose_device(run: RunConfig, ranks: Ranks) -> Device:
    """Pin this rank to its share of the node before JAX looks for devices, start JAX, and test it. Collective.

    A node's ranks share its cores: each gets ``threads`` of those that the launcher left it, chosen by its place on the
    node. GPUs likewise: where several are visible, each rank sees the one of its number on the node.
    """
    keep_freed_memory()
    node, launched = ranks.node(), local_rank()
    number = node.rank if launched is None else launched
    bound = tuple(sorted(os.sched_getaffinity(0)))
    cores = _pin_threads(run.threads, bound, node)
    import jax

    jax.config.update("jax_enable_x64", True)
    if run.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    gpus = "not used" if run.device == "cpu" else _see_one_gpu(number)
    device = ranks.on_all(lambda: _started(run))
    return Device(
        device.platform, f"{device.device_kind} {device.id}", node_name(), number, bound, cores, gpus,
        _free_memory(device, node.size),
    )  # fmt: skip


def keep_freed_memory() -> None:
    """Have malloc keep what is freed for the next allocation, as far as it can be told so; before threads are started.

    XLA allocates its temporary arrays anew in each call. Given back to the system in between, every page of them is
    zeroed and mapped again: with 66 MB as long as the pull-back of one cell takes (`tools/bench_one_cell.py`).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)  # an arena of another thread than the main one ends at 64 MB
        mallopt(M_MMAP_THRESHOLD, KEPT)
        mallopt(M_TRIM_THRESHOLD, KEPT)


def node_name() -> str:
    """Slurm's name of this node, or the name of the host outside of Slurm."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def _started(run: RunConfig) -> Any:
    """JAX's device, on which it computes right."""
    import jax

    device = jax.local_devices()[0]
    if run.device == "gpu" and device.platform == "cpu":
        raise InputError(
            "[run] device = 'gpu': JAX finds none on this rank",
            remedy="use device = 'cpu' or 'auto', or install the extra hpcfit[cuda12] or [cuda13] where there is a GPU",
        )
    check_arithmetic()
    return device


def _pin_threads(threads: int, available: tuple[int, ...], node: Ranks) -> tuple[int, ...]:
    """The cores of this rank; XLA sizes its thread pool by them when it starts."""
    threadpoolctl.threadpool_limits(threads)
    masks = node.bcast(node.gather(available))
    # Begin at the core that the system has put the first rank on: jobs that share a node do not know of each other, and
    # would all take the same.
    begin = node.bcast(available.index(_current_core()))
    together = len(set().union(*masks))
    if node.is_root and threads * node.size > together and node.size > 1:
        logger.warning(
            "%d ranks with %d threads each share %d cores of this node: they slow each other down",
            node.size, threads, together,
        )  # fmt: skip
    if len(available) <= threads:
        return available  # the launcher has bound this rank already, or there is no more to share out
    # Ranks that the launcher left the same cores divide them.
    first = (begin + masks[: node.rank].count(available) * threads) % len(available)
    cores = (available * 2)[first : first + threads]
    os.sched_setaffinity(0, cores)
    return cores


def _see_one_gpu(number: int) -> str:
    """Let JAX see the GPU of this number on the node alone, since it would open a context on each; says which."""
    names = _visibility()
    for outer, name in enumerate(names):
        visible = [item for item in os.environ.get(name, "").split(",") if item]
        if len(visible) > 1:
            os.environ[name] = visible[number % len(visible)]
            for inner in names[outer + 1 :]:
                os.environ.pop(inner, None)  # it counts among those that the outer one shows
            return f"{name}={','.join(visible)} -> {os.environ[name]}"
    shown = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name)]
    if not shown and (count := len(glob.glob("/dev/nvidia[0-9]*"))) > 1:
        import jax

        jax.config.update("jax_cuda_visible_devices", str(number % count))
        return f"all {count} of the node -> {number % count}"
    return " ".join(shown) or "none named"


def _visibility() -> tuple[str, ...]:
    """The variables that say which GPUs a process sees, the outermost first."""
    amd = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
    return amd if os.path.exists("/dev/kfd") else ("CUDA_VISIBLE_DEVICES",)


def _current_core() -> int:
    """Of this process's main thread."""
    import psutil

    return psutil.Process().cpu_num()


def _free_memory(device: Any, ranks_on_node: int) -> int:
    statistics = device.memory_stats() if device.platform != "cpu" else None
    if statistics and "bytes_limit" in statistics:
        return int(statistics["bytes_limit"] - statistics.get("bytes_in_use", 0))
    import psutil

    return min(psutil.virtual_memory().available, _control_group_limit()) // ranks_on_node


def _control_group_limit() -> int:
    """What the scheduler allows this job (cgroup version 2 or 1), bytes."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            return int(Path(path).read_text(encoding="utf-8"))
    return sys.maxsize


def check_arithmetic() -> None:
    """Refuse to compute with a JAX that miscompiles (a sum of squares of rotated vectors, under jit and vmap)."""
    import jax
    import jax.numpy as jnp

    r = np.arange(3.0 * SELF_TEST_SIZE).reshape(-1, 3) % 7
    found = jax.jit(jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2)))(r)
    wrong = int(np.sum(np.asarray(found) != (r**2).sum(axis=1)))
    if wrong:
        raise InputError(
            f"jax {jax.__version__} computes wrong numbers here: {wrong} of {len(r)} results of the self-test differ",
            remedy="install jax==0.10.1 and jaxlib==0.10.1",
        )


def memory_bandwidth(megabytes: int = 256, repeats: int = 3) -> float:
    """Bytes per second at which this rank reads its memory.

    The best of a few sums over an array larger than any cache.
    """
    import jax
    import jax.numpy as jnp

    values = jnp.ones((megabytes << 6, 4096), jnp.float32)
    # Lanes are added side by side: one running sum would measure the latency of an addition.
    stream = jax.jit(lambda v: jax.lax.fori_loop(0, v.shape[0], lambda i, s: s + v[i], jnp.zeros(4096, jnp.float32)))
    jax.block_until_ready(stream(values))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(stream(values))
        times.append(time.perf_counter() - start)
    return values.nbytes / min(times)
