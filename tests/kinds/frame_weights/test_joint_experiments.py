"""A diffuse map, scattering and distances of one ensemble fitted together: loss, passes, bits, and the known truth."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from hpcfit.fit.adjoint import Adjoint
from hpcfit.fit.by_blocks import Reverse
from hpcfit.fit.grid import Shape, make_grid
from hpcfit.fit.inner import combine
from hpcfit.fit.many import Many, side_by_side
from hpcfit.fit.problem import Params
from hpcfit.fit.reduction import choose_sum
from hpcfit.kinds.frame_weights.case import FrameWeightsCase
from hpcfit.kinds.frame_weights.experiments import data_folds, features_of
from hpcfit.kinds.table import load_config
from hpcfit.ranks import Ranks
from hpcfit.testsystems import averaged_ensembles
from tests.command import here, sets
from tests.conftest import also_on_ranks, assert_one_clear_error, history, name_of

FIT = """
theta = 3.0
starts = ["prior"]
resamples = 0
map_weight = 600.0
"""
SAXS = """
[[problem.experiment]]
name = "saxs"
measured = "saxs.exp.dat"
calculated = "saxs.calc.dat"
adjusted = "both"
"""
NOE = """
[[problem.experiment]]
name = "noe"
measured = "noe.exp.dat"
calculated = "noe.calc.dat"
"""
COUPLINGS = """
[[problem.experiment]]
name = "couplings"
measured = "couplings.exp.dat"
torsions = "torsions.npy"
curve = "proton"
[[problem.curve]]
name = "proton"
coefficients = [7.5, -1.0, 1.4]
fitted = true
"""
SAME = ("fit", "step", "evaluation", "loss", "chi2", "cc", "kl", "gradient_norm")  # of the history
RESULTS = ("weights.csv", "experiments.csv", "sources.csv")
STUDY = sets("problem.theta=[3.0, 30.0]", "problem.folds=3", "problem.resamples=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("joint")
    averaged_ensembles.write_joint(place, "gamma = 5.0" + FIT + SAXS + NOE + COUPLINGS, n_frames=200)
    return place


def opened(folder, precision="float64"):
    """Value and gradient of the whole problem on one rank, in one pass, and the case."""
    case, world = FrameWeightsCase.open(load_config(folder / "config.toml", [f"run.precision={precision}"])), Ranks()
    grid = make_grid(world, Shape(1, 1, ""), case.n_blocks, case.n_tiles)
    return case.gradient(grid, 10**9, choose_sum("reproducible", grid)), case


def random_params(gradient, seed=3):
    rows, random = gradient.frames.rows, np.random.default_rng(seed)
    u = np.where(rows.ids >= 0, np.exp(0.2 * random.standard_normal(rows.ids.shape)), 0.0)
    start = gradient.problem.init(0, rows)
    return Params({key: 0.3 * random.standard_normal(np.shape(v)) for key, v in start.shared.items()}, {"u": u})


def table(folder, name, kind, columns):
    lines = (folder / f"{name}.{kind}.dat").read_text().splitlines()
    return np.array([line.split()[1:] for line in lines if line[0] != "#"], float)[:, :columns]


def half_chi2_by_numpy(folder, w, curve):
    """chi2 / 2 of all data, from the files: [saxs, noe, couplings]."""
    value, sigma = table(folder, "saxs", "exp", 2).T
    c = w @ table(folder, "saxs", "calc", None)
    x = np.linalg.lstsq(np.stack([c, np.ones_like(c)], 1) / sigma[:, None], value / sigma, rcond=None)[0]
    saxs = (x[0] * c + x[1] - value) / sigma
    value, sigma = table(folder, "noe", "exp", 2).T
    noe = (w @ table(folder, "noe", "calc", None) ** -6.0 - value**-6.0) / (6 * value**-7.0 * sigma)
    value, sigma = table(folder, "couplings", "exp", 2).T
    cosine = np.cos(np.load(folder / "torsions.npy"))
    couplings = (curve[0] * w @ cosine**2 + curve[1] * w @ cosine + curve[2] - value) / sigma
    return [off @ off / 2 for off in (saxs, noe, couplings)]


def test_the_loss_is_that_of_the_map_and_of_all_data(folder):
    gradient, _ = opened(folder)
    params = random_params(gradient)
    at, problem = gradient(params), gradient.problem
    of_map = gradient.of(replace(problem, experiments=None))
    alone = of_map(Params({}, params.local))
    penalty = 3.0 * of_map.metrics(alone)["kl_within"]
    w = problem.weights_of(at.params, gradient.frames.rows)[gradient.frames.rows.ids >= 0]
    curve = np.asarray(problem.experiments.curves(params.shared))[0]
    parts = half_chi2_by_numpy(folder, w, curve)
    A, B, C = curve - [7.5, -1.0, 1.4]
    phi = np.linspace(0, 2 * np.pi, 1001)[:-1]
    change = np.mean((A * np.cos(phi) ** 2 + B * np.cos(phi) + C) ** 2)
    expected = 600.0 * (alone.loss - penalty) + penalty + sum(parts) + 5.0 * change
    assert at.loss == pytest.approx(expected, rel=1e-9)
    metrics = gradient.metrics(at)
    assert [metrics[f"chi2 {name}"] / 2 for name in ("saxs", "noe", "couplings")] == pytest.approx(parts, rel=1e-8)


def test_one_pass_and_two_give_the_gradient_of_differences(folder):
    once, _ = opened(folder)
    assert isinstance(once, Adjoint)
    (chunk,) = once.frames.chunks()
    tiles, strips, frames, reals = chunk.data.shape
    blocks = chunk.data.swapaxes(1, 2).reshape(tiles, frames // 64, 64, strips * reals)
    again = chunk._replace(rows=slice(0, frames // 64), data=blocks)
    twice = Reverse(once.problem, once.frames._replace(chunks=lambda: iter([again])), once.grid, once.add)
    params = random_params(once)
    one, two = once(params), twice(params)
    assert one.loss == pytest.approx(two.loss, rel=1e-12)
    for a, b in zip((one.gradient.local["u"], one.gradient.shared["curves"]),
                    (two.gradient.local["u"], two.gradient.shared["curves"])):  # fmt: skip
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9 * np.max(np.abs(b)))
    random, h = np.random.default_rng(7), 1e-5
    held = once.frames.rows.ids >= 0
    for along in range(3):
        way = Params(
            {"curves": random.standard_normal((1, 3)) * (along != 1)},
            {"u": np.where(held, random.standard_normal(held.shape), 0.0) * (along != 2)},
        )
        slope = np.sum(one.gradient.local["u"] * way.local["u"])
        slope += np.sum(one.gradient.shared["curves"] * way.shared["curves"])
        beyond, before = (once(combine([1.0, step], [one.params, way])).loss for step in (h, -h))
        # h^2 of the third derivative, and the rounding of a loss of some hundreds over h
        assert slope == pytest.approx((beyond - before) / (2 * h), rel=1e-6, abs=1e-5)


def test_the_frames_of_the_map_are_read_once_with_experiments_as_without(folder):
    gradient, _ = opened(folder, "float32")
    read = []

    def counted(chunks=gradient.frames.chunks):
        for chunk in chunks():
            read.append(chunk.data.shape[0] * chunk.data.shape[2] // 64)
            yield chunk

    params = random_params(gradient)
    for experiments in (gradient.problem.experiments, None):
        read.clear()
        problem = replace(gradient.problem, experiments=experiments)
        of = replace(gradient, problem=problem, frames=gradient.frames._replace(chunks=counted))
        of(params if experiments else Params({}, params.local))
        assert sum(read) == gradient.grid.n_blocks * len(gradient.grid.tiles)


def test_fits_of_folds_and_resamples_have_in_company_the_bits_that_they_have_alone(folder):
    gradient, case = opened(folder, "float32")
    fold = data_folds(case.tables, 3, 0)
    problems = [
        replace(gradient.problem, experiments=gradient.problem.experiments.without(fold == n)) for n in range(3)
    ]
    gradients = [gradient.of(problem) for problem in problems] + [gradient]
    params = [random_params(gradient, seed) for seed in range(4)]
    together = Many(gradients)
    found = together(side_by_side(params), np.ones(4, bool))
    told = together.metrics(found, np.ones(4, bool))
    for n, (one, at) in enumerate(zip(gradients, params)):
        alone = Many([one])
        assert alone(side_by_side([at]), np.ones(1, bool)).loss[0] == found.loss[n]
        by_itself = one(at)
        assert by_itself.loss == pytest.approx(found.loss[n], rel=1e-12)
        assert told[n] == pytest.approx(one.metrics(by_itself), rel=1e-9)
        assert ("chi2_free" in told[n]) == (n < 3)


def test_a_rank_without_frames_has_no_rows_of_the_same_width(folder):
    _, case = opened(folder)
    found = features_of(case.tables, np.zeros((0, 64), int))
    assert found.shape == (0, 64, 30 + 6 + 2 * 6)
    ids = np.where(np.arange(64) < 5, np.arange(7, 71), -1)[None]
    some = features_of(case.tables, ids)
    np.testing.assert_array_equal(some[0, :5], features_of(case.tables, np.arange(64)[None])[0, 7:12])
    assert not some[0, 5:].any()


@pytest.fixture(scope="module")
def whole(folder):
    """The study on one rank."""
    done = here("optimize", folder / "config.toml", *STUDY, *sets(f"run.directory={folder / 'whole'}"))
    assert done.returncode == 0, done.stderr
    return folder / "whole"


def result(run):
    metrics = json.loads((run / "metrics.json").read_text())
    rows = [tuple(row.get(name) for name in SAME) for row in history(run)]
    keys = ("fitted", "uniform", "experiments", "curves", "cross_validation", "errors", "groups", "populations")
    return {key: metrics[key] for key in keys}, [(run / name).read_text() for name in RESULTS], rows


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_find_the_same_bits_of_a_joint_fit(whole, ranks, folder, tmp_path, hpcfit):
    run = tmp_path / "run"
    done = hpcfit("optimize", folder / "config.toml", *STUDY, *sets(f"run.directory={run}"), ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert result(run) == result(whole)


def test_the_known_shares_come_out_of_all_data_together(whole):
    metrics = json.loads((whole / "metrics.json").read_text())
    share = {row["group"]: row["weight"] for row in metrics["groups"]}["bent"]
    assert abs(share - averaged_ensembles.SHARES[0]) < 0.05  # from 0.5 before
    rows = {row["group"]: row for row in metrics["populations"]}
    assert rows["bent"]["fitted"] == pytest.approx(share, rel=1e-12)
    assert sum(row["without_theta"] for row in rows.values()) == pytest.approx(1, rel=1e-12)
    assert {(row["corrected"], row["groups_alone"]) for row in rows.values()} == {(None, None)}
    assert set(metrics["errors"]["frames"]["bias"]) == set(rows)
    for one in metrics["experiments"]:
        assert one["chi2"] < one["chi2_before"]
        assert one["chi2_left_out"] < one["chi2_left_out_before"]
    assert metrics["fitted"]["cc"] > metrics["uniform"]["cc"]
    assert metrics["experiments"][0]["scale"] == pytest.approx(averaged_ensembles.FACTOR, rel=0.1)
    with (whole / "experiments.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30 + 6 + 6
    assert all(float(row["error"]) > 0 for row in rows)


def test_the_report_shows_the_experiments(whole, tmp_path):
    done = here("report", whole)
    assert done.returncode == 0, done.stderr
    page = (whole / "report.html").read_text()
    for words in ("Experiments", "saxs", "χ² left out", "deviations of data"):
        assert words in page


# ---- what may be wrong -----------------------------------------------------------------------------------------------


def shorter(folder):
    text = (folder / "saxs.calc.dat").read_text()
    (folder / "saxs.calc.dat").write_text(text[: text.rindex("frame")])


def of_more_frames(folder):
    for name in ("saxs", "noe"):
        text = (folder / f"{name}.calc.dat").read_text()
        (folder / f"{name}.calc.dat").write_text(text + text.splitlines()[-1] + "\n")


def without_sigma(folder):
    (folder / "noe.exp.dat").write_text("# DATA=NOE\nx 3.0 0.0\n")


def empty(folder):
    (folder / "noe.exp.dat").write_text("")


def of_few_columns(folder):
    (folder / "noe.calc.dat").write_text("f 1 2\n")


FAULTS = {
    shorter: ["saxs.calc.dat has 19 rows", "noe.calc.dat has 20"],
    of_more_frames: ["saxs.calc.dat has 21 rows", "frames.store has 20 frames"],
    without_sigma: ["line 2: sigma is 0"],
    empty: ["noe.exp.dat has no rows of numbers"],
    of_few_columns: ["noe.calc.dat: line 1 has 3 fields, not 7"],
}


@pytest.mark.parametrize(("fault", "ranks"), also_on_ranks([*FAULTS], 2, always=(of_more_frames,)), ids=name_of)
def test_wrong_tables_are_one_error(fault, ranks, tmp_path, hpcfit):
    config = averaged_ensembles.write_joint(tmp_path, FIT + SAXS + NOE, n_frames=20, d_min=12.0)
    fault(tmp_path)
    assert_one_clear_error(hpcfit("check", config, ranks=ranks), FAULTS[fault])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (FIT.replace("map_weight = 600.0", "") + NOE, ["map_weight is missing beside [[problem.experiment]]"]),
        (FIT, ["map_weight has no effect without [[problem.experiment]]"]),
        ("gamma = 1.0" + FIT + NOE, ["gamma = 1 has no effect without"]),
        (FIT + COUPLINGS, ["gamma is missing"]),
        (FIT + NOE + NOE, ["experiments: the name 'noe' is given twice"]),
        (FIT.replace("3.0", "[1.0, 3.0]") + "folds = 7\n" + NOE, ["folds = 7 of 6 data"]),
        (FIT + 'data = "mean"' + NOE, ["'problem.data' = 'mean'", "use one of map, averages"]),
    ],
)
def test_options_without_effect_or_that_are_missing_are_one_error(options, words, tmp_path):
    config = averaged_ensembles.write_joint(tmp_path, options, n_frames=20, d_min=12.0)
    assert_one_clear_error(here("check", config), words)
