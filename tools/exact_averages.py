"""Derivatives of averages against exact values: wells by quadrature, the Lennard-Jones fluid by equations of state.

Usage: python tools/exact_averages.py [ROW ...]. Rows: harmonic, well-1, well-2, well-4, fluid-2, fluid-1, or all.

Each row is a run of `hpcfit optimize` with `rounds = 0`: nothing is fitted, derivatives are measured, pathwise and by
the fluctuation formula of the same windows (that of reweighting too, where its frames were drawn). The fluids' windows
(512 particles, r_c = 3.5 and a tail, friction 20) start from frames that OpenMM sampled, whose averages and fluctuation
formula by hpcfit's energy and observables are printed as `frames`. Printed are value, standard error, distance from the
exact value in errors, and whether a pathwise value is wrong (by 5 % and three errors) and flagged; an error above 2 %
of the value says little (but of d<x>/dh, .0015). Exact: double wells h (x^2 - 1)^2 + c x, c = 0.2, kT = 1; fluids by
Thol et al. 2016 (10.1063/1.4945000), whose difference from Kolafa and Nezbeda 1994 is an error of its own.
"""

import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.kinds.force_field.simulated.case import SimulatedCase
from hpcfit.kinds.table import load_config
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.simulation.langevin import PhasePoint
from hpcfit.statistics.blocks import jackknife_error

BAR = 16.6053906892  # of 1 kJ/mol/nm^3
WAYS = ("pathwise", "fluctuation", "malliavin")
WRONG = 0.05  # of the exact value, beyond which and three errors a windowed estimate has to be flagged


class Exact(NamedTuple):
    """An exact value of an item of an observable, or of its derivative by a parameter. slack: its own uncertainty."""

    observable: str
    item: int
    parameter: str | None
    value: float
    slack: float = 0.0

    @property
    def what(self) -> str:
        average = f"<{self.observable}{self.item or ''}>"
        return average if self.parameter is None else f"d{average}/d{self.parameter}"


class Found(NamedTuple):
    """An estimate of an exact value by one way; flagged: as not converged, None for one that cannot be."""

    way: str
    value: float
    error: float
    flagged: bool | None = None
    note: str = ""


class Row(NamedTuple):
    """A run. parameters: that move; problem, system: tables of its config; files: writes what they name into a folder;
    exact: what it finds; frames: whether the folder holds `frames.npy`, a sample of OpenMM."""

    parameters: tuple[str, ...]
    problem: str
    system: str
    files: Callable[[Path], None]
    exact: tuple[Exact, ...]
    frames: bool = False


ENERGIES = """
import jax.numpy as jnp

def harmonic(x, parameters, box):
    return 0.5 * parameters["k"][0] * jnp.sum(x**2)

def double_well(x, parameters, box):
    h, c = parameters["h"][0], parameters["c"][0]
    along = x[:, 0]
    return jnp.sum(h * (along**2 - 1) ** 2 + c * along) + 0.5 * jnp.sum(x[:, 1:] ** 2)
"""
WELL = """
energy = "energies.py:{energy}"
masses = 1.0
positions = "starts.npy"
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
system = "fluid.xml"
positions = "starts.npy"
kT = {T}
friction = 20.0
step = 0.004
equilibration = 0.4
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
N, CUTOFF, SWITCH = 512, 3.5, 3.2
WINDOWS, FRAMES, STRIDE = 12, 16000, 25  # windows, and OpenMM's frames with so many steps between
BLOCKS = 40  # of these frames, for errors
WELLS = {1: (-0.813154, 0.005604, -0.031695), 2: (-0.828594, -0.007307, 0.036195), 4: (-0.887456, -0.004511, 0.022647)}
# T*, rho*: u, du/dln(sigma), du/dln(epsilon) and the same of p by Thol, and how far the others are from it.
FLUIDS = {
    "2": (2.0, 0.8, (-4.7521, 0.0014), (-9.003, 0.006), (-6.173, 0.005),
          (5.2906, 0.0004), (54.19, 0.31), (-2.401, 0.002)),
    "1": (1.0, 0.7, (-4.8890, 0.0013), (-14.20, 0.15), (-5.562, 0.006),
          (0.01434, 0.00344), (11.98, 0.40), (-3.312, 0.034)),
}  # fmt: skip


def rows() -> dict[str, Row]:
    """All rows by name."""
    found = {
        "harmonic": Row(
            ("k",), "windows = 400\nwindow = 20.0\nframes = 40\nderivative_draws = 4",
            "parameters = {k = 2.0}" + WELL.format(energy="harmonic", friction=1.5, step=0.05, equilibration=20.0),
            partial(write_well, np.full((1, 1, 3), 0.3)), (Exact("x", 1, "k", -0.25),),
        )
    }  # fmt: skip
    for h, (by_c, by_h, square_by_h) in WELLS.items():
        # Windows start in both wells as they are populated: trajectories do not cross often enough.
        found[f"well-{h}"] = Row(
            ("h", "c"), "windows = 4000\nwindow = 20.0\nframes = 40\nderivative_draws = 2",
            f"parameters = {{h = {float(h)}, c = 0.2}}"
            + WELL.format(energy="double_well", friction=1.5, step=0.02, equilibration=0.0),
            partial(write_well, boltzmann(float(h), 4000)),
            (Exact("x", 0, "c", by_c), Exact("x", 0, "h", by_h), Exact("x", 1, "h", square_by_h)),
        )  # fmt: skip
    for name, (T, rho, *values) in FLUIDS.items():
        names = [(o, parameter) for o in "up" for parameter in (None, "lj.sigma", "lj.epsilon")]
        unit = {"u": 1.0, "p": BAR}
        exact = [Exact(o, 0, parameter, *np.multiply(unit[o], v)) for (o, parameter), v in zip(names, values)]
        found[f"fluid-{name}"] = Row(
            ("lj.sigma", "lj.epsilon"),
            f"windows = {WINDOWS}\nwindow = 3.0\nframes = 30\nskipped = 22\nderivative_draws = 2",
            FLUID.format(T=T, n=N), partial(write_fluid, T, rho), tuple(exact), True,
        )  # fmt: skip
    return found


def write_config(folder: Path, row: Row) -> Path:
    """The files of a run; its config."""
    row.files(folder)
    moving = "".join(f'[[problem.parameter]]\nname = "{name}"\nscale = 1.0\n' for name in row.parameters)
    config = folder / "config.toml"
    config.write_text(
        '[run]\ndirectory = "run"\nreport = false\n[problem]\nkind = "force-field"\n'
        'estimator = "pathwise"\nrounds = 0\nblock = 4\n'
        f'{row.problem}\n{moving}[[problem.system]]\nname = "one"\n{row.system}'
    )
    return config


def write_well(starts: np.ndarray, folder: Path) -> None:
    """The energies of wells, and where windows start."""
    (folder / "energies.py").write_text(ENERGIES)
    np.save(folder / "starts.npy", starts)


def boltzmann(h: float, n: int) -> np.ndarray:
    """Starts drawn from the exact density of a double well, [n, 1, 3]."""
    x = np.linspace(-3, 3, 60001)
    cumulative = np.cumsum(np.exp(-h * (x**2 - 1) ** 2 - 0.2 * x))
    random = np.random.default_rng(int(h))
    starts = random.normal(size=(n, 1, 3))
    starts[:, 0, 0] = np.interp((np.arange(n) + random.random(n)) / n, cumulative / cumulative[-1], x)
    return random.permutation(starts)


def write_fluid(T: float, rho: float, folder: Path) -> None:
    """A System of so many Lennard-Jones particles, frames of OpenMM's CPU platform, and some of them as starts."""
    import openmm

    system, force, L = openmm.System(), openmm.NonbondedForce(), (N / rho) ** (1 / 3)
    system.setDefaultPeriodicBoxVectors(*(L * np.eye(3)))
    for _ in range(N):
        system.addParticle(1.0)
        force.addParticle(0.0, 1.0, 1.0)
    force.setNonbondedMethod(force.CutoffPeriodic)
    force.setCutoffDistance(CUTOFF)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(SWITCH)
    system.addForce(force)
    (folder / "fluid.xml").write_text(openmm.XmlSerializer.serialize(system))
    integrator = openmm.LangevinMiddleIntegrator(T / GAS_CONSTANT, 1.0, 0.005)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    side = np.arange(8) * L / 8
    context.setPositions(np.stack(np.meshgrid(side, side, side), axis=-1).reshape(-1, 3))
    context.setVelocitiesToTemperature(T / GAS_CONSTANT, 1)
    integrator.step(4000)
    frames = np.zeros((FRAMES, N, 3), np.float32)
    for frame in frames:
        integrator.step(STRIDE)
        frame[:] = context.getState(getPositions=True).getPositions(asNumpy=True)._value
    np.save(folder / "frames.npy", frames)
    np.save(folder / "starts.npy", frames[:: FRAMES // WINDOWS][:WINDOWS])


def of_frames(config: Path, row: Row) -> dict[tuple[str, str | None], Found]:
    """Averages and derivatives by the fluctuation formula from OpenMM's frames."""
    case = SimulatedCase.open(load_config(config))
    [ensemble], moving = case.ensembles, case.moving

    def seen(x):
        def numbers(u):
            theta = moving.at(u, ensemble.parameters)
            observed = ensemble.observed(theta, PhasePoint(x, jnp.zeros_like(x)))
            return jnp.concatenate(observed), ensemble.potential(x, theta, ensemble.box)

        u = moving.init()
        of_O, of_U = (jnp.stack([of[name][..., 0] for name in row.parameters], -1) for of in jax.jacfwd(numbers)(u))
        return numbers(u)[0], of_O, of_U

    # leaves [T, observables], [T, observables, parameters], [T, parameters]
    frames = np.load(config.parent / "frames.npy").astype(float)
    O, direct, slope = map(np.asarray, jax.jit(lambda x: jax.lax.map(seen, x))(frames))
    dO, dU = O - O.mean(axis=0), slope - slope.mean(axis=0)
    of_frame = np.concatenate([O[..., None], direct - dO[..., None] * dU[:, None] / ensemble.kT], axis=-1)
    blocks = of_frame.reshape(BLOCKS, -1, *of_frame.shape[1:]).mean(axis=1)
    left_out = (blocks.sum(axis=0) - blocks) / (BLOCKS - 1)
    value, error = of_frame.mean(axis=0), jackknife_error(left_out)
    return {
        (o, parameter): Found("frames", value[k, n], error[k, n])
        for k, o in enumerate("up")
        for n, parameter in enumerate((None, *row.parameters))
    }


def of_windows(folder: Path) -> dict[tuple[str, int, str], list[Found]]:
    """Derivatives of a run, by all ways that it knows."""
    with (folder / "run/derivatives.csv").open() as file:
        return {(r["observable"], int(r["item"]), r["parameter"]): _by_way(r) for r in csv.DictReader(file)}


def _by_way(row: dict[str, str]) -> list[Found]:
    missing = f"missing {float(row['left']):.0%} +- {float(row['left_error']):.0%}"
    about = {"pathwise": (row["too_short"] == "True", missing)}
    return [Found(way, float(row[way]), float(row[f"{way}_error"]), *about.get(way, ())) for way in WAYS if way in row]


def main(chosen: list[str]) -> int:
    every = rows()
    unknown = [name for name in chosen if name not in every]
    if unknown:
        print(f"no row {unknown[0]}; rows: {', '.join(every)}", file=sys.stderr)
        return 2
    print(f"{'row':9s} {'average':20s} {'by':12s} {'value':>10s} {'error':>9s} {'exact':>10s} {'off':>7s}  wrong flag")
    for name in chosen or every:
        with tempfile.TemporaryDirectory() as folder:
            run(name, every[name], Path(folder))
    return 0


def run(name: str, row: Row, folder: Path) -> None:
    """Run a row and print it."""
    before, started = cpu(), time.monotonic()
    config = write_config(folder, row)
    sampled = of_frames(config, row) if row.frames else {}
    between = cpu()
    command = [sys.executable, "-m", "hpcfit", "optimize", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise SystemExit(done.stderr)
    windows = of_windows(folder)
    for exact in row.exact:
        found = [sampled[exact.observable, exact.parameter]] if sampled else []
        for one in found + windows.get((exact.observable, exact.item, exact.parameter), []):
            print(f"{name:9s} {line(exact, one)}")
    frames = json.loads((folder / "run/metrics.json").read_text())["frames"]
    costs = f"{FRAMES} frames in {between - before:.0f} CPU-s, " if sampled else ""
    costs += f"{frames} windows in {cpu() - between:.0f} CPU-s, {time.monotonic() - started:.0f} s"
    print(f"{'':9s} {costs}", flush=True)


def line(exact: Exact, one: Found) -> str:
    """An estimate beside the exact value. wrong: by more than 5 % and three errors."""
    beyond = max(abs(one.value - exact.value) - exact.slack, 0.0)
    wrong = beyond > max(WRONG * abs(exact.value), 3 * one.error)
    share = one.error / abs(exact.value)
    flag = "" if one.flagged is None else f"{wrong!s:5s} {one.flagged!s:5s} {'' if wrong == one.flagged else 'DIFFER '}"
    return (
        f"{exact.what:20s} {one.way:12s} {one.value:10.5g} {one.error:9.2g} {exact.value:10.5g} "
        f"{beyond / one.error:6.1f}s  {flag}{share:.1%} error {one.note}"
    )


def cpu() -> float:
    """CPU seconds of this process and its children."""
    return sum(resource.getrusage(who).ru_utime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


if __name__ == "__main__":
    os.environ.setdefault("OPENMM_CPU_THREADS", "1")
    jax.config.update("jax_enable_x64", True)
    sys.exit(main(sys.argv[1:]))
