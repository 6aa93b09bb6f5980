"""Frames that are given: their averages by NumPy, every source of them, ranks, errors, and what may be wrong."""

import csv
import json
from functools import partial

import numpy as np
import pytest

from hpcfit.fit.grid import make_grid
from hpcfit.fit.problem import Params
from hpcfit.fit.rounds import jacobian
from hpcfit.kinds.force_field.files import DERIVATIVES, GRADIENT, OBSERVABLES, PARAMETERS
from hpcfit.kinds.table import load_config, open_case
from hpcfit.prepare.command import run_prepare
from hpcfit.ranks import Ranks
from tests.command import here, sets
from tests.conftest import assert_one_clear_error, history
from tests.fit.thread_ranks import on_ranks
from tests.kinds.force_field.given import CONFIG, KT, WINDOWS, Frames, K, W, write_given
from tests.store.changed import changed_catalog

FITTED = ("chi2", "prior", "k", "w", "share_of_frames")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the inputs, and the frames in them; treat as read-only."""
    folder = tmp_path_factory.mktemp("given")
    return folder, write_given(folder)


@pytest.fixture(scope="module")
def run(made):
    """The folder with its run on one rank."""
    done = here("optimize", made[0] / "config.toml", *sets("run.report=true"))
    assert done.returncode == 0, done.stderr
    return made[0] / "run"


def evaluator(config, ranks=None):
    ranks = ranks or Ranks()
    case = open_case(config, ranks)
    return case.evaluate(make_grid(ranks, case.shape(ranks.size, config.grid), case.n_blocks, case.n_tiles))


def evaluated(config, k, w, ranks=None):
    return evaluator(config, ranks)(at(k, w))


def at(k, w):
    return Params({"k": np.array([np.log(k / K) / 0.3]), "w": np.array([w - W])}, ())


def averages(frames, k, w, kept=slice(None)):
    weight = frames.weights(k, w)[kept]
    return weight @ frames.data()[kept] / weight.sum()


def rows_of(run, name):
    return list(csv.DictReader((run / name).read_text().splitlines()))


# ---- averages --------------------------------------------------------------------------------------------------------


def test_frames_are_weighed_as_by_numpy(made):
    """Averages, the share of frames that carry them, and all derivatives, at the parameters drawn at and at others."""
    folder, frames = made
    evaluate = evaluator(load_config(folder / "config.toml"))
    for k, w in ((K, W), (2.2, 3.4)):
        found = evaluate(at(k, w))
        np.testing.assert_allclose(found.sums["data"], averages(frames, k, w), rtol=1e-12)
        weight, data = frames.weights(k, w), frames.data()
        share = weight.sum() ** 2 / np.sum(weight**2) / weight.size
        assert evaluate.metrics(found)["share_of_frames"] == pytest.approx(share, rel=1e-12)
        # d<O>/du = -cov(O, dU/du) / kT; u of k is ln(k / K) / 0.3.
        _, J = jacobian(evaluate, found)
        for column, (slope, by_u) in enumerate(zip(frames.slopes(), (0.3 * k, 1.0))):
            both = (weight * slope) @ data / weight.sum()
            moved = -(both - averages(frames, k, w) * (weight @ slope / weight.sum())) * by_u
            np.testing.assert_allclose(J[:2, column], moved / KT / [0.02, 0.05], rtol=1e-10)


def test_a_draw_of_which_too_few_frames_carry_averages_is_no_loss(made):
    config = load_config(made[0] / "config.toml")
    assert np.isfinite(evaluated(config, 2.2, 3.4).loss)
    assert not np.isfinite(evaluated(config, 0.5, 3.0).loss)


def test_arrays_and_stores_hold_the_same_frames(made, tmp_path):
    """A store rounds to float32, so that it is compared with what it holds; a .npy file has the box of the system."""
    folder, frames = made
    (tmp_path / "store.toml").write_text(
        f'[frames]\nstore = "store"\n[prepare]\ncontent = "positions"\nshard_frames = 64\n[[prepare.source]]\n'
        f'trajectory = "{folder / "frames.extxyz"}"\n'
    )
    run_prepare(load_config(tmp_path / "store.toml"), Ranks())
    rounded = Frames(*(0.1 * np.float32(10 * leaf).astype(float) for leaf in frames))
    stored = load_config(folder / "config.toml", [f"problem.system={system(folder, tmp_path / 'store')}"])
    np.testing.assert_allclose(evaluated(stored, 2.2, 3.4).sums["data"], averages(rounded, 2.2, 3.4), rtol=1e-12)
    np.save(tmp_path / "x.npy", frames.x)
    in_one_box = Frames(frames.x, np.broadcast_to(np.diag([2.0, 2.2, 2.4]), frames.box.shape))
    expected = averages(in_one_box, 2.2, 3.4)[:1]
    several = load_config(folder / "config.toml", [f"problem.system={system(folder, tmp_path / 'x.npy')}"])
    np.testing.assert_allclose(evaluated(several, 2.2, 3.4).sums["data"], expected, rtol=1e-12)


def system(folder, frames):
    """[problem] system of CONFIG with other frames, as a value of TOML."""
    [one] = load_config(folder / "config.toml").model_dump(mode="json", exclude_none=True)["problem"]["system"]
    one = {**one, "frames": [str(frames)]}
    if frames.suffix == ".npy":  # of constant volume
        one = {key: value for key, value in one.items() if key != "pressure"} | {"observable": one["observable"][:1]}
    return "[" + toml(one) + "]"


def toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + "}"
    return "[" + ", ".join(map(toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


def test_ranks_weigh_to_the_same_bits(made):
    config = load_config(made[0] / "config.toml")
    [alone] = on_ranks(1, partial(evaluated, config, 2.2, 3.4))
    for found in on_ranks(3, partial(evaluated, config, 2.2, 3.4)):
        assert found.loss == alone.loss
        for name in ("k", "w"):
            assert found.gradient.shared[name] == alone.gradient.shared[name]


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_a_fit_lowers_chi2_on_the_frames_and_says_how_many_carry_it(made, run):
    metrics, frames = json.loads((run / "metrics.json").read_text()), made[1]
    k, w = metrics["parameters"]["values"]
    assert metrics["fitted"]["chi2"] < 0.1 * metrics["before"]["chi2"]
    weight = frames.weights(k, w)
    share = weight.sum() ** 2 / np.sum(weight**2) / weight.size
    assert metrics["fitted"]["share_of_frames"] == pytest.approx(share, rel=1e-9)
    report = (run / "report.html").read_text()
    assert "7 windows of frames that were given" in report
    assert "new draw" not in report


def test_errors_are_those_of_a_jackknife_over_windows(made, run):
    frames, metrics = made[1], json.loads((run / "metrics.json").read_text())
    k, w = metrics["parameters"]["values"]
    F = len(frames.x) // WINDOWS
    without = [np.delete(np.arange(F * WINDOWS), np.s_[n * F : (n + 1) * F]) for n in range(WINDOWS)]
    left_out = np.array([averages(frames, k, w, kept) for kept in without])
    error = np.sqrt((WINDOWS - 1) / WINDOWS * np.sum((left_out - left_out.mean(axis=0)) ** 2, axis=0))
    found = [float(row["error_after"]) for row in rows_of(run, OBSERVABLES)]
    np.testing.assert_allclose(found, error, rtol=1e-9)
    slopes = [slope_by_k(frames, k, w, kept) for kept in (slice(None), *without)]
    [row] = [one for one in rows_of(run, DERIVATIVES) if (one["observable"], one["parameter"]) == ("second", "k")]
    assert float(row["fluctuation"]) == pytest.approx(slopes[0], rel=1e-9)
    spread = np.sqrt((WINDOWS - 1) * np.var(slopes[1:]))
    assert float(row["fluctuation_error"]) == pytest.approx(spread, rel=1e-7)
    assert row["pathwise"] == ""


def slope_by_k(frames, k, w, kept):
    """d<x^2>/dk."""
    weight, O = frames.weights(k, w)[kept], frames.data()[kept, 0]
    by_k = frames.slopes()[0][kept]
    mean = lambda values: weight @ values / weight.sum()  # noqa: E731
    return -(mean(O * by_k) - mean(O) * mean(by_k)) / KT


def test_the_gradient_is_that_of_the_fluctuation_formula_without_its_bias(made, run):
    """dL/dk = sum (<O> - measured) / sigma^2 d<O>/dk of all frames and without each window, the jackknife of these, and
    for w its prior."""
    frames, metrics = made[1], json.loads((run / "metrics.json").read_text())
    k, w = metrics["parameters"]["values"]
    F = len(frames.x) // WINDOWS
    kept = [slice(None), *(np.delete(np.arange(F * WINDOWS), np.s_[n * F : (n + 1) * F]) for n in range(WINDOWS))]
    whole, *left_out = np.array([loss_slopes(frames, k, w, one) for one in kept])
    value = WINDOWS * whole - (WINDOWS - 1) * np.mean(left_out, axis=0)
    error = np.sqrt((WINDOWS - 1) * np.var(left_out, axis=0))
    rows = rows_of(run, GRADIENT)
    assert [(row["parameter"], row["way"]) for row in rows] == [("k", "fluctuation"), ("w", "fluctuation")]
    np.testing.assert_allclose([float(row["gradient"]) for row in rows], value, rtol=1e-7)
    np.testing.assert_allclose([float(row["error"]) for row in rows], error, rtol=1e-7)


def loss_slopes(frames, k, w, kept):
    """The derivatives of the loss by k and w, by central differences."""

    def loss(k, w):
        off = (averages(frames, k, w, kept) - [0.5, 0.4]) / [0.02, 0.05]
        return 0.5 * np.sum(off**2) + 0.5 * ((w - W) / 0.5) ** 2

    h = 1e-5
    return [(loss(k + h, w) - loss(k - h, w)) / (2 * h), (loss(k, w + h) - loss(k, w - h)) / (2 * h)]


def test_one_step_by_fluctuations_starts_where_another_run_ended(made, run, tmp_path):
    """Priors stay where they were: the loss at the start has the prior of the first run's end."""
    chosen = ["problem.estimator=fluctuation", "problem.rounds=1", f"run.directory={tmp_path / 'run'}"]
    done = here("optimize", made[0] / "config.toml", *sets(*chosen, f"problem.start={run / PARAMETERS}"))
    assert done.returncode == 0, done.stderr
    before, after = (json.loads((one / "metrics.json").read_text()) for one in (run, tmp_path / "run"))
    np.testing.assert_allclose(after["parameters"]["start"], before["parameters"]["values"], rtol=1e-14)
    assert after["before"]["prior"] == pytest.approx(before["fitted"]["prior"], rel=1e-9)
    assert after["before"]["share_of_frames"] == pytest.approx(1.0, rel=1e-12)
    assert history(tmp_path / "run")[-1]["step"] == 1


@pytest.mark.mpi
def test_ranks_fit_frames_to_the_same_files(made, run, tmp_path, hpcfit):
    done = hpcfit("optimize", made[0] / "config.toml", *sets(f"run.directory={tmp_path / 'run'}"), ranks=3)
    assert done.returncode == 0, done.stderr
    for name in (PARAMETERS, OBSERVABLES, DERIVATIVES):
        assert (tmp_path / "run" / name).read_text() == (run / name).read_text()
    of = lambda folder: [tuple(row[name] for name in FITTED) for row in history(folder)]  # noqa: E731
    assert of(tmp_path / "run") == of(run)


# ---- what may be wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ('"frames.extxyz"', '"three.npy"', ["three.npy have 3 atoms, system 'wells' has 2"]),
        ('"frames.extxyz"', '"bare.extxyz"', ["bare.extxyz have no box, and system 'wells' is periodic"]),
        ('"frames.extxyz"', '["frames.extxyz", "few.npy"]', ["few.npy have no box"]),
        ('"frames.extxyz"', '"few.npy"', ["has 3 frames, fewer than windows = 7"]),
        ('"frames.extxyz"', '"none.npy"', ["none.npy"]),
        ('"frames.extxyz"', '"nowhere*.xyz"', ["nowhere*.xyz does not exist"]),
        ('"frames.extxyz"', '"empty"', ["empty", "has no frames"]),
        ('"frames.extxyz"', '"enough.npy"', ["pressure = 1, and its frames have no box each"]),
        ("kT = 1.2\n", "", ["needs `temperature` (K) or `kT`"]),
        ("kT = 1.2\n", "kT = 1.2\nfriction = 2.0\n", ["friction have no effect on frames that are given"]),
        ("rounds = 3", "rounds = 3\nwindow = 5.0", ["window have no effect on frames that are given"]),
        ('"reweighting"', '"pathwise"', ["'pathwise' is of trajectories"]),
        ('"reweighting"', '"fluctuation"', ["rounds = 3: 'fluctuation' takes one step"]),
        ('frames = "frames.extxyz"\n', "", ["missing key 'problem.window'"]),
        ('observable = "density"', 'observable = "mean-square-displacement"\natoms = "all"\nlags = [1.0]',
         ["'density' of system 'wells' is of a motion"]),
        ("rounds = 3", 'rounds = 3\nstart = "other.csv"', ["other.csv has the parameters k, q", "has k, w"]),
        ("[problem]", "[simulate]\nframes = 3\n[problem]", ["[simulate] is for rounds", "--rounds"]),
    ],
)  # fmt: skip
def test_wrong_frames_are_one_clear_error(made, before, after, expected):
    folder = made[0]
    np.save(folder / "three.npy", np.zeros((20, 3, 3)))
    np.save(folder / "few.npy", np.zeros((3, 2, 3)))
    np.save(folder / "enough.npy", np.zeros((9, 2, 3)))
    np.save(folder / "none.npy", np.zeros((0, 2, 3)))
    (folder / "bare.extxyz").write_text("2\n\nAr 0 0 0\nAr 1 0 0\n" * 9)
    (folder / "other.csv").write_text("name,value\nk,2.0\nq,1.0\n")
    write_empty_store(folder)
    text = CONFIG.replace(before, after, 1)
    assert text != CONFIG
    (folder / "wrong.toml").write_text(text)
    assert_one_clear_error(here("check", folder / "wrong.toml"), expected)


def write_empty_store(folder):
    """A store whose catalog lists no shard."""
    if (folder / "empty").exists():
        return
    (folder / "store.toml").write_text(
        '[frames]\nstore = "empty"\n[prepare]\ncontent = "positions"\n'
        '[[prepare.source]]\ntrajectory = "frames.extxyz"\n'
    )
    run_prepare(load_config(folder / "store.toml"), Ranks())
    changed_catalog(folder / "empty", lambda catalog: catalog.update(shards=[]))


@pytest.mark.mpi
def test_a_frame_without_a_finite_energy_is_one_error_on_ranks(made, tmp_path, hpcfit):
    """The last window is read by the last rank alone."""
    folder, frames = made
    x = frames.x.copy()
    x[-1, 0] = np.nan
    np.save(folder / "broken.npy", x)
    text = CONFIG.replace('"frames.extxyz"', '"broken.npy"').replace("pressure = 1.0\n", "")
    (folder / "broken.toml").write_text(text[: text.rindex("[[problem.system.observable]]")])
    done = hpcfit("optimize", folder / "broken.toml", *sets(f"run.directory={tmp_path / 'run'}"), ranks=3)
    assert_one_clear_error(done, ["broken.npy, frame 97 holds what is no finite number"])
