"""The gradient of the loss by the parameters at the end, by every estimator, with its errors over windows.

    dL/dtheta_p  =  sum_m dL/d<O_m> d<O_m>/dtheta_p  +  dL/dtheta_p at fixed averages

The first factor is, of a datum, its deviation over sigma^2; bounds, differences and curves are those of the problem's
own residuals. Priors, curves and stored geometries are the second term.

Both factors are of the same windows, and the jackknife leaves each part of these out of both. Near a minimum the noise
of the gradient is that of the deviations: as constants, of another draw, say, they would leave the gradient almost
without an error, and off 0. The mean of a product of two noisy factors is off by their covariance, of the order of one
over the windows; what the parts left out say of it is taken off (Quenouille 1956, 10.1093/biomet/43.3-4.353).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.fit.problem import FrameRows
from hpcfit.kinds.force_field.simulated.averages import Windows
from hpcfit.kinds.force_field.simulated.derivatives import Estimates, of_frames, seen_of
from hpcfit.kinds.force_field.simulated.weighed import Given, slopes_by_parts, totals_by_parts
from hpcfit.statistics.blocks import jackknife_error, left_out_of

WAYS = ("pathwise", "fluctuation", "malliavin", "combined")
Array = np.ndarray
Tree = Any


class Known(NamedTuple):
    """A system by all its windows and without each of B parts of them, leaves [1 + B, ...].

    averaged: ``observed`` and ``weight``, what its averages are made of. slopes: the derivatives of its M data by the P
    parameters of energies, [1 + B, M, P], by estimator, NaN where one does not know them.
    """

    averaged: Tree
    slopes: dict[str, Array]


def of_draws(
    problem: Windows, u: Tree, found: Mapping[str, Array], estimated: Mapping[int, tuple[Estimates, ...]]
) -> list[Known]:
    """All systems by draws that compare the estimators. found: the product of ``Derivatives``; estimated: of the
    systems that have data of single frames, by number, what ``derivatives.by_parts`` gives."""
    return [_of_draws(problem, u, found, number, estimated.get(number)) for number in range(len(problem.ensembles))]


def _of_draws(
    problem: Windows, u: Tree, found: Mapping[str, Array], number: int, estimated: tuple[Estimates, ...] | None
) -> Known:
    ensemble, seen = problem.ensembles[number], seen_of(found, number)
    counted = seen.O[:, :, np.arange(1, seen.O.shape[2])[ensemble.counted]].mean(axis=(1, 2))
    parts = left_out_of(len(seen.O))
    means = lambda of_windows: np.stack([of_windows[kept].mean(axis=0) for kept in parts])  # noqa: E731
    observed = _by_observable(problem, number, means(counted), means(seen.motion.mean(axis=1)))
    of_motion = means(seen.of_motion.mean(axis=1)) / problem.moving.of_energies.own_slopes(u)
    single = np.concatenate(
        [np.full(m.sigma.shape[1], of_frames(one)) for m, one in zip(problem.tiles[number], ensemble.observables)]
    )
    slopes = {way: np.full((len(parts), len(single), of_motion.shape[-1]), np.nan) for way in (*WAYS, "unweighed")}
    slopes["pathwise"][:, ~single] = of_motion
    if estimated is not None:
        value, _, left_out = estimated
        for way, of_way in slopes.items():
            of_way[:, single] = np.concatenate([getattr(value, way)[None], getattr(left_out, way)])
    return Known({"observed": observed, "weight": np.ones(len(parts))}, slopes)


def _by_observable(problem: Windows, number: int, of_single: Array, of_motion: Array) -> tuple[Array, ...]:
    """The averaged numbers [K, ...] of each observable, from those of single frames [K, R] and of motions [K, R']."""
    [row] = problem.no_rows(FrameRows(np.zeros((1, 1), int), 1))[number : number + 1]
    found, taken = [], {True: 0, False: 0}
    for one, like in zip(problem.ensembles[number].observables, row["observed"]):
        source, first = (of_single if of_frames(one) else of_motion), taken[of_frames(one)]
        found.append(source[:, first : first + like.size].reshape(len(source), *like.shape[2:]))
        taken[of_frames(one)] += like.size
    return tuple(found)


def of_given(problem: Given, u: Tree, sums: Sequence[Array], tangents: Sequence[Array]) -> list[Known]:
    """All systems by frames that were given. sums, tangents: of the windows of each, see ``weighed.window_slopes``."""
    slopes = problem.moving.of_energies.own_slopes(u)
    return [
        Known(
            totals_by_parts(problem, number, sums[number]),
            {"fluctuation": slopes_by_parts(problem, number, u, slopes, sums[number], tangents[number])},
        )
        for number in range(len(problem.ensembles))
    ]


def rows(problem: Windows, u: Tree, known: Sequence[Known], beside: Any) -> Iterator[dict[str, Any]]:
    """The gradient by each free parameter and each estimator that knows it, in units of the parameters. beside: [P],
    of what the loss has beside averages and priors, by the numbers u."""
    for way, found in gradients(problem, u, known, beside).items():
        for name, value, error, of_derivatives in zip(problem.moving.free, *found):
            if np.isfinite(value):
                yield {
                    "parameter": name, "way": way, "gradient": value, "error": error,
                    "error_of_derivatives": of_derivatives,
                    "signal_to_noise": abs(value) / error if error > 0 else np.nan,
                }  # fmt: skip


def gradients(problem: Windows, u: Tree, known: Sequence[Known], beside: Any) -> dict[str, tuple[Array, Array, Array]]:
    """The gradient [P] by each estimator, see ``rows``, its standard errors [P], and what these would be if deviations
    had none [P]. That by Malliavin's weights has its bias in both."""
    by_averages, by_numbers = (
        jax.tree.map(np.asarray, one) for one in by_factors(problem, u, tuple(one.averaged for one in known))
    )
    at_rest = np.concatenate([by_numbers[name] for name in sorted(by_numbers)], axis=1) + beside
    at_rest = np.linalg.solve(problem.moving.free_slopes(u).T, at_rest.T).T

    def through_averages(way: str, by_averages: Array = by_averages) -> Array:
        """dL/d<O> d<O>/dtheta, [1 + B, P]; an average that the loss does not see need not be known."""
        slopes = np.concatenate([one.slopes[way] for one in known], axis=1)
        slopes = np.where(np.any(by_averages != 0, axis=0)[:, None], slopes, 0.0)
        of_energies = np.einsum("km,kmp->kp", by_averages, slopes)
        return np.pad(of_energies, [(0, 0), (0, at_rest.shape[1] - of_energies.shape[1])])

    def by(way: str) -> tuple[Array, Array, Array]:
        value, error = unbiased(through_averages(way) + at_rest)
        of_derivatives = jackknife_error(through_averages(way, constant)[1:])
        if way != "malliavin":
            return value, error, of_derivatives
        bias = np.hypot(*unbiased(through_averages("unweighed")))
        return value, np.hypot(error, bias), np.hypot(of_derivatives, bias)

    constant = np.broadcast_to(by_averages[0], by_averages.shape)
    return {way: by(way) for way in WAYS if way in known[0].slopes}


def unbiased(by_parts: Array) -> tuple[Array, Array]:
    """An estimate freed from its bias of first order, and its standard error, from that by all windows and those
    without each of B parts, [1 + B, ...]; as it is, without an error, for a single part."""
    whole, left_out = by_parts[0], by_parts[1:]
    B = len(left_out)
    return (B * whole - (B - 1) * left_out.mean(axis=0) if B > 1 else whole), jackknife_error(left_out)


@jax.jit
def by_factors(problem: Windows, u: Tree, averaged: tuple[Tree, ...]) -> tuple[Any, Tree]:
    """The derivatives of the loss by the averages of all systems, [K, M], and by the numbers u at fixed averages,
    leaves [K, ...]. averaged: ``observed`` and ``weight`` of each system, leaves [K, ...]."""
    n_averages = sum(len(m.sigma) for of_system in problem.tile[: len(averaged)] for m in of_system)

    def loss(shift: Any, v: Tree, sums: tuple[Tree, ...]) -> Any:
        pairs = zip(problem.along(v), sums)
        found = [value for one, own in pairs for value in one.averages(own["observed"], own["weight"])]
        data = problem.differences.behind(jnp.concatenate(found) + shift)
        return 0.5 * jnp.sum(problem.residuals(problem.compared(data, problem.tile), v) ** 2)

    of_one = jax.grad(loss, argnums=(0, 1))
    return jax.vmap(lambda sums: of_one(jnp.zeros(n_averages), u, sums))(averaged)
