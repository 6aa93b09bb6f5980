"""Forces from every format: one trajectory becomes the same store, and what is wrong with an input is named.

Not proved: that MDAnalysis and ASE read what GROMACS, AMBER or VASP write; the files are written by them.
"""

import re
import shutil

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.table import load_config
from hpcfit.prepare.command import run_prepare
from hpcfit.ranks import world_ranks
from hpcfit.readers.units import ENERGIES, LENGTHS
from hpcfit.store.forces import ForceShard, open_force_store
from hpcfit.store.positions import read_block
from hpcfit.store.shard import open_shard
from hpcfit.testsystems import water_dimer
from tests.prepare import force_inputs
from tests.prepare.force_inputs import BOHR, EV, HARTREE, WRITERS, N, T, table, truth, write_config


def prepared(config, *overrides):
    """The store that a config makes."""
    settings = load_config(config, overrides)
    run_prepare(settings, world_ranks())
    return open_force_store(settings.frames.store)


def everything(store):
    """All positions, forces and boxes."""
    blocks = [read_block(store, block) for block in store.blocks()]
    return [None if parts[0] is None else np.concatenate(parts) for parts in zip(*blocks)]


def write(folder, name, what=None):
    return WRITERS[name][0](folder / name, what or truth())


@pytest.mark.parametrize("name", list(WRITERS))
def test_every_format_gives_the_same_frames(tmp_path, name):
    write(tmp_path, name)
    store = prepared(write_config(tmp_path, table(name)))
    positions, forces, box = everything(store)
    expected = truth()
    # float32 holds 24 bits: positions below 16 A to 1e-6 A after up to three roundings (the file's, the unit's, the
    # store's), forces below 1024 kJ/mol/A to 1e-4; extxyz has 8 decimals, of 1/96 kJ/mol/A.
    np.testing.assert_allclose(positions, expected.positions, atol=3e-6, rtol=0)
    np.testing.assert_allclose(forces, expected.forces, atol=2e-4, rtol=0)
    # TRR and H5MD go through lengths and angles in float32.
    np.testing.assert_allclose(box, np.broadcast_to(expected.box, (T, 3, 3)), atol=3e-5)
    assert [shard.frames for shard in store.shards] == [64, T - 64]
    with open_shard(store.path(1), ForceShard) as shard:
        origin = shard.origin()
    assert origin.index.tolist() == list(range(64, T))
    assert set(origin.file) == {str(tmp_path / name)}
    if name not in ("run.extxyz", "deep"):  # which have no times
        np.testing.assert_allclose(origin.time, expected.time[64:], rtol=1e-6)


@pytest.mark.parametrize("name", list(WRITERS))
def test_particles_are_waters_whatever_the_format(tmp_path, name):
    write(tmp_path, name, truth(3))
    found = prepared(write_config(tmp_path, table(name))).particles
    assert found.elements == force_inputs.ELEMENTS
    assert found.residue.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert found.bonds.tolist() == [[0, 1], [0, 2], [3, 4], [3, 5], [6, 7], [6, 8]]
    assert found.constraints is None
    np.testing.assert_allclose(found.masses, [15.999, 1.008, 1.008] * 3, atol=1e-3)
    with_topology = name not in ("run.extxyz", "deep")
    assert found.residue_names == (("HOH",) * 3 if with_topology else ("H2O",) * 3)
    assert found.select("element O").tolist() == [0, 3, 6]


def test_units_are_those_of_codata():
    # scipy may be of CODATA 2018: the hartree and the bohr differ by 3e-10 from 2022.
    np.testing.assert_allclose(
        [ENERGIES["eV"], ENERGIES["hartree"], ENERGIES["kcal/mol"], LENGTHS["bohr"], LENGTHS["nm"]],
        [EV, HARTREE, 4.184, BOHR, 10.0],
        rtol=2e-9,
    )


def test_a_topology_names_the_atoms_of_formats_that_have_elements_only(tmp_path):
    for name in ("run.extxyz", "deep"):
        write(tmp_path, name, truth(3))
    stores = []
    for name in ("run.extxyz", "deep"):
        more = f'topology = "water.pdb"\nsystem = "{water_dimer.write_system(tmp_path / "s.xml", 3).name}"\n'
        stores.append(prepared(write_config(tmp_path, table(name, more)), f'frames.store="{name}_store"'))
        assert stores[-1].particles.residue_names == ("HOH",) * 3
        assert len(stores[-1].particles.constraints) == 9
    assert stores[0].particles.difference(stores[1].particles) == ""


def test_a_system_gives_constraints_and_masses(tmp_path):
    write(tmp_path, "run.npz", truth(3))
    water_dimer.write_system(tmp_path / "system.xml", 3)
    found = prepared(write_config(tmp_path, table("run.npz") + 'system = "system.xml"\n')).particles
    assert found.constraints.tolist() == [[3 * m + a, 3 * m + b] for m in range(3) for a, b in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_array_equal(found.masses, water_dimer.MASSES * 3)


@pytest.mark.parametrize(
    ("shape", "periodic"), [(None, False), ((3, 3), True), ((9,), True), ((5, 3), True), ((5, 9), True)]
)
def test_boxes_of_arrays_come_in_many_shapes(tmp_path, shape, periodic):
    what = truth(5)
    edges = np.array([12.0, 13.0, 14.0])
    box = np.diag(edges)
    arrays = {"positions": what.positions, "forces": what.forces}
    if shape is not None:
        each = {(5, 3): np.tile(edges, (5, 1)), (5, 9): np.tile(box.ravel(), (5, 1))}
        arrays["box"] = each.get(shape, box).reshape(shape)
    np.savez(tmp_path / "run.npz", **arrays)
    store = prepared(write_config(tmp_path, table("run.npz", force_inputs.UNITS.format("A", "kJ/mol"))))
    assert store.periodic == periodic
    _, _, found = everything(store)
    assert (found is None) if shape is None else np.array_equal(found, np.tile(box, (5, 1, 1)))


def test_start_stop_and_stride_choose_frames_of_any_reader(tmp_path):
    tables = []
    for name in WRITERS:
        write(tmp_path, name)
        tables.append(table(name, WRITERS[name][1] + "start = 30\nstop = 60\nstride = 7\n"))
    for name, one in zip(WRITERS, tables):
        store = prepared(write_config(tmp_path, one), f'frames.store="{name}_store"')
        positions, _, _ = everything(store)
        np.testing.assert_allclose(positions, truth().positions[30:60:7], atol=3e-6, rtol=0)
        with open_shard(store.path(0), ForceShard) as shard:
            assert shard.origin().index.tolist() == [30, 37, 44, 51, 58]


def changed(part, row, atom, value):
    """The trajectory with one number changed."""
    what = truth()
    values = getattr(what, part).copy()
    values[row, atom, 1] = value
    return what._replace(**{part: values})


@pytest.mark.parametrize("name", ["run.trr", "run.npz", "run.extxyz", "deep"])
@pytest.mark.parametrize(("part", "noun"), [("positions", "position"), ("forces", "force")])
@pytest.mark.parametrize("row", [0, 66])
def test_nan_names_file_frame_and_atom(tmp_path, name, part, noun, row):
    write(tmp_path, name, changed(part, row, 4, np.nan))
    with pytest.raises(InputError, match=rf"{name}, frame {row}: the {noun} of atom 4"):
        prepared(write_config(tmp_path, table(name)))
    assert not (tmp_path / "store/catalog.json").exists()


@pytest.mark.parametrize(
    ("units", "words"),
    [
        (("A", "kJ/mol"), r"of hydrogens to the nearest atom is 0\.1 A .*\n.*fit nm \(1 A\): correct length_unit"),
        (("kcal", "kJ/mol"), "must be 'A', 'nm' or 'bohr'"),
    ],
)
def test_wrong_units_are_guessed(tmp_path, units, words):
    write(tmp_path, "run.npz")
    more = force_inputs.UNITS.format(*units) + 'keys = { positions = "coords", forces = "Fs" }\n'
    with pytest.raises(InputError, match=words):
        prepared(write_config(tmp_path, table("run.npz", more)))


def test_nm_in_a_file_of_angstroms_are_wrong_units(tmp_path):
    what = truth()
    write(tmp_path, "run.extxyz", what._replace(positions=what.positions / 10, box=what.box / 10))
    with pytest.raises(InputError, match=r"run.extxyz, frame 0: wrong units\?.*\n.*the numbers fit nm"):
        prepared(write_config(tmp_path, table("run.extxyz")))


@pytest.mark.parametrize(("unit", "words"), [("A", r"is 1\.89 A .*\n.*bohr \(1 A\)"), ("bohr", r"is 0\.529 A")])
def test_bohr_and_angstroms_are_told_apart_by_hydrogens(tmp_path, unit, words):
    factor = 1 / BOHR if unit == "A" else 1.0
    what = truth()
    what = what._replace(positions=what.positions * factor, box=what.box * factor)
    np.savez(tmp_path / "run.npz", positions=what.positions, forces=what.forces)
    write(tmp_path, "run.trr", what)  # and the topology
    more = f'topology = "water.pdb"\nlength_unit = "{unit}"\nenergy_unit = "kJ/mol"\n'
    with pytest.raises(InputError, match=words):
        prepared(write_config(tmp_path, '[[prepare.source]]\narrays = "run.npz"\n' + more))


@pytest.mark.parametrize("element", ["Ar", "Na"])
def test_a_dilute_gas_is_none_of_wrong_units(tmp_path, caplog, element):
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write as write_images

    image = Atoms([element] * 3, [[0, 0, 0], [0, 0, 60], [45, 0, 20]], cell=[100.0] * 3, pbc=True)
    image.calc = SinglePointCalculator(image, forces=np.ones((3, 3)))
    write_images(tmp_path / "gas.extxyz", image)
    store = prepared(write_config(tmp_path, '[[prepare.source]]\ntrajectory = "gas.extxyz"\n'))
    assert store.n_frames == 1
    assert "gas.extxyz, frame 0: wrong units?" in caplog.text


def test_forces_that_are_all_zero(tmp_path):
    write(tmp_path, "run.trr", truth()._replace(forces=np.zeros((T, N, 3))))
    with pytest.raises(InputError, match=r"run.trr, frame 0: all forces are zero"):
        prepared(write_config(tmp_path, table("run.trr")))


def test_forces_that_are_missing(tmp_path):
    import ase.io

    images = ase.io.read(write(tmp_path, "run.extxyz"), index=":")
    images[50].calc = None
    ase.io.write(tmp_path / "run.extxyz", images)
    with pytest.raises(InputError, match=r"run.extxyz, frame 50: no forces"):
        prepared(write_config(tmp_path, table("run.extxyz")))
    (write(tmp_path, "deep") / "set.001/force.npy").unlink()
    with pytest.raises(InputError, match=r"set.001 has no forces"):
        prepared(write_config(tmp_path, table("deep")))
    np.savez(tmp_path / "run.npz", coords=truth().positions)
    with pytest.raises(InputError, match=r"run.npz has no array Fs; it has coords"):
        prepared(write_config(tmp_path, table("run.npz")))


def test_positions_without_forces_are_no_source(tmp_path):
    import MDAnalysis

    write(tmp_path, "run.trr")
    universe = MDAnalysis.Universe.empty(N, trajectory=True)
    universe.dimensions = force_inputs.CELL
    with MDAnalysis.Writer(str(tmp_path / "run.trr"), N) as writer:
        writer.write(universe.atoms)
    with pytest.raises(InputError, match=r"run.trr, frame 0: no forces"):
        prepared(write_config(tmp_path, table("run.trr")))


@pytest.mark.parametrize("name", ["run.trr", "run.npz", "run.h5", "deep/set.001/force.npy"])
def test_truncated_files_are_one_error(tmp_path, name):
    top = name.partition("/")[0]
    write(tmp_path, top)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: -len(path.read_bytes()) // 3])
    with pytest.raises(InputError, match=re.escape(path.name)):
        prepared(write_config(tmp_path, table(top)))


@pytest.mark.parametrize("name", ["run.trr", "run.npz", "run.extxyz", "deep"])
def test_another_number_of_atoms_than_the_topology(tmp_path, name):
    write(tmp_path, name)
    more = WRITERS[name][1].replace("water.pdb", "dimer.pdb") or 'topology = "dimer.pdb"\n'
    water_dimer.write_topology(tmp_path / "dimer.pdb", 2)
    with pytest.raises(InputError, match=r"9 atoms, .* 6"):
        prepared(write_config(tmp_path, table(name, more)))


def test_another_order_of_atoms_than_the_topology(tmp_path):
    folder = write(tmp_path, "deep")
    (folder / "type.raw").write_text("0 1 1 0 1 1 1 0 1")
    with pytest.raises(InputError, match=r"deep has H as atom 6, its topology has atom 6 \(O of HOH 3, chain A\), O"):
        prepared(write_config(tmp_path, table("deep", 'topology = "water.pdb"\n')))


@pytest.mark.parametrize(
    ("types", "known", "words"),
    [
        ("0 1 1 0 1 1 0 1", "O H", "have .40, 24."),
        ("0 1 1 0 1 1 0 1 2", "O H", "none of the 2 in type_map.raw"),
        ("0 1 1 0 1 1 0 1 -1", "O H", "1 of them negative"),
        ("0 1 1 0 1 1 0 1 1", "OW HW", "HW, OW is no element"),
    ],
)
def test_wrong_types_of_deepmd(tmp_path, types, known, words):
    folder = write(tmp_path, "deep")
    (folder / "type.raw").write_text(types)
    (folder / "type_map.raw").write_text(known)
    with pytest.raises(InputError, match=words):
        prepared(write_config(tmp_path, table("deep")))


def test_arrays_of_other_shapes(tmp_path):
    what = truth()
    for wrong, words in (
        ({"forces": what.forces[:-1]}, r"positions has shape \[70, 9, 3\], forces has \[69, 9, 3\]"),
        ({"positions": what.positions[0], "forces": what.forces[0]}, r"both \[frames, atoms, 3\]"),
        ({"box": np.ones((70, 6))}, r"box has shape \[70, 6\], which is no box of 70 frames"),
        ({"time": np.ones(69)}, r"time has shape \[69\], which is no time"),
    ):
        np.savez(tmp_path / "run.npz", **({"positions": what.positions, "forces": what.forces} | wrong))
        with pytest.raises(InputError, match=words):
            prepared(write_config(tmp_path, table("run.npz", force_inputs.UNITS.format("A", "kJ/mol"))))


def test_sources_of_one_system_share_a_store(tmp_path):
    tables = []
    for name in ("run.trr", "run.npz"):
        write(tmp_path, name)
        tables.append(table(name))
    store = prepared(write_config(tmp_path, *tables))
    assert [shard.first_id for shard in store.shards] == [0, 64, 70, 134]
    positions, _, _ = everything(store)
    np.testing.assert_allclose(positions[:T], positions[T:], atol=3e-6, rtol=0)


def test_sources_of_unlike_systems_are_refused(tmp_path):
    for name in ("run.trr", "run.npz"):
        write(tmp_path, name)
    shutil.copy(write_config(tmp_path).parent / "water.pdb", tmp_path / "other.pdb")
    text = (tmp_path / "other.pdb").read_text().replace(" HOH A   3", " WAT A   3")
    (tmp_path / "other.pdb").write_text(text)
    other = WRITERS["run.npz"][1].replace("water.pdb", "other.pdb")
    with pytest.raises(InputError, match=r"run.trr and .*run.npz differ in residue names \('HOH' and 'WAT' at 2\)"):
        prepared(write_config(tmp_path, table("run.trr"), table("run.npz", other)))
    what = truth()
    np.savez(tmp_path / "run.npz", coords=what.positions / 10, Fs=what.forces * 10)
    with pytest.raises(InputError, match=r"run.trr has a box, .*run.npz has no box"):
        prepared(write_config(tmp_path, table("run.trr"), table("run.npz")))


def test_a_system_of_other_particles(tmp_path):
    write(tmp_path, "run.trr")
    water_dimer.write_system(tmp_path / "system.xml", 2)
    with pytest.raises(InputError, match=r"water.pdb has 9 atoms, its System has 6 particles"):
        prepared(write_config(tmp_path, table("run.trr") + 'system = "system.xml"\n'))
    (tmp_path / "system.xml").write_text("<State/>")
    with pytest.raises(InputError, match=r"system.xml is not a System that OpenMM serialized: it holds <State>"):
        prepared(write_config(tmp_path, table("run.trr") + 'system = "system.xml"\n'))


@pytest.mark.parametrize(
    ("keys", "source", "words"),
    [
        ("d_min = 2.0\nsample = 3\n", table("run.trr"), "with content = 'forces' d_min, sample would have no effect"),
        ("positions = true\n", table("run.trr"), "positions would have no effect"),
        ("", '[[prepare.source]]\nmtz = "*.mtz"\n', "`mtz` gives no forces"),
        ("", '[[prepare.source]]\ndeepmd = "data"\ntime_unit = "fs"\n', "the times of deepmd are known"),
        ("", table("run.npz", 'topology = "water.pdb"\n'), "arrays say neither atoms nor units"),
        ("", table("run.trr") + 'keys = { box = "x" }\n', "keys of a trajectory are positions and forces"),
    ],
)
def test_keys_without_effect_are_refused(tmp_path, keys, source, words):
    with pytest.raises(InputError, match=words):
        load_config(write_config(tmp_path, source, keys=keys))


@pytest.mark.parametrize("key", ['length_unit = "nm"', 'energy_unit = "eV"', 'keys = { positions = "x" }'])
def test_a_format_that_says_its_units_and_columns_is_not_overruled(tmp_path, key):
    write(tmp_path, "run.trr")
    with pytest.raises(InputError, match=r"run.trr says its columns and units itself"):
        prepared(write_config(tmp_path, table("run.trr") + key + "\n"))


def test_forces_are_not_made_for_structure_factors(tmp_path):
    path = write_config(tmp_path, table("run.npz"))
    path.write_text(path.read_text().replace('content = "forces"\n', ""))
    with pytest.raises(InputError, match="`arrays` gives no structure factors"):
        load_config(path)


def test_a_real_rigid_water_dimer(tmp_path, shared_data):
    """50,000 frames of two TIP3P waters in nm and kJ/mol/nm; here the first 1000."""
    path = shared_data / "forcemap/dimer_rigid.npz"
    water_dimer.write_topology(tmp_path / "dimer.pdb")
    water_dimer.write_system(tmp_path / "system.xml")
    source = (
        f'[[prepare.source]]\narrays = "{path}"\nstop = 1000\ntopology = "dimer.pdb"\nsystem = "system.xml"\n'
        'length_unit = "nm"\nenergy_unit = "kJ/mol"\nkeys = { positions = "coords", forces = "Fs" }\n'
    )
    store = prepared(write_config(tmp_path, source))
    positions, forces, box = everything(store)
    archive = np.load(path)
    assert box is None
    # The numbers of the file, times a power of ten, rounded once.
    np.testing.assert_allclose(positions, 10 * archive["coords"][:1000].astype(float), rtol=2**-23)
    np.testing.assert_allclose(forces, archive["Fs"][:1000].astype(float) / 10, rtol=2**-23)
    held = np.linalg.norm(positions[:, 1] - positions[:, 0], axis=1)
    np.testing.assert_allclose(held, 0.9572, atol=1e-4)  # so the constraints are those of the file


def test_a_real_protein(tmp_path, shared_data):
    """Chignolin of 175 atoms; its elements and positions are enough to find all bonds of constrained hydrogens."""
    import h5py

    path = shared_data / "forcemap/cln025_implicit_1501.h5"
    with h5py.File(path) as file:
        elements, first = file["elements"].asstr()[:], 10 * file["coords"][0]
        constraints, forces = file["constraints"][:], file["forces"][:70] / 10
    lines = []
    for number, (element, place) in enumerate(zip(elements, first)):
        where = "".join(f"{x:8.3f}" for x in place)
        name = f"{element}{number}"
        lines.append(f"ATOM  {number + 1:5d} {name:<4} CLN A   1    {where}  1.00  0.00          {element:>2}")
    (tmp_path / "cln.pdb").write_text("\n".join([*lines, "END", ""]))
    source = (
        f'[[prepare.source]]\narrays = "{path}"\nstop = 70\ntopology = "cln.pdb"\n'
        'length_unit = "nm"\nenergy_unit = "kJ/mol"\nkeys = { positions = "coords" }\n'
    )
    store = prepared(write_config(tmp_path, source))
    np.testing.assert_allclose(everything(store)[1], forces, rtol=2**-23)
    bonds = set(map(tuple, store.particles.bonds.tolist()))
    assert {tuple(sorted(pair)) for pair in constraints.tolist()} <= bonds  # each H is held to the atom it is bonded to
    assert len(bonds) == 175 - 1 + 6  # a tree but for six rings: three tyrosines, a proline, and two in the tryptophan


def test_a_dump_of_lammps_in_the_units_that_its_source_says(tmp_path):
    """Atoms in another order in each frame; eV, which nothing in the file says."""
    what, lines, random = truth(3), [], np.random.default_rng(1)
    for number in range(3):
        lines += ["ITEM: TIMESTEP", str(number), "ITEM: NUMBER OF ATOMS", str(N), "ITEM: BOX BOUNDS xy xz yz pp pp pp"]
        box = np.broadcast_to(what.box, (3, 3, 3))[number]
        (lx, _, _), (xy, ly, _), (xz, yz, lz) = box.tolist()
        lines.append(f"{min(0, xy, xz, xy + xz)!r} {lx + max(0, xy, xz, xy + xz)!r} {xy!r}")
        lines += [f"{min(0, yz)!r} {ly + max(0, yz)!r} {xz!r}", f"0.0 {lz!r} {yz!r}"]
        lines.append("ITEM: ATOMS id element xu yu zu fx fy fz")
        for atom in random.permutation(N):
            numbers = (*what.positions[number, atom].tolist(), *(what.forces[number, atom] / EV).tolist())
            lines.append(" ".join([str(atom + 1), force_inputs.ELEMENTS[atom], *map(repr, numbers)]))
    (tmp_path / "run.lammpstrj").write_text("\n".join([*lines, ""]))
    source = '[[prepare.source]]\ntrajectory = "run.lammpstrj"\n'
    with pytest.raises(InputError, match=r"frame 0: no forces(.|\n)*energy_unit"):
        prepared(write_config(tmp_path, source))
    positions, forces, box = everything(prepared(write_config(tmp_path, source + 'energy_unit = "eV"\n')))
    np.testing.assert_allclose(positions, what.positions, atol=3e-6, rtol=0)
    np.testing.assert_allclose(forces, what.forces, atol=2e-4, rtol=0)
    np.testing.assert_allclose(box, np.broadcast_to(what.box, (3, 3, 3)), atol=3e-5)
