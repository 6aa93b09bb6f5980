"""Records of fits that have ended are believed only where they are whole, of this run, and what their name says.

Run by the command line, and changed as files: nothing here knows how a record is written but ``tests.store.changed``.
"""

import json
import shutil

import numpy as np
import pytest

from tests.command import here, sets
from tests.conftest import assert_one_clear_error
from tests.store.changed import resealed

SETTINGS = ("problem.starts=['prior', 'uniform', 'random']", "problem.random_starts=2", "problem.theta=0.01",
            "optimizer.max_steps=6", "run.report=false")  # fmt: skip
RECORDS = {"start_prior", "start_uniform", "start_random_1", "start_random_2", "final"}


def words(config, directory, *more):
    return ["optimize", str(config), *sets(f"run.directory={directory}", *SETTINGS, *more)]


def records(directory):
    """The records of fits, which lie beside stages."""
    return sorted((directory / "fits").glob("*.h5"))


@pytest.fixture(scope="module")
def whole(two_sources, tmp_path_factory):
    """The directory of a run of several fits, in one go."""
    directory = tmp_path_factory.mktemp("records") / "run"
    here(*words(two_sources, directory)).check_returncode()
    assert {path.stem for path in records(directory)} == RECORDS
    return directory


@pytest.fixture
def killed(whole, tmp_path):
    """The same, killed while it wrote its results: all fits have ended, and nothing is left but their records."""
    shutil.copytree(whole, run := tmp_path / "run")
    (run / "metrics.json").unlink()
    shutil.rmtree(run / "checkpoints")
    return run


def test_records_that_were_changed_or_swapped_are_not_believed(hpcfit, two_sources, whole, killed):
    fits, rng = killed / "fits", np.random.default_rng(3)
    for name in ("start_prior", "final"):
        content = bytearray((fits / f"{name}.h5").read_bytes())
        content[rng.integers(512, len(content))] ^= 1 << rng.integers(8)
        (fits / f"{name}.h5").write_bytes(content)
    one, other = fits / "start_random_1.h5", fits / "start_random_2.h5"
    one.rename(fits / "aside")
    other.rename(one)
    (fits / "aside").rename(other)
    done = hpcfit(*words(two_sources, killed), "--resume")
    assert done.returncode == 0, done.stderr
    for path in (fits / "start_prior.h5", fits / "final.h5"):
        assert f"{path} is damaged" in done.stderr
    assert f"{one} is the record of a fit 'start_random_2', not the record of a fit 'start_random_1'" in done.stderr
    assert done.stderr.count(" has ended before: ") == 1
    assert (killed / "weights.csv").read_bytes() == (whole / "weights.csv").read_bytes()
    assert {path.stem for path in records(killed)} == RECORDS


def test_a_flipped_bit_of_a_parameter_changes_nothing(hpcfit, two_sources, whole, killed):
    """The one that a run of before took as sound: in the exponent of a number, where no header is damaged."""
    import h5py

    with h5py.File(killed / "fits/final.h5") as file:
        found = []
        file.visititems(lambda _, item: found.append(item) if getattr(item, "size", 0) > 100 else None)
        offset = found[0].id.get_offset()
    content = bytearray((killed / "fits/final.h5").read_bytes())
    content[offset + 8 * 7 + 6] ^= 0x40
    (killed / "fits/final.h5").write_bytes(content)
    done = hpcfit(*words(two_sources, killed), "--resume")
    assert done.returncode == 0, done.stderr
    assert (killed / "weights.csv").read_bytes() == (whole / "weights.csv").read_bytes()


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=[pytest.mark.mpi, pytest.mark.nightly])])
def test_a_whole_record_of_another_schema_is_one_error(hpcfit, two_sources, killed, ranks):
    record = killed / "fits/start_uniform.h5"
    schema = json.loads(record.read_bytes()[:512])["schema"]
    resealed(record, schema=schema + 1)
    before = {path: path.read_bytes() for path in killed.rglob("*") if path.is_file()}
    done = hpcfit(*words(two_sources, killed), "--resume", ranks=ranks)
    assert_one_clear_error(done, [str(record), f"has schema {schema + 1} ", f"reads schema {schema}", "--overwrite"])
    assert {path: path.read_bytes() for path in killed.rglob("*") if path.is_file()} == before


def test_a_record_without_a_seal_is_one_error(hpcfit, two_sources, killed):
    """As versions before wrote them."""
    record = killed / "fits/start_uniform.h5"
    record.write_bytes(record.read_bytes()[512:])
    assert_one_clear_error(hpcfit(*words(two_sources, killed), "--resume"), [str(record), "no seal", "reads schema"])


def test_a_whole_record_of_another_run_is_one_error(hpcfit, two_sources, killed):
    done = hpcfit(*words(two_sources, killed, "problem.shells=7"), "--resume")
    assert_one_clear_error(done, [str(killed / "fits"), '"shells":20', '"shells":7'])
