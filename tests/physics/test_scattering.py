"""Structure factors against closed forms, against gemmi's direct summation, and against each other."""

import gemmi
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.physics import reciprocal, scattering

CELL = (14.0, 15.5, 17.0, 81.0, 97.0, 109.0)


@pytest.fixture(scope="module")
def crystal():
    """60 atoms of four elements at random places of a triclinic cell."""
    rng = np.random.default_rng(7)
    return rng.choice(["C", "N", "O", "S"], 60).tolist(), rng.random((60, 3))


def test_form_factor_at_zero_angle_is_the_number_of_electrons():
    for element, z in (("H", 1), ("C", 6), ("S", 16), ("I", 53), ("Li", 3)):
        # The fits of IT92 reproduce f(0) = Z to some 1e-3 relative.
        assert scattering.form_factor(element, 0.0) == pytest.approx(z, rel=2e-3)


def test_one_atom_at_the_origin_scatters_its_form_factor():
    hkl = reciprocal.sphere(CELL, (1, 1, 1), 1.8)
    s2 = reciprocal.inverse_d2(hkl, (1, 1, 1), CELL)
    f = scattering.form_factor("S", s2)
    np.testing.assert_allclose(scattering.structure_factors_direct(["S"], np.zeros((1, 3)), hkl, s2), f, rtol=1e-14)
    fft = scattering.DensityFFT(["S"], CELL, hkl, 1.8)(np.zeros((1, 3)))
    # 1e-4 of the strongest reflection: what the module states for the largest error, for one atom.
    assert np.abs(fft - f).max() < 1e-4 * f.max()


def test_two_atoms_interfere_as_a_cosine():
    x = np.array([0.13, -0.21, 0.34])
    hkl = reciprocal.sphere(CELL, (1, 1, 1), 2.0)
    s2 = reciprocal.inverse_d2(hkl, (1, 1, 1), CELL)
    # f e^{2 pi i hx} + f e^{-2 pi i hx} = 2 f cos(2 pi hx), whichever method.
    expected = 2 * scattering.form_factor("O", s2) * np.cos(2 * np.pi * hkl @ x)
    direct = scattering.structure_factors_direct(["O", "O"], [x, -x], hkl, s2)
    np.testing.assert_allclose(direct, expected, atol=1e-12)
    fft = scattering.DensityFFT(["O", "O"], CELL, hkl, 2.0)([x, -x])
    assert np.abs(fft - expected).max() < 1e-4 * np.abs(expected).max()


def gemmi_direct(elements, fractional, hkl, radiation="X"):
    cell = gemmi.UnitCell(*CELL)
    small = gemmi.SmallStructure()
    small.cell, small.spacegroup_hm = cell, "P 1"
    for i, (element, x) in enumerate(zip(elements, fractional, strict=True)):
        site = gemmi.SmallStructure.Site()
        site.label, site.element, site.fract, site.occ = (
            f"{element}{i}",
            gemmi.Element(element),
            gemmi.Fractional(*x),
            1,
        )
        small.add_site(site)
    calculator = getattr(gemmi, f"StructureFactorCalculator{radiation}")(cell)
    return np.array([calculator.calculate_sf_from_small_structure(small, h) for h in hkl.tolist()])


def test_direct_summation_is_that_of_gemmi(crystal):
    elements, x = crystal
    hkl = reciprocal.sphere(CELL, (1, 1, 1), 1.8)[::7]
    found = scattering.structure_factors_direct(elements, x, hkl, reciprocal.inverse_d2(hkl, (1, 1, 1), CELL))
    # gemmi evaluates the form factor in float32 (6e-8 relative each, 60 atoms of up to 16 electrons).
    np.testing.assert_allclose(found, gemmi_direct(elements, x, hkl), atol=60 * 16 * 6e-8)


@pytest.mark.parametrize("radiation", ["xray", "neutron", "electron"])
def test_every_radiation_is_that_of_gemmi(radiation):
    """Hydrogen scatters neutrons with the opposite sign of deuterium and carbon: sums of both signs."""
    rng = np.random.default_rng(9)
    elements, x = rng.choice(["H", "D", "C", "O", "Zn"], 60).tolist(), rng.random((60, 3))
    calculator = {"xray": "X", "neutron": "N", "electron": "E"}[radiation]
    hkl = reciprocal.sphere(CELL, (1, 1, 1), 1.8)
    inv_d2, what = reciprocal.inverse_d2(hkl, (1, 1, 1), CELL), scattering.FormFactors(radiation)
    found = scattering.structure_factors_direct(elements, x, hkl[::7], inv_d2[::7], what)
    expected = gemmi_direct(elements, x, hkl[::7], calculator)
    # gemmi evaluates form factors in float32 (6e-8 relative each, 60 atoms of up to 30 electrons).
    np.testing.assert_allclose(found, expected, atol=60 * 30 * 6e-8)
    fft = scattering.DensityFFT(elements, CELL, hkl, 1.8, 1.5, what)
    assert fft.error(x).rms < 1e-4
    scale = np.sqrt(np.mean(np.abs(expected) ** 2))
    assert np.abs(fft(x)[::7] - expected).max() < 1e-3 * scale


def test_ions_scatter_as_ions_where_they_are_said_to_be():
    elements, x = ["Na", "Cl", "O"], np.random.default_rng(4).random((3, 3))
    hkl = reciprocal.sphere(CELL, (1, 1, 1), 2.0)
    inv_d2, what = reciprocal.inverse_d2(hkl, (1, 1, 1), CELL), scattering.FormFactors(charges=(("Cl", -1), ("Na", 1)))
    # Z - q electrons at s = 0; the fits of IT92 reproduce them to some 1e-3.
    assert scattering.form_factor("Na", 0.0, what) == pytest.approx(10, rel=2e-3)
    assert scattering.form_factor("Cl", 0.0, what) == pytest.approx(18, rel=2e-3)
    np.testing.assert_array_equal(scattering.form_factor("O", inv_d2, what), scattering.form_factor("O", inv_d2))
    fft = scattering.DensityFFT(elements, CELL, hkl, 2.0, 1.5, what)
    assert fft.error(x).rms < 5e-5
    neutral = scattering.structure_factors_direct(elements, x, hkl, inv_d2)
    assert np.abs(fft(x) - neutral).max() > 0.5  # electrons: it is another answer
    assert gemmi.IT92_get_ignore_charge()  # gemmi's own setting is what it was
    with pytest.raises(InputError, match=r"no X-ray form factor of Na with charge \+2; there are \+1"):
        scattering.form_factor("Na", 0.0, scattering.FormFactors(charges=(("Na", 2),)))


@pytest.mark.parametrize("oversampling", [1.5, 2.0])
def test_fft_error_is_what_the_module_states(crystal, oversampling):
    elements, x = crystal
    hkl = reciprocal.sphere(CELL, (1, 1, 1), 1.8)
    error = scattering.DensityFFT(elements, CELL, hkl, 1.8, oversampling).error(x)
    assert error.reflections == 200
    assert error.rms < 5e-5
    assert error.largest < 4e-4


def test_fft_follows_the_atoms_from_frame_to_frame(crystal):
    elements, x = crystal
    hkl = reciprocal.sphere(CELL, (1, 1, 1), 2.5)
    fft = scattering.DensityFFT(elements, CELL, hkl, 2.5)
    first, shift = fft(x), np.array([0.25, -0.1, 0.4])
    moved = fft(x + shift)
    # A shift of all atoms turns the phases by 2 pi h . shift; atoms outside the box count as inside it.
    np.testing.assert_allclose(moved, first * np.exp(2j * np.pi * hkl @ shift), atol=1e-4 * np.abs(first).max())
    np.testing.assert_allclose(fft(np.add(x, [1, -3, 12])), first, atol=1e-5 * np.abs(first).max())
    np.testing.assert_array_equal(fft(x), first)


def test_friedel_mates_are_conjugate(crystal):
    elements, x = crystal
    hkl = reciprocal.sphere(CELL, (1, 1, 1), 2.5)
    plus, minus = (scattering.DensityFFT(elements, CELL, sign * hkl, 2.5)(x) for sign in (1, -1))
    np.testing.assert_array_equal(minus, plus.conj())


def test_a_supercell_of_equal_cells_scatters_at_whole_indices_only(crystal):
    elements, x = crystal
    box = (2 * CELL[0], *CELL[1:])
    doubled = np.concatenate([np.add(x, [cell, 0, 0]) / [2, 1, 1] for cell in (0, 1)])
    hkl = reciprocal.sphere(CELL, (2, 1, 1), 3.0)
    f = scattering.DensityFFT(elements * 2, box, hkl, 3.0)(doubled)
    whole = hkl[:, 0] % 2 == 0
    single = scattering.DensityFFT(elements, CELL, hkl[whole] // [2, 1, 1], 3.0)(x)
    scale = np.abs(single).max()
    np.testing.assert_allclose(f[whole], 2 * single, atol=1e-4 * scale)
    assert np.abs(f[~whole]).max() < 1e-4 * scale


@pytest.mark.parametrize("element", ["Xx", "Qq", "", "1H", "Es"])
def test_an_unknown_element_is_named(element):
    with pytest.raises(InputError, match=f"'{element}' is not an element"):
        scattering.DensityFFT([element], CELL, [[1, 0, 0]], 2.0)


def test_a_site_without_electrons_does_not_scatter(crystal):
    elements, x = crystal
    hkl = [[1, 0, 0], [0, 2, 1], [3, 1, 2]]
    alone = scattering.DensityFFT(elements, CELL, hkl, 2.0)(x)
    sites = scattering.DensityFFT(["X", *elements, "X"], CELL, hkl, 2.0)(
        np.vstack([[0.1, 0.2, 0.3], x, [0.5, 0.5, 0.5]])
    )
    np.testing.assert_array_equal(sites, alone)


def test_impossible_requests_are_said(crystal):
    elements, x = crystal
    with pytest.raises(InputError, match="beyond d_min"):
        scattering.DensityFFT(elements, CELL, [[20, 0, 0]], 2.0)
    with pytest.raises(InputError, match=r"oversampling = 1\.0"):
        scattering.DensityFFT(elements, CELL, [[1, 0, 0]], 2.0, 1.0)
    with pytest.raises(InputError, match=r"60 atoms have elements.*\(59, 3\)"):
        scattering.DensityFFT(elements, CELL, [[1, 0, 0]], 2.0)(x[1:])


def test_fractional_coordinates_undo_the_orthogonalization(crystal):
    _, x = crystal
    orth = scattering.orthogonalization(CELL)
    np.testing.assert_allclose(orth.T @ orth, reciprocal.metric(CELL), rtol=1e-12, atol=1e-12 * 17**2)
    np.testing.assert_allclose(scattering.fractional_coordinates(x @ orth.T, orth.T), x, atol=1e-13)


def test_diffuse_intensity_of_two_structures():
    f_a, f_b, p = np.array([3 + 4j, -2j]), np.array([1 - 1j, 5.0]), 0.3
    # p (1 - p) |F_a - F_b|^2
    expected = p * (1 - p) * np.abs(f_a - f_b) ** 2
    np.testing.assert_allclose(scattering.diffuse_intensity([f_a, f_b], [p, 1 - p]), expected, rtol=1e-14)


def test_diffuse_intensity_keeps_its_digits_under_a_strong_bragg_peak():
    rng = np.random.default_rng(3)
    f = rng.normal(size=(5, 8)) + 1j * rng.normal(size=(5, 8))
    w = rng.dirichlet(np.ones(5))
    # The shift itself rounds F to 1e6 * 1e-16.
    np.testing.assert_allclose(scattering.diffuse_intensity(f + 1e6, w), scattering.diffuse_intensity(f, w), rtol=1e-8)


def test_fft_error_of_a_protein_crystal(shared_data):
    structure = gemmi.read_structure(str(shared_data / "diffuse/snase/snase_crystal.pdb"))
    atoms = [cra.atom for cra in structure[0].all()]
    cell = structure.cell.parameters
    x = np.array([structure.cell.fractionalize(a.pos).tolist() for a in atoms])
    hkl = reciprocal.sphere(cell, (1, 1, 1), 2.0)
    error = scattering.DensityFFT([a.element.name for a in atoms], cell, hkl, 2.0).error(x)
    # The reference method has 0.6 to 1.6e-3.
    assert error.rms < 5e-5
