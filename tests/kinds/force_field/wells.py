"""Particles in wells whose averages are known exactly: configs and energies of small simulated fits."""

from pathlib import Path

import numpy as np

SQUARE = """
import jax.numpy as jnp

def square(x, box):
    return jnp.mean(x**2)
"""
HARMONIC = f'''{SQUARE}
def energy(x, parameters, box):
    """k |x|^2 / 2 of each particle."""
    return 0.5 * parameters["k"][0] * jnp.sum(x**2)

def broken(x, parameters, box):
    return parameters["k"][0] * x**2

def nowhere(x, parameters, box):
    return parameters["k"][0] * jnp.sum(jnp.log(x - x - 1))

def constant(x, parameters, box):
    return 3.0 * parameters["k"][0]

def bottomless(x, parameters, box):
    return 0.5 * parameters["k"][0] * jnp.sum(x**2) - 0.02 * jnp.sum(x**4)
'''
# <x^2> = kT / k: measured at k = 2. Two particles at kT = 1, one at kT = 1.5.
PARAMETER = """[[problem.parameter]]
name = "k"
transform = "log"
scale = 0.3
"""
SECOND = """[[problem.system.observable]]
name = "second"
observable = "own"
function = "wells.py:square"
values = 0.5
sigma = 0.02
"""
COLD = f"""
[run]
directory = "run"
report = false
seed = 3
[problem]
kind = "force-field"
estimator = "pathwise"
rounds = 6
windows = 24
block = 4
window = 30.0
frames = 60
{PARAMETER}[[problem.system]]
name = "cold"
energy = "wells.py:energy"
parameters = {{k = 2.6}}
masses = [1.0, 1.5]
positions = "two.npy"
kT = 1.0
friction = 1.5
step = 0.05
equilibration = 6.0
{SECOND}[[problem.system.observable]]
name = "apart"
observable = "distances"
pairs = [[0, 1]]
values = 3.0
sigma = 0.05
bound = "upper"
"""
WARM = """
[[problem.system]]
name = "warm"
energy = "wells.py:energy"
parameters = {k = 2.6}
masses = 1.0
positions = "one.npy"
kT = 1.5
friction = 1.5
step = 0.05
equilibration = 6.0
[[problem.system.observable]]
name = "moments"
observable = "powers"
axis = 1
powers = [2, 4]
values = [0.75, 1.6875]
sigma = [0.02, 0.1]
held_out = true
"""
CONFIG = COLD + WARM


def write_wells(folder: Path) -> None:
    """The files that CONFIG names, and itself."""
    (folder / "wells.py").write_text(HARMONIC)
    np.save(folder / "two.npy", np.array([[0.3, 0.1, -0.2], [-0.4, 0.2, 0.1]]))
    np.save(folder / "one.npy", np.array([[0.3, -0.3, 0.2]]))
    (folder / "config.toml").write_text(CONFIG)
