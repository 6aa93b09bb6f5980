"""A gas whose volume is known exactly at constant pressure: eight particles in wells that are scaled with their box.

    U = q (V + sum of |x|^2 / (2 V^(2/3)))        p(V) ~ V^8 exp(-(p + q) V / kT)

so that q adds to the pressure p. With 1/s = kT / (p + q), <V> = 9 / s, <V^2> = 90 / s^2, <1/V> = s / 8.
"""

from pathlib import Path

import numpy as np

from hpcfit.observables.thermodynamics import BAR, DENSITY

Q, OUTER = 0.2, 0.3  # kJ/mol/nm^3
TOGETHER = Q + OUTER
ENERGY = '''
import jax.numpy as jnp

def energy(x, parameters, box):
    """A pressure q, and wells that are scaled with the box."""
    volume = jnp.prod(jnp.diagonal(box))
    return parameters["q"][0] * (volume + 0.5 * jnp.sum(x**2) / volume ** (2 / 3))

def volume(x, box):
    v = jnp.prod(jnp.diagonal(box))
    return jnp.stack([v, v**2])
'''
CONFIG = f"""
[run]
directory = "run"
seed = 3
[problem]
kind = "force-field"
estimator = "fluctuation"
rounds = 4
windows = 24
block = 4
window = 20.0
frames = 40
skipped = 0
[[problem.parameter]]
name = "q"
transform = "log"
scale = 0.3
[[problem.system]]
name = "gas"
energy = "breathing.py:energy"
parameters = {{q = 0.25}}
masses = 1.0
positions = "eight.npy"
box = [2.5, 2.5, 2.5]
kT = 1.0
pressure = {OUTER * BAR}
barostat_every = 2
friction = 1.5
step = 0.05
equilibration = 20.0
[[problem.system.observable]]
name = "density"
observable = "density"
values = {DENSITY * TOGETHER}
sigma = 0.01
[[problem.system.observable]]
name = "moments"
observable = "own"
function = "breathing.py:volume"
values = [{9 / TOGETHER}, {90 / TOGETHER**2}]
sigma = [0.5, 20.0]
held_out = true
[[problem.system.observable]]
name = "compressibility"
observable = "compressibility"
values = {1 / TOGETHER / BAR}
sigma = 0.01
held_out = true
"""


def write_gas(folder: Path) -> None:
    """The files that CONFIG names, and itself."""
    (folder / "breathing.py").write_text(ENERGY)
    np.save(folder / "eight.npy", np.random.default_rng(0).normal(size=(8, 3)))
    (folder / "config.toml").write_text(CONFIG)
