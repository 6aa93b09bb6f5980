"""Bad input to `hpcfit prepare`: one clear error that names the file, and exit code 2, on one rank and on three."""

import gemmi
import numpy as np
import pytest

from tests.commands.test_faults import small_disk  # noqa: F401  (a fixture)
from tests.conftest import also_on_ranks, assert_one_clear_error, name_of

CELL = (10.0, 10.0, 10.0, 90.0, 90.0, 90.0)


def write_trajectory(path, n_frames=200, broken=None):
    """Carbon atoms in a periodic box as extended XYZ; ``broken``: the frame with a NaN."""
    rng = np.random.default_rng(0)
    with open(path, "w") as file:
        for t in range(n_frames):
            positions = rng.random((5, 3)) * 10
            if t == broken:
                positions[2, 1] = np.nan
            rows = "\n".join("C " + " ".join(f"{x:.6f}" for x in row) for row in positions)
            file.write(f'5\nLattice="10 0 0 0 10 0 0 0 10" Properties=species:S:1:pos:R:3 pbc="T T T"\n{rows}\n')


def write_mtz(path, hkl, labels=("FC", "PHIC")):
    mtz = gemmi.Mtz(with_base=True)
    mtz.spacegroup = gemmi.SpaceGroup("P 1")
    mtz.set_cell_for_all(gemmi.UnitCell(*CELL))
    mtz.add_dataset("frame")
    for label, kind in zip(labels, "FP"):
        mtz.add_column(label, kind)
    mtz.set_data(np.column_stack([hkl, np.ones(len(hkl)), np.zeros(len(hkl))]).astype(np.float32))
    mtz.write_to_file(str(path))


def trajectory_config(folder, **extra):
    options = "".join(f"{key} = {value}\n" for key, value in extra.items())
    (folder / "config.toml").write_text(
        '[frames]\nstore = "store"\n[prepare]\nd_min = 1.5\nshard_frames = 64\n'
        + options
        + '[[prepare.source]]\ntrajectory = "a.xyz"\n'
    )


def mtz_config(folder):
    (folder / "config.toml").write_text('[frames]\nstore = "store"\n[[prepare.source]]\nmtz = "mtz/*.mtz"\n')
    (folder / "mtz").mkdir()


def nan_positions(folder):
    write_trajectory(folder / "a.xyz", broken=150)
    trajectory_config(folder)
    return ["a.xyz", "frame 150"]


def missing_column(folder):
    mtz_config(folder)
    hkl = [[1, 0, 0], [0, 1, 0], [1, 1, 1]]
    write_mtz(folder / "mtz/one.mtz", hkl)
    write_mtz(folder / "mtz/two.mtz", hkl, labels=("FOO", "BAR"))
    return ["two.mtz", "FOO", "BAR", "columns"]


def no_common_reflections(folder):
    mtz_config(folder)
    write_mtz(folder / "mtz/one.mtz", [[1, 0, 0], [0, 1, 0]])
    write_mtz(folder / "mtz/two.mtz", [[5, 0, 0], [0, 7, 0]])
    return ["one.mtz", "two.mtz", "common"]


def no_files(folder):
    mtz_config(folder)
    return ["mtz/*.mtz"]


FAULTS = [nan_positions, missing_column, no_common_reflections, no_files]
# What all ranks find when they compare; tests/prepare/test_prepare.py has what one of them finds in its frames.
ON_RANKS = (no_common_reflections,)


@pytest.mark.parametrize(("fault", "ranks"), also_on_ranks(FAULTS, 3, always=ON_RANKS), ids=name_of)
def test_one_clear_error(hpcfit, tmp_path, fault, ranks):
    expected = fault(tmp_path)
    assert_one_clear_error(hpcfit("prepare", tmp_path / "config.toml", ranks=ranks), expected)
    assert not (tmp_path / "store/catalog.json").exists()


SIZES = (1_495_000, 1_480_000, 1_440_000, 1_380_000, 1_300_000, 1_200_000, 1_100_000, 1_000_000, 900_000, 800_000)


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.mpi)])
@pytest.mark.parametrize("size", [1_380_000, *(pytest.param(size, marks=pytest.mark.nightly) for size in SIZES)])
def test_a_full_disk_is_one_error_and_prepare_goes_on_later(hpcfit, tmp_path, small_disk, ranks, size):  # noqa: F811
    """On two ranks both find it full, and one of them says so."""
    write_trajectory(tmp_path / "a.xyz", n_frames=300)
    trajectory_config(tmp_path)
    (small_disk / "ballast").write_bytes(bytes(size))
    run = ["prepare", tmp_path / "config.toml", "--set", f"frames.store={small_disk / 'store'}"]
    done = hpcfit(*run, ranks=ranks, apart=True)
    assert_one_clear_error(done, ["cannot write", "No space left on device"])
    assert "ignored" not in done.stderr
    left = [path.name for path in (small_disk / "store").iterdir()] if (small_disk / "store").exists() else []
    assert not [name for name in left if name.endswith((".tmp", ".lock", ".json"))]
    (small_disk / "ballast").unlink()
    again = hpcfit(*run, ranks=ranks)
    assert again.returncode == 0, again.stderr
    assert hpcfit("store", "verify", small_disk / "store").returncode == 0
