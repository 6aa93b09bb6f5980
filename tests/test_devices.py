"""Which GPU a rank takes, from what launcher and environment say of it; no GPU is needed to decide."""

import os

import pytest

from hpcfit import machine
from hpcfit.launcher import LOCAL_RANKS, local_rank

NAMES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
NVIDIA, AMD = NAMES[:1], ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    ("vendor", "given", "number", "left"),
    [
        (NVIDIA, {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, 2, {"CUDA_VISIBLE_DEVICES": "2"}),
        (NVIDIA, {"CUDA_VISIBLE_DEVICES": "4,6"}, 3, {"CUDA_VISIBLE_DEVICES": "6"}),  # two ranks a GPU
        (NVIDIA, {"CUDA_VISIBLE_DEVICES": "GPU-a1,GPU-b2"}, 1, {"CUDA_VISIBLE_DEVICES": "GPU-b2"}),
        (NVIDIA, {"CUDA_VISIBLE_DEVICES": "3"}, 1, {"CUDA_VISIBLE_DEVICES": "3"}),  # the launcher's choice stands
        (NVIDIA, {"CUDA_VISIBLE_DEVICES": "0,1", "ROCR_VISIBLE_DEVICES": "0,1"}, 1,
         {"CUDA_VISIBLE_DEVICES": "1", "ROCR_VISIBLE_DEVICES": "0,1"}),
        (AMD, {"ROCR_VISIBLE_DEVICES": "0,1,2,3"}, 1, {"ROCR_VISIBLE_DEVICES": "1"}),
        # HIP counts among what ROCR shows: left as it was it would name a device that is not there.
        (AMD, {"ROCR_VISIBLE_DEVICES": "0,1", "HIP_VISIBLE_DEVICES": "0,1"}, 1, {"ROCR_VISIBLE_DEVICES": "1"}),
        (AMD, {"ROCR_VISIBLE_DEVICES": "5", "HIP_VISIBLE_DEVICES": "0"}, 1,
         {"ROCR_VISIBLE_DEVICES": "5", "HIP_VISIBLE_DEVICES": "0"}),
        (AMD, {"HIP_VISIBLE_DEVICES": "2,3"}, 0, {"HIP_VISIBLE_DEVICES": "2"}),
    ],
)  # fmt: skip
def test_a_rank_sees_one_gpu(monkeypatch, vendor, given, number, left):
    monkeypatch.setattr(machine, "_visibility", lambda: vendor)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    machine._see_one_gpu(number)
    assert {name: os.environ[name] for name in NAMES if name in os.environ} == left


@pytest.mark.parametrize(
    ("variables", "number"),
    [
        ({}, None),
        ({"SLURM_LOCALID": "3"}, 3),
        ({"SLURM_LOCALID": "0", "MPI_LOCALRANKID": "2"}, 2),  # mpiexec in a Slurm job: Slurm started only its proxy
        ({"SLURM_LOCALID": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}, 1),
    ],
)
def test_the_innermost_launcher_numbers_the_ranks_of_a_node(monkeypatch, variables, number):
    for name in LOCAL_RANKS:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert local_rank() == number
