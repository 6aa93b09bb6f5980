"""Text of others in job scripts: each value stays one word, or is refused; and what sbatch is told of its caller.

Scripts are run by bash in a folder of their own, beside an `srun`, `sbatch` and `module` that only write down what they
are called with.
"""

import json
import os
import shlex
import subprocess
import sys

import pytest

from hpcfit.commands.job import Request, script_of
from hpcfit.config import ClusterConfig
from hpcfit.errors import InputError
from hpcfit.workflow import slurm
from hpcfit.workflow.cluster.opening import open_cluster
from hpcfit.workflow.jobs.job import Job, Points, render
from hpcfit.workflow.jobs.options import SiteOptions
from hpcfit.workflow.jobs.site import Site, load_site

FIT = '[frames]\nstore = "s"\n[experiment]\nfile = "map.npz"\n[problem]\nkind = "frame-weights"\n'
# Each would make the file `made` if a shell read it as anything but a word.
METACHARACTERS = [
    "$(touch made)", "`touch made`", "; touch made;", "a && touch made", "| touch made", "> made", "'; touch made; '",
    '"; touch made; "', "\\'; touch made #", "${IFS}$(touch${IFS}made)", "<(touch made)", "a & touch made", "# made",
    "*", "~", "-rf", "a b",
]  # fmt: skip
BREAKS = ["a\ntouch made\n", "a\rtouch made", "a\u2028touch made", "a\x1b[2J", "\n#SBATCH --uid=0"]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Runs a script in a folder with its own srun, sbatch, module and scontrol; each call's words and environment."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("srun", "sbatch", "scontrol", "squeue", "module"):
        (programs / name).write_text(
            f"#!{sys.executable} -IS\nimport json, os, sys\n"
            f"with open({str(tmp_path / 'calls')!r}, 'a') as file:\n"
            f"    file.write(json.dumps([{name!r}, sys.argv[1:], dict(os.environ)]) + '\\n')\n"
            f"print(17 if {name!r} == 'sbatch' else '')\n"
        )
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    work = tmp_path / "work"
    work.mkdir()

    def run(script: str) -> list[tuple[str, list[str], dict[str, str]]]:
        (tmp_path / "job.sh").write_text(script)
        checked = subprocess.run(["bash", "-n", tmp_path / "job.sh"], capture_output=True, text=True, timeout=300)
        assert checked.returncode == 0, checked.stderr
        done = subprocess.run(
            ["bash", tmp_path / "job.sh"], cwd=work, capture_output=True, text=True, timeout=300,
            env=os.environ | {"SLURM_CPUS_PER_TASK": "1", "SLURM_ARRAY_TASK_ID": "0"},
        )  # fmt: skip
        assert not (work / "made").exists(), done.stderr
        assert not list(work.rglob("made"))
        return calls(tmp_path)

    return run


def calls(folder):
    """What the programs have been called with so far."""
    path = folder / "calls"
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def site(**values) -> Site:
    return Site.model_validate({"name": "here", "description": "a cluster", "ranks_per_node": 2} | values)


@pytest.mark.parametrize("text", METACHARACTERS)
def test_every_value_of_a_site_and_a_job_stays_a_word(machine, text, tmp_path):
    everywhere = site(
        description=text, documentation=[text], tested=text, account=text, partition=text, constraint=text, qos=text,
        directives=[f"--comment={shlex.quote(text)}"], gpus_per_node=2, gpu_directive=f"--gres={text}",
        modules=[text, "gcc"], environment={"VALUE": text}, mpi=text, cpu_bind=text, gpu_bind=text, srun=[text],
        program="hpcfit",
    )  # fmt: skip
    job = Job("optimize", text, ["optimize", text, "--set", text], after=("1",), output=f"{text}.log")
    found = {name: (words, environment) for name, words, environment in machine(render(job, everywhere))}
    words, environment = found["srun"]
    assert words == ["--kill-on-bad-exit=1", text, "hpcfit", "optimize", text, "--set", text]
    assert found["module"][0] == ["load", text, "gcc"]
    assert [environment[name] for name in ("VALUE", "SLURM_MPI_TYPE", "SLURM_CPU_BIND")] == [text] * 3


@pytest.mark.parametrize("text", METACHARACTERS[::3])
def test_the_file_of_points_and_its_folder_stay_a_word(machine, text, tmp_path):
    folder = tmp_path / text.replace("/", "_")
    folder.mkdir()
    (folder / "points.txt").write_text(f"{folder}\n")
    job = Job("sweep", "x", ["optimize", "$point/config.toml"], points=Points(folder / "points.txt", 1))
    machine(render(job, site(program="hpcfit")))
    (name, words, _), *_ = calls(tmp_path)
    assert (name, words) == ("srun", ["--kill-on-bad-exit=1", "hpcfit", "optimize", f"{folder}/config.toml"])
    assert (folder / "log.txt").exists()


@pytest.mark.parametrize("text", BREAKS)
@pytest.mark.parametrize("option", ["account", "partition", "constraint", "qos", "name", "after", "sets"])
def test_a_line_break_in_an_option_is_an_error_that_names_it(tmp_path, option, text):
    (tmp_path / "config.toml").write_text(FIT)
    if option in ("account", "partition", "constraint", "qos"):
        fields = {"where": SiteOptions(**{option: text})}
    else:
        fields = {option: text if option == "name" else (text,)}
    named = "--set" if option == "sets" else f"--{option}"
    for kind in ("optimize", "chain"):
        with pytest.raises(InputError, match=named):
            script_of(Request(config=tmp_path / "config.toml", kind=kind, **fields))


@pytest.mark.parametrize("after", ["1; touch made", "", "-1", "1:2", "$(touch made)", "1_2_3"])
def test_what_is_no_id_of_a_job_is_an_error(after):
    with pytest.raises(InputError, match=r"--after .* is no id of a job"):
        render(Job("optimize", "x", ["optimize"], after=(after,)), site())
    render(Job("optimize", "x", ["optimize"], after=("12", "12_3", "12+1")), site())


@pytest.mark.parametrize("text", BREAKS)
@pytest.mark.parametrize(
    "key",
    ["description", "account", "tested", "gpu_directive", "mpi", "program", "setup", "modules", "directives", "srun"],
)
def test_a_line_break_in_a_site_file_is_an_error_with_its_key(tmp_path, key, text):
    value = [text] if key in ("setup", "modules", "directives", "srun") else text
    lines = {"description": "mine", "ranks_per_node": 1} | {key: value}
    (tmp_path / "mine.toml").write_text("".join(f"{name} = {json.dumps(one)}\n" for name, one in lines.items()))
    with pytest.raises(InputError, match=f"'{key}"):
        load_site(str(tmp_path / "mine.toml"))
    if key not in ("program", "setup"):  # made without a file
        made = site().model_copy(update={key: value, "gpus_per_node": 2})
        with pytest.raises(InputError, match="no line of a job script can hold"):
            render(Job("optimize", "x", ["optimize"]), made)


@pytest.mark.parametrize("program", ["hpcfit; touch made", "$(touch made)", "a | b", "a `b`", "hpcfit # ", "hpcfit 'x"])
def test_a_program_is_one_command(program):
    with pytest.raises(ValueError, match=r"more than one command|No closing quotation"):
        site(program=program)
    assert site(program='apptainer exec "$HOME/image" hpcfit').program.endswith("hpcfit")


def test_the_environment_of_a_site_has_names_of_variables():
    with pytest.raises(ValueError, match="is no name of a variable"):
        site(environment={"A=1; touch made; B": "x"})


# ---- what sbatch is told of its caller ---------------------------------------------------------------------------

OF_A_JOB = {
    "SLURM_JOB_ID": "7", "SLURM_NTASKS": "64", "SLURM_CPU_BIND": "none", "SLURM_MEM_PER_CPU": "1",
    "SBATCH_PARTITION": "big", "SBATCH_ACCOUNT": "other", "PMI_RANK": "3", "PMIX_RANK": "3", "PMI2_SIZE": "9",
    "OMPI_COMM_WORLD_SIZE": "9",
}  # fmt: skip
OF_THE_CLUSTER = {"SLURM_CONF": "/etc/here.conf", "PLAIN": "kept"}


@pytest.fixture
def in_a_job(monkeypatch):
    for name, value in (OF_A_JOB | OF_THE_CLUSTER).items():
        monkeypatch.setenv(name, value)


def assert_of_no_job(environment):
    assert not OF_A_JOB.keys() & environment.keys()
    assert OF_THE_CLUSTER.items() <= environment.items()


def test_slurms_commands_do_not_know_the_job_that_calls_them(machine, in_a_job, tmp_path):
    (tmp_path / "job.sh").write_text("#!/bin/bash\n")
    assert slurm.submit(tmp_path / "job.sh") == "17"
    slurm.alive("x")
    slurm.described(["1"])
    assert {name for name, _, _ in calls(tmp_path)} == {"sbatch", "squeue", "scontrol"}
    for _, _, environment in calls(tmp_path):
        assert_of_no_job(environment)


def test_the_jobs_of_a_chain_do_not_know_it_either(machine, in_a_job, tmp_path):
    (tmp_path / "config.toml").write_text(FIT)
    machine(script_of(Request(config=tmp_path / "config.toml", kind="chain")))
    submitted = [environment for name, _, environment in calls(tmp_path) if name == "sbatch"]
    assert len(submitted) == 3
    for environment in submitted:
        assert_of_no_job(environment)


def test_worker_jobs_do_not_know_the_driver_s_job(machine, in_a_job, tmp_path):
    config = ClusterConfig(kind="slurm", logs=tmp_path / "my logs", dashboard="127.0.0.1:0")
    with (tmp_path / "programs/sbatch").open("a") as program:
        program.write("sys.exit('--test-only' not in sys.argv)\n")
    with pytest.raises(InputError, match="sbatch refuses a worker job"), open_cluster(config, "test"):
        pass
    submitted = [(words, environment) for name, words, environment in calls(tmp_path) if name == "sbatch"]
    assert any("--test-only" in words for words, _ in submitted)
    assert any("--test-only" not in words for words, _ in submitted), "by dask-jobqueue"
    for _, environment in submitted:
        assert_of_no_job(environment)
