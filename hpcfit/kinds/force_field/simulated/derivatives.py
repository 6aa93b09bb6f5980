"""The derivatives of averages by two estimators from the same windows, and what the shorter memory of one leaves out.

In equilibrium the pathwise derivative at the end of a window of length W, whose tangents begin at 0, is

    -(C(0) - C(W)) / kT,    C(t) = <O(t) dU/dtheta(0)> without the product of the means

while the whole derivative is -C(0) / kT: the share C(W) / C(0) is missing (Kubo's and Agarwal's linear response). So a
run measures what its windows are too short for, as it measures how fast its tangents grow.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from hpcfit.fit.stages import ArraysOfUnits
from hpcfit.kinds.force_field.simulated.averages import Ensemble, Windows
from hpcfit.kinds.force_field.simulated.parameters import Moving
from hpcfit.observables.observable import OfWalks
from hpcfit.ranks import Ranks
from hpcfit.simulation.langevin import PhasePoint
from hpcfit.statistics.blocks import jackknife_error, parts_of

DRAW = 1 << 20  # of the noise, beyond those of rounds
BIASED = 0.05  # of a derivative, the share from which a window is said to be too short
Array = np.ndarray


class Seen(NamedTuple):
    """The numbers that a window shows, at its start and after each of F frames.

    O: [F + 1, R], the numbers that observables average; slope: [F + 1, P], dU/du; total: [F + 1, R, P], dO/du along the
    trajectory; direct: [F + 1, R, P], at fixed positions; spread: [F + 1, P], the root mean square of dx/du over
    particles.
    """

    O: Any
    slope: Any
    total: Any
    direct: Any
    spread: Any


class Derivatives(ArraysOfUnits):
    """See ``fit.stages.Work``: a unit is a window, which goes on for so many draws; the product has for each
    system n the leaves of ``Seen`` as "n O" and so on, [windows, draws, ...]."""

    def __init__(
        self, problem: Windows, u: Mapping[str, Array], starts: Sequence[PhasePoint], draws: int, ranks: Ranks
    ):
        """starts: [windows, N, 3] of each system, on every rank."""
        super().__init__(ranks)
        self._problem, self._u, self._starts, self._draws = problem, u, starts, draws
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
        for draw in range(self._draws):
            key = self._problem.key(number, window, np.array(DRAW + draw))
            seen, point = _seen(ensemble, self._problem.moving, dict(self._u), point, key)
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
        found = ensemble.walked(theta, start, key, lambda point: (_numbers(ensemble, theta, point), point))
        return (found.seen[1].x, found.seen[0]), (found.seen, found.end)

    (of_x, total), ((O, points), end) = jax.jacfwd(frames, has_aux=True)(flat)
    points = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, points)
    at = jax.vmap(partial(_at, ensemble, moving, structure, flat))
    slope, direct, first = at(points)
    O = jnp.concatenate([first[:1], O])
    total = jnp.concatenate([direct[:1], total])
    spread = jnp.sqrt(jnp.mean(jnp.sum(of_x**2, axis=2), axis=1))
    return Seen(O, slope, total, direct, jnp.concatenate([jnp.zeros((1, len(flat))), spread])), end


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
    seen = ensemble.observed(theta, point)
    return jnp.concatenate([jnp.ravel(leaf) for leaf, one in zip(seen, ensemble.observables) if of_frames(one)])


def of_frames(one: Any) -> bool:
    """True for an observable of single frames."""
    return not isinstance(one, OfWalks)


# ---- estimates -------------------------------------------------------------------------------------------------------


class Estimates(NamedTuple):
    """Derivatives of M data by P parameters, each [M, P], with standard errors over windows.

    pathwise: the mean over the frames of a window, as a fit takes it. fluctuation: of all frames. left: the share of
    the derivative that the windows are too short for, the mean of C(t) / C(0) over their frames. memory: C(t) / C(0)
    itself, [F + 1, M, P].
    """

    pathwise: Array
    fluctuation: Array
    left: Array
    memory: Array

    def too_short(self, errors: Estimates) -> Array:
        """True where more than 5 % of a derivative are missing, and that is more than three errors."""
        return (np.abs(self.left) > BIASED) & (np.abs(self.left) > 3 * errors.left)

    def combined(self, errors: Estimates) -> tuple[Array, Array]:
        """The mean of both by their inverse variances, where the windows are long enough, and its error as if the two
        were independent; else the fluctuation formula."""
        a, b = errors.pathwise**-2.0, errors.fluctuation**-2.0
        a = np.where(self.too_short(errors), 0.0, a)
        return (a * self.pathwise + b * self.fluctuation) / (a + b), (a + b) ** -0.5


def estimates(
    ensemble: Ensemble, slopes: Array, found: Mapping[str, Array], number: int
) -> tuple[Estimates, Estimates]:
    """The estimates of a system by the parameters themselves, and their jackknife errors over windows.

    found: the product of ``Derivatives``; slopes: [P], of each parameter by its u.
    """
    seen = Seen(*(found[f"{number} {name}"] for name in Seen._fields))
    of_average = average_slopes(ensemble, seen.O.mean(axis=(0, 1, 2)))
    whole = np.arange(len(seen.O))
    kept = [whole, *(np.delete(whole, part) for part in parts_of(len(whole)))]
    every = [_estimated(ensemble, seen, of_average, slopes, windows) for windows in kept]
    return every[0], Estimates(*(jackknife_error(np.stack(parts)) for parts in zip(*every[1:])))


def _estimated(ensemble: Ensemble, seen: Seen, of_average: Array, slopes: Array, kept: Array) -> Estimates:
    """The estimates from some windows. of_average: [M, R] of ``average_slopes``."""
    O, slope, total, direct, _ = (leaf[kept] for leaf in seen)
    behind = slice(ensemble.skipped + 1, None)
    dO, dU = O - O.mean(axis=(0, 1, 2)), slope - slope.mean(axis=(0, 1, 2))
    C = np.stack([of_average @ correlation(dO, dU, lag) for lag in range(O.shape[2])])
    pathwise = of_average @ total[:, :, behind].mean(axis=(0, 1, 2))
    fluctuation = of_average @ direct.mean(axis=(0, 1, 2)) - C[0] / ensemble.kT
    memory = C / C[0]
    return Estimates(pathwise / slopes, fluctuation / slopes, memory[behind].mean(axis=0), memory)


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


def growth(ensemble: Ensemble, found: Mapping[str, Array], number: int) -> tuple[float, float]:
    """The rate, 1/ps, at which tangents grow in the second half of a window, the largest of all parameters, and its
    standard error over windows: an estimate of the largest Lyapunov exponent."""
    spread = np.log(found[f"{number} spread"][:, :, 1:])
    half = spread.shape[2] // 2
    if half < 1:
        return np.nan, np.nan
    rates = (spread[:, :, -1] - spread[:, :, -1 - half]).mean(axis=1) / (half * float(ensemble.interval))
    of_parameter = rates.mean(axis=0)
    most = int(np.argmax(of_parameter))
    return float(of_parameter[most]), float(rates[:, most].std(ddof=1) / np.sqrt(len(rates)))
