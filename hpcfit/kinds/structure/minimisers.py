"""Minimisers and dynamics of other libraries, each a function of a counted energy and a start [n, d].

    scipy              L-BFGS-B of SciPy
    ase                the preconditioned L-BFGS of ASE (Packwood and others 2016, 10.1063/1.4947024)
    openmm             LocalEnergyMinimizer of OpenMM, an L-BFGS
    openmm-langevin    Langevin dynamics of OpenMM at a temperature, as long as the budget
    openmm-annealing   the same at falling temperatures, then LocalEnergyMinimizer

OpenMM's minimiser reports its iterations, not its evaluations. So it is given our own energy as a PythonForce, whose
calls are counted: it minimises any landscape, in double precision. Its dynamics is that of the System, by OpenMM's
forces on one core; a step is one gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.structure.annealing import HOT
from hpcfit.kinds.structure.baselines import Counter, Spent
from hpcfit.kinds.structure.config import MethodConfig
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.kinds.structure.landscapes.system import SystemLandscape
from hpcfit.physics.openmm_library import import_openmm

Array = np.ndarray
Minimiser = Callable[[Counter, Array], None]
PAIR = 2 ** (1 / 6)  # of sigma: the distance of neighbours that ASE's preconditioner is made for
TIGHT = 1e-9  # relative, of the energy, or of its gradient in units of length
ROOM, FRICTION, STEP = 298.0, 1.0, 0.002  # K, 1/ps and ps: OpenMM's dynamics
SHORTER = 0.001  # ps: its step where it begins hot
COOLED = 10  # steps between two temperatures


def minimiser(method: MethodConfig, landscape: Landscape, seed: int) -> Minimiser:
    """The minimiser of another library that a method names."""
    if method.optimizer in _ALONE:
        return _ALONE[method.optimizer]
    falls = method.optimizer == "openmm-annealing"
    temperature = method.temperature or (HOT if falls else ROOM)
    return Dynamics(landscape, temperature, seed, method.share if falls else None)


def check_minimiser(method: MethodConfig, landscape: Landscape) -> None:
    """Raise InputError for a method of OpenMM where there is none, or whose dynamics has no System."""
    if not method.optimizer.startswith("openmm"):
        return
    if method.optimizer == "openmm" and not hasattr(import_openmm(), "PythonForce"):
        raise InputError(
            f"method '{method.name}': this OpenMM has no PythonForce, by which evaluations are counted",
            remedy="install a newer OpenMM: pip install -U openmm",
        )
    if method.optimizer != "openmm" and not isinstance(landscape, SystemLandscape):
        raise InputError(
            f"method '{method.name}': optimizer = '{method.optimizer}' needs a System of OpenMM",
            remedy="use it with energies of form = 'system' or 'protein'; optimizer = 'annealing' takes any energy",
        )


def _scipy(counter: Counter, x: Array) -> None:
    from scipy.optimize import minimize

    def flat(z: Array) -> tuple[float, Array]:
        energy, slope = counter(z.reshape(x.shape))
        return energy, slope.ravel()

    options = {"maxiter": 10**9, "maxfun": 10**9, "ftol": TIGHT, "gtol": 0.0, "maxcor": 10}
    minimize(flat, x.ravel(), jac=True, method="L-BFGS-B", options=options)


def _ase(counter: Counter, x: Array) -> None:
    from ase import Atoms
    from ase.calculators.calculator import Calculator, all_changes
    from ase.optimize.precon import Exp, PreconLBFGS

    class OfLandscape(Calculator):
        implemented_properties: ClassVar = ["energy", "forces"]

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            energy, slope = counter(self.atoms.positions[:, : x.shape[1]])
            self.results = {"energy": energy, "forces": -_in_space(slope)}

    atoms = Atoms("H" * len(x), positions=_in_space(x), calculator=OfLandscape())
    PreconLBFGS(atoms, precon=Exp(r_NN=PAIR, r_cut=2 * PAIR), logfile=None, use_armijo=True).run(
        fmax=TIGHT, steps=10**9
    )


def _openmm(counter: Counter, x: Array) -> None:
    openmm, spent = import_openmm(), []

    def compute(state: Any) -> tuple[float, Array]:
        try:
            energy, slope = counter(state.getPositions(asNumpy=True)._value[:, : x.shape[1]])
        except Spent as error:  # OpenMM makes an error of its own of any other
            spent.append(error)
            raise
        return energy, -_in_space(slope)

    system = openmm.System()
    for _ in x:
        system.addParticle(1.0)
    system.addForce(openmm.PythonForce(compute))
    platform = openmm.Platform.getPlatformByName("Reference")  # in double precision
    context = openmm.Context(system, openmm.VerletIntegrator(STEP), platform)
    context.setPositions(_in_space(x))
    try:
        openmm.LocalEnergyMinimizer.minimize(context, TIGHT)
    except openmm.OpenMMException as error:
        raise (spent[0] if spent else RuntimeError(str(error))) from None


@dataclass(frozen=True)
class Dynamics:
    """Langevin dynamics of a System in OpenMM.

    temperature: K; share: of the budget in which it falls to 0 before the energy is minimised; None: it stays, and
    takes all of the budget.
    """

    landscape: SystemLandscape
    temperature: float
    seed: int
    share: float | None

    def __call__(self, counter: Counter, x: Array) -> None:
        """Raises ``Spent`` at the end of the budget. The energy of its places is looked at where traces have marks."""
        openmm = import_openmm()
        context = self._context(openmm, x, counter.number)
        steps = counter.budget if self.share is None else max(int(self.share * counter.budget), 1)
        cooled = () if self.share is None else range(0, steps, COOLED)
        stops = sorted({*cooled, *counter.marks[counter.marks < steps].tolist(), steps} - {0})
        done, looked = 0, set(counter.marks.tolist()) | {steps}
        for stop in stops:
            try:
                context.getIntegrator().step(stop - done)
                here = context.getState(getPositions=True).getPositions(asNumpy=True)._value
            except openmm.OpenMMException as error:
                raise RuntimeError(str(error)) from None
            counter.spend(stop - done, here if stop in looked else None)
            done = stop
            if self.share is not None:
                context.getIntegrator().setTemperature(self.temperature * (1 - stop / steps))
        if self.share is None:
            raise Spent
        _openmm(counter, np.asarray(here, float))

    def _context(self, openmm: Any, x: Array, number: int) -> Any:
        """On one core, with forces that are added in a fixed order."""
        system = openmm.XmlSerializer.deserialize(self.landscape.facts.xml)
        # Snapshots at which replicas begin are of other random numbers.
        seeds = np.random.SeedSequence([self.seed, number, 1]).generate_state(2) % (1 << 30) + 1
        step = STEP if self.share is None else SHORTER
        integrator = openmm.LangevinMiddleIntegrator(self.temperature, FRICTION, step)
        integrator.setRandomNumberSeed(int(seeds[0]))
        properties = {"Threads": "1", "DeterministicForces": "true"}
        context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), properties)
        context.setPositions(x)
        context.setVelocitiesToTemperature(self.temperature, int(seeds[1]))
        return context


def _in_space(vectors: Array) -> Array:
    """Vectors [n, d] with zeros where they have no third coordinate, [n, 3]."""
    found = np.zeros((len(vectors), 3))
    found[:, : vectors.shape[1]] = vectors
    return found


_ALONE: dict[str, Minimiser] = {"scipy": _scipy, "ase": _ase, "openmm": _openmm}
