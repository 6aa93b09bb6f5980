"""S(q) of the periodic box through the whole program: the mean over frames of boxes that change, its errors, ranks,
stops, bad input.

Not proved: the sums of a single frame (tests/observables/test_box_scattering.py).
"""

import json

import h5py
import numpy as np
import pytest

from hpcfit.kinds.clusters.files import BOX_COLUMNS
from hpcfit.observables.form_factors import amplitudes
from hpcfit.testsystems import beads_in_clusters
from tests.command import here, sets
from tests.conftest import assert_one_clear_error
from tests.kinds.clusters.test_clusters_run import ARRAYS, CONFIG, copied, everything, rows

SIDE, FRAMES, Q_MAX, WIDTH = 20.0, 70, 1.6, 0.1
IONS = 'ions={Pb="Pb2+"}'
BOX = f"problem.scattering={{q_max=1.2,points=20,box=true,box_q_max={Q_MAX},box_width={WIDTH},{IONS}}}"


@pytest.fixture(scope="module")
def beads(tmp_path_factory):
    """Two trajectories of 70 frames of few beads, four blocks; the box of the second one breathes by 2 %."""
    folder = tmp_path_factory.mktemp("box")
    few = beads_in_clusters.Beads(nodes=8, linkers=16, side=SIDE, frames=FRAMES, equilibration=200)
    for number in (1, 2):
        beads_in_clusters.write(folder, few._replace(seed=number))
        arrays = dict(np.load(folder / "trajectory.npz"))
        scale = 1 + (number - 1) * 0.02 * np.sin(np.arange(FRAMES))[:, None, None]
        arrays |= {"coordinates": arrays["coordinates"] * scale, "box": scale * SIDE * np.eye(3)}
        np.savez(folder / f"part{number}.npz", **arrays)
    (folder / "config.toml").write_text(CONFIG.format(source=ARRAYS.format(file="part*.npz")))
    done = here("prepare", folder / "config.toml")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def whole(beads):
    done = here("optimize", beads / "config.toml", *sets(BOX, "run.report=true"))
    assert done.returncode == 0, done.stderr
    return beads / "run"


def blocks_of(beads):
    """By statistical block of 7 frames: sums over all vectors of shells of S (I-I, I-Pb, Pb-Pb, total), q, and 1,
    written out with NumPy, [20, 6, shells]. float32 positions, as the store has them."""
    found = np.zeros((20, 6, int(Q_MAX / WIDTH) + 1))
    top = np.arange(-6, 7)
    grid = np.stack(np.meshgrid(top, top, top, indexing="ij"), axis=-1).reshape(-1, 3)
    grid = grid[[tuple(one) > (0, 0, 0) for one in grid.tolist()]]
    for number in (1, 2):
        arrays = np.load(beads / f"part{number}.npz")
        lead = arrays["elements"] == "Pb"
        for frame, (x, box) in enumerate(zip(arrays["coordinates"].astype("f4"), arrays["box"].astype("f4"))):
            q = 2 * np.pi * grid / float(box[0, 0])
            size = np.linalg.norm(q, axis=1)
            q, size = q[size <= Q_MAX], size[size <= Q_MAX]
            phase = np.exp(1j * x.astype(float) @ q.T)
            rho = np.stack([phase[~lead].sum(axis=0), phase[lead].sum(axis=0)])
            f, n = amplitudes(["I", "Pb2+"], size), np.array([16.0, 8.0])
            pairs = [(rho[a] * rho[b].conj()).real / np.sqrt(n[a] * n[b]) for a, b in ((0, 0), (0, 1), (1, 1))]
            values = [*pairs, np.abs(np.sum(f * rho, axis=0)) ** 2 / (n @ f**2), size, np.ones(len(size))]
            sums = [np.bincount((size / WIDTH).astype(int), one, found.shape[-1]) for one in values]
            found[10 * (number - 1) + frame // 7] += sums
    return found


def test_s_of_the_box_is_the_mean_over_frames(beads, whole):
    """The store has lengths in float32: phases of up to q r = 1.6 x 35, rounded by 2^-24 of it, 24 beads."""
    expected = blocks_of(beads).sum(axis=0)
    seen = expected[-1] > 0
    expected = (expected[:, seen] / expected[-1, seen])[:5]
    table = rows(beads, "box_scattering.csv")
    assert tuple(table[0]) == BOX_COLUMNS
    names = ("I-I", "I-Pb", "Pb-Pb", "total")
    by_name = {name: [row for row in table if row["of"] == name] for name in names}
    assert sum(map(len, by_name.values())) == len(table)
    for name, wanted in zip(names, expected):
        np.testing.assert_allclose([float(row["S"]) for row in by_name[name]], wanted, atol=24 * 56 * 2**-24)
        np.testing.assert_allclose([float(row["q"]) for row in by_name[name]], expected[-1], rtol=1e-6)


def test_its_errors_are_those_of_means_over_blocks(beads, whole):
    """With all blocks of one box the shares are equal, and the error is the standard error of the mean; here those of
    the second trajectory differ a little, by what moves between shells."""
    sums = blocks_of(beads)
    total = [row for row in rows(beads, "box_scattering.csv") if row["of"] == "total"]
    seen = np.flatnonzero(sums[:, -1].sum(axis=0))
    for row, shell in zip(total, seen, strict=True):
        count = sums[:, -1, shell]
        means, share = (sums[:, 3, shell] / np.maximum(count, 1))[count > 0], (count / count.sum())[count > 0]
        deviation = share * (means - share @ means)
        error = np.sqrt(len(share) / (len(share) - 1) * np.sum(deviation**2))
        assert float(row["error"]) == pytest.approx(error, abs=24 * 56 * 2**-24)
        assert float(row["vectors"]) == pytest.approx(count.sum() / 140, rel=1e-12)


def test_arrays_metrics_and_report_have_it(whole):
    with h5py.File(whole / "scattering.h5") as file:
        assert file["box/pairs"].asstr()[:].tolist() == ["I-I", "I-Pb", "Pb-Pb"]
        assert file["box/partial"].shape == (3, len(file["box/q"]))
    found = json.loads((whole / "metrics.json").read_text())["scattering"]["box"]
    assert found["elements"] == ["I", "Pb"]
    assert found["q_max"] <= Q_MAX
    assert "structure factor of the box" in (whole / "report.html").read_text()


def test_without_box_there_is_none_and_that_of_another_run_is_gone(beads, tmp_path):
    config = copied(beads, tmp_path)
    (tmp_path / "run").mkdir()
    for name in ("box_scattering.csv", "metrics.json"):
        (tmp_path / "run" / name).write_text("of another run")
    words = sets("problem.scattering={q_max=1.2,points=20}")
    done = here("optimize", config, "--overwrite", *words)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run/box_scattering.csv").exists()


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_s5_134_the_box_has_the_same_bytes_on_ranks(beads, whole, ranks, tmp_path, hpcfit):
    done = hpcfit("optimize", copied(beads, tmp_path), *sets(BOX), ranks=ranks)
    assert done.returncode == 0, done.stderr
    found, expected = everything(tmp_path / "run"), everything(whole)
    assert all(found[name] == expected[name] for name in ("box_scattering.csv", "scattering.h5"))


def test_s5_140_the_box_goes_on_where_it_was_stopped(beads, whole, tmp_path):
    """A clock that has run out after the first unit of each job: four blocks in three stages."""
    config, jobs = copied(beads, tmp_path), 1
    short = sets(BOX, "optimizer.wall_clock_minutes=1e-9")
    done = here("optimize", config, *short)
    while done.returncode == 75:
        assert jobs < 15, done.stderr
        done = here("optimize", config, "--resume", *short)
        jobs += 1
    assert done.returncode == 0, done.stderr
    assert jobs > 9
    found, expected = everything(tmp_path / "run"), everything(whole)
    assert all(found[name] == expected[name] for name in ("box_scattering.csv", "scattering.h5"))


def test_a_sample_of_vectors_has_the_same_mean_within_its_error(beads, whole, tmp_path):
    """Of 140 frames 20 vectors of each shell, in place of all: the difference is below 5 of its standard errors, for
    which frames count as independent, each a value of variance about S^2 (they are not quite: 2 x)."""
    few = BOX.replace("box=true", "box=true,box_vectors=20")
    done = here("optimize", copied(beads, tmp_path), *sets(few))
    assert done.returncode == 0, done.stderr
    every, some = ([row for row in rows(folder, "box_scattering.csv") if row["of"] == "total"]
                   for folder in (beads, tmp_path))  # fmt: skip
    assert max(float(row["vectors"]) for row in some) == 20
    for one, other in zip(every, some, strict=True):
        error = float(one["S"]) / np.sqrt(140 * float(other["vectors"]))
        assert abs(float(one["S"]) - float(other["S"])) < 5 * 2 * error


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["problem.scattering={box_width=0.1}"], "box_width has no effect without box = true"),
        (["problem.scattering={box_q_max=2.0}"], "box_q_max has no effect without box = true"),
        (["problem.scattering={box=true}", "problem.periodic=false"], "asks for the scattering of a periodic box"),
        (["problem.scattering={box=true,box_q_max=99.0}"], "use 0 to 75 1/A"),
        (['problem.scattering={box=true,ions={O="O1-"}}'], "ions.O has no effect: nodes, linkers and shells have I"),
        (["problem.scattering={box=true,box_q_max=0.1}"], "has no vector of its reciprocal lattice up to 0.1"),
    ],
    ids=range(6),
)
def test_one_clear_error(beads, settings, words, tmp_path):
    assert_one_clear_error(here("optimize", copied(beads, tmp_path), *sets(*settings)), [words])
