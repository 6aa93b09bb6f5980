"""`hpcfit prepare` of forces: the same bytes on ranks and on a cluster, restarts, and what `hpcfit store` says."""

import os
import shutil

import h5py
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.table import load_config
from hpcfit.prepare.command import run_prepare
from hpcfit.ranks import world_ranks
from hpcfit.store.files import sha256_of_file
from hpcfit.store.forces import open_force_store
from hpcfit.store.positions import read_block
from hpcfit.testsystems.water_dimer import write_topology
from tests.conftest import assert_one_clear_error
from tests.prepare.force_inputs import WRITERS, table, truth, write_config
from tests.store.test_forces import flip

CLUSTER = '[cluster]\nworkers = 2\ndashboard = "127.0.0.1:0"\n'


def checksums(store):
    """Of all files."""
    return {path.name: sha256_of_file(path) for path in store.iterdir()}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with three trajectories of 140 frames, each with its own forces; treat as read-only."""
    folder = tmp_path_factory.mktemp("inputs")
    for number, name in enumerate(("run.trr", "run.npz", "run.h5")):
        WRITERS[name][0](folder / name, truth(140, seed=number))
    write_config(folder, *map(table, ("run.trr", "run.npz", "run.h5")))
    return folder


@pytest.fixture
def config(inputs, tmp_path):
    """The config of a copy of the folder."""
    return shutil.copytree(inputs, tmp_path / "copy") / "config.toml"


@pytest.fixture(scope="module")
def expected(inputs, tmp_path_factory):
    """The checksums of the store that one process makes."""
    config = shutil.copytree(inputs, tmp_path_factory.mktemp("one") / "copy") / "config.toml"
    run_prepare(load_config(config, ["frames.store='store'"]), world_ranks())
    return checksums(config.parent / "store")


def frames(store):
    return [read_block(store, block) for block in store.blocks()]


@pytest.mark.mpi
def test_ranks_and_a_cluster_write_the_bytes_of_one_process(config, hpcfit):
    found, store = [], config.parent / "store"
    for below, ranks in (("", 1), ("", 2), (CLUSTER, 1)):
        config.write_text(config.read_text() + below)
        done = hpcfit("prepare", config, ranks=ranks, apart=bool(below))
        assert done.returncode == 0, done.stderr
        assert "420 frames of 3 sources x 9 particles" in done.stderr
        found.append(checksums(store))
        store.rename(config.parent / f"store_{len(found)}")
    assert len(found[0]) == 9 + 2  # three shards a source; catalog and particles
    assert found[0] == found[1] == found[2]


def test_what_is_missing_or_damaged_is_made_again(config, expected, caplog):
    settings, store = load_config(config), config.parent / "store"
    first = run_prepare(settings, world_ranks())
    assert (first.computed, first.kept, first.width) == (420, 0, 9)
    assert checksums(store).keys() == expected.keys()
    before = checksums(store)
    (store / "run.npz.0000064-0000128.h5").unlink()
    (store / "run.h5.0000000-0000064.h5").write_bytes(b"rubbish")
    with h5py.File(store / "run.trr.0000128-0000140.h5", "r+") as file:
        file["hpcfit/frame_id"][0] = 7
    (store / "catalog.json").unlink()
    again = run_prepare(settings, world_ranks())
    assert (again.computed, again.kept) == (64 + 64 + 12, 420 - 140)
    assert "run.trr.0000128-0000140.h5 is damaged: it differs from its checksum; it is made again" in caplog.text
    assert checksums(store) == before
    assert run_prepare(settings, world_ranks()).computed == 0


@pytest.mark.parametrize(
    ("override", "words"),
    [("prepare.shard_frames=128", "prepared with shard_frames = 64; the config has 128")],
)
def test_a_store_that_was_begun_with_other_settings(config, override, words):
    run_prepare(load_config(config), world_ranks())
    with pytest.raises(InputError, match=words):
        run_prepare(load_config(config, [override]), world_ranks())
    np.savez(config.parent / "run.npz", coords=truth(140).positions, Fs=truth(140).forces)
    with pytest.raises(InputError, match=r"wrong units\?"):
        run_prepare(load_config(config), world_ranks())
    WRITERS["run.npz"][0](config.parent / "run.npz", truth(140, seed=9))
    with pytest.raises(InputError, match=r"prepared with source run.npz = .*; the config has"):
        run_prepare(load_config(config), world_ranks())


def test_a_changed_topology_is_found(config):
    run_prepare(load_config(config), world_ranks())
    path = config.parent / "water.pdb"
    path.write_text(path.read_text().replace("HOH", "WAT"))
    with pytest.raises(InputError, match="prepared with topology = 9 particles, SHA-256"):
        run_prepare(load_config(config), world_ranks())


def test_info_and_verify_know_stores_of_forces(config, hpcfit):
    run_prepare(load_config(config), world_ranks())
    store = config.parent / "store"
    said = hpcfit("store", "info", store)
    assert said.returncode == 0, said.stderr
    for words in ("9 in 3 residues, 6 bonds, constraints unknown", "periodic", "420", "run.npz", "140 to 279"):
        assert words in said.stdout
    whole = hpcfit("store", "verify", store)
    assert whole.returncode == 0, whole.stderr
    assert "420 frames in 9 shards are as they were written" in whole.stderr
    flip(store / "run.npz.0000064-0000128.h5", "particles/trajectory/force/value", 3)
    damaged = hpcfit("store", "verify", store)
    assert damaged.returncode == 2
    assert "run.npz.0000064-0000128.h5 is damaged: forces of block 0, frames 204 to 267" in damaged.stderr


@pytest.mark.mpi
def test_wrong_inputs_are_one_clear_error_on_two_ranks(config, hpcfit):
    write_topology(config.parent / "water.pdb", 2)
    assert_one_clear_error(hpcfit("prepare", config, ranks=2), ["9 atoms", "6"])


def test_a_fit_of_structure_factors_refuses_the_store(config, hpcfit):
    run_prepare(load_config(config), world_ranks())
    text = config.read_text() + '[experiment]\nfile = "map.npz"\n[problem]\nkind = "frame-weights"\nlaue = "-1"\n'
    config.write_text(text)
    assert_one_clear_error(hpcfit("check", config), ["is a store of forces; this needs one of structure-factors"])


TIP4P = """
[[simulate.system]]
name = "water"
topology = "water.pdb"
force_field = ["tip4pew.xml"]
nonbonded = "NoCutoff"
"""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Two replicas of two rigid waters with a virtual site each, in vacuum: 70 frames with forces."""
    openmm = pytest.importorskip("openmm")
    from openmm import app, unit

    from hpcfit.simulation.replica_run import simulate_replica
    from tests.simulation import simulations

    folder = tmp_path_factory.mktemp("simulated")
    topology = app.Topology()
    chain = topology.addChain()
    places = []
    for number in range(2):
        residue = topology.addResidue("HOH", chain)
        atoms = [topology.addAtom(n, app.Element.getBySymbol(n[0]), residue) for n in ("O", "H1", "H2")]
        topology.addAtom("M", None, residue)
        topology.addBond(atoms[0], atoms[1])
        topology.addBond(atoms[0], atoms[2])
        shift = openmm.Vec3(0.3 * number, 0, 0)
        water = ([0, 0, 0], [0.09572, 0, 0], [-0.02400, 0.09266, 0], [0.009, 0.012, 0])
        places += [openmm.Vec3(*x) + shift for x in water]
    with open(folder / "water.pdb", "w") as file:
        app.PDBFile.writeFile(topology, places * unit.nanometer, file)
    keys = {"frames": 70, "piece": 40, "interval": 0.004, "equilibration": 0.1, "forces": True, "replicas": 2}
    config = simulations.write_config(folder, TIP4P, **keys)
    for replica in simulations.replicas(config):
        simulate_replica(replica)
    text = (
        '[frames]\nstore = "store"\n[prepare]\ncontent = "forces"\n[[prepare.source]]\ntrajectory = "trajectories/*"\n'
    )
    config.write_text(config.read_text() + text)
    return config


def test_pieces_of_a_simulation_need_no_topology_beside_its_config(simulated):
    done = run_prepare(load_config(simulated, ["frames.store='a'"]), world_ranks())
    store = open_force_store(simulated.parent / "a")
    found = store.particles
    assert (done.computed, len(store.shards), store.periodic) == (140, 2, False)
    # Two of four particles a molecule are H, and the virtual site is no particle of the store.
    assert found.names == ("O", "H1", "H2") * 2
    assert found.residue_names == ("HOH", "HOH")
    assert found.constraints.tolist() == [[3 * m + a, 3 * m + b] for m in range(2) for a, b in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(found.masses, [15.99943, 1.007947, 1.007947] * 2, rtol=1e-6)
    for positions, forces, box in frames(store):
        assert box is None
        held = np.linalg.norm(positions[:, [1, 2, 4, 5]] - positions[:, [0, 0, 3, 3]], axis=-1)
        np.testing.assert_allclose(held, 0.9572, atol=2e-5)
        # What pulls at the virtual sites is on their atoms: in vacuum nothing is left over. Single precision of
        # forces of some 100 kJ/mol/A, of 8 particles.
        assert np.abs(forces.astype(float).sum(axis=1)).max() < 8 * 100 * 2**-18
        assert np.abs(forces).max() > 5


def test_pieces_with_a_topology_of_their_own_are_the_same(simulated):
    import openmm

    from hpcfit.simulation.model import build_model

    config = load_config(simulated)
    model = build_model(config.simulate.system[0], 300.0, None)
    (simulated.parent / "system.xml").write_text(openmm.XmlSerializer.serialize(model.system))
    text = simulated.read_text()
    alone = simulated.parent / "alone.toml"
    alone.write_text(text[text.index("[frames]") :] + 'topology = "water.pdb"\nsystem = "system.xml"\n')
    run_prepare(load_config(alone, ["frames.store='b'"]), world_ranks())
    run_prepare(config, world_ranks())
    stores = [open_force_store(simulated.parent / name) for name in ("store", "b")]
    assert stores[0].digest() == stores[1].digest()


def test_pieces_without_any_topology_say_what_is_missing(simulated):
    text = simulated.read_text()
    alone = simulated.parent / "bare.toml"
    alone.write_text(text[text.index("[frames]") :])
    with pytest.raises(InputError, match=r"no \[\[simulate.system\]\] of the config has its settings"):
        run_prepare(load_config(alone, ["frames.store='c'"]), world_ranks())


def test_a_simulation_without_forces_is_no_source(tmp_path):
    pytest.importorskip("openmm")
    from hpcfit.simulation.replica_run import simulate_replica
    from tests.simulation import simulations

    config = simulations.write_springs(tmp_path, 4, frames=3, interval=0.01, step=0.01, equilibration=0.0)
    (replica,) = simulations.replicas(config)
    simulate_replica(replica)
    text = (
        '[frames]\nstore = "store"\n[prepare]\ncontent = "forces"\n[[prepare.source]]\ntrajectory = "trajectories/*"\n'
    )
    config.write_text(config.read_text() + text)
    with pytest.raises(InputError, match=r"frame 0: no forces\n.*\[simulate\] forces = true"):
        run_prepare(load_config(config), world_ranks())


def test_a_read_only_folder_is_one_error(config):
    if os.geteuid() == 0:
        (config.parent / "store").write_text("a file where the folder should be")
    else:
        config.parent.chmod(0o500)
    with pytest.raises(InputError, match="cannot write"):
        run_prepare(load_config(config), world_ranks())
