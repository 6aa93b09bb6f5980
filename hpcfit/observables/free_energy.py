"""Free energies of states that differ in their energy, and how they depend on its parameters.

A difference needs frames of both states, and of states between them where they overlap too little: BAR and, for any
number of states, MBAR (Shirts & Chodera 2008, 10.1063/1.2978177) by pymbar; of two states they are one estimator. Its
derivative needs the end states alone:

    d(F_1 - F_0)/dtheta = <dU_1/dtheta>_1 - <dU_0/dtheta>_0
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError, NumericalError
from hpcfit.log import inputs
from hpcfit.observables.observable import State, observable, over_frames
from hpcfit.statistics.blocks import inefficiency, weighted_error

OVERLAP = 0.03  # of neighbours, below which errors are not to be trusted (Klimovich 2015, 10.1007/s10822-015-9840-9)
SOLVER = {"method": "adaptive", "options": {"min_sc_iter": 0}}  # pymbar's own Newton steps


class FreeEnergies(NamedTuple):
    """Free energies of K states.

    values: [K] kJ/mol, less that of the first state. errors: [K, K] kJ/mol, standard errors of the differences, for
    frames that remember each other. weights: [N, K], of every frame in every state; those of a state sum to 1.
    overlap: [K, K], the probability that a frame of one state is taken for one of another; rows sum to 1.
    """

    values: np.ndarray
    errors: np.ndarray
    weights: np.ndarray
    overlap: np.ndarray


def between_states(energies: np.ndarray, counts: np.ndarray, kT: float) -> FreeEnergies:
    """The free energies of K states by MBAR.

    energies: [K, N] kJ/mol, of every frame in every state; counts: [K], the frames of each state, which stand one state
    after another in the order of time. Raises InputError for what cannot be, and warns of states that hardly overlap.
    """
    energies, counts = np.asarray(energies, float), np.asarray(counts, int)
    _check(energies, counts)
    # What a frame has in all states alike cancels; left in, it would take digits of the differences.
    reduced = (energies - energies.min(axis=0)) / kT
    found = _import_pymbar().MBAR(reduced, counts, solver_protocol=(dict(SOLVER),))
    differences = found.compute_free_energy_differences()
    weights = np.asarray(found.weights())
    if not np.allclose(weights.sum(axis=0), 1, atol=1e-6):
        raise NumericalError(
            f"weights of free energies sum to {weights.sum(axis=0)}, not to 1: MBAR did not converge",
            remedy="put states between those that overlap too little",
        )
    errors = kT * np.asarray(differences["dDelta_f"]) * np.sqrt(_memory(energies, counts))
    overlap = np.asarray(found.compute_overlap()["matrix"])
    _warn_of_gaps(overlap)
    return FreeEnergies(kT * np.asarray(differences["Delta_f"])[0], errors, weights, overlap)


def _check(energies: np.ndarray, counts: np.ndarray) -> None:
    if energies.ndim != 2 or len(energies) < 2 or len(energies) != len(counts) or energies.shape[1] != counts.sum():
        raise InputError(
            f"energies have shape {list(energies.shape)}, but {len(counts)} states have {counts.sum()} frames",
            remedy="give the energies [states, frames] of every frame in every state, of two states or more",
        )
    if np.any(counts < 2):
        state = int(np.argmax(counts < 2))
        raise InputError(
            f"state {state} has {counts[state]} frames", remedy="simulate it: a state needs its own frames"
        )
    if not np.all(np.isfinite(energies)):
        state, frame = np.argwhere(~np.isfinite(energies))[0]
        raise InputError(
            f"frame {frame} has the energy {energies[state, frame]} in state {state}",
            remedy="leave the frame out, or soften the potential of the state",
        )


def _memory(energies: np.ndarray, counts: np.ndarray) -> float:
    """The largest number of frames that are worth one, of the differences to other states along each state's frames."""
    ends = np.cumsum(counts)
    found = [
        inefficiency(row[end - count : end])
        for state, (count, end) in enumerate(zip(counts, ends))
        for row in np.delete(energies - energies[state], state, axis=0)
    ]
    return float(np.nanmax([1.0, *found]))


def _warn_of_gaps(overlap: np.ndarray) -> None:
    """Warn of a state that no other one overlaps."""
    nearest = np.max(overlap - np.diag(np.diagonal(overlap)), axis=1)
    lonely = int(np.argmin(nearest))
    if nearest[lonely] < OVERLAP:
        inputs.warning(
            "state %d overlaps no other by more than %.2g, less than %.2g: put a state between them, or errors of free"
            " energies are not to be trusted",
            lonely,
            nearest[lonely],
            OVERLAP,
        )


def _import_pymbar() -> Any:
    logging.getLogger("pymbar").setLevel(logging.ERROR)  # it greets with a page about its own series and about JAX
    try:
        import pymbar
    except ImportError as error:
        raise InputError(
            f"free energies need pymbar, which cannot be imported: {error}", remedy="pip install 'hpcfit[simulate]'"
        ) from None
    return pymbar


class Slopes(NamedTuple):
    """Derivatives of a difference of free energies by parameters. value, error: [P] kJ/mol over their units."""

    value: np.ndarray
    error: np.ndarray


def slopes_of_difference(first: np.ndarray, last: np.ndarray, blocks: int = 10) -> Slopes:
    """d(F_last - F_first)/dtheta, and its standard error over contiguous blocks of frames.

    first, last: [T, P], dU/dtheta of frames of the first state in the first state, and of the last in the last; each
    has its own number of frames, in the order of time.
    """
    for name, of_state in (("first", first), ("last", last)):
        if len(of_state) < max(blocks, 2):
            raise InputError(
                f"the {name} state has {len(of_state)} frames, fewer than {max(blocks, 2)} blocks",
                remedy="give more frames, or two blocks or more",
            )
    error = np.hypot(*(_error_of_mean(np.asarray(of_state, float), blocks) for of_state in (first, last)))
    return Slopes(np.mean(last, axis=0) - np.mean(first, axis=0), error)


def _error_of_mean(values: np.ndarray, blocks: int) -> np.ndarray:
    parts = np.array_split(values, blocks)
    return weighted_error(
        np.stack([part.mean(axis=0) for part in parts]), np.array([len(p) for p in parts]) / len(values)
    )


@observable
class FreeEnergyChange:
    """The free energy of an ensemble less that at the reference parameters, kT ln<exp((U - U_ref) / kT)>, [1] kJ/mol.

    Added to the difference of two states that was found at the reference, that of one and less that of the other, it
    makes the difference depend on parameters; at the reference its derivative is <dU/dtheta>. energy: a pytree, of
    (positions, parameters, box); reference: parameters; kT: kJ/mol.
    """

    energy: Any
    reference: Any
    kT: Any

    def of_state(self, state: State) -> Any:
        change = state.potential(state.x, state.box) - self.energy(state.x, self.reference, state.box)
        return jnp.exp(change / self.kT)[None]

    def of_average(self, average: Any) -> Any:
        return self.kT * jnp.log(average)


def energies_and_slopes(energy: Any, parameters: Any, frames: Any, boxes: Any = None) -> tuple[Any, Any]:
    """(energies [T] kJ/mol, their derivatives by the parameters, leaves [T, ...]) of frames [T, N, 3] and boxes."""

    def of_frame(x: Any, box: Any) -> tuple[Any, Any]:
        return jax.value_and_grad(lambda theta: energy(x, theta, box))(parameters)

    return over_frames(of_frame)(frames, boxes)
