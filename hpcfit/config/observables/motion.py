"""Tables of observables of motions: correlations in time along a window, and diffusion.

Lags are ps, whole numbers of the interval between two frames, within the frames of a window that are averaged.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hpcfit.config.observables.measured import Atoms, ObservableConfig, Vector
from hpcfit.config.table import NonNegative, Positive

Lags = Annotated[list[NonNegative], Field(min_length=1)]


class MotionConfig(ObservableConfig):
    """A mean over atoms and over the time origins of a window."""

    atoms: Atoms


class VelocityAutocorrelationConfig(MotionConfig):
    """<v(t) . v(t + lag)> for each lag, nm^2/ps^2."""

    observable: Literal["velocity-autocorrelation"]
    lags: Lags


class PositionAutocorrelationConfig(MotionConfig):
    """<u(t) . u(t + lag)> for each lag, nm^2, of displacements from ``centre``: one place, or one of each atom, nm;
    where the first start has the atoms if it is not given."""

    observable: Literal["position-autocorrelation"]
    lags: Lags
    centre: Vector | Annotated[list[Vector], Field(min_length=1)] | None = None


class MeanSquareDisplacementConfig(MotionConfig):
    """<|x(t + lag) - x(t)|^2> for each lag, nm^2."""

    observable: Literal["mean-square-displacement"]
    lags: Lags


class DiffusionConfig(MotionConfig):
    """The diffusion constant, nm^2/ps (0.01 cm^2/s): the slope of mean square displacements at the lags, over 6."""

    observable: Literal["diffusion"]
    lags: Annotated[list[NonNegative], Field(min_length=2)]


class DiffusionOfVelocitiesConfig(MotionConfig):
    """The diffusion constant, nm^2/ps: the integral of the autocorrelation of velocities up to the lag ``last``, over
    3."""

    observable: Literal["diffusion-of-velocities"]
    last: Positive


MOTIONS = (
    VelocityAutocorrelationConfig, PositionAutocorrelationConfig, MeanSquareDisplacementConfig, DiffusionConfig,
    DiffusionOfVelocitiesConfig,
)  # fmt: skip
