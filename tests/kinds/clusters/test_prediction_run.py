"""Runs that predict larger clusters: those of the reference program, the trajectory's own structures, ranks, bad input.

Not proved: that the larger clusters exist.
"""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hpcfit.kinds.clusters.files import (
    DEBYE_WALLER_COLUMNS,
    HISTOGRAM_COLUMNS,
    LIFETIME_COLUMNS,
    PREDICTION_COLUMNS,
    read_dataset,
    write_dataset,
)
from hpcfit.kinds.clusters.geometry import first_shell_pairs
from hpcfit.kinds.clusters.library import read_structure
from hpcfit.kinds.clusters.mixture.components import single
from hpcfit.observables.form_factors import amplitudes
from hpcfit.testsystems import beads_in_clusters
from tests.command import ROOT, here, sets
from tests.conftest import assert_one_clear_error
from tests.kinds.clusters.golden_library import COLUMNS, CUTOFFS, RIDGE, ROLES, VARIANTS, golden_folder, table
from tests.kinds.clusters.test_clusters_run import ARRAYS, CONFIG, copied, everything, rows


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

SHAPE = {name: COLUMNS[name] for name in ("rmax", "a", "b", "c")}
MEDIANS = {  # of the data set: name in the reference, and what joins its pairs
    "bonds": ("bond_length_medians", "-"), "contacts": ("contact_distance_medians", "-"),
    "role_contacts": ("geometry_contact_distance_medians", "-"), "angles": ("node_angle_medians", "-"),
    "node_coordination": ("node_coordination_medians", "-"), "nodes_of": ("non_node_node_coordination_medians", "-"),
    "coordination": ("atom_coordination_medians", " around-> "),
}  # fmt: skip
PAIRS = (("I", "I"), ("I", "Pb"), ("Pb", "Pb"))


@pytest.fixture(scope="module", params=VARIANTS)
def reference(request, frames, tmp_path_factory):
    """A run with the choices of the reference program: its folder, tables of the reference, tolerance of ridges."""
    store, golden = frames
    folder = tmp_path_factory.mktemp(request.param)
    chosen = json.loads((golden / "settings.json").read_text())["variants"][request.param]
    labels, sizes = chosen["library_labels"], chosen["target_node_counts"]
    for one in sorted((golden / "library").iterdir()):
        if labels == "all" or one.name in labels:
            shutil.copytree(one, folder / "library" / one.name)
    shutil.copytree(store / "store", folder / "store")
    text = (store / "config.toml").read_text().replace("[problem.cutoffs]", (
        f'[problem.prediction]\ncompatible = "saxshell"\nfrom_nodes = {sizes[0]}\nthrough_nodes = {sizes[-1]}\n'
        '[problem.library]\nfolder = "library"\n[problem.cutoffs]'
    ))  # fmt: skip
    (folder / "config.toml").write_text(text)
    done = here("optimize", folder / "config.toml")
    assert done.returncode == 0, done.stderr
    told = {name: table(golden, request.param, name) for name in ("training", "dw", "geometry", "saxs")}
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


def test_s5_019_045_to_059_067_110_all_candidates_have_the_values_and_fates_of_the_reference(reference):
    folder, told, tolerance = reference
    found = read_dataset(folder / "run/dataset.json")["prediction"]
    mine = {
        (one["candidate"]["n_node"], one["candidate"]["label"]): one for one in (*found["predicted"], *found["out"])
    }
    assert len(mine) == len(told["training"]["scored_candidates"])
    for one in told["training"]["scored_candidates"]:
        row = mine[one["target_node_count"], one["label"]]
        for name, column in COLUMNS.items():
            # axes that are 0, which the reference has as 1e-8
            near = 1e-7 if name in ("b", "c") else 1e-12
            assert row["values"][name] == pytest.approx(one[f"predicted_{column}"], rel=tolerance, abs=near), name
        assert row["score"] == pytest.approx(one["predicted_stability_score"], rel=tolerance)
        assert (row["source"], row["fate"]) == (one["source_label"], one["fate"])
    assert found["largest"] == told["training"]["max_predicted_node_count"]
    for one in told["training"]["training"]:
        row = next(row for row in found["training"] if row["label"] == one["label"])
        assert row["stability"] == pytest.approx(one["stability_weight"], rel=1e-12)
        assert row["population_weight"] == pytest.approx(one["population_weight"], rel=1e-12)
        for name in ("rmax", "a", "b", "c"):
            assert row["shape"][name] == pytest.approx(one[SHAPE[name]], rel=1e-12, abs=2e-8), name


def test_s5_021_069_to_081_medians_of_the_library_are_those_of_the_reference(reference):
    folder, told, _ = reference
    found = read_dataset(folder / "run/dataset.json")["prediction"]["geometry"]
    assert found["cutoffs"] == {"I-Pb": 4.0}
    assert found["node_bond"]["median"] == pytest.approx(told["geometry"]["node_bond_length"], rel=1e-14)
    for name, (column, between) in MEDIANS.items():
        medians = {key.replace("-", between): one["median"] for key, one in found[name].items()}
        assert medians == pytest.approx(told["geometry"][column], rel=1e-13), name


def test_s5_092_117_the_mixtures_of_the_reference_follow_from_the_files_of_a_run(reference, frames):
    """Weights, widths and representatives are those of the run, predicted structures the reference's, whose places
    nothing can reproduce."""
    folder, told, tolerance = reference
    saxs, variant = told["saxs"], told["training"]["variant"]
    q = np.array(saxs["q"])
    f = amplitudes(("I", "Pb"), q)
    sigma = {
        (row["Type"], row["Label"], row["Pair"]): float(row["Sigma (Å)"]) for row in rows(folder, "debye_waller.csv")
    }
    stands = {row["label"]: row["representative"] for row in
              read_dataset(folder / "run/dataset.json")["prediction"]["training"]}  # fmt: skip
    shell = partial(first_shell_pairs, roles=ROLES, cutoffs=CUTOFFS)
    entries = {(one["kind"], one["label"]): one for one in saxs["single_structure"]}
    for name, raw in (
        ("histogram_observed.csv", "observed_raw_model"),
        ("histogram_combined.csv", "combined_raw_model"),
    ):
        mean = np.zeros(len(q))
        for row in rows(folder, name):
            kind, label, weight = row["source"], row["label"], float(row["normalized_weight"])
            golden = frames[1] / ("" if variant == "main" else variant) / entries[kind, label]["structure"]
            one = read_structure(Path(stands[label]) if kind == "observed" else golden, ROLES)
            spread = np.array([sigma.get((kind.capitalize(), label, "-".join(pair)), 0.0) for pair in PAIRS])
            intensity = single(label, 1.0, one, ("I", "Pb"), f, q, spread, shell(one)).intensity(q)
            # sigma of ridges is known to `tolerance`, and damps by exp(-q^2 sigma^2 / 2) with q sigma up to some 3
            np.testing.assert_allclose(intensity, entries[kind, label]["intensity"], rtol=1e-7 + 10 * tolerance)
            mean += weight * intensity
        np.testing.assert_allclose(mean, saxs[raw], rtol=1e-6)


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


def irregular(folder, golden):
    """A library of all that a folder may hold, from the golden one; the files of label PbI by where they lie."""
    files = {one.name: sorted(one.glob("*.xyz")) for one in golden.iterdir()}
    content = {
        "PbI/motif_1": files["PbI"][:3], "PbI/motif_b": files["PbI"][3:], "PbI": files["PbI2"][:1],
        "representative_Pb": files["Pb"][:1], "Pb2I3": files["Pb2I3"][:1], "Pb": files["Pb"], "I": files["I"],
        "PbI3": [*files["PbI2"][:4], files["PbI3"][0]], "Pb2I2": files["Pb2I2"], "Pb9": [],
    }  # fmt: skip
    for name, some in content.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for one in some:
            shutil.copy(one, folder / name)
    never = "".join(f"Pb {4 * k} 0 0\n" for k in range(4)) + "".join(f"I {1.5 * k} 3 {0.1 * k}\n" for k in range(9))
    for name, text in (("Pb4I9/only.xyz", f"13\n\n{never}"), ("representative_Pb/broken.xyz", "no structure"),
                       ("stray.xyz", "1\n\nPb 0 0 0\n"), ("Pb/notes.md", "notes")):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("choices", ['compatible = "saxshell"', ""], ids=["saxshell", "own"])
def test_s5_008_035_036_103_irregular_libraries_from_end_to_end(frames, tmp_path, choices):
    """Motif folders with a file beside them, representatives, labels of one file, a folder of another label, a label
    that the frames never have, an empty folder, and files that are none of it."""
    store, golden = frames
    irregular(tmp_path / "library", golden / "library")
    shutil.copytree(store / "store", tmp_path / "store")
    text = f'[problem.prediction]\n{choices}\n[problem.library]\nfolder = "library"\n[problem.cutoffs]'
    (tmp_path / "config.toml").write_text((store / "config.toml").read_text().replace("[problem.cutoffs]", text))
    done = here("optimize", tmp_path / "config.toml")
    assert done.returncode == 0, done.stderr
    found = read_dataset(tmp_path / "run/dataset.json")["prediction"]
    mine = {row["label"]: row for row in found["training"]}
    assert {label: (row["counts"], row["n_structures"]) for label, row in mine.items()} == {
        "Pb": ({"Pb": 1}, 6), "PbI": ({"Pb": 1, "I": 1}, 6), "PbI3": ({"Pb": 1, "I": 2}, 5),
        "Pb2I2": ({"Pb": 2, "I": 2}, 6), "Pb2I3": ({"Pb": 2, "I": 3}, 1), "Pb4I9": ({"Pb": 4, "I": 9}, 1),
    }  # fmt: skip
    assert found["without_nodes"] == ["I"]
    told = {one["label"]: one for one in json.loads((golden / "kinetics.json").read_text())["by_label"]}
    for label, row in mine.items():
        expected = told[label]["mean_count_per_frame"] if label in told else 0.0
        assert row["observed"]["mean_count"] == pytest.approx(expected, rel=1e-12)
    assert mine["Pb4I9"]["observed"]["mean_lifetime"] is None
    notes = {row["Label"]: row["Notes"] for row in rows(tmp_path, "lifetimes.csv") if row["Type"] == "Observed"}
    assert notes["Pb4I9"] == "not seen in the frames"
    assert notes["PbI2"] == "not in the library"
    methods = {}
    for row in rows(tmp_path, "debye_waller.csv"):
        methods.setdefault((row["Type"], row["Label"]), set()).add((row["Method"], row["Support"]))
    assert ("Ensemble", "7") in methods["Observed", "PbI"]  # with the file beside the motifs
    for label in ("Pb2I3", "Pb4I9"):
        assert {method for method, _ in methods["Observed", label]} == {"Ridge"}
    assert {one["candidate"]["n_node"] for one in found["predicted"]} <= {5, 6}
    assert len(list((tmp_path / "run/predicted").iterdir())) == len(found["predicted"]) > 0


# ---- the trajectory's own structures ---------------------------------------------------------------------------------

ASKED = """
[problem.prediction]
charges = { Pb = 2, I = -1 }
charge_per_node = 1.5
threshold = 0.0
[problem.placement]
conformers = 3
"""
# `hpcfit`, which is ended by a signal when it has grown so many structures.
ENDED = """
import os, signal, sys
from hpcfit import cli
from hpcfit.kinds.clusters.prediction import stages
done, place = [], stages.place
def counted(*arguments, **options):
    done.append(1)
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return place(*arguments, **options)
stages.place = counted
cli.main()
"""


@pytest.fixture(scope="module")
def beads(tmp_path_factory):
    """A folder with 150 frames of beads, their store of three blocks, and a config that predicts."""
    folder = tmp_path_factory.mktemp("beads")
    beads_in_clusters.write(folder, beads_in_clusters.Beads(frames=150, equilibration=600))
    prepared(folder, ARRAYS.format(file="trajectory.npz"), ASKED)
    return folder


@pytest.fixture(scope="module")
def whole(beads):
    """The run of it on one rank, with its report."""
    done = here("optimize", beads / "config.toml", *sets("run.report=true"))
    assert done.returncode == 0, done.stderr
    return beads / "run"


def test_s5_114_observed_and_predicted_clusters_stand_in_one_table(beads, whole):
    found = rows(beads, "lifetimes.csv")
    assert tuple(found[0]) == LIFETIME_COLUMNS
    predicted = [row for row in found if row["Type"] == "Predicted"]
    assert {row["Label"] for row in predicted} == {row["label"] for row in rows(beads, "predictions.csv")}
    assert sum(float(row["Share %"]) for row in predicted) == pytest.approx(100)
    assert sum(float(row["Combined Weight %"] or 0) for row in found) == pytest.approx(100)
    assert sum(float(row["Observed-only Weight %"] or 0) for row in found) == pytest.approx(100)
    assert all(row["Reference"] and row["Notes"] for row in predicted)


def test_s5_017_067_predicted_clusters_are_larger_and_have_intervals_and_reasons(beads, whole):
    found = read_dataset(whole / "dataset.json")["prediction"]
    largest = max(row["n_node"] for row in found["training"])
    assert {one["candidate"]["n_node"] for one in found["predicted"]} <= {largest + 1, largest + 2}
    for one in found["predicted"]:
        low, high = one["interval"]
        assert 0 <= low <= high
        counts = one["candidate"]["counts"]
        assert abs(2 * counts["Pb"] - counts.get("I", 0)) <= 1.5 * counts["Pb"]
    fates = {row["fate"].partition(":")[0] for row in rows(beads, "candidates.csv")}
    assert fates >= {"predicted", "rejected"}
    assert found["largest_size_left_out"]
    for one in found["largest_size_left_out"]:
        assert one["interval"] is not None
    assert {one["model"] for one in found["largest_size_left_out"]} == {
        *("ridge", "elastic_net", "mass_action", "gaussian_process")
    }
    assert sum(one["weight"] for one in found["populations"] if one["source"] == "predicted") == pytest.approx(
        found["tail"]["anchored"]
    )


def test_s5_041_the_medoid_of_the_files_is_that_of_the_library(whole):
    found = read_dataset(whole / "dataset.json")["prediction"]
    for row in found["training"]:
        first = (whole / f"structures/{row['label']}.xyz").read_text().splitlines()[1]
        assert row["representative"] in first


def test_s5_128_conformers_and_self_check(whole, beads):
    predicted = sorted(path.name for path in (whole / "predicted").iterdir())
    assert sorted(path.name for path in (whole / "conformers").iterdir()) == predicted
    n, *_ = (whole / "conformers" / predicted[0]).read_text().splitlines()
    assert len((whole / "conformers" / predicted[0]).read_text().splitlines()) == 3 * (int(n) + 2)
    checks = rows(beads, "self_check.csv")
    assert len(checks) > 3
    assert all(0 <= float(row["undamped"]) < 1 for row in checks)


def test_s5_119_the_data_set_with_its_prediction_comes_back_as_it_was(whole, tmp_path):
    write_dataset(tmp_path / "again.json", read_dataset(whole / "dataset.json"))
    assert (tmp_path / "again.json").read_bytes() == (whole / "dataset.json").read_bytes()


def test_s5_122_125_133_the_report_shows_the_prediction_with_its_limits(whole):
    text = (whole / "report.html").read_text()
    for words in ("Predicted clusters", "Models of counts", "Candidates", "Weights of labels", "Debye-Waller widths",
                  "predicted structures from two sides", "rejected: duplicate label", "gaussian process",
                  "as the self-check of each observed label shows", "are part of the report"):  # fmt: skip
        assert words in text


def test_s5_122_slides_have_the_sections_of_the_report(whole):
    pptx = pytest.importorskip("pptx")
    done = here("report", whole, "--pptx")
    assert done.returncode == 0, done.stderr
    slides = pptx.Presentation(str(whole / "report.pptx")).slides
    titles = [next(shape.text_frame.text for shape in slide.shapes if shape.has_text_frame) for slide in slides]
    for section in ("Outcome", "Labels in time", "Lifetimes", "Predicted clusters", "Settings"):
        assert any(title.startswith(section) for title in titles), section
    kinds = {int(shape.shape_type) for slide in slides for shape in slide.shapes}
    assert {13, 19} <= kinds  # pictures and tables


def results(run):
    return {name: content for name, content in everything(run).items() if not name.startswith(("report", "colormap."))}


@pytest.mark.mpi
def test_s5_090_134_two_ranks_write_the_same_bytes(beads, whole, tmp_path, hpcfit):
    done = hpcfit("optimize", copied(beads, tmp_path), ranks=2)
    assert done.returncode == 0, done.stderr
    found = results(tmp_path / "run")
    assert found == results(whole)
    assert any(name.startswith("predicted/") for name in found)
    assert any(name.startswith("conformers/") for name in found)


def test_s5_140_a_run_that_is_ended_while_structures_grow_goes_on(beads, whole, tmp_path):
    config = copied(beads, tmp_path)
    command = [sys.executable, "-c", ENDED, "optimize", str(config)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert ended.returncode == 75, ended.stderr
    done = here("optimize", config, "--resume")
    assert done.returncode == 0, done.stderr
    assert "stage 'clusters' has ended before" in done.stderr
    assert "stage 'intervals of predicted counts' has ended before" in done.stderr
    assert "stage 'predicted structures' goes on" in done.stderr
    assert results(tmp_path / "run") == results(whole)


def test_labels_that_train_nothing_are_predicted_beside_what_was_seen(beads, tmp_path):
    config = copied(beads, tmp_path)
    asked = "problem.prediction={from_nodes=3,through_nodes=3,candidates=9,model='mass_action'}"
    done = here("optimize", config, *sets("problem.library={through_nodes=2}", asked, "problem.resamples=10"))
    assert done.returncode == 0, done.stderr
    predicted = [row for row in rows(tmp_path, "candidates.csv") if row["fate"] == "predicted"]
    found = [row for row in predicted if row["observed_mean_count"]]
    assert found
    assert {row["nodes"] for row in found} == {"3"}
    seen = {row["of"]: row["mean_count"] for row in rows(tmp_path, "kinetics.csv") if row["by"] == "label"}
    assert all(row["observed_mean_count"] == seen[row["label"]] for row in found)
    notes = {row["Label"]: row["Notes"] for row in rows(tmp_path, "lifetimes.csv") if row["Type"] == "Observed"}
    assert all(notes[row["label"]] == "not in the library" for row in found)


def test_nothing_is_predicted_without_its_table(beads, tmp_path):
    config = copied(beads, tmp_path)
    config.write_text(config.read_text().replace(ASKED, ""))
    done = here("optimize", config, *sets("run.report=true"))
    assert done.returncode == 0, done.stderr
    assert "prediction" not in read_dataset(tmp_path / "run/dataset.json")
    assert not any((tmp_path / "run" / name).exists() for name in ("predicted", "predictions.csv", "debye_waller.csv"))
    assert "Predicted clusters" not in (tmp_path / "run/report.html").read_text()
    columns = {"Combined Weight %", "Share %", "Candidate Rank"}
    assert all(not row[name] for row in rows(tmp_path, "lifetimes.csv") for name in columns)


def test_s5_129_structures_are_relaxed_where_it_is_asked_for_and_flagged(beads, whole, tmp_path):
    config = copied(beads, tmp_path)
    energy = "sigma={Pb=3.0,I=3.6},epsilon={Pb=0.5,I=0.5},charges={Pb=2,I=-1},permittivity=20.0"
    done = here("optimize", config, *sets(f"problem.placement={{relax={{{energy}}}}}", "run.report=true"))
    assert done.returncode == 0, done.stderr
    found = read_dataset(tmp_path / "run/dataset.json")["prediction"]["predicted"]
    before = {one["file"]: read_structure(whole / "predicted" / one["file"], ROLES) for one in found}
    for one in found:
        path = tmp_path / "run/predicted" / one["file"]
        structure, told = read_structure(path, ROLES), one["relaxed"]
        assert told["after"] < told["before"]
        moved = structure.positions - before[one["file"]].positions
        expected = told["moved"] if told["whole"] else 0.0
        assert np.sqrt(np.mean(np.sum(moved**2, axis=1))) == pytest.approx(expected, abs=1e-6)
        assert ("relaxed=yes" if told["whole"] else "relaxed=no") in path.read_text()
    assert any(one["relaxed"]["whole"] for one in found)
    assert "Structures relaxed in a simple energy" in (tmp_path / "run/report.html").read_text()


# ---- bad input -------------------------------------------------------------------------------------------------------

BAD = [
    (["problem.library={folder='none'}"], ["folder of structures", "none does not exist"]),  # S5-008, S5-043
    (["problem.library={folder='strange'}"], ["no label of the library (strange) is among those of the frames"]),
    (["problem.library={folder='ones'}"], ["all 2 labels of the library have 1 node", "at least two numbers"]),
    (["problem.library={folder='broken'}"], ["a.xyz, line 4: 'I 1 x 0'"]),
    (["problem.prediction={from_nodes=2,through_nodes=3}"], ["sizes to predict [2, 3] are not above"]),
    (["problem.prediction={from_nodes=7}"], ["from_nodes = 7", "through_nodes = None", "give both"]),
    (["problem.prediction={from_nodes=7,through_nodes=6}"], ["from_nodes = 7 is above through_nodes = 6"]),
    (["problem.prediction={compatible='saxshell',model='ridge'}"], ["model = ridge has no effect with compatible"]),
    (["problem.prediction={compatible='saxshell'}", "problem.debye_waller={ddof=1}"], ["debye_waller.ddof has no"]),
    (["problem.prediction={mass='modelled',decay_clip=[0.1,0.5]}"], ["decay_clip", "no effect with mass = 'modelled'"]),
    (["problem.prediction={charge_per_node=1.0}"], ["charge_per_node = 1 has no effect without charges"]),
    (["problem.prediction={charges={Pb=2}}"], ["prediction.charges lacks I"]),
    (
        ["problem.placement={relax={sigma={Pb=3},epsilon={Pb=1}}}"],
        ["placement.relax.sigma is given of Pb, the structures have I, Pb", "add I = ..."],
    ),
    (
        ["problem.placement={relax={sigma={Pb=3,I=3},epsilon={Pb=1,I=1},permittivity=9}}"],
        ["relax.permittivity = 9 has no effect without charges"],
    ),
    (["problem.prediction={charges={Pb=2,I=-1,Cl=-1}}"], ["prediction.charges has Cl"]),
    (["problem.prediction={model='forest'}"], ["model", "gaussian_process"]),
    (["problem.placement={terms={colour=1.0}}"], ["terms", "colour"]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), BAD, ids=lambda value: str(value[0])[:48])
def test_one_clear_error(beads, changes, words, tmp_path):
    config = copied(beads, tmp_path)
    pair = "2\n\nPb 0 0 0\nI 3 0 0\n"
    for name, text in (("strange/strange", pair), ("ones/Pb", "1\n\nPb 0 0 0\n"), ("ones/PbI", pair),
                       ("broken/PbI", "2\n\nPb 0 0 0\nI 1 x 0\n")):  # fmt: skip
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.xyz").write_text(text)
    assert_one_clear_error(here("optimize", config, *sets(*changes)), words)


def test_tables_without_a_prediction_have_no_effect(beads, tmp_path):
    config = copied(beads, tmp_path)
    config.write_text(config.read_text().replace("[problem.prediction]\n", "").replace("charge", "# charge").replace(
        "threshold", "# threshold"))  # fmt: skip
    assert_one_clear_error(here("optimize", config), ["[problem.placement] has no effect without [problem.prediction]"])
