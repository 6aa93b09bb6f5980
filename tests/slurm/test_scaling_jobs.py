"""A scaling series as jobs of a real Slurm: submitted, collected by a second call, and not measured twice."""

import json

import numpy as np

from hpcfit.testsystems import synthetic
from tests.conftest import ROOT


def test_a_series_across_node_counts(slurm, tmp_path):
    frames = synthetic.gaussian_frames(130, len(synthetic.cubic_reflections()), seed=0)
    config = synthetic.write_problem(tmp_path, [synthetic.Source("a", frames)], np.full(130, 1 / 130))
    site = tmp_path / "site.toml"
    site.write_text('description = "one rank a node"\nranks_per_node = 1\nmpi = "pmi2"\n')
    series = ["scaling", config, "--ranks", "1,2", "--repeats", 1, "--steps", 1, "--site", site]
    command = ["python", "-m", "hpcfit", *series, "--directory", tmp_path / "series"]

    first = slurm.run(*command, cwd=ROOT)
    assert first.returncode == 0, first.stderr
    assert "2 of 2 points are not measured yet" in first.stderr
    jobs = json.loads((tmp_path / "series/jobs.json").read_text())
    assert slurm.job(list(jobs.values())[1])["NumNodes"] in ("2", "2-2")  # it runs, or waits for the first

    done = slurm.run(*command, "--wait", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "series/scaling.json").read_text())["rows"]
    assert [row["ranks"] for row in rows] == [1, 2]
    assert json.loads((tmp_path / "series/jobs.json").read_text()) == jobs
