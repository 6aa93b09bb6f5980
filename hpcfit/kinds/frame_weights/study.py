"""The fits that the weights of frames take: several starts, theta by cross-validation, and resamples for errors.

starts       the loss has a basin for each structural population: one start in each group of frames, and others
theta        how dearly leaving the prior weights is paid for, by the misfit of orbits that were held out
final        from the best start, at that theta, on all orbits but the test set
resamples    of blocks of frames, and of orbits: how far the result depends on them
dropping     rounds that leave out the frames of least weight, for comparison with programs that do so

Fits that do not depend on each other share their passes over the frames (``Fits.fit_many``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from hpcfit.fit.gradient import Gradient
from hpcfit.fit.many import metrics_at
from hpcfit.fit.problem import FrameRows, Params
from hpcfit.fit.stages import Fits, Fitted
from hpcfit.fit.state import gather_rows
from hpcfit.kinds.frame_weights.case import FrameWeightsCase
from hpcfit.kinds.frame_weights.conclusions import (
    NOTHING_TO_DRAW,
    choose_theta,
    collapsed,
    few_orbits,
    judged,
    lost_anisotropy,
    no_agreement,
    theta_row,
    undecided,
)
from hpcfit.kinds.frame_weights.experiments import calculated, data_folds
from hpcfit.kinds.frame_weights.explained import remarks
from hpcfit.kinds.frame_weights.group_shares import GroupMoments
from hpcfit.kinds.frame_weights.label_test import LabelFit, LabelTest, inseparable, undetermined
from hpcfit.kinds.frame_weights.orbit_choice import folds
from hpcfit.kinds.frame_weights.problem import FrameWeights
from hpcfit.observables.frame_tables import groups_of

LABELS = "labels alone"  # the stage that asks whether the map tells labels apart
GROUPS = "groups alone"  # the stage of the populations that groups have where nothing moves within them
IN_GROUP = 0.98  # of the weight, at a start in a group of frames
WITHOUT_THETA = "theta 0"
ENOUGH = 1e-6  # relative tolerance of fits that are only compared: far below the errors they are compared by


class Course(NamedTuple):
    """Fits of one problem at several thetas, by name ``of``, from ``start``; those that have ended are in ``found``."""

    of: str
    problem: FrameWeights
    start: Params
    found: dict[float, Fitted]

    def params(self, theta: float) -> Params:
        """The parameters at which the fit at a theta has ended, or the start where there is none yet."""
        return self.found[theta].params if theta in self.found else self.start


@dataclass(frozen=True)
class Study:
    """The fits of one case."""

    case: FrameWeightsCase
    fits: Fits

    @property
    def _problem(self) -> FrameWeights:
        return self.fits.evaluate.problem

    @property
    def _rows(self) -> FrameRows:
        return self.fits.evaluate.frames.rows

    def at(self, theta: float, problem: FrameWeights | None = None, rows: FrameRows | None = None) -> Gradient:
        """Value and gradient at a theta, of a problem and of rows that may be others than those of the run."""
        problem = problem or self._problem
        return self.fits.evaluate.of(replace(problem, regularisers=replace(problem.regularisers, theta=theta)), rows)

    # ---- starts ----------------------------------------------------------------------------------------------------

    def starts(self) -> Iterator[tuple[str, Params]]:
        """(name, parameters) of every start that the config names."""
        choice, problem, rows = self.case.config.problem, self._problem, self._rows
        for kind in ("uniform",) if choice.weights == "binary" else choice.starts:
            if kind == "prior":
                yield "prior", problem.init(0, rows)
            elif kind == "uniform":
                yield "uniform", problem.at_weights(np.full(rows.ids.shape, 1 / rows.total), rows)
            elif kind == "clusters":
                yield from self._group_starts()
            else:
                for number in range(choice.random_starts):
                    seed = self.case.config.run.seed + number
                    yield f"random {number + 1}", problem.random_start(seed, rows)

    @property
    def _one_fit(self) -> bool:
        """Whether there is one start and one theta, so that there is nothing to compare."""
        return len(self.case.config.problem.thetas) == 1 and len(list(self.starts())) == 1

    def _group_starts(self) -> Iterator[tuple[str, Params]]:
        """Nearly all weight on the frames of one group, of those with at least two frames, where there are several."""
        groups, rows = self.case.groups, self._rows
        number = groups.number[self.fits.evaluate.grid.blocks]
        if len(groups.names) < 2:
            return
        for group, (name, frames) in enumerate(zip(groups.names, groups.frames)):
            if frames < 2:
                continue
            outside = (1 - IN_GROUP) / max(rows.total - frames, 1)
            yield name, self._problem.at_weights(np.where(number == group, IN_GROUP / frames, outside), rows)

    def compare_starts(self, theta: float) -> list[tuple[Params, Fitted]]:
        """A fit from every start, best misfit first; as exact as the config asks where it is the result itself."""
        evaluate, (names, starts) = self.at(theta), zip(*self.starts())
        names = [f"start {name}" for name in names]
        if self._one_fit:
            return [(starts[0], self.fits.fit(names[0], starts[0], evaluate))]
        fits = self.fits.fit_many(names, starts, [evaluate] * len(names), tolerance=ENOUGH)
        return sorted(zip(starts, fits), key=lambda pair: pair[1].metrics["misfit"])

    # ---- theta -----------------------------------------------------------------------------------------------------

    def over_thetas(self, start: Params, best: Fitted) -> tuple[list[dict[str, Any]], dict[float, Fitted]]:
        """Each theta judged by the folds it was not fitted to, largest first, each row with the misfits of its folds;
        and a fit of all orbits at each theta (the L-curve), which is ``best`` where starts were compared.

        start: of every fold. The prior weights themselves are the limit of large theta.
        """
        choice = self.case.config.problem
        middle, names = _middle(choice.thetas), (None, *choice.thetas[::-1])
        of_folds = self._problems_of_folds()
        courses = [Course(f" fold {fold}", problem, start, {}) for fold, problem in enumerate(of_folds)]
        self._follow([*courses, Course("", self._problem, best.params, curve := {middle: best})])
        evaluates = [self.fits.evaluate.of(problem) for problem in of_folds]
        prior = metrics_at(evaluates, [problem.init(0, self._rows) for problem in of_folds])
        found = [{None: at} | {theta: fit.metrics for theta, fit in c.found.items()} for at, c in zip(prior, courses)]
        return [theta_row(name, [judged(fold[name]) for fold in found]) for name in names], curve

    def _problems_of_folds(self) -> list[FrameWeights]:
        case, choice = self.case, self.case.config.problem
        fold_of, grid = folds(case.orbits, choice, choice.n_folds), self.fits.evaluate.grid
        problems = [
            case.with_orbits(self._problem, case.chosen.without(fold_of == fold), grid)
            for fold in range(choice.n_folds)
        ]
        if not case.tables:
            return problems
        of_data = data_folds(case.tables, choice.n_folds, choice.hold_out_seed)
        return [
            replace(problem, experiments=problem.experiments.without(of_data == fold))
            for fold, problem in enumerate(problems)
        ]

    def _follow(self, courses: Sequence[Course]) -> None:
        """A fit of each course at each theta: from its start at the one that starts were compared at, then outwards,
        each from where that of its neighbour ended. All fits at one distance from there advance together.

        On the way down from the largest theta, where the loss has one basin, a fit would end in any of those that
        there are at smaller ones.
        """
        thetas = self.case.config.problem.thetas
        middle = thetas.index(_middle(thetas))
        for distance in range(len(thetas)):
            numbers = [n for n in dict.fromkeys((middle - distance, middle + distance)) if 0 <= n < len(thetas)]
            wave = [
                (course, thetas[n], course.params(thetas[n + np.sign(middle - n)]))
                for course in courses
                for n in numbers
                if thetas[n] not in course.found
            ]
            if not wave:
                continue
            names = [f"theta {theta:g}{course.of}" for course, theta, _ in wave]
            starts, gradients = [params for *_, params in wave], [self.at(theta, of.problem) for of, theta, _ in wave]
            fits = self.fits.fit_many(names, starts, gradients, tolerance=ENOUGH)
            for (course, theta, _), fitted in zip(wave, fits):
                course.found[theta] = fitted

    def without_details(self, start: Params, best: Fitted) -> Params:
        """The start of each fold: ``start``, or with several groups the group sums of ``best``,
        with prior weights within groups.

        So a fold starts in the basin of ``best``. Nothing that held-out orbits tell of single frames leaks in.
        """
        if len(self.case.groups.names) < 2:
            return start
        rows, number = self._rows, self.case.groups.number
        prior = np.where(number >= 0, np.exp(self.case.prior.log_weights(self.case.blocks)), 0.0)
        of = self.case.trajectories
        factor = of.of_groups(self.weights(best, rows)) / of.of_groups(prior)
        # Some weight on every group, as at the starts: one of 0 would never come back.
        factor = IN_GROUP * factor + 1 - IN_GROUP
        of_block = factor[number[self.fits.evaluate.grid.blocks]]
        return self._problem.at_weights(np.exp(rows.more.log_prior) * of_block, rows)

    def final(self, best: Fitted, theta: float | None) -> Fitted:
        """The fit at the chosen theta, from the best one there; None stands for the prior weights themselves."""
        if theta is None:
            prior = self._problem.init(0, self._rows)
            at = self.fits.evaluate.value(prior)
            metrics = {"loss": at.loss, **self.fits.evaluate.metrics(at)}
            return Fitted("prior weights", at.params, metrics, 0, 0, "no theta made held-out orbits agree better")
        return best if self._one_fit else self.fits.fit("final", best.params, self.at(theta))

    # ---- errors ----------------------------------------------------------------------------------------------------

    def resample(self, final: Fitted, theta: float) -> dict[str, list[tuple[np.ndarray, Fitted]]]:
        """Weights [all blocks, 64] and fit of each resample: of frames, the copies of one summed, and of orbits."""
        rows_of = self._resampled_frames(final)
        seeds = range(1, self.case.config.problem.resamples + 1)
        chosen = [self.case.chosen.resampled(seed) for seed in seeds]
        problems = [self.case.with_orbits(self._problem, orbits, self.fits.evaluate.grid) for orbits in chosen]
        if self.case.tables:
            groups, of = groups_of(self.case.tables), self._problem.experiments
            problems = [replace(one, experiments=of.drawn(groups, seed)) for seed, one in zip(seeds, problems)]
        names = [f"{what} {n}" for what, of in (("frames", rows_of), ("orbits", problems)) for n, _ in enumerate(of, 1)]
        gradients = [self.at(theta, rows=rows) for rows in rows_of] + [self.at(theta, of) for of in problems]
        fits = self.fits.fit_many(names, [final.params] * len(names), gradients, tolerance=ENOUGH)
        found = [(self.weights(fitted, of.frames.rows), fitted) for fitted, of in zip(fits, gradients)]
        return {"frames": found[: len(rows_of)], "orbits": found[len(rows_of) :]}

    def _resampled_frames(self, final: Fitted) -> list[FrameRows]:
        """The rows of each resample of sources within their labels, and of blocks of frames within sources; none, with
        a warning, where there is nothing to draw from."""
        if not self._problem.kind.normalised:
            self.fits.warn(
                ["no errors by resampling frames: weights that need not sum to 1 have no prior to draw them in"]
            )
            return []
        n, shape = self.case.config.problem.resamples, self.case.groups.number.shape
        drawn = self.case.trajectories.resampled(self.weights(final, self._rows), n)
        found = [_drawn(self._rows, counts.reshape(shape)[self.fits.evaluate.grid.blocks]) for counts in drawn]
        if n and not found:
            self.fits.warn(NOTHING_TO_DRAW)
        return found

    def drop(self, final: Fitted, theta: float) -> Iterator[tuple[int, Fitted]]:
        """(frames, fit) of rounds, each without the frames of least weight in the one before, from uniform weights."""
        choice, rows, fitted = self.case.config.problem, self._rows, final
        for number in range(1, choice.dropping_rounds + 1):
            whole = self._gathered(self._problem.weights_of(fitted.params, rows), rows.ids)
            kept = whole >= np.percentile(whole[whole > 0], choice.dropping_percentile)
            rows = _drawn(self._rows, kept.reshape(-1, rows.ids.shape[1])[self.fits.evaluate.grid.blocks].astype(float))
            start, evaluate = self._problem.init(0, rows), self.at(theta, rows=rows)
            fitted = self.fits.fit(f"dropping {number}", start, evaluate, tolerance=ENOUGH)
            yield int(kept.sum()), fitted

    # ---- how far populations are biased ----------------------------------------------------------------------------

    @property
    def _has_populations(self) -> bool:
        """Whether there are several groups whose shares are looked for."""
        return len(self.case.groups.names) > 1 and self.case.config.problem.weights == "simplex"

    @property
    def _of_map_alone(self) -> bool:
        """Whether the map alone is what tells their shares, so that its moments say how sampling biases them."""
        return not self._problem.experiments

    def populations(self, final: Fitted, theta: float, curve: dict[float, Fitted]) -> list[dict[str, Any]]:
        """The shares of each group beside the fitted one: those without theta, and, where the map alone is fitted, of
        the groups alone, with and without the bias of finite sampling; none where there is one group. curve: fits at
        other thetas."""
        case, rows, of = self.case, self._rows, self.case.trajectories
        if not self._has_populations:
            return []
        free = final if theta == 0 else curve.get(0.0)
        if free is None:
            [free] = self.fits.fit_many([WITHOUT_THETA], [final.params], [self.at(0.0)], tolerance=ENOUGH)
        fitted = of.of_groups(w := self.weights(final, rows))
        alone = corrected = [None] * len(fitted)
        if self._of_map_alone:
            work, world = GroupMoments(case, self.at(theta), of.memory_of_groups(w)), self.fits.grid.world
            sums = self.fits.stage(GROUPS, work, {})
            found = world.bcast(work.shares(sums, fitted, final.params.shared) if world.is_root else None)
            alone, corrected = found.alone.tolist(), (fitted - found.bias).tolist()
        columns = {
            "group": case.groups.names,
            "fitted": fitted.tolist(),
            "without_theta": of.of_groups(self.weights(free, rows)).tolist(),
            "groups_alone": alone,
            "corrected": corrected,
        }
        return [dict(zip(columns, row)) for row in zip(*columns.values())]

    # ---- what the map says of the labels ---------------------------------------------------------------------------

    def compare_labels(self, theta: float) -> list[LabelFit]:
        """Each label alone, and equal parts of it, against the map."""
        criterion = "cc_anisotropic" if self.case.config.problem.anisotropic else "cc"
        work = LabelTest(self.at(theta), self.case.blocks, self.case.labels(), criterion)
        if not work.n_units:
            return []
        found = self.fits.stage(LABELS, work, {"criterion": criterion})
        world = self.fits.grid.world
        return work.fits(world.bcast(found["cc"] if world.is_root else None))

    # ---- what is to come -------------------------------------------------------------------------------------------

    def planned(self) -> list[str]:
        """The names of the fits and stages to come, in their order, as far as they are known."""
        choice = self.case.config.problem
        names = [f"start {name}" for name, _ in self.starts()]
        if choice.n_folds:
            names += [f"theta {theta:g} fold {fold}" for fold in range(choice.n_folds) for theta in choice.thetas]
            names += [f"theta {theta:g}" for theta in choice.thetas if theta != _middle(choice.thetas)]
        names += [] if self._one_fit else ["final"]
        if choice.weights != "binary":
            names += [f"{what} {seed}" for what in ("frames", "orbits") for seed in range(1, choice.resamples + 1)]
        if choice.resamples and self._has_populations:
            names += [WITHOUT_THETA] * (0.0 not in choice.thetas) + [GROUPS] * self._of_map_alone
        return [*names, *(f"dropping {number}" for number in range(1, choice.dropping_rounds + 1)), LABELS]

    # ---- weights of all frames -------------------------------------------------------------------------------------

    def weights(self, fitted: Fitted, rows: FrameRows) -> np.ndarray:
        """w of every frame of the data set, [blocks, 64], on every rank."""
        w = self._problem.weights_of(fitted.params, rows)
        return self._gathered(np.where(rows.ids >= 0, w, 0.0), rows.ids).reshape(-1, w.shape[1])

    def _gathered(self, of_row: np.ndarray, ids: np.ndarray) -> np.ndarray:
        grid = self.fits.evaluate.grid
        whole = gather_rows({"values": of_row}, grid)
        return grid.world.bcast(whole["values"] if grid.world.is_root else None).ravel()

    def calculated(self, w: np.ndarray, fitted: Fitted) -> np.ndarray:
        """The calculated number of each datum of the experiments at weights w [all blocks, 64] of sum 1."""
        parts = np.sum(w[self.fits.evaluate.grid.blocks, :, None] * self._rows.more.features, axis=1)
        averages = self.fits.evaluate.add([parts], axis=0, over="frames")
        return calculated(self._problem.experiments, averages, fitted.params.shared)[0]

    def shares(self, fitted: Fitted) -> dict[str, float]:
        """Summed weight of each group of frames in a fit, by the group's name."""
        of = self.case.trajectories
        return dict(zip(of.groups, of.of_groups(self.weights(fitted, self._rows)).tolist()))


def _drawn(rows: FrameRows, counts: np.ndarray) -> FrameRows:
    """Rows in which each frame counts as often as ``counts`` [blocks, 64]: its prior weight is multiplied, and a frame
    that was not drawn takes no part. The total of the prior weights need not be 1: it is divided out."""
    taking_part = (rows.ids >= 0) & (counts > 0)
    log_prior = np.where(taking_part, rows.more.log_prior + np.log(np.where(taking_part, counts, 1.0)), 0.0)
    more = rows.more._replace(log_prior=log_prior, follows=rows.more.follows & taking_part)
    return FrameRows(np.where(taking_part, rows.ids, -1), rows.total, more)


def study(case: FrameWeightsCase, fits: Fits) -> dict[str, Any]:
    """All fits of the case; what they found beside the result itself, which ``fits.final`` is told. Collective."""
    work = Study(case, fits)
    thetas = case.config.problem.thetas
    fits.announce(work.planned())
    fits.warn(case.warnings())
    ranked = work.compare_starts(_middle(thetas))
    start, best = ranked[0]
    starts = _start_rows(work, [fitted for _, fitted in ranked])
    fits.warn(undecided(starts))
    found: dict[str, Any] = {"starts": starts}
    curve: dict[float, Fitted] = {}
    theta: float | None = thetas[0]
    if case.config.problem.n_folds:
        fits.warn(few_orbits(int(np.sum(case.chosen.fitted)), case.config.problem.n_folds))
        rows, curve = work.over_thetas(work.without_details(start, best), best)
        if len(thetas) > 1:
            found["l_curve"] = [
                {"theta": value, "groups": work.shares(curve[value]), **curve[value].metrics} for value in thetas[::-1]
            ]
            theta = rows[choose_theta(rows)]["theta"]
            best = curve.get(theta, best)
        found["cross_validation"] = rows
        fits.warn(lost_anisotropy(rows, theta))
    if case.config.problem.weights == "simplex":
        found["theta"] = theta
    final = work.final(best, theta)
    fits.warn(collapsed(final.metrics["ess"], case.n_frames) + no_agreement(final.metrics))
    fits.final(final, work.at(theta or 0.0))
    w = work.weights(final, fits.evaluate.frames.rows)
    if case.config.problem.resamples and theta is not None and case.config.problem.weights != "binary":
        found["errors"] = errors(work, final, theta)
        fits.warn(case.trajectories.warnings(w) if "frames" in found["errors"] else [])
        found["populations"] = work.populations(final, theta, curve)
    if case.config.problem.dropping_rounds:
        found["dropping"] = [{"frames": kept, **fitted.metrics} for kept, fitted in work.drop(final, theta or 0.0)]
    if case.numbers is not None:
        w0, world = np.exp(case.prior.log_weights(case.blocks)), fits.grid.world
        of_root = case.trajectories.explained(w, w0, case) if world.is_root else None
        found["explained"] = world.bcast(of_root)
        fits.warn(remarks(found["explained"]))
    labels = work.compare_labels(theta or 0.0)
    fits.warn(inseparable(labels))
    fits.warn(_withheld(found, undetermined(labels, len(case.orbits.observed))))
    return found | {"labels": [fit._asdict() for fit in labels if fit.defined]}


def _start_rows(work: Study, fits: list[Fitted]) -> list[dict[str, Any]]:
    """Of each start, the best one first: its name, its metrics, the sums of weights that it led to, and their distance
    from the best ones, the weight that would have to be moved to other frames."""
    rows, best = [], None
    for fitted in fits:
        w = work.weights(fitted, work.fits.evaluate.frames.rows)
        best = w if best is None else best
        about = {
            "start": fitted.name.removeprefix("start "),
            "groups": work.shares(fitted),
            "distance": float(np.abs(w - best).sum() / 2),
            "stopped": fitted.stopped,
        }
        rows.append(about | fitted.metrics)
    return rows


def errors(work: Study, final: Fitted, theta: float) -> dict[str, Any]:
    """Standard deviations over resamples of frames and of orbits, of sums of weights and of the metrics; and ``bias``:
    by how much the sums of groups of the resamples are larger on average than those of the fit."""
    found, of = {}, work.case.trajectories
    fitted = of.of_groups(work.weights(final, work.fits.evaluate.frames.rows))
    for name, fits in work.resample(final, theta).items():
        if len(fits) < 2:
            continue
        groups = np.array([of.of_groups(w) for w, _ in fits])
        sources = np.array([of.of_sources(w) for w, _ in fits])
        metrics = {
            key: [fitted.metrics[key] for _, fitted in fits] for key in ("misfit", "cc", "cc_anisotropic", "ess")
        }
        found[name] = {
            "resamples": len(fits),
            "groups": dict(zip(work.case.groups.names, groups.std(axis=0, ddof=1).tolist())),
            "bias": dict(zip(work.case.groups.names, (groups.mean(axis=0) - fitted).tolist())),
            "sources": dict(zip(of.sources, sources.std(axis=0, ddof=1).tolist())),
            "metrics": {key: float(np.std(values, ddof=1)) for key, values in metrics.items()},
        }
        if work.case.tables:
            of_data = [work.calculated(w, fitted) for w, fitted in fits]
            found[name]["calculated"] = np.std(of_data, axis=0, ddof=1).tolist()
    return found


def _withheld(found: dict[str, Any], names: list[str]) -> list[str]:
    """Take back the errors of shares that no correlation can find, in ``found``, and say so: with an error they would
    be read as populations."""
    for row in found.get("populations", ()):
        row["determined"] = row["group"] not in names
    for kind in found.get("errors", {}).values():
        kind["groups"] = {name: None if name in names else error for name, error in kind["groups"].items()}
    listed = " and ".join(f"'{name}'" for name in names)
    why = "alone they agree with it no better than chance, so that a mixture of any shares agrees alike"
    return [f"the map does not determine the shares of {listed}: {why}; no errors are given for them"] if names else []


def _middle(thetas: tuple[float, ...]) -> float:
    """The theta that starts are compared at."""
    return thetas[len(thetas) // 2]
