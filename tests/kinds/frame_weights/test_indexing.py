"""`hpcfit check` finds the indexing of a map where the lattice has more symmetry than the crystal."""

import ase.io
import numpy as np
import pytest
from ase import Atoms

from hpcfit.kinds.frame_weights.indexing import as_text, indexings, other_operators
from hpcfit.physics import reciprocal
from hpcfit.physics.scattering import diffuse_intensity, structure_factors_direct
from hpcfit.readers.maps import DiffuseMap, operator_of
from hpcfit.store.reference import Reflections
from hpcfit.store.structure_factors import open_store
from tests.command import here, sets

CELL = (9.0, 9.0, 12.0, 90.0, 90.0, 90.0)
T, D_MIN = 40, 1.2


def reflections(cell, group="P 1", ndiv=(1, 1, 1)):
    return Reflections(reciprocal.sphere(cell, ndiv, 2.0), ndiv, cell, group)


def named(cell, laue, group="P 1", ndiv=(1, 1, 1)):
    ours = reflections(cell, group, ndiv)
    measured = DiffuseMap(ours.hkl, ndiv, np.ones(len(ours)), None, cell, "P 1", "a map")
    return {as_text(one) for one in other_operators(ours, measured, laue)}


def test_operators_are_cosets_of_the_crystals_own_group():
    assert named(CELL, "4/mmm") == {"h,k,l"}
    assert len(named(CELL, "4/m")) == 2
    assert len(named(CELL, "P1", "P 41")) == 2  # the store knows its group
    assert len(named(CELL, "mmm")) == 2
    assert len(named(CELL, "-1")) == 8  # 422
    assert len(named((9.0, 9.0, 9.0, 90, 90, 90), "m-3")) == 2
    assert len(named((9.0, 9.0, 12.0, 90, 90, 120), "-3")) == 4  # 622 over 3
    assert named((9.0, 10.0, 12.0, 85, 92, 101), "P1") == {"h,k,l"}
    # a supercell of 2 x 1 x 1 has no fourfold axis, though its unit cell has one
    assert len(named(CELL, "-1", ndiv=(2, 1, 1))) == 4


@pytest.mark.parametrize("text", ["k,h,-l", "-h,-k,l", "h,k,l", "l,h,k", "h+k,-h,l"])
def test_an_operator_is_written_as_it_is_read(text):
    assert as_text(operator_of(text)) == text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A crystal of P1 in a tetragonal cell: 40 frames, the map of all of them, in its own and in another indexing."""
    path = tmp_path_factory.mktemp("indexing")
    random = np.random.default_rng(3)
    base = random.random((12, 3))
    x = base + random.normal(size=(T, 12, 3)) * 0.03 * random.random((1, 12, 3))
    elements = ["C", "N", "O"] * 4
    ase.io.write(path / "run.extxyz", [Atoms(elements, one * CELL[:3], cell=CELL[:3], pbc=True) for one in x])
    hkl = reciprocal.sphere(CELL, (1, 1, 1), D_MIN)
    inv_d2 = reciprocal.inverse_d2(hkl, (1, 1, 1), CELL)
    F = np.array([structure_factors_direct(elements, one, hkl, inv_d2) for one in x])
    x_h = diffuse_intensity(F, np.full(T, 1 / T))
    intensity = x_h * random.normal(1, 0.05, len(hkl))
    np.save(path / "exact.npy", x_h)
    for name, operator in (("right", "h,k,l"), ("wrong", "k,h,-l")):
        np.savez(path / f"{name}.npz", hkl=hkl @ operator_of(operator).T, intensity=intensity, cell=CELL)
        (path / f"{name}.toml").write_text(
            f'[frames]\nstore = "store"\n[prepare]\nd_min = {D_MIN}\n[[prepare.source]]\ntrajectory = "run.extxyz"\n'
            f'[experiment]\nfile = "{name}.npz"\n[problem]\nkind = "frame-weights"\nlaue = "P1"\n'
        )
    done = here("prepare", path / "right.toml")
    assert done.returncode == 0, done.stderr
    return path


def test_check_names_the_operator_that_the_map_needs(folder):
    done = here("check", folder / "wrong.toml")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the map agrees better with the frames as") == 1
    assert '[experiment] reindex = "k,h,-l"' in done.stderr
    again = here("check", folder / "wrong.toml", *sets('experiment.reindex="k,h,-l"'))
    assert again.returncode == 0, again.stderr
    assert "agrees better" not in again.stderr
    assert "reindex k,h,-l" in again.stderr + again.stdout


def test_check_says_nothing_of_a_map_that_is_right(folder):
    done = here("check", folder / "right.toml")
    assert done.returncode == 0, done.stderr
    assert "agrees better" not in done.stderr


def test_the_correlations_are_those_of_all_frames(folder):
    store = open_store(folder / "store")
    truth = np.load(folder / "right.npz")
    measured = DiffuseMap(truth["hkl"].astype(np.int32), (1, 1, 1), truth["intensity"], None, CELL, "P 1", "a map")
    found = indexings(store, store.blocks(), measured, "P1")
    assert as_text(found[0].operator) == "h,k,l"
    assert (len(found), found[0].orbits) == (8, len(truth["hkl"]))
    # float16 of (F - F0)/s has 11 bits, which x(h) of 40 frames averages.
    assert found[0].cc == pytest.approx(np.corrcoef(np.load(folder / "exact.npy"), truth["intensity"])[0, 1], abs=1e-3)
    assert all(one.cc < found[0].cc for one in found[1:])
    assert all(not one.beats(found[0]) for one in found[1:])
