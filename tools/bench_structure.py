#!/usr/bin/env python
"""What minimisations of structures cost: gradients beside OpenMM and plain JAX, many replicas at once, networks, ranks.

Usage: tools/bench_structure.py [gradients] [batch] [coordinates] [ranks] [--rounds 5] [--data ../shared/data/structure]

All sections, or those that are named, in float64 on one thread. CPU seconds, medians of rounds that take turns; ratios
are the figures to look at.

    gradients    an energy with its gradient: of chignolin with GBn2 and in vacuum beside OpenMM's platforms CPU
                 (float32) and Reference (float64), of loops and clusters beside what one would write in JAX
    batch        a gradient of 32 replicas at once, each, beside one alone
    coordinates  a step of each parametrisation (charts and optimizer included) beside one in all positions
    ranks        the wall time of a run on one rank and on two
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}

import jax
import jax.numpy as jnp
import numpy as np
import openmm

from hpcfit.kinds.structure.config import MethodConfig
from hpcfit.kinds.structure.landscapes.clusters import Cluster
from hpcfit.kinds.structure.landscapes.loops import Loops
from hpcfit.kinds.structure.landscapes.system import SystemLandscape
from hpcfit.kinds.structure.methods import phases
from hpcfit.kinds.structure.minimisations import Minimisations, Replicas, energies_and_slopes
from hpcfit.kinds.structure.starts import laplacian_gaussian, random
from hpcfit.ranks import Ranks
from hpcfit.testsystems.claims import Claim, table

jax.config.update("jax_enable_x64", True)

REPLICAS, BUDGET = 32, 200
ENOUGH = 0.2  # seconds of a measurement
CONFIG = """
[run]
directory = "run"
report = false
[problem]
kind = "structure"
replicas = 16
block = 4
budget = 1000
energy = {form = "loops", n = 400}
start = {kind = "chain"}
[[problem.method]]
name = "preconditioned"
parametrisation = "precond"
"""


def per_call(function: Callable[[], object]) -> float:
    """CPU seconds of a call, of as many as fill ``ENOUGH``."""
    calls, begun = 0, time.process_time()
    while (spent := time.process_time() - begun) < ENOUGH:
        function()
        calls += 1
    return spent / calls


def in_turns(rounds: int, ways: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Medians of rounds in which all ways take turns, after one call each."""
    for way in ways.values():
        way()
    found = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(per_call(way))
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def by_openmm(landscape: SystemLandscape, platform: str) -> Callable[[], object]:
    """Energy and forces by a platform of OpenMM."""
    system = openmm.XmlSerializer.deserialize(landscape.facts.xml)
    options = {"Threads": "1"} if platform == "CPU" else {}
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform), options)

    def evaluate() -> object:
        context.setPositions(landscape.native)
        return context.getState(getEnergy=True, getForces=True).getForces(asNumpy=True)

    return evaluate


def plain_loops(n: int) -> Callable:
    """The energy of a pure loop in the order of its chain, as one would write it."""
    number = np.arange(n)
    apart = np.abs(number[:, None] - number)
    weight, other = (apart == 1) + 0.1 * (apart == 10), (apart != 0) & (apart != 1) & (apart != 10)

    def energy(x):
        r2 = jnp.sum((x[:, None] - x[None]) ** 2, axis=-1) + jnp.eye(n)
        r = jnp.sqrt(r2)
        well = 1 / (r2**6 + 1e-2) - 1 / (r2**3 + 6e-2)
        return jnp.sum(weight * well) / 2 / (2 * n - 11) + 2.5e-3 * jnp.sum(other / (r + 1e-2)) / np.sum(other)

    return energy


def plain_cluster(x):
    """The energy of a Lennard-Jones cluster, as one would write it."""
    n = len(x)
    inverse = (jnp.sum((x[:, None] - x[None]) ** 2, axis=-1) + jnp.eye(n)) ** -3
    return 2 * jnp.sum((inverse * (inverse - 1)) * (1 - jnp.eye(n)))


def evaluated(landscape, x: np.ndarray) -> Callable[[], object]:
    """Energy and gradient as methods ask for them."""
    return lambda: landscape.evaluated(x[None], 0.0)


def gradients(rounds: int, data: Path) -> list[Claim]:
    """An energy and its gradient."""
    claims = []
    for name, field in (("GBn2", ("amber14-all.xml", "implicit/gbn2.xml")), ("vacuum", ("amber14-all.xml",))):
        protein = SystemLandscape.of_structure(data / "CLN025.pdb", field)
        ways = {platform: by_openmm(protein, platform) for platform in ("CPU", "Reference")}
        found = in_turns(rounds, {"ours": evaluated(protein, protein.native)} | ways)
        said = ", ".join(f"{found['ours'] / found[way]:.2f} of OpenMM's {way}" for way in ways)
        claims.append(Claim(f"chignolin, {name}, {protein.n} atoms", "", f"{1e3 * found['ours']:.2f} ms: {said}"))
    for n in (100, 400, 1000):
        own = {"loop": (Loops.of(n, seed=None), plain_loops(n)), "cluster": (Cluster.of(n), plain_cluster)}
        for name, (landscape, energy) in own.items():
            x = random(n, 3, n ** (1 / 3), 0)
            plain = jax.jit(jax.value_and_grad(energy))
            found = in_turns(
                rounds,
                {"ours": evaluated(landscape, x), "plain": lambda plain=plain, x=x: jax.block_until_ready(plain(x))},
            )
            np.testing.assert_allclose(plain(x)[0], landscape.evaluated(x[None], 0.0)[0][0], rtol=1e-9)
            said = f"{1e3 * found['ours']:.2f} ms: {found['ours'] / found['plain']:.2f} of plain JAX"
            claims.append(Claim(f"{name} of {n}", "", said))
    return claims


def batch(rounds: int, data: Path) -> list[Claim]:
    """Many replicas at once."""
    claims = []
    protein = SystemLandscape.of_structure(data / "CLN025.pdb")
    for name, landscape in (("loop of 100", Loops.of(100)), ("LJ38", Cluster.of(38)), ("chignolin, GBn2", protein)):
        x = np.stack([random(landscape.n, 3, landscape.n ** (1 / 3), 0, k) for k in range(REPLICAS)])
        ways = {
            "many": lambda landscape=landscape, x=x: energies_and_slopes(landscape, x),
            "one": evaluated(landscape, x[0]),
        }
        found = in_turns(rounds, ways)
        each = found["many"] / REPLICAS
        said = f"{1e3 * each:.3f} ms each: {each / found['one']:.2f} of one alone"
        claims.append(Claim(f"{name}, {REPLICAS} replicas", "", said))
    return claims


def coordinates(rounds: int, data: Path) -> list[Claim]:
    """A gradient of a whole minimisation, in each parametrisation."""
    loop = Loops.of(400)
    weights, claims = loop.couplings(), []
    starts = lambda numbers: np.stack([laplacian_gaussian(weights, 3, 0, int(n)) for n in numbers])  # noqa: E731
    methods = {
        "all positions": {}, "precond": {"parametrisation": "precond"},
        "slow modes": {"parametrisation": "linear", "share": 0.99},
        "gcn": {"parametrisation": "gnn", "share": 0.99},
        "mlp": {"parametrisation": "gnn", "network": "mlp", "share": 0.99},
    }  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in methods}
    for turn in range(rounds + 1):
        for name, options in methods.items():
            method = MethodConfig(name=name, optimizer="adam", tolerance=0.0, cap=0.0, **options)
            parts = phases(method, loop, weights, BUDGET)
            work = Minimisations(loop, starts, parts, Replicas(4, 4, BUDGET, 0), Ranks())
            begun = time.process_time()
            for _ in work.run([0]):
                pass
            if turn:  # the first compiles
                found[name].append((time.process_time() - begun) / (4 * BUDGET))
    for name, seconds in found.items():
        ratios = [own / plain for own, plain in zip(seconds, found["all positions"])]
        said = f"{1e3 * statistics.median(seconds):.2f} ms: {statistics.median(ratios):.2f} of all positions"
        claims.append(Claim(f"loop of 400, Adam, {name}", "", said))
    return claims


def ranks(rounds: int, data: Path) -> list[Claim]:
    """A run on one rank and on two."""
    with tempfile.TemporaryDirectory() as name:
        config = Path(name) / "config.toml"
        config.write_text(CONFIG)
        command = [sys.executable, "-m", "hpcfit", "optimize", str(config), "--overwrite"]
        wall: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(rounds):
            for size, seconds in wall.items():
                begun = time.monotonic()
                launcher = [] if size == 1 else ["mpiexec", "-n", str(size)]
                subprocess.run([*launcher, *command], check=True, capture_output=True)
                seconds.append(time.monotonic() - begun)
    ratios = [one / two for one, two in zip(wall[1], wall[2])]
    said = f"{statistics.median(wall[1]):.1f} s and {statistics.median(wall[2]):.1f} s: {statistics.median(ratios):.2f}"
    return [Claim("16 loops of 400, 1 and 2 ranks, with their start", "", f"{said}; load {os.getloadavg()[0]:.1f}")]


SECTIONS = {"gradients": gradients, "batch": batch, "coordinates": coordinates, "ranks": ranks}


def main() -> None:
    """All sections that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help=", ".join(SECTIONS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data/structure")
    chosen = parser.parse_args()
    parts = (SECTIONS[name](chosen.rounds, chosen.data) for name in chosen.sections or SECTIONS)
    print(table([claim for part in parts for claim in part]))


if __name__ == "__main__":
    main()
