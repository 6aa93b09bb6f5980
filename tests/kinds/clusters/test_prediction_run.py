"""Runs that predict larger clusters: those of the reference program, the trajectory's own structures, ranks, bad input.

Not proved: that the larger clusters exist.
"""

import json
import shutil

import pytest

from hpcfit.kinds.clusters.files import (
    DEBYE_WALLER_COLUMNS,
    HISTOGRAM_COLUMNS,
    PREDICTION_COLUMNS,
    read_dataset,
)
from hpcfit.kinds.clusters.library import read_structure
from tests.command import here
from tests.kinds.clusters.golden_library import RIDGE, ROLES, golden_folder, table
from tests.kinds.clusters.test_clusters_run import ARRAYS, CONFIG, rows

TABLES = ("predictions.csv", "candidates.csv", "debye_waller.csv", "self_check.csv", "lifetimes.csv",
          "histogram_observed.csv", "histogram_combined.csv")  # fmt: skip


def prepared(folder, source, more=""):
    folder.mkdir(parents=True, exist_ok=True)
    text = CONFIG.format(source=source).replace("[problem.cutoffs]", f"{more}\n[problem.cutoffs]")
    (folder / "config.toml").write_text(text)
    done = here("prepare", folder / "config.toml")
    assert done.returncode == 0, done.stderr
    return folder / "config.toml"


@pytest.fixture(scope="module")
def frames(shared_data, tmp_path_factory):
    """The store of the golden frames, and the golden folder."""
    golden = golden_folder(shared_data)
    folder = tmp_path_factory.mktemp("golden")
    prepared(folder, ARRAYS.format(file=shared_data / "clusters/pbi64_langevin.h5") + "stop = 100\n")
    return folder, golden


# ---- the reference program -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["main", "subset5"])
def reference(request, frames, tmp_path_factory):
    """A run with the choices of the reference program: its folder, tables of the reference, tolerance of ridges."""
    store, golden = frames
    folder = tmp_path_factory.mktemp(request.param)
    labels = json.loads((golden / "settings.json").read_text())["variants"][request.param]["library_labels"]
    for one in sorted((golden / "library").iterdir()):
        if labels == "all" or one.name in labels:
            shutil.copytree(one, folder / "library" / one.name)
    shutil.copytree(store / "store", folder / "store")
    text = (store / "config.toml").read_text().replace("[problem.cutoffs]", (
        '[problem.prediction]\ncompatible = "saxshell"\nfrom_nodes = 4\nthrough_nodes = 5\n'
        '[problem.library]\nfolder = "library"\n[problem.cutoffs]'
    ))  # fmt: skip
    (folder / "config.toml").write_text(text)
    done = here("optimize", folder / "config.toml")
    assert done.returncode == 0, done.stderr
    told = {name: table(golden, request.param, name) for name in ("training", "dw")}
    return folder, told, RIDGE[request.param]


def test_s5_121_016_018_predictions_are_those_of_the_reference(reference):
    folder, told, tolerance = reference
    found = rows(folder, "predictions.csv")
    assert tuple(found[0]) == PREDICTION_COLUMNS
    assert len(PREDICTION_COLUMNS) == 14
    assert [(row["label"], row["rank"], row["source_label"], row["notes"]) for row in found] == [
        (one["label"], str(one["rank"]), one["source_label"], one["notes"]) for one in told["training"]["predictions"]
    ]
    for row, one in zip(found, told["training"]["predictions"]):
        for name in PREDICTION_COLUMNS[3:12]:
            assert float(row[name]) == pytest.approx(one[name], rel=tolerance, abs=1e-12), name


def test_s5_042_133_rows_and_candidates_with_reasons_are_in_the_data_set(reference):
    folder, told, _ = reference
    found = read_dataset(folder / "run/dataset.json")["prediction"]
    mine = {row["label"]: row for row in found["training"]}
    assert sorted(mine) == sorted(one["label"] for one in told["training"]["training"])
    for one in told["training"]["training"]:
        row = mine[one["label"]]
        assert row["features"] == one["features"]
        assert row["weight"] == pytest.approx(one["stability_weight"], rel=1e-12)
        assert row["observed"]["mean_lifetime"] == pytest.approx(one["mean_lifetime_fs"], rel=1e-12)
        assert row["representative"].endswith(one["representative_path"])
        assert row["shape"]["rg"] == pytest.approx(one["mean_radius_of_gyration"], rel=1e-12)
    expected = [
        (int(n), one["label"], one["notes"], one["status"])
        for n, of_size in told["training"]["raw_candidates"].items()
        for one in of_size["candidates"]
    ]
    assert [(one["n_node"], one["label"], one["route"], f"rejected: {one['rejected']}" if one["rejected"] else "kept")
            for one in found["candidates"]] == expected  # fmt: skip
    assert found["tail"]["anchored"] == pytest.approx(told["training"]["predicted_total_weight_from_tail"], rel=1e-12)
    assert found["without_nodes"] == (["I"] if len(mine) > 5 else [])


def test_s5_115_widths_are_those_of_the_reference(reference):
    folder, told, tolerance = reference
    found = rows(folder, "debye_waller.csv")
    assert tuple(found[0]) == DEBYE_WALLER_COLUMNS
    assert [(row["Type"], row["Method"], row["Label"], row["Pair"], int(row["Support"])) for row in found] == [
        (one["source"].capitalize(), one["method"].capitalize(), one["label"], one["pair"], one["support_count"])
        for one in told["dw"]["rows"]
    ]
    for row, one in zip(found, told["dw"]["rows"]):
        rel = 1e-12 if one["method"] == "ensemble" else max(tolerance, 1e-6)
        assert float(row["Sigma (Å)"]) == pytest.approx(one["sigma"], rel=rel, abs=1e-14)
        assert float(row["B (Å²)"]) == pytest.approx(one["b_factor"], rel=2 * rel, abs=1e-14)


def test_s5_116_histograms_have_the_population_weights(reference):
    folder, told, _ = reference
    expected = {one["label"]: one["population_weight_normalised"] for one in told["training"]["training"]}
    expected |= {one["label"]: one["population_weight_normalised"] for one in told["training"]["predictions"]}
    found = rows(folder, "histogram_combined.csv")
    assert tuple(found[0]) == HISTOGRAM_COLUMNS
    weights = {row["label"]: float(row["normalized_weight"]) for row in found}
    assert sum(weights.values()) == pytest.approx(1)
    assert weights == pytest.approx(expected, rel=1e-6)
    alone = rows(folder, "histogram_observed.csv")
    assert {row["source"] for row in alone} == {"observed"}
    assert sum(float(row["normalized_weight"]) for row in alone) == pytest.approx(1)


def test_s5_089_118_a_structure_of_each_predicted_cluster(reference):
    folder, told, _ = reference
    files = sorted(path.name for path in (folder / "run/predicted").iterdir())
    assert files == sorted(one["file"].rpartition("/")[2] for one in told["training"]["predictions"])
    for one in told["training"]["predictions"]:
        found = read_structure(folder / "run" / one["file"], ROLES)
        assert {name: found.elements.count(name) for name in set(found.elements)} == one["element_counts"]
