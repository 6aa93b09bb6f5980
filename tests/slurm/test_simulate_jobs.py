"""`hpcfit simulate` with workers that are Slurm jobs: one is cancelled half-way, and every frame is there once."""

import subprocess
import sys

import numpy as np
import pytest

from hpcfit.data.piece import piece_file, read_piece
from hpcfit.data.pieces import read_chain
from hpcfit.workflow.simulation.simulate import simulate_replica
from tests.workflow import simulations

pytest.importorskip("openmm")

CLUSTER = """
[cluster]
kind = "slurm"
jobs = 2
cores = 1
memory = "800 MB"
walltime = "00:10:00"
interface = "lo"
dashboard = "127.0.0.1:0"
logs = "logs"
"""
FRAMES, PIECE = 30, 3


@pytest.fixture
def config(tmp_path):
    """Four replicas of about two seconds each."""
    path = simulations.write_dipeptide(tmp_path, replicas=4, frames=FRAMES, piece=PIECE, interval=1.0)
    path.write_text(path.read_text() + CLUSTER)
    return path


def worker_jobs(slurm) -> list[str]:
    shown = slurm.ok("squeue", "--noheader", "--states=RUNNING", "--name=hpcfit-simulate", "--format=%i")
    return shown.split()


def is_at_work(replica) -> bool:
    return (replica.folder / piece_file(0)).exists() and not (replica.folder / piece_file(FRAMES // PIECE - 1)).exists()


def test_a_cancelled_worker_job_costs_no_frame(slurm, config, tmp_path):
    found = simulations.replicas(config)
    command = [sys.executable, "-m", "hpcfit", "simulate", str(config)]
    with subprocess.Popen(command, env=slurm.environment, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as running:
        slurm.wait_until(lambda: sum(map(is_at_work, found)) == 2, "both workers at work")
        slurm.ok("scancel", worker_jobs(slurm)[0])
        _, said = running.communicate(timeout=300)
    assert running.returncode == 0, said
    assert "lost its worker" in said
    assert not worker_jobs(slurm)
    for replica, expected in zip(found, simulations.replicas(config, f"simulate.directory='{tmp_path / 'serial'}'")):
        chain = read_chain(replica.folder, replica.settings.digest)
        steps = [read_piece(replica.folder / piece_file(piece.number)).rows.step for piece in chain.pieces]
        assert np.array_equal(np.concatenate(steps), 500 * np.arange(1, FRAMES + 1))
        simulate_replica(expected)
        assert simulations.files(replica.folder) == simulations.files(expected.folder)
