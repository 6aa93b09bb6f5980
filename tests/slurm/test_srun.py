"""`srun hpcfit`: the embedded MPI and the site's own, ranks on nodes and GPUs, and a launcher that MPI does not see."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.command import here, sets
from tests.conftest import assert_one_clear_error, fingerprint

pytestmark = pytest.mark.mpi

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")  # of Debian
HPCFIT = ("python", "-m", "hpcfit")


def optimize(config, directory) -> list:
    settings = (f"run.directory={directory}", "optimizer.max_steps=15", "run.report=false")
    return [*HPCFIT, "optimize", config, *sets(*settings)]


@pytest.fixture(scope="module")
def expected(two_sources, tmp_path_factory):
    """The history of the same fit without any launcher."""
    directory = tmp_path_factory.mktemp("expected") / "run"
    done = here(*optimize(two_sources, directory)[len(HPCFIT) :])
    assert done.returncode == 0, done.stderr
    return fingerprint(directory)


@pytest.mark.parametrize("nodes", [pytest.param(1, marks=pytest.mark.nightly), 2])
def test_the_same_bits_under_srun(slurm, two_sources, expected, tmp_path, nodes):
    done = slurm.run("srun", f"-N{nodes}", "-n2", *optimize(two_sources, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "[rank 0/2]" in done.stderr
    assert fingerprint(tmp_path / "run") == expected


@pytest.fixture
def debian_mpich(tmp_path) -> dict[str, str]:
    """Debian's MPICH instead of the embedded one; only there the library needs another name than its own."""
    library = LIBRARIES / "libmpich.so.12"
    if not library.exists():
        pytest.skip("no MPICH of the system: apt-get install libmpich12")
    (tmp_path / "libmpi.so.12").symlink_to(library)
    return {"MPI4PY_MPIABI": "mpich", "MPI4PY_LIBMPI": str(tmp_path / "libmpi.so.12"), "LD_LIBRARY_PATH": str(tmp_path)}


@pytest.fixture
def debian_openmpi() -> dict[str, str]:
    """Debian's Open MPI, which needs Slurm's PMIx; over sockets, since it takes two nodes of one host for one node."""
    if not (LIBRARIES / "libmpi.so.40").exists() or not any(LIBRARIES.glob("**/libpmix.so")):
        pytest.skip("no Open MPI and PMIx of the system: apt-get install openmpi-bin libpmix-dev")
    return {
        "MPI4PY_MPIABI": "openmpi", "MPI4PY_LIBMPI": "libmpi.so.40", "SLURM_MPI_TYPE": "pmix",
        "OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "tcp,self",
    }  # fmt: skip


@pytest.mark.parametrize("library", ["debian_mpich", "debian_openmpi"])
def test_the_same_bits_with_the_sites_own_mpi(slurm, two_sources, expected, tmp_path, request, library):
    variables = request.getfixturevalue(library)
    used = slurm.ok("srun", "-n1", "python", "-c", "from hpcfit.ranks import mpi_library as m; print(m())", **variables)
    assert f"path='{LIBRARIES}" in used
    done = slurm.run("srun", "-N2", "-n2", *optimize(two_sources, tmp_path / "run"), **variables)
    assert done.returncode == 0, done.stderr
    assert fingerprint(tmp_path / "run") == expected


def test_tasks_that_mpi_does_not_join_are_one_error(slurm, two_sources, tmp_path):
    done = slurm.run(
        "srun", "--mpi=none", "-N2", "-n2", "--kill-on-bad-exit=1", *optimize(two_sources, tmp_path / "run")
    )
    assert_one_clear_error(done, ["SLURM_STEP_NUM_TASKS = 2", "MPI sees 1 rank", "srun --mpi=pmi2"])
    assert not (tmp_path / "run").exists()


def test_doctor_says_the_same_once(slurm):
    done = slurm.run("srun", "--mpi=none", "-N2", "-n2", *HPCFIT, "doctor")
    assert done.returncode == 2
    assert done.stdout.count("problem: SLURM_STEP_NUM_TASKS = 2") == 1


def test_an_error_of_all_ranks_keeps_its_exit_code(slurm, tmp_path):
    """srun terminates the rest when the first rank leaves: their code must not become that of the signal."""
    done = slurm.run("srun", "-N2", "-n4", "--kill-on-bad-exit=1", *HPCFIT, "optimize", tmp_path / "missing.toml")
    assert_one_clear_error(done, ["missing.toml does not exist"])


@pytest.mark.parametrize(
    ("option", "nodes", "shown"),
    [
        ("--gpus-per-task=1", ["n1", "n2"], ["CUDA_VISIBLE_DEVICES=0", "CUDA_VISIBLE_DEVICES=1"]),
        ("--gpus-per-node=2", ["n1"], ["CUDA_VISIBLE_DEVICES=0,1 -> 0", "CUDA_VISIBLE_DEVICES=0,1 -> 1"]),
    ],
)
def test_check_maps_ranks_to_nodes_and_gpus(slurm, two_sources, option, nodes, shown):
    """The nodes are named: of idle ones Slurm takes the first, and n1 may still be ending the job before."""
    where = f"--nodelist={','.join(nodes)}"
    done = slurm.run("srun", where, f"-n{2 * len(nodes)}", option, *HPCFIT, "check", two_sources)
    assert done.returncode == 0, done.stderr
    lines = [line.split("INFO ")[1] for line in done.stderr.splitlines() if "CUDA" in line]
    found = [(*line.split()[:3], re.search(r"CUDA_VISIBLE_DEVICES=\S+( -> \d)?", line)[0]) for line in lines]
    assert found == [(str(rank), nodes[rank // 2], str(rank % 2), shown[rank % 2]) for rank in range(2 * len(nodes))]


def test_mpiexec_inside_a_job_counts_ranks_on_the_node(slurm, two_sources):
    """There one task of Slurm a node starts all ranks: its own SLURM_LOCALID is 0 for each of them."""
    if shutil.which("mpiexec", path=slurm.environment["PATH"].split(os.pathsep)[0]) is None:
        pytest.skip("no mpiexec of the environment: install hpcfit[mpi]")
    done = slurm.run(
        "salloc", "-N1", "-n2", "--gpus-per-node=2", "--quiet", "mpiexec", "-n", "2", *HPCFIT, "check", two_sources
    )
    assert done.returncode == 0, done.stderr
    assert "CUDA_VISIBLE_DEVICES=0,1 -> 0" in done.stderr
    assert "CUDA_VISIBLE_DEVICES=0,1 -> 1" in done.stderr
