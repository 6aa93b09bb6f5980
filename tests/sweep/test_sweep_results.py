"""The table and the page of a sweep, from directories written here: states, means, links, and what a page must say."""

import csv
import json
import re
import statistics

import pytest

from hpcfit.errors import InputError
from hpcfit.sweep.files import write_sweep
from hpcfit.sweep.outcome import Axis, Point, last_words, plan_text, read_sweep

AXES = [Axis("problem.theta", repeat=False), Axis("optimizer.name", repeat=False), Axis("problem.fold", repeat=True)]
CCS = {0: (0.91, 0.95), 0.01: (0.93, 0.90)}


def point(folder, name: str, values: dict, *, cc: float | None = None, free: float | None = None, code: str = ""):
    """A point's directory: finished if it has a CC."""
    directory = folder / name
    directory.mkdir(parents=True)
    (directory / "config.toml").write_text('[problem]\nkind = "frame-weights"\n')
    row = {
        "evaluation": 1,
        "loss": -1.0,
        "cc": 0.5,
        "read_seconds": 0.25,
        "compute_seconds": 1.0,
        "reduce_seconds": 0.5,
    }
    if cc is not None:
        fitted = {"cc": cc, "ess": 20.0, "kl": 0.1} | ({} if free is None else {"cc_free": free})
        metrics = {"fitted": fitted, "loss": -cc, "steps": 7}
        (directory / "metrics.json").write_text(json.dumps(metrics))
        (directory / "report.html").write_text("<html>")
        (directory / "history.jsonl").write_text("".join(json.dumps(row | {"evaluation": n}) + "\n" for n in (1, 2)))
    if code:
        (directory / "exit_code").write_text(code)
        (directory / "log.txt").write_text("INFO begins\nhpcfit: error: no <map>\n  remedy: give one\n")
    return Point(values, directory)


@pytest.fixture
def folder(tmp_path):
    """Two thetas x two optimizers x two folds; one point failed, one was interrupted, one was never started."""
    points = []
    for theta, ccs in CCS.items():
        for name in ("lbfgs", "adam"):
            for fold, cc in enumerate(ccs):
                values = {"problem.theta": theta, "optimizer.name": name, "problem.fold": fold}
                whole = name == "lbfgs"
                made = point(tmp_path, f"{theta}{name}{fold}", values, cc=cc if whole else None, free=cc - 0.1)
                points.append(made)
    failed, interrupted = tmp_path / "0adam0", tmp_path / "0adam1"
    (failed / "exit_code").write_text("2\n")
    (failed / "log.txt").write_text("INFO begins\nhpcfit: error: no <map>\n  remedy: give one\n")
    (interrupted / "history.jsonl").write_text("{}\n")
    (tmp_path / "sweep.json").write_text(plan_text(AXES, points))
    return tmp_path


def test_states(folder):
    sweep = read_sweep(folder)
    adam = {o.point.directory.name: o.state for o in sweep.outcomes if o.point.values["optimizer.name"] == "adam"}
    assert adam == {"0adam0": "failed", "0adam1": "unfinished", "0.01adam0": "not started", "0.01adam1": "not started"}
    assert len(sweep.in_state("finished")) == 4
    assert sweep.in_state("failed")[0].error == "hpcfit: error: no <map>\n  remedy: give one"


def test_a_finished_point_counts_the_seconds_of_all_its_evaluations(folder):
    [outcome] = [o for o in read_sweep(folder).outcomes if o.point.directory.name == "0lbfgs0"]
    assert outcome.quantities["seconds"] == 2 * 1.75
    assert outcome.quantities["steps"] == 7


def test_means_and_standard_deviations_over_the_repeated_axis(folder):
    means = read_sweep(folder).means()
    assert len(means) == 4
    for mean in means:
        if mean.values["optimizer.name"] == "adam":
            assert (mean.outcomes, mean.mean, mean.deviation) == ([], {}, {})
            continue
        ccs = CCS[mean.values["problem.theta"]]
        assert mean.mean["cc"] == pytest.approx(sum(ccs) / 2, abs=1e-15)
        assert mean.deviation["cc"] == pytest.approx(abs(ccs[0] - ccs[1]) / 2**0.5, abs=1e-15)  # of two, with n - 1
        assert mean.deviation["ess"] == 0


def test_tables(folder):
    write_sweep(read_sweep(folder))
    rows = list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))
    assert [row["problem.theta"] for row in rows] == ["0"] * 4 + ["0.01"] * 4
    assert [row["cc"] for row in rows if row["optimizer.name"] == "lbfgs"] == ["0.91", "0.95", "0.93", "0.9"]
    assert sum(row["error"] != "" for row in rows) == 1
    [first, *_] = csv.DictReader((folder / "sweep_means.csv").read_text().splitlines())
    assert float(first["cc_mean"]) == statistics.fmean(CCS[0])
    assert (first["finished"], first["points"]) == ("2", "2")


def test_the_page_names_the_best_links_reports_and_escapes(folder):
    write_sweep(read_sweep(folder))
    page = (folder / "sweep.html").read_text()
    assert "highest CC free" in page
    assert "problem.theta = 0, optimizer.name = lbfgs" in page  # mean of 0.81 and 0.85
    assert '<a href="0.01lbfgs1/report.html">' in page
    assert '<a href="0adam0/report.html">' not in page
    assert "no &lt;map&gt;" in page
    assert "goes on with what is unfinished" in page
    assert page.count("data:image/svg+xml;base64,") == 2  # against theta, and against the optimizer
    assert not re.search(r'(src|href)="(?!data:|[\w.]+/report\.html")', page)  # it needs no other file


def test_the_best_is_one_of_which_every_fold_is_finished(tmp_path):
    points = [
        point(tmp_path, f"{theta}fold{fold}", {"problem.theta": theta, "problem.fold": fold}, cc=cc, free=cc)
        for theta, ccs in {0: (0.5, 0.6), 1: (0.9, None), 2: (0.4, 0.5)}.items()
        for fold, cc in enumerate(ccs)
    ]
    axes = [Axis("problem.theta", repeat=False), Axis("problem.fold", repeat=True)]
    (tmp_path / "sweep.json").write_text(plan_text(axes, points))
    write_sweep(read_sweep(tmp_path))
    page = (tmp_path / "sweep.html").read_text()
    assert "problem.theta = 0" in page
    assert "problem.theta = 1" not in page
    assert "1 of 2" in page
    for theta in (0, 2):
        (tmp_path / f"{theta}fold1/metrics.json").unlink()
    write_sweep(read_sweep(tmp_path))
    assert "highest CC free" not in (tmp_path / "sweep.html").read_text()


def test_without_folds_the_page_says_that_cc_cannot_choose(tmp_path):
    points = [point(tmp_path, f"p{n}", {"problem.theta": n}, cc=0.9 + 0.01 * n) for n in range(3)]
    (tmp_path / "sweep.json").write_text(plan_text([Axis("problem.theta", repeat=False)], points))
    write_sweep(read_sweep(tmp_path))
    page = (tmp_path / "sweep.html").read_text()
    assert "it cannot choose between points" in page
    assert "highest CC free" not in page
    assert not (tmp_path / "sweep_means.csv").exists()


def test_many_lines_become_one_mean(tmp_path):
    axes = [Axis("problem.theta", repeat=False), Axis("run.seed", repeat=False)]
    points = [
        point(tmp_path, f"p{theta}s{seed}", {"problem.theta": theta, "run.seed": seed}, cc=0.9 + seed / 1000)
        for theta in (0, 1)
        for seed in range(8)
    ]
    (tmp_path / "sweep.json").write_text(plan_text(axes, points))
    from hpcfit.sweep.figures import lines_against

    [line] = lines_against(read_sweep(tmp_path), "problem.theta")
    assert line.name == "mean over run.seed"
    assert [len(group) for group in line.outcomes] == [8, 8]
    write_sweep(read_sweep(tmp_path))


def test_values_that_are_tables_or_markup_are_shown_as_they_are(tmp_path):
    options = [{"memory": 5}, {"memory": 9}]
    points = [point(tmp_path, f"p{n}", {"optimizer.options": o, "x.y": "<b>"}, cc=0.9) for n, o in enumerate(options)]
    (tmp_path / "sweep.json").write_text(plan_text([Axis("optimizer.options", False), Axis("x.y", False)], points))
    sweep = read_sweep(tmp_path)
    assert sweep.values("optimizer.options") == options
    write_sweep(sweep)
    page = (tmp_path / "sweep.html").read_text()
    assert "{&#39;memory&#39;: 5}" in page
    assert "&lt;b&gt;" in page
    assert "&amp;" not in page


def test_the_last_words_of_a_log():
    many = "\n".join(f"line {n}" for n in range(30))
    assert last_words(many).splitlines()[0] == "line 22"
    assert last_words(f"{many}\nhpcfit: error: first\nhpcfit: error: second\nmore") == "hpcfit: error: second\nmore"
    assert last_words("") == ""


def test_no_sweep_and_a_damaged_one(tmp_path):
    with pytest.raises(InputError, match="holds no sweep"):
        read_sweep(tmp_path)
    (tmp_path / "sweep.json").write_text('{"axes": []}')
    with pytest.raises(InputError, match=r"sweep\.json is damaged"):
        read_sweep(tmp_path)
