"""More formats that are fuzzed: tables, structures, maps of other programs, each with its plain reader."""

import csv
import io
import re
import shlex
import struct
from pathlib import Path

import h5py
import numpy as np

from hpcfit.config import ExperimentConfig
from hpcfit.testsystems.water_dimer import write_system, write_topology
from tests.fuzz.mutations import OF_BYTES, OF_TEXT
from tests.fuzz.plain_readers import Found, _float, _npy

IDS = np.arange(6)
CIF_COLUMNS = ("group_PDB", "id", "type_symbol", "label_atom_id", "label_comp_id", "label_asym_id", "label_seq_id",
               "Cartn_x", "Cartn_y", "Cartn_z")  # fmt: skip


def _positions() -> np.ndarray:
    """Two waters, [6, 3] A."""
    water = np.array([[0.0, 0, 0], [0.9572, 0, 0], [-0.24, 0.9266, 0]])
    return np.round(np.concatenate([water + 1, water + np.array([5, 6, 7])]), 3)


# ---- tables ----------------------------------------------------------------------------------------------------------


def _write_npy(folder: Path) -> None:
    np.save(folder / "table.npy", np.random.default_rng(3).normal(size=(6, 4)))


def _read_npy(folder: Path) -> Found:
    from hpcfit.readers.tables import open_table

    found = open_table(folder / "table.npy")
    return {"values": found.rows(slice(None))}


def _plain_npy(data: bytes) -> Found:
    values = _npy(data).astype(float)
    return {"values": values if values.ndim == 2 else values[:, None]}


def _write_prior(folder: Path) -> None:
    rows = np.random.default_rng(4).random(6)
    (folder / "prior.csv").write_text("frame,weight\n" + "".join(f"{n},{one:.5f}\n" for n, one in enumerate(rows)))


def _read_prior(folder: Path) -> Found:
    from hpcfit.kinds.frame_weights.prior import _from_file

    return {"weights": _from_file(folder / "prior.csv", IDS)}


def _columns(data: bytes, *names: str) -> Found:
    """Columns of a CSV file by their names, in the order of the column frame."""
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8"), newline="")))
    frames = [int(row["frame"]) for row in rows]
    assert len(set(frames)) == len(frames)
    order = [frames.index(n) for n in IDS]
    return {name: np.array([_float(rows[n][name]) for n in order]) for name in names}


def _plain_prior(data: bytes) -> Found:
    return {"weights": _columns(data, "weight")["weight"]}


def _write_coordinates(folder: Path) -> None:
    rows = np.random.default_rng(5).normal(size=(6, 2))
    text = "".join(f"{n},{a:.4f},{b:.4f}\n" for n, (a, b) in enumerate(rows))
    (folder / "coordinates.csv").write_text("frame,phi,psi\n" + text)


def _read_coordinates(folder: Path) -> Found:
    from hpcfit.kinds.frame_weights.coordinates import read_coordinates

    names, values = read_coordinates(folder / "coordinates.csv", IDS)
    return {"values": values, "names": np.array(names)}


def _plain_coordinates(data: bytes) -> Found:
    names = [name for name in next(csv.reader(io.StringIO(data.decode("utf-8"), newline=""))) if name != "frame"]
    found = _columns(data, *names)
    return {"values": np.stack([found[name] for name in names], 1), "names": np.array(names)}


def _write_energies(folder: Path) -> None:
    rows = [
        f"{n:6d} {0.5 * n:10.3f} {0.1 + 0.01 * n:.5f} {300 + n:.3f} {-1.5 - 0.1 * n:.6f} 0.1 0.2\n" for n in range(8)
    ]
    (folder / "run.ener").write_text("#  Step Time[fs] Kin.[a.u.] Temp[K] Pot.[a.u.]\n" + "".join(rows))


def _read_energies(folder: Path) -> Found:
    from hpcfit.kinds.clusters.energies import read_energies

    found = read_energies(folder / "run.ener")
    return {"values": np.stack(found)}


def _plain_energies(data: bytes) -> Found:
    lines = [line for line in data.decode("utf-8").splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return {"values": np.array([[_float(word) for word in line.split()[1:5]] for line in lines]).T}


def _write_geometries(folder: Path) -> None:
    rng = np.random.default_rng(6)
    np.savez(folder / "geometries.npz", positions=rng.normal(size=(4, 3, 3)), energies=rng.normal(size=4),
             forces=rng.normal(size=(4, 3, 3)), elements=np.array([8, 1, 1]))  # fmt: skip


def _read_geometries(folder: Path) -> Found:
    from hpcfit.readers.geometries import read_geometries

    found = read_geometries(folder / "geometries.npz", "nm", "kJ/mol", "kJ/mol/nm")
    return {"positions": found.positions, "energies": found.energies, "forces": found.forces,
            "elements": np.array(found.elements)}  # fmt: skip


def _plain_geometries(data: bytes) -> Found:
    from tests.fuzz.plain_readers import archive

    found = archive(data)
    return {name: found[name] for name in ("positions", "energies", "forces")}


# ---- structures ------------------------------------------------------------------------------------------------------


def _write_pdb(folder: Path) -> None:
    write_topology(folder / "top.pdb", 2, _positions(), (12.0, 13.0, 14.0, 90.0, 90.0, 90.0))


def _read_structure(file: str):
    def read(folder: Path) -> Found:
        from hpcfit.readers.topology import read_structure

        found = read_structure(folder / file)
        return {"positions": found.positions, "elements": np.array(found.particles.elements),
                "names": np.array(found.particles.names)}  # fmt: skip

    return read


def _plain_pdb(data: bytes) -> Found:
    atoms = []
    for line in data.decode("utf-8").splitlines():
        if line.startswith(("ATOM  ", "HETATM")):
            atoms.append((line[12:16].strip(), line[76:78].strip().capitalize(),
                          [_float(line[a : a + 8]) for a in (30, 38, 46)]))  # fmt: skip
        elif line.startswith("ENDMDL"):
            break
    names, elements, positions = zip(*atoms)
    return {"positions": np.array(positions), "elements": np.array(elements), "names": np.array(names)}


def _write_cif(folder: Path) -> None:
    rows = []
    for n, (name, x) in enumerate(zip(("O", "H1", "H2") * 2, _positions())):
        rows.append(f"HETATM {n + 1} {name[0]} {name} HOH A {n // 3 + 1} {x[0]:.3f} {x[1]:.3f} {x[2]:.3f}")
    head = "data_waters\n#\nloop_\n" + "".join(f"_atom_site.{name}\n" for name in CIF_COLUMNS)
    (folder / "top.cif").write_text(head + "\n".join(rows) + "\n#\n")


def _plain_cif(data: bytes) -> Found:
    """One loop of atoms, a row a line."""
    lines = [line for line in data.decode("ascii").splitlines() if line.strip() and not line.startswith("#")]
    assert lines[0].startswith("data_")
    assert lines[1].strip() == "loop_"
    names = [line.strip().removeprefix("_atom_site.") for line in lines[2:] if line.lstrip().startswith("_")]
    rows = [dict(zip(names, shlex.split(line), strict=True)) for line in lines[2 + len(names) :]]
    positions = [[_float(row[f"Cartn_{axis}"]) for axis in "xyz"] for row in rows]
    return {"positions": np.array(positions), "elements": np.array([row["type_symbol"].capitalize() for row in rows]),
            "names": np.array([row["label_atom_id"] for row in rows])}  # fmt: skip


def _write_system(folder: Path) -> None:
    write_system(folder / "system.xml", 2)


def _read_system(folder: Path) -> Found:
    from hpcfit.readers.topology import read_system

    found = read_system(folder / "system.xml")
    return {"masses": found.masses, "constraints": found.constraints}


def _plain_system(data: bytes) -> Found:
    text = data.decode("utf-8")
    pairs = re.findall(r'<Constraint [^>]*p1="\s*(\d+)\s*" p2="\s*(\d+)\s*"', text)
    return {"masses": np.array([_float(one) for one in re.findall(r'<Particle mass="([^"]*)"/>', text)]),
            "constraints": np.array(pairs, int).reshape(-1, 2)}  # fmt: skip


def _write_xyz(folder: Path) -> None:
    rows = [f"{name} {x[0]:.3f} {x[1]:.3f} {x[2]:.3f}\n" for name, x in zip("OHHOHH", _positions())]
    (folder / "frame.xyz").write_text('6\nLattice="12 0 0 0 13 0 0 0 14"\n' + "".join(rows))


def _read_xyz(folder: Path) -> Found:
    from hpcfit.readers.frame_folders import read_frame

    found = read_frame(folder / "frame.xyz")
    box = np.full((3, 3), np.nan) if found.box is None else found.box
    return {"elements": np.array(found.elements), "positions": found.positions, "box": box}


def _plain_xyz(data: bytes) -> Found:
    lines = data.decode("utf-8").splitlines()
    n, lattice = int(lines[0]), re.search('lattice="([^"]*)"', lines[1].lower())
    rows = [line.split() for line in lines[2 : 2 + n]]
    assert not any(line.strip() for line in lines[2 + n :])
    box = (
        np.full((3, 3), np.nan) if lattice is None else np.array([_float(w) for w in lattice[1].split()]).reshape(3, 3)
    )
    return {"elements": np.array([row[0].capitalize() for row in rows]), "box": box,
            "positions": np.array([[_float(word) for word in row[1:4]] for row in rows])}  # fmt: skip


# ---- maps ------------------------------------------------------------------------------------------------------------


def _write_lattice(folder: Path) -> None:
    shape, step = np.array([5, 3, 7]), 1 / np.array([30.0, 31.0, 32.0])
    half = (shape - 1) / 2 * step
    values = np.random.default_rng(7).random(int(np.prod(shape))).astype("<f4") + 1
    values[::9] = -32768
    limits = np.stack([-half, half], axis=1).astype("<f4")
    (folder / "map.lat").write_bytes(shape.astype("<u4").tobytes() + limits.tobytes() + values.tobytes())


def _read_map(file: str):
    def read(folder: Path) -> Found:
        from hpcfit.readers.maps import read_map

        found = read_map(ExperimentConfig(file=folder / file))
        arrays = {"hkl": found.hkl, "intensity": found.intensity, "cell": np.array(found.cell)}
        return arrays if found.sigma is None else arrays | {"sigma": found.sigma}

    return read


def _plain_lattice(data: bytes) -> Found:
    order = next(
        one for one in "<>" if 36 + 4 * np.prod(struct.unpack(f"{one}3I", data[:12]), dtype=object) == len(data)
    )
    shape = struct.unpack(f"{order}3I", data[:12])
    limits = np.array(struct.unpack(f"{order}6f", data[12:36])).reshape(3, 2)
    values = np.frombuffer(data[36:], f"{order}f4").astype(float)
    assert np.all(np.isfinite(limits))
    step = (limits[:, 1] - limits[:, 0]) / (np.array(shape) - 1)
    origin = [int(one) for one in -limits[:, 0] / step + 0.5]
    places = [(i, j, k) for k in range(shape[2]) for j in range(shape[1]) for i in range(shape[0])]
    missing = -32768 if np.any(values == -32768) else 0
    kept = (values != missing) & np.isfinite(values)
    return {
        "hkl": (np.array(places) - origin)[kept],
        "intensity": values[kept],
        "cell": np.array([*1 / step, 90, 90, 90]),
    }


def _write_nexus(folder: Path) -> None:
    rng = np.random.default_rng(8)
    with h5py.File(folder / "map.h5", "w") as file:
        table = file.create_group("entry/hkl_table")
        for name in "hkl":
            table[name] = rng.integers(-8, 9, 30) / 2
        table["ndiv"] = np.array([2, 2, 2])
        table["intensity"], table["intensity_error"] = rng.random(30), rng.random(30) + 0.1
        crystal = file.create_group("entry/crystal")
        crystal["unit_cell"], crystal["space_group"] = np.array([30.0, 31, 32, 90, 95, 90]), "P 1 21 1"


def _plain_nexus(data: bytes) -> Found:
    with h5py.File(io.BytesIO(data)) as file:
        table = file["entry/hkl_table"]
        intensity, sigma = table["intensity"][:], table["intensity_error"][:]
        kept = np.isfinite(intensity) & np.isfinite(sigma) & (sigma > 0)
        hkl = np.stack([table[name][:] for name in "hkl"], 1) * table["ndiv"][:]
        return {"hkl": np.rint(hkl)[kept], "intensity": intensity[kept], "sigma": sigma[kept],
                "cell": file["entry/crystal/unit_cell"][:]}  # fmt: skip


# Name, file, writer, reader, plain reader, mutations.
ROWS = (
    ("NumPy table", "table.npy", _write_npy, _read_npy, _plain_npy, OF_BYTES),
    ("prior", "prior.csv", _write_prior, _read_prior, _plain_prior, OF_TEXT),
    ("coordinates", "coordinates.csv", _write_coordinates, _read_coordinates, _plain_coordinates, OF_TEXT),
    ("energies", "run.ener", _write_energies, _read_energies, _plain_energies, OF_TEXT),
    ("geometries", "geometries.npz", _write_geometries, _read_geometries, _plain_geometries, OF_BYTES),
    ("PDB topology", "top.pdb", _write_pdb, _read_structure("top.pdb"), _plain_pdb, OF_TEXT),
    ("mmCIF topology", "top.cif", _write_cif, _read_structure("top.cif"), _plain_cif, OF_TEXT),
    ("System", "system.xml", _write_system, _read_system, _plain_system, OF_TEXT),
    ("frame of a folder", "frame.xyz", _write_xyz, _read_xyz, _plain_xyz, OF_TEXT),
    ("lattice", "map.lat", _write_lattice, _read_map("map.lat"), _plain_lattice, OF_BYTES),
    ("NeXus map", "map.h5", _write_nexus, _read_map("map.h5"), _plain_nexus, OF_BYTES),
)
