"""A fitted model in use: its tables, its OpenMM System against the basis, free energies against closed forms."""

import jax
import numpy as np
import pytest

from hpcfit.bead_models import free_energy
from hpcfit.bead_models.basis import BasisOptions, make_basis
from hpcfit.bead_models.linear import basis_energies, basis_forces, normal_equations
from hpcfit.bead_models.openmm_model import build_system, system_xml
from hpcfit.bead_models.tables import SEEN, WALL, make_terms, write_tables
from hpcfit.errors import InputError
from hpcfit.physics import superposition
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.physics.internal_coordinates import COORDINATES

openmm = pytest.importorskip("openmm")

T = 300.0
KT = GAS_CONSTANT * T
TYPES = ["A", "B", "A", "C", "B", "A", "A"]
BONDS = np.array([(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (3, 6)])
CHAIN = np.array([[0, 0, 0], [3.8, 0, 0], [5, 3.5, 0], [8, 4, 2.5], [9, 7, 4.5], [12, 7.5, 3], [9.5, 2, 5.0]])
BOX = np.array([[34.0, 0, 0], [5.0, 32.0, 0], [-4.0, 6.0, 35.0]])
RANGES = {"pairs": (2.0, 17.0), "bonds": (2.0, 6.0), "angles": (0.2, 3.1)}


def frames(n, spread=0.3, seed=0):
    return CHAIN + np.random.default_rng(seed).normal(scale=spread, size=(n, *CHAIN.shape))


def model_of(basis, seed=0):
    """Coefficients as large as kT, and every function seen."""
    return np.random.default_rng(seed).normal(scale=2 * KT, size=basis.size), np.full(basis.size, 100.0)


def openmm_values(system, R):
    """U (kJ/mol) and forces (kJ/mol/A) of frames by the Reference platform, in float64."""
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    found = []
    for positions in R:
        context.setPositions(positions / 10)
        state = context.getState(energy=True, forces=True)
        force = state.getForces(asNumpy=True).value_in_unit(openmm.unit.kilojoule_per_mole / openmm.unit.angstrom)
        found.append((state.getPotentialEnergy().value_in_unit(openmm.unit.kilojoule_per_mole), force))
    return np.array([u for u, _ in found]), np.array([f for _, f in found])


@pytest.mark.parametrize(
    ("options", "box"),
    [
        ({"exclusions": 1}, None),
        ({"pairs": "gaussian", "exclusions": 2}, None),
        ({"cutoff": 12.0, "exclusions": 1}, BOX),
        ({"pairs": "gaussian", "cutoff": 12.0, "exclusions": 0}, BOX),
    ],
    ids=["splines", "gaussians", "splines in a box", "gaussians in a box"],
)
def test_openmm_has_the_energies_and_forces_of_the_basis(options, box):
    basis = make_basis(TYPES, BONDS, BasisOptions(pair_functions=10, bonded_functions=8, **options), RANGES)
    coefficients, coverage = model_of(basis)
    R = frames(5)
    if box is not None:
        R[:, 4:] += box[1] - box[0]  # images
    terms = make_terms(basis, coefficients, coverage, T, periodic=box is not None)
    system = openmm.XmlSerializer.deserialize(system_xml(build_system(terms, [100.0] * 7, TYPES, box)))
    U, F = openmm_values(system, R)
    boxes = None if box is None else np.broadcast_to(box, (5, 3, 3))
    # Where a third derivative jumps by J, a cubic spline at steps h is wrong by 0.011 J h^3, and its slope by
    # 0.030 J h^2. Knots of B-splines have J < 6 |theta| / step^3: 120 kJ/mol/A^3 at h = 0.008 A (bonds), 6 at 0.03 A
    # (pairs), 120 kJ/mol/rad^3 at 0.013 rad (dihedrals): 2e-6 kJ/mol and 2e-4 kJ/mol/A a term
    np.testing.assert_allclose(U, np.asarray(basis_energies(basis, R, boxes)) @ coefficients, atol=1e-4)
    np.testing.assert_allclose(F, np.asarray(basis_forces(basis, R, boxes)) @ coefficients, atol=1e-3)


def test_walls_of_openmm_are_those_of_the_tables():
    """One bond and one angle far outside their ranges, and two beads that all but meet."""
    basis = make_basis(TYPES, BONDS, BasisOptions(exclusions=1), RANGES)
    coefficients, coverage = model_of(basis)
    terms = make_terms(basis, coefficients, coverage, T)
    R = frames(2, spread=0.0)
    R[0, 0] += [-7.0, 0, 0]
    R[1, 5] = R[1, 0] + [0.1, 0.05, 0]
    U, F = openmm_values(build_system(terms, [100.0] * 7, TYPES), R)
    expected = np.zeros(2)
    coordinates = jax.jit(lambda r: [COORDINATES[term.kind](r, term.beads, None)[0] for term in terms])
    for term, q in zip(terms, map(np.stack, zip(*map(coordinates, R)))):
        expected += term(q.ravel())[0].reshape(q.shape).sum(axis=1)
    np.testing.assert_allclose(U, expected, rtol=1e-6)
    assert F[0, 0, 0] > 0.9 * WALL * KT * 4.8  # back into the range of 6 A, from 10.8 A


def test_terms_go_on_smoothly_and_return_into_the_sampled_range():
    basis = make_basis(TYPES, BONDS, BasisOptions(exclusions=1), RANGES)
    coefficients, _ = model_of(basis)
    for term in make_terms(basis, coefficients, np.full(basis.size, 100.0), T):
        if term.family.periodic:
            continue
        for end, wall in zip((term.low, term.high), term.walls):
            (u, v), (du, dv) = term(np.array([end - 1e-7, end + 1e-7]))
            assert v - u == pytest.approx(2e-7 * du, abs=1e-9)
            assert dv == pytest.approx(du, abs=1e-3)  # U'' x 2e-7
            if wall:
                away = np.array([-3.0, 3.0]) if end == term.low else np.array([3.0, -3.0])
                assert term(end + away[:1])[0] > term(np.array([end]))[0] + KT
        q = term.grid(2001)
        U, slope = term(q)
        middle = slice(1, -1)
        np.testing.assert_allclose(np.gradient(U, q)[middle], slope[middle], atol=0.02 * np.abs(slope).max())


def test_unsampled_ends_are_left_to_the_walls():
    """Distances from 5 A on: what no frame saw below is not the 0 of empty functions."""
    options = BasisOptions(pair_functions=20, exclusions=0, dihedrals=False, bonds=False, angles=False)
    basis = make_basis(["A", "A"], np.zeros((0, 2), int), options, {"pairs": (0.0, 12.0)})
    r = np.linspace(5.0, 9.0, 400)
    R = np.zeros((400, 2, 3))
    R[:, 1, 2] = r
    coverage = np.asarray(normal_equations(basis, R, np.zeros_like(R)).coverage)
    (term,) = make_terms(basis, np.where(coverage >= SEEN, -10.0, 0.0), coverage, T)
    step = 12 / 17
    assert 5.0 <= term.low <= 5.0 + step * 1.1
    assert 9.0 - step * 1.1 <= term.high <= 9.0
    assert term.walls == (WALL * KT, WALL * KT)
    U, _ = term(np.array([2.0, 6.0, 7.0, 11.5]))
    assert U[0] > U[1] + 100
    assert U[3] > U[2] + 100
    # in a box there is no upper wall: pairs further off are as free as where the frames end
    (free,) = make_terms(basis, np.where(coverage >= SEEN, -10.0, 0.0), coverage, T, periodic=True)
    assert free.walls[1] == 0


def test_dihedrals_avoid_what_no_frame_has_shown():
    basis = make_basis(TYPES, BONDS, BasisOptions(exclusions=1), RANGES)
    coefficients, coverage = model_of(basis)
    family, number, columns = next(c for c in basis.classes if c[0].kind == "dihedrals")
    coverage[columns][3:6] = 0
    term = next(t for t in make_terms(basis, coefficients, coverage, T) if t.kind == "dihedrals" and t.number == number)
    unseen = family.centres[number][4]
    highest = np.delete(coefficients[columns], [3, 4, 5]).max()
    # in the middle of three equal coefficients, with all of the spline on them, it is that coefficient
    assert term(np.array([unseen]))[0][0] == pytest.approx(highest + 2 * KT)


def test_a_class_without_frames_is_said():
    basis = make_basis(TYPES, BONDS, BasisOptions(exclusions=1), RANGES)
    coefficients, coverage = model_of(basis)
    columns = next(c for c in basis.classes if c[0].kind == "bonds")[2]
    coverage[columns] = 0
    with pytest.raises(InputError, match="no frame has bonds A-B"):
        make_terms(basis, coefficients, coverage, T)


def test_tables_are_text_files_of_three_columns(tmp_path):
    basis = make_basis(TYPES, BONDS, BasisOptions(exclusions=1), RANGES)
    coefficients, coverage = model_of(basis)
    terms = make_terms(basis, coefficients, coverage, T)
    paths = write_tables(tmp_path / "tables", terms, 300)
    assert len(set(paths)) == len(terms) == len(basis.classes)
    q, U, slope = np.loadtxt(paths[0]).T
    np.testing.assert_allclose(terms[0](q)[0], U, atol=1e-4)
    np.testing.assert_allclose(np.gradient(U, q)[5:-5], slope[5:-5], atol=0.05 * np.abs(slope).max())


def test_a_box_narrower_than_twice_the_pairs_reach_is_refused():
    basis = make_basis(TYPES, BONDS, BasisOptions(exclusions=1), RANGES)
    terms = make_terms(basis, *model_of(basis), T, periodic=True)
    with pytest.raises(InputError, match="half the smallest width"):
        build_system(terms, [100.0] * 7, TYPES, 0.9 * BOX)


# ---- free energies -------------------------------------------------------------------------------------------------


def test_a_profile_of_gaussian_samples_is_a_parabola_within_its_errors():
    rng = np.random.default_rng(0)
    q, k = rng.normal(scale=np.sqrt(KT / 3.0), size=20000), 3.0
    found = free_energy.profile(q, free_energy.blocks_of(20000), np.linspace(-2, 2, 17), T)
    expected = 0.5 * k * found.centres**2
    shift = np.average(found.F - expected, weights=found.p)
    z = (found.F - expected - shift) / found.error
    # the mean of the square of t with 9 degrees is 9/7; 16 bins: s.d. sqrt(3.2/16) 9/7 = 0.57
    assert np.mean(z[found.p > 1e-3] ** 2) < 9 / 7 + 3 * 0.57
    assert found.F.min() == 0


def test_empty_bins_are_infinite_and_without_error():
    found = free_energy.profile(np.array([0.5, 0.5, 1.5]), np.array([0, 1, 1]), np.array([0.0, 1, 2, 3]), T)
    assert np.isinf(found.F[2])
    assert np.isnan(found.error[2])
    assert found.F[1] == pytest.approx(KT * np.log(2))
    with pytest.raises(InputError, match="no frame lies"):
        free_energy.profile(np.array([9.0]), np.array([0]), np.array([0.0, 1, 2]), T)


def test_divergences_of_known_distributions():
    p, q = np.array([1.0, 1, 0, 0]), np.array([0.0, 0, 1, 1])
    assert free_energy.jensen_shannon(p, q) == pytest.approx(np.log(2))
    assert free_energy.jensen_shannon(p, 3 * p) == 0
    half = np.array([1.0, 0, 0, 0])
    assert free_energy.kullback_leibler(half, p, pseudo=0) == pytest.approx(np.log(2))
    expected = 0.5 * np.log(4 / 3) + 0.5 * (0.5 * np.log(2 / 3) + 0.5 * np.log(2))
    assert free_energy.jensen_shannon(half, p) == pytest.approx(expected)


def test_rmsd_is_that_of_the_best_rotation():
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    moved = CHAIN @ turn + 3.0
    assert superposition.rmsd(moved[None], CHAIN)[0] == pytest.approx(0, abs=1e-6)
    assert superposition.rmsd((CHAIN * [1, 1, -1])[None], CHAIN)[0] > 0.5  # a mirror image is another
    from MDAnalysis.analysis.rms import rmsd

    R = frames(5, spread=1.0)
    expected = [rmsd(r, CHAIN, center=True, superposition=True) for r in R]
    np.testing.assert_allclose(superposition.rmsd(R, CHAIN), expected, rtol=1e-6)


def test_distances_see_the_nearest_image():
    R = frames(3)
    images = R + np.array([0, 0, 1, 0, 0, -1, 0])[:, None] * BOX[1]
    box = np.broadcast_to(BOX, (3, 3, 3))
    np.testing.assert_allclose(free_energy.pair_distance(images, 2, 3, box), free_energy.pair_distance(R, 2, 3))
    np.testing.assert_allclose(free_energy.end_to_end(R), np.linalg.norm(R[:, 6] - R[:, 0], axis=1))


def double_well(n, seed, slow=0.01):
    """A hinge of four beads that opens and closes slowly, and shakes fast."""
    pytest.importorskip("deeptime")
    rng = np.random.default_rng(seed)
    flips = np.cumsum(rng.random(n) < slow) % 2
    R = np.array([[0, 0, 0], [4.0, 0, 0], [4.0, 4.0, 0], [0, 4.0, 0]]) + rng.normal(scale=0.2, size=(n, 4, 3))
    R[:, 3, 0] += 5.0 * flips
    return R, flips


def test_slow_coordinates_find_the_hinge_and_compare_models():
    (reference, flips), (same, _), (closed, _) = (double_well(6000, *how) for how in ((0, 0.01), (1, 0.01), (2, 0.0)))
    found = free_energy.landscape([reference], [same], lag=5, temperature=T, bins=12)
    first = found.model.transform(free_energy.pair_distances(reference))[:, 0]
    assert abs(np.corrcoef(first, flips)[0, 1]) > 0.98
    # two states left with a probability of 0.01 a frame: exp(-t / tau) = (1 - 0.02)^t
    assert found.timescales[0] == pytest.approx(-1 / np.log(0.98), rel=0.5)
    stuck = free_energy.landscape([reference], [closed], lag=5, temperature=T, bins=12)
    assert found.comparison.js < 0.05 < 0.15 < stuck.comparison.js < np.log(2)
    assert np.isfinite(found.reference).sum() > 10
    assert found.reference.min() == found.coarse.min() == 0


def test_too_short_a_trajectory_for_its_lag_is_refused():
    with pytest.raises(InputError, match="a lag of 10"):
        free_energy.landscape([frames(8)], [frames(8)], lag=10, temperature=T)
