"""Predictions in compatible settings against those of the reference program; filters, shares, mass by their rules."""

from itertools import product

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.composition import Roles, composition_of
from hpcfit.kinds.clusters.library import Shape
from hpcfit.kinds.clusters.prediction.candidates import (
    CHARGE,
    FLOOR,
    PURE,
    Candidate,
    Charges,
    linker_floors,
    raw_candidates,
    split_nodes,
    target_sizes,
)
from hpcfit.kinds.clusters.prediction.predict import LIMITATIONS, Options, predict
from hpcfit.kinds.clusters.prediction.ridge import LAMBDA, Target, fit_ridge
from hpcfit.kinds.clusters.prediction.rows import Observed, Row, features, small_data, training_rows
from hpcfit.kinds.clusters.prediction.shares import Predicted, observed_weights, pruned, tail, with_shares
from tests.kinds.clusters.golden_library import (
    COLUMNS,
    RIDGE,
    ROLES,
    TIMESTEP,
    VARIANTS,
    compatible,
    golden_folder,
    library,
    observed,
    rows_of,
    table,
)


@pytest.fixture(scope="module")
def golden(shared_data):
    return golden_folder(shared_data)


def row(label, count, total=100, roles=ROLES, **kinetics):
    counts = composition_of(label)
    seen = Observed(total=total, mean_count=count, **({"occupancy": min(count, 1.0)} | kinetics))
    return Row(label, counts, roles.nodes_in(counts), 5, 0.0, Shape(1, 1, 1, 0, 0), "", (), seen)


# ---- parity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_s5_042_044_059_training_rows_features_and_weights_are_those_of_the_reference(golden, variant):
    rows = {one.label: one for one in rows_of(golden, variant)}
    told = table(golden, variant, "training")
    assert sorted(rows) == sorted(one["label"] for one in told["training"])
    weights = dict(zip(rows, observed_weights(list(rows.values()), "occupancy")))
    for one in told["training"]:
        mine = rows[one["label"]]
        assert features([mine.counts], ROLES, ["I"]).tolist() == [one["features"]]
        assert mine.stability == pytest.approx(one["stability_weight"], rel=1e-14)
        assert weights[mine.label] == pytest.approx(one["population_weight"], rel=1e-14)


@pytest.mark.parametrize("variant", VARIANTS)
def test_s5_060_to_066_raw_candidates_and_the_reasons_of_rejections_are_those_of_the_reference(golden, variant):
    told = table(golden, variant, "training")["raw_candidates"]
    expected = [
        (int(n), one["label"], one["element_counts"], one["scaled_from"], one["notes"], one["status"])
        for n, of_size in told.items()
        for one in of_size["candidates"]
    ]
    found = [
        (one.n_node, one.label, one.counts, one.source, one.route, f"rejected: {one.rejected}" * bool(one.rejected))
        for one in compatible(golden, variant).candidates
    ]
    assert [(*one[:5], one[5] or "kept") for one in found] == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_s5_045_to_057_and_067_predicted_quantities_scores_and_fates_are_those_of_the_reference(golden, variant):
    prediction = compatible(golden, variant)
    mine = {(one.n_node, one.label): one for one in (*prediction.predicted, *prediction.out)}
    told = table(golden, variant, "training")["scored_candidates"]
    assert len(mine) == len(told)
    for one in told:
        found = mine[one["target_node_count"], one["label"]]
        for name, column in COLUMNS.items():
            atol = 1e-7 if name in ("b", "c") else 1e-12  # axes that are 0, which the reference has as 1e-8
            assert found.values[name] == pytest.approx(one[f"predicted_{column}"], rel=RIDGE[variant], abs=atol)
        assert found.score == pytest.approx(one["predicted_stability_score"], rel=RIDGE[variant])
        assert (found.source, found.fate) == (one["source_label"], one["fate"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_s5_068_and_107_to_111_shares_pruning_ranks_and_the_tail_are_those_of_the_reference(golden, variant):
    prediction, told = compatible(golden, variant), table(golden, variant, "training")
    assert [(one.n_node, one.rank, one.label) for one in prediction.predicted] == [
        (one["target_node_count"], one["rank"], one["label"]) for one in told["predictions"]
    ]
    for mine, one in zip(prediction.predicted, told["predictions"]):
        assert mine.share == pytest.approx(one["predicted_population_share"], rel=RIDGE[variant])
        assert mine.weight == pytest.approx(one["population_weight"], rel=RIDGE[variant])
    assert prediction.tail.anchored == pytest.approx(told["predicted_total_weight_from_tail"], rel=1e-12)
    assert prediction.largest == told["max_predicted_node_count"]
    kept = [one for one in (*prediction.predicted, *prediction.out) if not one.fate.startswith("cut")]
    before = {one["label"]: one["share"] for one in told["shares_before_pruning"]}
    for one in with_shares(kept, TIMESTEP, "occupancy"):
        assert one.share == pytest.approx(before[one.label], rel=RIDGE[variant])


def test_all_zero_scores_are_said_and_equal_ones_are_not_ranked_by_the_alphabet(golden):
    compatibly = compatible(golden, "main")
    assert [note for note in compatibly.notes if "score 0" in note and "4 nodes" in note]
    assert compatibly.predicted[0].label == "Pb5I10"  # the first by the alphabet, as the reference has it
    own = predict(rows_of(golden, "main"), ROLES, Options(TIMESTEP, (4, 5), model="ridge", weighting="saxshell"))
    assert [note for note in own.notes if "score 0" in note]
    first = next(one for one in own.candidates if one.n_node == 5 and not one.rejected)
    of_size = [one for one in (*own.predicted, *own.out) if one.n_node == 5]
    assert min(of_size, key=lambda one: one.distance).label == first.label


# ---- rules ---------------------------------------------------------------------------------------------------------


def test_s5_056_the_ridge_is_its_formula():
    random = np.random.default_rng(0)
    x = np.column_stack([np.ones(9), random.normal(size=(9, 3))])
    y, w = random.uniform(0.1, 5, 9), random.uniform(0.5, 300, 9)
    found = fit_ridge(x, y, w, Target("y", log=True))
    W = np.diag(w)
    expected = np.linalg.solve(x.T @ W @ x + LAMBDA * np.eye(4), x.T @ W @ np.log1p(y))
    np.testing.assert_allclose(found.coefficients, expected, atol=1e-8)
    np.testing.assert_allclose(found.predict(x), np.maximum(np.expm1(x @ expected), 0), rtol=1e-7)
    assert fit_ridge(x[:1], y[:1], w[:1], Target("y", log=True)).predict(x[3:4]) == pytest.approx(y[0])


def test_predictions_are_clamped():
    x = np.array([[1.0, 0.0], [1.0, 1.0]])
    target = Target("occupancy", low=0.0, high=1.0)
    assert fit_ridge(x, np.array([0.5, 0.9]), np.ones(2), target).predict([[1, 3], [1, -3]]).tolist() == [1.0, 0.0]


def test_the_standardised_ridge_is_not_moved_by_a_column_that_never_changes():
    random = np.random.default_rng(1)
    x = np.column_stack([np.ones(12), random.normal(size=12), np.full(12, 4.0)])
    y = 1.0 + 0.5 * x[:, 1]
    found = fit_ridge(x, y, np.ones(12), Target("y"), "standardised")
    np.testing.assert_allclose(found.predict(np.array([[1, 2.0, 4.0]])), [2.0], rtol=1e-2)
    assert found.coefficients[2] == 0


@pytest.mark.parametrize("term", ["n_structures", "completed", "mean_count", "occupancy", "mean_lifetime"])
def test_s5_059_the_stability_weight_rises_with_each_of_its_terms(term):
    one = row("Pb2I3", 0.3)
    more = one._replace(n_structures=99)
    if term != "n_structures":
        more = one._replace(observed=one.observed._replace(**{term: 50.0}))
    assert more.stability > one.stability


def test_s5_017_sizes_that_were_observed_are_dropped():
    rows = [row("PbI", 1.0), row("Pb3I3", 0.1)]
    assert target_sizes(rows) == [4, 5]
    assert target_sizes(rows, (2, 3, 6, 4, 6)) == [4, 6]
    with pytest.raises(InputError, match="not above the largest observed one, 3"):
        predict(rows, ROLES, Options(TIMESTEP, (2, 3)))


def test_s5_055_the_leak_free_trend_finds_linkers_where_the_leaky_one_finds_none():
    rows = [row(label, 1.0) for label in ("PbI", "PbI2", "Pb2I2", "Pb2I4", "Pb3I3", "Pb3I6")]
    weights = np.ones(6)
    leaky, free = (raw_candidates(rows, 4, ROLES, weights, trend)[0] for trend in ("leaky", "leak_free"))
    assert (leaky.label, leaky.rejected) == ("Pb4", FLOOR)
    assert (free.label, free.rejected) == ("Pb4I6", "")


def test_s5_063_066_a_linker_of_every_larger_label_is_mandatory():
    roles = Roles(("Pb",), ("I", "Br"), ("O",))
    rows = [row(label, 1.0, roles=roles) for label in ("Pb", "PbO", "Pb2I3O", "Pb3IBr2O", "Pb2I2O")]
    assert linker_floors(rows, 4, roles) == {"I": 2}  # ceil(4/3); Br is not everywhere, O is no linker
    found = {one.label: one.rejected for one in raw_candidates(rows, 4, roles, np.ones(5))}
    assert found["Pb4O4"] == FLOOR
    assert found["Pb4Br3IO"] == FLOOR


def test_s5_064_pure_nodes_need_support_of_nearly_their_size():
    roles = Roles(("Pb",))
    rows = [row("Pb", 1.0, roles=roles), row("Pb2", 0.2, roles=roles)]
    reasons = [raw_candidates(rows, n, roles, np.ones(2))[0].rejected for n in (3, 4)]
    assert reasons == ["", PURE]


def test_nodes_of_several_elements_are_split_by_the_largest_remainder():
    assert split_nodes(5, {"Pb": 0.5, "Zn": 0.5}) == {"Pb": 3, "Zn": 2}
    assert split_nodes(3, {"Pb": 0.2, "Zn": 0.8}) == {"Pb": 1, "Zn": 2}
    assert split_nodes(2, {"Pb": 0.05, "Zn": 0.95}) == {"Zn": 2}


def test_charges_may_filter_candidates():
    rows = [row(label, 1.0) for label in ("PbI", "PbI2", "Pb2I2", "Pb2I4")]
    charges = Charges({"Pb": 2.0, "I": -1.0}, 0.5)
    found = raw_candidates(rows, 4, ROLES, np.ones(4), charges=charges)
    assert {one.label for one in found if not one.rejected} == {"Pb4I6", "Pb4I8"}
    assert {one.label for one in found if one.rejected == CHARGE} == {"Pb4I4"}


def candidate(n, label, **values):
    values = {"mean_count": 0.0, "occupancy": 0.0, "mean_lifetime": TIMESTEP} | values
    return Predicted(Candidate(n, label, {}, "", None), values, values["mean_count"], 0.0, "")


def test_s5_108_and_109_shares_fall_back_to_occupancy_then_to_lifetime():
    counts = candidate(4, "a", mean_count=0.2, occupancy=0.5)
    occupied = candidate(4, "b", occupancy=0.3)
    neither = candidate(5, "c", mean_lifetime=2 * TIMESTEP)
    found = with_shares([counts, occupied, neither], TIMESTEP, "occupancy")
    assert [one.share for one in found] == pytest.approx([0.1 / 2.4, 0.3 / 2.4, 2 / 2.4])
    assert with_shares([counts, neither], TIMESTEP, "number")[0].share == pytest.approx(0.2 / 2.2)


def test_s5_110_the_best_of_each_size_is_never_pruned_and_threshold_0_prunes_none():
    shares = {("a", 4): 0.001, ("b", 4): 0.0005, ("c", 5): 0.9985}
    given = [candidate(n, label)._replace(share=share) for (label, n), share in shares.items()]
    found = pruned(given, 0.02)
    assert [(one.label, one.fate) for one in found] == [
        *(("c", "predicted"), ("a", "predicted"), ("b", "pruned: share below threshold")),
    ]
    assert sum(one.share for one in found if one.fate == "predicted") == pytest.approx(1)
    assert all(one.fate == "predicted" for one in pruned(given, 0.0))


def test_s5_112_no_candidate_outweighs_the_last_observed_size_however_extreme_its_count():
    rows = [row("PbI", 10.0), row("Pb2I2", 1.0), row("Pb3I3", 0.1)]
    last = 0.1 * 0.1
    for counts in product((0.0, 1e-12, 1.0, 1e12), repeat=3):
        given = [candidate(n, str(n), mean_count=c, occupancy=min(c, 1.0)) for n, c in zip((4, 5, 6), counts)]
        shared = with_shares(given, TIMESTEP, "occupancy")
        mass = tail(rows, shared, "occupancy")
        weights = [one.share * mass.anchored for one in shared]
        assert all(one.share > 0 for one in shared)
        assert sum(one.share for one in shared) == pytest.approx(1)
        assert sum(weights) <= last * (1 + 1e-12)
        assert max(weights) <= last * (1 + 1e-12)


def test_s5_111_the_clip_of_the_decay_is_configurable_and_the_modelled_mass_is_told():
    rows = [row("PbI", 10.0, occupancy=1.0), row("Pb2I2", 0.1, occupancy=1.0)]
    given = [candidate(3, "x", mean_count=0.004, occupancy=1.0)]
    clipped, free = (tail(rows, given, "occupancy", clip) for clip in ((0.05, 0.9), (0.0, 1.0)))
    assert (clipped.decay, clipped.anchored) == pytest.approx((0.05, 0.005))
    assert (free.decay, free.anchored, free.found_decay) == pytest.approx((0.01, 0.001, 0.01))
    assert free.modelled == pytest.approx(0.004)
    assert free.by_size == pytest.approx({1: 10.0, 2: 0.1})
    options = Options(TIMESTEP, (3,), model="mass_action", mass="modelled")
    found = predict(rows, ROLES, options)
    assert sum(one.weight for one in found.predicted) == pytest.approx(found.tail.modelled)


def test_number_weights_are_mean_counts():
    rows = [row("PbI", 10.0), row("Pb2I2", 0.1)]
    assert observed_weights(rows, "number").tolist() == [10.0, 0.1]
    assert observed_weights(rows, "occupancy").tolist() == [10.0, pytest.approx(0.01)]


def test_s5_043_labels_that_do_not_overlap_and_a_single_size_are_errors(golden):
    whole, seen = library(golden, "main"), observed(golden)
    with pytest.raises(InputError, match=r"no label of the library \(Pb, Pb2I.*\) is among those of the frames \(Li\)"):
        training_rows(whole, {"Li": Observed()})
    ones = whole._replace(ensembles={label: whole.ensembles[label] for label in ("Pb", "PbI")})
    with pytest.raises(InputError, match="all 2 labels of the library have 1 node: at least two"):
        training_rows(ones, seen)


def test_s5_036_a_label_that_was_never_seen_has_zeros(golden):
    seen = {label: one for label, one in observed(golden).items() if label != "Pb3I2"}
    found = {one.label: one for one in training_rows(library(golden, "main"), seen)}
    assert found["Pb3I2"].observed == Observed()
    assert found["Pb3I2"].stability == pytest.approx(1.4)


def test_s5_125_to_133_limitations_are_sentences_of_their_own():
    assert list(LIMITATIONS) == [f"S5-{number}" for number in range(125, 134)]
    assert all(text.endswith(".") for text in LIMITATIONS.values())


def test_s5_125_a_small_training_set_is_said():
    few = [row("PbI", 1.0), row("Pb2I2", 1.0)]
    assert len(small_data(few)) == 2
    many = [row(label, 1.0) for label in ("Pb", "PbI", "Pb2I", "Pb2I2", "Pb3I2", "Pb3I3")]
    assert small_data(many) == []
