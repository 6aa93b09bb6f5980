"""The curve that a mixture is fitted to, as the config says: segments stitched, solvent, Guinier's fit; and q and form
factors of the components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.mixture.config import FileConfig, ScatteringConfig, ScatteringTables
from hpcfit.observables.form_factors import Solvent, amplitudes
from hpcfit.readers.scattering_curves import (
    GuinierFit,
    Overlap,
    ScatteringCurve,
    at_momenta,
    guinier,
    read_scattering_curve,
    stitched,
    without_background,
)

Q_MIN, Q_MAX, POINTS = 0.02, 1.2, 250  # 1/A, of traces without a curve


class Measured(NamedTuple):
    """q [Q] 1/A. curve: None where none was measured; solvent: a component of its own, None without; overlaps: of
    segments; guinier: None where there is no such region, or no curve; why: what stands against it."""

    q: np.ndarray
    curve: ScatteringCurve | None = None
    solvent: ScatteringCurve | None = None
    overlaps: tuple[Overlap, ...] = ()
    guinier: GuinierFit | None = None
    why: str = ""


def measured_of(choice: ScatteringTables) -> Measured:
    """The curve in its window, or a grid of q without one. Raises InputError that names files."""
    chosen = choice.of_scattering
    if not choice.curve:
        low, high = chosen.q_min or (0.0 if chosen.q_min == 0.0 else Q_MIN), chosen.q_max or Q_MAX
        if low >= high:
            raise InputError(
                f"[problem.scattering] q goes from {low:g} to {high:g} 1/A", remedy="give q_min below q_max"
            )
        return Measured(np.linspace(low, high, chosen.points or POINTS))
    segments = [_read(one).between(one.q_min, one.q_max or np.inf) for one in choice.curve]
    curve, overlaps = stitched(segments, chosen.stitch_scaled, chosen.stitch_tolerance)
    solvent = None if choice.background is None else _read(choice.background)
    if solvent is not None and choice.background.use == "subtract":
        curve, solvent = without_background(curve.between(*_window(chosen)), solvent, choice.background.factor), None
        if not np.any(curve.intensity > 0):
            raise InputError(
                f"{curve.source}: no intensity is above 0, the largest is {curve.intensity.max():g}",
                remedy="correct [problem.background] factor, or fit the solvent: use = 'fit'",
            )
    region, why = _guinier(curve, chosen)
    curve = curve.between(*_window(chosen))
    if solvent is not None:
        at_momenta(solvent, curve.q)  # raises what it does not reach, before frames are read
    return Measured(curve.q, curve, solvent, tuple(overlaps), region, why)


def said_of(measured: Measured) -> str:
    """The curve in a line."""
    source = "no curve" if measured.curve is None else measured.curve.source
    return f"{len(measured.q)} points from q = {measured.q[0]:.4g} to {measured.q[-1]:.4g} 1/A, {source}"


def _read(one: FileConfig) -> ScatteringCurve:
    return read_scattering_curve(one.file, one.unit, one.columns, one.sigma)


def _window(chosen: ScatteringConfig) -> tuple[float, float]:
    return chosen.q_min or 0.0, chosen.q_max or np.inf


def _guinier(curve: ScatteringCurve, chosen: ScatteringConfig) -> tuple[GuinierFit | None, str]:
    """Guinier's fit of the whole curve, or why there is none."""
    try:
        return guinier(curve, chosen.guinier_q_min, chosen.guinier_q_rg), ""
    except InputError as error:
        return None, error.what


def form_factors(
    chosen: ScatteringConfig, species: Sequence[str], q: np.ndarray, of_box: Sequence[str] = ()
) -> np.ndarray:
    """f(q) of elements of clusters, [S, Q], as [problem.scattering] says. of_box: elements that scatter in the box.
    Raises InputError for an element that does not scatter here."""
    known = {"ions": sorted({*species, *of_box}), "volumes": list(species)}
    for table, names in known.items():
        if wrong := sorted(getattr(chosen, table).keys() - set(names)):
            where = "nodes, linkers and shells have" if names == list(species) else "the frames have"
            raise InputError(
                f"[problem.scattering] {table}.{wrong[0]} has no effect: {where} {', '.join(names)}",
                remedy="name elements that scatter, or leave it out",
            )
    solvent = None
    if chosen.solvent_density is not None:
        solvent = Solvent(chosen.solvent_density, chosen.volumes, chosen.volume_scale)
    return amplitudes(species, q, chosen.radiation, chosen.ions, solvent)


def form_factors_of_box(chosen: ScatteringConfig, species: Sequence[str], q: np.ndarray) -> np.ndarray:
    """f(q) of elements of the box, [S, Q], whose solvent is there: nothing is taken off."""
    return amplitudes(species, q, chosen.radiation, chosen.ions)
