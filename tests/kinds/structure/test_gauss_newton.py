"""The metric of internal coordinates: the Hessian of bonds and angles at rest, its factor, the same bits alone."""

import jax
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.fit.lbfgs import Ends, Lbfgs
from hpcfit.kinds.structure.config import MethodConfig
from hpcfit.kinds.structure.gauss_newton import GaussNewton
from hpcfit.kinds.structure.landscapes.clusters import Cluster
from hpcfit.kinds.structure.landscapes.peptide import Peptide, bonded_energy
from hpcfit.kinds.structure.landscapes.system import SystemLandscape
from hpcfit.kinds.structure.methods import check_method
from hpcfit.kinds.structure.minimisations import Minimisations, Phase, Replicas
from hpcfit.kinds.structure.parametrisations import Direct
from hpcfit.ranks import Ranks

GLY = Peptide.of_sequence("GG")
METRIC = GaussNewton.of(GLY.stiffnesses(), GLY.n)


def dense(metric, x):
    """P [3 n, 3 n] in the order of the atoms."""
    band, size = metric.matrix(x), x.size
    found = np.zeros((size, size))
    for below, diagonal in enumerate(band):
        places = np.arange(size - below)
        found[places + below, places] = found[places, places + below] = diagonal[: size - below]
    coordinates = (3 * metric.order[:, None] + np.arange(3)).ravel()
    back = np.empty_like(found)
    back[np.ix_(coordinates, coordinates)] = found
    return back


def test_it_is_the_hessian_of_bonds_and_angles_at_rest():
    x = GLY.native
    lengths = np.linalg.norm(x[GLY.bonds[:, 0]] - x[GLY.bonds[:, 1]], axis=1)
    rest = np.asarray(rest_angles(x))
    of_flat = lambda flat: bonded_energy(flat.reshape(-1, 3), GLY.bonds, lengths, GLY.angles, rest)  # noqa: E731
    hessian = jax.jit(jax.hessian(of_flat))
    expected = np.asarray(hessian(x.ravel())) / GLY.stiffnesses().background + np.eye(x.size)
    np.testing.assert_allclose(dense(METRIC, x), expected, atol=1e-6 * np.max(expected))


def rest_angles(x):
    u, v = x[GLY.angles[:, 0]] - x[GLY.angles[:, 1]], x[GLY.angles[:, 2]] - x[GLY.angles[:, 1]]
    return np.arctan2(np.linalg.norm(np.cross(u, v), axis=1), np.sum(u * v, axis=1))


def test_a_chart_gives_back_its_place_and_the_derivatives_of_differences():
    random = np.random.default_rng(4)
    x = GLY.native + 0.1 * random.normal(size=(2, GLY.n, 3))
    z, chart = METRIC.begun(x, np.array([1, 2]))
    np.testing.assert_allclose(chart.positions(z), x, atol=1e-12)
    for one, y in zip(x, z):
        assert y @ y == pytest.approx(one.ravel() @ dense(METRIC, one) @ one.ravel(), rel=1e-10)
    slope, step = random.normal(size=x.shape), random.normal(size=z.shape)
    change = np.sum(slope * (chart.positions(z + step) - x), axis=(1, 2))
    np.testing.assert_allclose(np.sum(chart.pulled_back(z, slope) * step, axis=1), change, rtol=1e-9)


def starts(numbers):
    return np.stack([GLY.native + 0.2 * np.random.default_rng([3, int(n)]).normal(size=(GLY.n, 3)) for n in numbers])


def minimised(parametrisation, replicas=4, width=2, budget=1500, renewed=50):
    make = lambda inner, seeds: Lbfgs(  # noqa: E731
        inner, longest=2.0, first_step=0.3, ends=Ends(budget, relative=1e-10, patience=3)
    )
    phases = [Phase(parametrisation, make, 0.0, renewed=renewed)]
    stage = Minimisations(GLY, starts, phases, Replicas(replicas, width, budget, 1), Ranks())
    for _ in stage.run(range(stage.n_units)):
        pass
    return stage.product()


def test_a_replica_is_the_same_whoever_is_beside_it():
    """Metrics are made anew while some have ended and others have not."""
    whole = minimised(METRIC)
    assert len(set(whole["evaluations"].tolist())) > 1
    alone = minimised(METRIC, replicas=1)
    wide = minimised(METRIC, width=4)
    for name in ("positions", "energy", "evaluations", "trace"):
        np.testing.assert_array_equal(alone[name][0], whole[name][0])
        np.testing.assert_array_equal(wide[name], whole[name])


def test_it_takes_fewer_gradients_than_positions():
    metric, direct = minimised(METRIC), minimised(Direct((GLY.n, 3)), renewed=0)
    assert np.median(metric["evaluations"]) < 0.7 * np.median(direct["evaluations"])
    assert np.median(metric["energy"]) < np.median(direct["energy"]) + 5


def test_a_system_has_the_stiffnesses_of_its_forces():
    openmm = pytest.importorskip("openmm")
    system, bonds, torsions = openmm.System(), openmm.HarmonicBondForce(), openmm.PeriodicTorsionForce()
    for _ in range(4):
        system.addParticle(12.0)
    bonds.addBond(0, 1, 0.15, 3e5)
    torsions.addTorsion(0, 1, 2, 3, 3, 0.0, 2.0)
    system.addForce(bonds)
    system.addForce(torsions)
    x = 0.15 * np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [2, 1, 1]])
    found = SystemLandscape.of(system, x).stiffnesses()
    assert [one.atoms.tolist() for one in found.kinds] == [[[0, 1]], [[0, 1, 2, 3]]]
    assert [one.stiffness.tolist() for one in found.kinds] == [[3e5], [18.0]]


def test_an_energy_without_internal_coordinates_is_an_error():
    method = MethodConfig(name="one", parametrisation="gauss-newton")
    with pytest.raises(InputError, match="needs bonds, angles or dihedrals"):
        check_method(method, Cluster.of(7), False)
