"""Which labels a map can tell apart: the criterion by itself, and on ensembles that differ or do not."""

import numpy as np
import pytest

from hpcfit.commands.session import open_session
from hpcfit.fit.reduction import FastSum
from hpcfit.kinds.frame_weights.label_test import LabelFit, LabelTest, _starts, inseparable, undetermined
from hpcfit.kinds.table import load_config
from hpcfit.physics.scattering import diffuse_intensity
from hpcfit.ranks import Ranks
from hpcfit.testsystems.synthetic import Source, cubic_reflections, gaussian_frames, write_map, write_problem


def fit(label, *parts, cc=None, halves=(0.5, 0.5)):
    return LabelFit(label, 100, np.mean(parts) if cc is None else cc, halves, 10, parts)


def test_overlapping_parts_are_named_and_separate_ones_are_not():
    sentences = inseparable([fit("a", 0.9, 0.95), fit("b", 0.5, 0.6), fit("c", 0.55, 0.91)])
    assert len(sentences) == 2
    assert "'a' from 'c': parts of 10 frames" in sentences[0]
    assert "'b' from 'c': parts" in sentences[1]


def test_labels_that_differ_less_than_halves_of_one_are_named():
    a, b = fit("a", 0.5, 0.52, cc=0.9, halves=(0.8, 0.85)), fit("b", 0.6, 0.62, cc=0.94)
    assert "two halves of one label differ by 0.0500" in inseparable([a, b])[0]
    assert inseparable([a._replace(cc_halves=(0.8, 0.83)), b]) == []


def test_shares_of_labels_that_agree_with_the_map_by_chance_alone_are_undetermined():
    """Three standard deviations of a CC of 400 orbits are 0.15; one such label beside another that agrees is found."""
    mute, also, agrees = fit("a", 0.1, 0.0, cc=0.14), fit("b", 0.1, 0.0, cc=-0.14), fit("c", 0.5, 0.6, cc=0.6)
    assert undetermined([mute, also, agrees], 400) == ["a", "b"]
    assert undetermined([mute, also, agrees], 10_000) == []
    assert undetermined([mute, agrees], 400) == []


def test_parts_do_not_overlap_and_lie_within_the_label():
    for frames, n in [(10, 5), (11, 5), (1000, 7), (4, 2)]:
        starts = _starts(frames, n)
        assert 2 <= len(starts) <= 6
        assert np.all(np.diff(starts) >= n)
        assert starts[-1] + n <= frames


@pytest.mark.parametrize("alike", [True, False])
def test_ensembles_that_scatter_alike_are_inseparable(tmp_path, alike):
    """The map is that of a third ensemble like a; b has the same spread over reflections, or its mirror image."""
    H = len(cubic_reflections())
    a, b, truth = (gaussian_frames(n, H, seed, correlation=0.0) for seed, n in enumerate((96, 128, 400)))
    sources = [Source("one", a, "a"), Source("two", b if alike else b[:, ::-1], "b")]
    config = write_problem(tmp_path, sources, np.full(224, 1 / 224))
    write_map(tmp_path / "map.npz", cubic_reflections(), diffuse_intensity(truth, np.full(400, 1 / 400)))
    session = open_session(load_config(config), Ranks(), "optimize")
    case, grid = session.case, session.grid
    evaluate = case.gradient(grid, session.device.memory, FastSum(grid))
    work = LabelTest(evaluate, case.blocks, case.labels(), "cc")
    assert list(work.run(range(work.n_units))) == list(range(work.n_units))
    fits = work.fits(work.product()["cc"])
    assert [f.frames for f in fits] == [96, 128]
    assert fits[0].cc > max(fits[0].cc_parts)
    assert bool(inseparable(fits)) is alike
