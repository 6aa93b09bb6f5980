"""A named pipe, a device, a folder and a loop of links are no files: each reader says so and opens none of them."""

import os
from pathlib import Path

import numpy as np
import pytest

from hpcfit.config import ExperimentConfig
from hpcfit.config.frames import ArrayKeys
from hpcfit.errors import InputError
from hpcfit.kinds.clusters.energies import read_energies
from hpcfit.kinds.force_map.beads import read_matrix
from hpcfit.kinds.frame_weights.coordinates import read_coordinates
from hpcfit.kinds.frame_weights.prior import _from_file
from hpcfit.kinds.table import load_config
from hpcfit.observables.readers import read_measurements, read_values
from hpcfit.readers.arrays import open_arrays
from hpcfit.readers.frame_folders import read_frame
from hpcfit.readers.geometries import read_geometries
from hpcfit.readers.maps import READERS, read_map
from hpcfit.readers.mtz import read_mtz
from hpcfit.readers.positions import open_positions, read_topology
from hpcfit.readers.scattering_curves import read_scattering_curve
from hpcfit.readers.tables import open_table
from hpcfit.readers.topology import read_particles, read_system
from hpcfit.readers.units import Units
from hpcfit.store.frame import Topology
from tests.command import apart

IDS = np.arange(3)


def _positions(path):
    return open_positions(path, Topology(("O", "H", "H"), None))


def _arrays(path):
    return open_arrays(path, ArrayKeys(), Units(), 3)


OPENS = {
    "config.toml": load_config,
    **{f"map{suffix}": lambda path: read_map(ExperimentConfig(file=path)) for suffix in READERS},
    **{f"run.{suffix}": _positions for suffix in ("xtc", "trr", "dcd", "nc", "h5md", "pdb", "extxyz")},
    "XDATCAR": _positions,
    "run.npz": _arrays,
    "run.h5": _arrays,
    "top.pdb": read_topology,
    "top.cif": read_particles,
    "system.xml": read_system,
    "geometries.npz": lambda path: read_geometries(path, "A", None, None),
    "geometries.extxyz": lambda path: read_geometries(path, "A", None, None),
    "frame.xyz": read_frame,
    "frame.mtz": read_mtz,
    "table.csv": open_table,
    "table.npy": open_table,
    "noe.dat": read_measurements,
    "values.dat": read_values,
    "curve.dat": read_scattering_curve,
    "prior.csv": lambda path: _from_file(path, IDS),
    "coordinates.csv": lambda path: read_coordinates(path, IDS),
    "matrix.txt": lambda path: read_matrix(path, "map"),
    "run.ener": read_energies,
}
NO_FILES = {
    "nothing": (lambda path: None, "does not exist"),
    "pipe": (os.mkfifo, "is a named pipe, not a file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a device, not a file"),
    "loop": (lambda path: path.symlink_to(path.name), "is no file: Too many levels of symbolic links"),
    "folder": (Path.mkdir, "folder"),
}


@pytest.mark.parametrize("name", OPENS)
@pytest.mark.parametrize("kind", NO_FILES)
def test_no_file_is_said(tmp_path, name, kind):
    make, words = NO_FILES[kind]
    make(tmp_path / name)
    with pytest.raises(InputError) as caught:
        OPENS[name](tmp_path / name)
    assert words in str(caught.value)
    assert name in str(caught.value)
    assert "remedy:" in str(caught.value)


def test_a_command_does_not_wait_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "config.toml")
    done = apart("check", tmp_path / "config.toml")
    assert done.returncode == 2
    assert "config.toml is a named pipe, not a file" in done.stderr
    assert "Traceback" not in done.stderr
