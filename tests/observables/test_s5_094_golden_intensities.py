"""Form factors and intensities of single and averaged structures against the reference program's (`pbi64_golden`).

S5-091 averaged components, S5-092 single structures with displacements, S5-094 form factors. The reference damps pairs
of the first shell alone: linker and node within 1.15 cut-offs, and nodes along their shortest tree.
"""

import json

import numpy as np
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree

from hpcfit.errors import InputError
from hpcfit.observables import pair_moments as pm
from hpcfit.observables.form_factors import Solvent, amplitudes, displaced_volume

SPECIES = ("I", "Pb")
WITHIN = 1.15 * 4.0  # A


@pytest.fixture(scope="module", params=["", "subset5", "subset3", "subset2"])
def golden(request, shared_data):
    folder = shared_data / "clusters" / "pbi64_golden"
    read = lambda name: json.loads((folder / request.param / name).read_text())  # noqa: E731
    return folder, request.param, read("saxs.json"), read("dw.json")


def structure(path):
    lines = path.read_text().splitlines()[2:]
    fields = [line.split() for line in lines if line.strip()]
    return [one[0] for one in fields], np.array([one[1:4] for one in fields], float)


def first_shell(kinds, x):
    r = np.linalg.norm(x[:, None] - x[None], axis=-1)
    node = np.array([kind == "Pb" for kind in kinds])
    mixed = (r <= WITHIN) & (node[:, None] != node[None])
    nodes = np.flatnonzero(node)
    tree = minimum_spanning_tree(r[np.ix_(nodes, nodes)]).toarray() > 0
    mixed[np.ix_(nodes, nodes)] = tree | tree.T
    return mixed


def sigma_of(dw, entry):
    """The spread of each pair of an entry's label, [P] A; 0 where none is known."""
    mine = [
        row for row in dw["rows"]
        if (row["source"], row["label"]) == (entry["kind"], entry["label"])
        and (entry["kind"] == "observed" or row["candidate_rank"] == entry["rank"])
    ]  # fmt: skip
    known = {row["pair"]: row["sigma"] for row in mine}
    return np.array([known.get(f"{a}-{b}", 0.0) for a, b in pm.pairs_of(SPECIES)])


def test_s5_094_form_factors_are_those_of_the_reference(golden):
    _, _, saxs, _ = golden
    found = amplitudes(SPECIES, np.array(saxs["q"]))
    for name, f in zip(SPECIES, found):
        np.testing.assert_allclose(f, saxs["f0"][name], rtol=5e-16)


def test_s5_092_single_structures_with_displacements(golden):
    folder, variant, saxs, dw = golden
    q = np.array(saxs["q"])
    f = amplitudes(SPECIES, q)
    for entry in saxs["single_structure"]:
        path = folder / entry["structure"]
        kinds, x = structure(path if path.exists() else folder / variant / entry["structure"])
        shell = first_shell(kinds, x)
        near, every = (pm.exact_pair_sums(x, kinds, SPECIES, q, among) for among in (shell, None))
        sigma = sigma_of(dw, entry) if entry["debye_waller"] else np.zeros(3)
        atoms = [kinds.count(one) for one in SPECIES]
        found = pm.intensity(atoms, near, f, q, sigma, every - near)
        np.testing.assert_allclose(found, entry["intensity"], rtol=1e-12, err_msg=entry["label"])
        width = pm.bin_width(q[-1])
        moments, some = (pm.pair_moments(x, kinds, SPECIES, width, among) for among in (None, shell))
        binned = pm.intensity(atoms, some.pair_sums(q), f, q, sigma, (moments - some).pair_sums(q))
        np.testing.assert_allclose(binned, entry["intensity"], rtol=1e-7, err_msg=entry["label"])


def test_s5_091_averaged_structures_have_no_displacements(golden):
    folder, _, saxs, _ = golden
    q = np.array(saxs["q"])
    f, width = amplitudes(SPECIES, q), pm.bin_width(q[-1])
    observed = [entry for entry in saxs["averaged"] if entry["kind"] == "observed"] if "averaged" in saxs else []
    for entry in observed:
        files = [structure(path) for path in sorted((folder / "library" / entry["label"]).glob("*.xyz"))]
        assert len(files) == entry["files"]
        starts = np.cumsum([0, *(len(kinds) for kinds, _ in files)])
        every = pm.moments_of_many(
            np.concatenate([x for _, x in files]), [one for kinds, _ in files for one in kinds], starts, SPECIES, width
        )
        np.testing.assert_allclose(pm.mean_intensity(every, f, q), entry["intensity"], rtol=3e-8)
        each = [pm.mean_intensity(pm.pair_moments(x, kinds, SPECIES, width), f, q) for kinds, x in files]
        np.testing.assert_allclose(pm.mean_intensity(every, f, q), np.mean(each, axis=0), rtol=1e-12)


def test_s5_094_ions_neutrons_and_contrast():
    zero = np.array([0.0])
    ions = amplitudes(("I", "Pb"), zero, ions={"Pb": "Pb2+", "I": "I1-"})[:, 0]
    np.testing.assert_allclose(ions, [54, 80], atol=0.05)
    np.testing.assert_allclose(amplitudes(("Pb2+", "I1-"), zero)[:, 0], ions[::-1], rtol=0)
    lengths = amplitudes(("H", "D", "Pb"), np.array([0.1, 1.0]), "neutron")
    np.testing.assert_allclose(lengths[:, 0], [-3.74, 6.67, 9.40], atol=0.02)
    assert np.array_equal(lengths[:, 0], lengths[:, 1])
    q = np.array([0.0, 0.5])
    water = Solvent(0.334, {"I": 30.0}, scale=1.1)
    inside = amplitudes(("I", "O"), q, solvent=water)
    V = 1.1 * np.array([30.0, 9.13])
    expected = amplitudes(("I", "O"), q) - 0.334 * V[:, None] * np.exp(-np.outer(V ** (2 / 3), q**2) / (4 * np.pi))
    np.testing.assert_allclose(inside, expected, rtol=1e-14)
    assert displaced_volume("Pb2+") == pytest.approx(4 / 3 * np.pi * 2.02**3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((("Xx",), [0.1]), "'Xx' has no form factor for X-rays"),
        ((("Pb3+",), [0.1]), "(?s)'Pb3\\+' has no form factor.*Pb2\\+"),
        ((("Xx",), [0.1], "neutron"), "no scattering length"),
        ((("Pb",), [0.1], "muon"), "radiation = 'muon'"),
        ((("Pb",), [-0.1]), "q from -0.1"),
    ],
)
def test_unknown_form_factors_are_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        amplitudes(arguments[0], np.array(arguments[1]), *arguments[2:])
