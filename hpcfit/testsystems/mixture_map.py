"""A diffuse map as a detector would give it, of a known mixture of states: noise, and voxels that say nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hpcfit.physics import reciprocal, scattering

OVERLOAD = 65535.0


@dataclass(frozen=True)
class Detector:
    """A detector: the faults that stand between the crystal's diffuse intensity and the numbers in the map.

    d_min: edge of the map, A. counts: photons in a voxel of mean intensity. gain_error: rms error of a voxel's
    efficiency. beam_stop: voxels at larger d (A) are in its shadow. gap: voxels whose component of s along a* lies
    within these limits (1/A) fall between two modules. Bragg peaks, at integer Miller indices, overload their voxels.
    """

    d_min: float = 1.6
    counts: float = 400.0
    gain_error: float = 0.03
    beam_stop: float = 9.0
    gap: tuple[float, float] = (0.25, 0.30)


class State(NamedTuple):
    """Structure factors of the frames of one state, complex [T, H], and the state's share of the mixture."""

    f_th: np.ndarray
    share: float


def mixture_intensity(states: Sequence[State]) -> np.ndarray:
    """Diffuse intensity [H] (electrons^2) of all frames, each with the weight share / frames of its state."""
    w_t = np.concatenate([np.full(len(state.f_th), state.share / len(state.f_th)) for state in states])
    return scattering.diffuse_intensity(np.concatenate([state.f_th for state in states]), w_t)


def usable(detector: Detector, hkl, ndiv, cell) -> np.ndarray:
    """True [H] where the detector saw the diffuse intensity; `cell` is the unit cell, with a along its normal a*."""
    bragg = np.all(np.asarray(hkl) % ndiv == 0, axis=1)
    # The component of s along a* is h a*, and a* = 1/a where a is normal to b and c.
    along = np.abs(hkl[:, 0]) / (ndiv[0] * cell[0])
    in_gap = (along > detector.gap[0]) & (along < detector.gap[1])
    in_shadow = reciprocal.inverse_d2(hkl, ndiv, cell) < detector.beam_stop**-2
    return ~(bragg | in_gap | in_shadow)


def detect(detector: Detector, intensity, use, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Measured (intensity, sigma), each [H], on the scale of the intensity; voxels not in use hold an overload.

    sigma is what an experimenter can know: it is estimated from the counts, not from the true intensity.
    """
    generator = np.random.default_rng(seed)
    gain = detector.counts / intensity[use].mean()
    efficiency = 1 + detector.gain_error * generator.standard_normal(len(intensity))
    counts = generator.poisson(gain * intensity) * efficiency
    # var(n e) = n + (n * gain_error)^2; one count more, so that an empty voxel has an error too.
    sigma = np.sqrt(counts.clip(0) + 1 + (detector.gain_error * counts) ** 2)
    return np.where(use, counts / gain, OVERLOAD), np.where(use, sigma / gain, 0.0)
