"""Scattering of frames: Debye sums of molecules in solution, and structure factors and densities of periodic frames.

Form factors come as numbers: of X-rays, neutrons and electrons for elements (``form_factors``), or of the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError
from hpcfit.observables.geometry import AsAveraged
from hpcfit.observables.observable import fixed, observable
from hpcfit.physics import internal_coordinates
from hpcfit.physics.scattering import XRAY
from hpcfit.readers.units import LENGTHS

RADIATIONS = ("xray", "neutron", "electron")
ROWS = 64  # atoms whose distances to all others are held at a time


def form_factors(elements: Sequence[str], q: np.ndarray, radiation: str = "xray") -> np.ndarray:
    """f [Q, N] of neutral atoms at momentum transfers q = 4 pi sin(theta) / lambda [Q], 1/A.

    xray: electrons, IT92 (International Tables C, 6.1.1); electron: A, C4322 (4.3.2.2); neutron: fm, coherent lengths
    of Sears 1992 (10.1080/10448639208218770), the same at all q. A virtual site, whose element is "", has f = 0. Raises
    InputError for what has none.
    """
    if radiation not in RADIATIONS:
        raise InputError(f"radiation = '{radiation}'", remedy=f"use one of {', '.join(RADIATIONS)}")
    kinds, where = np.unique(np.asarray(elements, str), return_inverse=True)
    return np.stack([_of_element(kind, np.asarray(q, float), radiation) for kind in kinds], axis=1)[:, where]


def _of_element(element: str, q: np.ndarray, radiation: str) -> np.ndarray:
    import gemmi

    if not element:
        return np.zeros(len(q))
    known = gemmi.Element(element)
    coefficients = {"xray": known.it92, "electron": known.c4322, "neutron": known.neutron92}[radiation]
    # gemmi reads any unknown text as element X, whose coefficients are those of another one.
    if known.atomic_number == 0 or coefficients is None:
        remedy = "correct the elements of the topology"
        raise InputError(f"'{element}' has no form factor for {radiation}", remedy=remedy)
    return np.array([coefficients.calculate_sf((value / (4 * np.pi)) ** 2) for value in q])


@observable
class DebyeIntensity(AsAveraged):
    """I(q) = sum over i, j of f_i f_j sin(q r_ij) / (q r_ij), [Q], of the atoms as they lie, without a box.

    q: [Q] 1/length; f: [Q, N], of ``atoms``, all where these are None. Exact: the cost is Q N^2 / 2. Debye 1915,
    10.1002/andp.19153510606.
    """

    q: Any
    f: Any
    atoms: tuple[int, ...] | None = fixed(None)

    @property
    def at(self) -> np.ndarray:
        """The momentum transfers, [Q]."""
        return self.q

    def of_frame(self, x: Any, box: Any) -> Any:
        f, q = jnp.asarray(self.f), jnp.asarray(self.q)
        x = x if self.atoms is None else x[np.array(self.atoms)]
        N = x.shape[0]
        rows = jnp.arange(-(-N // ROWS) * ROWS).reshape(-1, ROWS)

        def of_rows(i: Any) -> Any:
            """The terms i < j of some rows, [Q]; rows beyond the last are nobody's."""
            r = internal_coordinates.length(x[jnp.minimum(i, N - 1), None] - x[None])
            held = (i[:, None] < jnp.arange(N)[None]) & (i[:, None] < N)
            r = jnp.where(held, r, 1.0)

            def at(values: tuple[Any, Any]) -> Any:
                q, f = values
                terms = jnp.sinc(q * r / jnp.pi) * f[jnp.minimum(i, N - 1), None] * f[None]
                return jnp.sum(jnp.where(held, terms, 0.0))

            return jax.lax.map(at, (q, f))

        return jnp.sum(f**2, axis=1) + 2 * jnp.sum(jax.lax.map(jax.checkpoint(of_rows), rows), axis=0)


@observable
class ScaledIntensity:
    """An intensity in the units of its measurement: times the factor that agrees best, and with ``background`` plus the
    constant that does, [Q]. Both follow from the averages, so that deviations depend on nothing else.

    value, sigma: [Q], the measurement.
    """

    intensity: DebyeIntensity
    value: Any
    sigma: Any
    background: bool = fixed()

    @property
    def at(self) -> np.ndarray:
        """The momentum transfers, [Q]."""
        return self.intensity.at

    def of_frame(self, x: Any, box: Any) -> Any:
        return self.intensity.of_frame(x, box)

    def of_average(self, average: Any) -> Any:
        columns = jnp.stack([average, jnp.ones_like(average)][: 1 + self.background], axis=1)
        A, b = columns / jnp.asarray(self.sigma)[:, None], jnp.asarray(self.value) / self.sigma
        return columns @ jnp.linalg.solve(A.T @ A, A.T @ b)


@observable
class StructureFactors:
    """F(h) = sum over j of f_j exp(2 pi i h . s_j), s_j in fractions of the frame's box; real and imaginary part of
    each in turn, [2 H], whose average is that of the electron density (or its like for other radiation).

    hkl: [H][3] integers; f: [H, N].
    """

    f: Any
    hkl: tuple[tuple[int, int, int], ...] = fixed()

    def of_frame(self, x: Any, box: Any) -> Any:
        phase = 2 * jnp.pi * jnp.asarray(self.hkl, x.dtype) @ (x @ jnp.linalg.inv(box)).T
        f = jnp.asarray(self.f)
        return jnp.stack([jnp.sum(f * jnp.cos(phase), axis=1), jnp.sum(f * jnp.sin(phase), axis=1)], axis=1)

    def of_average(self, average: Any) -> Any:
        return average.ravel()


@observable
class StructureAmplitudes(StructureFactors):
    """The amplitudes |<F(h)>| of averaged structure factors, [H]."""

    def of_average(self, average: Any) -> Any:
        return internal_coordinates.length(average)


def density_gaussians(elements: Sequence[str], blur: float, length: str = "nm") -> tuple[np.ndarray, np.ndarray]:
    """(a [N, 5] electrons, b [N, 5] of that length squared) of X-ray form factors sum a exp(-b s^2 / 4), s = 1 / d.

    blur: B, A^2, an isotropic displacement that all atoms have. It must be above 0: IT92's constant, the fifth term, is
    a point without it.
    """
    if not blur > 0:
        raise InputError(f"blur = {blur} of an electron density", remedy="give it in A^2, such as 20")
    kinds, where = np.unique(np.asarray(elements, str), return_inverse=True)
    known = [XRAY.coefficients(str(kind)) if kind else (np.zeros(4), np.zeros(4), 0.0) for kind in kinds]
    a = np.array([[*of_four, constant] for of_four, _, constant in known])
    b = np.array([[*of_four, 0.0] for _, of_four, _ in known]) + blur
    return a[where], b[where] / LENGTHS[length] ** 2


@observable
class ElectronDensity(AsAveraged):
    """The pseudo-electron density of X-ray maps at points of a periodic frame, [G] electrons / length^3: the sum over
    atoms and Gaussians of a (4 pi / b)^(3/2) exp(-4 pi^2 r^2 / b).

    points: [G, 3], fractions of the frame's box; a, b: [N, 5], of ``density_gaussians``. r is that of the nearest image
    of an atom, beyond which nothing is left of a Gaussian unless the box is small (below 15 A at a blur of 20 A^2).
    """

    points: Any
    a: Any
    b: Any

    def of_frame(self, x: Any, box: Any) -> Any:
        b = jnp.asarray(self.b)
        height = jnp.asarray(self.a) * (4 * jnp.pi / b) ** 1.5

        def at(point: Any) -> Any:
            u = internal_coordinates.separation(x, point @ box, box)
            square = jnp.sum(u * u, axis=-1, keepdims=True)
            return jnp.sum(height * jnp.exp(-4 * jnp.pi**2 * square / b))

        return jax.lax.map(at, jnp.asarray(self.points))
