"""The report of synthetic runs of kind "force-map": what it shows, in which unit, and what it leaves out.

Not proven here: that a figure is pleasant to look at (look at it), and that a real run writes these files.
"""

import json
import re
import xml.etree.ElementTree as ET

import h5py
import numpy as np
import pytest

from hpcfit.commands.report import run_report
from hpcfit.errors import InputError
from hpcfit.kinds.force_map import report as whole
from hpcfit.kinds.force_map import report_models as potentials
from hpcfit.kinds.force_map import report_noise as noise
from hpcfit.kinds.force_map.figures import with_zero
from hpcfit.kinds.force_map.figures_coefficients import by_offset
from hpcfit.kinds.force_map.files import ForceMapRun, read_maps
from hpcfit.kinds.force_map.numbers import ForceUnit, data_efficiency
from hpcfit.kinds.force_map.report_coefficients import coefficients as coefficients_section
from hpcfit.kinds.force_map.report_coefficients import outside_own
from hpcfit.report.page import render
from tests.kinds.force_map.force_map_directories import (
    FACTOR,
    MAPS,
    coefficients,
    make_force_map,
    write_history,
    write_maps,
    write_potentials,
    write_simulation,
)
from tests.report.report_page import Page

SECTIONS = [
    "Outcome", "Warnings", "Maps", "Coefficients", "Learning", "Correlation in time", "Validity", "Force matching",
    "Coarse-grained simulation", "Time", "Settings",
]  # fmt: skip


def page_of(directory, *builders) -> Page:
    """A page of some sections only."""
    run = ForceMapRun(directory)
    return Page(render("", "", [section for build in builders if (section := build(run)) is not None]))


def titles(text: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", text)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    metrics = make_force_map(directory)
    text = run_report(directory).read_text(encoding="utf-8")
    return metrics, text, Page(text)


def test_a_run_that_has_everything_has_all_sections_in_order(reported):
    _, text, _ = reported
    assert titles(text) == SECTIONS


def test_numbers_are_those_of_the_metrics_in_the_unit_of_the_report(reported):
    metrics, text, page = reported
    squares = [row[key] for row in metrics["maps"] for key in ("fitted", "held_out", "held_out_error")]
    squares += [row["predicted"] for row in metrics["maps"] if row["free"]]
    squares += [value for row in metrics["comparison"]["maps"][:1] for value in row["cross"]]
    squares += [value for row in metrics["decomposition"] for key in ("chi2", "pmf_error", "noise", "cross")
                for value in row[key]]  # fmt: skip
    squares += [value for row in metrics["force_matching"]["linear"] for value in (row["train"], *row["held_out"])]
    squares += [row[key] for row in metrics["force_matching"]["neural"] for key in ("residual", "residual_free")]
    forces = metrics["decomposition"][0]["bias"]
    shown = np.array(page.values)
    for value in [v * FACTOR**2 for v in squares] + [v * FACTOR for v in forces]:
        assert np.isclose(shown, value, rtol=1e-14, atol=0).any(), value
    assert "(kcal/mol/Å)²" in text
    assert "kJ/mol/A" not in "".join(page.text)


def test_warnings_and_invalid_maps_are_set_off_and_explained(reported):
    _, text, page = reported
    assert '<p class="warning">map &#39;slice&#39; is invalid</p>' in text
    assert "A map is invalid where" in text
    assert [row[:2] for row in page.tables[0][1:]] == [
        ["slice", "INVALID"], ["basic", ""], ["optimal", ""], ["local", "chosen"],
    ]  # fmt: skip


def test_noise_removed_is_the_difference_of_held_out_residuals_of_valid_maps(reported):
    metrics, _, page = reported
    [table] = [table for table in page.tables if table[0][-1] == "empty"]
    removed = {row[0]: row[4] for row in table[1:]}
    assert (removed["slice"], removed["basic"]) == ("", "")
    assert float(removed["local"]) == pytest.approx(7500 * FACTOR**2, rel=1e-3)  # four digits are shown
    assert metrics["force_matching"]["linear"][1]["held_out"][0] == 9910.0


def test_every_figure_is_svg_that_refers_to_nothing_else_and_has_a_caption_with_a_baseline(reported):
    _, text, page = reported
    figures = page.figures()
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    # beads, heat map, learning, ridges, inefficiency, ridges, 3 kinds of potentials, mean force, fits, profiles, slow
    assert len(figures) == len(captions) == 13
    for figure in figures:
        links = [v for node in ET.fromstring(figure).iter() for k, v in node.attrib.items() if k.endswith("}href")]
        assert all(link.startswith(("#", "data:")) for link in links)
    assert not [caption for caption in captions if "baseline" not in caption]


def test_same_files_give_the_same_bytes(tmp_path):
    make_force_map(tmp_path)
    runs = (ForceMapRun(tmp_path) for _ in "12")
    first, second = (render("", "", [whole.outcome(run), whole.maps(run)]) for run in runs)
    assert first == second


# ---- what is left out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("builder", "changes"),
    [
        (noise.correlation, {"inefficiency": {}}),
        (noise.validity, {"comparison": None, "decomposition": []}),
        (potentials.matching, {"force_matching": None}),
        (potentials.simulation, {"force_matching": None}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_section_of_what_the_run_does_not_have_is_left_out(tmp_path, builder, changes):
    make_force_map(tmp_path, drop=("potentials.h5", "simulation.h5"), **changes)
    assert builder(ForceMapRun(tmp_path)) is None


def test_learning_shows_only_maps_that_have_something_to_fit(tmp_path):
    metrics = make_force_map(tmp_path)
    free = [row | {"free": 0.0} for row in metrics["maps"]]
    (tmp_path / "metrics.json").write_text(json.dumps(metrics | {"maps": free}))
    assert noise.learning(ForceMapRun(tmp_path)) is None
    (tmp_path / "metrics.json").write_text(json.dumps(metrics | {"learning": {}}))
    assert len(page_of(tmp_path, noise.learning).figures()) == 1  # of the ridge


def test_a_map_without_constant_coefficients_has_no_section_of_them(tmp_path):
    make_force_map(tmp_path)
    with h5py.File(tmp_path / "maps.h5", "a") as file:
        for key in ("bead", "atom", "coefficient", "error"):
            del file["local"][key]
    assert coefficients_section(ForceMapRun(tmp_path)) is None


def without_other_figures(metrics: dict) -> dict:
    """Force matching without its ridge curves and neural potentials, whose figures take time."""
    matched = metrics["force_matching"]
    return metrics | {
        "force_matching": matched | {"linear": [row | {"curve": []} for row in matched["linear"]], "neural": []}
    }


def figures_of(directory, *builders) -> list[str]:
    return [value for _, key, value in page_of(directory, *builders).attributes if key == "alt"]


def test_missing_groups_of_potentials_and_simulation_are_skipped(tmp_path):
    metrics = without_other_figures(make_force_map(tmp_path, drop=("history.jsonl",)))
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    write_potentials(tmp_path / "potentials.h5", exact=False, angles=1)
    write_simulation(tmp_path / "simulation.h5", slow=False)
    assert figures_of(tmp_path, potentials.matching, potentials.simulation) == [
        "All terms of the fitted force fields", "Free energies of simulation and mapped frames",
    ]  # fmt: skip


def test_the_exact_potential_is_drawn_and_named_with_the_pair_alone(reported):
    _, text, _ = reported
    said = {caption.split()[0]: "exact" in caption for caption in re.findall(r"<figcaption>(.*?)</figcaption>", text)
            if "terms of the fitted force fields" in caption}  # fmt: skip
    assert said == {"Bond": False, "Angle": False, "Pair": True}


def test_of_many_terms_those_with_most_samples_are_drawn(tmp_path):
    make_force_map(tmp_path)
    write_potentials(tmp_path / "potentials.h5", angles=15)
    of_map = ForceMapRun(tmp_path).potentials.of_map
    angles = potentials._terms(of_map, ["local", "basic"])["angles"]
    assert [one["local"].label for one in angles[:3]] == ["one-one-14", "one-one-13", "one-one-12"]
    assert all(set(one) == {"local", "basic"} for one in angles)


def test_a_run_without_fits_has_no_rate_and_may_have_an_empty_history(tmp_path):
    metrics = make_force_map(tmp_path, rate=None, fits=[])
    matched = metrics["force_matching"] | {"neural": []}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics | {"force_matching": matched}))
    (tmp_path / "history.jsonl").write_text("")
    page = page_of(tmp_path, whole.time, potentials.matching)
    assert ["products of forces", "3 s", "500"] in page.rows
    assert ["maps", "500 ms", ""] in page.rows
    assert not [row for row in page.rows if row[0].startswith("rate")]
    assert "Residuals of neural potentials at each evaluation" not in [v for _, k, v in page.attributes if k == "alt"]


# ---- numbers -------------------------------------------------------------------------------------------------------


def test_an_error_sets_the_digits_of_its_number():
    unit = ForceUnit("u", 10.0)
    for value, error, power, expected in (
        (0.9664, 0.65, 2, "97 ± 65"), (67.4614, 0.939, 2, "6746 ± 94"), (0.02329, 0.0154, 1, "0.23 ± 0.15"),
        (-6202.2, 96.0, 2, "−620\u202f220 ± 9600"),
    ):  # fmt: skip
        assert re.sub("<.*?>", "", unit.shown(value, error, power)) == expected
    assert unit.shown(None) == "–"


def test_data_efficiency_is_a_ratio_of_residuals_or_else_of_squares_and_only_of_valid_maps(tmp_path):
    metrics = make_force_map(tmp_path)
    assert data_efficiency(metrics) == 9910 / 2410
    assert data_efficiency(metrics | {"force_matching": None}) == 4.0
    assert data_efficiency(metrics | {"chosen": "basic"}) is None
    assert data_efficiency(metrics | {"chosen": "slice"}) is None
    assert data_efficiency(metrics | {"maps": [m for m in metrics["maps"] if m["name"] != "basic"]}) is None


def test_inefficiency_grows_only_by_more_than_it_is_known():
    spans = [16, 32, 64]
    # 64 frames: K = 3 * 10_000 / 64 components, sqrt(2 / K) = 6.5%; two of them are 13% of the last value
    assert noise.grows([1.0, 1.0, 1.2], spans, 10_000)
    assert not noise.grows([1.0, 1.0, 1.1], spans, 10_000)
    assert noise.grows([1.0, 1.0, 1.1], spans, 1_000_000)
    assert not noise.grows([1.0], [1], 10)


def test_growing_correlation_is_a_warning_that_names_the_maps(tmp_path):
    growing = {"spans": [1, 2, 4], "of": {"basic": [1.0, 1.0, 1.0], "local": [1.0, 1.5, 2.5]}}
    make_force_map(tmp_path, inefficiency=growing)
    section = noise.correlation(ForceMapRun(tmp_path))
    [said] = [block for block in section.blocks if block.template == "text"]
    assert said.warning
    assert "for 'local':" in said.text
    assert "(150 frames)" in said.text
    assert ["local", "2.50", "600"] in page_of(tmp_path, noise.correlation).rows


def test_a_ridge_of_zero_is_drawn_a_decade_below_the_least_other():
    np.testing.assert_allclose(with_zero(np.array([0.0, 1e-5, 1.0])), [1e-6, 1e-5, 1.0])
    np.testing.assert_allclose(with_zero(np.array([0.0])), [1.0])


# ---- coefficients --------------------------------------------------------------------------------------------------


def test_largest_coefficients_outside_the_own_group_come_once_a_group_with_errors(tmp_path):
    write_maps(tmp_path / "maps.h5")
    maps = read_maps(tmp_path / "maps.h5")
    found = outside_own(maps, maps.coefficients["local"])
    assert [(one.bead, one.group, one.value) for one in found[:4]] == [
        (0, 1, 0.625), (1, 4, 0.5625), (2, 7, 0.5), (0, 5, 0.25),
    ]  # fmt: skip
    assert len(found) == 3 + 3 + 2
    assert [one.error for one in found[:3]] == [0.015625, 0.03125, 0.046875]
    assert outside_own(maps, maps.coefficients["basic"]) == []


def test_table_of_coefficients_names_residue_and_atoms(tmp_path):
    make_force_map(tmp_path)
    page = page_of(tmp_path, coefficients_section)
    assert page.rows[1] == ["GLY1 CA", "GLY 1: N", "0.6250", "0.016", "40.0"]
    assert "0.031 in the median and 0.047 at most" in "".join(page.text)


def test_own_atoms_are_those_of_the_rigid_groups_of_the_bead(tmp_path):
    write_maps(tmp_path / "maps.h5")
    own = read_maps(tmp_path / "maps.h5").is_own()
    np.testing.assert_array_equal(own, np.kron(np.eye(3), [1, 1, 0, 0]).astype(bool))


def test_many_atoms_are_summed_by_residue_offset(tmp_path):
    residues = ["GLY"] * 160  # 640 atoms, 160 beads
    make_force_map(tmp_path, residues=residues)
    maps = read_maps(tmp_path / "maps.h5")
    found = by_offset(maps, coefficients("local", 640))
    expected = [2 + np.abs(0.625 - np.arange(160) / 16) + 0.03125, np.where(np.arange(160) < 159, 0.25, 0.0)]
    np.testing.assert_array_equal(found.offset, [0, 1])
    np.testing.assert_allclose(found.total.T, expected, rtol=1e-14)
    alts = [v for _, k, v in page_of(tmp_path, coefficients_section).attributes if k == "alt"]
    assert alts == ["Absolute coefficients by distance along the residues"]


def test_a_single_residue_is_drawn_by_atom(tmp_path):
    make_force_map(tmp_path, residues=["HOH"])
    assert len(page_of(tmp_path, coefficients_section).figures()) == 1


# ---- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["maps.h5", "config.toml", "environment.json", "potentials.h5", "simulation.h5"])
def test_a_finished_run_without_one_of_its_files_is_an_error_that_names_it(tmp_path, name):
    make_force_map(tmp_path, drop=(name,))
    builder = {"potentials.h5": potentials.matching, "simulation.h5": potentials.simulation}.get(name)
    with pytest.raises(InputError, match=f"has no {name}"):
        run_report(tmp_path) if builder is None else builder(ForceMapRun(tmp_path))
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("key", ["maps", "potentials", "simulation"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, key):
    make_force_map(tmp_path)
    path = tmp_path / f"{key}.h5"
    path.write_bytes(b"not what it was")
    with pytest.raises(InputError, match=re.escape(f"{path} is damaged")):
        getattr(ForceMapRun(tmp_path), key)


@pytest.mark.parametrize(
    ("key", "dataset"),
    [("maps", "local/held_out"), ("maps", "M"), ("potentials", "basic/pairs one-one/U"),
     ("simulation", "profile rmsd/model"), ("simulation", "tica/divergence")],
)  # fmt: skip
def test_a_file_without_one_of_its_datasets_is_an_error_that_names_it(tmp_path, key, dataset):
    make_force_map(tmp_path)
    path = tmp_path / f"{key}.h5"
    with h5py.File(path, "a") as file:
        del file[dataset]
    with pytest.raises(InputError, match=re.escape(f"{path} is damaged")):
        getattr(ForceMapRun(tmp_path), key)


def test_maps_of_other_names_than_the_metrics_are_an_error(tmp_path):
    make_force_map(tmp_path)
    with h5py.File(tmp_path / "maps.h5", "a") as file:
        del file["optimal"]
    with pytest.raises(InputError, match=r"maps\.h5.*metrics\.json.*'optimal'"):
        whole.maps(ForceMapRun(tmp_path))


def test_text_is_escaped_wherever_it_comes_from(tmp_path):
    evil = "<script>alert(1)</script>"
    metrics = make_force_map(tmp_path, warnings=[evil])
    write_maps(tmp_path / "maps.h5", beads=[evil, "$x_1$", "b"], atoms=[evil, "$H_2", "N", "C"] * 3)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics | {"constraints": evil, "mapped": evil}))
    page = page_of(tmp_path, whole.outcome, whole.maps, coefficients_section)
    assert "script" not in page.tags
    assert "".join(page.text).count(evil) >= 4
    assert all("<script" not in figure for figure in page.figures())


# ---- runs that are not finished ------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True])
def test_an_unfinished_run_says_so_and_shows_the_fits_that_there_are(tmp_path, begun):
    make_force_map(tmp_path, drop=("maps.h5", "potentials.h5", "simulation.h5", "history.jsonl"))
    (tmp_path / "metrics.json").unlink()
    if begun:
        write_history(tmp_path)
    text = run_report(tmp_path).read_text(encoding="utf-8")
    assert "This run is not finished" in text
    assert titles(text) == ["Outcome", *(["Neural potentials"] if begun else []), "Settings"]
    assert len(Page(text).figures()) == begun


def test_all_maps_have_a_style_of_their_own():
    from hpcfit.kinds.force_map.figures import style

    styles = [tuple(style(name).values()) for name in (*MAPS, "tied", "features", "file")]
    assert len(set(styles)) == 7
