"""The posterior of a mixture by DREAM (Vrugt et al. 2009, 10.1515/IJNSNS.2009.10.3.273; bumps), beside its bootstrap.

Sampled are logarithms of population ratios, B factors and the parameters of S(q). Scale, solvent and offset are
integrated out in closed form, with a flat prior, and drawn afterwards. Priors: exp(-alpha KL) times a flat one on the
simplex for the populations, a Gaussian of ``b_width`` for ln B factors, flat ones between their bounds for S(q).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError
from hpcfit.fit.problem import Block, Cell, Params, Statistics
from hpcfit.kinds.clusters.mixture.fits import Mixture, MixtureResult
from hpcfit.kinds.clusters.mixture.problem import LINEAR, WIDTH, Grams, MixtureFit
from hpcfit.ranks import Ranks

FURTHEST = 12.0  # bounds of ln(w / w of the most frequent component) and of ln B factors
NEAR = 0.02  # spread of the first population of chains about the fit
CONVERGED = 1.1  # Gelman and Rubin's R
T = TypeVar("T")


class OnRoot(Protocol):
    """Something that gives root's result to every rank."""

    def on_root(self, function: Callable[[], T]) -> T:
        """See ``Ranks.on_root``."""


class Posterior(NamedTuple):
    """Draws of a posterior. weights: [draws, C]; parameters: [draws] by name; r: Gelman and Rubin's R of each sampled
    coordinate, near 1 where chains agree; best: the least loss of a draw."""

    weights: np.ndarray
    parameters: dict[str, np.ndarray]
    r: np.ndarray
    best: float

    @property
    def converged(self) -> bool:
        """True where all chains agree."""
        return bool(np.all(self.r < CONVERGED))


def sample(
    mixture: Mixture, result: MixtureResult, ranks: OnRoot, draws: int = 20_000, burn: int = 500, seed: int = 1
) -> Posterior:
    """Draws from the posterior, from chains that begin about a fit; on root, the same on every rank. ranks: ``Ranks``,
    or the ``Fits`` of a run, which a signal ends. burn: generations that are thrown away. One processor gives the same
    draws for a seed."""
    return ranks.on_root(lambda: _sample(mixture, result, draws, burn, seed))


class _Coordinates(NamedTuple):
    """The vector that is sampled: ln(w_c / w_reference) of all other components, then t, then S(q)'s parameters."""

    others: np.ndarray  # numbers of components
    reference: int
    refined: int
    low: np.ndarray
    high: np.ndarray

    def split(self, x: Any, components: int) -> tuple[Any, Any, Any]:
        """ln w with any constant [C], t [refined], and the parameters of S(q)."""
        n = len(self.others)
        y = jnp.zeros(components).at[self.others].set(x[:n]) if n else None
        return y, x[n : n + self.refined], x[n + self.refined :]


def _coordinates(mixture: Mixture, result: MixtureResult) -> tuple[_Coordinates, np.ndarray]:
    """The coordinates and where the fit is in them."""
    options, w = mixture.options, np.maximum(result.weights, 1e-300)
    reference = int(np.argmax(w))
    others = np.flatnonzero(np.arange(len(w)) != reference) if options.weights else np.zeros(0, int)
    y = np.clip(np.log(w[others] / w[reference]), -FURTHEST / 2, FURTHEST)
    t = np.log([result.parameters[f"B {'-'.join(pair)}"] for pair in options.pairs])
    spheres = np.array([result.parameters[name] for name in options.sphere_names])
    bounds = np.array([options.bounds_of(name) for name in options.sphere_names]).reshape(-1, 2)
    wide = np.full(len(y) + len(t), FURTHEST)
    low, high = np.concatenate([-wide, bounds[:, 0]]), np.concatenate([wide, bounds[:, 1]])
    return _Coordinates(others, reference, len(t), low, high), np.concatenate([y, t, spheres])


def _sample(mixture: Mixture, result: MixtureResult, draws: int, burn: int, seed: int) -> Posterior:
    try:
        from bumps.dream import core
    except ImportError:
        raise InputError("the posterior needs bumps", remedy="pip install 'hpcfit[clusters]'") from None
    coordinates, at = _coordinates(mixture, result)
    if not len(at):
        raise InputError("a mixture without free populations, B or S(q) has no posterior", remedy="fit some of them")
    density = _density(mixture, coordinates)
    chains = max(10, 2 * len(at))
    random = np.random.default_rng(seed)
    start = at + NEAR * np.maximum(np.abs(at), 1.0) * random.standard_normal((chains, len(at)))
    width = coordinates.high - coordinates.low
    start = np.clip(start, coordinates.low + 1e-3 * width, coordinates.high - 1e-3 * width)
    model = _Model(density, np.array([coordinates.low, coordinates.high]), [str(n) for n in range(len(at))])
    sampler = core.Dream(
        model=model, population=start[None], draws=draws, burn=burn * chains, thinning=1, alpha=0.0, outlier_test="iqr",
        monitor=lambda *_: True,
    )  # fmt: skip
    before = np.random.get_state()  # noqa: NPY002 (bumps draws from NumPy's global numbers)
    try:
        _seed(seed)
        state = sampler.sample()
    finally:
        np.random.set_state(before)  # noqa: NPY002
    state.mark_outliers()
    drawn = state.draw()
    r = np.atleast_1d(np.asarray(state.gelman(), float))
    return _posterior(mixture, coordinates, np.asarray(drawn.points), r, float(-np.max(drawn.logp)), random)


def _seed(seed: int) -> None:
    """Seed the numbers that bumps draws: NumPy's global ones, and those that numba has for compiled code, in which
    bumps makes its proposals; they would begin at another place in each process."""
    from numba import njit

    np.random.seed(seed)  # noqa: NPY002
    njit(lambda number: np.random.seed(number))(seed)  # noqa: NPY002


class _Model:
    """The interface that DREAM asks for."""

    def __init__(self, density: Any, bounds: np.ndarray, labels: list[str]):
        self.bounds, self.labels = bounds, labels
        self._map = jax.jit(jax.vmap(lambda x: density(x)[0]))

    def map(self, population: np.ndarray) -> np.ndarray:
        """The log density of each row."""
        found = -np.asarray(self._map(population))
        return np.where(np.isfinite(found), found, -1e300)


def _density(mixture: Mixture, coordinates: _Coordinates) -> Any:
    """A function of x: (-ln posterior, (w [C], Gram matrix, linear terms))."""
    problem: MixtureFit = jax.tree.map(jnp.asarray, mixture.problem())
    C, blocks, options = len(mixture.components), mixture.n_blocks, mixture.options
    evaluate = mixture.gradient(mixture.grid(Ranks()))
    rows, [chunk] = evaluate.frames.rows, list(evaluate.frames.chunks())
    ids, more, data = jax.tree.map(jnp.asarray, (rows.ids, rows.more, chunk.data))
    log_w0 = jnp.log(mixture.prior())
    low, width = jnp.asarray(coordinates.low), jnp.asarray(coordinates.high - coordinates.low)
    used = jnp.array([True, mixture.solvent is not None, options.offset])

    def density(x: Any) -> tuple[Any, Any]:
        y, t, values = coordinates.split(x, C)
        log_w = log_w0 if y is None else y - jax.nn.logsumexp(y)
        v = jnp.zeros(blocks * WIDTH).at[:C].set(log_w - log_w0).reshape(blocks, WIDTH)
        shared = {"log_b": t}
        if len(values):
            n = len(coordinates.low) - len(values)
            share = (values - low[n:]) / width[n:]
            shared["spheres"] = jnp.log(share / (1 - share))
        params = Params(shared, v)
        of_block = lambda v, ids, more: problem.of_frames(Params(shared, v), Block(ids, more))  # noqa: E731
        common = jax.tree.map(lambda a: jnp.sum(a, axis=0), jax.vmap(of_block)(v, ids, more))
        of_cell = lambda data, v, ids, more: problem.partial(Params(shared, v), Cell(data, ids, more))  # noqa: E731
        sliced = jax.vmap(lambda tile: jnp.sum(jax.vmap(of_cell)(tile, v, ids, more), axis=0))(data)
        of_tile = lambda s, tile: problem.summary(Statistics(common, s), params.shared, tile)  # noqa: E731
        grams: Grams = jax.tree.map(lambda a: jnp.sum(a, axis=0), jax.vmap(of_tile)(sliced, problem.points))
        profiled = problem.units * _profiled(grams.fitted, used)
        linear = problem.linear(grams, shared) if options.profiled else profiled
        scaled = _normal(grams.fitted, used)
        loss = problem.misfit(grams.fitted, linear) / 2 + problem.alpha * problem.divergence(common)
        loss = loss + jnp.sum(problem.b_precision * t**2) / 2 + jnp.linalg.slogdet(scaled)[1] / 2
        flat = 0.0 if y is None else jnp.sum(log_w)  # from ln w to w: a flat prior on the simplex
        return loss - flat, (jnp.exp(log_w), grams.fitted, linear)

    return density


def _normal(gram: Any, used: Any) -> Any:
    """The matrix of the normal equations of the linear terms, 1 on the diagonal of those that are not used."""
    return jnp.where(used[:, None] & used[None], gram[:3, :3], 0.0) + jnp.diag(jnp.where(used, 0.0, 1.0))


def _profiled(gram: Any, used: Any) -> Any:
    return jnp.linalg.solve(_normal(gram, used), jnp.where(used, gram[:3, 3], 0.0))


def _posterior(
    mixture: Mixture, coordinates: _Coordinates, points: np.ndarray, r: np.ndarray, best: float, random: Any
) -> Posterior:
    """Weights and parameters of each draw; the linear terms are drawn about their best values there."""
    _, (weights, grams, linear) = jax.jit(jax.vmap(_density(mixture, coordinates)))(points)
    options, n = mixture.options, len(coordinates.others)
    used = np.array([True, mixture.solvent is not None, options.offset])
    normal = np.where(used[:, None] & used[None], np.asarray(grams)[:, :3, :3], 0.0) + np.diag(~used)
    size = np.sqrt(np.einsum("nkk->nk", normal))
    factor = np.linalg.cholesky(np.linalg.inv(normal / size[:, :, None] / size[:, None]))
    noise = np.einsum("nij,nj->ni", factor, random.standard_normal((len(points), 3))) / size
    drawn = np.asarray(linear) + noise * used * np.asarray(mixture.problem().units)
    drawn[:, :2] = np.maximum(drawn[:, :2], 0.0)
    parameters = dict(zip(LINEAR, drawn.T))
    t, spheres = points[:, n : n + coordinates.refined], points[:, n + coordinates.refined :]
    parameters |= {f"B {'-'.join(pair)}": np.exp(values) for pair, values in zip(options.pairs, t.T)}
    parameters |= dict(zip(options.sphere_names, spheres.T))
    return Posterior(np.asarray(weights), parameters, r, best)
