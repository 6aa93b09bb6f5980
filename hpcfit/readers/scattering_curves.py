"""Measured scattering curves: three columns of any SAXS program, canSAS XML and NXcanSAS; detectors stitched, solvents
subtracted, and the fit of Guinier with its checks.

q is in 1/A here, whatever the file has. Fields stand between white space, commas or semicolons; # begins a comment, and
text above and below the numbers is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from hpcfit.errors import InputError, check_is_file, nearest
from hpcfit.readers.boundary import reading
from hpcfit.readers.tables import number

PER_ANGSTROM = {"1/A": 1.0, "1/nm": 0.1}
LARGEST_Q = 50.0  # 1/A, beyond which no instrument measures
LARGEST = 1e100  # of intensities and errors, whose squares are to be finite
CANSAS, NXCANSAS = (".xml",), (".h5", ".hdf", ".hdf5", ".nxs")
RULE = "measured"
DECIMAL_COMMAS = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?(\s+[+-]?\d+,\d+([eE][+-]?\d+)?)+")
SigmaRule = Literal["measured", "drop"] | float  # see `read_scattering_curve`


class ScatteringCurve(NamedTuple):
    """A curve. q: [M] 1/A, ascending; intensity, sigma: [M], sigma above 0; source: where it comes from, for people;
    dropped: rows that the rule of sigma left out."""

    q: np.ndarray
    intensity: np.ndarray
    sigma: np.ndarray
    source: str = ""
    dropped: int = 0

    def between(self, q_min: float = 0.0, q_max: float = np.inf) -> ScatteringCurve:
        """The rows with q_min <= q <= q_max."""
        held = (self.q >= q_min) & (self.q <= q_max)
        if not held.any():
            raise InputError(
                f"{self.source} reaches from q = {self.q[0]:g} to {self.q[-1]:g} 1/A, and no row lies between {q_min:g}"
                f" and {q_max:g}",
                remedy="give a range that the curve covers",
            )
        return self._replace(q=self.q[held], intensity=self.intensity[held], sigma=self.sigma[held])


def read_scattering_curve(
    path: Path, unit: str = "1/A", columns: Sequence[int] = (0, 1, 2), sigma: SigmaRule = RULE
) -> ScatteringCurve:
    """A curve of a file: by its ending canSAS XML or NXcanSAS, whose own units count, else text.

    unit: of q in text, 1/A or 1/nm; columns: of q, I and sigma in text, from 0. sigma: the rule for errors that are
    missing, 0 or negative: "measured" makes them an error of the input, "drop" leaves these rows out, a number sets
    them to that fraction of |I|.
    """
    path = Path(path)
    if unit not in PER_ANGSTROM:
        raise InputError(f"unit = '{unit}' is none of q", remedy=nearest(unit, PER_ANGSTROM))
    check_is_file(path)
    by_library = path.suffix.lower() in CANSAS + NXCANSAS
    values, lines = _by_sasdata(path) if by_library else _of_text(path, columns, sigma)
    if not by_library:
        values[:, 0] *= PER_ANGSTROM[unit]
    values, lines, dropped = _with_sigma(path, values, lines, sigma)
    _check_q(path, values[:, 0], lines, unit)
    _check_sizes(path, values, lines)
    return ScatteringCurve(*values.T.copy(), str(path), dropped)


# ---- files ---------------------------------------------------------------------------------------------------------


def _of_text(path: Path, columns: Sequence[int], sigma: SigmaRule) -> tuple[np.ndarray, list[str]]:
    """Rows [M, 3] of q, I, sigma (NaN where there is none) and the place of each."""
    with reading(f"{path} cannot be read as text", "write it as UTF-8 text"):
        text = path.read_text(encoding="utf-8", errors="replace")
    lines = [(n, line.partition("#")[0].strip()) for n, line in enumerate(text.splitlines(), 1)]
    rows = [(n, re.split(r"[\s,;]+", line.strip(",; \t"))) for n, line in lines if line]
    if rows and all(DECIMAL_COMMAS.fullmatch(line) for _, line in lines if line):
        raise InputError(f"{path} has numbers with decimal commas: '{lines[0][1]}'", remedy="write them with points")
    start, stop = _longest_block(rows, max(columns[:2]) + 1)
    _check_beside(path, rows, start, stop, columns)
    rows = rows[start:stop]
    if not rows:
        raise InputError(f"{path} has no rows of numbers", remedy="give rows of q, intensity and sigma")
    found = []
    for n, fields in rows:
        picked = [number(fields[c]) if c < len(fields) else None for c in columns]
        for name, value in zip(("q", "intensity"), picked):
            if value is None or not np.isfinite(value):
                raise InputError(f"{path}: line {n}: {name} is no finite number", remedy="correct or remove the row")
        found.append([np.nan if value is None else value for value in (*picked, None)[:3]])
    if len(columns) > 2 and sigma == RULE and all(len(fields) <= columns[2] for _, fields in rows):
        raise InputError(
            f"{path}: line {rows[0][0]} has {len(rows[0][1])} fields, and sigma is asked for in field {columns[2] + 1}",
            remedy="give the errors of the curve, or sigma = 0.03, say: that fraction of the intensity",
        )
    return np.array(found, float), [f"line {n}" for n, _ in rows]


def _longest_block(rows: list[tuple[int, list[str]]], columns: int) -> tuple[int, int]:
    """The longest run of rows that begin with so many numbers: the table between heads and feet, which may hold numbers
    too."""
    numeric = [len(f) >= columns and all(number(one) is not None for one in f[:columns]) for _, f in rows]
    best, start = (0, 0), None
    for place, good in enumerate([*numeric, False]):
        if good and start is None:
            start = place
        if not good and start is not None:
            best, start = max(best, (start, place), key=lambda one: one[1] - one[0]), None
    return best


def _check_beside(path: Path, rows: list[tuple[int, list[str]]], start: int, stop: int, columns: Sequence[int]) -> None:
    """Raise InputError where rows beside the table go on with it: as many numbers, q before or behind, I not 0. The
    line between them cannot be read, and they would be lost."""

    def of(place: int) -> list[float] | None:
        fields = rows[place][1]
        values = [number(fields[c]) for c in columns if c < len(fields)]
        fits = len(fields) == len(rows[start][1]) and None not in values and np.all(np.isfinite(values))
        return values if fits and values[1] else None

    if stop - start < 2:
        return
    first, last = of(start), of(stop - 1)
    for place in (*range(start), *range(stop, len(rows))):
        there = of(place)
        if there and first and last and (0 <= there[0] < first[0] if place < start else there[0] > last[0]):
            n, fields = rows[start - 1] if place < start else rows[stop]
            raise InputError(
                f"{path}: line {n}: '{' '.join(fields)[:60]}' cannot be read, between line {rows[min(place, start)][0]}"
                f" and line {rows[max(place, stop - 1)][0]} of the table",
                remedy="correct or remove the line",
            )


def _by_sasdata(path: Path) -> tuple[np.ndarray, list[str]]:
    """The first one-dimensional data of a file of canSAS or NXcanSAS."""
    try:
        from sasdata.dataloader.loader import Loader
    except ImportError:
        raise InputError(
            f"{path} is of canSAS, and sasdata is not installed", remedy="pip install 'hpcfit[clusters]'"
        ) from None
    with reading(f"{path} cannot be read by sasdata", "write it as canSAS 1.0, 1.1 or NXcanSAS, or as three columns"):
        found = [data for data in Loader().load(str(path)) if np.size(getattr(data, "x", None)) > 1]
        if not found:
            raise ValueError("no one-dimensional data in it")
        data = found[0]
        unit = str(data.x_unit).replace(" ", "")
        factor = {"A^{-1}": 1.0, "1/A": 1.0, "1/angstrom": 1.0, "nm^{-1}": 0.1, "1/nm": 0.1}.get(unit)
        if factor is None:
            raise ValueError(f"its q is in '{unit}'")
        error = np.full(len(data.x), np.nan) if data.dy is None or len(data.dy) == 0 else data.dy
        values = np.stack([np.asarray(data.x, float) * factor, data.y, error], axis=1).astype(float)
    return values, [f"row {n}" for n in range(1, len(values) + 1)]


def _with_sigma(path: Path, values: np.ndarray, lines: list[str], rule: SigmaRule) -> tuple[np.ndarray, list[str], int]:
    """The rows by the rule of sigma, and how many it left out."""
    wrong = ~(np.isfinite(values[:, 2]) & (values[:, 2] > 0))
    if not wrong.any():
        return values, lines, 0
    if rule == "drop":
        kept = np.flatnonzero(~wrong)
        if not len(kept):
            raise InputError(f"{path}: no row has a sigma above 0", remedy="give sigma = 0.03, say: a fraction of I")
        return values[kept], [lines[k] for k in kept], int(wrong.sum())
    if rule != RULE:
        values[wrong, 2] = float(rule) * np.abs(values[wrong, 1])
        wrong = values[:, 2] <= 0
        if not wrong.any():
            return values, lines, 0
    first = int(np.argmax(wrong))
    said = "missing" if np.isnan(values[first, 2]) else f"{values[first, 2]:g}, not above 0"
    raise InputError(
        f"{path}: {lines[first]}: sigma is {said}, at I = {values[first, 1]:g} ({wrong.sum()} of {len(wrong)} rows)",
        remedy="give standard errors, sigma = 'drop' to leave such rows out, or sigma = 0.03: that fraction of I",
    )


def _check_q(path: Path, q: np.ndarray, lines: list[str], unit: str) -> None:
    wrong = np.flatnonzero(np.diff(q) <= 0)
    if len(wrong):
        before, behind = wrong[0], wrong[0] + 1
        raise InputError(
            f"{path}: {lines[behind]} is at q = {q[behind]:g}, but {lines[before]} at {q[before]:g} 1/A",
            remedy="sort the rows; give each detector a file of its own, which are stitched",
        )
    if q[0] < 0 or q[-1] > LARGEST_Q:
        raise InputError(
            f"{path}: q from {q[0]:g} to {q[-1]:g} 1/A cannot be: 0 to {LARGEST_Q:g} can",
            remedy=f"correct unit = '{unit}', or the columns",
        )


def _check_sizes(path: Path, values: np.ndarray, lines: list[str]) -> None:
    """Raise InputError for numbers whose squares are none, and for a curve without an intensity above 0."""
    sizes = np.abs(values[:, 1:])
    wrong = np.any(sizes > LARGEST, axis=1) | (sizes[:, 1] < 1 / LARGEST)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"{path}: {lines[row]}: I = {values[row, 1]:g} and sigma = {values[row, 2]:g} cannot be measured",
            remedy=f"give sizes between {1 / LARGEST:g} and {LARGEST:g}, or correct the columns",
        )
    if not np.any(values[:, 1] > 0):
        raise InputError(
            f"{path}: no intensity is above 0, from I = {values[0, 1]:g} at {lines[0]} to {values[-1, 1]:g} at"
            f" {lines[-1]}",
            remedy="check the subtraction of the solvent, or correct the columns",
        )


# ---- detectors and solvents ----------------------------------------------------------------------------------------


class Overlap(NamedTuple):
    """Two segments compared. scale: what the second is multiplied by; error: of it; points: of the second within the
    first; reduced: chi2 a degree of freedom, of the differences there; deviation: their root mean square, relative to
    I."""

    between: tuple[str, str]
    scale: float
    error: float
    points: int
    reduced: float
    deviation: float


def stitched(
    segments: Sequence[ScatteringCurve], scaled: bool = True, tolerance: float = 0.05
) -> tuple[ScatteringCurve, list[Overlap]]:
    """One curve of the segments of several detectors, sorted by q, and how they agree where they overlap.

    The first in q keeps its scale; each following one is scaled to those before it, with errors of both, where
    ``scaled``. All points are kept; those of one q are averaged by their errors. tolerance: segments that still differ
    by more of I, and by a reduced chi2 above 2, are an InputError.
    """
    segments = sorted(segments, key=lambda one: one.q[0])
    whole, overlaps = segments[0], []
    for segment in segments[1:]:
        overlap = _overlap(whole, segment, scaled)
        if overlap.deviation > tolerance and overlap.reduced > 2:
            raise InputError(
                f"{whole.source} and {segment.source} disagree where they overlap: by {overlap.deviation:.1%} of I,"
                f" chi2 {overlap.reduced:.1f} at {overlap.points} points, after scaling by {overlap.scale:.4g}",
                remedy=f"cut the worse end off, or allow more than {tolerance:.1%} (tolerance) if this is known",
            )
        overlaps.append(overlap)
        moved = segment._replace(intensity=segment.intensity * overlap.scale, sigma=segment.sigma * overlap.scale)
        whole = _merged(whole, moved)
    return whole, overlaps


def _overlap(first: ScatteringCurve, second: ScatteringCurve, scaled: bool) -> Overlap:
    inside = (second.q >= first.q[0]) & (second.q <= first.q[-1])
    if inside.sum() < 3:
        raise InputError(
            f"{first.source} ends at q = {first.q[-1]:g} and {second.source} begins at {second.q[0]:g} 1/A:"
            f" {int(inside.sum())} points overlap",
            remedy="give segments with 3 or more points in common",
        )
    q, I2, s2 = second.q[inside], second.intensity[inside], second.sigma[inside]
    I1, s1 = _interpolated(first, q)
    scale = 1.0
    for _ in range(20 if scaled else 0):
        w = 1 / (s1**2 + scale**2 * s2**2)
        scale = float(np.sum(w * I1 * I2) / np.sum(w * I2**2))
    variance = s1**2 + scale**2 * s2**2
    reduced = float(np.sum((I1 - scale * I2) ** 2 / variance) / max(len(q) - scaled, 1))
    error = float(np.sum(I2**2 / variance) ** -0.5) * max(1.0, reduced) ** 0.5 if scaled else 0.0
    deviation = float(np.sqrt(np.mean((I1 - scale * I2) ** 2) / np.mean(I1**2)))
    if scale <= 0:
        raise InputError(
            f"{first.source} and {second.source} have a scale of {scale:.3g} to each other", remedy="check both files"
        )
    return Overlap((first.source, second.source), scale, error, len(q), reduced, deviation)


def _interpolated(curve: ScatteringCurve, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intensity and sigma at q, between the two points next to it; errors of these are independent."""
    right = np.clip(np.searchsorted(curve.q, q), 1, len(curve.q) - 1)
    t = (q - curve.q[right - 1]) / (curve.q[right] - curve.q[right - 1])
    mean = (1 - t) * curve.intensity[right - 1] + t * curve.intensity[right]
    return mean, np.hypot((1 - t) * curve.sigma[right - 1], t * curve.sigma[right])


def _merged(one: ScatteringCurve, other: ScatteringCurve) -> ScatteringCurve:
    q, place = np.unique(np.concatenate([one.q, other.q]), return_inverse=True)
    w = np.concatenate([one.sigma, other.sigma]) ** -2.0
    total = np.bincount(place, w)
    mean = np.bincount(place, w * np.concatenate([one.intensity, other.intensity])) / total
    source = f"{one.source} + {Path(other.source).name}"
    return ScatteringCurve(q, mean, total**-0.5, source, one.dropped + other.dropped)


def at_momenta(curve: ScatteringCurve, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intensity and sigma of a curve, such as a solvent's, at q [Q]. Raises InputError where it does not reach."""
    if q[0] < curve.q[0] * (1 - 1e-9) or q[-1] > curve.q[-1] * (1 + 1e-9):
        raise InputError(
            f"{curve.source} reaches from q = {curve.q[0]:g} to {curve.q[-1]:g} 1/A, not from {q[0]:g} to {q[-1]:g}",
            remedy="give a background over the whole range, or fit a smaller range",
        )
    return _interpolated(curve, q)


def without_background(curve: ScatteringCurve, background: ScatteringCurve, factor: float = 1.0) -> ScatteringCurve:
    """The curve less ``factor`` times a background, with the errors of both."""
    value, sigma = at_momenta(background, curve.q)
    source = f"{curve.source} - {factor:g} x {Path(background.source).name}"
    return curve._replace(
        intensity=curve.intensity - factor * value, sigma=np.hypot(curve.sigma, factor * sigma), source=source
    )


# ---- Guinier -------------------------------------------------------------------------------------------------------


class GuinierFit(NamedTuple):
    """The fit of ln I = ln I0 - q^2 Rg^2 / 3.

    radius, radius_error: Rg, A; forward, forward_error: I0; q_min, q_max: of the fitted points; points: so many; q_rg:
    the largest q Rg; reduced: chi2 a degree of freedom; curvature: of the residuals in q^2, in its standard errors;
    flags: why the result is not to be trusted, empty where it is.
    """

    radius: float
    radius_error: float
    forward: float
    forward_error: float
    q_min: float
    q_max: float
    points: int
    q_rg: float
    reduced: float
    curvature: float
    flags: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """True where nothing is flagged."""
        return not self.flags


LEAST_POINTS = 5
MISFIT_LIMIT, CURVATURE_LIMIT, Q_MIN_RG = 1.5, 3.0, 1.0


def guinier(curve: ScatteringCurve, q_min: float = 0.0, q_rg: float = 1.3) -> GuinierFit:
    """Rg from all points from q_min up to q Rg = ``q_rg``, which the fit itself decides (Guinier 1939,
    10.1051/anphys/193911120161).

    Flagged are a chi2 above 1.5, a curvature of more than 3 standard errors (upwards at low q: aggregates; downwards:
    repulsion), fewer than 5 points, and a first point at q Rg above 1.
    """
    usable = curve.between(q_min)
    positive = np.cumprod(usable.intensity > 0).astype(bool)
    q, I, s = (one[positive] for one in (usable.q, usable.intensity, usable.sigma))
    count, seen = min(len(q), max(LEAST_POINTS, len(q) // 10)), set()
    while count not in seen:
        seen.add(count)
        slope = _line(q[:count], I[:count], s[:count])[0][1] if count >= 2 else 0.0
        radius = np.sqrt(max(-3 * slope, 0.0))
        reach = len(q) if radius == 0 else int(np.searchsorted(q, q_rg / radius, side="right"))
        count = min(len(q), max(LEAST_POINTS, reach))
    if len(q) < LEAST_POINTS or radius == 0:
        raise InputError(
            f"{curve.source}: no Guinier region: {len(q)} points with I > 0 from q = {usable.q[0]:g}, slope {slope:g}",
            remedy="check the subtraction of the solvent, or give a larger q_min",
        )
    while count > LEAST_POINTS and q[count - 1] * radius > q_rg:  # where the search went round between two counts
        count -= 1
        radius = np.sqrt(max(-3 * _line(q[:count], I[:count], s[:count])[0][1], 0.0))
    (level, slope), covariance, reduced = _line(q[:count], I[:count], s[:count])
    return _judged(q[:count], I[:count], s[:count], level, slope, covariance, reduced, q_rg)


def _line(q: np.ndarray, I: np.ndarray, s: np.ndarray, degree: int = 1) -> tuple[np.ndarray, np.ndarray, float]:
    """Coefficients of ln I by powers of q^2, their covariance, and the reduced chi2."""
    A = np.vander(q**2, degree + 1, increasing=True) * (I / s)[:, None]
    b = np.log(I) * I / s
    covariance = np.linalg.inv(A.T @ A)
    found = covariance @ (A.T @ b)
    return found, covariance, float(np.sum((A @ found - b) ** 2) / max(len(q) - degree - 1, 1))


def _judged(
    q: np.ndarray, I: np.ndarray, s: np.ndarray, level: float, slope: float, covariance: np.ndarray, reduced: float,
    q_rg: float,
) -> GuinierFit:  # fmt: skip
    radius, forward = float(np.sqrt(max(-3 * slope, 0.0))), float(np.exp(level))
    # Above a chi2 of 1 the errors of the file are too small, or the line is not the law: errors grow with it.
    wider = max(1.0, reduced) ** 0.5
    curvature = 0.0
    if len(q) > LEAST_POINTS:
        bent, spread, _ = _line(q, I, s, 2)
        curvature = float(bent[2] / np.sqrt(spread[2, 2]))
    flags = []
    if reduced > MISFIT_LIMIT:
        flags.append(
            f"chi2 is {reduced:.2f}, above {MISFIT_LIMIT}: the points do not lie on a line (aggregates, repulsion)"
        )
    if abs(curvature) > CURVATURE_LIMIT:
        said = "upwards at low q: aggregates" if curvature > 0 else "downwards at low q: repulsion"
        flags.append(f"the line bends by {abs(curvature):.1f} standard errors, {said}")
    if len(q) <= LEAST_POINTS:
        flags.append(f"only {len(q)} points")
    if q[0] * radius > Q_MIN_RG:
        flags.append(f"the first point is at q Rg = {q[0] * radius:.2f}, above {Q_MIN_RG:g}")
    if q[-1] * radius > q_rg + 1e-9:
        flags.append(f"the last point is at q Rg = {q[-1] * radius:.2f}, above {q_rg:g}")
    return GuinierFit(
        radius, 1.5 * float(np.sqrt(covariance[1, 1])) / radius * wider if radius else np.inf, forward,
        forward * float(np.sqrt(covariance[0, 0])) * wider, float(q[0]), float(q[-1]), len(q), float(q[-1] * radius),
        reduced, curvature, tuple(flags),
    )  # fmt: skip
