"""Dask on a real Slurm: worker jobs, the tasks of an srun, and a batch script that starts its own workers."""

import shlex
from functools import partial
from pathlib import Path

import pytest

from hpcfit.config import ClusterConfig
from hpcfit.errors import HpcfitError
from hpcfit.workflow.cluster import replacing
from hpcfit.workflow.cluster.encryption import PREFIX
from hpcfit.workflow.cluster.opening import open_cluster
from tests.commands.test_pipeline import ENDLESS, SHORT, tables, write_map
from tests.conftest import assert_one_clear_error, history
from tests.prepare.test_prepare_faults import CELL, write_trajectory
from tests.prepare.test_prepare_on_cluster import checksums
from tests.workflow import crew_tasks
from tests.workflow.held import held

LOOPBACK = 'interface = "lo"\ndashboard = "127.0.0.1:0"\n'
JOBS = f'[cluster]\nkind = "slurm"\nmemory = "500 MB"\nwalltime = "00:05:00"\n{LOOPBACK}'
ALLOCATION = f'[cluster]\nkind = "allocation"\n{LOOPBACK}'


@pytest.fixture
def config(tmp_path):
    """Writes a config from two trajectories to a fit, with what is given below it; its path."""
    for name in "ab":
        write_trajectory(tmp_path / f"{name}.xyz", n_frames=130)
    write_map(tmp_path / "map.npz", CELL)

    def write(below):
        (tmp_path / "config.toml").write_text(tables('trajectory = "*.xyz"') + below)
        return tmp_path / "config.toml"

    return write


@pytest.fixture
def expected(config, tmp_path, hpcfit):
    """What one process makes of it."""
    done = hpcfit("prepare", config(""))
    assert done.returncode == 0, done.stderr
    found = checksums(tmp_path / "store")
    (tmp_path / "store").rename(tmp_path / "store_of_one_process")
    return found


def batch(slurm, folder: Path, command: str, *options) -> str:
    """Run a command as a batch job to its end; what it wrote."""
    script = folder / "job.sh"
    script.write_text(f"#!/bin/bash\n#SBATCH --output=job.out --time=5 {' '.join(options)}\n{command}\n")
    fields = slurm.wait(slurm.sbatch(script))
    said = (folder / "job.out").read_text()
    assert fields["JobState"] == "COMPLETED", said
    return said


def assert_quiet(said: str) -> None:
    for noise in ("Traceback", "distributed.", "Warning"):
        assert noise not in said


def assert_no_key_stays(folder: Path) -> None:
    """Neither by the name of its folder nor in a log."""
    assert not list(folder.rglob(f"{PREFIX}*"))
    assert not any(
        "PRIVATE KEY" in path.read_text(errors="replace") for path in folder.rglob("*.[oe]*") if path.is_file()
    )


def test_worker_jobs_write_the_bytes_of_one_process(slurm, config, expected, tmp_path):
    """The driver is a job itself, as on clusters that do not want it on the login node."""
    said = batch(slurm, tmp_path, f"python -m hpcfit prepare {config(JOBS)}")
    assert "2 worker jobs of 1 cores" in said
    assert_quiet(said)
    assert checksums(tmp_path / "store") == expected
    assert_no_key_stays(tmp_path)
    slurm.wait_until(lambda: slurm.ok("squeue", "--noheader") == "", "no job left")


def worker_jobs(tmp_path, **keys):
    keys = {"memory": "500 MB", "walltime": "00:05:00", "interface": "lo", "dashboard": "127.0.0.1:0"} | keys
    return open_cluster(ClusterConfig(kind="slurm", logs=tmp_path, **keys), "test")


@pytest.mark.parametrize("cores", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_a_cancelled_worker_job_is_replaced(slurm_here, tmp_path, monkeypatch, caplog, cores):
    monkeypatch.setattr(replacing, "INTERVAL", 0.3)
    with worker_jobs(tmp_path, cores=cores) as crew:
        slurm_here.wait_until(lambda: crew.size == 2 * cores, "all workers")
        before = jobs(slurm_here)
        results = crew.completed(partial(crew_tasks.slowly, 0.25), range(20 * cores))
        found = [next(results)]
        slurm_here.ok("scancel", before[0])
        found += results
        assert sorted(found) == [(number, number) for number in range(20 * cores)]
        slurm_here.wait_until(lambda: len({*jobs(slurm_here)} - {before[0]}) == 2, "another job")
        slurm_here.wait_until(lambda: crew.size == 2 * cores, "new workers")
        assert before[0] not in jobs(slurm_here)
    assert f"job {before[0]}: CANCELLED" in caplog.text
    slurm_here.wait_until(lambda: not jobs(slurm_here), "no worker job left")


def test_more_jobs_are_submitted_where_work_waits(slurm_here, tmp_path):
    gate = crew_tasks.Gate(tmp_path / "gate")
    with worker_jobs(tmp_path, jobs=1, maximum_jobs=3) as crew:
        assert crew.size == 1
        results = crew.completed(partial(crew_tasks.held_but_the_first, gate), range(200))
        next(results)
        slurm_here.wait_until(lambda: crew.size == 3, "three workers")
        results.close()
        gate.open()


def test_jobs_that_end_again_and_again_end_the_work(slurm_here, tmp_path, monkeypatch):
    """The first job works; those that replace it find a node that has gone bad."""
    monkeypatch.setattr(replacing, "INTERVAL", 0.3)
    bad = tmp_path / "bad"
    prologue = [f"test ! -e {bad} || {{ echo the node has gone bad >&2; exit 1; }}"]

    def work(crew):
        gate = crew_tasks.Gate(tmp_path / "gate")
        results = crew.completed(partial(crew_tasks.held_but_the_first, gate), range(10))
        next(results)
        bad.touch()
        slurm_here.ok("scancel", *jobs(slurm_here))
        list(results)

    said = r"(?s)worker jobs end before they work, the last 4 in a row.*the node has gone bad"
    with pytest.raises(HpcfitError, match=said), worker_jobs(tmp_path, jobs=1, prologue=prologue) as crew:
        work(crew)


def jobs(slurm):
    return slurm.ok("squeue", "--noheader", "--states=PENDING,RUNNING", "--format=%i").split()


def test_the_tasks_of_an_srun_share_the_roles(slurm, config, expected, tmp_path):
    done = slurm.run("srun", "-N2", "-n4", "python", "-m", "hpcfit", "prepare", config(ALLOCATION), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 workers in this step" in done.stderr
    assert done.stderr.count("260 frames x") == 1  # said by one of the four
    assert_quiet(done.stderr)
    assert checksums(tmp_path / "store") == expected
    assert not list(tmp_path.glob(".hpcfit-scheduler*"))
    assert_no_key_stays(tmp_path)


def test_too_few_tasks_or_a_damaged_input_are_one_clear_error(slurm, config, tmp_path):
    command = ["python", "-m", "hpcfit", "prepare", config(ALLOCATION)]
    few = slurm.run("srun", "-n2", *command, cwd=tmp_path)
    assert_one_clear_error(few, ["under an srun of 2 tasks", "start two tasks more than workers"])
    write_trajectory(tmp_path / "b.xyz", n_frames=130, broken=100)
    damaged = slurm.run("srun", "-n3", *command, cwd=tmp_path)
    assert_one_clear_error(damaged, ["b.xyz, frame 100"])


def test_a_batch_script_prepares_and_fits_in_its_allocation(slurm, config, tmp_path):
    path = config(ALLOCATION)
    said = batch(slurm, tmp_path, f"python -m hpcfit pipeline {path}\nsqueue --steps --noheader", "--ntasks=2")
    assert "2 workers in this allocation" in said
    assert "optimize on 2 ranks" in said
    assert_quiet(said)
    assert said.splitlines()[-1].split()[0].endswith(".batch")  # the steps of workers and ranks have ended
    assert (tmp_path / "run/metrics.json").exists()
    assert len(history(tmp_path / "run")) >= 5
    assert_no_key_stays(tmp_path)


@pytest.mark.nightly
def test_a_signal_to_the_batch_script_reaches_the_fit(slurm, config, tmp_path):
    path = config(ALLOCATION)
    path.write_text(path.read_text().replace(SHORT, ENDLESS))
    script, rows = tmp_path / "job.sh", tmp_path / "run/history.jsonl"
    script.write_text(
        "#!/bin/bash\n#SBATCH --output=job.out --time=5 --ntasks=2\n"
        f"python -m hpcfit pipeline {path} &\ntrap 'kill -USR1 $!' USR1\nwait $!\nwait $!\nexit $?\n"
    )
    job = slurm.sbatch(script)
    slurm.wait_until(lambda: rows.exists() and len(rows.read_text().splitlines()) > 3, "a fit")
    slurm.ok("scancel", "--batch", "--signal=USR1", job)
    assert slurm.wait(job, "FAILED")["ExitCode"] == "75:0", (tmp_path / "job.out").read_text()
    last = max((tmp_path / "run/checkpoints").glob("step_*.h5"))
    assert len(history(tmp_path / "run")) == int(last.name.split(".")[0].removeprefix("step_")) + 1


def test_workers_that_all_end_in_an_allocation_end_the_work(slurm, config, tmp_path):
    """And two workers of one core each share the two cores of the one task."""
    gate = crew_tasks.Gate(tmp_path / "gate")
    command = held("held_after_two_shards", gate, "prepare", config(f"{ALLOCATION}workers = 2\n"))
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/bash\n#SBATCH -o job.out -t 5 -n 1 -c 2\n{shlex.join(command)}\n")
    job = slurm.sbatch(script)
    slurm.wait_until(lambda: len(gate.waiting()) == 2, "both workers at work")
    slurm.ok("scancel", f"{job}.0")
    assert slurm.wait(job, "FAILED")["ExitCode"] == "1:0"
    said = (tmp_path / "job.out").read_text()
    assert "2 workers in this allocation" in said
    assert said.count("hpcfit: error: the workers have ended:") == 1
    assert_quiet(said.partition("the workers have ended")[0])


def refused(slurm, path: Path, words):
    """What `hpcfit prepare` answers; no job stays."""
    done = slurm.run("python", "-m", "hpcfit", "prepare", path, cwd=path.parent)
    assert_one_clear_error(done, words)
    assert_quiet(done.stderr)
    slurm.wait_until(lambda: not jobs(slurm), "no worker job left")


def test_what_slurm_refuses_is_said_in_its_words(slurm, config):
    refused(slurm, config(JOBS + 'partition = "nope"\n'), ["sbatch: error: invalid partition specified: nope"])


def test_a_worker_that_cannot_import_hpcfit_is_named(slurm, config, tmp_path):
    (tmp_path / "empty/hpcfit").mkdir(parents=True)
    (tmp_path / "empty/hpcfit/__init__.py").write_text("raise ImportError('not installed on this node')\n")
    path = config(JOBS + f'prologue = ["export PYTHONPATH={tmp_path}/empty", "cd {tmp_path}"]\n')
    refused(slurm, path, ["worker tls://127.0.0.1:", "cannot import hpcfit (not installed on this node)", "python or"])


def test_a_worker_that_does_not_start_is_quoted(slurm, config, tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\necho No module named distributed >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    path = config(JOBS + f'python = "{tmp_path}/python"\n')
    refused(
        slurm, path, ["no worker came: all have ended", "No module named distributed", "FAILED, reason NonZeroExit"]
    )


def test_jobs_that_wait_too_long_show_why(slurm, config):
    path = config(JOBS + 'patience = 2.0\ndirectives = ["--begin=now+1hour"]\n')
    refused(slurm, path, ["no worker came within 2 s", "PENDING, reason BeginTime", "[cluster] patience"])
