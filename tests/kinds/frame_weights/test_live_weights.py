"""Sums of the weights of a running fit: what ranks report adds up to what one rank would report."""

from collections import Counter
from functools import lru_cache

import numpy as np
import pytest

from hpcfit.fit.problem import FrameRows, Params
from hpcfit.kinds.frame_weights.live_weights import BIN, MAX_GROUPS, LiveWeights
from hpcfit.kinds.frame_weights.problem import PriorRows
from tests.kinds.frame_weights.systems import system

LABELS = ["A", "B", "A", "C"]  # of four blocks


@pytest.fixture
def rows():
    """Four blocks, the last one half full, with uniform prior weights."""
    ids = np.arange(256).reshape(4, 64)
    ids[3, 32:] = -1
    return FrameRows(ids, 224, PriorRows(np.where(ids >= 0, -np.log(224), 0.0), ids >= 0, np.full(ids.shape, -1)))


@pytest.fixture
def params(rows):
    """Gauged: the weights sum to 1."""
    u = np.where(rows.ids >= 0, np.exp(np.random.default_rng(0).normal(size=(4, 64)) / 2), 0.0)
    return Params({}, {"u": u / np.sqrt(np.sum(weights(u, rows)))})


def weights(u, rows):
    return np.where(rows.ids >= 0, u**2 * np.exp(rows.more.log_prior), 0.0)


def part(rows, params, blocks):
    own = slice(blocks.start, blocks.stop)
    more = PriorRows(*(leaf[own] for leaf in rows.more[:3]))
    of_rank = FrameRows(rows.ids[own], rows.total, more)
    return LiveWeights.of(problem(), of_rank, LABELS, blocks)(Params({}, {"u": params.local["u"][own]}))


@lru_cache
def problem():
    """Of which only the kind of the weights counts here: the simplex."""
    return system().reverse().problem


def bins(report):
    return Counter({report["first"] + number: count for number, count in enumerate(report["frames"]) if count})


def test_groups_and_histogram_are_those_of_the_weights(rows, params):
    report = part(rows, params, range(4))
    w = weights(params.local["u"], rows)
    assert report["groups"]["A"] == pytest.approx((w[0].sum() + w[2].sum(), 128 / 224))
    assert report["groups"]["C"] == pytest.approx((w[3].sum(), 32 / 224))
    assert sum(now for now, _ in report["groups"].values()) == pytest.approx(1.0)
    expected = Counter(np.floor(np.log(224 * w[rows.ids >= 0]) / BIN).astype(int).tolist())
    assert sum(bins(report).values()) == 224
    assert sum((bins(report) - expected).values()) <= 1, "but for a value at the edge of a bin, by rounding"


def test_reports_of_ranks_add_up(rows, params):
    whole, parts = part(rows, params, range(4)), [part(rows, params, range(1)), part(rows, params, range(1, 4))]
    for name, sums in whole["groups"].items():
        assert np.sum([report["groups"][name] for report in parts], axis=0) == pytest.approx(sums)
    assert bins(parts[0]) + bins(parts[1]) == bins(whole)


def test_a_rank_without_frames_reports_nothing_of_weight(rows, params):
    report = part(rows, params, range(4, 4))
    assert set(report["groups"].values()) == {(0.0, 0.0)}
    assert not bins(report)


def test_many_labels_are_summed_as_one_but_for_the_most_common():
    blocks = MAX_GROUPS + 10
    ids = np.arange(64 * blocks).reshape(blocks, 64)
    rows = FrameRows(ids, ids.size, PriorRows(np.full(ids.shape, -np.log(ids.size)), ids >= 0, np.full(ids.shape, -1)))
    labels = [f"source {number}" for number in range(blocks)]
    report = LiveWeights.of(problem(), rows, labels, range(blocks))(Params({}, {"u": np.ones(ids.shape)}))
    assert len(report["groups"]) == MAX_GROUPS + 1
    assert report["groups"]["all others"] == pytest.approx((10 / blocks, 10 / blocks))
