"""Functions of one's own and Systems of OpenMM as landscapes, with what can be wrong with them."""

import jax
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.structure.landscapes.own import Own
from hpcfit.kinds.structure.landscapes.system import SystemLandscape

SOURCE = """
import jax.numpy as jnp

def well(x):
    return jnp.sum((x - 1) ** 2)

def soft(x, cap):
    return jnp.sum(x**2) + cap

def flat(x):
    return jnp.zeros(())

def rows(x):
    return jnp.sum(x, axis=1)
"""
# A zigzag of four atoms, nm: its ends are a 1-4 pair with scales of their own.
ZIGZAG = np.array([[0.0, 0.0, 0.0], [0.1, 0.05, 0.0], [0.2, 0.0, 0.02], [0.3, 0.05, 0.05], [0.9, 0.3, 0.2]])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own.py").write_text(SOURCE)
    return tmp_path


def test_a_function_of_a_file_is_a_landscape(folder):
    x = np.full((3, 2), 2.0)
    own = Own.of("own.py:well", x, folder=folder, unit="kJ/mol")
    assert (own.n, own.d, own.unit) == (3, 2, "kJ/mol")
    value, slope = jax.jit(lambda own, x: jax.value_and_grad(own.energy)(x))(own, x)
    assert float(value) == own.independent(x) == 6.0
    np.testing.assert_array_equal(slope, np.full((3, 2), 2.0))


def test_a_function_with_a_cap_is_given_it(folder):
    own = Own.of("own.py:soft", np.ones((2, 1)), folder=folder)
    assert float(own.energy(np.ones((2, 1)), 0.5)) == 2.5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("own.py:flat", "has no gradient"),
        ("own.py:rows", "where a scalar"),
        ("none.py:f", "does not exist"),
        ("own.py:g", "no function g"),
    ],
)
def test_what_is_no_energy_is_an_input_error(folder, name, said):
    with pytest.raises(InputError, match=said):
        Own.of(name, np.ones((2, 3)), folder=folder)


def zigzag_system(*, constrained=False, charged=True):
    """Bonds, charges, cores, a 1-4 pair and a fifth atom apart."""
    openmm = pytest.importorskip("openmm")
    system, bonds, pairs = openmm.System(), openmm.HarmonicBondForce(), openmm.NonbondedForce()
    born = openmm.GBSAOBCForce()
    for number, (charge, sigma, epsilon) in enumerate(
        [(0.3, 0.3, 0.5), (-0.2, 0.25, 0.4), (0.1, 0.3, 0.6), (-0.4, 0.1, 0.0), (0.2, 0.28, 0.3)]
    ):
        charge = charge if charged else 0.0
        system.addParticle(12.0 + number)
        pairs.addParticle(charge, sigma, epsilon)
        born.addParticle(charge, 0.15, 0.8)
    for i in range(3):
        bonds.addBond(i, i + 1, 0.11, 2e4)
    pairs.createExceptionsFromBonds([(0, 1), (1, 2), (2, 3)], 0.8, 0.5)
    if constrained:
        system.addConstraint(0, 1, 0.11)
    for force in (bonds, pairs, born):
        system.addForce(force)
    return system


@jax.jit
def value_and_slope(landscape, x, cap):
    return jax.value_and_grad(landscape.energy)(x, cap)


def test_a_system_has_the_energy_of_openmm_and_a_soft_core():
    zigzag = SystemLandscape.of(zigzag_system(), ZIGZAG, names=tuple("abcde"))
    value, slope = value_and_slope(zigzag, ZIGZAG, 0.0)
    assert float(value) == pytest.approx(zigzag.independent(ZIGZAG), rel=1e-9)
    h, along = 1e-6, np.random.default_rng(0).normal(size=ZIGZAG.shape)
    difference = (zigzag.independent(ZIGZAG + h * along) - zigzag.independent(ZIGZAG - h * along)) / (2 * h)
    assert np.vdot(slope, along) == pytest.approx(difference, rel=1e-6)

    together = np.zeros_like(ZIGZAG)
    assert not np.all(np.isfinite(value_and_slope(zigzag, together, 0.0)[1]))
    assert all(np.all(np.isfinite(part)) for part in value_and_slope(zigzag, together, 0.9))
    assert zigzag.label(1) == "b"
    # Far from each other only what APART moves is left of a cap.
    far = 3.0 * ZIGZAG
    assert float(value_and_slope(zigzag, far, 0.9)[0]) == pytest.approx(zigzag.independent(far), rel=1e-6)


def test_a_system_knows_its_bonds_contacts_and_overlaps():
    zigzag = SystemLandscape.of(zigzag_system(), ZIGZAG)
    expected = np.zeros((5, 5))
    expected[[0, 1, 2], [1, 2, 3]] = 1
    np.testing.assert_array_equal(zigzag.couplings().toarray(), expected + expected.T)
    assert zigzag.contacts(ZIGZAG) == (3, 3)
    assert zigzag.pieces(ZIGZAG) == 2
    assert zigzag.overlaps(ZIGZAG) == 0
    broken = ZIGZAG.copy()
    broken[4] = broken[0]
    broken[3] += 0.5
    assert (zigzag.contacts(broken), zigzag.pieces(broken), zigzag.overlaps(broken)) == ((2, 3), 3, 2)


def test_constraints_and_wrong_positions_are_input_errors():
    with pytest.raises(InputError, match="1 constraints"):
        SystemLandscape.of(zigzag_system(constrained=True), ZIGZAG)
    with pytest.raises(InputError, match="5 particles"):
        SystemLandscape.of(zigzag_system(), ZIGZAG[:4])


def test_a_serialized_system_is_read(tmp_path):
    system = zigzag_system()
    import openmm

    path = tmp_path / "zigzag.xml"
    path.write_text(openmm.XmlSerializer.serialize(system))
    assert SystemLandscape.of_xml(path, ZIGZAG).n == 5
    with pytest.raises(InputError, match="does not exist"):
        SystemLandscape.of_xml(tmp_path / "none.xml", ZIGZAG)


def test_chignolin_with_gbn2_has_the_energy_of_openmm(shared_data):
    pytest.importorskip("openmm")
    path = shared_data / "structure" / "CLN025.pdb"
    if not path.exists():
        pytest.skip(f"no {path}")
    chignolin = SystemLandscape.of_structure(path)
    assert chignolin.n == 166
    energy = float(jax.jit(lambda one, x: one.energy(x))(chignolin, chignolin.native))
    assert energy == pytest.approx(chignolin.independent(chignolin.native), abs=1e-5)
    assert (chignolin.contacts(chignolin.native), chignolin.pieces(chignolin.native)) == ((171, 171), 1)
    assert chignolin.label(0).startswith("A:TYR 1.")


def test_a_residue_without_a_template_is_named(shared_data):
    pytest.importorskip("openmm")
    path = shared_data / "structure" / "2F4K.pdb"
    if not path.exists():
        pytest.skip(f"no {path}")
    with pytest.raises(InputError, match=r"No template found for residue 23 \(NLE\)"):
        SystemLandscape.of_structure(path)
