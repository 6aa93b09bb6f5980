"""`hpcfit simulate` with workers that are Slurm jobs: one is cancelled half-way, and every frame is there once."""

import subprocess

import numpy as np
import psutil
import pytest

from hpcfit.simulation.replica_run import simulate_replica
from hpcfit.store.piece import piece_file, read_piece
from hpcfit.store.pieces import read_chain
from tests.simulation import simulations
from tests.workflow.crew_tasks import Gate
from tests.workflow.held import held

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
    """Four replicas."""
    path = simulations.write_dipeptide(tmp_path, replicas=4, frames=FRAMES, piece=PIECE)
    path.write_text(path.read_text() + CLUSTER)
    return path


def worker_jobs(slurm) -> list[str]:
    shown = slurm.ok("squeue", "--noheader", "--states=RUNNING", "--name=hpcfit-simulate", "--format=%i")
    return shown.split()


@pytest.mark.nightly
def test_a_cancelled_worker_job_costs_no_frame(slurm, config, tmp_path):
    found = simulations.replicas(config)
    gate = Gate(tmp_path / "gate")
    command = held("held_after_two_pieces", gate, "simulate", config)
    with subprocess.Popen(command, env=slurm.environment, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as running:
        slurm.wait_until(lambda: len(gate.waiting()) == 2, "both workers at work")
        at_work = gate.waiting()
        slurm.ok("scancel", worker_jobs(slurm)[0])
        slurm.wait_until(lambda: not all(map(psutil.pid_exists, at_work)), "the end of one of them")
        gate.open()
        _, said = running.communicate(timeout=300)
    assert running.returncode == 0, said
    assert "lost its worker" in said
    assert not worker_jobs(slurm)
    for replica, expected in zip(found, simulations.replicas(config, f"simulate.directory='{tmp_path / 'serial'}'")):
        chain = read_chain(replica.folder, replica.settings.digest)
        steps = [read_piece(replica.folder / piece_file(piece.number)).rows.step for piece in chain.pieces]
        assert np.array_equal(np.concatenate(steps), 10 * np.arange(1, FRAMES + 1))
        simulate_replica(expected)
        assert simulations.files(replica.folder) == simulations.files(expected.folder)
