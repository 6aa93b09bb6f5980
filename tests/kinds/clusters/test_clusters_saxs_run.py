"""Scattering and the mixture fit through the whole program: a known mixture, ranks, stops, bad curves.

Not proved: that a real solution scatters as its clusters do (tools/saxs_curves mixture shows one).
"""

import json
import re
import tomllib

import h5py
import numpy as np
import pytest

from hpcfit.kinds.clusters.case import ClustersCase
from hpcfit.kinds.clusters.files import MIXTURE_COLUMNS, PROFILE_COLUMNS, TRACE_COLUMNS
from hpcfit.kinds.clusters.mixture.config import BackgroundConfig, CurveConfig, MixtureConfig, ScatteringConfig
from hpcfit.kinds.table import load_config
from hpcfit.observables.interparticle import hard_spheres
from hpcfit.observables.pair_moments import exact_pair_sums, intensity
from hpcfit.testsystems import beads_in_clusters
from tests.command import ROOT, here, sets
from tests.conftest import assert_one_clear_error
from tests.kinds.clusters.test_clusters_run import ARRAYS, CONFIG, copied, everything, rows

TRUE = {"Pb": 0.25, "PbI": 0.4, "PbI2": 0.2, "Pb2I2": 0.15}
SCALE, OFFSET, HARD, ERROR = 2e-5, 0.05, (5.0, 0.1), 0.002
FIT = 'problem.curve={file="curve.dat"}'
QUICK = sets(FIT, 'problem.mixture={spheres="hard",prior=0.01,bootstrap=4,folds=2}')


@pytest.fixture(scope="module")
def beads(tmp_path_factory):
    """Two trajectories of 70 frames of few beads: four blocks; run without a curve, which one is then made from."""
    folder = tmp_path_factory.mktemp("saxs")
    few = beads_in_clusters.Beads(nodes=8, linkers=16, side=20.0, frames=70, equilibration=200)
    for number in (1, 2):
        beads_in_clusters.write(folder, few._replace(seed=number))
        (folder / "trajectory.npz").rename(folder / f"part{number}.npz")
    (folder / "config.toml").write_text(CONFIG.format(source=ARRAYS.format(file="part*.npz")))
    asked = sets("problem.scattering={q_min=0.03,q_max=1.5,points=120}")
    for words in (["prepare"], ["optimize", *asked, *sets("run.report=true")]):
        done = here(words[0], folder / "config.toml", *words[1:])
        assert done.returncode == 0, done.stderr
    (folder / "run").rename(folder / "alone")
    with h5py.File(folder / "alone/scattering.h5") as file:
        q, profiles, labels = file["q"][:], file["profiles"][:], file["labels"].asstr()[:].tolist()
    mean = sum(w * profiles[labels.index(label)] for label, w in TRUE.items())
    exact = SCALE * np.asarray(hard_spheres(q, *HARD)) * mean + OFFSET
    noise = np.random.default_rng(3).standard_normal(len(q))
    np.savetxt(folder / "curve.dat", np.stack([q, exact * (1 + ERROR * noise), ERROR * exact], axis=1))
    return folder


@pytest.fixture(scope="module")
def whole(beads):
    """The fit of it on one rank, with a posterior."""
    done = here("optimize", beads / "config.toml", *QUICK, *sets("run.report=true"))
    assert done.returncode == 0, done.stderr
    return beads / "run"


def with_curve(beads, folder):
    (folder / "curve.dat").write_bytes((beads / "curve.dat").read_bytes())
    return copied(beads, folder)


def metrics_of(run):
    return json.loads((run / "metrics.json").read_text())["scattering"]


def test_s5_023_without_a_curve_nothing_is_fitted(beads):
    found = metrics_of(beads / "alone")
    assert found["traces"] == {"mixture": {"scale": 1.0, "offset": 0.0}}
    assert "chi2" not in found
    text = (beads / "alone/saxs_traces.csv").read_text().splitlines()
    assert tuple(text[0].split(",")) == TRACE_COLUMNS
    assert all(row.split(",")[2] == row.split(",")[3] and row.split(",")[4] == "" for row in text[1:])
    assert not (beads / "alone/mixture.csv").exists()
    assert "No curve was given: scale 1, offset 0" in (beads / "alone/report.html").read_text()


def test_s5_091_139_averaged_components_are_means_over_all_clusters(beads):
    """Against the exact Debye sum of each cluster of each frame; moments differ by 1e-7 of it at most."""
    config = load_config(beads / "config.toml", ["problem.scattering={q_min=0.03,q_max=1.5,points=120}"])
    case = ClustersCase.open(config)
    finder, q, f = case.finder(case.cutoffs({"Pb-I": {0: 4.0}})), case.measured.q, case.form_factors
    every = {}
    for block in range(case.n_blocks):
        for _, x, box, where in case.frames.of_block(block):
            found = finder.clusters(x, box, where)
            for number, counts in enumerate(found.counts):
                label = case.roles.label(dict(zip(case.of.species, counts)))
                if label in ("Pb", "PbI2", "Pb2I2"):
                    every.setdefault(label, []).append(found.structure(number))
    with h5py.File(beads / "alone/scattering.h5") as file:
        labels = file["labels"].asstr()[:].tolist()
        assert "I" not in labels
        for label, some in every.items():
            mean = np.zeros(len(q))
            for one in some:
                atoms = [one.elements.count(name) for name in case.elements]
                mean += intensity(atoms, exact_pair_sums(one.positions, one.elements, case.elements, q), f, q)
            np.testing.assert_allclose(file["profiles"][labels.index(label)], mean / len(some), rtol=1e-7)
            weight = file["populations"][labels.index(label)]
            assert weight == pytest.approx(len(some) / case.n_frames, rel=1e-12)


def test_s5_107_117_141_a_known_mixture_is_recovered(whole):
    found = metrics_of(whole)
    freedom = found["points"] - found["free_parameters"]
    assert abs(found["chi2"] - freedom) < 5 * (2 * freedom) ** 0.5
    table = {row["name"]: row for row in rows(whole.parent, "mixture.csv")}
    assert tuple(next(iter(table.values()))) == MIXTURE_COLUMNS
    total = sum(float(row["value"]) for row in table.values() if row["kind"] == "population")
    assert total == pytest.approx(1)
    # Four refits know a standard error to some 40 %: it is doubled before 4 of it are taken, with 0.02 beside it.
    for label, true in TRUE.items():
        error = 2 * float(table[label]["bootstrap_error"])
        assert abs(float(table[label]["value"]) - true) < 4 * error + 0.02, label
    assert float(table["radius"]["value"]) == pytest.approx(HARD[0], abs=0.2)
    assert float(table["fraction"]["value"]) == pytest.approx(HARD[1], abs=0.02)


def test_s5_117_traces_components_and_residuals(whole):
    text = np.genfromtxt(whole / "saxs_traces.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    np.testing.assert_allclose(text["residual"], text["experimental"] - text["fitted"], atol=1e-12)
    assert np.sum(text["residual_in_sigma"] ** 2) == pytest.approx(metrics_of(whole)["chi2"], rel=1e-6)
    assert np.mean((text["experimental"] - text["least_squares"]) ** 2) ** 0.5 == pytest.approx(
        metrics_of(whole)["traces"]["mixture"]["least_squares"]["rmse"], rel=1e-9
    )
    profiles = rows(whole.parent, "saxs_components.csv")
    assert tuple(profiles[0]) == PROFILE_COLUMNS
    added = np.zeros(len(text))
    for number, row in enumerate(profiles):
        added[number % len(text)] += float(row["contribution"])
    np.testing.assert_allclose(added + metrics_of(whole)["parameters"]["offset"], text["fitted"], rtol=1e-9)
    page = (whole / "report.html").read_text()
    for words in ("Mixture fit", "scattering curves", "populations with errors", "structure factor", "Guinier"):
        assert words in page


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_s5_134_scattering_has_the_same_bytes_on_ranks(beads, whole, ranks, tmp_path, hpcfit):
    done = hpcfit("optimize", with_curve(beads, tmp_path), *QUICK, *sets("run.report=false"), ranks=ranks)
    assert done.returncode == 0, done.stderr
    names = ("saxs_traces.csv", "saxs_components.csv", "mixture.csv", "scattering.h5")
    found, expected = everything(tmp_path / "run"), everything(whole)
    assert all(found[name] == expected[name] for name in names)


def test_s5_140_scattering_goes_on_where_it_was_stopped(beads, whole, tmp_path):
    """A clock that has run out after the first unit of each job, and after each fit."""
    config = with_curve(beads, tmp_path)
    short = [*QUICK, *sets("optimizer.wall_clock_minutes=1e-9", "run.report=false")]
    done, jobs = here("optimize", config, *short), 1
    while done.returncode == 75:
        assert jobs < 12, done.stderr
        stopped = jobs < 10
        done = here("optimize", config, "--resume", *(short if stopped else [*QUICK, *sets("run.report=false")]))
        jobs += 1
    assert done.returncode == 0, done.stderr
    assert jobs > 8
    found, expected = everything(tmp_path / "run"), everything(whole)
    assert all(found[name] == expected[name] for name in ("mixture.csv", "saxs_components.csv", "scattering.h5"))


def test_s5_092_106_predicted_components_are_damped_and_their_b_is_refined(beads, tmp_path):
    settings = sets(
        FIT, 'problem.mixture={spheres="hard",refine_b=["Pb-I"],bootstrap=0,folds=0}', "problem.prediction={}",
        "problem.resamples=0", "run.report=true",
    )  # fmt: skip
    done = here("optimize", with_curve(beads, tmp_path), *settings)
    assert done.returncode == 0, done.stderr
    found = metrics_of(tmp_path / "run")
    assert set(found["traces"]) == {"observed mixture", "mixture"}
    assert found["traces"]["observed mixture"]["free_parameters"] < found["free_parameters"]
    assert "B Pb-I" in {row["name"] for row in rows(tmp_path, "mixture.csv")}
    assert {row["trace"] for row in rows(tmp_path, "saxs_traces.csv")} == {"observed", "all"}
    foretold = {row["label"]: row["target_node_count"] for row in rows(tmp_path, "predictions.csv")}
    scattering = rows(tmp_path, "saxs_components.csv")
    assert foretold == {row["label"]: row["nodes"] for row in scattering if row["source"] == "predicted"}
    assert found["predicted_components"] == len(foretold) > 0
    assert "observed labels alone" in (tmp_path / "run/report.html").read_text()


# ---- bad input -------------------------------------------------------------------------------------------------------


def written(folder, change):
    curve = np.loadtxt(folder / "curve.dat")
    np.savetxt(folder / "curve.dat", change(curve))


def negative(curve):
    curve[7, 2] = -1
    return curve


BAD_CURVES = [
    (negative, [FIT], ["curve.dat: line 8: sigma is -1", "sigma = 'drop'"]),
    (lambda curve: curve[:, :2], [FIT], ["curve.dat", "sigma is asked for in field 3", "sigma = 0.03"]),
    (None, ['problem.curve={file="nowhere.dat"}'], ["nowhere.dat does not exist"]),
    (None, ['problem.curve={file="curve.dat",q_min=2.0}'], ["curve.dat reaches from q = 0.03", "between 2 and inf"]),
    (None, [FIT, "problem.scattering={q_min=0.031,q_max=0.032}"], ["no row lies between 0.031 and 0.032"]),
    (None, ['problem.curve=[{file="curve.dat",q_max=0.9},{file="other.dat",q_min=0.6}]'],
     ["other.dat disagree where they overlap", "(tolerance)"]),
    (None, [FIT, 'problem.background={file="short.dat"}'], ["short.dat reaches from"]),
    (None, [FIT, 'problem.scattering={ions={O="O1-"}}'], ["ions.O has no effect", "I, Pb"]),
    (None, [FIT, 'problem.scattering={ions={Pb="Pb9+"}}'], ["'Pb9+' has no form factor", "Pb2+"]),
    (None, [FIT, 'problem.mixture={refine_b=["Pb-I"]}'], ["refine_b = 'Pb-I' has no effect"]),
    (None, [FIT, 'problem.mixture={refine_b=["Pb-O"]}'], ["B of the pair Pb-O"]),
    (lambda curve: curve[:9], [FIT], ["9 points for"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "settings", "words"), BAD_CURVES, ids=range(len(BAD_CURVES)))
def test_one_clear_error_of_a_curve(beads, change, settings, words, tmp_path):
    config = with_curve(beads, tmp_path)
    curve = np.loadtxt(tmp_path / "curve.dat")
    np.savetxt(
        tmp_path / "other.dat", curve * np.stack([1 + 0 * curve[:, 0], 1 + curve[:, 0] ** 2, 0.01 + 0 * curve[:, 0]], 1)
    )
    np.savetxt(tmp_path / "short.dat", curve[:50])
    if change is not None:
        written(tmp_path, change)
    assert_one_clear_error(here("optimize", config, *sets(*settings)), words)


WITHOUT_EFFECT = [
    (["problem.mixture={}"], "mixture has no effect without a measured curve"),
    (['problem.background={file="curve.dat"}'], "background has no effect without a measured curve"),
    ([FIT, "problem.scattering={points=9}"], "points has no effect with a curve"),
    ([FIT, "problem.scattering={stitch_scaled=false}"], "stitch_scaled has no effect on fewer than two"),
    (["problem.scattering={guinier_q_rg=1.0}"], "guinier_q_rg has no effect without"),
    (["problem.scattering={volume_scale=1.1}"], "volume_scale has no effect without solvent_density"),
    (['problem.scattering={radiation="neutron",ions={Pb="Pb2+"}}'], "ions have no effect"),
    (["problem.scattering={q_min=1.0,q_max=0.5}"], "q_min = 1.0 is not below q_max = 0.5"),
    ([FIT, "problem.mixture={starts={radius=5.0}}"], "starts.radius has no effect"),
    ([FIT, "problem.mixture={weights=false,prior=2.0}"], "prior = 2.0 has no effect without weights"),
    ([FIT, "problem.mixture={burn=9}"], "burn = 9 has no effect without posterior"),
    ([FIT, 'problem.mixture={spheres="charged"}'], "needs debye_length and bjerrum"),
    ([FIT, "problem.mixture={bootstrap=1}"], "bootstrap = 1"),
    ([FIT, "problem.mixture={folds=1}"], "folds = 1"),
    ([FIT, "problem.mixture={weights=false,posterior=9}"], "posterior has nothing to draw"),
    ([FIT, 'problem.mixture={spheres="hard",bounds={radius=[9.0,3.0]}}'], "the first is not below the second"),
    ([FIT, 'problem.background={file="curve.dat",factor=0.9}'], "factor = 0.9 has no effect with use = 'fit'"),
]


@pytest.mark.parametrize(("settings", "words"), WITHOUT_EFFECT, ids=lambda value: str(value)[:40])
def test_options_of_scattering_without_effect_are_errors(beads, settings, words):
    assert_one_clear_error(here("check", beads / "config.toml", *sets(*settings)), [words])


def test_the_shipped_config_has_every_key_of_scattering():
    """With the # before keys and tables taken away, each at its default or at something valid."""
    text = (ROOT / "config/clusters.toml").read_text()
    lines = text[text.index("# Scattering of the clusters") :].splitlines()
    keys = [line.removeprefix("# ") for line in lines if re.match(r"# (\[|[a-z_]+ = )", line)]
    found = tomllib.loads("\n".join(keys))["problem"]
    tables = {"scattering": ScatteringConfig, "background": BackgroundConfig, "mixture": MixtureConfig}
    for name, kind in tables.items():
        assert set(found[name]) == set(kind.model_fields), name
    assert set(found["curve"][0]) == set(CurveConfig.model_fields)
