"""Terms that OpenMM's force fields do not use, against closed forms or OpenMM's custom forces; errors of boxes."""

import jax
import numpy as np
import pytest

from hpcfit.energies.bonded import HarmonicBonds, HarmonicImpropers
from hpcfit.energies.born import OBC1, BornSolvation
from hpcfit.energies.columns import Types, entries, fixed
from hpcfit.energies.energy import Energy
from hpcfit.energies.geometry import angle, dihedral, require_box
from hpcfit.energies.lists import Frame, pair_source
from hpcfit.energies.pair_potentials import geometric, lorentz_berthelot, waldman_hagler
from hpcfit.energies.restraints import InternalRestraints, PositionRestraints, SphericalWall, Wall
from hpcfit.errors import InputError
from tests.energies.openmm_cases import CASES

PLACES = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.1, 0.12, 0.0], [0.15, 0.14, 0.11]])
ONE = {"k": np.array([50.0])}


def value(term, parameters=ONE, positions=PLACES, box=None):
    return float(jax.jit(lambda x, p: term.energy(Frame(x, box), p))(positions, parameters))


def test_impropers_of_charmm_with_and_without_wrapping():
    turn = float(dihedral(*np.diff(PLACES, axis=0)))
    atoms, k = np.array([[0, 1, 2, 3]]), entries("k", [0])
    for wrapped, off in ((True, turn - 6.0 + 2 * np.pi), (False, turn - 6.0)):
        term = HarmonicImpropers(atoms=atoms, angle=fixed([6.0]), k=k, wrapped=wrapped)
        assert value(term) == pytest.approx(50 * off**2, rel=1e-12)


def test_position_restraints_with_and_without_a_flat_bottom():
    places = PLACES[[1, 3]] + [[0.03, 0.0, 0.04], [0.0, 0.0, 0.1]]
    term = PositionRestraints(atoms=np.array([1, 3]), places=places, k=entries("k", [0, 0]))
    assert value(term) == pytest.approx(25 * (0.05**2 + 0.1**2))
    flat = PositionRestraints(atoms=np.array([1, 3]), places=places, k=entries("k", [0, 0]), width=0.06)
    assert value(flat) == pytest.approx(25 * 0.04**2)
    box = np.diag([0.5, 0.5, 0.5])
    turned = PositionRestraints(
        atoms=np.array([1, 3]), places=places + 0.5 * np.array([1, -2, 3]), k=entries("k", [0, 0]), periodic=True
    )
    assert value(turned, box=box) == pytest.approx(value(term))


@pytest.mark.parametrize(("atoms", "measure"), [((0, 2), 0.0), ((0, 1, 2), np.pi / 2), ((0, 1, 2, 3), None)])
def test_restraints_of_distances_angles_and_dihedrals(atoms, measure):
    found = {2: np.hypot(0.1, 0.12), 3: measure, 4: float(dihedral(*np.diff(PLACES, axis=0)))}[len(atoms)]
    term = InternalRestraints(atoms=np.array([atoms]), target=fixed([found - 0.3]), k=entries("k", [0]), width=0.1)
    assert value(term) == pytest.approx(25 * 0.2**2)
    inside = InternalRestraints(atoms=np.array([atoms]), target=fixed([found - 0.05]), k=entries("k", [0]), width=0.1)
    assert value(inside) == 0


def test_walls():
    plane = Wall(atoms=np.arange(4), point=np.array([0, 0.1, 0.0]), normal=np.array([0, 2.0, 0]), k=entries("k", [0]))
    assert value(plane) == pytest.approx(25 * (0.02**2 + 0.04**2))
    sphere = SphericalWall(atoms=np.arange(4), centre=np.zeros(3), radius=fixed([0.15]), k=entries("k", [0]))
    outer = np.linalg.norm(PLACES, axis=1) - 0.15
    assert value(sphere) == pytest.approx(25 * np.sum(np.maximum(outer, 0) ** 2))


def test_radii_of_obc1_are_those_of_openmms_script():
    """The same energies by the closed term as by the expressions of implicit/obc1.xml, but for their constants."""
    import openmm

    case = CASES["OBC1"](None)
    force = next(force for force in case.system.getForces() if isinstance(force, openmm.CustomGBForce))
    charge, offset_radius, screened = np.array([force.getParticleParameters(n) for n in range(22)]).T
    radius = offset_radius + 0.009
    names = [force.getPerParticleParameterName(n) for n in range(3)]
    assert names == ["charge", "or", "sr"]
    term = BornSolvation(
        pairs=pair_source(22), charge=fixed(charge), radius=fixed(radius), scale=fixed(screened / offset_radius),
        tanh=OBC1, surface=28.3919551 / (4 * np.pi),
    )  # fmt: skip
    system = openmm.System()
    for _ in range(22):
        system.addParticle(1.0)
    system.addForce(openmm.XmlSerializer.clone(force))
    from tests.energies.openmm_cases import Reference

    # OpenMM's script takes 138.935485 for 1/(4π ε0), 2e-7 less than its own constant.
    assert value(term, {}, case.positions) == pytest.approx(Reference(system, case.positions).energy(), rel=1e-6)


def test_rules_of_combination():
    pair = (0.3, 0.5, 0.4, 0.9)
    assert np.allclose(lorentz_berthelot(*pair), [0.35, np.sqrt(0.45)])
    assert np.allclose(geometric(*pair), [np.sqrt(0.12), np.sqrt(0.45)])
    sixth = 0.5 * (0.3**6 + 0.4**6)
    assert np.allclose(waldman_hagler(*pair), [sixth ** (1 / 6), np.sqrt(0.45) * 0.12**3 / sixth])
    for rule in (lorentz_berthelot, geometric, waldman_hagler):
        assert np.allclose(rule(0.3, 0.5, 0.3, 0.5), [0.3, 0.5])
        slopes = jax.grad(lambda e, rule=rule: rule(0.3, e, 0.4, 0.0)[1])(0.0)
        assert np.isfinite(slopes)  # of √(ε1 ε2) where both are 0


def test_geometry_has_derivatives_where_vectors_are_parallel_or_vanish():
    along = np.array([1.0, 0.0, 0.0])
    assert float(angle(along, 2 * along)) == 0
    assert float(angle(along, -along)) == pytest.approx(np.pi)
    for other in (along, -along, np.zeros(3)):
        assert np.all(np.isfinite(jax.grad(angle)(along, other)))
    assert np.all(np.isfinite(jax.grad(dihedral)(along, along, along)))


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (None, "no box is given"),
        (np.diag([2.0, 2.0, 0.9]), r"0.9 nm wide, less than twice the cut-off of 0.5 nm"),
        (np.array([[2.0, 0, 0], [1.5, 2, 0], [0, 0, 2]]), "not in OpenMM's reduced form"),
        (np.array([[2.0, 0.1, 0], [0, 2, 0], [0, 0, 2]]), "not in OpenMM's reduced form"),
    ],
)
def test_a_box_that_does_not_do_is_one_error(box, words):
    with pytest.raises(InputError, match=words):
        require_box(box, 0.5)
    require_box(np.array([[2.0, 0, 0], [-1.0, 2, 0], [1.0, -1.0, 2]]), 0.5)


def test_types_are_rows_of_equal_values_and_constants_are_none():
    types = Types(["A", "B", "C", "D"])
    given = {"a": np.array([1.0, 1.0, 2.0, 1.0]), "b": np.array([3.0, 3.0, 0.0, 4.0])}
    columns = types.columns("pair", given, np.arange(4), constant={"b": given["b"] == 0})
    assert types.values["pair.a"].tolist() == [1.0, 2.0, 1.0]
    assert types.labels["pair.a"] == ["A", "C", "D"]
    assert types.values["pair.b"].tolist() == [3.0, 4.0]
    for name, column in columns.items():
        assert column.values(types.values).tolist() == given[name].tolist()
    assert [types.prefix("pair") for _ in range(2)] == ["pair", "pair_2"]


def test_an_energy_is_an_argument_of_a_compiled_function():
    atoms = np.array([[0, 1], [1, 2]])

    def bonds(length):
        return Energy((HarmonicBonds(atoms=atoms, length=fixed([length, 0.1]), k=entries("k", [0, 0])),))

    count = 0

    @jax.jit
    def energy(energy, positions):
        nonlocal count
        count += 1
        return energy(positions, ONE)

    first, second = (float(energy(bonds(length), PLACES)) for length in (0.1, 0.12))
    assert first == pytest.approx(25 * 0.02**2)
    assert second == pytest.approx(25 * (0.02**2 + 0.02**2))
    assert count == 1
