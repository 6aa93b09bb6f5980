"""Parameters that move: linear and logarithmic ones, what priors hold, and which cannot."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.force_field.config import ParameterConfig
from hpcfit.kinds.force_field.parameters import moving

LABELS = {"q": ["H", "O"], "epsilon": ["H", "O"]}


def system(charges=(), molecules=((0, 1, 2),), residues=(), **values):
    """A system with q and epsilons, of which one is 0. charges: entries of q that are those of its particles."""
    start = {"q": np.array([0.4, -0.8]), "epsilon": np.array([0.0, 0.65])} | values

    def entries(name):
        leaf, _, label = name.partition(":")
        return leaf, [LABELS[leaf].index(label)] if label else [0, 1]

    found = {"q": np.array(charges)} if charges else {}
    return SimpleNamespace(
        name="water", parameters=start, labels=LABELS, entries=entries, charges=found, molecules=molecules,
        residues=residues,
    )  # fmt: skip


def test_values_slopes_and_priors_are_those_of_their_transforms():
    chosen = [
        ParameterConfig(name="q:O", prior=0.2),
        ParameterConfig(name="epsilon", transform="log", scale=0.1, prior=0.05),
    ]
    found = moving(chosen, [system()])
    assert found.labels == ("epsilon:O", "q:O")  # the epsilon of 0 has no logarithm and does not move
    u = {"epsilon": np.array([0.5]), "q": np.array([2.0])}
    np.testing.assert_allclose(found.values(u), [0.65 * np.exp(0.05), -0.8 + 0.4], rtol=1e-14)
    np.testing.assert_allclose(found.slopes(u), np.diag([0.1 * 0.65 * np.exp(0.05), 0.2]), rtol=1e-14)
    np.testing.assert_allclose(found.priors(u), [0.5 * 0.1 / 0.05, 2.0], rtol=1e-14)  # (change) / prior
    whole = found.at(u, system().parameters)
    np.testing.assert_allclose(whole["q"], [0.4, -0.4], rtol=1e-14)
    np.testing.assert_allclose(whole["epsilon"], [0.0, 0.65 * np.exp(0.05)], rtol=1e-14)
    by_u = jax.jacfwd(lambda one: found.at(u | {"q": one}, system().parameters)["q"])(u["q"])
    np.testing.assert_allclose(np.ravel(by_u), [0.0, 0.2], rtol=1e-14)


def test_a_parameter_stays_between_its_bounds():
    tables = [ParameterConfig(name="q:O", bounds=[-1.0, -0.5], scale=0.1), ParameterConfig(name="q:H", scale=0.1)]
    found = moving(tables, [system()])
    start = found.slopes(found.init())
    np.testing.assert_allclose(start, np.diag([0.1, 0.1]), rtol=1e-14)  # of H, without bounds, and of O
    for size in (-300.0, -2.0, 0.4, 300.0):
        u = {"q": np.array([0.5, size])}
        hydrogen, oxygen = found.values(u)
        assert hydrogen == 0.4 + 0.05
        assert -1.0 <= oxygen <= -0.5
        by_u = jax.jacfwd(lambda one: found.classes["q"].values(one))(u["q"])
        np.testing.assert_allclose(found.slopes(u), by_u, rtol=1e-9, atol=1e-14)
    moved = found.values({"q": np.array([0.0, 1.0])})[1]
    assert moved == pytest.approx(-1 + 0.5 / (1 + 0.6 / 0.4 * np.exp(-0.1 / 0.12)))


def test_values_say_at_which_numbers_they_are():
    """Of a logarithm, of one between bounds, and of a charge that another follows."""
    tables = [ParameterConfig(name="q:O", bounds=[-1.0, -0.5], scale=0.1)]
    tables.append(ParameterConfig(name="epsilon", transform="log", scale=0.1))
    of_water = moving([ParameterConfig(name="q", prior=0.1), *tables[1:]], [system([1, 0, 0])])
    for found in (moving(tables, [system()]), of_water):
        u = {"q": np.array([0.7]), "epsilon": np.array([-1.3])}
        again = found.numbers(found.values(u))
        for name, numbers in u.items():
            np.testing.assert_allclose(again[name], numbers, rtol=1e-12)
    with pytest.raises(InputError, match=r"'q:O' cannot have the value -1\.2 "):
        moving(tables, [system()]).numbers([0.65, -1.2])
    with pytest.raises(InputError, match=r"'epsilon:O' cannot have the value -0\.1 "):
        moving(tables, [system()]).numbers([-0.1, -0.8])


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ([{"name": "epsilon:H", "transform": "log"}], "'epsilon:H' starts at 0"),
        ([{"name": "epsilon:H"}], "'epsilon:H' starts at 0"),
        ([{"name": "q"}, {"name": "q:O"}], "'q:O' is named twice"),
        ([{"name": "sigma"}], "no system has parameters 'sigma'"),
        ([{"name": "q", "bounds": [0.0, 1.0]}], r"'q' starts at -0\.8, outside of its bounds"),
    ],
)
def test_a_parameter_that_cannot_move_is_one_error(tables, said):
    with pytest.raises(InputError, match=said):
        moving([ParameterConfig(**table) for table in tables], [system()])


def test_systems_that_share_a_parameter_start_alike():
    other = system(q=np.array([0.41, -0.82]))
    with pytest.raises(InputError, match=r"H = 0\.4, O = -0\.8 in system 'water' and H = 0\.41"):
        moving([ParameterConfig(name="q")], [system(), other])


WATER = [1, 0, 0]  # entries of q


def test_of_water_one_charge_moves_and_the_other_follows():
    found = moving([ParameterConfig(name="q", prior=0.1)], [system(WATER)])
    assert (found.labels, found.free) == (("q:H", "q:O"), ("q:O",))
    u = {"q": np.array([0.7])}
    hydrogen, oxygen = found.values(u)
    assert oxygen == pytest.approx(-0.8 + 0.07, rel=1e-14)
    assert 2 * hydrogen + oxygen == pytest.approx(0, abs=1e-15)
    np.testing.assert_allclose(found.slopes(u), [[-0.05], [0.1]], rtol=1e-14)
    np.testing.assert_allclose(found.own_slopes(u), [0.1], rtol=1e-14)
    np.testing.assert_allclose(found.priors(u), [-0.35, 0.7], rtol=1e-14)  # both are held, by priors of 0.1
    np.testing.assert_allclose(found.at(u, system().parameters)["q"], [hydrogen, oxygen], rtol=1e-15)


def test_net_charges_hold_ions_and_follow_all_molecules():
    ion = system([*WATER, 2], [(0, 1, 2), (3,)])
    ion.parameters["q"], ion.labels = np.array([0.4, -0.8, 1.0]), LABELS | {"q": ["H", "O", "NA"]}
    ion.entries = lambda name: ("q", [0, 1, 2] if name == "q" else [2])
    assert moving([ParameterConfig(name="q")], [ion]).labels == ("q:H", "q:O")
    with pytest.raises(InputError, match="'q:NA' cannot move: no other charge moves"):
        moving([ParameterConfig(name="q:NA")], [ion])
    assert moving([ParameterConfig(name="q:NA", net_charge="free")], [ion]).labels == ("q:NA",)


def test_scaled_ions_keep_the_net_charge_of_the_system():
    """Two cations to an anion of twice their charge."""
    salt = system([0, 0, 1], [(0,), (1,), (2,)])
    with pytest.raises(InputError, match="'q' cannot move"):
        moving([ParameterConfig(name="q")], [salt])
    found = moving([ParameterConfig(name="q", net_charge="system")], [salt])
    cation, anion = found.values({"q": np.array([1.0])})
    assert cation != 0.4
    assert 2 * cation + anion == pytest.approx(0, abs=1e-15)


def test_residues_of_one_molecule_keep_their_net_charges():
    """A residue of one H rests, and with it O of another residue of the molecule; two of OH move alike."""
    chain = system([0, 1, 1, 0, 0], [(0, 1, 2, 3, 4)], [(0,), (1, 2, 3, 4)])
    with pytest.raises(InputError, match="'q' cannot move"):
        moving([ParameterConfig(name="q", net_charge="residues")], [chain])
    pair = system([1, 1, 0, 0], [(0, 1, 2, 3)], [(0, 2), (1, 3)])
    found = moving([ParameterConfig(name="q", net_charge="residues")], [pair])
    hydrogen, oxygen = found.values({"q": np.array([2.0])})
    assert oxygen != -0.8
    assert hydrogen + oxygen == pytest.approx(-0.4, abs=1e-15)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"name": "q", "net_charge": "residues"}, "3 of 3 such charges of a system stand in none of the residues"),
        ({"name": "q", "transform": "log"}, "moves charges in logarithms or between bounds"),
        ({"name": "q", "bounds": [-1.0, 1.0]}, "moves charges in logarithms or between bounds"),
        ({"name": "q:O"}, "'q:O' cannot move: no other charge moves that would keep the net charge"),
        ({"name": "epsilon:O", "net_charge": "molecules"}, "'epsilon:O' is no charge"),
    ],
)
def test_moves_that_cannot_keep_net_charges_are_errors(table, said):
    with pytest.raises(InputError, match=said):
        moving([ParameterConfig(**table)], [system(WATER)])
