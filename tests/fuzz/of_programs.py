"""Formats of simulation programs that are fuzzed: dumps, outputs and topologies, each with its plain reader."""

import io
import re
import xml.etree.ElementTree as xml
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fuzz.mutations import OF_BYTES, OF_TEXT
from tests.fuzz.plain_readers import EV, Found, _box, _float, _frames, _npy, _of_one_composition, _text
from tests.fuzz.waters import CELL, ELEMENTS, frames, prepared

N = len(ELEMENTS)
BOHR, HARTREE = 0.529177210544, 2625.49963948  # A, kJ/mol
MASSES = {"O": 15.9994, "H": 1.008}
LEANING = np.array([[12.0, 0, 0], [0.0, 13.0, 0], [2.5, 0.0, 14.0]])  # A; b is along y
NAMES = ("OW", "HW1", "HW2")


def _integer(text: str) -> int:
    assert "_" not in text
    return int(text)


# ---- trajectories ----------------------------------------------------------------------------------------------------


def _write_dump(folder: Path) -> None:
    what, lines = frames(), []
    for row, (positions, forces) in enumerate(zip(what.positions, what.forces / EV)):
        lines += ["ITEM: UNITS", "metal"] if not row else []
        lines += ["ITEM: TIME", f"{0.5 * row}", "ITEM: TIMESTEP", str(10 * row), "ITEM: NUMBER OF ATOMS", str(N)]
        lines += ["ITEM: BOX BOUNDS xy xz yz pp pp ff", "0 14.5 0", "0 13 2.5", "0 14 0"]
        lines += ["ITEM: ATOMS id element x y z fx fy fz"]
        for atom in np.random.default_rng(row).permutation(N):
            numbers = [*positions[atom], *np.round(forces[atom], 6)]
            lines.append(f"{atom + 1} {ELEMENTS[atom]} " + " ".join(f"{number:.6f}" for number in numbers))
    (folder / "run.dump").write_text("\n".join([*lines, ""]))


def _plain_dump(data: bytes) -> Found:
    """Frames of items in any order, all of the same atoms."""
    lines, place, found = _text(data), 0, []
    while place < len(lines) - 1:
        items: dict[str, list[str]] = {}
        while place < len(lines) - 1:
            assert lines[place].startswith("ITEM: ")
            name, place = lines[place][6:], place + 1
            assert name.split()[0] not in [one.split()[0] for one in items]
            rows = items[name] = []
            while place < len(lines) - 1 and not lines[place].startswith("ITEM: "):
                rows.append(lines[place])
                place += 1
            if name.startswith("ATOMS"):
                break
        one = {name.split()[0]: (name.split()[1:], rows) for name, rows in items.items()}
        found.append(_frame_of_dump(one))
    assert len({tuple(frame.pop("id")) for frame in found}) == 1
    assert all((frame["time"] is None) == (found[0]["time"] is None) for frame in found)
    return _of_one_composition(found)


def _frame_of_dump(items: dict) -> dict:
    (step,), (count,) = items["TIMESTEP"][1], items["NUMBER"][1]
    (_, *flags), bounds = items["BOX"]
    rows = np.array([[_float(word) for word in line.split()] for line in bounds])
    assert "UNITS" not in items or items["UNITS"][1] == ["metal"]
    if flags[:3] == ["xy", "xz", "yz"]:
        xy, xz, yz = rows[:, 2]
        low = rows[:, 0] - [min(0, xy, xz, xy + xz), min(0, yz), 0]
        high = rows[:, 1] - [max(0, xy, xz, xy + xz), max(0, yz), 0]
        flags = flags[3:]
    else:
        assert rows.shape == (3, 2)
        (low, high), xy, xz, yz = rows.T, 0.0, 0.0, 0.0
    assert np.all(high > low)
    assert len(flags) == 3
    lengths = high - low
    columns, lines = items["ATOMS"]
    cells = sorted(([line.split() for line in lines]), key=lambda row: _integer(row[columns.index("id")]))
    assert len(cells) == int(count)
    assert all(len(row) == len(columns) for row in cells)
    ids = [int(row[columns.index("id")]) for row in cells]
    assert len(set(ids)) == len(ids)
    at = {name: [row[n] for row in cells] for n, name in enumerate(columns)}
    vectors = [np.array([[_float(word) for word in at[f"{kind}{axis}"]] for axis in "xyz"]).T for kind in ("", "f")]
    box = np.array([[lengths[0], 0, 0], [xy, lengths[1], 0], [xz, yz, lengths[2]]])
    time = _float(items["TIME"][1][0]) if "TIME" in items else None
    return {"positions": vectors[0], "forces": vectors[1] * EV, "box": box, "pbc": [flag == "pp" for flag in flags],
            "elements": [name.capitalize() for name in at["element"]], "step": _integer(step), "time": time,
            "id": ids}  # fmt: skip


def _write_cp2k(folder: Path) -> None:
    what = frames()
    for name, values in (("pos", what.positions), ("frc", what.forces * BOHR / HARTREE)):
        text = ""
        for row, rows in enumerate(values):
            text += f"{N:8d}\n i = {10 * row:8d}, time = {5.0 * row:12.3f}, E = -17.1\n"
            text += "".join(f"{element:>3} {x:20.10f} {y:20.10f} {z:20.10f}\n" for element, (x, y, z)
                            in zip(ELEMENTS, rows))  # fmt: skip
        (folder / f"water-{name}-1.xyz").write_text(text)
    rows = [f"{10 * row} {5.0 * row} {' '.join(map(str, what.box.ravel()))} 2151.0" for row in range(3)]
    (folder / "water-1.cell").write_text("\n".join(["# Step Time [fs] Ax [Angstrom] ... Volume", *rows, ""]))


def _cp2k_frames(data: bytes) -> list[dict]:
    lines, place, found = _text(data), 0, []
    assert lines.pop() == ""
    while place < len(lines):
        n, said = int(lines[place]), re.search(r"\bi\s*=\s*(\d+)", lines[place + 1])
        time = re.search(r"\btime\s*=\s*([-+0-9.eE]+)", lines[place + 1])
        rows = [line.split() for line in lines[place + 2 : place + 2 + n]]
        assert 0 < n == len(rows)
        vectors = [[_float(word) for word in row[1:4]] for row in rows]
        assert all(len(one) == 3 for one in vectors)
        found.append({"positions": vectors, "elements": [row[0].capitalize() for row in rows], "step": int(said[1]),
                      "time": np.nan if time is None else float(time[1]) / 1000})  # fmt: skip
        place += 2 + n
    assert len({one["step"] for one in found}) == len(found)
    return found


def _plain_cp2k(data: bytes) -> Found:
    """Frames of positions, each with the forces of its step."""
    what, found = frames(), _cp2k_frames(data)
    places = [{0: 0, 10: 1, 20: 2}[one["step"]] for one in found]
    forces = [what.forces[n] for n in places]
    return _of_one_composition(found) | {"forces": np.array(forces), "box": np.array([what.box] * len(found))}


def _plain_cp2k_forces(data: bytes) -> Found:
    """The forces of each step of the positions."""
    of_step = {one["step"]: one for one in _cp2k_frames(data)}
    assert all(one["elements"] == list(ELEMENTS) for one in of_step.values())
    forces = np.array([of_step[step]["positions"] for step in (0, 10, 20)])
    return {"forces": forces * HARTREE / BOHR, "positions": frames().positions}


def _plain_cp2k_cells(data: bytes) -> Found:
    rows = [line.split() for line in _text(data) if line.strip() and not line.strip().startswith("#")]
    of_step = {_integer(row[0]): np.array([_float(word) for word in row[2:11]]).reshape(3, 3) for row in rows}
    assert len(of_step) == len(rows)
    return {"box": np.array([of_step[step] for step in (0, 10, 20)]), "positions": frames().positions}


def _varray(name: str, rows: np.ndarray) -> str:
    lines = "".join(f"<v> {' '.join(f'{number:.8f}' for number in row)} </v>\n" for row in rows)
    return f'<varray name="{name}">\n{lines}</varray>\n'


def _write_vasprun(folder: Path) -> None:
    what = frames()
    fractions = what.positions @ np.linalg.inv(what.box)
    crystal = f"<crystal>\n{_varray('basis', what.box)}</crystal>\n"
    kinds = "".join(f"<rc><c>{element}</c><c>{n + 1}</c></rc>\n" for n, element in enumerate(ELEMENTS))
    names = ("e_fr_energy", "e_wo_entrp", "e_0_energy")
    energy = f"<energy>{''.join(f'<i name={chr(34)}{name}{chr(34)}> -1.0 </i>' for name in names)}</energy>\n"
    steps = "".join(
        f"<calculation>\n<scstep>{energy}</scstep>\n<structure>\n{crystal}{_varray('positions', x)}</structure>\n"
        f"{_varray('forces', forces / EV)}{energy}</calculation>\n"
        for x, forces in zip(fractions, what.forces)
    )
    (folder / "vasprun.xml").write_text(
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n<kpoints></kpoints>\n<parameters></parameters>\n'
        f'<atominfo>\n<array name="atoms"><set>\n{kinds}</set></array>\n</atominfo>\n'
        f'<structure name="initialpos">\n{crystal}{_varray("positions", fractions[0])}</structure>\n{steps}'
        "</modeling>\n"
    )


def _plain_vasprun(data: bytes) -> Found:
    """Whole steps; of a run that was stopped those that have their forces."""
    text = data.decode("latin-1").partition("?>")[2]
    if "</modeling>" not in text:
        ends = [one.end() for one in re.finditer('<varray name="forces">.*?</varray>', text, re.DOTALL)]
        text = text[: ends[-1]] + "</calculation></modeling>"
    root = xml.fromstring(text)
    assert root.tag == "modeling"
    (kinds,) = root.findall("atominfo/array[@name='atoms']/set")
    elements, found = [row[0].text.strip() for row in kinds], []
    for one in root.findall("calculation"):
        rows = {}
        for name, place in (("basis", "structure/crystal/"), ("positions", "structure/"), ("forces", "")):
            (varray,) = one.findall(f"{place}varray[@name='{name}']")
            rows[name] = np.array([[_float(word) for word in row.text.split()] for row in varray])
            assert rows[name].shape == (3 if name == "basis" else len(elements), 3)
        found.append({"positions": rows["positions"] @ rows["basis"], "forces": rows["forces"] * EV,
                      "box": rows["basis"]})  # fmt: skip
    return _frames(found) | {"elements": np.array(elements)}


def _write_outcar(folder: Path) -> None:
    what, order = frames(), [0, 3, 1, 2, 4, 5]
    lines = [" vasp.6.4.2", " POTCAR:    PAW_PBE O 08Apr2002", " POTCAR:    PAW_PBE H 15Jun2001"] * 2
    lines += ["   ions per type =               2   4", "   ISPIN  =      1    spin polarized calculation?"]
    lines += ["--- Iteration      1(   1)  ---"]
    for positions, forces in zip(what.positions[:, order], what.forces[:, order] / EV):
        lines += ["      direct lattice vectors                 reciprocal lattice vectors"]
        lines += ["".join(f"{number:13.9f}" for number in (*row, 0, 0, 0)) for row in what.box]
        lines += ["", " POSITION                                       TOTAL-FORCE (eV/Angst)", " " + 60 * "-"]
        lines += ["".join(f"{number:14.6f}" for number in (*x, *f)) for x, f in zip(positions, forces)]
        lines += [" " + 60 * "-", "", "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)", "  " + 40 * "-"]
        lines += ["  free  energy   TOTEN  =       -17.1 eV", ""]
        lines += ["  energy  without entropy=      -17.1  energy(sigma->0) =      -17.1", ""]
    (folder / "OUTCAR").write_text("\n".join(lines))


def _plain_outcar(data: bytes) -> Found:
    """A cell, a table of as many rows as there are ions, and an energy, again and again."""
    lines = io.StringIO(data.decode("utf-8", "replace"), newline=None).read().split("\n")
    potentials = [line.split()[2] for line in lines if "POTCAR:" in line]
    (counts,) = [line.partition("=")[2].split() for line in lines if "ions per type" in line]
    half = potentials[: len(potentials) // 2]
    assert half == potentials[len(half) :]
    elements = [one for one, count in zip(half, counts, strict=True) for _ in range(_integer(count))]
    n, cell, found = len(elements), None, []
    for at, line in enumerate(lines):
        if "direct lattice vectors" in line:
            cell = np.array([[_float(word) for word in row.split()[:3]] for row in lines[at + 1 : at + 4]])
        elif "TOTAL-FORCE (eV/Angst)" in line:
            rows = np.array([[_float(word) for word in row.split()] for row in lines[at + 2 : at + 2 + n]])
            assert rows.shape == (n, 6)
            assert set(lines[at + 2 + n].strip()) == {"-"}
            found.append({"positions": rows[:, :3], "forces": rows[:, 3:] * EV, "box": cell, "elements": elements})
            cell = None
    assert all(one["box"].shape == (3, 3) for one in found)
    return _of_one_composition(found)


def _write_models(folder: Path) -> None:
    names = ("group_PDB", "id", "type_symbol", "label_atom_id", "label_comp_id", "label_asym_id", "label_seq_id",
             "Cartn_x", "Cartn_y", "Cartn_z", "pdbx_PDB_model_num")  # fmt: skip
    cell = zip(("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"), CELL)
    lines = ["data_waters", *(f"_cell.{name} {number}" for name, number in cell), "loop_"]
    lines += [f"_atom_site.{name}" for name in names]
    for model, positions in enumerate(frames().positions, 1):
        for n, (element, (x, y, z)) in enumerate(zip(ELEMENTS, positions)):
            where = f"{x:.3f} {y:.3f} {z:.3f} {model}"
            lines.append(f"HETATM {n + 1} {element} {NAMES[n % 3]} HOH A {n // 3 + 1} {where}")
    (folder / "models.cif").write_text("\n".join([*lines, "#", ""]))


def _plain_models(data: bytes) -> Found:
    """A block with a cell and one loop of atoms, a row a line."""
    lines = [line for line in data.decode("ascii").splitlines() if line.strip() and not line.startswith("#")]
    assert lines[0].startswith("data_")
    cell = dict(line.split() for line in lines[1 : lines.index("loop_")])
    rest = lines[lines.index("loop_") + 1 :]
    names = [line.strip() for line in rest if line.startswith("_atom_site.")]
    rows = [dict(zip(names, line.split(), strict=True)) for line in rest[len(names) :]]
    numbers = list(dict.fromkeys(row["_atom_site.pdbx_PDB_model_num"] for row in rows))
    box = _box([_float(cell[f"_cell.{name}"]) for name in ("length_a", "length_b", "length_c", "angle_alpha",
                                                           "angle_beta", "angle_gamma")])  # fmt: skip
    found = []
    for number in numbers:
        atoms = [row for row in rows if row["_atom_site.pdbx_PDB_model_num"] == number]
        places = [[_float(row[f"_atom_site.Cartn_{axis}"]) for axis in "xyz"] for row in atoms]
        elements = [row["_atom_site.type_symbol"].capitalize() for row in atoms]
        found.append({"positions": places, "elements": elements, "box": box})
    return _of_one_composition(found)


def _write_deepmd(folder: Path) -> None:
    what, place = frames(), folder / "water"
    (place / "set.000").mkdir(parents=True)
    (place / "type.raw").write_text("0 1 1 0 1 1\n")
    (place / "type_map.raw").write_text("O\nH\n")
    for name, values in (("coord", what.positions), ("force", what.forces / EV), ("box", np.array([what.box] * 3))):
        np.save(place / f"set.000/{name}.npy", values.reshape(3, -1))


def _read_deepmd(folder: Path) -> Found:
    from hpcfit.readers.arrays import open_deepmd
    from hpcfit.readers.units import Units

    found = open_deepmd(folder / "water", Units("A", "eV"))
    rows = list(found.frames(range(found.n_frames)))
    return {"positions": np.array([one.positions for one in rows]), "box": np.array([one.box for one in rows]),
            "forces": np.array([one.forces for one in rows]), "elements": np.array(found.elements)}  # fmt: skip


def _plain_coordinates(data: bytes) -> Found:
    what, values = frames(), _npy(data)
    return {"positions": values.reshape(3, N, 3), "forces": what.forces, "box": np.array([what.box] * 3)}


# ---- topologies ------------------------------------------------------------------------------------------------------


def _sorted(bonds: np.ndarray) -> np.ndarray:
    """Each pair and all of them in one order."""
    return np.unique(np.sort(bonds, axis=1), axis=0)


def _read_topology(file: str, *names: str) -> Callable[[Path], Found]:
    def read(folder: Path) -> Found:
        from hpcfit.readers.topology import read_particles, read_structure

        if file.endswith(".gro"):
            structure = read_structure(folder / file)
            found, positions, box = structure
            box = np.full((3, 3), np.nan) if box is None else box
            more = {"positions": positions, "box": box}
        else:
            found, more = read_particles(folder / file), {}
        said = {"names": np.array(found.names), "elements": np.array(found.elements), "masses": found.masses,
                "bonds": _sorted(found.bonds), "residue": np.asarray(found.residue)}  # fmt: skip
        return {name: said[name] for name in names} | more

    return read


def _write_gro(folder: Path) -> None:
    rows = [f"{n // 3 + 1:5d}{'SOL':<5}{NAMES[n % 3]:>5}{n + 1:5d}{x:8.3f}{y:8.3f}{z:8.3f}"
            for n, (x, y, z) in enumerate(frames().positions[0] / 10)]  # fmt: skip
    box = LEANING / 10
    numbers = [box[i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1))]
    lines = ["waters", f"{N:5d}", *rows, " ".join(f"{number:9.5f}" for number in numbers), ""]
    (folder / "run.gro").write_text("\n".join(lines))


def _plain_gro(data: bytes) -> Found:
    """A title, a count, so many atoms in columns of one width, and a box of three or nine numbers in nm."""
    lines = _text(data)
    n = _integer(lines[1])
    rows, box = lines[2 : 2 + n], [_float(word) for word in lines[2 + n].split()]
    assert 0 < n == len(rows)
    assert not any(line.strip() for line in lines[3 + n :])
    width = len(rows[0][20:].rstrip()) // 3
    positions = [[_float(row[at : at + width]) for at in (20, 20 + width, 20 + 2 * width)] for row in rows]
    matrix = np.zeros((3, 3))
    for (i, j), number in zip(((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)), box):
        matrix[i, j] = 10 * number
    assert len(box) in (3, 9)
    names = np.array([row[10:15].strip() for row in rows])
    return {"positions": 10 * np.array(positions), "box": matrix, "names": names}


def _write_psf(folder: Path) -> None:
    lines = ["PSF", "", f"{1:8d} !NTITLE", " REMARKS waters", "", f"{N:8d} !NATOM"]
    for n, element in enumerate(ELEMENTS):
        name = ("OH2", "H1", "H2")[n % 3]
        head = f"{n + 1:8d} WAT  {n // 3 + 1:<4d} TIP3 {name:<4} {name:<4}"
        lines.append(f"{head} {-0.834 if element == 'O' else 0.417:10.6f}  {MASSES[element]:12.4f}           0")
    lines += ["", f"{4:8d} !NBOND: bonds", "".join(f"{one:8d}" for one in (1, 2, 1, 3, 4, 5, 4, 6)), ""]
    lines += [f"{0:8d} !NTHETA: angles", "", ""]
    (folder / "run.psf").write_text("\n".join(lines))


def _plain_psf(data: bytes) -> Found:
    """Sections that begin with a count: rows of atoms, and numbers of bonds."""
    lines = _text(data)
    assert lines[0].startswith("PSF")
    (at,) = [n for n, line in enumerate(lines) if "!NATOM" in line]
    (bonds,) = [n for n, line in enumerate(lines) if "!NBOND" in line]
    rows = [line.split() for line in lines[at + 1 : at + 1 + _integer(lines[at].split()[0])]]
    numbers = []
    for line in lines[bonds + 1 :]:
        if "!" in line:
            break
        numbers += [_integer(word) for word in line.split()]
    assert len(numbers) == 2 * _integer(lines[bonds].split()[0])
    pairs = np.array(numbers).reshape(-1, 2) - 1
    assert np.all((pairs >= 0) & (pairs < len(rows)))
    return {"names": np.array([row[4] for row in rows]), "masses": np.array([_float(row[7]) for row in rows]),
            "bonds": _sorted(pairs)}  # fmt: skip


def _flag(name: str, form: str, values: list[str], width: int, per_line: int) -> str:
    rows = [values[a : a + per_line] for a in range(0, max(len(values), 1), per_line)]
    align = "<" if "a" in form else ">"
    text = "".join("".join(f"{one:{align}{width}}" for one in row) + "\n" for row in rows)
    return f"%FLAG {name:<73}\n%FORMAT({form}){'':<60}\n{text}"


def _write_prmtop(folder: Path) -> None:
    """What AMBER writes of two waters, its tables of angles, torsions and pairs empty."""
    pointers = [0] * 31
    pointers[0], pointers[1], pointers[2], pointers[11], pointers[15] = N, 2, 4, 2, 1  # atoms, types, bonds, residues
    charges = [18.2223 * (-0.834 if element == "O" else 0.417) for element in ELEMENTS]
    bonds = [3 * (a + 3 * w) if k < 2 else 1 for w in range(2) for b in (1, 2) for k, a in enumerate((0, b, 0))]
    exponent = "{:.8E}".format
    text = "%VERSION  VERSION_STAMP = V0001.000  DATE = 01/01/26  00:00:00\n"
    text += _flag("TITLE", "20a4", ["waters"], 4, 20)
    text += _flag("POINTERS", "10I8", list(map(str, pointers)), 8, 10)
    text += _flag("ATOM_NAME", "20a4", ["O", "H1", "H2"] * 2, 4, 20)
    text += _flag("CHARGE", "5E16.8", list(map(exponent, charges)), 16, 5)
    text += _flag("ATOMIC_NUMBER", "10I8", ["8" if element == "O" else "1" for element in ELEMENTS], 8, 10)
    text += _flag("MASS", "5E16.8", [exponent(MASSES[element]) for element in ELEMENTS], 16, 5)
    text += _flag("ATOM_TYPE_INDEX", "10I8", ["1" if element == "O" else "2" for element in ELEMENTS], 8, 10)
    text += _flag("RESIDUE_LABEL", "20a4", ["WAT", "WAT"], 4, 20)
    text += _flag("RESIDUE_POINTER", "10I8", ["1", "4"], 8, 10)
    text += _flag("BONDS_INC_HYDROGEN", "10I8", list(map(str, bonds)), 8, 10)
    for name in ("BONDS_WITHOUT_HYDROGEN", "ANGLES_INC_HYDROGEN", "ANGLES_WITHOUT_HYDROGEN",
                 "DIHEDRALS_INC_HYDROGEN", "DIHEDRALS_WITHOUT_HYDROGEN"):  # fmt: skip
        text += _flag(name, "10I8", [], 8, 10)
    text += _flag("AMBER_ATOM_TYPE", "20a4", ["OW", "HW", "HW"] * 2, 4, 20)
    (folder / "run.prmtop").write_text(text)


def _plain_prmtop(data: bytes) -> Found:
    """Sections of values of one width, as their formats say."""
    sections: dict[str, list[str]] = {}
    lines, name, width = _text(data), None, 0
    for line in lines[1:]:
        if line.startswith("%FLAG"):
            name = line.split()[1]
            assert name not in sections
            sections[name] = []
        elif line.startswith("%FORMAT"):
            width = int(re.search(r"\(\d+[aIE](\d+)", line)[1])
        else:
            assert name is not None
            sections[name] += [line[a : a + width].strip() for a in range(0, len(line.rstrip()), width)]
    n = int(sections["POINTERS"][0])
    found = {"names": sections["ATOM_NAME"], "masses": [_float(one) for one in sections["MASS"]],
             "elements": [{8: "O", 1: "H"}[int(one)] for one in sections["ATOMIC_NUMBER"]]}  # fmt: skip
    assert all(len(values) == n for values in found.values())
    bonds = np.array([int(one) for one in sections["BONDS_INC_HYDROGEN"]]).reshape(-1, 3)[:, :2] // 3
    assert len(bonds) == int(sections["POINTERS"][2])
    assert np.all((bonds >= 0) & (bonds < n))
    return {name: np.array(values) for name, values in found.items()} | {"bonds": _sorted(bonds)}


def _write_data(folder: Path) -> None:
    lines = ["LAMMPS data file", "", f"{N} atoms", "2 atom types", "4 bonds", "1 bond types", "",
             "0.0 12.0 xlo xhi", "0.0 13.0 ylo yhi", "0.0 14.0 zlo zhi", "", "Masses", "", "1 15.9994 # O",
             "2 1.008 # H", "", "Atoms # full", ""]  # fmt: skip
    for n in (2, 0, 5, 3, 1, 4):
        x, y, z = frames().positions[0, n]
        kind, charge = (1, -0.8) if ELEMENTS[n] == "O" else (2, 0.4)
        lines.append(f"{n + 1} {n // 3 + 1} {kind} {charge} {x:.3f} {y:.3f} {z:.3f}")
    lines += ["", "Bonds", "", "1 1 1 2", "2 1 1 3", "3 1 4 5", "4 1 4 6", ""]
    (folder / "run.data").write_text("\n".join(lines))


def _plain_data(data: bytes) -> Found:
    """Counts in the header, and sections of as many rows."""
    sections: dict[str, list[list[str]]] = {"": []}
    name = ""
    for line in io.StringIO(data.decode("utf-8"), newline=None).read().split("\n")[1:]:
        words = line.partition("#")[0].split()
        if words and words[0][0].isupper() and words[0].isalpha():
            name = words[0]
            assert name not in sections
            sections[name] = []
        elif words:
            sections[name].append(words)
    counts = {" ".join(row[1:]): _integer(row[0]) for row in sections[""] if len(row) in (2, 3) and row[1].isalpha()}
    mass = {_integer(row[0]): _float(row[1]) for row in sections["Masses"]}
    rows = sorted(sections["Atoms"], key=lambda row: _integer(row[0]))
    ids = [_integer(row[0]) for row in rows]
    assert len(set(ids)) == len(ids) == counts["atoms"]
    assert len(sections["Bonds"]) == counts["bonds"]
    assert len(mass) == len(sections["Masses"]) == counts["atom types"]
    assert all(len(row) == 7 and [_float(word) for word in row[3:]] for row in rows)
    bonds = np.array([[ids.index(_integer(word)) for word in row[2:4]] for row in sections["Bonds"]]).reshape(-1, 2)
    masses = np.array([mass[_integer(row[2])] for row in rows])
    return {"masses": masses, "bonds": _sorted(bonds),
            "elements": np.array(["O" if 15 < one < 17 else "H" if 0.9 < one < 1.1 else "?" for one in masses]),
            "residue": np.unique([_integer(row[1]) for row in rows], return_inverse=True)[1]}  # fmt: skip


_KNOWN = ("names", "elements", "masses", "bonds")
_CP2K = prepared("water-pos-1.xyz", forces=True)

# Name, file, writer, reader, plain reader, mutations.
ROWS = (
    ("dump of LAMMPS", "run.dump", _write_dump, prepared("run.dump", forces=True), _plain_dump, OF_TEXT),
    ("positions of CP2K", "water-pos-1.xyz", _write_cp2k, _CP2K, _plain_cp2k, OF_TEXT),
    ("forces of CP2K", "water-frc-1.xyz", _write_cp2k, _CP2K, _plain_cp2k_forces, OF_TEXT),
    ("boxes of CP2K", "water-1.cell", _write_cp2k, _CP2K, _plain_cp2k_cells, OF_TEXT),
    ("vasprun.xml", "vasprun.xml", _write_vasprun, prepared("vasprun.xml", forces=True), _plain_vasprun, OF_TEXT),
    ("OUTCAR", "OUTCAR", _write_outcar, prepared("OUTCAR", forces=True), _plain_outcar, OF_TEXT),
    ("models of mmCIF", "models.cif", _write_models, prepared("models.cif"), _plain_models, OF_TEXT),
    ("arrays of DeePMD", "water/set.000/coord.npy", _write_deepmd, _read_deepmd, _plain_coordinates, OF_BYTES),
    ("GRO", "run.gro", _write_gro, _read_topology("run.gro", "names", "elements"), _plain_gro, OF_TEXT),
    ("PSF", "run.psf", _write_psf, _read_topology("run.psf", *_KNOWN), _plain_psf, OF_TEXT),
    ("PRMTOP", "run.prmtop", _write_prmtop, _read_topology("run.prmtop", *_KNOWN), _plain_prmtop, OF_TEXT),
    ("data of LAMMPS", "run.data", _write_data, _read_topology("run.data", *_KNOWN[1:], "residue"), _plain_data,
     OF_TEXT),
)  # fmt: skip
