"""The report of a run of several fits shows the numbers of its files, in the sections that the run asked for.

Not proven here: that a figure is pleasant to look at, and that a real run writes these files.
"""

import copy
import json

import h5py
import numpy as np
import pytest
from scipy.constants import gas_constant

from hpcfit.commands.report import run_report
from hpcfit.kinds.frame_weights import figures_study
from hpcfit.kinds.frame_weights import report as whole
from hpcfit.kinds.frame_weights import report_map as maps
from hpcfit.kinds.frame_weights import report_study as study
from hpcfit.kinds.frame_weights.files import FrameWeightsRun
from hpcfit.kinds.frame_weights.observed import splines
from hpcfit.kinds.frame_weights.planes import anisotropic
from hpcfit.kinds.frame_weights.report_map import anisotropic_maps, ceiling_warning, total_maps
from hpcfit.kinds.frame_weights.report_study import compare, gain_over, verdict
from hpcfit.kinds.frame_weights.report_weights import weights
from hpcfit.report.page import render
from hpcfit.runs.history import read_history
from tests.kinds.frame_weights.run_directories import STUDY, make_run, make_study, make_unfinished
from tests.report.report_page import Page

TITLES = {
    "starts": "Agreement between starts", "cross_validation": "How the strength theta was chosen",
    "dropping": "Rounds of dropping frames",
}  # fmt: skip


AT_THE_END = 1e-9  # of the range of 1/d: by so much less than its 1/d the last orbit is taken into the splines


def report_of(directory) -> Page:
    return Page(run_report(directory).read_text(encoding="utf-8"))


def sections_of(directory, *builders) -> Page:
    """A page of some sections alone."""
    return Page(render("", "", [build(FrameWeightsRun(directory)) for build in builders]))


def rows_headed(page: Page, *first_cells: str) -> list[list[str]]:
    """The rows of the table whose head begins with these cells."""
    [rows] = [rows for head, *rows in page.tables if tuple(head[: len(first_cells)]) == first_cells]
    return rows


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    directory = tmp_path_factory.mktemp("study")
    make_study(directory)
    return report_of(directory)


# ---- sections and their numbers ------------------------------------------------------------------------------------


def test_every_section_of_a_study_is_there_with_its_figures(page):
    assert set(TITLES.values()) <= set(page.text)
    # starts, theta, L-curve, weights, sums of groups and of sources, convergence, shells, two of planes, agreement
    assert len(page.figures()) == page.tags.count("figcaption") == 11


def test_what_was_not_asked_for_leaves_its_section_out(tmp_path):
    make_study(tmp_path, **dict.fromkeys([*TITLES, "l_curve", "errors", "groups", "theta"]))
    page = report_of(tmp_path)
    assert not set(TITLES.values()) & set(page.text)
    assert "±" not in "".join(page.text)
    assert len(page.figures()) == 6


@pytest.mark.parametrize("key", TITLES)
def test_a_section_is_left_out_by_its_own_key_alone(tmp_path, key):
    make_study(tmp_path, **{key: None})
    built = [builder(FrameWeightsRun(tmp_path)) for builder in (study.starts, study.theta, study.dropping)]
    assert [part.title for part in built if part] == [title for other, title in TITLES.items() if other != key]


def test_one_start_is_nothing_to_compare(tmp_path):
    make_study(tmp_path, starts=STUDY["starts"][:1])
    assert study.starts(FrameWeightsRun(tmp_path)) is None


def test_starts_are_listed_with_their_sums_above_the_weights_before_any_fit(page):
    rows = rows_headed(page, "start", "CC")
    assert [row[0] for row in rows] == ["prior", "random 1", "B", "before any fit"]
    assert [row[3:5] for row in rows] == [
        ["0.7000", "0.3000"], ["0.6900", "0.3100"], ["0.2000", "0.8000"], ["0.6000", "0.4000"],
    ]  # fmt: skip
    assert [row[5] for row in rows] == ["41.5", "40.2", "17.8", ""]


def test_thetas_are_listed_with_their_gain_and_the_chosen_one_is_marked(page):
    rows = rows_headed(page, "theta", "")
    assert [row[0] for row in rows] == ["prior weights", "0.3", "0.03", "0"]
    assert [row[1] for row in rows] == ["", "", "chosen", ""]
    assert [row[2] for row in rows] == [f"{free} ± 0.0058" for free in ("0.8400", "0.8600", "0.9000", "0.8900")]
    assert [row[4] for row in rows][:3] == ["", "+0.0200 ± 0", "+0.0600 ± 0"]  # all folds gain the same
    assert [row[-2] for row in rows] == ["", "0.0625", "0.438", "1.31"]


def test_gain_is_paired_over_the_folds():
    prior, row = {"folds": [-0.5, -0.7, -0.9]}, {"folds": [-0.6, -0.9, -1.2]}
    gain, error = gain_over(prior, row)
    assert gain == pytest.approx(0.2, rel=1e-12)
    assert error == pytest.approx(0.1 / np.sqrt(3), rel=1e-12)  # gains 0.1, 0.2, 0.3: sd 0.1


def test_the_prior_itself_as_the_choice_is_said_and_the_best_start_stands_in_for_convergence(tmp_path):
    make_study(tmp_path, theta=None, final_fit=None)
    page = sections_of(tmp_path, whole.outcome, study.theta, whole.convergence)
    assert "".join(page.text).count("No strength theta made held-out orbits agree better") == 2  # outcome and theta
    assert [row[1] for row in rows_headed(page, "theta", "")] == ["chosen", "", "", ""]
    assert "Shown is 'start prior'" in "".join(page.text)


def test_errors_of_both_kinds_add_in_squares_and_propagate_to_free_energies(page):
    text = "".join(page.text)
    assert "0.9512 ± 0.00050" in text  # 0.0003 and 0.0004
    assert "0.8136 ± 0.0050" in text
    a, b = rows_headed(page, "group", "frames")
    assert a[:7] == ["A", "30", "0.6000", "0.7000", "1.17", "0.030", "0.040"]
    for cells, weight in ((a, 0.7), (b, 0.3)):
        kT = gas_constant / 1000 * 300
        expected = kT * 0.05 / weight  # d(-kT ln w) = kT dw / w
        assert float(cells[7].split(" ± ")[1]) == pytest.approx(expected, rel=0.05)  # two digits are shown
    [source_a, _] = rows_headed(page, "source", "label", "frames")[:2]
    assert source_a[4].endswith(" ± 0.050")


def test_sources_show_how_many_independent_frames_their_weights_are_worth(tmp_path):
    make_study(tmp_path, independent_frames={"a": 12.345})
    page = sections_of(tmp_path, weights)
    assert [row[3] for row in rows_headed(page, "source", "label", "frames", "independent")] == ["12.3", "–"]
    assert "draw blocks of at least 2 g successive frames, 10 of a source at most" in "".join(page.text)


def test_a_group_without_weight_has_no_finite_free_energy(tmp_path):
    groups = [{**STUDY["groups"][0], "weight": 1.0}, {**STUDY["groups"][1], "weight": 0.0, "delta_G": None}]
    make_study(tmp_path, groups=groups)
    assert rows_headed(sections_of(tmp_path, weights), "group", "frames")[1][7] == "∞"


def test_rounds_of_dropping_begin_with_the_result(page):
    rows = rows_headed(page, "round", "frames")
    assert [row[:3] for row in rows] == [["result", "50", "0.9512"], ["1", "45", "0.9515"], ["2", "41", "0.9525"]]


def test_a_likelihood_is_compared_by_its_misfit(tmp_path):
    metrics = make_run(tmp_path / "plain")["metrics"]
    fitted = metrics["fitted"] | {"misfit": 1.23456}
    make_study(tmp_path, objective="gaussian, total", fitted=fitted, uniform={"misfit": 2.5})
    page = sections_of(tmp_path, whole.outcome, study.starts, study.theta, study.dropping)
    assert 1.23456 in page.values
    assert [row[1] for row in rows_headed(page, "start", "misfit")][:3] == ["−0.95", "−0.9496", "−0.9"]
    assert rows_headed(page, "round", "frames", "misfit")[1][2] == "−0.9515"


def test_weights_that_need_not_sum_to_one_show_their_sum_and_leakage_and_no_divergence(tmp_path):
    fitted = {"cc": 0.95, "cc_anisotropic": 0.81, "ess": 40.0, "sum_w": 0.875, "bragg_leakage": 0.0425}
    make_study(tmp_path, fitted=fitted, theta=0.0, cross_validation=None, l_curve=None)
    page = sections_of(tmp_path, whole.outcome)
    assert {0.875, 0.0425} <= set(page.values)
    assert not {"KL from prior", "theta = 0"} & set(page.text)


# ---- what starts say -----------------------------------------------------------------------------------------------


def with_second_start(misfit: float, share_of_A: float) -> dict:
    metrics = copy.deepcopy(STUDY)
    metrics["starts"][1].update(misfit=misfit, groups={"A": share_of_A, "B": 1 - share_of_A})
    return metrics


def test_same_misfit_with_other_weights_is_a_warning_that_names_the_starts():
    said = verdict(with_second_start(misfit=-0.9496, share_of_A=0.4))
    assert said.warning
    assert "The map does not decide" in said.text
    assert "'prior' and 'random 1' reach the same misfit (to 0.001)" in said.text
    assert "up to 0.30" in said.text
    assert "Worse by more: 'B'" in said.text


def test_same_misfit_with_the_same_weights_is_said_plainly():
    said = verdict(with_second_start(misfit=-0.9496, share_of_A=0.69))
    assert not said.warning
    assert "sums that agree to 0.01" in said.text


def test_a_worse_start_does_not_count_whatever_its_weights():
    said = verdict(with_second_start(misfit=-0.948, share_of_A=0.1))
    assert not said.warning
    assert "Start 'prior' alone" in said.text


def test_the_error_by_orbits_widens_what_counts_as_the_same_misfit():
    metrics = with_second_start(misfit=-0.948, share_of_A=0.1)
    metrics["errors"]["orbits"]["metrics"]["cc"] = 0.0025
    found = compare(metrics)
    assert found.tolerance == 0.0025
    assert found.same == ["prior", "random 1"]
    assert verdict(metrics).warning


def test_of_many_groups_the_smallest_are_one_and_nothing_is_lost():
    rows = [{"groups": {f"g{n}": (n + 1) / 55 for n in range(10)}}] * 2
    sums = figures_study.grouped_sums(rows)
    assert list(sums) == [f"g{n}" for n in range(3, 10)] + ["others"]
    assert sums["others"] == pytest.approx([6 / 55] * 2, rel=1e-12)
    assert np.sum(list(sums.values()), axis=0) == pytest.approx([1, 1], rel=1e-12)


def test_of_points_that_all_but_coincide_one_is_labelled():
    points = np.array([[0.0, 0.0], [0.03, 0.03], [0.03, 0.05], [1.0, 1.0], [1.0, 0.99]])
    assert figures_study.labelled(points) == [0, 2, 3]
    assert figures_study.labelled(np.zeros((2, 2))) == [0]


def test_weight_on_other_frames_is_said_and_listed(tmp_path):
    starts = [{**row, "distance": distance} for row, distance in zip(STUDY["starts"], (0.0, 0.34, 0.9), strict=True)]
    make_study(tmp_path, starts=starts)
    page = sections_of(tmp_path, study.starts)
    assert "Frame by frame up to 34 % of the weight lies elsewhere" in "".join(page.text)  # that of B is worse
    assert [row[5] for row in rows_headed(page, "start", "CC")] == ["0.0 %", "34.0 %", "90.0 %", ""]


def test_a_likelihood_counts_misfits_as_the_same_within_a_hundredth_of_the_gain_over_uniform_weights():
    metrics = with_second_start(misfit=2.009, share_of_A=0.1) | {
        "objective": "gaussian, total",
        "uniform": {"misfit": 3},
    }
    metrics["starts"][0]["misfit"], metrics["starts"][2]["misfit"] = 2.0, 2.5
    assert compare(metrics).tolerance == pytest.approx(0.01, rel=1e-12)
    assert compare(metrics).same == ["prior", "random 1"]
    metrics["starts"][1]["misfit"] = 2.011
    assert compare(metrics).same == ["prior"]


# ---- precision of the map ------------------------------------------------------------------------------------------


def precision(cc_half: float, error: float) -> dict:
    return {"cc_half": cc_half, "cc_half_error": error, "cc_star": float(np.sqrt(2 * cc_half / (1 + cc_half)))}


def measured(cc: float, error: float = 0.01) -> dict:
    """A fit of one shell, of a map with CC1/2 = 0.6 and so CC* = 0.8660."""
    row = {"shell": 0, "cc": cc}
    quality = {"source": "half-sets", "total": precision(0.6, error), "anisotropic": precision(0.6, error),
               "shells": [precision(0.6, error)]}  # fmt: skip
    return {"fitted": {"cc": cc, "cc_anisotropic": 0.5}, "shells": [row], "quality": quality}


def test_cc_above_the_ceiling_is_a_warning_that_says_where():
    [said] = ceiling_warning(measured(0.9))
    assert said.warning
    assert "the total and in 1 shell of 1 the CC" in said.text
    assert "anisotropic" not in said.text


def test_cc_above_the_ceiling_by_less_than_two_of_its_errors_is_none():
    # d CC* = d CC1/2 / (CC* (1 + CC1/2)^2) = 0.01 / (0.8660 * 2.56) = 0.0045
    star = np.sqrt(0.75)
    assert ceiling_warning(measured(star + 1.9 * 0.00451)) == []
    assert ceiling_warning(measured(star + 2.1 * 0.00451)) != []


def test_an_undefined_ceiling_and_an_undefined_cc_warn_of_nothing():
    metrics = measured(0.9)
    nothing = {"cc_half": None, "cc_half_error": None, "cc_star": None}
    metrics["quality"] |= {"total": nothing, "shells": [nothing]}
    assert ceiling_warning(metrics) == []
    assert ceiling_warning(measured(0.5) | {"shells": [{"shell": 0, "cc": None}]}) == []


def test_shells_show_held_out_orbits_and_precision_where_they_are_known(tmp_path):
    metrics = make_study(tmp_path)
    quality = precision(0.6, 0.01)
    shells = [
        {"shell": n, **row, "cc_free": None if n == 0 else 0.75, "cc_half": 0.6, "cc_star": quality["cc_star"]}
        for n, row in enumerate(metrics["shells"])
    ]
    found = {"source": "sigmas", "total": quality, "anisotropic": quality, "shells": [quality] * len(shells)}
    make_study(tmp_path, shells=shells, quality=found)
    page = sections_of(tmp_path, whole.outcome, maps.shells)
    rows = rows_headed(page, "d_max, Å", "d_min, Å")
    assert [row[6:] for row in rows[:2]] == [["–", "0.6000", "0.8660"], ["0.7500", "0.6000", "0.8660"]]
    text = "".join(page.text)
    assert "ceiling CC*: 0.8660" in text
    assert "Above the ceiling: the total and in 3 shells of 10 the CC" in text  # 0.93, 0.91, 0.89


def test_shells_of_a_map_of_unknown_precision_have_no_such_columns(page):
    assert len(rows_headed(page, "d_max, Å", "d_min, Å")[0]) == 6
    assert "CC*" not in "".join(page.text)


# ---- history of several fits ---------------------------------------------------------------------------------------


def test_convergence_is_that_of_the_final_fit_alone(tmp_path, page):
    make_study(tmp_path)
    history = FrameWeightsRun(tmp_path).history
    assert history.newest_fit == 4
    assert history.of_fit(3)["evaluation"].tolist() == list(range(25, 33))
    assert "Shown is the final fit, 'final', one of 6." in "".join(page.text)


def test_a_history_that_does_not_say_whose_its_rows_are_is_one_fit(tmp_path):
    make_unfinished(tmp_path)
    history = read_history(tmp_path / "history.jsonl")
    assert history.newest_fit == 0
    assert len(history.of_fit(3)) == 7


def test_an_unfinished_run_shows_its_newest_fit(tmp_path):
    make_study(tmp_path)
    (tmp_path / "metrics.json").unlink()
    text = "".join(report_of(tmp_path).text)
    assert "After 40 evaluations, in fit 5:" in text
    assert "Shown is the newest fit, number 5." in text


# ---- anisotropic maps ----------------------------------------------------------------------------------------------


def test_anisotropic_part_of_a_radial_map_is_zero_and_of_another_has_nothing_radial():
    rng, s = np.random.default_rng(1), np.linspace(0.02, 0.5, 400)
    radial, weight = splines(s, 8, even_in=3), rng.integers(1, 9, 400)
    curve = 900 - 4000 * s + 9000 * s**2 - 7000 * s**3  # a cubic, which the splines contain
    tolerance = 4000 * 0.48 * AT_THE_END  # the slope of the curve times the range of s
    assert np.abs(anisotropic(curve, radial, weight)).max() <= tolerance
    rest = anisotropic(curve + 50 * rng.normal(size=400), radial, weight)
    assert np.abs(radial * weight @ rest).max() <= tolerance * weight.sum()
    assert np.std(rest) == pytest.approx(50, rel=0.1)  # 8 of 400 degrees of freedom are gone


def test_a_radial_map_has_empty_anisotropic_planes_and_full_total_ones(tmp_path):
    make_run(tmp_path, d_min=5.0)
    with h5py.File(tmp_path / "map.h5", "r+") as file:
        profile = 1000.0 * (1 - file["inverse_d"][()]) ** 3
        file["observed"][...] = file["calculated"][...] = profile
    orbits = FrameWeightsRun(tmp_path).orbits
    tolerance = 3000 * 0.2 * AT_THE_END  # the slope of the profile times the range of 1/d
    assert all(np.abs(values).max() <= tolerance for values in anisotropic_maps(orbits).values())
    assert np.allclose(total_maps(orbits)["calculated"], profile, rtol=1e-12)
    assert len(sections_of(tmp_path, maps.sections).figures()) == 2


def test_anisotropic_maps_are_scaled_by_their_own_regression(tmp_path):
    make_run(tmp_path, d_min=5.0)
    orbits = FrameWeightsRun(tmp_path).orbits
    s = orbits.inverse_d
    pattern = anisotropic(np.cos(np.arange(len(s))), splines(s, 13, even_in=3), orbits.multiplicity)
    # What is observed has another radial profile, which a regression of the whole maps would be drawn to.
    changed = orbits._replace(observed=3 * pattern + 700 * (1 - s) ** 3, calculated=pattern - 100 * s**2)
    found = anisotropic_maps(changed)
    tolerance = 2100 * 0.2 * AT_THE_END  # the slope of the profile times the range of 1/d
    assert np.allclose(found["observed"], 3 * pattern, rtol=0, atol=tolerance)
    assert np.allclose(found["calculated"], 3 * pattern, rtol=0, atol=tolerance)
    assert np.abs(found["difference"]).max() <= 2 * tolerance


def test_held_out_orbits_do_not_bend_the_radial_curve(tmp_path):
    make_run(tmp_path, d_min=5.0)
    orbits = FrameWeightsRun(tmp_path).orbits
    held_out = np.arange(len(orbits.shell)) % 10 == 0
    observed = 1000 * (1 - orbits.inverse_d) ** 3 + np.where(held_out, 50.0, 0.0)
    found = anisotropic_maps(orbits._replace(observed=observed, held_out=held_out))
    tolerance = 3000 * 0.2 * AT_THE_END  # the slope of the profile times the range of 1/d
    assert np.allclose(found["observed"], np.where(held_out, 50.0, 0.0), rtol=0, atol=tolerance)


# ---- held-out orbits -----------------------------------------------------------------------------------------------


def test_held_out_orbits_get_a_panel_of_their_own(tmp_path):
    make_study(tmp_path)
    assert not FrameWeightsRun(tmp_path).orbits.held_out.any()
    before = "".join(sections_of(tmp_path, maps.agreement).text)
    with h5py.File(tmp_path / "map.h5", "r+") as file:
        file["held_out"] = np.arange(len(file["shell"])) % 10 == 0
    after = "".join(sections_of(tmp_path, maps.agreement).text)
    sentence = "On the right: the orbits that the fit did not see"
    assert sentence not in before
    assert sentence in after


def test_selections_have_held_out_orbits_but_no_theta(tmp_path):
    metrics = make_study(tmp_path)
    del metrics["theta"]
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    assert study.theta(FrameWeightsRun(tmp_path)).title == "Held-out orbits"
