"""`hpcfit export`: what a run found is read back by hpcfit's own readers, by gemmi and MDAnalysis, and by layout."""

import warnings

import gemmi
import h5py
import MDAnalysis
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hpcfit.commands.export import run_export
from hpcfit.config import ExperimentConfig
from hpcfit.errors import InputError
from hpcfit.kinds.frame_weights.ensemble import systematic, weighted_frames
from hpcfit.kinds.frame_weights.export import WORDS
from hpcfit.kinds.frame_weights.files import AVERAGES_WEIGHT_COLUMNS
from hpcfit.kinds.frame_weights.fluctuations import fluctuations
from hpcfit.physics.reciprocal import laue_operations, laue_orbits
from hpcfit.physics.superposition import superposed
from hpcfit.readers import gromacs_files
from hpcfit.readers.maps import read_map
from hpcfit.readers.trajectory import open_trajectory
from hpcfit.runs.files import RunFiles
from hpcfit.store.catalog import write_catalog
from hpcfit.store.files import read_csv, write_csv
from hpcfit.store.frame import NOT_PERIODIC, PERIODIC
from hpcfit.store.particles import Particles
from hpcfit.store.positions import PositionContent, PositionFrames, write_frames
from hpcfit.store.shard import Origin, ShardPlan
from tests.command import sets
from tests.kinds.frame_weights.run_directories import make_run, make_unfinished

CELL, NDIV = (20.0, 20.0, 33.0, 90.0, 90.0, 90.0), (2, 2, 1)
FLOAT32 = 2.0**-24  # relative: half a unit in the last place


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a run on half-integer indices, of Laue class 4/m, and its orbits with errors."""
    folder = tmp_path_factory.mktemp("run") / "fitted"
    orbits = make_run(folder, laue="4/m", ndiv=NDIV, cell=CELL, d_min=5.0)["orbits"]
    orbits["sigma"] = np.linspace(1, 2, len(orbits["hkl"]))
    with h5py.File(folder / "map.h5", "a") as file:
        file["sigma"] = orbits["sigma"]
    return folder, orbits


def by_orbit(hkl, values, orbits):
    """The value of each of some voxels in a map of orbits, found by the orbits that both together form."""
    number, _ = laue_orbits(np.concatenate([orbits["hkl"], hkl]), laue_operations("4/m"), NDIV)
    of_orbit = np.full(number.max() + 1, np.nan)
    of_orbit[number[: len(orbits["hkl"])]] = values
    return of_orbit[number[len(orbits["hkl"]) :]]


def regressed(orbits):
    """Observed minus a fit of scale and offset by weighted least squares, in another way than hpcfit's."""
    root = np.sqrt(orbits["multiplicity"])
    design = np.stack([orbits["calculated"], np.ones(len(root))], axis=1)
    found = np.linalg.lstsq(design * root[:, None], orbits["observed"] * root, rcond=None)[0]
    return orbits["observed"] - design @ found


@pytest.mark.parametrize("which", WORDS)
@pytest.mark.parametrize("suffix", [".mtz", ".nxs", ".h5", ".lat"])
def test_every_voxel_of_an_orbit_is_read_back_with_its_value(run, tmp_path, suffix, which):
    folder, orbits = run
    run_export(folder, tmp_path / f"map{suffix}", which=which)
    given = {"ndiv": NDIV} if suffix in (".mtz", ".lat") else {}
    found = read_map(ExperimentConfig(file=tmp_path / f"map{suffix}", **given))
    expected = regressed(orbits) if which == "difference" else orbits[which]
    wanted = by_orbit(found.hkl, expected, orbits)
    # All of the orbits' voxels, of MTZ one of each Friedel pair.
    assert len(found) == orbits["multiplicity"].sum() // (2 if suffix == ".mtz" else 1)
    assert len(np.unique(found.hkl, axis=0)) == len(found)
    precision = FLOAT32 if suffix in (".mtz", ".lat") else 0.0
    size = np.abs(orbits["observed"]).max()
    np.testing.assert_allclose(found.intensity, wanted, rtol=precision, atol=1e-12 * size)
    np.testing.assert_allclose(found.cell, CELL, rtol=2 * FLOAT32)
    assert found.ndiv == NDIV
    if which in ("observed", "difference") and suffix != ".lat":
        np.testing.assert_allclose(found.sigma, by_orbit(found.hkl, orbits["sigma"], orbits), rtol=precision)
    else:
        assert found.sigma is None


def test_gemmi_reads_the_mtz_of_the_supercell(run, tmp_path):
    folder, orbits = run
    run_export(folder, tmp_path / "map.mtz", which="observed")
    mtz = gemmi.read_mtz_file(str(tmp_path / "map.mtz"))
    assert [(one.label, one.type) for one in mtz.columns] == [
        ("H", "H"), ("K", "H"), ("L", "H"), ("Idiff", "J"), ("SIGIdiff", "Q"),
    ]  # fmt: skip
    assert (mtz.spacegroup.hm, mtz.cell.parameters) == ("P 1", (40.0, 40.0, 33.0, 90.0, 90.0, 90.0))
    assert any("2 2 1 times the Miller indices" in line for line in mtz.history)
    assert any("Laue class 4/m" in line for line in mtz.history)
    rows = np.array(mtz, copy=False)
    expected = by_orbit(rows[:, :3].astype(int), orbits["observed"], orbits)
    np.testing.assert_allclose(rows[:, 3], expected, rtol=FLOAT32)
    # d of an index in the supercell's cell is that of the fractional index in the unit cell.
    np.testing.assert_allclose(mtz.make_d_array().min(), 1 / orbits["inverse_d"].max(), rtol=1e-6)


def test_the_table_of_mdx2_has_fractional_indices_and_nothing_but_columns(run, tmp_path):
    run_export(run[0], tmp_path / "map.nxs", which="observed")
    with h5py.File(tmp_path / "map.nxs") as file:
        table = file["entry/hkl_table"]
        assert dict(table.attrs) == {"NX_class": "NXgroup", "mdx2_module": "mdx2.data", "mdx2_class": "HKLTable"}
        # HKLTable.from_nexus takes h, k, l, ndiv and all else as columns of one length.
        assert set(table) == {"h", "k", "l", "ndiv", "intensity", "intensity_error"}
        assert len({table[name].shape for name in set(table) - {"ndiv"}}) == 1
        whole = table["h"][:] * table["ndiv"][0]
        assert np.array_equal(whole, np.rint(whole))
        assert np.any(table["h"][:] % 1)


def test_the_lattice_is_laid_out_as_lunus_reads_it(run, tmp_path):
    """h = i - int(-lo / step + 0.5), step = (hi - lo) / (n - 1) in float32, x fastest, -32768 for what is missing."""
    folder, orbits = run
    run_export(folder, tmp_path / "map.lat", which="observed")
    raw = (tmp_path / "map.lat").read_bytes()
    nx, ny, nz = np.frombuffer(raw, "<u4", 3)
    low, high = np.frombuffer(raw, "<f4", 6, 12).reshape(3, 2).T
    step = (high - low) / (np.array([nx, ny, nz], np.float32) - 1)
    values = np.frombuffer(raw, "<f4", -1, 36)
    assert len(values) == nx * ny * nz
    np.testing.assert_allclose(step, [1 / 40, 1 / 40, 1 / 33], rtol=1e-6)
    origin = (-low / step + np.float32(0.5)).astype(int)
    h, k, l = np.unravel_index(np.arange(len(values)), (nz, ny, nx))[::-1]
    expected = by_orbit(np.stack([h, k, l], axis=1) - origin, orbits["observed"], orbits)
    np.testing.assert_allclose(values, np.where(np.isnan(expected), -32768, expected), rtol=FLOAT32)


def test_a_map_minus_that_of_another_run(run, tmp_path):
    folder, orbits = run
    finer = make_run(tmp_path / "finer", laue="-1", ndiv=(4, 2, 2), cell=CELL, d_min=6.0, seed=1)["orbits"]
    run_export(folder, tmp_path / "map.nxs", which="observed", minus=tmp_path / "finer")
    found = read_map(ExperimentConfig(file=tmp_path / "map.nxs"))
    assert found.ndiv == (4, 2, 2)
    assert found.sigma is None  # of the other map no errors are known
    ours = by_orbit(found.hkl // [2, 1, 2], orbits["observed"], orbits)
    theirs = {tuple(hkl): y for hkl, y in zip(finer["hkl"].tolist(), finer["observed"])}
    mates = [theirs.get(tuple(hkl), theirs.get(tuple(-np.array(hkl)))) for hkl in found.hkl.tolist()]
    np.testing.assert_allclose(found.intensity, ours - np.array(mates, float))
    common = np.all(finer["hkl"] % [2, 1, 2] == 0, axis=1)
    in_both = np.isfinite(by_orbit(finer["hkl"][common] // [2, 1, 2], orbits["observed"], orbits))
    assert len(found) == 2 * in_both.sum()


def test_a_map_minus_itself_is_zero(run, tmp_path):
    run_export(run[0], tmp_path / "map.mtz", minus=run[0], which="observed")
    found = read_map(ExperimentConfig(file=tmp_path / "map.mtz"))
    assert not np.any(found.intensity)
    np.testing.assert_allclose(found.sigma.max(), 2 * np.sqrt(2), rtol=FLOAT32)


def test_the_command_line_writes_the_fitted_map_by_default(hpcfit, run, tmp_path):
    folder, orbits = run
    done = hpcfit("export", folder, tmp_path / "map.nxs")
    assert done.returncode == 0, done.stderr
    found = read_map(ExperimentConfig(file=tmp_path / "map.nxs"))
    np.testing.assert_array_equal(found.intensity, by_orbit(found.hkl, orbits["calculated"], orbits))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("map.ccp4", {}, "nothing is written as '.ccp4'"),
        ("map.mtz", {"frames": 10}, "--frames has no effect on a map"),
        ("map.mtz", {"minus": "nowhere"}, "nowhere has no metrics.json"),
        ("map.mtz", {"minus": "unfinished"}, "unfinished has no metrics.json"),
        ("map.mtz", {"minus": "larger"}, "unit cells differ by 100.0 %"),
    ],
)
def test_what_cannot_be_written_is_said(run, tmp_path, name, options, words):
    make_unfinished(tmp_path / "unfinished")
    make_run(tmp_path / "larger", cell=(40, 40, 66, 90, 90, 90), d_min=8.0)
    if "minus" in options:
        options = options | {"minus": tmp_path / options["minus"]}
    with pytest.raises(InputError, match=words):
        run_export(run[0], tmp_path / name, **options)
    assert not (tmp_path / name).exists()


def test_a_run_that_has_not_ended_is_refused(tmp_path):
    make_unfinished(tmp_path / "run")
    with pytest.raises(InputError, match=r"has no metrics.json: the run is not complete"):
        run_export(tmp_path / "run", tmp_path / "map.mtz")


def test_a_file_is_replaced_only_where_that_was_asked_for(run, tmp_path):
    (tmp_path / "map.mtz").write_text("of somebody")
    with pytest.raises(InputError, match=r"map.mtz exists"):
        run_export(run[0], tmp_path / "map.mtz")
    run_export(run[0], tmp_path / "map.mtz", overwrite=True)
    assert len(read_map(ExperimentConfig(file=tmp_path / "map.mtz")))


# ---- ensembles and fluctuations ------------------------------------------------------------------------------------

BOX = np.diag([30.0, 32.0, 34.0]).astype(np.float32)
N = 12


def particles():
    """Two residues in two chains; names with elements of one and two letters, and a name of four."""
    names, elements = ("N", "CA", "C", "O", "HG11", "ZN") * 2, ("N", "C", "C", "O", "H", "Zn") * 2
    bonds, masses = np.zeros((0, 2), int), np.full(N, 12.0)
    return Particles(names, elements, np.repeat([0, 1], 6), ("VAL", "MSE"), (7, 1234), ("A", "B"), masses, bonds)


def write_positions(folder, sources, box=BOX):
    """A store of one shard a source; positions [T, n, 3] A."""
    of = particles().subset(np.arange(next(iter(sources.values())).shape[1]))
    content = PositionContent(of, box is not None, PERIODIC if box is not None else NOT_PERIODIC)
    store, plans, first = content.begin(folder, {}), [], 0
    for name, r in sources.items():
        plan = ShardPlan(
            f"{name}.h5", name, "", name, first, 0, len(r), f"plan of {name}", store=store, place=len(plans)
        )
        rows = np.arange(len(r))
        origin = Origin(first + rows, [name] * len(r), rows, rows.astype(float))
        boxes = None if box is None else np.tile(box, (len(r), 1, 1))
        write_frames(folder, plan, content, PositionFrames(r.astype(np.float32), boxes), origin)
        plans.append(plan)
        first += len(r)
    write_catalog(folder, plans, content)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    """A run of two sources, positions of them and of a third one, in another order, and the weights by source."""
    place = tmp_path_factory.mktemp("ensemble")
    made = make_run(place / "run", sources=(("b", "B", 90), ("a", "A", 70)), d_min=8.0)
    rng = np.random.default_rng(5)
    shape = rng.uniform(-8, 8, (N, 3))
    turns = Rotation.random(160, rng=rng).as_matrix()
    r = (shape + rng.normal(0, 0.4, (160, N, 3))) @ turns + rng.uniform(-5, 20, (160, 1, 3))
    r = {"a": r[:70], "b": r[70:]}
    write_positions(place / "positions", {"a": r["a"], "other": r["a"][:5], "b": r["b"]})
    weight = {"b": made["weight"][:90], "a": made["weight"][90:]}
    return place, {name: values.astype(np.float32) for name, values in r.items()}, weight


def test_copies_of_a_frame_differ_from_its_weight_by_less_than_one():
    rng = np.random.default_rng(2)
    weight = rng.dirichlet(np.full(300, 0.2))
    weight[::7] = 0
    for seed in range(5):
        copies = np.bincount(systematic(weight, 1000, seed), minlength=300)
        assert copies.sum() == 1000
        assert np.all(np.abs(copies - 1000 * weight / weight.sum()) < 1)
        assert not copies[::7].any()
    assert np.array_equal(systematic(weight, 50, 3), systematic(weight, 50, 3))
    assert not np.array_equal(systematic(weight, 50, 3), systematic(weight, 50, 4))


@pytest.mark.parametrize(("suffix", "precision"), [(".xtc", 0.005), (".pdb", 0.0005)])
def test_mdanalysis_reads_the_drawn_frames(ensemble, tmp_path, suffix, precision):
    place, r, weight = ensemble
    file = tmp_path / f"drawn{suffix}"
    run_export(place / "run", file, positions=place / "positions", frames=40, seed=1)
    rows = read_csv(tmp_path / "drawn.csv")
    assert len(rows) == 40
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MDAnalysis, on what is not in a topology without one
        universe = MDAnalysis.Universe(str(file)) if suffix == ".pdb" else MDAnalysis.Universe.empty(N, trajectory=True)
        if suffix == ".xtc":
            universe.load_new(str(file))
    assert len(universe.trajectory) == 40
    for row, step in zip(rows, universe.trajectory):
        expected = r[row["source"]][int(row["index"])]
        # Half a unit in the last place of the format, and the rounding of float32.
        np.testing.assert_allclose(step.positions, expected, rtol=0, atol=precision + 4e-6)
        if suffix == ".xtc":
            assert step.data["step"] == int(row["frame"])
            np.testing.assert_allclose(step.dimensions, [30, 32, 34, 90, 90, 90], rtol=1e-6)
    copies = {name: np.zeros(len(values)) for name, values in weight.items()}
    for row in rows:
        copies[row["source"]][int(row["index"])] += 1
        assert float(row["weight"]) == pytest.approx(weight[row["source"]][int(row["index"])], rel=1e-12)
    assert all(np.all(np.abs(copies[name] - 40 * weight[name]) < 1) for name in weight)
    if suffix == ".pdb":
        # MDAnalysis passes over the CRYST1 that stands before the first model.
        assert gemmi.read_structure(str(file)).cell.parameters == (30, 32, 34, 90, 90, 90)
        atoms, of = universe.atoms, particles()
        assert (tuple(atoms.names), tuple(atoms.elements)) == (of.names, of.elements)
        assert list(atoms.residues.resnames) == ["VAL", "MSE"]
        assert list(atoms.residues.resids) == [7, 1234]
        assert list(atoms.chainIDs) == ["A"] * 6 + ["B"] * 6


@pytest.mark.parametrize("suffix", [".xtc", ".pdb"])
def test_hpcfit_reads_what_it_drew(ensemble, tmp_path, suffix):
    place, r, _ = ensemble
    run_export(place / "run", tmp_path / f"drawn{suffix}", positions=place / "positions", frames=10)
    run_export(place / "run", tmp_path / "top.csv", positions=place / "positions")
    source = open_trajectory(tmp_path / f"drawn{suffix}", tmp_path / "top.pdb", "", slice(None))
    found = list(source.reader.frames(range(10)))
    assert len(found) == 10
    for row, frame in zip(read_csv(tmp_path / "drawn.csv"), found):
        np.testing.assert_allclose(frame.positions, r[row["source"]][int(row["index"])], rtol=0, atol=0.00501)
        np.testing.assert_allclose(frame.box, BOX, rtol=1e-6)


def test_fluctuations_of_frames_as_they_are_are_weighted_variances(ensemble, tmp_path):
    place, r, weight = ensemble
    run_export(place / "run", tmp_path / "atoms.csv", positions=place / "positions", superpose="none")
    every, w = np.concatenate([r["a"], r["b"]]).astype(float), np.concatenate([weight["a"], weight["b"]])
    mean = np.average(every, axis=0, weights=w)
    square = np.average(((every - mean) ** 2).sum(axis=2), axis=0, weights=w)
    rows = read_csv(tmp_path / "atoms.csv")
    np.testing.assert_allclose([float(row["rmsf_A"]) for row in rows], np.sqrt(square))
    np.testing.assert_allclose([float(row["b_factor_A2"]) for row in rows], 8 * np.pi**2 / 3 * square)
    assert [(row["name"], row["residue"], row["residue_number"], row["chain"]) for row in rows[4:7]] == [
        ("HG11", "VAL", "7", "A"), ("ZN", "VAL", "7", "A"), ("N", "MSE", "1234", "B"),
    ]  # fmt: skip
    structure = gemmi.read_structure(str(tmp_path / "atoms.pdb"))
    atoms = [atom for chain in structure[0] for residue in chain for atom in residue]
    np.testing.assert_allclose([atom.pos.tolist() for atom in atoms], mean, atol=0.000501)
    expected = np.minimum(8 * np.pi**2 / 3 * square, 999.99)
    np.testing.assert_allclose([atom.b_iso for atom in atoms], expected, atol=0.00501)


def test_the_mean_structure_is_that_of_frames_superposed_on_it(ensemble, tmp_path):
    place, r, weight = ensemble
    frames = weighted_frames(RunFiles(place / "run"), place / "positions")
    chosen = np.arange(8)
    found = fluctuations(frames, chosen)
    every, w = np.concatenate([r["a"], r["b"]]).astype(float), np.concatenate([weight["a"], weight["b"]])
    laid = []
    for x in every:  # the same by quaternions of SciPy
        turn, _ = Rotation.align_vectors(found.mean[:8] - found.mean[:8].mean(axis=0), x[:8] - x[:8].mean(axis=0))
        laid.append(turn.apply(x - x[:8].mean(axis=0)) + found.mean[:8].mean(axis=0))
    np.testing.assert_allclose(np.average(laid, axis=0, weights=w), found.mean, atol=1e-4)
    square = np.average(((np.array(laid) - found.mean) ** 2).sum(axis=2), axis=0, weights=w)
    np.testing.assert_allclose(found.rmsf, np.sqrt(square), rtol=1e-5)
    # The atoms have 0.4 A along each axis, of which superposition takes some; turns and shifts do not count.
    assert np.all(found.rmsf < 2 * 0.4 * np.sqrt(3))


def test_a_rigid_body_does_not_fluctuate(tmp_path):
    rng = np.random.default_rng(0)
    shape = rng.uniform(-8, 8, (N, 3))
    r = shape @ Rotation.random(50, rng=rng).as_matrix() + rng.uniform(-9, 9, (50, 1, 3))
    write_positions(tmp_path / "positions", {"md": r}, box=None)
    make_run(tmp_path / "run", d_min=8.0)
    found = fluctuations(weighted_frames(RunFiles(tmp_path / "run"), tmp_path / "positions"), np.arange(N))
    assert found.rmsf.max() < 1e-5  # float32 of some 20 A
    assert np.sqrt(((found.mean - found.mean.mean(axis=0)) ** 2).sum()) == pytest.approx(
        np.sqrt(((shape - shape.mean(axis=0)) ** 2).sum()), rel=1e-6
    )


def test_frames_superposed_by_atoms_in_a_plane_are_not_mirrored():
    rng = np.random.default_rng(3)
    shape = rng.uniform(-8, 8, (N, 3))
    for chosen in (np.arange(3), np.arange(4)):
        shape[:4, 2] = 0
        turns = Rotation.random(50, rng=rng).as_matrix()
        found = superposed(shape @ turns + rng.uniform(-9, 9, (50, 1, 3)), shape, chosen)
        np.testing.assert_allclose(found, np.broadcast_to(shape, found.shape), atol=1e-12)


def test_errors_of_b_factors_are_those_of_independent_frames(tmp_path):
    """Of independent normal deviations of variance s along three axes, the variance of RMSF^2 is 3 x 2 s^2 / T."""
    T, s, repeats = 400, 0.25, 20
    squares = []
    for seed in range(repeats):
        place = tmp_path / str(seed)
        r = np.random.default_rng(seed).normal(0, np.sqrt(s), (T, N, 3))
        write_positions(place / "positions", {"md": r}, box=None)
        make_run(place / "run", sources=(("md", "", T),), d_min=10.0)
        with h5py.File(place / "run" / "weights.h5", "a") as file:
            file["weight"][:] = 1 / T
        found = fluctuations(weighted_frames(RunFiles(place / "run"), place / "positions"), None)
        squares.append(found.b_error**2)
        np.testing.assert_allclose(found.rmsf_error, found.b_error / (16 * np.pi**2 / 3 * found.rmsf), rtol=0.02)
    expected = (8 * np.pi**2 / 3) ** 2 * 6 * s**2 / T
    # A variance of 20 blocks has the relative error sqrt(2 / 19); of 12 x 20 of them, four of their standard errors.
    assert np.mean(squares) == pytest.approx(expected, rel=4 * np.sqrt(2 / 19 / (N * repeats)))


def test_one_frame_with_all_the_weight_has_no_errors(tmp_path):
    write_positions(tmp_path / "positions", {"md": np.random.default_rng(0).normal(size=(50, N, 3))}, box=None)
    make_run(tmp_path / "run", d_min=8.0)
    with h5py.File(tmp_path / "run" / "weights.h5", "a") as file:
        file["weight"][:] = np.eye(50)[7]
    found = fluctuations(weighted_frames(RunFiles(tmp_path / "run"), tmp_path / "positions"), None)
    assert not found.rmsf.any()
    assert np.all(np.isnan(found.rmsf_error))


def test_a_box_that_molecules_cross_is_warned_of(tmp_path, caplog):
    r = np.random.default_rng(0).uniform(0, 30, (50, N, 3))
    write_positions(tmp_path / "positions", {"md": r})
    make_run(tmp_path / "run", d_min=8.0)
    run_export(tmp_path / "run", tmp_path / "atoms.csv", positions=tmp_path / "positions", superpose="none")
    assert "molecules are broken at its walls" in caplog.text


def other_frames(place):
    write_positions(place / "few", {"b": np.zeros((90, N, 3)), "a": np.zeros((69, N, 3))})
    return {"positions": place / "few"}


def negative_weights(place):
    with h5py.File(place / "run" / "weights.h5", "a") as file:
        file["weight"][3] = -0.1
    return {}


def far_away(place):
    write_positions(place / "far", {"b": np.full((90, N, 3), 10000.0), "a": np.full((70, N, 3), 10000.0)})
    return {"positions": place / "far"}


def turned_box(place):
    box = np.array([[20, 20, 0], [-20, 20, 0], [0, 0, 30]], np.float32)
    write_positions(place / "turned", {"b": np.zeros((90, N, 3)), "a": np.zeros((70, N, 3))}, box)
    return {"positions": place / "turned"}


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("drawn.pdb", {"positions": None}, "no store of positions was given"),
        ("drawn.pdb", {"frames": 0}, "--frames 0"),
        ("drawn.pdb", {"which": "observed"}, "--which has no effect on an ensemble"),
        ("atoms.csv", {"seed": 3}, "--seed has no effect on fluctuations"),
        ("atoms.csv", {"superpose": "name XX"}, "selects none of the 12 particles"),
        ("atoms.csv", {"superpose": "index 0 1"}, "selects 2 atoms of .*, which leave turns open"),
        ("drawn.xtc", other_frames, "lacks 1 of the 160 frames of .*frame 69 of 'a'; its sources are a, b"),
        ("drawn.xtc", negative_weights, "weights from -0.1"),
        ("drawn.pdb", far_away, "beyond the columns of a PDB file"),
        ("drawn.pdb", turned_box, "a not along x"),
    ],
)
def test_ensembles_that_cannot_be_written_are_said(tmp_path, name, options, words):
    r = np.random.default_rng(0).normal(size=(90, N, 3))
    write_positions(tmp_path / "positions", {"b": r, "a": r[:70]})
    make_run(tmp_path / "run", sources=(("b", "B", 90), ("a", "A", 70)), d_min=8.0)
    given = {"positions": tmp_path / "positions"} | (options(tmp_path) if callable(options) else options)
    with pytest.raises(InputError, match=words):
        run_export(tmp_path / "run", tmp_path / name, **given)
    assert not list(tmp_path.glob("*.[pcx][dst][bvc]"))


def test_the_file_beside_is_not_replaced_either(ensemble, tmp_path):
    place, _, _ = ensemble
    (tmp_path / "drawn.csv").write_text("of somebody")
    with pytest.raises(InputError, match=r"drawn.csv exists"):
        run_export(place / "run", tmp_path / "drawn.xtc", positions=place / "positions")
    run_export(place / "run", tmp_path / "drawn.xtc", positions=place / "positions", overwrite=True)
    assert len(read_csv(tmp_path / "drawn.csv")) == 100


def test_a_run_without_a_map_has_an_ensemble_by_the_numbers_of_its_frames(ensemble, tmp_path):
    place, r, _ = ensemble
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text('[problem]\nkind = "frame-weights"\ndata = "averages"\n')
    (tmp_path / "run" / "metrics.json").write_text('{"kind": "frame-weights", "data": "averages"}')
    numbers = np.arange(165)  # those of all three sources of the store
    weight = np.where(numbers % 2, 0.0, 1 / 83)
    rows = zip(numbers, weight, weight, weight, weight)
    write_csv(tmp_path / "run" / "weights.csv", AVERAGES_WEIGHT_COLUMNS, rows)
    run_export(tmp_path / "run", tmp_path / "drawn.xtc", positions=place / "positions", frames=83)
    assert [int(row["frame"]) for row in read_csv(tmp_path / "drawn.csv")] == numbers[::2].tolist()
    every = np.concatenate([r["a"], r["a"][:5], r["b"]])
    index = gromacs_files.index_of(tmp_path / "drawn.xtc")
    found = [frame.positions for frame in gromacs_files.frames(tmp_path / "drawn.xtc", range(len(index.offsets)))]
    np.testing.assert_allclose(found, every[::2], rtol=0, atol=0.00501)
    with pytest.raises(InputError, match=r"has no map.h5"):
        run_export(tmp_path / "run", tmp_path / "map.mtz")
    write_csv(tmp_path / "run" / "weights.csv", AVERAGES_WEIGHT_COLUMNS, [(0, 1, 1, 0, 0)])
    with pytest.raises(InputError, match=r"weighs 1 frames, .* has 165"):
        run_export(tmp_path / "run", tmp_path / "more.xtc", positions=place / "positions")


def test_a_kind_without_such_files_is_said(tmp_path):
    (tmp_path / "config.toml").write_text('[problem]\nkind = "force-map"\n')
    (tmp_path / "metrics.json").write_text('{"kind": "force-map"}')
    with pytest.raises(InputError, match=r"of kind 'force-map', of which `hpcfit export` writes nothing"):
        run_export(tmp_path, tmp_path / "map.mtz")


def test_what_a_fit_leaves_is_written_and_can_be_fitted_again(hpcfit, two_sources, tmp_path):
    run, quick = tmp_path / "run", ["optimizer.max_steps=2", "run.report=false"]
    done = hpcfit("optimize", two_sources, *sets(f"run.directory={run}", *quick))
    assert done.returncode == 0, done.stderr
    units = {"inverse_d": "1/A", "calculated": "electrons^2", "uniform": "electrons^2"}
    with h5py.File(run / "map.h5") as file:
        assert {name: file[name].attrs["units"] for name in units} == units
        assert "units" not in file["hkl"].attrs
    with h5py.File(run / "weights.h5") as file:
        assert file["delta_G_kJ_mol"].attrs["units"] == "kJ/mol"
    with h5py.File(run / "history.h5") as file:
        assert file["seconds"].attrs["units"] == "s"
    written = hpcfit("export", run, tmp_path / "uniform.nxs", "--which", "uniform")
    assert written.returncode == 0, written.stderr
    with h5py.File(tmp_path / "uniform.nxs") as file:
        assert file["entry/hkl_table/intensity"].attrs["units"] == "electrons^2"
    # Against the map of its own uniform weights the ensemble has the CC 1, less what float32 of the kernel rounds.
    again = sets(f"run.directory={tmp_path / 'again'}", f"experiment.file={tmp_path / 'uniform.nxs'}", *quick)
    done = hpcfit("optimize", two_sources, *again)
    assert done.returncode == 0, done.stderr
    metrics = RunFiles(tmp_path / "again").metrics
    assert metrics["uniform"]["cc"] == pytest.approx(1, abs=1e-6)
    assert metrics["orbits"] == RunFiles(run).metrics["orbits"]
