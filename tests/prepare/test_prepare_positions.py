"""`hpcfit prepare` with content = "positions": what the file says comes back, for particles known by elements alone.

That boxes of other formats keep their orientation: tests/readers/test_files_as_written.py.
"""

import gzip
import shutil
import warnings

import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms

from hpcfit.errors import InputError
from hpcfit.kinds.table import load_config
from hpcfit.prepare.command import run_prepare
from hpcfit.ranks import Ranks
from hpcfit.store.files import sha256_of_file
from hpcfit.store.positions import open_position_store, read_block
from hpcfit.store.stream import block_frames
from tests.conftest import assert_one_clear_error
from tests.store.test_forces import flip

ELEMENTS = ["Li"] * 3 + ["P"] + ["S"] * 5 + ["Cl"]
N, T = len(ELEMENTS), 150
TURNED = np.array([[0.0, 11.0, 0.0], [0.0, 1.5, 12.0], [13.0, 0.0, 2.0]])  # no vector lies along x
UPRIGHT = np.diag([11.0, 12.0, 13.0])


def positions(frames=T):
    """[frames, N, 3], A: a cluster that shakes, with atoms beyond the walls of the box."""
    rng = np.random.default_rng(5)
    return 3.0 * np.arange(N)[:, None] * [1, 0.3, -0.2] + 0.2 * rng.normal(size=(frames, N, 3))


def images(box=TURNED, pbc=True, frames=T):
    return [Atoms(ELEMENTS, x, cell=None if box is None else box * (1 + 0.001 * t), pbc=pbc)
            for t, x in enumerate(positions(frames))]  # fmt: skip


def write_config(folder, *tables, name="store"):
    tables = tables or ('trajectory = "run.extxyz"\n',)
    sources = "".join(f"[[prepare.source]]\n{table}" for table in tables)
    text = f'[frames]\nstore = "{name}"\n[prepare]\ncontent = "positions"\nshard_frames = 64\n{sources}'
    (folder / "config.toml").write_text(text)
    return folder / "config.toml"


def prepared(config):
    settings = load_config(config)
    run_prepare(settings, Ranks())
    return open_position_store(settings.frames.store)


def everything(store):
    """Positions [T, N, 3] and boxes [T, 3, 3] of all frames, or None."""
    blocks = [read_block(store, block) for block in store.blocks()]
    return [None if parts[0] is None else np.concatenate(parts) for parts in zip(*blocks)]


@pytest.fixture
def config(tmp_path):
    """The config of 150 frames of a cluster in a turned box."""
    ase.io.write(tmp_path / "run.extxyz", images())
    return write_config(tmp_path)


def test_positions_and_the_file_s_own_box_come_back(config):
    store = prepared(config)
    found, box = everything(store)
    # extxyz has 8 decimals; float32 holds 24 bits of numbers below 32 A.
    np.testing.assert_allclose(found, positions(), atol=32 * 2**-24)
    np.testing.assert_allclose(box, [TURNED * (1 + 0.001 * t) for t in range(T)], atol=16 * 2**-24)
    assert (store.n_frames, store.content.has_box, store.content.pbc) == (T, True, (True, True, True))
    assert [shard.frames for shard in store.shards] == [64, 64, 22]


def test_particles_are_known_by_their_elements_alone(config):
    particles = prepared(config).particles
    assert list(particles.elements) == ELEMENTS
    assert particles.names[:5] == ("Li1", "Li2", "Li3", "P1", "S1")
    assert (particles.residue_names, len(particles.bonds), particles.constraints) == (("ClLi3PS5",), 0, None)
    np.testing.assert_allclose(particles.masses[[0, 3]], [6.94, 30.974], atol=1e-3)
    assert particles.select("element S").tolist() == [4, 5, 6, 7, 8]


@pytest.mark.parametrize("pbc", [(True, True, False), (False, False, False), (True, True, True)])
def test_a_slab_and_a_molecule_keep_what_their_file_says(tmp_path, pbc):
    ase.io.write(tmp_path / "run.extxyz", images(pbc=pbc, frames=3))
    store = prepared(write_config(tmp_path))
    assert (store.content.pbc, store.periodic) == (pbc, any(pbc))
    with h5py.File(store.path(0)) as file:
        marks = list(file["particles/trajectory/box"].attrs["boundary"])
    assert marks == ["periodic" if repeats else "none" for repeats in pbc]


def test_a_cluster_without_a_box(tmp_path):
    ase.io.write(tmp_path / "run.xyz", images(box=None, pbc=False, frames=3), format="extxyz")
    store = prepared(write_config(tmp_path, 'trajectory = "run.xyz"\n'))
    assert (everything(store)[1], store.content.has_box) == (None, False)


def write_topology(folder):
    atoms = images(UPRIGHT, frames=1)[0]
    lines = ["CRYST1   11.000   12.000   13.000  90.00  90.00  90.00 P 1           1\n"]
    for number, (element, place) in enumerate(zip(ELEMENTS, atoms.positions), 1):
        where = "".join(f"{x:8.3f}" for x in place)
        lines.append(f"HETATM{number:5d} {element.upper():<4} UNK A{number:4d}    {where}  1.00  0.00          "
                     f"{element:>2}\n")  # fmt: skip
    (folder / "top.pdb").write_text("".join([*lines, "END\n"]))


def write_md(path, frames):
    import MDAnalysis

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe.empty(N, trajectory=True)
        units = {"lengthunit": "nm", "timeunit": "ps"} if path.suffix == ".h5md" else {}
        with MDAnalysis.Writer(str(path), N, **units) as writer:
            for number, x in enumerate(positions(frames)):
                universe.dimensions = [11, 12, 13, 90, 90, 90]
                universe.atoms.positions = x
                universe.trajectory.ts.frame = number
                writer.write(universe.atoms)


# XTC keeps 0.01 A; XDATCAR has 8 decimals of fractions; PDB has 3 decimals; the others are float32, some of nm.
@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("run.dcd", 4e-6), ("run.trr", 8e-6), ("run.nc", 4e-6), ("run.h5md", 8e-6), ("run.xtc", 0.0051), ("XDATCAR", 2e-6),
     ("XDATCAR.gz", 2e-6), ("run.pdb", 0.0006)],
)  # fmt: skip
def test_every_format_gives_the_same_positions(tmp_path, name, tolerance):
    path, table = tmp_path / name, f'trajectory = "{name}"\n'
    if name.startswith("XDATCAR"):
        same_box = [Atoms(ELEMENTS, x, cell=UPRIGHT, pbc=True) for x in positions(70)]
        ase.io.write(tmp_path / "XDATCAR", same_box, format="vasp-xdatcar")
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress((tmp_path / "XDATCAR").read_bytes()))
    elif name == "run.pdb":
        write_topology(tmp_path)
        lines = (tmp_path / "top.pdb").read_text().splitlines(keepends=True)
        models = [lines[0]]
        for number, frame in enumerate(positions(70), 1):
            atoms = (
                line[:30] + "".join(f"{x:8.3f}" for x in place) + line[54:] for line, place in zip(lines[1:], frame)
            )
            models += [f"MODEL {number:8d}\n", *atoms, "ENDMDL\n"]
        path.write_text("".join([*models, "END\n"]))
    else:
        write_topology(tmp_path)
        write_md(path, 70)
        table += 'topology = "top.pdb"\n'
    store = prepared(write_config(tmp_path, table))
    found, box = everything(store)
    shift = (found - positions(70)) @ np.linalg.inv(UPRIGHT)
    # ASE writes XDATCAR with atoms wrapped into the box; all others as they are.
    shift -= np.round(shift) if name.startswith("XDATCAR") else 0
    assert np.abs(shift @ UPRIGHT).max() < tolerance
    np.testing.assert_allclose(box, np.broadcast_to(UPRIGHT, (70, 3, 3)), atol=1e-5)
    assert list(store.particles.elements) == ELEMENTS


@pytest.mark.parametrize("zipped", [False, True])
def test_an_xdatcar_that_loses_frames_without_a_word_is_refused(tmp_path, zipped):
    """ASE ends at the first line that it does not expect."""
    same_box = [Atoms(ELEMENTS, x, cell=UPRIGHT, pbc=True) for x in positions(5)]
    ase.io.write(tmp_path / "XDATCAR", same_box, format="vasp-xdatcar")
    lines, a_frame = (tmp_path / "XDATCAR").read_text().splitlines(keepends=True), 7 + 1 + N
    bodies = ["".join(lines[start + 7 : start + a_frame]) for start in range(0, len(lines), a_frame)]
    bodies[3] = bodies[3].replace("Direct configuration=", "Direct confi")
    text = "".join([*lines[:7], *bodies])  # as VASP writes it: one header
    path = tmp_path / "XDATCAR"
    path.write_text(text)
    if zipped:
        path = tmp_path / "XDATCAR.gz"
        path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(InputError, match=rf"{path.name} announces 5 frames and holds 3 whole ones\n.*set stop = 3"):
        prepared(write_config(tmp_path, f'trajectory = "{path.name}"\n'))
    assert prepared(write_config(tmp_path, f'trajectory = "{path.name}"\nstop = 3\n')).n_frames == 3


def test_a_stream_gives_blocks_with_their_origin(config):
    store = prepared(config)
    found = list(block_frames(store, store.blocks()))
    assert [len(frames.positions) for _, frames, _ in found] == [64, 64, 22]
    _, frames, origin = found[2]
    assert origin.index.tolist() == list(range(128, 150))
    assert set(origin.file) == {str(config.parent / "run.extxyz")}
    np.testing.assert_array_equal(frames.positions, everything(store)[0][128:])


def checksums(store):
    return {path.name: sha256_of_file(path) for path in store.iterdir()}


@pytest.mark.mpi
def test_ranks_and_restarts_write_the_same_bytes(config, hpcfit):
    store, found = config.parent / "store", []
    for ranks in (1, 2):
        done = hpcfit("prepare", config, ranks=ranks)
        assert done.returncode == 0, done.stderr
        assert "150 frames of 1 sources x 10 particles" in done.stderr
        found.append(checksums(store))
        if ranks == 1:
            store.rename(config.parent / "first")
    assert found[0] == found[1]
    assert len(found[0]) == 3 + 2  # shards; catalog and particles
    (store / "catalog.json").unlink()
    (store / "run.extxyz.0000064-0000128.h5").unlink()
    (store / "run.extxyz.0000000-0000064.h5").write_bytes(b"rubbish")
    again = hpcfit("prepare", config, ranks=2)
    assert "1 shards are there and complete; 2 are to be made" in again.stderr
    assert checksums(store) == found[0]


def test_info_and_verify(config, hpcfit):
    store = prepared(config)
    said = hpcfit("store", "info", store.folder)
    assert said.returncode == 0, said.stderr
    for words in ("10 in 1 residues, 0 bonds, constraints unknown", "periodic", "150", "positions (A) in float32"):
        assert words in said.stdout
    whole = hpcfit("store", "verify", store.folder)
    assert (whole.returncode, "150 frames in 3 shards are as they were written" in whole.stderr) == (0, True)
    flip(store.path(1), "particles/trajectory/position/value", 3)
    damaged = hpcfit("store", "verify", store.folder)
    assert damaged.returncode == 2
    assert "0000064-0000128.h5 is damaged: positions of block 0, frames 64 to 127" in damaged.stderr


def test_shards_know_their_store_and_place(config):
    store = prepared(config)
    assert len(store.id) == 16
    for number in range(3):
        with h5py.File(store.path(number)) as file:
            assert (file.attrs["store"], file.attrs["place"]) == (store.id, number)
    again = prepared(write_config(config.parent, name="again"))
    assert again.id == store.id  # of the same frames and settings
    ase.io.write(config.parent / "run.extxyz", images(box=UPRIGHT))
    other = prepared(write_config(config.parent, name="other"))
    assert other.id != store.id
    for file in (store.path(1), other.path(0)):
        shutil.copy(file, store.path(0))
        with pytest.raises(
            InputError, match=f"says that it is number [01] of store .*has number 0 of store {store.id}"
        ):
            read_block(store, store.blocks()[0])


def test_a_fit_of_forces_refuses_the_store(config, hpcfit):
    prepared(config)
    config.write_text(config.read_text() + '[problem]\nkind = "force-map"\n[problem.beads]\neach = "all"\n')
    assert_one_clear_error(hpcfit("check", config), ["is a store of positions; this needs one of forces"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda all_images: all_images[70].set_pbc([True, True, False]),
            "frame 70 has a box that repeats along a, b, fr",
        ),
        (lambda all_images: all_images[70].positions.__setitem__((4, 1), np.nan), "frame 70: the position of atom 4"),
        (lambda all_images: all_images[70].set_chemical_symbols(ELEMENTS[::-1]), "frame 70"),
    ],
)
def test_frames_unlike_the_others_are_named(config, change, words):
    changed = images()
    change(changed[70:71] and changed)
    ase.io.write(config.parent / "run.extxyz", changed)
    with pytest.raises(InputError, match=words):
        prepared(config)
    assert not (config.parent / "store/catalog.json").exists()


def test_sources_of_unlike_boxes_are_refused(config):
    ase.io.write(config.parent / "slab.extxyz", images(pbc=(True, True, False)))
    tables = ('trajectory = "run.extxyz"\n', 'trajectory = "slab.extxyz"\n')
    with pytest.raises(InputError, match=r"run.extxyz has a box, .*slab.extxyz has a box that repeats along a, b"):
        prepared(write_config(config.parent, *tables))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('mtz = "*.mtz"\n', "`mtz` gives no positions"),
        ('trajectory = "run.extxyz"\nsystem = "s.xml"\n', "`system` has an effect with content = 'forces' only"),
    ],
)
def test_keys_without_effect_are_refused(tmp_path, table, words):
    with pytest.raises(InputError, match=words):
        load_config(write_config(tmp_path, table))


def test_pieces_of_a_simulation_need_neither_topology_nor_config(tmp_path):
    pytest.importorskip("openmm")
    from hpcfit.simulation.replica_run import simulate_replica
    from tests.simulation import simulations

    config = simulations.write_springs(tmp_path, 4, frames=3, interval=0.01, step=0.01, equilibration=0.0)
    (replica,) = simulations.replicas(config)
    simulate_replica(replica)
    store = prepared(write_config(tmp_path, 'trajectory = "trajectories/*"\n'))
    assert (store.n_frames, len(store.particles), len(store.particles.bonds)) == (3, 4, 0)
    with store.shard(0) as shard, h5py.File(next((tmp_path / "trajectories").glob("*/piece_00000.h5"))) as piece:
        np.testing.assert_array_equal(shard.read(0).positions, piece["particles/trajectory/position/value"][:])
        np.testing.assert_array_equal(shard.origin().time, piece["particles/trajectory/time"][:])
