"""Force maps of the reference's frames: its mean squares of CLN025, and its parts of chi^2 of two rigid waters.

The numbers are those that were measured on the same files by other programs.
"""

import h5py
import numpy as np
import pytest

from hpcfit.store.particles import Particles
from hpcfit.testsystems.harmonic_beads import write_force_store
from tests.kinds.force_map.force_map_runs import force_map_config, optimized

NM, KCAL = 10.0, 4.184

CLN025 = force_map_config("""
bootstrap = 0
temperature = 350.0
unit = "kcal/mol/A"
[problem.beads]
each = "name CA"
[problem.map]
methods = ["slice", "basic", "optimal"]
ridge = 0.0
""")
DIMER = force_map_config("""
bootstrap = 0
unit = "kJ/mol/nm"
reference = "exact.txt"
[problem.beads]
residue = "O"
[problem.constraints]
rules = ["rigid-water"]
[problem.map]
methods = ["slice", "basic"]
""")


@pytest.fixture(scope="module")
def cln025(shared_data, tmp_path_factory):
    """The metrics of a run on all 1501 frames."""
    path = shared_data / "forcemap/cln025_implicit_1501.h5"
    if not path.exists():
        pytest.skip(f"no {path}")
    folder = tmp_path_factory.mktemp("cln025")
    with h5py.File(path) as file:
        r, f = NM * file["coords"][:], file["forces"][:] / NM
        elements = tuple(name.decode() for name in file["elements"][:])
        n, alpha = len(elements), set(file["CA"][:].tolist())
        particles = Particles(
            names=tuple("CA" if atom in alpha else element for atom, element in enumerate(elements)),
            elements=elements, residue=np.zeros(n, int), residue_names=("CLN",), residue_numbers=(1,), chains=("A",),
            masses=file["masses"][:], bonds=np.empty((0, 2), int), constraints=file["constraints"][:],
        )  # fmt: skip
    write_force_store(folder / "store", particles, {"a": (r, f, None)})
    return optimized(folder, CLN025)


def test_cln025_has_the_noise_of_the_reference(cln025):
    """777.3, 685.9 and 160.9 (kcal/mol/A)^2, written to a tenth; 154.2 of the frames that the map was fitted to."""
    found = {one["name"]: one for one in cln025["maps"]}
    assert (cln025["groups"], cln025["beads"], found["optimal"]["free"]) == (97, 10, 87)
    for name, expected in {"slice": 777.3, "basic": 685.9, "optimal": 160.9}.items():
        assert found[name]["held_out"] / KCAL**2 == pytest.approx(expected, abs=0.1), name
    assert found["optimal"]["fitted"] / KCAL**2 == pytest.approx(154.2, abs=0.1)
    assert found["optimal"]["held_out_error"] / KCAL**2 == pytest.approx(1.8, rel=0.5)  # of 10 blocks
    assert cln025["chosen"] == "optimal"
    assert cln025["unit"]["factor"] == pytest.approx(1 / KCAL)
    assert found["basic"]["valid"]
    assert not found["slice"]["valid"]  # CA-HA is constrained


@pytest.fixture(scope="module")
def dimer(shared_data, tmp_path_factory):
    """The metrics of a run on all 50,000 frames of the rigid dimer."""
    folder, data = tmp_path_factory.mktemp("dimer"), shared_data / "forcemap"
    if not (data / "dimer_rigid.npz").exists():
        pytest.skip(f"no {data / 'dimer_rigid.npz'}")
    with np.load(data / "dimer_rigid.npz") as archive:
        r, f = NM * archive["coords"], archive["Fs"] / NM
    particles = Particles(
        names=("O", "H1", "H2") * 2, elements=("O", "H", "H") * 2, residue=np.repeat([0, 1], 3),
        residue_names=("HOH",) * 2, residue_numbers=(1, 2), chains=("A", "A"), masses=[15.999, 1.008, 1.008] * 2,
        bonds=np.array([(0, 1), (0, 2), (3, 4), (3, 5)]),
    )  # fmt: skip
    write_force_store(folder / "store", particles, {"a": (r, f, None)})
    exact = np.load(data / "exact_rigid.npy")
    exact = exact[np.unique(exact[:, 0], return_index=True)[1]]
    np.savetxt(folder / "exact.txt", np.stack([NM * exact[:, 0], exact[:, 2] / NM], axis=1))
    return optimized(folder, DIMER)


def row(metrics, name) -> dict:
    """The parts of chi^2 without a potential, in (kJ/mol/nm)^2."""
    found = next(one for one in metrics["decomposition"] if one["map"] == name and one["potential"] == "none")
    return {
        key: np.array(found[key]) * NM ** (1 if key == "bias" else 2) for key in ("chi2", "pmf_error", "noise", "cross")
    } | {"bias": NM * np.array(found["bias"]), "z": found["cross_in_errors"]}


# Of the force along the pair, (kJ/mol/nm)^2, as the reference prints them.
CHI2 = {
    "basic": {"chi2": 16012, "pmf_error": 14445, "noise": 1664, "cross": -97},
    "slice": {"chi2": 53848, "pmf_error": 14445, "noise": 32481, "cross": 6922},
}


@pytest.mark.parametrize("name", CHI2)
def test_the_parts_of_chi2_are_those_of_the_reference(dimer, name):
    """The same frames: to the last digit printed, and 5e-5 of chi^2 for another spline through the mean force."""
    found = row(dimer, name)
    for part, expected in CHI2[name].items():
        assert found[part][0] == pytest.approx(expected, abs=0.6 + 5e-5 * CHI2[name]["chi2"]), part


def test_the_sum_over_a_molecule_has_no_cross_term_and_no_bias(dimer):
    found = row(dimer, "basic")
    assert abs(found["z"]) < 3
    assert found["cross"][1] == pytest.approx(64, rel=0.5)  # an error of 10 blocks, known to 24 %: two of these
    assert found["bias"][0] == pytest.approx(-0.23, abs=0.01)
    assert abs(found["bias"][0]) < 3 * found["bias"][1]


def test_the_force_on_the_oxygen_alone_is_invalid_and_flagged_by_all_checks(dimer):
    found, maps = row(dimer, "slice"), {one["name"]: one for one in dimer["maps"]}
    assert found["z"] > 10
    assert found["bias"][0] == pytest.approx(136.6, abs=0.1)
    assert not maps["slice"]["valid"]
    assert dimer["chosen"] == "basic"
    assert "map 'slice' is invalid" in dimer["warnings"][0]
    compared = {one["name"]: one for one in dimer["comparison"]["maps"]}
    assert not compared["slice"]["agrees"]
    assert compared["basic"]["agrees"]
    assert any("map 'slice' does not have the mean force of map 'basic'" in text for text in dimer["warnings"])
