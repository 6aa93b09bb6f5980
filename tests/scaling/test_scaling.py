"""Series of real measurements of a toy problem on 1 and 2 ranks. No time is asserted; sizes, files and errors are."""

import json
import re

import numpy as np
import pytest

from hpcfit.commands.check import run_check
from hpcfit.commands.step import run_step
from hpcfit.errors import HpcfitError, InputError
from hpcfit.fit.cost import Load
from hpcfit.kinds.table import load_config
from hpcfit.ranks import Ranks
from hpcfit.scaling import series as workflow
from hpcfit.scaling.command import run_scaling
from hpcfit.scaling.measurement import read_measurement
from hpcfit.scaling.options import Beyond, Plan, counts, grids
from hpcfit.scaling.series import plan_points
from hpcfit.testsystems import synthetic
from hpcfit.workflow.jobs.options import ScalingOptions
from tests.conftest import assert_one_clear_error

LOAD = Load(n_blocks=11, n_tiles=3, cell_bytes=1000, tile_sums=10)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The config of 130 frames (3 blocks) and 2871 reflections (several tiles)."""
    folder = tmp_path_factory.mktemp("toy")
    frames = synthetic.gaussian_frames(130, len(synthetic.cubic_reflections(0.9)), seed=0)
    return synthetic.write_problem(folder, [synthetic.Source("a", frames)], np.full(130, 1 / 130), d_min=0.9)


@pytest.fixture(scope="module")
def series(toy, mpiexec):
    """A strong series on 1 and 2 ranks with all grids, measured once."""
    directory = toy.parent / "series"
    scaling = run(toy, directory, Plan([1, 2], "strong", "all", repeats=1, steps=2))
    return directory, scaling


def run(config, directory, plan, **jobs):
    return run_scaling(config, load_config(config), (), plan, directory, Beyond(), ScalingOptions(**jobs))


# ---- the plan ----------------------------------------------------------------------------------------------------


def test_points_are_measured_in_turns():
    points = plan_points(Plan([1, 2], "strong", "all", repeats=2), LOAD)
    assert [(p.ranks, p.grid, p.repeat) for p in points] == [
        (1, (1, 1), 1), (2, (1, 2), 1), (2, (2, 1), 1), (1, (1, 1), 2), (2, (1, 2), 2), (2, (2, 1), 2),
    ]  # fmt: skip
    assert {p.blocks for p in points} == {11}
    assert all(bool(p.parts) == (p.ranks == 1) for p in points)
    assert len({p.name for p in points}) == 6


def test_weak_shares_are_the_same_and_the_most_ranks_use_all_they_can():
    points = plan_points(Plan([1, 2, 5], "weak", repeats=1), LOAD)
    assert [(p.ranks, p.blocks) for p in points] == [(1, 2), (2, 4), (5, 10)]  # of 11: 2 a rank


def test_too_few_blocks_for_weak_scaling_names_both_numbers():
    with pytest.raises(InputError, match=r"up to 12 ranks needs 12 blocks.*has 11"):
        plan_points(Plan([1, 12], "weak"), LOAD)


def test_all_grids_leave_out_those_without_work():
    points = plan_points(Plan([12], "strong", "all", repeats=1), LOAD)
    assert [p.grid for p in points] == [(4, 3), (6, 2)]  # 12x1 has a rank without blocks


def test_chosen_grids_are_used_and_the_other_ranks_choose():
    points = plan_points(Plan([1, 2, 4], "strong", [(2, 1), (1, 2)], repeats=1), LOAD)
    assert [p.grid for p in points][:3] == [(1, 1), (2, 1), (1, 2)]
    assert points[3].ranks == 4


@pytest.mark.parametrize(
    ("ranks", "chosen", "words"),
    [([4], [(1, 4)], "3 tiles"), ([1, 2], [(2, 2)], "--grids 2x2 is for 4 ranks, --ranks 1,2 has no such number")],
)
def test_grids_that_do_not_fit(ranks, chosen, words):
    with pytest.raises(InputError, match=words):
        plan_points(Plan(ranks, "strong", chosen), LOAD)


@pytest.mark.parametrize("text", ["0", "1,,2", "two", "-1", "1.5", ""])
def test_ranks_are_numbers_from_1_on(text):
    with pytest.raises(InputError, match="--ranks"):
        counts("--ranks", text)


def test_lists_are_read():
    assert counts("--ranks", "4, 1,2,2") == [1, 2, 4]
    assert grids("--grids", "2x1, 1x2") == [(2, 1), (1, 2)]
    with pytest.raises(InputError, match="FRAMESxSLICES"):
        grids("--grids", "2x0")


@pytest.mark.parametrize("option", ["repeats", "steps"])
def test_nothing_to_measure_is_an_error(option):
    with pytest.raises(InputError, match=f"--{option} 0"):
        Plan([1], **{option: 0})


def test_options_without_effect_are_errors():
    with pytest.raises(InputError, match="--account, --wait would have no effect without --site"):
        ScalingOptions(account="me", wait=True)
    with pytest.raises(InputError, match="--memory-share 0"):
        Beyond(memory_share=0.0)


def test_check_predicts_by_the_same_model(toy, caplog):
    with caplog.at_level("INFO", logger="hpcfit"):
        run_check(load_config(toy), Ranks())
    predicted = float(re.search(r"predicted +(\S+) s a step", caplog.text)[1])
    parts = re.search(r"of which +passes (\S+) ms, tiles (\S+) ms, messages (\S+) ms, overhead (\S+) ms", caplog.text)
    assert predicted == pytest.approx(1e-3 * sum(map(float, parts.groups())), rel=0.02)  # three digits of each


# ---- a series ----------------------------------------------------------------------------------------------------


@pytest.mark.mpi
def test_a_series_on_two_ranks(series):
    directory, scaling = series
    assert [(row.ranks, row.grid) for row in scaling.rows] == [(1, "1x1"), (2, "1x2"), (2, "2x1")]
    record = json.loads((directory / "scaling.json").read_text())
    for row in record["rows"]:
        assert row["frames"] == 130
        assert row["step"] >= row["compute"] > 0
        assert row["rate"] > 0
        assert row["stream"] > 0
        assert row["predicted"]["seconds"] > 0
    assert record["mode"] == "strong"
    assert [p["title"].split(",")[0] for p in record["predictions"]] == ["this problem", "5000 frames x 1"]
    for name in ("scaling.csv", "scaling.svg", "scaling.html"):
        assert (directory / name).stat().st_size > 0


@pytest.mark.mpi
def test_what_a_point_holds(series):
    directory, scaling = series
    one, by_slices, by_frames = (read_measurement(path) for path in sorted((directory / "points").glob("*.json")))
    for measured, passes in ((one, 1), (by_slices, 1), (by_frames, 2)):
        assert sum(row["bytes_passed"] for row in measured.per_rank) == passes * scaling.load.bytes
        assert len(measured.per_rank) == measured.ranks
    assert {(part.n_blocks, part.n_tiles) for part in one.parts} >= {(1, 1)}
    assert {part.passes for part in one.parts} == {1, 2}
    assert list(by_frames.messages) == ["frames"]
    assert list(by_slices.messages) == ["slices"]
    assert all(message.ranks == 2 and message.seconds > 0 for message in by_frames.messages["frames"])


@pytest.mark.mpi
def test_finished_points_are_not_measured_again(series, toy, monkeypatch):
    directory, before = series
    monkeypatch.setattr(workflow, "hpcfit_command", lambda *words, ranks: pytest.fail(f"measures again: {words}"))
    again = run(toy, directory, Plan([1, 2], "strong", "all", repeats=1, steps=2))
    assert again.rows == before.rows


@pytest.mark.mpi
def test_points_of_another_problem_are_refused(series, toy):
    directory, _ = series
    with pytest.raises(InputError, match=r"another settings: .*2 steps, now .*3 steps"):
        run(toy, directory, Plan([1, 2], "strong", "all", repeats=1, steps=3))
    with pytest.raises(InputError, match="--mode strong, now --mode weak"):
        run(toy, directory, Plan([1, 2], "weak", repeats=1, steps=2))


def test_step_by_itself_on_leading_blocks(toy, hpcfit, tmp_path):
    out = tmp_path / "step.json"
    done = hpcfit("step", toy, "--steps", 1, "--blocks", 2, "--out", out)
    assert done.returncode == 0, done.stderr
    measured = read_measurement(out)
    assert (measured.frames, measured.load.n_blocks) == (128, 2)
    assert "of a plain stream" in done.stderr


def test_more_leading_blocks_than_there_are(toy):
    with pytest.raises(InputError, match="--blocks 4: the data set has 3 blocks"):
        run_step(load_config(toy), Ranks(), blocks=4)


def test_a_point_that_fails_shows_its_log(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "hpcfit_command", lambda *words, ranks: ["sh", "-c", "echo the reason; exit 1"])
    with pytest.raises(HpcfitError, match=r"1 rank on 1x1.*exit code 1(.|\n)*the reason"):
        run(toy, tmp_path, Plan([1], repeats=1))


def test_bad_input_of_the_command(toy, hpcfit, tmp_path):
    assert_one_clear_error(hpcfit("scaling", toy, "--ranks", "0"), ["--ranks 0", "from 1 on"])
    weak = hpcfit("scaling", toy, "--ranks", "1,8", "--mode", "weak", "--directory", tmp_path)
    assert_one_clear_error(weak, ["needs 8 blocks", "has 3"])


@pytest.mark.mpi
def test_it_starts_the_ranks_itself(toy, hpcfit):
    done = hpcfit("scaling", toy, ranks=2)
    assert_one_clear_error(done, ["starts the ranks of each point itself"])


# ---- as jobs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def queue(monkeypatch):
    """A Slurm whose jobs are as this says: submitted (script, options) by id, and the states of ids."""
    submitted, states = {}, {}

    def submit(script, *options):
        job = str(100 + len(submitted))
        submitted[job], states[job] = (script.read_text(), options), "PENDING"
        return job

    monkeypatch.setattr(workflow.slurm, "submit", submit)
    monkeypatch.setattr(workflow.slurm, "states", lambda jobs: {job: states[job] for job in jobs})
    return submitted, states


@pytest.fixture
def site(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text('description = "two ranks a node"\nranks_per_node = 2\naccount = "me"\n')
    return str(path)


def test_each_job_waits_for_the_one_before(toy, tmp_path, queue, site, caplog):
    submitted, _ = queue
    assert run(toy, tmp_path / "jobs", Plan([1, 4], repeats=1), site=site, partition="tiny") is None
    (first, no_options), (second, options) = submitted.values()
    assert no_options == ()
    assert options == ("--dependency=afterany:100",)
    assert "#SBATCH --account=me" in second
    assert "#SBATCH --partition=tiny" in second
    assert "#SBATCH --nodes=1" in first
    assert "#SBATCH --nodes=2" in second
    assert f"hpcfit step {toy}" in second


def test_jobs_that_wait_are_not_submitted_again_but_those_that_failed_are(toy, tmp_path, queue, site):
    submitted, states = queue
    plan = Plan([1, 2], repeats=1)
    run(toy, tmp_path / "jobs", plan, site=site)
    states["100"] = "RUNNING"
    run(toy, tmp_path / "jobs", plan, site=site)
    assert len(submitted) == 2
    with pytest.raises(InputError, match="2 points without a measurement were submitted as jobs"):
        run(toy, tmp_path / "jobs", plan)
    states.update({"100": "FAILED", "101": "FAILED"})
    run(toy, tmp_path / "jobs", plan, site=site)
    assert len(submitted) == 4


def test_waiting_for_jobs_that_leave_nothing_is_an_error(toy, tmp_path, queue, site, monkeypatch):
    monkeypatch.setattr(workflow.slurm, "wait", lambda jobs: dict.fromkeys(jobs, "FAILED"))
    with pytest.raises(HpcfitError, match="1 of 1 points ended without a measurement"):
        run(toy, tmp_path / "jobs", Plan([1], repeats=1), site=site, wait=True)
