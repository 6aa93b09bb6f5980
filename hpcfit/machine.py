"""What a rank stands on: its device, its threads, and the bandwidth of its memory."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np
import threadpoolctl

from hpcfit.config import RunConfig
from hpcfit.errors import InputError
from hpcfit.log import logger
from hpcfit.ranks import Ranks, local_rank

# jax 0.10.2 and some later versions compute wrong numbers under jit on CPUs (jax issue 39103).
SELF_TEST_SIZE = 32771


@dataclass(frozen=True)
class Device:
    """Where a rank computes. name: as JAX says; cores: the processors it may run on; memory: bytes free to it."""

    platform: str
    name: str
    cores: tuple[int, ...]
    memory: int


def choose_device(run: RunConfig, ranks: Ranks) -> Device:
    """Pin this rank to its share of the node before JAX looks for devices, start JAX, and test it. Collective.

    A node's ranks share its cores: each gets ``threads`` of those that the launcher left it, chosen by its rank on the
    node. GPUs likewise, where several are visible.
    """
    node = ranks.node()
    place = node.rank if node.size > 1 else local_rank()
    cores = _pin_threads(run.threads, place, node.size)
    _show_one_gpu(place)
    import jax

    jax.config.update("jax_enable_x64", True)
    if run.device != "auto":
        jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda,rocm"}[run.device])
    try:
        device = jax.local_devices()[0]
    except RuntimeError as error:
        raise InputError(
            f"[run] device = '{run.device}': JAX finds none ({str(error).splitlines()[0]})",
            remedy="use device = 'cpu' or 'auto', or install the extra hpcfit[cuda12]",
        ) from None
    check_arithmetic()
    return Device(device.platform, f"{device.device_kind} {device.id}", cores, _free_memory(device, node.size))


def _pin_threads(threads: int, place: int, ranks_on_node: int) -> tuple[int, ...]:
    """The cores of this rank; XLA sizes its thread pool by them when it starts."""
    available = sorted(os.sched_getaffinity(0))
    threadpoolctl.threadpool_limits(threads)
    if threads * ranks_on_node > len(available) and ranks_on_node > 1 and place == 0:
        logger.warning(
            "%d ranks with %d threads each share %d cores of this node: they slow each other down",
            ranks_on_node,
            threads,
            len(available),
        )
    if len(available) <= threads:
        return tuple(available)  # the launcher has bound this rank already, or there is no more to share out
    first = place * threads % len(available)
    cores = tuple((available * 2)[first : first + threads])
    os.sched_setaffinity(0, cores)
    return cores


def _show_one_gpu(place: int) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        visible = [item for item in os.environ.get(name, "").split(",") if item]
        if len(visible) > 1:
            os.environ[name] = visible[place % len(visible)]


def _free_memory(device, ranks_on_node: int) -> int:
    statistics = device.memory_stats() if device.platform != "cpu" else None
    if statistics and "bytes_limit" in statistics:
        return int(statistics["bytes_limit"] - statistics.get("bytes_in_use", 0))
    import psutil

    return psutil.virtual_memory().available // ranks_on_node


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

    values = jnp.ones((megabytes << 18) // 4096 * 4096, jnp.float32).reshape(-1, 4096)
    # Lanes are added side by side: one running sum would measure the latency of an addition.
    stream = jax.jit(lambda v: jax.lax.fori_loop(0, v.shape[0], lambda i, s: s + v[i], jnp.zeros(4096, jnp.float32)))
    jax.block_until_ready(stream(values))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(stream(values))
        times.append(time.perf_counter() - start)
    return values.nbytes / min(times)
