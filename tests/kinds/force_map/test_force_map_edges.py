"""Whole runs of kind "force-map" at the edge of what there is: one bead, few frames, virtual sites, several chains."""

import numpy as np
import pytest

from hpcfit.store.forces import open_force_store
from hpcfit.store.positions import read_block
from hpcfit.testsystems.harmonic_beads import HarmonicBeads, write_force_store
from tests.kinds.force_map.force_map_runs import force_map_config, optimized

SYSTEM = HarmonicBeads(12)
BASIC = "[problem.map]\nmethods = ['basic']\n"


def run_of(folder, beads='residue = "CA"', blocks=5, more="", report=True) -> dict:
    """The metrics of a run with 5 resamples."""
    keys = f"blocks = {blocks}\nbootstrap = 5\n[problem.beads]\n{beads}\n{more}"
    return optimized(folder, force_map_config(keys, report=report))


def written(folder):
    store = open_force_store(folder)
    blocks = [read_block(store, block) for block in store.blocks()]
    return np.concatenate([one.positions for one in blocks]), np.concatenate([one.forces for one in blocks])


def test_one_bead_has_maps_and_frames_but_nothing_to_compare_by(tmp_path):
    """The sum of all forces is the force on the centre of mass: springs to the places alone."""
    r, f = SYSTEM.frames(200, 1)
    write_force_store(tmp_path / "store", SYSTEM.particles, {"a": (r, f, None)})
    metrics = run_of(tmp_path, 'centers = ["all"]', more=BASIC)
    assert metrics["comparison"] is None
    assert metrics["chosen"] == "basic"
    R, F = written(tmp_path / "run/mapped")
    np.testing.assert_allclose(R[:, 0], r.astype(np.float32).mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(F[:, 0], f.astype(np.float32).sum(axis=1), atol=1e-3)
    assert (tmp_path / "run/report.html").exists()


def test_fewer_frames_than_coefficients_give_numbers_and_a_warning(tmp_path):
    """10 frames in 10 blocks; the first point of the learning curve has 3 components for 8 coefficients."""
    r, f = SYSTEM.frames(10, 2)
    write_force_store(tmp_path / "store", SYSTEM.particles, {"a": (r, f, None)})
    metrics = run_of(tmp_path, blocks=10)
    assert any("'optimal' has 8 free coefficients and 10 frames" in text for text in metrics["warnings"])
    points = metrics["learning"]["optimal"]
    assert points[0]["frames"] == 1
    assert points[0]["predicted"] is None
    assert points[-1]["predicted"] > 0
    assert (tmp_path / "run/report.html").exists()


def test_residues_of_one_number_in_two_chains_are_beads_each(tmp_path):
    r, f = SYSTEM.frames(100, 3)
    particles = SYSTEM.particles.changed(chains=("A", "A", "B", "B"), residue_numbers=(1, 2, 1, 2))
    write_force_store(tmp_path / "store", particles, {"a": (r, f, None)})
    metrics = run_of(tmp_path, 'residue = "center-of-mass"', more=BASIC, report=False)
    assert metrics["beads"] == 4
    assert written(tmp_path / "run/mapped")[1].shape == (100, 4, 3)


def test_forces_of_virtual_sites_are_given_to_their_parents_in_both_passes(tmp_path):
    """Atom 3 stands in for a site between atoms 0 and 6, in residue 2: its force reaches the beads of 0 and of 6."""
    openmm = pytest.importorskip("openmm")
    r, f = SYSTEM.frames(100, 4)
    masses = np.where(np.arange(12) == 3, 0.0, 12.0)
    elements = tuple("" if k == 3 else "C" for k in range(12))
    particles = SYSTEM.particles.changed(masses=masses, elements=elements)
    write_force_store(tmp_path / "store", particles, {"a": (r, f, None)})
    system = openmm.System()
    for mass in masses:
        system.addParticle(mass)
    system.setVirtualSite(3, openmm.TwoParticleAverageSite(0, 6, 0.25, 0.75))
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    f = f.astype(np.float32)
    for key, share in (("redistribute", 1.0), ("done", 0.0)):
        constraints = f"[problem.constraints]\nsystem = 'system.xml'\nvirtual_sites = '{key}'\n"
        metrics = run_of(tmp_path, 'each = "index 0 6"', more=constraints + BASIC, report=False)
        expected = f[:, [0, 6]] + share * f[:, 3:4] * np.array([0.25, 0.75])[:, None]
        np.testing.assert_allclose(written(tmp_path / "run/mapped")[1], expected, atol=1e-4)
        assert metrics["maps"][0]["held_out"] == pytest.approx(np.mean(expected.astype(float) ** 2), rel=1e-5)
        assert metrics["groups"] == 11
