#!/usr/bin/env python
"""What force maps cost: the passes over frames beside plain reads, the solver beside OSQP, and the memory of a run.

Usage: tools/bench_force_map.py [--case 500x10x4096 --case 2000x100x1024] [--rounds 5] [--osqp 2]
                                [--memory 10000,100000]

A case is atoms x beads x frames, of made-up forces: each bond pulls its two atoms, 45 % of the atoms are hydrogens with
a constrained bond. One thread. In rounds that take turns in one process, over files that are in memory:

    read      plain HDF5: positions and forces of all shards, 64 frames at a time
    gram      the first pass of `hpcfit optimize`: frames read and checked, products of reduced forces added
    gemm      the matrix products of the first pass alone, of forces that are in memory: its floor

Then the solve of all beads from the products, beside qpsolvers with OSQP (polished) on as many of the beads as --osqp
says, scaled to all of them; the largest difference of the coefficients; and, for the numbers of frames of --memory, 60
atoms and 10 beads, the peak memory of `hpcfit optimize` as a process of its own, and the rates of its passes.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

# Before any thread pool is made, here and in the children.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}

import h5py
import numpy as np

from hpcfit.config import BLOCK_FRAMES
from hpcfit.fit.grid import Shape, make_grid
from hpcfit.kinds.force_map.case import ForceMapCase
from hpcfit.kinds.force_map.maps import optimal_map
from hpcfit.kinds.force_map.passes import ProductsPass
from hpcfit.kinds.table import load_config
from hpcfit.ranks import world_ranks
from hpcfit.store.catalog import write_catalog
from hpcfit.store.forces import ForceContent, ForceFrames
from hpcfit.store.particles import Particles
from hpcfit.store.positions import write_frames
from hpcfit.store.shard import Origin, ShardPlan
from hpcfit.testsystems.claims import Claim, below, table

CASES = ("500x10x4096", "2000x100x1024")
THEIRS = {500: (0.2, 0.01), 2000: (87.0, 0.5)}  # atoms: the reference's CPU-seconds of a solve, and what ours may take
SHARD_FRAMES = 1024
SAME = 1e-8  # of coefficients by the two solvers
CONFIG = """[run]
directory = "run"
report = false
[frames]
store = "store"
[problem]
kind = "force-map"
bootstrap = 0
[problem.beads]
each = "name CA"
[problem.constraints]
check = false
[problem.map]
methods = ["basic", "optimal"]
ridge = 0.0
"""


class Case(NamedTuple):
    """A store on the disk. folder: with config.toml and store/."""

    atoms: int
    beads: int
    frames: int
    folder: Path

    @property
    def name(self):
        return f"{self.atoms} atoms, {self.beads} beads"


# ---- the data ------------------------------------------------------------------------------------------------------


def make_case(folder, atoms, beads, frames):
    """Write it: a tree of heavy atoms, each of the hydrogens on one of them; beads on heavy atoms spread evenly."""
    random = np.random.default_rng(0)
    hydrogens = int(0.45 * atoms)
    heavy = atoms - hydrogens
    parents = np.maximum(np.arange(1, heavy) - random.integers(1, 4, heavy - 1), 0)
    tree = np.column_stack([parents, np.arange(1, heavy)])
    held = np.column_stack([random.integers(0, heavy, hydrogens), np.arange(heavy, atoms)])
    bonds = np.concatenate([tree, held])
    alpha = np.linspace(0, heavy - 1, beads).round().astype(int)
    names = np.where(np.isin(np.arange(atoms), alpha), "CA", "X")
    particles = Particles(
        tuple(map(str, names)), ("C",) * heavy + ("H",) * hydrogens, np.zeros(atoms, int), ("MOL",), (1,), ("A",),
        np.where(np.arange(atoms) < heavy, 12.0, 1.0), bonds, held,
    )  # fmt: skip
    folder.mkdir()
    write_store(folder / "store", particles, frames, random)
    (folder / "config.toml").write_text(CONFIG)
    return Case(atoms, beads, frames, folder)


def write_store(folder, particles, frames, random):
    """A shard at a time."""
    place = random.normal(0, 10, (len(particles), 3))
    content = ForceContent.of(particles, periodic=False)
    content.begin(folder, {})
    plans = []
    for first in range(0, frames, SHARD_FRAMES):
        count = min(SHARD_FRAMES, frames - first)
        name = f"frames.{first:07d}.h5"
        digest = hashlib.sha256(name.encode()).hexdigest()
        plan = ShardPlan(name, "frames", "", "frames", first, first, first + count, digest)
        found = ForceFrames(
            (place + random.normal(0, 0.1, (count, *place.shape))).astype(np.float32),
            made_up_forces(particles.bonds, len(particles), count, random), None,
        )  # fmt: skip
        index = np.arange(first, first + count)
        write_frames(folder, plan, content, found, Origin(index, ["frames"] * count, index, index.astype(float)))
        plans.append(plan)
    write_catalog(folder, plans, content)


def made_up_forces(bonds, atoms, frames, random):
    """[T, n, 3] float32: the pull of each bond on its two atoms, and a tenth as much on each atom alone."""
    pull = random.standard_normal((len(bonds), frames, 3), dtype=np.float32)
    forces = 0.1 * random.standard_normal((atoms, frames, 3), dtype=np.float32)
    np.add.at(forces, bonds[:, 0], pull)
    np.add.at(forces, bonds[:, 1], -pull)
    return np.ascontiguousarray(forces.transpose(1, 0, 2))


# ---- the first pass ------------------------------------------------------------------------------------------------


class Clock:
    """Wall and CPU seconds since it was made, of all threads."""

    def __init__(self):
        self._begun = time.perf_counter(), time.process_time()

    def __call__(self):
        return time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]


class FirstPass:
    """The three ways, and what they leave."""

    def __init__(self, case):
        self._case, self._map = case, ForceMapCase.open(load_config(case.folder / "config.toml"))
        self._grid = make_grid(world_ranks(), Shape(1, 1, ""), len(self._map.parts.blocks), self._map.n_tiles)
        self._forces = made_up_forces(self._map.particles.bonds, case.atoms, BLOCK_FRAMES, np.random.default_rng(1))

    def read(self):
        """All numbers of the shards, by h5py alone."""
        for path in sorted((self._case.folder / "store").glob("frames.*.h5")):
            with h5py.File(path) as file:
                datasets = [file[f"particles/trajectory/{name}/value"] for name in ("position", "force")]
                for first in range(0, len(datasets[0]), BLOCK_FRAMES):
                    for dataset in datasets:
                        dataset[first : first + BLOCK_FRAMES]

    def gram(self):
        """As ``kinds.force_map.study`` does it; the mean products [q, q]."""
        case = self._map
        work = ProductsPass(case.frames, case.products, [], None, self._grid, case.kT, case.config.run.reductions)
        for _ in work.run(range(work.n_units)):
            pass
        return work.product()["total"].sum(axis=0) / (3 * case.n_frames), case.reduced

    def gemm(self):
        """As many products as the pass has blocks."""
        products = self._map.products
        reduced = products.reduced(self._forces)
        for _ in self._map.parts.blocks:
            for tile in range(products.n_tiles):
                products.tile(reduced, tile)


def first_pass(case, rounds):
    """Rows of the three ways; the mean products, and the beads that they are of."""
    work = FirstPass(case)
    found = [work.read(), work.gram(), work.gemm()][1]  # fills the caches
    taken = {way: [] for way in ("read", "gram", "gemm")}
    for _ in range(rounds):
        for way, seconds in taken.items():
            clock = Clock()
            getattr(work, way)()
            seconds.append(clock())
    wall, cpu = ({way: median(pair[part] for pair in pairs) for way, pairs in taken.items()} for part in (0, 1))
    size = 24 * case.atoms * case.frames / 1e9
    rows = [
        Claim(f"{case.name}: {way}", "",
              f"{case.frames / wall[way]:8.0f} frames/s  {size / wall[way]:6.2f} GB/s   CPU {1e3 * cpu[way]:6.0f} ms")
        for way in taken
    ]  # fmt: skip
    each = list(zip(*taken.values()))
    ratio = median(gram[0] / read[0] for read, gram, _ in each)
    floor = median(gram[1] / (read[1] + gemm[1]) for read, gram, gemm in each)
    rows.append(Claim(f"{case.name}: time of the pass / of the read (wall)", "", f"{ratio:.2f}"))
    rows.append(Claim(f"{case.name}: CPU of the pass / of read + gemm", "", f"{floor:.2f}"))
    return rows, *found


# ---- the solver ----------------------------------------------------------------------------------------------------


def solvers(case, gram, reduced, rounds, sites):
    """Ours for all beads, OSQP for some, and how far they are apart."""
    optimal_map(gram, reduced)
    seconds = []
    for _ in range(rounds):
        del reduced.__dict__["equalities"]  # what a first solve makes of the beads counts as well
        clock = Clock()
        C = optimal_map(gram, reduced)
        seconds.append(clock()[1])
    theirs, found = by_osqp(gram, reduced, sites)
    scaled = theirs * case.beads / len(found)
    there, allowed = THEIRS.get(case.atoms, (None, np.inf))
    said = f"{there} s" if there else ""
    m = reduced.n_groups
    yield below(f"{case.name}, {m} groups: solve, CPU s", allowed, median(seconds), said)
    yield Claim(f"{case.name}: OSQP, CPU s ({len(found)} beads, scaled to all)", said, f"{scaled:.3g}")
    yield Claim(f"{case.name}: OSQP / ours", "", f"{scaled / median(seconds):.0f}")
    apart = float(np.abs(found - C[: len(found), :m]).max())
    yield below(f"{case.name}: largest difference of coefficients", SAME, apart)


def by_osqp(gram, reduced, sites):
    """CPU seconds and coefficients [sites, m] of the first beads."""
    import scipy.sparse
    from qpsolvers import solve_qp

    m = reduced.n_groups
    scale = np.trace(gram[:m, :m]) / m
    P, A = scipy.sparse.csc_matrix(gram[:m, :m] / scale), scipy.sparse.csc_matrix(reduced.A)
    clock, found = Clock(), []
    for e in np.eye(reduced.n_beads)[: min(sites, reduced.n_beads)]:
        options = {"eps_abs": 1e-10, "eps_rel": 1e-10, "polishing": True, "max_iter": 100_000}
        found.append(solve_qp(P, np.zeros(m), A=A, b=e, solver="osqp", **options))
    return clock()[1], np.array(found)


# ---- the memory of a run -------------------------------------------------------------------------------------------


def memory(folder, frames):
    """Peak bytes of an optimize, and frames a second of its second pass."""
    case = make_case(folder, 60, 10, frames)
    command = [sys.executable, "-m", "hpcfit", "optimize", case.folder / "config.toml"]
    with open(case.folder / "log", "w") as log:
        process = subprocess.Popen([*map(str, command)], stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit((case.folder / "log").read_text())
    passes = json.loads((case.folder / "run" / "metrics.json").read_text())["passes_of_frames"]
    seconds = {one["name"]: one["seconds"] for one in passes}
    return usage.ru_maxrss << 10, frames / seconds["products of forces"], frames / seconds["mapped frames"]


def memory_rows(folder, numbers):
    """A row a number of frames; the largest may take no more than a tenth more than the smallest."""
    peaks = []
    for frames in numbers:
        peak, first, second = memory(folder / f"memory_{frames}", frames)
        peaks.append(peak)
        rates = f"{peak / 1e6:.0f} MB, passes {first:.0f} and {second:.0f} frames/s"
        yield Claim(f"optimize of {frames} frames x 60 atoms, 10 beads: peak memory", "", rates)
    if len(peaks) > 1:
        yield below("memory of the last / of the first", 1.1, peaks[-1] / peaks[0])


def median(values):
    return statistics.median(values)


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help="ATOMSxBEADSxFRAMES, several times")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--osqp", type=int, default=2, help="beads that OSQP solves")
    parser.add_argument("--memory", default="10000,100000", help="numbers of frames; empty: none")
    return parser.parse_args()


def main():
    chosen, claims = options(), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for words in chosen.case or CASES:
            case = make_case(folder / words, *map(int, words.split("x")))
            rows, gram, reduced = first_pass(case, chosen.rounds)
            claims += [*rows, *solvers(case, gram, reduced, chosen.rounds, chosen.osqp)]
        claims += memory_rows(folder, [int(word) for word in chosen.memory.split(",") if word])
    print(table(claims))
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
