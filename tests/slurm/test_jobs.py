"""Job scripts under a real Slurm: it takes every kind, and the scripts do what they say when a time limit is near.

What is not proven here: anything of a GPU (the GPUs of this cluster are fake) or of the public sites.
"""

import re
import sys

import pytest

from hpcfit.commands.job import Request, script_of
from hpcfit.workflow.jobs.job import Job, literally, render
from hpcfit.workflow.jobs.options import SiteOptions
from hpcfit.workflow.jobs.site import load_site
from tests.command import HPCFIT, ROOT
from tests.slurm.conftest import Slurm

FIT = '[frames]\nstore = "s"\n[experiment]\nfile = "map.npz"\n[problem]\nkind = "frame-weights"\n'
CLUSTERS = ("", '[cluster]\nkind = "slurm"\n', '[cluster]\nkind = "allocation"\n')

# Stands in for hpcfit: stops at the warning with 75, and ends well when it is started again. Like hpcfit it keeps this
# code when srun terminates it because another rank has left with 75 a moment before.
STUB = """#!/bin/bash
again=${SLURM_RESTART_COUNT:-0}
trap 'trap "" USR1 TERM; exit 75' USR1 TERM
echo "start $again on task $SLURM_PROCID with $OMP_NUM_THREADS $HDF5_USE_FILE_LOCKING $SLURM_MPI_TYPE"
[ "$again" -gt 0 ] && exit 0
while :; do sleep 0.1; done
"""


def rendered(folder, text: str = FIT, **fields) -> str:
    """The script of a request; where it has a size, it fits the cluster of the tests."""
    (folder / "config.toml").write_text(text)
    (folder / "points.txt").write_text("/one\n/two\n/three\n")
    if fields.get("kind") == "sweep":
        fields |= {"points": folder / "points.txt", "limit": 2}
    one_process = fields.get("kind") == "report" or 'kind = "slurm"' in text
    return script_of(Request(config=folder / "config.toml", **({} if one_process else {"ranks_per_node": 2}), **fields))


@pytest.mark.parametrize("site", ["generic-cpu", "generic-gpu"])
@pytest.mark.parametrize("kind", ["optimize", "prepare", "pipeline", "sweep", "scaling", "report"])
def test_slurm_takes_every_kind(slurm, tmp_path, kind, site):
    for cluster in CLUSTERS if kind == "prepare" else CLUSTERS[:1]:
        nodes = 1 if kind == "report" or 'kind = "slurm"' in cluster else 2
        script = tmp_path / "job.sh"
        script.write_text(rendered(tmp_path, FIT + cluster, kind=kind, nodes=nodes, where=SiteOptions(site)))
        done = slurm.run("sbatch", "--test-only", script)
        assert done.returncode == 0, done.stderr
        assert "to start at" in done.stderr


def test_slurm_takes_the_ready_made_scripts(slurm):
    """Their sizes are those of a larger cluster: options on the command line win."""
    for script in sorted((ROOT / "jobs").glob("*.sbatch")):
        done = slurm.run("sbatch", "--test-only", "--nodes=2", "--ntasks-per-node=2", script)
        assert done.returncode == 0, f"{script}: {done.stderr}"


def test_too_many_ranks_are_refused_by_slurm(slurm, tmp_path):
    """Without this the tests above could pass whatever a script asks for."""
    script = tmp_path / "job.sh"
    script.write_text(rendered(tmp_path, nodes=3))
    done = slurm.run("sbatch", "--test-only", script)
    assert done.returncode != 0
    assert "More processors requested than permitted" in done.stderr or "not available" in done.stderr


def test_slurm_reads_quoted_directives(slurm, tmp_path):
    job = Job("report", 'a "name" # \\', ["x"], program="true", output=f"{literally(tmp_path)}/50%% #1.log")
    site = load_site("generic-cpu").model_copy(update={"ranks_per_node": 1})
    (tmp_path / "job.sh").write_text(render(job, site))
    done = slurm.sbatch(tmp_path / "job.sh")
    slurm.wait(done, "COMPLETED")
    assert 'JobName=a "name" # \\ UserId' in slurm.ok("scontrol", "--oneliner", "show", "job", done)
    assert (tmp_path / "50% #1.log").exists()


def test_a_warned_job_is_requeued_and_goes_on(slurm: Slurm, tmp_path):
    """Ranks under srun, and a driver in the batch shell: both end with 75, are queued again, and end well.

    What depends on one of them waits for that, and runs.
    """
    (tmp_path / "stub").write_text(STUB)
    (tmp_path / "stub").chmod(0o755)
    (tmp_path / "site.toml").write_text(
        f'description = "test"\nranks_per_node = 2\nmpi = "pmi2"\nprogram = "{tmp_path / "stub"}"\n'
    )
    where = SiteOptions(str(tmp_path / "site.toml"))
    tasks = {"optimize": 2, "pipeline": 1}  # one on each node
    jobs, logs = {}, {}
    for kind, nodes in tasks.items():
        script = tmp_path / f"{kind}.sh"
        script.write_text(rendered(tmp_path, kind=kind, nodes=nodes, where=where))
        jobs[kind] = slurm.sbatch(script, "--ntasks-per-node=1")
        logs[kind] = tmp_path / f"hpcfit-{kind}-{jobs[kind]}.log"
    (tmp_path / "report.sh").write_text(rendered(tmp_path, kind="report", where=where, after=(jobs["optimize"],)))
    report = slurm.sbatch(tmp_path / "report.sh")
    slurm.wait_until(lambda: {kind: starts(logs[kind]) for kind in tasks} == tasks, "both have started")
    slurm.ok("scancel", "--signal=USR1", jobs["optimize"])  # what --signal=USR1@120 does: to all steps
    slurm.ok("scancel", "--batch", "--signal=USR1", jobs["pipeline"])  # and --signal=B:USR1@120: to the batch shell
    for kind, job in jobs.items():
        assert slurm.wait(job, "COMPLETED")["Restarts"] == "1"
        lines = re.findall(r"start (\d) on task (\d) with 1 FALSE pmi2", logs[kind].read_text())
        assert sorted(lines) == [(start, str(task)) for start in "01" for task in range(tasks[kind])]
    slurm.wait(report, "RUNNING")  # where it would stay: the stub waits for a warning
    slurm.ok("scancel", report)


def starts(log) -> int:
    return log.read_text().count("start 0") if log.exists() else 0


def test_where_one_job_of_a_chain_fails_those_after_it_leave_the_queue(slurm, tmp_path):
    (tmp_path / "config.toml").write_text(FIT)
    (tmp_path / "site.toml").write_text('description = "test"\nranks_per_node = 1\nprogram = "false"\n')
    chain = tmp_path / "chain.sh"
    request = Request(config=tmp_path / "config.toml", where=SiteOptions(str(tmp_path / "site.toml")), kind="chain")
    # The chain itself calls hpcfit; only its jobs call what stands in for it.
    chain.write_text(script_of(request).replace("$(false job", f"$({sys.executable} -m hpcfit job"))
    done = slurm.run("bash", chain, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    prepare, optimize, report = re.fullmatch(
        r"submitted: prepare (\d+) optimize (\d+) report (\d+)", done.stdout.strip()
    ).groups()
    assert slurm.wait(prepare)["JobState"] == "FAILED"
    for job in (optimize, report):
        assert slurm.wait(job)["JobState"] == "CANCELLED"


def test_an_unknown_partition_is_told_in_slurms_words(slurm, two_sources, tmp_path):
    done = slurm.run(
        *HPCFIT, "sweep", two_sources, "--grid", "problem.theta=0,1", "--array", "--partition", "nowhere",
        "--directory", tmp_path / "sweep",
    )  # fmt: skip
    assert done.returncode == 2
    assert "invalid partition specified: nowhere" in done.stderr
    assert done.stderr.count("hpcfit: error") == 1
