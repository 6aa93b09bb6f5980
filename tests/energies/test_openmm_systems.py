"""Systems of OpenMM's force fields as energies: E, forces and ∂E/∂θ against the Reference platform, in double
precision.

Bounds: E within 1e-6, forces within 1e-5 of their rms, derivatives within 1e-5 of a difference of fourth order (its own
error, of rounding, is 1e-13 E/(h θ ∂E/∂θ)); each also with every parameter multiplied by a factor of its own, 0.9 to
1.1.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.energies.systems import from_system
from hpcfit.errors import InputError
from tests.energies.openmm_cases import CASES, STENCIL, Reference, along

DEFAULT = ("bonds only", "amber19 with CMAP", "TIP3P, PME", "Lennard-Jones, reaction field")


@jax.jit
def value_and_gradients(energy, positions, parameters, box):
    return jax.value_and_grad(lambda x, p: energy(x, p, box), (0, 1))(positions, parameters)


def folder_of(name, request):
    """Shared data, for the cases that read it."""
    needed = name in ("double exponential", "Buckingham", "soft core") or "CLN025" in name
    return request.getfixturevalue("shared_data") if needed else None


def assert_same_energy_and_forces(loaded, positions, parameters):
    reference = Reference(loaded.to_system(parameters), positions)
    energy, (gradient, _) = value_and_gradients(loaded.energy, reference.positions(), parameters, loaded.box)
    forces = reference.forces()[loaded.masses > 0]
    assert float(energy) == pytest.approx(reference.energy(), rel=1e-6)
    off = np.abs(-np.asarray(gradient)[loaded.masses > 0] - forces)
    assert off.max() < 1e-5 * np.sqrt(np.mean(forces**2))


def assert_same_derivatives(loaded, positions, parameters, rng):
    """Along a random direction of each class of parameters."""
    positions = Reference(loaded.to_system(parameters), positions).positions()
    _, (_, gradient) = value_and_gradients(loaded.energy, positions, parameters, loaded.box)
    for leaf, values in parameters.items():
        size = np.where(values == 0, 1.0, np.abs(values))
        slopes = np.asarray(gradient[leaf]) * size
        direction = rng.normal(size=len(values))
        found = along(loaded, positions, parameters, leaf, direction * size)
        scale = np.sqrt(np.sum((slopes * direction) ** 2))
        assert found == pytest.approx(np.sum(slopes * direction), abs=1e-5 * scale + 1e-8), leaf


@pytest.mark.parametrize(
    "name", [name if name in DEFAULT else pytest.param(name, marks=pytest.mark.nightly) for name in CASES]
)
def test_a_system_is_that_of_openmm(name, request):
    case = CASES[name](folder_of(name, request))
    loaded = from_system(case.system, case.topology)
    assert_same_energy_and_forces(loaded, case.positions, loaded.parameters)
    rng = np.random.default_rng(11)
    factors = {leaf: rng.uniform(0.9, 1.1, values.shape) for leaf, values in loaded.parameters.items()}
    moved = {leaf: values * factors[leaf] for leaf, values in loaded.parameters.items()}
    assert_same_energy_and_forces(loaded, case.positions, moved)
    assert_same_derivatives(loaded, case.positions, moved, rng)


SECOND = ("TIP3P, PME", "amber19 with CMAP", "GBn2")


@pytest.mark.parametrize(
    "name", ["Lennard-Jones, reaction field", *(pytest.param(name, marks=pytest.mark.nightly) for name in SECOND)]
)
def test_tangents_of_forces_are_those_of_differences(name):
    """H·v + ∂²E/∂x∂θ·w in one pass, as tangents of dynamics need it."""
    case = CASES[name](None)
    loaded = from_system(case.system)
    positions = jnp.asarray(Reference(case.system, case.positions).positions())
    rng = np.random.default_rng(13)
    v = jnp.asarray(rng.normal(size=positions.shape))
    w = {leaf: values * rng.normal(size=values.shape) for leaf, values in loaded.parameters.items()}

    @jax.jit
    def tangent(energy, x, p):
        return jax.jvp(lambda x, p: jax.grad(energy)(x, p, loaded.box), (x, p), (v, w))

    def slope(step):
        p = {leaf: values + step * w[leaf] for leaf, values in loaded.parameters.items()}
        return tangent(loaded.energy, positions + step * v, p)[0]

    _, found = tangent(loaded.energy, positions, loaded.parameters)
    h = 1e-6
    by_differences = sum(weight * slope(step * h) for step, weight in STENCIL.items()) / h
    np.testing.assert_allclose(found, by_differences, rtol=0, atol=1e-6 * np.abs(found).max())


@pytest.mark.parametrize("name", ["bonds only", "Lennard-Jones, reaction field"])
def test_energies_have_tangents_and_forces_have_pull_backs_by_one_product_each(name):
    """Both against derivatives of the sum of the terms, through which JAX goes step by step; rounding alone differs."""
    case, rng = CASES[name](None), np.random.default_rng(3)
    loaded = from_system(case.system, case.topology)
    x, theta = jnp.asarray(case.positions), {leaf: jnp.asarray(value) for leaf, value in loaded.parameters.items()}
    along = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=np.shape(leaf))), (x, theta))
    plainly = lambda x, theta: sum(loaded.energy.by_term(x, theta, loaded.box))  # noqa: E731
    energy = lambda x, theta: loaded.energy(x, theta, loaded.box)  # noqa: E731
    tangent, expected = (jax.jit(lambda *at, u=u: jax.jvp(u, at, along)[1])(x, theta) for u in (energy, plainly))
    assert float(tangent) == pytest.approx(float(expected), rel=1e-10)
    forces = lambda x, theta: loaded.energy.forces(x, theta, loaded.box, pulled_back=True)  # noqa: E731
    plain_forces = lambda x, theta: -jax.grad(plainly)(x, theta)  # noqa: E731
    pull = lambda f: jax.jit(lambda *at: jax.vjp(f, *at)[1](along[0]))(x, theta)  # noqa: E731
    pulled, expected = pull(forces), pull(plain_forces)
    for leaf, like in zip(jax.tree.leaves(pulled), jax.tree.leaves(expected)):
        np.testing.assert_allclose(leaf, like, rtol=0, atol=1e-10 * np.max(np.abs(like)) + 1e-300)


@pytest.mark.parametrize(
    "name", ["Lennard-Jones, reaction field", pytest.param("TIP3P, PME", marks=pytest.mark.nightly)]
)
def test_the_derivative_by_the_volume_is_that_of_openmm(name):
    """Of positions and box that grow together: what the pressure is made of, the correction's part included."""
    case = CASES[name](None)
    loaded = from_system(case.system)

    @jax.jit
    def slope(energy, x, box):
        return jax.grad(lambda s: energy(s * x, loaded.parameters, s * box))(1.0)

    reference, h, by_differences = Reference(case.system, case.positions), 3e-6, 0.0  # no pair crosses the cut-off
    for step, weight in STENCIL.items():
        scale = 1 + step * h
        reference.context.setPeriodicBoxVectors(*(scale * loaded.box))
        reference.context.setPositions(scale * case.positions)
        by_differences += weight * reference.energy() / h
    assert float(slope(loaded.energy, case.positions, loaded.box)) == pytest.approx(by_differences, rel=1e-7)


def test_the_system_that_is_read_is_written_again():
    import openmm

    case = CASES["amber19 with CMAP"](None)
    loaded = from_system(case.system, case.topology)
    same = loaded.to_system({})
    expected = Reference(case.system, case.positions).energy()
    assert Reference(same, case.positions).energy() == pytest.approx(expected, rel=1e-14)
    again = openmm.XmlSerializer.deserialize(loaded.to_xml({"bond.k": loaded.parameters["bond.k"] * 1.1}))
    assert from_system(again).parameters["bond.k"] == pytest.approx(1.1 * loaded.parameters["bond.k"], rel=1e-15)


def test_parameters_are_types_with_names():
    case = CASES["amber14"](None)
    loaded = from_system(case.system, case.topology)
    labels = loaded.labels["lj.epsilon"]
    assert "ACE.CH3" in labels
    assert len(labels) == len(set(labels)) == len(loaded.parameters["lj.epsilon"])
    # The amide hydrogens have ε ≠ 0 in amber; both have one type, that of the first.
    assert labels.count("ALA.H") == 1
    assert "NME.H" not in labels
    assert all(np.all(np.isin(entries, np.arange(len(loaded.parameters[leaf])))) for leaf, entries in
               loaded.energy.used().items())  # fmt: skip
    assert loaded.energy.used().keys() == loaded.parameters.keys()


def test_parameters_are_named_by_class_or_by_class_and_label():
    loaded = from_system(*CASES["TIP3P, PME"](None)[:2])
    assert loaded.entries("charge") == ("charge", [0, 1])
    assert loaded.entries("charge:HOH.H1") == ("charge", [1])
    with pytest.raises(InputError, match=r"no parameters charges(.|\n)*did you mean 'charge'"):
        loaded.entries("charges")
    with pytest.raises(InputError, match=r"charge has no entry HOH.H2(.|\n)*did you mean 'HOH.H1'"):
        loaded.entries("charge:HOH.H2")


def test_an_atom_without_lennard_jones_has_no_such_parameters():
    case = CASES["TIP3P, PME"](None)
    loaded = from_system(case.system, case.topology)
    assert loaded.labels["lj.sigma"] == loaded.labels["lj.epsilon"] == ["HOH.O"]
    assert loaded.parameters["lj.sigma"] == pytest.approx([0.315075], rel=1e-4)
