"""Mapped frames in memory for a neural potential: the rows, who is held out, and the residual that follows."""

import json

import jax
import numpy as np
import pytest
import scipy.sparse

from hpcfit.bead_models.neural import Architecture, BeadSample, neural_force_matching
from hpcfit.commands.optimize import run_optimize
from hpcfit.kinds.force_map.constraints import HeldDistances
from hpcfit.kinds.force_map.map_statistics import noise_map
from hpcfit.kinds.force_map.mapped_frames import MappedFrames, MappingPass, NamedMap
from hpcfit.kinds.force_map.mapped_positions import Mapping
from hpcfit.kinds.force_map.neural_frames import (
    frames_grid,
    held_out_parts,
    neural_gradient,
    neural_rows,
    sample_of,
    stacked_rows,
    training_order,
)
from hpcfit.kinds.force_map.passes import AtomisticFrames, StatisticalBlocks
from hpcfit.kinds.table import load_config
from hpcfit.ranks import Ranks
from hpcfit.store.forces import open_force_store
from hpcfit.store.positions import read_block
from hpcfit.testsystems.harmonic_beads import HarmonicBeads, write_force_store
from tests.fit.stage_runs import stage_done
from tests.fit.thread_ranks import on_ranks
from tests.kinds.force_map.force_map_runs import force_map_config

SYSTEM, FRAMES = HarmonicBeads(7), 230
M = np.eye(7)[::3]
EDGE = 40.0


@pytest.mark.parametrize("seed", range(30))
def test_held_out_parts_are_evenly_spread_and_neither_none_nor_all(seed):
    rng = np.random.default_rng(seed)
    n, share = int(rng.integers(2, 50)), float(rng.uniform(0.001, 0.999))
    part = held_out_parts(n, share)
    held = np.flatnonzero(part)
    assert part.shape == (n,)
    assert set(part) == {0, 1}
    assert len(held) == min(max(round(share * n), 1), n - 1)
    gaps = np.diff([held[-1] - n, *held])  # around the ends too
    assert gaps.max() - gaps.min() <= 1


def test_the_chosen_map_comes_first_and_once():
    assert training_order(["slice", "basic", "optimal"], "optimal", ["basic", "optimal"]) == [2, 1]
    assert training_order(["slice", "basic"], "slice", []) == [0]


@pytest.fixture(scope="module", params=[False, True], ids=["free", "box"])
def work(request, tmp_path_factory):
    """Frames of two shards to be mapped with noise by two maps."""
    folder = tmp_path_factory.mktemp("neural")
    r, f = SYSTEM.frames(FRAMES, 1)
    box = np.tile(EDGE * np.eye(3), (FRAMES, 1, 1)) if request.param else None
    cut = [(slice(0, 100), "a"), (slice(100, None), "b")]
    sources = {name: (r[rows], f[rows], None if box is None else box[rows]) for rows, name in cut}
    store = write_force_store(folder / "store", SYSTEM.particles, sources)
    V = {"basic": SYSTEM.kT * M @ SYSTEM.K @ M.T, "optimal": SYSTEM.kT * SYSTEM.bead_stiffness(M)}
    W = {"basic": M, "optimal": SYSTEM.optimal(M)}
    maps = [NamedMap(name, scipy.sparse.csr_array(W[name]), noise_map(V[name], 0.01, SYSTEM.kT)) for name in V]
    frames = AtomisticFrames(
        store, StatisticalBlocks(7, store.blocks()), HeldDistances(np.empty((0, 2), int), np.empty(0, int), (), "")
    )
    return MappedFrames(frames, Mapping.of(scipy.sparse.csr_array(M)), maps, 1, None, None, 0.1, SYSTEM.kT, 3, "fast")


PART = np.array([0, 1, 0, 0, 1, 0, 0])


@pytest.mark.parametrize("ranks", [1, 3])
def test_rows_are_the_frames_that_are_written(work, tmp_path, ranks):
    """Of the second map, noise and all; on ranks each has its blocks."""

    def of_rank(world):
        grid = frames_grid(world, len(work.frames.parts.blocks))
        mapping = MappingPass(work, tmp_path / "mapped", HarmonicBeads(3).particles, {"map": "optimal"}, world)
        stage_done(mapping, world, tmp_path / "fits")
        return grid.blocks, stacked_rows(work, list(neural_rows(work, grid, PART)))

    found = on_ranks(ranks, of_rank)
    assert [number for blocks, _ in found for number in blocks] == list(range(4 + 1))
    rows = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(maps[1] for _, maps in found))
    store = open_force_store(tmp_path / "mapped")
    periodic = work.frames.store.periodic
    assert rows.R.shape == rows.F.shape == (5, 64, 3, 3)
    assert (rows.box is not None) == periodic
    part = np.repeat(PART, work.frames.parts.frames)
    done = 0
    for number, block in enumerate(store.blocks()):
        beads, k = read_block(store, block), block.frames
        row = jax.tree.map(lambda leaf, number=number: leaf[number], rows)
        np.testing.assert_array_equal(row.R[:k], beads.positions)
        np.testing.assert_array_equal(row.F[:k], beads.forces)
        if periodic:
            np.testing.assert_array_equal(row.box[:k], beads.box)
        np.testing.assert_array_equal(row.part[:k], part[done : done + k])
        assert not any(np.any(leaf[k:]) for leaf in jax.tree.leaves(row))
        done += k
    assert done == FRAMES


@pytest.mark.parametrize("ranks", [1, 3])
def test_the_sample_is_that_of_the_fitted_frames_of_some_blocks(work, ranks):
    def of_rank(world):
        grid = frames_grid(world, len(work.frames.parts.blocks))
        rows = stacked_rows(work, list(neural_rows(work, grid, PART)))[1]
        return rows, sample_of(rows, work, grid, blocks=3)

    found = on_ranks(ranks, of_rank)
    rows = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(mine for mine, _ in found))
    kept = [(rows.R[n], rows.part[n], work.frames.parts.blocks[n].frames) for n in (0, 2, 4)]
    chosen = np.concatenate([R[:k][part[:k] == 0] for R, part, k in kept])
    assert 0 < len(chosen) < 64 + 64 + 2
    for _, (R, box) in found:
        np.testing.assert_array_equal(R, chosen)
        if work.frames.store.periodic:
            np.testing.assert_array_equal(box, np.tile(EDGE * np.eye(3), (len(chosen), 1, 1)))
        else:
            assert box is None


@pytest.mark.parametrize("work", [True], indirect=True, ids=["box"])
def test_the_residuals_are_those_of_fitted_and_held_out_frames(work):
    """In float64, so that sums of 230 x 9 components agree to 1e-12."""

    def of_rank(world):
        grid = frames_grid(world, len(work.frames.parts.blocks))
        rows = stacked_rows(work, list(neural_rows(work, grid, PART)))[0]
        sample = BeadSample(["a", "b", "a"], np.empty((0, 2), int), *sample_of(rows, work, grid))
        problem = neural_force_matching(
            sample, 50.0, SYSTEM.temperature, Architecture(4, 1, 3, 15.0), precision="float64"
        )
        gradient = neural_gradient(problem, rows, work, grid)
        at = gradient.value(problem.init(0))
        return problem, rows, gradient.metrics(at), float(at.loss)

    (problem, rows, metrics, loss), *_ = on_ranks(1, of_rank)
    shared = problem.init(0).shared
    frames = [block.frames for block in work.frames.parts.blocks]
    every = jax.tree.map(lambda leaf: np.concatenate([leaf[n][:k] for n, k in enumerate(frames)]), rows)
    R, F = every.R.astype(float), every.F.astype(float)
    box = np.tile(EDGE * np.eye(3), (FRAMES, 1, 1))
    model = jax.jit(jax.vmap(lambda r, b: problem.forces(shared, r, b)))(R, box)
    square = np.mean((np.asarray(model) - F) ** 2, axis=(1, 2))
    held = np.repeat(PART, work.frames.parts.frames) == 1
    assert metrics["residual"] == pytest.approx(square[~held].mean(), rel=1e-12)
    assert metrics["residual_free"] == pytest.approx(square[held].mean(), rel=1e-12)
    assert loss == pytest.approx(square[~held].mean() / 50.0, rel=1e-12)


RUN = force_map_config("""
blocks = 7
bootstrap = 0
[problem.beads]
each = "index 0 3 6"
[problem.map]
methods = ["basic", "optimal"]
use = "optimal"
ridge = 0.0
[problem.force_matching]
bonds = "none"
pair_functions = 5
types = "one"
[problem.force_matching.neural]
width = 4
depth = 1
functions = 3
compare = ["basic"]
[optimizer]
max_steps = 2
[checkpoint]
every_steps = 1
""")
SAME = ("fit", "step", "evaluation", "loss", "residual", "residual_free", "gradient_norm")


def test_a_run_interrupted_after_every_step_is_the_run_that_was_not(tmp_path):
    """By the wall clock, in either of two potentials: each continuation makes a step."""
    r, f = SYSTEM.frames(150, 4)
    write_force_store(tmp_path / "store", SYSTEM.particles, {"a": (r, f, None)})
    (tmp_path / "config.toml").write_text(RUN)
    found = {}
    for name, sets in {"whole": [], "pieces": ["optimizer.wall_clock_minutes=3e-6"]}.items():
        config = load_config(tmp_path / "config.toml", [f"run.directory='{tmp_path / name}'", *sets])
        codes = [run_optimize(config, Ranks(), overwrite=True)]
        while codes[-1] == 75 and len(codes) < 20:
            codes.append(run_optimize(config, Ranks(), resume="newest"))
        assert codes[-1] == 0
        history = map(json.loads, (tmp_path / name / "history.jsonl").read_text().splitlines())
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        found[name] = [[row[key] for key in SAME] for row in history], metrics["force_matching"], len(codes)
    assert found["whole"][2] == 1
    assert found["pieces"][2] >= 4
    assert found["pieces"][:2] == found["whole"][:2]
    neural = found["whole"][1]["neural"]
    assert [one["map"] for one in neural] == ["optimal", "basic"]
    assert [one["noise_floor"] > 0 for one in neural] == [False, True]
