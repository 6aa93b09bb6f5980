"""Weights from averages in BME's files against SciPy's minimum of the dual: chi2 and weights to 1e-6.

The dual is that of maximum entropy with errors, over a Lagrange multiplier a datum,
ln sum w0 exp(-lambda.F) + lambda.F_exp + theta / 2 sum (lambda sigma)^2, which knows nothing of hpcfit's parameters.
"""

import csv
import json
import zipfile

import numpy as np
import pytest
import scipy.optimize

from hpcfit.testsystems import averaged_ensembles
from tests.command import ROOT, here, sets
from tests.conftest import history

THETA = 2.0
CONFIG = f"""
[run]
directory = "run"
report = false
[problem]
kind = "frame-weights"
data = "averages"
theta = {THETA}
resamples = 0
PRIOR
EXPERIMENTS
[optimizer]
max_steps = 5000
relative_tolerance = 0.0
gradient_tolerance = 1e-10
"""
TABLE = """
[[problem.experiment]]
name = "{name}"
measured = "{name}.exp.dat"
calculated = "{name}.calc.dat{more}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("bme")
    averaged_ensembles.write(place, n_frames=150)
    calculated = np.loadtxt(place / "couplings.calc.dat", usecols=range(1, 7))
    measured = np.loadtxt(place / "couplings.exp.dat", usecols=(1, 2))
    averaged_ensembles.write_table(
        place / "couplings", "JCOUPLINGS", [f"J{n}" for n in range(6)], measured, calculated, packed=True
    )
    (place / "couplings.calc.dat").unlink()
    np.save(place / "w0.npy", np.random.default_rng(5).uniform(0.2, 1.0, 150))
    return place


def fitted(folder, names, prior=False, more=""):
    """Weights [T], and metrics, of a run on some of the tables."""
    ends = {"couplings": '.zip"', "saxs": f'"{more}'}
    tables = "".join(TABLE.format(name=name, more=ends.get(name, '"')) for name in names)
    text = CONFIG.replace("PRIOR", 'prior = "w0.npy"' if prior else "").replace("EXPERIMENTS", tables)
    (folder / "config.toml").write_text(text)
    assert (ran := here("optimize", folder / "config.toml", "--overwrite")).returncode == 0, ran.stderr
    with (folder / "run/weights.csv").open() as file:
        w = np.array([float(row["weight"]) for row in csv.DictReader(file)])
    return w, json.loads((folder / "run/metrics.json").read_text())


def data(folder, name):
    """F [T, M], F_exp [M], sigma [M] and side [M], as BME compares them: intensities in place of distances."""
    source = folder / f"{name}.calc.dat"
    if source.exists():
        lines = source.read_text().splitlines()
    else:
        with zipfile.ZipFile(f"{source}.zip") as archive:
            lines = archive.read(source.name).decode().splitlines()
    F = np.array([line.split()[1:] for line in lines], float)
    head, *rows = (folder / f"{name}.exp.dat").read_text().splitlines()
    value, sigma = np.array([row.split()[1:] for row in rows], float).T
    side = np.zeros(len(value))
    if "NOE" in head:
        F, value, sigma = F**-6.0, value**-6.0, 6 * value**-7.0 * sigma
        side += "LOWER" in head  # of a distance: an upper bound of its intensity
    return F, value, sigma, side


def by_dual(sets, w0, theta):
    """(weights, chi2 of each set) at the minimum of the dual."""
    F, value, sigma, side = (np.concatenate(parts, axis=-1) for parts in zip(*sets))
    f = (F - value) / sigma  # lambda in units of 1 / sigma

    def dual(x):
        exponent = -f @ x
        top = exponent.max()
        p = w0 * np.exp(exponent - top)
        return np.log(p.sum()) + top + theta / 2 * x @ x, -(p / p.sum()) @ f + theta * x

    limits = [(0, None) if one > 0 else (None, None) for one in side]
    options = {"ftol": 1e-16, "gtol": 1e-13, "maxiter": 100_000, "maxfun": 100_000, "maxcor": 30}
    start = np.zeros(len(value))
    x = scipy.optimize.minimize(dual, start, jac=True, bounds=limits, method="L-BFGS-B", options=options).x
    p = w0 * np.exp(-f @ x - (-f @ x).max())
    w = p / p.sum()
    off = np.where((side > 0) & (w @ f < 0), 0.0, w @ f)
    ends = np.cumsum([len(one[1]) for one in sets])[:-1]
    return w, [part @ part for part in np.split(off, ends)]


@pytest.mark.parametrize("prior", [False, True])
def test_couplings_distances_and_bounds_have_the_weights_of_the_dual(folder, prior):
    names = ["couplings", "noe", "unseen"]
    w, metrics = fitted(folder, names, prior)
    w0 = np.load(folder / "w0.npy") if prior else np.ones(150)
    expected, chi2 = by_dual([data(folder, name) for name in names], w0 / w0.sum(), THETA)
    np.testing.assert_allclose([one["chi2"] for one in metrics["experiments"]], chi2, atol=1e-6)
    np.testing.assert_allclose(w, expected, atol=1e-6 * expected.max())
    assert metrics["fitted"]["kl"] == pytest.approx(np.sum(w * np.log(w / (w0 / w0.sum()))), abs=1e-9)


@pytest.mark.parametrize("adjusted", ["scale", "both"])
def test_a_factor_and_a_constant_end_where_alternating_with_the_dual_does(folder, adjusted):
    w, metrics = fitted(folder, ["saxs", "noe"], more=f'\nadjusted = "{adjusted}"')
    (I, value, sigma, side), noe = data(folder, "saxs"), data(folder, "noe")
    expected, w0 = np.full(150, 1 / 150), np.full(150, 1 / 150)
    for _ in range(500):  # as BME's iterations, but to their end
        design = np.stack([expected @ I, np.ones(len(value))][: 1 + (adjusted == "both")], axis=1) / sigma[:, None]
        scale, *offset = np.linalg.lstsq(design, value / sigma, rcond=None)[0]
        before = expected
        expected, chi2 = by_dual([(scale * I + sum(offset), value, sigma, side), noe], w0, THETA)
        if np.max(np.abs(expected - before)) < 1e-12:
            break
    saxs = metrics["experiments"][0]
    np.testing.assert_allclose([one["chi2"] for one in metrics["experiments"]], chi2, atol=1e-5)
    assert saxs["scale"] == pytest.approx(scale, rel=1e-6)
    assert saxs["offset"] == pytest.approx(sum(offset), rel=1e-5, abs=1e-9)
    np.testing.assert_allclose(w, expected, atol=1e-6 * expected.max())


# ---- the demo ----------------------------------------------------------------------------------------------------

STUDY = sets("problem.theta=[3.0, 30.0]", "problem.folds=3", "problem.resamples=2")
FILES = ("weights", "experiments")
SAME = ("fit", "step", "evaluation", "loss", "chi2", "ess", "kl", "gradient_norm")  # of the history


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of the demo, with a run of its study on one rank."""
    place = tmp_path_factory.mktemp("demo")
    (place / "config.toml").write_text((ROOT / "config/frame_weights_averages.toml").read_text())
    averaged_ensembles.write(place)
    done = here("optimize", place / "config.toml", *STUDY)
    assert done.returncode == 0, done.stderr
    return place


def result(run):
    metrics = json.loads((run / "metrics.json").read_text())
    keys = (
        *("fitted", "before", "experiments", "curves", "cross_validation", "errors", "theta"),
        *("groups", "populations", "explained", "independent_frames"),
    )
    rows = [tuple(row.get(name) for name in SAME) for row in history(run)]
    return {key: metrics[key] for key in keys}, [(run / f"{name}.csv").read_text() for name in FILES], rows


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_find_the_same_bits_of_averages(demo, ranks, tmp_path, hpcfit):
    run = tmp_path / "run"
    more = sets(f"run.directory={run}", "run.report=false")
    done = hpcfit("optimize", demo / "config.toml", *STUDY, *more, ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert result(run) == result(demo / "run")


def test_the_demo_finds_shares_curve_and_scale(demo):
    metrics = json.loads((demo / "run/metrics.json").read_text())
    with (demo / "run/weights.csv").open() as file:
        w = np.array([float(row["weight"]) for row in csv.DictReader(file)])
    assert abs(w[:200].sum() - averaged_ensembles.SHARES[0]) < 0.05  # from 0.5 before
    rows = {one["name"]: one for one in metrics["experiments"]}
    assert rows["saxs"]["scale"] == pytest.approx(averaged_ensembles.FACTOR, rel=0.1)
    assert rows["noe"]["chi2_left_out"] < rows["noe"]["chi2_left_out_before"]
    page = (demo / "run/report.html").read_text()
    for words in ("Experiments", "How the strength theta was chosen", "Karplus", "χ² left out"):
        assert words in page
