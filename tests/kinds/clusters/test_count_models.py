"""Models of mean counts: exact where the law is exact, judged by the largest size left out, intervals from blocks."""

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.composition import Roles, composition_of
from hpcfit.kinds.clusters.library import Shape
from hpcfit.kinds.clusters.prediction.populations import (
    MODELS,
    Blocks,
    Foretold,
    Interval,
    best_model,
    fit_counts,
    interval_of,
    leave_largest_size_out,
    resampled_counts,
    with_errors_of_the_model,
)
from hpcfit.kinds.clusters.prediction.predict import Options, predict
from hpcfit.kinds.clusters.prediction.rows import Observed, Row

ROLES = Roles(("Pb",), ("I",))
LABELS = ("Pb", "PbI", "PbI2", "Pb2I", "Pb2I2", "Pb2I3", "Pb3I2", "Pb3I3", "Pb3I4")
FRAMES = 100_000


def law(n, m):
    """Geometric decay with both numbers."""
    return 20 * np.exp(-2.5 * (n - 1) + 0.3 * m)


def rows(labels=LABELS, count=lambda n, m: law(n, m)):
    found = []
    for label in labels:
        counts = composition_of(label)
        c = count(counts["Pb"], counts.get("I", 0))
        seen = Observed(total=round(c * FRAMES), mean_count=c, occupancy=min(c, 1.0), mean_lifetime=1000.0)
        found.append(Row(label, counts, counts["Pb"], 5, 0.0, Shape(1, 1, 1, 0, 0), "", (), seen))
    return found


def test_mass_action_is_exact_for_a_geometric_law():
    model = fit_counts("mass_action", rows(), ROLES)
    assert model.predict([{"Pb": 5, "I": 6}])[0] == pytest.approx(law(5, 6), rel=1e-9)
    assert model.terms["n_node"] == pytest.approx(-2.5)
    assert model.terms["n_I"] == pytest.approx(0.3)


@pytest.mark.parametrize("name", ["elastic_net", "gaussian_process"])
def test_other_logarithmic_models_follow_a_geometric_law_too(name):
    predicted = fit_counts(name, rows(), ROLES).predict([{"Pb": 4, "I": 4}])[0]
    assert 0.5 < predicted / law(4, 4) < 2


def test_the_documented_ridge_cannot_follow_a_decay_and_is_not_chosen():
    foretold = leave_largest_size_out(rows(), ROLES)
    assert {one.model for one in foretold} == set(MODELS)
    assert {one.label for one in foretold} == {"Pb3I2", "Pb3I3", "Pb3I4"}
    worst = {name: max(one.factor for one in foretold if one.model == name) for name in MODELS}
    assert worst["mass_action"] == pytest.approx(1, abs=1e-6)
    assert worst["ridge"] > 10
    name, why = best_model(foretold)
    assert name == "mass_action" or worst[name] < 1 + 1e-6
    assert "where the largest size is left out" in why


def test_two_sizes_leave_nothing_to_foretell():
    assert leave_largest_size_out(rows(LABELS[:6]), ROLES) == []
    name, why = best_model([])
    assert name == "mass_action"
    assert "fewer than three sizes" in why


def test_a_factor_of_a_label_that_is_predicted_to_be_absent_is_infinite():
    assert Foretold("ridge", "Pb3I3", 0.02, 0.0).factor == np.inf
    assert Foretold("ridge", "Pb3I3", 0.02, 0.01).factor == Foretold("ridge", "Pb3I3", 0.01, 0.02).factor == 2
    assert best_model([Foretold("ridge", "Pb3I3", 0.02, 0.0)])[0] == "mass_action"


def test_a_logarithmic_model_needs_two_sizes_that_were_seen():
    with pytest.raises(InputError, match="of fewer than two sizes: mass_action cannot extrapolate"):
        fit_counts("mass_action", rows(count=lambda n, m: float(n == 1)), ROLES)


def intervals(name, rows, blocks, of, resamples):
    def fit(resampled):
        return fit_counts(name, resampled, ROLES)

    found = [resampled_counts(fit, rows, blocks, of, number) for number in range(resamples)]
    return interval_of(np.array(found), blocks.level)


def test_a_resample_without_a_model_is_left_out():
    found = interval_of(np.array([[1.0, 2.0], [np.nan, np.nan], [3.0, 4.0]]), 0.5)
    np.testing.assert_allclose(found, [[1.5, 2.5], [2.5, 3.5]])
    assert np.isnan(interval_of(np.full((2, 3), np.nan), 0.9)).all()


def test_the_errors_of_a_model_widen_its_intervals_by_students_t():
    factors = [2.0, 2.0, 2.0]
    off = 2.3533634348018264 * np.log(2)  # t of 3 degrees of freedom at 0.95
    exact = with_errors_of_the_model(5.0, Interval(np.array(5.0), np.array(5.0)), factors, 0.9)
    np.testing.assert_allclose(exact, 5.0 * np.exp([-off, off]), rtol=1e-9)
    both = with_errors_of_the_model(5.0, Interval(np.array(5.0 / np.e), np.array(5.0 * np.e**2)), factors, 0.9)
    np.testing.assert_allclose(np.log(np.array(both) / 5.0), [-np.hypot(off, 1), np.hypot(off, 2)], rtol=1e-9)
    for unknown in ([], [2.0, np.inf]):
        assert np.isnan(with_errors_of_the_model(5.0, Interval(np.array(4.0), np.array(6.0)), unknown, 0.9)).all()


def test_intervals_cover_the_truth_and_shrink_with_the_data():
    def interval(B, frames, seed):
        random = np.random.default_rng(seed)
        counts = {label: random.poisson(one.observed.mean_count * frames, B) for label, one in zip(LABELS, rows())}
        measured = []
        for one in rows():
            total = int(counts[one.label].sum())
            seen = one.observed._replace(total=total, mean_count=total / (B * frames))
            measured.append(one._replace(observed=seen))
        blocks = Blocks(counts, np.full(B, frames), seed)
        return intervals("mass_action", measured, blocks, [{"Pb": 4, "I": 4}], 60)

    found = [interval(32, 20, seed) for seed in range(20)]
    covered = sum(one.low[0] <= law(4, 4) <= one.high[0] for one in found)
    assert covered >= 14  # of 20 at 90 %: fewer than 14 has a probability of 2e-3
    width = np.mean([np.log(one.high[0] / one.low[0]) for one in found])
    longer = np.mean([np.log(one.high[0] / one.low[0]) for one in (interval(32, 320, s) for s in range(5))])
    assert 2.5 < width / longer < 6.5  # 16 times the data: 4


def test_a_prediction_by_the_best_model_has_intervals_and_foretold_labels():
    counts = {one.label: np.random.default_rng(1).poisson(one.observed.mean_count * 50, 20) for one in rows()}
    found = predict(rows(), ROLES, Options(1000.0))
    assert found.model.name != "ridge"
    assert found.foretold
    blocks = Blocks(counts, np.full(20, 50))
    interval = intervals(found.model.name, rows(), blocks, [one.candidate.counts for one in found.predicted], 20)
    for one, low, high in zip(found.predicted, *interval):
        assert low < one.values["mean_count"] * 3
        assert high > one.values["mean_count"] / 3
        assert one.values["occupancy"] == pytest.approx(1 - np.exp(-one.values["mean_count"]))


def test_the_same_rows_give_the_same_prediction():
    one, other = (predict(rows(), ROLES, Options(1000.0)) for _ in range(2))
    assert one.predicted == other.predicted
    assert one.notes == other.notes
    blocks = Blocks({label: np.arange(8) for label in LABELS}, np.full(8, 10), seed=3)
    np.testing.assert_array_equal(*(intervals("mass_action", rows(), blocks, [{"Pb": 4}], 5) for _ in range(2)))
