"""Derivatives of averages against exact values: wells by quadrature, the Lennard-Jones fluid by equations of state.

Usage: python tools/exact_averages.py [ROW ...]. Rows: harmonic, well-1, well-2, well-4, fluid-2, fluid-1, or all.

Each row is a run of `hpcfit optimize` with `rounds = 0`: nothing is fitted, derivatives are measured. Printed are
value, standard error, its distance from the exact value in errors, windows and CPU-s; an error above 2 % of the value
says little (but of d<x>/dh, .0015). Exact: double wells h (x^2 - 1)^2 + c x, c = 0.2, kT = 1; the fluids by Thol et al.
2016 (10.1063/1.4945000), whose difference from Kolafa and Nezbeda 1994 is an error of its own.
"""

import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

BAR = 16.6053906892  # of 1 kJ/mol/nm^3


class Exact(NamedTuple):
    """An exact derivative of an item of an observable by a parameter. slack: its own uncertainty."""

    observable: str
    item: int
    parameter: str
    value: float
    slack: float = 0.0


class Row(NamedTuple):
    """A run. energy, parameters: of it; system: what else [[problem.system]] has; exact: what it finds."""

    energy: str
    parameters: str
    problem: str
    system: str
    exact: tuple[Exact, ...]


ENERGIES = '''
import jax.numpy as jnp

def harmonic(x, parameters, box):
    return 0.5 * parameters["k"][0] * jnp.sum(x**2)

def double_well(x, parameters, box):
    h, c = parameters["h"][0], parameters["c"][0]
    along = x[:, 0]
    return jnp.sum(h * (along**2 - 1) ** 2 + c * along) + 0.5 * jnp.sum(x[:, 1:] ** 2)

CUTOFF, SWITCH = 3.5, 3.2

def fluid(x, parameters, box):
    s, e = parameters["sigma"][0], parameters["epsilon"][0]
    n, L = x.shape[0], jnp.diagonal(box)
    half = (n - 1) // 2
    j = (jnp.arange(n)[None] + 1 + jnp.arange(half)[:, None]) % n
    d = x[None] - x[j]
    d = d - L * jnp.round(d / L)
    r2 = jnp.sum(d**2, axis=-1)
    near = r2 < CUTOFF**2
    r2 = jnp.where(near, r2, CUTOFF**2)
    sixth = (s * s / r2) ** 3
    y = jnp.clip((jnp.sqrt(r2) - SWITCH) / (CUTOFF - SWITCH), 0.0, 1.0)
    smooth = 1 - y**3 * (10 - 15 * y + 6 * y**2)
    pairs = jnp.sum(jnp.where(near, 4 * e * (sixth**2 - sixth) * smooth, 0.0))
    nodes, weight = _nodes()
    r = SWITCH + (CUTOFF - SWITCH) * nodes
    y = nodes
    u = 4 * e * ((s / r) ** 12 - (s / r) ** 6)
    left = (CUTOFF - SWITCH) * jnp.sum(weight * y**3 * (10 - 15 * y + 6 * y**2) * u * r**2)
    beyond = 4 * e * (s**12 / (9 * CUTOFF**9) - s**6 / (3 * CUTOFF**3))
    return pairs + 2 * jnp.pi * n**2 / jnp.prod(L) * (left + beyond)

def _nodes():
    import numpy as np
    x, weight = np.polynomial.legendre.leggauss(16)
    return 0.5 * (x + 1), 0.5 * weight
'''
WELL = """
masses = 1.0
positions = "wells.npy"
kT = 1.0
friction = {friction}
step = {step}
equilibration = {equilibration}
[[problem.system.observable]]
name = "x"
observable = "powers"
powers = [1, 2]
values = [0.0, 0.0]
sigma = 1.0
"""
FLUID = """
masses = 1.0
positions = "fluid-{name}.npy"
box = [{L}, {L}, {L}]
kT = {T}
friction = 2.0
step = 0.004
equilibration = 8.0
[[problem.system.observable]]
name = "u"
observable = "potential-energy"
number = {n}
values = 0.0
sigma = 1.0
[[problem.system.observable]]
name = "p"
observable = "pressure"
values = 0.0
sigma = 1.0
"""
N = 511  # odd: each pair stands once
WELLS = {1: (-0.813154, 0.005604, -0.031695), 2: (-0.828594, -0.007307, 0.036195), 4: (-0.887456, -0.004511, 0.022647)}
# T*, rho*: du/dln(sigma), du/dln(epsilon), dp/dln(sigma), dp/dln(epsilon) by Thol, and how far the others are from it.
FLUIDS = {
    "2": (2.0, 0.8, (-9.003, 0.006), (-6.173, 0.005), (54.19, 0.31), (-2.401, 0.002)),
    "1": (1.0, 0.7, (-14.20, 0.15), (-5.562, 0.006), (11.98, 0.40), (-3.312, 0.034)),
}


def rows() -> dict[str, Row]:
    """All rows by name."""
    found = {
        "harmonic": Row(
            "harmonic", "{k = 2.0}", "windows = 400\nwindow = 20.0\nframes = 40\nderivative_draws = 4",
            WELL.format(friction=1.5, step=0.05, equilibration=20.0),
            (Exact("x", 1, "k", -0.25),),
        )
    }  # fmt: skip
    for h, (by_c, by_h, square_by_h) in WELLS.items():
        # Windows start in both wells as they are populated: trajectories do not cross often enough.
        found[f"well-{h}"] = Row(
            "double_well", f"{{h = {float(h)}, c = 0.2}}",
            "windows = 4000\nwindow = 20.0\nframes = 40\nderivative_draws = 2",
            WELL.format(friction=1.5, step=0.02, equilibration=0.0).replace("wells.npy", f"well-{h}.npy"),
            (Exact("x", 0, "c", by_c), Exact("x", 0, "h", by_h), Exact("x", 1, "h", square_by_h)),
        )  # fmt: skip
    for name, (T, rho, u_s, u_e, p_s, p_e) in FLUIDS.items():
        L = (N / rho) ** (1 / 3)
        values = {("u", "sigma"): u_s, ("u", "epsilon"): u_e, ("p", "sigma"): p_s, ("p", "epsilon"): p_e}
        found[f"fluid-{name}"] = Row(
            "fluid", "{sigma = 1.0, epsilon = 1.0}", "windows = 24\nwindow = 1.2\nframes = 10\nderivative_draws = 6",
            FLUID.format(name=name, T=T, L=L, n=N),
            tuple(Exact(o, 0, p, *(v * (BAR if o == "p" else 1.0) for v in pair)) for (o, p), pair in values.items()),
        )  # fmt: skip
    return found


def write(folder: Path, row: Row, options: str) -> Path:
    """The files of a run; its config."""
    (folder / "energies.py").write_text(ENERGIES)
    np.save(folder / "wells.npy", np.zeros((1, 3)) + 0.3)
    for h in WELLS:
        np.save(folder / f"well-{h}.npy", boltzmann(float(h), 4000))
    for name, (_, rho, *_) in FLUIDS.items():
        np.save(folder / f"fluid-{name}.npy", lattice(rho))
    names = [part.split("=")[0].strip() for part in row.parameters.strip("{}").split(",")]
    moving = "".join(f'[[problem.parameter]]\nname = "{name}"\nscale = 1.0\n' for name in names)
    config = folder / "config.toml"
    config.write_text(
        '[run]\ndirectory = "run"\nreport = false\n[problem]\nkind = "force-field"\n'
        'estimator = "pathwise"\nrounds = 0\n'
        f'{row.problem}\n{options}\n{moving}[[problem.system]]\nname = "one"\nenergy = "energies.py:{row.energy}"\n'
        f"parameters = {row.parameters}\n{row.system}"
    )
    return config


def boltzmann(h: float, n: int) -> np.ndarray:
    """Starts drawn from the exact density of a double well, [n, 1, 3]."""
    x = np.linspace(-3, 3, 60001)
    cumulative = np.cumsum(np.exp(-h * (x**2 - 1) ** 2 - 0.2 * x))
    random = np.random.default_rng(int(h))
    starts = random.normal(size=(n, 1, 3))
    starts[:, 0, 0] = np.interp((np.arange(n) + random.random(n)) / n, cumulative / cumulative[-1], x)
    return random.permutation(starts)


def lattice(rho: float) -> np.ndarray:
    """Particles on a cubic lattice, [N, 3]."""
    side = int(np.ceil(N ** (1 / 3)))
    places = (np.stack(np.meshgrid(*[np.arange(side)] * 3), axis=-1).reshape(-1, 3)[:N] + 0.5) / side
    return places * (N / rho) ** (1 / 3)


def main(chosen: list[str]) -> int:
    every = rows()
    unknown = [name for name in chosen if name not in every]
    if unknown:
        print(f"no row {unknown[0]}; rows: {', '.join(every)}", file=sys.stderr)
        return 2
    print(f"{'row':9s} {'derivative':22s} {'by':12s} {'value':>10s} {'error':>9s} {'exact':>10s} {'off':>7s}  notes")
    for name in chosen or every:
        with tempfile.TemporaryDirectory() as folder:
            show(name, every[name], Path(folder))
    return 0


def show(name: str, row: Row, folder: Path) -> None:
    """Run a row and print it."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime, time.monotonic()
    command = [sys.executable, "-m", "hpcfit", "optimize", str(write(folder, row, "block = 4"))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise SystemExit(done.stderr)
    with (folder / "run/derivatives.csv").open() as file:
        found = {(r["observable"], int(r["item"]), r["parameter"]): r for r in csv.DictReader(file)}
    frames = json.loads((folder / "run/metrics.json").read_text())["frames"]
    for exact in row.exact:
        one = found[exact.observable, exact.item, exact.parameter]
        for way in ("pathwise", "fluctuation"):
            value, error = float(one[way]), float(one[f"{way}_error"])
            off = (abs(value - exact.value) - exact.slack) / error
            notes = [f"{error / abs(exact.value):.1%} error"]
            if way == "pathwise":
                notes.append(f"missing {float(one['left']):.0%} +- {float(one['left_error']):.0%}")
                notes += ["NOT CONVERGED"] * (one["too_short"] == "True")
            what = f"d<{exact.observable}{exact.item or ''}>/d{exact.parameter}"
            print(
                f"{name:9s} {what:22s} {way:12s} {value:10.5g} {error:9.2g} {exact.value:10.5g} {max(off, 0):6.1f}s "
                f" {', '.join(notes)}"
            )
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    print(f"{'':9s} {frames} windows, {cpu:.0f} CPU-s, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
