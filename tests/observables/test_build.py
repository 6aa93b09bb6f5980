"""Every table of observables becomes an observable of a system, or one error that says what the system lacks."""

import numpy as np
import pytest

from hpcfit.config.observables import NAMES
from hpcfit.energies.columns import fixed
from hpcfit.energies.energy import Energy
from hpcfit.energies.own_form import OwnForm
from hpcfit.errors import InputError
from hpcfit.observables.build import BUILDERS, build
from hpcfit.observables.scattering import form_factors
from hpcfit.observables.thermodynamics import BAR, DENSITY
from tests.observables.waters import (
    BOX,
    MASSES,
    PARAMETERS,
    PLACES,
    TABLES,
    charged,
    potential,
    site,
    still,
    table,
    whole,
)

VOLUME = 1.0 * 1.1 * 1.2
SPRINGS = Energy((OwnForm(potential),))
ENERGY = float(potential(PLACES, PARAMETERS, BOX))


@pytest.fixture(scope="module")
def values():
    """Name -> the numbers of an observable of a window of two waters that stand still, with velocities of 1."""
    built = {name: build(whole(name), site()) for name in TABLES}
    built["free-energy-change"] = build(whole("free-energy-change"), site(form=SPRINGS))
    found = still(built, PLACES, np.ones((6, 3)))
    return {name: np.asarray(value) for name, value in found.items()}


def test_every_table_has_a_builder_and_is_built_here():
    assert set(BUILDERS) == set(NAMES.values())
    assert set(TABLES) == set(NAMES)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_makes_as_many_numbers_as_it_says(values, name):
    assert values[name].shape == (TABLES[name][1],)
    assert np.all(np.isfinite(values[name]))


def test_states_are_of_the_system(values):
    assert values["density"][0] == pytest.approx(DENSITY * MASSES.sum() / VOLUME)
    assert values["potential-energy"][0] == pytest.approx(ENERGY / 2)
    assert values["vaporisation-enthalpy"][0] == pytest.approx(1.5 + 2.5 - ENERGY / 2)
    # R / 2 for each of 18 degrees of freedom, of two molecules; nothing fluctuates.
    assert values["heat-capacity"][0] == pytest.approx(9 * 8.31446 / 2, rel=1e-5)
    for name, expected in {
        "free-energy-change": 0,
        "compressibility": 0,
        "thermal-expansion": 0,
        "dielectric-constant": 1,
    }.items():
        assert values[name][0] == pytest.approx(expected, abs=1e-12), name


def test_constants_of_moments_are_where_the_system_starts():
    work = VOLUME / BAR
    assert build(whole("heat-capacity"), site()).about == pytest.approx(ENERGY + work)
    assert build(whole("heat-capacity"), site(pressure=None)).about == pytest.approx(ENERGY)
    assert build(whole("thermal-expansion"), site()).volume_about == pytest.approx(VOLUME)


def test_a_pressure_moves_molecules_or_atoms():
    """Springs between all atoms: dU / dlnL = 2 U by atoms."""
    by_atoms = build(whole("pressure", by="atoms"), site())
    alone = build(whole("pressure"), site(molecules=tuple((atom,) for atom in range(6))))
    found = still({"atoms": by_atoms, "alone": alone}, PLACES, np.ones((6, 3)))
    assert found["atoms"][0] == pytest.approx(BAR * (6 * 2.5 - 2 * ENERGY / 3) / VOLUME)
    assert found["alone"][0] == pytest.approx(float(found["atoms"][0]))
    assert build(whole("pressure"), site()).molecules == ((0, 1, 2), (3, 4, 5))


def test_motions_count_lags_in_frames(values):
    assert build(whole("mean-square-displacement"), site()).lags == (5,)
    assert build(whole("diffusion-of-velocities"), site()).last == 3
    np.testing.assert_allclose(values["velocity-autocorrelation"], 3.0)
    np.testing.assert_allclose(values["mean-square-displacement"], 0.0)
    assert values["diffusion-of-velocities"][0] == pytest.approx(3.0 * 0.3 / 3)
    expected = np.mean(np.sum(PLACES[[0, 3]] ** 2, axis=1))
    assert values["position-autocorrelation"][0] == pytest.approx(expected)
    start = build(table("position-autocorrelation", atoms=[0, 3], lags=[0.0]), site())
    np.testing.assert_array_equal(start.centre, PLACES[[0, 3]])


def test_scattering_has_the_elements_of_the_topology(values):
    assert values["small-angle-scattering"][0] == pytest.approx(10.0**2, rel=1e-3)  # electrons of one water, IT92
    assert values["structure-factors"][0] == pytest.approx(20.0, rel=1e-3)
    both = build(whole("structure-factors", parts="complex"), site())
    parts = np.asarray(still({"it": both}, PLACES, PLACES)["it"]).reshape(2, 2)
    np.testing.assert_allclose(np.hypot(*parts.T), values["structure-factors"])
    s = np.linalg.norm([1 / 1.0, 0, 2 / 1.2])
    phases = np.exp(2j * np.pi * (PLACES @ [1 / 1.0, 0, 2 / 1.2]))
    f = form_factors(list("OHHOHH"), np.array([2 * np.pi * s / 10]))[0]
    assert values["structure-factors"][1] == pytest.approx(abs(f @ phases), rel=1e-10)


@pytest.mark.parametrize("background", [False, True])
def test_intensities_in_arbitrary_units_are_scaled_as_agrees_best(background):
    """What a factor and a constant can explain is no deviation; the rest is that of least squares."""
    q, sigma, random = [1.0, 5.0, 9.0, 14.0], np.array([0.5, 1.0, 2.0, 1.0]), np.random.default_rng(5)
    absolute = build(whole("small-angle-scattering", q=q), site())
    intensity = np.asarray(still({"it": absolute}, PLACES, PLACES)["it"])
    exact = 0.03 * intensity + (2.0 if background else 0.0)
    for value in (exact, exact + random.normal(size=4)):
        more = {"values": value.tolist(), "sigma": sigma.tolist(), "units": "arbitrary", "background": background}
        scaled = build(whole("small-angle-scattering", q=q, **more), site())
        columns = np.stack([intensity, np.ones(4)][: 1 + background], axis=1)
        fitted = np.linalg.lstsq(columns / sigma[:, None], value / sigma, rcond=None)[0]
        np.testing.assert_allclose(still({"it": scaled}, PLACES, PLACES)["it"], columns @ fitted, rtol=1e-9)


def test_effective_distances_are_of_all_pairs_of_protons(values):
    r = np.linalg.norm(PLACES[[1, 2]] - PLACES[4], axis=1)
    assert values["noe"][0] == pytest.approx(np.sum(r**-3.0) ** (-1 / 3))


def test_charges_are_those_of_the_energy_or_given():
    for charges in (None, "each", [-0.8, 0.4, 0.4, 0.0, 0.0, 0.0]):
        found = build(whole("dielectric-constant", of=[0, 1, 2], charges=charges), site()).charges
        np.testing.assert_allclose(found.values(PARAMETERS)[:3], [-0.8, 0.4, 0.4])


ERRORS = {
    "an atom that is none": (whole("distances", pairs=[[0, 6]]), {}, "pairs names atom 6 of 6"),
    "an atom twice": (whole("angles", triples=[[0, 1, 0]]), {}, "which names an atom twice"),
    "no box": (whole("pressure"), {"box": None}, "a pressure needs a box"),
    "no box for bins": (whole("radial-distribution"), {"box": None}, "a radial distribution needs a box"),
    "atoms of constraints": (whole("pressure", by="atoms"), {"constraints": 6}, "stretches the 6 constraints"),
    "a constant volume": (whole("density"), {"pressure": None}, "the volume of this system is constant"),
    "no charges": (whole("dielectric-constant"), {"form": SPRINGS}, "the energy of this system has no charges"),
    "an ion": (whole("dielectric-constant"), {"form": charged(fixed([0.1] * 6))}, "has the charge 0.3 e, not 0"),
    "half a molecule": (whole("dielectric-constant", of=[0, 1]), {}, "of has 2 of the 3 atoms of the molecule"),
    "too few charges": (whole("dielectric-constant", charges=[0.0]), {}, "1 charges are given for 6 atoms"),
    "an unknown class": (whole("dielectric-constant", charges="e"), {}, "charges = 'e' is no class of parameters"),
    "a shared class": (whole("dielectric-constant", charges="q"), {}, "charges = 'q' has 2 entries; there are 6"),
    "no velocities": (whole("velocity-autocorrelation"), {"v": None}, "which the overdamped integrator has not"),
    "a lag between frames": (whole("diffusion", lags=[0.1, 0.25]), {}, "0.25 ps, which is 2.5 times the 0.1 ps"),
    "a lag beyond": (whole("diffusion", lags=[0.1, 0.6]), {}, "the 6 frames of a window that are averaged span 0.5 ps"),
    "equal lags": (whole("diffusion", lags=[0.1, 0.1]), {}, "all lags of a diffusion are 1"),
    "a virtual site": (whole("diffusion", atoms=[1]), {"masses": MASSES * (MASSES > 1)}, "atom 1, a virtual site"),
    "centres": (whole("position-autocorrelation", centre=[[0.0] * 3] * 3), {}, "centre has 3 places for 2 atoms"),
    "no elements": (whole("electron-density"), {"elements": ()}, "needs the elements of atoms"),
    "a scale alone": (whole("small-angle-scattering", q=[1.0], units="arbitrary"), {}, "1 momentum transfers agree"),
    "both sides": (whole("noe", groups=[[[1], [1, 4]]]), {}, "groups have atom 1 on both sides"),
    "coefficients": (whole("scalar-couplings", coefficients=[[1.0] * 3] * 2), {}, "coefficients has 2 rows for 1"),
    "no function": (whole("own", function="tests.observables.waters:nothing"), {}, "has no function nothing"),
}  # fmt: skip


@pytest.mark.parametrize("what", ERRORS)
def test_what_a_system_lacks_is_one_error(what):
    config, lacking, message = ERRORS[what]
    with pytest.raises(InputError) as caught:
        build(config, site(**lacking))
    assert message in str(caught.value)
    assert str(caught.value).startswith("observable 'o': ")
    assert "remedy" in str(caught.value) or what == "an atom that is none"
