"""Plain readers of each format: what a file holds by the definition of its bytes and lines, without a library.

Each gives arrays by name, in A, kJ/mol and ps, and raises whatever its parsing meets where a file is not as the
format is defined. They share no code with hpcfit, and are slow.
"""

import ast
import csv
import io
import struct
import zipfile

import numpy as np

Found = dict[str, np.ndarray]
KCAL = 4.184
EV = 96.48533212331  # kJ/mol


def _box(cell) -> np.ndarray:
    """The matrix of lengths and angles (degrees), a along x and b in the plane of x and y; NaN for none."""
    a, b, c, *angles = (float(one) for one in cell)
    if min(a, b, c) <= 1:
        return np.full((3, 3), np.nan)
    # 90 - asin(0) is 90: cosines of right angles are 0 exactly
    cosines = [0.0 if angle == 90 else np.cos(np.radians(angle)) for angle in angles]
    return _of_cosines(a, b, c, *cosines)


def _of_cosines(a, b, c, ca, cb, cg) -> np.ndarray:
    sg = np.sqrt(1 - cg**2)
    y = (ca - cb * cg) / sg
    box = np.array([[a, 0, 0], [b * cg, b * sg, 0], [c * cb, c * y, c * np.sqrt(1 - cb**2 - y**2)]])
    assert np.all(np.isfinite(box)), "the angles span no volume"
    return box


def _frames(frames: list[dict]) -> Found:
    """Arrays [T, ...] of frames; what all of them lack is left out."""
    assert frames
    names = [name for name in frames[0] if frames[0][name] is not None]
    return {name: np.array([np.asarray(frame[name]) for frame in frames]) for name in names}


# ---- trajectories of bytes ------------------------------------------------------------------------------------------


def dcd(data: bytes) -> Found:
    """DCD of CHARMM: records of Fortran."""
    order = "<" if struct.unpack("<i", data[:4])[0] == 84 else ">"

    def record(place: int, size: int | None = None) -> tuple[bytes, int]:
        (n,) = struct.unpack(f"{order}i", data[place : place + 4])
        assert size is None or n == size
        assert n >= 0
        body, end = data[place + 4 : place + 4 + n], data[place + 4 + n : place + 8 + n]
        assert struct.unpack(f"{order}i", end)[0] == n
        return body, place + 8 + n

    head, place = record(0, 84)
    assert head[:4] == b"CORD"
    icntrl = struct.unpack(f"{order}20i", head[4:])
    (delta,) = struct.unpack(f"{order}f", head[40:44])
    n_set, first, every, fixed, has_box, four = (
        icntrl[0],
        icntrl[1],
        max(icntrl[2], 1),
        icntrl[8],
        icntrl[10],
        icntrl[11],
    )
    assert icntrl[19] != 0
    assert fixed == 0
    assert four == 0
    title, place = record(place)
    assert len(title) == 4 + 80 * struct.unpack(f"{order}i", title[:4])[0]
    body, place = record(place, 4)
    (n,) = struct.unpack(f"{order}i", body)
    frames = []
    while place < len(data):
        box = np.full((3, 3), np.nan)
        if has_box:
            body, place = record(place, 48)
            box = _dcd_box(struct.unpack(f"{order}6d", body))
        axes = []
        for _ in range(3):
            body, place = record(place, 4 * n)
            axes.append(np.frombuffer(body, f"{order}f4"))
        step = first + len(frames) * every
        frames.append({"positions": np.stack(axes, 1).astype(float), "box": box, "step": step,
                       "time": step * float(delta) * 4.888821e-2})  # fmt: skip
    assert len(frames) == n_set
    return _frames(frames)


def _dcd_box(numbers) -> np.ndarray:
    a, xy, b, xz, yz, c = numbers
    if not min(abs(a), abs(b), abs(c)) > 1:
        return np.full((3, 3), np.nan)
    if max(abs(xy), abs(xz), abs(yz)) <= 1:
        return _of_cosines(a, b, c, yz, xz, xy)
    if min(xy, xz, yz) < 15 or max(xy, xz, yz) >= 180:
        return np.array([[a, xy, xz], [xy, b, yz], [xz, yz, c]])
    return _box((a, b, c, yz, xz, xy))


def trr(data: bytes) -> Found:
    """TRR of GROMACS: XDR."""
    place, frames = 0, []
    while place < len(data):
        magic, _, length = struct.unpack(">3i", data[place : place + 12])
        assert magic == 1993
        assert 0 <= length <= 64
        place += 12 + -(-length // 4) * 4
        sizes = struct.unpack(">13i", data[place : place + 52])
        place += 52
        _, _, box_size, vir, pres, _, _, x_size, v_size, f_size, n, step, _ = sizes
        width = next(
            size // count for size, count in ((box_size, 9), (x_size, 3 * n), (v_size, 3 * n), (f_size, 3 * n)) if size
        )
        assert width in (4, 8)
        assert sizes[0] == sizes[1] == sizes[5] == sizes[6] == 0
        kind = f">f{width}"
        time = np.frombuffer(data[place : place + width], kind)[0]
        place += 2 * width
        parts = {}
        for name, size in (
            ("box", box_size),
            ("vir", vir),
            ("pres", pres),
            ("x", x_size),
            ("v", v_size),
            ("f", f_size),
        ):
            assert size in ((0, 9 * width) if name in ("box", "vir", "pres") else (0, 3 * n * width))
            assert place + size <= len(data)
            parts[name] = np.frombuffer(data[place : place + size], kind).astype(float).reshape(-1, 3)
            place += size
        assert x_size
        box = parts["box"] * 10 if box_size and np.any(parts["box"]) else np.full((3, 3), np.nan)
        forces = parts["f"] / 10 if f_size else None
        frames.append({"positions": parts["x"] * 10, "forces": forces, "box": box, "step": step, "time": float(time)})
    return _frames(frames)


MAGIC = [0] * 9 + [
    8, 10, 12, 16, 20, 25, 32, 40, 50, 64, 80, 101, 128, 161, 203, 256, 322, 406, 512, 645, 812, 1024, 1290, 1625, 2048,
    2580, 3250, 4096, 5060, 6501, 8192, 10321, 13003, 16384, 20642, 26007, 32768, 41285, 52015, 65536, 82570, 104031,
    131072, 165140, 208063, 262144, 330280, 416127, 524287, 660561, 832255, 1048576, 1321122, 1664510, 2097152, 2642245,
    3329021, 4194304, 5284491, 6658042, 8388607, 10568983, 13316085, 16777216,
]  # fmt: skip


class _Bits:
    """The bits of a stretch of bytes, the highest first."""

    def __init__(self, data: bytes):
        self._bits, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, n: int) -> int:
        assert 0 <= n <= self._left, "the bits end"
        self._left -= n
        return (self._bits >> self._left) & ((1 << n) - 1)

    def numbers(self, bits: int, sizes: list[int]) -> list[int]:
        """Three numbers below these sizes in so many bits: bytes of a product, the lowest first."""
        value, place = 0, 0
        while bits > 8:
            value |= self.take(8) << place
            bits, place = bits - 8, place + 8
        value |= self.take(bits) << place
        rest, third = divmod(value, sizes[2])
        first, second = divmod(rest, sizes[1])
        return [first, second, third]


def _xtc_coordinates(
    data: bytes, n: int, precision: float, least: list[int], largest: list[int], small: int
) -> np.ndarray:
    """Three integers an atom by differences to the one before (xdrf of van Hoesel and van der Spoel)."""
    bits = _Bits(data)
    sizes = [b - a + 1 for a, b in zip(least, largest)]
    assert all(0 < one < 2**32 for one in sizes)
    large = max(sizes) > 0xFFFFFF
    widths = [one.bit_length() for one in sizes]
    together = (sizes[0] * sizes[1] * sizes[2]).bit_length()
    assert 9 <= small < len(MAGIC)
    smaller, half, size = MAGIC[max(9, small - 1)] // 2, MAGIC[small] // 2, MAGIC[small]
    found, run = [], 0
    while len(found) < n:
        here = [bits.take(width) for width in widths] if large else bits.numbers(together, sizes)
        here = [one + low for one, low in zip(here, least)]
        shift = 0
        if bits.take(1):
            run = bits.take(5)
            shift = run % 3 - 1
            run -= run % 3
        before = here
        if not run:
            found.append(here)
        for k in range(0, run, 3):
            one = [d + low - half for d, low in zip(bits.numbers(small, [size] * 3), before)]
            found += [one] if k else [one, here]  # the second atom of a water stands first
            before = one
        small += shift
        assert 9 <= small < len(MAGIC)
        if shift < 0:
            half = smaller
            smaller = MAGIC[small - 1] // 2 if small > 9 else 0
        elif shift > 0:
            smaller, half = half, MAGIC[small] // 2
        size = MAGIC[small]
        assert size
    assert len(found) == n
    return np.array(found, np.float64) / precision


def xtc(data: bytes) -> Found:
    """XTC of GROMACS: XDR, with compressed coordinates beyond nine atoms."""
    place, frames = 0, []
    while place < len(data):
        magic, n, step = struct.unpack(">3i", data[place : place + 12])
        assert magic == 1995
        (time,) = struct.unpack(">f", data[place + 12 : place + 16])
        box = np.frombuffer(data[place + 16 : place + 52], ">f4").astype(float).reshape(3, 3) * 10
        (again,) = struct.unpack(">i", data[place + 52 : place + 56])
        assert again == n
        place += 56
        if n <= 9:
            x = np.frombuffer(data[place : place + 12 * n], ">f4").astype(float).reshape(n, 3)
            place += 12 * n
        else:
            precision, *numbers = struct.unpack(">f8i", data[place : place + 36])
            least, largest, (small, size) = numbers[:3], numbers[3:6], numbers[6:]
            place += 36
            assert size >= 0
            assert place + size <= len(data)
            x = _xtc_coordinates(data[place : place + size], n, precision, least, largest, small)
            place += -(-size // 4) * 4
        box = box if np.any(box) else np.full((3, 3), np.nan)
        frames.append({"positions": x * 10, "box": box, "step": step, "time": time})
    return _frames(frames)


def netcdf(data: bytes) -> Found:
    """AMBER's NetCDF, in the classic format with 64-bit offsets."""
    variables = _netcdf_variables(data)
    x = variables["coordinates"][0].astype(float)
    assert x.ndim == 3
    assert x.shape[2] == 3
    found = {"positions": x, "time": variables["time"][0].astype(float)}
    lengths, angles = (variables.get(name, (None, {}))[0] for name in ("cell_lengths", "cell_angles"))
    found["box"] = np.array([_box((*a, *b)) for a, b in zip(lengths, angles)]) if lengths is not None else np.full(
        (len(x), 3, 3), np.nan)  # fmt: skip
    if "forces" in variables:
        forces, attributes = variables["forces"]
        found["forces"] = forces.astype(float) * attributes.get("scale_factor", 1.0) * KCAL
    return found


def _netcdf_variables(data: bytes) -> dict:
    assert data[:3] == b"CDF"
    assert data[3] in (1, 2)
    place = 4
    types = {1: "S1", 2: "S1", 3: ">i2", 4: ">i4", 5: ">f4", 6: ">f8"}

    def take(kind: str) -> int:
        nonlocal place
        (value,) = struct.unpack(kind, data[place : place + struct.calcsize(kind)])
        place += struct.calcsize(kind)
        return value

    def name() -> str:
        nonlocal place
        n = take(">i")
        assert 0 <= n < 1000
        found = data[place : place + n].decode("ascii")
        place += -(-n // 4) * 4
        return found

    def listed(tag: int, each) -> list:
        found, n = take(">i"), take(">i")
        assert found in (0, tag)
        assert 0 <= n < 1000
        assert found or not n
        return [each() for _ in range(n)]

    def attribute():
        nonlocal place
        key, kind, n = name(), np.dtype(types[take(">i")]), take(">i")
        size = kind.itemsize * n
        assert 0 <= size <= len(data)
        value = np.frombuffer(data[place : place + size], kind)
        place += -(-size // 4) * 4
        return key, value[0] if n == 1 and kind.kind != "S" else value.tobytes()

    n_records = take(">i")
    dimensions = listed(10, lambda: (name(), take(">i")))
    listed(12, attribute)
    offset = ">i" if data[3] == 1 else ">q"
    variables = listed(11, lambda: (name(), [take(">i") for _ in range(take(">i"))], dict(listed(12, attribute)),
                                    np.dtype(types[take(">i")]), take(">i"), take(offset)))  # fmt: skip
    sizes = [size for _, size in dimensions]
    of_record = [one for one in variables if one[1] and sizes[one[1][0]] == 0]
    padded = {one[0]: -(-one[3].itemsize * int(np.prod([sizes[d] for d in one[1][1:]])) // 4) * 4 for one in of_record}
    stride, found = sum(padded.values()), {}
    for key, ids, attributes, kind, _, begin in variables:
        shape = [sizes[d] for d in ids]
        if key in padded:
            width = kind.itemsize * int(np.prod(shape[1:]))
            rows = [data[begin + k * stride : begin + k * stride + width] for k in range(n_records)]
            if any(len(row) != width for row in rows):  # no harm in a variable that nobody asks for
                continue
            array = np.frombuffer(b"".join(rows), kind).reshape(n_records, *shape[1:])
        else:
            width = kind.itemsize * int(np.prod(shape))
            if begin + width > len(data):
                continue
            array = np.frombuffer(data[begin : begin + width], kind).reshape(shape)
        found[key] = (array, attributes)
    return found


def h5md(data: bytes) -> Found:
    """H5MD by the datasets of its only group of particles. The bytes of HDF5 are read by h5py here as well."""
    import h5py

    with h5py.File(io.BytesIO(data)) as file:
        (group,) = (one for one in file["particles"].values() if "position" in one)
        steps = group["position/step"][:]
        found = {
            "positions": group["position/value"][:].astype(float),
            "step": steps,
            "time": group["position/time"][:],
        }
        assert found["positions"].shape[1:] == (6, 3)
        if "force" in group:
            rows = [group["force/step"][:].tolist().index(step) for step in steps.tolist()]
            found["forces"] = group["force/value"][:][rows].astype(float)
        periodic = [one in ("periodic", b"periodic") for one in group["box"].attrs["boundary"].tolist()]
        rows = [group["box/edges/step"][:].tolist().index(step) for step in steps.tolist()]
        edges = group["box/edges/value"][:][rows].astype(float)
        found["box"] = edges if any(periodic) else np.full((len(steps), 3, 3), np.nan)
        assert np.all(np.diff(steps) > 0)
    return found


# ---- trajectories of text -------------------------------------------------------------------------------------------


def _text(data: bytes) -> list[str]:
    """Lines of UTF-8; a file of another system has other line ends."""
    return io.StringIO(data.decode("utf-8"), newline=None).read().split("\n")


def _float(text: str) -> float:
    value = float(text.replace("_", "x"))
    assert np.isfinite(value)
    return value


def xdatcar(data: bytes) -> Found:
    """XDATCAR of VASP 5: a head, and direct coordinates; the head may come again, with another cell."""
    lines, place, frames, cell = _text(data.rstrip() + b"\n"), 0, [], None
    while place < len(lines) - 1:
        if not lines[place].lower().startswith("direct"):
            scale = _float(lines[place + 1])
            assert scale > 0
            cell = scale * np.array([[_float(word) for word in line.split()] for line in lines[place + 2 : place + 5]])
            assert cell.shape == (3, 3)
            symbols, counts = lines[place + 5].split(), [int(word) for word in lines[place + 6].split()]
            assert len(symbols) == len(counts)
            elements = [symbol for symbol, n in zip(symbols, counts) for _ in range(n)]
            place += 7
        assert lines[place].lower().startswith("direct")
        rows = [line.split() for line in lines[place + 1 : place + 1 + len(elements)]]
        direct = np.array([[_float(word) for word in row[:3]] for row in rows])
        assert direct.shape == (len(elements), 3)
        frames.append({"positions": direct @ cell, "box": cell, "elements": elements})
        place += 1 + len(elements)
    return _of_one_composition(frames)


def _of_one_composition(frames: list[dict]) -> Found:
    assert all(frame["elements"] == frames[0]["elements"] for frame in frames)
    return _frames(frames) | {"elements": np.array(frames[0]["elements"])}


def extxyz(data: bytes) -> Found:
    """Extended XYZ with species, pos and forces, a Lattice and pbc."""
    lines, place, frames = _text(data), 0, []
    while any(line.strip() for line in lines[place:]):
        n = int(lines[place])
        pairs = _pairs(lines[place + 1])
        columns = pairs["properties"].split(":")
        layout = list(zip(columns[::3], columns[1::3], map(int, columns[2::3])))
        rows = [line.split() for line in lines[place + 2 : place + 2 + n]]
        assert n > 0
        assert all(len(row) == sum(width for _, _, width in layout) for row in rows)
        assert len(rows) == n
        parts, at = {}, 0
        for name, kind, width in layout:
            cells = [row[at : at + width] for row in rows]
            parts[name] = (
                [row[0] for row in cells] if kind == "S" else [[_float(word) for word in row] for row in cells]
            )
            at += width
        box, pbc = np.full((3, 3), np.nan), [False] * 3
        if "lattice" in pairs:
            box = np.array([_float(word) for word in pairs["lattice"].split()]).reshape(3, 3)
            pbc = [True] * 3
        if "pbc" in pairs:
            pbc = [{"t": True, "f": False, "true": True, "false": False}[word.lower()] for word in pairs["pbc"].split()]
        forces = np.array(parts["forces"]) * EV if "forces" in parts else None
        frames.append({"positions": parts["pos"], "forces": forces, "box": box, "pbc": pbc,
                       "elements": parts["species"]})  # fmt: skip
        place += 2 + n
    return _of_one_composition(frames)


def _pairs(line: str) -> dict[str, str]:
    """key=value and key="several words", keys in small letters."""
    found, rest = {}, line.strip()
    while rest:
        key, equals, rest = rest.partition("=")
        assert equals
        assert key.strip()
        if rest.startswith('"'):
            value, quote, rest = rest[1:].partition('"')
            assert quote
        else:
            value, _, rest = rest.partition(" ")
        assert key.strip().lower() not in found
        found[key.strip().lower()] = value
        rest = rest.strip()
    return found


def pdb(data: bytes) -> Found:
    """Models of a PDB file by its columns; one box of all."""
    box, frames, atoms, inside = None, [], [], False
    for line in data.decode("utf-8").splitlines():
        if line.startswith("CRYST1"):
            found = _box([line[a:b] for a, b in ((6, 15), (15, 24), (24, 33), (33, 40), (40, 47), (47, 54))])
            assert box is None or np.array_equal(found, box, equal_nan=True)
            box = found
        elif line.startswith("MODEL "):
            assert not inside
            inside, atoms = True, []
        elif line.startswith(("ATOM  ", "HETATM")):
            atoms.append((line[76:78].strip().capitalize(), [_float(line[a : a + 8]) for a in (30, 38, 46)]))
        elif line.startswith("ENDMDL"):
            assert inside
            frames.append(atoms)
            inside, atoms = False, []
    assert not inside
    frames = frames or [atoms]
    box = np.full((3, 3), np.nan) if box is None else box
    assert all(element for frame in frames for element, _ in frame)
    return _of_one_composition([{"positions": [x for _, x in frame], "box": box, "elements": [one for one, _ in frame]}
                                for frame in frames])  # fmt: skip


# ---- tables, archives and maps --------------------------------------------------------------------------------------


def table(data: bytes) -> Found:
    """Numbers in rows of a CSV file, under a line of names where there is one."""
    rows = [row for row in csv.reader(io.StringIO(data.decode("utf-8"), newline="")) if row]
    try:
        [float(word) for word in rows[0]]
    except ValueError:
        rows = rows[1:]
    values = np.array([[_float(word) for word in row] for row in rows])
    assert values.ndim == 2
    return {"values": values}


def measurements(data: bytes) -> Found:
    """Rows of name, value and sigma, with commas or without; # begins a comment."""
    rows = [line.partition("#")[0].strip() for line in data.decode("utf-8").splitlines()]
    rows = [[word.strip() for word in row.split(",")] if "," in row else row.split() for row in rows if row]
    try:
        float(rows[0][1])
    except ValueError:
        rows = rows[1:]
    numbers = np.array([[_float(word) for word in row[1:3]] for row in rows])
    assert np.all(numbers[:, 1] > 0)
    assert len({row[0] for row in rows}) == len(rows)
    bound = [{"UPPER": 1, "LOWER": -1}[row[3]] if len(row) == 4 else 0 for row in rows]
    assert all(len(row) in (3, 4) for row in rows)
    return {"values": numbers, "names": np.array([row[0] for row in rows]), "bound": np.array(bound)}


def curve(data: bytes) -> Found:
    """The longest run of lines with three numbers, between text above and below it."""
    lines = [line.partition("#")[0].strip() for line in data.decode("utf-8", "replace").splitlines()]
    best: list = []
    run: list = []
    for line in [*(line for line in lines if line), ""]:
        try:
            run.append([float(word.replace("_", "x")) for word in line.replace(",", " ").replace(";", " ").split()[:3]])
            assert len(run[-1]) == 3
        except (ValueError, AssertionError):
            best, run = max(best, [row for row in run if len(row) == 3], key=len), []
    values = np.array(best)
    assert np.all(np.isfinite(values))
    assert np.all(np.diff(values[:, 0]) > 0)
    assert np.all(values[:, 2] > 0)
    return {"values": values}


def archive(data: bytes) -> Found:
    """The arrays of a NumPy archive, by the heads of its members; zipfile compares their CRC."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name.removesuffix(".npy"): _npy(file.read(name)) for name in file.namelist()}


def _npy(data: bytes) -> np.ndarray:
    assert data[:6] == b"\x93NUMPY"
    assert data[6] in (1, 2, 3)
    size, start = (struct.unpack("<H", data[8:10])[0], 10) if data[6] == 1 else (struct.unpack("<I", data[8:12])[0], 12)
    said = ast.literal_eval(data[start : start + size].decode())
    body = data[start + size :]
    kind = np.dtype(said["descr"])
    assert len(body) == kind.itemsize * int(np.prod(said["shape"]))
    return np.frombuffer(body, kind).reshape(said["shape"], order="F" if said["fortran_order"] else "C")


def mtz(data: bytes) -> Found:
    """Reflections of an MTZ by its records of 80 characters; those without amplitude or phase are left out."""
    assert data[:4] == b"MTZ "
    order = {0x44: "<", 0x11: ">"}[data[8]]
    (start,) = struct.unpack(f"{order}i", data[4:8])
    head = data[4 * (start - 1) :]
    records = [head[k : k + 80].decode("latin-1") for k in range(0, len(head), 80)]
    records = records[: next(k for k, one in enumerate(records) if one.split() == ["END"]) + 1]
    assert all(one.isprintable() and one.isascii() for one in records)
    assert records[0].startswith("VERS")
    n_columns, n_rows = next(map(int, one.split()[1:3]) for one in records if one.startswith("NCOL"))
    labels = [one.split()[1] for one in records if one.startswith("COLUMN")]
    kinds = [one.split()[2] for one in records if one.startswith("COLUMN")]
    assert len(labels) == n_columns
    assert len(set(labels)) == n_columns
    values = np.frombuffer(data[80 : 4 * (start - 1)], f"{order}f4")
    assert len(values) >= n_columns * n_rows
    columns = dict(zip(labels, values[: n_columns * n_rows].reshape(n_rows, n_columns).T.astype(float)))
    assert [kinds[labels.index(name)] for name in ("H", "K", "L", "FC", "PHIC")] == ["H", "H", "H", "F", "P"]
    hkl = np.rint(np.stack([columns[name] for name in "HKL"], axis=1))
    there = np.isfinite(columns["FC"]) & np.isfinite(columns["PHIC"])
    cell = next([float(word) for word in one.split()[1:7]] for one in records if one.startswith("CELL"))
    return {"hkl": hkl[there], "amplitude": columns["FC"][there], "phase": columns["PHIC"][there],
            "cell": np.array(cell)}  # fmt: skip
