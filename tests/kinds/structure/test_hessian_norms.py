"""Averaged block norms against dense Hessians; the same bits on any number of ranks and through an interruption."""

import jax
import numpy as np
import pytest

from hpcfit.errors import NumericalError
from hpcfit.fit.stages import Interrupted
from hpcfit.kinds.structure.landscapes.clusters import Cluster
from hpcfit.kinds.structure.landscapes.loops import Loops
from hpcfit.kinds.structure.modes import graph, samples
from hpcfit.kinds.structure.modes.hessian_norms import BlockNorms, all_partners, partners_in, weights_of
from hpcfit.ranks import Ranks
from tests.fit.stage_runs import stage_done
from tests.fit.thread_ranks import on_ranks

LOOPS = Loops.of(40, seed=1)
DRAWN = samples.configurations(LOOPS, 0.5, 3, seed=0)


@pytest.fixture(scope="module")
def dense():
    """The norms of the blocks at each sample, [K, n, n]."""
    hessian = jax.jit(jax.hessian(LOOPS.energy))
    return np.stack([np.linalg.norm(hessian(x).transpose(0, 2, 1, 3), axis=(2, 3)) for x in DRAWN])


def norms(folder, ranks=None, stops_after=None, **options):
    work = BlockNorms(LOOPS, DRAWN, options.pop("partners", all_partners(40)), ranks or Ranks(), **options)
    return stage_done(work, ranks or Ranks(), folder, stops_after=stops_after)


@pytest.mark.parametrize("squared", [False, True])
def test_averages_are_those_of_dense_hessians(tmp_path, dense, squared):
    found = norms(tmp_path, squared=squared)
    expected = (dense**2 if squared else dense).mean(axis=0)
    np.testing.assert_allclose(found["norms"], expected, rtol=1e-9, atol=1e-12 * expected.max())
    np.testing.assert_allclose(found["others"], 0, atol=1e-12 * expected.max())


def test_a_pattern_keeps_its_pairs_and_the_sum_of_others(tmp_path, dense):
    couplings = LOOPS.couplings()
    partners = partners_in(couplings)
    found = norms(tmp_path, partners=partners)
    expected = dense.mean(axis=0)
    pattern = couplings.toarray() > 0
    np.testing.assert_allclose(weights_of(found["norms"], partners).toarray(), expected * pattern, rtol=1e-8)
    outside = np.sum(expected * ~pattern, axis=1) - np.diag(expected)
    np.testing.assert_allclose(found["others"], outside, rtol=1e-6, atol=1e-10 * expected.max())


def test_ranks_and_interruptions_change_no_bit(tmp_path):
    alone = norms(tmp_path / "one")["norms"]
    for size in (2, 3):
        shared = on_ranks(size, lambda ranks, size=size: norms(tmp_path / f"of {size}", ranks))
        np.testing.assert_array_equal(shared[0]["norms"], alone)
        assert shared[1] == {}
    with pytest.raises(Interrupted):
        norms(tmp_path / "stopped", stops_after=2)
    again = on_ranks(2, lambda ranks: norms(tmp_path / "stopped", ranks))
    np.testing.assert_array_equal(again[0]["norms"], alone)


def test_overlapping_cores_are_scaled_before_they_are_added(tmp_path):
    """Norms of 10²⁰ are more than a reproducible sum holds as they are."""
    cluster = Cluster.of(5)
    x = np.random.default_rng(0).normal(size=(1, 5, 3))
    x[0, 1] = x[0, 0] + [0.05, 0, 0]
    found = stage_done(BlockNorms(cluster, x, all_partners(5), Ranks()), Ranks(), tmp_path)["norms"]
    r = 0.05
    bend, pull = 4 * (156 * r**-14 - 42 * r**-8), 4 * (-12 * r**-14 + 6 * r**-8)
    assert found[0, 1] == pytest.approx(np.sqrt(bend**2 + 2 * pull**2), rel=1e-9)
    assert found[0, 1] > 1e20
    x[0, 1] = x[0, 0]
    with pytest.raises(NumericalError, match="sample 0 of 1 is not finite"):
        BlockNorms(cluster, x, all_partners(5), Ranks())


def test_the_spread_is_chosen_where_slow_modes_are_those_of_the_couplings(tmp_path):
    chosen = samples.choose_spread(LOOPS, seed=0, candidates=(0.06, 0.25, 4.0), count=4)
    assert np.all(np.isfinite(chosen.scores))
    assert chosen.scores[-1] < 0.5 * chosen.scores.max()  # far apart the Hessian has forgotten who is tied to whom
    reference = graph.lowest_modes(graph.laplacian(LOOPS.couplings()), 5).vectors

    def share(spread):
        work = BlockNorms(LOOPS, samples.configurations(LOOPS, spread, 40, 0), all_partners(40), Ranks())
        found = stage_done(work, Ranks(), tmp_path / f"{spread}")
        weights = weights_of(found["norms"], all_partners(40))
        return graph.overlap(graph.lowest_modes(graph.laplacian(weights), 5).vectors, reference)

    near, far = share(chosen.spread), share(chosen.candidates[-1])
    assert near.share > 0.9
    assert far.share < near.share - 0.3


def test_without_couplings_samples_are_compared_with_each_other():
    chosen = samples.choose_spread(Cluster.of(8), seed=0, candidates=(0.5, 1.0), count=4)
    assert chosen.spread in (0.5, 1.0)
    np.testing.assert_array_less(chosen.scores, 1 + 1e-12)


def test_samples_are_functions_of_seed_and_number():
    several = samples.configurations(LOOPS, 0.5, 5, seed=0)
    np.testing.assert_array_equal(several[:3], DRAWN)
    shifted = samples.configurations(LOOPS, 0.5, 3, seed=0, around=np.ones((40, 3)))
    np.testing.assert_allclose(shifted - 1, DRAWN, atol=1e-14)
