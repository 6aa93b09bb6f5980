"""Two small ensembles that use every kind of data, with random numbers: 70 and 41 frames."""

from pathlib import Path

import numpy as np

DATA = """
[[problem.ensemble.data]]
name = "couplings"
torsions = "{name}_torsions.npy"
curve = "proton"
measured = "{name}_measured_couplings.npy"
[[problem.ensemble.data]]
name = "distances"
calculated = "{name}_distances.npy"
power = 6
measured = "{name}_measured_distances.npy"
[[problem.ensemble.data]]
name = "means"
calculated = "{name}_means.npy"
bound = "upper"
measured = "{name}_measured_means.npy"
"""
CONFIG = f"""
[run]
directory = "run"
report = false
[problem]
kind = "force-field"
estimator = "tabulated"
alpha = 2.0
beta = 0.5
gamma = 0.7
resamples = 2
resample_blocks = 5
[[problem.ensemble]]
name = "one"
terms = "one_terms.npy"
{DATA.format(name="one")}
[[problem.ensemble]]
name = "two"
weights = "two_weights.npy"
terms = "two_terms.npy"
{DATA.format(name="two")}
[[problem.curve]]
name = "proton"
coefficients = [9.0, -1.5, 0.5]
offset = 0.3
fitted = true
[[problem.correction]]
name = "shift"
columns = [0, 1]
[[problem.correction]]
name = "tilt"
columns = [2]
"""


def write_small(folder: Path) -> None:
    """The tables that CONFIG names; the last frame of the second ensemble has no weight."""
    for number, (name, T) in enumerate({"one": 70, "two": 41}.items()):
        random = np.random.default_rng([7, number])
        tables = {
            "terms": random.standard_normal((T, 3)),
            "torsions": random.uniform(-3, 3, (T, 2)),
            "distances": random.uniform(0.2, 0.6, (T, 2)),
            "means": random.standard_normal((T, 3)),
            "weights": random.uniform(0.5, 1.5, T) * (np.arange(T) < T - 1),
            "measured_couplings": [[6.0, 1.0], [4.0, 1.5]],
            "measured_distances": [[0.3, 0.02], [0.28, 0.05]],
            "measured_means": [[-0.2, 0.2], [0.4, 0.2], [-0.5, 0.3]],
        }
        for key, values in tables.items():
            np.save(folder / f"{name}_{key}.npy", values)
