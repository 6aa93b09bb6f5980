"""Kinetics from counts: closed forms, a queue as the reference has it, the golden data; bins, tracked things,
shares."""

import json
from collections import deque

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.axis import Axis, Segment
from hpcfit.kinds.clusters.composition import Roles
from hpcfit.kinds.clusters.found import STATES, Counted, coordination, series, size_distribution, speciation
from hpcfit.kinds.clusters.kinetics import kinetics, time_bins, tracked
from tests.kinds.clusters import golden_clusters as golden

RNG = np.random.default_rng(4)


def axis_of(*lengths, step=1000.0):
    """Trajectories of so many frames, one behind the other in the store, each from 0 on."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Axis(
        [Segment(np.arange(a, a + n), step * np.arange(n), 0.0, step * n) for a, n in zip(starts, lengths)], step, ""
    )


def queue(count, time, stop):
    """Completed and truncated lifetimes by a queue: each death pops the oldest."""
    alive = deque((time[0], True) for _ in range(count[0]))
    completed, truncated = [], []
    for k in range(1, len(count)):
        alive.extend((time[k], False) for _ in range(count[k] - count[k - 1]))
        for _ in range(count[k - 1] - count[k]):
            born, censored = alive.popleft()
            (truncated if censored else completed).append(time[k] - born)
    return completed, truncated + [stop - born for born, _ in alive]


@pytest.mark.parametrize("seed", range(20))
def test_s5_137_closed_form_is_the_queue(seed):
    rng = np.random.default_rng(seed)
    count = np.abs(np.cumsum(rng.integers(-2, 3, size=rng.integers(2, 60)))) % 7
    time = np.cumsum(rng.integers(1, 5, size=len(count))).astype(float)
    axis = Axis([Segment(np.arange(len(count)), time, time[0], time[-1] + 2)], 2.0, "")
    [found] = kinetics(count[:, None], axis)
    completed, truncated = queue(count, time, time[-1] + 2)
    assert found.completed.tolist() == completed
    assert sorted(found.truncated) == sorted(truncated)
    # S5-029 and S5-031
    assert found.births - found.deaths == count[-1] - count[0]
    assert len(found.completed) + len(found.truncated) == count[0] + found.births


def test_s5_027_028_029_030_numbers_of_a_small_series():
    count = np.array([1, 2, 0, 0, 1, 1])
    [one] = kinetics(count[:, None], axis_of(6))
    assert (one.frames, one.observations, one.occupied) == (6, 5, 4)
    assert (one.mean_count, one.occupancy) == (5 / 6, 4 / 6)
    assert (one.births, one.deaths) == (2, 2)
    assert (one.association_rate, one.dissociation_rate) == (2 / 6, 2 / 6)
    assert one.completed.tolist() == [1000.0]
    assert one.truncated.tolist() == [2000.0, 2000.0]
    assert (one.mean_lifetime, one.std_lifetime) == (1000.0, 0.0)
    [none] = kinetics(np.ones((6, 1), int), axis_of(6))
    assert none.mean_lifetime is none.std_lifetime is None


def test_trajectories_are_counted_apart():
    """No birth or death between the last frame of one and the first of the next."""
    count = np.concatenate([np.full(4, 3), np.full(5, 1)])
    [one] = kinetics(count[:, None], axis_of(4, 5))
    assert (one.births, one.deaths, len(one.truncated)) == (0, 0, 4)
    assert one.association_rate == 0
    [whole] = kinetics(count[:, None], axis_of(9))
    assert whole.deaths == 2


@pytest.mark.parametrize("run", golden.SHELLS, ids=lambda name: name or "ions")
@pytest.mark.parametrize("by", ["label", "size"])
def test_s5_029_030_031_032_golden_kinetics(shared_data, run, by):
    folder = shared_data / "clusters/pbi64_golden" / run
    labels, counts = golden.counts_of(folder)
    rows = golden.kinetics_of(folder)[f"by_{by}"]
    if by == "label":
        counts = counts[:, [labels.index(row["label"]) for row in rows]]
    else:
        sizes = {row["label"]: row["cluster_size"] for row in golden.kinetics_of(folder)["by_label"]}
        of = np.array([sizes[label] for label in labels])
        counts = np.stack([counts[:, of == row["cluster_size"]].sum(axis=1) for row in rows], axis=1)
    for row, one in zip(rows, kinetics(counts, axis_of(100)), strict=True):
        whole = (one.observations, one.occupied, one.births, one.deaths, len(one.completed), len(one.truncated))
        assert whole == tuple(row[name] for name in (
            "total_observations", "occupied_frames", "association_events", "dissociation_events",
            "completed_lifetime_count", "window_truncated_lifetime_count",
        ))  # fmt: skip
        numbers = (one.mean_count, one.occupancy, one.association_rate, one.dissociation_rate)
        assert numbers == pytest.approx([row[name] for name in (
            "mean_count_per_frame", "occupancy_fraction", "association_rate_per_ps", "dissociation_rate_per_ps",
        )], rel=1e-12)  # fmt: skip
        for mine, theirs in ((one.mean_lifetime, row["mean_lifetime_fs"]), (one.std_lifetime, row["std_lifetime_fs"])):
            assert mine == (None if theirs is None else pytest.approx(theirs, rel=1e-12))
        assert one.completed.tolist() == row["completed_lifetimes_fs"]
        assert sorted(one.truncated) == sorted(row["window_truncated_lifetimes_fs"])


def test_s5_026_golden_bins(shared_data):
    folder = shared_data / "clusters/pbi64_golden"
    labels, counts = golden.counts_of(folder)
    expected = json.loads((folder / "bins.json").read_text())
    found = time_bins(counts, axis_of(100), 10)
    assert found.edges.tolist() == expected["bin_edges_fs"]
    assert found.frames.tolist() == expected["frames_per_bin"]
    assert found.total.tolist() == expected["total_clusters_per_bin"]
    for n, label in enumerate(labels):
        assert found.raw[n].tolist() == expected["raw_count"][label]
        np.testing.assert_allclose(found.fraction[n], expected["fraction"][label], rtol=1e-12)
        np.testing.assert_allclose(found.mean[n], expected["mean_count"][label], rtol=1e-12)


def test_s5_026_shares_of_a_bin_add_up_to_one_and_bins_to_all_frames():
    counts = RNG.integers(0, 3, (37, 4))
    counts[10:15] = 0
    found = time_bins(counts, axis_of(37), 5)
    np.testing.assert_allclose(found.fraction.sum(axis=0), found.total > 0)
    np.testing.assert_array_equal(found.raw.sum(axis=1), counts.sum(axis=0))
    assert found.frames.sum() == 37
    assert found.frames[-1] == 2
    with pytest.raises(InputError, match="bins"):
        time_bins(counts, axis_of(37, step=1e9)._replace(step=1e-9), 1)


def test_block_bootstrap_gives_the_errors_of_independent_frames():
    """A Poisson count of mean 2, independent in each frame: its mean has the error sqrt(2/T), within sqrt(2/9) of
    itself for ten blocks."""
    counts = np.random.default_rng(0).poisson(2.0, (4000, 8))
    found = kinetics(counts, axis_of(4000), 300, 0)
    errors = np.array([one.errors["mean_count"] for one in found])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(np.sqrt(2 / 4000), rel=3 * np.sqrt(2 / 9 / 8))
    assert all(np.isfinite(list(one.errors.values())).all() for one in found)
    assert np.isnan(list(kinetics(counts, axis_of(4000))[0].errors.values())).all()
    assert found[0].errors == kinetics(counts, axis_of(4000), 300, 0)[0].errors
    assert found[0].errors != kinetics(counts, axis_of(4000), 300, 1)[0].errors


def test_s5_130_tracked_lifetimes_follow_things_and_bridge_gaps():
    """Thing 7 is there from frame 1 to 2 and again from 4 on; thing 9 throughout; thing 5 in frame 3 alone."""
    present = [[9], [9, 7], [9, 7], [9, 5], [9, 7], [9, 7], [9]]
    keys = [np.array(one) for one in present]
    group = [np.array([key == 9 for key in one], int) for one in present]
    strict = tracked(keys, group, axis_of(7), 0)
    assert sorted(strict[0].completed.tolist()) == [1000.0, 2000.0, 2000.0]
    assert strict[1].truncated.tolist() == [7000.0]
    bridged = tracked(keys, group, axis_of(7), 1)
    assert sorted(bridged[0].completed.tolist()) == [1000.0, 5000.0]


def found_of(counts, compositions, species=("Li", "PF6"), contacts=None):
    T, S = len(counts), len(species)
    roles = Roles(species[:1], species[1:])
    labels = tuple(roles.label(dict(zip(species, row))) for row in compositions)
    none = np.zeros((T, S, S), int) if contacts is None else contacts
    return Counted(roles, species, labels, np.array(compositions), np.array(counts),
                   np.array(counts) * 4.0, none, np.zeros(T, int), {})  # fmt: skip


def test_speciation_is_of_ions_not_of_clusters():
    """The numbers of LiPF6 in BN/FEC: 49 Li, 10 frames, (1,0) 423, (1,1) 55, (2,1) 6 clusters."""
    compositions = [(0, 1), (1, 0), (1, 1), (2, 1)]
    counts = np.zeros((10, 4), int)
    for column, total in enumerate((429, 423, 55, 6)):
        counts[:, column] = np.bincount(np.arange(total) % 10, minlength=10)
    rows = speciation(found_of(counts, compositions), axis_of(10), 50, 0)
    of_li = {row.where: row.share for row in rows if row.species == "Li"}
    assert [round(of_li[state], 4) for state in STATES] == [0.8633, 0.1122, 0.0245]
    assert sum(of_li[state] for state in STATES) == pytest.approx(1)
    of_pf6 = {row.where: row.share for row in rows if row.species == "PF6"}
    assert of_pf6["isolated"] == pytest.approx(429 / 490)


def test_sizes_and_series_in_time():
    found = found_of([[2, 1, 0], [0, 1, 1]], [(0, 1), (1, 1), (3, 2)])
    lines = series(found, axis_of(2))
    assert lines.clusters.tolist() == [1, 2]
    assert lines.mean.tolist() == [1, 2]
    assert lines.weighted.tolist() == [1, 10 / 4]
    assert lines.largest.tolist() == [1, 3]
    np.testing.assert_allclose(lines.radius, 2.0)
    sizes = size_distribution(found, axis_of(2), 0, 0)
    assert sizes.nodes.tolist() == [1, 3]
    assert sizes.mean.tolist() == [1.0, 0.5]
    assert sizes.share.tolist() == [0.4, 0.6]
    contacts = np.zeros((2, 2, 2), int)
    contacts[:, 0, 1] = contacts[:, 1, 0] = [3, 5]
    of = type("Of", (), {"kind": np.array([0, 0, 1]), "species": ("Li", "PF6")})
    [near] = coordination(found._replace(contacts=contacts), axis_of(2), of, 0, 0)
    assert (near.species, near.where, near.share) == ("Li", "PF6", 2.0)
