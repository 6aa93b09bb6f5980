"""A small fit as a case builds it, and its loss as the definitions have it: uncentred structure factors, in NumPy."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.special import xlogy

from hpcfit.fit.adjoint import Adjoint
from hpcfit.fit.by_blocks import Reverse
from hpcfit.fit.gradient import Frames
from hpcfit.fit.grid import Grid, Shape, make_grid
from hpcfit.fit.problem import FrameRows, Params
from hpcfit.fit.reduction import ReproducibleSum
from hpcfit.kinds.frame_weights.case import FrameWeightsCase
from hpcfit.kinds.frame_weights.config import FrameWeightsConfig
from hpcfit.kinds.frame_weights.groups import FrameGroups
from hpcfit.kinds.frame_weights.observed import observe
from hpcfit.kinds.frame_weights.orbit_choice import OrbitChoice
from hpcfit.kinds.frame_weights.orbits import OrbitMap
from hpcfit.kinds.frame_weights.problem import PriorRows
from hpcfit.kinds.frame_weights.tiling import make_tiling
from hpcfit.physics.scattering import diffuse_intensity
from hpcfit.ranks import Ranks
from hpcfit.store.reference import Encoding, Reference, centred_pairs
from hpcfit.store.stream import Chunk
from hpcfit.testsystems.synthetic import cubic_reflections, gaussian_frames

T, SHELLS = 90, 6
IDS = np.where(np.arange(128) < T, np.arange(128), -1).reshape(2, 64)
# The second trajectory begins at frame 40; the first row of the second block follows the last one of the first.
FOLLOWS = (IDS > 0) & (IDS != 40)
# Three groups, the last of one frame.
GROUPS = FrameGroups(("a", "b", "c"), np.where(IDS >= 0, np.searchsorted([40, 89], IDS, side="right"), -1))
ONE_GROUP = FrameGroups(("all frames",), np.where(IDS >= 0, 0, -1))
BELOW = 1 - 1e-9  # of the range of 1/d: splines end a little below its upper end
MANY = 20_000  # frames of which a cache holds narrow strips: several in a tile of 64

# Every objective, with the options that change what it is; the first of each kind are known in one pass.
OBJECTIVES: dict[str, dict[str, Any]] = {
    "pearson": {},
    "pearson, anisotropic": {"anisotropic": True},
    "pearson, weighted": {"sigmas": True, "resolution_power": 2.0},
    "gaussian": {"objective": "gaussian"},
    "gaussian, background": {"objective": "gaussian", "background": 4, "sigmas": False},
    "cross-entropy": {"objective": "cross-entropy"},
    "gaussian, model error": {"objective": "gaussian", "model_error": True, "background": 4},
    "gaussian, model error, no sigmas": {"objective": "gaussian", "model_error": True, "sigmas": False},
    "student-t": {"objective": "student-t", "student_nu": 3.0, "background": 4},
    "student-t, model error": {"objective": "student-t", "model_error": True, "sigmas": False},
    "poisson": {"objective": "poisson", "background": 4},
}
IN_ONE_PASS = list(OBJECTIVES)[:6]


@dataclass(frozen=True)
class System:
    """F_th: [T, H]. case: with what a problem is made of, and no files."""

    F_th: np.ndarray
    case: Any
    precision: str
    encoding: str

    @property
    def choice(self) -> FrameWeightsConfig:
        return self.case.config.problem

    @property
    def orbits(self) -> OrbitMap:
        return self.case.orbits

    @property
    def chosen(self) -> OrbitChoice:
        return self.case.chosen

    @property
    def grid(self) -> Grid:
        return make_grid(Ranks(), Shape(1, 1, ""), 2, len(self.case.tiling.columns))

    def rows(self, log_prior: np.ndarray | None = None) -> FrameRows:
        """Uniform prior weights unless ``log_prior`` [2, 64] says otherwise."""
        uniform = np.where(IDS >= 0, -np.log(T), 0.0)
        return FrameRows(IDS, T, PriorRows(uniform if log_prior is None else log_prior, FOLLOWS, self.case.free_groups))

    def reverse(self, log_prior: np.ndarray | None = None) -> Reverse:
        """In two passes, all frames in one chunk."""
        tiles, _, reals = self._data.shape
        chunk = Chunk(slice(0, 2), slice(0, tiles), self._data.reshape(tiles, 2, 64, reals))
        return Reverse(self._problem, self._frames(chunk, log_prior), self.grid, ReproducibleSum(self.grid))

    def adjoint(self, log_prior: np.ndarray | None = None, threads: int = 1) -> Adjoint:
        """In one pass, all tiles in one chunk."""
        tiles, frames, reals = self._data.shape
        strip = 2 * self.case.tiling.strip
        strips = self._data.reshape(tiles, frames, reals // strip, strip).swapaxes(1, 2)
        chunk = Chunk(slice(0, 2), slice(0, tiles), np.ascontiguousarray(strips))
        return Adjoint(self._problem, self._frames(chunk, log_prior), self.grid, ReproducibleSum(self.grid), threads)

    def _frames(self, chunk: Chunk, log_prior: np.ndarray | None) -> Frames:
        return Frames(self.rows(log_prior), lambda: iter([chunk]))

    @property
    def _problem(self):
        return self.case.problem(self.grid)

    @property
    def _data(self) -> np.ndarray:
        """[tiles, 128, 2 width]."""
        reference, columns = self.case.store.reference, self.case.tiling.columns
        if self.encoding == "complex128":
            pairs = ((self.F_th - reference.mean) / reference.scale).view(float).reshape(T, -1, 2)
        else:
            pairs = centred_pairs(self.F_th, reference, Encoding(self.encoding))
        data = np.zeros((len(columns), 128, columns.shape[1], 2), pairs.dtype)
        for tile, held in zip(data, columns):
            tile[:T, held >= 0] = pairs[:, held[held >= 0]]
        return data.reshape(len(columns), 128, -1)

    # ---- the definitions -------------------------------------------------------------------------------------------

    def start(self) -> dict[str, np.ndarray]:
        """Nuisances away from their start, where no derivative is 0 by chance."""
        start = self.case.observed.objective.start()
        return {name: np.asarray(value) + 0.1 * np.cos(np.arange(np.size(value))).reshape(np.shape(value))
                for name, value in start.items()}  # fmt: skip

    def weights(self, u_t: np.ndarray, w0_t: np.ndarray | None = None) -> np.ndarray:
        """w of the kind of the config, on the simplex normalised."""
        if self.choice.weights == "sigmoid":
            return 1 / (1 + np.exp(-u_t))
        if self.choice.weights == "free":
            return u_t / T
        w_t = u_t**2 * (1 / T if w0_t is None else w0_t)
        return w_t / w_t.sum()

    def x(self, w_t: np.ndarray) -> np.ndarray:
        """M2 - |M1|^2 over orbits."""
        x_h = w_t @ np.abs(self.F_th) ** 2 - np.abs(w_t @ self.F_th) ** 2
        return orbit_means(self.orbits, x_h)

    def omega(self, part: int = 0) -> np.ndarray:
        """The weights of the orbits of a part, without the sigmas."""
        resolution = (self.orbits.inverse_d / self.orbits.inverse_d.max()) ** self.choice.resolution_power
        return self.orbits.multiplicity * resolution * self.chosen.drawn * (self.chosen.part == part)

    def loss(self, u_t: np.ndarray, shared: dict | None = None, w0_t: np.ndarray | None = None) -> float:
        """Misfit of the fitted orbits and regularisers."""
        w_t = self.weights(u_t, w0_t)
        return self.misfit(w_t, shared) + self.penalty(u_t, w_t, np.full(T, 1 / T) if w0_t is None else w0_t)

    def misfit(self, w_t: np.ndarray, shared: dict | None = None, part: int = 0) -> float:
        """Of a part, with nuisances as the fitted part has them."""
        x, omega = self.x(w_t), self.omega(part)
        if self.choice.objective == "pearson":
            if self.choice.anisotropic:
                return -self.anisotropic(x, self.omega(), omega)
            return -pearson(omega / self.orbits.sigma**2 if self.choice.sigmas else omega, x, self.orbits.observed)
        if self.choice.objective == "cross-entropy":
            p, q = omega * x / np.sum(omega * x), omega * self.orbits.observed
            q = q / q.sum()
            return np.sum(xlogy(q, q) - xlogy(q, p))
        if self.choice.objective == "gaussian" and not self.choice.model_error:
            return self._least_squares(x, omega)
        return self._likelihood(x, omega, np.sum(w_t) ** 2 / np.sum(w_t**2), shared)

    def anisotropic(self, x: np.ndarray, fitted: np.ndarray, judged: np.ndarray) -> float:
        """The correlation by ``judged`` of what the radial splines that suit ``fitted`` best leave of x and y."""
        s, n = self.orbits.inverse_d, self.choice.shells
        edges = np.linspace(s.min() ** 3, s.max() ** 3, n + 1) ** (1 / 3)
        B, root = recursion(np.r_[[edges[0]] * 3, edges, [edges[-1]] * 3], s), np.sqrt(fitted)[:, None]
        left = [v - B.T @ np.linalg.lstsq(root * B.T, root[:, 0] * v)[0] for v in (x, self.orbits.observed)]
        return np.sum(judged * left[0] * left[1]) / np.sqrt(np.prod([np.sum(judged * v**2) for v in left]))

    def penalty(self, u_t: np.ndarray, w_t: np.ndarray, w0_t: np.ndarray) -> float:
        """Of all regularisers."""
        choice, normalised = self.choice, self.choice.weights == "simplex"
        theta = choice.thetas[0] if normalised else 0.0
        level = np.log(u_t**2) if normalised else u_t
        steps = (level[1:] - level[:-1])[FOLLOWS.ravel()[1:T]]
        return (
            theta * (self.divergence(w_t, w0_t) if normalised else 0.0)
            + choice.l1 * np.abs(w_t).sum()
            + choice.l2 * T * np.sum((w_t - w0_t) ** 2)
            + choice.smoothness / T * np.sum(steps**2)
        )

    def divergence(self, w_t: np.ndarray, w0_t: np.ndarray) -> float:
        """What theta prices: each group's own, weighted by the group, and that of frames in no group."""
        number = self.case.free_groups.ravel()[:T]
        if number.max() < 0:
            return np.sum(w_t * np.log(w_t / w0_t))
        within = 0.0
        for group in range(number.max() + 1):
            p, p0 = w_t[number == group], w0_t[number == group]
            within += np.sum(p * np.log(p / p.sum() / (p0 / p0.sum())))
        p, p0 = w_t[number < 0], w0_t[number < 0]
        return within + np.sum(p * np.log(p / p0) - p + p0)

    def y(self) -> tuple[np.ndarray, np.ndarray]:
        """Observed intensities and their variances, in the units of the objective."""
        y, mean = self.orbits.observed, np.average(self.orbits.observed, weights=self.orbits.multiplicity)
        if self.choice.objective == "poisson":
            return y, np.ones(len(y))
        unit2 = np.average((y - mean) ** 2, weights=self.orbits.multiplicity)
        uses_sigmas = self.choice.sigmas is not False
        return (y - mean) / np.sqrt(unit2), self.orbits.sigma**2 / unit2 if uses_sigmas else np.ones(len(y))

    def _least_squares(self, x: np.ndarray, omega: np.ndarray) -> float:
        """Half the chi^2 of the best scale and background, by ``lstsq``; half their number is what omega sums to."""
        y, variance = self.y()
        fitted = np.sqrt(self.omega() / variance)[:, None]
        columns = np.column_stack([x, *bernstein(self.orbits.inverse_d, self.choice.background)])
        k_c = np.linalg.lstsq(fitted * columns, fitted[:, 0] * y)[0]
        assert k_c[0] > 0, "where the scale is negative the misfit is another one"
        return 0.5 * np.sum(omega / variance * (columns @ k_c - y) ** 2) / omega.sum()

    def _likelihood(self, x: np.ndarray, omega: np.ndarray, ess: float, shared: dict) -> float:
        y, variance = self.y()
        objective, choice = self.case.observed.objective, self.choice
        kx = objective.k0 * np.exp(shared["log_scale"]) * x
        b = shared["background"]
        c = objective.c0 * np.exp(b) if choice.objective == "poisson" else objective.c0 + b
        mu = kx + c @ bernstein(self.orbits.inverse_d, choice.background)
        if choice.objective == "poisson":
            density = mu - y + xlogy(y, y / mu)
        else:
            v = variance * np.exp(2 * shared.get("log_sigma", 0.0)) + (kx**2 / ess if choice.model_error else 0.0)
            r2, nu = (y - mu) ** 2 / v, choice.student_nu
            power = (nu + 1) / 2 * np.log(1 + r2 / nu) if choice.objective == "student-t" else r2 / 2
            density = power + np.log(v) / 2
        return np.sum(omega * density) / omega.sum()


@lru_cache
def _frames_and_orbits() -> tuple[np.ndarray, OrbitMap]:
    """Frames of 90 and orbits of 1 to 6 reflections; the map is a scaled ensemble with noise and a background."""
    reflections, rng = cubic_reflections(2.0), np.random.default_rng(1)
    H = len(reflections)
    F_th = gaussian_frames(T, H, seed=3)
    orbit = np.unique(np.sort(rng.integers(0, H // 3, H)), return_inverse=True)[1]
    n = orbit.max() + 1
    w_t = rng.random(T) ** 2
    true = np.bincount(orbit, diffuse_intensity(F_th, w_t / w_t.sum())) / np.bincount(orbit)
    inverse_d = np.sort(rng.uniform(0.1, 0.5, n))
    observed = 3 * true * (1 + 0.2 * rng.standard_normal(n)) + 8 - 10 * inverse_d
    sigma = observed * rng.uniform(0.05, 0.2, n)
    shell = np.sort(rng.integers(0, SHELLS, n))
    multiplicity = rng.integers(1, 9, n)
    return F_th, OrbitMap(
        np.arange(H), orbit, observed, sigma, None, multiplicity, shell, np.zeros((n, 3), int), inverse_d,
        np.arange(n), {},
    )  # fmt: skip


def system(
    precision: str = "float64", encoding: str = "complex128", *, orbits: OrbitMap | None = None,
    groups: FrameGroups = ONE_GROUP, **options,
) -> System:  # fmt: skip
    """A fifth of the orbits held out, the others drawn 0 to 3 times; several strips a tile. options: of [problem]."""
    F_th, usual = _frames_and_orbits()
    orbits = usual if orbits is None else orbits
    choice = FrameWeightsConfig(kind="frame-weights", shells=SHELLS, **({"theta": 0.0} | options))
    n, rng = len(orbits.observed), np.random.default_rng(5)
    part = (rng.random(n) < 0.2).astype(int)
    chosen = OrbitChoice(part, np.where(part == 1, 1, rng.integers(0, 4, n)))
    tiling = make_tiling(orbits, MANY, 8)
    reference = Reference.of_sample(cubic_reflections(2.0), F_th)
    observed = observe(orbits, orbit_means(orbits, reference.scale**2), choice, "a map")
    config = SimpleNamespace(problem=choice, run=SimpleNamespace(precision=precision))
    blocks = [SimpleNamespace(frames=64), SimpleNamespace(frames=T - 64)]
    store = SimpleNamespace(reference=reference)
    case = FrameWeightsCase(config, store, None, orbits, tiling, observed, chosen, blocks, None, groups)
    return System(F_th, case, precision, encoding)


def all_orbits(found: System) -> System:
    """The same with every orbit fitted once."""
    n = len(found.orbits.observed)
    return replace(found, case=replace(found.case, chosen=OrbitChoice(np.zeros(n, int), np.ones(n))))


def params_of(u_t: np.ndarray, shared: dict | None = None) -> Params:
    """With zeros where there is no frame."""
    return Params(shared or {}, {"u": np.pad(u_t, (0, 128 - T)).reshape(2, 64)})


def amplitudes(levels: np.ndarray) -> np.ndarray:
    """u on the simplex, gauged for uniform prior weights, whose ln w are these levels but for a constant."""
    u = np.exp(levels / 2)
    return u / np.sqrt(np.mean(u**2))


def orbit_means(orbits: OrbitMap, x_h: np.ndarray) -> np.ndarray:
    """[H] to [orbits]."""
    return np.bincount(orbits.orbit, x_h) / np.bincount(orbits.orbit)


def pearson(omega: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """The weighted correlation."""
    x, y = x - np.average(x, weights=omega), y - np.average(y, weights=omega)
    return np.sum(omega * x * y) / np.sqrt(np.sum(omega * x * x) * np.sum(omega * y * y))


def bernstein(inverse_d: np.ndarray, n: int) -> np.ndarray:
    """B-splines without inner knots: polynomials of degree n - 1, [n, orbits]."""
    t = np.minimum((inverse_d - inverse_d.min()) / np.ptp(inverse_d), BELOW)
    return np.array([math.comb(n - 1, j) * t**j * (1 - t) ** (n - 1 - j) for j in range(n)])


def recursion(knots: np.ndarray, at: np.ndarray, degree: int = 3) -> np.ndarray:
    """B-splines by Cox and de Boor's recursion, [n, points]; each interval without its upper end."""
    if degree == 0:
        at = np.clip(at, knots[0], knots[0] + BELOW * (knots[-1] - knots[0]))
        return np.array([(low <= at) & (at < high) for low, high in itertools.pairwise(knots)], float)
    lower, rows = recursion(knots, at, degree - 1), []
    for i in range(len(knots) - degree - 1):
        rising, falling = knots[i + degree] - knots[i], knots[i + degree + 1] - knots[i + 1]
        up = (at - knots[i]) / rising * lower[i] if rising else 0 * at
        down = (knots[i + degree + 1] - at) / falling * lower[i + 1] if falling else 0 * at
        rows.append(up + down)
    return np.array(rows)


def difference(function, at: float, step: float) -> float:
    """Central."""
    return (function(at + step) - function(at - step)) / (2 * step)
