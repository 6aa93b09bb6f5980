"""Replicas: closed forms of a harmonic system, units, seeds, and a trajectory that nothing that happens to it changes.

Not proved: that OpenMM samples real systems well, nor anything on GPUs.
"""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from hpcfit.commands.simulate import _simulated
from hpcfit.config import ClusterConfig
from hpcfit.errors import InputError
from hpcfit.kinds.table import load_config
from hpcfit.physics.openmm_library import import_openmm
from hpcfit.simulation import platforms, replica_run
from hpcfit.simulation.dynamics import Dynamics
from hpcfit.simulation.model import build_model
from hpcfit.simulation.replica_run import simulate_replica
from hpcfit.store.piece import piece_file, read_header, read_piece, write_piece
from hpcfit.store.pieces import read_chain, read_settings
from tests.conftest import ROOT, assert_one_clear_error, wait_for
from tests.simulation import simulations
from tests.workflow import crew_tasks
from tests.workflow.held import held

openmm = pytest.importorskip("openmm")

BOLTZMANN = 8.314462618e-3  # kJ/mol/K


def pieces(replica):
    """All pieces of a replica, in order."""
    chain = read_chain(replica.folder, replica.settings.digest)
    return [read_piece(replica.folder / piece_file(header.number)) for header in chain.pieces]


def joined(replica, name):
    """One of the values of all frames."""
    return np.concatenate([piece.rows.values[name] for piece in pieces(replica)])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The dipeptide, 10 frames in pieces of 3, made without interruption: the replica that others are compared with."""
    (replica,) = simulations.replicas(simulations.write_dipeptide(tmp_path_factory.mktemp("undisturbed"), **TEN_FRAMES))
    simulate_replica(replica)
    return replica


TEN_FRAMES = {"frames": 10, "piece": 3, "forces": True, "energies": True}


def same_files(replica, other):
    """Whether all files of two replicas are equal to the byte."""
    first, second = simulations.files(replica.folder), simulations.files(other.folder)
    assert first.keys() == second.keys()
    return all(first[name] == second[name] for name in first)


def test_harmonic_atoms_have_the_closed_form(tmp_path):
    keys = {"frames": 100, "piece": 40, "interval": 0.4, "step": 0.01, "friction": 5.0, "equilibration": 4.0}
    (replica,) = simulations.replicas(simulations.write_springs(tmp_path, forces=True, energies=True, **keys))
    simulate_replica(replica)
    places = np.asarray(openmm.app.PDBFile(str(tmp_path / "springs.pdb")).getPositions(asNumpy=True)._value) * 10
    off = joined(replica, "positions").astype(float) - places
    forces, energies = joined(replica, "forces"), joined(replica, "potential_energy")
    # F = -k x and U = k/2 sum x^2, in kJ/mol and A; positions of up to 40 A are float32.
    spring = simulations.SPRING / 100
    rounding = 40 * 2**-23
    assert np.abs(forces + spring * off).max() < 4 * spring * rounding
    np.testing.assert_allclose(energies, spring / 2 * (off**2).sum(axis=(1, 2)), rtol=1e-4)
    # <x^2> = kT/k, of 60,000 coordinates. Frames 0.4 ps apart are correlated by exp(-5/2 0.4) cos(...) < 0.2 in x, so
    # by less than 0.04 in x^2; the splitting of this integrator samples a harmonic well without error of the step.
    expected = BOLTZMANN * 300 / spring
    error = expected * np.sqrt(2 / off.size * 1.08)
    assert abs((off**2).mean() - expected) < 4 * error
    assert np.abs(joined(replica, "box") - np.diag(3 * [simulations.EDGE])).max() < 1e-5


def test_forces_are_the_gradient_of_the_energy(undisturbed):
    last = pieces(undisturbed)[-1]
    x = last.rows.values["positions"][-1].astype(float) / 10
    model = build_model(undisturbed.system, 300.0, None)
    context = openmm.Context(
        model.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )

    def energy(positions):
        context.setPositions(positions)
        return context.getState(energy=True).getPotentialEnergy()._value

    # Central differences in double precision: the error of second order, 1e-10 nm^2 f''/6, is below 1e-3.
    step, found = 1e-5, np.empty_like(x)
    for atom, axis in np.ndindex(*x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[atom, axis] += sign * step
            ends.append(energy(moved))
        found[atom, axis] = -(ends[0] - ends[1]) / (2 * step) / 10
    # Stored positions (up to 30 A) are rounded to 1e-6 A; bonds have up to 5e3 kJ/mol/A^2. The CPU platform sums the
    # non-bonded forces in single precision: 1e-5 of what they are made of, some 1e3 kJ/mol/A.
    assert np.abs(last.rows.values["forces"][-1] - found).max() < 0.03
    assert abs(last.rows.values["potential_energy"][-1] - energy(x)) < 0.05
    assert np.abs(found).max() > 100  # so the bound above says something


def test_every_frame_is_there_once_at_its_step(undisturbed):
    found = pieces(undisturbed)
    assert [len(piece.rows.step) for piece in found] == [3, 3, 3, 1]
    steps = np.concatenate([piece.rows.step for piece in found])
    assert np.array_equal(steps, 10 * np.arange(1, 11))
    np.testing.assert_allclose(np.concatenate([piece.rows.time for piece in found]), 0.02 * np.arange(1, 11))
    assert found[0].made_by["platform"] == "CPU"
    assert "".join(openmm.app.Element.getByAtomicNumber(int(z)).symbol for z in found[0].species[:6]) == "CCOHHH"


def test_replicas_temperatures_and_seeds_have_random_numbers_of_their_own(tmp_path):
    config = simulations.write_dipeptide(tmp_path, replicas=2, temperatures=[300, 350.5], frames=1, equilibration=0.02)
    found = simulations.replicas(config)
    assert [replica.name for replica in found] == [
        "amber14_300K_r00", "amber14_300K_r01", "amber14_350.5K_r00", "amber14_350.5K_r01",
    ]  # fmt: skip
    found += simulations.replicas(config, "simulate.seed=1", f"simulate.directory='{tmp_path / 'seed1'}'")[:1]
    for replica in found:
        simulate_replica(replica)
    frames = [joined(replica, "positions") for replica in found]
    assert all(not np.array_equal(a, b) for n, a in enumerate(frames) for b in frames[:n])
    seeds = {
        r.seed(purpose, piece) for r in found for purpose in ("integrator", "velocities") for piece in range(-1, 50)
    }
    assert len(seeds) == len(found) * 2 * 51
    assert min(seeds) > 0
    assert max(seeds) < 2**31


def test_the_same_replica_made_again_has_the_same_bytes(undisturbed, tmp_path):
    (replica,) = simulations.replicas(simulations.write_dipeptide(tmp_path, **TEN_FRAMES))
    simulate_replica(replica)
    assert same_files(replica, undisturbed)


@pytest.fixture
def thirty_frames(tmp_path):
    """The config of two replicas, what they give in peace, and a gate at which others may be made to wait."""
    config = simulations.write_dipeptide(tmp_path, replicas=2, frames=30, piece=3)
    expected = simulations.replicas(config, f"simulate.directory='{tmp_path / 'undisturbed'}'")
    for replica in expected:
        simulate_replica(replica)
    return config, expected, crew_tasks.Gate(tmp_path / "gate")


@pytest.mark.programs
def test_a_killed_run_goes_on_as_if_nothing_had_happened(thirty_frames, hpcfit):
    config, expected, gate = thirty_frames
    found = simulations.replicas(config)
    command = held("held_after_two_pieces", gate, "simulate", config)
    running = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
    wait_for((found[0].folder / piece_file(1)).exists)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    (found[0].folder / f".piece_00002.h5.{socket.gethostname()}.{running.pid}.01234567.tmp").write_bytes(b"half")
    done = hpcfit("simulate", config, apart=True)
    assert done.returncode == 0, done.stderr
    assert "ns/day" in done.stderr
    assert all(map(same_files, found, expected))


@pytest.mark.programs
def test_a_killed_worker_costs_no_frame(thirty_frames, caplog):
    from hpcfit.workflow.cluster.opening import open_cluster

    config, expected, gate = thirty_frames
    found = simulations.replicas(config)
    work = partial(crew_tasks.held_after_two_pieces, gate, simulate_replica)

    def kill_one():
        os.kill(wait_for(gate.waiting)[0], signal.SIGKILL)
        gate.open()

    with open_cluster(ClusterConfig(workers=2, dashboard="127.0.0.1:0"), "simulate") as crew:
        killer = threading.Thread(target=kill_one)
        killer.start()
        done = crew.map(work, found, names=[replica.name for replica in found])
        killer.join()
    assert "lost its worker" in caplog.text
    assert [simulated.frames for simulated in done] == [30, 30]
    assert all(map(same_files, found, expected))


def test_more_frames_go_on_and_leave_the_old_pieces_alone(undisturbed, tmp_path):
    config = simulations.write_dipeptide(tmp_path, **{**TEN_FRAMES, "frames": 6})
    (replica,) = simulations.replicas(config)
    simulate_replica(replica)
    before = {path.name: path.stat().st_mtime_ns for path in replica.folder.glob("*.h5")}
    (longer,) = simulations.replicas(config, "simulate.frames=10", "simulate.platform=auto", "simulate.threads=1")
    simulate_replica(longer)
    assert {name: (longer.folder / name).stat().st_mtime_ns for name in before} == before
    assert read_settings(longer.folder).frames == 10
    assert same_files(longer, undisturbed)


@pytest.mark.parametrize("damaged", [1, 3])
def test_a_damaged_piece_is_made_again(undisturbed, tmp_path, damaged):
    (replica,) = simulations.replicas(simulations.write_dipeptide(tmp_path, **TEN_FRAMES))
    simulate_replica(replica)
    path = replica.folder / piece_file(damaged)
    if damaged == 3:
        content = bytearray(path.read_bytes())
        content[content.index(pieces(replica)[3].rows.values["positions"].tobytes()[:12])] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(path.read_bytes()[:-500])
    simulate_replica(replica)
    assert same_files(replica, undisturbed)


def test_what_another_attempt_wrote_is_gone_on_from(tmp_path):
    """A worker that was given up for lost may live and be on another platform: its pieces differ in the last bits."""
    config = simulations.write_dipeptide(tmp_path, frames=4, piece=2)
    (replica,) = simulations.replicas(config)
    (lost,) = simulations.replicas(config, "simulate.platform=Reference")
    mine, theirs = Dynamics(replica), Dynamics(lost)
    start = mine.start()
    write_piece(replica.folder, start)
    first = theirs.piece(start.tail, 2, lambda frame: None)
    assert first.header != mine.piece(start.tail, 2, lambda frame: None).header
    write_piece(replica.folder, first)
    simulate_replica(replica)
    headers = [read_header(replica.folder / piece_file(number)) for number in (0, 1)]
    assert headers[0] == first.header
    assert headers[1].follows == first.header.checksum
    # Theirs comes while mine is being made: it is not written over, and the next piece follows it.
    kept = replica_run._kept(replica.folder, mine.piece(start.tail, 2, lambda frame: None))
    assert kept.header == first.header


def test_a_piece_that_comes_just_before_ours_is_not_written_over(tmp_path, monkeypatch):
    config = simulations.write_dipeptide(tmp_path, frames=2, piece=2)
    (replica,) = simulations.replicas(config)
    (lost,) = simulations.replicas(config, "simulate.platform=Reference")
    start = Dynamics(replica).start()
    mine, theirs = (Dynamics(r).piece(start.tail, 2, lambda frame: None) for r in (replica, lost))
    add = replica_run.add_piece

    def add_second(folder, piece):
        write_piece(folder, theirs)
        add(folder, piece)

    monkeypatch.setattr(replica_run, "add_piece", add_second)
    assert replica_run._kept(replica.folder, mine).header == theirs.header != mine.header
    assert read_header(replica.folder / piece_file(0)) == theirs.header


def test_a_replica_is_complete_only_if_its_pieces_follow_each_other_at_the_end(tmp_path, caplog):
    """As if, after a task has ended, an attempt that was given up for lost wrote one of its pieces again."""
    (replica,) = simulations.replicas(simulations.write_dipeptide(tmp_path, frames=4, piece=2))
    simulate_replica(replica)
    first = pieces(replica)[0]

    class Late:
        def completed(self, work, items, **options):
            result = work(items[0])
            write_piece(replica.folder, dataclasses.replace(first, state=first.state + " "))
            yield 0, result

    with pytest.raises(InputError, match=r"4 frames and holds 2 .*piece_00001.h5 does not continue piece_00000.h5"):
        _simulated(Late(), [replica])
    assert "ns/day of all" not in caplog.text


def test_other_settings_are_one_error_before_anything_starts(hpcfit, tmp_path):
    config = simulations.write_dipeptide(tmp_path, frames=1)
    (replica,) = simulations.replicas(config)
    (replica.folder / "start.h5").touch()
    done = hpcfit("simulate", config, "--set", "simulate.friction=2.5")
    assert_one_clear_error(done, ["amber14_300K_r00", "friction = 1.0", "2.5", "[simulate] directory"])
    assert "cluster" not in done.stderr
    (tmp_path / "dipeptide.pdb").write_text((tmp_path / "dipeptide.pdb").read_text() + "REMARK\n")
    with pytest.raises(InputError, match=r"topology = .SHA-256"):
        simulations.replicas(config)


def test_a_finished_simulation_starts_no_cluster(undisturbed, hpcfit):
    done = hpcfit("simulate", undisturbed.folder.parent.parent / "config.toml")
    assert done.returncode == 0, done.stderr
    assert "1 replicas of 10 frames each, 1 complete" in done.stderr
    assert "cluster" not in done.stderr


def test_atoms_that_fly_off_cost_no_frame(tmp_path, monkeypatch):
    config = simulations.write_dipeptide(tmp_path, frames=4, piece=1)
    (replica,) = simulations.replicas(config, "simulate.frames=1")
    simulate_replica(replica)
    (longer,) = simulations.replicas(config)
    before = simulations.files(replica.folder)
    monkeypatch.setattr(replica_run, "Dynamics", lambda replica: heated(Dynamics(replica)))
    with pytest.raises(InputError, match=r"amber14_300K_r00, in the 0\.02 ps before 0\.04 ps: .*(NaN|atom \d+ is at)"):
        simulate_replica(longer)
    assert simulations.files(replica.folder) == before
    monkeypatch.undo()
    simulate_replica(longer)
    assert len(pieces(longer)) == 4


@pytest.mark.programs
def test_a_replica_that_explodes_leaves_the_others_running(hpcfit, tmp_path):
    config = simulations.write_dipeptide(tmp_path, temperatures=[300, 1e9], frames=4)
    done = hpcfit("simulate", config, apart=True)
    assert_one_clear_error(
        done, ["1 of 2 replicas were stopped", "1e+09K_r00, in the equil", "shorten [simulate] step"]
    )
    cold, _ = simulations.replicas(config)
    assert replica_run.is_finished(cold)


def heated(dynamics):
    """The same dynamics where the next step throws all atoms out of float32."""
    force = openmm.CustomExternalForce("-1e9*x")
    for atom in range(len(dynamics._model.species)):
        force.addParticle(atom)
    dynamics._model.system.addForce(force)
    return dynamics


def test_a_state_gives_positions_velocities_and_box(tmp_path):
    """Atoms without forces move by v t: x(t) = x(0) + v t, as long as the friction is next to nothing."""
    config = simulations.write_springs(tmp_path, atoms=3, interval=0.01, friction=1e-9, equilibration=0.0, frames=1,
                                       minimize=False, temperatures=[1e-9])  # fmt: skip
    system = openmm.System()
    for _ in range(3):
        system.addParticle(39.948)
    (tmp_path / "springs.xml").write_text(openmm.XmlSerializer.serialize(system))
    x, v = np.arange(9.0).reshape(3, 3), np.linspace(-1, 1, 9).reshape(3, 3)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(x)
    context.setVelocities(v)
    (tmp_path / "state.xml").write_text(
        openmm.XmlSerializer.serialize(context.getState(positions=True, velocities=True))
    )
    config.write_text(config.read_text() + 'state = "state.xml"\n')
    (replica,) = simulations.replicas(config)
    simulate_replica(replica)
    np.testing.assert_allclose(joined(replica, "positions")[0], 10 * (x + 0.01 * v), atol=1e-4)
    assert "box" not in pieces(replica)[0].rows.values


def test_a_state_gives_its_parameters_but_no_temperature(tmp_path):
    """A force that pushes as strong as the State says; the State also comes from a barostat of its own."""
    config = simulations.write_springs(tmp_path, atoms=3, frames=1, forces=True, equilibration=0.0, minimize=False,
                                       temperatures=[310.0])  # fmt: skip
    system = openmm.XmlSerializer.deserialize((tmp_path / "springs.xml").read_text())
    push = openmm.CustomExternalForce("-push*x")
    push.addGlobalParameter("push", 0.0)
    for atom in range(3):
        push.addParticle(atom)
    for force in (push, openmm.AndersenThermostat(300.0, 1e-9)):
        system.addForce(force)
    (tmp_path / "springs.xml").write_text(openmm.XmlSerializer.serialize(system))
    system.addForce(openmm.MonteCarloBarostat(1.0, 300.0))
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(openmm.app.PDBFile(str(tmp_path / "springs.pdb")).positions)
    context.setParameter("push", 50.0)
    state = context.getState(positions=True, parameters=True)
    (tmp_path / "state.xml").write_text(openmm.XmlSerializer.serialize(state))
    config.write_text(config.read_text() + 'state = "state.xml"\n')
    (replica,) = simulations.replicas(config)
    start = openmm.XmlSerializer.deserialize(Dynamics(replica).start().state)
    assert dict(start.getParameters()) == {
        "push": 50.0, "AndersenTemperature": 310.0, "AndersenCollisionFrequency": 1e-9,
    }  # fmt: skip


@pytest.mark.parametrize("own", [False, True])
def test_pieces_too_short_for_a_barostat_are_refused(tmp_path, own):
    config = simulations.write_springs(tmp_path, piece=49, interval=0.02, **({} if own else {"pressure": 1.0}))
    if own:
        system = openmm.XmlSerializer.deserialize((tmp_path / "springs.xml").read_text())
        system.addForce(openmm.MonteCarloAnisotropicBarostat([1.0, 1.0, 1.0], 300.0))
        (tmp_path / "springs.xml").write_text(openmm.XmlSerializer.serialize(system))
    (replica,) = simulations.replicas(config)
    said = r"piece = 49, interval = 0\.02 ps .* 490 steps; MonteCarlo\w*Barostat .* every 25 .* 500 .*\n.*piece = 50 "
    with pytest.raises(InputError, match=said):
        Dynamics(replica)
    (enough,) = simulations.replicas(config, "simulate.piece=50")
    Dynamics(enough)


def test_pressure_and_temperature_reach_the_barostat(tmp_path):
    config = simulations.write_springs(tmp_path, pressure=2.5, temperatures=[310.0])
    (replica,) = simulations.replicas(config)
    [barostat] = barostats(build_model(replica.system, 310.0, 2.5))
    assert barostat.getDefaultPressure()._value == 2.5
    assert barostat.getDefaultTemperature()._value == 310
    own = openmm.XmlSerializer.deserialize((tmp_path / "springs.xml").read_text())
    own.addForce(openmm.MonteCarloBarostat(1.0, 300.0))
    (tmp_path / "springs.xml").write_text(openmm.XmlSerializer.serialize(own))
    [barostat] = barostats(build_model(replica.system, 310.0, None))
    assert barostat.getDefaultTemperature()._value == 310
    with pytest.raises(InputError, match="has a barostat of its own"):
        build_model(replica.system, 310.0, 2.5)


def barostats(model):
    return [force for force in model.system.getForces() if isinstance(force, openmm.MonteCarloBarostat)]


def test_a_box_that_breathes_goes_on_bit_for_bit(tmp_path):
    # At 2000 bar springs and atoms are pressed: a box of 200 atoms shrinks by per cents within some attempts.
    keys = {"pressure": 2000.0, "interval": 0.5, "equilibration": 0.0, "frames": 6}
    boxes = []
    for piece, frames in ((2, (2, 6)), (2, (6,))):
        folder = tmp_path / f"{len(frames)}"
        folder.mkdir()
        config = simulations.write_springs(folder, piece=piece, **keys)
        for count in frames:
            (replica,) = simulations.replicas(config, f"simulate.frames={count}")
            simulate_replica(replica)
        boxes.append(joined(replica, "box"))
    assert np.array_equal(*boxes)
    assert len(np.unique(boxes[0][:, 0, 0])) > 3
    assert boxes[0][-1, 0, 0] < simulations.EDGE


def test_virtual_sites_are_moved_and_not_written(tmp_path):
    """Four-point water: the charge beside the oxygen has no element, scatters nothing, and stays in the State only."""
    water = simulations.DIPEPTIDE.replace("dipeptide.pdb", "water.pdb").replace("amber14/protein.ff14SB", "tip4pew")
    config = simulations.write_config(tmp_path, water, frames=2, interval=0.02, equilibration=0.0)
    atoms = [("O", 0, 0, 0), ("H1", 0.957, 0, 0), ("H2", -0.24, 0.927, 0), ("M", 0.08, 0.1, 0)]
    lines = [f"HETATM{n:5d}  {name:3s} HOH A   1    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00"
             for n, (name, x, y, z) in enumerate(atoms, start=1)]  # fmt: skip
    (tmp_path / "water.pdb").write_text("\n".join([*lines, "END", ""]))
    (replica,) = simulations.replicas(config)
    simulate_replica(replica)
    assert joined(replica, "positions").shape == (2, 3, 3)
    assert pieces(replica)[0].species.tolist() == [8, 1, 1]
    assert pieces(replica)[0].state.count("<Position ") == 4


def test_openmm_missing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "openmm", None)
    with pytest.raises(InputError, match=r"needs OpenMM, which cannot be imported.*\n.*hpcfit\[simulate\]"):
        import_openmm()


def test_platforms():
    assert platforms.choose_platform("auto", 1) == platforms.choose_platform("CPU", 1)
    assert platforms.choose_platform("CPU", 2).properties == {"Threads": "2", "DeterministicForces": "true"}
    with pytest.raises(InputError, match=r"platform = 'HIP' does not work here: .*\n.*CPU, Reference"):
        platforms.choose_platform("HIP", 1)


def test_each_worker_of_a_node_has_a_device_of_its_own(monkeypatch):
    devices = [{"DeviceIndex": "0"}, {"DeviceIndex": "1"}]
    assert [platforms._own_device(devices, place)["DeviceIndex"] for place in range(4)] == ["0", "1", "0", "1"]
    assert platforms._own_device(devices[:1], 3) == {}
    for name, place in ((1, 1), ("SLURMCluster-0-3", 3), ("tcp://host", 0)):
        monkeypatch.setattr("distributed.get_worker", lambda name=name: SimpleNamespace(name=name))
        assert platforms.place_on_node() == place
    # Under srun Slurm counts; but all workers of a local cluster in a step of one task are its task 0.
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(name=1))
    monkeypatch.setenv("SLURM_LOCALID", "2")
    for tasks, place in (("4", 2), ("1", 1)):
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks)
        assert platforms.place_on_node() == place


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"topology": "none.pdb"}, r"none\.pdb does not exist\n.*topology"),
        ({"topology": "config.toml"}, r"config\.toml cannot be read as a structure"),
        ({"system": "springs.pdb"}, r"springs\.pdb cannot be read as an XML file of OpenMM"),
        (
            {"state": "springs.xml"},
            r"springs\.xml cannot be read as an XML file of OpenMM: it holds a System, not a State",
        ),
        ({"state": "empty.xml"}, r"empty\.xml gives no positions"),
        ({"topology": "two.pdb"}, r"two\.pdb has 2 atoms, system 'springs' has 3 particles"),
        (
            {"system": None, "force_field": ["none.xml"]},
            r"cannot be built of .*springs\.pdb and none\.xml: .*none\.xml",
        ),
        ({"system": None, "force_field": ["amber14/protein.ff14SB.xml"]}, r"No template found for residue"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, change, words):
    simulations.write_springs(tmp_path, atoms=2)
    (tmp_path / "springs.pdb").rename(tmp_path / "two.pdb")
    simulations.write_springs(tmp_path, atoms=3)
    system = openmm.System()
    system.addParticle(1.0)
    empty = openmm.Context(system, openmm.VerletIntegrator(0.001)).getState()
    (tmp_path / "empty.xml").write_text(openmm.XmlSerializer.serialize(empty))
    keys = {"topology": "springs.pdb", "system": "springs.xml", **change}
    lines = [f"{key} = {value!r}" for key, value in keys.items() if value is not None]
    config = simulations.write_config(tmp_path, "\n".join(['[[simulate.system]]\nname = "springs"', *lines]))
    with pytest.raises(InputError, match=words):
        [simulate_replica(replica) for replica in simulations.replicas(config)]


@pytest.mark.parametrize(
    ("system", "keys", "words"),
    [
        ("", {"interval": 0.003}, "interval = 0.003 ps is no whole number of steps of 0.002 ps"),
        ("", {"temperatures": [300, 300.0]}, "names one twice"),
        ("", {"platform": "CUDA", "threads": 4}, "threads = 4 would have no effect on platform = 'CUDA'"),
        ("cutoff = 9.0", {}, "with nonbonded = 'NoCutoff' `cutoff` would have no effect"),
        ('system = "x.xml"', {}, "either `force_field`"),
        (simulations.DIPEPTIDE, {}, "'amber14' is given twice"),
    ],
)
def test_options_without_effect_and_doubles_are_refused(tmp_path, system, keys, words):
    config = simulations.write_config(tmp_path, simulations.DIPEPTIDE + system, **keys)
    with pytest.raises(InputError) as caught:
        load_config(config)
    assert words in str(caught.value)
