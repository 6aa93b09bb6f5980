"""Widths of pairs: estimators against a known σ, against the reference, merged in parts; ridge and self-check."""

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.composition import Roles, Structure
from hpcfit.kinds.clusters.debye_waller import (
    Width,
    b_of,
    debye_waller_table,
    fit_widths,
    moments_of,
    self_check,
    widths,
    widths_of,
)
from hpcfit.kinds.clusters.library import Ensemble, Library
from tests.kinds.clusters.golden_library import (
    CUTOFFS,
    ROLES,
    VARIANTS,
    compatible,
    golden_folder,
    library,
    rows_of,
    table,
)

STARS = Roles(("Pb",), ("I",))


def stars(arms, structures, sigma=0.02, seed=0, lengths=3.0):
    """A node with so many linkers, each at its own distance that varies by sigma, far from each other."""
    random = np.random.default_rng(seed)
    directions = random.normal(size=(arms, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    elements = ("Pb",) + ("I",) * arms
    found = []
    for _ in range(structures):
        d = lengths + sigma * random.normal(size=arms)
        found.append(Structure(elements, elements, np.vstack([np.zeros(3), directions * d[:, None]])))
    return Ensemble("x", {"Pb": 1, "I": arms}, 1, tuple(found), 0)


@pytest.mark.parametrize(
    ("arms", "factor"), [(1, 1.0), (2, 0.827), (3, 0.723), (4, 0.653), (6, 0.560), (8, 0.499), (12, 0.422)]
)
def test_s5_099_to_102_known_widths_of_equivalent_pairs(arms, factor):
    n = max(3000 // arms, 600)
    one = stars(arms, n)
    options = {"roles": STARS, "cutoffs": {("Pb", "I"): 4.0}, "pairs": "first_shell"}
    found = {name: widths_of(one, estimator=name, **options)["I", "Pb"] for name in ("rank", "identity", "pooled")}
    assert found["rank"].sigma / 0.02 == pytest.approx(factor, rel=0.03)
    assert found["identity"].sigma / 0.02 == pytest.approx(1, rel=0.03)
    assert found["pooled"].sigma / 0.02 == pytest.approx(1, rel=0.03)
    assert (found["rank"].structures, found["rank"].aligned) == (n, arms)


def test_pairs_of_different_lengths_widen_pooled_but_not_identity():
    one = stars(2, 2000, lengths=np.array([3.0, 3.5]))
    options = {"roles": STARS, "cutoffs": {("Pb", "I"): 4.0}, "pairs": "first_shell"}
    assert widths_of(one, estimator="identity", **options)["I", "Pb"].sigma == pytest.approx(0.02, rel=0.05)
    assert widths_of(one, estimator="pooled", **options)["I", "Pb"].sigma == pytest.approx(0.25, rel=0.05)


@pytest.mark.parametrize(("ddof", "factor"), [(0, np.sqrt(1 / 2)), (1, 1.0)])
def test_ddof_takes_the_bias_of_two_structures_away(ddof, factor):
    squares = []
    for seed in range(400):
        one = stars(1, 2, seed=seed)
        squares.append(widths_of(one, STARS, {("Pb", "I"): 4.0}, pairs="first_shell", ddof=ddof)["I", "Pb"].sigma ** 2)
    # the mean of 400 chi-square variables of one degree: 7 %
    assert np.mean(squares) / 0.02**2 == pytest.approx(factor**2, rel=0.22)


def test_s5_100_the_longest_distances_are_dropped_where_their_numbers_differ():
    def linear(*x):
        elements = ("Pb",) + ("I",) * len(x)
        return Structure(elements, elements, np.array([[0, 0, 0]] + [[a, 0, 0] for a in x], float))

    ensemble = Ensemble("x", {}, 1, (linear(3.0, -3.2), linear(3.2, -3.6, 5.0)), 0)
    found = widths_of(ensemble, STARS, {}, pairs="all")["I", "Pb"]
    assert found == Width(pytest.approx(np.sqrt((0.1**2 + 0.2**2) / 2)), 2, 2)
    assert widths_of(ensemble, STARS, {}, pairs="all")["I", "I"].aligned == 1


def test_s5_103_a_single_structure_has_no_width():
    assert widths_of(stars(3, 1), STARS, {}, pairs="all") == {}


def test_identity_keeps_groups_of_the_same_atoms_apart():
    one, other = stars(2, 500), stars(2, 500, lengths=3.4)
    both = one._replace(structures=(*one.structures, *other.structures))
    groups = [0] * 500 + [1] * 500
    options = {"pairs": "first_shell", "estimator": "identity"}
    found = widths_of(both, STARS, {("Pb", "I"): 4.0}, groups=groups, **options)
    assert found["I", "Pb"].sigma == pytest.approx(0.02, rel=0.06)
    assert widths_of(both, STARS, {("Pb", "I"): 4.0}, **options)["I", "Pb"].sigma == pytest.approx(0.2, rel=0.06)
    turned = Structure(("I", "Pb"), ("I", "Pb"), np.eye(3)[:2])
    with pytest.raises(InputError, match="elements PbII and IPb"):
        moments_of([one.structures[0], turned], STARS, {}, "all", "identity")


@pytest.mark.parametrize("estimator", ["rank", "identity", "pooled"])
def test_s5_138_moments_of_parts_merge_to_those_of_all(estimator):
    one = stars(5, 60, seed=4)
    whole = moments_of(one.structures, STARS, {}, "all", estimator)
    parts = [moments_of(one.structures[a:b], STARS, {}, "all", estimator) for a, b in ((0, 7), (7, 8), (8, 60))]
    for pair, expected in whole.items():
        merged = parts[0][pair].merged(parts[1][pair]).merged(parts[2][pair])
        for a, b in zip(merged, expected):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)
        sigma = [widths([{pair: moments}], 0)[pair].sigma for moments in (merged, expected)]
        assert sigma[0] == pytest.approx(sigma[1], rel=1e-12)


def test_s5_096_097_b_is_8_pi2_sigma2_and_pairs_have_one_order():
    assert b_of(0.1) == pytest.approx(8 * np.pi**2 * 0.01)
    found = widths_of(stars(2, 5), STARS, {}, pairs="all")
    assert set(found) == {("I", "I"), ("I", "Pb")}
    assert found["I", "Pb"].b == b_of(found["I", "Pb"].sigma)


@pytest.mark.parametrize("variant", VARIANTS)
def test_s5_099_to_105_the_table_is_that_of_the_reference(shared_data, variant):
    golden = golden_folder(shared_data)
    one, rows = library(golden, variant), rows_of(golden, variant)
    found = {label: widths_of(e, ROLES, CUTOFFS, pairs="first_shell") for label, e in one.ensembles.items()}
    models = fit_widths(rows, found, ROLES)
    mine = debye_waller_table(one, rows, compatible(golden, variant).predicted, found, models)
    told = table(golden, variant, "dw")
    assert [
        (r.kind, r.method, r.label, r.n_node, r.rank, "-".join(r.pair), r.support, r.aligned, r.source) for r in mine
    ] == [
        tuple(
            row[name]
            for name in (
                *("source", "method", "label", "node_count", "candidate_rank", "pair"),
                *("support_count", "aligned_pair_count", "source_label"),
            )
        )
        for row in told["rows"]
    ]
    for row, expected in zip(mine, told["rows"]):
        rel = 1e-13 if row.method == "ensemble" else 1e-9 if variant == "main" else 1e-6
        assert row.sigma == pytest.approx(expected["sigma"], rel=rel, abs=1e-14)
        assert row.b == pytest.approx(expected["b_factor"], rel=2 * rel, abs=1e-14)
    assert {"-".join(pair): support for pair, (_, support) in models.items()} == {
        pair: model["support_count"] for pair, model in told["pair_models"].items()
    }


def test_s5_105_an_observed_label_with_one_file_takes_the_ridge(shared_data):
    golden = golden_folder(shared_data)
    whole, rows = library(golden, "main"), rows_of(golden, "main")
    single = whole.ensembles["PbI2"]
    single = single._replace(structures=single.structures[:1])
    one = whole._replace(ensembles={**whole.ensembles, "PbI2": single})
    found = {label: widths_of(e, ROLES, CUTOFFS, pairs="first_shell") for label, e in one.ensembles.items()}
    mine = debye_waller_table(one, rows, [], found, fit_widths(rows, found, ROLES))
    of_label = [row for row in mine if row.label == "PbI2"]
    assert [(row.method, row.pair, row.support) for row in of_label] == [("ridge", ("I", "Pb"), 9)]


def test_pairs_that_the_composition_of_most_files_lacks_are_not_in_the_table(shared_data):
    golden = golden_folder(shared_data)
    whole, rows = library(golden, "main"), rows_of(golden, "main")
    strange = whole.ensembles["PbI"]._replace(structures=whole.ensembles["Pb2I"].structures)
    one = whole._replace(ensembles={**whole.ensembles, "PbI": strange})
    found = {label: widths_of(e, ROLES, CUTOFFS, pairs="first_shell") for label, e in one.ensembles.items()}
    assert ("Pb", "Pb") in found["PbI"]
    mine = debye_waller_table(one, rows, [], found, fit_widths(rows, found, ROLES))
    assert [row.pair for row in mine if row.label == "PbI"] == [("I", "Pb")]


def test_s5_128_the_self_check_is_zero_for_equal_structures_and_tells_damping_that_helps():
    q = np.linspace(0.5, 4, 30)

    def intensity(structure, sigma):
        """Debye sum of unit scatterers, pairs damped."""
        x, elements = structure.positions, structure.elements
        total = np.full(len(q), float(len(x)))
        for i in range(len(x)):
            for j in range(i):
                s = sigma.get(tuple(sorted((elements[i], elements[j]))), 0.0)
                d = np.linalg.norm(x[i] - x[j])
                total += 2 * np.sinc(q * d / np.pi) * np.exp(-(q**2) * s**2 / 2)
        return total

    same = stars(2, 3, sigma=0.0)
    assert self_check(same, {}, intensity).undamped == pytest.approx(0, abs=1e-12)
    random = np.random.default_rng(0)
    # a Gaussian cloud about each site: damping of the middle structure is exact
    sites = np.array([[0, 0, 0], [3.0, 0, 0]])
    cloud = [Structure(("Pb", "I"), ("Pb", "I"), sites)]
    for _ in range(3000):
        step = 0.15 * random.normal(size=3)
        cloud += [cloud[0]._replace(positions=sites + sign * np.array([np.zeros(3), step])) for sign in (1, -1)]
    found = self_check(
        Ensemble("x", {}, 1, tuple(cloud[1:]), 0)._replace(structures=tuple(cloud)), {("I", "Pb"): 0.15}, intensity
    )
    assert found.damped < 0.01
    assert found.undamped > 10 * found.damped
    assert (found.label, found.structures) == ("x", 6001)


def test_widths_of_a_library_from_a_trajectory_do_not_need_a_folder():
    one = Library.of({"PbI2": stars(2, 4).structures, "PbI": stars(1, 4).structures}, STARS)
    found = {label: widths_of(e, STARS, {}, pairs="all") for label, e in one.ensembles.items()}
    assert set(found["PbI2"]) == {("I", "I"), ("I", "Pb")}
