#!/usr/bin/env python
"""Value and gradient of frame weights on one core: plain JAX, hpcfit in two passes and in one, on the same data.

Usage: tools/bench_frame_weights.py [--case 200x51521 --case 2048x20000] [--rounds 5] [--steps 5] [--evaluations 1500]
       tools/bench_frame_weights.py --kernels [--case 2048x20000]
       tools/bench_frame_weights.py --studies OLD_CHECKOUT [--case 2048x20000] [--config demo-run/config.toml]

The ways, each a process of its own on one core with one thread, which take turns in rounds:

    plain     what one would write: einsum of complex64 F and |F|^2, -Pearson's CC through softmax, jit(value_and_grad)
    reverse   run.gradient = "reverse": two passes over the frames
    adjoint   one pass, on a complex64 and on a float16 store

Medians over rounds, with ranges: wall and CPU time of a value and gradient; GB/s of the structure factors read once, by
CPU time; the share of the faster of two plain streams (JAX's and Numba's) in the same process and round; the peak of
memory while stepping. Other programs on the machine disturb CPU time less than the clock.

Of the first case also evaluations, passes over the frames and CPU-seconds until CC is as near to the best as 1e-3,
1e-4, 1e-5, from uniform weights: Adam 0.05 for plain, L-BFGS for hpcfit, and scipy.optimize.least_squares (trf) with
the analytic Jacobian of all reflections by all frames; the best is from L-BFGS in float64. The
frames are correlated Gaussian ones, and the map is that of smooth weights with 5 % of noise. --kernels times the loops
of one pass alone for K = 1 ... 5 sums and several widths of a strip, and for several weight vectors at once.

--studies runs a whole study with an older checkout and with this one, each twice in a process of its own on one core:
the first time compiles. Of both: CPU-seconds of the study, passes over the frames, evaluations and fits; the theta that
was chosen, the final loss, the share of each source of the frames and its error. The cases are those of --case with all
default settings, frames in two labels, and any --config.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

CASES = ("200x51521", "2048x20000")
GAPS = (1e-3, 1e-4, 1e-5)
NOISE, BRAGG = 0.05, 5.0
LEAST_SQUARES = "least squares"  # a way that is only compared by its descent
LONG = 1500  # evaluations at most of the fits whose end is compared with
WAYS = {
    "plain": ("complex64", ""),
    "reverse complex64": ("complex64", "reverse"),
    "reverse float16": ("float16", "reverse"),
    "adjoint complex64": ("complex64", "auto"),
    "adjoint float16": ("float16", "auto"),
}
BYTES = {"complex64": 8, "float16": 4}
# Before any thread pool is made, here and in the children.
ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
}


class Case(NamedTuple):
    """A problem on the disk. folder: float16 and complex64 stores, F and y as NumPy files, a config."""

    frames: int
    reflections: int
    folder: Path

    def bytes(self, way):
        """Of the structure factors as the way holds them, without padding."""
        return self.frames * self.reflections * BYTES[WAYS[way][0]]


class Round(NamedTuple):
    """Seconds of a step by the clock and on the CPU, bytes per CPU-second of the two streams."""

    wall: float
    cpu: float
    jax_stream: float
    numba_stream: float

    @property
    def stream(self):
        return max(self.jax_stream, self.numba_stream)


class Clock:
    """Wall and CPU seconds since it was made, of all threads."""

    def __init__(self):
        self._begun = time.perf_counter(), time.process_time()

    def __call__(self):
        return time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]


# ---- the data ----------------------------------------------------------------------------------------------------


def make_case(folder, frames, reflections):
    """Write it; see ``Case``."""
    from dataclasses import replace

    from hpcfit.physics.scattering import diffuse_intensity
    from hpcfit.store.reference import Encoding
    from hpcfit.testsystems import synthetic
    from hpcfit.testsystems.known_truth import true_weights

    folder.mkdir()
    d_min = 10 * (2 * np.pi / 3 / (1.03 * reflections)) ** (1 / 3)  # half a sphere of a 10 A cell, and a little more
    every = synthetic.cubic_reflections(d_min)
    kept = replace(every, hkl=every.hkl[:reflections])
    F_th = synthetic.gaussian_frames(frames, reflections, seed=0, bragg=BRAGG).astype(np.complex64)
    for dtype in BYTES:
        sources = [synthetic.Source("frames", F_th)]
        synthetic.write_store(folder / dtype, kept, sources, Encoding(dtype), shard_frames=512)
    y = diffuse_intensity(F_th, true_weights(frames))
    y *= 1 + NOISE * np.random.default_rng(1).standard_normal(reflections)
    synthetic.write_map(folder / "map.npz", kept, y)
    np.save(folder / "F.npy", F_th)
    np.save(folder / "y.npy", y)
    (folder / "config.toml").write_text(
        '[frames]\nstore = "float16"\n[experiment]\nfile = "map.npz"\n[problem]\nkind = "frame-weights"\n'
        'theta = 0.0\nstarts = ["prior"]\nresamples = 0\n'
    )
    return Case(frames, reflections, folder)


# ---- the ways, in processes of their own ---------------------------------------------------------------------------


class Plain:
    """What a user would write; F is an argument, or XLA would fold |F|^2 into the program."""

    passes = 2  # forward and back

    def __init__(self, case):
        import jax
        import jax.numpy as jnp
        import optax

        def loss(u, F, y):
            w = jax.nn.softmax(u)
            x = jnp.einsum("t,th->h", w, jnp.abs(F) ** 2) - jnp.abs(jnp.einsum("t,th->h", w, F)) ** 2
            x, y = x - x.mean(), y - y.mean()
            return -jnp.sum(x * y) / jnp.sqrt(jnp.sum(x * x) * jnp.sum(y * y))

        self._value_and_grad = jax.jit(jax.value_and_grad(loss))
        self._data = jnp.asarray(np.load(case.folder / "F.npy")), jnp.asarray(np.load(case.folder / "y.npy"), "f4")
        self._start, self._adam = jnp.zeros(case.frames), optax.adam(0.05)

    def step(self):
        value, gradient = self._value_and_grad(self._start, *self._data)
        return float(value), gradient.block_until_ready()

    def course(self, cap):
        """See ``course_of``."""
        return course_of(self.descend(cap), self.passes)

    def descend(self, cap):
        """CC at each evaluation."""
        import optax

        u, state = self._start, self._adam.init(self._start)
        for _ in range(cap):
            value, gradient = self._value_and_grad(u, *self._data)
            yield -float(value)
            updates, state = self._adam.update(gradient, state)
            u = optax.apply_updates(u, updates)


class LeastSquares:
    """SciPy's trust-region reflective least squares on r = x / |x| - y / |y| of the centred maps: |r|^2 / 2 = 1 - CC.

    w = softmax(u), and dx_h/du_t = w_t (|F_th - M_h|^2 - x_h), where M_h is the mean of F over w. The residuals are one
    pass over the frames, the Jacobian is another; both in float32 by JAX, as in ``Plain``.
    """

    passes = 2  # of residuals and Jacobian

    def __init__(self, case):
        import jax
        import jax.numpy as jnp

        def map_of(u, F):
            w = jax.nn.softmax(u)
            M = jnp.einsum("t,th->h", w, F)
            return w, M, jnp.einsum("t,th->h", w, jnp.abs(F) ** 2) - jnp.abs(M) ** 2

        def residuals(u, F, y):
            x = map_of(u, F)[2]
            x = x - x.mean()
            return x / jnp.linalg.norm(x) - y

        def jacobian(u, F):
            w, M, x = map_of(u, F)
            dx_ht = (w[:, None] * (jnp.abs(F - M) ** 2 - x)).T
            dx_ht, x = dx_ht - dx_ht.mean(axis=0), x - x.mean()
            size = jnp.linalg.norm(x)
            return (dx_ht - jnp.outer(x, x @ dx_ht) / size**2) / size

        F, y = jnp.asarray(np.load(case.folder / "F.npy")), np.load(case.folder / "y.npy")
        y = jnp.asarray((y - y.mean()) / np.linalg.norm(y - y.mean()), "f4")
        residuals, jacobian = jax.jit(residuals), jax.jit(jacobian)
        self._residuals = lambda u: np.asarray(residuals(jnp.asarray(u, "f4"), F, y), float)
        self._jacobian = lambda u: np.asarray(jacobian(jnp.asarray(u, "f4"), F), float)
        self._start = np.zeros(case.frames)

    def step(self):
        return self._residuals(self._start), self._jacobian(self._start)

    def course(self, cap):
        """See ``course_of``."""
        from scipy.optimize import least_squares

        clock, found, passes = Clock(), [], [0]

        def residuals(u):
            passes[0] += 1
            r = self._residuals(u)
            found.append((1 - r @ r / 2, clock()[1], passes[0]))
            return r

        def jacobian(u):
            passes[0] += 1
            return self._jacobian(u)

        least_squares(residuals, self._start, jacobian, method="trf", ftol=1e-12, xtol=1e-12, gtol=1e-12, max_nfev=cap)
        return found


class Engine:
    """hpcfit's value and gradient, in this process."""

    def __init__(self, case, way, *more):
        from hpcfit.commands.session import open_session
        from hpcfit.fit.inner import InnerProduct
        from hpcfit.fit.reduction import choose_sum
        from hpcfit.kinds.table import load_config
        from hpcfit.ranks import Ranks

        dtype, gradient = WAYS[way]
        options = [f"frames.store={case.folder / dtype}", f"run.gradient={gradient}", *more]
        session = open_session(load_config(case.folder / "config.toml", options), Ranks(), "step")
        add = choose_sum(session.config.run.reductions, session.grid)
        self._evaluate = session.case.gradient(session.grid, session.device.memory, add)
        self._inner = InnerProduct(add)
        self._start = self._evaluate.problem.init(0, self._evaluate.frames.rows)
        self.passes = self._evaluate.passes

    def step(self):
        return self._evaluate(self._start)

    def course(self, cap):
        """See ``course_of``."""
        return course_of(self.descend(cap), self.passes)

    def descend(self, cap, **options):
        """CC at each evaluation of L-BFGS, until it stalls."""
        from hpcfit.fit.optimizers import choose_optimizer

        seen = []

        def evaluate(params):
            found = self._evaluate(params)
            seen.append(-found.loss)
            return found

        optimizer = choose_optimizer("lbfgs", options, None, self._inner)
        state, told = optimizer.start(self._start, evaluate), 0
        while not state.stalled and len(seen) < cap:
            yield from seen[told:]
            told = len(seen)
            state = optimizer.step(state, evaluate)
        yield from seen[told:]


def serve(pipe, case, way, core):
    """Answer what the parent asks for until it asks for nothing."""
    os.sched_setaffinity(0, {core})
    by_name = {"plain": Plain, LEAST_SQUARES: LeastSquares}
    engine = by_name[way](case) if way in by_name else Engine(case, way)
    reset_peak()
    for _ in range(3):  # the first compiles
        engine.step()
    pipe.send((engine.passes, peak_bytes()))
    streams = None
    while (asked := pipe.recv()) is not None:
        name, argument = asked
        if name == "round":
            streams = streams or make_streams()
            pipe.send(one_round(engine, argument, streams))
        else:
            pipe.send(engine.course(argument))


def one_round(engine, steps, streams):
    clock = Clock()
    for _ in range(steps):
        engine.step()
    wall, cpu = clock()
    return Round(wall / steps, cpu / steps, *(stream() for stream in streams))


def course_of(descent, passes):
    """(CC, CPU-seconds so far, passes so far) of each evaluation of a descent; the compiled program is warm."""
    clock = Clock()
    return [(cc, clock()[1], n * passes) for n, cc in enumerate(descent, 1)]


def best_cc(pipe, case, core):
    """Of a long fit in float64."""
    os.sched_setaffinity(0, {core})
    engine = Engine(case, "adjoint complex64", "run.precision=float64")
    pipe.send(max(engine.descend(LONG, memory=20, noise=1e-14)))


def reset_peak():
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        print("(the peak of memory includes reading the frames: /proc/self/clear_refs cannot be written)")


def peak_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def make_streams(megabytes=256):
    """(jax, numba): each reads so much memory and returns bytes per CPU-second."""
    from numba import njit

    from hpcfit.machine import memory_bandwidth

    @njit(fastmath=True)
    def add(values):
        total = np.float32(0)
        for value in values:
            total += value
        return total

    values = np.ones(megabytes << 18, np.float32)
    add(values)

    def numba_stream():
        return values.nbytes / min(cpu_seconds(lambda: add(values)) for _ in range(3))

    # Its best of three is by the clock; the least disturbed of these is as near to CPU time as it comes.
    return lambda: memory_bandwidth(megabytes), numba_stream


def cpu_seconds(run):
    clock = Clock()
    run()
    return clock()[1]


# ---- the parent ----------------------------------------------------------------------------------------------------


class Child:
    """A way in its own process."""

    def __init__(self, context, case, way, core):
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, case, way, core), daemon=True)
        self._process.start()
        self.passes, self.peak = self._pipe.recv()

    def ask(self, name, argument):
        self._pipe.send((name, argument))
        return self._pipe.recv()

    def end(self):
        self._pipe.send(None)
        self._process.join()


def compare(case, chosen, core, *, converge):
    context = multiprocessing.get_context("spawn")
    children = {way: Child(context, case, way, core) for way in WAYS}
    rounds = {way: [] for way in WAYS}
    for _ in range(chosen.rounds):
        for way, child in children.items():
            rounds[way].append(child.ask("round", chosen.steps))
    print_steps(case, children, rounds, chosen)
    if converge:
        best = in_child(context, best_cc, case, core)
        courses = {way: child.ask("descent", chosen.evaluations) for way, child in children.items()}
        children[LEAST_SQUARES] = Child(context, case, LEAST_SQUARES, core)
        courses[LEAST_SQUARES] = children[LEAST_SQUARES].ask("descent", chosen.evaluations)
        print_descents(courses, best)
    for child in children.values():
        child.end()


def in_child(context, function, *arguments):
    ours, theirs = context.Pipe()
    process = context.Process(target=function, args=(theirs, *arguments), daemon=True)
    process.start()
    result = ours.recv()
    process.join()
    return result


def print_steps(case, children, rounds, chosen):
    print(f"\n{case.frames} frames x {case.reflections} reflections; {chosen.rounds} rounds of {chosen.steps} steps")
    print(f"{'':19}{'passes':>7}{'CPU ms':>9}{'range':>15}{'wall ms':>9}{'GB/s':>7}{'of stream':>11}{'range':>13}"
          f"{'x plain':>9}{'peak MB':>9}")  # fmt: skip
    for way, taken in rounds.items():
        size = case.bytes(way)
        cpu, wall = [1e3 * r.cpu for r in taken], [1e3 * r.wall for r in taken]
        share = [size / r.cpu / r.stream for r in taken]
        faster = [plain.cpu / r.cpu for plain, r in zip(rounds["plain"], taken)]
        print(
            f"{way:19}{children[way].passes:7}{median(cpu):9.2f}{spread(cpu, 1):>15}{median(wall):9.2f}"
            f"{size / median(cpu) / 1e6:7.2f}{median(share):11.2f}{spread(share, 2):>13}{median(faster):9.2f}"
            f"{children[way].peak / 1e6:9.0f}"
        )
    every = [r for taken in rounds.values() for r in taken]
    for name in ("jax_stream", "numba_stream"):
        rates = [getattr(r, name) / 1e9 for r in every]
        print(f"{name.replace('_', ' '):19}{median(rates):16.2f} GB/s, range {spread(rates, 1)}")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; shares are of the faster stream, by CPU time")


def print_descents(courses, best):
    uniform = courses["plain"][0][0]
    print(f"\nbest CC {best:.7f}, at uniform weights {uniform:.7f}; evaluations / passes / CPU-s to a gap of")
    print(f"{'':19}" + "".join(f"{gap:>22.0e}" for gap in GAPS))
    for way, course in courses.items():
        row = f"{way:19}"
        for gap in GAPS:
            first = next((n for n, (cc, *_) in enumerate(course, 1) if best - cc <= gap), None)
            if first is None:
                row += f"{f'> {len(course)}':>22}"
            else:
                row += f"{f'{first} / {course[first - 1][2]} / {course[first - 1][1]:.2f}':>22}"
        print(row)


def median(values):
    return statistics.median(values)


def spread(values, digits):
    return f"{min(values):.{digits}f}-{max(values):.{digits}f}"


# ---- the loops of one pass alone -----------------------------------------------------------------------------------


def time_kernels(frames, reflections, rounds):
    """CPU time of ``kinds.frame_weights.one_pass`` by type, number of sums and width of a strip."""
    from hpcfit.kinds.frame_weights.one_pass import strip_reflections

    _, stream = make_streams()
    print(f"\none pass over {frames} frames x {reflections} reflections: GB/s by CPU time, share of Numba's stream")
    print(f"{'type':9}{'strip':>6}" + "".join(f"{f'K = {K}':>15}" for K in range(1, 6)))
    for dtype in ("float16", "float32"):
        rule = strip_reflections(frames, np.dtype(dtype).itemsize, 1)
        for strip in sorted({16, 32, 64, 96, 128, rule}):
            found = [kernel_rate(frames, reflections, dtype, strip, K, rounds, stream) for K in range(1, 6)]
            cells = "".join(f"{f'{rate / 1e9:.1f} ({share:.2f})':>15}" for rate, share in found)
            print(f"{dtype:9}{strip:6}{cells}{'  by the rule' if strip == rule else ''}")
        many = [(R, kernel_rate(frames, reflections, dtype, rule, 3, rounds, stream, R)[0]) for R in (1, 4, 16)]
        print(f"{dtype:9} K = 3, R weight vectors, R times that: {', '.join(f'{R}: {r / 1e9:.1f}' for R, r in many)}")


def kernel_rate(frames, reflections, dtype, strip, K, rounds, stream, R=1):
    """(bytes per CPU-second, share of the stream), medians; R times the bytes for R weight vectors."""
    from hpcfit.kinds.frame_weights.one_pass import one_pass
    from hpcfit.kinds.frame_weights.orbit_sums import FRAMES, Coefficients, Orbits

    rows, strips = -(-frames // FRAMES) * FRAMES, max(1, 2048 // strip)
    tiles, width = -(-reflections // (strips * strip)), strips * strip
    rng = np.random.default_rng(0)
    data = np.empty((tiles, strips, rows, 2 * strip), dtype)
    data[:] = rng.standard_normal(data.shape[1:], dtype=np.float32)
    orbits = Orbits(np.ones((tiles, width)), np.tile(np.arange(width, dtype=np.int32), (tiles, 1)))
    coefficients = Coefficients(rng.random((R, tiles, K - 1, width)), np.ones((R, tiles, width)), 1)
    held, F0 = np.arange(rows) < frames, np.zeros((tiles, width, 2))
    w_rt = np.tile(np.where(held, 1 / frames, 0).astype(np.float32), (R, 1))
    size = R * data.nbytes * frames // rows
    run = lambda: one_pass(w_rt, np.ones(R), data, orbits, coefficients, F0, held=held)  # noqa: E731
    run()
    rates = [(size / cpu_seconds(run), stream()) for _ in range(rounds)]
    return median(rate for rate, _ in rates), median(rate / plain for rate, plain in rates)


# ---- whole studies -------------------------------------------------------------------------------------------------

# Run by either checkout: the study of a config twice, and what of it is compared.
STUDY = """
import csv, json, sys, time
from pathlib import Path
from hpcfit.commands.optimize import run_optimize
from hpcfit.kinds.frame_weights import study as module
from hpcfit.kinds.table import load_config
from hpcfit.ranks import Ranks

config, directory = sys.argv[1:]
seconds, study = [], module.study

def timed(*arguments):
    begun = time.process_time()
    found = study(*arguments)
    seconds.append(time.process_time() - begun)
    return found

module.study = timed
for _ in range(2):
    run_optimize(load_config(config, [f"run.directory={directory}", "run.report=false"]), Ranks(), overwrite=True)
metrics = json.loads((Path(directory) / "metrics.json").read_text())
last = json.loads((Path(directory) / "history.jsonl").read_text().splitlines()[-1])
sources = list(csv.DictReader((Path(directory) / "sources.csv").read_text().splitlines()))
errors = metrics.get("errors", {}).get("frames", {}).get("sources", {})
print(json.dumps({
    "CPU-s, compiling": seconds[0], "CPU-s, compiled": seconds[1], "passes": last["passes"],
    "evaluations": metrics["evaluations_of_all_fits"], "fits": len(metrics["fits"]), "theta": metrics.get("theta"),
    "final loss": metrics.get("loss"), "shares": [float(row["weight"]) for row in sources],
    "errors": [errors.get(row["source"]) for row in sources],
}))
"""


def make_study(case):
    """The config of a study of the frames of a case, in two sources with a label each."""
    from dataclasses import replace

    from hpcfit.store.reference import Encoding
    from hpcfit.testsystems import synthetic

    F_th = np.load(case.folder / "F.npy")
    d_min = 10 * (2 * np.pi / 3 / (1.03 * case.reflections)) ** (1 / 3)
    every = synthetic.cubic_reflections(d_min)
    kept, half = replace(every, hkl=every.hkl[: case.reflections]), case.frames // 2
    sources = [synthetic.Source(*about) for about in (("one", F_th[:half], "A"), ("two", F_th[half:], "B"))]
    synthetic.write_store(case.folder / "labelled", kept, sources, Encoding("float16"), shard_frames=512)
    config = case.folder / "study.toml"
    config.write_text(
        '[frames]\nstore = "labelled"\n[experiment]\nfile = "map.npz"\n[problem]\nkind = "frame-weights"\n'
    )
    return config


def compare_studies(config, old, core):
    """Print what both checkouts took and found."""
    new, found = Path(__file__).resolve().parent.parent, {}
    for name, checkout in (("old", old), ("new", new)):
        with tempfile.TemporaryDirectory() as folder:
            command = ["taskset", "-c", str(core), sys.executable, "-c", STUDY, config, f"{folder}/run"]
            environment = os.environ | {"PYTHONPATH": str(checkout)}
            done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{checkout}: the study of {config} failed:\n{done.stderr[-2000:]}")
        found[name] = json.loads(done.stdout.splitlines()[-1])
    print(f"\nthe study of {config}: {old}, and this checkout")
    for what, before in found["old"].items():
        print(f"{what:19}{in_words(before):>30}{in_words(found['new'][what]):>30}")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def in_words(value):
    return " ".join(in_words(each) for each in value) if isinstance(value, list) else f"{value:.7g}" if value else "-"


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help="FRAMESxREFLECTIONS, several times")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="of each way in a round")
    parser.add_argument("--evaluations", type=int, default=1500, help="at most, of a fit; 0: no fits")
    parser.add_argument("--kernels", action="store_true", help="the loops of one pass alone")
    parser.add_argument("--studies", type=Path, metavar="OLD_CHECKOUT", help="whole studies by it and by this one")
    parser.add_argument("--config", action="append", type=Path, default=[], help="of a study, several times")
    return parser.parse_args()


def main():
    chosen = options()
    os.environ |= ONE_THREAD
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    for config in chosen.config:
        compare_studies(config.resolve(), chosen.studies.resolve(), core)
    for number, words in enumerate(chosen.case or (() if chosen.config else CASES)):
        frames, reflections = (int(word) for word in words.split("x"))
        if chosen.kernels:
            time_kernels(frames, reflections, chosen.rounds)
            continue
        with tempfile.TemporaryDirectory() as folder:
            case = make_case(Path(folder) / "case", frames, reflections)
            if chosen.studies:
                compare_studies(make_study(case), chosen.studies.resolve(), core)
                continue
            compare(case, chosen, core, converge=number == 0 and chosen.evaluations > 0)


if __name__ == "__main__":
    main()
