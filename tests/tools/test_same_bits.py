"""tools/same_bits tells results that differ in one bit, and passes over times. It runs no fit here."""

import importlib.machinery
import importlib.util
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "same_bits"


@pytest.fixture(scope="module")
def same_bits():
    """The script as a module."""
    loader = importlib.machinery.SourceFileLoader("same_bits", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("same_bits", loader))
    loader.exec_module(module)
    return module


def write_run(folder: Path, *, value=1.0, seconds=2.0, name="a") -> Path:
    """A run directory with one file of each format."""
    (folder / "mapped").mkdir(parents=True)
    (folder / "fits").mkdir()
    (folder / "fits" / "one.h5").write_text(f"no result: {seconds}")
    (folder / "history.jsonl").write_text(json.dumps({"loss": value, "reduce_seconds": seconds}) + "\n")
    (folder / "metrics.json").write_text(json.dumps({"cc": [value], "rate": seconds, "command": str(folder)}))
    (folder / "weights.csv").write_text(f"frame,weight\n0,{value!r}\n")
    np.save(folder / "force_map.npy", np.array([0.0, value]))
    with h5py.File(folder / "mapped" / "a.h5", "w") as file:
        file["particles/force"] = np.array([[0.0, np.nan], [value, 3.0]])
        file["name"] = name
        file["seconds"] = seconds
    return folder


def differences(same_bits, old: Path, new: Path) -> dict[str, str]:
    return {name: found for name, found in same_bits.compare_runs(old, new) if found}


def test_equal_results_are_equal_whatever_the_time(same_bits, tmp_path):
    old, new = write_run(tmp_path / "old"), write_run(tmp_path / "new", seconds=3.0)
    compared = dict(same_bits.compare_runs(old, new))
    assert set(compared) == {"force_map.npy", "history.jsonl", "mapped/a.h5", "metrics.json", "weights.csv"}
    assert set(compared.values()) == {None}


def test_the_last_bit_of_a_number_is_seen_in_every_format(same_bits, tmp_path):
    old, new = write_run(tmp_path / "old"), write_run(tmp_path / "new", value=np.nextafter(1.0, 2.0).item())
    found = differences(same_bits, old, new)
    assert found["mapped/a.h5"].startswith("particles/force[1, 0]: 1.0 and 1.0000000000000002 (the first of 1 of 4)")
    assert found["history.jsonl"].startswith("loss[0]: ")
    assert found["metrics.json"].startswith("cc.0[0]: ")
    assert found["weights.csv"].startswith("line[1]: 0,1.0 and 0,1.0000000000000002")
    assert found["force_map.npy"].startswith("array[1]: ")


def test_texts_of_hdf5_are_compared(same_bits, tmp_path):
    old, new = write_run(tmp_path / "old"), write_run(tmp_path / "new", name="b")
    assert differences(same_bits, old, new) == {"mapped/a.h5": "name[]: b'a' and b'b' (the first of 1 of 1)"}


@pytest.mark.parametrize("side", ["old", "new"])
def test_a_missing_file_and_a_missing_dataset_are_differences(same_bits, tmp_path, side):
    old, new = write_run(tmp_path / "old"), write_run(tmp_path / "new")
    (tmp_path / side / "weights.csv").unlink()
    with h5py.File(tmp_path / side / "mapped" / "a.h5", "r+") as file:
        del file["particles/force"]
    assert differences(same_bits, old, new) == {
        "weights.csv": f"missing in {tmp_path / side}",
        "mapped/a.h5": f"particles/force is missing in {tmp_path / side / 'mapped/a.h5'}",
    }


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (np.zeros(2), np.zeros(3), "shape (2,) and (3,)"),
        (np.zeros(2), np.zeros(2, np.float32), "float64 and float32"),
        (np.array([0.0]), np.array([-0.0]), "[0]: 0.0 and -0.0"),
        (np.array([b"1"]), np.array([1.0]), "|S1 and float64"),
    ],
)
def test_type_shape_and_sign_of_zero_are_compared(same_bits, old, new, words):
    assert words in same_bits.array_difference(old, new)


def test_arrays_without_elements_are_equal(same_bits):
    assert same_bits.array_difference(np.empty((0, 2)), np.empty((0, 2))) is None
