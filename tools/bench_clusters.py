#!/usr/bin/env python
"""What the sums of the kind `clusters` cost, beside other programs.

Usage: tools/bench_clusters.py debye [--atoms 1000 5000 20000]
       tools/bench_clusters.py extraction [--data ../shared/data/clusters]

extraction: clusters of a frame of pbi64_langevin.h5, and of 3 x 3 x 3 replicas of it with 12,096 particles: ions alone,
and with the shells of O in their labels; frames a CPU second, the median of ten frames, and the least that is aimed at.
The frames differ by the random order of particles, which no list of neighbours can profit from.

debye: I(q) of balls of a cubic lattice, 3.2 A, two species, 200 q of 0.02 to 1.2 1/A, jittered by 0.2 A and perfect.
CPU seconds of one thread, the lesser of two runs (exact sums: one), and the largest relative error over q against the
exact sum. Plain NumPy sums row by row, all rows at 1,000 atoms and every 20th at 5,000; at 20,000 plain NumPy and freud
are extrapolated by the number of pairs and marked *. freud's StaticStructureFactorDebye has no form factors: its error
is against f = 1. DebyeCalculator is measured where it is installed, in its default precision and batches, without
the Debye-Waller factor that it has by default; it gives half of I(q).
"""

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}

import h5py
import jax
import numpy as np

from hpcfit.kinds.clusters.composition import Roles
from hpcfit.kinds.clusters.extraction.cutoffs import cutoff_matrices
from hpcfit.kinds.clusters.extraction.frame import Finder
from hpcfit.kinds.clusters.extraction.participants import participants_of
from hpcfit.observables import pair_moments as pm
from hpcfit.observables.form_factors import amplitudes
from hpcfit.readers.topology import particles_of_elements
from hpcfit.testsystems.claims import Claim, below, table

jax.config.update("jax_enable_x64", True)

Q = np.linspace(0.02, 1.20, 200)
SPECIES = ("I", "Pb")
WIDTH = pm.bin_width(Q[-1])
MEASURED_PLAINLY = 5000  # atoms; beyond it plain sums are extrapolated


def ball(n: int, jitter: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions [n, 3] and species [n]."""
    axis = (np.arange(2 * round((n / 4) ** (1 / 3)) + 3) - round((n / 4) ** (1 / 3)) - 1) * 3.2
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    grid = grid[np.argsort(np.sum(grid**2, axis=1), kind="stable")[:n]]
    moved = grid + jitter * np.random.default_rng(1).standard_normal(grid.shape)
    return moved, np.where(np.arange(n) % 3 == 0, "Pb", "I")


def seconds(function: Callable, times: int = 2) -> tuple[float, np.ndarray]:
    """The least CPU seconds of some calls, and the result."""
    spent = []
    for _ in range(times):
        start = time.process_time()
        found = function()
        spent.append(time.process_time() - start)
    return min(spent), np.asarray(found)


def plain(x: np.ndarray, f: np.ndarray, rows: range) -> np.ndarray:
    """The pairs i < j of some rows in NumPy, [Q]. f: [Q, n]."""
    total = np.zeros(len(Q))
    for i in rows:
        r = np.linalg.norm(x[i + 1 :] - x[i], axis=1)
        total += f[:, i] * np.einsum("qj,qj->q", np.sinc(np.multiply.outer(Q / np.pi, r)), f[:, i + 1 :])
    return total


def plainly(x: np.ndarray, f: np.ndarray) -> float:
    """CPU seconds of all rows, from a sample of every 20th beyond 1,000 atoms."""
    n = len(x)
    rows = range(n) if n <= 1000 else range(0, n, 20)
    pairs = sum(n - 1 - i for i in rows)
    return seconds(lambda: plain(x, f, rows), 1)[0] * (n * (n - 1) / 2) / pairs


def freud_debye(x: np.ndarray) -> Callable:
    """A function that gives S(q), f = 1, of freud."""
    import freud

    freud.parallel.set_num_threads(1)
    box = freud.box.Box.cube(4 * np.ptp(x))
    at = (x - x.mean(axis=0)).astype(np.float32)

    def run() -> np.ndarray:
        one = freud.diffraction.StaticStructureFactorDebye(len(Q), Q[-1], Q[0])
        # Its grid are centres of bins; they are those that the error is taken at.
        return one.compute((box, at)).S_k, np.asarray(one.k_values)

    return run


def debye_calculator(x: np.ndarray, kinds: np.ndarray) -> Callable:
    """A function that gives I(q) of DebyeCalculator."""
    import torch
    from debyecalculator import DebyeCalculator

    torch.set_num_threads(1)
    one = DebyeCalculator(qmin=Q[0], qmax=Q[-1] + 1e-9, qstep=Q[1] - Q[0], biso=0.0, device="cpu")
    return lambda: 2 * np.asarray(one.iq((list(kinds), x.astype(np.float32)))[1])


def of_ball(n: int, jitter: float) -> list[Claim]:
    """The rows of one ball."""
    x, kinds = ball(n, jitter)
    f, name = amplitudes(SPECIES, Q), f"N = {n:,}, {'jittered' if jitter else 'perfect'}"
    moments = pm.pair_moments(x, kinds, SPECIES, WIDTH)
    atoms = moments.atoms.astype(float)
    pm.exact_pair_sums(x[:20], kinds[:20], SPECIES, Q)  # compiled
    cost, found = seconds(lambda: pm.mean_intensity(pm.pair_moments(x, kinds, SPECIES, WIDTH), f, Q))
    exact_cost, sums = seconds(lambda: pm.exact_pair_sums(x, kinds, SPECIES, Q), 1)
    exact = np.asarray(pm.intensity(atoms, sums, f, Q))
    error = float(np.max(np.abs(found / exact - 1)))
    claims = [
        below(f"{name}: moments, error", 1e-7 if jitter else 1e-6, error),
        Claim(f"{name}: moments", "", f"{cost:.3g} s"),
        Claim(f"{name}: exact kernel", "", f"{exact_cost:.3g} s"),
    ]
    if not jitter:
        return claims
    mark = ""
    if n <= MEASURED_PLAINLY:
        of_atoms = f[(kinds == "Pb").astype(int)].T
        plain_cost = plainly(x, of_atoms)
        if n <= 1000:
            whole = atoms @ f**2 + 2 * plain(x, of_atoms, range(n))
            claims.append(below(f"{name}: exact kernel against NumPy", 1e-12, float(np.max(np.abs(exact / whole - 1)))))
        freud_cost, _ = _freud(x)
        PLAIN[n], FREUD[n] = plain_cost, freud_cost
    else:
        mark, more = "*", (n / MEASURED_PLAINLY) ** 2
        plain_cost, freud_cost = (of.get(MEASURED_PLAINLY, np.nan) * more for of in (PLAIN, FREUD))
    claims.append(Claim(f"{name}: plain NumPy", "", f"{plain_cost:.4g} s{mark}, {plain_cost / cost:.3g} times ours"))
    claims.append(Claim(f"{name}: freud, f = 1", "", f"{freud_cost:.4g} s{mark}, {freud_cost / cost:.3g} times ours"))
    if n <= 1000:
        claims.append(Claim(f"{name}: freud, error at f = 1", "", f"{_freud_error(x):.2g}"))
    if importlib.util.find_spec("debyecalculator"):
        their_cost, theirs = seconds(debye_calculator(x, kinds))
        wrong = float(np.max(np.abs(theirs[: len(exact)] / exact - 1)))
        claims.append(below(f"{name}: moments, of DebyeCalculator's seconds", 0.5, cost / their_cost))
        claims.append(Claim(f"{name}: DebyeCalculator", "", f"{their_cost:.3g} s, error {wrong:.2g}"))
    else:
        claims.append(Claim(f"{name}: DebyeCalculator", "5.1 s at 20,000 (clusters.md 6.1)", "not installed"))
    return claims


PLAIN: dict[int, float] = {}
FREUD: dict[int, float] = {}


def _freud(x: np.ndarray) -> tuple[float, np.ndarray]:
    run = freud_debye(x)
    return seconds(lambda: run()[0], 1)


def _freud_error(x: np.ndarray) -> float:
    S, q = freud_debye(x)()
    own = pm.exact_pair_sums(x, ["I"] * len(x), ("I",), np.asarray(q, float))[0]
    return float(np.max(np.abs(S / (1 + 2 * own / len(x)) - 1)))


def debye(atoms: list[int]) -> list[Claim]:
    """All balls."""
    return [claim for n in atoms for jitter in (0.2, 0.0) for claim in of_ball(n, jitter)]


# ---- extraction ----------------------------------------------------------------------------------------------------

AIMS = {"192 ions": 350.0, "5184 ions of 12,096 particles": 100.0, "12,096 particles, shells in labels": 40.0}
FRAMES = 10


def extraction(data: Path) -> list[Claim]:
    """Frames a second of ions, and of ions with shells."""
    with h5py.File(data / "pbi64_langevin.h5") as file:
        x, box = file["coordinates"][0].astype(float), np.ravel(file["box"])[:3].astype(float)
        elements = np.array([one.decode() for one in file["elements"]])
    shift = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 1, 3) * box
    many, of_many = (x[None] + shift).reshape(-1, 3), np.tile(elements, 27)
    ions, shelled = Roles(("Pb",), ("I",)), Roles(("Pb",), ("I",), ("O",))
    cases = zip(AIMS, ((ions, x, elements, box), (ions, many, of_many, 3 * box), (shelled, many, of_many, 3 * box)))
    return [of_frames(name, *case) for name, case in cases]


def of_frames(name: str, roles: Roles, x: np.ndarray, elements: np.ndarray, box: np.ndarray) -> Claim:
    """Frames a second of one case."""
    cutoffs = {"Pb-I": {0: 4.0}} | ({"Pb-O": {0: 3.3}} if roles.shell else {})
    matrices, spent = cutoff_matrices(roles, cutoffs, None, ()), []
    for frame in range(FRAMES + 1):
        order = np.random.default_rng(frame).permutation(len(x))
        particles = particles_of_elements(elements[order].tolist())
        finder = Finder(participants_of(roles, particles), matrices, labelled=bool(roles.shell))
        begun = time.process_time()
        finder.clusters(x[order], np.diag(box))
        spent.append(time.process_time() - begun)
    rate = 1 / statistics.median(spent[1:])
    return Claim(f"{name}, frames/s", f"at least {AIMS[name]:g}", f"{rate:.0f}", rate >= AIMS[name])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=["debye", "extraction"])
    parser.add_argument("--atoms", nargs="+", type=int, default=[1000, 5000, 20000])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data/clusters")
    options = parser.parse_args()
    print(table(debye(options.atoms) if options.section == "debye" else extraction(options.data)))
