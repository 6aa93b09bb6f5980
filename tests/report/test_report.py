"""The report of synthetic run directories says what the files say, stands alone, and survives odd runs.

Not proven here: that a figure is pleasant to look at (look at it), and that a real fit writes these files.
"""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from hpcfit.commands.report import run_report
from hpcfit.errors import InputError
from tests.kinds.frame_weights.run_directories import make_run, make_unfinished
from tests.report.report_page import Page

SHAPES = {
    "two frames": {
        "sources": (("a", "", 1), ("b", "", 1)),
        "d_min": 8.0,
        "laue": "-1",
        "missing": 0,
        "evaluations": 1,
        "shells": 1,
    },
    "forty sources": {
        "sources": [(f"run{i}/XDATCAR", ("0p", "50p")[i % 2], 20 + i) for i in range(40)],
        "laue": "m-3m",
        "cell": (10.2, 10.2, 10.2, 90, 90, 90),
        "ndiv": (2, 2, 2),
        "d_min": 2.0,
    },
    "long, hexagonal": {
        "sources": (("long.dcd", "", 50_000),),
        "laue": "6/mmm",
        "cell": (30, 30, 50, 90, 90, 120),
        "ndiv": (1, 1, 2),
    },
    "collapsed": {"sources": (("x", "a", 300), ("y", "b", 200)), "spread": 0.01},
}


SMALL = {"sources": (("a", "", 3),), "d_min": 10.0}


@pytest.fixture(scope="module", params=SHAPES, ids=lambda name: name.replace(" ", "-"))
def reported(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    truth = make_run(directory, **SHAPES[request.param])
    path = run_report(directory)
    return truth, path, Page(path.read_text(encoding="utf-8"))


def test_headline_numbers_and_shells_are_those_of_the_metrics(reported):
    truth, _, page = reported
    metrics = truth["metrics"]
    expected = [side[name] for side in (metrics["fitted"], metrics["uniform"]) for name in side]
    expected += [row[name] for row in metrics["shells"] for name in ("d_max", "d_min", "cc", "cc_uniform")]
    expected += [phase["seconds"] for phase in metrics["phases"]] + list(metrics["rate"].values())
    assert set(expected) <= set(page.values)  # full precision is kept in <data value>
    assert metrics["stopped"] in "".join(page.text)
    assert "Left out: 17 reflections not measured." in "".join(page.text)


def test_source_table_has_every_source_and_the_labels_sum_them(reported):
    truth, _, page = reported
    rows = {tuple(row[:2]): row for row in page.rows}
    for source in truth["sources"]:
        row = rows[source["source"], source["label"]]
        assert (row[2].replace("\u202f", ""), float(row[3])) == (
            str(source["frames"]),
            pytest.approx(source["uniform_weight"], abs=5e-5),  # four decimals are shown
        )
    sums = {}
    for source in truth["sources"]:
        sums[source["label"]] = sums.get(source["label"], 0.0) + source["weight"]
    if any(sums):
        assert all(any(value == pytest.approx(total, rel=1e-12) for value in page.values) for total in sums.values())


def test_page_stands_alone(reported):
    _, path, page = reported
    assert path.stat().st_size < 5_000_000
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    outside = [value for _, name, value in page.attributes if name in ("href", "src", "srcset", "action", "data")]
    assert all(value.startswith("data:") for value in outside)
    styles = path.read_text(encoding="utf-8") + "".join(page.figures())
    assert "@import" not in styles
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)'\"]+)", styles))


def test_every_figure_is_svg_that_refers_to_nothing_else_and_has_a_caption(reported):
    _, _, page = reported
    figures = page.figures()
    assert len(figures) == 6
    assert page.tags.count("figcaption") == len(figures)
    assert len([1 for tag, name, value in page.attributes if (tag, name) == ("img", "alt") and value]) == len(figures)
    for figure in figures:
        root = ET.fromstring(figure)
        links = [v for node in root.iter() for k, v in node.attrib.items() if k.rpartition("}")[2] == "href"]
        assert all(link.startswith(("#", "data:")) for link in links)
        assert "prefers-color-scheme: dark" in figure


def test_same_files_give_the_same_bytes(tmp_path):
    make_run(tmp_path, **SMALL)
    first = run_report(tmp_path).read_bytes()
    assert run_report(tmp_path).read_bytes() == first
    assert not list(tmp_path.glob("*.tmp"))


def test_text_is_escaped_wherever_it_comes_from(tmp_path):
    evil = "<script>alert(1)</script>"
    make_run(tmp_path, sources=((evil, "<b>&amp;", 20), ('"><img src=x onerror=1>', "$x_1$", 20)), warnings=[evil])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    (tmp_path / "metrics.json").write_text(json.dumps(metrics | {"stopped": evil, "objective": evil}))
    (tmp_path / "config.toml").write_text(f"# {evil}\n")
    text = run_report(tmp_path).read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert page.tags.count("img") == 6
    assert "".join(page.text).count(evil) >= 6  # warning, two in metrics, config, table of sources, heaviest frames
    assert "<b>&amp;" in "".join(page.text)
    assert all("<script" not in figure for figure in page.figures())


def test_numbers_that_are_missing_are_dashes_not_zeros(tmp_path):
    make_run(tmp_path, **SMALL)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    metrics["shells"][0].update(cc=None, cc_uniform=float("nan"), d_max=None)
    metrics["fitted"]["cc_anisotropic"] = None
    metrics["rate"] = None
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    page = Page(run_report(tmp_path).read_text(encoding="utf-8"))
    [row] = [row for row in page.rows if row[0] == "∞"]
    assert row[3:] == ["–", "–", "–"]
    assert ["rate / bandwidth", "–"] in page.rows


def test_one_shell_without_width_is_drawn(tmp_path):
    make_run(tmp_path, sources=(("a", "", 3),), d_min=10.0, shells=1)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    metrics["shells"][0].update(d_max=12.0, d_min=12.0)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    assert len(Page(run_report(tmp_path).read_text(encoding="utf-8")).figures()) == 6


def test_unfinished_run_gets_a_report_of_its_history_that_says_so(tmp_path):
    make_unfinished(tmp_path, evaluations=7)
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"evaluation": 8, "cc": 0.')  # the line being written when the run was killed
    page = Page(run_report(tmp_path).read_text(encoding="utf-8"))
    text = "".join(page.text)
    assert "This run is not finished" in text
    assert "After 7 evaluations" in text
    assert "cut off" in text
    assert 0.95 - 0.3 * np.exp(-7 / 6) in page.values
    assert len(page.figures()) == 1


def test_history_after_a_resume_keeps_the_later_rows(tmp_path):
    make_unfinished(tmp_path, evaluations=7)
    rows = (tmp_path / "history.jsonl").read_text().splitlines()
    again = [json.dumps(json.loads(row) | {"cc": 0.123456}) for row in rows[5:]]
    (tmp_path / "history.jsonl").write_text("\n".join(rows + again) + "\n")
    page = Page(run_report(tmp_path).read_text(encoding="utf-8"))
    assert 0.123456 in page.values
    assert "2 evaluations were computed again" in "".join(page.text)


@pytest.mark.parametrize(
    "name", ["weights.h5", "sources.csv", "map.h5", "history.jsonl", "config.toml", "environment.json"]
)
def test_a_finished_run_without_one_of_its_files_is_an_error_that_names_it(tmp_path, name):
    make_run(tmp_path, sources=(("a", "", 3),), d_min=10.0)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"has no {name}"):
        run_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("name", ["weights.h5", "map.h5", "metrics.json", "sources.csv", "history.jsonl"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, name):
    make_run(tmp_path, sources=(("a", "", 3),), d_min=10.0)
    (tmp_path / name).write_bytes(b"source,label\nnot,what it was\n")
    with pytest.raises(InputError, match=re.escape(str(tmp_path / name))):
        run_report(tmp_path)


def test_nothing_to_report_and_unknown_kinds_are_errors(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        run_report(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"has no config\.toml"):
        run_report(tmp_path)
    make_run(tmp_path, sources=(("a", "", 3),), d_min=10.0)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    (tmp_path / "metrics.json").write_text(json.dumps(metrics | {"kind": "frame-weight"}))
    with pytest.raises(InputError, match="did you mean 'frame-weights'"):
        run_report(tmp_path)


def test_weights_that_disagree_with_the_table_of_sources_are_an_error(tmp_path):
    make_run(tmp_path, sources=(("a", "", 3), ("b", "", 4)), d_min=10.0)
    path = tmp_path / "sources.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match=r"weights\.h5.*sources\.csv.*'b'"):
        run_report(tmp_path)
