"""[problem.constraints]: what is united, what contradicts, and what frames say of it."""

import logging

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.force_map import constraints as held_distances
from hpcfit.kinds.force_map.config import ConstraintsConfig
from hpcfit.kinds.force_map.constraints import SAMPLE_BLOCKS, HeldDistances, check_by_frames, open_constraints
from hpcfit.store.particles import Particles
from hpcfit.testsystems.harmonic_beads import write_force_store
from hpcfit.testsystems.water_dimer import molecule, write_system

RIGID = [[0, 1], [0, 2], [1, 2], [3, 4], [3, 5], [4, 5]]  # two waters


def waters(constraints=None, more: int = 0) -> Particles:
    """Two waters O H H, and some virtual sites M in the second."""
    residue = np.repeat([0, 1], [3, 3 + more])
    return Particles(
        names=("O", "H1", "H2") * 2 + ("M",) * more,
        elements=("O", "H", "H") * 2 + ("",) * more,
        residue=residue,
        residue_names=("HOH", "HOH"),
        residue_numbers=(1, 2),
        chains=("A", "A"),
        masses=[16.0, 1.0, 1.0] * 2 + [0.0] * more,
        bonds=np.array([[0, 1], [0, 2], [3, 4], [3, 5]]),
        constraints=constraints,
    )


def opened(particles: Particles, **choice) -> HeldDistances:
    return open_constraints(ConstraintsConfig(**choice), particles)


# ---- what is said ----------------------------------------------------------------------------------------------------


def test_what_is_given_together_is_united(tmp_path):
    system = write_system(tmp_path / "system.xml")
    both = opened(waters(), system=system, rules=["h-bonds"], pairs=[(5, 0)])
    np.testing.assert_array_equal(both.pairs, sorted([*RIGID, [0, 5]]))
    assert both.said == "6 of system.xml, 4 of rule h-bonds, 1 of pairs"
    assert not len(both.virtual)
    assert both.sites == ()


@pytest.mark.parametrize(
    ("rule", "pairs"),
    [("h-bonds", [[0, 1], [0, 2], [3, 4], [3, 5]]), ("all-bonds", [[0, 1], [0, 2], [3, 4], [3, 5]]),
     ("rigid-water", RIGID)],
)  # fmt: skip
def test_rules(rule, pairs):
    np.testing.assert_array_equal(opened(waters(), rules=[rule]).pairs, pairs)


def test_h_bonds_are_those_with_hydrogen():
    heavy = waters().changed(elements=("O", "H", "C") * 2)
    np.testing.assert_array_equal(opened(heavy, rules=["h-bonds"]).pairs, [[0, 1], [3, 4]])


def test_virtual_sites_are_no_part_of_rigid_water_which_needs_no_bonds():
    bare = waters(more=1).changed(bonds=np.empty((0, 2), int))
    found = opened(bare, rules=["rigid-water"])
    np.testing.assert_array_equal(found.pairs, RIGID)
    np.testing.assert_array_equal(found.virtual, [6])


def test_the_store_is_used_unless_it_is_not_to_be():
    known = waters(np.array([[0, 1]]))
    np.testing.assert_array_equal(opened(known).pairs, [[0, 1]])
    assert opened(known).said == "1 of the store"
    alone = opened(known, store=False)
    assert alone.pairs.shape == (0, 2)
    assert alone.said == "none"


def test_agreement_of_store_and_system_is_no_error(tmp_path):
    found = opened(waters(np.array(RIGID)), system=write_system(tmp_path / "s.xml"), pairs=[(1, 0)])
    np.testing.assert_array_equal(found.pairs, RIGID)


@pytest.mark.parametrize(
    ("of_store", "words"),
    [
        (RIGID[:5], r"s.xml has 6 constraints, the store 5: atom 4 \(H1 of HOH 2, chain A\) and atom 5 .* only in s"),
        ([*RIGID, [2, 3]], r"s.xml has 6 constraints, the store 7: atom 2 .* and atom 3 .* only in the store"),
    ],
)  # fmt: skip
def test_a_contradiction_names_both_counts_and_the_atoms(tmp_path, of_store, words):
    with pytest.raises(InputError, match=words):
        opened(waters(np.array(of_store)), system=write_system(tmp_path / "s.xml"))


def test_rules_or_pairs_beyond_what_the_store_knows_contradict_it():
    known = waters(np.array(RIGID[:2]))
    with pytest.raises(InputError, match=r"has 1 constraints, the store 2: atom 0 .* and atom 3 .* only in pairs"):
        opened(known, pairs=[(3, 0)])
    np.testing.assert_array_equal(opened(known, pairs=[(2, 0)]).pairs, RIGID[:2])  # less is part of it
    np.testing.assert_array_equal(opened(known, store=False, pairs=[(3, 0)]).pairs, [[0, 3]])


def test_a_system_of_another_size(tmp_path):
    with pytest.raises(InputError, match=r"s.xml has 9 particles, the store has 6"):
        opened(waters(), system=write_system(tmp_path / "s.xml", molecules=3))


@pytest.mark.parametrize("text", ["<System", "<State/>"])
def test_a_file_that_is_no_system(tmp_path, text):
    path = tmp_path / "s.xml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"s.xml cannot be read as a System of OpenMM"):
        opened(waters(), system=path)


@pytest.mark.parametrize(
    ("particles", "choice", "words"),
    [
        (waters(), {"pairs": [(0, 1), (2, 6)]}, r"pairs names atoms \[2, 6\], the store has 6"),
        (waters(), {"pairs": [(2, 99)]}, r"pairs names atoms \[2, 99\]"),
        (waters().changed(bonds=np.empty((0, 2), int)), {"rules": ["h-bonds"]}, "rules = 'h-bonds': .* no bonds"),
        (waters().changed(residue_names=("LIG", "LIG")), {"rules": ["rigid-water"]}, "no residue .* is called water"),
    ],
)
def test_errors_of_rules_and_pairs(particles, choice, words):
    with pytest.raises(InputError, match=words):
        opened(particles, **choice)


def four_site_water(tmp_path):
    """A System of two waters whose last particle is a virtual site between 3, 4 and 5."""
    import openmm

    system = openmm.System()
    for mass in [16.0, 1.0, 1.0] * 2 + [0.0]:
        system.addParticle(mass)
    system.setVirtualSite(6, openmm.ThreeParticleAverageSite(3, 4, 5, 0.6, 0.2, 0.2))
    path = tmp_path / "four.xml"
    path.write_text(openmm.XmlSerializer.serialize(system))
    return path


def test_virtual_sites_of_a_system_need_to_be_told_of(tmp_path):
    path, particles = four_site_water(tmp_path), waters(more=1)
    with pytest.raises(InputError, match=r"four.xml has 1 virtual sites") as caught:
        opened(particles, system=path)
    assert "'done'" in str(caught.value)
    assert "'redistribute'" in str(caught.value)
    done, given = (opened(particles, system=path, virtual_sites=key) for key in ("done", "redistribute"))
    np.testing.assert_array_equal(done.virtual, [6])
    assert done.sites == ()
    assert [(one.site, one.parents, one.weights) for one in given.sites] == [(6, (3, 4, 5), (0.6, 0.2, 0.2))]


# ---- what frames say -------------------------------------------------------------------------------------------------


def rotations(count: int, rng) -> np.ndarray:
    Q, _ = np.linalg.qr(rng.normal(size=(count, 3, 3)))
    return Q


def rigid_frames(count: int, seed=0, box: float | None = None, free=()) -> tuple[np.ndarray, np.ndarray | None]:
    """Positions of two rigid waters, each turned and placed at random. box: its edge, into which atoms are wrapped one
    by one. free: atoms that vibrate along their bond by 0.03 A."""
    rng = np.random.default_rng(seed)
    inside = np.tile(molecule(), (count, 2, 1, 1))
    for atom in free:
        row = inside[:, atom // 3, atom % 3]
        inside[:, atom // 3, atom % 3] = row * (1 + 0.03 * rng.normal(size=(count, 1)))
    turned = np.stack([np.einsum("tax,txy->tay", inside[:, k], rotations(count, rng)) for k in (0, 1)], axis=1)
    r = (turned + 10 * rng.random((count, 2, 1, 3))).reshape(count, 6, 3)
    if box is None:
        return r, None
    return r % box, np.tile(box * np.eye(3), (count, 1, 1))


def stored(tmp_path, positions, box=None, particles=None, sources=1):
    cut = np.array_split(np.arange(len(positions)), sources)
    parts = {
        f"s{k}": (positions[rows], np.ones_like(positions[rows]), None if box is None else box[rows])
        for k, rows in enumerate(cut)
    }
    return write_force_store(tmp_path / "store", particles or waters(), parts)


def checked(held: list, store, said="a test") -> None:
    pairs = np.array(held, int).reshape(-1, 2)
    check_by_frames(HeldDistances(pairs, np.empty(0, int), (), said), store, store.blocks())


@pytest.fixture
def warned(caplog):
    """The warnings so far, as a function."""
    caplog.set_level(logging.WARNING, "hpcfit")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("box", [None, 10.0])
@pytest.mark.parametrize("decimals", [None, 2])
def test_rigid_waters_are_held_wrapped_or_rounded(tmp_path, warned, box, decimals):
    """XTC rounds to 0.01 A: by at most 0.01 A along each axis between two rounded ends."""
    r, cell = rigid_frames(200, 1, box)
    checked(RIGID, stored(tmp_path, r if decimals is None else np.round(r, decimals), cell))
    assert warned() == []


def test_a_distance_that_is_not_held_is_an_error_which_names_it(tmp_path):
    store = stored(tmp_path, rigid_frames(200, 2, free=[4])[0])
    with pytest.raises(InputError, match=r"1 of 2 constraints \(a test\) .*atom 3 \(O of HOH 2.*atom 4 .*by \+-0\."):
        checked([[0, 1], [3, 4]], store)
    checked([[0, 1], [3, 5]], store)


@pytest.mark.parametrize("decimals", [5, 2])
def test_held_bonds_that_nobody_named_are_a_warning(tmp_path, warned, decimals):
    store = stored(tmp_path, np.round(rigid_frames(200, 3, free=[4])[0], decimals))
    checked([[0, 1]], store)
    (said,) = warned()
    assert "2 bonds do not vary in the frames and are not among the 1 constraints" in said
    assert "atom 0 (O of HOH 1, chain A) and atom 2" in said


def test_without_pairs_or_with_one_frame_there_is_nothing_to_compare(tmp_path, warned):
    bare = waters().changed(bonds=np.empty((0, 2), int))
    checked([], stored(tmp_path / "a", rigid_frames(50, 4)[0], particles=bare))
    checked([[0, 4]], stored(tmp_path / "b", rigid_frames(1, 5)[0]))
    assert warned() == []


def test_a_sample_of_blocks_is_read_however_many_there_are(tmp_path, monkeypatch):
    """First and last among them, so that a distance that drifts is seen."""
    r, _ = rigid_frames(64 * 12, 6)
    store, read = stored(tmp_path, r, sources=3), []
    original = held_distances.read_block
    monkeypatch.setattr(held_distances, "read_block", lambda s, block: read.append(block) or original(s, block))
    checked(RIGID, store)
    assert len(read) == SAMPLE_BLOCKS < len(store.blocks())
    assert read[0] == store.blocks()[0]
    assert read[-1] == store.blocks()[-1]
