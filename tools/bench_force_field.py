#!/usr/bin/env python
"""What dynamics and derivatives of energy functions cost, beside OpenMM, finite differences and sympy.

Usage: tools/bench_force_field.py [step] [tangents] [adjoint] [frames] [hessian] [data] [nested] [--rounds 5]

All sections, or those that are named, each within two minutes, in float64 on one thread. CPU seconds, medians of rounds
that take turns; ratios are the figures to look at, and a floor is printed where there is one.

    step      a step of Langevin dynamics beside OpenMM's CPU platform with one thread (which computes in float32). With
              lists of neighbours the pairs are what a step costs, 40 to 70 % of it where forces are 1/r alone: XLA
              gathers and scatters one float64 at a time, over slots of which half hold no pair within the cut-off. PME
              adds erfc in full precision, for which OpenMM has a table, and the scatter of 125 points a charge
    tangents  what each parameter adds to a step when its tangent is carried along, in plain steps
    adjoint   a step of the gradient by all parameters, pulled back, in plain steps
    frames    dU/dtheta of stored frames by all parameters, in energies; central differences take 2 P of them
    hessian   tangents of windows by the Hessian as a matrix beside products with each: where one becomes the cheaper
    data      derivatives of windows pulled back from each of a few averaged numbers
    nested    energy, gradient, Hessian product and third derivative of a form of 1, 4, 16, 64 nested terms: JAX beside
              derivatives by sympy, compiled by NumPy, and OpenMM's CustomBondForce
"""

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

# Before any thread pool is made.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENMM_CPU_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}

import jax
import jax.numpy as jnp
import numpy as np
import openmm
from openmm import app, unit

from hpcfit.energies.energy import Energy
from hpcfit.energies.systems import from_system
from hpcfit.fit.derivatives import jacrev
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.simulation.langevin import Bath, Course, Motion, PhasePoint, middle, noise_key, walk
from hpcfit.simulation.tangents import Carried, at_rest, by_matrix, walk_with_tangents
from hpcfit.testsystems import dipeptide
from hpcfit.testsystems.claims import Claim, below, table

jax.config.update("jax_enable_x64", True)

KT, FRICTION, STEP = 2.5, 10.0, 0.0005  # kJ/mol, 1/ps, ps
SIGMA, EPSILON, SPACING = 0.34, 0.996, 0.362  # of argon: nm, kJ/mol, and the edge of a cell of one atom
CUTOFF, SWITCH = 0.85, 0.75  # nm
STEPS, STRIDE, BLOCK = 40, 20, 2  # of windows side by side
AT_ONCE = 16  # frames, so that what it costs to begin a loop does not count
TERMS, BONDS = (1, 4, 16, 64), 1000
ENOUGH = 10.0  # seconds of sympy, after which deeper forms and higher derivatives are not tried


class System(NamedTuple):
    """A system of OpenMM as both see it. x: [N, 3] nm."""

    name: str
    system: Any
    topology: Any
    energy: Energy
    parameters: dict[str, np.ndarray]
    masses: np.ndarray
    box: np.ndarray | None
    x: np.ndarray

    @property
    def start(self) -> PhasePoint:
        """At rest."""
        return PhasePoint(jnp.asarray(self.x), jnp.zeros_like(self.x))

    @property
    def scheme(self) -> Any:
        """OpenMM's middle integrator."""
        return middle(Bath(KT, FRICTION, STEP), self.masses)

    def forces(self, x: Any, parameters: Any, lists: Any = None, pulled_back: bool = False) -> Any:
        """Forces at positions [N, 3]."""
        return self.energy.forces(x, parameters, self.box, lists, pulled_back=pulled_back)


def loaded(name: str, system: Any, topology: Any, x: np.ndarray) -> System:
    """A system with its positions relaxed by OpenMM."""
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(x)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 200)
    x = context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    found = from_system(system, topology)
    return System(name, system, topology, found.energy, found.parameters, found.masses, found.box, np.asarray(x))


def argon(side: int) -> System:
    """A liquid of side^3 atoms with a switched cut-off."""
    system, topology = openmm.System(), app.Topology()
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(force.CutoffPeriodic)
    force.setCutoffDistance(CUTOFF)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(SWITCH)
    chain = topology.addChain()
    for _ in range(side**3):
        system.addParticle(39.948)
        force.addParticle(0.0, SIGMA, EPSILON)
        topology.addAtom("AR", app.Element.getBySymbol("Ar"), topology.addResidue("AR", chain))
    system.addForce(force)
    edges = side * SPACING * np.eye(3)
    system.setDefaultPeriodicBoxVectors(*edges)
    x = SPACING * np.stack(np.meshgrid(*[np.arange(side)] * 3), axis=-1).reshape(-1, 3)
    return loaded(f"argon {side**3}", system, topology, x + np.random.default_rng(0).normal(scale=0.01, size=x.shape))


def peptide(*fields: str) -> System:
    """Alanine dipeptide in amber14, in vacuum or in implicit solvent."""
    topology = dipeptide.topology(1, (30.0, 30.0, 30.0))
    topology.setPeriodicBoxVectors(None)
    system = app.ForceField("amber14-all.xml", *fields).createSystem(topology, nonbondedMethod=app.NoCutoff)
    return loaded("dipeptide" + (" OBC2" if fields else ""), system, topology, dipeptide.coordinates(-80.0, 80.0) / 10)


def water() -> System:
    """216 flexible TIP3P waters with PME."""
    modeller = app.Modeller(app.Topology(), [])
    field = app.ForceField("amber14/tip3p.xml")
    modeller.addSolvent(field, numAdded=216)
    options = {"nonbondedMethod": app.PME, "nonbondedCutoff": 0.8, "rigidWater": False, "constraints": None}
    system = field.createSystem(modeller.topology, **options)
    x = np.array(modeller.positions.value_in_unit(unit.nanometer))
    return loaded("TIP3P 216, PME", system, modeller.topology, x)


# ---- clocks ----------------------------------------------------------------------------------------------------------


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of one call, all threads of the process."""
    before = time.process_time()
    jax.block_until_ready(work())
    return time.process_time() - before


def medians(rounds: int, *works: Callable[[], Any]) -> list[float]:
    """The median of each, of rounds that take turns, after one call that compiles."""
    for work in works:
        jax.block_until_ready(work())
    return [statistics.median(times) for times in zip(*([seconds(work) for work in works] for _ in range(rounds)))]


def walked(one: System, steps: int) -> Callable[[], Any]:
    """So many plain steps, over lists of neighbours where that pays."""
    listed = one.name.startswith(("argon", "TIP"))
    lists = one.energy.lists(jnp.asarray(one.x), one.box, skin=0.1) if listed else None
    renewed = (lambda lists, x: one.energy.current(lists, x, one.box)) if listed else (lambda lists, x: lists)

    @jax.jit
    def run(parameters: Any, start: PhasePoint) -> Any:
        forces = lambda x, lists: one.forces(x, parameters, lists)  # noqa: E731
        motion = Motion(forces, one.scheme, memory=lists, remembered=renewed)
        return walk(motion, start, noise_key(0, 0, 0), Course(steps, steps)).end

    return lambda: run(one.parameters, one.start)


def by_openmm(one: System, steps: int) -> Callable[[], Any]:
    """So many steps of OpenMM's CPU platform."""
    integrator = openmm.LangevinMiddleIntegrator(KT / GAS_CONSTANT, FRICTION, STEP)
    context = openmm.Context(one.system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(one.x)

    def run() -> None:
        integrator.step(steps)
        context.getState(getEnergy=True)

    return run


# ---- sections --------------------------------------------------------------------------------------------------------


def step(rounds: int) -> list[Claim]:
    """Plain steps."""
    claims = []
    peptides = (peptide(), 2000), (peptide("implicit/obc2.xml"), 1000)
    for one, steps in (*peptides, (argon(7), 400), (argon(10), 100), (water(), 20)):
        ours, theirs = medians(rounds, walked(one, steps), by_openmm(one, steps))
        force = jax.jit(lambda x, one=one: one.forces(x, one.parameters))
        print(f"{one.name:16s} {1e6 * ours / steps:9.1f} us a step, OpenMM {1e6 * theirs / steps:9.1f} us", flush=True)
        if len(one.x) < 50:
            [floor] = medians(rounds, lambda force=force, one=one: force(jnp.asarray(one.x)))
            print(f"{'':16s} {1e6 * floor:9.1f} us a call of its forces alone")
        claims.append(below(f"{one.name}: steps of OpenMM in one of ours", 3.0, ours / theirs))
    return claims


def directions(one: System, P: int) -> dict[str, np.ndarray]:
    """P unit changes of single parameters, one leaf after another."""
    sizes = {leaf: len(value) for leaf, value in one.parameters.items()}
    found = {leaf: np.zeros((P, size)) for leaf, size in sizes.items()}
    places = [(leaf, place) for leaf, size in sizes.items() for place in range(size)]
    for p in range(P):
        leaf, place = places[p * len(places) // P]
        found[leaf][p, place] = 1.0
    return found


def carried(one: System, P: int, steps: int) -> Callable[[], Any]:
    """Steps with P tangents."""
    along = directions(one, P)

    @jax.jit
    def run(parameters: Any, along: Any, start: PhasePoint) -> Any:
        motion = Carried(one.forces, parameters, along, one.scheme)
        return walk_with_tangents(motion, start, at_rest(along, start.x), noise_key(0, 0, 0), steps)

    return lambda: run(one.parameters, along, one.start)


def tangents(rounds: int) -> list[Claim]:
    """Tangents carried along."""
    claims = []
    for one, steps, most in ((peptide(), 200, 1.0), (peptide("implicit/obc2.xml"), 100, 1.5)):
        numbers = (1, 4, 16)
        plain, *with_tangents = medians(rounds, walked(one, steps), *(carried(one, P, steps) for P in numbers))
        each = [(time - plain) / plain / P for time, P in zip(with_tangents, numbers)]
        shown = ", ".join(f"P = {P}: {cost:.2f}" for P, cost in zip(numbers, each))
        print(f"{one.name:16s} plain steps that each parameter adds: {shown}", flush=True)
        claims.append(below(f"{one.name}: plain steps a parameter, P = 16", most, each[-1]))
    return claims


def adjoint(rounds: int) -> list[Claim]:
    """All parameters at once, pulled back."""
    one, steps = peptide(), 400
    count = sum(len(value) for value in one.parameters.values())

    def loss(parameters: Any, start: PhasePoint, checkpoint: bool) -> Any:
        motion = Motion(lambda x, _: one.forces(x, parameters, pulled_back=True), one.scheme)
        course = Course(steps, 20)
        found = walk(motion, start, noise_key(0, 0, 0), course, lambda point: jnp.sum(point.x**2), checkpoint)
        return jnp.mean(found.seen)

    pulled = [jax.jit(jax.grad(partial(loss, checkpoint=kept))) for kept in (False, True)]
    works = [lambda way=way: way(one.parameters, one.start) for way in pulled]
    plain, whole, kept = medians(rounds, walked(one, steps), *works)
    print(f"{one.name}, {count} parameters: {whole / plain:.2f} plain steps; {kept / plain:.2f} with what is between")
    print("frames computed again; floor 2", flush=True)
    return [below(f"{one.name}: plain steps of a gradient by {count} parameters", 3.0, whole / plain)]


def frames(rounds: int) -> list[Claim]:
    """Derivatives of the energies of stored frames."""
    one, T = peptide(), 256
    count = sum(len(value) for value in one.parameters.values())
    x = one.x + 0.003 * np.random.default_rng(1).normal(size=(T, *one.x.shape))

    def energies(parameters: Any, x: Any) -> Any:
        return jax.lax.map(lambda frame: one.energy(frame, parameters, one.box), x, batch_size=AT_ONCE)

    def slopes(parameters: Any, x: Any) -> Any:
        slope = lambda frame: jax.grad(one.energy, 1)(frame, parameters, one.box)  # noqa: E731
        return jax.lax.map(slope, x, batch_size=AT_ONCE)

    calls = [jax.jit(call) for call in (energies, slopes, jax.jacfwd(energies))]
    plain, ours, carried = medians(rounds, *(lambda call=call: call(one.parameters, x) for call in calls))
    print(f"{one.name}, {T} frames: {1e6 * plain / T:.1f} us an energy, {1e6 * ours / T:.1f} us {count} derivatives,")
    print(f"{1e6 * carried / T:.1f} us by tangents, as a fit takes them;")
    print(f"central differences take {2 * count} energies; floor 1", flush=True)
    return [below(f"{one.name}: energies that {count} derivatives take", 2.0, ours / plain)]


def jacobian(one: System, P: int, numbers: int, way: str) -> Callable[[], Any]:
    """Steps of windows side by side with the derivatives of so many averaged numbers by P parameters, by "products" or
    the "matrix" along tangents, or "pulled" back from each number; "plain" ones without."""
    along = directions(one, P)
    plain = lambda x, p: one.forces(x, p, pulled_back=way == "pulled")  # noqa: E731
    forces = by_matrix(plain) if way == "matrix" else plain

    @jax.jit
    def run(parameters: Any, along: Any, start: PhasePoint) -> Any:
        def averages(change: Any) -> Any:
            moved = {leaf: value + change @ along[leaf] for leaf, value in parameters.items()}
            motion = Motion(lambda x, _: forces(x, moved), one.scheme)
            seen = lambda point: jnp.sum(point.x**2, axis=1)[:numbers]  # noqa: E731
            of_window = lambda key: walk(motion, start, key, Course(STEPS, STRIDE), seen, way == "pulled").seen  # noqa: E731
            return jnp.mean(jax.vmap(of_window)(jax.random.split(jax.random.key(0), BLOCK)), axis=(0, 1))

        derivative = {"plain": lambda function: function, "pulled": jacrev}.get(way, jax.jacfwd)
        return derivative(averages)(jnp.zeros(P))

    return lambda: run(one.parameters, along, one.start)


def hessian(rounds: int) -> list[Claim]:
    """The Hessian as a matrix, or products with it."""
    one = peptide()
    crossing = None
    for P in (16, 64, 96, 128, 192, 300):
        ways = (jacobian(one, P, 1, way) for way in ("plain", "products", "matrix"))
        plain, products, matrix = medians(rounds, *ways)
        shown = f"{products / plain:.1f} plain steps by products, {matrix / plain:.1f} by the matrix"
        print(f"{one.name} (3 N = {one.x.size}), P = {P:3d}: {shown}", flush=True)
        if crossing is None and matrix < products:
            crossing = P
    print(f"the matrix is cheaper {'from P = ' + str(crossing) + ' on' if crossing else 'nowhere here'}")
    return []


def data(rounds: int) -> list[Claim]:
    """Pull-backs of averaged numbers."""
    one = peptide()
    for numbers in (1, 2, 4, 8, 16):
        plain, pulled = medians(rounds, *(jacobian(one, 64, numbers, way) for way in ("plain", "pulled")))
        print(f"{one.name}, {numbers:2d} numbers by 64 parameters: {pulled / plain:.1f} plain steps", flush=True)
    return []


# ---- nested forms ----------------------------------------------------------------------------------------------------


def nested(rounds: int) -> list[Claim]:
    """Derivatives of u(r) = f(f(... r)), f(u) = sin(u) + exp(-u) / 2."""
    if importlib.util.find_spec("sympy") is None:
        raise SystemExit("nested: there is no sympy; pip install sympy")
    r = np.random.default_rng(2).uniform(0.2, 1.5, size=BONDS)
    print(f"{BONDS} distances; us a call (s to compile) of u, u', u'' and u'''")
    late = False
    for terms in TERMS:
        ours = [of_jax(terms, order, r, rounds) for order in range(4)]
        print(f"{terms:3d} terms  JAX    {_shown(ours)}", flush=True)
        theirs = []
        for order in range(4):
            if late:
                break
            theirs.append(of_sympy(terms, order, r, rounds))
            late = theirs[-1][1] > ENOUGH
        print(f"           sympy  {_shown(theirs) or '-'}{' (more took too long)' if late else ''}", flush=True)
        call = of_openmm(terms, r)
        [energies] = medians(rounds, call)
        print(f"           OpenMM {1e6 * energies:.0f} with forces, and no higher ones", flush=True)
    return []


def _shown(found: list[tuple[float, float]]) -> str:
    return "   ".join(f"{1e6 * each:.0f} ({compiling:.2f})" for each, compiling in found)


def form(u: Any, terms: int, sin: Any, exp: Any) -> Any:
    """So many nested terms."""
    for _ in range(terms):
        u = sin(u) + exp(-u) / 2
    return u


def of_jax(terms: int, order: int, r: np.ndarray, rounds: int) -> tuple[float, float]:
    """(seconds a call, seconds to compile)"""
    one = lambda r: form(r, terms, jnp.sin, jnp.exp)  # noqa: E731
    for _ in range(order):
        one = partial(_along, one)
    call = jax.jit(one)
    began = time.process_time()
    jax.block_until_ready(call(r))
    compiling = time.process_time() - began
    return medians(rounds, lambda: call(r))[0], compiling


def _along(function: Any, r: Any) -> Any:
    return jax.jvp(function, (r,), (jnp.ones_like(r),))[1]


def of_sympy(terms: int, order: int, r: np.ndarray, rounds: int) -> tuple[float, float]:
    """(seconds a call, seconds to differentiate and compile)"""
    import sympy

    began = time.process_time()
    x = sympy.Symbol("x")
    call = sympy.lambdify(x, sympy.diff(form(x, terms, sympy.sin, sympy.exp), x, order), "numpy", cse=True)
    call(r)
    compiling = time.process_time() - began
    return medians(rounds, lambda: call(r))[0], compiling


def of_openmm(terms: int, r: np.ndarray) -> Callable[[], Any]:
    """A call of energy and forces of as many bonds."""
    words = [f"u{n + 1} = sin(u{n}) + 0.5*exp(-u{n})" for n in reversed(range(terms))]
    force = openmm.CustomBondForce("; ".join([f"u{terms}", *words, "u0 = r"]))
    system, x = openmm.System(), np.zeros((2 * len(r), 3))
    x[1::2, 0] = r
    for atom in range(len(r)):
        system.addParticle(1.0)
        system.addParticle(1.0)
        force.addBond(2 * atom, 2 * atom + 1)
    system.addForce(force)
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform, {"Threads": "1"})
    context.setPositions(x)
    return lambda: context.getState(getEnergy=True, getForces=True) and None


SECTIONS = {one.__name__: one for one in (step, tangents, adjoint, frames, hessian, data, nested)}


def main() -> None:
    """Run the sections that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS])
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    claims = []
    for name in chosen.sections or SECTIONS:
        print(f"---- {name}", flush=True)
        claims += SECTIONS[name](chosen.rounds)
    print(table(claims))


if __name__ == "__main__":
    main()
