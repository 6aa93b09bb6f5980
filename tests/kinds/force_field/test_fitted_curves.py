"""Karplus curves that are fitted beside the parameters of an energy: their derivatives, and a known truth.

Bonds and angles of the chain know nothing of the torsion, whose density is exp(-U(phi) / kT): the averages of cos and
cos^2 follow by quadrature.
"""

import csv
import json

import numpy as np
import pytest

from hpcfit.fit.by_blocks import Reverse
from hpcfit.fit.grid import Shape, make_grid
from hpcfit.fit.problem import Params
from hpcfit.fit.rounds import jacobian
from hpcfit.kinds.force_field.files import DERIVATIVES, PARAMETERS
from hpcfit.kinds.force_field.simulated.case import SimulatedCase
from hpcfit.kinds.table import load_config
from hpcfit.ranks import Ranks
from tests.command import here
from tests.conftest import assert_one_clear_error

ENERGY = """
import jax.numpy as jnp

def cosine(x, box):
    b = x[1:] - x[:-1]
    m, n = jnp.cross(b[0], b[1]), jnp.cross(b[1], b[2])
    return jnp.sum(m * n) / jnp.sqrt(jnp.sum(m**2) * jnp.sum(n**2))

def energy(x, parameters, box):
    b = x[1:] - x[:-1]
    r = jnp.linalg.norm(b, axis=1)
    bend = jnp.sum(b[1:] * b[:-1], axis=1) / (r[1:] * r[:-1])
    stiff = 50 * jnp.sum((r - 1) ** 2) + 20 * jnp.sum((bend - 0.3) ** 2)
    return stiff + parameters["k"][0] * cosine(x, box)
"""
CONFIG = """
[run]
directory = "run"
report = true
seed = 1
[problem]
kind = "force-field"
estimator = "fluctuation"
rounds = 6
windows = 24
block = 8
window = 16.0
frames = 40
skipped = 4
[[problem.parameter]]
name = "k"
transform = "log"
scale = 0.2
[[problem.curve]]
name = "proton"
coefficients = [8.0, -1.0, 1.0]
offset = 0.4
fitted = true
prior = 3.0
[[problem.system]]
name = "chain"
energy = "chain.py:energy"
parameters = {{k = 1.0}}
masses = 1.0
positions = "chain.npy"
kT = 1.0
friction = 1.0
step = 0.02
equilibration = 8.0
[[problem.system.observable]]
name = "cosine"
observable = "own"
function = "chain.py:cosine"
values = {cosine}
sigma = 0.005
[[problem.system.observable]]
name = "couplings"
observable = "scalar-couplings"
quadruples = [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
curve = "proton"
offset = [0.0, 1.0, 2.0]
values = {couplings}
sigma = 0.05
[[problem.system.observable]]
name = "others"
observable = "scalar-couplings"
quadruples = [[0, 1, 2, 3], [0, 1, 2, 3]]
curve = "proton"
offset = [-1.0, 3.0]
values = {others}
sigma = 0.05
"""
K, TRUE, OFFSET = 1.5, np.array([9.5, -1.6, 0.4]), 0.4


def mean(of_phi):
    phi = np.linspace(-np.pi, np.pi, 2001)[:-1]
    w = np.exp(-K * np.cos(phi))
    return w @ of_phi(phi[:, None]) / w.sum()


def coupled(*offsets):
    return mean(lambda phi: np.polyval(TRUE, np.cos(phi + OFFSET + np.array(offsets)))).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curves")
    (folder / "chain.py").write_text(ENERGY)
    np.save(folder / "chain.npy", [[0.0, 0.9, 0.3], [0.0, 0, 0], [1.0, 0, 0], [1.3, -0.9, 0.2]])
    data = {"cosine": mean(np.cos)[0], "couplings": coupled(0.0, 1.0, 2.0), "others": coupled(-1.0, 3.0)}
    (folder / "config.toml").write_text(CONFIG.format(**data))
    return folder


def test_residuals_have_the_derivatives_of_finite_differences_by_curves(folder):
    case = SimulatedCase.open(load_config(folder / "config.toml"))
    assert case.moving.free == case.moving.labels == ("k", "proton A", "proton B", "proton C")
    grid = make_grid(Ranks(), Shape(1, 1, ""), case.n_blocks, 1)
    evaluate = case.evaluate(grid)
    rng = np.random.default_rng(0)
    x = np.load(folder / "chain.npy") + 0.05 * rng.normal(size=(24, 4, 3))
    start = case.start({"x 0": x, "v 0": rng.normal(size=x.shape)}, grid)
    u = {"k": np.array([0.3]), "~proton": np.array([0.5, -0.4, 0.2])}
    at = lambda moved: evaluate(Params(u | {"~proton": moved}, start.local))  # noqa: E731
    here = at(u["~proton"])
    _, J = jacobian(evaluate, here)
    for number, step in enumerate(1e-3 * np.eye(3)):
        up, down = (
            evaluate.problem.residuals(at(u["~proton"] + way * step).sums, u | {"~proton": u["~proton"] + way * step})
            for way in (1, -1)
        )
        np.testing.assert_allclose(J[:, 1 + number], (up - down) / 2e-3, rtol=1e-8, atol=1e-8)
    back = Reverse(evaluate.problem, evaluate.frames, evaluate.grid, evaluate.add)
    for name, slope in back(here.params).gradient.shared.items():
        np.testing.assert_allclose(slope, here.gradient.shared[name], rtol=1e-9, atol=1e-9)


def test_a_known_curve_is_found_beside_a_force_constant(folder):
    done = here("optimize", folder / "config.toml")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((folder / "run" / PARAMETERS).read_text().splitlines()))
    assert [(row["name"], row["unit"]) for row in rows] == [
        ("k", ""), ("proton A", "Hz"), ("proton B", "Hz"), ("proton C", "Hz")
    ]  # fmt: skip
    for row, true in zip(rows, (K, *TRUE)):
        assert abs(float(row["value"]) - true) < 3 * float(row["error"]), row
        assert float(row["error"]) < abs(float(row["start"]) - true), row
    metrics = json.loads((folder / "run/metrics.json").read_text())
    assert metrics["fitted"]["chi2"] < 0.3 * metrics["before"]["chi2"]
    assert "fitted curves" in (folder / "run/report.html").read_text()
    derivatives = (folder / "run" / DERIVATIVES).read_text()
    assert ",k," in derivatives
    assert "proton" not in derivatives


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("prior = 3.0\n", "", ["curve 'proton': `prior`", "give both, or neither"]),
        ('curve = "proton"', 'curve = "protn"', ["there is no curve 'protn'", "did you mean 'proton'"]),
        ('curve = "proton"', 'curve = "proton"\ncoefficients = [1.0, 1.0, 1.0]', ["`coefficients` or a `curve`"]),
        ('name = "proton"', 'name = "carbon"', ["there is no curve 'proton'"]),
        ("[[problem.system]]", '[[problem.curve]]\nname = "idle"\ncoefficients = [1.0, 0.0, 0.0]\n[[problem.system]]',
         ["curve 'idle' is used by no observable"]),
    ],
)  # fmt: skip
def test_a_wrong_curve_is_one_error(folder, before, after, expected):
    text = (folder / "config.toml").read_text()
    assert before in text
    (folder / "wrong.toml").write_text(text.replace(before, after, 1))
    assert_one_clear_error(here("check", folder / "wrong.toml"), expected)
