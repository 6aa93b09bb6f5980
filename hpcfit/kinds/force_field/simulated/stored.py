"""Stored geometries of a run that simulates: a term of the loss of its rounds, or a fit that says where they begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hpcfit.fit.by_blocks import Forward, Reverse
from hpcfit.fit.gradient import Gradient
from hpcfit.fit.grid import Grid
from hpcfit.fit.joint import Joint
from hpcfit.fit.problem import Params
from hpcfit.fit.reduction import choose_sum
from hpcfit.fit.rounds import More, flat
from hpcfit.fit.stages import Fits
from hpcfit.kinds.force_field.geometries.sets import Stored, open_sets
from hpcfit.kinds.force_field.geometries.shared import Shared
from hpcfit.kinds.force_field.geometries.study import compared, damped, halves, normal
from hpcfit.kinds.force_field.parameters import Moving
from hpcfit.kinds.force_field.simulated.config import SimulatedConfig
from hpcfit.kinds.force_field.simulated.opened import Opened

FIRST = "geometries"
BLOCK, RESAMPLES = 8, 200  # geometries that are computed side by side; resamples of those of a set


def open_stored(choice: SimulatedConfig, opened: Sequence[Opened], moves: Moving, seed: int) -> Stored | None:
    """The geometries of a config, of systems that are simulated and of molecules that are not; None without any."""
    if not choice.geometries:
        return None
    return open_sets(choice.geometries, opened, Shared.of(opened), moves, seed)


def beside(stored: Stored, reductions: str, grid: Grid, priced: bool) -> Reverse:
    """Value and gradient of the geometries. priced: whether priors are part of the loss."""
    own = replace(grid, n_blocks=len(stored.ids(BLOCK)))
    return stored.evaluate(BLOCK, own, choose_sum(reductions, own), priced)


def joined(case: Any, evaluate: Forward | Reverse) -> Gradient:
    """The loss of the rounds, with that of the geometries where they are a term of it."""
    choice = case.config.problem
    if case.stored is None or choice.geometries_in == "start":
        return evaluate
    return Joint(evaluate, beside(case.stored, case.config.run.reductions, evaluate.grid, False))


def first(case: Any) -> list[str]:
    """The name of the fit to the geometries alone, where there is one."""
    return [FIRST] if case.config.problem.geometries_in == "start" else []


def begun(case: Any, fits: Fits, start: Params) -> Params:
    """The start of the rounds: at the parameters given, or at those of a fit to the geometries alone; collective."""
    if case.stored is None or case.config.problem.geometries_in == "rounds":
        return start
    alone = beside(case.stored, case.config.run.reductions, fits.grid, True)
    fitted = fits.fit(FIRST, Params(start.shared, ()), evaluate=alone, optimizer=damped)
    return Params(fitted.params.shared, start.local)


def more(evaluate: Gradient) -> More | None:
    """A function of an evaluation that gives the curvature [P, P] of the term of the geometries, and is collective;
    None where there is no such term."""
    if not isinstance(evaluate, Joint):
        return None
    return lambda here: normal(evaluate.beside, evaluate.beside.value(Params(here.params.shared, ())))


def gradient(evaluate: Gradient, shared: Any) -> Any:
    """The gradient [P] of the term of the geometries by the shared parameters, 0 where there is no such term;
    collective."""
    if not isinstance(evaluate, Joint):
        return 0.0
    return flat(evaluate.beside(Params(shared, ())).gradient)


def facts(case: Any, grid: Grid, start: Any, end: Any) -> dict[str, Any]:
    """The deviations of the geometries at the shared parameters before and after the fit; collective."""
    if case.stored is None:
        return {}
    alone = beside(case.stored, case.config.run.reductions, grid, True)
    found = compared(alone, [alone.value(Params(u, ())) for u in (start, end)], case.stored)
    return {"sets": [] if found is None else halves(found, RESAMPLES), "compared": found}
