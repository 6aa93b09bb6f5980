"""The formats that are fuzzed: a sound file of each, how hpcfit reads it, and what its bytes hold by a plain reader."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from hpcfit.config import ExperimentConfig
from tests.fuzz import plain_readers as plain
from tests.fuzz.mutations import OF_BYTES, OF_TEXT, Mutation
from tests.fuzz.of_programs import ROWS as OF_PROGRAMS
from tests.fuzz.tables_and_structures import ROWS
from tests.fuzz.waters import CELL, ELEMENTS, MANY, frames, prepared

Found = plain.Found


class Format(NamedTuple):
    """A format. file: the one that is mutated, in the folder that `write` fills; read: by hpcfit, of this folder;
    plain: what bytes hold, None where nothing but the same arrays may come of a mutation."""

    name: str
    file: str
    write: Callable[[Path], None]
    read: Callable[[Path], Found]
    plain: Callable[[bytes], Found] | None
    mutations: tuple[Mutation, ...]


# ---- trajectories ---------------------------------------------------------------------------------------------------


def _by_mdanalysis(file: str, elements: tuple[str, ...] = ELEMENTS, forces: bool = False) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import MDAnalysis

        what = frames(elements)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            universe = MDAnalysis.Universe.empty(len(elements), trajectory=True, forces=forces)
            options = {"lengthunit": "Angstrom", "timeunit": "ps", "forceunit": "kJ/(mol*Angstrom)"}
            with MDAnalysis.Writer(
                str(folder / file), len(elements), **(options if file.endswith("h5md") else {})
            ) as out:
                for row, positions in enumerate(what.positions):
                    step = universe.trajectory.ts
                    step.positions, step.time, step.frame = positions, 0.5 * row, row
                    step.data["step"] = 10 * row
                    if forces:
                        step.forces = what.forces[row]
                    universe.dimensions = CELL
                    out.write(universe.atoms)

    return write


def _h5md(folder: Path) -> None:
    """Small datasets in one piece, so that most bytes are of the file's own structure."""
    what = frames()
    with h5py.File(folder / "run.h5md", "w") as file:
        file.create_group("h5md").attrs["version"] = (1, 1)
        group = file.create_group("particles/water")
        boxes = np.repeat(what.box[None], len(what.positions), axis=0)
        for name, values, unit in (("position", what.positions, "Angstrom"), ("box/edges", boxes, "Angstrom"),
                                   ("force", what.forces, "kJ mol-1 Angstrom-1")):  # fmt: skip
            element = group.create_group(name)
            element.create_dataset("value", data=values.astype("<f4")).attrs["unit"] = unit
            element["step"], element["time"] = np.arange(3) * 10, np.arange(3) * 0.5
            element["time"].attrs["unit"] = "ps"
        group["box"].attrs.update(dimension=3, boundary=["periodic"] * 3)


def _xdatcar(folder: Path) -> None:
    what = frames()
    head = "waters\n 1.0\n" + "".join("  {:.6f} {:.6f} {:.6f}\n".format(*row) for row in what.box) + " O H\n 2 4\n"
    order = [0, 3, 1, 2, 4, 5]
    body = ""
    for row, positions in enumerate(what.positions):
        direct = positions[order] @ np.linalg.inv(what.box)
        body += f"Direct configuration= {row + 1:5d}\n"
        body += "".join("  {:.8f} {:.8f} {:.8f}\n".format(*one) for one in direct)
    (folder / "XDATCAR").write_text(head + body)


def _extxyz(folder: Path) -> None:
    what, text = frames(), ""
    for positions, forces in zip(what.positions, what.forces / plain.EV):
        lattice = " ".join(f"{number:.6f}" for number in what.box.ravel())
        text += f'{len(ELEMENTS)}\nLattice="{lattice}" Properties=species:S:1:pos:R:3:forces:R:3 pbc="T T T"\n'
        text += "".join("{} {:.3f} {:.3f} {:.3f} {:.6f} {:.6f} {:.6f}\n".format(element, *x, *f)
                        for element, x, f in zip(ELEMENTS, positions, forces))  # fmt: skip
    (folder / "run.extxyz").write_text(text)


def _pdb(folder: Path) -> None:
    text = "CRYST1{:9.3f}{:9.3f}{:9.3f}{:7.2f}{:7.2f}{:7.2f} P 1           1\n".format(*CELL)
    for row, positions in enumerate(frames().positions):
        text += f"MODEL     {row + 1:4d}\n"
        for n, (element, x) in enumerate(zip(ELEMENTS, positions)):
            name = f"{element}{n % 3 or ''}"
            text += "HETATM{:5d}  {:<3s} HOH A{:4d}    {:8.3f}{:8.3f}{:8.3f}  1.00  0.00          {:>2s}\n".format(
                n + 1, name, n // 3 + 1, *x, element)  # fmt: skip
        text += "ENDMDL\n"
    (folder / "run.pdb").write_text(text + "END\n")


# ---- arrays, maps, tables -------------------------------------------------------------------------------------------


def _arrays(folder: Path) -> None:
    what = frames()
    np.savez(folder / "run.npz", positions=what.positions, forces=what.forces, box=what.box, time=0.5 * np.arange(3.0))


def _plain_arrays(data: bytes) -> Found:
    found = plain.archive(data)
    kept = {name: found[name].astype(float) for name in ("positions", "forces", "time") if name in found}
    if "box" in found:
        kept["box"] = np.broadcast_to(found["box"].reshape(3, 3), (len(kept["positions"]), 3, 3))
    return kept


def _map(folder: Path) -> None:
    rng = np.random.default_rng(1)
    hkl = rng.integers(-5, 6, (40, 3)).astype(np.int32)
    np.savez(folder / "map.npz", hkl=hkl, intensity=rng.random(40), sigma=rng.random(40) + 1, mask=rng.random(40) > 0.1,
             ndiv=np.array([1, 2, 1]), cell=np.array(CELL), space_group=np.array("P 1 21 1"))  # fmt: skip


def _read_map(folder: Path) -> Found:
    from hpcfit.readers.maps import read_map

    found = read_map(ExperimentConfig(file=folder / "map.npz"))
    return {"hkl": found.hkl, "intensity": found.intensity, "sigma": found.sigma, "ndiv": np.array(found.ndiv),
            "cell": np.array(found.cell), "space_group": np.array(found.space_group)}  # fmt: skip


def _plain_map(data: bytes) -> Found:
    found = plain.archive(data)
    sigma = found.get("sigma")
    kept = np.isfinite(found["intensity"]) & (found["mask"].astype(bool) if "mask" in found else True)
    kept &= True if sigma is None else np.isfinite(sigma) & (sigma > 0)
    arrays = {"hkl": found["hkl"][kept], "intensity": found["intensity"][kept],
              "cell": found["cell"], "ndiv": found.get("ndiv", np.ones(3)),
              "space_group": np.array(str(found.get("space_group", "P 1")))}  # fmt: skip
    return arrays if sigma is None else arrays | {"sigma": sigma[kept]}


def _mtz(folder: Path) -> None:
    import gemmi

    mtz, rng = gemmi.Mtz(with_base=True), np.random.default_rng(2)
    mtz.spacegroup, mtz.cell = gemmi.SpaceGroup("P 1 21 1"), gemmi.UnitCell(*CELL[:3], 90, 95, 90)
    mtz.add_dataset("calculated")
    mtz.add_column("FC", "F")
    mtz.add_column("PHIC", "P")
    hkl = [(h, k, l) for h in range(-3, 4) for k in range(3) for l in range(1, 3)]
    values = np.column_stack([hkl, rng.random(len(hkl)) * 100 + 1, rng.random(len(hkl)) * 360]).astype(np.float32)
    mtz.set_data(values)
    mtz.write_to_file(str(folder / "frame.mtz"))


def _read_mtz(folder: Path) -> Found:
    from hpcfit.readers.mtz import read_mtz

    found = read_mtz(folder / "frame.mtz")
    return {"hkl": found.hkl, "amplitude": found.amplitude, "phase": found.phase, "cell": np.array(found.cell)}


def _table(folder: Path) -> None:
    rng = np.random.default_rng(4)
    rows = [",".join(f"{number:.4f}" for number in row) for row in rng.normal(size=(8, 3))]
    (folder / "table.csv").write_text("a,b,c\n" + "\n".join(rows) + "\n")


def _read_table(folder: Path) -> Found:
    from hpcfit.readers.tables import open_table

    found = open_table(folder / "table.csv")
    return {"values": found.rows(slice(None))}


def _measurements(folder: Path) -> None:
    rng = np.random.default_rng(6)
    rows = [
        f"HN-{n:02d}  {5 * one:.3f}  {0.1 + one:.3f}{' UPPER' * (n % 3 == 0)}" for n, one in enumerate(rng.random(9))
    ]
    (folder / "noe.dat").write_text("name value sigma\n" + "\n".join(rows) + "\n")


def _read_measurements(folder: Path) -> Found:
    from hpcfit.observables.readers import read_named

    found = read_named(folder / "noe.dat")
    return {"values": np.stack([found.value, found.sigma], 1), "names": np.array(found.names),
            "bound": np.asarray(found.bound)}  # fmt: skip


def _curve(folder: Path) -> None:
    q = np.linspace(0.01, 0.5, 12)
    rows = [f"{one:.4f}  {np.exp(-((10 * one) ** 2) / 3):.5f}  {0.01:.4f}" for one in q]
    (folder / "curve.dat").write_text("# buffer subtracted\nsample: lysozyme\n" + "\n".join(rows) + "\nend of data\n")


def _read_curve(folder: Path) -> Found:
    from hpcfit.readers.scattering_curves import read_scattering_curve

    found = read_scattering_curve(folder / "curve.dat")
    return {"values": np.stack([found.q, found.intensity, found.sigma], 1)}


# ---- what hpcfit wrote itself ---------------------------------------------------------------------------------------


def _force_store(folder: Path) -> None:
    from hpcfit.testsystems.harmonic_beads import HarmonicBeads, write_force_store

    system = HarmonicBeads(6)
    r, f = system.frames(80, 1)
    write_force_store(folder / "store", system.particles, {"a": (r[:70], f[:70], None), "b": (r[70:], f[70:], None)})


def _read_force_store(folder: Path) -> Found:
    from hpcfit.store.catalog import frame_rows
    from hpcfit.store.forces import open_force_store
    from hpcfit.store.positions import read_block

    store = open_force_store(folder / "store")
    blocks = store.blocks()
    read = [read_block(store, block) for block in blocks]
    rows = frame_rows(store, blocks)
    return {"positions": np.concatenate([one.positions for one in read]), "id": rows.id, "index": rows.index,
            "forces": np.concatenate([one.forces for one in read]), "source": np.array(rows.source),
            "label": np.array(rows.label), "masses": np.asarray(store.particles.masses),
            "names": np.array(store.particles.names)}  # fmt: skip


def _factor_store(folder: Path) -> None:
    from hpcfit.testsystems.synthetic import Source, cubic_reflections, gaussian_frames, write_store

    reflections = cubic_reflections(4.0)
    found = gaussian_frames(80, len(reflections), seed=0)
    write_store(folder / "store", reflections, [Source("one", found[:70], "A"), Source("two", found[70:], "B")])


def _read_factor_store(folder: Path) -> Found:
    from hpcfit.store.catalog import frame_rows
    from hpcfit.store.stream import StructureFactors
    from hpcfit.store.structure_factors import open_store

    store = open_store(folder / "store")
    blocks, reference = store.blocks(), store.reference
    stored = StructureFactors(store, blocks, np.arange(len(reference.reflections))[None]).read_all()
    rows = frame_rows(store, blocks)
    return {"stored": stored, "mean": reference.mean, "scale": reference.scale, "hkl": reference.reflections.hkl,
            "id": rows.id, "index": rows.index,
            "source": np.array(rows.source), "label": np.array(rows.label)}  # fmt: skip


IDENTITY = {"data": "this", "problem": "that"}


def _stage(folder: Path) -> None:
    from hpcfit.fit.checkpoint import Progress, Stages
    from hpcfit.ranks import Ranks

    arrays = {"sums": np.random.default_rng(3).normal(size=(5, 4)), "n": np.arange(3)}
    Stages(folder, Ranks(), IDENTITY).save("pass", {"frames": "abc"}, Progress(True, [0, 1, 2], arrays))


def _read_stage(folder: Path) -> Found:
    """A stage that is not used is as good as refused: it is computed again."""
    from hpcfit.errors import DamagedFile
    from hpcfit.fit.checkpoint import Stages
    from hpcfit.ranks import Ranks

    with Stages(folder, Ranks(), IDENTITY).opened("pass", {"frames": "abc"}) as found:
        if found is None:
            raise DamagedFile(f"{folder / 'pass.stage'} is not used")
        return {"done": np.array(found.done), **{name: found.arrays[name] for name in ("sums", "n")}}


# ---- configs --------------------------------------------------------------------------------------------------------

CONFIG = """
[run]
directory = "run"
seed = 3
threads = 1
[frames]
store = "store"
include = ["*"]
[prepare]
d_min = 2.5
cell = [30.0, 31.0, 32.0, 90.0, 95.0, 90.0]
supercell = [1, 2, 1]
shard_frames = 128
[[prepare.source]]
trajectory = "run.xtc"
topology = "run.pdb"
start = 10
stride = 2
[experiment]
file = "map.npz"
ndiv = [1, 1, 1]
[problem]
kind = "frame-weights"
theta = [0.001, 0.1]
objective = "gaussian"
hold_out = 0.1
d_min = 2.0
starts = ["prior", "random"]
random_starts = 3
resamples = 4
[optimizer]
max_steps = 40
relative_tolerance = 1e-7
[checkpoint]
every_steps = 10
"""
FORCE_MAP = """
[frames]
store = "store"
[problem]
kind = "force-map"
temperature = 310.0
blocks = 5
[problem.beads]
residue = "CA"
[problem.map]
methods = ["basic", "local"]
support = 3
ridge = [0.01, 0.1]
[problem.force_matching]
pair_range = [2.0, 9.0]
bonds = [[0, 1], [1, 2]]
[simulate]
directory = "replicas"
temperatures = [300.0, 310.0]
interval = 0.5
step = 0.002
[[simulate.system]]
name = "water"
topology = "water.pdb"
force_field = ["amber14-all.xml"]
cutoff = 9.0
[grid]
frames = "auto"
slices = 2
"""


def _config(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "config.toml").write_text(text) and None


def _read_config(folder: Path) -> Found:
    """Every value of the resolved config, by its place, as `repr` shows it; the folder is left out."""
    from hpcfit.kinds.table import check_config, load_config

    config = load_config(folder / "config.toml")
    if config.problem is not None:
        check_config(config, "optimize")
    said = json.dumps(config.model_dump(mode="json")).replace(json.dumps(str(folder))[1:-1], "")
    return {place: np.array(repr(value)) for place, value in _leaves(json.loads(said))}


def _plain_config(data: bytes) -> Found:
    """The values of a file, where they stand in it."""
    import tomllib

    return {place: np.array(repr(value)) for place, value in _leaves(tomllib.loads(data.decode("utf-8")))}


def _leaves(value, place=""):
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inside is None:
        yield place, value
    else:
        yield f"{place}#", sorted(value) if isinstance(value, dict) else len(value)
        for key, one in inside:
            yield from _leaves(one, f"{place}.{key}")


FORMATS = {
    one.name: one
    for one in (
        *(Format(*row) for row in (*ROWS, *OF_PROGRAMS)),
        Format("config", "config.toml", _config(CONFIG), _read_config, _plain_config, OF_TEXT),
        Format("config of forces", "config.toml", _config(FORCE_MAP), _read_config, _plain_config, OF_TEXT),
        Format("shard of forces", "store/a.h5", _force_store, _read_force_store, None, OF_BYTES),
        Format("particles", "store/particles.h5", _force_store, _read_force_store, None, OF_BYTES),
        Format("catalog of forces", "store/catalog.json", _force_store, _read_force_store, None, OF_TEXT),
        Format("shard", "store/one.000000.h5", _factor_store, _read_factor_store, None, OF_BYTES),
        Format("reference", "store/reference.h5", _factor_store, _read_factor_store, None, OF_BYTES),
        Format("catalog", "store/catalog.json", _factor_store, _read_factor_store, None, OF_TEXT),
        Format("stage", "pass.stage", _stage, _read_stage, None, OF_BYTES),
        Format("MTZ", "frame.mtz", _mtz, _read_mtz, plain.mtz, OF_BYTES),
        Format("map", "map.npz", _map, _read_map, _plain_map, OF_BYTES),
        Format(
            "arrays",
            "run.npz",
            _arrays,
            prepared("run.npz", forces=True, waters=2, length_unit="A", energy_unit="kJ/mol"),
            _plain_arrays,
            OF_BYTES,
        ),
        Format("XDATCAR", "XDATCAR", _xdatcar, prepared("XDATCAR"), plain.xdatcar, OF_TEXT),
        Format("extxyz", "run.extxyz", _extxyz, prepared("run.extxyz", forces=True), plain.extxyz, OF_TEXT),
        Format("PDB", "run.pdb", _pdb, prepared("run.pdb"), plain.pdb, OF_TEXT),
        Format("DCD", "run.dcd", _by_mdanalysis("run.dcd"), prepared("run.dcd", waters=2), plain.dcd, OF_BYTES),
        Format("XTC", "run.xtc", _by_mdanalysis("run.xtc", MANY), prepared("run.xtc", waters=5), plain.xtc, OF_BYTES),
        Format("XTC of few", "run.xtc", _by_mdanalysis("run.xtc"), prepared("run.xtc", waters=2), plain.xtc, OF_BYTES),
        Format(
            "TRR",
            "run.trr",
            _by_mdanalysis("run.trr", forces=True),
            prepared("run.trr", forces=True, waters=2),
            plain.trr,
            OF_BYTES,
        ),
        Format(
            "NetCDF",
            "run.nc",
            _by_mdanalysis("run.nc", forces=True),
            prepared("run.nc", waters=2),
            plain.netcdf,
            OF_BYTES,
        ),
        Format(
            "H5MD",
            "run.h5md",
            _h5md,
            prepared("run.h5md", forces=True, waters=2),
            plain.h5md,
            OF_BYTES,
        ),
        Format("CSV", "table.csv", _table, _read_table, plain.table, OF_TEXT),
        Format("measurements", "noe.dat", _measurements, _read_measurements, plain.measurements, OF_TEXT),
        Format("curve", "curve.dat", _curve, _read_curve, plain.curve, OF_TEXT),
    )
}


# ---- the oracle -----------------------------------------------------------------------------------------------------


def same(one: Found, other: Found) -> bool:
    """The same arrays to the last bit."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and one[name].shape == other[name].shape
        and one[name].tobytes() == other[name].tobytes() for name in one
    )  # fmt: skip


def confirmed(found: Found, by: Found) -> bool:
    """The arrays of a plain reader are those of hpcfit, to the rounding of float32 that formats and libraries keep."""
    return all(name in found and _close(found[name], np.asarray(by[name])) for name in by)


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind not in "fiu" or other.dtype.kind not in "fiu":
        return np.array_equal(one.astype(str), other.astype(str))
    with np.errstate(all="ignore"):
        largest = np.max(np.abs(other[np.isfinite(other)]), initial=0.0)
        return np.allclose(one.astype(float), other.astype(float), rtol=1e-6, atol=1e-6 * largest, equal_nan=True)
