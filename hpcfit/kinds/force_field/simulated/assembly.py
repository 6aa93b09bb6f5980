"""Ensembles and measurements of a config, from the systems that were opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import jax
import numpy as np

from hpcfit.config.observables.measured import ObservableConfig
from hpcfit.errors import InputError
from hpcfit.kinds.force_field.config import MovingCurveConfig
from hpcfit.kinds.force_field.parameters import Moving
from hpcfit.kinds.force_field.simulated.config import SimulatedConfig
from hpcfit.kinds.force_field.simulated.ensemble import Ensemble
from hpcfit.kinds.force_field.simulated.measured import NO_DIFFERENCES, Differences, Measured
from hpcfit.kinds.force_field.simulated.opened import Opened
from hpcfit.observables.build import build
from hpcfit.observables.measured import measured
from hpcfit.observables.observable import OfWalks
from hpcfit.observables.site import Site
from hpcfit.observables.thermodynamics import BAR
from hpcfit.simulation.barostat import Barostat
from hpcfit.simulation.langevin import PhasePoint

EVERY = 25  # steps to a trial move of the volume, as in OpenMM


def ensemble_of(opened: Opened, choice: SimulatedConfig) -> Ensemble:
    """The ensemble of a system, with its observables.

    Raises InputError for a pressure without a box, too few frames, or an observable that the system cannot have.
    """
    own = opened.config
    interval = 1.0 if choice.given else choice.window / choice.frames
    bare = Ensemble(
        opened.potential, opened.parameters, opened.box, opened.masses, np.array(opened.kT), opened.scheme,
        tuple(map(np.array, opened.limits)), (), np.array(interval), round(interval / own.step), choice.frames,
        choice.skipped_frames, opened.constraints, opened.lists, anew=choice.stretch % choice.frames,
    )  # fmt: skip
    if choice.given:
        frames, boxed = _frames_of_window(opened, choice), opened.given.boxed
        bare = replace(bare, frames=frames, skipped=0, lists=None, boxed=boxed)
    elif own.pressure is not None:
        bare = replace(bare, barostat=_barostat(opened), boxed=True)
    site = _site(opened, bare, choice.curve)
    return replace(bare, observables=tuple(build(one, site) for one in own.observable))


def _barostat(opened: Opened) -> Barostat:
    own = opened.config
    if opened.box is None:
        raise InputError(
            f"system '{own.name}' has pressure = {own.pressure:g} bar and no box", remedy="give it a periodic box"
        )
    molecules = tuple(molecule for molecule in opened.molecules if len(molecule) > 1)
    every = own.barostat_every or EVERY
    return Barostat(np.array(own.pressure / BAR), np.array(opened.kT), opened.masses, molecules, every)


def _frames_of_window(opened: Opened, choice: SimulatedConfig) -> int:
    """The frames of a window, of those that were given."""
    there = opened.given.n_frames
    if there < choice.windows:
        raise InputError(
            f"system '{opened.name}' has {there} frames, fewer than windows = {choice.windows}",
            remedy="lower windows, or give more frames",
        )
    if opened.config.pressure is not None and not opened.given.boxed:
        raise InputError(
            f"system '{opened.name}' has pressure = {opened.config.pressure:g}, and its frames have no box each",
            remedy="give frames of constant pressure, or leave it out",
        )
    return there // choice.windows


def _site(opened: Opened, bare: Ensemble, curves: Sequence[MovingCurveConfig]) -> Site:
    """What observables may ask of a system."""
    v = None if opened.config.integrator == "overdamped" or opened.given else np.zeros_like(opened.positions[0])
    return Site(
        opened.atoms, opened.potential, bare.state(opened.parameters, PhasePoint(opened.positions[0], v)),
        opened.energy, opened.elements, opened.molecules, opened.n_constraints, float(bare.interval),
        bare.frames - bare.skipped, opened.config.pressure, {one.name: one for one in curves},
    )  # fmt: skip


def measurements(opened: Opened, ensemble: Ensemble) -> tuple[Measured, ...]:
    """The measurements of a system's observables; an observable says how many numbers it has at the start.

    Raises InputError where one is no finite number there, or has other numbers than were measured.
    """
    point = PhasePoint(opened.positions[0], np.zeros_like(opened.positions[0]))
    at_start = jax.jit(Ensemble.of_point)(ensemble, opened.parameters, point)
    found = []
    for config, observable, value in zip(opened.config.observable, ensemble.observables, at_start):
        if not np.all(np.isfinite(np.asarray(value))):
            raise InputError(
                f"observable '{config.name}' of system '{opened.name}' is {np.asarray(value)} where it starts",
                remedy="check its atoms and its widths",
            )
        found.append(_tile(config, observable, np.size(value)))
    return tuple(found)


def _tile(config: ObservableConfig, observable: Any, count: int) -> Measured:
    """The measurements of an observable of so many numbers; without any they do not count."""
    if not config.is_measured:
        none = np.zeros((1, count))
        return Measured(none, np.full((1, count), np.inf), none, none)
    given = measured(config, observable, count)
    counted = np.full(count, 0.0 if config.held_out else 1.0)
    return Measured(*(leaf[None] for leaf in (*given, counted)))


def differences_of(choice: SimulatedConfig, tiles: Sequence[Sequence[Measured]]) -> tuple[Differences, tuple]:
    """The differences of averages, and what was measured of them, from the measurements of all systems.

    Raises InputError for a difference of unlike numbers.
    """
    tables = [((system.name, one.name), m) for (system, one), m in zip(choice.observables(), chain(*tiles))]
    ends = np.cumsum([m.value.shape[1] for _, m in tables])
    places = {name: np.arange(end - m.value.shape[1], end) for (name, m), end in zip(tables, ends)}
    found, of_differences = [NO_DIFFERENCES], []
    for one in choice.difference:
        minuend, subtrahend = places[tuple(one.minuend)], places[tuple(one.subtrahend)]
        if len(minuend) != len(subtrahend):
            raise InputError(
                f"difference '{one.name}' is of {len(minuend)} numbers of {one.minuend} and {len(subtrahend)} of"
                f" {one.subtrahend}",
                remedy="take observables of as many numbers",
            )
        constants = np.full((2, len(minuend)), [[one.factor], [one.constant]])
        found.append(Differences(minuend, subtrahend, *constants))
        of_differences.append(_tile(one, None, len(minuend)))
    return Differences(*map(np.concatenate, zip(*found))), tuple(of_differences)


def check_estimator(choice: SimulatedConfig, opened: Sequence[Opened], ensembles: Sequence[Ensemble]) -> None:
    """Raise InputError for an observable of a motion, whose derivative no sample of single frames knows, nor tangents
    that begin anew on its way."""
    for one, ensemble in zip(opened, ensembles):
        motions = [
            c.name for c, found in zip(one.config.observable, ensemble.observables) if isinstance(found, OfWalks)
        ]
        what = f"observable '{motions[0]}' of system '{one.name}' is of a motion" if motions else ""
        if motions and choice.estimator != "pathwise":
            raise InputError(
                f"{what}; estimator = '{choice.estimator}' knows single frames alone",
                remedy="use estimator = 'pathwise'",
            )
        if motions and choice.tangents is not None:
            raise InputError(f"{what}, which tangents = {choice.tangents!r} cuts", remedy="leave tangents out")


def check_lengths(choice: SimulatedConfig, opened: Sequence[Opened], moves: Moving) -> None:
    """Raise InputError where the fluctuation formula would need the measure of constrained bodies that can bend."""
    asked = choice.estimator != "pathwise" or choice.derivative_draws
    for one in opened:
        if asked and one.lengths in moves.classes and not one.constraints.rigid:
            raise InputError(
                f"'{one.lengths}' of system '{one.name}' moves, and its constraints hold bodies that are not rigid:"
                " the fluctuation formula does not know how their weights change",
                remedy="use estimator = 'pathwise' with derivative_draws = 0, or let the lengths rest",
            )
