"""Two molecules of one energy function with known geometries: small fits to stored geometries."""

from pathlib import Path

import numpy as np

ENERGY = '''
import jax.numpy as jnp

def energy(x, parameters, box):
    """A spring between successive atoms, and a repulsion that is linear in its strength."""
    r = jnp.sqrt(jnp.sum((x[1:] - x[:-1])**2, axis=1))
    ends = jnp.sum((x[-1] - x[0])**2)
    spring = 0.5 * parameters["k"][0] * jnp.sum((r - parameters["length"][0])**2)
    return spring + parameters["strength"][0] * (1 / ends + 0.3 * jnp.sin(9 * ends))
'''
TRUTH = {"k": 900.0, "length": 0.12, "strength": 0.8}
START = {"k": 700.0, "length": 0.125, "strength": 0.5}
OFFSETS = {"pair": -140.0, "chain": 260.0}  # kJ/mol
MOLECULE = """
[[problem.molecule]]
name = "{name}"
energy = "springs.py:energy"
parameters = {{k = 700.0, length = 0.125, strength = 0.5}}
masses = 1.0
positions = "{name}.npy"
"""
SET = """
[[problem.geometries]]
name = "{name}"
molecule = "{molecule}"
file = "{file}.npz"
length_unit = "A"
energy_unit = "kcal/mol"
energy_sigma = 0.5
"""
CONFIG = f"""
[run]
directory = "run"
report = false
[problem]
kind = "force-field"
estimator = "geometries"
block = 4
resamples = 20
{MOLECULE.format(name="pair")}
{MOLECULE.format(name="chain")}
{SET.format(name="scan", molecule="pair", file="pair")}
weights = "boltzmann"
temperature = 600.0
{SET.format(name="frames", molecule="chain", file="chain")}
force_unit = "kcal/mol/A"
force_sigma = 20.0
held_out = [1, 4]
{SET.format(name="others", molecule="chain", file="others")}
held_out = true
[[problem.parameter]]
name = "k"
transform = "log"
scale = 0.1
[[problem.parameter]]
name = "length"
scale = 0.01
[[problem.parameter]]
name = "strength"
prior = 2.0
"""
ATOMS, COUNTS = {"pair": 2, "chain": 3, "others": 3}, {"pair": 7, "chain": 11, "others": 5}
KCAL = 4.184


def energy(x, k, length, strength):
    """The energy of positions [N, 3], kJ/mol; the same function as in ENERGY."""
    r = np.linalg.norm(x[1:] - x[:-1], axis=1)
    ends = np.sum((x[-1] - x[0]) ** 2)
    return 0.5 * k * np.sum((r - length) ** 2) + strength * (1 / ends + 0.3 * np.sin(9 * ends))


def geometries(name):
    """Positions [T, N, 3] nm of a set."""
    random = np.random.default_rng(list(name.encode()))
    along = 0.12 * np.arange(ATOMS[name])[:, None] * [1.0, 0.3, 0.0]
    return along + 0.02 * random.standard_normal((COUNTS[name], ATOMS[name], 3))


def reference(name, noise):
    """Energies [T] kJ/mol of a set, its offset and errors that the energy cannot describe included."""
    random = np.random.default_rng(list(name.encode()))
    exact = np.array([energy(x, **TRUTH) for x in geometries(name)])
    return exact + OFFSETS.get(name, OFFSETS["chain"]) + noise * random.standard_normal(len(exact))


def gradient(function, x, step=1e-6):
    """The derivative of a function of an array, by central differences."""
    found = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        moved = np.zeros(x.shape)
        moved[place] = step
        found[place] = (function(x + moved) - function(x - moved)) / (2 * step)
    return found


def write_springs(folder: Path, noise: float = 0.3) -> None:
    """The files that CONFIG names."""
    (folder / "springs.py").write_text(ENERGY)
    (folder / "config.toml").write_text(CONFIG)
    for name in ATOMS:
        x = geometries(name)
        forces = np.array([-gradient(lambda at: energy(at, **TRUTH), one) for one in x])
        np.save(folder / f"{name}.npy", x[0])
        np.savez(
            folder / f"{name}.npz", positions=10 * x, energies=reference(name, noise) / KCAL, forces=forces / KCAL / 10
        )
