"""The kinds of weights: on the simplex, in (0, 1) each for itself, or any number.

    simplex   w = w0 u^2 / sum        Guinier's diffuse intensity is defined for these; the default
    sigmoid   w = 1 / (1 + exp(-u))   and
    free      w = u / T               as the first published program had them

On the simplex u is an amplitude: Fisher's metric of the weights is Euclid's of sqrt(w0) u, and a weight that the
optimum does not want reaches zero within few steps, where the logarithms of a softmax would go to infinity.

Where W = sum w is not 1, the intensity M2 - |M1|^2 is W Var(F) + W (1 - W) |<F>|^2: it carries some of the Bragg
intensity |<F>|^2, which is reported as the leakage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.fit.problem import FrameRows, Reduce


class WeightKind(Protocol):
    """normalised: whether what counts is w / sum w."""

    normalised: bool

    def weights(self, u, ids, log_prior, total: int):
        """w of the rows of some frames, whatever the shape; 0 for padding. Traced, or of NumPy arrays."""

    def parameters(self, w, frames: FrameRows) -> np.ndarray:
        """u at which the weights are w (positive), [blocks, 64]."""

    def random(self, normal: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """u of a random start, from a standard normal and a uniform number of each frame."""

    def gauge(self, u: np.ndarray, frames: FrameRows, reduce: Reduce) -> np.ndarray:
        """Equivalent u at which the sums are well scaled."""

    def level(self, u):
        """The quantity that is compared along trajectories. Traced."""


@dataclass(frozen=True)
class Simplex:
    """u^2 = w / w0; a common factor of all u changes nothing, nor does a sign."""

    normalised = True

    def weights(self, u, ids, log_prior, total: int):
        """Not divided by their sum: after ``gauge`` it is 1."""
        return jnp.where(ids >= 0, u**2 * jnp.exp(log_prior), 0.0)

    def parameters(self, w, frames: FrameRows) -> np.ndarray:
        """The root of w / w0."""
        return np.where(frames.ids >= 0, np.sqrt(w / np.exp(frames.more.log_prior)), 0.0)

    def random(self, normal: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Weights that differ from the prior by factors of some e."""
        return np.exp(normal / 2)

    def gauge(self, u: np.ndarray, frames: FrameRows, reduce: Reduce) -> np.ndarray:
        """Divide u so that the weights sum to 1."""
        held = frames.ids >= 0
        u = np.where(held, u, 0.0)
        u = u / reduce.max(np.max(np.abs(u), initial=0.0))
        total = float(reduce.sum(np.sum(np.where(held, u**2 * np.exp(frames.more.log_prior), 0.0), axis=1)))
        return u / np.sqrt(total)

    def level(self, u):
        """ln(w / w0), finite also for a weight of zero."""
        return jnp.log(jnp.maximum(u**2, np.finfo(float).tiny))


@dataclass(frozen=True)
class Sigmoid:
    """Each weight in (0, 1); their sum is what the fit makes it."""

    normalised = False

    def weights(self, u, ids, log_prior, total: int):
        """1 / (1 + exp(-u))."""
        return jnp.where(ids >= 0, jax.nn.sigmoid(u), 0.0)

    def parameters(self, w, frames: FrameRows) -> np.ndarray:
        """ln(w / (1 - w))."""
        w = np.where(frames.ids >= 0, w, 0.5)
        return np.log(w) - np.log1p(-w)

    def random(self, normal: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Uniform in (-5, 5), as the published program drew them."""
        return 10 * uniform - 5

    def gauge(self, u: np.ndarray, frames: FrameRows, reduce: Reduce) -> np.ndarray:
        """There is none."""
        return np.where(frames.ids >= 0, u, 0.0)

    def level(self, u):
        """u."""
        return u


@dataclass(frozen=True)
class Free:
    """Any number, in units of the uniform weight."""

    normalised = False

    def weights(self, u, ids, log_prior, total: int):
        """u / T."""
        return jnp.where(ids >= 0, u / total, 0.0)

    def parameters(self, w, frames: FrameRows) -> np.ndarray:
        """T w."""
        return np.where(frames.ids >= 0, w * frames.total, 0.0)

    def random(self, normal: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Normal about the uniform weight, with its size as the standard deviation."""
        return 1 + normal

    def gauge(self, u: np.ndarray, frames: FrameRows, reduce: Reduce) -> np.ndarray:
        """There is none."""
        return np.where(frames.ids >= 0, u, 0.0)

    def level(self, u):
        """u."""
        return u


# "binary" is the simplex on which an optimizer moves between 0 and equal weights (``fit.selection``).
WEIGHT_KINDS: dict[str, WeightKind] = {"simplex": Simplex(), "sigmoid": Sigmoid(), "free": Free(), "binary": Simplex()}
