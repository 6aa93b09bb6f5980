"""The length along which tangents are best carried: windows of the least error at the same simulated time.

Tangents that begin at 0 lack C(t) / kT after a time t (``derivatives``), and their variance grows with it. A window of
k frames, of which the first are skipped in proportion, so has a bias, the mean of what its frames lack, and a variance;
there are 1/k as many windows in a simulated time, so that the variance counts k times.

C is itself measured with errors. The square of a bias is what is known of it, that of the value and that of its error,
and no lower than of any longer window: a C that crosses 0 by chance makes no window look good.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from hpcfit.fit.stages import Fits
from hpcfit.kinds.force_field.simulated.averages import Windows
from hpcfit.kinds.force_field.simulated.case import SimulatedCase
from hpcfit.kinds.force_field.simulated.derivatives import (
    DRAW,
    Derivatives,
    Errors,
    Estimates,
    average_slopes,
    behind_each,
    estimates,
    in_stretches,
    of_bias,
    of_frames,
    seen_of,
)
from hpcfit.kinds.force_field.simulated.ensemble import Ensemble
from hpcfit.simulation.langevin import PhasePoint

PILOT = "tangents"  # a stage
Array = np.ndarray


def errors_of_windows(
    ensemble: Ensemble, slopes: Array, found: Mapping[str, Array], number: int, at: tuple[Estimates, Estimates]
) -> Errors:
    """The errors of each derivative, [L, M, P]. at: the estimates of ``derivatives.estimates`` and their errors."""
    seen = seen_of(found, number)
    of_average = average_slopes(ensemble, seen.O.mean(axis=(0, 1, 2)))
    total = in_stretches(ensemble, seen.total[:, :, 1:]).mean(axis=1)  # [windows, L, R, P]
    by_frame = np.einsum("mr,wlrp->lwmp", of_average, total) / slopes
    means = behind_each(ensemble, by_frame)
    L, W = means.shape[:2]
    longer = np.arange(1, L + 1).reshape(L, 1, 1) / L
    return Errors(of_bias(*at), longer * means.var(axis=1, ddof=1) / W)


def weights_of_data(problem: Windows, number: int) -> Array:
    """The weights, 1 / sigma^2, with which the data of a system's single frames count in a fit, their differences
    from others too; where none is fitted, those of data held out."""
    ensemble, tiles = problem.ensembles[number], problem.tiles
    counts, held_out = (_by_system(problem, fitted) for fitted in (True, False))
    mine = [np.full(m.sigma.shape[1], of_frames(one)) for m, one in zip(tiles[number], ensemble.observables)]
    single = np.concatenate(mine)
    weights = counts[number][single]
    return weights if np.any(weights > 0) else held_out[number][single]


def _by_system(problem: Windows, fitted: bool) -> list[Array]:
    """1 / sigma^2 of all data, fitted or held out, as they count for the averages of each system."""
    *of_systems, of_differences = [
        np.concatenate([np.zeros(0), *(_weight(m, fitted) for m in tile)]) for tile in problem.tiles
    ]
    ends = np.cumsum([len(one) for one in of_systems])
    averages = np.concatenate(of_systems)
    for members in (problem.differences.minuend, problem.differences.subtrahend):
        np.add.at(averages, members, problem.differences.factor**2 * of_differences)
    return np.split(averages, ends[:-1])


def _weight(m: Any, fitted: bool) -> Array:
    return (m.count[0] if fitted else m.count[0] == 0) / m.sigma[0] ** 2


class Choice(NamedTuple):
    """The errors of windows of one system, and the signal of its derivatives.

    parameters: [P'], the numbers of those that its data depend on. of_parameters: relative errors of their derivatives,
    [L, P']. signals: by estimator, [P'], the derivatives of all data over their errors, of one evaluation.
    """

    parameters: Array
    of_parameters: Errors
    signals: dict[str, Array]

    @property
    def of_all(self) -> Errors:
        """Relative errors of all derivatives, [L]: the mean of the squares over parameters."""
        return Errors(*(leaf.mean(axis=1) for leaf in self.of_parameters))

    def best(self, frames: int = 0) -> int:
        """The frames of the window with the least error, of those that divide so many frames; 0: of all."""
        total = self.of_all.total
        return min((k for k in range(1, len(total) + 1) if frames % k == 0), key=lambda k: total[k - 1])

    def facts(self, ensemble: Ensemble, labels: tuple[str, ...]) -> dict[str, Any]:
        """All that metrics and report say of it: lengths in ps, errors relative to the derivatives."""
        interval, of_all = float(ensemble.interval), self.of_all
        return {
            "time": (interval * np.arange(1, len(of_all.bias) + 1)).tolist(),
            "bias": np.sqrt(of_all.bias).tolist(),
            "noise": np.sqrt(of_all.variance).tolist(),
            "error": np.sqrt(of_all.total).tolist(),
            "used": interval * len(of_all.bias),
            "best": interval * self.best(),
            "parameters": [
                {"parameter": labels[p], "best": interval * float(best)}
                | {f"signal_{way}": float(signal[k]) for way, signal in self.signals.items()}
                for k, (p, best) in enumerate(zip(self.parameters, self.of_parameters.best))
            ],
        }  # fmt: skip


def choice(errors: Errors, weights: Array, at: tuple[Estimates, Estimates], draws: int) -> Choice | None:
    """The errors of windows as they matter to a fit, [L, M, P] and weights [M]; None where no datum has a sigma or
    none depends on any parameter."""
    value, error = at
    size = weights @ value.combined**2
    if not np.any(size > 0):
        return None
    known = np.flatnonzero(size > 0)
    signals = {}
    for way in ("pathwise", "fluctuation", "malliavin"):
        of_noise = draws * (weights @ getattr(error, way) ** 2)[known]
        signals[way] = np.sqrt((weights @ getattr(value, way) ** 2)[known] / of_noise)
    of_parameters = [np.einsum("m,lmp->lp", weights, leaf)[:, known] / size[known] for leaf in errors]
    return Choice(known, Errors(*of_parameters).careful(), signals)


def windows_compared(
    case: SimulatedCase, problem: Windows, number: int, u: Any, found: Mapping[str, Array], at: tuple
) -> tuple[Errors, Choice | None]:
    """The errors of windows of a system, of each derivative and of all."""
    ensemble, slopes = problem.along(u)[number], case.moving.of_energies.own_slopes(u)
    errors = errors_of_windows(ensemble, slopes, found, number, at)
    if ensemble.barostat is not None:
        return errors, None
    return errors, choice(errors, weights_of_data(problem, number), at, case.config.problem.derivative_draws)


def pilot(case: SimulatedCase, fits: Fits, begun: Mapping[str, Array]) -> SimulatedCase:
    """The case with tangents of the length that has the least error, by system, as draws from the starts find it."""
    problem, u, draws = case.problem, case.moving.init(), case.config.problem.derivative_draws
    starts = [PhasePoint(*(begun[f"{what} {n}"] for what in one.leaves)) for n, one in enumerate(problem.ensembles)]
    work = Derivatives(problem, u, starts, range(2 * DRAW, 2 * DRAW + draws), fits.grid.world)
    found = fits.stage(PILOT, work, {})

    def length(number: int, ensemble: Ensemble) -> int:
        at = estimates(ensemble, case.moving.of_energies.own_slopes(u), found, number)
        _, best = windows_compared(case, problem, number, u, found, at)
        return ensemble.frames if best is None else best.best(ensemble.frames)

    lengths = fits.grid.world.on_root(lambda: list(itertools.starmap(length, enumerate(problem.ensembles))))
    return case.with_tangents(lengths)
