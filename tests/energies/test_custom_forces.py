"""Custom forces with features that the shipped force fields do not use, against OpenMM."""

import jax
import numpy as np
import pytest

from hpcfit.energies.energy import Energy
from hpcfit.energies.pair_potentials import PairPotential, double_exponential
from hpcfit.energies.systems import from_system
from hpcfit.errors import InputError
from tests.energies.test_openmm_systems import assert_same_derivatives, assert_same_energy_and_forces

EDGE = 1.6


def place(force, *, atoms: int = 8, box: bool = False):
    """A System with one force, and positions."""
    import openmm

    system = openmm.System()
    for _ in range(atoms):
        system.addParticle(12.0)
    if box:
        system.setDefaultPeriodicBoxVectors([EDGE, 0, 0], [0.3, EDGE, 0], [-0.4, 0.2, EDGE])
    system.addForce(force)
    grid = np.array([[x, y, z] for x in range(2) for y in range(2) for z in range(2)], dtype=float)
    return system, 0.35 * grid[:atoms] + np.random.default_rng(6).normal(0, 0.04, (atoms, 3))


def bonds():
    import openmm

    force = openmm.CustomBondForce("D*(1 - exp(-a*(r - r0)))^2 + shift*r")
    force.addGlobalParameter("shift", 3.0)
    for name in ("D", "a", "r0"):
        force.addPerBondParameter(name)
    for first in range(4):
        force.addBond(first, first + 3, [100.0 + first, 12.0, 0.4])
    return place(force)


def angles():
    import openmm

    force = openmm.CustomAngleForce("k*(cos(theta) - cos(theta0))^2")
    force.addPerAngleParameter("k")
    force.addPerAngleParameter("theta0")
    force.addAngle(0, 1, 3, [50.0, 1.9])
    force.addAngle(2, 5, 6, [60.0, 2.0])
    return place(force)


def torsions():
    """CHARMM's improper as OpenMM's manual writes it."""
    import openmm

    force = openmm.CustomTorsionForce("0.5*k*dtheta^2; dtheta = min(d, 6.283185307179586 - d); d = abs(theta - theta0)")
    force.addPerTorsionParameter("k")
    force.addPerTorsionParameter("theta0")
    force.addTorsion(0, 1, 3, 6, [50.0, 3.0])
    force.addTorsion(2, 5, 6, 7, [60.0, -2.9])
    return place(force)


def compound():
    import openmm

    force = openmm.CustomCompoundBondForce(
        4, "k*(distance(p1, p2) - r0)*(angle(p1, p2, p3) - 2)*sin(dihedral(p1, p2, p3, p4)) + x1*y2 - z4*k"
        " + pointdistance(x1, y1, z1, 0.1, 0.2, z3) + pointangle(x1, y1, z1, 0, 0.2, 0, x2, y2, z2)"
        " + pointdihedral(x1, y1, z1, x2, y2, z2, x3, y3, z3, 0.1, 0.2, 0.9)",
    )  # fmt: skip
    force.addPerBondParameter("k")
    force.addGlobalParameter("r0", 0.3)
    force.addBond([0, 1, 3, 6], [20.0])
    force.addBond([7, 2, 4, 5], [30.0])
    return place(force)


def external():
    import openmm

    force = openmm.CustomExternalForce("k*periodicdistance(x, y, z, x0, y0, z0)^2 + step(x - 0.2)*(x - 0.2)^2")
    for name in ("k", "x0", "y0", "z0"):
        force.addPerParticleParameter(name)
    force.addParticle(1, [300.0, 1.5, 1.4, 0.1])
    force.addParticle(4, [200.0, 0.1, 0.0, 1.5])
    return place(force, box=True)


def tables():
    """Splines of one, two and three dimensions, periodic and not, and tables of whole numbers."""
    import openmm

    rng = np.random.default_rng(8)
    force = openmm.CustomNonbondedForce(
        "scale(kind1, kind2)*f(r) + g(r, a1*a2) + h(a1, a2, r) + h(a2, a1, r)"
        "+ p(7*r)*(cube3(kind1, 0, 1) + cube3(kind2, 0, 1))"
    )
    force.addTabulatedFunction("scale", openmm.Discrete2DFunction(2, 2, [1.0, 0.5, 0.5, 2.0]))
    force.addTabulatedFunction("cube3", openmm.Discrete3DFunction(2, 1, 2, [1.0, 3.0, 2.0, 5.0]))
    force.addTabulatedFunction("f", openmm.Continuous1DFunction(rng.normal(size=12).tolist(), 0.2, 0.55))
    force.addTabulatedFunction("p", openmm.Continuous1DFunction([1.0, 2.0, 0.5, 1.5, 1.0], 0.0, 2.0, True))
    force.addTabulatedFunction("g", openmm.Continuous2DFunction(6, 5, rng.normal(size=30).tolist(), 0.1, 0.9, 0.0, 3.0))
    shape = (4, 5, 6)
    force.addTabulatedFunction(
        "h", openmm.Continuous3DFunction(*shape, rng.normal(size=120).tolist(), 0.5, 2.0, 0.5, 2.0, 0.1, 0.9)
    )
    force.addPerParticleParameter("kind")
    force.addPerParticleParameter("a")
    for atom in range(8):
        force.addParticle([atom % 2, 1.0 + 0.1 * (atom % 3)])
    return place(force)


def groups():
    """Interaction groups and exclusions; the pair is symmetric."""
    import openmm

    force = openmm.CustomNonbondedForce("q1*q2/r")
    force.addPerParticleParameter("q")
    for atom in range(8):
        force.addParticle([0.5 + 0.1 * (atom % 2)])
    force.addInteractionGroup([0, 1, 2], [2, 3, 4])
    force.addInteractionGroup([6], [6, 7, 0])
    force.addExclusion(0, 3)
    return place(force)


def correction():
    """Cut-off, switch, and long-range correction, which OpenMM integrates numerically."""
    import openmm

    force = openmm.CustomNonbondedForce("4*sqrt(e1*e2)*((s/r)^12 - (s/r)^6); s = 0.5*(s1 + s2)")
    force.addPerParticleParameter("e")
    force.addPerParticleParameter("s")
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.7)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(0.55)
    force.setUseLongRangeCorrection(True)
    for atom in range(8):
        force.addParticle([[0.5, 0.9, 0.0][atom % 3], 0.3 + 0.01 * (atom % 3)])
    return place(force, box=True)


def generalised_born():
    """Values of single particles and of pairs with and without exclusions, in a periodic box."""
    import openmm

    force = openmm.CustomGBForce()
    force.addPerParticleParameter("q")
    force.addPerParticleParameter("radius")
    force.addGlobalParameter("solvent", 78.5)
    force.addComputedValue("I", "step(r - radius1)*radius2^3/r^4", openmm.CustomGBForce.ParticlePairNoExclusions)
    force.addComputedValue("J", "I*radius + y", openmm.CustomGBForce.SingleParticle)
    force.addComputedValue("B", "1/(1/radius - tanh(I)) + 0.1*J + 0.01*x", openmm.CustomGBForce.SingleParticle)
    force.addEnergyTerm("-70*(1 - 1/solvent)*q^2/B", openmm.CustomGBForce.SingleParticle)
    force.addEnergyTerm("-139*(1 - 1/solvent)*q1*q2/sqrt(r^2 + B1*B2)", openmm.CustomGBForce.ParticlePair)
    for atom in range(8):
        force.addParticle([0.3 * (-1) ** atom, 0.15 + 0.01 * (atom % 3)])
    force.addExclusion(0, 1)
    force.addExclusion(2, 3)
    force.setNonbondedMethod(openmm.CustomGBForce.CutoffPeriodic)
    force.setCutoffDistance(0.75)
    return place(force, box=True)


def rb_torsions():
    import openmm

    force = openmm.RBTorsionForce()
    force.addTorsion(0, 1, 3, 6, 1.0, -2.0, 3.0, 0.5, -0.7, 0.2)
    force.addTorsion(2, 5, 6, 7, 0.3, 2.0, 1.0, -0.5, 0.7, 0.1)
    return place(force)


def own_exceptions():
    """Exceptions that do not follow from their atoms' parameters, without cut-off."""
    import openmm

    force = openmm.NonbondedForce()
    for atom in range(8):
        force.addParticle(0.2 * (-1) ** atom, 0.3, 0.5)
    force.addException(0, 1, 0.0, 1.0, 0.0)
    force.addException(0, 2, 0.03, 0.25, 0.7)
    force.addException(1, 2, 0.0, 0.26, 0.3)
    return place(force)


def cut_without_box():
    import openmm

    system, positions = own_exceptions()
    force = system.getForce(0)
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffNonPeriodic)
    force.setCutoffDistance(0.6)
    return system, positions


FORCES = (
    *(bonds, angles, torsions, compound, external, tables, groups, correction, generalised_born, rb_torsions),
    *(own_exceptions, cut_without_box),
)


SLOW = (tables, generalised_born, cut_without_box, compound)


@pytest.mark.parametrize("make", [pytest.param(make, marks=[pytest.mark.nightly] * (make in SLOW)) for make in FORCES])
def test_a_force_is_that_of_openmm(make):
    system, positions = make()
    loaded = from_system(system)
    rng = np.random.default_rng(1)
    moved = {leaf: values * rng.uniform(0.9, 1.1, values.shape) for leaf, values in loaded.parameters.items()}
    assert_same_energy_and_forces(loaded, positions, moved)
    assert_same_derivatives(loaded, positions, moved, rng)


def test_the_double_exponential_is_the_expression_of_its_authors(shared_data):
    """With switch and correction; the parameters are those of the expression, by other names."""
    import openmm

    field = (shared_data / "rev_sim" / "double_exponential.xml").read_text()
    text = field.partition('CustomNonbondedForce energy="')[2].partition('"')[0]
    force = openmm.CustomNonbondedForce(text)
    for name, value in (("α", 18.5), ("β", 4.3)):
        force.addGlobalParameter(name, value)
    for name in ("sigma", "epsilon"):
        force.addPerParticleParameter(name)
    for atom in range(8):
        force.addParticle([0.3 + 0.02 * (atom % 2), 0.5])
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.7)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(0.55)
    force.setUseLongRangeCorrection(True)
    system, positions = place(force, box=True)
    loaded = from_system(system)
    (custom,) = loaded.energy.terms
    term = PairPotential(
        pairs=custom.pairs, **custom.own, shape=(custom.common["α"], custom.common["β"]),
        potential=double_exponential, switch_from=0.55, tail=custom.tail,
    )  # fmt: skip
    one, other = (
        jax.jit(jax.value_and_grad(lambda x, energy: energy(x, loaded.parameters, loaded.box)))(positions, energy)
        for energy in (Energy((term,)), loaded.energy)
    )
    assert float(one[0]) == pytest.approx(float(other[0]), rel=1e-12)
    np.testing.assert_allclose(one[1], other[1], rtol=1e-9, atol=1e-9)


def test_what_chooses_an_entry_of_a_table_is_no_parameter():
    loaded = from_system(tables()[0])
    assert "custom_nonbonded.kind" not in loaded.parameters
    assert len(loaded.parameters["custom_nonbonded.a"]) == 3


def test_a_value_of_zero_is_a_constant():
    loaded = from_system(correction()[0])
    assert loaded.parameters["custom_nonbonded.e"].tolist() == [0.5, 0.9]


def test_an_unknown_name_is_one_error():
    import openmm

    force = openmm.CustomBondForce("k*(r - length)^2")
    force.addPerBondParameter("k")
    force.addPerBondParameter("length0")
    force.addBond(0, 1, [1.0, 1.0])
    with pytest.raises(InputError, match=r"uses length, which is no variable(.|\n)*did you mean 'length0'"):
        from_system(place(force)[0])
