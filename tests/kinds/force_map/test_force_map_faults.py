"""Bad input to kind "force-map", injected on purpose: exit code 2 and one error that names what disagrees, a remedy."""

import contextlib
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.table import load_config, open_case
from hpcfit.ranks import Ranks
from hpcfit.testsystems import synthetic
from hpcfit.testsystems.harmonic_beads import HarmonicBeads, write_force_store
from hpcfit.testsystems.water_dimer import write_system
from tests.commands.test_faults import mounted
from tests.conftest import assert_one_clear_error
from tests.kinds.force_map.force_map_runs import force_map_config
from tests.prepare.force_inputs import WRITERS, table, truth, write_config

SYSTEM, FRAMES = HarmonicBeads(12), 130
CONFIG = force_map_config("""
blocks = 5
bootstrap = 0
[problem.beads]
residue = "CA"
""")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with a config and a store of two sources."""
    folder = tmp_path_factory.mktemp("sound")
    r, f = SYSTEM.frames(FRAMES, 1)
    write_force_store(folder / "store", SYSTEM.particles, {"a": (r[:70], f[:70], None), "b": (r[70:], f[70:], None)})
    (folder / "config.toml").write_text(CONFIG)
    return folder


@pytest.fixture
def problem(sound, tmp_path):
    """A copy that a test may damage; its folder."""
    return shutil.copytree(sound, tmp_path / "problem")


def changed(folder, old="", new="", more=""):
    """Change the text of the config."""
    text = (folder / "config.toml").read_text()
    assert old in text
    (folder / "config.toml").write_text(text.replace(old, new, 1) + more)


def of_other_particles(folder, **parts):
    """The store anew, of particles that are changed."""
    shutil.rmtree(folder / "store")
    r, f = SYSTEM.frames(FRAMES, 1)
    write_force_store(folder / "store", replace(SYSTEM.particles, **parts), {"a": (r, f, None)})


def unknown_key(folder):
    changed(folder, more="[problem.map]\nmethod = ['basic']\n")
    return ["unknown key 'problem.map.method'", "did you mean 'methods'"]


def structure_factors_for_forces(folder):
    shutil.rmtree(folder / "store")
    reflections = synthetic.cubic_reflections()
    F_h = synthetic.gaussian_frames(3, len(reflections), seed=0)
    synthetic.write_store(folder / "store", reflections, [synthetic.Source("a", F_h)])
    return ["store is a store of structure-factors; this needs one of forces", "content = 'forces'"]


def forces_for_structure_factors(folder):
    (folder / "config.toml").write_text(
        '[frames]\nstore = "store"\n[experiment]\nfile = "map.npz"\n[problem]\nkind = "frame-weights"\nlaue = "-1"\n'
    )
    return ["store is a store of forces; this needs one of structure-factors"]


def missing_store(folder):
    shutil.rmtree(folder / "store")
    return ["store is not a complete store", "hpcfit prepare"]


def beads_in_one_rigid_group(folder):
    changed(folder, 'residue = "CA"', "atoms = [[0], [1], [6]]",
            "[problem.constraints]\npairs = [[0, 1]]\nstore = false\ncheck = false\n")  # fmt: skip
    return ["'bead 0' (atoms 0)", "'bead 1' (atoms 1)", "lie in one rigid group", "leave one of them out"]


def empty_selection(folder):
    changed(folder, 'residue = "CA"', "each = 'name OXT'")
    return ["selection 'name OXT' selects none of the 12 particles", "names CA, CB, CG"]


def constraints_of_another_topology(folder):
    write_system(folder / "system.xml", molecules=3)
    changed(folder, more="[problem.constraints]\nsystem = 'system.xml'\n")
    return ["system.xml has 9 particles, the store has 12", "the System of this trajectory"]


def constraints_that_contradict_the_store(folder):
    write_system(folder / "system.xml", molecules=4)
    of_other_particles(folder, constraints=np.array([[0, 1]]))
    changed(folder, more="[problem.constraints]\nsystem = 'system.xml'\n")
    return ["system.xml has 12 constraints, the store 1", "atom 0 (CA of ALA 1, chain A)", "correct one of them"]


def constraints_that_are_not_held(folder):
    changed(folder, more="[problem.constraints]\npairs = [[4, 5]]\nstore = false\n")
    return ["1 of 1 constraints (1 of pairs) are not held", "atom 4 (CB of ALA 2, chain A)", "check = false"]


def a_matrix_of_another_size(folder):
    np.savetxt(folder / "beads.txt", np.eye(3, 11))
    changed(folder, 'residue = "CA"', "matrix = 'beads.txt'")
    return ["beads.txt has 11 columns, the store has 12 atoms", "a column for each atom"]


def a_map_of_another_size(folder):
    np.save(folder / "map.npy", np.eye(3, 12))
    changed(folder, more="[problem.map]\nmethods = ['file']\nfile = 'map.npy'\n")
    return ["map.npy has 3 x 12 coefficients; there are 4 beads and 12 atoms", "the force map of these beads"]


def a_reference_for_more_than_two_beads(folder):
    np.savetxt(folder / "exact.txt", [[1, 2], [2, 1]])
    changed(folder, "blocks = 5", "blocks = 5\nreference = 'exact.txt'")
    return ["reference is a mean force between two beads; there are 4", "leave reference out"]


def a_reference_of_one_row(folder):
    np.savetxt(folder / "exact.txt", [[1, 2]])
    changed(folder, "blocks = 5", "blocks = 5\nreference = 'exact.txt'")
    changed(folder, 'residue = "CA"', "each = 'index 0 3'")
    return ["exact.txt has shape [1, 2]", "two columns, r (A) ascending"]


def a_file_that_is_missing(folder):
    changed(folder, "blocks = 5", "blocks = 5\nreference = 'exact.txt'")
    changed(folder, 'residue = "CA"', "each = 'index 0 3'")
    return ["exact.txt"]


def more_statistical_blocks_than_frames(folder):
    changed(folder, "blocks = 5", "blocks = 200")
    return ["blocks = 200 statistical blocks, but there are 130 frames", "fewer blocks"]


def mapped_onto_another_store(folder):
    shutil.copytree(folder / "store", folder / "precious")
    changed(folder, "blocks = 5", "blocks = 5\nmapped = 'precious'")
    return ["precious holds a store that was not made by mapping", "name another folder"]


def mapped_onto_itself(folder):
    changed(folder, "blocks = 5", "blocks = 5\nmapped = 'store'")
    return ["store is the store whose frames are to be mapped", "name another folder"]


def a_source_that_is_not_there(folder):
    changed(folder, 'store = "store"', 'store = "store"\ninclude = ["c*"]')
    return ["no source of", "include = ['c*']", "sources there: a, b"]


def nothing_to_match(folder):
    changed(folder, 'residue = "CA"', "each = 'index 0'", "[problem.force_matching]\n")
    return ["1 beads: its functions are of all pairs, of 2 to 600 beads"]


def periodic_frames_without_an_end_of_forces(folder):
    shutil.rmtree(folder / "store")
    r, f = SYSTEM.frames(10, 2)
    write_force_store(folder / "store", SYSTEM.particles, {"a": (r, f, np.tile(50 * np.eye(3), (10, 1, 1)))})
    changed(folder, more="[problem.force_matching]\n")
    return ["pair_range = 'auto': the frames of", "are periodic", "set pair_range ="]


def a_comparison_with_no_map(folder):
    changed(folder, more="[problem.force_matching.neural]\ncompare = ['basci']\n")
    return ["compare names 'basci', which is not among the maps slice, basic, optimal", "did you mean 'basic'"]


def bonds_of_beads_there_are_not(folder):
    changed(folder, more="[problem.force_matching]\nbonds = [[0, 1], [3, 4]]\n")
    return ["bonds names beads [3, 4], there are 4", "correct the list"]


AT_ONCE = [
    unknown_key, structure_factors_for_forces, forces_for_structure_factors, missing_store, beads_in_one_rigid_group,
    empty_selection, constraints_of_another_topology, constraints_that_contradict_the_store,
    constraints_that_are_not_held, a_matrix_of_another_size, a_map_of_another_size,
    a_reference_for_more_than_two_beads, a_reference_of_one_row, a_file_that_is_missing,
    more_statistical_blocks_than_frames, mapped_onto_another_store, mapped_onto_itself, a_source_that_is_not_there,
    nothing_to_match, periodic_frames_without_an_end_of_forces, a_comparison_with_no_map, bonds_of_beads_there_are_not,
]  # fmt: skip


SAID = [unknown_key, beads_in_one_rigid_group, mapped_onto_another_store]


def files_of(folder) -> dict:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("fault", AT_ONCE, ids=lambda fault: fault.__name__)
def test_what_can_be_known_before_frames_are_read_is_found_when_inputs_are_opened(problem, fault):
    """As `hpcfit check` and `hpcfit optimize` do first."""
    expected = fault(problem)
    before = files_of(problem)
    with pytest.raises(InputError) as caught:
        open_case(load_config(problem / "config.toml", []), Ranks())
    assert caught.value.exit_code == 2
    for words in [*expected, "remedy:"]:
        assert words in str(caught.value)
    assert files_of(problem) == before


@pytest.mark.parametrize("fault", SAID, ids=lambda fault: fault.__name__)
def test_check_says_it(hpcfit, problem, fault):
    expected = fault(problem)
    assert_one_clear_error(hpcfit("check", problem / "config.toml"), expected)


def more_coefficients_than_frames(folder):
    changed(folder, 'store = "store"', 'store = "store"\ninclude = ["few"]')
    changed(folder, "blocks = 5", "blocks = 2")
    changed(folder, more="[problem.map]\nmethods = ['basic', 'optimal']\nridge = 0.0\n")
    r, f = SYSTEM.frames(3, 2)
    write_force_store(folder / "store", SYSTEM.particles, {"few": (r, f, None)})
    return ["map 'optimal' has 8 free coefficients, 3 force components (of 1 frames)", "use a local or tied map"]


def forces_that_are_all_0(folder):
    shutil.rmtree(folder / "store")
    r, f = SYSTEM.frames(10, 2)
    write_force_store(folder / "store", SYSTEM.particles, {"a": (r, 0 * f, None)})
    return ["all forces of", "are 0", "prepare the store from frames with forces"]


def no_valid_map(folder):
    of_other_particles(folder, constraints=np.array([[0, 1]]))
    changed(folder, more="[problem.constraints]\ncheck = false\n[problem.map]\nmethods = ['slice']\n")
    return ["none of the maps slice gives the mean force", "add 'basic' or 'optimal'"]


RANKS_OF = [
    (forces_that_are_all_0, 1), (no_valid_map, 1),
    pytest.param(more_coefficients_than_frames, 2, marks=pytest.mark.mpi),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "ranks"), RANKS_OF, ids=lambda value: getattr(value, "__name__", value))
def test_one_clear_error(hpcfit, problem, fault, ranks):
    expected = fault(problem)
    assert_one_clear_error(hpcfit("optimize", problem / "config.toml", ranks=ranks), expected)
    assert not (problem / "run/metrics.json").exists()
    assert not (problem / "run/mapped/catalog.json").exists()


def test_nan_in_the_source_of_one_shard_is_found_by_prepare(hpcfit, tmp_path):
    """Of three shards of 64 frames, in the second."""
    what = truth(140)
    what.forces[100, 4, 1] = np.nan
    WRITERS["run.npz"][0](tmp_path / "run.npz", what)
    config = write_config(tmp_path, table("run.npz"))
    done = hpcfit("prepare", config)
    assert_one_clear_error(done, ["run.npz, frame 100", "nan", "repair the trajectory, or leave the frame out"])
    assert not (tmp_path / "store/catalog.json").exists()


@pytest.mark.parametrize("command", ["step", "scaling"])
def test_what_times_steps_says_that_there_are_none(hpcfit, problem, command):
    assert_one_clear_error(hpcfit(command, problem / "config.toml"), ["force-map"])


def test_check_prints_sizes(hpcfit, problem):
    """16 reduced forces of 12 groups and 4 beads in 5 blocks of two integers: 20 kB."""
    done = hpcfit("check", problem / "config.toml")
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    for words in ("130 of 130 in 2 shards, 5 statistical blocks", "12 in 12 rigid groups; constraints: 0 of the store",
                  "4: ALA1 CA, ALA2 CA", "slice, basic, optimal", "dense, 0.0205 MB a rank"):  # fmt: skip
        assert words in said, words
    assert not (problem / "run/metrics.json").exists()


@contextlib.contextmanager
def full(folder, bytes_free):
    """A file system of 3 MB with so much left."""
    with mounted(folder, "size=3m") as disk:
        (disk / "ballast").write_bytes(bytes(3 * 2**20 - bytes_free))
        yield disk


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.mpi)])
def test_a_full_disk_while_frames_are_mapped(hpcfit, problem, tmp_path, ranks):
    """Particles fit, shards do not; there is no list of shards, and with room the run is repeated. Of one bead, for
    which no functions of pairs are compiled."""
    changed(problem, 'residue = "CA"', "each = 'index 3'")
    with full(tmp_path / "disk", 60_000) as disk:
        run = ["optimize", problem / "config.toml", "--set", f"problem.mapped={disk / 'mapped'}", "--overwrite"]
        done = hpcfit(*run, ranks=ranks, apart=True)
        assert_one_clear_error(done, ["cannot write", str(disk / "mapped"), "MB free"])
        assert not (disk / "mapped/catalog.json").exists()
        if ranks > 1:
            return
        (disk / "ballast").unlink()
        again = hpcfit(*run, ranks=ranks)
        assert again.returncode == 0, again.stderr
        with h5py.File(disk / "mapped/b.h5") as shard:
            assert len(shard["particles/trajectory/force/value"]) == 60
