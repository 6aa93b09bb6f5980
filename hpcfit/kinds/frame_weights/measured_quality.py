"""The precision of the measured map as a run writes it down: CC1/2 and CC* in each shell and in all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcfit.kinds.frame_weights.orbits import OrbitMap
from hpcfit.kinds.frame_weights.quality import MapQuality, Precision, quality_from_halves, quality_from_sigmas


@dataclass(frozen=True)
class MeasuredQuality:
    """source: what it is known from, "half-sets" or "sigmas"."""

    source: str
    found: MapQuality

    def as_json(self) -> dict[str, Any]:
        """NaN becomes null."""
        shells = [_row(Precision(*values)) for values in zip(*self.found.shells)]
        whole = {name: _row(getattr(self.found, name)) for name in ("total", "anisotropic")}
        return {"source": self.source, **whole, "shells": shells}


def map_quality(orbits: OrbitMap, n_shells: int) -> MeasuredQuality | None:
    """From half-sets, which see all errors that differ between them, else from sigmas; None where a map has neither."""
    about = orbits.multiplicity, orbits.shell, n_shells
    if orbits.halves is not None:
        return MeasuredQuality("half-sets", quality_from_halves(*orbits.halves.T, *about))
    if orbits.sigma is not None:
        return MeasuredQuality("sigmas", quality_from_sigmas(orbits.observed, orbits.sigma, *about))
    return None


def number_or_none(value: float) -> float | None:
    """What JSON has for NaN."""
    return float(value) if np.isfinite(value) else None


def _row(precision: Precision) -> dict[str, float | None]:
    return {name: number_or_none(value) for name, value in precision._asdict().items()}
