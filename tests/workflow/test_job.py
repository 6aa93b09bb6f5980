"""Job scripts: what they ask for and run, and that the ready-made ones in `jobs/` are what the template renders.

What is not proven here: that Slurm takes them and that they do what they say (tests/slurm/test_jobs.py), and that the
public sites are as their files say.
"""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hpcfit.commands.job import Request, script_of
from hpcfit.errors import InputError
from hpcfit.workflow.jobs.job import Job, Points, literally, render
from hpcfit.workflow.jobs.options import SiteOptions
from hpcfit.workflow.jobs.site import load_site, site_names
from tests.conftest import ROOT, assert_one_clear_error

FIT = '[frames]\nstore = "s"\n[experiment]\nfile = "map.npz"\n[problem]\nkind = "frame-weights"\n'
DASK = FIT + '[cluster]\nkind = "slurm"\n'
KINDS = ("optimize", "prepare", "pipeline", "scaling", "sweep", "report", "chain")


@pytest.fixture
def request_in(tmp_path):
    """A request on a config in a folder of its own, and a list of 12 points."""
    points = tmp_path / "sweep/points.txt"
    points.parent.mkdir()
    points.write_text("".join(f"/points/{number}\n" for number in range(12)))

    def make(text: str = FIT, **fields) -> Request:
        (tmp_path / "config.toml").write_text(text)
        if fields.get("kind") == "sweep":
            fields = {"points": points} | fields
        return Request(config=tmp_path / "config.toml", **fields)

    return make


def directives(script: str) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?", script, re.MULTILINE))


def commands(script: str) -> set[str]:
    return {line.split()[0] for line in script.splitlines() if line}


def ready_made(request_in) -> dict[str, str]:
    """The scripts in `jobs/` as the template renders them, free of what belongs to this machine."""
    scripts = {
        "optimize.sbatch": script_of(request_in(nodes=4)),
        "prepare.sbatch": script_of(request_in(DASK, kind="prepare")),
        "pipeline.sbatch": script_of(request_in(kind="pipeline", nodes=4)),
        "scaling.sbatch": script_of(request_in(kind="scaling", nodes=4)),
        "array.sbatch": script_of(request_in(kind="sweep", limit=4)),
        "chain.sh": script_of(request_in(DASK, kind="chain", nodes=4)),
    }
    folder = f"{request_in().config.parent}/"
    return {
        name: text.replace(f"{sys.executable} -m hpcfit", "hpcfit").replace(folder, "")
        for name, text in scripts.items()
    }


def test_the_ready_made_scripts_are_what_the_template_renders(request_in):
    """To write them again: HPCFIT_WRITE_JOBS=1 pytest tests/workflow/test_job.py."""
    import os

    expected = ready_made(request_in)
    if "HPCFIT_WRITE_JOBS" in os.environ:
        for name, text in expected.items():
            (ROOT / "jobs" / name).write_text(text)
    found = {path.name: path.read_text() for path in (ROOT / "jobs").iterdir() if path.suffix in (".sbatch", ".sh")}
    assert found == expected


@pytest.mark.parametrize("site", site_names())
@pytest.mark.parametrize("kind", KINDS)
def test_every_script_is_bash_and_keeps_the_rules(request_in, tmp_path, kind, site):
    script = script_of(request_in(kind=kind, where=SiteOptions(site)))
    path = tmp_path / "job.sh"
    path.write_text(script)
    checked = subprocess.run(["bash", "-n", path], capture_output=True, text=True, timeout=300)
    assert checked.returncode == 0, checked.stderr
    if kind == "chain":
        assert f"--site {site}" in script
        return
    wanted = directives(script)
    assert {"requeue", "open-mode", "signal"} <= wanted.keys()
    assert wanted["signal"].endswith("USR1@120")
    assert re.search(r'if \[ "\$code" -eq 75 \].*; then\n +scontrol requeue "\$SLURM_JOB_ID"', script)
    for variable in ("OMP_NUM_THREADS", "SRUN_CPUS_PER_TASK", "HDF5_USE_FILE_LOCKING=FALSE"):
        assert f"export {variable}" in script
    steps = re.findall(r"^srun .*", script, re.MULTILINE)
    assert all("--kill-on-bad-exit=1" in step for step in steps)
    assert bool(steps) == (kind not in ("pipeline", "scaling"))


@pytest.mark.skipif(
    subprocess.run(["bash", "-c", "command -v shellcheck"], capture_output=True).returncode, reason="no shellcheck"
)
def test_shellcheck_finds_nothing(request_in):
    for name in ready_made(request_in):
        done = subprocess.run(["shellcheck", ROOT / "jobs" / name], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout


def test_nodes_ranks_and_gpus(request_in):
    script = script_of(request_in(nodes=3, ranks_per_node=2, where=SiteOptions("generic-gpu")))
    wanted = directives(script)
    assert (wanted["nodes"], wanted["ntasks-per-node"], wanted["gpus-per-node"]) == ("3", "2", "2")
    assert "ntasks" not in wanted
    site = load_site("generic-gpu")
    uneven = directives(render(Job("optimize", "x", ["optimize", "c.toml"], nodes=2, ranks=7), site))
    assert (uneven["ntasks"], uneven["ntasks-per-node"], uneven["gpus-per-node"]) == ("7", "4", "4")
    on_cpus = directives(render(Job("prepare", "x", ["prepare", "c.toml"], nodes=2, ranks=100, gpus=False), site))
    assert not any(name.startswith("gpus") for name in on_cpus)


def test_what_a_site_says_is_in_the_script(tmp_path):
    (tmp_path / "mine.toml").write_text(
        'description = "mine"\nranks_per_node = 4\ngpus_per_node = 4\ngpu_directive = "--gres=gpu:a100:{gpus}"\n'
        'account = "project"\npartition = "gpu"\nqos = "long"\ndirectives = ["--exclusive"]\n'
        'modules = ["gcc", "openmpi"]\nsetup = ["source env"]\nprogram = "apptainer exec image hpcfit"\n'
        'mpi = "pmix"\ngpu_bind = "none"\n'
        'srun = ["--distribution=block"]\n[environment]\nGREETING = "good day"\n'
    )
    script = render(Job("optimize", "x", ["optimize", "a b.toml"]), load_site(str(tmp_path / "mine.toml")))
    for line in (
        "#SBATCH --gres=gpu:a100:4", "#SBATCH --account=project", "#SBATCH --partition=gpu", "#SBATCH --qos=long",
        "#SBATCH --exclusive", "module load gcc openmpi", "source env", "export SLURM_MPI_TYPE=pmix",
        "export SLURM_GPU_BIND=none", "export GREETING='good day'",
        "srun --kill-on-bad-exit=1 --distribution=block apptainer exec image hpcfit optimize 'a b.toml'",
    ):  # fmt: skip
        assert line in script.splitlines()
    assert "UNTESTED" in script


def test_after_and_overrides(request_in):
    request = request_in(after=("11", "12"), sets=("problem.theta=0.5", "optimizer.name=adam"))
    script = script_of(request)
    assert directives(script)["dependency"] == "afterok:11:12"
    assert "--set problem.theta=0.5 --set optimizer.name=adam" in script
    assert str(request.config.absolute()) in script


def test_where_the_tasks_of_prepare_run_decides_the_job(request_in):
    def job(cluster: str, **fields) -> str:
        return script_of(request_in(FIT + cluster, kind="prepare", **fields))

    ranks = job("", nodes=2, ranks_per_node=4)
    assert re.search(r"^srun .* prepare ", ranks, re.MULTILINE)
    assert directives(ranks)["ntasks-per-node"] == "4"
    allocation = job('[cluster]\nkind = "allocation"\n', nodes=2, ranks_per_node=4)
    assert directives(allocation)["ntasks-per-node"] == "4"
    assert "srun" not in commands(allocation)
    local = job('[cluster]\nkind = "local"\nworkers = 6\n')
    assert directives(local)["ntasks-per-node"] == "6"
    worker_jobs = job('[cluster]\nkind = "slurm"\n')
    assert directives(worker_jobs)["ntasks-per-node"] == "1"
    assert "srun" not in commands(worker_jobs)
    with pytest.raises(InputError, match=r"--nodes 2: with \[cluster\] kind = 'slurm' this job takes one node"):
        job('[cluster]\nkind = "slurm"\n', nodes=2)


def test_scaling_and_pipeline_use_all_ranks(request_in):
    assert "scaling" in script_of(request_in(kind="scaling", nodes=3, ranks_per_node=4))
    assert "--ranks 1,2,4,8,12" in script_of(request_in(kind="scaling", nodes=3, ranks_per_node=4))
    assert "--ranks 1,2,4,8" in script_of(request_in(kind="scaling", nodes=2, ranks_per_node=4))
    assert "--ranks 12" in script_of(request_in(kind="pipeline", nodes=3, ranks_per_node=4))


def test_a_chain_submits_each_part_after_the_one_before(request_in):
    chain = script_of(request_in(kind="chain", nodes=4, ranks_per_node=2))
    assert "prepare=$(submit --kind prepare --nodes 4 --ranks-per-node 2)" in chain
    assert '--kind optimize --nodes 4 --ranks-per-node 2 --set run.report=false --after "$prepare")' in chain
    assert 'report=$(submit --kind report --after "$optimize")' in chain
    assert "prepare=$(submit --kind prepare)" in script_of(request_in(DASK, kind="chain", nodes=4))


def test_name_and_predecessors_of_a_chain_reach_its_jobs(request_in):
    chain = script_of(request_in(DASK, kind="chain", name="my fit", after=("11", "12")))
    assert "prepare=$(submit --kind prepare --name 'my fit-prepare' --after 11 --after 12)" in chain
    assert "--name 'my fit-optimize' --nodes 1 --set run.report=false --after \"$prepare\")" in chain


@pytest.mark.parametrize("time", ["90", "90:30", "01:30:00", "2-12", "2-12:30", "2-12:30:15"])
def test_every_format_of_a_time_limit(request_in, time):
    assert directives(script_of(request_in(time=time)))["time"] == time


@pytest.mark.parametrize("time", ["", "1h", "1:2:3:4", "2-", "1-2:3:4:5", "01:00:00 # x", "-1", "1.5", "\u0663"])
def test_what_is_no_time_limit_is_said(request_in, time):
    with pytest.raises(InputError, match="no time limit of Slurm's"):
        script_of(request_in(time=time))


def test_words_of_directives_are_quoted_as_sbatch_reads_them():
    site = load_site("generic-cpu").model_copy(update={"account": "a#b"})
    job = Job("optimize", "it's a \\ fit", ["optimize"], output=f"{literally(Path('/100% of/it'))}/%j.log")
    lines = render(job, site).splitlines()
    assert """#SBATCH --job-name='it'"'"'s a \\\\ fit'""" in lines
    assert "#SBATCH --output='/100%% of/it/%j.log'" in lines
    assert "#SBATCH --account='a#b'" in lines


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nodes": 0}, "--nodes 0"),
        (
            {"ranks_per_node": 8, "where": SiteOptions("generic-gpu")},
            "8 ranks on a node of site 'generic-gpu'.* 4 GPUs",
        ),
        ({"limit": 3}, "--limit would have no effect with --kind optimize"),
        ({"kind": "chain", "points": Path("p"), "limit": 3}, "--points and --limit would have no effect"),
        ({"kind": "sweep", "limit": 0}, "--limit 0"),
        ({"kind": "sweep", "sets": ("problem.theta=1",)}, "--set would have no effect with --kind sweep"),
        ({"kind": "report", "nodes": 2}, "--nodes would have no effect with --kind report"),
        ({"kind": "report", "ranks_per_node": 2}, "--ranks-per-node would have no effect with --kind report"),
        ({"kind": "prepare", "text": DASK, "ranks_per_node": 2}, "--ranks-per-node .* kind = 'slurm'"),
        (
            {"kind": "prepare", "text": f"{FIT}[cluster]\nworkers = 3\n", "ranks_per_node": 2},
            r"--ranks-per-node .* \[cluster\] workers = 3",
        ),
        ({"kind": "chain", "time": "1h"}, "--time 1h is no time limit of Slurm's"),
        ({"kind": "sweep", "points": Path("nowhere.txt")}, "nowhere.txt lists no point"),
        ({"kind": "simulate"}, r"no \[simulate\] table"),
        ({"where": SiteOptions("perlmuter")}, "no site 'perlmuter': did you mean 'perlmutter'"),
    ],
)
def test_what_does_not_go_together_is_said(request_in, fields, message):
    with pytest.raises(InputError, match=message):
        script_of(request_in(**fields))


def test_fewer_ranks_than_nodes_is_an_error():
    with pytest.raises(InputError, match="2 ranks on 4 nodes"):
        render(Job("optimize", "x", ["optimize"], nodes=4, ranks=2), load_site("generic-cpu"))


def test_an_array_writes_each_point_into_its_own_log(tmp_path):
    job = Job("sweep", "x", ["optimize", "$point/config.toml"], points=Points(tmp_path / "a b.txt", 12, 4))
    script = render(job, load_site("generic-cpu"))
    assert directives(script)["array"] == "0-11%4"
    assert "array" not in directives(render(replace(job, points=None), load_site("generic-cpu")))
    assert f"'{tmp_path / 'a b.txt'}'" in script
    assert 'optimize "$point/config.toml" >> "$point/log.txt" 2>&1' in script


def test_the_command_prints_script_sites_and_errors(hpcfit, tmp_path):
    (tmp_path / "config.toml").write_text(FIT)
    done = hpcfit("job", tmp_path / "config.toml", "--nodes", 2, "--partition", "big")
    assert done.returncode == 0, done.stderr
    assert directives(done.stdout)["partition"] == "big"
    assert done.stderr == ""
    sites = hpcfit("job", "--sites")
    assert {line.split()[0]: line.split()[1] for line in sites.stdout.splitlines()} == {
        "frontier": "untested", "generic-cpu": "tested", "generic-gpu": "tested", "lumi-g": "untested",
        "perlmutter": "untested",
    }  # fmt: skip
    assert_one_clear_error(hpcfit("job"), ["no config was given"])
