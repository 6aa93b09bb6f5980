"""`hpcfit export` of kind "frame-weights": maps, ensembles drawn by weight, fluctuations of atoms."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.frame_weights.ensemble import ENSEMBLES, export_ensemble
from hpcfit.kinds.frame_weights.files import FrameWeightsRun, Orbits
from hpcfit.kinds.frame_weights.fluctuations import export_fluctuations
from hpcfit.kinds.frame_weights.planes import image, scaled_to
from hpcfit.log import logger
from hpcfit.physics.reciprocal import laue_operations, packed
from hpcfit.readers.map_raw import RawMap
from hpcfit.readers.maps import WRITERS, write_map
from hpcfit.runs.files import RunFiles
from hpcfit.runs.wanted import Wanted

SAME_CELL = 0.03  # relative: what frames and map of a fit may differ by
WORDS = {
    "calculated": "diffuse intensity of fitted weights, squares of the form factors' unit",
    "uniform": "diffuse intensity of uniform weights, squares of the form factors' unit",
    "observed": "measured diffuse intensity, on the scale of the experiment",
    "difference": "measured minus fitted, on the scale of the experiment",
}


def export(run: RunFiles, file: Path, wanted: Wanted) -> None:
    """Write what the suffix of a file asks for. Raises InputError for another suffix, and for options that it has no
    use for."""
    suffix = file.suffix.lower()
    if suffix in WRITERS:
        wanted.check_used(f"a map ({suffix})", ("which", "minus"))
        _export_map(FrameWeightsRun(run.directory), file, wanted)
    elif suffix in ENSEMBLES:
        wanted.check_used(f"an ensemble ({suffix})", ("positions", "frames", "seed"))
        export_ensemble(run, file, wanted)
    elif suffix == ".csv":
        wanted.check_used("fluctuations (.csv)", ("positions", "superpose"))
        export_fluctuations(run, file, wanted)
    else:
        raise InputError(
            f"{file}: nothing is written as '{suffix}'",
            remedy=f"a map is {', '.join(WRITERS)}; an ensemble {', '.join(ENSEMBLES)}; a table of fluctuations .csv",
        )


class Voxels(NamedTuple):
    """A map on the full sphere, every voxel once. hkl: [N, 3], Miller index hkl / ndiv; values: [N]; sigma: [N], NaN
    where no error is known."""

    hkl: np.ndarray
    values: np.ndarray
    sigma: np.ndarray


def _export_map(run: FrameWeightsRun, file: Path, wanted: Wanted) -> None:
    which = wanted.which or "calculated"
    orbits, about = _orbits(run), [f"hpcfit: {WORDS[which]}", f"run {run.directory.absolute().name}"]
    voxels, ndiv = voxels_of(orbits, which), np.asarray(orbits.ndiv)
    if wanted.minus is not None:
        other = FrameWeightsRun(wanted.minus)
        voxels, ndiv = _difference(run, other, which)
        about.append(f"minus that of run {other.directory.absolute().name}")
    about.append(f"averaged over the Laue class {orbits.laue}, of which all voxels are here")
    sigma = voxels.sigma if np.all(np.isfinite(voxels.sigma)) else None
    cell = tuple(float(length) for length in orbits.cell)
    used = np.ones(len(voxels.hkl), bool)
    units = run.unit_of_map("observed" if which == "difference" else which)
    found = RawMap(voxels.hkl, voxels.values, sigma, used, tuple(map(int, ndiv)), cell, "P 1", units=units)
    write_map(file, found, about)
    logger.info("%s: %d voxels, %s", file, len(voxels.hkl), "; ".join(about))


def _orbits(run: FrameWeightsRun) -> Orbits:
    if not run.finished or not run.has("map.h5"):
        missing = "map.h5" if run.finished else "metrics.json: it has not ended"
        raise InputError(
            f"run directory {run.directory} has no {missing}", remedy="give a run that was fitted to a map"
        )
    return run.orbits


def voxels_of(orbits: Orbits, which: str) -> Voxels:
    """One of the maps of a run (`WORDS`) on all voxels of its orbits: each has the value of its orbit."""
    values, sigma = _of_orbits(orbits, which)
    operations = laue_operations(orbits.laue)
    hkl = np.concatenate([image(orbits.hkl, operation, np.asarray(orbits.ndiv)) for operation in operations])
    _, first = np.unique(packed(hkl), return_index=True)
    orbit = first % len(orbits.hkl)
    return Voxels(hkl[first].astype(np.int32), values[orbit], sigma[orbit])


def _of_orbits(orbits: Orbits, which: str) -> tuple[np.ndarray, np.ndarray]:
    """Values and errors, [n] each; the difference is that of the report, after regression of scale and offset."""
    unknown = np.full(len(orbits.hkl), np.nan)
    if which in ("calculated", "uniform"):
        return getattr(orbits, which), unknown
    if which == "observed":
        return orbits.observed, orbits.sigma
    return orbits.observed - scaled_to(orbits.observed, orbits.calculated, orbits.multiplicity), orbits.sigma


def _difference(run: FrameWeightsRun, other: FrameWeightsRun, which: str) -> tuple[Voxels, np.ndarray]:
    """The map of one run minus that of another on the voxels of both, and their ndiv. Nothing is scaled."""
    ours, theirs = run.orbits, _orbits(other)
    apart = float(np.max(np.abs(ours.cell - theirs.cell) / ours.cell))
    if apart > SAME_CELL:
        raise InputError(
            f"unit cells differ by {100 * apart:.1f} %: {run.directory} has {ours.cell.tolist()}, {other.directory} has"
            f" {theirs.cell.tolist()}",
            remedy="give runs of the same crystal",
        )
    ndiv = np.lcm(ours.ndiv, theirs.ndiv)
    a, b = voxels_of(ours, which), voxels_of(theirs, which)
    hkl = [part.hkl.astype(int) * (ndiv // orbits.ndiv) for part, orbits in ((a, ours), (b, theirs))]
    keys = packed(np.concatenate(hkl))
    _, of_a, of_b = np.intersect1d(keys[: len(a.hkl)], keys[len(a.hkl) :], assume_unique=True, return_indices=True)
    if not len(of_a):
        raise InputError(
            f"the maps of {run.directory} and {other.directory} have no voxel in common (ndiv {ours.ndiv.tolist()} and"
            f" {theirs.ndiv.tolist()})",
            remedy="give runs whose resolution limits and Bragg reflections overlap",
        )
    values = a.values[of_a] - b.values[of_b]
    return Voxels(hkl[0][of_a].astype(np.int32), values, np.hypot(a.sigma[of_a], b.sigma[of_b])), ndiv
