"""The derivatives of averages by every estimator from the same windows, and what the shorter memory of some leaves out.

In equilibrium the pathwise derivative at the end of a window of length W, whose tangents begin at 0, is

    -(C(0) - C(W)) / kT,    C(t) = <O(t) dU/dtheta(0)> without the product of the means

while the whole derivative is -C(0) / kT: the share C(W) / C(0) is missing (Kubo's and Agarwal's linear response). So a
run measures what its windows are too short for, as it measures how fast its tangents grow. Malliavin weights, which
begin at 0 as well, have the mean of tangents in every window, at any step: the cross-check of both.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from hpcfit.fit.stages import ArraysOfUnits
from hpcfit.kinds.force_field.parameters import Moving
from hpcfit.kinds.force_field.simulated.averages import Windows
from hpcfit.kinds.force_field.simulated.ensemble import Ensemble
from hpcfit.observables.observable import OfWalks
from hpcfit.ranks import Ranks
from hpcfit.simulation.langevin import PhasePoint
from hpcfit.statistics.blocks import jackknife_error, left_out_of

DRAW = 1 << 20  # of the noise, beyond those of rounds; a pilot has draws of its own beyond these
BIASED = 0.05  # of a derivative, the share from which a window is said to be too short
Array = np.ndarray


class Seen(NamedTuple):
    """The numbers that a window shows, at its start and after each of F frames.

    O: [F + 1, R], the numbers that observables average; slope: [F + 1, P], dU/du; total: [F + 1, R, P], dO/du along the
    trajectory; direct: [F + 1, R, P], at fixed positions; spread: [F + 1, P], the root mean square of dx/du over
    particles; weight: [F + 1, P], Malliavin's, NaN where there are constraints. motion: [R'], what observables of
    motions find of the walk; of_motion: [R', P], its derivatives along the trajectory.
    """

    O: Any
    slope: Any
    total: Any
    direct: Any
    spread: Any
    weight: Any
    motion: Any
    of_motion: Any


class Derivatives(ArraysOfUnits):
    """See ``fit.stages.Work``: a unit is a window, which goes on for so many draws; the product has for each
    system n the leaves of ``Seen`` as "n O" and so on, [windows, draws, ...]."""

    def __init__(
        self, problem: Windows, u: Mapping[str, Array], starts: Sequence[PhasePoint], draws: range, ranks: Ranks
    ):
        """starts: [windows, N, 3] of each system, on every rank; draws: the numbers of their noise."""
        super().__init__(ranks)
        self._u = {name: u[name] for name in problem.moving.of_energies.classes}
        self._problem, self._starts, self._draws = problem, starts, draws
        self.n_units = len(starts[0].x)

    def run(self, units: Sequence[int]) -> Generator[int]:
        """See ``fit.stages.Work``."""
        for unit in units:
            for number, ensemble in enumerate(self._problem.ensembles):
                found = self._of_window(number, ensemble, unit)
                self._done |= {f"{unit} {number} {name}": leaf for name, leaf in found._asdict().items()}
            yield unit

    def _of_window(self, number: int, ensemble: Ensemble, window: int) -> Seen:
        point = jax.tree.map(lambda leaf: leaf[window], self._starts[number])
        draws = []
        for draw in self._draws:
            key = self._problem.key(number, window, np.array(draw))
            seen, point = _seen(ensemble, self._problem.moving, self._u, point, key)
            draws.append(seen)
        return jax.tree.map(lambda *leaves: np.stack(leaves), *draws)

    def product(self) -> dict[str, Array]:
        """See the class."""
        kept = self.kept()
        whole = lambda number, name: np.stack(  # noqa: E731
            [kept[f"{window} {number} {name}"] for window in range(self.n_units)]
        )
        pairs = [(number, name) for number in range(len(self._problem.ensembles)) for name in Seen._fields]
        return {f"{number} {name}": whole(number, name) for number, name in pairs} if kept else {}


@jax.jit
def _seen(ensemble: Ensemble, moving: Moving, u: Any, start: PhasePoint, key: Any) -> tuple[Seen, PhasePoint]:
    """What one window shows, and where it ends."""
    flat, structure = ravel_pytree(u)

    def frames(v: Any) -> tuple[Any, Any]:
        theta = moving.at(structure(v), ensemble.parameters)
        found = ensemble.walked(theta, start, key, lambda point: (ensemble.observed(theta, point), point))
        seen, points = found.seen
        shown = points.x, jax.vmap(partial(_of_frames, ensemble))(seen), _of_motions(ensemble, seen)
        return shown, (shown, points, found.end)

    if ensemble.barostat is None:
        (of_x, total, of_motion), (shown, points, end) = jax.jacfwd(frames, has_aux=True)(flat)
    else:  # trial moves of the volume have no derivative
        shown, (_, points, end) = frames(flat)
        of_x, total, of_motion = (jnp.full((*leaf.shape, len(flat)), jnp.nan) for leaf in shown)
    _, O, motion = shown
    points = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, points)
    at = jax.vmap(partial(_at, ensemble, moving, structure, flat))
    slope, direct, first = at(points)
    O = jnp.concatenate([first[:1], O])
    total = jnp.concatenate([direct[:1], total])
    spread = jnp.sqrt(jnp.mean(jnp.sum(of_x**2, axis=2), axis=1))
    nothing = jnp.zeros((1, len(flat)))

    def likelihoods(v: Any) -> Any:
        theta = moving.at(structure(v), ensemble.parameters)
        return ensemble.weighed(theta, start, key, lambda point: point.likelihood).seen

    unknown = ensemble.constraints is not None or ensemble.barostat is not None
    weight = jnp.full(spread.shape, jnp.nan) if unknown else jax.jacfwd(likelihoods)(flat)
    spread, weight = (jnp.concatenate([nothing, leaf]) for leaf in (spread, weight))
    return Seen(O, slope, total, direct, spread, weight, motion, of_motion), end


def _at(ensemble: Ensemble, moving: Moving, structure: Any, flat: Any, point: PhasePoint) -> tuple[Any, Any, Any]:
    """dU/du [P] and dO/du [R, P] at fixed positions, but for those that constrained lengths move, and O [R]."""

    def numbers(v: Any) -> tuple[Any, Any]:
        theta = moving.at(structure(v), ensemble.parameters)
        at = ensemble.begun(theta, point)
        return ensemble.energy(theta, at), _numbers(ensemble, theta, at)

    slope, direct = jax.jacfwd(numbers)(flat)
    return slope, direct, numbers(flat)[1]


def _numbers(ensemble: Ensemble, theta: Any, point: PhasePoint) -> Any:
    """The numbers of a frame that all observables of single frames average, [R]."""
    return _of_frames(ensemble, ensemble.observed(theta, point))


def _of_frames(ensemble: Ensemble, seen: tuple) -> Any:
    """The numbers of a frame as one array, [R], of all that observables see of it."""
    of_each = [jnp.ravel(leaf) for leaf, one in zip(seen, ensemble.observables) if of_frames(one)]
    return jnp.concatenate([jnp.zeros(0), *of_each])


def _of_motions(ensemble: Ensemble, seen: tuple) -> Any:
    """What all observables of motions find of a walk, [R'], from what they keep of its frames."""
    observed, _ = ensemble.of_window(seen, jnp.ones(ensemble.frames))
    of_each = [jnp.ravel(leaf) for leaf, one in zip(observed, ensemble.observables) if not of_frames(one)]
    return jnp.concatenate([jnp.zeros(0), *of_each])


def seen_systems(problem: Windows) -> list[int]:
    """The numbers of the systems that have an observable of single frames."""
    return [number for number, one in enumerate(problem.ensembles) if any(map(of_frames, one.observables))]


def of_frames(one: Any) -> bool:
    """True for an observable of single frames."""
    return not isinstance(one, OfWalks)


# ---- estimates -------------------------------------------------------------------------------------------------------


class Errors(NamedTuple):
    """The squares of the errors of windows of 1, 2 ... L frames, [L, ...]: bias and variance."""

    bias: Array
    variance: Array

    @property
    def total(self) -> Array:
        """The mean square of the error."""
        return self.bias + self.variance

    @property
    def best(self) -> Array:
        """The number of frames with the least error, [...]."""
        return np.argmin(self.total, axis=0) + 1

    def careful(self) -> Errors:
        """These errors, with no bias below that of any longer window."""
        return self._replace(bias=np.maximum.accumulate(self.bias[::-1])[::-1])


class Estimates(NamedTuple):
    """Derivatives of M data by P parameters, each [M, P], with standard errors over windows.

    pathwise: the mean over the frames of a window, as a fit takes it. malliavin: by weights, from what O and q gain in
    W frames, for the shortest W whose bias is less than its noise, with both in its error. fluctuation: of all frames.
    combined: of pathwise and fluctuation, by inverse variances. left: the share of the derivative that the windows are
    too short for, by the mean of C(t) over their frames. apart: what fluctuation has more than pathwise. memory: C(t) /
    C(0), [L + 1, M, P], along the L frames of tangents. lacking: what a derivative lacks by windows of 1, 2 ... L
    frames, [L, M, P]. unweighed: what malliavin lacks. At constant pressure all but memory, fluctuation and combined,
    which then is that, are NaN.
    """

    pathwise: Array
    malliavin: Array
    fluctuation: Array
    combined: Array
    left: Array
    apart: Array
    memory: Array
    lacking: Array
    unweighed: Array

    def too_short(self, errors: Estimates) -> Array:
        """True where more than 5 % of a derivative are missing, and that is more than three errors."""
        missing, error = map(np.abs, self.missing(errors))
        return (missing > BIASED * np.abs(self.fluctuation)) & (missing > 3 * error)

    def missing(self, errors: Estimates) -> tuple[Array, Array]:
        """The part that windows are too short for, and its error, [M, P]: by C or by the two estimates, whichever is
        more errors away from 0."""
        by_memory, of_memory = self.lacking[-1], errors.lacking[-1]
        chosen = np.abs(self.apart) * of_memory > np.abs(by_memory) * errors.apart
        return np.where(chosen, self.apart, -by_memory), np.where(chosen, errors.apart, of_memory)


def estimates(
    ensemble: Ensemble, slopes: Array, found: Mapping[str, Array], number: int
) -> tuple[Estimates, Estimates]:
    """The estimates of a system by the parameters themselves, and their jackknife errors over windows.

    found: the product of ``Derivatives``; slopes: [P], of each parameter by its u.
    """
    return by_parts(ensemble, slopes, found, number)[:2]


def by_parts(
    ensemble: Ensemble, slopes: Array, found: Mapping[str, Array], number: int
) -> tuple[Estimates, Estimates, Estimates]:
    """The estimates of a system and their errors, see ``estimates``, and those without each part of its windows, leaves
    [B, ...]."""
    seen = seen_of(found, number)
    of_average = average_slopes(ensemble, seen.O.mean(axis=(0, 1, 2)))
    kept = left_out_of(len(seen.O))
    value, *parts = [_estimated(ensemble, seen, of_average, slopes, windows) for windows in kept]
    left_out = Estimates(*(np.stack(of_parts) for of_parts in zip(*parts)))
    error = Estimates(*map(jackknife_error, left_out))
    share = _shares(error.fluctuation**2, error.pathwise**2 + error.fluctuation**2)
    share = np.where(value.too_short(error) | np.isnan(value.pathwise), 0.0, share)
    weighed = Errors(of_bias(value, error), error.malliavin**2).careful()
    unbiased = _first(weighed.bias <= weighed.variance)

    def of_lag(of_lags: Array) -> Array:
        """The numbers [..., M, P] at the W of weights, of those at all W, [..., L, M, P]."""
        places = unbiased[(None,) * (of_lags.ndim - 2)]
        return np.take_along_axis(of_lags, places, axis=-3)[..., 0, :, :]

    known = lambda one: np.where(share > 0, one.pathwise, 0.0)  # noqa: E731
    mixed = lambda one: share * known(one) + (1 - share) * one.fluctuation  # noqa: E731
    left_out, value = (
        one._replace(combined=mixed(one), malliavin=of_lag(one.malliavin), unweighed=of_lag(one.unweighed))
        for one in (left_out, value)
    )
    of_weighed, of_unweighed = np.sqrt(of_lag(weighed.total)), jackknife_error(left_out.unweighed)
    combined = jackknife_error(left_out.combined)
    return value, error._replace(combined=combined, malliavin=of_weighed, unweighed=of_unweighed), left_out


def _shares(parts: Array, wholes: Array) -> Array:
    """Parts by wholes, 0 of nothing: of a parameter that a system does not have."""
    return np.divide(parts, wholes, out=np.zeros_like(parts), where=wholes != 0)


def _first(true: Array) -> Array:
    """The first place along the first axis that is true, the last one where none is."""
    return np.where(np.any(true, axis=0), np.argmax(true, axis=0), len(true) - 1)


def of_bias(value: Estimates, error: Estimates) -> Array:
    """Squares of the bias, with what its error adds, of windows of 1, 2 ... L frames, [L, M, P]."""
    return value.lacking**2 + error.lacking**2


def seen_of(found: Mapping[str, Array], number: int) -> Seen:
    """Numbers that all windows of a system show, leaves [windows, draws, ...]."""
    return Seen(*(found[f"{number} {name}"] for name in Seen._fields))


def _estimated(ensemble: Ensemble, seen: Seen, of_average: Array, slopes: Array, kept: Array) -> Estimates:
    """The estimates from some windows, but for the combined one; that by weights for W = 1, 2 ... L frames, [L, M, P].
    of_average: [M, R] of ``average_slopes``."""
    O, slope, total, direct, _, weight, *_ = (leaf[kept] for leaf in seen)
    counted, L = np.arange(1, O.shape[2])[ensemble.counted], ensemble.stretch
    dO, dU = O - O.mean(axis=(0, 1, 2)), slope - slope.mean(axis=(0, 1, 2))
    C = np.stack([of_average @ correlation(dO, dU, lag) for lag in range(L + 1)])
    pathwise = of_average @ total[:, :, counted].mean(axis=(0, 1, 2))
    at_rest = of_average @ direct.mean(axis=(0, 1, 2))
    malliavin = at_rest + np.stack([of_average @ gained for gained in _gained(ensemble, O, weight)])
    fluctuation = at_rest - C[0] / ensemble.kT
    memory = _shares(C, np.broadcast_to(C[0], C.shape))
    left = _shares(-C[ensemble.ages].mean(axis=0) / ensemble.kT, fluctuation)
    left = np.where(np.isnan(pathwise), np.nan, left)
    lacking = behind_each(ensemble, C[1:]) / ensemble.kT
    found = pathwise, malliavin, fluctuation, fluctuation
    apart = (fluctuation - pathwise) / slopes
    lacking = lacking / slopes
    return Estimates(*(one / slopes for one in found), left, apart, memory, lacking, lacking)


def _gained(ensemble: Ensemble, O: Array, weight: Array) -> Iterator[Array]:
    """The means of what O and the weight gain in W = 1, 2 ... L frames, one times the other, [R, P]: weights know
    nothing of O at the beginning."""
    L = ensemble.stretch
    places = np.arange(0, ensemble.frames, L)[:, None] + np.arange(L + 1)
    along = lambda leaf: leaf[:, :, places].reshape(len(leaf), -1, L + 1, leaf.shape[-1])  # noqa: E731
    O, q = along(O), along(weight)
    q[:, :, 0] = 0.0  # where tangents begin anew
    for W in range(1, L + 1):
        yield correlation(O[:, :, W:] - O[:, :, :-W], q[:, :, W:] - q[:, :, :-W], 0)


def behind_each(ensemble: Ensemble, values: Array) -> Array:
    """The means of values [L, ...] over the frames that count in windows of 1, 2 ... L frames, of which the first are
    skipped in proportion."""
    L = len(values)
    n = np.arange(1, L + 1)
    first = ensemble.skipped * n // L
    sums = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])
    return (sums[n] - sums[first]) / (n - first).reshape(L, *[1] * (values.ndim - 1))


def correlation(dO: Array, dU: Array, lag: int) -> Array:
    """C(lag) of deviations from means, [W, draws, F + 1, R] and [W, draws, F + 1, P]: the mean over windows and
    origins, [R, P]."""
    later, before = dO[:, :, lag:], dU[:, :, : dU.shape[2] - lag]
    return np.einsum("wdfr,wdfp->rp", later, before) / later[..., 0].size


def average_slopes(ensemble: Ensemble, mean: Array) -> Array:
    """The derivatives of what measurements are compared with by the averaged numbers, [M, R], of observables of single
    frames."""
    point = jax.eval_shape(lambda p: ensemble.observed(ensemble.parameters, p), ensemble.blank)
    shapes = [leaf.shape for leaf, one in zip(point, ensemble.observables) if of_frames(one)]
    ones = [one for one in ensemble.observables if of_frames(one)]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])

    def values(flat: Any) -> Any:
        parts = [part.reshape(shape) for part, shape in zip(jnp.split(flat, ends[:-1]), shapes)]
        return jnp.concatenate([jnp.ravel(one.of_average(part)) for one, part in zip(ones, parts)])

    return np.asarray(jax.jacfwd(values)(jnp.asarray(mean)))


def in_stretches(ensemble: Ensemble, of_frames: Array) -> Array:
    """Numbers of frames [windows, draws, F, ...] by the stretches along which tangents are carried, [windows, n, L,
    ...]."""
    return of_frames.reshape(len(of_frames), -1, ensemble.stretch, *of_frames.shape[3:])


def growth(ensemble: Ensemble, found: Mapping[str, Array], number: int) -> tuple[float, float]:
    """The rate, 1/ps, at which tangents grow in the second half of a window, the largest of all parameters, and its
    standard error over windows: an estimate of the largest Lyapunov exponent."""
    spread = in_stretches(ensemble, found[f"{number} spread"][:, :, 1:])
    spread = np.log(spread[..., np.all(spread > 0, axis=(0, 1, 2))])
    half = spread.shape[2] // 2
    if half < 1 or not spread.size:
        return np.nan, np.nan
    rates = (spread[:, :, -1] - spread[:, :, -1 - half]).mean(axis=1) / (half * float(ensemble.interval))
    of_parameter = rates.mean(axis=0)
    most = int(np.argmax(of_parameter))
    return float(of_parameter[most]), float(rates[:, most].std(ddof=1) / np.sqrt(len(rates)))
