"""Scattering of the clusters that were found and predicted, and the mixture of them that agrees with a curve.

pair sums              a stage over all frames of the window: averaged components, by blocks of frames
box sums               where it is asked for, another: S(q) of the whole box
mixture                the fit; where clusters are predicted, "observed mixture" is that without them
left out, resample     fits that are compared: without segments of q; of drawn points and drawn blocks of frames
posterior              on root
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.fit.stages import Fits
from hpcfit.kinds.clusters.case import ClustersCase
from hpcfit.kinds.clusters.composition import Structure
from hpcfit.kinds.clusters.extraction.box_sums import SUMS, BoxScattering, BoxSums, box_scattering
from hpcfit.kinds.clusters.extraction.pair_sums import PairSums, sums_by_composition
from hpcfit.kinds.clusters.kinetics import blocks
from hpcfit.kinds.clusters.mixture.components import (
    Component,
    ReferenceFit,
    averaged_sums,
    mean_of,
    mean_of_conformers,
    reference_fit,
    single,
)
from hpcfit.kinds.clusters.mixture.config import MixtureConfig
from hpcfit.kinds.clusters.mixture.curves import Measured
from hpcfit.kinds.clusters.mixture.fits import (
    Bootstrap,
    LeftOut,
    Mixture,
    MixtureOptions,
    MixtureResult,
    bootstrap,
    fit_mixture,
    leave_out,
)
from hpcfit.kinds.clusters.mixture.posterior import Posterior, sample
from hpcfit.observables.pair_moments import pairs_of

PAIRS, BOX, OBSERVED, ALL = "pair sums", "box sums", "observed mixture", "mixture"
AT_BOUND = 1e-3  # of the width between bounds: nearer than that a parameter of S(q) is at its bound
POOR = 2.0  # reduced chi2, above which the model does not explain the curve
MORE_THAN_ALL = 1.1  # of the fit, that clusters may be: some noise about a small offset
FAR = 0.5  # nats: populations that far from the counted ones are not theirs any more


class Given(NamedTuple):
    """A cluster that was not averaged over the frames, such as a predicted one. weight: in the unit of mean counts;
    structures: one or several placements; sigma: A, by pair of elements in any order, for those that spread; among: the
    pairs of a structure that spread, [n, n] of bool, all without it."""

    label: str
    weight: float
    nodes: int
    structures: Sequence[Structure]
    sigma: Mapping[tuple[str, str], float] = {}
    among: Callable[[Structure], np.ndarray] | None = None


class Trace(NamedTuple):
    """The curve of a set of components. raw: [Q], their mean by population; reference: least squares without errors;
    result: the fit; both None without a curve. factor: S(q) of the fit, [Q]."""

    raw: np.ndarray
    reference: ReferenceFit | None
    result: MixtureResult | None
    factor: np.ndarray


class Scattering(NamedTuple):
    """The scattering of all components. components: observed, then predicted ones; traces: by name, OBSERVED and, with
    predicted ones, ALL, the last being the result; mixture: of the result; the others as far as they were asked for,
    box on root alone."""

    measured: Measured
    components: tuple[Component, ...]
    traces: Mapping[str, Trace]
    mixture: Mixture | None = None
    left_out: LeftOut | None = None
    bootstrap: Bootstrap | None = None
    posterior: Posterior | None = None
    box: BoxScattering | None = None

    @property
    def result(self) -> MixtureResult | None:
        """The fit of all components."""
        return [*self.traces.values()][-1].result


def names_of(case: ClustersCase, predicted: bool = False) -> list[str]:
    """The stage and the fits that are to come, without those that are only compared."""
    fits = ([OBSERVED] if predicted else []) + [ALL]
    box = [BOX] if case.choice.of_scattering.box else []
    return [PAIRS, *box, *(fits if case.choice.curve else [])] if case.choice.scatters else []


def scattering(
    case: ClustersCase, fits: Fits, by_level: Mapping[str, Mapping[int, float]], weights: Mapping[str, float],
    predicted: Sequence[Given] = (),
) -> Scattering:  # fmt: skip
    """Components, traces and fits, the same on every rank; collective. weights: of observed labels, in the unit of
    those of predicted ones; labels without one do not scatter."""
    species, f, measured = case.elements, case.form_factors, case.measured
    sums = _pair_sums(case, fits, by_level)
    box = _box_sums(case, fits) if case.choice.of_scattering.box else None
    observed, by_block = _averaged(case, sums, weights, f)
    grown = [_given(one, species, f, measured.q) for one in predicted if one.weight > 0]
    traces, last = {}, None
    sets = {OBSERVED: observed, ALL: [*observed, *grown]} if grown else {ALL: observed}
    for name, components in sets.items():
        last = None if measured.curve is None else _mixture(case, components, species, name == ALL)
        traces[name] = _trace(name, components, measured, last, fits)
    found = Scattering(measured, tuple(sets[ALL]), traces, last, box=box)
    if last is not None:
        found = _with_errors(found, fits, case.choice.of_mixture, by_block, case.config.run.seed)
    fits.warn(warnings(found))
    return found


# ---- components ----------------------------------------------------------------------------------------------------


def _pair_sums(case: ClustersCase, fits: Fits, by_level: Mapping[str, Mapping[int, float]]) -> dict:
    world, q = fits.grid.world, case.measured.q
    work = PairSums(
        case.frames, case.finder(case.cutoffs(by_level)), groups(case), q, case.choice.of_scattering.linkers,
        fits.grid.frames, case.config.run.reductions,
    )  # fmt: skip
    digest = hashlib.sha256(q.tobytes()).hexdigest()[:16]
    product = fits.stage(PAIRS, work, {"cutoffs": json.dumps(by_level, sort_keys=True), "q": digest})
    return sums_by_composition(world.bcast(product if world.is_root else None))


def _box_sums(case: ClustersCase, fits: Fits) -> BoxScattering | None:
    """S(q) of the box, on root."""
    group, of = groups(case), case.box_scatterers
    work = BoxSums(case.frames, of, case.box_shells, group, fits.grid.frames, case.config.run.reductions)
    product = fits.stage(BOX, work, {"shells": str(tuple(case.box_shells))})
    if not fits.grid.world.is_root:
        return None
    return box_scattering(product[SUMS], of.species, int(np.count_nonzero(group >= 0)))


def groups(case: ClustersCase) -> np.ndarray:
    """The statistical block of each frame of the store, [T], -1 outside of the window."""
    found, first = np.full(case.n_frames, -1), 0
    for segment, edges in zip(case.axis.segments, blocks(case.axis)):
        found[segment.rows] = first + np.searchsorted(edges, np.arange(len(segment.rows)), side="right") - 1
        first += len(edges) - 1
    return found


def _averaged(
    case: ClustersCase, sums: Mapping[tuple[int, ...], Mapping[str, np.ndarray]], weights: Mapping[str, float],
    f: np.ndarray,
) -> tuple[list[Component], dict[str, list[Component]]]:  # fmt: skip
    """The component of each label, and those of its blocks of frames, weighted by their clusters."""
    whole, by_block = [], {}
    for composition, one in sorted(sums.items(), key=lambda item: (sum(item[0]), item[0])):
        counts = dict(zip(case.of.species, composition))
        label, nodes = case.roles.label(counts), case.roles.nodes_in(counts)
        if not weights.get(label, 0.0) > 0:
            continue
        total = tuple(one[what].sum(axis=0) for what in ("count", "atoms", "sums"))
        whole.append(averaged_sums(label, float(weights[label]), total, f, nodes))
        parts = zip(one["count"], one["atoms"], one["sums"])
        by_block[label] = [averaged_sums(label, float(part[0]), part, f, nodes) for part in parts]
    return whole, by_block


def _given(one: Given, species: Sequence[str], f: np.ndarray, q: np.ndarray) -> Component:
    """The component of a label by its structures."""
    known = {tuple(sorted(pair)): value for pair, value in one.sigma.items()}
    sigma = np.array([known.get(tuple(sorted(pair)), 0.0) for pair in pairs_of(species)])
    parts = [
        single(one.label, one.weight, structure, species, f, q, sigma, one.among and one.among(structure),
               "predicted", one.nodes) for structure in one.structures
    ]  # fmt: skip
    return mean_of_conformers(parts)


# ---- fits ----------------------------------------------------------------------------------------------------------


def options_of(chosen: MixtureConfig) -> MixtureOptions:
    """The options of a fit as [problem.mixture] says."""
    return MixtureOptions(
        chosen.weights, chosen.prior if chosen.weights else 0.0, chosen.offset,
        tuple(tuple(pair.split("-")) for pair in chosen.refine_b), chosen.b_width, chosen.spheres,
        {name: tuple(pair) for name, pair in chosen.bounds.items()}, dict(chosen.starts),
        chosen.debye_length or np.inf, chosen.bjerrum or 0.0,
    )  # fmt: skip


def _mixture(case: ClustersCase, components: Sequence[Component], species: Sequence[str], last: bool) -> Mixture:
    """The mixture of some components. Before the last set, B of pairs of which none has a width is not fitted."""
    options, measured = options_of(case.choice.of_mixture), case.measured
    pairs = [tuple(sorted(pair)) for pair in pairs_of(species)]
    unknown = [pair for pair in options.pairs if tuple(sorted(pair)) not in pairs]
    wide = [pair for pair in options.pairs if pair not in unknown
            and any(one.sigma[pairs.index(tuple(sorted(pair)))] > 0 for one in components)]  # fmt: skip
    if last and (still := [pair for pair in options.pairs if pair not in (*wide, *unknown)]):
        raise InputError(
            f"[problem.mixture] refine_b = '{'-'.join(still[0])}' has no effect: no component has a width of this pair;"
            " averaged components have their spread in them",
            remedy="leave it out, or predict clusters",
        )
    options = replace(options, pairs=(*wide, *unknown))
    return Mixture.of(components, species, measured.curve, options, measured.solvent)


def _trace(
    name: str, components: Sequence[Component], measured: Measured, mixture: Mixture | None, fits: Fits
) -> Trace:
    raw = mean_of(components, measured.q)
    if mixture is None:
        return Trace(raw, None, None, np.ones_like(raw))
    result = fit_mixture(mixture, fits, name)
    factor = np.asarray(mixture.problem().structure_factor(measured.q, result.params.shared))
    return Trace(raw, reference_fit(raw, measured.curve.intensity), result, factor)


def _with_errors(
    found: Scattering, fits: Fits, chosen: MixtureConfig, by_block: Mapping[str, Sequence[Component]], seed: int
) -> Scattering:
    mixture, start = found.mixture, found.result.params
    if chosen.folds:
        found = found._replace(left_out=leave_out(mixture, fits, chosen.folds, start))
    if chosen.bootstrap:
        drawn = bootstrap(mixture, fits, chosen.bootstrap, by_block, chosen.neighbours, seed, start)
        found = found._replace(bootstrap=drawn)
    if chosen.posterior:
        drawn = sample(mixture, found.result, fits, chosen.posterior, chosen.burn, seed)
        found = found._replace(posterior=drawn)
    return found


def divergence(w: np.ndarray, w0: np.ndarray) -> float:
    """KL(w || w0), nats; 0 ln 0 is 0."""
    return float(np.sum(np.where(w > 0, w * np.log(np.where(w > 0, w, 1.0) / w0), 0.0)))


def warnings(found: Scattering) -> list[str]:
    """Sentences that a reader of the fit must know."""
    said, measured, result = [], found.measured, found.result
    if measured.guinier is not None:
        said += [f"Guinier's fit is not to be trusted: {flag}" for flag in measured.guinier.flags]
    if measured.curve is not None and measured.guinier is None:
        said.append(f"no Guinier fit: {measured.why}")
    if measured.curve is not None and measured.curve.dropped:
        said.append(f"{measured.curve.dropped} rows of the curve have no error and were left out")
    if result is None:
        return said
    if result.reduced > POOR:
        said.append(
            f"the mixture does not explain the curve within its errors: chi2 is {result.reduced:.3g} a degree of"
            f" freedom, with {result.free} free parameters; errors of parameters assume a model that does"
        )
    if "max_steps" in result.stopped:
        said.append(f"the mixture fit was still going on: {result.stopped}; allow more [optimizer] max_steps")
    if result.parameters["scale"] == 0:
        said.append("the fit has scale 0: the clusters explain nothing of the curve, and populations mean nothing")
    share = np.max(result.contributions.sum(axis=0) / np.where(result.model > 0, result.model, np.inf))
    if share > MORE_THAN_ALL:
        said.append(
            f"the clusters are up to {100 * share:.0f} % of the fitted intensity, which a negative offset takes away"
            " again: scale, offset and populations have no meaning by themselves"
        )
    if (moved := divergence(result.weights, found.mixture.prior())) > FAR:
        said.append(
            f"fitted populations are far from those that were counted and predicted (KL {moved:.3g} nats): they make up"
            " for what the model lacks, or the frames are not those of the sample"
        )
    options = found.mixture.options
    for name in options.sphere_names:
        low, high = options.bounds_of(name)
        if min(result.parameters[name] - low, high - result.parameters[name]) < AT_BOUND * (high - low):
            said.append(f"S(q): {name} = {result.parameters[name]:.4g} is at its bound, {low:g} to {high:g}")
    if found.posterior is not None and not found.posterior.converged:
        said.append(
            f"the posterior has not converged: Gelman and Rubin's R is up to {found.posterior.r.max():.3g}; draw more"
        )
    return said
